"""Many downloads and kill -9: what was reported is there whole, and what is there is whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.fs import is_partial, remove_stale_partials
from infra_core.http.assets import download_many
from infra_core.http.testing import FaultyOrigin

COUNT = 300
BODIES = {str(number): os.urandom(2_000 + 97 * number) for number in range(COUNT)}

# Prints each step: "recorded N" where the commit hook is, "returned N" where the download returns.
PROGRAM = """
import asyncio, os, sys
from pathlib import Path
from infra_core.http.assets import AssetDownloadClient, CommitGroup, download_many

base, folder, way, levels = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
paths = {str(n): folder.joinpath(*str(n % 7) * levels, str(n)) for n in range(int(sys.argv[5]))}

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

def record(results):
    for result in results:
        say("recorded", result.path.name)

async def grouped():
    client, group, slots = AssetDownloadClient(), CommitGroup(after=record), asyncio.Semaphore(16)

    async def one(name, path):
        await slots.acquire()
        free = iter([slots.release])
        def leave(size=0):
            for release in free:
                release()
        await client.download(f"{base}/{name}", path, group=group, on_received=leave)
        leave()
        say("returned", name)

    await asyncio.gather(*(one(*pair) for pair in paths.items()))

if way == "group":
    asyncio.run(grouped())
else:
    download_many(
        [(f"{base}/{name}", path) for name, path in paths.items()],
        concurrency=16,
        on_outcome=lambda outcome: say("returned", outcome.unwrap().path.name),
    )
"""


@pytest.fixture(scope="module")
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        for name, body in BODIES.items():
            server.add(f"/{name}", body)
        yield server


def whole(folder: Path) -> set[str]:
    """The names of all files, after a check that each is whole or called partial."""
    found = set()
    for path in folder.rglob("*"):
        if path.is_file() and not is_partial(path):
            assert path.read_bytes() == BODIES[path.name]
            found.add(path.name)
    return found


@pytest.mark.posix(reason="no SIGKILL there")
@pytest.mark.parametrize("lines", [1, 150])
@pytest.mark.parametrize("levels", [0, 2])
@pytest.mark.parametrize("way", ["group", "many"])
def test_what_was_reported_is_there_after_a_kill(
    origin: FaultyOrigin, tmp_path: Path, way: str, levels: int, lines: int
) -> None:
    """Killed after so many lines; the next run brings the rest, and no part stays."""
    base = origin.url("/0")[:-2]
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, base, str(tmp_path), way, str(levels), str(COUNT)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    child.kill()
    said += [line for line in child.stdout if line.endswith("\n")]
    child.stdout.close()
    child.wait()
    steps = [tuple(line.split()) for line in said]
    there = whole(tmp_path)
    assert {name for _, name in steps} <= there
    recorded = [name for step, name in steps if step == "recorded"]
    assert len(recorded) == len(set(recorded))
    if way == "group":  # no download returns before the record is there
        assert all(
            steps.index(("recorded", name)) < steps.index(("returned", name))
            for step, name in steps
            if step == "returned"
        )
    outcomes = download_many(
        [(f"{base}/{n}", tmp_path.joinpath(*str(n % 7) * levels, str(n))) for n in range(COUNT)]
    )
    assert all(outcome.ok for outcome in outcomes)
    assert {outcome.item.dest_path.name for outcome in outcomes if outcome.unwrap().reused} >= there
    assert whole(tmp_path) == set(BODIES)
    for folder in [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]:
        remove_stale_partials(folder, older_than=0.0)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == COUNT
