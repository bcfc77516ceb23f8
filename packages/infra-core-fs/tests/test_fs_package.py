"""The package as its users see it: names, examples, cost of the import."""

import inspect
import subprocess
import sys

import pytest

from infra_core import fs


@pytest.mark.posix(reason="the stand-in replaces two of them")
def test_every_public_name_is_there_and_documented() -> None:
    """`__all__` lists what exists, sorted, and each callable says what it does."""
    assert len(set(fs.__all__)) == len(fs.__all__)
    assert {"AtomicFile", "commit_together", "write_text_atomic"} <= set(fs.__all__)
    for name in fs.__all__:
        value = getattr(fs, name)
        if callable(value):
            assert inspect.getdoc(value), name
            assert value.__module__ == "infra_core.fs", name


def test_importing_is_cheap_and_does_nothing() -> None:
    """No json, urllib, asyncio or tempfile before somebody needs them; no thread, no hook."""
    code = (
        "import sys, threading; before = set(sys.modules); import infra_core.fs;"
        "print(sorted({'json', 'asyncio', 'tempfile', 'mimetypes', 'email'}"
        " & (set(sys.modules) - before)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"
