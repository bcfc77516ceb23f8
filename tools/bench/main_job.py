"""The main job against tools that only download: 1,000 x 16 KiB at 32, whole processes, one run.

    hatch run bench:main-job [--rounds N] [--files N] [--size BYTES]
                             [--resume | --memory | --start]

Starts its own nginx in a temporary folder on a free port. Contenders take turns, each in a fresh
folder, and nothing is deleted before the last turn: removing thousands of files slows the file
system down for the next one. Prints medians and ratios to aria2c. `--resume` times the
verification of a batch that is complete, `--memory` the peak of the process by the length of the
list (on files of 16 bytes), `--start` a run of one URL, up to its request and to its end. Needs
nginx; aria2c and curl join when they are installed.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from download import Nginx  # type: ignore[import-not-found]

CONCURRENCY = 32


def infra_core(urls: Path, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "infra_core.cli", "run", str(urls), "--batch-id", "b", "--out",
        str(out), "--concurrency", str(CONCURRENCY), *more,
    ]  # fmt: skip


def contenders(urls: Path) -> dict[str, object]:
    found: dict[str, object] = {
        "infra-core run": lambda out: infra_core(urls, out),
        "infra-core run --processes 2": lambda out: infra_core(urls, out, "--processes", "2"),
        "infra-core run --processes 1": lambda out: infra_core(urls, out, "--processes", "1"),
    }
    if shutil.which("aria2c"):
        found["aria2c"] = lambda out: [
            "aria2c", "-q", "-i", str(urls), "-d", str(out), "-j", str(CONCURRENCY), "-x", "1",
        ]  # fmt: skip
    if shutil.which("curl"):
        found["curl -Z"] = lambda out: [
            "curl", "-sS", "-Z", "--parallel-max", str(CONCURRENCY), "--create-dirs",
            "--remote-name-all", "--output-dir", str(out), "-K", str(curl_list(urls)),
        ]  # fmt: skip
    return found


def curl_list(urls: Path) -> Path:
    path = urls.with_suffix(".curl")
    path.write_text("".join(f'url = "{line}"\n' for line in urls.read_text().split()))
    return path


# Installed packages have their bytecode, whatever the shell of this benchmark says.
ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    seconds = time.perf_counter() - started
    if done.returncode:
        said = done.stdout[-900:] + done.stderr[-500:]
        raise SystemExit(f"{command[:4]} ended with {done.returncode}: {said}")
    return seconds


@contextmanager
def site(count: int, size: int) -> Iterator[tuple[Path, Path]]:
    """Serve files; yields a folder for everybody's use and the list of URLs."""
    with tempfile.TemporaryDirectory(prefix="infra-core-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the workers of nginx are another user, where this one is root
        root = folder / "www"
        root.mkdir()
        for number in range(count):
            (root / f"{number}.bin").write_bytes(os.urandom(size))
        server = Nginx(root, folder / "nginx")
        try:
            urls = folder / "urls.txt"
            urls.write_text("".join(f"{server.base}/{number}.bin\n" for number in range(count)))
            yield folder, urls
        finally:
            server.stop()


def compare(options: argparse.Namespace) -> None:
    with site(options.files, options.size) as (folder, urls):
        programs = contenders(urls)
        times: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(options.rounds + 1):
            for position, (name, command) in enumerate(programs.items()):
                out = folder / f"out-{turn}-{position}"
                seconds = timed(command(out))  # type: ignore[operator]
                if turn:  # the first turn warms everybody up
                    times[name].append(seconds)
        anchor = statistics.median(times.get("aria2c") or next(iter(times.values())))
        print(f"{options.files} x {options.size} bytes at {CONCURRENCY}, {options.rounds} rounds")
        for name, found in times.items():
            median = statistics.median(found)
            spread = f"{min(found):.2f} to {max(found):.2f}"
            rate = options.files / median
            print(f"{name:32} {median:6.2f} s ({spread}) {rate:7.0f}/s  {median / anchor:5.2f}")


def resume(options: argparse.Namespace) -> None:
    with site(options.files, options.size) as (folder, urls):
        out = folder / "out"
        timed(infra_core(urls, out))
        found = [timed(infra_core(urls, out, "--resume")) for _ in range(options.rounds)]
        one = folder / "one.txt"
        one.write_text(urls.read_text().split()[0] + "\n")
        begin = statistics.median(
            timed(infra_core(one, folder / f"one-{turn}")) for turn in range(options.rounds)
        )
        median = statistics.median(found)
        print(f"--resume of {options.files} that are complete: {median:.2f} s,")
        print(f"  {options.files / (median - begin):.0f} files a second beyond the start")


def memory(options: argparse.Namespace) -> None:
    with site(1, 16) as (folder, urls):
        base = urls.read_text().strip()
        for count in sorted({1_000, 10_000, options.files}):
            listed = folder / f"urls-{count}.txt"
            listed.write_text("".join(f"{base}?{number}\n" for number in range(count)))
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            seconds = timed(infra_core(listed, folder / f"out-{count}"))
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
            note = "" if peak > before else " or less"
            print(f"{count} URLs: {peak / 1024:.0f} MiB at most{note}, {seconds:.1f} s", flush=True)


def start(options: argparse.Namespace) -> None:
    requested, whole = [], []
    with (
        tempfile.TemporaryDirectory(prefix="infra-core-bench-") as name,
        socket.create_server(("127.0.0.1", 0)) as server,
    ):
        urls = Path(name, "urls.txt")
        urls.write_text(f"http://127.0.0.1:{server.getsockname()[1]}/page.html\n")
        for turn in range(options.rounds + 1):
            command = infra_core(urls, Path(name, f"out-{turn}"))
            begun = time.perf_counter()
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=ENVIRONMENT) as process:
                connection, _ = server.accept()
                connection.recv(65_536)
                requested.append(time.perf_counter() - begun)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                process.wait()
                whole.append(time.perf_counter() - begun)
                connection.close()
            if process.returncode:
                raise SystemExit(f"the run ended with {process.returncode}")
    for what, found in (("its request", requested), ("its end", whole)):
        median = statistics.median(found[1:])
        print(f"one URL, from the start of the process to {what}: {median:.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=1_000)
    parser.add_argument("--size", type=int, default=16_384)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--start", action="store_true")
    options = parser.parse_args()
    if options.resume:
        resume(options)
    elif options.memory:
        memory(options)
    elif options.start:
        start(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
