"""A run that is asked to end, ends in order: from the first line of its list to its last write."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from infra_core import _start
from infra_core.azure.job_store import JobStatus, SqliteJobStore
from infra_core.batch import run_batch
from infra_core.http.testing import FaultyOrigin, slow

if sys.platform == "win32":
    pytest.skip("signals that Windows does not have", allow_module_level=True)

COMMAND = [sys.executable, "-m", "infra_core.cli", "run"]
SIGNALS = [(number, 128 + number) for number in _start.ENDING_SIGNALS]


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        yield server


def hear_signals() -> None:
    """Undo what `nohup` did, or a shell's `&`: a process hands on what it ignores."""
    for number, _ in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def start(out: Path, urls: str, *arguments: str) -> "subprocess.Popen[str]":
    env = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "APPLICATIONINS"))}
    return subprocess.Popen(
        [*COMMAND, urls, "--batch-id", "b", "--out", str(out), "--show-files", *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=env | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
        preexec_fn=hear_signals,
    )  # fmt: skip


def statuses(out: Path) -> list[JobStatus]:
    with SqliteJobStore(out / "jobs.sqlite3") as store:
        return [record.status for record in store.iter_runs("b")]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_while_the_list_is_read_ends_the_run(
    number: signal.Signals, code: int, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The list comes from a pipe that stays open: what was read is done, and nothing waits."""
    origin.add("/a", b"a")
    with start(tmp_path, "-") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(origin.url("/a") + "\n")
        process.stdin.flush()
        while " ok " not in process.stdout.readline():
            pass
        process.send_signal(number)
        assert process.wait(timeout=30) == code
        rest = process.stdout.read()
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert number.name in rest
    assert "succeeded  1" in rest
    assert statuses(tmp_path) == [JobStatus.COMPLETED]
    assert (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.parametrize(("number", "code"), SIGNALS)
@pytest.mark.parametrize("more", [[], ["--strict"]])
def test_a_signal_before_the_first_url_leaves_a_summary_too(
    number: signal.Signals, code: int, more: list[str], tmp_path: Path
) -> None:
    """The pipe is silent so far, or all of it is to be read first."""
    listed = Path(tmp_path, "list")
    os.mkfifo(listed)
    stored = tmp_path / "s.json"
    with start(tmp_path, str(listed), "--summary-file", str(stored), *more) as process:
        with listed.open("wb", buffering=0) as pipe:  # which waits until the list is opened
            pipe.write(b"# no URL yet\n")
            process.send_signal(number)
            with suppress(BrokenPipeError):  # one that comes just before a read wakes none
                pipe.write(b"# still none\n")
            output, errors = process.communicate(timeout=50)
        assert process.returncode == code, errors
        assert number.name in output
        assert "Traceback" not in errors
    summary = json.loads(stored.read_text())
    assert (summary["total"], summary["interrupted"]) == (0, number.name)
    assert not summary["complete"]


@pytest.mark.usefixtures("no_azure")
@pytest.mark.parametrize("number", _start.ENDING_SIGNALS)
def test_a_signal_that_is_ignored_ends_no_run(
    number: signal.Signals, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """As for `nohup`, and for what a script starts with `&`."""
    origin.add("/a", b"a")
    former = signal.signal(number, signal.SIG_IGN)
    try:
        summary = run_batch(
            [origin.url("/a"), origin.url("/a?2")], batch_id="b", out=tmp_path, concurrency=1,
            on_result=lambda _: signal.raise_signal(number),
        )  # fmt: skip
    finally:
        signal.signal(number, former)
    assert summary.complete
    assert summary.succeeded == 2


@pytest.mark.usefixtures("no_azure")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_handler_of_the_programs_own_hears_of_a_signal_that_ended_the_run(
    number: signal.Signals, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Once, when all is recorded: a web server would not know that it is to end."""
    origin.add("/a", b"a")
    heard: list[list[JobStatus]] = []
    former = signal.signal(number, lambda *_: heard.append(statuses(tmp_path)))
    urls = [origin.url(f"/a?{count}") for count in range(60)]
    try:
        summary = run_batch(
            urls, batch_id="b", out=tmp_path, concurrency=1,
            on_result=lambda _: signal.raise_signal(number) if not heard else None,
        )  # fmt: skip
    finally:
        signal.signal(number, former)
    assert summary.interrupted == number.name
    [found] = heard
    assert set(found) == {JobStatus.COMPLETED, JobStatus.PENDING}


@pytest.mark.usefixtures("no_azure")
def test_handlers_that_end_the_program_hear_of_no_signal_that_the_run_heard(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Neither Python's own nor that of `asyncio.run`, which would cancel what goes on."""
    origin.add("/a", b"a")
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL),
    ):  # fmt: skip
        former = signal.signal(number, handler)
        try:
            summary = run_batch(
                [origin.url("/a")], batch_id=number.name, out=tmp_path,
                on_result=lambda _, number=number: signal.raise_signal(number),
            )  # fmt: skip
        finally:
            signal.signal(number, former)
        assert summary.interrupted == number.name


@pytest.mark.posix
@pytest.mark.usefixtures("no_azure")
@pytest.mark.parametrize("in_python", [True, False])
def test_a_hangup_that_the_program_uses_ends_no_run(
    in_python: bool, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """A service reads its settings again then; a method written in C names no module."""
    origin.add("/a", b"a")
    heard: dict[int, object] = {}
    handler = heard.setdefault
    former = signal.signal(
        signal.SIGHUP, (lambda number, frame: handler(number, frame)) if in_python else handler
    )
    try:
        hung_up = partial(signal.raise_signal, signal.SIGHUP)
        summary = run_batch(
            [origin.url("/a")], batch_id="b", out=tmp_path, on_result=lambda _: hung_up()
        )
    finally:
        signal.signal(signal.SIGHUP, former)
    assert summary.complete
    assert list(heard) == [signal.SIGHUP]


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_second_signal_cuts_off_what_is_in_flight(
    processes: str, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """No job is left running, and no process behind."""
    for index in range(6):
        origin.add(f"/{index}", b"x" * 100_000, always=slow(1_000))
    origin.add("/quick", b"q")
    listed = tmp_path / "urls"
    listed.write_text("\n".join(origin.url(f"/{name}") for name in ["quick", *range(6)]))
    arguments = ["--concurrency", "2", "--grace", "60", "--processes", processes]
    with start(tmp_path, str(listed), *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while " ok " not in process.stdout.readline():  # of workers too, as soon as it is recorded
            pass
        # Of two kinds, since signals of one kind that are pending are one; a third would be
        # for the system, which ends the process at once. To the whole group, as of a terminal.
        os.killpg(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=50)
        assert process.returncode in (130, 143)
        assert "Traceback" not in process.stderr.read()
    assert JobStatus.RUNNING not in statuses(tmp_path)


def children_of(parent: int) -> list[int]:
    """Numbers of the processes that a process has started."""
    listed = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(number) for path in listed for number in path.read_text().split()]


def blocked_by(process: int) -> set[int]:
    """The signals that a process does not hear: one to the whole group is for the coordinator."""
    status = Path(f"/proc/{process}/status").read_text()
    mask = int(status.partition("SigBlk:")[2].split()[0], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


def hold(origin: FaultyOrigin, folder: Path) -> Path:
    """A list of one URL, whose first download does not come to its end."""
    origin.add("/held", b"x" * 100_000, faults=[slow(1_000)])
    listed = folder / "urls"
    listed.write_text(origin.url("/held"))
    return listed


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
def test_workers_that_are_killed_are_replaced(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Their URLs are done again by others, which are spawned."""
    with start(tmp_path, str(hold(origin, tmp_path)), "--processes", "2") as process:
        while origin.count("/held") == 0:
            pass
        workers = children_of(process.pid)
        assert len(workers) == 2
        for number in workers:
            assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked_by(number)
            os.kill(number, signal.SIGKILL)
        assert process.wait(timeout=50) == 0
    assert origin.count("/held") == 2
    assert statuses(tmp_path) == [JobStatus.COMPLETED]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers are spawned")
def test_workers_end_with_a_coordinator_that_is_killed(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Each sees its pipe closed: none was left a copy of the coordinator's end."""
    with start(tmp_path, str(hold(origin, tmp_path)), "--processes", "3") as process:
        while origin.count("/held") == 0:
            pass
        handles = [os.pidfd_open(number) for number in children_of(process.pid)]
        assert len(handles) == 3
        process.kill()
        for handle in handles:
            assert select.select([handle], [], [], 50)[0]
            os.close(handle)
