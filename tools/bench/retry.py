"""What a retry costs when nothing fails, against tenacity and stamina in the same run.

Promise: the path that does not fail costs at most 5 µs over the bare call.
Decides whether tenacity is the engine of `infra_core.runtime`: it is not, see the package's README.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import stamina
import tenacity

from infra_core.runtime import RetryPolicy, retry_async, retry_sync

BUDGET_US = 5.0
CALLS = 2_000
ROUNDS = 25
POLICY = RetryPolicy(max_retries=3)
BOUNDED = RetryPolicy(max_retries=3, deadline=60.0)


def work() -> int:
    """The bare call."""
    return 1


async def work_async() -> int:
    """The bare call, awaited."""
    return 1


def yes(error: BaseException) -> bool:
    """Retry everything."""
    return True


tenacity_sync = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(), reraise=True
)
tenacity_async = tenacity.AsyncRetrying(
    stop=tenacity.stop_after_attempt(4), wait=tenacity.wait_exponential(), reraise=True
)
stamina_sync = stamina.RetryingCaller(attempts=4).on(Exception)
stamina_async = stamina.AsyncRetryingCaller(attempts=4).on(Exception)

SYNC: dict[str, Callable[[], object]] = {
    "bare call": work,
    "retry_sync": lambda: retry_sync(work, policy=POLICY, should_retry=yes),
    "tenacity": lambda: tenacity_sync(work),
    "stamina": lambda: stamina_sync(work),
}
ASYNC: dict[str, Callable[[], Awaitable[object]]] = {
    "bare call": work_async,
    "retry_async": lambda: retry_async(work_async, policy=POLICY, should_retry=yes),
    "retry_async, deadline": lambda: retry_async(work_async, policy=BOUNDED, should_retry=yes),
    "tenacity": lambda: tenacity_async(work_async),
    "stamina": lambda: stamina_async(work_async),
}


def measure_sync(call: Callable[[], object]) -> float:
    """Return microseconds a call."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1e6


def measure_async(call: Callable[[], Awaitable[object]]) -> float:
    """Return microseconds an awaited call."""

    async def loop() -> float:
        started = time.perf_counter()
        for _ in range(CALLS):
            await call()
        return (time.perf_counter() - started) / CALLS * 1e6

    return asyncio.run(loop())


def report(title: str, best: dict[str, float]) -> list[str]:
    """Print one table; return what is over its budget."""
    bare = best.pop("bare call")
    over = {name: figure - bare for name, figure in best.items()}
    ours = next(iter(over))
    print(f"{title}: the bare call takes {bare:.2f} µs; over it (best of {ROUNDS} rounds)")
    for name, extra in over.items():
        print(f"  {name:24}{extra:8.2f} µs{extra / over[ours]:8.1f} x {ours}")
    return [
        f"{name}: {extra:.2f} µs over the bare call, allowed are {BUDGET_US:g}"
        for name, extra in over.items()
        if ("retry_" in name or "retries" in name) and "deadline" not in name and extra > BUDGET_US
    ]


def main() -> int:
    """Measure all in turn, so that a busy moment of the machine falls upon all."""
    best_sync = dict.fromkeys(SYNC, float("inf"))
    best_async = dict.fromkeys(ASYNC, float("inf"))
    for _ in range(ROUNDS):
        for name, call in SYNC.items():
            best_sync[name] = min(best_sync[name], measure_sync(call))
        for name, awaited in ASYNC.items():
            best_async[name] = min(best_async[name], measure_async(awaited))
    failures = report("sync", best_sync) + report("async", best_async)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
