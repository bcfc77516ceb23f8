"""Who a process is, so that a reader can tell it from a later one with the same number."""

import os
import signal
import socket
import sys
import threading
from pathlib import Path

__all__ = ["host_name", "interrupt_main", "is_running", "process_identity"]

_PROC = Path("/proc")


def host_name() -> str:
    """Return the name of this machine or container."""
    return socket.gethostname()


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
    of the machine and within one container after another, this does not.
    """
    if not sys.platform.startswith("linux"):
        return None
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink(_PROC / "self/ns/pid")  # noqa: PTH115 - no path, a symbolic name
        start = _stat_fields(pid)[19]  # field 22 of proc(5), counted from field 3
    except (OSError, IndexError, ValueError):
        return None
    return f"{boot}/{namespace}/{start}"


def is_running(pid: int, host: str | None, identity: str | None) -> bool | None:
    """Tell whether a process lives, as far as this machine can know.

    Args:
        pid: Its number.
        host: The `host_name()` that it saw.
        identity: Its own `process_identity`, if it knew one.

    Returns:
        `None` when it ran elsewhere, or where a process number cannot be checked (Windows).
    """
    if not 0 < pid < 2**31 or sys.platform == "win32":  # os.kill would terminate it there
        return None
    mine = process_identity(os.getpid())
    if identity is not None and mine is not None:
        their_home, _, their_start = identity.rpartition("/")
        my_home, _, _ = mine.rpartition("/")
        if their_home != my_home:
            # Another boot of this very machine ended all of its processes.
            return False if _same_machine_rebooted(their_home, my_home, host) else None
        theirs_now = process_identity(pid)
        return (
            theirs_now is not None and theirs_now.endswith(f"/{their_start}") and not _is_dead(pid)
        )
    if host != host_name():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it lives and belongs to somebody else
        return True
    return not _is_dead(pid)


def _same_machine_rebooted(theirs: str, mine: str, host: str | None) -> bool:
    return host == host_name() and theirs.partition("/")[0] != mine.partition("/")[0]


def _is_dead(pid: int) -> bool:
    """Tell a zombie: killed, but not yet waited for by its parent."""
    try:
        return _stat_fields(pid)[0] in {"Z", "X", "x"}
    except (OSError, IndexError):
        return False


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the third on; the second may hold anything."""
    text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    return text.rpartition(")")[2].split()
