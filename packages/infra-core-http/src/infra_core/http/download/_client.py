"""`AssetDownloadClient`, the shared one, and the two functions that most callers need."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.fs import parse_checksum
from infra_core.runtime import is_number, run_sync

from .._checks import check_async_client
from .._errors import InvalidRequestError
from .._headers import DEFAULT_HEADERS, checked_headers, merge_headers
from .._policy import build_policy, retry_statuses_of
from ..engine._target import target_of
from ._result import DownloadResult, DownloadSpec, ProgressCallback, RetryCallback
from ._transfer import transfer

if TYPE_CHECKING:
    from typing_extensions import Self

    from .._async_client import AnyClient
    from ._commit import CommitGroup

__all__ = [
    "AssetDownloadClient",
    "download_asset",
    "download_asset_async",
    "get_async_client",
    "get_shared_client",
    "reset_async_client",
    "reset_shared_client",
    "set_shared_client",
]

_MAX_CONNECTIONS = 64
_CALLED_WITH = {
    "progress": "the bytes so far and the size",
    "on_retry": "one RetryDetails",
    "on_received": "the size",
}


class AssetDownloadClient:
    """Settings for downloads, to be shared: any number of calls, threads and event loops.

    It holds no connection itself: those of an `AsyncHttpClient` are used, which are pooled per
    event loop and closed with it, so one client may serve several loops at the same time.

    Args:
        timeout: Seconds to wait for a connection, and for each next piece of the body.
        max_retries: Retries after the first try.
        backoff: Ceiling of the first wait in seconds; it doubles with each retry.
        max_backoff: No wait is longer; a Retry-After above it ends the retries.
        retry_statuses: Statuses to retry; None for 429, 500, 502, 503, 504; `[]` for none.
        user_agent: The User-Agent header, unless a call brings its own; with `client=` that
            client's.
        client: An `AsyncHttpClient` or an `httpx.AsyncClient`. It sends the requests, with its
            headers, auth, cookies, proxies, certificates and limits, and stays open. Without one
            they go through the shared client of `infra_core.http.aio`, and cookies are kept within
            one chain of redirects.

    Raises:
        ValueError: A setting that makes no sense.

    Example:
        ::

            async with AsyncHttpClient(auth=("me", "secret")) as http:
                async with AssetDownloadClient(max_retries=2, client=http) as client:
                    result = await client.download(url, Path("logo.png"))
    """

    def __init__(
        self,
        *,
        timeout: float = 60.0,
        max_retries: int = 4,
        backoff: float = 1.5,
        max_backoff: float = 60.0,
        retry_statuses: Iterable[int] | None = None,
        user_agent: str | None = None,
        client: AnyClient | None = None,
    ) -> None:
        if client is not None:
            check_async_client(client)
        build_policy(max_retries, backoff, max_backoff, None)
        _check("timeout", timeout, "seconds above 0", finite=True)
        self._timeout = timeout
        self._max_retries = max_retries
        self._backoff = backoff
        self._max_backoff = max_backoff
        self._retry_statuses = retry_statuses_of(retry_statuses)
        self._client = client
        own = {} if client is not None else {"User-Agent": DEFAULT_HEADERS["User-Agent"]}
        if user_agent is not None:
            own["User-Agent"] = user_agent
        self._headers = checked_headers(own if client is not None else {**own, "Accept": "*/*"})

    async def download(
        self,
        url: str,
        dest_path: Path,
        *,
        headers: Mapping[str, str] | None = None,
        skip_if_exists: bool = True,
        compute_checksum: bool = True,
        timeout: float | None = None,
        max_retries: int | None = None,
        backoff: float | None = None,
        max_backoff: float | None = None,
        retry_statuses: Iterable[int] | None = None,
        expected_checksum: str | None = None,
        max_bytes: int | None = None,
        deadline: float | None = None,
        progress: ProgressCallback | None = None,
        revalidate: bool = False,
        keep_partial: bool = False,
        connections: int = 1,
        durable: bool = True,
        min_speed: float = 1024.0,
        on_retry: RetryCallback | None = None,
        on_received: Callable[[int], object] | None = None,
        group: CommitGroup | None = None,
    ) -> DownloadResult:
        """Download one file; see `download_asset_async`.

        `timeout`, `max_retries`, `backoff`, `max_backoff` and `retry_statuses` are the client's
        own where they are None. Two options are for whoever runs many downloads at once:
        `on_received` is called with the size when all bytes have come, before the file is flushed
        to the disk (once for each attempt): another download may use the network now. `group`
        makes files durable together; see `CommitGroup`.
        """
        _check_options(timeout, max_bytes, min_speed, connections, expected_checksum)
        _check_callbacks(progress=progress, on_retry=on_retry, on_received=on_received)
        spec = DownloadSpec(
            url=_text_of(url),
            dest=_destination(dest_path),
            policy=build_policy(
                self._max_retries if max_retries is None else max_retries,
                self._backoff if backoff is None else backoff,
                self._max_backoff if max_backoff is None else max_backoff,
                deadline,
            ),
            retry_statuses=(
                self._retry_statuses
                if retry_statuses is None
                else retry_statuses_of(retry_statuses)
            ),
            headers=merge_headers(self._headers, _own_headers(headers)),
            timeout=self._timeout if timeout is None else timeout,
            skip_if_exists=skip_if_exists,
            compute_checksum=compute_checksum,
            expected_checksum=expected_checksum,
            max_bytes=max_bytes,
            progress=progress,
            revalidate=revalidate,
            keep_partial=keep_partial,
            connections=connections,
            durable=durable,
            min_speed=min_speed,
            client=self._client,
            group=group,
            on_retry=on_retry,
            on_received=on_received,
        )
        return await transfer(spec)

    async def close(self) -> None:
        """Does nothing since 1.0: a client holds no connections. Kept for callers of 0.7."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _check_options(
    timeout: float | None,
    max_bytes: int | None,
    min_speed: float,
    connections: int,
    expected_checksum: str | None,
) -> None:
    if timeout is not None:
        _check("timeout", timeout, "seconds above 0, or None for the client's", finite=True)
    if max_bytes is not None:
        _check("max_bytes", max_bytes, "bytes, 0 or more, or None for no bound", zero=True)
    _check("min_speed", min_speed, "bytes per second, 0 to wait for any server", zero=True)
    if not (isinstance(connections, int) and 1 <= connections <= _MAX_CONNECTIONS):
        raise InvalidRequestError(
            f"connections={connections!r}: pass 1 to {_MAX_CONNECTIONS}; 4 is plenty for most "
            "servers"
        )
    if expected_checksum is not None:
        parse_checksum(expected_checksum)


