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


def worker_context() -> Any:
    """The way in which `multiprocessing` starts workers here."""
    forked = sys.platform == "linux" and _start.is_own_process()
    return get_context("forkserver" if forked else "spawn")


def start_fork_server() -> None:
    """Start it, where workers are to be forked; it imports while its caller goes on.

    A worker that is forked from one which was not started here imports by itself.
    """
    if sys.platform == "win32" or worker_context().get_start_method() != "forkserver":
        return
    from multiprocessing.forkserver import ensure_running, set_forkserver_preload

    set_forkserver_preload(["infra_core.batch._worker_imports"])
    # Inherited by it and by the workers: a signal to the whole group must not end them.
    former = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_COORDINATOR)
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
