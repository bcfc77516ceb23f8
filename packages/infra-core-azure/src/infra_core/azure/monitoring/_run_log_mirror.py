"""The thread that mirrors a run log in batches, and outlives every outage of the mirror."""

import atexit
import logging
import threading
import weakref
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from infra_core.fs import FileLock, FileLockUnsupported
from infra_core.runtime import RetryPolicy, after_fork_in_child, clock, redact_secrets

from .._access import access_remedy
from ._client_calls import is_configured, knows_parameter
from ._log_file import LogFile
from ._protocols import RunLogUploader
from ._run_log_state import MirrorState
from ._run_log_targets import AppendBlobTarget, MirrorTarget, UploadFileTarget, error_code

__all__ = ["MIRROR_THREAD", "RunLogMirror"]

MIRROR_THREAD = "infra-core-run-log"

_log = logging.getLogger("infra_core.azure.monitoring")

_BACKOFF = RetryPolicy(backoff=0.5, max_backoff=15.0)
_FOREIGN_PASS = 0.05  # seconds until we look again whether another process has finished its pass
# Seconds that the end of the process waits for the mirror: less where it never answered.
_EXIT_SECONDS, _EXIT_SECONDS_UNPROVEN = 5.0, 2.0


@dataclass(eq=False, repr=False)
class RunLogMirror:
    """Brings a log file to its mirror, whichever process wrote the lines.

    Any number of processes may do so for one file: a lock admits one at a time, and the state
    file says how far it came. Nothing here raises: failures are logged, waited out and retried.

    A pass mirrors all that is in the file. So each line and each flush is a request with a number,
    and a pass that succeeds has done those that were made before it began.

    Args:
        client: The storage client.
        log: The log.
        state_path: Where to keep how far the mirror has come.
        interval: Seconds between batches.
        max_blocks: Blocks after which an append blob is followed by the next.
        keep: Rotated segments to keep once they are mirrored, `None` for all.
    """

    client: RunLogUploader
    log: LogFile
    state_path: Path
    _: KW_ONLY
    interval: float
    max_blocks: int
    keep: int | None

    def __post_init__(self) -> None:
        self._begin()
        after_fork_in_child(self._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asked = self._done = 0  # requests
        self._failures = self._row = 0  # passes that failed: all, and since something succeeded
        self._hurry = False  # a flush waits
        self._look = False  # and wants to know whether what was mirrored is still there
        self._lost = False  # for ever
        self._answered = False

    def wake(self) -> None:
        """Have everything mirrored that is in the file; never waits."""
        with self._changed:
            self._request()

    def flush(self, timeout: float, *, at_exit: bool = False) -> bool:
        """Wait until everything in the file is mirrored, and look whether what was still is.

        Args:
            timeout: Seconds to wait at most.
            at_exit: Do nothing where no line waits, and give up after the first failure.

        Returns:
            Whether it is. True as well when the client has no account to mirror to; false for ever
            once lines that were mirrored were lost there and are on this disk no more.
        """
        with self._changed:
            if self._asked == self._done and (at_exit or self._thread is None):
                return not self._lost
            self._hurry = self._look = True
            wanted, failures = self._request(), self._failures
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: (
                    self._done >= wanted
                    or (at_exit and (self._failures > failures or self._thread is None))
                ),
                timeout,
            )
            return self._done >= wanted and not self._lost

    def flush_at_exit(self) -> bool:
        """Give what is written a last chance, which ends with the first failure."""
        return self.flush(_EXIT_SECONDS if self._answered else _EXIT_SECONDS_UNPROVEN, at_exit=True)

    def close(self, timeout: float) -> bool:
        """Flush, then end the thread."""
        done = self.flush(timeout)
        with self._changed:
            thread, self._thread = self._thread, None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0 if done else 0.0)
        _alive.discard(self)
        return done

    def _request(self) -> int:
        if self._asked == self._done:
            self._changed.notify_all()
        self._asked += 1
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=MIRROR_THREAD, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: the next run mirrors the rest
                return self._asked
            self._thread = thread
            if not _alive:
                atexit.unregister(_flush_at_exit)
                atexit.register(_flush_at_exit)
            _alive.add(self)
        return self._asked

    def _run(self) -> None:
        me, changed = threading.current_thread(), self._changed
        target: MirrorTarget | None = None
        while True:
            with changed:
                changed.wait_for(lambda: self._thread is not me or self._asked > self._done)
                if self._thread is not me:  # closed; another one may run already
                    return
                asked, look = self._asked, self._look
                self._hurry = self._look = False
            done = False
            try:
                target = target or self._target()
                done = target is None or self._pass(target, look)
                pause = target.interval if target and done else _FOREIGN_PASS
            except Exception as error:  # noqa: BLE001 - whatever the client raises, we go on
                pause = self._failed(error)
                target = None  # the client may have come to its senses
            with changed:
                if done:
                    self._done = asked
                else:
                    self._look = self._look or look
                changed.notify_all()
                changed.wait_for(lambda: self._hurry or self._thread is not me, pause)

    def _pass(self, target: MirrorTarget, look: bool) -> bool:
        """Mirror what is there; False when another process is at it."""
        lock = FileLock(self.state_path.with_suffix(".lock"))
        try:
            if not lock.acquire(timeout=0):
                return False
        except FileLockUnsupported:
            pass
        try:
            state = MirrorState.load(self.state_path)

            def saved() -> None:
                self._row = 0
                state.save(self.state_path)

            try:
                state.fit(self.log)
                target.push(state, saved, look=look)
                self._answered = True
                if self.keep is not None:
                    self.log.remove_before(state.segment, keep=self.keep)
            finally:
                self._lost = self._lost or target.lost
                state.save(self.state_path)
        finally:
            lock.release()
        self._row = 0
        return True

    def _target(self) -> MirrorTarget | None:
        client: Any = self.client
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
                str(name_of(self.log.path)),
                self.log,
                max_blocks=self.max_blocks,
                interval=self.interval,
            )
        upload_file = getattr(client, "upload_file", None)
        if callable(upload_file):
            return UploadFileTarget(upload_file, self.log, interval=self.interval)
        raise RuntimeError(
            f"the run log's storage client {type(client).__name__} has neither container() nor "
            "upload_file(): pass an AzureStorageClient, or azure_client=None for no mirror"
        )

    def _failed(self, error: Exception) -> float:
        """Log a failure, make the container if that was missing, and return how long to wait."""
        row = self._row
        if row & (row + 1) == 0:  # the 1st, 2nd, 4th, 8th... of an outage
            # Of the SDK's lines the first says it; the others are for support.
            said = redact_secrets(str(error).partition("\n")[0].rstrip("."))
            code = error_code(error)
            said = said if code in {"None", ""} or code in said else f"{code}: {said}"
            remedy = access_remedy(code)
            _log.warning(
                "run log mirror failed (try %d), the lines wait in %s until it works: %s: %s",
                row + 1,
                self.log.path,
                type(error).__name__,
                f"{said}; {remedy}" if remedy else said,
            )
        with self._changed:
            self._failures += 1
            self._row += 1
            self._changed.notify_all()
        if error_code(error) == "ContainerNotFound":
            try:
                self.client.container()  # type: ignore[attr-defined]
            except Exception as failure:  # noqa: BLE001 - the next try reports it
                _log.debug("the run log's container cannot be made: %s", type(failure).__name__)
        return _BACKOFF.ceiling(row)


_alive: "weakref.WeakSet[RunLogMirror]" = weakref.WeakSet()


def _flush_at_exit() -> None:
    for mirror in list(_alive):
        started = clock.monotonic()
        if not mirror.flush_at_exit():
            _log.warning(
                "the run log is not mirrored after %.1f s; the next run goes on from there",
                clock.monotonic() - started,
            )
