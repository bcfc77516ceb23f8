"""The thread that mirrors a run log in batches, and outlives every outage of the mirror."""

import contextlib
import logging
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra_core.fs import FileLock, FileLockUnsupported
from infra_core.runtime import RetryPolicy, after_fork_in_child, clock, redact_secrets

from .._access import access_remedy
from ._client_calls import error_code
from ._log_file import LogFile
from ._protocols import RunLogUploader
from ._run_log_state import MirrorState
from ._worker import Worker

if TYPE_CHECKING:
    from ._run_log_targets import AppendBlobTarget, UploadFileTarget

__all__ = ["MIRROR_THREAD", "RunLogMirror"]

MIRROR_THREAD = "infra-core-run-log"

_log = logging.getLogger("infra_core.azure.monitoring")

_BACKOFF = RetryPolicy(backoff=0.5, max_backoff=15.0)
_IDLE_SECONDS = 60.0
_FOREIGN_PASS = 0.05  # seconds until we look again whether another process has finished its pass
# Seconds that the end of the process waits for the mirror: less where it never answered.
_EXIT_SECONDS, _EXIT_SECONDS_ANSWERED = 2.0, 5.0


@dataclass(eq=False, repr=False)
class RunLogMirror:
    """Brings a log file to its mirror, whichever process wrote the lines.

    Any number of processes may do so for one file: a lock admits one at a time, and the state
    file says how far it came. Nothing here raises: failures are logged, waited out and retried.
    A pass mirrors all that is in the file, with whatever was asked for before it began.
    """

    client: RunLogUploader
    log: LogFile
    state_path: Path
    _: KW_ONLY
    interval: float
    max_blocks: int

    def __post_init__(self) -> None:
        self._worker = Worker(
            MIRROR_THREAD,
            self._round,
            at_exit=self._flush_at_exit,
            idle_seconds=_IDLE_SECONDS,
            at_end=self._forget_target,
        )
        self._forget_target()
        self._failures = 0  # passes that failed since something succeeded
        self._lost = False  # for ever
        self._exit_seconds = _EXIT_SECONDS
        after_fork_in_child(self._forget_target)

    def _forget_target(self) -> None:
        self._target: AppendBlobTarget | UploadFileTarget | None = None

    def wake(self) -> None:
        """Have everything mirrored that is in the file; never waits."""
        self._worker.ask()

    def flush(self, timeout: float) -> bool:
        """Wait until everything in the file is mirrored, and look whether what was still is.

        True as well when the client has no account to mirror to; false for ever once lines that
        were mirrored were lost there and are on this disk no more.
        """
        return self._worker.flush(timeout) and not self._lost

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread."""
        done = self.flush(timeout)
        self._worker.close()
        return done

    def _flush_at_exit(self, began: float) -> None:
        """Give what is written a last chance, which ends with the first failure."""
        self._failures = 0
        worker, seconds = self._worker, began - clock.monotonic() + self._exit_seconds
        if worker.pending and not worker.flush(seconds, until=lambda: self._failures > 0):
            worker.close()
            _log.warning(
                "the run log is not mirrored after %.1f s; the next run goes on from there",
                clock.monotonic() - began,
            )

    def _round(self, number: int) -> None:
        pause = self.interval
        try:
            self._target = target = self._target or self._make_target()
            if target is None:
                self.log.remove_before(self.log.segments()[-1])
                self._worker.finish(number)
            elif self._pass(target, look=self._worker.flushing):
                pause = max(pause, target.pause)
                self._worker.finish(number)
            else:
                pause = _FOREIGN_PASS
        except Exception as error:  # noqa: BLE001 - whatever the client raises, we go on
            pause = self._failed(error)
            self._target = None  # the client may have come to its senses
        self._worker.pause(pause, number)

    def _make_target(self) -> "AppendBlobTarget | UploadFileTarget | None":
        from ._run_log_targets import target_of

        return target_of(self.client, self.log, max_blocks=self.max_blocks)

    def _pass(self, target: "AppendBlobTarget | UploadFileTarget", *, look: bool) -> bool:
        """Mirror what is there; False when another process is at it."""
        lock = FileLock(self.state_path.with_suffix(".lock"))
        with contextlib.suppress(FileLockUnsupported):
            if not lock.acquire(timeout=0):
                return False
        try:
            state = MirrorState.load(self.state_path, self.log)
            try:
                for _ in target.mirror(state, look=look):
                    self._failures = 0
                    state.save(self.state_path)
            finally:
                self._lost = self._lost or target.lost
                state.save(self.state_path)
            self.log.remove_before(state.parts[-1].reached[0])
        finally:
            lock.release()
        self._exit_seconds, self._failures = _EXIT_SECONDS_ANSWERED, 0
        return True

    def _failed(self, error: Exception) -> float:
        """Log a failure, make the container if that was missing, and return how long to wait."""
        failures, code = self._failures, error_code(error)
        # The 1st, 2nd, 4th, 8th... of an outage. Not after the end: the interpreter aborts where a
        # thread is in the middle of writing to standard error while it ends.
        if failures & (failures + 1) == 0 and self._worker.in_thread:
            # Of the SDK's lines the first says it; the others are for support.
            said = redact_secrets(str(error).partition("\n")[0].rstrip("."))
            said = said if code in said else f"{code}: {said}"
            _log.warning(
                "run log mirror failed (try %d), the lines wait in %s until it works: %s: %s",
                failures + 1,
                self.log.path,
                type(error).__name__,
                "; ".join(filter(None, (said, access_remedy(code)))),
            )
        with self._worker.changed:
            self._failures += 1
            self._worker.changed.notify_all()
        if code == "ContainerNotFound":
            with contextlib.suppress(Exception):  # the next try reports it
                self.client.container()  # type: ignore[attr-defined]
        return _BACKOFF.ceiling(failures)
