"""`RequestsHttpClient`: one requests session per thread, all of them closed in the end."""

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests

from infra_core.runtime import redact_library_logs, sanitize_url

from ._checks import host_problem
from ._errors import InvalidRequestError
from ._headers import DEFAULT_HEADERS, merge_headers, survives_redirect
from ._limits import HostGate, RateSchedule, check_limits
from ._sync_watch import WatchedAdapter

__all__ = [
    "RequestsHttpClient",
    "get_shared_http_client",
    "reset_shared_http_client",
    "sent_headers",
    "set_shared_http_client",
]

_PORTS = {"http": 80, "https": 443}
# Set anew by requests for each hop, from the cookie jar and the proxy's URL.
_OWN_OF_HOP = frozenset({"cookie", "proxy-authorization"})
# What a forked child inherits and must neither use nor close: the sockets are the parent's.
_inherited: list[object] = []


def _origin(url: str | None) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url or "")
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _guard(session: Any) -> None:
    """Make a session leave credential headers behind when a redirect changes the origin."""
    if not isinstance(session, requests.Session):
        return  # somebody's stand-in
    original: Any = session.rebuild_auth

    def rebuild_auth(prepared: requests.PreparedRequest, response: requests.Response) -> None:
        same_origin = _origin(prepared.url) == _origin(response.request.url)
        for name in list(prepared.headers):
            if not survives_redirect(name, same_origin=same_origin) and (
                name.lower() not in _OWN_OF_HOP
            ):
                del prepared.headers[name]
        original(prepared, response)

    locate: Any = session.get_redirect_target

    def get_redirect_target(response: requests.Response) -> Any:
        location = locate(response)
        if location:
            _check_location(response, location)
        return location

    session.rebuild_auth = rebuild_auth  # type: ignore[method-assign]
    session.get_redirect_target = get_redirect_target  # type: ignore[assignment,method-assign]


def _check_location(response: requests.Response, location: str) -> None:
    """Refuse what is no URL, of which requests would raise the `ValueError` of a parser."""
    try:
        parts = urlsplit(urljoin(response.url, location))
        zero = "port 0 is not within 1 to 65535" if parts.port == 0 else None
        problem = zero or (host_problem(parts.hostname) if parts.hostname else None)
    except ValueError as error:
        problem = str(error)
    if problem:
        response.close()
        raise requests.exceptions.InvalidURL(
            f"{urlsplit(response.url).hostname} redirects to {sanitize_url(location[:200])!r}, "
            f"which is no URL ({problem}): tell its owner",
            response=response,
        )


def _new_session() -> requests.Session:
    session = requests.Session()
    adapter = WatchedAdapter()
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
    ) -> None:
        check_limits(max_per_host, max_per_second_per_host)
        if session_factory is not None and not callable(session_factory):
            raise InvalidRequestError(
                f"session_factory of type {type(session_factory).__name__} cannot be called: pass "
                "a function that makes a requests.Session"
            )
        self._factory = session_factory or _new_session
        self._gate: HostGate | None = None
        if max_per_host is not None or max_per_second_per_host is not None:
            rate: RateSchedule[object] | None = (
                None if max_per_second_per_host is None else RateSchedule(max_per_second_per_host)
            )
            self._gate = HostGate(max_per_host, rate)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: list[tuple[weakref.ref[threading.Thread], Any]] = []
        self._pid = os.getpid()

    def _session(self) -> Any:
        if self._pid != os.getpid():
            _inherited.append((self._local, self._sessions))
            self._reset()
        session = getattr(self._local, "session", None)
        if session is None:
            redact_library_logs()
            session = self._factory()
            _guard(session)
            with self._lock:
                ended = [s for thread, s in self._sessions if not _alive(thread)]
                self._sessions = [pair for pair in self._sessions if _alive(pair[0])]
                self._sessions.append((weakref.ref(threading.current_thread()), session))
                self._local.session = session
            for old in ended:
                old.close()
            _close_at_exit(self)
        return session

    def default_headers(self) -> dict[str, str]:
        """The default headers, but for those that this thread's session names itself."""
        own = getattr(self._session(), "headers", None) or {}
        stock = _stock_headers()
        named = {name.lower() for name, value in own.items() if stock.get(name) != value}
        return {name: v for name, v in DEFAULT_HEADERS.items() if name.lower() not in named}

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
            response: requests.Response = self._session().get(url, headers=headers, timeout=timeout)
            return response

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
            **options: What `requests.Session.request` takes.

        Raises:
            requests.RequestException: The request failed.
        """
        with self._slot(url):
            response: requests.Response = self._session().request(
                method, url, headers=headers, timeout=timeout, **options
            )
            return response

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
            response = self._session().request(method, url, stream=True, **options)
            try:
                yield response
            finally:
                response.close()

    @contextmanager
    def _slot(self, url: str) -> Iterator[None]:
        if self._gate is None:
            yield
        else:
            with self._gate.slot(_origin(url)):
                yield

    def reconfigure(self, *, session_factory: Callable[[], requests.Session] | None = None) -> None:
        """Close all sessions; new ones come from this factory, or from the default one."""
        self._factory = session_factory or _new_session
        self.close()

    def close(self) -> None:
        """Close the sessions of all threads; the next request makes a new one."""
        if self._pid != os.getpid():
            return  # they are the parent's
        with self._lock:
            sessions, self._sessions = self._sessions, []
            self._local = threading.local()
        for _, session in sessions:
            session.close()

    def __enter__(self) -> "RequestsHttpClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@lru_cache(maxsize=1)
def _stock_headers() -> Any:
    """What requests gives every session; whatever differs, somebody has set."""
    return requests.utils.default_headers()


def _alive(thread: "weakref.ref[threading.Thread]") -> bool:
    found = thread()
    return found is not None and found.is_alive()


_open_clients: "weakref.WeakSet[RequestsHttpClient]" = weakref.WeakSet()
_exit_hook = False
_lock = threading.Lock()
_shared: RequestsHttpClient | None = None


def _close_at_exit(client: RequestsHttpClient) -> None:
    global _exit_hook
    with _lock:
        _open_clients.add(client)
        if not _exit_hook:
            _exit_hook = True
            atexit.register(_close_all)


def _close_all() -> None:
    for client in list(_open_clients):
        client.close()


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


def sent_headers(client: Any, own: dict[str, str]) -> dict[str, str]:
    """Return what to send with one request: the defaults where neither it nor the client speaks."""
    defaults = DEFAULT_HEADERS
    if isinstance(client, RequestsHttpClient):
        defaults = client.default_headers()
    return merge_headers(defaults, own)
