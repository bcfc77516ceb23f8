"""The package as its users see it: names, examples, cost of the import."""

import asyncio
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from infra_core import polling

EXPORTED: list[str] = vars(polling)["__all__"]
MODULES = [name for _, name, _ in pkgutil.iter_modules(polling.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    """What the docstrings show is what happens."""
    module = importlib.import_module(f"infra_core.polling.{name}")
    names = {name: getattr(polling, name) for name in EXPORTED} | {"asyncio": asyncio}
    runner = doctest.DocTestRunner(verbose=False)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=names):
        runner.run(test)
    assert runner.failures == 0


def test_every_public_name_is_there_and_documented() -> None:
    """`__all__` lists what exists; `dir()` shows it; each callable says what it does."""
    assert set(EXPORTED) <= set(dir(polling))
    for name in EXPORTED:
        value = getattr(polling, name)
        if callable(value) and not isinstance(value, typing.TypeVar):
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = polling.no_such_name  # type: ignore[attr-defined]


FUNCTION = {
    "timeout": 600.0,
    "poll_interval": 5.0,
    "on_poll": None,
    "handle_404": True,
    "initial_delay": 0.0,
    "backoff_multiplier": 1.0,
    "max_backoff": 60.0,
}


@pytest.mark.parametrize("name", ["poll_until", "poll_until_async"])
def test_the_parameters_of_0_7(name: str) -> None:
    """Names, kinds and defaults; what is new comes after, by name only."""
    signature = inspect.signature(getattr(polling, name))
    assert list(signature.parameters)[:2] == ["fetch_fn", "is_terminal"]
    given = {
        parameter.name: parameter.default
        for parameter in signature.parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    assert list(given)[: len(FUNCTION)] == list(FUNCTION)
    assert {key: given[key] for key in FUNCTION} == FUNCTION


def test_the_poller_of_0_7() -> None:
    """Constructor, methods and error attributes."""
    parameters = list(inspect.signature(polling.StatusPoller).parameters)
    assert parameters[:3] == ["fetch_fn", "config", "status_extractor"]
    assert "on_poll" in inspect.signature(polling.StatusPoller.poll).parameters
    assert inspect.iscoroutinefunction(polling.StatusPoller.poll_async)
    assert polling.PollingTimeoutError("m", last_response=1).last_response == 1
    assert polling.PollingFailureError("m", response=2).response == 2
    assert issubclass(polling.PollingTimeoutError, polling.PollingError)
    assert issubclass(polling.PollingFailureError, polling.PollingError)
    poller: polling.StatusPoller[str] = polling.StatusPoller[str](lambda: "completed")
    assert poller.poll() == "completed"


def test_importing_is_cheap_and_does_nothing() -> None:
    """Not even asyncio is imported before somebody polls; no thread, no hook."""
    code = (
        "import sys, threading; before = set(sys.modules); import infra_core.polling;"
        "print(sorted({'asyncio', 'logging', 'email', 'httpx', 'dataclasses'}"
        " & (set(sys.modules) - before)), threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 1"


def test_the_package_is_typed() -> None:
    """PEP 561."""
    assert (Path(polling.__path__[0]) / "py.typed").is_file()
