"""Our own processes, the command and its workers, start and end faster; others are left alone."""

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec, module_from_spec
from types import FrameType

__all__ = [
    "ENDING_SIGNALS",
    "MOST_PROCESSES",
    "begin",
    "command",
    "end",
    "heard_signals",
    "import_engine",
    "import_storage",
    "is_own_process",
    "pass_on",
    "started",
]

# What asks a process to end: Ctrl-C, kill, a terminal that closes. Windows has no SIGHUP.
ENDING_SIGNALS = [
    number for number in signal.Signals if number.name in {"SIGINT", "SIGTERM", "SIGHUP"}
]

# Each takes memory, and Python uses one core a process.
MOST_PROCESSES = max(64, 2 * (os.cpu_count() or 1))

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")  # where OpenSSL looks for those of the machine
# What httpx and aiohttp import where it is installed: a command, and what decodes answers.
_UNUSED = ("httpx._main", "brotli", "brotlicffi", "backports.zstd", "zstandard")
_SDK = "azure.core"
_YOUNG = 20_000  # new objects between two searches for garbage
_MANY_OBJECTS = 150_000  # more than all imports make

_own_process = False


def command() -> int:
    """Run the `infra-core` command as a process of its own, which ends with it."""
    begin()
    try:
        from infra_core.cli import main

        code = main()
    except KeyboardInterrupt:  # a second one, while the first was reported
        code = 128 + signal.SIGINT
    end(code)
    return code


def begin() -> None:
    """Seldom look for garbage until `started`: imports make none, and the search takes a tenth.

    Not never: rows of a large table, which are read before the first download, leave garbage.
    Ctrl-C ends the process at once meanwhile, for nothing is under way.
    """
    global _own_process
    _own_process = True
    gc.set_threshold(_MANY_OBJECTS)
    _on_ctrl_c(_leave, signal.default_int_handler)


def _on_ctrl_c(handler: Callable[[int, FrameType | None], object], former: object) -> None:
    """Replace a handler of SIGINT; one that another has set stays, and so does SIG_IGN."""
    if signal.getsignal(signal.SIGINT) == former:
        signal.signal(signal.SIGINT, handler)


def _leave(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)


def is_own_process() -> bool:
    """Whether this is the command, or a worker of it, and no program of others."""
    return _own_process


def heard_signals() -> list[signal.Signals]:
    """The signals that end a run: none that is ignored, as by `nohup` and for a script's `&`.

    SIGHUP only where the program does not use it itself, as services do to read settings anew.
    """
    handlers = {number: signal.getsignal(number) for number in ENDING_SIGNALS}
    return [
        number
        for number, handler in handlers.items()
        if handler not in (signal.SIG_IGN, None)
        and (
            number.name != "SIGHUP"
            or handler == signal.SIG_DFL
            or _module_of(handler).startswith("infra_core.")
        )
    ]


def pass_on(number: signal.Signals) -> None:
    """Let a handler of the program's own hear of a signal that ended a run, such as a web server's.

    Python's would end the program, and that of `asyncio.run` cancel what goes on.
    """
    handler = signal.getsignal(number)
    others = ("infra_core.", "asyncio.", "_signal", "signal")
    if callable(handler) and not _module_of(handler).startswith(others):
        signal.raise_signal(number)


def _module_of(handler: object) -> str:
    """Where a handler was written; that of `asyncio.run` is a `functools.partial`."""
    return str(getattr(getattr(handler, "func", handler), "__module__", None))


def end(code: int) -> None:
    """End the process in order, without taking every object apart, which takes 30 ms.

    Returns where Python should end it: a profiler or debugger looks on, somebody wants to hear of
    resources that were left open, a thread is still at work, or the last output cannot be written.
    """
    watched = sys.gettrace() or sys.getprofile() or sys.warnoptions or sys.flags.dev_mode
    others = set(threading.enumerate()) - {threading.main_thread()}
    if watched or not all(thread.daemon for thread in others):
        return
    _on_ctrl_c(_leave, signal.default_int_handler)
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
        _on_ctrl_c(signal.default_int_handler, _leave)
        gc.freeze()
        gc.set_threshold(_YOUNG, 1, 1)


def import_engine() -> None:
    """Import aiohttp and httpx without what nothing here uses.

    aiohttp reads the certificates of the machine twice at import, which takes 50 ms: each request
    brings the context of `infra_core.http.engine`, and a connection over one of aiohttp's own
    would be refused. Not left out where other threads run already (a tracer's, a debugger's),
    which may read the environment. httpx imports its own command, and with it rich, click and
    pygments where they are installed; both import decoders, which `infra_core.http` does when an
    answer needs one.
    """
    if not _own_process or threading.active_count() > 1:
        return
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    absent = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type] # cannot be imported
    try:
        import aiohttp  # noqa: F401
        import httpx  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
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
