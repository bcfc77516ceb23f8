"""One URL to one verified file, and what came of it: the part that runs in each place."""

import asyncio
import errno
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.runtime import error_chain, sanitize_url

from ._errors import one_line, without_url
from ._folder import ASSETS, leads_nowhere
from ._items import BatchItem, origin_of
from ._results import BatchRetry, Outcome

if TYPE_CHECKING:
    from infra_core.http.assets import AssetDownloadClient, CommitGroup, DownloadResult
    from infra_core.runtime import RetryDetails

    from ._options import BatchOptions

__all__ = ["Downloads", "failure_of", "outcome_of", "user_agent"]

# What this machine has too little of, or a disk that fails: Linux mounts one read-only after an
# error. The URL is not at fault, the next ones would fail as well, and a later try may do.
_LOAD = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT),
        *(errno.EROFS, errno.EIO, errno.ESTALE),
    }
)
# Of a disk that was taken away; a connection may fail with the same numbers.
_DISK_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.EHOSTDOWN})

# A batch has a deadline of its own, which would not help.
_REMEDY = ("allow a longer deadline", "allow more time (task_timeout, --task-timeout)")


@cache
def user_agent() -> str:
    """What a batch calls itself where the caller says nothing: its name and version."""
    from importlib.metadata import version

    return f"infra-core/{version('infra-core')}"


class _TooLateError(Exception):
    """The run is to end, and a download would begin."""


