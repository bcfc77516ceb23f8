"""What a run is asked for, checked once: its source, `RuntimeConfig`, the options of one call."""

import math
import operator
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

from ._outcomes import ResultBuffer, RuntimeStats, TaskOutcome
from ._rate import RateLimit
from ._retry_policy import RetryPolicy, check_policy
from ._values import is_number, shown

__all__ = [
    "Factory",
    "OnError",
    "OnOutcome",
    "OnProgress",
    "OnTimeout",
    "Pair",
    "RunOptions",
    "RuntimeConfig",
    "ShouldRetry",
    "TaskSource",
    "check_source",
    "length_of",
    "pairs_of",
]

Factory = Callable[[], Awaitable[Any]]
Pair = tuple[str, Factory]
TaskSource = Iterable[Pair] | AsyncIterable[Pair]
_ITERATION = ("__iter__", "__aiter__", "__getitem__")
OnTimeout = Callable[[str], Awaitable[None] | None]
OnError = Callable[[str, Exception], Awaitable[None] | None]
OnOutcome = Callable[[TaskOutcome[Any]], Awaitable[None] | None]
OnProgress = Callable[[RuntimeStats], Awaitable[None] | None]
ShouldRetry = Callable[[Exception], bool | float]


def check_source(name: str, source: object) -> None:
    """Refuse what cannot be iterated over."""
    if not any(hasattr(source, method) for method in _ITERATION):
        raise TypeError(
            f"{name} cannot be iterated over, being {shown(source)}: pass a list, a generator or "
            "an asynchronous generator"
        )


def length_of(source: Any) -> int | None:
    """Return how many items a source holds now, if it knows: a list may grow while it is read."""
    try:
        return len(source)
    except Exception:  # noqa: BLE001 - generators have no length, and some sources refuse to say
        return None


def as_pair(item: Any) -> Pair:
    """Return an item of a source of tasks as the pair that it must be."""
    try:
        task_id, factory = item
    except (TypeError, ValueError):
        raise TypeError(
            f"the source of tasks gave {shown(item)}: each of its items must be a pair of an id "
            "and a callable without arguments that returns an awaitable"
        ) from None
    return task_id, factory


def pairs_of(
    function: Callable[[Any], Awaitable[Any]], key: Callable[[Any], str] | None
) -> Callable[[Any], Pair]:
    """Return what makes tasks of the items of `map`, numbered where they have no key."""
    numbers = count()

    def make(item: Any) -> Pair:
        return str(next(numbers)) if key is None else key(item), partial(function, item)

    return make


@dataclass
class RuntimeConfig:
    """How a `TaskRuntime` runs.

    Attributes:
        concurrency: At most this many tasks of one `run()` call are alive at a time.
        task_timeout: Seconds that one task may take, retries and their waits included; `None`
            for no bound. A task that is over is cancelled and reported as a `TaskTimeoutError`.
        cancel_grace: Seconds that a cancelled task has for its cleanup before it is reported as
            unresponsive and left behind.
        max_per_second: At most this many tasks (and retries) begin per second, evenly spaced,
            over all `run()` calls of one runtime; `None` for no bound.
        retry: When and how often a task that raised is tried again; `None` for a single try.

    Raises:
        ValueError: A number is out of range; the message names it.
        TypeError: `retry` is not a `RetryPolicy`.
    """

    concurrency: int = 1
    task_timeout: float | None = None
    cancel_grace: float = 2.0
    max_per_second: float | None = field(default=None, kw_only=True)
    retry: RetryPolicy | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check every number again; a runtime does so before each run, as fields may be set.

        Raises:
            ValueError: A number is out of range.
            TypeError: `retry` is not a `RetryPolicy`.
        """
        try:
            whole = operator.index(self.concurrency)
        except TypeError:
            whole = 0
        if whole < 1:
            raise ValueError(
                f"concurrency must be positive and whole, not {self.concurrency!r}: "
                "pass how many tasks may run at a time"
            )
        for name, value in (
            ("task_timeout", self.task_timeout),
            ("max_per_second", self.max_per_second),
        ):
            if value is not None and not (is_number(value) and 0 < value < math.inf):
                raise ValueError(
                    f"{name} must be positive when provided, and finite, not {value!r}: "
                    "pass a number above 0, or None for no bound"
                )
        if not (is_number(self.cancel_grace) and 0 < self.cancel_grace < math.inf):
            raise ValueError(
                f"cancel_grace must be positive and finite, not {self.cancel_grace!r}: "
                "pass the seconds that cancelled tasks have for their cleanup"
            )
        if self.retry is not None:
            check_policy("retry", self.retry)


@dataclass(slots=True, kw_only=True)
class RunOptions:
    """What one run does with its tasks and their ends; made by `TaskRuntime`."""

    config: RuntimeConfig
    make: Callable[[Any], Pair] = as_pair  # makes a task of an item of the source
    timed: bool = True  # False: the cluster that runs the tasks keeps config.task_timeout
    rate: RateLimit | None = None
    retry: RetryPolicy | None = None
    should_retry: ShouldRetry | None = None
    on_timeout: OnTimeout | None = None
    on_error: OnError | None = None
    on_outcome: OnOutcome | None = None
    on_progress: OnProgress | None = None
    progress_interval: float = 0.5
    lenient: bool = field(init=False)  # every end is reported as an outcome: none ends the run
    sink: ResultBuffer | None = None
    window: int | None = None  # outcomes that may wait to be read, tasks in flight included

    def __post_init__(self) -> None:
        # A callback that cannot be called would swallow the errors that it was to report.
        for name in ("should_retry", "on_timeout", "on_error", "on_outcome", "on_progress"):
            callback = getattr(self, name)
            if callback is not None and not callable(callback):
                raise TypeError(f"{name}={shown(callback)} cannot be called: pass a function")
        if not (is_number(self.progress_interval) and self.progress_interval >= 0):
            raise ValueError(
                f"progress_interval={self.progress_interval!r} is not 0 or more: pass seconds, "
                "or 0 for a report of every task"
            )
        if self.retry:
            check_policy("retry", self.retry)
        self.retry = self.retry or self.config.retry
        self.lenient = self.on_outcome is not None or bool(self.sink and self.sink.failures)
