"""One URL to one verified file, and what came of it: the part that runs in each place."""

import asyncio
import errno
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

from infra_core.runtime import RateLimit, clock, error_chain, sanitize_url

from ._errors import BatchError, one_line
from ._folder import ASSETS, KNOWN_FOLDERS, check_links, leads_nowhere
from ._items import origin_of
from ._names import INCOMING
from ._results import BatchRetry, Outcome

if TYPE_CHECKING:
    from infra_core.azure.storage import AzureStorageClient
    from infra_core.http.assets import DownloadResult
    from infra_core.runtime import RetryDetails

    from ._dask import DaskWorkers
    from ._jobs import Job
    from ._options import BatchOptions
    from ._services import Services
    from ._workers import ProcessWorkers

__all__ = [
    "Downloads", "WorkItem", "ahead_of", "failure_of", "settle", "share_of", "workers_of"
]  # fmt: skip

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

# A GET may be sent again after each of these; 520 to 524 and 529 are those of CDNs whose origin is
# down, slow or overloaded.
_RETRIED = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529)
_AHEAD = 4  # times the concurrency: items that wait for the network, the disk or their record
_MOST_AHEAD = 256
# What downloads propose, and what a batch has in its place: its deadline is another one.
_REMEDIES = (
    ("allow a longer deadline", "allow more time (task_timeout, --task-timeout)"),
    (", or max_redirects is too low", ""),
    ("more than max_backoff=", "more than the longest wait of "),
)


@cache
def user_agent() -> str:
    """What a batch calls itself where the caller says nothing: its name and version."""
    from importlib.metadata import version

    return f"infra-core/{version('infra-core')}"


def ahead_of(concurrency: int) -> int:
    """How many items wait beside those that are downloaded, so that no download waits for one."""
    return min(_AHEAD * concurrency, _MOST_AHEAD)


class _TooLateError(Exception):
    """The run is to end, and a download would begin."""


class WorkItem(NamedTuple):
    """What a download needs of a job: it can be pickled, and done again when a worker dies."""

    job_id: str
    url: str
    path: str
    checksum: str | None = None
    headers: Mapping[str, str] | None = None
    held: tuple[str | None, str | None] = (None, None)  # ETag and Last-Modified of the file here

    @classmethod
    def of(cls, job: "Job") -> "WorkItem":
        """What is sent of a job: no metadata, and headers that can be pickled."""
        item = job.item
        headers = None if item.headers is None else dict(item.headers)
        return cls(job.job_id, item.url, job.path, item.checksum, headers, job.held)


