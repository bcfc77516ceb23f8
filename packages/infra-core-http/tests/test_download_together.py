"""download_many ends its small files in batches; each keeps the promise of a single download."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from infra_core.fs import commit_together
from infra_core.http import ChecksumMismatchError, DownloadDiskError
from infra_core.http.assets import download_asset_async, download_many_async
from infra_core.http.download import _commit
from infra_core.http.download._sidecar import Sidecar
from infra_core.http.testing import FaultyOrigin, corrupt

BODIES = [os.urandom(3_000 + number) for number in range(24)]
LARGE = os.urandom(2_500_000)


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        for number, body in enumerate(BODIES):
            server.add(f"/{number}", body)
        server.add("/large", LARGE)
        yield server


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names of the files of each batch."""
    seen: list[list[str]] = []

    def spy(files: list[Any], **options: Any) -> list[Exception | None]:
        errors = real(files, **options)
        seen.append([file.result.path.name for file in files])
        return errors

    real: Callable[..., list[Exception | None]] = commit_together
    monkeypatch.setattr(_commit, "commit_together", spy)
    return seen


def items(origin: FaultyOrigin, folder: Path, count: int = 24) -> list[tuple[str, Path]]:
    return [(origin.url(f"/{number}"), folder / str(number)) for number in range(count)]


def whole(folder: Path) -> set[str]:
    """The names in a folder, after a check that each is that of a whole file."""
    for path in folder.iterdir():
        assert path.read_bytes() == BODIES[int(path.name)]
    return {path.name for path in folder.iterdir()}


async def test_small_files_are_committed_in_batches(
    origin: FaultyOrigin, tmp_path: Path, batches: list[list[str]]
) -> None:
    """Each once, with its own digest and bytes."""
    outcomes = await download_many_async(items(origin, tmp_path), concurrency=12)
    assert [outcome.unwrap().checksum for outcome in outcomes] == [
        f"sha256:{hashlib.sha256(body).hexdigest()}" for body in BODIES
    ]
    assert whole(tmp_path) == set(map(str, range(24)))
    assert sorted(chain.from_iterable(batches), key=int) == list(map(str, range(24)))
    assert len(batches) < 24


