"""`AssetDownloadClient`: the settings of downloads, and the checks of their arguments."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from infra_core.fs import parse_checksum
from infra_core.runtime import RateLimit, is_number

from .._async_client import AnyClient  # noqa: TC001 - for typing.get_type_hints()
from .._checks import DefaultTimeout, check_async_client, check_callable
from .._errors import InvalidRequestError
from .._headers import DEFAULT_HEADERS, check_no_body, checked_headers, merge_headers
from .._policy import build_policy, retry_statuses_of
from ..engine._target import target_of
from ._commit import CommitGroup  # noqa: TC001
from ._fields import conditions
from ._result import DownloadResult, DownloadSpec, ProgressCallback, RetryCallback
from ._transfer import transfer

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AssetDownloadClient"]

_MAX_CONNECTIONS = 64
_TIMEOUT = DefaultTimeout(60.0)
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # surrogates that stand for no byte
_CATCH_UP = 0.1  # seconds' worth of bytes that may follow at once when a timer came late
_CALLED_WITH = {
    "progress": "the bytes so far and the size",
    "on_retry": "one RetryDetails",
    "on_turn": "no argument",
    "on_received": "the size",
}
_FIELDS = {field.name for field in fields(DownloadSpec)}


class AssetDownloadClient:
    """Settings for downloads, to be shared: any number of calls, threads and event loops.

    It holds no connection itself: those of an `AsyncHttpClient` are used, which are pooled per
    event loop and closed with it, so one client may serve several loops at the same time.

    Args:
        timeout: Seconds to wait for a connection, and for each next piece of the body. Where it
            is not given, what is set on `client`, else 60 s.
        max_retries: Retries after the first try.
        backoff: Ceiling of the first wait in seconds; it doubles with each retry.
        max_backoff: No wait is longer; a Retry-After above it ends the retries.
        retry_statuses: Statuses to retry; None for 429, 500, 502, 503, 504; `[]` for none.
        user_agent: The User-Agent header, unless a call brings its own; with `client=` that
            client's.
        client: An `AsyncHttpClient` or an `httpx.AsyncClient`. It sends the requests, with its
            headers, auth, cookies, proxies, certificates and limits, and stays open; relative URLs
            are joined to its `base_url`. Without one
            they go through the shared client of `infra_core.http.aio`, and cookies are kept within
            one chain of redirects.
        public_only: Refuse hosts without a public address, as `AsyncHttpClient` does; with
            `client=` it is that client's to say.
        limit_rate: Bytes received per second, over all downloads of this client in all threads and
            event loops; None for no bound. `deadline` goes on meanwhile, `min_speed` does not count
            it.

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
        timeout: float = _TIMEOUT,
        max_retries: int = 4,
        backoff: float = 1.5,
        max_backoff: float = 60.0,
        retry_statuses: Iterable[int] | None = None,
        user_agent: str | None = None,
        client: AnyClient | None = None,
        public_only: bool = False,
        limit_rate: float | None = None,
    ) -> None:
        if client is not None:
            check_async_client(client)
            if public_only:
                raise InvalidRequestError(
                    "public_only= beside client= would change nothing: pass "
                    "client=AsyncHttpClient(public_only=True)"
                )
        build_policy(max_retries, backoff, max_backoff, None)
        _check("timeout", timeout, "seconds above 0", finite=True)
        if limit_rate is not None:
            _check("limit_rate", limit_rate, "bytes per second above 0, or None", finite=True)
        self._pace = None if limit_rate is None else RateLimit(limit_rate, catch_up=_CATCH_UP)
        self._defaults: dict[str, Any] = {
            "timeout": timeout,
            "max_retries": max_retries,
            "backoff": backoff,
            "max_backoff": max_backoff,
            "retry_statuses": retry_statuses_of(retry_statuses),
        }
        self._client = client
        if public_only:
            from .._async_client import AsyncHttpClient

            self._client = AsyncHttpClient(public_only=True)
        own: dict[str, str] = {}
        if client is None:  # a client that is passed sends its own
            own = {"User-Agent": DEFAULT_HEADERS["User-Agent"], "Accept": "*/*"}
        if user_agent is not None:
            own["User-Agent"] = user_agent
        self._headers = checked_headers(own)

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
        on_turn: Callable[[], object] | None = None,
        on_received: Callable[[int], object] | None = None,
        group: CommitGroup | None = None,
        if_none_match: str | None = None,
        if_modified_since: str | None = None,
    ) -> DownloadResult:
        """Download one file; see `download_asset_async`.

        `timeout`, `max_retries`, `backoff`, `max_backoff` and `retry_statuses` are the client's
        own where they are None. Some options are for callers that run many downloads at once:
        `on_turn` is called when the client's limits (`max_per_host`, `max_per_second_per_host`) let
        the first request begin; the wait for that is not part of `deadline` then; what it raises
        ends the download. `on_received` is called with the size when all bytes have come, before
        the file is flushed to the disk (once for each attempt): another download may use the
        network now. `group` makes files durable together; see `CommitGroup`. `if_none_match` and
        `if_modified_since` are the ETag and Last-Modified of a copy that the caller holds, here or
        elsewhere: if the server says that it is current (304), nothing is written, and the result
        is `reused`.
        """
        given: dict[str, Any] = locals()
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
        for name, remedy in _CALLED_WITH.items():
            check_callable(name, given[name], f"a function of {remedy}")
        chosen = {
            name: default if given[name] is None else given[name]
            for name, default in self._defaults.items()
        }
        options = {name: value for name, value in given.items() if name in _FIELDS}
        options.update(
            url=await _absolute(url, self._client),
            dest=_destination(dest_path),
            timeout=chosen.pop("timeout"),
            retry_statuses=retry_statuses_of(chosen.pop("retry_statuses")),
            policy=build_policy(**chosen, deadline=deadline),
            headers=merge_headers(self._headers, _own_headers(headers)),
            client=self._client,
            pace=self._pace,
            held=conditions(if_none_match, if_modified_since),
        )
        return await transfer(DownloadSpec(**options))

    async def close(self) -> None:
        """Does nothing since 1.0: connections end with their event loop. For callers of 0.7."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _own_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    own = checked_headers(headers)
    check_no_body(own)
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


async def _absolute(url: Any, client: Any) -> str:
    """Return a URL joined to the `base_url` of the client, as httpx joins it."""
    text: str = url if isinstance(url, str) else target_of(url).text  # which refuses other types
    if client is None or _ABSOLUTE.match(text):
        return text
    http = await client.get_client() if hasattr(client, "get_client") else client
    base = getattr(http, "base_url", None)
    if not isinstance(base, httpx.URL) or not base.host:
        return text
    raw_path = base.raw_path + httpx.URL(text).raw_path.lstrip(b"/")
    return str(base.copy_with(raw_path=raw_path))


def _destination(path: object) -> Path:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if isinstance(text, str) and not text.endswith(("/", "/.", os.sep)) and "\0" not in text:
        dest = path if isinstance(path, Path) else Path(text)
        if dest.name not in {"", ".."} and (text.isascii() or not _LONE.search(text)):
            return dest
    raise InvalidRequestError(f"dest_path={path!r} names no file: pass the path of one to write")