class Downloads:
    """Downloads the items of a batch in the running event loop, into its folder.

    An item waits for its turn on the network; when its bytes are here it lets the next have it.

    Args:
        options: How.
        folder: The run's folder.
        on_retry: Called with each failed attempt that is followed by another.
        env: Variables that say where each file is mirrored at once; None where the caller does it.

    Attributes:
        width: Items to hand out at a time.
    """

    def __init__(
        self,
        options: "BatchOptions",
        folder: Path,
        on_retry: Callable[[BatchRetry], None],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self._folder = folder
        self._on_retry = on_retry
        self._env = env
        self._storage: AzureStorageClient | None = None
        self._host_headers: dict[tuple[str, int | None], dict[str, str]] = {}
        for host, headers in options.host_headers.items():  # which may be written in two ways
            self._host_headers.setdefault(origin_of(f"//{host}"), {}).update(headers)
        self.width = options.concurrency + ahead_of(options.concurrency)
        self._slots = asyncio.Semaphore(options.concurrency)
        self._hosts: WeakValueDictionary[object, asyncio.Semaphore] = WeakValueDictionary()
        self._rate = RateLimit(options.rate_per_host) if options.rate_per_host else None
        # each once: a look at the disk lets another thread go on first
        self._check_folder = lru_cache(KNOWN_FOLDERS)(lambda name: check_links(folder, f"{name}/"))
        self._opened = AsyncExitStack()
        self._stopped = asyncio.Event()

    async def open(self) -> None:
        """Get ready: a batch whose downloads are done elsewhere imports nothing for them.

        Raises:
            InvalidRequestError: An option cannot be used.
        """
        from infra_core.http import AsyncHttpClient
        from infra_core.http.assets import AssetDownloadClient, CommitGroup
        from infra_core.http.engine import NetworkSettings

        options = self._options
        if self._env is not None:
            from ._environment import open_mirror

            base = options.scratch or options.out
            self._storage = open_mirror(options, self._env, base_path=base)
            if self._storage is not None:
                self._opened.push_async_callback(self._storage.aclose)
        names = ("proxy", "cookies", "public_only")
        given: dict[str, Any] = {name: getattr(options, name) for name in names}
        http = AsyncHttpClient(
            max_per_host=options.max_per_host,
            max_per_second_per_host=options.rate_per_host,
            origin_headers=self._headers_of,
            **{name: each for name, each in given.items() if each is not None},
        )
        self._opened.push_async_callback(http.close)
        # before anything is awaited: another shard may be at hand already
        self._client = AssetDownloadClient(
            timeout=options.timeout,
            max_retries=options.retries,
            backoff=options.backoff,
            retry_statuses=_RETRIED,
            user_agent=options.user_agent or user_agent(),
            client=http,
            limit_rate=options.limit_rate,
        )
        self._opened.push_async_callback(self._client.close)
        self._group = CommitGroup(check=self._check_path)
        client: Any = await http.get_client()
        if isinstance(network := getattr(client, "network", None), NetworkSettings):
            path = None if options.no_netrc else network.netrc_path
            client.network = replace(network, netrc_path=path, netrc_default=False)

    async def fetch(self, work: WorkItem) -> Outcome | None:
        """Download an item to its path below the run's folder; never raises for the item's sake.

        The wait for the host's turn (`max_per_host`, `rate_per_host`) is not part of `task_timeout`
        and keeps no other host waiting.

        Returns:
            What it came to; None where its turn came after `stop`.
        """
        with ExitStack() as turn:
            await self._wait_for_host(work.url, turn)
            await _take(self._slots, turn)
            outcome = None if self._stopped.is_set() else await self._download(work, turn)
        if outcome is None or self._storage is None or outcome.status != "completed":
            return outcome
        return await self._mirrored(work, outcome, self._storage)

    async def _mirrored(
        self, work: WorkItem, outcome: Outcome, storage: "AzureStorageClient"
    ) -> Outcome:
        """Upload a file, unless it has no name yet."""
        if work.path.startswith(INCOMING):
            return outcome
        path = self._folder / work.path
        try:
            await storage.upload_file_async(
                path, raise_on_error=True, content_type=outcome.content_type
            )
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            return outcome._replace(mirrored=False, mirror_error=one_line(error))
        if self._options.scratch is not None:
            path.unlink(missing_ok=True)
        return outcome._replace(mirrored=True)

    async def _wait_for_host(self, url: str, turn: ExitStack) -> None:
        """Wait until the host may be asked, but for what `stop` ends; the client sees to the rest.

        It waits for nothing then, except where many begin late at once, or behind a redirect.
        """
        options = self._options
        if options.max_per_host is None and self._rate is None:
            return
        origin = origin_of(url)
        if options.max_per_host is not None:
            bound = self._hosts.setdefault(origin, asyncio.Semaphore(options.max_per_host))
            await _take(bound, turn)
        if self._rate is not None:
            wait = self._rate.reserve(clock.monotonic(), origin)
            if wait:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._stopped.wait(), wait)

    async def _download(self, work: WorkItem, turn: ExitStack) -> Outcome | None:
        attempts = 1

        def retried(details: "RetryDetails") -> None:
            nonlocal attempts
            attempts = details.attempt + 1
            url = sanitize_url(work.url)
            cause = one_line(details.error, url=url)
            self._on_retry(BatchRetry(url, details.attempt, details.wait, cause))

        def received(_: int) -> None:
            turn.close()  # the next one uses the network meanwhile

        try:
            self._check_folder(work.path.rpartition("/")[0])
            result = await self._client.download(
                work.url,
                self._folder / work.path,
                headers=self._headers(work),
                expected_checksum=work.checksum,
                skip_if_exists=False,
                max_bytes=self._options.max_bytes,
                min_speed=self._options.min_speed,
                deadline=self._options.task_timeout,
                on_retry=retried,
                on_turn=self._begin,
                on_received=received,
                group=self._group,
                if_none_match=work.held[0],
                if_modified_since=work.held[1],
            )
        except _TooLateError:
            return None
        except Exception as error:  # noqa: BLE001 - becomes the outcome of this item
            return failure_of(work, error, attempts, self._folder)
        return _outcome_of(work, result)

    def _check_path(self, path: Path) -> None:
        """Look for links anew: one may have been made while the bytes came."""
        name = os.fspath(path)[len(os.fspath(self._folder)) + 1 :]
        check_links(self._folder, name.replace(os.sep, "/"))

    def _headers(self, work: WorkItem) -> dict[str, str]:
        return {**self._options.headers, **self._headers_of(work.url), **(work.headers or {})}

    def _headers_of(self, url: str) -> dict[str, str]:
        """The headers for the host of a URL alone; those for its port as well come first."""
        own = self._host_headers
        if not own:
            return {}
        host, port = origin_of(url)
        return {**own.get((host, None), {}), **own.get((host, port), {})}

    def stop(self) -> None:
        """Begin no more downloads."""
        self._stopped.set()

    def _begin(self) -> None:
        if self._stopped.is_set():
            raise _TooLateError

    async def close(self, *, kill: bool = False) -> None:
        """Close the connections."""
        await self._opened.aclose()


