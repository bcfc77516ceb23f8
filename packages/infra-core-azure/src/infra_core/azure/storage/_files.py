"""`AzureStorageClient`: local files first, then the container; every method sync and async."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from infra_core.fs import ensure_parent, write_json_atomic, write_text_atomic
from infra_core.runtime import redact_secrets, trace_fields

from .._checks import a_kind
from ._blobs import BlobInfo, look_at
from ._blocking import run_blocking
from ._config import _AzureStorageConfig, missing_settings
from ._download import download_blob
from ._errors import JournalError, UnsafeNamesError, describe
from ._flush import FlushReport, flush_journal, may_pass
from ._journal import Journal, PendingUpload, default_journal_path, open_journal
from ._names import blob_name_for, encode_blob_name, upload_problem
from ._sdk import SdkClients
from ._settings import AzureStorageSettings, StorageMode, parse_mode
from ._upload import Overwrite, check_upload, upload_bytes, upload_path
from ._wire import BlobWire

__all__ = ["FileClient"]

T = TypeVar("T")
_LOG = logging.getLogger("infra_core.azure.storage")


class FileClient:
    """Single files; see `AzureStorageClient`."""

    def __init__(
        self,
        config: _AzureStorageConfig | None,
        *,
        settings: AzureStorageSettings,
        mode: StorageMode,
        swallow_errors: bool = False,
        base_path: Path | None = None,
        log: logging.Logger | None = None,
        credential: Any = None,
    ) -> None:
        self._config = config
        self._settings = settings
        self._mode = parse_mode(mode)
        self._swallow = swallow_errors or self._mode == "best-effort"
        self._base_path = None if base_path is None else Path(base_path)
        self._log = log or _LOG
        self._credential = credential
        self._told_unconfigured = False
        self._flush_due = True  # what an earlier run left behind
        self._wire: BlobWire | None = None
        self._journal: Journal | None = None
        self._sdk: SdkClients | None = None
        if config is not None:
            self._wire = BlobWire(config, credential=credential, log=self._log)
            self._journal = open_journal(
                settings.journal or default_journal_path(config), settings.variable("journal")
            )
            self._sdk = SdkClients(self._wire, credential)

    # -- what it is ---------------------------------------------------------------------------

    @property
    def config(self) -> _AzureStorageConfig | None:
        """The checked configuration, `None` when uploads are skipped."""
        return self._config

    @property
    def settings(self) -> AzureStorageSettings:
        """The settings that it was made of."""
        return self._settings

    @property
    def mode(self) -> StorageMode:
        """Its mode."""
        return self._mode

    @property
    def base_path(self) -> Path | None:
        """The folder that blob names are relative to."""
        return self._base_path

    def is_configured(self) -> bool:
        """Whether there is a container to mirror to."""
        return self._config is not None

    def __repr__(self) -> str:
        where = "not configured" if self._config is None else self._config.container_url
        return f"<{type(self).__name__} {where} mode={self._mode}>"

    # -- names --------------------------------------------------------------------------------

    def blob_name_for_path(self, path: Path) -> str:
        """The name of the blob that mirrors a local path, prefix included.

        Below `base_path` it is the path relative to it. Outside of any base the leading slash
        goes, and one leading `tmp/`, `temp/` or `var/tmp/`.
        """
        prefix = self._config.prefix if self._config else (self._settings.prefix or "")
        return blob_name_for(Path(path), base=self._base_path, prefix=prefix)

    def blob_url_for_name(self, blob_name: str) -> str | None:
        """The URL of a blob, encoded and without any token; `None` when not configured."""
        if self._config is None:
            return None
        return f"{self._config.container_url}/{encode_blob_name(blob_name)}"

    def ensure_parent(self, path: Path) -> None:
        """Create the local folder that a path lies in."""
        ensure_parent(Path(path))

    # -- uploads ------------------------------------------------------------------------------

    async def upload_file_async(
        self,
        path: Path,
        *,
        blob_path: str | None = None,
        raise_on_error: bool = False,
        overwrite: Overwrite = "always",
        etag: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """Upload a local file.

        Args:
            path: The file.
            blob_path: Full name of the blob; by default `blob_name_for_path(path)`.
            raise_on_error: Raise even where errors are swallowed (best-effort, `swallow_errors`).
            overwrite: `always`; `never`, unless the content is the same; `if-unchanged`, only
                while the blob has `etag`, or while there is none.
            etag: ETag for `if-unchanged`, from `stat`.
            content_type: Media type; by default that of the blob's name.

        Raises:
            OSError: The file cannot be read: `FileNotFoundError`, `PermissionError`...
            ValueError: `overwrite`, `etag` or `content_type` cannot be used (in any mode).
            UnsafeNamesError: The blob's name could never come back as a file.
            BlobConflictError: `overwrite` forbids it.
            StorageError: The service refuses or does not answer (mode strict).
        """
        path = Path(path)
        check_upload(overwrite, etag, content_type)
        name = str(blob_path).lstrip("/") if blob_path else self.blob_name_for_path(path)

        async def upload(wire: BlobWire) -> None:
            await upload_path(
                wire, path, name, overwrite=overwrite, etag=etag, content_type=content_type
            )

        entry = {"path": path, "content_type": content_type, "overwrite": overwrite, "etag": etag}
        await self._mirror("file", name, upload, raise_on_error, entry)

    async def upload_text_async(
        self, path: Path, text: str, *, raise_on_error: bool = False
    ) -> None:
        """Upload text as the blob of `path`, without writing the local file.

        Raises:
            StorageError: The service refuses or does not answer (mode strict).
        """
        name = self.blob_name_for_path(path)
        if not isinstance(text, str):
            raise TypeError(f"upload_text takes a str, not {a_kind(text)}; upload_file takes bytes")
        data = text.encode("utf-8")

        async def upload(wire: BlobWire) -> None:
            await upload_bytes(wire, data, name)

        await self._mirror("bytes", name, upload, raise_on_error, {"data": data})

    async def write_json_async(
        self, path: Path, data: Mapping[str, Any], *, raise_on_error: bool = False
    ) -> Path:
        """Write JSON (UTF-8, indented by 2, final newline) to the local file, then upload it.

        Returns:
            The path.

        Raises:
            TypeError: `data` cannot be JSON; nothing is written.
            FileWriteError: The disk refuses.
            StorageError: The service refuses or does not answer (mode strict); the local file
                stands.
        """
        path = Path(path)
        await self._write_and_upload(path, lambda: write_json_atomic(path, data), raise_on_error)
        return path

    async def write_text_async(
        self, path: Path, text: str, *, raise_on_error: bool = False
    ) -> Path:
        """Write text (UTF-8) to the local file, then upload it; see `write_json_async`."""
        path = Path(path)
        await self._write_and_upload(path, lambda: write_text_atomic(path, text), raise_on_error)
        return path

    async def _write_and_upload(
        self, path: Path, write: Callable[[], Path], raise_on_error: bool
    ) -> None:
        name = self.blob_name_for_path(path)

        async def upload(wire: BlobWire) -> None:
            await upload_path(wire, path, name)

        await self._mirror("file", name, upload, raise_on_error, {"path": path}, before=write)

    async def _mirror(
        self,
        kind: Literal["file", "bytes"],
        name: str,
        upload: Callable[[BlobWire], Awaitable[None]],
        raise_on_error: bool,
        entry: dict[str, Any],
        *,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Note in the journal, write, upload, settle: in this order nothing can get lost.

        The entry comes before the local file, so that from the moment the file stands it is
        accounted for.
        """
        wire = self._ready(name)
        problem = upload_problem(name)
        number = None
        if wire is not None and problem is None:
            number = await self._enter(kind, name, entry)
        try:
            if before is not None:
                await asyncio.to_thread(before)
        except BaseException:
            if number is not None:
                await self._in_journal(lambda journal: journal.settle(number))
            raise
        if wire is None:
            return
        try:
            if problem is not None:
                raise UnsafeNamesError(
                    {name: problem},
                    operation="upload",
                    remedy="rename the file, or pass another name as blob_path",
                )
            await upload(wire)
        except Exception as error:  # noqa: BLE001 - raised again unless errors are swallowed
            await self._failed(error, name, number, raise_on_error)
        except BaseException as error:
            if number is not None:  # cancelled: the next flush does it
                self._fail_now(number, error)
            raise
        else:
            if number is not None:
                await self._in_journal(lambda journal: journal.settle(number))
            self._log.debug("uploaded %r", name, extra={"blob_name": name, **trace_fields()})
            await self._flush_leftovers()

    async def _failed(
        self, error: Exception, name: str, number: int | None, raise_on_error: bool
    ) -> None:
        """Keep or drop the journal's entry, then log or raise."""
        worth_keeping = may_pass(error)
        kept = number is not None and worth_keeping
        if number is not None:
            await self._in_journal(
                lambda journal: journal.fail(number, error) if kept else journal.settle(number)
            )
            self._flush_due = self._flush_due or kept
        # What should have been noted and could not be must not vanish without a word.
        lost = self._journal is not None and self._swallow and worth_keeping and not kept
        if raise_on_error or not self._swallow or lost:
            raise error
        self._log.error(
            "%s%s",
            "kept for flush_pending(): " if kept else "",
            redact_secrets(describe(error, "upload", name)),
            extra={
                "blob_name": name,
                "error": type(error).__name__,
                "journal": str(self._journal.path) if kept and self._journal else None,
                **trace_fields(),
            },
        )

    async def _enter(
        self, kind: Literal["file", "bytes", "tree"], name: str, entry: dict[str, Any]
    ) -> int | None:
        if not self._swallow:
            return None
        return await self._in_journal(lambda journal: journal.enter(kind, name, **entry))

    async def _in_journal(self, do: Callable[[Journal], T]) -> T | None:
        """Do something with the journal in a thread; one that cannot be written stops nothing."""
        if self._journal is None:
            return None
        try:
            return await asyncio.to_thread(do, self._journal)
        except JournalError as error:
            self._log.error("%s", error, extra={"journal": str(self._journal.path)})
            return None

    def _fail_now(self, number: int, error: BaseException) -> None:
        """Keep an entry from within a cancelled task, which can await nothing more."""
        if self._journal is not None:
            with contextlib.suppress(JournalError):
                self._journal.fail(number, error)
            self._flush_due = True

    async def _flush_leftovers(self) -> None:
        """After a success: what failed before, in this run or an earlier one, may pass now."""
        if not (self._swallow and self._flush_due):
            return
        self._flush_due = False
        with contextlib.suppress(JournalError):  # told when the upload was entered
            await self.flush_pending_async()

    async def flush_pending_async(self) -> FlushReport:
        """Upload what the journal holds.

        Runs by itself after the first upload that succeeds, and again after failures.

        Returns:
            How many arrived, failed again, or have no local file any more.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        if self._wire is None or self._journal is None:
            return FlushReport()
        return await flush_journal(self._wire, self._journal, self._log)

    def flush_pending(self) -> FlushReport:
        """See `flush_pending_async`."""
        return run_blocking(self.flush_pending_async, "flush_pending()")

    def pending_uploads(self) -> list[PendingUpload]:
        """What the journal holds: uploads that failed, or that a killed process had begun.

        Raises:
            JournalError: The journal cannot be read.
        """
        return [] if self._journal is None else self._journal.pending()

    def _ready(self, name: str) -> BlobWire | None:
        """The wire; `None`, said once, when not configured."""
        if self._wire is None and not self._told_unconfigured:
            self._told_unconfigured = True
            by_choice = self._mode == "dev-skip"
            self._log.log(
                logging.INFO if by_choice else logging.WARNING,
                "Azure storage not configured, files stay local (%s)",
                "mode dev-skip"
                if by_choice
                else missing_settings(self._settings) or "no configuration was given",
                extra={"blob_name": name, "mode": self._mode},
            )
        return self._wire

    # -- downloads ----------------------------------------------------------------------------

    async def download_to_path_async(self, path: Path) -> bool:
        """Fetch the blob of `path` to `path`, verified and atomically.

        Returns:
            False when there is no such blob, or storage is not configured.

        Raises:
            IntegrityError: What comes is not what was stored.
            StorageError: The service refuses or does not answer.
        """
        path = Path(path)
        name = self.blob_name_for_path(path)
        if self._wire is None or not name:  # the base folder itself is no blob
            return False
        return await download_blob(self._wire, name, path) is not None

    async def stat_async(self, path: Path) -> BlobInfo | None:
        """Size, hash and ETag of the blob of `path`, `None` when there is none.

        Raises:
            StorageError: The service refuses or does not answer.
        """
        name = self.blob_name_for_path(path)
        if self._wire is None or not name:
            return None
        return await look_at(self._wire, name)

    # -- the same for synchronous callers -----------------------------------------------------

    def upload_file(
        self,
        path: Path,
        *,
        blob_path: str | None = None,
        raise_on_error: bool = False,
        overwrite: Overwrite = "always",
        etag: str | None = None,
        content_type: str | None = None,
    ) -> None:
        """See `upload_file_async`."""
        run_blocking(
            lambda: self.upload_file_async(
                path,
                blob_path=blob_path,
                raise_on_error=raise_on_error,
                overwrite=overwrite,
                etag=etag,
                content_type=content_type,
            ),
            "upload_file()",
        )

    def upload_text(self, path: Path, text: str, *, raise_on_error: bool = False) -> None:
        """See `upload_text_async`."""
        run_blocking(
            lambda: self.upload_text_async(path, text, raise_on_error=raise_on_error),
            "upload_text()",
        )

    def write_json(
        self, path: Path, data: Mapping[str, Any], *, raise_on_error: bool = False
    ) -> Path:
        """See `write_json_async`."""
        return run_blocking(
            lambda: self.write_json_async(path, data, raise_on_error=raise_on_error),
            "write_json()",
        )

    def write_text(self, path: Path, text: str, *, raise_on_error: bool = False) -> Path:
        """See `write_text_async`."""
        return run_blocking(
            lambda: self.write_text_async(path, text, raise_on_error=raise_on_error),
            "write_text()",
        )

    def download_to_path(self, path: Path) -> bool:
        """See `download_to_path_async`."""
        return run_blocking(lambda: self.download_to_path_async(path), "download_to_path()")

    def stat(self, path: Path) -> BlobInfo | None:
        """See `stat_async`."""
        return run_blocking(lambda: self.stat_async(path), "stat()")
