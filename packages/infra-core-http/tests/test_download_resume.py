"""Resuming: after a kill, on request, and never with bytes that are not proven good."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from infra_core.fs import is_partial, write_json_atomic
from infra_core.http import DownloadDeadlineError
from infra_core.http.assets import download_asset, download_asset_async
from infra_core.http.download import _sidecar
from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    change_etag,
    corrupt,
    ignore_range,
    refuse_range,
    stall,
    status,
    truncate,
    wrong_range,
)

pytestmark = pytest.mark.as_windows

T = TypeVar("T")
BODY = os.urandom(3_000_000)
CUT = 2_500_000
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in another thread: pytest-asyncio keeps a loop for this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(autouse=True)
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notes for files of a few hundred kilobytes."""
    monkeypatch.setattr(_sidecar, "CHECKPOINT", 200_000)


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        yield server


def interrupt(origin: FaultyOrigin, dest: Path, **options: Any) -> None:
    """Leave a kept part of 2.5 MB: cancel as soon as so much has come."""

    async def main() -> None:
        come = asyncio.Event()

        def progress_seen(done: int, total: int | None) -> None:
            if done == CUT:
                come.set()

        task = asyncio.ensure_future(
            download_asset_async(
                origin.url("/f"), dest, keep_partial=True, progress=progress_seen, **options
            )
        )
        await come.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    origin.add("/f", BODY, etag='"v1"', faults=[stall(after=CUT)])
    run(main())


def ranges(origin: FaultyOrigin) -> list[str | None]:
    return [request.headers.get("Range") for request in origin.requests]


