"""The package as its users see it: names, examples, cost of the import."""

import inspect
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from infra_core import polling

EXPORTED: list[str] = vars(polling)["__all__"]


def test_every_public_name_is_there_and_documented() -> None:
    """`__all__` lists what exists; `dir()` shows it; each callable says what it does."""
    assert set(EXPORTED) <= set(dir(polling))
    for name in EXPORTED:
        value = getattr(polling, name)
        if callable(value) and not isinstance(value, typing.TypeVar):
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = polling.no_such_name  # type: ignore[attr-defined]


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
