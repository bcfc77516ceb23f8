"""The shared client, and the two functions that most callers need."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from infra_core.runtime import name_call, run_sync

from ._client import AssetDownloadClient
from ._result import DownloadResult, ProgressCallback, RetryCallback  # noqa: TC001 - for hints

__all__ = [
    "blocking",
    "download_asset",
    "download_asset_async",
    "get_async_client",
    "get_shared_client",
    "reset_async_client",
    "reset_shared_client",
    "set_shared_client",
]

P = ParamSpec("P")
T = TypeVar("T")
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


def blocking(
    function: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[[Callable[..., Any]], Callable[P, T]]:
    """Make a function the synchronous twin of an asynchronous one, with its parameters."""

    def decorate(twin: Callable[..., Any]) -> Callable[P, T]:
        @wraps(twin)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            what = f"{twin.__name__}()"
            try:
                awaited = function(*args, **kwargs)
            except TypeError as error:
                name_call(error, what, function.__name__)
                raise
            return run_sync(awaited, what=what, instead=f"{function.__name__}()")

        call.__annotations__ = function.__annotations__
        call.__signature__ = signature(function)  # type: ignore[attr-defined]
        return call

    return decorate


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
    does it take its name, in one step. Altered bodies are fetched again from zero. Of one that
    broke off the rest is asked for, when the server gave a strong ETag to pin the version, else
    all of it. Whatever fails, an older file at `dest_path` stays and nothing else is left.

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
            when a retry does. May be a coroutine function; what it raises ends the download.
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
    options: dict[str, Any] = locals()
    return await _shared_client().download(options.pop("url"), options.pop("dest_path"), **options)


@blocking(download_asset_async)
def download_asset(*args: Any, **kwargs: Any) -> Any:
    """Download a file from synchronous code; see `download_asset_async`, whose parameters it has.

    It runs on the one background loop of the process, so connections live on between calls.
    `progress` is called in that loop's thread.

    Raises:
        RuntimeError: Inside a running event loop, which would be blocked: await
            `download_asset_async`.
    """
