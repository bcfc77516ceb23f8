"""Single files and their blobs: what a storage client is made of, and what it does with a file."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from infra_core.fs import ensure_parent, write_json_atomic, write_text_atomic

from .._blocking import be_ready, blocking
from .._checks import type_name
from .._tokens import gives_tokens
from ..exceptions import ConfigurationError
from ._blobs import BlobContent, BlobInfo, get_properties, read_blob
from ._config import _AzureStorageConfig, missing_settings
from ._download import download_blob
from ._errors import UnsafeNamesError
from ._flush import FlushReport, flush_journal
from ._journal import PendingUpload, default_journal_path, open_journal
from ._names import altered_reason, blob_name_for, encode_blob_name
from ._properties import StoredProperties
from ._sdk import SdkClients
from ._service import BlobService
from ._settings import AzureStorageSettings, Overwrite, StorageMode, parse_mode
from ._uploader import Uploader

__all__ = ["FileClient", "StorageBackend"]

_LOG = logging.getLogger("infra_core.azure.storage")


@runtime_checkable
class StorageBackend(Protocol):
    """What callers that only write files need of a storage client."""

    def ensure_parent(self, path: Path) -> None:
        """Create the folder that a path lies in."""

    def upload_file(self, path: Path) -> None:
        """Mirror a local file."""

    def write_json(self, path: Path, data: Mapping[str, Any]) -> Path:
        """Write JSON to a local file and mirror it."""
        ...

    def write_text(self, path: Path, text: str) -> Path:
        """Write text to a local file and mirror it."""
        ...


if TYPE_CHECKING:
    # It satisfies the protocol by its methods; named as a base, mypy would take their types from
    # there, without the further parameters.
    class _Base: ...

else:
    _Base = StorageBackend


class FileClient(_Base):
    """The part of `AzureStorageClient` that knows single files; see there."""

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
        if credential is not None and not gives_tokens(credential):
            raise TypeError(
                f"credential is {type_name(credential)} without get_token or get_token_info: pass "
                "an Azure credential; a key belongs in connection_string, a SAS token in sas_token"
            )
        be_ready()
        self._config = config
        self._settings = settings
        self.mode: StorageMode = parse_mode(mode)
        self.base_path: Path | None = None if base_path is None else Path(base_path)
        self._swallow = swallow_errors or self.mode == "best-effort"
        self._log = log or _LOG
        self._logged_unconfigured = False
        self._uploader: Uploader | None = None
        if config is None:
            return
        self._service = BlobService(config, credential=credential, log=self._log)
        self._sdk = SdkClients(self._service, credential)
        path = settings.journal or default_journal_path(config)
        journal = open_journal(path, settings.variable("journal"))
        must_keep = self.mode == "best-effort"
        self._uploader = Uploader(self._service, journal, self._swallow, must_keep)

    # -- what it is ---------------------------------------------------------------------------

    @property
    def config(self) -> _AzureStorageConfig | None:
        """The checked configuration, `None` when uploads are skipped."""
        return self._config

    @property
    def settings(self) -> AzureStorageSettings:
        """The settings that it was made of."""
        return self._settings

    def is_configured(self) -> bool:
        """Whether there is a container to mirror to."""
        return self.config is not None

    def __repr__(self) -> str:
        where = "not configured" if self.config is None else self.config.container_url
        return f"<{type(self).__name__} {where} mode={self.mode}>"

    # -- names --------------------------------------------------------------------------------

    def blob_name_for_path(self, path: Path) -> str:
        """The name of the blob that mirrors a local path, prefix included.

        Below `base_path` it is the path relative to it. Outside of any base the leading slash
        goes, and one leading `tmp/`, `temp/` or `var/tmp/`.
        """
        prefix = self.config.prefix if self.config else (self.settings.prefix or "")
        name = blob_name_for(Path(path), base=self.base_path, prefix=prefix)
        # 0.7 kept a slash before the prefix, and stored blobs by it.
        return f"/{name}" if prefix.startswith("/") and name else name

    def blob_url_for_name(self, blob_name: str) -> str | None:
        """The URL of a blob, encoded and without any token; `None` when not configured."""
        if self.config is None:
            return None
        return f"{self.config.public_url}/{encode_blob_name(blob_name)}"

    def ensure_parent(self, path: Path) -> None:
        """Create the local folder that a path lies in."""
        ensure_parent(Path(path))

    # -- files --------------------------------------------------------------------------------

    async def upload_file_async(
        self,
        path: Path,
        *,
        blob_path: str | None = None,
        raise_on_error: bool = False,
        overwrite: Overwrite = "always",
        etag: str | None = None,
        content_type: str | None = None,
        cache_control: str | None = None,
        content_encoding: str | None = None,
        metadata: Mapping[str, str] | None = None,
        keep_properties: bool = False,
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
            cache_control: `Cache-Control` that the blob is served with.
            content_encoding: `Content-Encoding` that it is served with; the bytes of the file are
                stored as they are.
            metadata: Metadata of the blob; names are stored in lower case.
            keep_properties: A blob that is replaced keeps its media type, cache control, encoding,
                language, disposition and metadata, as far as they are not given here.

        Raises:
            OSError: The file cannot be read: `FileNotFoundError`, `PermissionError`...
            ValueError: An argument cannot be used (in any mode).
            UnsafeNamesError: The blob's name could never come back as a file.
            BlobConflictError: `overwrite` forbids it.
            ConfigurationError: The client was made without configuration (mode strict).
            StorageError: The service refuses or does not answer (mode strict).
        """
        path = Path(path)
        how = StoredProperties(
            overwrite=overwrite,
            etag=etag,
            content_type=content_type,
            cache_control=cache_control,
            content_encoding=content_encoding,
            metadata=metadata,
            keep=keep_properties,
        )
        name = str(blob_path).lstrip("/") if blob_path else self.blob_name_for_path(path)
        if (uploader := self._ready(name)) is not None:
            await uploader.upload_file(path, name, how, raise_on_error=raise_on_error)

    async def upload_text_async(
        self, path: Path, text: str, *, raise_on_error: bool = False
    ) -> None:
        """Upload text as the blob of `path`, without writing the local file.

        Raises:
            ConfigurationError: The client was made without configuration (mode strict).
            StorageError: The service refuses or does not answer (mode strict).
        """
        name = self.blob_name_for_path(path)
        if not isinstance(text, str):
            raise TypeError(
                f"upload_text takes a str, not {type_name(text)}; upload_file takes bytes"
            )
        if (uploader := self._ready(name)) is not None:
            await uploader.upload_bytes(text.encode("utf-8"), name, raise_on_error=raise_on_error)

    async def write_json_async(
        self, path: Path, data: Mapping[str, Any], *, raise_on_error: bool = False
    ) -> Path:
        """Write JSON (UTF-8, indented by 2, final newline) to the local file, then upload it.

        Returns:
            The path.

        Raises:
            TypeError: `data` cannot be JSON; nothing is written.
            FileWriteError: The disk refuses.
            ConfigurationError: The client was made without configuration (mode strict); the local
                file stands.
            StorageError: The service refuses or does not answer (mode strict); the local file
                stands.
        """
        path = Path(path)
        return await self._write(path, lambda: write_json_atomic(path, data), raise_on_error)

    async def write_text_async(
        self, path: Path, text: str, *, raise_on_error: bool = False
    ) -> Path:
        """Write text (UTF-8) to the local file, then upload it; see `write_json_async`."""
        path = Path(path)
        return await self._write(path, lambda: write_text_atomic(path, text), raise_on_error)

    async def _write(self, path: Path, write: Callable[[], object], raise_on_error: bool) -> Path:
        name = self.blob_name_for_path(path)
        if self._uploader is None:
            await asyncio.to_thread(write)
        if (uploader := self._ready(name)) is not None:
            await uploader.upload_file(path, name, raise_on_error=raise_on_error, before=write)
        return path

    def _ready(self, name: str) -> Uploader | None:
        """The uploader; without configuration `None`, logged once, or an error in mode strict."""
        if self._uploader is not None or self._logged_unconfigured:
            return self._uploader
        by_choice = self.mode == "dev-skip"
        missing = missing_settings(self.settings) or "no configuration was given"
        if self.mode == "strict" and not self._swallow:
            raise ConfigurationError(
                f"{name!r} cannot be uploaded, since Azure storage is not configured: {missing}; "
                "use AzureStorageClient.from_settings(), or mode dev-skip to keep files local"
            )
        self._logged_unconfigured = True
        self._log.log(
            logging.INFO if by_choice else logging.WARNING,
            "Azure storage not configured, files stay local (%s)",
            "mode dev-skip" if by_choice else missing,
            extra={"blob_name": name, "mode": self.mode},
        )
        return None

    async def download_to_path_async(self, path: Path) -> bool:
        """Fetch the blob of `path` to `path`, verified and atomically.

        Returns:
            False when the blob does not exist, or storage is not configured.

        Raises:
            IntegrityError: What comes is not what was stored.
            UnsafeNamesError: The service would take the name for another blob's.
            StorageError: The service refuses or does not answer.
        """
        path = Path(path)
        name = self._to_read(path, "download")
        return await download_blob(self._service, name, path) if name else False

    async def stat_async(self, path: Path) -> BlobInfo | None:
        """Size, hash, ETag and properties of the blob of `path`, `None` when there is none.

        Raises:
            StorageError: The service refuses or does not answer.
        """
        name = self._to_read(path, "look-up")
        return await get_properties(self._service, name) if name else None

    async def read_blob_async(self, path: Path) -> BlobContent | None:
        """The content of the small blob of `path` and its age, `None` when there is none.

        Raises:
            StorageError: The service refuses or does not answer.
        """
        name = self._to_read(path, "download")
        return await read_blob(self._service, name) if name else None

    def _to_read(self, path: Path, operation: str) -> str:
        """The name of the blob of a path; empty where there can be none."""
        name = self.blob_name_for_path(path)
        if self._uploader is None or not name:  # the base folder itself is not a blob
            return ""
        if reason := altered_reason(name):
            remedy = "name the file as its blob is named"
            raise UnsafeNamesError({name: reason}, operation=operation, remedy=remedy)
        return name

    # -- what could not be uploaded yet --------------------------------------------------------

    async def flush_pending_async(self, *, refused: bool = False) -> FlushReport:
        """Upload what the journal holds.

        Runs by itself after the first upload that succeeds, and again after failures: at most
        every 30 s, then every minute and so on up to 15 minutes, while entries go on failing.

        Args:
            refused: Send also what the service refused permanently: after a policy, a role or a
                token was changed.

        Returns:
            How many arrived, failed again, were refused, or have no local file any more.

        Raises:
            JournalError: The journal cannot be read or written.
        """
        if self._uploader is None:
            return FlushReport()
        return await flush_journal(self._service, self._uploader.journal, refused=refused)

    def pending_uploads(self) -> list[PendingUpload]:
        """What the journal holds: uploads that failed, or that a killed process had begun.

        Those that the service refuses permanently are listed with `refused` set and their cause;
        they are not sent again by themselves. See `flush_pending` and `forget_refused`.

        Raises:
            JournalError: The journal cannot be read.
        """
        return [] if self._uploader is None else self._uploader.journal.pending()

    def forget_refused(self) -> int:
        """Drop from the journal what the service refuses permanently.

        Returns:
            How many entries there were.

        Raises:
            JournalError: The journal cannot be written.
        """
        return 0 if self._uploader is None else self._uploader.journal.forget_refused()

    # -- the same for synchronous callers: hooks are called on another thread -------------------

    @blocking(upload_file_async)
    def upload_file(self, *args: Any, **kwargs: Any) -> Any:
        """See `upload_file_async`."""

    @blocking(upload_text_async)
    def upload_text(self, *args: Any, **kwargs: Any) -> Any:
        """See `upload_text_async`."""

    @blocking(write_json_async)
    def write_json(self, *args: Any, **kwargs: Any) -> Any:
        """See `write_json_async`."""

    @blocking(write_text_async)
    def write_text(self, *args: Any, **kwargs: Any) -> Any:
        """See `write_text_async`."""

    @blocking(download_to_path_async)
    def download_to_path(self, *args: Any, **kwargs: Any) -> Any:
        """See `download_to_path_async`."""

    @blocking(stat_async)
    def stat(self, *args: Any, **kwargs: Any) -> Any:
        """See `stat_async`."""

    @blocking(read_blob_async)
    def read_blob(self, *args: Any, **kwargs: Any) -> Any:
        """See `read_blob_async`."""

    @blocking(flush_pending_async)
    def flush_pending(self, *args: Any, **kwargs: Any) -> Any:
        """See `flush_pending_async`."""
