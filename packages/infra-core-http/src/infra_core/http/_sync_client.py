"""`RequestsHttpClient`: one requests session per thread, all of them closed in the end."""

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, cast
from urllib.parse import urlsplit

import requests

from infra_core.runtime import ForkGuard, clock, redact_library_logs

from ._checks import check_callable
from ._cookies import BoundedCookieJar
from ._headers import DEFAULT_HEADERS, defaults_beside, merge_headers
from ._limits import Gate, rate_of
from ._response.redirect import MAX_REDIRECTS
from ._sync_adapter import Adapter, keep_public
from ._sync_exchange import exchange, guard
from ._sync_wire import within

__all__ = [
    "RequestsHttpClient",
    "TurnTooLate",
    "get_shared_http_client",
    "reset_shared_http_client",
    "sent_headers",
    "set_shared_http_client",
]

# What requests gives every session; whatever differs, somebody has set.
_STOCK = frozenset(requests.utils.default_headers().lower_items())
_PORTS = {"http": 80, "https": 443}
# What a forked child inherits and must neither use nor close: the sockets are the parent's.
_inherited: list[object] = []


_Session = tuple["weakref.ref[threading.Thread]", Any]


def _origin(url: str | None) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url or "")
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


class TurnTooLate(requests.ConnectTimeout):
    """The host's turn does not come before the deadline of a call."""


class _HostGate(Gate):
    """The limits of one client across threads."""

    _semaphore = threading.Semaphore

    @contextmanager
    def slot(self, host: object) -> Iterator[None]:
        """Wait for the host's turn and hold one of its slots during the block.

        Raises:
            TurnTooLate: `no_read_after` allows no longer wait.
        """
        with self.semaphore_of(host) as semaphore, ExitStack() as held:
            try:
                while not semaphore.acquire(timeout=within(threading.TIMEOUT_MAX)):
                    pass  # within() raises when the time is up
                held.callback(semaphore.release)
                wait, left = self.reserve(host), within(None)
            except TimeoutError as error:
                raise TurnTooLate("too many requests are under way to its host") from error
            if left is not None and wait > left:
                raise TurnTooLate(f"its host may be asked again in {wait:.3g} s")
            if wait > 0:
                clock.sleep(wait)
            yield


class _Cookies(requests.cookies.RequestsCookieJar, BoundedCookieJar):  # type: ignore[misc]
    """The jar of requests, within bounds."""


def _new_session() -> requests.Session:
    session = requests.Session()
    session.cookies = _Cookies()
    session.max_redirects = MAX_REDIRECTS
    adapter = Adapter()
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


