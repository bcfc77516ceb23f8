"""The disk's side of a download: errors, permissions, threads, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import gzip
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core.fs import AtomicFile, FileWriteError
from infra_core.http import DownloadDiskError, DownloadTooLargeError, ResponseTooLarge
from infra_core.http.assets import download_asset, download_asset_async
from infra_core.http.download import _sink, _transfer
from infra_core.http.download._sink import Sink
from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    corrupt,
    gzip_encoded,
    stall,
    truncate,
)
from infra_core.runtime import in_thread
from infra_core.runtime.testing import fast_time

pytestmark = pytest.mark.as_windows

BODY = os.urandom(3_000_000)


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        server.add("/f", BODY, etag='"v1"')
        server.add("/small", BODY[:1000])
        yield server


@pytest.mark.parametrize("path", ["/f", "/small"])
def test_full_disk_is_reported_and_keeps_the_old_file(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """ENOSPC: an error that says so, the old file stands, nothing else is left, no retry."""

    def full(self: AtomicFile, data: bytes) -> int:
        raise FileWriteError(errno.ENOSPC, "no space left; free some", str(self.path))

    monkeypatch.setattr(AtomicFile, "write", full)
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(DownloadDiskError, match="no space left") as caught:
        download_asset(origin.url(path), tmp_path / "f", skip_if_exists=False)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "f"))
    assert (tmp_path / "f").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]
    assert origin.count(path) == 1


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_read_only_folder(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A folder that refuses is an error that names the file."""
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(DownloadDiskError, match=str(tmp_path)):
            download_asset(origin.url("/f"), tmp_path / "f")
    finally:
        tmp_path.chmod(0o700)


def test_folder_that_cannot_be_made(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "file").touch()
    with pytest.raises(DownloadDiskError):
        download_asset(origin.url("/f"), tmp_path / "file" / "f")
    assert (tmp_path / "file").read_bytes() == b""


