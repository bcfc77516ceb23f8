"""Requests to the blob service on the engine: one attempt, or several by the one retry policy.

The SDK's pipeline costs more processor time per small blob than the service does (see the README
for numbers), so the data path speaks the REST interface itself, on the connections of
`infra_core.http.engine`. Everything that a request can meet is turned into an error of `_errors`
here, and nothing else retries.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import quote, urljoin, urlsplit
from xml.etree import ElementTree as ET

from infra_core.runtime import (
    LoopLocal,
    RetryDetails,
    clock,
    parse_retry_after,
    redact_secrets,
    retry_async,
    trace_fields,
)

from .._access import access_remedy, challenge_of
from .._tokens import TokenTimeoutError, credential_problem
from ._auth import make_authenticator
from ._config import _AzureStorageConfig
from ._errors import (
    IntegrityError,
    StorageAccessError,
    StorageConnectionError,
    StorageError,
    StorageRequestError,
    StorageTimeoutError,
    error_of,
    request_error,
)
from ._names import encode_blob_name
from ._refusals import REFUSE_ALL, is_worth_a_retry

if TYPE_CHECKING:
    from infra_core.http.engine import Engine, Target, Timeouts

__all__ = ["BlobService", "Outage", "Request", "Response", "should_retry"]

API_VERSION = "2023-11-03"
_SIGNS = ("x-ms-request-id", "x-ms-version", "x-ms-error-code")  # of answers of the service
# A fifth of aiohttp's work on the headers of a request is leaving these out.
_USUAL = {"User-Agent": "infra-core", "Accept": "*/*", "Accept-Encoding": "identity"}
_BY_SIZE = (413, 414, 431)
_PIECE = 256 * 1024  # bytes handed to the socket at a time; larger ones would block the loop
T = TypeVar("T")
_Buffer = bytes | bytearray | memoryview


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def should_retry(error: Exception) -> bool | float:
    """Whether an error passes by itself; a number when the service says when."""
    if isinstance(error, StorageRequestError):
        if not is_worth_a_retry(error.status, error.code):
            return False
        return True if error.retry_after is None else error.retry_after
    if isinstance(error, StorageConnectionError):
        return not error.permanent
    return isinstance(error, IntegrityError) and not error.permanent


class Request(NamedTuple):
    """What is asked of the service.

    The blob's name is `None` for the container. Names of `params` are in lower case, values not
    encoded. `expect` is how many bytes the answer will hold, for the time limit.
    """

    method: str
    name: str | None
    operation: str
    params: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: _Buffer | None = None
    expect: int = 0


class BlobService:
    """Connections to one container, one pool per event loop; the credential given is left open."""

    def __init__(
        self,
        config: _AzureStorageConfig,
        *,
        credential: Any = None,
        log: logging.Logger | None = None,
    ) -> None:
        self.config = config
        self.hashes_ranges = True  # until an answer shows that this service does not
        self._auth = make_authenticator(config, credential)
        self.log = log or logging.getLogger("infra_core.azure.storage")
        self._connections: LoopLocal[_Connections] = LoopLocal(self._connect, _Connections.aclose)
        self._base_path = urlsplit(config.container_url).path
        self.policy = config.options.retry_policy
        self._policy_of_whole = replace(self.policy, deadline=None)
        self._id = os.urandom(16).hex()  # with a number for each request: what support asks for
        self._count = itertools.count(1)

    async def send(self, request: Request) -> Response:
        """Make a request, and retry it by the policy until the service answers."""
        tries = 1

        def on_retry(details: RetryDetails) -> None:
            nonlocal tries
            tries = details.attempt + 1
            self.log_retry(details, request.name, request.operation)

        try:
            return await retry_async(
                partial(self.send_once, request),
                policy=self.policy,
                should_retry=should_retry,
                on_retry=on_retry,
            )
        except (StorageConnectionError, StorageRequestError) as error:
            error.attempts = tries
            raise
        except TimeoutError as error:
            from ._connection_errors import deadline_error

            blob = request.name or self.config.container
            raise deadline_error(
                self.config, error.__cause__, blob=blob, operation=request.operation
            ) from error

    async def whole(
        self,
        transfer: Callable[[], Awaitable[T]],
        name: str,
        operation: str,
        should_retry: Callable[[Exception], bool],
    ) -> T:
        """Repeat a transfer of many requests from its start; the deadline is that of each request.

        `should_retry` says which errors make all worthless that was transferred.
        """
        return await retry_async(
            transfer,
            policy=self._policy_of_whole,
            should_retry=should_retry,
            on_retry=lambda details: self.log_retry(details, name, operation),
        )

    def log_retry(self, details: RetryDetails, name: str | None, operation: str) -> None:
        """Log a failed attempt that will be repeated."""
        self.log.warning(
            "retrying in %.2f s (try %d of %d failed): %s",
            details.wait,
            details.attempt,
            self.policy.max_retries + 1,
            redact_secrets(str(details.error)),
            extra={
                "blob_name": name,
                "container": self.config.container,
                "operation": operation,
                "attempt": details.attempt,
                "wait": details.wait,
                "elapsed": details.elapsed,
                **trace_fields(),
            },
        )

    async def send_once(self, request: Request) -> Response:
        """Make a request once; see `send`. A token that the service refuses is replaced once."""
        sent: dict[str, str] = {}
        try:
            return await self._request(request, sent)
        except StorageAccessError as error:
            # 401 is about the token that was sent, 403 about who sent it.
            if error.status != 401 or not self._auth.renews(sent, error.challenge):
                raise
        return await self._request(request, {})

    async def _request(self, request: Request, sent: dict[str, str]) -> Response:
        """Make a request; `sent` is empty, and afterwards holds the headers that went out."""
        import httpx

        method, name, operation, params, headers, body, expect = request
        blob = name or self.config.container
        path = self._base_path
        if name is not None:
            path = f"{path}/{encode_blob_name(name)}"
        sent["x-ms-version"] = API_VERSION
        sent["x-ms-client-request-id"] = f"{self._id}-{next(self._count)}"
        sent |= _USUAL
        sent.update(headers)
        size = 0 if body is None else memoryview(body).nbytes
        if body is not None or method == "PUT":
            sent["Content-Length"] = str(size)
            sent["Content-Type"] = "application/octet-stream"
        try:
            await self._auth.authorize(method, path, params, sent)
        except Exception as error:  # what credentials raise is of no one kind
            raise self._authentication_failed(error, blob, operation) from error
        query = "&".join(f"{key}={quote(value, safe='')}" for key, value in params.items())
        if self._auth.query:
            query = f"{query}&{self._auth.query}" if query else self._auth.query
        asked = f"{path}?{query}" if query else path
        data: Any = body
        if body is not None and (size > _PIECE or not isinstance(body, bytes)):
            data = _pieces(body)
        limit = self.config.options.time_limit(size + expect)
        connections = self._connections.get()
        connections.under_way += 1
        failure: StorageConnectionError | None = None
        try:
            async with (
                connections.slots,  # before the clock starts: waiting for others is not silence
                clock.timeout(limit),
            ):
                response = await connections.engine.send(
                    method,
                    connections.origin.at(asked),
                    headers=sent,
                    timeout=connections.timeouts,
                    body=data,
                )
                content = await response.read()
        except (httpx.TransportError, OSError, asyncio.TimeoutError) as error:
            from ._connection_errors import connection_error

            failure = connection_error(
                error, config=self.config, limit=limit, blob=blob, operation=operation
            )
        finally:
            connections.under_way -= 1
        # The error of the engine holds the whole request, URL and signature included: it stays
        # here, and with it what shows them.
        if failure is not None:
            raise failure
        final = response.status < 300 or response.status == 404
        if final and not _is_of_service(response.headers):
            # A login page of some network, say: taken for the service, it would swallow uploads,
            # and a page that it does not have would pass for a blob that does not exist.
            raise error_of(
                StorageRequestError,
                operation,
                blob,
                f"was answered, with status {response.status}, but not by a blob service",
                f"check {self.config.endpoint_setting} and the proxies in between",
                status=response.status,
            )
        if response.status >= 300:
            raise self._refusal(response.status, response.headers, content, blob, operation)
        return Response(response.status, response.headers, content)

    def _authentication_failed(self, error: Exception, blob: str, operation: str) -> StorageError:
        """The error for a credential that gives no token."""
        if isinstance(error, TokenTimeoutError):
            what, _, remedy = error.message.partition("; ")
            late = error_of(StorageTimeoutError, operation, blob, f"failed: {what}", remedy)
            late.permanent = True  # for this request, which would wait as long at each try
            return late
        call = self.config.variable
        said, remedy = credential_problem(
            error, f"{call('connection_string')} or {call('sas_token')}"
        )
        what = f"failed because there is no token to send ({type(error).__name__}: {said})"
        return error_of(StorageAccessError, operation, blob, what, remedy, status=401)

    def _refusal(
        self, status: int, headers: Mapping[str, str], content: bytes, blob: str, operation: str
    ) -> StorageRequestError:
        code, text = headers.get("x-ms-error-code", ""), ""
        if content.lstrip()[:1] == b"<" or content[:3] == b"\xef\xbb\xbf":
            try:
                tree = ET.fromstring(content)  # noqa: S314 - expat resolves no entities
                code = code or tree.findtext("Code") or ""
                text = _first_line(tree, "Message")
                # Of the dates in a token, say. Not of a signature, which may still be valid.
                if "signature found" not in (why := _first_line(tree, "AuthenticationErrorDetail")):
                    text = f"{text} {why:.300}".strip()
            except ET.ParseError:
                pass
        error = request_error(
            status,
            code,
            redact_secrets(text),
            blob=blob,
            operation=operation,
            request_id=headers.get("x-ms-request-id", ""),
            retry_after=parse_retry_after(headers),
            access=access_remedy(code, status if self.config.uses_credential else 0)
            or self.config.access_remedy,
            by_role=self.config.uses_credential,
        )
        if isinstance(error, StorageAccessError):
            error.challenge = challenge_of(headers.get("WWW-Authenticate", ""))
        if not code and status not in _BY_SIZE and not _is_of_service(headers):
            error.permanent = False  # a proxy or gateway said so, and not the service
        return error

    def _connect(self) -> "_Connections":
        import httpx

        from infra_core.http.engine import Engine, Timeouts, target_of

        options = self.config.options
        # How many requests are under way is bounded outside of the engine's clock.
        engine = Engine(limits=httpx.Limits(max_connections=None, keepalive_expiry=15.0))
        timeouts = Timeouts(options.connect_timeout, options.timeout, options.timeout, None)
        origin = target_of(urljoin(self.config.endpoint, "/"))
        return _Connections(engine, asyncio.Semaphore(options.concurrency), timeouts, origin)

    def is_busy(self) -> bool:
        """Whether a request of the running loop is under way."""
        return self._connections.get().under_way > 0

    async def aclose(self) -> None:
        """Close the running loop's connections, those of ended loops, and an own credential."""
        await self._connections.aclose()
        await self._auth.aclose()


