"""Tokens of an Azure credential: fetched once for many requests, in a thread that blocks no other.

azure-identity may wait for minutes for a token endpoint that does not answer (its timeouts are
300 s each). So a synchronous credential is asked in a daemon thread, and what needs the token
waits for it no longer than its own request may take: no thread that files need is occupied, a
deadline cuts the wait off, Ctrl-C and the end of the process do not wait for it.
"""

import asyncio
import concurrent.futures
import inspect
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from infra_core.runtime import ThreadPool, after_fork_in_child, clock, redact_secrets

from ._blocking import run_blocking
from ._checks import type_name
from ._sdk_logs import tidy_sdk_logs

__all__ = [
    "STORAGE_SCOPE",
    "AsyncSdkCredential",
    "SdkCredential",
    "TokenSource",
    "TokenTimeoutError",
    "credential_problem",
    "default_credential",
    "gives_tokens",
    "is_async",
]

STORAGE_SCOPE = "https://storage.azure.com/.default"
"""Scope of blobs and tables, in every cloud."""

_log = logging.getLogger("infra_core.azure")
_threads = ThreadPool("infra-core-credential", 8)
_RENEW_BEFORE = 300.0  # seconds; a token this close to its end is renewed
_LAST_USE = 60.0  # seconds before its end at which a token is not used any more
_PAUSE = 30.0  # seconds between two tries to renew a token that can still be used
_TIMEOUTS = {"connection_timeout": 10, "read_timeout": 20}  # of azure-identity; 300 s by default
_COMMAND_SECONDS = 30  # for `az` and the like; of the 10 s by default a cold start takes more
# How azure-identity says of a part of its chain that it is not set up, and nothing is wrong.
_NOT_SET_UP = re.compile(
    r"unavailable(?!.*error:)|not (?:found on path|installed)|could not be found|requires the ",
    re.IGNORECASE,
)


class TokenTimeoutError(ClientAuthenticationError, TimeoutError):
    """A credential gave no token in time."""


def credential_problem(error: BaseException, setting: str) -> tuple[str, str]:
    """What a credential's error says, in a line without secrets, and what to do about it.

    What Entra ID answered comes first, then what a part of a chain of credentials met that is set
    up: in the text of the chain both stand below the first line. The remedy names the `setting`
    that may be used in place of a credential.
    """
    text = str(error).strip()
    answered = re.search(r"\bAADSTS\d+\b[^\r\n]*", text)
    parts = re.findall(r"^\t(\w+Credential): (.*)", text, re.MULTILINE)
    # Not with a colon: what follows the word credential and a colon is redacted.
    set_up = [(part, what.strip()) for part, what in parts if not _NOT_SET_UP.search(what)]
    met = "; ".join(f"{part} says {what}" for part, what in set_up)
    first_line = text.partition("\n")[0]
    said = redact_secrets(answered[0] if answered else met or first_line)
    variables = "AZURE_TENANT_ID, AZURE_CLIENT_ID and"
    if answered is None:
        first = f"sign in (`az login`), give this machine an identity, set {variables}"
        return said[:500].strip().rstrip("."), f"{first} AZURE_CLIENT_SECRET, or use {setting}"
    remedy = (
        f"look the code up at https://login.microsoftonline.com/error, check {variables} the "
        "secret, certificate or federated token that goes with them, and outside of the public "
        f"cloud AZURE_AUTHORITY_HOST, or use {setting}"
    )
    return said[:500].rstrip(". "), remedy


def default_credential() -> Any:
    """A `DefaultAzureCredential` whose requests end within seconds."""
    from azure.identity import DefaultAzureCredential

    from ._network import sync_transport

    taken = inspect.signature(DefaultAzureCredential).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken):
        transport = sync_transport(None, **_TIMEOUTS)
        return DefaultAzureCredential(
            transport=transport, process_timeout=_COMMAND_SECONDS, **_TIMEOUTS
        )
    return DefaultAzureCredential()  # a stand-in of a test


def is_async(credential: Any) -> bool:
    """Whether a credential is asked from an event loop."""
    return inspect.iscoroutinefunction(
        getattr(credential, "get_token", getattr(credential, "get_token_info", None))
    )


def gives_tokens(credential: Any) -> bool:
    """Whether this is a credential by one of azure-core's two protocols."""
    return hasattr(credential, "get_token") or hasattr(credential, "get_token_info")


