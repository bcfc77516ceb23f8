"""Downloads against nginx on loopback: one large file, many small ones, memory; all in one run.

    python tools/bench/download.py [--quick] [--rounds N]

Starts its own nginx in a temporary folder on a free port. Every contender runs in a process of its
own, sha256 on, in turns, so that a busy machine disturbs all of them alike; the ratios compare
medians. Needs nginx; curl, aria2c, httpx, aiohttp, requests and pooch join when they are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

MIB = 1 << 20

# Each contender is a program of its own: `python -c CODE big URL DEST` and so on. What it prints
# is the wall time of the work alone, without the start of Python.
PRELUDE = """
import asyncio, hashlib, os, sys, time
from pathlib import Path
from concurrent.futures import ThreadPoolExecutor
kind, base, dest = sys.argv[1], sys.argv[2], Path(sys.argv[3])
names = [f"small/{i}" for i in range(int(sys.argv[4]))] if kind == "small" else ["big"]
urls = [f"{base}/{name}" for name in names]
files = [dest / str(i) for i in range(len(urls))]
def save(path, chunks):
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for chunk in chunks:
            digest.update(chunk)
            file.write(chunk)
async def bounded(one, limit=32):
    queue = iter(list(zip(urls, files)))
    async def work():
        for url, path in queue:
            await one(url, path)
    await asyncio.gather(*(work() for _ in range(limit)))
def memory(field):  # getrusage() would count the process that started us as well
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024
def report(started, before=0):
    print(time.perf_counter() - started, memory("VmHWM") - before)
"""

PROGRAMS = {
    "infra-core": """
from infra_core.http.assets import download_many_async
import infra_core.http.download._calls
async def main():
    before = memory("VmRSS")
    started = time.perf_counter()
    outcomes = await download_many_async(zip(urls, files), concurrency=32)
    assert all(outcome.ok for outcome in outcomes)
    report(started, before)
asyncio.run(main())
""",
    "infra-core durable=False": """
from infra_core.http.assets import download_many_async
import infra_core.http.download._calls
async def main():
    started = time.perf_counter()
    outcomes = await download_many_async(zip(urls, files), concurrency=32, durable=False)
    assert all(outcome.ok for outcome in outcomes)
    report(started)
asyncio.run(main())
""",
    "httpx": """
import httpx
async def main():
    started = time.perf_counter()
    async with httpx.AsyncClient() as client:
        async def one(url, path):
            digest = hashlib.sha256()
            async with client.stream("GET", url) as response:
                with open(path, "wb") as file:
                    async for chunk in response.aiter_raw():
                        digest.update(chunk)
                        file.write(chunk)
        await bounded(one)
    report(started)
asyncio.run(main())
""",
    "aiohttp": """
import aiohttp
async def main():
    started = time.perf_counter()
    async with aiohttp.ClientSession() as client:
        async def one(url, path):
            digest = hashlib.sha256()
            async with client.get(url) as response:
                with open(path, "wb") as file:
                    async for chunk in response.content.iter_any():
                        digest.update(chunk)
                        file.write(chunk)
        await bounded(one)
    report(started)
asyncio.run(main())
""",
    "requests": """
import requests, threading
local = threading.local()
def one(pair):
    url, path = pair
    session = local.__dict__.setdefault("session", requests.Session())
    with session.get(url, stream=True) as response:
        save(path, response.iter_content(65536))
started = time.perf_counter()
with ThreadPoolExecutor(32) as pool:
    list(pool.map(one, zip(urls, files)))
report(started)
""",
    "pooch": """
import pooch
pooch.get_logger().setLevel("ERROR")
def one(pair):
    url, path = pair
    pooch.retrieve(url, known_hash=None, fname=path.name, path=path.parent)
    hashlib.sha256(path.read_bytes())
started = time.perf_counter()
with ThreadPoolExecutor(32) as pool:
    list(pool.map(one, zip(urls, files)))
