"""What an import costs over a bare interpreter, each in fresh processes.

Promises: `import infra_core` at most 25 ms, any leaf at most 60 ms, no thread and no atexit hook.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

BUDGETS_MS = {
    "infra_core": 25.0,
    "infra_core.fs": 60.0,
    "infra_core.runtime": 60.0,
    "infra_core.polling": 60.0,
    "infra_core.http": 60.0,
    "infra_core.http.aio": 60.0,
    "infra_core.http.assets": 60.0,
    "infra_core.azure": 60.0,
    "infra_core.azure.client": 60.0,
    "infra_core.azure.monitoring": 60.0,
    "infra_core.azure.job_store": 60.0,
    "infra_core.azure.storage": 60.0,
}
QUIET = """
import threading, atexit, logging  # logging registers a hook of its own
before = atexit._ncallbacks()
import {module}
assert threading.active_count() == 1, threading.enumerate()
assert atexit._ncallbacks() == before, "an atexit hook was registered at import"
"""


def run(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - started) * 1000


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    over = 0
    print(f"{'module':30} {'median ms':>10} {'minimum ms':>11} {'budget ms':>10}")
    for module, budget in BUDGETS_MS.items():
        run(f"import {module}")  # bytecode and disk cache
        pairs = [(run("pass"), run(f"import {module}")) for _ in range(rounds)]
        costs = [loaded - bare for bare, loaded in pairs]
        typical = statistics.median(costs)
        over += typical > budget
        flag = "  over" if typical > budget else ""
        print(f"{module:30} {typical:10.1f} {min(costs):11.1f} {budget:10.0f}{flag}")
        subprocess.run([sys.executable, "-c", QUIET.format(module=module)], check=True)
    print("no import starts a thread or registers an atexit hook")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