def _ask(credential: Any, wanted: "_Wanted") -> Any:
    """What a credential answers, or the coroutine of it."""
    if hasattr(credential, "get_token"):
        return credential.get_token(*wanted.scopes, **dict(wanted.options))
    return credential.get_token_info(*wanted.scopes, options=dict(wanted.options))


class _Wanted(NamedTuple):
    """What a token is asked for: the key under which it is kept."""

    scopes: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


class _Asking(NamedTuple):
    future: "concurrent.futures.Future[AccessToken]"
    since: float
    job: "concurrent.futures.Future[None] | None"  # in a thread


def _retrieve(waiting: "asyncio.Future[AccessToken]") -> None:
    """Look at an outcome that comes after all waits are over, so that asyncio reports none."""
    if not waiting.cancelled():
        waiting.exception()


class TokenSource:
    """The tokens of one credential, for any number of threads and event loops.

    A token is renewed five minutes before it expires, in the background: what needs one goes
    on with the old one meanwhile.

    Args:
        credential: An Azure credential, synchronous or asynchronous; `close` leaves it open. One
            of its own is made on first use where none is given.
        wait: Seconds to wait for a token at most.
    """

    def __init__(self, credential: Any = None, *, wait: float = 60.0) -> None:
        self._given = credential
        self._is_async = is_async(credential)
        self._made: list[Any] = []
        self._wait = wait
        self._tasks: set[asyncio.Task[None]] = set()
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[_Wanted, AccessToken] = {}
        # Asynchronous credentials are asked in each event loop: one may end before another.
        self._asking: dict[tuple[_Wanted, asyncio.AbstractEventLoop | None], _Asking] = {}
        self._own: Any = None  # connections are not shared with a forked child
        self._paused_until = 0.0

    async def get(self, *scopes: str, **options: str) -> AccessToken:
        """Return a token, from an event loop; raises what the credential does.

        Raises:
            TokenTimeoutError: There is none after `wait` seconds.
        """
        wanted = _Wanted(scopes, tuple(sorted(options.items())))
        held = self._usable(wanted)
        if held is not None:
            return held
        future = self._ask(wanted)
        try:
            async with clock.timeout(self._wait):
                waiting = asyncio.wrap_future(future)
                waiting.add_done_callback(_retrieve)
                return await asyncio.shield(waiting)
        except TimeoutError:
            if future.done():
                raise
            raise self._late() from None

    def get_blocking(self, *scopes: str, **options: str) -> AccessToken:
        """Return a token, from no event loop; see `get`."""
        if self._is_async:
            return run_blocking(lambda: self.get(*scopes, **options), "get_token()")
        wanted = _Wanted(scopes, tuple(sorted(options.items())))
        held = self._usable(wanted)
        if held is not None:
            return held
        future = self._ask(wanted)
        if not concurrent.futures.wait([future], self._wait).done:
            raise self._late()
        return future.result()

    def reject(self, token: str) -> None:
        """Forget a token that the service has refused, and what the credential itself keeps."""
        with self._lock:
            refused = [wanted for wanted, held in self._held.items() if held.token == token]
            for wanted in refused:
                del self._held[wanted]
            if refused:
                self._own = None  # a new one has an empty cache

    def close(self) -> None:
        """Forget the tokens, and close a credential of its own."""
        with self._lock:
            made, self._made, self._own = self._made, [], None
            self._held.clear()
            self._asking.clear()
        for credential in made:
            credential.close()

    def _usable(self, wanted: _Wanted) -> AccessToken | None:
        held = self._held.get(wanted)
        if held is None:
            return None
        now = clock.time()
        if now >= held.expires_on - _LAST_USE:
            return None
        if now >= held.expires_on - _RENEW_BEFORE and now >= self._paused_until:
            self._ask(wanted)
        return held

    def _ask(self, wanted: _Wanted) -> "concurrent.futures.Future[AccessToken]":
        """Have the credential asked, unless it is being asked already."""
        with self._lock:
            key = (wanted, asyncio.get_running_loop() if self._is_async else None)
            asking, now = self._asking.get(key), clock.monotonic()
            # A request that has taken longer than any caller waits may be lost: ask anew.
            if asking is not None and now - asking.since < self._wait and not asking.future.done():
                return asking.future
            if asking is not None and asking.job is not None:
                asking.job.cancel()  # goes on, and leaves its place to others
            future: concurrent.futures.Future[AccessToken] = concurrent.futures.Future()
            job = None
            if self._is_async:
                task = asyncio.ensure_future(self._fetch_async(wanted, future))
                self._tasks.add(task)  # the loop itself keeps no hold of it
                task.add_done_callback(self._tasks.discard)
                task.add_done_callback(lambda _: self._asking.pop(key, None))
            else:
                job = _threads.submit(self._fetch, wanted, future)
            self._asking[key] = _Asking(future, now, job)
            return future

    def _fetch(self, wanted: _Wanted, future: "concurrent.futures.Future[AccessToken]") -> None:
        try:
            credential = self.prepare()
            token = _ask(credential, wanted)
            future.set_result(self._keep(wanted, token))
        except BaseException as error:  # noqa: BLE001 - raised where the token is waited for
            self._failed(wanted, error)
            future.set_exception(error)

    async def _fetch_async(
        self, wanted: _Wanted, future: "concurrent.futures.Future[AccessToken]"
    ) -> None:
        try:
            token = await _ask(self._given, wanted)
            future.set_result(self._keep(wanted, token))
        except BaseException as error:
            self._failed(wanted, error)
            future.set_exception(error)
            if not isinstance(error, Exception):  # cancelled with its loop
                raise

    def prepare(self) -> Any:
        """Return the credential, made now if need be."""
        if self._given is not None:
            return self._given
        with self._lock:
            own = self._own
        if own is None:
            tidy_sdk_logs()
            try:
                own = default_credential()
            except (OSError, ValueError) as error:
                said = redact_secrets(str(error)).strip(". ")
                raise ClientAuthenticationError(
                    f"the Azure credential cannot be made ({said}); check AZURE_TENANT_ID, "
                    "AZURE_CLIENT_CERTIFICATE_PATH, AZURE_AUTHORITY_HOST and the other AZURE_ "
                    "variables of the credential"
                ) from error
            with self._lock:
                self._own = own
                self._made.append(own)
        return own

    def _keep(self, wanted: _Wanted, given: Any) -> AccessToken:
        try:
            # Credentials of one's own read tokens from files that end with a line break.
            token = AccessToken(str.strip(given.token), int(given.expires_on))
        except (AttributeError, TypeError, ValueError, OverflowError):
            token = AccessToken("", 0)
        if not (token.token and token.token.isascii() and token.token.isprintable()):
            raise ClientAuthenticationError(
                f"the Azure credential returned {type_name(given)} without a token of text or its "
                "end in seconds; its get_token must return AccessToken(token, expires_on), its "
                "get_token_info AccessTokenInfo(token, expires_on)"
            )
        with self._lock:
            self._held[wanted] = token
        if token.expires_on - clock.time() <= _RENEW_BEFORE:  # as old as that in the cache of `az`
            self._paused_until = clock.time() + _PAUSE
        return token

    def _failed(self, wanted: _Wanted, error: BaseException) -> None:
        self._paused_until = clock.time() + _PAUSE
        held = self._held.get(wanted)
        if held is not None:
            _log.warning(
                "the Azure credential gave no new token (%s: %s); the present one is good for "
                "%.0f s more",
                type(error).__name__,
                redact_secrets(str(error).partition("\n")[0]),
                held.expires_on - clock.time(),
            )

    def _late(self) -> TokenTimeoutError:
        return TokenTimeoutError(
            f"the Azure credential gave no token within {self._wait:g} s; check the network to its "
            "token endpoint (login.microsoftonline.com, AZURE_AUTHORITY_HOST or the managed "
            "identity's 169.254.169.254) and the proxies in between"
        )


class _SdkCredential:
    """What the SDK's clients are given for a credential, over a `TokenSource`."""

    def __init__(self, source: TokenSource) -> None:
        source.prepare()
        self._source = source

    def refused(self, headers: Mapping[str, str]) -> None:
        """Forget the token of a request that the service has refused."""
        self._source.reject(headers.get("Authorization", "").removeprefix("Bearer "))


def _asked(options: dict[str, Any]) -> dict[str, str]:
    """What the SDK asks for; it names tenant or claims after a 401 only (a challenge)."""
    named = {name: options.get(name) for name in ("claims", "tenant_id")}
    return {name: str(value) for name, value in named.items() if value is not None}


class SdkCredential(_SdkCredential):
    """A synchronous credential for clients of the SDK."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a token; a new one where the service has refused the last."""
        return self._source.get_blocking(*scopes, **_asked(options))

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class AsyncSdkCredential(_SdkCredential):
    """As `SdkCredential`, for the SDK's asynchronous clients."""

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """As `SdkCredential.get_token`."""
        return await self._source.get(*scopes, **_asked(options))

    async def close(self) -> None:
        """Close the source."""
        self._source.close()
