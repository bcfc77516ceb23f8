"""One request to a function app: URL, key, headers, retries, cold start."""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from infra_core.runtime import RetryDetails, RetryPolicy, add_note, clock, retry_async, sanitize_url

from ._blocking import be_ready
from ._checks import require_mapping, require_number, split_url
from ._durable import secure_url
from ._function_answers import beginning_of, is_page, keys_in
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self

    from infra_core.http import AsyncHttpClient

__all__ = ["FunctionClient", "RequestOptions", "checked_url"]

BASE_URL_VAR = "AZURE_FUNCTION_BASE_URL"
API_KEY_VAR = "AZURE_FUNCTION_API_KEY"
_KEY_HEADER = "x-functions-key"
_SUCH_AS = "such as https://my-app.azurewebsites.net"
_COLD = frozenset({404, 503})
_PATIENCE = 220.0  # seconds; the platform gives up after 230, and some plans answer 503 then
_EXPLAINED = frozenset({400, 405, 409, 412, 413, 415, 422, 500})  # the app's own words say why
# No deadline here: it would cut off a request that runs, and only waiting has an end.
_UNTIL_WARM = RetryPolicy(max_retries=1_000_000, backoff=0.5, max_backoff=5.0)


@dataclass(frozen=True)
class RequestOptions:
    """Timeouts and retries of a call; what is `None` is left to the client.

    Attributes:
        timeout: Seconds for each step, or an `httpx.Timeout`.
        delay: Seconds to wait before the first attempt.
        max_retries: Retries after the first attempt (2).
        backoff: Wait before the first retry, in seconds (1).
        max_backoff: Longest wait between two attempts, in seconds (60).
        retry_statuses: Answers worth another try (429, 500, 502, 503, 504).
        idempotent: Whether the request may run twice; by default its method decides.
        deadline: Seconds in total, retries and waits included.
        max_bytes: Largest body to accept.
    """

    timeout: "float | httpx.Timeout | None" = None
    delay: float | None = None
    max_retries: int | None = None
    backoff: float | None = None
    max_backoff: float | None = None
    _: KW_ONLY
    retry_statuses: Iterable[int] | None = None
    idempotent: bool | None = None
    deadline: float | None = None
    max_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, (allowed, bounds) in _NUMBERS.items():
            value = getattr(self, name)
            # httpx.Timeout is the one that is not a number; it has looked at its own.
            if value is not None and not hasattr(value, "connect"):
                require_number(name, value, f"{allowed}, or None for that of the client", **bounds)
        if isinstance(self.retry_statuses, (str, int)):
            raise TypeError(
                f"retry_statuses={self.retry_statuses!r} is not a collection: pass one of HTTP "
                "statuses, such as {429, 503}"
            )

    def _with(self, options: "RequestOptions | None") -> "RequestOptions":
        """Return these options, but for what others say."""
        if options is None:
            return self
        if not isinstance(options, RequestOptions):
            raise TypeError(
                f"options={options!r:.80} is not a RequestOptions: pass RequestOptions(timeout=30)"
            )
        return replace(self, **{name: v for name, v in vars(options).items() if v is not None})


_NUMBERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "timeout": ("seconds above 0", {"above": 0}),
    "delay": ("seconds, 0 to a day", {"least": 0, "most": 86_400}),
    "max_retries": ("a number of retries, 0 or more", {"least": 0, "whole": True}),
    "backoff": ("seconds, 0 or more", {"least": 0}),
    "max_backoff": ("seconds, 0 or more", {"least": 0}),
    "deadline": ("seconds above 0", {"above": 0}),
    "max_bytes": ("a number of bytes, 0 or more", {"least": 0, "whole": True}),
}
_DEFAULTS = RequestOptions(delay=0.0, max_retries=2, backoff=1.0, max_backoff=60.0)


