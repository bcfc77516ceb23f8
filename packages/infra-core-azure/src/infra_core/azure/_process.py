"""Which process or file it is, so that no later one of the same number or name is taken for it."""

import os
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import weakref

__all__ = [
    "alive_of",
    "file_id",
    "interrupt_main",
    "is_running",
    "process_identity",
    "start_of",
]

T = TypeVar("T")

_PROC = Path("/proc")
_WINDOWS = "windows"
# OpenProcess, GetExitCodeProcess and their errors (processthreadsapi.h, winerror.h)
_QUERY_LIMITED_INFORMATION = 0x1000
_STILL_ACTIVE = 259
_ACCESS_DENIED = 5


def alive_of(objects: "weakref.WeakSet[T]") -> list[T]:
    """Return what is in a set of objects to which other threads may add some meanwhile."""
    while True:
        with suppress(RuntimeError):  # "Set changed size during iteration"
            return list(objects)


def file_id(path: Path) -> tuple[int, int] | None:
    """Return what no other file has while this one is there, `None` where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def interrupt_main() -> None:
    """Do to the main thread what Ctrl-C does, also when it waits for something.

    Nothing happens where SIGINT is ignored or has no handler of Python's.
    """
    if not callable(signal.getsignal(signal.SIGINT)):
        return
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:  # Windows: noticed when the main thread next runs Python code
        import _thread

        _thread.interrupt_main()


def process_identity(pid: int) -> str | None:
    """Return what no other process has ever had, or `None` where the system does not say.

    On Linux it is `boot id/pid namespace/start time`: process numbers come again after a restart
    of the machine and within one container after another, this does not. On Windows the time is
    that of the calendar.
    """
    start = start_of(pid)
    if not start:
        return None
    if sys.platform == "win32":
        return f"{_WINDOWS}/{socket.gethostname()}/{start}"
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid")  # noqa: PTH115 - no path, a symbolic name
    except OSError:
        return None
    return f"{boot}/{namespace}/{start}"


def is_running(pid: int, host: str | None, identity: str | None) -> bool | None:
    """Whether a process lives, as far as this machine can know.

    Args:
        pid: Its number.
        host: The `socket.gethostname()` that it saw.
        identity: Its own `process_identity`, if it knew one.

    Returns:
        `None` when it ran elsewhere, or when the system hides the processes of other users, so
        that it may be a later one with the same number.
    """
    mine = process_identity(os.getpid())
    if identity is not None and mine is not None:
        their_home, _, their_start = identity.rpartition("/")
        my_home, _, _ = mine.rpartition("/")
        if their_home != my_home:
            # Another boot of this very machine ended all of its processes.
            return False if _same_machine_rebooted(their_home, my_home, host) else None
        start = start_of(pid)
        return None if start == "" else start == their_start
    return None if host != socket.gethostname() else start_of(pid) is not None


def start_of(pid: int) -> str | None:
    """Return when a running process began, in a measure of the system's own.

    Returns:
        Empty where the system does not say; `None` for a process that has ended, one that is
        killed and not yet waited for by its parent (a zombie) included.
    """
    if not 0 < pid < 2**31:
        return None
    if sys.platform == "win32":
        return _start_on_windows(pid)
    try:
        # From the third field on: the second is a name, which may hold anything (proc(5)).
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in {"Z", "X", "x"} else fields[19]
    except (OSError, IndexError):
        pass  # no Linux, or it is hidden from this user
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass  # it lives and belongs to somebody else
    return ""


def _start_on_windows(pid: int) -> str | None:
    """Ask the system; `os.kill` would end the process there, whatever the signal."""
    import ctypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    kernel.OpenProcess.restype = ctypes.c_void_p
    process = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
    if not process:
        denied = ctypes.get_last_error() == _ACCESS_DENIED  # type: ignore[attr-defined,unused-ignore]
        return "" if denied else None  # it is somebody else's, or there is none
    try:
        handle, code = ctypes.c_void_p(process), ctypes.c_ulong()
        times = [ctypes.c_ulonglong() for _ in range(4)]  # began, ended, in the kernel, outside
        if kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and code.value != _STILL_ACTIVE:
            return None
        known = kernel.GetProcessTimes(handle, *map(ctypes.byref, times))
        return str(times[0].value) if known else ""
    finally:
        kernel.CloseHandle(handle)


def _same_machine_rebooted(theirs: str, mine: str, host: str | None) -> bool:
    boots = {theirs.partition("/")[0], mine.partition("/")[0]}
    # Windows and its Linux (WSL) share the name of the machine, and restart each by itself.
    return host == socket.gethostname() and len(boots) == 2 and _WINDOWS not in boots
