"""Many downloads with a bound on how many run at once, each with its own outcome."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Union

from infra_core.runtime import ThreadBatcher, redact_secrets, run_sync, sanitize_url

from .._errors import DownloadError, InvalidRequestError
from ._client import AssetDownloadClient, get_shared_client
from ._result import DownloadItem, DownloadOutcome, DownloadResult, ProgressCallback
from ._sink import end_together, ending_together

__all__ = ["download_many", "download_many_async"]

_BATCH = 32  # files that are flushed together; of more the first would wait too long
Item = Union[DownloadItem, "tuple[str, Path]"]


async def download_many_async(
    items: Iterable[Item],
    *,
    concurrency: int = 16,
    on_outcome: Callable[[DownloadOutcome], object] | None = None,
    progress: Callable[[str], ProgressCallback] | None = None,
    client: AssetDownloadClient | None = None,
    **options: Any,
) -> list[DownloadOutcome]:
    """Download many files, at most `concurrency` at once; one failure does not touch the others.

    Items are taken from the iterable one by one as slots get free, so it may be lazy and long.

    Args:
        items: `DownloadItem`s, or pairs of URL and path.
        concurrency: Downloads under way at the same time.
        on_outcome: Called with each outcome as it comes; what it raises ends the batch.
        progress: Called with the URL (without secrets) of each download that begins; returns the
            progress callback of that one. `DownloadProgress.track` is made for it.
        client: Whose settings to use; the shared client's by default.
        **options: As for `download_asset_async`, the same for all items. `deadline` counts for
            each item by itself.

    Returns:
        One outcome per item, in the order of the items.

    Raises:
        InvalidRequestError: `concurrency` below 1, or what is no item (also a `ValueError`).
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
            f"items of type {type(items).__name__} are no downloads: pass a list, or any iterable, "
            "of DownloadItems or pairs of URL and path"
        )
    client = client or await get_shared_client()
    try:
        inspect.signature(client.download).bind("", Path(), **options)
    except TypeError as error:
        raise TypeError(f"download_many(): {error}; see those of download_asset") from None
    batch = _Batch(items, on_outcome, progress, client, options)
    token = ending_together.set(ThreadBatcher(end_together, size=_BATCH))
    # the workers inherit the context that they are made in
    workers = [asyncio.ensure_future(batch.work()) for _ in range(concurrency)]
    ending_together.reset(token)
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return [batch.outcomes[index] for index in range(len(batch.outcomes))]


def _item(given: object) -> DownloadItem:
    if isinstance(given, DownloadItem):
        return given
    if isinstance(given, (tuple, list)) and 2 <= len(given) <= 4:
        return DownloadItem(*given)
    shown = redact_secrets(repr(given))[:200]
    raise InvalidRequestError(
        f"the item {shown} is no download: pass a DownloadItem, or a pair of URL and path"
    )


class _Batch:
    def __init__(
        self,
        items: Iterable[Item],
        on_outcome: Callable[[DownloadOutcome], object] | None,
        progress: Callable[[str], ProgressCallback] | None,
        client: AssetDownloadClient,
        options: dict[str, Any],
    ) -> None:
        self.items: Iterator[tuple[int, Item]] = iter(enumerate(items))
        self.outcomes: dict[int, DownloadOutcome] = {}
        self.on_outcome = on_outcome
        self.progress = progress
        self.client = client
        self.options = options
        self.owners: dict[str, tuple[str, asyncio.Future[DownloadResult | Exception]]] = {}

    async def work(self) -> None:
        for index, given in self.items:
            item = _item(given)
            try:
                outcome = DownloadOutcome(item, await self._one(item))
            except Exception as error:  # noqa: BLE001 - becomes the outcome of this item
                outcome = DownloadOutcome(item, error=error)
            self.outcomes[index] = outcome
            if self.on_outcome is not None:
                self.on_outcome(outcome)

    async def _one(self, item: DownloadItem) -> DownloadResult:
        """Download an item, unless its path is taken: no two URLs may share one silently."""
        dest = os.path.abspath(item.dest_path)  # noqa: ASYNC240, PTH100 - cheap, and asks no disk
        owner = self.owners.get(dest)
        if owner is not None:
            return await self._again(item, *owner)
        done: asyncio.Future[DownloadResult | Exception] = (
            asyncio.get_running_loop().create_future()
        )
        self.owners[dest] = (item.url, done)
        try:
            result = await self._download(item)
        except Exception as error:
            done.set_result(error)
            raise
        except BaseException:
            done.cancel()
            raise
        done.set_result(result)
        return result

    async def _again(
        self, item: DownloadItem, url: str, done: asyncio.Future[DownloadResult | Exception]
    ) -> DownloadResult:
        if url != item.url:
            raise DownloadError(
                f"{sanitize_url(item.url)} and {sanitize_url(url)} are both to be stored as "
                f"{item.dest_path}: give each URL a path of its own, e.g. with "
                "infra_core.fs.unique_asset_path",
                url=item.url,
                expected=str(item.dest_path),
            )
        result = await asyncio.shield(done)
        if isinstance(result, Exception):
            raise result
        return result

    async def _download(self, item: DownloadItem) -> DownloadResult:
        options = dict(self.options)
        if item.expected_checksum is not None:
            options["expected_checksum"] = item.expected_checksum
        if item.headers is not None:
            options["headers"] = {**(options.get("headers") or {}), **item.headers}
        if self.progress is not None:
            options["progress"] = self.progress(sanitize_url(item.url))
        return await self.client.download(item.url, item.dest_path, **options)


def download_many(
    items: Iterable[Item],
    *,
    concurrency: int = 16,
    on_outcome: Callable[[DownloadOutcome], object] | None = None,
    progress: Callable[[str], ProgressCallback] | None = None,
    client: AssetDownloadClient | None = None,
    **options: Any,
) -> list[DownloadOutcome]:
    """Download many files from synchronous code; see `download_many_async`.

    Callbacks run in the thread of the background loop.

    Raises:
        RuntimeError: Inside a running event loop: await `download_many_async`.
    """
    return run_sync(
        download_many_async(
            items,
            concurrency=concurrency,
            on_outcome=on_outcome,
            progress=progress,
            client=client,
            **options,
        ),
        what="download_many()",
        instead="download_many_async()",
    )
