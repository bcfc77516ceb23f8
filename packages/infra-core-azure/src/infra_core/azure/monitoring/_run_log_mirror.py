"""The thread that mirrors a run log in batches, and outlives every outage of the mirror."""

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra_core.fs import FileLock, FileLockUnsupported, ensure_parent
from infra_core.runtime import RetryPolicy, after_fork_in_child, clock, redact_secrets

from ._client_calls import is_configured, knows_parameter
from ._log_file import LogFile, Mark
from ._protocols import RunLogUploader
from ._run_log_state import MirrorState
from ._run_log_targets import AppendBlobTarget, MirrorTarget, UploadFileTarget

__all__ = ["MIRROR_THREAD", "RunLogMirror"]

MIRROR_THREAD = "infra-core-run-log"

_log = logging.getLogger("infra_core.azure.monitoring")

_BACKOFF = RetryPolicy(backoff=0.5, max_backoff=15.0)
_FOREIGN_PASS = 0.05  # seconds until we look again whether another process has finished its pass
# Seconds that the end of the process waits for the mirror: less where it never answered.
_EXIT_SECONDS, _EXIT_SECONDS_UNPROVEN = 5.0, 2.0


class RunLogMirror:
    """Brings a log file to its mirror, whoever wrote the lines.

    Any number of processes may do so for one file: a lock admits one at a time, and the state
    file says how far it came. Nothing here raises: failures are logged, waited out and retried.

    Args:
        client: The storage client.
        log: The log.
        state_path: Where to keep how far the mirror has come.
        interval: Seconds between batches.
        max_blocks: Blocks after which an append blob is followed by the next.
        keep: Rotated segments to keep once they are mirrored, `None` for all.
    """

    _wanted: Mark
    _reached: Mark
    _nowhere: bool
    _lost: bool
    _answered: bool
    _failures: int
    _checks: tuple[int, int]
    _thread: threading.Thread | None
    _starting: threading.Lock
    _changed: threading.Condition
    _news: threading.Event
    _hurry: threading.Event
    _closing: threading.Event

    def __init__(
        self,
        client: RunLogUploader,
        log: LogFile,
        state_path: Path,
        *,
        interval: float,
        max_blocks: int,
        keep: int | None,
    ) -> None:
        self._client = client
        self._log = log
        self._state_path = state_path
        self._lock_path = state_path.with_suffix(".lock")
        self._interval = interval
        self._max_blocks = max_blocks
        self._keep = keep
        self._atexit: Callable[[], None] | None = None
        self._after_fork()
        after_fork_in_child(self._after_fork)

    def wake(self, wanted: Mark) -> None:
        """Have everything up to a mark mirrored; never waits."""
        with self._changed:
            self._wanted = max(self._wanted, wanted)
        if self._thread is None:
            self._start()
        if not self._news.is_set():
            self._news.set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything that `wake` announced is mirrored, and look whether it still is.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is. True as well when the client has no account to mirror to; false for ever
            once lines that were mirrored were lost there and are on this disk no more.
        """
        wanted = self._wanted
        with self._changed:
            if self._nowhere or (self._thread is None and self._reached >= wanted):
                return not self._lost
            asked = self._checks[0] + 1
            self._checks = asked, self._checks[1]
        self._hurry.set()
        self.wake(wanted)
        with self._changed:
            done = self._changed.wait_for(
                # What is wanted shrinks when somebody removes lines that were not mirrored yet.
                lambda: (
                    self._nowhere
                    or (self._reached >= min(wanted, self._wanted) and self._checks[1] >= asked)
                ),
                timeout,
            )
            return done and not self._lost

    def flush_at_exit(self) -> bool:
        """Give what is written a last chance, which ends with the first failure."""
        wanted = self._wanted
        with self._changed:
            if self._reached >= wanted or self._nowhere:
                return True
            failures = self._failures
        self._hurry.set()
        self.wake(wanted)
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._reached >= min(wanted, self._wanted)
                    or self._nowhere
                    or self._failures > failures
                ),
                _EXIT_SECONDS if self._answered else _EXIT_SECONDS_UNPROVEN,
            )
            return self._nowhere or self._reached >= min(wanted, self._wanted)

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread."""
        done = self.flush(timeout)
        thread, self._thread = self._thread, None
        self._closing.set()
        self._hurry.set()
        self._news.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0 if done else 0.0)
        if self._atexit is not None:
            atexit.unregister(self._atexit)
            self._atexit = None
        return done

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            # The stop signal is each thread's own: one that hangs in an upload stays stopped.
            self._closing = threading.Event()
            thread = threading.Thread(
                target=self._run, args=(self._closing,), name=MIRROR_THREAD, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: the next run mirrors the rest
                return
            self._thread = thread
            if self._atexit is None:
                self._atexit = _flush_at_exit(weakref.ref(self))

    def _run(self, closing: threading.Event) -> None:
        target: MirrorTarget | None = None
        failures = 0
        while True:
            self._news.wait()
            if closing.is_set():
                return
            self._news.clear()
            before = self._reached
            try:
                target = target or self._target()
                if target is None:
                    with self._changed:
                        self._nowhere = True
                        self._changed.notify_all()
                    continue
                mirrored = self._pass(target)
                failures, pause = 0, target.interval if mirrored else _FOREIGN_PASS
            except Exception as error:  # noqa: BLE001 - whatever the client raises, we go on
                if self._reached > before:  # a flaw in the connection, no outage
                    failures = 0
                self._report(error, failures)
                with self._changed:
                    self._failures += 1
                    self._changed.notify_all()
                if self._is_missing_container(error):
                    self._make_container()
                target = None  # the client may have come to its senses
                pause = self._interval if self._reached > before else _BACKOFF.ceiling(failures)
                failures += 1
            if self._reached < self._wanted or self._checks[1] < self._checks[0]:
                self._news.set()
            if not closing.is_set():
                self._hurry.wait(pause)
            self._hurry.clear()

    def _pass(self, target: MirrorTarget) -> bool:
        """Mirror what is there; False when another process is at it."""
        wanted = self._wanted
        removed, _ = wanted
        lock = FileLock(self._lock_path)
        ensure_parent(self._lock_path)
        try:
            ours = lock.acquire(timeout=0)
        except FileLockUnsupported:
            ours = True
        try:
            state = MirrorState.load(self._state_path)
            state.fit(self._log)
            if ours:
                self._push(target, state, removed)
        finally:
            lock.release()
        self._note((removed, state.reached))
        if ours:
            with self._changed:
                if self._wanted == wanted > self._reached:
                    # All that exists is mirrored: what is missing was removed by somebody.
                    self._wanted = self._reached
        return ours

    def _push(self, target: MirrorTarget, state: MirrorState, removed: int) -> None:
        asked = self._checks[0]
        try:
            target.push(self._log, state, lambda: self._save(state, removed))
            self._answered = True
            if self._checks[1] < asked:
                try:
                    there = target.check(self._log, state)
                except Exception as error:  # noqa: BLE001 - it was confirmed, and cannot be asked
                    _log.debug("the run log's mirror cannot be looked at: %s", type(error).__name__)
                    there = True
                if not there:
                    target.push(self._log, state, lambda: self._save(state, removed))
        finally:
            self._lost = self._lost or target.lost > 0
            self._save(state, removed)
        with self._changed:
            self._checks = self._checks[0], max(asked, self._checks[1])
        if self._keep is not None:
            self._log.remove_before(state.segment, keep=self._keep)

    def _save(self, state: MirrorState, removed: int) -> None:
        state.save(self._state_path)
        self._note((removed, state.reached))

    def _note(self, reached: Mark) -> None:
        with self._changed:
            self._reached = reached
            self._changed.notify_all()

    def _target(self) -> MirrorTarget | None:
        client: Any = self._client
        if not is_configured(client):
            return None
        container = None
        if callable(method := getattr(client, "container", None)):
            # Ours asks nothing of the service yet: a service that is down would hold us up here.
            container = method(create=False) if knows_parameter(method, "create") else method()
        name_of = getattr(client, "blob_name_for_path", None)
        if container is not None and callable(name_of):
            return AppendBlobTarget(
                container,
                str(name_of(self._log.path)),
                max_blocks=self._max_blocks,
                interval=self._interval,
            )
        upload_file = getattr(client, "upload_file", None)
        if callable(upload_file):
            return UploadFileTarget(upload_file, interval=self._interval)
        raise RuntimeError(
            f"the run log's storage client {type(client).__name__} has neither container() nor "
            "upload_file(): pass an AzureStorageClient, or azure_client=None for no mirror"
        )

    @staticmethod
    def _is_missing_container(error: Exception) -> bool:
        code = getattr(error, "error_code", None)
        return str(getattr(code, "value", code)) == "ContainerNotFound"

    def _make_container(self) -> None:
        try:
            method = getattr(self._client, "container", None)
            if callable(method):
                method()
        except Exception as error:  # noqa: BLE001 - the next try reports it
            _log.debug("the run log's container cannot be made: %s", type(error).__name__)

    def _report(self, error: Exception, failures: int) -> None:
        # Every second failure of an outage is as good as the first: log at 1, 2, 4, 8...
        if failures & (failures + 1) == 0:
            _log.warning(
                "run log mirror failed (try %d), the lines wait in %s until it works: %s: %s",
                failures + 1,
                self._log.path,
                type(error).__name__,
                redact_secrets(str(error)),
            )

    def _after_fork(self) -> None:
        self._wanted = (0, (0, 0))
        self._reached = (0, (0, 0))
        self._nowhere = False
        self._lost = False
        self._answered = False
        self._failures = 0
        self._checks = (0, 0)  # flushes that asked for a look at the mirror, and that got one
        self._thread = None
        self._starting = threading.Lock()
        self._changed = threading.Condition()
        self._news = threading.Event()
        self._hurry = threading.Event()
        self._closing = threading.Event()


def _flush_at_exit(mirror: "weakref.ref[RunLogMirror]") -> Callable[[], None]:
    def flush() -> None:
        alive = mirror()
        if alive is not None:
            started = clock.monotonic()
            if not alive.flush_at_exit():
                _log.warning(
                    "the run log is not mirrored after %.1f s; the next run goes on from there",
                    clock.monotonic() - started,
                )

    atexit.register(flush)
    return flush
