"""TLS contexts: which certificates are trusted, and which is shown."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx

from .._errors import InvalidRequestError
from .._messages import reason_of
from .network_settings import NetworkSettings, ca_parts

__all__ = ["shared_context", "tls_context"]


def tls_context(
    verify: Any = True, cert: Any = None, settings: NetworkSettings | None = None
) -> ssl.SSLContext:
    """Return a context of its own for `verify=` and `cert=`, in all forms that httpx ever took.

    Args:
        verify: True for the certificates of the environment, or of certifi when it names none; a
            path of a file or folder; False for no check at all; a context, which is returned.
        cert: Path of a client certificate, or a tuple of certificate, key and password.
        settings: Of the environment; read now when None.

    Raises:
        OSError: A file or folder of certificates is missing or unreadable, or holds none.
        InvalidRequestError: `verify` is of another type.
    """
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif isinstance(verify, (str, os.PathLike)):
        context = _context_of(f"verify={os.fspath(verify)!r}", os.fspath(verify))
    elif not isinstance(verify, bool | None):
        raise InvalidRequestError(
            f"verify={verify!r} says nothing about certificates: pass True, False, a path or an "
            "ssl.SSLContext"
        )
    else:
        settings = NetworkSettings.read() if settings is None else settings
        if settings.ca_path is None or verify is False:
            context = httpx.create_ssl_context(verify=verify is not False, trust_env=False)
        else:
            context = _context_of(f"{settings.ca_variable}={settings.ca_path!r}", settings.ca_path)
    if cert is not None:
        files = (cert,) if isinstance(cert, (str, os.PathLike)) else cert
        with _naming(f"cert={', '.join(str(file) for file in files[:2])!r}"):
            context.load_cert_chain(*files)
    return context


def shared_context(settings: NetworkSettings) -> ssl.SSLContext:
    """Return the context for the certificates of the environment, read once for all event loops.

    Not for those who would change it: httpcore names HTTP/2 in the contexts that it is given.

    Raises:
        OSError: As for `tls_context`.
    """
    seen = []
    for path in ca_parts(settings.ca_path) if settings.ca_path else ():
        try:
            status = Path(path).stat()
        except OSError:
            break
        seen.append((path, status.st_mtime_ns, status.st_size))
    else:
        return _shared(settings.ca_path, settings.ca_variable, tuple(seen))
    return tls_context(settings=settings)  # which says what is missing


@lru_cache(maxsize=8)
def _shared(path: str | None, variable: str | None, _seen: tuple[object, ...]) -> ssl.SSLContext:
    return tls_context(settings=NetworkSettings(ca_path=path, ca_variable=variable))


def _context_of(what: str, path: str) -> ssl.SSLContext:
    parts = ca_parts(path) or [path]
    for part in parts:
        if not Path(part).exists():
            raise FileNotFoundError(
                f"{what} does not exist: name a file or folder of CA certificates in PEM form"
            )
    with _naming(what):
        context = ssl.create_default_context(
            cafile=parts[0] if Path(parts[0]).is_file() else None,
            capath=parts[0] if Path(parts[0]).is_dir() else None,
        )
        for part in parts[1:]:
            context.load_verify_locations(capath=part)
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