class RequestsHttpClient:
    """A blocking HTTP client that threads may share: each gets a `requests.Session` of its own.

    Sessions of threads that ended are closed when the next one is made, all others by `close` or
    at the end of the process. Redirects to another origin carry no credential headers.

    Args:
        session_factory: Makes a session; `requests.Session` with connections that a deadline can
            cut when None.
        max_per_host: Requests under way at once to one scheme, host and port.
        max_per_second_per_host: Requests begun per second to one scheme, host and port.
        public_only: Refuse hosts whose address is private, loopback, link-local or otherwise not
            public, also after redirects; checked on the address that is connected to. Requests
            that would go through a proxy are refused as well, since it is the proxy that connects.

    Raises:
        ValueError: For limits that would let nothing through.

    Example:
        ::

            with RequestsHttpClient(max_per_second_per_host=2) as client:
                pages = [fetch(url, client=client) for url in urls]
    """

    def __init__(
        self,
        *,
        session_factory: Callable[[], requests.Session] | None = None,
        max_per_host: int | None = None,
        max_per_second_per_host: float | None = None,
        public_only: bool = False,
    ) -> None:
        rate = rate_of(max_per_host, max_per_second_per_host)
        self._public_only = public_only
        remedy = "a function that makes a requests.Session"
        check_callable("session_factory", session_factory, remedy)
        self._factory = session_factory or _new_session
        limited = max_per_host is not None or rate is not None
        self._gate = _HostGate(max_per_host, rate) if limited else None
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: list[_Session] = []
        self._fork = ForkGuard()
        weakref.finalize(self, _close, self._sessions, self._fork)

    def _session(self) -> Any:
        if self._fork.forked:
            _inherited.append((self._local, self._sessions))
            self._reset()
        session = getattr(self._local, "session", None)
        if session is None:
            redact_library_logs()
            session = self._factory()
            guard(session)
            if self._public_only:
                keep_public(session)
            with self._lock:
                ended = [pair for pair in self._sessions if not _alive(pair[0])]
                alive = [pair for pair in self._sessions if pair not in ended]
                self._sessions[:] = [*alive, (weakref.ref(threading.current_thread()), session)]
                self._local.session = session
            _close(ended, self._fork)
        return session

    def get(
        self, url: str, *, headers: dict[str, str], timeout: float | tuple[float, float] | None
    ) -> requests.Response:
        """GET with this thread's session, once, whatever the status.

        Args:
            url: Absolute.
            headers: Sent with those of the session; they win.
            timeout: Seconds for connecting and for each wait for bytes, or a pair of both.

        Raises:
            requests.RequestException: The request failed.
        """
        with self._slot(url):
            return exchange(self._session(), "GET", url, headers=headers, timeout=timeout)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | tuple[float, float] | None = 30,
        **options: Any,
    ) -> requests.Response:
        """Send with this thread's session, once, whatever the status.

        Args:
            method: Of HTTP.
            url: Absolute.
            headers: Sent with those of the session; they win.
            timeout: Seconds for connecting and for each wait for bytes, or a pair of both.
            **options: What `requests.Session.request` takes, and `max_bytes`.

        Raises:
            requests.RequestException: The request failed.
            ResponseTooLarge: The body is above `max_bytes`.
        """
        with self._slot(url):
            return exchange(
                self._session(), method, url, headers=headers or {}, timeout=timeout, **options
            )

    @contextmanager
    def streamed(self, method: str, url: str, **options: Any) -> Iterator[requests.Response]:
        """Send once and give out the answer, its body unread; its place is kept meanwhile.

        Args:
            method: Of HTTP.
            url: Absolute.
            **options: What `requests.Session.request` takes.

        Raises:
            requests.RequestException: The request failed.
        """
        with self._slot(url):
            response = exchange(self._session(), method, url, stream=True, **options)
            try:
                yield response
            finally:
                response.close()

    def _slot(self, url: str) -> AbstractContextManager[None]:
        return nullcontext() if self._gate is None else self._gate.slot(_origin(url))

    def reconfigure(self, *, session_factory: Callable[[], requests.Session] | None = None) -> None:
        """Close all sessions; new ones come from this factory, or from the one as before."""
        self._factory = session_factory or self._factory
        self.close()

    def close(self) -> None:
        """Close the sessions of all threads; the next request makes a new one."""
        if self._fork.forked:
            return
        with self._lock:
            self._local = threading.local()
            sessions = self._sessions[:]
            self._sessions.clear()
        _close(sessions, self._fork)

    def __enter__(self) -> "RequestsHttpClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alive(thread: "weakref.ref[threading.Thread]") -> bool:
    found = thread()
    return found is not None and found.is_alive()


def _close(sessions: list[_Session], fork: ForkGuard) -> None:
    if not fork.forked:  # they are the parent's
        for _, session in sessions:
            session.close()


_lock = threading.Lock()
_shared: RequestsHttpClient | None = None


def get_shared_http_client() -> RequestsHttpClient:
    """Return the client that calls without `client=` use, made on first use."""
    global _shared
    if _shared is None:
        with _lock:
            if _shared is None:
                _shared = RequestsHttpClient()
    return _shared


def set_shared_http_client(client: RequestsHttpClient) -> None:
    """Put another client in the place of the shared one, which is not closed."""
    global _shared
    _shared = client


def reset_shared_http_client(
    *, session_factory: Callable[[], requests.Session] | None = None
) -> None:
    """Close the shared client and put a new one in its place."""
    global _shared
    with _lock:
        old, _shared = _shared, RequestsHttpClient(session_factory=session_factory)
    if old is not None:
        old.close()


def sent_headers(client: Any, own: Mapping[str, str | None]) -> dict[str, str]:
    """Return what to send with one request: the defaults where neither it nor the client speaks.

    A value of None takes the header out, as requests has it.
    """
    defaults = DEFAULT_HEADERS
    if isinstance(client, RequestsHttpClient):
        named = getattr(client._session(), "headers", None) or {}
        defaults = defaults_beside(named.items(), _STOCK)
    return merge_headers(defaults, cast("Mapping[str, str]", own))
