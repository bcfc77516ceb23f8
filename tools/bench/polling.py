"""What `poll_many_async` costs per check, next to a bare `await fetch()` loop and its peers.

    python tools/bench/polling.py [--quick] [--check]

10,000 jobs, each of which is done at its fifth check. Every contestant makes the same checks with
the same fetch; what is compared is the CPU time of this process per check (the server runs in
another one). Two fetches: "loopback" asks a real server on 127.0.0.1 for one line over a kept
connection, which is the least that a status check can be; "turn" only gives the event loop one
turn, which no real fetch does, and shows the overhead itself.

Contestants: a loop that awaits one fetch after the other; as many bare workers as
`poll_many_async` has; `poll_many_async`; and what one would write without it, a task per job that
runs `poll_until_async` under a semaphore. `--check` exits with 1 when `poll_many_async` needs more
than 2.0 of the bare loop over loopback, or when memory grows with the number of jobs.
"""

import argparse
import asyncio
import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable

from infra_core.polling import PollingConfig, poll_many_async, poll_until_async

LIMIT = 2.0
CHECKS = 5
CONCURRENCY = 100
CONFIG = PollingConfig(poll_interval=0.01, timeout=600)
Fetch = Callable[[int], Awaitable[dict[str, str]]]

SERVER = """
import asyncio
async def serve(reader, writer):
    while await reader.readline():
        writer.write(b"running\\n")
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class Service:
    """Counts the checks of each job, and says when it is done."""

    def __init__(self, jobs: int, ask: Callable[[], Awaitable[object]]) -> None:
        self.counts = [0] * jobs
        self.ask = ask

    async def fetch(self, job: int) -> dict[str, str]:
        await self.ask()
        count = self.counts[job] = self.counts[job] + 1
        return {"status": "completed" if count % CHECKS == 0 else "running"}


async def bare_loop(jobs: int, fetch: Fetch) -> None:
    for _ in range(CHECKS):
        for job in range(jobs):
            await fetch(job)


async def bare_workers(jobs: int, fetch: Fetch) -> None:
    checks = iter([job for _ in range(CHECKS) for job in range(jobs)])

    async def work() -> None:
        for job in checks:
            await fetch(job)

    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))


async def many(jobs: int, fetch: Fetch) -> None:
    done = 0
    async for outcome in poll_many_async(
        range(jobs), fetch, config=CONFIG, concurrency=CONCURRENCY
    ):
        done += outcome.ok
    if done != jobs:
        raise AssertionError(f"{jobs - done} jobs were not done")


async def task_per_job(jobs: int, fetch: Fetch) -> None:
    semaphore = asyncio.Semaphore(CONCURRENCY)

    async def bounded(job: int) -> dict[str, str]:
        async with semaphore:
            return await fetch(job)

    await asyncio.gather(
        *(
            poll_until_async(
                lambda job=job: bounded(job),  # type: ignore[misc]
                lambda response: response["status"] == "completed",
                poll_interval=CONFIG.poll_interval,
            )
            for job in range(jobs)
        )
    )


CONTESTANTS: dict[str, Callable[[int, Fetch], Awaitable[None]]] = {
    "bare await fetch() loop": bare_loop,
    f"bare, {CONCURRENCY} workers": bare_workers,
    "poll_many_async": many,
    "task per job, semaphore": task_per_job,
}


async def compare(name: str, jobs: int, rounds: int, ask: Callable[[], Awaitable[object]]) -> float:
    """Print microseconds of CPU per check; return the ratio of `poll_many_async`."""
    best = dict.fromkeys(CONTESTANTS, float("inf"))
    for _ in range(rounds):
        for contestant, run in CONTESTANTS.items():
            service = Service(jobs, ask)
            gc.collect()
            began = time.process_time()
            await run(jobs, service.fetch)
            used = (time.process_time() - began) / (jobs * CHECKS) * 1e6
            best[contestant] = min(best[contestant], used)
    base = best["bare await fetch() loop"]
    print(f"{name}: {jobs} jobs, {CHECKS} checks each, best of {rounds}")
    for contestant, used in best.items():
        print(f"  {contestant:28} {used:7.2f} µs CPU a check   {used / base:5.2f}")
    return best["poll_many_async"] / base


async def turn() -> None:
    await asyncio.sleep(0)


async def over_loopback(port: int, jobs: int, rounds: int) -> float:
    """Compare with a pool of kept connections."""
    pool: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    pool = asyncio.LifoQueue()
    writers = []
    for _ in range(CONCURRENCY):
        connection = await asyncio.open_connection("127.0.0.1", port)
        pool.put_nowait(connection)
        writers.append(connection[1])

    async def ask() -> None:
        connection = await pool.get()
        reader, writer = connection
        writer.write(b"status?\n")
        await reader.readline()
        pool.put_nowait(connection)

    try:
        return await compare("loopback", jobs, rounds, ask)
    finally:
        for writer in writers:
            writer.close()
            await writer.wait_closed()


async def memory(jobs: int) -> float:
    """Return how much more memory ten times the jobs take."""

    async def fetch(job: int) -> dict[str, str]:
        return {"status": "completed"}

    async def peak(count: int) -> int:
        gc.collect()
        tracemalloc.start()
        async for _ in poll_many_async(range(count), fetch, max_active=1000):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    await peak(1000)
    small, large = await peak(jobs // 5), await peak(jobs * 2)
    print(f"memory, 1,000 active: {jobs // 5} jobs {small / 1024:.0f} KiB, "
          f"{jobs * 2} jobs {large / 1024:.0f} KiB")  # fmt: skip
    return large / small


def main() -> int:
    parser = argparse.ArgumentParser(description="What poll_many_async costs per check.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs, one round")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")
    options = parser.parse_args()
    jobs, rounds = (1000, 1) if options.quick else (10_000, 3)
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        if server.stdout is None:
            raise AssertionError("no pipe")
        ratio = asyncio.run(over_loopback(int(server.stdout.readline()), jobs, rounds))
    finally:
        server.kill()
        server.communicate()
    asyncio.run(compare("turn", jobs, rounds, turn))
    growth = asyncio.run(memory(jobs))
    ok = ratio <= LIMIT and growth <= 1.5
    print(f"ratio {ratio:.2f} (limit {LIMIT}), memory x{growth:.2f} (limit 1.5): "
          f"{'ok' if ok else 'MISSED'}")  # fmt: skip
    return 1 if options.check and not ok else 0


if __name__ == "__main__":
    sys.exit(main())
