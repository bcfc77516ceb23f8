"""What `DaskTaskRuntime` costs over `Client.map`, on a cluster of this machine, in one run.

Promise: 10,000 small tasks at no more than 1.5 of `client.map` with `client.gather`. What is
compared is the CPU time of all processes (client, scheduler, workers): wall time says little on a
machine that does other things.
"""

from __future__ import annotations

import asyncio
import importlib
import statistics
import sys
import time
from functools import partial
from typing import Any

import distributed

from infra_core.runtime import DaskTaskRuntime, RuntimeConfig

psutil: Any = importlib.import_module("psutil")  # comes with distributed
TASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
CONCURRENCY = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
ROUNDS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
BUDGET = 1.5


async def with_map(client: Any) -> None:
    """Run the tasks by `client.map`, results included."""
    results = await client.gather(client.map(abs, range(TASKS), pure=False))
    assert sum(results) == TASKS * (TASKS - 1) // 2


async def with_runtime(client: Any) -> None:
    """Run the tasks by `DaskTaskRuntime`, results included."""
    config = RuntimeConfig(concurrency=CONCURRENCY)
    async with DaskTaskRuntime(client, config=config) as runtime:
        tasks = ((str(number), partial(abs, number)) for number in range(TASKS))
        total = 0
        async for outcome in runtime.as_completed(tasks):
            total += outcome.result()
    assert total == TASKS * (TASKS - 1) // 2


def cpu() -> float:
    """Return the CPU seconds that this process and its children have used."""
    this = psutil.Process()
    spent = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return float(sum(times.user + times.system for times in spent))


async def measured(contest: Any, client: Any) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    before, started = cpu(), time.perf_counter()
    await contest(client)
    return cpu() - before, time.perf_counter() - started


async def main() -> int:
    """Print both; return 1 when the promise is broken."""
    async with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            host="127.0.0.1",
            dashboard_address=None,
            asynchronous=True,
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster, asynchronous=True) as client,
    ):
        rounds = []
        for number in range(ROUNDS + 1):
            pair = [await measured(contest, client) for contest in (with_map, with_runtime)]
            if number:  # what is made once was made in the first round
                rounds.append(pair)
    plain, ours = (
        [statistics.median(figures) for figures in zip(*column, strict=True)]
        for column in zip(*rounds, strict=True)
    )
    print(f"{TASKS} tasks, {CONCURRENCY} at a time, median of {ROUNDS} rounds")
    print(f"client.map and gather  {plain[0]:8.2f} s CPU  {plain[1]:8.2f} s wall")
    print(f"DaskTaskRuntime        {ours[0]:8.2f} s CPU  {ours[1]:8.2f} s wall")
    print(f"of it                  {ours[0] / plain[0]:8.2f}        {ours[1] / plain[1]:8.2f}")
    return int(ours[0] > BUDGET * plain[0])


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