class FunctionClient:
    """What the clients of a function app share: its settings, and one way to send a request."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        http_client: "AsyncHttpClient | None" = None,
        default_headers: Mapping[str, str] | None = None,
        options: RequestOptions | None = None,
        cold_start_grace: float = 0.0,
    ) -> None:
        be_ready()
        key = "" if api_key is None else api_key
        if not (isinstance(key, str) and key.isascii() and key.isprintable()):
            raise ValueError(
                "api_key is not a key (its value is not shown): pass the text of a function, host "
                "or master key, without line breaks or characters outside of ASCII"
            )
        require_mapping("default_headers", default_headers)
        require_number("cold_start_grace", cold_start_grace, "seconds, 0 or more", least=0)
        self._base_url = checked_url(base_url, "base_url")
        self._api_key = key
        self._default_headers = default_headers
        self._options = _DEFAULTS._with(RequestOptions(timeout=timeout))._with(options)
        self._grace = cold_start_grace
        self._warm = cold_start_grace == 0
        self._given = http_client
        self._own: AsyncHttpClient | None = None

    @classmethod
    def from_env(
        cls,
        *,
        base_url_env: str = BASE_URL_VAR,
        api_key_env: str | None = None,
        env: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> "Self":
        """Make a client from environment variables.

        Args:
            base_url_env: Variable with the base URL.
            api_key_env: Variable with the key; `AZURE_FUNCTION_API_KEY` when `base_url_env` is
                left at its default.
            env: The environment; that of the process by default.
            **kwargs: What the constructor takes.

        Raises:
            ConfigurationError: `base_url_env` is not set.
            ValueError: It is set to no usable URL.
        """
        source = os.environ if env is None else env
        if api_key_env is None and base_url_env == BASE_URL_VAR:
            api_key_env = API_KEY_VAR
        base_url = (source.get(base_url_env) or "").strip()
        if not base_url:
            raise ConfigurationError(
                f"{base_url_env} is not set; set it to the URL of the function app, {_SUCH_AS}"
            )
        api_key = (source.get(api_key_env) or "").strip() if api_key_env else ""
        return cls(checked_url(base_url, base_url_env), api_key=api_key or None, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._base_url!r})"

    @property
    def base_url(self) -> str:
        """Base URL of the app."""
        return self._base_url

    def _http_client(self) -> "AsyncHttpClient":
        """The client that carries the requests, made on first use when none was given."""
        if self._given is not None:
            return self._given
        if self._own is None:
            from infra_core.http import AsyncHttpClient

            self._own = AsyncHttpClient(event_hooks={"response": [self._keep_private]})
        return self._own

    async def _keep_private(self, response: "httpx.Response") -> None:
        """Have no redirect take the key in a URL into the clear; see `secure_url`."""
        if response.has_redirect_location:
            with suppress(ValueError):  # it is not a URL, as the client is about to say
                target = urljoin(str(response.url), response.headers["location"])
                if keys_in(target):
                    response.headers["location"] = secure_url(target, self._base_url)

    def _url(self, path: str) -> str:
        """Return the URL of a path below the base URL; an absolute URL is what it is."""
        if not isinstance(path, str):
            raise TypeError(f"path={path!r:.80} is not a path: pass text, such as '/api/run'")
        if path.lower().startswith(("http://", "https://")):
            return path
        path = path.lstrip("/")  # never `//host`, which would name another one
        return f"{self._base_url}/{path}" if path else self._base_url

    def _merged(self, url: str, headers: Mapping[str, str] | None) -> dict[str, str]:
        """The headers of a request: of two of a name, in any letter case, the last one counts."""
        require_mapping("headers", headers)
        if _origin(url) != _origin(self._base_url):
            return {**(headers or {})}
        key = {_KEY_HEADER: self._api_key} if self._api_key else {}
        return {**key, **(self._default_headers or {}), **(headers or {})}

    async def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        options: RequestOptions | None = None,
        cold: frozenset[int] = _COLD,
        **fields: Any,
    ) -> "httpx.Response":
        """Send a request; see `AzureFunctionAsyncClient.request`.

        `cold` are the answers of an app that is not there yet, for `cold_start_grace`.
        """
        import httpx

        from infra_core.http import is_idempotent, request_async

        url = self._url(path)
        chosen = self._options._with(options)
        headers = self._merged(url, headers)
        repeatable = is_idempotent(method.upper(), headers, chosen.idempotent)
        warm, sent = self._warm, clock.monotonic() + (chosen.delay or 0.0)

        def is_cut_off(error: BaseException) -> bool:
            """Whether the platform answered in the place of a function that may have run."""
            answer = getattr(error, "response", None)
            if repeatable or answer is None:
                return False
            # The page of a 500 is that of the platform as well: an app answers JSON or nothing. A
            # 503 says that nothing ran, but for one that comes when the platform gives up.
            late = warm and clock.monotonic() - sent >= _PATIENCE
            signs = {500: is_page(answer), 502: True, 503: late, 504: True}
            return signs.get(answer.status_code, False)

        def look(details: RetryDetails) -> None:
            """Send nothing again that the platform cut off: what is raised ends the retries."""
            nonlocal sent
            if details.error is not None and is_cut_off(details.error):
                raise details.error
            sent = clock.monotonic() + details.wait

        fields |= {**vars(chosen), "headers": headers, "client": self._http_client()}
        once = partial(request_async, method, url, on_retry=look, **fields)
        try:
            return await (once() if warm else self._through_cold_start(once, chosen, cold))
        except httpx.HTTPStatusError as error:
            if is_cut_off(error):
                from ._function_outcome import FunctionOutcomeUnknown

                raise FunctionOutcomeUnknown(method.upper(), url, error) from error
            self._advise(error, url, headers)
            raise

    def _advise(self, error: "httpx.HTTPStatusError", url: str, headers: Mapping[str, str]) -> None:
        """Add what the app says, and what to do about an answer that has a likely cause."""
        status, content = error.response.status_code, error.response.content
        if status in _EXPLAINED and content and not is_page(error.response):
            said = f"{error}; the function app answered {beginning_of(error.response)}"
            error.args = (said,)  # no note: 3.10 has none, and logs show none
        if _origin(url) != _origin(self._base_url) or keys_in(url):
            return
        if status in (401, 403):
            sent = any(name.lower() == _KEY_HEADER for name in headers)
            problem = "refused the key that was sent" if sent else "wants a key, and none was sent"
            add_note(error, f"the function app {problem}: check api_key ({API_KEY_VAR})")
        elif status == 404:
            add_note(
                error,
                "no function answers at this path: check it (most begin with /api/) and the "
                "app's log, or give cold_start_grace to an app that takes time to start",
            )

    async def _through_cold_start(
        self, once: Any, chosen: RequestOptions, cold: frozenset[int]
    ) -> "httpx.Response":
        """Try again while the app is not there yet.

        404 (no function of that name loaded) and 503 (no host yet) say that nothing ran, so any
        method may be sent again. One layer retries each answer: those two here, the rest below.
        A connection that is refused means the same, so it is waited out here as well.
        """
        import httpx

        from infra_core.http import DEFAULT_RETRY_STATUSES

        statuses = chosen.retry_statuses
        below = set(DEFAULT_RETRY_STATUSES if statuses is None else statuses) - cold
        started = clock.monotonic()

        def in_grace(error: Exception) -> bool | float:
            answer = getattr(error, "response", None)
            absent = isinstance(error, httpx.ConnectError) or (
                answer is not None and answer.status_code in cold
            )
            waited = clock.monotonic() - started
            if absent and waited < self._grace:
                return getattr(error, "retry_after", None) or True
            self._warm |= isinstance(error, httpx.HTTPError)  # not an argument that was refused
            if absent:
                add_note(
                    error,
                    f"the function app did not start within {waited:.1f} s: check its log, or "
                    f"raise cold_start_grace ({self._grace:g} s now)",
                )
            return False

        if chosen.delay:
            await clock.sleep_async(chosen.delay)
        attempt = partial(once, retry_statuses=below, delay=0.0)
        response: httpx.Response = await retry_async(
            attempt, policy=_UNTIL_WARM, should_retry=in_grace
        )
        self._warm = True
        return response


def checked_url(url: str, name: str) -> str:
    """Return a URL without slash at its end; `name` is where it comes from, for the error.

    Raises:
        ValueError: It is none, or holds a query, fragment, user name or password.
    """
    if not isinstance(url, str) or not url.strip():
        given = "" if url is None or isinstance(url, str) else f" and {url!r:.80} is none"
        raise ValueError(f"{name} is required{given}: give the URL of the function app, {_SUCH_AS}")
    url = url.strip()
    try:
        parts = split_url(url)
    except ValueError as error:
        problem = f"is not a URL of a function app ({error}); must begin with https://, {_SUCH_AS}"
    else:
        if parts.query or parts.fragment:
            problem = "has a query or fragment: give the URL without it, and its key as api_key"
        elif parts.username or parts.password:
            problem = "holds a user name or password; give the URL without them, a key as api_key"
        else:
            return url.rstrip("/")
    raise ValueError(f"{name} {sanitize_url(url)!r} {problem}")


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    default = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or default
