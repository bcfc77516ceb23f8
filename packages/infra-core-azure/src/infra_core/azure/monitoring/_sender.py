"""Delivers telemetry from a thread of its own: bounded, in batches, with every loss counted."""

import logging
import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from infra_core.runtime import RetryPolicy, after_fork_in_child, clock

from .._checks import require_number
from ._envelope import Item
from ._ingestion import Answer, judge
from ._worker import Worker

__all__ = ["Sender", "SenderLimits", "TelemetryStats", "Transport"]

_log = logging.getLogger("infra_core.azure.monitoring")

_RETRY = RetryPolicy(max_retries=10, backoff=1.0, max_backoff=120.0)
_REMEDIES = {  # by the beginning of a reason
    "queue_full": "they come faster than they leave: raise SenderLimits.queue_items",
    "quota": "the quota or daily cap of Application Insights is used up: raise it in the portal",
    "retries_exhausted": "check the network and the IngestionEndpoint of the connection string",
    "http_413": "make the events smaller",
    "http_": "check the connection string: key and endpoint must be of one resource",
    "item_": "check the connection string: key and endpoint must be of one resource",
    "closed": "track no events after close()",
    "unencodable": "the log has the error of each",
    "": "the log has the cause",
}


@dataclass(frozen=True, slots=True)
class TelemetryStats:
    """Where every item went: `tracked == delivered + pending + dropped`.

    Attributes:
        tracked: Items handed in.
        delivered: Items that the service accepted.
        pending: Items that wait or are on their way.
        retried: Times that an item was sent again.
        dropped_by_reason: Items lost, by reason: `queue_full`, `http_400`, `item_400`,
            `quota_http_402`, `retries_exhausted:http_503`, `closed`, `unencodable`...
    """

    tracked: int
    delivered: int
    pending: int
    retried: int
    dropped_by_reason: Mapping[str, int]

    @property
    def dropped(self) -> int:
        """Items lost, for whatever reason."""
        return sum(self.dropped_by_reason.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderLimits:
    """Bounds of a sender.

    Attributes:
        queue_items: Items that may wait; more push out the oldest.
        queue_bytes: Rough memory that they may take.
        batch_items: Most items of a request.
        batch_bytes: Most bytes of a request before compression.
        batch_seconds: Time after which an incomplete batch is sent.
        idle_seconds: Time without items after which the thread ends, until the next one.
        exit_seconds: Time that delivery may take when the interpreter ends.
        retry: Retries of a batch. A `Retry-After` above `max_backoff` ends them.

    Raises:
        ValueError: A bound is out of range.
        TypeError: It is not a number.
    """

    queue_items: int = 8_192
    queue_bytes: int = 16 * 1024 * 1024
    batch_items: int = 250
    batch_bytes: int = 512 * 1024
    batch_seconds: float = 2.0
    idle_seconds: float = 60.0
    exit_seconds: float = 5.0
    retry: RetryPolicy = _RETRY

    def __post_init__(self) -> None:
        for name in ("queue_items", "queue_bytes", "batch_items", "batch_bytes"):
            value = getattr(self, name)
            require_number(name, value, "a whole number of 1 or more", least=1, whole=True)
        for name in ("batch_seconds", "idle_seconds", "exit_seconds"):
            allowed = "seconds, 0 to a day"
            require_number(name, getattr(self, name), allowed, least=0, most=86_400)
        if not isinstance(self.retry, RetryPolicy):
            raise TypeError(f"retry={self.retry!r:.80} is not a RetryPolicy: pass RetryPolicy(...)")


class Transport(Protocol):
    """Something that carries batches; only ever used by one thread."""

    def encode(self, item: Item) -> Any:
        """Make of an item what is sent."""

    def send(self, items: Sequence[Any]) -> Answer:
        """Send a batch of what `encode` made; never raises."""

    def close(self) -> None:
        """Give up the connection; the next batch opens another."""

    def abandon(self) -> None:
        """Forget, in a forked child, what is the parent's."""


@dataclass(eq=False, repr=False)
class Sender:
    """A bounded queue and the thread that empties it.

    `put` takes a lock that is never held during I/O. A forked child begins with an empty queue:
    what its parent has queued is its parent's to send.
    """

    transport: Transport  # used by the thread only
    limits: SenderLimits

    def __post_init__(self) -> None:
        self._worker = Worker(
            "infra-core-telemetry",
            self._round,
            at_exit=self._flush_at_exit,
            idle_seconds=self.limits.idle_seconds,
            at_end=self.transport.close,
        )
        self._reset()
        after_fork_in_child(self._after_fork)

    def _reset(self) -> None:
        self._queue: deque[tuple[int, Item, int]] = deque()  # number of the request, item, size
        self._queued_bytes = self._in_flight = 0
        self._tracked = self._delivered = self._retried = 0
        self._dropped: Counter[str] = Counter()
        self._unlogged: dict[str, int] = {}
        self._closed = self._exiting = False

    def _after_fork(self) -> None:
        self.transport.abandon()
        self._reset()

    def put(self, item: Item) -> None:
        """Queue an item; never waits, never raises for reasons of transport."""
        size, worker = item.size, self._worker
        with worker.changed:
            self._tracked += 1
            if self._closed:
                self._drop(1, "closed")
                return
            threaded = worker.ask()
            self._queue.append((worker.asked, item, size))
            self._queued_bytes += size
            while len(self._queue) > self.limits.queue_items or (
                self._queued_bytes > self.limits.queue_bytes and len(self._queue) > 1
            ):
                self._queued_bytes -= self._queue.popleft()[2]
                self._drop(1, "queue_full")
            if self._is_full():
                worker.changed.notify_all()
        self._log_losses()
        if not threaded:  # here, with one try
            self._round(0)
            self.transport.close()
        if self._exiting:  # tracked by an exit handler that ran after ours: now or never
            self.flush(self.limits.exit_seconds)

    def flush(self, timeout: float) -> bool:
        """Send what is queued at once; false when something was dropped or is still on its way."""
        if self._closed:
            return not self._pending()
        lost = self._dropped.total()
        return self._worker.flush(timeout) and self._dropped.total() == lost

    def close(self, timeout: float) -> bool:
        """Flush, refuse further items and end the thread; what is left then is dropped."""
        done = self.flush(timeout)
        with self._worker.changed:
            self._closed = True
            if self._queue:
                self._drop(len(self._queue), "closed")
                self._queue.clear()
                self._queued_bytes = 0
        self._log_losses()
        self._worker.close()
        return done

    def stats(self) -> TelemetryStats:
        """Return where every item went so far."""
        with self._worker.changed:
            return TelemetryStats(
                tracked=self._tracked,
                delivered=self._delivered,
                pending=self._pending(),
                retried=self._retried,
                dropped_by_reason=MappingProxyType(dict(self._dropped)),
            )

    # The thread

    def _round(self, _: int) -> None:
        """Deliver a batch, when it is full or its time has come, or when somebody waits for it."""
        worker, limits = self._worker, self.limits
        worker.pause(limits.batch_seconds, worker.finished, until=self._is_full)
        batch: list[Item] = []
        with worker.changed:
            total = 0
            while self._queue and len(batch) < limits.batch_items:
                _, item, size = self._queue[0]
                if batch and total + size > limits.batch_bytes:
                    break
                self._queue.popleft()
                self._queued_bytes -= size
                total += size
                batch.append(item)
            self._in_flight = len(batch)
        try:
            self._deliver(batch)
        except Exception as error:  # noqa: BLE001 - a defect here must not end all delivery
            _log.exception("telemetry sender failed")
            self._settle(dropped={f"internal:{type(error).__name__}": self._in_flight})
        with worker.changed:
            worker.finish(self._queue[0][0] - 1 if self._queue else worker.asked)

    def _is_full(self) -> bool:
        limits = self.limits
        return len(self._queue) >= limits.batch_items or self._queued_bytes >= limits.batch_bytes

    def _deliver(self, batch: list[Item]) -> None:
        encoded: list[Any] = []
        for item in batch:
            try:
                encoded.append(self.transport.encode(item))
            except Exception:  # noqa: BLE001 - a foreign str subclass, say
                _log.exception("a telemetry item could not be encoded")
                self._settle(dropped={"unencodable": 1})
        if encoded:
            self._send(encoded)

    def _send(self, items: list[Any]) -> None:
        """Send until every item is settled; a batch that is too large in halves."""
        started = clock.monotonic()
        retry = 0
        while True:
            asked: float = self._worker.asked
            answer = self.transport.send(items)
            verdict = judge(answer, len(items))
            dropped = Counter(verdict.dropped.values())
            self._settle(delivered=len(verdict.delivered), dropped=dropped)
            if not verdict.retry:
                return
            if verdict.split:
                middle = len(items) // 2
                self._send(items[:middle])
                self._send(items[middle:])
                return
            items = [items[index] for index in verdict.retry]
            wait = self.limits.retry.next_wait(
                retry=retry,
                elapsed=clock.monotonic() - started,
                retry_after=answer.retry_after,
            )
            if answer.retry_after is not None:
                asked = math.inf  # the server asked for patience, which no flush shortens
            if wait is None or not self._worker.pause(wait, asked):
                reason = "closed" if wait is not None else "retries_exhausted"
                self._settle(dropped={f"{reason}:{verdict.reason}": len(items)})
                return
            retry += 1
            with self._worker.changed:
                self._retried += len(items)

    # Accounts

    def _settle(self, *, delivered: int = 0, dropped: Mapping[str, int]) -> None:
        with self._worker.changed:
            self._delivered += delivered
            self._in_flight -= delivered + sum(dropped.values())
            for reason, count in dropped.items():
                self._drop(count, reason)
        self._log_losses()

    def _drop(self, count: int, reason: str) -> None:
        before = self._dropped[reason]
        self._dropped[reason] += count
        if before.bit_length() != (before + count).bit_length():  # at 1, 2, 4, 8...
            self._unlogged[reason] = before + count

    def _log_losses(self) -> None:
        """Log what was lost, without the lock: a slow handler must hold up no other thread."""
        if not self._unlogged:
            return
        with self._worker.changed:
            losses, self._unlogged = self._unlogged, {}
        for reason, count in losses.items():
            remedy = next(_REMEDIES[sign] for sign in _REMEDIES if reason.startswith(sign))
            events = "event" if count == 1 else "events"
            _log.warning(
                "telemetry: %d %s lost so far, reason %s; %s",
                count,
                events,
                reason,
                remedy,
            )

    def _pending(self) -> int:
        return len(self._queue) + self._in_flight

    def _flush_at_exit(self, began: float) -> None:
        self._exiting = True
        seconds = began + self.limits.exit_seconds - clock.monotonic()
        if self._pending() and not self.flush(seconds):
            stats = self.stats()
            _log.warning(
                "telemetry: %d %s undelivered at exit, dropped: %s; call close() before the end, "
                "or raise SenderLimits.exit_seconds (%g s now)",
                stats.pending,
                "event" if stats.pending == 1 else "events",
                dict(stats.dropped_by_reason) or "none",
                self.limits.exit_seconds,
            )
