"""Polling by status: where responses have it, and what ends a poll by it."""

import asyncio
import enum
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar, overload, runtime_checkable

from infra_core.runtime import redact_secrets, trace_fields

from ._config import PollingConfig, checked_config
from ._drivers import drive_async, drive_sync
from ._errors import PollingFailureError
from ._run import PollRules, PollRun, check_callable, logger, plain

__all__ = ["StatusExtractor", "StatusPoller", "StatusRules", "extract_status", "status_at"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_STATUS_NAMES: Final = ("status", "state", "runtimeStatus")
_MESSAGE_NAMES: Final = ("error_message", "error", "message")
# Both spellings of "cancelled" are in use, among the Azure services alone.
_TERMINAL: Final = frozenset({"completed", "succeeded", "failed", "cancelled", "canceled"})
_FAILURE: Final = frozenset({"failed", "cancelled", "canceled"})
_MISSING: Final = object()


@runtime_checkable
class StatusExtractor(Protocol[T_co]):
    """Anything that finds the status in a response; None when it has none."""

    def __call__(self, response: Any, /) -> T_co:
        """Return the status."""


def extract_status(response: object) -> str | None:
    """Return the status of a response, wherever responses usually have it.

    Looks for `status`, then `state`, then `runtimeStatus`, as a key or an attribute. A response
    that is itself a string or an enum member is the status. Enum members give their value when it
    is a string, else their name.

    Example:
        >>> extract_status({"status": "running"}), extract_status("Completed")
        ('running', 'Completed')
    """
    if isinstance(response, (str, bytes, enum.Enum)):
        return _text(response)
    for name in _STATUS_NAMES:
        value = _child(response, name)
        if value is not _MISSING and value is not None:
            return _text(value)
    return None


def status_at(path: str) -> StatusExtractor[str | None]:
    """Return an extractor for a status that lies deeper, such as `properties.provisioningState`.

    Each step is a key, an attribute or, for sequences, an index.

    Args:
        path: Steps separated by dots.

    Raises:
        ValueError: The path is empty or has an empty step.

    Example:
        >>> extract = status_at("jobs.0.state")
        >>> extract({"jobs": [{"state": "done"}]})
        'done'
    """
    steps = path.split(".") if isinstance(path, str) else []
    if not all(steps) or not steps:
        raise ValueError(
            f"the status path {path!r} is not text, or has an empty step; write it as 'a.b.c'"
        )

    def extract(response: Any, /) -> str | None:
        value: object = response
        for step in steps:
            value = _child(value, step)
            if value is _MISSING:
                return None
        return _text(value)

    return extract


class StatusRules:
    """Says whether a response is terminal, and raises for failures, before that."""

    def __init__(
        self,
        config: PollingConfig,
        extractor: "StatusExtractor[object] | str | None" = None,
    ) -> None:
        if extractor is None:
            self._extract: StatusExtractor[object] = extract_status
        else:
            self._extract = extractor if callable(extractor) else status_at(extractor)
        self._terminal = _normalised(
            _TERMINAL if config.terminal_statuses is None else config.terminal_statuses
        )
        if config.failure_statuses is not None:
            self._failure = _normalised(config.failure_statuses)
        else:
            self._failure = _FAILURE if config.strict else frozenset()
        self._warned = False

    def status(self, response: object) -> str | None:
        """Return the status of a response as text."""
        return _text(plain("status_extractor", self._extract(response)))

    def is_terminal(self, response: object) -> bool:
        """Whether the poll is over; raises `PollingFailureError` when it has failed."""
        status = self.status(response)
        if status is None:
            self._warn(response)
            return False
        key = _normal(status)
        if key in self._failure:
            text = _message(response)
            raise PollingFailureError(
                f"the job ended as {status!r}" + (f": {redact_secrets(text)}" if text else ""),
                response=response,
            )
        return key in self._terminal

    def _warn(self, response: object) -> None:
        """Say once that statuses are looked for where there are none: the poll would never end."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "a response of type %s has no status, so it cannot end the poll; give a "
                "status_extractor if it has one elsewhere",
                type(response).__name__,
                extra=trace_fields(),
            )


class StatusPoller(Generic[T]):
    """Polls until the status in the response is a terminal one.

    One poller may poll many times, also at once from several threads or tasks: each call has a
    state of its own.

    Args:
        fetch_fn: Asks for the state of the job: async, sync, or sync with an awaitable result.
        config: Times, statuses and tolerance.
        status_extractor: Finds the status in a response: a callable, or the path to it such as
            `"properties.status"`. By default `extract_status`.
        is_transient: Which errors of the fetch are waited out; by default
            `infra_core.polling.is_transient`.
        next_delay: The seconds that the server wants to be left alone; by default
            `infra_core.polling.retry_after`.
        label: A name for logs and errors; secrets in it are redacted there.

    Example:
        >>> states = iter([{"status": "running"}, {"status": "completed", "rows": 3}])
        >>> poller = StatusPoller(lambda: next(states), PollingConfig(poll_interval=0.01))
        >>> poller.poll()["rows"]
        3
    """

    @overload
    def __init__(
        self: "StatusPoller[T]",
        fetch_fn: Callable[[], Awaitable[T]],
        config: PollingConfig | None = ...,
        status_extractor: "StatusExtractor[str | None] | str | None" = ...,
        *,
        is_transient: Callable[[Exception], bool] | None = ...,
        next_delay: Callable[[Any], float | None] | None = ...,
        label: str | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: "StatusPoller[T]",
        fetch_fn: Callable[[], T],
        config: PollingConfig | None = ...,
        status_extractor: "StatusExtractor[str | None] | str | None" = ...,
        *,
        is_transient: Callable[[Exception], bool] | None = ...,
        next_delay: Callable[[Any], float | None] | None = ...,
        label: str | None = ...,
    ) -> None: ...

    def __init__(
        self,
        fetch_fn: Callable[[], Awaitable[T]] | Callable[[], T],
        config: PollingConfig | None = None,
        status_extractor: "StatusExtractor[str | None] | str | None" = None,
        *,
        is_transient: Callable[[Exception], bool] | None = None,
        next_delay: Callable[[Any], float | None] | None = None,
        label: str | None = None,
    ) -> None:
        check_callable("fetch_fn", fetch_fn)
        self._fetch = fetch_fn
        self._label = label
        config = checked_config(config)
        statuses = StatusRules(config, status_extractor)
        self._rules: PollRules[T] = PollRules(
            config,
            statuses.is_terminal,
            is_transient=is_transient,
            next_delay=next_delay,
            status=statuses.status,
        )

    def poll(
        self,
        *,
        on_poll: Callable[[T], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> T:
        """Poll in this thread.

        Args:
            on_poll: Called with each response, the terminal one included.
            cancel: Ends the poll when it is set.

        Returns:
            The terminal response.

        Raises:
            PollingFailureError: The status is one of `failure_statuses`.
            PollingTimeoutError: No terminal status by the deadline.
            PollingCancelledError: The cancel event was set.
            Exception: What the fetch raised, when it is not transient or one too many.
        """
        return drive_sync(self._run(), self._fetch, on_poll, cancel=cancel)

    async def poll_async(
        self,
        *,
        on_poll: Callable[[T], Awaitable[None] | None] | None = None,
        cancel: "asyncio.Event | threading.Event | None" = None,
    ) -> T:
        """Poll in this task, as `poll` does; a fetch that hangs is cut at the deadline.

        Args:
            on_poll: As for `poll`; may be async.
            cancel: As for `poll`.

        Raises:
            Exception: What `poll` raises.
        """
        return await drive_async(self._run(), self._fetch, on_poll, cancel=cancel)

    def _run(self) -> PollRun[T]:
        return PollRun(self._rules, label=self._label)


def _child(value: object, name: str) -> object:
    if isinstance(value, Mapping):
        return value.get(name, _MISSING)
    if isinstance(value, Sequence) and not isinstance(value, str) and name.isdecimal():
        return value[int(name)] if int(name) < len(value) else _MISSING
    return getattr(value, name, _MISSING)


def _text(value: object) -> str | None:
    if isinstance(value, enum.Enum):
        return value.value if isinstance(value.value, str) else value.name
    if isinstance(value, bytes):  # as clients of Redis return
        return value.decode("utf-8", "replace")
    return None if value is None else str(value)


def _normal(status: str) -> str:
    return status.strip().casefold()


def _normalised(statuses: Iterable[object]) -> frozenset[str]:
    return frozenset(_normal(text) for status in statuses if (text := _text(status)) is not None)


def _message(response: object) -> str | None:
    """Return what the response says about its failure."""
    for name in _MESSAGE_NAMES:
        value = _child(response, name)
        if value is _MISSING or not value:
            continue
        nested = _child(value, "message")  # {"error": {"code": ..., "message": ...}}
        return str(nested if nested is not _MISSING and nested else value)
    return None
