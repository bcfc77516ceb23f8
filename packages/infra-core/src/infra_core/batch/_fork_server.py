"""Where Linux forks the command's workers from: one process that imports for all of them.

It imports beside the command, so that a worker begins within milliseconds and shares the memory of
what was imported. A program that calls `run_batch` has its workers spawned: what the fork server of
its `multiprocessing` imports is its own to say.
"""

import signal
import sys
from multiprocessing import get_context
from typing import Any

from infra_core import _start

__all__ = ["start_fork_server", "worker_context"]

_FOR_THE_COORDINATOR = {signal.SIGINT, signal.SIGTERM}
_running = False


def worker_context() -> Any:
    """The way in which `multiprocessing` starts workers here."""
    return get_context("forkserver" if _running else "spawn")


def start_fork_server() -> None:
    """Start it for the command on Linux, unless it cannot be; its caller goes on meanwhile."""
    global _running
    if sys.platform != "linux" or not _start.is_own_process():
        return
    from multiprocessing import forkserver, resource_tracker

    forkserver.set_forkserver_preload(["infra_core.batch._worker_imports"])
    former = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        resource_tracker.ensure_running()  # it unblocks signals, so it must be there already
        # Inherited by the fork server and its workers: a signal to all of them must not end them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_COORDINATOR)
        forkserver.ensure_running()
        _running = True
    except OSError:  # it needs a folder for temporary files, of a path that a socket can have
        return
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
