"""A process that is the command's own starts faster; one that only calls `main()` is left alone."""

import gc
import os
import threading

__all__ = ["begin", "import_engine", "started"]

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for those of the machine
_THRESHOLDS = gc.get_threshold()
_MANY_OBJECTS = 150_000  # more than all imports make

_own_process = False


def begin() -> None:
    """Seldom look for garbage until `started`: imports make none, and the search takes a tenth.

    Not never: rows of a large table, which are read before the first download, leave garbage.
    """
    global _own_process
    _own_process = True
    gc.set_threshold(_MANY_OBJECTS)


def started() -> None:
    """Collect garbage as usual, but for what was imported, which stays to the end."""
    if _own_process:
        gc.freeze()
        gc.set_threshold(*_THRESHOLDS)


def import_engine() -> None:
    """Import aiohttp without the certificates of the machine, which it reads twice at import.

    That takes 50 ms, for contexts that nothing here uses: each request brings the one of
    `infra_core.http.engine`. A connection over one of aiohttp's own would be refused. Left out
    where other threads run already (a tracer's, a debugger's): they may read the environment.
    """
    if not _own_process or threading.active_count() > 1:
        return
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
