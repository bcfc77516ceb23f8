"""`AzureStorageClient`: local files and folders, and their mirror in a container."""

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._artifacts import is_own_state
from .._blocking import blocking, run_blocking
from .._checks import require_choice
from ._blobs import BlobInfo, delete_blob, list_pages
from ._bounded import for_each
from ._client_files import FileClient, StorageBackend
from ._config import resolve_config
from ._errors import BlobConflictError
from ._names import listed_globs, tree_prefix
from ._properties import StoredProperties
from ._settings import AzureStorageSettings, Overwrite, StorageMode, parse_mode
from ._tree_types import (
    Compare,
    FileOutcome,
    OnOutcome,
    OnProgress,
    OnUnsafe,
    TreeReport,
    TreeRules,
)

if TYPE_CHECKING:
    from typing_extensions import Self

    from azure.storage.blob import ContainerClient
    from azure.storage.blob.aio import ContainerClient as AsyncContainerClient

__all__ = ["AzureStorageClient", "StorageBackend"]


class AzureStorageClient(FileClient):
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

    # -- trees --------------------------------------------------------------------------------

    async def sync_tree_async(
        self,
        path: Path,
        direction: Literal["up", "down"],
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        overwrite: Overwrite = "always",
        compare: Compare = "hash",
        delete: bool = False,
        on_unsafe: OnUnsafe = "raise",
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
        on_outcome: OnOutcome | None = None,
        raise_on_error: bool = False,
        content_type: Callable[[str], str | None] | None = None,
        cache_control: str | None = None,
        content_encoding: str | None = None,
        metadata: Mapping[str, str] | None = None,
        keep_properties: bool = False,
    ) -> TreeReport:
        """Make a folder and the blobs below its name alike, in one direction.

        Args:
            path: The local folder.
            direction: `up` to the container or `down` from it.
            include: Globs of files to take; all without one. `*.png` matches in every folder,
                `data/*.json` from the top, `**` crosses folders, a slash at the end means all
                below.
            exclude: Globs of files to leave alone, on both sides.
            overwrite: `always`; `never` replaces nothing; `if-unchanged` replaces only what
                others did not change since it was compared.
            compare: `hash` skips what has the same size and MD5, `size` what has the same size,
                `nothing` transfers all.
            delete: Delete at the destination what the source does not have; never when the
                source is empty, nor after a failure. The snapshots of a blob go with it.
            on_unsafe: Names with `..`, absolute, with backslashes, drives, control characters,
                through symbolic links, or equal but for case: `raise` before anything is
                touched, or `skip` them.
            dry_run: Decide and report everything, touch nothing.
            on_progress: Called with a `TreeProgress` after each file and block.
            on_outcome: Called with the `FileOutcome` of each file.
            raise_on_error: Raise even where errors are swallowed.
            content_type: Gives the media type of a file by its relative name; `None` for that of
                the name.
            cache_control: `Cache-Control` that uploaded blobs are served with.
            content_encoding: `Content-Encoding` that they are served with.
            metadata: Metadata of uploaded blobs.
            keep_properties: See `upload_file_async`.

        Returns:
            What became of it all. Empty when storage is not configured.

        Raises:
            UnsafeNamesError: See `on_unsafe`.
            NotADirectoryError: There is no such folder to upload.
            ConfigurationError: The client was made without configuration (mode strict).
            TreeTransferError: Files failed (mode strict); all others were transferred.
            StorageError: The container could not be listed.
        """
        path = Path(path)
        require_choice("direction", direction, "up", "down")
        rules = TreeRules(
            include=tuple(listed_globs(include, "include")),
            exclude=tuple(listed_globs(exclude, "exclude")),
            overwrite=overwrite,
            compare=compare,
            delete=delete,
            on_unsafe=on_unsafe,
            content_type=content_type,
            properties=StoredProperties(
                cache_control=cache_control,
                content_encoding=content_encoding,
                metadata=metadata,
                keep=keep_properties,
            ),
            dry_run=dry_run,
            on_progress=on_progress,
            on_outcome=on_outcome,
        )
        name = self.blob_name_for_path(path)
        if (uploader := self._ready(name)) is None:
            return TreeReport(direction)
        up = direction == "up"
        return await uploader.sync_tree(path, name, up, rules, raise_on_error=raise_on_error)

    async def upload_tree_async(self, /, path: Path, **options: Any) -> TreeReport:
        """`sync_tree_async(path, "up", ...)`."""
        return await self.sync_tree_async(path, "up", **options)

    async def download_tree_async(self, /, path: Path, **options: Any) -> bool:
        """`sync_tree_async(path, "down", ...)`, with 0.7's return value.

        Returns:
            Whether there was anything to download; False also when not configured.
        """
        report = await self.sync_tree_async(path, "down", **options)
        return report.files > 0

    async def plan_tree_async(
        self, /, path: Path, direction: Literal["up", "down"] = "up", **options: Any
    ) -> list[FileOutcome]:
        """What `sync_tree` with the same options would do, by the same planner, in order.

        For trees of millions pass `dry_run=True` and `on_outcome` to `sync_tree` instead.
        """
        plan: list[FileOutcome] = []

        def add(outcome: FileOutcome) -> None:
            if outcome.error is not None:
                raise outcome.error
            plan.append(outcome)

        await self.sync_tree_async(path, direction, dry_run=True, on_outcome=add, **options)
        return sorted(plan, key=lambda item: (item.name, item.action))

    async def iter_tree_async(self, path: Path) -> AsyncIterator[BlobInfo]:
        """Blobs below a path, page by page: for trees of any size. Names are relative to it."""
        async for page in self._pages(path):
            for blob in page:
                yield blob

    async def _pages(self, path: Path) -> AsyncIterator[list[BlobInfo]]:
        if self._uploader is None:
            return
        prefix = tree_prefix(self.blob_name_for_path(Path(path)))
        async for page in list_pages(self._service, prefix):
            yield [blob for blob in page if not is_own_state(blob.name)]

    async def list_tree_async(self, path: Path) -> list[tuple[str, int]]:
        """Relative name and size of every blob below a path, sorted by name.

        Returns:
            An empty list when there are none, or storage is not configured.

        Raises:
            StorageError: The service refuses or does not answer.
        """
        return sorted([(blob.name, blob.size) async for blob in self.iter_tree_async(path)])

    async def delete_tree_async(self, path: Path) -> int:
        """Delete all blobs below the name of a folder, with their snapshots; the files stay.

        Blobs that stand for folders go after those in them. What waits in the journal for a name
        below it is dropped as well.

        Returns:
            How many there were, folders not counted; 0 when storage is not configured.

        Raises:
            ValueError: It is the base folder, below which everything lies.
            StorageError: The service refuses or does not answer; blobs may have been deleted.
        """
        name = self.blob_name_for_path(path)
        if self._uploader is None:
            return 0
        if not name:
            raise ValueError(f"{str(path)!r} is the base folder: name a folder below it")
        count, prefix = 0, tree_prefix(name)

        async def one(blob: BlobInfo) -> None:
            nonlocal count
            existed = await delete_blob(self._service, prefix + blob.name)
            count += existed  # in one step: others count as well

        async for page in list_pages(self._service, prefix):
            await for_each(iter([page]), one, self.settings.options.concurrency)
        pages = list_pages(self._service, prefix, folders=True)
        folders = [blob.name async for page in pages for blob in page]
        for folder in sorted(folders, reverse=True):  # those in others first
            try:
                await delete_blob(self._service, prefix + folder)
            except BlobConflictError as error:
                if error.code != "DirectoryIsNotEmpty":  # something new has come into it
                    raise
        await self._uploader.in_journal(lambda journal: journal.forget_below(name))
        return count

    # -- the same for synchronous callers: hooks are called on another thread -------------------

    @blocking(delete_tree_async)
    def delete_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `delete_tree_async`."""

    @blocking(sync_tree_async)
    def sync_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `sync_tree_async`."""

    @blocking(upload_tree_async)
    def upload_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `upload_tree_async`."""

    @blocking(download_tree_async)
    def download_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `download_tree_async`."""

    @blocking(plan_tree_async)
    def plan_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `plan_tree_async`."""

    @blocking(list_tree_async)
    def list_tree(self, *args: Any, **kwargs: Any) -> Any:
        """See `list_tree_async`."""

    def iter_tree(self, path: Path) -> Iterator[BlobInfo]:
        """Blobs below a path, page by page; see `iter_tree_async`."""
        pages = self._pages(path)

        async def following() -> list[BlobInfo] | None:
            return await anext(pages, None)

        while (page := run_blocking(following, "iter_tree()")) is not None:
            yield from page

    # -- the SDK, and the end ------------------------------------------------------------------

    def container(self, *, create: bool = True) -> "ContainerClient | None":
        """The SDK's client of the container, for what is not wrapped here; `None` if unconfigured.

        It is shared, so that a `with` block around it closes nothing: `close()` does.

        Args:
            create: Make the container first, if it is missing and that is allowed.

        Raises:
            StorageError: The service refuses or does not answer; only with `create`.
        """
        return None if self._uploader is None else self._sdk.sync(create=create)

    async def container_async(self) -> "AsyncContainerClient | None":
        """The SDK's asynchronous client, that of the running event loop; see `container`."""
        return None if self._uploader is None else await self._sdk.asynchronous()

    async def aclose(self) -> None:
        """Close what belongs to the running event loop, and what ended loops left."""
        if self._uploader is not None:
            await self._service.aclose()
            await self._sdk.aclose()
            self._uploader.journal.close()

    def close(self) -> None:
        """Close connections of synchronous calls, and what ended loops left."""
        if self._uploader is not None:
            run_blocking(self.aclose, "close()")

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
