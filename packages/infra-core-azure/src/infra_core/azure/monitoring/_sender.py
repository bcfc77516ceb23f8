"""Delivers telemetry from a thread of its own: bounded, in batches, with every loss counted."""

import atexit
import logging
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from infra_core.runtime import RetryPolicy, after_fork_in_child, clock

from .._checks import require_number
from ._ingestion import Answer, Verdict, judge
from ._loss_remedies import loss_remedy

__all__ = ["Sender", "SenderLimits", "TelemetryStats", "Transport"]

T = TypeVar("T")
E = TypeVar("E")
E_contra = TypeVar("E_contra", contravariant=True)
_log = logging.getLogger("infra_core.azure.monitoring")

_RETRY = RetryPolicy(max_retries=10, backoff=1.0, max_backoff=120.0)


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
        TypeError: It is no number.
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
            raise TypeError(f"retry={self.retry!r:.80} is no RetryPolicy: pass RetryPolicy(...)")


class Transport(Protocol[E_contra]):
    """Something that carries batches; only ever used by one thread."""

    def send(self, items: Sequence[E_contra]) -> Answer:
        """Send a batch; never raises."""

    def close(self) -> None:
        """Give up the connection; the next batch opens another."""

    def abandon(self) -> None:
        """Forget, in a forked child, what is the parent's."""


