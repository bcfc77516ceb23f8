"""Many downloads with a bound on how many run at once, each with its own outcome."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Union

from infra_core.runtime import (
    RetryDetails,
    RuntimeCancellationError,
    RuntimeConfig,
    TaskRuntime,
    redact_secrets,
    sanitize_url,
)

from .._errors import DownloadError, InvalidRequestError
from ._calls import blocking, get_shared_client
from ._client import AssetDownloadClient  # noqa: TC001 - for typing.get_type_hints()
from ._commit import CommitGroup
from ._result import DownloadItem, DownloadOutcome, DownloadResult, ProgressCallback
from ._sink import HANDOVER

__all__ = ["download_many", "download_many_async"]

_logger = logging.getLogger("infra_core.asset_client")
_TOGETHER: Final = 128  # files that are flushed together; of more the first would wait too long
_FILES: Final = 512  # files that may wait for the disk beside the downloads under way
_BYTES: Final = 16 << 20  # and their bytes, which are in memory
_RESERVED: Final = 16  # open files for the rest of the program
_GRACE: Final = 86_400.0  # seconds: what is cancelled is waited for, a thread that hangs as well
_END: Final = object()
Item = Union[DownloadItem, "tuple[str, Path]"]
_Ended = asyncio.Future[DownloadOutcome]


async def download_many_async(
    items: Iterable[Item],
    *,
    concurrency: int = 16,
    on_outcome: Callable[[DownloadOutcome], object] | None = None,
    progress: Callable[[str], ProgressCallback] | None = None,
    on_retry: Callable[[DownloadItem, RetryDetails], object] | None = None,
    client: AssetDownloadClient | None = None,
    **options: Any,
) -> list[DownloadOutcome]:
    """Download many files, at most `concurrency` at once; one failure does not touch the others.

    Items are taken from the iterable one by one as slots get free, so it may be lazy and long.

    Args:
        items: `DownloadItem`s, or pairs of URL and path.
        concurrency: Downloads under way at the same time; fewer where the limit of open files
            (`ulimit -n`) does not allow so many.
        on_outcome: Called with each outcome as it comes; what it raises ends the batch. May be a
            coroutine function.
        progress: Called with the URL (without secrets) of each download that begins; returns the
            progress callback of that one. `DownloadProgress.track` is made for it.
        on_retry: Called with the item and a `RetryDetails` before each wait of a retry.
        client: Whose settings to use; the shared client's by default.
        **options: As for `download_asset_async`, the same for all items. `deadline` counts for
            each item by itself.

    Returns:
        One outcome per item, in the order of the items.

    Raises:
        InvalidRequestError: `concurrency` below 1, or what is not an item (also a `ValueError`).
        TypeError: An option that `download_asset_async` does not have.

    Example:
        ::

            outcomes = await download_many_async([(url, Path("a.png")), ...], concurrency=8)
            failed = [outcome for outcome in outcomes if not outcome.ok]
    """
    if not (isinstance(concurrency, int) and concurrency >= 1):
        raise InvalidRequestError(f"concurrency={concurrency!r}: pass 1 or more downloads at once")
    if not hasattr(items, "__iter__"):
        raise InvalidRequestError(
            f"items of type {type(items).__name__} are not downloads: pass a list, or any "
            "iterable, of DownloadItems or pairs of URL and path"
        )
    client = client or await get_shared_client()
    known = inspect.signature(client.download)
    try:
        known.bind("", Path(), **options)
    except TypeError as error:
        raise TypeError(f"download_many(): {error}; see those of download_asset") from None
    # A subclass written for 0.7 knows nothing of these.
    shares = {"group", "on_received"} <= known.parameters.keys()
    concurrency, together = _within_limit(concurrency)
    if shares:
        options = {"group": CommitGroup(size=together), **options}
    slots = asyncio.Semaphore(concurrency)
    batch = _Batch(client, slots, on_outcome, progress, on_retry, options, shares)
    runtime = TaskRuntime(config=RuntimeConfig(concurrency + _FILES, cancel_grace=_GRACE))
    found: dict[str, DownloadOutcome] = {}
    async with (
        aclosing(batch.tasks(items)) as tasks,
        runtime.as_completed(tasks, outcomes=True, ahead=sys.maxsize) as ended,
    ):
        try:
            async for task in ended:
                if not isinstance(task.error, asyncio.CancelledError):  # as the source has failed
                    found[task.id] = task.result()
        except RuntimeCancellationError as error:
            if isinstance(error.__cause__, asyncio.CancelledError):  # other code has cancelled one
                raise asyncio.CancelledError from error
            raise
    return [found[str(index)] for index in range(len(found))]


def _item(given: object) -> DownloadItem:
    if isinstance(given, DownloadItem):
        return given
    if isinstance(given, (tuple, list)) and 2 <= len(given) <= 4:
        return DownloadItem(*given)
    shown = redact_secrets(repr(given))[:200]
    raise InvalidRequestError(
        f"the item {shown} is not a download: pass a DownloadItem, or a pair of URL and path"
    )


@dataclass(eq=False)
class _Batch:
    client: AssetDownloadClient
    slots: asyncio.Semaphore
    on_outcome: Callable[[DownloadOutcome], object] | None
    progress: Callable[[str], ProgressCallback] | None
    on_retry: Callable[[DownloadItem, RetryDetails], object] | None
    options: dict[str, Any]
    shares: bool
    waiting: tuple[int, int] = (0, 0)  # files without a slot that wait for the disk, their bytes
    owners: dict[tuple[str, str], tuple[str, _Ended]] = field(default_factory=dict)  # by path
    folder_of: Callable[[str], str] = field(  # symbolic links resolved
        default_factory=lambda: lru_cache(10_000)(os.path.realpath)
    )

    async def tasks(
        self, items: Iterable[Item]
    ) -> AsyncGenerator[tuple[str, Callable[[], Awaitable[DownloadOutcome]]], None]:
        """Yield a task for each item, numbered, when its slot is there."""
        rest = iter(items)
        for index in count():
            await self.slots.acquire()
            if (given := next(rest, _END)) is _END:
                return
            yield str(index), partial(self.download, _item(given))

    async def download(self, item: DownloadItem) -> DownloadOutcome:
        """Download an item, and give its slot back."""
        slot = _Slot(self)
        ended: _Ended = asyncio.get_running_loop().create_future()
        try:
            outcome = DownloadOutcome(item, await self._download_once(item, slot, ended))
        except Exception as error:  # noqa: BLE001 - becomes the outcome of this item
            outcome = DownloadOutcome(item, error=error)
        finally:
            slot.close()
        ended.set_result(outcome)
        if self.on_outcome is not None:
            answer = self.on_outcome(outcome)
            if inspect.isawaitable(answer):
                await answer
        return outcome

    async def _download_once(
        self, item: DownloadItem, slot: _Slot, ended: _Ended
    ) -> DownloadResult:
        """Download an item, unless its path is taken: no two URLs may share one silently."""
        folder, _, name = os.path.abspath(item.dest_path).rpartition(os.sep)  # noqa: ASYNC240, PTH100
        dest = (self.folder_of(folder or os.sep), os.path.normcase(name))
        url, owner = self.owners.setdefault(dest, (item.url, ended))
        if owner is ended:
            return await self._download(item, slot)
        if url != item.url:
            raise DownloadError(
                f"{sanitize_url(item.url)} and {sanitize_url(url)} are both to be stored as "
                f"{item.dest_path}: give each URL a path of its own, e.g. with "
                "infra_core.fs.unique_asset_path",
                url=item.url,
                expected=str(item.dest_path),
            )
        return (await asyncio.shield(owner)).unwrap()

    async def _download(self, item: DownloadItem, slot: _Slot) -> DownloadResult:
        options = dict(self.options)
        if self.shares:
            options.setdefault("on_received", slot.leave)
        if item.expected_checksum is not None:
            options["expected_checksum"] = item.expected_checksum
        if item.headers is not None:
            options["headers"] = {**(options.get("headers") or {}), **item.headers}
        if self.progress is not None:
            options["progress"] = self.progress(sanitize_url(item.url))
        if self.on_retry is not None:
            options["on_retry"] = partial(self.on_retry, item)
        return await self.client.download(item.url, item.dest_path, **options)


class _Slot:
    """The right to use the network, given back as soon as a small file has come.

    What waits for the disk is bounded, so that a slow one slows the network down.
    """

    def __init__(self, batch: _Batch) -> None:
        self._batch = batch
        self._size: int | None = None

    def leave(self, size: int) -> None:
        """Let another download begin while this file is flushed to the disk."""
        files, waiting = self._batch.waiting
        if self._size is None and size < HANDOVER and files < _FILES and waiting + size <= _BYTES:
            self._size = size
            self._batch.waiting = (files + 1, waiting + size)
            self._batch.slots.release()

    def close(self) -> None:
        """The download has ended."""
        if self._size is None:
            self._batch.slots.release()
        else:
            files, waiting = self._batch.waiting
            self._batch.waiting = (files - 1, waiting - self._size)


def _within_limit(concurrency: int) -> tuple[int, int]:
    """Return how many downloads, and how many files of a batch, the open files allow.

    A download needs a socket and a file, each of two batches a file for each of its own.
    """
    if sys.platform == "win32":  # has no such limit
        return concurrency, _TOGETHER
    try:
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit == resource.RLIM_INFINITY:
            return concurrency, _TOGETHER
        used = len(os.listdir("/dev/fd"))  # noqa: PTH208 - names alone are wanted
    except (ImportError, OSError):  # some containers have no /dev
        return concurrency, _TOGETHER
    free = limit - used - _RESERVED
    together = max(1, min(_TOGETHER, free // 8))
    allowed = max(1, (free - 2 * together) // 2)
    if allowed < concurrency:
        _logger.info(
            "concurrency=%d lowered to %d: %d files may be open (ulimit -n) and %d are",
            concurrency,
            allowed,
            limit,
            used,
        )
    return min(concurrency, allowed), together


@blocking(download_many_async)
def download_many(*args: Any, **kwargs: Any) -> Any:
    """Download many files from synchronous code; see `download_many_async` for the parameters.

    Callbacks run in the thread of the background loop.

    Raises:
        RuntimeError: Inside a running event loop: await `download_many_async`.
    """
