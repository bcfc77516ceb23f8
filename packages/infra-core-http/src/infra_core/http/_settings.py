"""What the keyword arguments of `AsyncHttpClient` ask for, and which way requests can travel."""

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import getproxies

import httpx

from ._errors import InvalidRequestError
from ._headers import DEFAULT_HEADERS
from ._messages import reason_of

__all__ = [
    "DEFAULT_LIMITS",
    "check_pool",
    "client_headers",
    "env_proxies",
    "plain_reason",
    "ssl_context_of",
]

DEFAULT_LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20)

# Arguments that say where bytes travel, with the values that ask for nothing special.
_ROUTES: dict[str, tuple[object, ...]] = {
    "transport": (None,),
    "mounts": (None, {}),
    "app": (None,),
    "proxy": (None,),
    "proxies": (None, {}),
    "http2": (False, None),
    "http1": (True,),
}
_KNOWN = frozenset(
    {
        "auth",
        "base_url",
        "cert",
        "cookies",
        "default_encoding",
        "event_hooks",
        "follow_redirects",
        "headers",
        "limits",
        "max_redirects",
        "params",
        "timeout",
        "trust_env",
        "verify",
        *_ROUTES,
    }
)


def plain_reason(options: Mapping[str, Any]) -> str | None:
    """Return which argument the fast transport cannot honour, None when it can honour all."""
    for name, value in options.items():
        if name not in _KNOWN:
            return f"{name}="  # of a newer httpx, or an error that httpx will report
        if name in _ROUTES and value not in _ROUTES[name]:
            return f"{name}="
    return None


def check_pool(limits: object) -> None:
    """Refuse a pool in which a request would wait for ever.

    Raises:
        InvalidRequestError: It is no `httpx.Limits`, or has no room for a single connection.
    """
    if not isinstance(limits, httpx.Limits):
        raise InvalidRequestError(f"limits={limits!r} are no httpx.Limits: pass httpx.Limits(...)")
    size = limits.max_connections
    if size is not None and not (isinstance(size, int) and size >= 1):
        raise InvalidRequestError(
            f"max_connections={size!r} lets no request through: pass httpx.Limits with 1 or more, "
            "or None"
        )


def client_headers(given: Any) -> list[tuple[str, str]]:
    """Return the headers of a client: its own, and the defaults for what it does not name."""
    try:
        own = httpx.Headers(given)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"headers= of the client cannot be sent ({error}): pass a mapping of names to values "
            "in ASCII"
        ) from error
    defaults = [(name, value) for name, value in DEFAULT_HEADERS.items() if name not in own]
    return defaults + own.multi_items()


def env_proxies(options: Mapping[str, Any]) -> bool:
    """Whether the environment names proxies that this client is to use, as httpx would."""
    if not options.get("trust_env", True):
        return False
    proxies = getproxies()
    return any(proxies.get(scheme) for scheme in ("http", "https", "all"))


def ssl_context_of(options: Mapping[str, Any]) -> ssl.SSLContext:
    """Return the TLS context for `verify=` and `cert=`, in all forms that httpx ever took.

    Without `verify` the certificates are those of `SSL_CERT_FILE` or `SSL_CERT_DIR` when set (and
    `trust_env` is on), of certifi otherwise.

    Raises:
        OSError: A file or folder of certificates is missing or unreadable, or holds none.
        InvalidRequestError: `verify` is of another type.
    """
    verify = True if options.get("verify") is None else options["verify"]
    cert = options.get("cert")
    trust_env = options.get("trust_env", True)
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif isinstance(verify, (str, os.PathLike)):
        path = Path(verify)
        if not path.exists():
            raise FileNotFoundError(
                f"verify={str(path)!r} does not exist: pass the path of a file or folder of CA "
                "certificates in PEM form"
            )
        if path.is_dir():
            context = ssl.create_default_context(capath=str(path))
        else:
            with _naming(f"verify={str(path)!r}"):
                context = ssl.create_default_context(cafile=str(path))
    elif not isinstance(verify, bool):
        raise InvalidRequestError(
            f"verify={verify!r} says nothing about certificates: pass True, False, a path or an "
            "ssl.SSLContext"
        )
    else:
        context = httpx.create_ssl_context(verify=verify, trust_env=trust_env)
    if cert is not None:
        files = (cert,) if isinstance(cert, (str, os.PathLike)) else cert
        with _naming(f"cert={', '.join(str(file) for file in files[:2])!r}"):
            context.load_cert_chain(*files)
    return context


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say which argument it was: OpenSSL names neither the file nor what is wrong with it."""
    try:
        yield
    except ssl.SSLError as error:
        raise ssl.SSLError(
            error.errno,
            f"{what} cannot be read as PEM ({reason_of(error)}): pass a file in that form",
        ) from error
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{what} does not exist: pass the path of a file in PEM form"
        ) from error