def test_a_killed_process_leaves_a_part_that_the_next_call_continues(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """kill -9 in the middle; the next call asks for the rest, with If-Range, and cleans up."""
    origin.add("/f", BODY, etag='"v1"', faults=[stall(after=CUT)])
    dest = tmp_path / "f.bin"
    script = f"""
        from pathlib import Path
        from infra_core.http.assets import download_asset
        from infra_core.http.download import _sidecar
        _sidecar.CHECKPOINT = 200_000
        def stop(done, total):
            if done >= {CUT}:
                print("there", flush=True)
        download_asset({origin.url("/f")!r}, Path({str(dest)!r}), progress=stop)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    notes = [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    child.kill()
    child.wait()
    child.stdout.close()
    assert notes
    assert all(is_partial(path) for path in tmp_path.iterdir())
    result = download_asset(origin.url("/f"), dest, expected_checksum=CHECKSUM)
    assert dest.read_bytes() == BODY
    assert result.resumed
    last = origin.requests[-1]
    start = int((last.headers["Range"]).removeprefix("bytes=").removesuffix("-"))
    assert 0 < start <= CUT
    assert last.headers["If-Range"] == '"v1"'
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.bin"]


def test_a_kept_part_is_continued(origin: FaultyOrigin, tmp_path: Path) -> None:
    """`keep_partial` leaves part and note, both of which look partial; the next call uses them."""
    interrupt(origin, tmp_path / "f.bin")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert all(is_partial(name) for name in names)
    result = download_asset(origin.url("/f"), tmp_path / "f.bin")
    assert (result.resumed, result.checksum) == (True, CHECKSUM)
    assert ranges(origin) == [None, f"bytes={CUT}-"]
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert [entry.name for entry in tmp_path.iterdir()] == ["f.bin"]


def test_notes_are_few(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them costs a flush and a file; so much is lost at most when the process is killed."""
    monkeypatch.setattr(_sidecar, "CHECKPOINT", 2_000_000)
    offsets: list[int] = []

    def noted(path: Path, fields: dict[str, Any], **options: Any) -> None:
        offsets.append(fields["offset"])
        write_json_atomic(path, fields, **options)

    monkeypatch.setattr(_sidecar, "write_json_atomic", noted)
    origin.add("/f", BODY, etag='"v1"')
    download_asset(origin.url("/f"), tmp_path / "f")
    (offset,) = offsets
    assert 2_000_000 <= offset < len(BODY)


def test_a_part_that_was_continued_is_kept_once(origin: FaultyOrigin, tmp_path: Path) -> None:
    """What a killed process left under a name of its own is removed, not left to the sweep."""
    interrupt(origin, tmp_path / "f")
    (note,) = tmp_path.glob(".*.json")
    fields = json.loads(note.read_text())
    own = fields["partial"] + ".of-the-killed"
    (tmp_path / fields["partial"]).rename(tmp_path / own)
    note.write_text(json.dumps({**fields, "partial": own}))
    origin.script("/f", stall(after=1000))
    with pytest.raises(httpx.ReadTimeout):
        download_asset(
            origin.url("/f"), tmp_path / "f", keep_partial=True, timeout=0.2, max_retries=0
        )
    assert ranges(origin)[-1] == f"bytes={fields['offset']}-"
    assert {path.name for path in tmp_path.iterdir()} == {fields["partial"], note.name}


def test_a_part_is_kept_on_deadline_and_failure(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The same for the other ways to end."""
    origin.add("/f", BODY, etag='"v1"', always=stall(after=CUT))
    with pytest.raises(DownloadDeadlineError):
        download_asset(origin.url("/f"), tmp_path / "f", keep_partial=True, deadline=1)
    origin.add("/g", BODY, etag='"v1"', always=stall(after=CUT))
    with pytest.raises(httpx.ReadTimeout):
        download_asset(
            origin.url("/g"), tmp_path / "g", keep_partial=True, timeout=0.5, max_retries=0
        )
    assert len(list(tmp_path.iterdir())) == 4
    origin.add("/g", BODY, etag='"v1"')
    assert download_asset(origin.url("/g"), tmp_path / "g").resumed
    assert (tmp_path / "g").read_bytes() == BODY


def test_nothing_is_kept_without_being_asked(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Failure, deadline and cancellation leave an empty folder."""
    origin.add("/f", BODY, etag='"v1"', always=stall(after=CUT))
    with pytest.raises(httpx.ReadTimeout):
        download_asset(origin.url("/f"), tmp_path / "f", timeout=0.2, max_retries=0)
    with pytest.raises(DownloadDeadlineError):
        download_asset(origin.url("/f"), tmp_path / "f", deadline=0.3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fault",
    [wrong_range(), wrong_range(7), ignore_range(), refuse_range(), corrupt(),
     change_etag('"v2"'), change_etag(None), truncate(100), status(503), status(412)],
    ids=repr,
)  # fmt: skip
def test_a_server_that_does_not_continue_properly(
    origin: FaultyOrigin, tmp_path: Path, fault: Fault
) -> None:
    """200, 412, 416 and another offset restart; the file is right in the end."""
    interrupt(origin, tmp_path / "f")
    origin.script("/f", fault)
    download_asset(origin.url("/f"), tmp_path / "f", backoff=0.001, expected_checksum=CHECKSUM)
    assert (tmp_path / "f").read_bytes() == BODY
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_file_that_changed_meanwhile_is_fetched_whole(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """If-Range fails on the new version: no mixture of two files."""
    interrupt(origin, tmp_path / "f")
    new = os.urandom(len(BODY))
    origin.script("/f", change_etag('"v2"', body=new))
    assert not download_asset(origin.url("/f"), tmp_path / "f").resumed
    assert (tmp_path / "f").read_bytes() == new


def test_a_part_with_a_weak_tag_is_not_continued(origin: FaultyOrigin, tmp_path: Path) -> None:
    """It says that the bytes may be others, and so they are."""

    def weaken(exchange: Exchange) -> None:
        exchange.reply.headers["ETag"] = 'W/"v1"'

    interrupt(origin, tmp_path / "f")
    origin.script("/f", Fault("weak etag", weaken) & corrupt())
    assert not download_asset(origin.url("/f"), tmp_path / "f").resumed
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("damage", ["part altered", "part cut", "part gone", "note cut", "note odd",
                                    "note foreign"])  # fmt: skip
def test_what_is_damaged_is_not_continued(
    origin: FaultyOrigin, tmp_path: Path, damage: str
) -> None:
    """A part that its note does not prove is dropped, whatever happened to it."""
    interrupt(origin, tmp_path / "f")
    (note,) = tmp_path.glob(".*.json")
    (part,) = (path for path in tmp_path.iterdir() if path != note)
    if damage == "part altered":
        content = bytearray(part.read_bytes())
        content[1000] ^= 1
        part.write_bytes(content)
    elif damage == "part cut":
        os.truncate(part, 1000)
    elif damage == "part gone":
        part.unlink()
    elif damage == "note cut":
        note.write_bytes(note.read_bytes()[:40])
    else:
        fields = json.loads(note.read_text())
        change = {"offset": -5} if damage == "note odd" else {"source": "0" * 64}
        note.write_text(json.dumps({**fields, **change}))
    result = download_asset(origin.url("/f"), tmp_path / "f")
    assert not result.resumed
    assert ranges(origin)[-1] is None
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize(
    ("size", "etag", "keep"),
    [(1000, '"v1"', False), (1000, 'W/"v1"', True), (300_000, None, False), (0, '"v1"', True)],
)
def test_what_could_not_be_continued_is_not_locked(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int,
    etag: str | None, keep: bool,
) -> None:  # fmt: skip
    """Nor is its file opened before its bytes have come: a small one costs no more than that."""
    locked: list[object] = []
    monkeypatch.setattr(_sidecar, "lock_descriptor", lambda *given, **_: locked.append(given))
    origin.add("/f", BODY[:size], etag=etag)
    download_asset(origin.url("/f"), tmp_path / "f", keep_partial=keep)
    assert locked == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_part_of_another_url_is_left_alone(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Two URLs with one path do not take each other's parts."""
    interrupt(origin, tmp_path / "f")
    origin.add("/g", BODY[::-1], etag='"v1"')
    assert not download_asset(origin.url("/g"), tmp_path / "f").resumed
    assert (tmp_path / "f").read_bytes() == BODY[::-1]


def test_a_part_whose_writer_lives_is_left_alone(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Two downloads of one URL to one path at once: the second does not touch the first's part."""

    async def both() -> None:
        origin.add("/f", BODY, etag='"v1"', faults=[stall(after=CUT)])
        come = asyncio.Event()

        def progress_seen(done: int, total: int | None) -> None:
            if done == CUT:
                come.set()

        first = asyncio.ensure_future(
            download_asset_async(
                origin.url("/f"), tmp_path / "f", progress=progress_seen, timeout=0.5, backoff=0.001
            )
        )
        await come.wait()
        second = await download_asset_async(origin.url("/f"), tmp_path / "f")
        assert not second.resumed
        assert (tmp_path / "f").read_bytes() == BODY
        await first
        assert (tmp_path / "f").read_bytes() == BODY

    run(both())


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_etag_nothing_is_continued(
    origin: FaultyOrigin, tmp_path: Path, etag: str | None
) -> None:
    """A weak tag does not pin bytes (RFC 9110 8.8.1)."""
    origin.add("/f", BODY, etag=etag, faults=[stall(after=CUT)])
    with pytest.raises(httpx.ReadTimeout):
        download_asset(
            origin.url("/f"), tmp_path / "f", keep_partial=True, timeout=0.2, max_retries=0
        )
    assert list(tmp_path.iterdir()) == []
    download_asset(origin.url("/f"), tmp_path / "f")
    assert ranges(origin) == [None, None]


def test_continued_file_is_checked_with_other_algorithms(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The part is hashed again for whatever checksum is asked for now."""
    interrupt(origin, tmp_path / "f", compute_checksum=False)
    result = download_asset(
        origin.url("/f"),
        tmp_path / "f",
        compute_checksum=False,
        expected_checksum=f"md5:{hashlib.md5(BODY).hexdigest()}",
    )
    assert result.resumed
    assert result.checksum == f"md5:{hashlib.md5(BODY).hexdigest()}"


def test_a_torn_note_is_swept(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A process that was killed while it wrote its note leaves nothing after the next success."""
    interrupt(origin, tmp_path / "g[1].bin")
    (note,) = tmp_path.glob(".*.json")
    torn = note.with_name(f".{note.stem}.0123456789abcdef.part.json")
    torn.write_bytes(b"{")
    assert is_partial(torn)
    assert download_asset(origin.url("/f"), tmp_path / "g[1].bin").resumed
    assert not torn.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"etag": '"caf\xe9"'},
        {"etag": '"a\x1bb"'},
        {"etag": 'W/"v1"'},
        {"etag": 7},
        {"offset": "1"},
        {"offset": -1},
        {"total": None},
        {"partial": 5},
        {"partial": "../f"},
        {"partial": ""},
        {"sha256": None},
        {"version": "1"},
    ],
    ids=repr,
)
def test_a_note_that_makes_no_sense_is_not_believed(
    origin: FaultyOrigin, tmp_path: Path, change: dict[str, object]
) -> None:
    """Whatever stands in it: the file is downloaded, and nothing else is left in the end."""
    interrupt(origin, tmp_path / "f")
    (note,) = [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    note.write_text(json.dumps({**json.loads(note.read_text()), **change}))
    result = download_asset(origin.url("/f"), tmp_path / "f", expected_checksum=CHECKSUM)
    assert not result.resumed
    assert (tmp_path / "f").read_bytes() == BODY


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", '{"a": 1}', "\xff"])
def test_a_note_that_is_none_is_removed(origin: FaultyOrigin, tmp_path: Path, text: str) -> None:
    """Cut by a crash, or of somebody else."""
    interrupt(origin, tmp_path / "f")
    (note,) = [path for path in tmp_path.iterdir() if path.suffix == ".json"]
    note.write_bytes(text.encode("latin-1"))
    origin.add("/f", b"a file that has no note of its own")
    download_asset(origin.url("/f"), tmp_path / "f")
    assert not note.exists()
