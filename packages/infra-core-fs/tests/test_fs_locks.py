"""Locks between processes."""

import errno
import os
import pickle
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from infra_core.fs import FileLock, FileLockUnsupported, lock_descriptor, unlock_descriptor

pytestmark = pytest.mark.as_windows

HOLDER = """
import sys
from infra_core.fs import FileLock, lock_descriptor
if sys.argv[2] == "file":
    lock = FileLock(sys.argv[1]); lock.acquire()
else:
    file = open(sys.argv[1], "ab"); lock_descriptor(file.fileno())
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path, kind: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), kind],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.communicate()


def test_another_process_waits_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    """The system gives the lock back, however its holder dies."""
    path = tmp_path / "run.lock"
    process = holder(path, "file")
    lock = FileLock(path)
    try:
        assert not lock.acquire(timeout=0)
        assert not lock.acquire(timeout=0.05)
    finally:
        end(process)
    assert lock.acquire()
    lock.release()
    lock.release()  # does nothing


def test_two_objects_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    """Also between threads, and whichever thread releases it."""
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    with first:
        assert not second.acquire(timeout=0)
        with pytest.raises(RuntimeError, match="release it"):
            first.acquire()
    assert second.acquire(timeout=0)
    second.release()


def test_a_lock_is_acquired_again_after_another_thread_released_it(tmp_path: Path) -> None:
    """Some versions of `filelock` take that for a deadlock, unless memory is used again by luck."""
    kept = []
    for _ in range(3):
        lock = FileLock(tmp_path / "lock")
        assert lock.acquire()
        kept.append(lock._lock)
        thread = threading.Thread(target=lock.release)
        thread.start()
        thread.join()


@pytest.mark.posix
def test_a_forked_child_neither_holds_nor_drops_its_parents_lock(tmp_path: Path) -> None:
    """`flock` belongs to the open file, which both share."""
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            lock.release()
            os._exit(5 if FileLock(path).acquire(timeout=0) else 0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not FileLock(path).acquire(timeout=0)
    lock.release()
    assert FileLock(path).acquire(timeout=0)


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    """As with every write of this package; a path that cannot be is an error of the system."""
    with FileLock(tmp_path / "missing" / "folder" / "lock"):
        assert (tmp_path / "missing" / "folder" / "lock").exists()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        FileLock(tmp_path / "file" / "lock").acquire(timeout=0)


def test_an_open_file_is_locked_itself(tmp_path: Path) -> None:
    """Against other processes and other descriptors, until it is unlocked or closed."""
    path = tmp_path / "run.log"
    process = holder(path, "descriptor")
    with path.open("ab") as mine, path.open("ab") as other:
        try:
            assert not lock_descriptor(mine.fileno(), wait=False)
        finally:
            end(process)
        assert lock_descriptor(mine.fileno())
        assert not lock_descriptor(other.fileno(), wait=False)
        unlock_descriptor(mine.fileno())
        assert lock_descriptor(other.fileno(), wait=False)


def test_who_waits_for_a_lock_goes_on_with_it_alone(tmp_path: Path) -> None:
    """However long it takes."""
    path = tmp_path / "run.log"
    got = threading.Event()
    with path.open("ab") as mine, path.open("ab") as other:
        lock_descriptor(mine.fileno())

        def wait() -> None:
            assert lock_descriptor(other.fileno())
            got.set()

        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not got.wait(0.05)
        unlock_descriptor(mine.fileno())
        waiting.join()
        assert not lock_descriptor(mine.fileno(), wait=False)


@pytest.fixture(params=[errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has none."""
    import fcntl

    def refuse(fd: int, mode: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.mark.posix
@pytest.mark.usefixtures("no_locks")
def test_a_file_system_without_locks_is_named(tmp_path: Path) -> None:
    """Not a wait for ever, and not a lock that is none."""
    with (tmp_path / "file").open("ab") as file, pytest.raises(FileLockUnsupported) as caught:
        lock_descriptor(file.fileno())
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert error.errno == errno.ENOLCK


@pytest.mark.posix
@pytest.mark.usefixtures("no_locks")
def test_a_lock_where_there_are_none_is_refused(tmp_path: Path) -> None:
    """Whatever `filelock` makes of it: no process goes on as if it had the lock."""
    lock = FileLock(tmp_path / "lock")
    for timeout in (0, 0.05, None):
        with pytest.raises(FileLockUnsupported, match="lock"):
            lock.acquire(timeout=timeout)
