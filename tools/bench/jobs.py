"""How many jobs a second one process claims from a SQLite store that is full of completed ones.

    hatch run bench:jobs [--quick] [--check]

Claims in an empty batch and in one with 100,000 completed jobs beside what is to be claimed, in
turns, the best of three, in CPU time of this process. `--check` exits with 1 below 2,500 claims a
second, or when the completed jobs cost more than 10 %.
"""

import argparse
import tempfile
import time
from pathlib import Path

from infra_core.azure.job_store import JobRecord, JobStatus, SqliteJobStore

WANTED = 2_500
LOSS = 0.10


def fill(path: Path, completed: int, pending: int) -> None:
    """Store jobs, completed ones first in the order of ids."""
    with SqliteJobStore(path) as store:
        for status, count in ((JobStatus.COMPLETED, completed), (JobStatus.PENDING, pending)):
            store.save_many(
                JobRecord(
                    "batch", f"{status}-{n:06}", status=status, payload={"url": f"http://h/{n}"}
                )
                for n in range(count)
            )


def claims_a_second(path: Path, count: int) -> float:
    """Claim so many jobs of the file, and return how many a second that were."""
    with SqliteJobStore(path) as store:
        store.claim("batch", worker="w", lease_seconds=600)  # opens the file
        started = time.process_time()
        for _ in range(count):
            assert store.claim("batch", worker="w", lease_seconds=600)
        return count / (time.process_time() - started)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="20,000 completed jobs")
    parser.add_argument("--check", action="store_true", help="exit with 1 where it is too slow")
    options = parser.parse_args()
    completed, count = (20_000, 1_000) if options.quick else (100_000, 2_000)
    rates: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        paths = {number: Path(folder) / f"{number}.sqlite3" for number in (0, completed)}
        for number, path in paths.items():
            fill(path, number, 3 * count + 10)
        for _ in range(3):
            for number, path in paths.items():
                rates[number] = max(rates.get(number, 0), claims_a_second(path, count))
    for number, rate in rates.items():
        print(f"{number:>7} completed jobs: {rate:7.0f} claims a second")
    ratio = rates[completed] / rates[0]
    print(f"with {completed} completed jobs: {ratio:.2f} of the rate without")
    return int(options.check and (rates[0] < WANTED or ratio < 1 - LOSS))


if __name__ == "__main__":
    raise SystemExit(main())
