"""The heartbeat of a run: that it is alive, what it works on, and whether it is stuck."""

import logging
import math
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, TracebackType
from typing import TYPE_CHECKING, Any

from infra_core.fs import write_json_atomic
from infra_core.runtime import after_fork_in_child, clock, redact_secrets

from .._blocking import running_loop
from .._checks import require_number, require_plain_function
from .._process import interrupt_main, process_identity
from ._client_calls import call_strictly, upload_method
from ._loop_lag import LoopLagProbe
from ._plain import without_secrets
from ._protocols import HeartbeatEventWriter, HeartbeatUploader, UtcNowFunc
from ._worker import Worker

if TYPE_CHECKING:
    import asyncio

    from typing_extensions import Self

__all__ = ["HEARTBEAT_FILE", "HeartbeatMonitor"]

HEARTBEAT_FILE = Path("_state") / "heartbeat.json"
"""Where the heartbeat lies below the storage root."""

_LAG_PROBE_SECONDS = 1.0
_YEAR = 366 * 24 * 3600
_log = logging.getLogger("infra_core.azure.monitoring")


class HeartbeatMonitor:
    """Writes `_state/heartbeat.json` below the storage root, at once and every interval.

    Each beat is written to the local file atomically and then uploaded by another thread, so that
    a slow, hanging or failing upload delays neither the caller, nor the next beat, nor the
    detection of a stall. Between `start` and `stop` no method waits for the network, except that
    `stop` gives the last beat `stop_timeout` seconds. Without `start`, `set_slug` and `pulse`
    write and upload in the calling thread.

    A failed upload is critical: `on_error` is called at once, and the next `set_slug`, `pulse` or
    `stop` raises it. The beats go on.

    A beat holds `timestamp`, `slug` (secrets in it replaced), `slug_seconds` (time on this slug),
    `stalled` (it has had the slug for longer than the timeout), `loop_lag_seconds` (the worst of
    the event loop since the last beat, `null` without one), `pid`, `host`, `process` (see
    `read_heartbeat`), `interval_seconds`, `sequence` and `state` (`running`, at last `stopped`).

    Args:
        storage_root: Folder of the run.
        interval_seconds: Seconds between beats.
        slug_timeout_seconds: Seconds that a slug may take before it counts as stalled; `None`
            or 0 for no limit.
        log_writer: Gets an event `heartbeat` for each beat and `heartbeat_timeout` for a stall.
        on_timeout: Called with slug and elapsed seconds, once per `set_slug`, in the monitor's
            thread; what it raises is logged.
        force_first_slug_timeout: For drills: treat the first slug as stalled.
        force_first_slug_delay: Seconds before that drill.
        azure_client: Storage client to upload with (see `HeartbeatUploader`), or `None` to keep
            the heartbeat on this machine.
        utc_now: Source of timestamps, for tests; texts are taken as they are.
        on_error: Called with the error of each failed upload, in the monitor's thread.
        interrupt_main_on_error: Raise `KeyboardInterrupt` in the main thread on a failure.
        loop: Event loop whose lag is measured; by default the one in which `start` is called.
        stop_timeout: Seconds that `stop` waits for the last upload.

    Raises:
        ValueError: The interval or a timeout is out of range.
        TypeError: It is not a number.

    Example:
        ::

            with HeartbeatMonitor(Path("out"), azure_client=None) as heartbeat:
                for url in urls:
                    heartbeat.set_slug(url)
                    work(url)
    """

    def __init__(
        self,
        storage_root: Path,
        *,
        interval_seconds: float = 30.0,
        slug_timeout_seconds: float | None = 300.0,
        log_writer: HeartbeatEventWriter | None = None,
        on_timeout: Callable[[str, float], None] | None = None,
        force_first_slug_timeout: bool = False,
        force_first_slug_delay: float = 0.0,
        azure_client: HeartbeatUploader | None,
        utc_now: UtcNowFunc | None = None,
        on_error: Callable[[Exception], None] | None = None,
        interrupt_main_on_error: bool = False,
        loop: "asyncio.AbstractEventLoop | None" = None,
        stop_timeout: float = 10.0,
    ) -> None:
        allowed = "seconds above 0, at most a year"
        require_number("interval_seconds", interval_seconds, allowed, above=0, most=_YEAR)
        slug_timeout_seconds = slug_timeout_seconds or None  # 0 was off in 0.7
        if slug_timeout_seconds is not None:
            allowed = "seconds above 0, or None for no limit"
            require_number("slug_timeout_seconds", slug_timeout_seconds, allowed, above=0)
        require_number("force_first_slug_delay", force_first_slug_delay, "seconds")
        for name, hook in (("on_timeout", on_timeout), ("on_error", on_error)):
            require_plain_function(name, hook)
        require_number("stop_timeout", stop_timeout, "seconds, 0 to a year", least=0, most=_YEAR)
        self.path: Path = Path(storage_root) / HEARTBEAT_FILE
        self._interval = interval_seconds
        self._slug_timeout = slug_timeout_seconds
        self._log_writer = log_writer
        self._on_timeout = on_timeout
        self._forced_delay = max(0.0, force_first_slug_delay) if force_first_slug_timeout else None
        self._utc_now = utc_now or clock.utc_now
        self._on_error = on_error
        self._interrupt_main = interrupt_main_on_error
        self._loop = loop
        self._stop_timeout = stop_timeout
        self._client = azure_client
        self._uploads = Worker("infra-core-heartbeat-upload", self._upload_newest)
        self._uploads_in_thread = False
        self._uploaded: Mapping[str, Any] | None = None  # by the thread, or tried
        self._sequence = 0
        self._own()
        self._make_locks()
        self._error: Exception | None = None
        self._set_slug_now(None)
        after_fork_in_child(self._make_locks)

    def _make_locks(self) -> None:
        self._wake = threading.Condition()  # guards all that follows; never held during I/O
        # Held for writes to the local disk only; a signal handler may beat in the middle of one.
        self._file_lock = threading.RLock()
        self._newest: Mapping[str, Any] = {"sequence": 0}  # beat
        self._thread: threading.Thread | None = None
        self._probe: LoopLagProbe | None = None

    def _set_slug_now(self, slug: str | None) -> None:
        self._slug: str | None = slug
        self._slug_since = clock.monotonic()
        self._stalled = False
        limit = self._slug_timeout if self._forced_delay is None else self._forced_delay
        self._deadline = math.inf if slug is None or limit is None else self._slug_since + limit

    def start(self) -> None:
        """Write the first beat and start beating; a second call does nothing.

        Called within a running event loop, the beats hold that loop's lag.

        Raises:
            OSError: The first beat cannot be written to the local disk.
        """
        with self._wake:
            if self._thread is not None:
                return
            loop = self._loop or running_loop()
            self._probe = LoopLagProbe(loop) if loop is not None else None
            self._own()  # in a forked child, from now on, the child's
            self._thread = threading.Thread(
                target=self._run, name="infra-core-heartbeat", daemon=True
            )
            self._thread.start()
        self._uploads_in_thread = True
        self._beat()

    def set_slug(self, slug: str | None) -> None:
        """Say what is being worked on, restart its clock, and beat.

        Args:
            slug: The item at work; `None` between items.

        Raises:
            TypeError: The slug is not text.
            RuntimeError: The storage client is not usable.
            Exception: The failure of an earlier upload, once.
            OSError: The beat cannot be written to the local disk.
        """
        if not isinstance(slug, (str, int, NoneType)):  # numbers were never refused
            raise TypeError(
                f"slug={slug!r:.80} is not text: pass str() of it, or None between items"
            )
        with self._wake:
            self._set_slug_now(slug)
            self._wake.notify_all()
        self.pulse()

    def pulse(self) -> None:
        """Beat now, without touching the slug's clock.

        Raises:
            RuntimeError: The storage client is not usable.
            Exception: The failure of an earlier upload, once.
            OSError: The beat cannot be written to the local disk.
        """
        if self._client is not None:
            upload_method(self._client)  # or an error: it cannot be used
        self._raise_kept_error()
        self._beat()

    def stop(self) -> None:
        """Write the last beat, in state `stopped`, upload it and end the threads.

        Raises:
            TimeoutError: The last beat was not uploaded within `stop_timeout` seconds.
            RuntimeError: The storage client is not usable.
            Exception: The failure of an earlier upload, once.
            OSError: The beat cannot be written to the local disk.
        """
        with self._wake:
            thread, self._thread = self._thread, None
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(self._stop_timeout)  # it may be in a callback of the user
        try:
            self._beat(state="stopped")
        finally:
            with self._uploads.changed:
                self._uploads_in_thread = False
            uploaded = self._uploads.in_thread or self._uploads.flush(self._stop_timeout)
            self._uploads.close()  # what is late is left to end alone
            self._raise_kept_error()
        if not uploaded:
            raise TimeoutError(
                f"the last heartbeat was not uploaded within {self._stop_timeout:g} s; "
                f"{self.path} has it. Check the storage account, or raise stop_timeout"
            )

    def __enter__(self) -> "Self":
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.stop()
            return
        try:
            self.stop()
        except Exception:  # noqa: BLE001 - the error of the block is the one that matters
            _log.warning("the heartbeat could not be stopped cleanly", exc_info=True)

    # Beats

    def _beat(self, state: str = "running") -> None:
        if os.getpid() != self._pid:
            return  # a forked child: the heartbeat is its parent's
        with self._wake:
            beat = self._compose(state)
        self._write(beat)
        try:
            self._upload_soon(beat)
        except Exception as error:
            self._call_on_error(error)
            raise
        if self._log_writer is not None:
            self._log_writer.write("heartbeat", timestamp=beat["timestamp"], slug=beat["slug"])

    def _compose(self, state: str) -> dict[str, Any]:
        """Make the next beat; the caller holds the lock."""
        self._sequence += 1
        on_slug = clock.monotonic() - self._slug_since if self._slug is not None else None
        lag = self._probe.take() if self._probe is not None else None
        return {
            "timestamp": now if isinstance(now := self._utc_now(), str) else now.isoformat(),
            "slug": _shown(self._slug),
            "slug_seconds": None if on_slug is None else round(on_slug, 3),
            "stalled": self._stalled,
            "loop_lag_seconds": None if lag is None else round(lag, 6),
            "state": state,
            "pid": self._pid,
            "host": self._host,
            "process": self._identity,
            "interval_seconds": self._interval,
            "sequence": self._sequence,
        }

    def _write(self, beat: Mapping[str, Any]) -> None:
        with self._file_lock:
            if beat["sequence"] > self._newest["sequence"]:
                self._newest = beat
                self._write_newest()

    def _write_newest(self) -> None:
        # Local disk only. Not flushed to the platter: a beat that a power cut takes with it was
        # that of a dead run.
        written = None
        while written is not self._newest:  # that of a signal handler, meanwhile
            written = self._newest
            write_json_atomic(self.path, written, durable=False)

    def _rewrite_if_older(self, uploaded: Mapping[str, Any]) -> None:
        """Put the newest beat back where a client's own local write has left an older one."""
        with self._file_lock:
            if self._newest["sequence"] > uploaded["sequence"]:
                try:
                    self._write_newest()
                except OSError as error:
                    _log.warning(
                        "the heartbeat could not be written: %s: %s", type(error).__name__, error
                    )

    # Uploads: the newest beat wins, so that the blob is never older than one upload

    def _upload_soon(self, beat: Mapping[str, Any]) -> None:
        """Have a beat uploaded by the thread; before `start` and after `stop`, here and now."""
        if self._client is None:
            return
        with self._uploads.changed:
            if self._uploads_in_thread:
                if self._uploads.ask():
                    return
                self._uploads.finish(self._uploads.asked)  # no thread to be had
        self._upload(beat)

    def _upload(self, beat: Mapping[str, Any]) -> None:
        name, method = upload_method(self._client)
        try:
            call_strictly(method, self.path, *([beat] if name == "write_json" else []))
        finally:
            self._rewrite_if_older(beat)

    def _upload_newest(self, number: int) -> None:
        while self._uploaded is not self._newest:  # also what a stop in haste has left
            self._uploaded = beat = self._newest
            try:
                self._upload(beat)
            except Exception as error:  # noqa: BLE001 - kept for the caller
                self._keep_error(error)
        self._uploads.finish(number)

    # The thread

    def _run(self) -> None:
        next_beat = clock.monotonic() + self._interval
        while True:
            with self._wake:
                if self._thread is not threading.current_thread():
                    return
                now = clock.monotonic()
                slug, elapsed, overdue = self._slug, now - self._slug_since, now >= self._deadline
                if overdue:
                    self._stalled = True
                    self._deadline, self._forced_delay = math.inf, None
                elif now < next_beat:
                    pause = min(next_beat, self._deadline) - now
                    if self._probe is not None:
                        pause = min(pause, _LAG_PROBE_SECONDS)
                    self._wake.wait(max(pause, 0.001))
                    if self._probe is not None:
                        self._probe.ask()
                    continue
            if overdue and slug is not None:
                self._report_timeout(slug, elapsed)
            next_beat = clock.monotonic() + self._interval
            try:
                self._beat()
            except Exception as error:  # noqa: BLE001 - kept for the caller
                self._keep_error(error)

    def _report_timeout(self, slug: str, elapsed: float) -> None:
        try:
            if self._log_writer is not None:
                self._log_writer.write(
                    "heartbeat_timeout", slug=_shown(slug), elapsed_seconds=round(elapsed, 3)
                )
        except Exception as error:  # noqa: BLE001 - kept for the caller
            self._keep_error(error)
        self._call_hook("on_timeout", self._on_timeout, slug, elapsed)

    # Errors

    def _keep_error(self, error: Exception) -> None:
        with self._wake:
            self._error = error
        _log.error("the heartbeat failed: %s: %s", type(error).__name__, redact_secrets(str(error)))
        self._call_on_error(error)

    def _call_on_error(self, error: Exception) -> None:
        self._call_hook("on_error", self._on_error, error)
        if self._interrupt_main:
            interrupt_main()

    def _call_hook(self, name: str, hook: Callable[..., object] | None, *arguments: object) -> None:
        try:
            if hook is not None:
                hook(*arguments)
        except Exception:  # noqa: BLE001 - user code in our thread
            _log.exception("%s of the heartbeat failed, on %r", name, _shown(self._slug))

    def _raise_kept_error(self) -> None:
        with self._wake:
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _own(self) -> None:
        self._pid = os.getpid()
        self._host = socket.gethostname()
        self._identity = process_identity(self._pid)


def _shown(slug: str | None) -> str | None:
    """A slug without secrets: it may be a URL, and a beat is read by others."""
    return without_secrets(slug) if isinstance(slug, str) else slug
