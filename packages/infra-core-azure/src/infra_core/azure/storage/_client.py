"""`AzureStorageClient` as a whole: files, trees, the SDK's clients, and its lifecycle."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ._blocking import run_blocking
from ._config import resolve_config
from ._settings import AzureStorageSettings, StorageMode, parse_mode
from ._trees import TreeClient

if TYPE_CHECKING:
    from typing_extensions import Self

    from azure.storage.blob import ContainerClient
    from azure.storage.blob.aio import ContainerClient as AsyncContainerClient

__all__ = ["AzureStorageClient", "StorageBackend"]


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


class AzureStorageClient(TreeClient, StorageBackend):
    """Mirrors local files and folders to a container, and back.

    Every method exists twice, `upload_file` and `upload_file_async`, and so on. A client may be
    shared by threads, event loops and forked processes. Connections close with their event loop,
    at exit, and by `close()` or `aclose()`; it may be used again afterwards.

    By mode: `strict` raises what goes wrong. `best-effort` logs it, and keeps what could not be
    uploaded in a journal for `flush_pending()`. `dev-skip` never uploads.

    Args:
        config: What `from_settings` makes of settings; `None` keeps everything local.
        settings: The settings.
        mode: The mode.
        swallow_errors: Log and journal failed uploads in mode strict, too.
        base_path: Folder that blob names are relative to.
        log: Logger; `infra_core.azure.storage` by default.
        credential: Azure credential to use instead of `DefaultAzureCredential`; stays yours to
            close.

    Example:
        >>> settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
        >>> AzureStorageClient.from_settings(settings, mode).is_configured()
        False
    """

    @classmethod
    def from_settings(
        cls,
        settings: AzureStorageSettings,
        mode: StorageMode,
        *,
        swallow_errors: bool = False,
        base_path: Path | None = None,
        log: logging.Logger | None = None,
        credential: Any = None,
    ) -> "Self":
        """Check the settings and make a client of them; connects to nothing yet.

        Raises:
            ConfigurationError: Settings are missing (mode strict), malformed or contradictory.
        """
        mode = parse_mode(mode)
        return cls(
            resolve_config(settings, mode),
            settings=settings,
            mode=mode,
            swallow_errors=swallow_errors,
            base_path=base_path,
            log=log,
            credential=credential,
        )

    def container(self) -> "ContainerClient | None":
        """The SDK's client of the container, for what is not wrapped here; `None` if unconfigured.

        The container is made first, if it is missing and we may. Close nothing of it: `close()`
        does.
        """
        return None if self._sdk is None else self._sdk.sync()

    async def container_async(self) -> "AsyncContainerClient | None":
        """The SDK's asynchronous client, that of the running event loop; see `container`."""
        return None if self._sdk is None else await self._sdk.asynchronous()

    async def aclose(self) -> None:
        """Close what belongs to the running event loop, and what ended loops left."""
        if self._wire is not None:
            await self._wire.aclose()
        if self._sdk is not None:
            await self._sdk.aclose()
        if self._journal is not None:
            self._journal.close()

    def close(self) -> None:
        """Close connections of synchronous calls, and what ended loops left."""
        if self._wire is not None:
            run_blocking(self.aclose, "close()")

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
