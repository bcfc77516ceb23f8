"""commit_together: each file of a batch keeps the promise of AtomicFile, the flushes are shared."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from infra_core import fs
from infra_core.fs import _together

pytestmark = pytest.mark.as_windows
Entry = fs.AtomicFile | Callable[[], fs.AtomicFile]
posix_only = pytest.mark.posix(reason="permission bits are a POSIX matter")


def opened(folder: Path, *names: str, durable: bool = True) -> list[fs.AtomicFile]:
    files = [fs.AtomicFile(folder / name, durable=durable) for name in names]
    for file in files:
        file.write(file.path.name.encode())
    return files


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.posix(reason="folders are not flushed there")
def test_no_file_appears_before_all_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are flushed, then named in order, then each folder is flushed once."""
    events: list[str] = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        real_fsync(descriptor)

    def replace(source: Any, target: Any) -> None:
        events.append(Path(target).name)
        real_replace(source, target)

    files = opened(tmp_path, "a", "x/b", "c", "x/d")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    assert fs.commit_together(files) == [None] * 4
    assert events == ["file"] * 4 + ["a", "b", "c", "d"] + ["folder"] * 2
    assert contents(tmp_path) == {"a": "a", "x/b": "b", "c": "c", "x/d": "d"}
    assert all(file.closed for file in files)


@pytest.mark.posix(reason="folders are not flushed there")
def test_scratch_files_are_not_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`durable=False` keeps its meaning, for each file by itself."""
    flushed: list[bool] = []
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        real_fsync(descriptor)

    files = [*opened(tmp_path / "x", "a", durable=False), *opened(tmp_path, "b")]
    monkeypatch.setattr(os, "fsync", fsync)
    assert fs.commit_together(files) == [None, None]
    assert flushed == [False, True]


def test_files_are_flushed_without_helpers_where_no_thread_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on threads, or the end of Python, costs speed alone."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    names = [str(number) for number in range(20)]
    assert fs.commit_together(opened(tmp_path, *names)) == [None] * 20
    assert contents(tmp_path) == {name: name for name in names}


def test_an_interrupt_while_flushing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helpers end first, so that nothing is flushed behind the caller's back."""
    main = threading.current_thread()
    helping, interrupted = threading.Event(), threading.Event()
    flushed: list[str] = []

    def fsync(descriptor: int) -> None:
        if threading.current_thread() is not main:
            helping.set()
            interrupted.wait(60)
        elif len(flushed) == 2:
            helping.wait(60)
            interrupted.set()
            raise KeyboardInterrupt
        flushed.append(threading.current_thread().name)

    files = opened(tmp_path, *(str(number) for number in range(200)))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(_together, "_PATIENCE", 0.0)  # help is worth it
    with pytest.raises(KeyboardInterrupt):
        fs.commit_together(files)
    assert contents(tmp_path) == {}
    assert set(flushed[2:]) == {"infra-core-flush"}
    assert not [thread for thread in threading.enumerate() if "flush" in thread.name]


def test_no_file_takes_its_name_while_a_helper_flushes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when all others are on the disk."""
    helping, released = threading.Event(), threading.Event()
    flushed: list[int] = []
    named: list[object] = []

    def fsync(descriptor: int) -> None:
        flushed.append(descriptor)
        if threading.current_thread().name == "infra-core-flush":
            helping.set()
            released.wait(60)
        elif len(flushed) > 2:
            helping.wait(60)

    files = opened(tmp_path, *"abcdef")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(_together, "_PATIENCE", 0.0)  # help is worth it
    commit = threading.Thread(target=lambda: fs.commit_together(files, before=named.append))
    commit.start()
    assert helping.wait(60)
    commit.join(0.05)
    assert named == []
    released.set()
    commit.join()
    assert named == files


def test_no_files_are_no_work() -> None:
    """An empty batch is one without errors."""
    assert fs.commit_together([]) == []


def test_a_file_that_cannot_be_flushed_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is that of a commit of its own; the old file stands, nothing else is left."""
    (tmp_path / "b").write_text("old")
    files = opened(tmp_path, "a", "b", "c")
    refused = files[1].fileno()
    real_fsync = os.fsync

    def fsync(descriptor: int) -> None:
        if descriptor == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    errors = fs.commit_together(files)
    assert [type(error) for error in errors] == [type(None), fs.FileWriteError, type(None)]
    assert isinstance(errors[1], OSError)
    assert errors[1].errno == errno.ENOSPC
    assert contents(tmp_path) == {"a": "a", "b": "old", "c": "c"}


