"""Polling by status: what most services need."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar, overload

from ._config import PollingConfig, checked_config
from ._drivers import drive_async, drive_sync
from ._run import PollRules, PollRun, check_callable
from ._status import StatusExtractor, StatusRules

__all__ = ["StatusPoller"]

T = TypeVar("T")


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
        self._config = checked_config(config)
        self._label = label
        self._statuses = StatusRules(self._config, status_extractor)
        self._rules: PollRules[T] = PollRules(
            self._config,
            self._statuses.is_terminal,
            is_transient=is_transient,
            next_delay=next_delay,
            status=self._statuses.status,
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
        return drive_sync(
            self._run(), self._fetch, on_poll,
            cancel=cancel, hard_timeout=self._config.hard_timeout,
        )  # fmt: skip

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
