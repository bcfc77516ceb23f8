"""Where Linux forks the command's workers from: one process that imports for all of them.

It imports beside the command, so that a worker begins within milliseconds and shares the memory of
what was imported. A program that calls `run_batch` has its workers spawned: what the fork server of
its `multiprocessing` imports is its own to say.
"""

import signal
import sys
from multiprocessing import get_context
from typing import Any

__all__ = ["start_fork_server", "worker_context"]

_FOR_THE_COORDINATOR = {signal.SIGINT, signal.SIGTERM}
_running = False


def worker_context() -> Any:
    """The way in which `multiprocessing` starts workers here."""
    return get_context("forkserver" if _running else "spawn")


def start_fork_server() -> None:
    """Start it on Linux, unless it cannot be; it imports while its caller goes on."""
    global _running
    if sys.platform != "linux":
        return
    from multiprocessing.forkserver import ensure_running, set_forkserver_preload

    set_forkserver_preload(["infra_core.batch._worker_imports"])
    # Inherited by it and by the workers: a signal to the whole group must not end them.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_COORDINATOR)
    try:
        ensure_running()
        _running = True
    except OSError:  # it needs a folder for temporary files, of a path that a socket can have
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
