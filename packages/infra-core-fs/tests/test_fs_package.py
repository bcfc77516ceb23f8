"""The package as its users see it: names, examples, cost of the import."""

import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from infra_core import fs

MODULES = [name for _, name, _ in pkgutil.iter_modules(fs.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the docstrings show is what happens."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module = importlib.import_module(f"infra_core.fs.{name}")
    names = {**vars(fs), "Path": Path, "tempfile": tempfile}
    finder = doctest.DocTestFinder(exclude_empty=True)
    runner = doctest.DocTestRunner(
        optionflags=doctest.IGNORE_EXCEPTION_DETAIL | doctest.ELLIPSIS, verbose=False
    )
    for test in finder.find(module, extraglobs=names):
        runner.run(test)
    # classes name the package as their module, so their own docstrings are looked up by hand
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == "infra_core.fs" and value.__doc__:
            parser = doctest.DocTestParser()
            runner.run(parser.get_doctest(value.__doc__, dict(names), value.__name__, None, None))
    assert runner.failures == 0


def test_every_public_name_is_there_and_documented() -> None:
    """`__all__` lists what exists, sorted, and each callable says what it does."""
    assert len(set(fs.__all__)) == len(fs.__all__)
    for name in fs.__all__:
        value = getattr(fs, name)
        if callable(value):
            assert inspect.getdoc(value), name
            assert value.__module__ == "infra_core.fs", name


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("compute_checksum", ["path", "algorithm"]),
        ("ensure_parent", ["path"]),
        ("hashed_asset_path", ["base_dir", "key", "filename_hint"]),
    ],
)
def test_the_parameters_of_0_7(name: str, parameters: list[str]) -> None:
    """Existing calls keep working, by position and by name."""
    signature = inspect.signature(getattr(fs, name))
    assert list(signature.parameters) == parameters
    assert all(
        parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        for parameter in signature.parameters.values()
    )


def test_importing_is_cheap_and_does_nothing() -> None:
    """No json, urllib, asyncio or tempfile before somebody needs them; no thread, no hook."""
    code = (
        "import sys, threading; before = set(sys.modules); import infra_core.fs;"
        "print(sorted({'json', 'asyncio', 'tempfile', 'mimetypes', 'email'}"
        " & (set(sys.modules) - before)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"