def settle(done: "asyncio.Future[Outcome | None]", outcome: Outcome | BaseException | None) -> None:
    """Hand over what came of an item, unless no task waits for it any more."""
    if done.done():
        return
    if isinstance(outcome, BaseException):
        done.set_exception(outcome)
    else:
        done.set_result(outcome)


async def _take(places: asyncio.Semaphore, turn: ExitStack) -> None:
    await places.acquire()
    turn.callback(places.release)


def failure_of(work: WorkItem, error: Exception, attempts: int, folder: Path) -> Outcome:
    """What a download into the run's folder came to that failed."""
    response = getattr(error, "response", None)
    by_load = any(getattr(each, "errno", None) in _LOAD for each in error_chain(error))
    if getattr(error, "filename", None):  # of the disk
        by_load |= getattr(error, "errno", None) in _DISK_GONE or leads_nowhere(folder / ASSETS)
    cause = one_line(error, url=sanitize_url(work.url))
    for library, command in _REMEDIES:
        cause = cause.replace(library, command)
    return Outcome(
        job_id=work.job_id,
        status="timed_out" if isinstance(error, TimeoutError) else "failed",
        attempts=attempts,
        error=cause,
        http_status=getattr(response, "status_code", None),
        by_load=by_load,
    )


def _outcome_of(work: WorkItem, result: "DownloadResult") -> Outcome:
    """What a download came to that did not fail."""
    made = partial(
        Outcome,
        job_id=work.job_id,
        path=work.path,
        attempts=result.attempts,
        http_status=result.http_status,
    )
    if result.reused:
        return made(status="unchanged")
    return made(
        status="completed",
        size=result.size,
        checksum=result.checksum,
        content_type=result.mime,
        etag=result.etag,
        last_modified=result.last_modified,
        name=result.name,
    )


def share_of(options: "BatchOptions", workers: int) -> "BatchOptions":
    """The options of one of several workers: what bounds the whole run is shared out."""
    shares: dict[str, Any] = {}
    if options.limit_rate is not None:
        shares["limit_rate"] = max(1.0, options.limit_rate / workers)
    if options.rate_per_host is not None:
        shares["rate_per_host"] = max(0.000_001, options.rate_per_host / workers)
    if options.max_per_host is not None:
        shares["max_per_host"] = max(1, options.max_per_host // workers)
    return replace(options, **shares)


def workers_of(
    services: "Services", client: Any, on_retry: Callable[[BatchRetry], None]
) -> "Downloads | ProcessWorkers | DaskWorkers":
    """What downloads: this process, others of this machine, or those of a cluster.

    Raises:
        BatchError: Files would be removed that are mirrored nowhere.
    """
    options, folder = services.options, services.folder
    if options.scratch is not None:
        if services.storage is None:
            raise BatchError(
                "scratch (--scratch) removes files once they are mirrored, and no storage is "
                "configured: set AZURE_STORAGE_CONTAINER and how to sign in, or leave it out"
            )
        folder = options.scratch / options.batch_id
    if client is not None or options.dask is not None:
        from ._dask import DaskWorkers

        where = client or options.dask
        return DaskWorkers(options, folder.absolute(), on_retry, services.env, where)
    if options.processes != 1 or options.scratch is not None:
        from ._workers import ProcessWorkers

        return ProcessWorkers(options, folder, on_retry, services.env)
    return Downloads(options, folder, on_retry)
