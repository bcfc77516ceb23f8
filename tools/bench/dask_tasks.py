"""What `DaskTaskRuntime` costs over `Client.map`, on a cluster of this machine, in one run.

Promise: 10,000 small tasks in at most 1.5 of the time of `client.map` with `client.gather`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from functools import partial
from typing import Any

import distributed

from infra_core.runtime import DaskTaskRuntime, RuntimeConfig

TASKS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
CONCURRENCY = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
ROUNDS = 3
BUDGET = 1.5


async def with_map(client: Any) -> float:
    """Return the seconds of `client.map`, results included."""
    started = time.perf_counter()
    results = await client.gather(client.map(abs, range(TASKS), pure=False))
    assert sum(results) == TASKS * (TASKS - 1) // 2
    return time.perf_counter() - started


async def with_runtime(client: Any) -> float:
    """Return the seconds of `DaskTaskRuntime`, results included."""
    started = time.perf_counter()
    config = RuntimeConfig(concurrency=CONCURRENCY)
    async with DaskTaskRuntime(client, config=config) as runtime:
        tasks = ((str(number), partial(abs, number)) for number in range(TASKS))
        total = 0
        async for outcome in runtime.as_completed(tasks):
            total += outcome.result()
    assert total == TASKS * (TASKS - 1) // 2
    return time.perf_counter() - started


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
        await with_map(client)  # what is made once is made now
        await with_runtime(client)
        pairs = [(await with_map(client), await with_runtime(client)) for _ in range(ROUNDS)]
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{TASKS} tasks, {CONCURRENCY} at a time, median of {ROUNDS} rounds")
    print(f"client.map and gather  {plain:8.2f} s")
    print(f"DaskTaskRuntime        {ours:8.2f} s  {ours / plain:5.2f} of it")
    return int(ours > BUDGET * plain)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
