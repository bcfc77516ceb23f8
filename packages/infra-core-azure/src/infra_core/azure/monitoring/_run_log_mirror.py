"""The thread that mirrors a run log in batches, and outlives every outage of the mirror."""

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from infra_core.runtime import RetryPolicy, clock, redact_secrets

from ._client_calls import is_configured
from ._fork import reset_in_child
from ._log_file import LogFile, Mark
from ._run_log_state import MirrorState, sole_mirror
from ._run_log_targets import AppendBlobTarget, MirrorTarget, UploadFileTarget

__all__ = ["MIRROR_THREAD", "RunLogMirror", "RunLogUploader"]

MIRROR_THREAD = "infra-core-run-log"

_log = logging.getLogger("infra_core.azure.monitoring")

_BACKOFF = RetryPolicy(backoff=0.5, max_backoff=15.0)
_FOREIGN_PASS = 0.05  # seconds until we look again whether another process has finished its pass
_EXIT_SECONDS = 5.0


class RunLogUploader(Protocol):
    """What the mirror needs of a storage client.

    A client with `container()` (an `azure.storage.blob.ContainerClient` or `None`) and
    `blob_name_for_path(path)` gets an append blob; any other must have `upload_file(path)`.
    """

    def is_configured(self) -> bool: ...


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
        reset_in_child(self)

    def wake(self, wanted: Mark) -> None:
        """Have everything up to a mark mirrored; never waits."""
        with self._changed:
            self._wanted = max(self._wanted, wanted)
        if self._thread is None:
            self._start()
        if not self._news.is_set():
            self._news.set()

    def flush(self, timeout: float) -> bool:
        """Wait until everything that `wake` was told of is mirrored.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is. True as well when the client has no account to mirror to.
        """
        wanted = self._wanted
        with self._changed:
            if self._reached >= wanted or self._nowhere:
                return True
        self._hurry.set()
        self.wake(wanted)
        with self._changed:
            return self._changed.wait_for(
                # What is wanted shrinks when somebody removes lines that were not mirrored yet.
                lambda: self._reached >= min(wanted, self._wanted) or self._nowhere,
                timeout,
            )

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
            if self._running():
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

    def _running(self) -> bool:
        return self._thread is not None

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
                target = None  # the client may have come to its senses
                pause = self._interval if self._reached > before else _BACKOFF.ceiling(failures)
                failures += 1
            if self._reached < self._wanted:
                self._news.set()
            if not closing.is_set():
                self._hurry.wait(pause)
            self._hurry.clear()

    def _pass(self, target: MirrorTarget) -> bool:
        """Mirror what is there; False when another process is at it."""
        wanted = self._wanted
        removed, _ = wanted
        with sole_mirror(self._lock_path) as ours:
            state = MirrorState.load(self._state_path)
            state.settle(self._log)
            if ours:
                try:
                    target.push(self._log, state, lambda: self._save(state, removed))
                finally:
                    self._save(state, removed)
                if self._keep is not None:
                    self._log.remove_before(state.segment, keep=self._keep)
        self._note((removed, state.reached))
        if ours:
            with self._changed:
                if self._wanted == wanted > self._reached:
                    # All that exists is mirrored: what is missing was removed by somebody.
                    self._wanted = self._reached
        return ours

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
        container = client.container() if callable(getattr(client, "container", None)) else None
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
            if not alive.flush(_EXIT_SECONDS):
                _log.warning(
                    "the run log is not mirrored after %.1f s; the next run goes on from there",
                    clock.monotonic() - started,
                )

    atexit.register(flush)
    return flush
