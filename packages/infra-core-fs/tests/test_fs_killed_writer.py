"""A writer that is killed leaves the old file or the new one, whole; never a mixture."""

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from infra_core import fs

pytestmark = pytest.mark.posix(reason="kills a forked writer")

KILLS = 60
SIZES = (0, 1, 5_000, 300_000, 1_200_000)


def version(number: int) -> bytes:
    """A content that shows whether it is whole."""
    return bytes([number % 251]) * SIZES[number % len(SIZES)] + f"|{number}".encode()


def number_of(data: bytes) -> int:
    """The number of a whole version; an error for anything else."""
    number = int(data.rpartition(b"|")[2])
    assert data == version(number)
    return number


def fork(child: Callable[[], object]) -> int:
    """Run a function in a child that is expected to be killed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the child only writes files
        pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(1)
    return pid


class RandomKills:
    """Kills writers of numbered versions at random points of their work.

    The points are spread over the time that a version takes here, so that a slow disk and a busy
    machine are met as well as a fast one: some writers die in their first version, the others in
    one that follows.
    """

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._seconds = 0.001  # what a version takes: learned from those that are seen to end

    def kill_one(self, write: Callable[[int], object], first: int) -> int:
        """Kill a writer of the versions from `first` on, and count those that it ended."""
        read_end, write_end = os.pipe()

        def write_on() -> None:
            os.write(write_end, b"x")
            for number in range(first, first + 10_000):
                write(number)
                os.write(write_end, b"x")

        writer = fork(write_on)
        os.close(write_end)
        seen = self._chance.choice([1, 1, 2, 3])  # begun, and up to two versions ended
        os.read(read_end, 1)
        start = time.perf_counter()
        for _ in range(seen - 1):
            os.read(read_end, 1)
        if seen > 1:
            self._seconds = (time.perf_counter() - start) / (seen - 1)
        until = time.perf_counter() + self._chance.uniform(0, 1.5 * self._seconds)
        while time.perf_counter() < until:
            pass
        os.kill(writer, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(writer, 0)[1]) == signal.SIGKILL
        while os.read(read_end, 1):  # to the end: the writer's side is closed by its death
            seen += 1
        os.close(read_end)
        return seen - 1


@pytest.mark.parametrize("durable", [False, True])
def test_a_writer_killed_at_random_points(tmp_path: Path, durable: bool) -> None:
    """After each of many kills the file is a whole version, none older than was ended."""
    kills = RandomKills(7)
    target = fs.write_bytes_atomic(tmp_path / "state.bin", version(0))

    def write(number: int) -> None:
        with fs.AtomicFile(target, algorithms=["sha256"], durable=durable) as file:
            data = version(number)
            for start in range(0, len(data), 100_000):
                file.write(data[start : start + 100_000])

    newest = 0
    for _ in range(KILLS):
        ended = newest + kills.kill_one(write, newest + 1)
        newest = number_of(target.read_bytes())
        assert newest >= ended
    assert newest > 0
    left = [path for path in tmp_path.iterdir() if path != target]
    assert all(fs.is_partial(path) for path in left)
    assert sorted(fs.remove_stale_partials(tmp_path, older_than=0)) == sorted(left)
    assert list(tmp_path.iterdir()) == [target]


def kill_around(step: str, when: str, call: int) -> None:
    """From now on this process dies before or after the given call of a function of `os`."""
    real = getattr(os, step)
    calls = 0

    def lethal(*args: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if calls == call and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(os, step, lethal)


@pytest.mark.parametrize("new", [False, True], ids=["replacing", "new"])
@pytest.mark.parametrize("step", ["open", "fchmod", "fsync", "replace"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_writer_killed_at_each_step(
    tmp_path: Path, step: str, when: str, call: int, new: bool
) -> None:
    """Around each system call that matters: the old content, or the new, or (new file) none."""
    target = tmp_path / "state.bin"
    if not new:
        fs.write_bytes_atomic(target, version(1))

    def write() -> None:
        kill_around(step, when, call)
        fs.write_bytes_atomic(target, version(3))

    os.waitpid(fork(write), 0)
    if target.exists():
        assert number_of(target.read_bytes()) in {1, 3}
    else:
        assert new
    assert all(fs.is_partial(path) for path in tmp_path.iterdir() if path != target)


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    """A real refusal by the kernel (a file size limit): a clear error, the old file, no partial."""
    import resource

    target = fs.write_bytes_atomic(tmp_path / "state.bin", version(1))

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            fs.write_bytes_atomic(target, version(3))
        except fs.FileWriteError as error:
            if "limit" in str(error) and list(tmp_path.iterdir()) == [target]:
                os._exit(42)

    assert os.waitstatus_to_exitcode(os.waitpid(fork(write), 0)[1]) == 42
    assert number_of(target.read_bytes()) == 1


def write_round(folder: Path, number: int) -> None:
    """One batch: the same version to three files in two folders."""
    files = [fs.AtomicFile(folder / name) for name in ("a.bin", "sub/b.bin", "c.bin")]
    for file in files:
        file.write(version(number))
    assert fs.commit_together(files) == [None, None, None]


def check_round(folder: Path, allowed: set[int]) -> None:
    """Each file is a whole version that may be there; all else is partial."""
    for path in folder.rglob("*"):
        if path.is_file() and not fs.is_partial(path):
            assert number_of(path.read_bytes()) in allowed


@pytest.mark.parametrize("new", [False, True], ids=["replacing", "new"])
@pytest.mark.parametrize("step", ["fchmod", "fsync", "replace"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_a_batch_killed_at_each_step(
    tmp_path: Path, step: str, when: str, call: int, new: bool
) -> None:
    """Each file of a batch is old or new (or none), whole, wherever the kill falls."""
    if not new:
        write_round(tmp_path, 1)

    def write() -> None:
        kill_around(step, when, call)
        write_round(tmp_path, 3)

    os.waitpid(fork(write), 0)
    check_round(tmp_path, {3} if new else {1, 3})


def test_a_batch_killed_at_random_points(tmp_path: Path) -> None:
    """Kill after kill: no file is torn, none is older than the last round that was ended."""
    kills = RandomKills(11)
    write_round(tmp_path, 0)
    targets = [tmp_path / name for name in ("a.bin", "sub/b.bin", "c.bin")]
    newest = [0, 0, 0]
    for _ in range(20):
        first = max(newest) + 1
        ended = kills.kill_one(lambda number: write_round(tmp_path, number), first)
        found = [number_of(path.read_bytes()) for path in targets]
        assert all(now >= before for now, before in zip(found, newest, strict=True))
        assert not ended or min(found) >= first + ended - 1
        newest = found
    assert max(newest) > 0
