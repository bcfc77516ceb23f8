"""Checksum throughput next to `sha256sum`, and what hashing while writing costs.

    python tools/bench/fs_checksum.py [--size MIB] [--rounds N] [--check]

A file of 1 GiB is hashed by `infra_core.fs.compute_checksum`, by the loop that Python 3.10 takes,
and by coreutils' `sha256sum`, in turns; each figure is the best of its rounds, so that a busy
machine distorts none of them. Then the same bytes are written through `AtomicFile`, with the hash
computed on the way and, for comparison, with a second read afterwards. `--check` exits with 1 when
the checksum has less than 0.95 of the throughput of `sha256sum`.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from infra_core.fs import AtomicFile, file_hexdigest, write_bytes_atomic

LIMIT = 0.95
MIB = 1 << 20


def timed(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def with_sha256sum(path: Path) -> str:
    done = subprocess.run(["sha256sum", str(path)], check=True, capture_output=True, text=True)
    return done.stdout.split()[0]


def with_loop_of_3_10(path: Path) -> str:
    with mock.patch.object(sys, "version_info", (3, 10, 0)):
        return file_hexdigest(path)


def write(path: Path, block: bytes, count: int, algorithms: list[str]) -> str:
    with AtomicFile(path, algorithms=algorithms, durable=False) as file:
        for _ in range(count):
            file.write(block)
    return file.hexdigest() if algorithms else file_hexdigest(path)


def small_writes(folder: Path, count: int, durable: bool) -> float:
    """Microseconds for one small atomic write."""
    began = time.perf_counter()
    for number in range(count):
        write_bytes_atomic(folder / f"{number % 10}.json", b'{"status": "ok"}\n', durable=durable)
    return (time.perf_counter() - began) / count * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description="Checksum throughput next to sha256sum.")
    parser.add_argument("--size", type=int, default=1024, help="MiB, 1024 by default")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, 3 by default")
    parser.add_argument("--check", action="store_true", help="exit with 1 below the limit")
    options = parser.parse_args()
    if shutil.which("sha256sum") is None:
        print("sha256sum (coreutils) is not installed: nothing to compare with")
        return 1 if options.check else 0
    folder = Path(tempfile.mkdtemp(prefix="infra-core-bench-"))
    try:
        return run(folder, options.size, options.rounds, options.check)
    finally:
        shutil.rmtree(folder)


def run(folder: Path, size: int, rounds: int, check: bool) -> int:
    path = folder / "data.bin"
    block = os.urandom(MIB)
    write(path, block, size, ["sha256"])
    contestants: dict[str, Callable[[], str]] = {
        "sha256sum": lambda: with_sha256sum(path),
        "compute_checksum": lambda: file_hexdigest(path),
        "compute_checksum, loop of 3.10": lambda: with_loop_of_3_10(path),
    }
    if len({function() for function in contestants.values()}) != 1:
        raise AssertionError("the digests differ")
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(rounds):
        for name, function in contestants.items():
            best[name] = min(best[name], timed(function))
    print(f"SHA-256 of {size} MiB, best of {rounds}, Python {sys.version.split()[0]}")
    for name, seconds in best.items():
        ratio = best["sha256sum"] / seconds
        print(f"  {name:32} {size / seconds:8.0f} MiB/s   {ratio:5.2f} of sha256sum")

    part = max(1, size // 4)
    target = folder / "written.bin"
    hashing = twice = float("inf")
    for _ in range(rounds):
        hashing = min(hashing, timed(lambda: write(target, block, part, ["sha256"])))
        twice = min(twice, timed(lambda: write(target, block, part, [])))
    print(f"AtomicFile, {part} MiB, not durable")
    print(f"  {'hash while writing':32} {part / hashing:8.0f} MiB/s")
    print(f"  {'write, then read again to hash':32} {part / twice:8.0f} MiB/s")
    for durable in (True, False):
        cost = small_writes(folder, 200, durable)
        print(f"  one small file, durable={durable!s:5}       {cost:10.0f} µs")
    ratio = best["sha256sum"] / best["compute_checksum"]
    print(f"ratio {ratio:.2f} (limit {LIMIT}): {'ok' if ratio >= LIMIT else 'MISSED'}")
    return 1 if check and ratio < LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