class Sender(Generic[T, E]):
    """A bounded queue and the thread that empties it.

    The thread starts with the first item and ends when there was none for a while. `put` takes a
    lock that is never held during I/O. A forked child begins with an empty queue: what its parent
    has queued is its parent's to send.

    Args:
        transport: Carries the batches; used by the thread only.
        encode: Makes of an item what the transport takes, in the thread.
        size: Rough size of an item in memory.
        limits: The bounds.
    """

    _changed: threading.Condition
    _queue: deque[tuple[T, int]]
    _queued_bytes: int
    _in_flight: int
    _tracked: int
    _delivered: int
    _retried: int
    _flush_to: int
    _hurries: int
    _dropped: Counter[str]
    _unlogged: dict[str, int]
    _finalizer: Any
    _alone: bool
    _closed: bool
    _thread: threading.Thread | None

    def __init__(
        self,
        transport: Transport[E],
        *,
        encode: Callable[[T], E],
        size: Callable[[T], int],
        limits: SenderLimits,
    ) -> None:
        self._transport = transport
        self._encode = encode
        self._size = size
        self._limits = limits
        self._at_exit = False
        self._exiting = False
        self._reset()
        after_fork_in_child(self._after_fork)

    def put(self, item: T) -> None:
        """Queue an item; never waits, never raises for reasons of transport."""
        size = self._size(item)
        with self._changed:
            self._tracked += 1
            if self._closed:
                self._drop(1, "closed")
                return
            self._queue.append((item, size))
            self._queued_bytes += size
            while len(self._queue) > self._limits.queue_items or (
                self._queued_bytes > self._limits.queue_bytes and len(self._queue) > 1
            ):
                _, oldest = self._queue.popleft()
                self._queued_bytes -= oldest
                self._drop(1, "queue_full")
            if self._thread is None:
                self._start()
            elif len(self._queue) == 1 or len(self._queue) >= self._limits.batch_items:
                self._changed.notify_all()
            exiting = self._exiting
        self._log_losses()
        self._deliver_alone()
        if exiting:  # tracked by an exit handler that ran after ours: now or never
            self.flush(self._limits.exit_seconds)

    def flush(self, timeout: float) -> bool:
        """Send what is queued at once.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether everything put before was delivered: false when something is still on its
            way, or was dropped meanwhile.
        """
        with self._changed:
            lost = sum(self._dropped.values())
            target = self._tracked
            self._hurries += 1
            self._flush_to = max(self._flush_to, target)
            if self._pending():
                if self._thread is None:
                    self._start()
                self._changed.notify_all()
        self._deliver_alone()
        with self._changed:
            done = self._changed.wait_for(lambda: self._finished() >= target, timeout)
            return done and sum(self._dropped.values()) == lost

    def close(self, timeout: float) -> bool:
        """Flush, refuse further items and end the thread; what is left then is dropped.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            What `flush` returns.
        """
        done = self.flush(timeout)
        with self._changed:
            self._closed = True
            if self._queue:
                self._drop(len(self._queue), "closed")
                self._queue.clear()
                self._queued_bytes = 0
            thread, settled = self._thread, not self._pending()
            self._changed.notify_all()
        self._log_losses()
        if settled and thread is not None and thread is not threading.current_thread():
            thread.join(1.0)
        if self._at_exit:
            atexit.unregister(self._finish)
            self._at_exit = False
        if self._finalizer is not None:
            self._finalizer.cancel()
            self._finalizer = None
        return done

    def stats(self) -> TelemetryStats:
        """Return where every item went so far."""
        with self._changed:
            return TelemetryStats(
                tracked=self._tracked,
                delivered=self._delivered,
                pending=self._pending(),
                retried=self._retried,
                dropped_by_reason=MappingProxyType(dict(self._dropped)),
            )

    # The thread

    def _start(self) -> None:
        """Start the thread; the caller holds the lock."""
        thread = threading.Thread(target=self._run, name="infra-core-telemetry", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending and allows no threads
            self._alone = True
            return
        self._thread = thread
        if not self._at_exit:
            self._at_exit = True
            atexit.register(self._finish)
        # Children of multiprocessing leave without running atexit, but run these.
        util = sys.modules.get("multiprocessing.util")
        if util is not None and self._finalizer is None:
            self._finalizer = util.Finalize(None, self._finish, exitpriority=100)

    def _run(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            try:
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001 - a defect here must not end all delivery
                _log.exception("telemetry sender failed")
                with self._changed:
                    self._drop(self._in_flight, f"internal:{type(error).__name__}")
                    self._in_flight = 0
                    self._changed.notify_all()
                self._log_losses()

    def _deliver_alone(self) -> None:
        """Deliver in the calling thread, one try each, when there can be no other thread."""
        while self._alone and (batch := self._next_batch()) is not None:
            self._deliver(batch)

    def _next_batch(self) -> list[T] | None:
        """Wait for a batch; `None` when the thread is to end."""
        limits = self._limits
        with self._changed:
            if not self._queue and not self._closed and not self._alone:
                self._changed.wait_for(
                    lambda: self._queue or self._closed, timeout=limits.idle_seconds
                )
            if not self._queue:
                self._thread = None
                self._transport.close()
                return None
            self._changed.wait_for(self._is_due, timeout=limits.batch_seconds)
            batch: list[T] = []
            total = 0
            while self._queue and len(batch) < limits.batch_items:
                item, size = self._queue[0]
                if batch and total + size > limits.batch_bytes:
                    break
                self._queue.popleft()
                self._queued_bytes -= size
                total += size
                batch.append(item)
            self._in_flight = len(batch)
            return batch

    def _is_due(self) -> bool:
        return (
            self._closed
            or self._alone
            or len(self._queue) >= self._limits.batch_items
            or self._queued_bytes >= self._limits.batch_bytes
            or self._finished() < self._flush_to
        )

    def _deliver(self, batch: list[T]) -> None:
        encoded: list[E] = []
        for item in batch:
            try:
                encoded.append(self._encode(item))
            except Exception:  # noqa: BLE001 - a foreign str subclass, say
                _log.exception("a telemetry item could not be encoded")
                self._settle(dropped={"unencodable": 1})
        waiting = [encoded] if encoded else []
        while waiting:
            waiting.extend(self._send(waiting.pop()))

    def _send(self, items: list[E]) -> list[list[E]]:
        """Send until every item is settled; returns halves of a batch that is too large."""
        started = clock.monotonic()
        retry = 0
        while True:
            with self._changed:
                hurries = self._hurries
            answer = self._transport.send(items)
            verdict = judge(answer, len(items))
            self._settle_verdict(verdict)
            if not verdict.retry:
                return []
            if verdict.split:
                middle = len(items) // 2
                return [items[:middle], items[middle:]]
            items = [items[index] for index in verdict.retry]
            wait = self._limits.retry.next_wait(
                retry=retry,
                elapsed=clock.monotonic() - started,
                retry_after=answer.retry_after,
            )
            if answer.retry_after is not None:
                hurries = -1  # the server asked for patience, which no flush shortens
            if wait is None or not self._pause(wait, hurries):
                reason = "closed" if wait is not None else "retries_exhausted"
                self._settle(dropped={f"{reason}:{verdict.reason}": len(items)})
                return []
            retry += 1
            with self._changed:
                self._retried += len(items)

    def _pause(self, seconds: float, hurries: int) -> bool:
        """Wait before a retry; False when the sender was closed.

        Somebody who flushed since that count of flushes does not wait for a backoff of ours.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or self._alone or self._hurries > hurries >= 0,
                timeout=seconds,
            )
            return not self._closed and not self._alone

    # Accounts

    def _settle_verdict(self, verdict: Verdict) -> None:
        self._settle(delivered=len(verdict.delivered), dropped=Counter(verdict.dropped.values()))

    def _settle(self, *, delivered: int = 0, dropped: Mapping[str, int] | None = None) -> None:
        with self._changed:
            self._delivered += delivered
            self._in_flight -= delivered
            for reason, count in (dropped or {}).items():
                self._drop(count, reason)
                self._in_flight -= count
            self._changed.notify_all()
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
        with self._changed:
            losses, self._unlogged = self._unlogged, {}
        for reason, count in losses.items():
            events = "event" if count == 1 else "events"
            _log.warning(
                "telemetry: %d %s lost so far, reason %s; %s",
                count,
                events,
                reason,
                loss_remedy(reason),
            )

    def _pending(self) -> int:
        return len(self._queue) + self._in_flight

    def _finished(self) -> int:
        return self._tracked - self._pending()

    # The end of the process, and children of it

    def _finish(self) -> None:
        with self._changed:
            self._exiting = True
            pending = self._pending()
        if pending and not self.flush(self._limits.exit_seconds):
            stats = self.stats()
            _log.warning(
                "telemetry: %d %s undelivered at exit, dropped: %s; call close() before the end, "
                "or raise SenderLimits.exit_seconds (%g s now)",
                stats.pending,
                "event" if stats.pending == 1 else "events",
                dict(stats.dropped_by_reason) or "none",
                self._limits.exit_seconds,
            )

    def _after_fork(self) -> None:
        self._transport.abandon()
        self._reset()
        self._exiting = False

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._queue = deque()
        self._queued_bytes = 0
        self._in_flight = 0
        self._tracked = self._delivered = self._retried = self._flush_to = self._hurries = 0
        self._dropped = Counter()
        self._unlogged = {}
        self._finalizer = None
        self._alone = False
        self._closed = False
        self._thread = None