def _check_callbacks(**callbacks: object) -> None:
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise InvalidRequestError(
                f"{name} of type {type(callback).__name__} cannot be called: pass a function of "
                f"{_CALLED_WITH[name]}"
            )


def _own_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    own = checked_headers(headers)
    if any(name.lower() in {"range", "if-range"} for name in own):
        raise InvalidRequestError(
            "headers must not have Range or If-Range: a download is the whole file, and asks for "
            "ranges by itself. Use request_async() or stream_async() for a part"
        )
    return own


def _check(
    name: str, value: float, remedy: str, *, zero: bool = False, finite: bool = False
) -> None:
    if (
        not is_number(value)
        or not (value > 0 or (zero and value == 0))
        or (finite and value == math.inf)
    ):
        raise InvalidRequestError(f"{name}={value!r} makes no sense: pass {remedy}")


def _text_of(url: Any) -> str:
    """Return a URL as text; what is none is refused by `target_of`, the rest when it is asked."""
    return url if isinstance(url, str) else str(target_of(url).url)


def _destination(path: object) -> Path:
    if isinstance(path, (str, os.PathLike)):
        dest = Path(path)
        if dest.name and "\0" not in str(dest):
            return dest
    raise InvalidRequestError(f"dest_path={path!r} names no file: pass the path of one to write")


_lock = threading.Lock()
_shared: AssetDownloadClient | None = None


def _shared_client() -> AssetDownloadClient:
    global _shared
    with _lock:
        if _shared is None:
            _shared = AssetDownloadClient()
        return _shared


async def get_shared_client() -> AssetDownloadClient:
    """The client behind `download_asset` and `download_asset_async`."""
    return _shared_client()


def set_shared_client(client: AssetDownloadClient | None) -> None:
    """Replace the shared client, e.g. by one with other defaults; None for a fresh one."""
    global _shared
    with _lock:
        _shared = client


async def reset_shared_client() -> None:
    """Forget the shared client; the next call makes a new one."""
    set_shared_client(None)


async def get_async_client() -> AssetDownloadClient:
    """Deprecated name of `get_shared_client`."""
    _warn("get_async_client", "get_shared_client")
    return await get_shared_client()


async def reset_async_client() -> None:
    """Deprecated name of `reset_shared_client`."""
    _warn("reset_async_client", "reset_shared_client")
    await reset_shared_client()


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old}() is deprecated and will go in 2.0: call {new}()", DeprecationWarning, stacklevel=3
    )


