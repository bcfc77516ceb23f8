"""TLS contexts: which certificates are trusted, and which is shown."""

import logging
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from .._errors import InvalidRequestError
from .._messages import reason_of
from .network_settings import NetworkSettings, ca_parts

__all__ = ["tls_context", "trust"]

_logger = logging.getLogger("infra_core.http")


def tls_context(
    verify: Any = True, cert: Any = None, settings: NetworkSettings | None = None
) -> ssl.SSLContext:
    """Return a context of its own for `verify=` and `cert=`, in all forms that httpx ever took."""
    if isinstance(verify, ssl.SSLContext):
        context = verify
    elif isinstance(verify, (str, os.PathLike)):
        context = _context_of([(f"verify={os.fspath(verify)!r}", [os.fspath(verify)])])
    elif not isinstance(verify, bool | None):
        raise InvalidRequestError(
            f"verify={verify!r} says nothing about certificates: pass True, False, a path or an "
            "ssl.SSLContext"
        )
    else:
        settings = NetworkSettings.read() if settings is None else settings
        if verify is False or not settings.ca_settings:
            import certifi

            context = ssl.create_default_context(cafile=certifi.where())
            if verify is False:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
        else:
            context = _environment_context(settings)
    if cert is not None:
        files = (cert,) if isinstance(cert, (str, os.PathLike)) else cert
        with _naming(f"cert={', '.join(str(file) for file in files[:2])!r}"):
            context.load_cert_chain(*files)
    return context


def trust(settings: NetworkSettings, library: str = "aiohttp") -> ssl.SSLContext:
    """Return the TLS context that trusts the certificates of the environment, made once for all.

    Args:
        settings: Which certificates.
        library: Whose connections use it. Each has its own: urllib3 and httpcore change settings
            of the contexts that they are given.

    Raises:
        OSError: A file or folder of certificates is missing or cannot be read.
    """
    seen: list[object] = []
    for _, path in settings.ca_settings:
        for part in ca_parts(path):
            try:
                status = Path(part).stat()
            except OSError:
                seen.append(part)
            else:
                seen.append((part, status.st_mtime_ns, status.st_size))
    return _shared(settings.ca_settings, tuple(seen), library)


@lru_cache(maxsize=8)
def _shared(
    ca: tuple[tuple[str, str], ...], _seen: tuple[object, ...], _library: str
) -> ssl.SSLContext:
    return tls_context(settings=NetworkSettings(ca_settings=ca))


def _environment_context(settings: NetworkSettings) -> ssl.SSLContext:
    """Return a context that trusts all certificates that the environment names.

    A variable that names nothing is an error only when no other does: one that other programs
    need is often left behind.
    """
    named = [(f"{name}={path!r}", ca_parts(path) or [path]) for name, path in settings.ca_settings]
    there = [(what, parts) for what, parts in named if all(Path(part).exists() for part in parts)]
    for what, parts in named:
        if (what, parts) not in there and there:
            _logger.warning("%s does not exist, and other CA certificates are used", what)
    return _context_of(there or named[:1])


def _context_of(named: list[tuple[str, list[str]]]) -> ssl.SSLContext:
    """Return a context that trusts the certificates of these files and folders, and no others."""
    (what, first), *others = [(what, _place(what, part)) for what, parts in named for part in parts]
    with _naming(what):
        context = ssl.create_default_context(**first)
    for what, place in others:
        with _naming(what):
            context.load_verify_locations(**place)
    return context


def _place(what: str, part: str) -> dict[str, Any]:
    if not Path(part).exists():
        raise FileNotFoundError(
            f"{what} does not exist: name a file or folder of CA certificates in PEM form"
        )
    return {"capath" if Path(part).is_dir() else "cafile": part}


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
