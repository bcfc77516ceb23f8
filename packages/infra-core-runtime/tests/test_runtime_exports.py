"""The package's names: all there, none imported before it is used."""

import doctest
import subprocess
import sys
from importlib import import_module

import pytest

import infra_core.runtime as runtime
from infra_core.runtime.lazy import lazy_exports


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("name", runtime.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    """And dir() knows it."""
    assert getattr(runtime, name) is not None
    assert name in dir(runtime)


@pytest.mark.parametrize("name", ["clock", "testing", "lazy"])
def test_public_submodules_are_attributes(name: str) -> None:
    """`runtime.clock.sleep` works after `import infra_core.runtime` alone."""
    run(f"import infra_core.runtime as runtime; assert runtime.{name}.__all__")


@pytest.mark.parametrize(
    "module",
    ["_background_loop", "_redaction", "_retry", "_retry_policy", "_secret_filter", "testing"],
)
def test_the_examples_of_the_docstrings_hold(module: str) -> None:
    """What help() shows is true."""
    results = doctest.testmod(import_module(f"infra_core.runtime.{module}"))
    assert results.attempted
    assert not results.failed


def test_an_unknown_name_is_an_attribute_error() -> None:
    """As for any module."""
    with pytest.raises(AttributeError, match=r"'infra_core\.runtime' has no attribute 'nope'"):
        _ = runtime.nope


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


def test_lazy_exports_lists_what_is_not_imported_yet() -> None:
    """dir() of a package shows its names before their first use."""
    sys.modules["test_lazy_package"] = module = type(sys)("test_lazy_package")
    try:
        find, names = lazy_exports("test_lazy_package", {"string": ["digits"]}, submodules=["deep"])
        assert {"digits", "deep"} <= set(names())
        assert find("digits") == vars(module)["digits"] == "0123456789"
        with pytest.raises(AttributeError, match="no attribute 'letters'"):
            find("letters")
    finally:
        del sys.modules["test_lazy_package"]
