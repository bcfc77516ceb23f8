"""What `TaskRuntime` costs, next to its peers, in one run.

    python tools/bench/task_runtime.py [--quick] [--check]

Three loads. "staggered": tasks that sleep 0 to 50 ms each, a thousand at a time; the ideal is what
a scheduler without any cost would need for the very same tasks. "no-op": tasks that return at
once. "lazy": a long generator, memory before and after. Peers: `asyncio.gather` over a semaphore,
aiometer, and the bare minimum (worker coroutines that do nothing but await).

Every figure is the best of several rounds in which the contestants take turns. `--check` exits
with 1 when a limit is missed.
"""

import argparse
import asyncio
import gc
import heapq
import random
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from infra_core.runtime import RuntimeConfig, TaskRuntime

Contest = Callable[[Sequence[Callable[[], Awaitable[None]]], int], Awaitable[None]]


async def runtime(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int) -> None:
    await TaskRuntime(config=RuntimeConfig(concurrency=limit)).run(("id", job) for job in jobs)


async def runtime_with_timeout(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int) -> None:
    config = RuntimeConfig(concurrency=limit, task_timeout=30.0)
    await TaskRuntime(config=config).run(("id", job) for job in jobs)


async def gather_semaphore(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int) -> None:
    semaphore = asyncio.Semaphore(limit)

    async def bounded(job: Callable[[], Awaitable[None]]) -> None:
        async with semaphore:
            await job()

    await asyncio.gather(*(bounded(job) for job in jobs))


async def bare_workers(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int) -> None:
    source = iter(jobs)

    async def worker() -> None:
        for job in source:
            await job()

    await asyncio.gather(*(worker() for _ in range(limit)))


async def with_aiometer(jobs: Sequence[Callable[[], Awaitable[None]]], limit: int) -> None:
    import aiometer

    await aiometer.run_all(jobs, max_at_once=limit)


CONTESTS: dict[str, Contest] = {
    "TaskRuntime": runtime,
    "TaskRuntime, task_timeout": runtime_with_timeout,
    "gather + semaphore": gather_semaphore,
    "aiometer": with_aiometer,
    "bare workers": bare_workers,
}


def ideal(durations: Sequence[float], limit: int) -> float:
    """Return the wall time of a scheduler that costs nothing."""
    slots = [0.0] * min(limit, len(durations))
    for duration in durations:
        heapq.heapreplace(slots, slots[0] + duration)
    return max(slots)


def measure(
    contest: Contest, jobs: Sequence[Callable[[], Awaitable[None]]], limit: int
) -> tuple[float, float]:
    """Return wall and CPU seconds of one contest."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(contest(jobs, limit))  # type: ignore[arg-type]
    return time.perf_counter() - wall, time.process_time() - cpu


def rounds(
    jobs: Sequence[Callable[[], Awaitable[None]]], limit: int, count: int
) -> dict[str, tuple[float, float]]:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(count):
        for name, contest in CONTESTS.items():
            try:
                wall, cpu = measure(contest, jobs, limit)
            except ImportError:
                continue
            known = best.get(name, (wall, cpu))
            best[name] = (min(known[0], wall), min(known[1], cpu))
    return best


async def _noop() -> None:
    return None


def staggered(count: int, limit: int, repeat: int) -> list[str]:
    draw = random.Random(20)
    durations = [draw.uniform(0.0, 0.05) for _ in range(count)]
    floor = ideal(durations, limit)
    best = rounds([partial(asyncio.sleep, duration) for duration in durations], limit, repeat)
    print(f"\nstaggered: {count} tasks of 0 to 50 ms, {limit} at a time; ideal {floor:.3f} s")
    print(f"  {'':28}{'wall s':>9}{'of ideal':>10}{'CPU us/task':>13}{'of gather':>11}")
    peer = best["gather + semaphore"][1]
    for name, (wall, cpu) in best.items():
        print(
            f"  {name:28}{wall:9.3f}{wall / floor:10.2f}{cpu / count * 1e6:13.2f}{cpu / peer:11.2f}"
        )
    wall, cpu = best["TaskRuntime"]
    missed = []
    if wall > 1.3 * floor:
        missed.append(f"staggered: wall is {wall / floor:.2f} of the ideal, the limit is 1.3")
    if cpu > peer:
        missed.append(f"staggered: {cpu / peer:.2f} of gather + semaphore, the limit is 1.0")
    return missed


def noop(count: int, limit: int, repeat: int) -> list[str]:
    best = rounds([_noop] * count, limit, repeat)
    print(f"\nno-op: {count} tasks, {limit} at a time")
    print(f"  {'':28}{'CPU us/task':>13}{'of gather':>11}")
    peer = best["gather + semaphore"][1]
    for name, (_, cpu) in best.items():
        print(f"  {name:28}{cpu / count * 1e6:13.2f}{cpu / peer:11.2f}")
    ratio = best["TaskRuntime"][1] / peer
    if ratio > 1.0:
        return [f"no-op at {limit}: {ratio:.2f} of gather + semaphore, the limit is 1.0"]
    return []


def lazy(count: int, limit: int) -> list[str]:
    tracemalloc.start()
    config = RuntimeConfig(concurrency=limit, task_timeout=30.0)
    asyncio.run(TaskRuntime(config=config).run((str(n), _noop) for n in range(count)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\nlazy: {count} tasks from a generator, {limit} at a time: peak {peak / 1e6:.2f} MB")
    return [f"lazy: peak of {peak / 1e6:.1f} MB, the limit is 4"] if peak > 4e6 else []


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    parser.add_argument("--check", action="store_true", help="fail when a limit is missed")
    arguments = parser.parse_args()
    scale = 10 if arguments.quick else 1
    repeat = 2 if arguments.quick else 5
    print(f"Python {sys.version.split()[0]}; best of {repeat}")
    missed = staggered(40_000 // scale, 1000, 1 if arguments.quick else 3)
    for limit in (10, 1000):
        missed += noop(50_000 // scale, limit, repeat)
    missed += lazy(1_000_000 // scale, 1000)
    for line in missed:
        print("MISSED", line)
    return 1 if missed and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
