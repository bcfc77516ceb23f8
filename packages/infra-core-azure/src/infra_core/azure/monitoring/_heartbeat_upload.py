"""Uploads of the heartbeat from a thread of their own: the latest beat wins, no caller waits."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ._client_calls import call_strictly, is_configured
from ._protocols import HeartbeatUploader

__all__ = ["BeatUploads"]

Beat = Mapping[str, Any]


class BeatUploads:
    """Uploads beats to the blob of the heartbeat's path.

    While one upload is slow, further beats replace each other in a slot of one, so that the blob
    is never older than one upload and nothing piles up.

    Args:
        client: The storage client; `None` keeps the heartbeat on this machine.
        path: The heartbeat's file.
        on_failure: Called with the error of every failed upload, in the thread of the uploads.
        after_upload: Called after each upload, as the client may have written the file as well.
    """

    _changed: threading.Condition
    _next: Beat | None
    _busy: bool
    _ending: bool
    _thread: threading.Thread | None

    def __init__(
        self,
        client: HeartbeatUploader | None,
        path: Path,
        *,
        on_failure: Callable[[Exception], None],
        after_upload: Callable[[Beat], None],
    ) -> None:
        self._client = client
        self._path = path
        self._on_failure = on_failure
        self._after_upload = after_upload
        self.reset()

    def reset(self) -> None:
        """Forget thread, locks and beats, as for a forked child."""
        self._changed = threading.Condition()
        self._next = None
        self._busy = False
        self._ending = False
        self._thread = None

    def require_usable_client(self) -> None:
        """Refuse a client that could never upload.

        Raises:
            RuntimeError: It has no storage account, or no method to upload with.
        """
        client = self._client
        if client is None:
            return
        if not is_configured(client):
            mode = getattr(client, "mode", None)
            raise RuntimeError(
                f"the heartbeat's storage client is not configured (mode={_mode_name(mode)}): a "
                "heartbeat that stays here cannot be watched. Set AZURE_STORAGE_CONTAINER and the "
                "credentials, or pass azure_client=None to keep it on this machine"
            )
        self._upload_method(client)

    def start(self) -> None:
        """Start the thread; a second call does nothing."""
        with self._changed:
            if self._client is None or self._thread is not None:
                return
            self._ending = False
            self._thread = threading.Thread(
                target=self._run, name="infra-core-heartbeat-upload", daemon=True
            )
            self._thread.start()

    def post(self, beat: Beat) -> None:
        """Have a beat uploaded soon; never waits for an upload.

        Without a running thread the upload takes place here and now.

        Raises:
            Exception: Whatever the client raised, only without a running thread.
        """
        if self._client is None:
            return
        with self._changed:
            if self._thread is not None:
                self._next = beat
                self._changed.notify_all()
                return
        self.upload(beat)

    def stop(self, timeout: float) -> bool:
        """End the thread after what is posted is uploaded.

        Args:
            timeout: Seconds to wait for that at most.

        Returns:
            Whether it is uploaded, successfully or not. When not, the thread is left to end alone.
        """
        with self._changed:
            thread, self._thread = self._thread, None
            self._ending = True
            self._changed.notify_all()
            if thread is None or thread is threading.current_thread():
                return True
            done = self._changed.wait_for(lambda: self._next is None and not self._busy, timeout)
        if done:
            thread.join(timeout)
        return done

    def upload(self, beat: Beat) -> None:
        """Upload one beat and wait for it.

        Raises:
            Exception: Whatever the client raised.
        """
        if self._client is None:
            return
        self.require_usable_client()
        name, method = self._upload_method(self._client)
        try:
            if name == "write_json":
                call_strictly(method, self._path, beat)
            else:
                call_strictly(method, self._path)
        finally:
            self._after_upload(beat)

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._next is not None or self._ending)
                beat, self._next = self._next, None
                if beat is None:
                    return
                self._busy = True
            try:
                self.upload(beat)
            except Exception as error:  # noqa: BLE001 - kept for the caller, see on_failure
                self._on_failure(error)
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
                    superseded = self._thread is not None and self._thread is not me
            if superseded:  # stopped while this upload hung, and started again since
                return

    def _upload_method(self, client: object) -> tuple[str, Callable[..., Any]]:
        for name in ("write_json", "upload_file"):
            method = getattr(client, name, None)
            if callable(method):
                return name, method
        raise RuntimeError(
            f"the heartbeat's storage client {type(client).__name__} has neither write_json nor "
            "upload_file: pass an AzureStorageClient, or azure_client=None to keep the heartbeat "
            "on this machine"
        )


def _mode_name(mode: object) -> str:
    return str(getattr(mode, "value", mode)) if mode is not None else "unknown"