class _Slot:
    """An item's turn on the network; given back once, as soon as its bytes are here."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots = slots
        self._held = False

    async def take(self) -> None:
        await self._slots.acquire()
        self._held = True

    def leave(self, _size: int = 0) -> None:
        if self._held:
            self._held = False
            self._slots.release()


class Downloads:
    """Downloads the items of a batch into its folder, as many at a time as the options say.

    An item waits for its turn on the network; when its bytes are here it lets the next have it.

    Args:
        options: How.
        folder: The run's folder.
        on_retry: Called with each failed attempt that is followed by another.
        after: Called in a thread with the files that have become durable together, before their
            downloads end.
    """

    def __init__(
        self,
        options: "BatchOptions",
        folder: Path,
        on_retry: Callable[[BatchRetry], None],
        after: "Callable[[list[DownloadResult]], list[Exception | None] | None] | None" = None,
    ) -> None:
        self._options = options
        self._folder = folder
        self._on_retry = on_retry
        self._after = after
        self._host_headers = {
            origin_of(f"//{host}"): headers for host, headers in options.host_headers.items()
        }
        self._slots = asyncio.Semaphore(options.concurrency)
        self._opened = AsyncExitStack()
        self._stopped = False

    @cached_property
    def _clients(self) -> "tuple[AssetDownloadClient, CommitGroup]":
        from infra_core.http import AsyncHttpClient
        from infra_core.http.assets import AssetDownloadClient, CommitGroup

        options = self._options
        settings: dict[str, Any] = {}
        if options.public_only:
            settings["public_only"] = True
        for name in ("proxy", "cookies"):
            if getattr(options, name) is not None:
                settings[name] = getattr(options, name)
        http = AsyncHttpClient(
            max_per_host=options.max_per_host,
            max_per_second_per_host=options.rate_per_host,
            origin_headers={name for of_host in options.host_headers.values() for name in of_host},
            **settings,
        )
        self._opened.push_async_callback(http.close)
        client = AssetDownloadClient(
            timeout=options.timeout,
            max_retries=options.retries,
            backoff=options.backoff,
            user_agent=options.user_agent or user_agent(),
            client=http,
            limit_rate=options.limit_rate,
        )
        self._opened.push_async_callback(client.close)
        return client, CommitGroup(after=self._after)

    def open(self) -> None:
        """Get ready: a batch whose downloads are done elsewhere imports nothing for them.

        Raises:
            InvalidRequestError: An option cannot be used.
        """
        assert self._clients  # noqa: S101 - made now

    async def fetch(
        self,
        job_id: str,
        item: BatchItem,
        path: str,
        *,
        held: tuple[str | None, str | None] = (None, None),
    ) -> Outcome | None:
        """Download an item to a path below the run's folder; never raises for the item's sake.

        The wait for the host's turn (`max_per_host`, `rate_per_host`) is no part of `task_timeout`.

        Args:
            job_id: Its job.
            item: The item.
            path: Relative to the run's folder.
            held: ETag and Last-Modified of a file that is here: one that is current is kept.

        Returns:
            What it came to; None where its turn came after `stop`.
        """
        slot = _Slot(self._slots)
        await slot.take()
        try:
            return None if self._stopped else await self._download(job_id, item, path, held, slot)
        finally:
            slot.leave()

    async def _download(
        self,
        job_id: str,
        item: BatchItem,
        path: str,
        held: tuple[str | None, str | None],
        slot: _Slot,
    ) -> Outcome | None:
        attempts = 1

        def retried(details: "RetryDetails") -> None:
            nonlocal attempts
            attempts = details.attempt + 1
            url = sanitize_url(item.url)
            cause = without_url(one_line(details.error), url)
            self._on_retry(BatchRetry(url, details.attempt, details.wait, cause))

        try:
            client, group = self._clients
            result = await client.download(
                item.url,
                self._folder / path,
                headers=self._headers(item),
                expected_checksum=item.checksum,
                skip_if_exists=False,
                max_bytes=self._options.max_bytes,
                min_speed=self._options.min_speed,
                deadline=self._options.task_timeout,
                on_retry=retried,
                on_turn=self._begin,
                on_received=slot.leave,
                group=group,
                if_none_match=held[0],
                if_modified_since=held[1],
            )
        except _TooLateError:
            return None
        except Exception as error:  # noqa: BLE001 - becomes the outcome of this item
            status = "timed_out" if isinstance(error, TimeoutError) else "failed"
            url = sanitize_url(item.url)
            return failure_of(job_id, url, error, attempts, folder=self._folder, status=status)
        return outcome_of(job_id, path, result)

    def _headers(self, item: BatchItem) -> dict[str, str] | None:
        options = self._options
        if not (options.headers or options.host_headers or item.headers):
            return None
        of_host: Mapping[str, str] = {}
        if self._host_headers:
            host, port = origin_of(item.url)
            own = self._host_headers
            of_host = own.get((host, port)) or own.get((host, None)) or {}
        return {**options.headers, **of_host, **(item.headers or {})}

    def stop(self) -> None:
        """Begin no more downloads."""
        self._stopped = True

    def _begin(self) -> None:
        if self._stopped:
            raise _TooLateError

    async def close(self) -> None:
        """Close the connections."""
        await self._opened.aclose()


def failure_of(
    job_id: str, url: str, error: Exception, attempts: int, *, folder: Path, status: Any = "failed"
) -> Outcome:
    """What a download into the run's folder came to that failed."""
    response = getattr(error, "response", None)
    by_load = any(getattr(each, "errno", None) in _LOAD for each in error_chain(error))
    if getattr(error, "filename", None):  # of the disk
        by_load |= getattr(error, "errno", None) in _DISK_GONE or leads_nowhere(folder / ASSETS)
    return Outcome(
        job_id=job_id,
        status=status,
        attempts=attempts,
        error=without_url(one_line(error), url).replace(*_REMEDY),
        http_status=getattr(response, "status_code", None),
        by_load=by_load,
    )


def outcome_of(job_id: str, path: str, result: "DownloadResult") -> Outcome:
    """What a download came to that did not fail."""
    if result.reused:
        return Outcome(job_id=job_id, status="unchanged", path=path, attempts=result.attempts)
    return Outcome(
        job_id=job_id,
        status="completed",
        path=path,
        size=result.size,
        checksum=result.checksum,
        content_type=result.mime,
        etag=result.etag,
        last_modified=result.last_modified,
        name=result.name,
        attempts=result.attempts,
    )
