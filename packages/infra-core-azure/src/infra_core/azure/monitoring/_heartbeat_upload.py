"""Uploads of the heartbeat from a thread of their own: the latest beat wins, no caller waits."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from ._client_calls import call_strictly, is_configured
from ._protocols import HeartbeatUploader
from ._worker import Worker

__all__ = ["BeatUploads"]

Beat = Mapping[str, Any]


@dataclass(eq=False, repr=False)
class BeatUploads:
    """Uploads beats to the blob of the heartbeat's path.

    While one upload is slow, further beats replace each other in a slot of one, so that the blob
    is never older than one upload and nothing piles up.
    """

    client: HeartbeatUploader | None
    path: Path
    _: KW_ONLY
    on_failure: Callable[[Exception], None]  # called in the thread of the uploads
    after_upload: Callable[[Beat], None]  # the client may have written the file as well

    def __post_init__(self) -> None:
        self._worker = Worker("infra-core-heartbeat-upload", self._upload_latest)
        self._started = False
        self._next: Beat | None = None

    def require_usable_client(self) -> None:
        """Refuse a client that has no storage account, or no method to upload with."""
        if self.client is not None:
            self._upload_method()

    def start(self) -> None:
        """Have beats uploaded by the thread from now on."""
        self._started = True

    def post(self, beat: Beat) -> None:
        """Have a beat uploaded soon; before `start` and after `stop`, here and now."""
        if self.client is None:
            return
        with self._worker.changed:
            if self._started:
                self._next = beat
                if self._worker.ask():
                    return
                self._worker.finish(self._worker.asked)  # no thread to be had
        self._upload(beat)

    def stop(self, timeout: float) -> bool:
        """End the thread after what is posted is uploaded.

        False when that is not uploaded yet, successfully or not: the thread is left to end alone.
        """
        with self._worker.changed:
            self._started = False
        done = self._worker.in_thread or self._worker.flush(timeout)
        self._worker.close()
        return done

    def _upload(self, beat: Beat) -> None:
        name, method = self._upload_method()
        try:
            call_strictly(method, self.path, *([beat] if name == "write_json" else []))
        finally:
            self.after_upload(beat)

    def _upload_latest(self, number: int) -> None:
        while (beat := self._take()) is not None:  # also what a stop that could not wait has left
            try:
                self._upload(beat)
            except Exception as error:  # noqa: BLE001 - kept for the caller, see on_failure
                self.on_failure(error)
        self._worker.finish(number)

    def _take(self) -> Beat | None:
        with self._worker.changed:
            beat, self._next = self._next, None
            return beat

    def _upload_method(self) -> tuple[str, Callable[..., Any]]:
        client = self.client
        if not is_configured(client):
            mode = getattr(client, "mode", "unknown")
            raise RuntimeError(
                "the heartbeat's storage client is not configured "
                f"(mode={getattr(mode, 'value', mode)}): a heartbeat that stays here cannot be "
                "watched. Set AZURE_STORAGE_CONTAINER and the credentials, or pass "
                "azure_client=None to keep it on this machine"
            )
        for name in ("write_json", "upload_file"):
            method = getattr(client, name, None)
            if callable(method):
                return name, method
        raise RuntimeError(
            f"the heartbeat's storage client {type(client).__name__} has neither write_json nor "
            "upload_file: pass an AzureStorageClient, or azure_client=None to keep the heartbeat "
            "on this machine"
        )
