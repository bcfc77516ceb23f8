"""What runs on a worker of a Dask cluster: one task under a budget, which can be cancelled.

A task gets a thread of its own, and an event loop if it is asynchronous; the worker's thread
watches over it. So a task that is late, or cancelled, gives up the worker's slot at the end of
the grace at the latest, whatever it does.
"""

import asyncio
import concurrent.futures
import contextlib
import inspect
import pickle
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from ._exceptions import add_note
from ._printable import as_text
from ._redaction import redact_secrets, sanitize_url
from ._threads import ThreadPool

__all__ = ["Report", "cancel", "execute"]


@dataclass(slots=True)
class Report:
    """How an attempt ended on a worker."""

    status: str  # "succeeded", "failed", "timed_out" or "cancelled"
    value: bytes = b""  # what it returned, pickled
    error: bytes = b""  # a callable that makes what it raised, pickled
    text: str = ""  # what it raised
    notes: tuple[str, ...] = ()  # for the error
    seconds: float = 0.0  # of its run there
    left_behind: bool = False  # it ignored its cancellation and still runs

    def raised(self) -> BaseException:
        """Return what the task raised, as it was, or in words where its class is unknown here."""
        error: BaseException
        try:
            error = pickle.loads(self.error)()  # noqa: S301 - from the caller's own cluster
        except Exception:  # noqa: BLE001 - whatever its class does
            error = RuntimeError(f"{self.text} (on a worker; its class cannot be sent back)")
        for note in self.notes:
            add_note(error, note)
        return error


class _Attempt:
    """One task on its thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.changed = threading.Event()  # ended, or to be cancelled
        self.cancelled = False
        self._function = function
        self._lock = threading.Lock()
        self._task: asyncio.Task[Any] | None = None

    def start(self) -> None:
        """Begin it in a thread; it is done in this one where the system has no more to give."""
        self.work = _threads.submit(self._main)
        self.work.add_done_callback(lambda _: self.changed.set())

    def _main(self) -> Any:
        value = self._function()
        return asyncio.run(self._await(value)) if inspect.isawaitable(value) else value

    async def _await(self, awaitable: Any) -> Any:
        with self._lock:
            task = self._task = asyncio.current_task()
            late = self.cancelled
        if late and task is not None:
            task.cancel()
        return await awaitable

    def cancel(self) -> None:
        """Cancel the task, once; a synchronous one can only be left behind."""
        with self._lock:
            if self.cancelled:
                return
            self.cancelled = True
            if self._task is not None:
                with contextlib.suppress(RuntimeError):  # its loop has just been closed
                    self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        self.changed.set()


_threads = ThreadPool("infra-core-task", 1000)  # as many as a worker may have of its own
_lock = threading.Lock()
_running: dict[str, _Attempt] = {}
# Cancelled before they arrived here. Bounded: a key that is forgotten means that one task runs
# whose result is not waited for.
_refused: deque[str] = deque(maxlen=10_000)


def execute(pickled: bytes, budget: float | None, grace: float, key: str) -> Report:
    """Run a task to its end, for `budget` seconds and then `grace` more at the most."""
    started = time.monotonic()
    try:
        function = pickle.loads(pickled)  # noqa: S301 - from the client of this very cluster
    except Exception as error:  # noqa: BLE001 - reported
        hint = "the task could not be loaded on a worker: is its module installed there?"
        return _failed(error, 0.0, hint)
    with _lock:
        if key in _refused:
            return Report("cancelled")
        attempt = _running[key] = _Attempt(function)
    stopped = "cancelled"
    try:
        attempt.start()
        attempt.changed.wait(budget)
        if not attempt.work.done():
            if not attempt.cancelled:
                stopped = "timed_out"
            attempt.cancel()
            concurrent.futures.wait([attempt.work], grace)
    finally:
        with _lock:
            _running.pop(key, None)
    seconds = time.monotonic() - started
    if attempt.work.cancel():  # its thread does not count any longer
        return Report(stopped, seconds=seconds, left_behind=True)
    raised = attempt.work.exception()
    if raised is None:
        return _succeeded(attempt.work.result(), seconds)
    if isinstance(raised, asyncio.CancelledError):
        return Report(stopped, seconds=seconds)
    return _failed(raised, seconds)


def _succeeded(value: Any, seconds: float) -> Report:
    try:
        pickled = import_module("cloudpickle").dumps(value)
    except Exception as error:  # noqa: BLE001 - reported
        refusal = TypeError(
            f"the result, a {type(value).__name__}, cannot be sent back from the worker "
            f"({error}): return plain data"
        )
        return _failed(refusal, seconds)
    return Report("succeeded", value=pickled, seconds=seconds)


def _failed(error: BaseException, seconds: float, *notes: str) -> Report:
    """Make the error fit for travel, its traceback as a note."""
    lines = redact_secrets("".join(traceback.format_exception(error)))
    text = f"{type(error).__qualname__}: {redact_secrets(as_text(error))}"
    if isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit)):
        error = RuntimeError(f"the task raised {type(error).__name__} on a worker: {error}")
    return Report(
        "failed",
        error=_packed(error),
        text=text,
        notes=(*notes, f"raised on a worker:\n{lines}"),
        seconds=seconds,
    )


def _packed(error: BaseException) -> bytes:
    """Pickle an error that can be unpickled, by its parts where its class knows no better.

    Many errors take other arguments than their `args`, and so cannot be unpickled: those of httpx
    with their request and response among them. What counts of these is the status.
    """
    if packed := _packed_call(_itself, error):
        return packed
    members = getattr(error, "exceptions", None)
    if isinstance(members, tuple):  # ExceptionGroup
        text = redact_secrets(as_text(error.args[0]))
        return _packed_call(_group, type(error), text, [_packed(member) for member in members])
    kept: dict[str, Any] = {}
    for name, value in vars(error).items():
        status = getattr(value, "status_code", None)
        if isinstance(status, int):
            url = sanitize_url(as_text(getattr(value, "url", "")))
            kept[name] = SimpleNamespace(status_code=status, url=url)
        elif value is None or isinstance(value, (bool, int, float, str)):
            kept[name] = redact_secrets(value) if isinstance(value, str) else value
        elif name == "_request":  # httpx asks whether it is there
            kept[name] = None
    args = tuple(redact_secrets(as_text(arg)) for arg in error.args)
    return _packed_call(_assemble, type(error), args, kept)


def _packed_call(function: Callable[..., BaseException], *args: Any) -> bytes:
    """Pickle a call that makes an error; nothing if it does not survive that."""
    call = partial(function, *args)
    try:
        packed: bytes = import_module("cloudpickle").dumps(call)
        same = type(pickle.loads(packed)()) is type(call())  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever its class does
        return b""
    return packed if same else b""


def _itself(error: BaseException) -> BaseException:
    return error


def _group(kind: Callable[..., BaseException], text: str, members: list[bytes]) -> BaseException:
    return kind(text, [pickle.loads(member)() for member in members])  # noqa: S301 - our own


def _assemble(
    kind: type[BaseException], args: tuple[str, ...], state: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *args)  # which keeps them as its `args`
    vars(error).update(state)
    return error


def cancel(keys: Iterable[str]) -> list[str]:
    """Cancel those of these tasks that run here, refuse the others; return those that run."""
    found = []
    for key in keys:
        with _lock:
            attempt = _running.get(key)
            if attempt is None:
                _refused.append(key)
        if attempt is not None:
            attempt.cancel()
            found.append(key)
    return found
