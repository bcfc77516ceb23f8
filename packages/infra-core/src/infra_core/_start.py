"""Our own processes, the command and its workers, start and end faster; others are left alone."""

import atexit
import gc
import os
import sys
import threading
from functools import cache
from importlib.util import find_spec, module_from_spec

__all__ = ["begin", "end", "import_engine", "import_storage", "is_own_process", "started"]

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for those of the machine
_COMMAND = "httpx._main"
_SDK = "azure.core"
_YOUNG = 20_000  # new objects between two searches for garbage
_MANY_OBJECTS = 150_000  # more than all imports make

_own_process = False


def begin() -> None:
    """Seldom look for garbage until `started`: imports make none, and the search takes a tenth.

    Not never: rows of a large table, which are read before the first download, leave garbage.
    """
    global _own_process
    _own_process = True
    gc.set_threshold(_MANY_OBJECTS)


def is_own_process() -> bool:
    """Whether this is the command, or a worker of it, and no program of others."""
    return _own_process


def end(code: int) -> None:
    """End the process in order, without taking every object apart, which takes 30 ms.

    Returns where Python should end it: a profiler or debugger looks on, somebody wants to hear of
    resources that were left open, a thread is still at work, or the last output cannot be written.
    """
    watched = sys.gettrace() or sys.getprofile() or sys.warnoptions or sys.flags.dev_mode
    others = set(threading.enumerate()) - {threading.main_thread()}
    if watched or not all(thread.daemon for thread in others):
        return
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        return
    os._exit(code)


def started() -> None:
    """Collect garbage, but for what was imported, which stays to the end.

    Less often than usual: a download makes some hundred objects that refer to each other and are
    gone with it, and the search for others took a tenth of the time. But among old objects as often
    as among new ones: what lived through the first search is garbage by the next, 50 MiB of it.
    """
    if _own_process:
        gc.freeze()
        gc.set_threshold(_YOUNG, 1, 1)


def import_engine() -> None:
    """Import aiohttp and httpx without what nothing here uses.

    aiohttp reads the certificates of the machine twice at import, which takes 50 ms: each request
    brings the context of `infra_core.http.engine`, and a connection over one of aiohttp's own
    would be refused. Not left out where other threads run already (a tracer's, a debugger's),
    which may read the environment. httpx imports its own command, and with it rich, click and
    pygments where they are installed.
    """
    if not _own_process or threading.active_count() > 1:
        return
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    absent = _COMMAND not in sys.modules
    if absent:
        sys.modules[_COMMAND] = None  # type: ignore[assignment] # cannot be imported
    try:
        import aiohttp  # noqa: F401
        import httpx  # noqa: F401
    finally:
        if absent:
            del sys.modules[_COMMAND]
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@cache
def import_storage() -> None:
    """Import the storage client without the HTTP client of Azure's SDK, which takes 15 ms.

    Its errors stand on those of `azure.core.exceptions`; the package around them is run by the next
    import, that of a credential, say.
    """
    alone = _own_process and threading.active_count() == 1
    spec = find_spec(_SDK) if alone and _SDK not in sys.modules else None
    if spec is not None:
        sys.modules[_SDK] = module_from_spec(spec)  # which has parts, and nothing else
    try:
        from infra_core.azure.storage import AzureStorageClient  # noqa: F401
    finally:
        if spec is not None:
            del sys.modules[_SDK]
