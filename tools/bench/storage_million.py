"""Memory and time of trees with up to a million files: listed, planned up, planned down.

Run it with `hatch run bench:million`; `--counts 10000 100000` leaves the million out, `--flat` puts
all local files into one folder. Each measurement has a process of its own and says by how much its
peak memory grew over what a tree of ten files takes. The container is a small server on loopback
that speaks List Blobs, in pages of 5,000; the local files are empty.
"""

import argparse
import asyncio
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

FOLDER = 1000  # files in each folder, unless all are in one
PAGE = 5000
HEAD = b"HTTP/1.1 200 OK\r\nx-ms-request-id: 1\r\nContent-Length: %d\r\n\r\n"
JOBS = {
    "list": "iter_tree, page by page",
    "up": "sync_tree up, dry run, against as many blobs",
    "down": "sync_tree down, dry run, into an empty folder",
    "extra": "the same with delete, into as many files",
    "all": "list_tree: the whole as one list",
}


def name_of(number: int, flat: bool) -> str:
    """The relative name of a file."""
    return f"file-{number:07}.bin" if flat else f"{number // FOLDER:04}/file-{number:07}.bin"


# -- the container ----------------------------------------------------------------------------


def page_of(first: int, count: int, prefix: str, flat: bool) -> bytes:
    """One page of a listing; every second blob is larger than its local file."""
    last = min(first + PAGE, count)
    blobs = "".join(
        f"<Blob><Name>{prefix}{name_of(n, flat)}</Name><Properties>"
        "<Last-Modified>Mon, 23 Nov 2026 12:00:00 GMT</Last-Modified>"
        f"<Etag>0x{n:015X}</Etag><Content-Length>{n % 2}</Content-Length>"
        "<Content-Type>application/octet-stream</Content-Type>"
        "<Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>BlockBlob</BlobType>"
        "</Properties></Blob>"
        for n in range(first, last)
    )
    marker = f"<NextMarker>{last}</NextMarker>" if last < count else "<NextMarker />"
    return (
        '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
        f"<Blobs>{blobs}</Blobs>{marker}</EnumerationResults>"
    ).encode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection: a prefix `N/` or `N-flat/` lists N blobs."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            query = parse_qs(urlsplit(head.split(b" ", 2)[1].decode()).query)
            prefix, marker = query["prefix"][0], int(query.get("marker", ["0"])[0])
            count, _, kind = prefix.rstrip("/").partition("-")
            body = page_of(marker, int(count), prefix, kind == "flat")
            writer.write(HEAD % len(body))
            writer.write(body)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def serve(port: "multiprocessing.SimpleQueue[int]") -> None:
    """Serve until the process is ended."""

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


# -- one measurement --------------------------------------------------------------------------


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(job: str, endpoint: str, base: Path, name: str) -> None:
    """Do one job and print by how much the peak grew, how long it took, and on how many files."""
    from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, FileOutcome

    settings = AzureStorageSettings(
        "bench", f"AccountName=bench;AccountKey=a2V5;BlobEndpoint={endpoint}/bench"
    )
    seen = 0

    def count(outcome: FileOutcome) -> None:
        nonlocal seen
        seen += 1

    with AzureStorageClient.from_settings(settings, "strict", base_path=base) as client:

        def work(name: str) -> int:
            nonlocal seen
            seen = 0
            if job == "list":
                return sum(1 for _ in client.iter_tree(base / name))
            if job == "all":
                return len(client.list_tree(base / name))
            if job == "down":
                client.base_path = base / "empty"
                client.sync_tree(base / "empty" / name, "down", dry_run=True, on_outcome=count)
                return seen
            client.sync_tree(
                base / name, "up" if job == "up" else "down", dry_run=True, compare="size",
                delete=job == "extra", on_outcome=count,
            )  # fmt: skip
            return seen

        work("10")  # whatever is loaded on first use
        before, started = peak(), time.perf_counter()
        done = work(name)
        print(f"{peak() - before:.1f} {time.perf_counter() - started:.1f} {done}")


# -- all of them ------------------------------------------------------------------------------


def make_tree(base: Path, count: int, flat: bool) -> str:
    """Make `count` empty files; their folder's name says how many the container has."""
    name = f"{count}-flat" if flat else str(count)
    for number in range(count):
        if number == 0 or (not flat and number % FOLDER == 0):
            (base / name / name_of(number, flat)).parent.mkdir(parents=True, exist_ok=True)
        path = f"{base}/{name}/{name_of(number, flat)}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    return name


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        job, endpoint, base, name = arguments.one
        measure(job, endpoint, Path(base), name)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a million files are not left behind
    context = multiprocessing.get_context("spawn")
    port = context.SimpleQueue()
    server = context.Process(target=serve, args=(port,), daemon=True)
    server.start()
    endpoint = f"http://127.0.0.1:{port.get()}"
    base = Path(tempfile.mkdtemp(prefix="bench-million-"))
    print(f"{'files':>9} {'job':<6}{'peak grew':>12}{'time':>9}{'a file':>9}")
    try:
        make_tree(base, 10, flat=False)
        for count in arguments.counts:
            name = make_tree(base, count, arguments.flat)
            for job in arguments.jobs:
                done = subprocess.run(
                    [sys.executable, __file__, "--one", job, endpoint, str(base), name],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
                grown, seconds, seen = done.stdout.split()
                assert int(seen) == count, (job, seen)
                each = float(seconds) / count * 1e6
                print(
                    f"{count:>9,} {job:<6}{grown:>8} MiB{seconds:>7} s{each:>6.0f} us", flush=True
                )
            shutil.rmtree(base / name)
    finally:
        server.terminate()
        shutil.rmtree(base)
    for job in arguments.jobs:
        print(f"{job}: {JOBS[job]}")


if __name__ == "__main__":
    main()
