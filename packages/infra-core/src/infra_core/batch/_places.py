"""In how many processes a batch downloads, where that is left to it."""

import os
import sys
from operator import length_hint
from typing import Any

from infra_core import _start

__all__ = ["DOWNLOADS_EACH", "MOST_CHOSEN", "URL_BYTES", "length_of", "places_of"]

URL_BYTES = 48  # of a line of a list, about
DOWNLOADS_EACH = 16  # of a process
MOST_CHOSEN = 4
_LONG_LIST = 340  # URLs, which are worth processes that are forked
_SPAWNED_FOR = 3_000  # URLs, which are worth those that begin with imports


def places_of(options: Any, length: int) -> tuple[int, int]:
    """In how many processes to download, and how much at a time in each of them.

    Python uses one core a process. More are worth their start where there is much to do, and are
    used where the run is the same but for its time: what bounds all of it is not shared out.

    Args:
        options: `BatchOptions`, or the arguments of the command, which have the same names and
            None where the number of processes is not said.
        length: URLs of the list, about; 0 where that is not known.
    """
    if options.processes not in {None, "auto"}:
        return int(options.processes), options.concurrency
    processes = _worth_starting(options, length)
    return processes, options.concurrency // processes


def _worth_starting(options: Any, length: int) -> int:
    processes: int = min(options.concurrency // DOWNLOADS_EACH, MOST_CHOSEN)
    going_on = options.resume or options.revalidate  # with little to download, mostly
    bounds = (options.max_per_host, options.rate_per_host, options.limit_rate)
    others = (options.dask, options.scratch, options.cookies, *bounds)
    if processes < 2 or going_on or any(each is not None for each in others):
        return 1
    long = _LONG_LIST if _start.is_own_process() else _SPAWNED_FOR
    if sys.platform != "linux" or length < long:
        return 1
    from multiprocessing import current_process

    if current_process().daemon:  # one of a pool, which may start none
        return 1
    return min(processes, len(os.sched_getaffinity(0)))


def length_of(items: object) -> int:
    """How many URLs a source has, about; 0 where it does not say."""
    given: Any = items
    try:
        return length_hint(given, 0) or int(os.fstat(given.fileno()).st_size // URL_BYTES)
    except Exception:  # noqa: BLE001 - no file, one of memory, a closed one, what a source raises
        return 0