async def download_asset_async(
    url: str,
    dest_path: Path,
    *,
    headers: Mapping[str, str] | None = None,
    skip_if_exists: bool = True,
    timeout: float | None = None,
    max_retries: int | None = None,
    backoff: float | None = None,
    max_backoff: float | None = None,
    retry_statuses: Iterable[int] | None = None,
    compute_checksum: bool = True,
    expected_checksum: str | None = None,
    max_bytes: int | None = None,
    deadline: float | None = None,
    progress: ProgressCallback | None = None,
    revalidate: bool = False,
    keep_partial: bool = False,
    connections: int = 1,
    durable: bool = True,
    min_speed: float = 1024.0,
    on_retry: RetryCallback | None = None,
) -> DownloadResult:
    """Download a file: whole, verified and flushed to the disk, or not there at all.

    The body goes to a partial file beside `dest_path` and is hashed on the way; its length must
    be what the server announced and its digest what the caller (or the server) says. Only then
    does it take its name, in one step. Cut and altered bodies are fetched again from zero. After
    a reset or a timeout the rest is asked for, when the server gave a strong ETag to pin the
    version. Whatever fails, an older file at `dest_path` stays and nothing else is left.

    A process that is killed leaves the partial file and a note beside it; the next call for the
    same URL and path checks them against each other and asks for the rest only.

    Args:
        url: An http or https URL; redirects are followed, credentials stay with their origin.
        dest_path: The file to write; missing folders are made.
        headers: Sent with each request. `Accept-Encoding` is always `identity`; `Range` and
            `If-Range` are refused.
        skip_if_exists: Return a file that is there already, with no request made. Never an empty
            one, nor one known to come from another URL, nor one that fails `expected_checksum`.
        timeout: Seconds to wait for a connection, and for each next piece of the body (60).
        max_retries: Retries after the first try (4).
        backoff: Ceiling of the first wait in seconds; it doubles with each retry (1.5).
        max_backoff: No wait is longer; a Retry-After above it ends the retries (60).
        retry_statuses: Statuses to retry; None for 429, 500, 502, 503, 504; `[]` for none.
        compute_checksum: Hash the file, for `DownloadResult.checksum`.
        expected_checksum: `algorithm:hexdigest`, with any algorithm of `hashlib`. Of a body that
            is sent encoded (Content-Encoding) it may be that of the bytes as sent, which are
            stored then, or that of the decoded ones.
        max_bytes: The largest file to accept; a larger one is refused by its announced length,
            or as soon as it has grown above it.
        deadline: Seconds in total; retries, waits and work on the disk included. Where the disk
            hangs in the last step, the whole file may still appear later.
        progress: Called with (bytes so far, size or None) as bytes come; begins again at zero
            when a retry does. What it raises ends the download.
        revalidate: Ask the server whether the file that is there is current (ETag or
            Last-Modified), and fetch it only when it is not.
        keep_partial: Keep the partial file with its note also on failure and cancellation, for
            the next call to continue. Without it only a killed process leaves one.
        connections: Fetch a large file in that many ranges side by side, when the server gives a
            strong ETag and serves ranges.
        durable: Flush file and folder to the disk before the file takes its name. False is
            faster and still atomic; only a power cut can then lose it.
        min_speed: Bytes per second below which, measured over `timeout` seconds, the server
            counts as stalled; 0 to wait for any.
        on_retry: Called before each wait with a `RetryDetails`: the attempt that failed, its
            error, the seconds to wait. May be a coroutine function; what it raises ends the
            download.

    Returns:
        Where the file is and what is known about it.

    Raises:
        IncompleteDownloadError: All tries were cut short (also an `httpx.TransportError`).
        ChecksumMismatchError: All tries brought other content (also an `httpx.TransportError`).
        DownloadTooLargeError: Above `max_bytes`.
        DownloadDeadlineError: Not done in time (also a `TimeoutError` and an
            `httpx.TimeoutException`).
        DownloadDiskError: Disk full, folder not writable, still too many open files after all
            retries (also an `OSError`, its `errno` set; no `PermissionError` and the like).
        httpx.HTTPStatusError: An error status; `retry_after` when the server asks for more
            patience than `max_backoff`.
        httpx.TransportError: No connection, reset, timeout, on the last try.
        ValueError: An argument that makes no sense; nothing was touched.

    Example:
        ::

            result = await download_asset_async(url, Path("assets/logo.png"), deadline=60)
            print(result.checksum, result.size)
    """
    options: dict[str, Any] = {
        name: value for name, value in locals().items() if name not in {"url", "dest_path"}
    }
    return await _shared_client().download(url, dest_path, **options)


def download_asset(
    url: str,
    dest_path: Path,
    *,
    headers: Mapping[str, str] | None = None,
    skip_if_exists: bool = True,
    timeout: float | None = None,
    max_retries: int | None = None,
    backoff: float | None = None,
    max_backoff: float | None = None,
    retry_statuses: Iterable[int] | None = None,
    compute_checksum: bool = True,
    expected_checksum: str | None = None,
    max_bytes: int | None = None,
    deadline: float | None = None,
    progress: ProgressCallback | None = None,
    revalidate: bool = False,
    keep_partial: bool = False,
    connections: int = 1,
    durable: bool = True,
    min_speed: float = 1024.0,
    on_retry: RetryCallback | None = None,
) -> DownloadResult:
    """Download a file from synchronous code; see `download_asset_async`.

    It runs on the one background loop of the process, so connections live on between calls.
    `progress` is called in that loop's thread.

    Raises:
        RuntimeError: Inside a running event loop, which would be blocked: await
            `download_asset_async`.
    """
    options: dict[str, Any] = {
        name: value for name, value in locals().items() if name not in {"url", "dest_path"}
    }
    return run_sync(
        _shared_client().download(url, dest_path, **options),
        what="download_asset()",
        instead="download_asset_async()",
    )
