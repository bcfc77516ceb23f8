"""AtomicFile and the write_*_atomic functions: whole or not at all."""

import asyncio
import errno
import gc
import hashlib
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from infra_core import fs
from infra_core.fs import _atomic

pytestmark = pytest.mark.as_windows
posix_only = pytest.mark.posix(reason="permission bits are a POSIX matter")
not_root = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write anywhere"
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestCommit:
    def test_the_file_appears_under_its_name_only_at_the_commit(self, tmp_path: Path) -> None:
        """The new file cannot be seen before the commit."""
        target = tmp_path / "a.bin"
        with fs.AtomicFile(target) as file:
            file.write(b"abc")
            assert not target.exists()
        assert target.read_bytes() == b"abc"

    def test_nothing_but_the_file_is_left(self, tmp_path: Path) -> None:
        """The temporary file is gone after a commit."""
        fs.write_bytes_atomic(tmp_path / "a.bin", b"abc")
        assert names(tmp_path) == ["a.bin"]

    @pytest.mark.posix
    def test_an_existing_file_is_replaced(self, tmp_path: Path) -> None:
        """A reader that holds the old file keeps reading the old bytes."""
        target = fs.write_bytes_atomic(tmp_path / "a.bin", b"old and longer")
        with target.open("rb") as reader:
            fs.write_bytes_atomic(target, b"new")
            assert reader.read() == b"old and longer"
        assert target.read_bytes() == b"new"

    def test_a_reader_on_windows_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that somebody has open for a moment cannot be replaced there."""
        target = fs.write_bytes_atomic(tmp_path / "a.bin", b"old")
        pauses: list[float] = []
        real_replace = os.replace

        def refuse(source: Any, path: Any) -> None:
            if len(pauses) < 10:
                error = PermissionError(errno.EACCES, "Access is denied", path)
                error.winerror = 5  # type: ignore[attr-defined,unused-ignore]
                raise error
            real_replace(source, path)

        monkeypatch.setattr(os, "replace", refuse)
        monkeypatch.setattr(time, "sleep", pauses.append)
        assert fs.write_bytes_atomic(target, b"new").read_bytes() == b"new"
        assert pauses[:3] == [0.001, 0.002, 0.004]
        assert 1 < sum(pauses) < 2

    def test_missing_folders_are_made(self, tmp_path: Path) -> None:
        """No call to ensure_parent is needed before."""
        assert fs.write_bytes_atomic(tmp_path / "x" / "y" / "a", b"1").read_bytes() == b"1"

    def test_the_temporary_file_lies_beside_the_target(self, tmp_path: Path) -> None:
        """Only within one folder is a rename sure to be one step."""
        with fs.AtomicFile(tmp_path / "logo.png") as file:
            assert file.temp_path.parent == tmp_path
            assert file.temp_path.suffix == ".png"

    @pytest.mark.posix(reason="folders are not flushed there")
    def test_file_then_folder_are_flushed_to_the_disk(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The data is on the disk before the name points to it, then the name is as well."""
        events: list[str] = []
        opened: list[int] = []
        real_fsync, real_replace = os.fsync, os.replace

        def fsync(descriptor: int) -> None:
            opened.append(descriptor)
            kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
            events.append(f"fsync {kind}")
            real_fsync(descriptor)

        def replace(source: Any, target: Any) -> None:
            events.append("replace")
            real_replace(source, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(os, "replace", replace)
        fs.write_bytes_atomic(tmp_path / "a", b"1")
        assert events == ["fsync file", "replace", "fsync folder"]
        for descriptor in opened:
            with pytest.raises(OSError):
                os.fstat(descriptor)

    def test_the_disk_begins_while_a_large_file_comes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the system can be asked to, with bytes that it has; they are right without, too."""
        monkeypatch.setattr(_atomic, "_WRITE_BEHIND", 4)
        begun: list[tuple[int, int, int]] = []

        def advise(descriptor: int, offset: int, count: int, advice: int) -> None:
            begun.append((os.fstat(descriptor).st_size, offset, count))

        has_it = hasattr(_atomic.os, "posix_fadvise")  # type: ignore[attr-defined]
        if has_it:
            monkeypatch.setattr(os, "posix_fadvise", advise)
        for number in range(2):
            with fs.AtomicFile(tmp_path / str(number)) as file:
                for piece in (b"abc", b"def", b"g"):
                    file.write(piece)
            assert (tmp_path / str(number)).read_bytes() == b"abcdefg"
            assert begun == [(6, 0, 6)] * has_it
            monkeypatch.delattr(os, "posix_fadvise", raising=False)

    @pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 3_000_000])
    @pytest.mark.parametrize("way", ["with", "commit", "bytes", "stream", "together"])
    @pytest.mark.posix
    def test_all_bytes_are_the_systems_when_the_file_is_flushed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, way: str
    ) -> None:
        """A flush of a file whose last bytes are still in Python's buffer keeps half of it."""
        data = bytes(number % 251 for number in range(size))
        seen: list[bytes] = []
        real_fsync = os.fsync

        def fsync(descriptor: int) -> None:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                seen.append(os.pread(descriptor, size + 1, 0))
            real_fsync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        path = tmp_path / "f"
        if way == "bytes":
            fs.write_bytes_atomic(path, data)
        elif way == "stream":
            fs.write_stream_atomic(path, [data[:500], data[500:]])
        elif way == "with":
            with fs.AtomicFile(path) as file:
                file.write(data[: size // 2])
                file.write(data[size // 2 :])
        else:
            file = fs.AtomicFile(path)
            file.write(data[: size // 2])
            file.write(data[size // 2 :])
            if way == "commit":
                file.commit()
            else:
                assert fs.commit_together([file]) == [None]
        assert seen == [data]
        assert path.read_bytes() == data

    def test_durable_false_flushes_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Scratch files need no flush and still appear whole."""
        monkeypatch.setattr(os, "fsync", lambda descriptor: pytest.fail("flushed"))
        fs.write_bytes_atomic(tmp_path / "bytes", b"1", durable=False)
        fs.write_text_atomic(tmp_path / "text", "1", durable=False)
        fs.write_json_atomic(tmp_path / "json", 1, durable=False)
        fs.write_stream_atomic(tmp_path / "stream", [b"1"], durable=False)
        assert {path.read_bytes().strip() for path in tmp_path.iterdir()} == {b"1"}

    def test_an_early_commit_inside_the_block_counts(self, tmp_path: Path) -> None:
        """The end of the block does not commit twice."""
        with fs.AtomicFile(tmp_path / "a") as file:
            file.write(b"1")
            assert file.commit() == tmp_path / "a"
        assert (tmp_path / "a").read_bytes() == b"1"

    def test_a_committed_file_takes_no_more_bytes(self, tmp_path: Path) -> None:
        """Writing after the commit is an error, not a silent loss."""
        with fs.AtomicFile(tmp_path / "a") as file:
            pass
        with pytest.raises(fs.AtomicFileClosed, match="open a new AtomicFile"):
            file.write(b"1")
        with pytest.raises(ValueError, match="committed or aborted"):
            file.commit()

    def test_a_symbolic_link_is_replaced_and_not_followed(self, tmp_path: Path) -> None:
        """A link planted at the path cannot redirect the write."""
        outside = tmp_path / "outside"
        outside.write_bytes(b"keep")
        link = tmp_path / "link"
        link.symlink_to(outside)
        fs.write_bytes_atomic(link, b"new")
        assert outside.read_bytes() == b"keep"
        assert not link.is_symlink()

    @pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "a" * 251 + ".png", "." + "d" * 254])
    def test_the_longest_names_work(self, tmp_path: Path, name: str) -> None:
        """The temporary name is never longer than the file system allows."""
        assert fs.write_bytes_atomic(tmp_path / name, b"1").read_bytes() == b"1"

    def test_a_path_without_a_name_is_refused(self, tmp_path: Path) -> None:
        """A folder cannot be written as a file."""
        with pytest.raises(fs.FileWriteError):
            fs.write_bytes_atomic(Path("/"), b"1")
        with pytest.raises(fs.FileWriteError, match="name a file below it"):
            fs.write_bytes_atomic(tmp_path, b"1")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("together", [False, True])
    def test_the_working_folder_may_change_meanwhile(
        self, together: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A relative path is that of the folder in which it was opened."""
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path)
        files = [fs.AtomicFile(name) for name in ("new/a.txt", "b.txt", "c.txt")]
        for file in files:
            file.write(b"x")
        monkeypatch.chdir("other")
        if together:
            assert fs.commit_together(files) == [None, None, None]
        else:
            files[0].commit()
            files[1].commit()
            files[2].abort()
        assert list(Path().iterdir()) == []
        assert files[0].path == Path("new/a.txt")
        left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
        assert left == ["a.txt", "b.txt", "c.txt"][: 2 + together]

    def test_paths_may_be_strings(self, tmp_path: Path) -> None:
        """`str` paths are taken as well as `Path`."""
        assert fs.write_text_atomic(str(tmp_path / "a"), "x") == tmp_path / "a"


@pytest.fixture
def no_descriptor_left() -> Iterator[None]:
    """What is opened to learn permission bits is closed."""
    before = names(Path("/dev/fd"))
    yield
    assert len(names(Path("/dev/fd"))) == len(before)


@posix_only
@pytest.mark.usefixtures("no_descriptor_left")
class TestMode:
    def test_only_the_owner_reads_a_partial_file(self, tmp_path: Path) -> None:
        """Half a secret is a secret as well."""
        with fs.AtomicFile(tmp_path / "a", mode=0o644) as file:
            file.write(b"x")
            assert stat.S_IMODE(file.temp_path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("umask", [0o022, 0o077, 0o002, 0o000])
    def test_a_new_file_gets_the_bits_that_open_would_give(
        self, tmp_path: Path, umask: int
    ) -> None:
        """Other services read the file as they read any file of this user."""
        before = os.umask(umask)
        try:
            path = fs.write_bytes_atomic(tmp_path / "a", b"1")
            (tmp_path / "plain").write_bytes(b"1")
        finally:
            os.umask(before)
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode
        assert names(tmp_path) == ["a", "plain"]

    @pytest.mark.parametrize("stood", [False, True])
    @pytest.mark.parametrize("stands", [False, True])
    def test_the_file_that_is_replaced_in_the_end_gives_the_bits(
        self, tmp_path: Path, stood: bool, stands: bool
    ) -> None:
        """What stood there may go, and another come, while the new one is written."""
        path = tmp_path / "a"
        if stood:
            path.touch(0o600)
        before = os.umask(0o027)
        try:
            with fs.AtomicFile(path) as file:
                file.write(b"1")
                bits = stat.S_IMODE(file.temp_path.stat().st_mode)
                path.unlink(missing_ok=True)
                if stands:
                    path.touch()
                    path.chmod(0o604)
        finally:
            os.umask(before)
        assert bits == (0o600 if stood else 0o640)
        assert stat.S_IMODE(path.stat().st_mode) == (0o604 if stands else 0o640)
        assert names(tmp_path) == ["a"]

    def test_a_part_that_is_left_is_its_owners_alone(self, tmp_path: Path) -> None:
        """Whatever a new file would get: it may be continued by another program."""
        file = fs.AtomicFile(tmp_path / "a")
        file.write(b"1")
        file.leave_as(tmp_path / "part")
        assert stat.S_IMODE((tmp_path / "part").stat().st_mode) == 0o600
        assert (tmp_path / "part").read_bytes() == b"1"

    def test_a_replaced_file_keeps_its_bits(self, tmp_path: Path) -> None:
        """What was private stays private, what was executable stays so."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"1")
        path.chmod(0o710)
        fs.write_bytes_atomic(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o710

    def test_the_mode_can_be_given(self, tmp_path: Path) -> None:
        """An explicit mode is used whatever the umask."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"1", mode=0o640)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


class TestAbort:
    @pytest.mark.parametrize(
        "error", [RuntimeError, KeyboardInterrupt, SystemExit, asyncio.CancelledError]
    )
    def test_any_exception_leaves_nothing(self, tmp_path: Path, error: type[BaseException]) -> None:
        """The old file stands and the temporary one is gone."""
        target = tmp_path / "a"
        target.write_bytes(b"old")
        with pytest.raises(error), fs.AtomicFile(target) as file:
            file.write(b"new" * 100_000)
            raise error
        assert names(tmp_path) == ["a"]
        assert target.read_bytes() == b"old"

    async def test_a_cancelled_task_leaves_nothing(self, tmp_path: Path) -> None:
        """Cancellation in the middle of a stream removes the partial file."""
        writing = asyncio.Event()

        async def download() -> None:
            with fs.AtomicFile(tmp_path / "a") as file:
                file.write(b"half")
                writing.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(download())
        await writing.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(tmp_path) == []

    def test_a_broken_stream_leaves_nothing(self, tmp_path: Path) -> None:
        """The error of the source itself comes through."""

        def chunks() -> Iterator[bytes]:
            yield b"half"
            raise ConnectionResetError("gone")

        with pytest.raises(ConnectionResetError, match="gone"):
            fs.write_stream_atomic(tmp_path / "a", chunks())
        assert names(tmp_path) == []

    def test_abort_may_be_called_twice(self, tmp_path: Path) -> None:
        """Cleaning up is harmless at any time."""
        file = fs.AtomicFile(tmp_path / "a")
        file.abort()
        file.abort()
        assert file.closed
        assert names(tmp_path) == []

    def test_abort_after_commit_keeps_the_file(self, tmp_path: Path) -> None:
        """A `finally: file.abort()` does not undo a commit."""
        file = fs.AtomicFile(tmp_path / "a")
        file.write(b"1")
        file.commit()
        file.abort()
        assert names(tmp_path) == ["a"]

    def test_a_forgotten_file_is_removed_with_its_object(self, tmp_path: Path) -> None:
        """Dropping the last reference aborts."""
        file = fs.AtomicFile(tmp_path / "a")
        file.write(b"1")
        del file
        gc.collect()
        assert names(tmp_path) == []

    def test_an_unknown_algorithm_creates_nothing(self, tmp_path: Path) -> None:
        """Arguments are checked before the disk is touched."""
        with pytest.raises(fs.ChecksumAlgorithmError):
            fs.AtomicFile(tmp_path / "x" / "a", algorithms=["sha257"])
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        "failing", ["fsync", "replace", pytest.param("fchmod", marks=posix_only)]
    )
    def test_a_failing_commit_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        """Each step of the commit may fail without harm."""

        def fail(*args: object) -> None:
            raise OSError(errno.EIO, "Input/output error")

        target = tmp_path / "a"
        target.write_bytes(b"old")
        monkeypatch.setattr(os, failing, fail)
        with pytest.raises(fs.FileWriteError, match="unchanged") as caught:
            fs.write_bytes_atomic(target, b"new")
        assert caught.value.errno == errno.EIO
        assert caught.value.filename == str(target)
        assert names(tmp_path) == ["a"]
        assert target.read_bytes() == b"old"

    def test_an_interrupt_in_the_commit_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ctrl-C during the flush is like Ctrl-C during a write."""

        def interrupt(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fs.write_bytes_atomic(tmp_path / "a", b"new")
        assert names(tmp_path) == []

    @pytest.mark.parametrize(
        ("code", "remedy"),
        [
            (errno.EACCES, "give this user write permission"),
            (errno.EROFS, "mounted read-only"),
            (errno.ENOSPC, "free some space"),
            (errno.EDQUOT, "raise the quota"),
            (errno.EMFILE, "ulimit -n"),
            (errno.EIO, "check the disk"),
            (errno.ENOTTY, "check the folder and its disk"),
        ],
    )
    def test_a_refused_open_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, remedy: str
    ) -> None:
        """Each errno has its remedy; permission problems are PermissionErrors."""
        target = fs.write_bytes_atomic(tmp_path / "a", b"old")

        def refuse(*args: object, **options: object) -> int:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refuse)
            with pytest.raises(fs.FileWriteError, match=remedy) as caught:
                fs.write_bytes_atomic(target, b"new")
        assert caught.value.errno == code
        assert isinstance(caught.value, PermissionError) == (code == errno.EACCES)
        assert target.read_bytes() == b"old"
        assert names(tmp_path) == ["a"]

    @posix_only
    @not_root
    def test_a_read_only_folder_is_named_with_its_remedy(self, tmp_path: Path) -> None:
        """The error is a PermissionError that says what to do."""
        target = fs.write_bytes_atomic(tmp_path / "sub" / "a", b"old")
        target.parent.chmod(0o500)
        try:
            with pytest.raises(PermissionError, match="give this user write permission") as caught:
                fs.write_bytes_atomic(target, b"new")
        finally:
            target.parent.chmod(0o700)
        assert isinstance(caught.value, fs.FileWriteDenied)
        assert target.read_bytes() == b"old"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_a_full_disk_is_named_with_its_remedy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """ENOSPC keeps the old file and says how to go on."""
        target = tmp_path / "a"
        target.write_bytes(b"old")
        file = fs.AtomicFile(target)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, file.fileno())
        os.close(full)
        words = r"the file \(No space left on device\); .*; free some space"
        with pytest.raises(OSError, match=words) as caught, file:
            file.write(b"x")
            with pytest.raises(fs.FileWriteError):
                file.flush()
            with pytest.raises(fs.FileWriteError):
                file.write(b"x" * 1_000_000)
            with pytest.raises(fs.FileWriteError):
                file.truncate()
        assert caught.value.errno == errno.ENOSPC
        assert names(tmp_path) == ["a"]
        assert target.read_bytes() == b"old"

    @pytest.mark.parametrize("sizes", [[1], [10, 20_000, 3], [8192, 8191, 8193]])
    def test_what_a_system_takes_in_parts_is_written_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
    ) -> None:
        """It may take less than it is given, or nothing for a moment; memory may be used again."""
        real_write, calls = os.write, itertools.count()

        def write(descriptor: int, data: bytes | memoryview) -> int:
            if next(calls) == 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_write(descriptor, memoryview(data)[: len(data) // 2 + 1])

        monkeypatch.setattr(os, "write", write)
        wanted = b""
        with fs.AtomicFile(tmp_path / "a", algorithms=["sha256"]) as file:
            for number, size in enumerate(sizes):
                memory = bytearray([number] * size)
                wanted += memory
                with suppress(fs.FileWriteError):
                    file.write(memoryview(memory))
                memory[:] = bytes(size)
            with suppress(fs.FileWriteError):
                file.flush()
        assert (tmp_path / "a").read_bytes() == wanted
        assert file.hexdigest() == hashlib.sha256(wanted).hexdigest()

    def test_a_file_in_the_way_of_a_folder_is_named(self, tmp_path: Path) -> None:
        """A path through a file cannot be made."""
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(fs.FileWriteError, match="a part of the path is a file"):
            fs.write_bytes_atomic(tmp_path / "file" / "a", b"1")


class TestHashing:
    @given(
        chunks=st.lists(st.binary(max_size=5000), max_size=8),
        algorithm=st.sampled_from(["sha256", "md5", "sha1", "blake2b", "sha3_256"]),
    )
    @settings(
        max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_the_digest_is_that_of_the_bytes_on_the_disk(
        self, tmp_path: Path, chunks: list[bytes], algorithm: str
    ) -> None:
        """Hashing while writing equals hashing afterwards, however the bytes are cut."""
        written = fs.write_stream_atomic(
            tmp_path / "a", chunks, algorithms=[algorithm], durable=False
        )
        data = b"".join(chunks)
        assert written.path.read_bytes() == data
        assert written.size == len(data)
        assert written.hexdigest(algorithm) == hashlib.new(algorithm, data).hexdigest()
        assert fs.file_hexdigest(written.path, algorithm) == written.hexdigest(algorithm)

    def test_several_algorithms_in_one_pass(self, tmp_path: Path) -> None:
        """No byte is read twice for a second digest."""
        with fs.AtomicFile(tmp_path / "a", algorithms=["SHA-256", "md5"]) as file:
            file.write(bytearray(b"ab"))
            file.write(memoryview(b"c"))
        assert file.digests == {
            "sha256": hashlib.sha256(b"abc").hexdigest(),
            "md5": hashlib.md5(b"abc").hexdigest(),
        }

    def test_a_digest_that_was_not_computed_is_an_error(self, tmp_path: Path) -> None:
        """An error, not the digest of nothing."""
        with (
            fs.AtomicFile(tmp_path / "a") as file,
            pytest.raises(fs.ChecksumAlgorithmError, match="algorithms="),
        ):
            file.hexdigest()

    def test_truncate_starts_over(self, tmp_path: Path) -> None:
        """A retried download begins at zero, hash and size too."""
        with fs.AtomicFile(tmp_path / "a", algorithms=["sha256"]) as file:
            file.write(b"wrong" * 100_000)
            file.truncate()
            assert file.size == 0
            file.write(b"abc")
        assert file.path.read_bytes() == b"abc"
        assert file.hexdigest() == hashlib.sha256(b"abc").hexdigest()

    def test_memoryviews_of_wider_items_count_in_bytes(self, tmp_path: Path) -> None:
        """`size` is bytes, whatever the view's item size."""
        with fs.AtomicFile(tmp_path / "a") as file:
            assert file.write(memoryview(b"abcdefgh").cast("I")) == 8
        assert file.size == 8


class TestValues:
    def test_json_is_utf8_indented_and_ends_with_a_newline(self, tmp_path: Path) -> None:
        """The bytes are the same on every system."""
        path = fs.write_json_atomic(tmp_path / "a.json", {"name": "Grüße", "n": [1]})
        assert path.read_bytes() == '{\n  "name": "Grüße",\n  "n": [\n    1\n  ]\n}\n'.encode()

    def test_lone_surrogates_are_escaped_in_json(self, tmp_path: Path) -> None:
        """As a title that was cut in the middle of an emoji has them; other letters stay."""
        value = {"title \udc00": ["Grüße \ud83d", "\U0001f600"]}
        path = fs.write_json_atomic(tmp_path / "a.json", value, indent=None)
        assert json.loads(path.read_bytes()) == value
        assert "Grüße" in path.read_text("utf-8")

    def test_json_on_one_line(self, tmp_path: Path) -> None:
        """`indent=None` writes a single line."""
        path = fs.write_json_atomic(tmp_path / "a.json", {"a": 1}, indent=None)
        assert path.read_text() == '{"a": 1}\n'

    def test_json_default(self, tmp_path: Path) -> None:
        """`default` translates what JSON does not know."""
        path = fs.write_json_atomic(tmp_path / "a.json", {"p": Path("x")}, default=str)
        assert json.loads(path.read_text()) == {"p": "x"}

    def test_what_is_not_json_touches_nothing(self, tmp_path: Path) -> None:
        """The value is serialised before the file is opened."""
        with pytest.raises(TypeError):
            fs.write_json_atomic(tmp_path / "a.json", {"x": object()})
        assert names(tmp_path) == []

    def test_text_is_written_as_it_is(self, tmp_path: Path) -> None:
        """Line ends are not translated; other encodings work."""
        assert fs.write_text_atomic(tmp_path / "a", "a\r\nb\n").read_bytes() == b"a\r\nb\n"
        assert fs.write_text_atomic(tmp_path / "b", "é", encoding="latin-1").read_bytes() == b"\xe9"


class TestConcurrency:
    @pytest.mark.posix  # on Windows a file that is read all the time cannot be replaced
    def test_concurrent_writers_never_interleave(self, tmp_path: Path) -> None:
        """While four threads write one path, every read is one whole version."""
        target = tmp_path / "a"
        versions = {bytes([number]) * 40_000 for number in range(4)}
        fs.write_bytes_atomic(target, next(iter(versions)), durable=False)
        done = threading.Event()
        bad: list[bytes] = []

        def read() -> None:
            while not done.is_set():
                if (data := target.read_bytes()) not in versions:
                    bad.append(data)

        def write(data: bytes) -> None:
            for _ in range(25):
                with fs.AtomicFile(target, durable=False) as file:
                    for start in range(0, len(data), 10_000):
                        file.write(data[start : start + 10_000])

        reader = threading.Thread(target=read)
        writers = [threading.Thread(target=write, args=(data,)) for data in versions]
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert bad == []
        assert names(tmp_path) == ["a"]

    def test_two_open_writers_each_commit_whole(self, tmp_path: Path) -> None:
        """The last commit stays."""
        first, second = fs.AtomicFile(tmp_path / "a"), fs.AtomicFile(tmp_path / "a")
        first.write(b"1")
        second.write(b"22")
        second.commit()
        first.commit()
        assert (tmp_path / "a").read_bytes() == b"1"

    @pytest.mark.posix
    def test_a_forked_child_does_not_remove_its_parents_partial_file(self, tmp_path: Path) -> None:
        """The copy of the object in a child has no say over the file."""
        file = fs.AtomicFile(tmp_path / "a")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # pytest may run threads
            child = os.fork()
        if child == 0:
            file.abort()
            os._exit(0)
        os.waitpid(child, 0)
        file.write(b"1")
        assert file.commit().read_bytes() == b"1"

    @pytest.mark.parametrize(("extension", "kept"), [("e" * 15, True), ("e" * 16, False)])
    def test_a_long_extension_is_no_extension(
        self, tmp_path: Path, extension: str, kept: bool
    ) -> None:
        """Names of partial files stay short: at most 16 bytes of it, with the dot."""
        file = fs.AtomicFile(tmp_path / f"a.{extension}")
        assert (file.temp_path.suffix == f".{extension}") is kept
        file.abort()

    @pytest.mark.parametrize("mode", [0o1000, 644, -1])
    def test_what_is_no_mode_is_refused(self, tmp_path: Path, mode: int) -> None:
        """Such as one that was written in decimal; nothing is made."""
        with pytest.raises(ValueError, match="octal"):
            fs.AtomicFile(tmp_path / "a", mode=mode)
        assert names(tmp_path) == []

    def test_a_rename_that_is_forbidden_is_tried_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Only what Windows says of a file that is open is worth waiting for."""
        calls = []

        def replace(source: object, target: object) -> None:
            calls.append(target)
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(os, "replace", replace)
        with pytest.raises(fs.FileWriteError):
            fs.write_bytes_atomic(tmp_path / "a", b"new")
        assert len(calls) == 1


def refuse_rename(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(source: object, target: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", replace)


@pytest.mark.posix(reason="Windows counts whole paths")
def test_a_name_that_is_too_long_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """And not when a long download is to take it."""
    with pytest.raises(fs.FileWriteError, match="shorten the file name"):
        fs.AtomicFile(tmp_path / ("x" * 256))
    assert names(tmp_path) == []


@pytest.mark.posix(reason="special files")
class TestSpecialFiles:
    """Root could put a file in the place of `/dev/null`, and break the machine."""

    @pytest.mark.parametrize("linked", [False, True])
    @pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
    def test_what_is_no_ordinary_file_is_not_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, linked: bool
    ) -> None:
        """Nor is a link to it, which programs write through."""
        path = tmp_path / kind
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            monkeypatch.chdir(tmp_path)  # a long path is none for a socket
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(kind)
        else:
            path.symlink_to(os.devnull)
        if linked:
            (tmp_path / "link").symlink_to(path)
            path = tmp_path / "link"
        before = (path.lstat(), names(tmp_path))
        with pytest.raises(fs.FileWriteError, match=r"device, pipe or socket.*ordinary file"):
            fs.write_bytes_atomic(path, b"new")
        assert (path.lstat(), names(tmp_path)) == before

    @pytest.mark.parametrize("name", ["null", "stdout"])
    def test_what_stands_in_the_folder_of_devices_is_not_replaced(self, name: str) -> None:
        """`/dev/stdout` leads to a file where the shell was told so."""
        with pytest.raises(fs.FileWriteError, match="ordinary file"):
            fs.AtomicFile(f"/dev/{name}")


class TestFallback:
    @pytest.mark.parametrize("code", [errno.EXDEV, errno.EBUSY])
    def test_a_target_that_cannot_be_renamed_onto_is_overwritten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        """A file mounted on its own gets the new bytes in place."""
        target = tmp_path / "a"
        target.write_bytes(b"old and longer")
        refuse_rename(code, monkeypatch)
        fs.write_bytes_atomic(target, b"new")
        assert target.read_bytes() == b"new"
        assert names(tmp_path) == ["a"]

    @pytest.mark.posix(reason="permission bits mean little there")
    def test_one_that_is_overwritten_gets_the_mode(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if it had been renamed onto."""
        target = tmp_path / "a"
        target.write_bytes(b"old")
        target.chmod(0o600)
        refuse_rename(errno.EXDEV, monkeypatch)
        with fs.AtomicFile(target, mode=0o640) as file:
            file.write(b"new")
        assert target.stat().st_mode & 0o777 == 0o640

    def test_a_new_file_is_copied(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The fallback works without an old file."""
        refuse_rename(errno.EXDEV, monkeypatch)
        assert fs.write_bytes_atomic(tmp_path / "a", b"new").read_bytes() == b"new"
        assert names(tmp_path) == ["a"]

    @pytest.mark.parametrize(
        ("old", "begun"), [(b"old and longer", True), (None, True), (None, False)]
    )
    def test_a_failing_copy_restores_the_old_bytes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes | None, begun: bool
    ) -> None:
        """Even without a rename the old file survives an error."""
        from infra_core.fs import _replace

        target = tmp_path / "a"
        if old is not None:
            target.write_bytes(old)
        refuse_rename(errno.EXDEV, monkeypatch)
        real_copy = _replace._copy
        failures = [OSError(errno.ENOSPC, "No space left on device")]

        def copy(source: Path, copy_target: Path, *, durable: bool) -> None:
            if begun:
                real_copy(source, copy_target, durable=durable)
            if copy_target == target and failures:
                raise failures.pop()

        monkeypatch.setattr(_replace, "_copy", copy)
        with pytest.raises(fs.FileWriteError, match="free some space"):
            fs.write_bytes_atomic(target, b"new")
        if old is None:
            assert names(tmp_path) == []
        else:
            assert target.read_bytes() == old
            assert names(tmp_path) == ["a"]


class TestFolderFlush:
    @pytest.mark.posix(reason="folders are not flushed there")
    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        """Nothing is flushed silently that is not there."""
        with pytest.raises(FileNotFoundError):
            fs.fsync_directory(tmp_path / "none")

    def test_file_systems_without_it_are_no_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """EINVAL from a folder's fsync is not the caller's problem."""

        def refuse(descriptor: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", refuse)
        fs.fsync_directory(tmp_path)


class TestPartials:
    def test_partial_names_are_recognised(self, tmp_path: Path) -> None:
        """Listings can skip what is being written."""
        with fs.AtomicFile(tmp_path / "a.tar.gz") as file:
            assert fs.is_partial(file.temp_path)
            assert not fs.is_partial(file.path)

    def test_only_old_partial_files_are_swept(self, tmp_path: Path) -> None:
        """A living writer and ordinary files are left alone."""
        dead, alive = fs.AtomicFile(tmp_path / "dead"), fs.AtomicFile(tmp_path / "alive")
        ordinary = fs.write_bytes_atomic(tmp_path / "old.part", b"")
        dead.leave_as(dead.temp_path)  # as a killed writer does
        os.utime(dead.temp_path, (0, 0))
        os.utime(ordinary, (0, 0))
        assert fs.remove_stale_partials(tmp_path) == [dead.temp_path]
        assert names(tmp_path) == sorted([alive.temp_path.name, "old.part"])
        alive.abort()

    def test_a_missing_folder_has_none(self, tmp_path: Path) -> None:
        """Sweeping before the first write is fine."""
        assert fs.remove_stale_partials(tmp_path / "none") == []

    def test_a_negative_age_is_refused(self, tmp_path: Path) -> None:
        """It would remove the files of living writers."""
        with pytest.raises(ValueError, match="-1"):
            fs.remove_stale_partials(tmp_path, older_than=-1)


def test_an_unraisable_del_is_quiet(tmp_path: Path) -> None:
    """A half-made object (its constructor failed) is dropped without noise."""
    with pytest.raises(fs.FsError):
        fs.AtomicFile(tmp_path / "x" / ".." / "a", algorithms=["none"])
    gc.collect()
    assert sys.exc_info() == (None, None, None)


def test_the_repr_shows_path_and_state(tmp_path: Path) -> None:
    """A look at the object in a debugger says what it is doing."""
    with fs.AtomicFile(tmp_path / "a") as file:
        file.write(b"abc")
        assert "open, 3 bytes" in repr(file)
    assert "closed" in repr(file)


@posix_only
def test_a_name_that_the_locale_cannot_spell_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """As in a cron job that sets an old locale."""
    code = (
        "import sys; from infra_core import fs\n"
        "try: fs.write_bytes_atomic(sys.argv[1] + chr(0x107), b'x')\n"
        "except fs.UnsafePathError as error: print(ascii(str(error)))"
    )
    old = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a")],
        env={**os.environ, **old}, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "set PYTHONUTF8=1" in done.stdout
    assert list(tmp_path.iterdir()) == []
