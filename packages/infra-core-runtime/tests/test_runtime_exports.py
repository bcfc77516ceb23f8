"""The package's names: all there, none imported before it is used."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from importlib import import_module
from pathlib import Path

import pytest

import infra_core.runtime as runtime


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", vars(runtime)["__all__"])
def test_every_exported_name_is_there(name: str) -> None:
    """And dir() knows it."""
    assert getattr(runtime, name) is not None
    assert name in dir(runtime)


@pytest.mark.parametrize("name", ["RetryDetails", "RetryPolicy", "RuntimeStats", "TaskOutcome"])
def test_what_is_handed_out_cannot_be_changed(name: str) -> None:
    """Each of several callbacks gets the same object."""
    kind = getattr(runtime, name)
    with pytest.raises(FrozenInstanceError):
        setattr(object.__new__(kind), fields(kind)[0].name, None)


@pytest.mark.parametrize("name", ["clock", "testing", "lazy"])
def test_public_submodules_are_attributes(name: str) -> None:
    """`runtime.clock.sleep` works after `import infra_core.runtime` alone."""
    run(f"import infra_core.runtime as runtime; assert runtime.{name}.__all__")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match=r"'infra_core\.runtime' has no attribute 'nope'"):
        _ = runtime.nope  # type: ignore[attr-defined]


def test_the_import_loads_nothing_that_costs() -> None:
    """Neither asyncio nor logging nor dataclasses, nor any module of this package but lazy."""
    run(
        "import sys, infra_core.runtime\n"
        "loaded = set(sys.modules)\n"
        "assert not loaded & {'asyncio', 'logging', 'dataclasses', 'threading'}, loaded\n"
        "ours = {name for name in loaded if name.startswith('infra_core.runtime')}\n"
        "assert ours == {'infra_core.runtime', 'infra_core.runtime.lazy'}, ours\n"
    )


def test_waiting_synchronously_needs_no_asyncio() -> None:
    """A script that only retries and redacts does not pay for an event loop."""
    run(
        "import sys\n"
        "from infra_core.runtime import RetryPolicy, clock, retry_sync\n"
        "from infra_core.runtime import sanitize_url, trace_fields\n"
        "retry_sync(lambda: 1, policy=RetryPolicy(), should_retry=bool)\n"
        "sanitize_url('https://h/?sig=1'); trace_fields(); clock.sleep(0)\n"
        "assert 'asyncio' not in sys.modules\n"
    )


def test_a_name_is_looked_up_once() -> None:
    """After the first use it is a plain attribute of the package."""
    assert runtime.RetryPolicy is vars(runtime)["RetryPolicy"]


@pytest.fixture
def stubbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path whose names stand in a stub, and that package's folder."""
    folder = tmp_path / "stubbed_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from infra_core.runtime.lazy import stub_exports\n"
        "__getattr__, __dir__, __all__ = stub_exports(\n"
        "    __name__, unlisted=['punctuation'], renamed={'LETTERS': ('string', 'ascii_letters')}\n"
        ")\n"
    )
    (folder / "__init__.pyi").write_text(
        "import os\n"
        "from . import deep as deep\n"
        "from .deep import deepest as deepest\n"
        "from string import digits as digits, hexdigits, punctuation as punctuation\n"
        "LETTERS: str\n"
    )
    (folder / "deep.py").write_text("deepest = 'bottom'\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("stubbed_package")]:
        del sys.modules[name]


def test_a_stub_is_where_a_package_writes_its_names(stubbed: Path) -> None:
    """What the stub re-exports is there, and nothing that it only uses."""
    package = import_module("stubbed_package")
    assert {"LETTERS", "deep", "digits", "__all__"} <= set(dir(package))  # before their first use
    assert vars(package)["__all__"] == ["LETTERS", "deep", "deepest", "digits"]
    assert package.digits == "0123456789"
    assert package.deepest == package.deep.deepest == "bottom"
    assert package.LETTERS.startswith("abc")
    assert package.punctuation  # unlisted: there, but not for `import *`
    for name in ("hexdigits", "os"):
        with pytest.raises(AttributeError, match="no attribute"):
            getattr(package, name)


def test_a_stub_that_was_left_out_is_named(stubbed: Path) -> None:
    """A program packed without its *.pyi files says which option packs them."""
    (stubbed / "__init__.pyi").unlink()
    with pytest.raises(ImportError, match=r"__init__\.pyi.*PyInstaller: --collect-all"):
        import_module("stubbed_package")


def test_a_stub_in_a_zip_file_is_read(stubbed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip applications work."""
    archive = stubbed.parent / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in stubbed.iterdir():
            packed.write(path, f"stubbed_package/{path.name}")
            path.unlink()
    stubbed.rmdir()
    monkeypatch.syspath_prepend(archive)
    assert import_module("stubbed_package").digits == "0123456789"


def test_nothing_is_printed_where_no_logging_is_set_up() -> None:
    """Warnings of a library belong to the application; logging would print them to stderr."""
    script = (
        "import logging\nfrom infra_core.runtime import RetryPolicy, retry_sync, sanitize_url\n"
        "logging.getLogger('infra_core.http').warning('x')\n"
        "print(logging.getLogger('infra_core').handlers)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("NullHandler") == 1