report(started)
""",
}

LIBRARIES = {"httpx", "aiohttp", "requests", "pooch"}  # left out where they are not installed


class Nginx:
    """An nginx of our own, serving one folder; `more` stands in its server block."""

    def __init__(self, root: Path, home: Path, more: str = "") -> None:
        home.mkdir(exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        temp = " ".join(
            f"{name}_temp_path {home}/{name};"
            for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        config = home / "nginx.conf"
        config.write_text(
            f"daemon off; worker_processes 1; pid {home}/pid; error_log {home}/error.log;\n"
            "events { worker_connections 1024; }\n"
            f"http {{ access_log off; sendfile on; keepalive_requests 10000000; {temp}\n"
            "default_type text/html;\n"
            f"server {{ listen 127.0.0.1:{port}; root {root}; {more} }} }}\n"
        )
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise SystemExit("nginx is not installed: apt install nginx-light, or brew install it")
        self.process = subprocess.Popen([nginx, "-c", str(config)], stderr=subprocess.DEVNULL)
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.05)
        raise SystemExit("nginx did not start: is it installed?")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def python_contender(
    name: str, kind: str, base: str, dest: Path, count: int
) -> tuple[float, float]:
    """Run one program; its own wall seconds and its growth of memory in MiB."""
    command = [sys.executable, "-c", PRELUDE + PROGRAMS[name], kind, base, str(dest), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    seconds, grown = done.stdout.split()
    return float(seconds), float(grown)


def shell_contender(name: str, kind: str, base: str, dest: Path, urls: Path) -> float:
    """Run curl or aria2c and take the wall time of the whole process: they start in no time."""
    commands = {
        ("curl | sha256sum", "big"): f"curl -s {base}/big | sha256sum >/dev/null",
        ("aria2c -j32", "small"): f"aria2c -q -j32 -d {dest} -i {urls}",
        (
            "aria2c -j32",
            "big",
        ): f"aria2c -q -d {dest} {base}/big && sha256sum {dest}/big >/dev/null",
    }
    started = time.perf_counter()
    subprocess.run(["/bin/sh", "-c", commands[name, kind]], check=True)
    return time.perf_counter() - started


def measure(
    kind: str, rounds: int, base: str, work: Path, count: int, urls: Path
) -> dict[str, float]:
    """Median seconds of every contender, in turns; the first turn warms everybody up.

    Nothing is deleted before the last turn: that slows down the files of the next one.
    """
    shells = {"big": ["curl | sha256sum", "aria2c -j32"], "small": ["aria2c -j32"]}[kind]
    names = [name for name in shells if shutil.which(name.split()[0])]
    names += [name for name in PROGRAMS if name not in LIBRARIES or find_spec(name)]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for number, name in enumerate(names):
            dest = work / f"{kind}-{turn}-{number}"
            dest.mkdir()
            if name in PROGRAMS:
                seconds, _ = python_contender(name, kind, base, dest, count)
            else:
                seconds = shell_contender(name, kind, base, dest, urls)
            if turn:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def show(title: str, medians: dict[str, float], reference: str, allowed: float) -> bool:
    """Print a table with ratios to infra-core; say whether the goal is met."""
    ours = medians["infra-core"]
    print(f"\n{title}")
    for name, seconds in sorted(medians.items(), key=lambda pair: pair[1]):
        print(f"  {name:26} {seconds:8.3f} s   {seconds / ours:5.2f} x the time of infra-core")
    if reference not in medians:
        return True
    ratio = ours / medians[reference]
    good = ratio <= allowed
    verdict = "met" if good else "MISSED"
    print(f"  infra-core / {reference} = {ratio:.2f}, goal at most {allowed:.2f}: {verdict}")
    return good


def main() -> int:
    """Run everything; the exit status is 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="two rounds, no 1 GiB file")
    parser.add_argument("--only", choices=["big", "small", "memory"], help="one part alone")
    parser.add_argument("--json", type=Path, help="write the medians to this file")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nginx is stopped then too
    rounds = 2 if options.quick else options.rounds
    count = 1000
    big: dict[str, float] = {}
    small: dict[str, float] = {}
    grown, good = 0.0, True
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        root = work / "www"
        (root / "small").mkdir(parents=True)
        work.chmod(0o755)
        (root / "big").write_bytes(os.urandom(100 * MIB))
        for index in range(count):
            (root / "small" / str(index)).write_bytes(os.urandom(16 * 1024))
        nginx = Nginx(root, work / "nginx")
        urls = work / "urls"
        urls.write_text("".join(f"{nginx.base}/small/{index}\n" for index in range(count)))
        try:
            if options.only in {None, "big"}:
                big = measure("big", rounds, nginx.base, work, count, urls)
                good &= show("100 MiB, one file, sha256 on", big, "curl | sha256sum", 0.6)
            if options.only in {None, "small"}:
                small = measure("small", rounds, nginx.base, work, count, urls)
                good &= show("1,000 files of 16 KiB, 32 at once", small, "aria2c -j32", 0.9)
            if options.only == "memory" or not (options.only or options.quick):
                with (root / "big").open("wb") as file:
                    for _ in range(64):
                        file.write(os.urandom(16 * MIB))
                dest = work / "out"
                dest.mkdir()
                seconds, grown = python_contender("infra-core", "big", nginx.base, dest, count)
                print(f"\n1 GiB: {seconds:.2f} s, memory grew by {grown:.1f} MiB, goal below 60")
                good &= grown < 60
        finally:
            nginx.stop()
    if options.json:
        options.json.write_text(json.dumps({"big": big, "small": small, "grown_mib": grown}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