def test_a_file_that_cannot_take_its_name_fails_alone(tmp_path: Path) -> None:
    """A folder stands at its path."""
    files = opened(tmp_path, "a", "b", "c")
    (tmp_path / "b").mkdir()
    errors = fs.commit_together(files)
    assert [error is None for error in errors] == [True, False, True]
    assert isinstance(errors[1], fs.FileWriteError)
    assert contents(tmp_path) == {"a": "a", "c": "c"}


def test_a_file_that_was_closed_before_is_an_error(tmp_path: Path) -> None:
    """Aborted files and a file given twice are errors of their own entries."""
    files = opened(tmp_path, "a", "b")
    files[0].abort()
    errors = fs.commit_together([*files, files[1]])
    assert [type(error) for error in errors] == [
        fs.AtomicFileClosed,
        type(None),
        fs.AtomicFileClosed,
    ]
    assert contents(tmp_path) == {"b": "b"}


def test_what_is_asked_before_a_name_may_refuse_it(tmp_path: Path) -> None:
    """`before` sees each file flushed and still nameless; its error is the file's."""
    seen = []

    def before(file: fs.AtomicFile) -> None:
        seen.append((file.path.name, file.path.exists(), file.temp_path.read_text()))
        if file.path.name == "b":
            raise LookupError("changed meanwhile")

    errors = fs.commit_together(opened(tmp_path, "a", "b", "c"), before=before)
    assert seen == [("a", False, "a"), ("b", False, "b"), ("c", False, "c")]
    assert isinstance(errors[1], LookupError)
    assert contents(tmp_path) == {"a": "a", "c": "c"}


def test_files_may_be_made_by_functions(tmp_path: Path) -> None:
    """Called in order, before the first flush; what one raises is the error of its entry."""
    seen: list[object] = []

    def make(name: str) -> fs.AtomicFile:
        seen.append(name)
        assert contents(tmp_path) == {} or all(map(fs.is_partial, contents(tmp_path)))
        if name == "b":
            raise LookupError("not this one")
        return opened(tmp_path, name)[0]

    entries: list[Entry] = [partial(make, name) for name in "abc"]
    entries += opened(tmp_path, "d")
    errors = fs.commit_together(entries, before=seen.append)
    assert [type(error) for error in errors] == [type(None), LookupError, *[type(None)] * 2]
    assert seen[:3] == ["a", "b", "c"]
    assert seen[3:5] == [entries[0], entries[2]]
    assert contents(tmp_path) == {"a": "a", "c": "c", "d": "d"}


def test_an_interrupt_while_files_are_made_leaves_none(tmp_path: Path) -> None:
    """Those that were made are aborted."""

    def interrupt() -> fs.AtomicFile:
        raise KeyboardInterrupt

    entries: list[Entry] = [*opened(tmp_path, "a"), interrupt]
    with pytest.raises(KeyboardInterrupt):
        fs.commit_together(entries)
    assert contents(tmp_path) == {}


def test_an_interrupt_leaves_no_partial_file(tmp_path: Path) -> None:
    """Ctrl-C goes through; files named by then stay, the others leave nothing."""

    def before(file: fs.AtomicFile) -> None:
        if file.path.name == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fs.commit_together(opened(tmp_path, "a", "b", "c"), before=before)
    assert contents(tmp_path) == {"a": "a"}


@posix_only
def test_a_folder_that_cannot_be_flushed_is_reported_to_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have their names but are not promised to keep them; other folders are not concerned."""
    real_fsync = os.fsync
    broken = opened(tmp_path, "x/a")
    others = opened(tmp_path, "b")
    inode = (tmp_path / "x").stat().st_ino

    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real_fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    errors = fs.commit_together([*broken, *others])
    assert isinstance(errors[0], OSError)
    assert errors[1] is None
    assert contents(tmp_path) == {"x/a": "a", "b": "b"}


@posix_only
def test_permission_bits_are_those_of_single_commits(tmp_path: Path) -> None:
    """New files follow the umask, replaced ones keep their bits, `mode` wins."""
    kept = tmp_path / "kept"
    kept.touch()
    kept.chmod(0o604)
    single = fs.write_bytes_atomic(tmp_path / "single", b"")
    named = fs.AtomicFile(tmp_path / "named", mode=0o640)
    assert fs.commit_together([*opened(tmp_path, "new", "kept"), named]) == [None] * 3
    bits = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert bits["new"] == bits["single"] == stat.S_IMODE(single.stat().st_mode)
    assert (bits["kept"], bits["named"]) == (0o604, 0o640)


def test_paths_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name alone is one of the current folder, which is flushed as any other."""
    monkeypatch.chdir(tmp_path)
    assert fs.commit_together(opened(Path(), "a", "sub/b")) == [None, None]
    assert contents(tmp_path) == {"a": "a", "sub/b": "b"}