def test_destination_is_a_folder(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Raised before a request is made."""
    with pytest.raises(DownloadDiskError, match="name a file in it") as caught:
        download_asset(origin.url("/f"), tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path))
    assert origin.requests == []


@pytest.mark.posix(reason="a pipe")
def test_destination_is_a_special_file(origin: FaultyOrigin, tmp_path: Path) -> None:
    """It is not replaced, which root could do to /dev/null."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DownloadDiskError, match="name a regular file"):
        download_asset(origin.url("/f"), tmp_path / "pipe", skip_if_exists=False)
    assert (tmp_path / "pipe").is_fifo()
    assert origin.requests == []


@pytest.mark.posix(reason="symbolic links")
@pytest.mark.parametrize("target", ["f", "nowhere"])
@pytest.mark.parametrize("skip", [True, False])
def test_a_link_that_leads_nowhere_is_replaced(
    origin: FaultyOrigin, tmp_path: Path, target: str, skip: bool
) -> None:
    """To itself, too."""
    (tmp_path / "f").symlink_to(target)
    download_asset(origin.url("/f"), tmp_path / "f", skip_if_exists=skip)
    assert not (tmp_path / "f").is_symlink()
    assert (tmp_path / "f").read_bytes() == BODY


def test_a_name_that_is_too_long_is_an_error_with_the_remedy(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Also where a file of that name is looked for first."""
    with pytest.raises(DownloadDiskError, match="shorten the file name"):
        download_asset(origin.url("/f"), tmp_path / ("x" * 256))


async def test_a_slow_disk_is_no_slow_server(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`min_speed` counts the seconds in which the server could have sent."""
    with fast_time() as time:
        real = Sink.write

        async def write(self: Sink, chunk: bytes) -> None:
            time.advance(1000)
            await real(self, chunk)

        monkeypatch.setattr(Sink, "write", write)
        result = await download_asset_async(
            origin.url("/f"), tmp_path / "f", timeout=60, min_speed=1e9
        )
    assert result.attempts == 1


def test_missing_folders_are_made(origin: FaultyOrigin, tmp_path: Path) -> None:
    """And a name of the greatest length works."""
    dest = tmp_path / "a" / "b" / ("x" * 255)
    download_asset(origin.url("/f"), dest)
    assert dest.read_bytes() == BODY


@pytest.mark.posix(reason="permission bits")
def test_permissions_are_those_of_new_files(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The umask decides for new files; a file that is replaced keeps its bits."""
    (tmp_path / "plain").touch()
    download_asset(origin.url("/f"), tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "new").chmod(0o640)
    download_asset(origin.url("/f"), tmp_path / "new", skip_if_exists=False)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640


@pytest.mark.parametrize("announced", [True, False])
def test_max_bytes(origin: FaultyOrigin, tmp_path: Path, announced: bool) -> None:
    """Refused by its announced length or when it has grown too large; the limit itself is fine."""
    origin.add("/c", BODY, chunked=not announced)
    with pytest.raises(DownloadTooLargeError) as caught:
        download_asset(origin.url("/c"), tmp_path / "f", max_bytes=len(BODY) - 1)
    assert isinstance(caught.value, ResponseTooLarge)
    assert caught.value.limit == len(BODY) - 1
    assert origin.count("/c") == 1
    assert list(tmp_path.iterdir()) == []
    assert download_asset(origin.url("/c"), tmp_path / "f", max_bytes=len(BODY)).size == len(BODY)


@pytest.mark.parametrize("expected", [None, "sha256:" + "0" * 64])
def test_max_bytes_stops_a_compression_bomb(
    origin: FaultyOrigin, tmp_path: Path, expected: str | None
) -> None:
    """What counts is what lands on the disk."""
    origin.add("/bomb", bytes(20_000_000), always=gzip_encoded())
    with pytest.raises(DownloadTooLargeError):
        download_asset(
            origin.url("/bomb"), tmp_path / "f", max_bytes=1_000_000, expected_checksum=expected
        )
    assert list(tmp_path.iterdir()) == []


def test_max_bytes_holds_for_an_encoded_body_that_is_stored_as_sent(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Which no decoding makes smaller."""
    packed = gzip.compress(BODY)
    expected = f"sha256:{hashlib.sha256(packed).hexdigest()}"
    origin.add("/gz", packed, headers={"Content-Encoding": "gzip"})
    with pytest.raises(DownloadTooLargeError):
        download_asset(
            origin.url("/gz"), tmp_path / "f", expected_checksum=expected, max_bytes=len(packed) - 1
        )
    assert list(tmp_path.iterdir()) == []
    download_asset(
        origin.url("/gz"), tmp_path / "f", expected_checksum=expected, max_bytes=len(packed)
    )
    assert (tmp_path / "f").read_bytes() == packed


def test_gzip_of_several_members(origin: FaultyOrigin, tmp_path: Path) -> None:
    """RFC 1952 allows a file of several; padding zeros are no data."""
    packed = gzip.compress(b"one") + gzip.compress(b"two") + bytes(8)
    origin.add("/gz", packed, headers={"Content-Encoding": "gzip"})
    download_asset(origin.url("/gz"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"onetwo"


@pytest.mark.parametrize("bare", [True, False])
def test_deflate_in_both_forms(origin: FaultyOrigin, tmp_path: Path, bare: bool) -> None:
    """The zlib format as HTTP means it, and the bare stream that some servers send."""
    import zlib

    packer = zlib.compressobj(9, zlib.DEFLATED, -15 if bare else 15)
    packed = packer.compress(BODY[:5000]) + packer.flush()
    origin.add("/z", packed, headers={"Content-Encoding": "deflate"})
    download_asset(origin.url("/z"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == BODY[:5000]


def test_an_empty_file_is_a_file(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Zero bytes announced, zero bytes stored."""
    origin.add("/empty", b"")
    result = download_asset(origin.url("/empty"), tmp_path / "f")
    assert (result.size, result.checksum) == (0, f"sha256:{hashlib.sha256().hexdigest()}")
    assert (tmp_path / "f").read_bytes() == b""


async def test_cancellation_waits_for_the_writing_thread(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Cancelled in the middle of a large file: no thread writes on, nothing is left."""
    origin.add("/f", BODY, always=stall(after=2_900_000))
    come = asyncio.Event()

    def progress_seen(done: int, total: int | None) -> None:
        if done >= 2_900_000:
            come.set()

    task = asyncio.ensure_future(
        download_asset_async(origin.url("/f"), tmp_path / "f", progress=progress_seen)
    )
    await come.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names(tmp_path) == []


async def test_few_hops_to_threads(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One hop per megabyte and one for the end; 0.7 made 641 for 10 MiB."""
    hops = []
    original = in_thread

    async def counting(work: Any, *args: Any) -> Any:
        hops.append(work)
        return await original(work, *args)

    monkeypatch.setattr(_sink, "in_thread", counting)
    monkeypatch.setattr(_transfer, "in_thread", counting)
    await download_asset_async(origin.url("/f"), tmp_path / "f")
    assert len(hops) <= len(BODY) // _sink.HANDOVER + 1
    hops.clear()
    await download_asset_async(origin.url("/small"), tmp_path / "s")
    assert len(hops) == 1


def test_durable_files_are_flushed_before_they_are_named(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsync, then rename; not when `durable=False`."""
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        steps.append("fsync")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        steps.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    download_asset(origin.url("/f"), tmp_path / "f")
    assert steps[:2] == ["fsync", "replace"]
    steps.clear()
    download_asset(origin.url("/f"), tmp_path / "g", durable=False)
    assert steps == ["replace"]


def test_a_digest_that_comes_with_the_second_try_is_verified(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The file is hashed by what each answer announces."""
    import base64

    md5 = base64.b64encode(hashlib.md5(BODY).digest()).decode()

    def announce(exchange: Exchange) -> None:
        exchange.reply.headers["Content-MD5"] = md5

    for last in (Fault("announce", announce), corrupt() & Fault("announce", announce)):
        origin.add("/d", BODY, faults=[truncate(2_000_000), last])
        download_asset(origin.url("/d"), tmp_path / "d", skip_if_exists=False, backoff=0.001)
        assert (tmp_path / "d").read_bytes() == BODY
    assert origin.count("/d") == 5


async def test_a_full_disk_while_parts_are_still_coming(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the writing thread is raised, whatever else is to be done at the end."""

    def full(self: AtomicFile, data: bytes) -> int:
        raise FileWriteError(errno.ENOSPC, "no space left", str(self.path))

    monkeypatch.setattr(AtomicFile, "write", full)
    with pytest.raises(DownloadDiskError, match="no space left"):
        await download_asset_async(origin.url("/f"), tmp_path / "f", keep_partial=True, deadline=20)
    assert names(tmp_path) == []