@dataclass(eq=False)
class _Connections:
    """The connections of one event loop, and how many requests may be under way on it."""

    engine: "Engine"
    slots: asyncio.Semaphore
    timeouts: "Timeouts"
    origin: "Target"
    under_way: int = 0  # requests

    async def aclose(self) -> None:
        await self.engine.aclose()


def _first_line(tree: ET.Element, tag: str) -> str:
    return (tree.findtext(tag) or "").partition("\n")[0]


def _is_of_service(headers: Mapping[str, str]) -> bool:
    """Whether a blob service has answered, and nothing in between."""
    return any(sign in headers for sign in _SIGNS)


class Outage:
    """Whether so many transfers in a row have met no service that the others need not try.

    A service that refuses all that is asked, since the token has ended or the key was changed, is
    as good as none. `error` is what the last of them met, once they were that many.
    """

    error: Exception | None = None

    def __init__(self, service: BlobService) -> None:
        self._most = self._left = service.config.options.concurrency

    def see(self, error: Exception | None) -> None:
        """Take in how a transfer ended."""
        refused = isinstance(error, StorageAccessError) and (
            error.status == 401 or error.code in REFUSE_ALL
        )
        if not (refused or isinstance(error, StorageConnectionError)):
            self._left = self._most
            return
        self._left -= 1
        if self._left <= 0:
            self.error = error


async def _pieces(body: _Buffer) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), _PIECE):
        yield view[start : start + _PIECE]