@pytest.mark.posix
async def test_every_name_appears_after_its_bytes_are_on_the_disk(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush of the file before its name, a flush of its folder before the call returns."""
    flushed: set[int] = set()
    unflushed: list[str] = []
    named_since: set[str] = set()
    lock = threading.Lock()
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        status = os.fstat(descriptor)
        with lock:
            before = set(named_since)
        real_fsync(descriptor)
        with lock:
            flushed.add(status.st_ino)
            if stat.S_ISDIR(status.st_mode):
                named_since.difference_update(before)

    def replace(source: Any, target: Any) -> None:
        with lock:
            if os.stat(source).st_ino not in flushed:  # noqa: PTH116
                unflushed.append(str(target))
        real_replace(source, target)
        with lock:
            named_since.add(str(target))

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    unsafe: list[Path] = []

    def look(outcome: Any) -> None:
        with lock:
            if str(outcome.item.dest_path) in named_since:
                unsafe.append(outcome.item.dest_path)

    outcomes = await download_many_async(items(origin, tmp_path), on_outcome=look, concurrency=12)
    assert all(outcome.ok for outcome in outcomes)
    assert not unflushed
    assert not unsafe
    assert not named_since


async def test_a_single_download_is_committed_alone(
    origin: FaultyOrigin, tmp_path: Path, batches: list[list[str]]
) -> None:
    """There is no other file to share a flush with."""
    await download_asset_async(origin.url("/1"), tmp_path / "1")
    assert whole(tmp_path) == {"1"}
    assert batches == [["1"]]


async def test_a_large_file_holds_up_no_small_ones(
    origin: FaultyOrigin, tmp_path: Path, batches: list[list[str]]
) -> None:
    """Its flush takes long, so it has one of its own."""
    await download_many_async(
        [*items(origin, tmp_path, 3), (origin.url("/large"), tmp_path / "big")]
    )
    assert (tmp_path / "big").read_bytes() == LARGE
    assert ["big"] in batches
    assert sorted(chain.from_iterable(batches)) == ["0", "1", "2", "big"]


async def test_a_file_that_fails_in_a_batch_fails_alone(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk refuses one name; the others are there, nothing else is."""
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == "5":
            raise PermissionError(1, "Operation not permitted")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    outcomes = await download_many_async(items(origin, tmp_path, 12), concurrency=12)
    assert [number for number, outcome in enumerate(outcomes) if not outcome.ok] == [5]
    assert isinstance(outcomes[5].error, DownloadDiskError)
    assert whole(tmp_path) == set(map(str, range(12))) - {"5"}


async def test_a_digest_that_is_wrong_is_one_file_s_matter(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """It is fetched again, and in the end reported, while its batch goes on."""
    for path in ("/bad", "/worse"):
        origin.add(path, BODIES[0], faults=[corrupt()] * (1 if path == "/bad" else 9))
    expected = f"sha256:{hashlib.sha256(BODIES[0]).hexdigest()}"
    many = [(origin.url("/bad"), tmp_path / "0"), (origin.url("/worse"), tmp_path / "w")]
    outcomes = await download_many_async(
        many, expected_checksum=expected, max_retries=1, backoff=0.001, concurrency=2
    )
    assert outcomes[0].unwrap().attempts == 2
    assert isinstance(outcomes[1].error, ChecksumMismatchError)
    assert whole(tmp_path) == {"0"}


@pytest.mark.parametrize("step", ["fsync", "replace"])
async def test_cancelled_while_a_batch_is_in_its_thread(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The call waits for the thread: then each file is there whole or not at all, no partials."""
    entered, may_go = threading.Event(), threading.Event()
    real = getattr(os, step)

    def held(*args: Any) -> None:
        entered.set()
        assert may_go.wait(30)
        real(*args)

    monkeypatch.setattr(os, step, held)
    call = asyncio.ensure_future(download_many_async(items(origin, tmp_path), concurrency=24))
    assert await asyncio.to_thread(entered.wait, 30)
    call.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not call.done()
    may_go.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    appeared = whole(tmp_path)
    await asyncio.to_thread(lambda: None)
    assert whole(tmp_path) == appeared


async def test_a_callback_that_raises_ends_the_batch_cleanly(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """What was begun is whole; nothing partial stays."""

    def broken(outcome: Any) -> None:
        raise LookupError("stop")

    with pytest.raises(LookupError, match="stop"):
        await download_many_async(items(origin, tmp_path), concurrency=8, on_outcome=broken)
    assert whole(tmp_path)


async def test_nothing_is_looked_for_where_the_folder_had_no_such_name(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a file to reuse nor a part to resume, unless the folder has notes of parts."""
    looked: list[Path] = []
    real = Sidecar.load

    def load(self: Sidecar) -> Any:
        looked.append(self.path.parent)
        return real(self)

    monkeypatch.setattr(Sidecar, "load", load)
    fresh, known, noted = tmp_path / "fresh", tmp_path / "known", tmp_path / "noted"
    for folder in (known, noted):
        folder.mkdir()
        (folder / "0").write_bytes(BODIES[0])
    (noted / ".x.1.part.json").touch()
    outcomes = await download_many_async(
        [*items(origin, fresh, 4), *items(origin, known, 4), *items(origin, noted, 4)]
    )
    reused = [outcome.unwrap().reused for outcome in outcomes]
    assert reused == [False] * 4 + ([True] + [False] * 3) * 2
    assert looked == [noted] * 3
    again = await download_many_async(items(origin, fresh, 4))
    assert all(outcome.unwrap().reused for outcome in again)
