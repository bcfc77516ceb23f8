"""The embedded job store: the checks of every store, and what is its own."""

import itertools
import linecache
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from infra_core.azure import _sqlite_file
from infra_core.azure.job_store import (
    AzureTableError,
    AzureTableJobStore,
    BatchSummary,
    JobConflictError,
    JobExistsError,
    JobRecord,
    JobStore,
    SqliteJobStore,
    TableConfig,
    _sqlite,
    work_batch,
)
from infra_core.azure.job_store._rows import Query
from infra_core.azure.job_store.conformance import JobStoreConformance
from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time


class TestSqlite(JobStoreConformance):
    """The suite that every job store passes."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.path = tmp_path / "very" / "deep" / "jobs.sqlite3"

    def open_store(self, record_type: type[Any] = JobRecord) -> JobStore[Any]:
        """Open a file in a folder that does not exist yet."""
        return SqliteJobStore(self.path, record_type)


@dataclass
class _Late(JobRecord):
    """With fields that the constructor does not take: one is its own, one is made of others."""

    note: str = field(default="", init=False)
    shout: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.shout = str(self.status).upper()


@dataclass(frozen=True)
class _Frozen:
    batch_id: str
    job_id: str
    status: str = "pending"
    attempts: int = 0
    lease_owner: str | None = None
    lease_until: datetime | None = None
    note: str = field(default="", init=False)
    etag: str | None = field(default=None, init=False)


def test_fields_that_a_constructor_does_not_take_are_kept_by_each_step(tmp_path: Path) -> None:
    """By claims, renewals, verbs and workers; what is made of other fields is made anew."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3", _Late) as store:
        for batch in ("steps", "work"):
            job = _Late(batch, "job")
            job.note = "kept"
            store.create(job)
        claimed = store.claim("steps", worker="me", lease_seconds=60)
        assert claimed is not None
        assert (claimed.note, claimed.shout) == ("kept", "RUNNING")
        renewed = store.renew(claimed, lease_seconds=60)
        store.update(renewed.fail("no"))
        work_batch(store, "work", lambda _: {"done": True})
        found = [(j.note, j.shout, j.payload) for j in store.iter_runs(None)]
    assert found == [("kept", "FAILED", {}), ("kept", "COMPLETED", {"done": True})]


def test_fields_of_a_frozen_record_outside_its_constructor_are_kept(tmp_path: Path) -> None:
    """The version may be one of them."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3", _Frozen) as store:
        job = _Frozen("b", "job")
        object.__setattr__(job, "note", "kept")
        assert store.create(job).etag
        claimed = store.claim("b", worker="me", lease_seconds=60)
        assert claimed is not None
        assert claimed.note == "kept"
        assert store.update(claimed).etag != claimed.etag


@dataclass
class _Bare:
    batch_id: str
    job_id: str


def test_batches_of_records_without_a_time_are_listed_all_the_same(tmp_path: Path) -> None:
    """When they were changed first and last is not known."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3", _Bare) as store:
        store.save_many([_Bare("b", "1"), _Bare("b", "2")])
        assert store.batches() == [BatchSummary("b", {"": 2}, None, None)]


def test_records_without_a_lease_cannot_be_claimed(tmp_path: Path) -> None:
    """The error says which fields a claim needs."""

    @dataclass
    class Stateful(_Bare):
        status: str = "pending"

    with SqliteJobStore(tmp_path / "jobs.sqlite3", Stateful) as store:
        store.save(Stateful("b", "1"))
        with pytest.raises(AzureTableError, match="attempts, lease_owner, lease_until, which"):
            store.claim("b", worker="w", lease_seconds=60)


def test_jobs_to_claim_come_in_pages_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    """Those whose lease has ended first, then delayed and new ones; each once."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store, fast_time() as time:
        ended = [JobRecord("b", f"ended-{n}") for n in range(3)]
        store.save_many(ended)
        for _ in ended:
            store.claim("b", worker="w", lease_seconds=1)
        due = clock.utc_now() + timedelta(seconds=1)
        store.save_many(JobRecord("b", f"later-{n}", not_before=due) for n in range(3))
        store.save_many(JobRecord("b", f"new-{n}") for n in range(3))
        time.advance(5)
        file, query = store._backend(), Query(partition="b", claimable_at=clock.utc_now())
        pages, token = list[list[str]](), None
        while not pages or token is not None:
            rows, token = file.perform("page", query, 4, token)
            pages.append([row.key for row in rows])
    assert [len(page) for page in pages[:2]] == [4, 4]
    found = [key for page in pages for key in page]
    kinds = [key.partition("-")[0] for key in found]
    assert kinds == ["ended"] * 3 + ["later"] * 3 + ["new"] * 3
    assert len(set(found)) == 9


def test_a_job_that_is_deleted_while_it_is_claimed_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is to be claimed is found by its key, and read then."""
    get, gone = _sqlite._JobFile.get, ["1"]

    def without_it(file: Any, partition: str, key: str) -> Any:
        return None if key in gone else get(file, partition, key)

    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save_many([JobRecord("b", "1"), JobRecord("b", "2")])
        monkeypatch.setattr(_sqlite._JobFile, "get", without_it)
        claimed = [store.claim("b", worker="w", lease_seconds=60) for _ in range(2)]
    assert [job and job.job_id for job in claimed] == ["2", None]


_WRITER = """
import sys
from infra_core.azure.job_store import JobRecord, SqliteJobStore
store = SqliteJobStore(sys.argv[1])
for n in range(int(sys.argv[3])):
    store.save(JobRecord("batch", f"{sys.argv[2]}-{n:04}"))
    print(n, flush=True)
store.close()
"""

_CLAIMER = """
import sys
from infra_core.azure.job_store import SqliteJobStore
store = SqliteJobStore(sys.argv[1])
while (job := store.claim("batch", worker=sys.argv[2], lease_seconds=600)) is not None:
    print(job.job_id, flush=True)
store.close()
"""


def _start(script: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_several_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    """Processes that open and write the same new file at the same time lose nothing."""
    path = tmp_path / "jobs.sqlite3"
    writers = [_start(_WRITER, path, name, 40) for name in "abc"]
    for writer in writers:
        writer.communicate()
        assert writer.returncode == 0
    with SqliteJobStore(path) as store:
        assert len(list(store.iter_runs("batch"))) == 120


def test_processes_share_out_the_jobs(tmp_path: Path) -> None:
    """Each job is claimed by exactly one process."""
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as store:
        store.save_many(JobRecord("batch", f"{n:03}") for n in range(60))
    claimed = []
    for process in [_start(_CLAIMER, path, name) for name in "ab"]:
        claimed += process.communicate()[0].split()
    assert sorted(claimed) == [f"{n:03}" for n in range(60)]


def test_what_was_written_survives_a_killed_process(tmp_path: Path) -> None:
    """After kill -9 in mid-write every save that had returned is there."""
    path = tmp_path / "jobs.sqlite3"
    writer = _start(_WRITER, path, "w", 1_000_000)
    assert writer.stdout is not None
    confirmed = [int(writer.stdout.readline()) for _ in range(50)]
    writer.kill()
    writer.communicate()
    with SqliteJobStore(path) as store:
        stored = {job.job_id for job in store.iter_runs("batch")}
    assert {f"w-{n:04}" for n in confirmed} <= stored


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    """Parent and child go on using one store after a fork."""
    store = SqliteJobStore(tmp_path / "jobs.sqlite3")
    store.create(JobRecord("batch", "parent"))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            store.create(JobRecord("batch", "child"))
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    store.create(JobRecord("batch", "after"))
    assert {job.job_id for job in store.iter_runs("batch")} == {"parent", "child", "after"}
    store.close()


def test_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    """Readers do not wait for writers."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.create(JobRecord("batch", "job"))
        connection = sqlite3.connect(store.path)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    """The error names the file and says what to check."""
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one" * 100)
    with SqliteJobStore(path) as store, pytest.raises(AzureTableError, match=r"notes\.txt"):
        store.fetch("batch", "job")


def test_a_database_in_memory_is_refused() -> None:
    """Every connection would see another one."""
    with pytest.raises(AzureTableError, match="file"):
        SqliteJobStore(":memory:")


def test_a_failed_write_leaves_nothing_locked(tmp_path: Path) -> None:
    """After a refused write the next one goes through, from another store as well."""
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as one, SqliteJobStore(path) as other:
        one.create(JobRecord("batch", "job"))
        with pytest.raises(JobExistsError):
            one.create(JobRecord("batch", "job"))
        other.create(JobRecord("batch", "next"))
        assert one.fetch("batch", "next") is not None


def _at_each_line(change: Callable[[], object], act: Callable[[], object]) -> Iterator[object]:
    """Do a change again and again, and something else before its first line, its second, ...

    Lines of the module of the store count; the last time there are no more of them. Those that
    begin a block do not: a tracer comes in between a block and its end, a signal does not.
    """
    for number in itertools.count(1):
        left = [number]

        def trace(frame: FrameType, event: str, _: object, left: list[int] = left) -> Any:
            if frame.f_code.co_filename not in (_sqlite.__file__, _sqlite_file.__file__):
                return None
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
            if event == "line" and not line.startswith(("with ", "try:")):
                left[0] -= 1
                if left[0] == 0:
                    act()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            change()
        except KeyboardInterrupt as error:
            yield error  # with its traceback, which keeps what was under way
        finally:
            sys.settrace(before)
        if left[0] > 0:
            return
        yield None


_CHANGES: list[Callable[["SqliteJobStore[JobRecord]"], object]] = [
    lambda store: store.save(JobRecord("b", "j")),
    lambda store: store.save_many([JobRecord("b", "j"), JobRecord("b", "k")]),
    lambda store: store.update_many([store.save(JobRecord("b", "j"))]),
    lambda store: (store.save(JobRecord("b", "j")), store.delete_batch("b")),
]


@pytest.mark.parametrize("change", _CHANGES)
def test_ctrl_c_at_any_moment_leaves_no_transaction_open(
    tmp_path: Path, change: Callable[["SqliteJobStore[JobRecord]"], object]
) -> None:
    """Neither this store, nor its threads, nor any other process is kept from writing."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupted = 0
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save(JobRecord("b", "first"))
        for error in _at_each_line(lambda: change(store), interrupt):
            interrupted += error is not None
            with closing(sqlite3.connect(store.path, timeout=0)) as other:
                other.execute("BEGIN IMMEDIATE")
            with ThreadPoolExecutor(1) as pool:
                pool.submit(store.save, JobRecord("b", "next")).result(60)
    assert interrupted > 3


@pytest.mark.parametrize("change", _CHANGES)
def test_a_signal_handler_may_store_jobs_amid_any_change(
    tmp_path: Path, change: Callable[["SqliteJobStore[JobRecord]"], object]
) -> None:
    """Both are stored."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save(JobRecord("b", "first"))

        def handle() -> None:
            store.save(JobRecord("signal", "one"))
            store.save_many([JobRecord("signal", "two"), JobRecord("signal", "three")])

        for _ in _at_each_line(lambda: change(store), handle):
            assert store.delete_batch("signal") in (0, 3)
            store.save(JobRecord("b", "next"))


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_what_other_threads_do_in_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's own locks, held by a thread that the child lacks, would stop it for ever."""
    inside, forking, done = threading.Event(), threading.Event(), threading.Event()
    hold = _sqlite._JobFile.hold

    def held(file: Any) -> bool:
        forking.set()
        return hold(file)

    def change() -> None:
        inside.set()
        forking.wait(60)
        done.set()

    monkeypatch.setattr(_sqlite_file, "_FORK_SECONDS", 60)
    monkeypatch.setattr(_sqlite._JobFile, "hold", held)
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store._rows._connected().create_function("change", 0, change)
        thread = threading.Thread(target=store._rows._execute, args=("SELECT change()", ()))
        thread.start()
        assert inside.wait(60)
        child = os.fork()
        if child == 0:
            os._exit(0 if done.is_set() else 1)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        store.save(JobRecord("b", "j"))


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_holds_a_store_while_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that make stores change the set of them while it is listed."""

    class Changing(weakref.WeakSet[Any]):
        times = 0

        def __iter__(self) -> Iterator[Any]:
            self.times += 1
            if self.times < 3:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    held: list[Any] = []
    hold = _sqlite._JobFile.hold

    def noted(file: Any) -> bool:
        held.append(file)
        return hold(file)

    monkeypatch.setattr(_sqlite_file, "_files", Changing())
    monkeypatch.setattr(_sqlite._JobFile, "hold", noted)
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        child = os.fork()
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert held == [store._rows]


def test_a_file_that_another_process_makes_meanwhile_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is none that is only to be read, for it was not there a moment ago."""
    path = tmp_path / "jobs.sqlite3"
    exists = os.path.exists

    def made_after(name: Any) -> bool:
        there = exists(name)
        if name == path:
            path.touch()
        return there

    def allowed(name: Any, mode: int) -> bool:
        there = exists(name)
        path.touch()
        return there

    monkeypatch.setattr(os.path, "exists", made_after)
    monkeypatch.setattr(os, "access", allowed)
    with SqliteJobStore(path) as store:
        store.save(JobRecord("b", "j"))


def test_the_folder_of_the_process_may_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path is that of the moment when the store was made; daemons go to the root folder."""
    monkeypatch.chdir(tmp_path)
    with SqliteJobStore("one.sqlite3") as used, SqliteJobStore("two.sqlite3") as unused:
        used.save(JobRecord("b", "j"))
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        for store in (used, unused):
            store.save(JobRecord("b", "k"))
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "one.sqlite3", "two.sqlite3"}
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_with_columns_of_a_later_version_is_written_to(tmp_path: Path) -> None:
    """Going back to this version loses nothing."""
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as store:
        store.create(JobRecord("b", "j"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE jobs ADD COLUMN later TEXT")
    with SqliteJobStore(path) as store:
        store.create(JobRecord("b", "k"))
        job = store.claim("b", worker="w", lease_seconds=60)
        assert job is not None
        store.save_many([store.update(job.complete())])
        assert store.count_by_status("b") == {"completed": 1, "pending": 1}


def test_the_stores_are_what_the_protocol_says(tmp_path: Path) -> None:
    """`JobStore` can be asked for at run time."""
    config = TableConfig("UseDevelopmentStorage=true", "jobs")
    assert isinstance(SqliteJobStore(tmp_path / "jobs.sqlite3"), JobStore)
    with AzureTableJobStore(config=config) as table:
        assert isinstance(table, JobStore)


def test_making_a_store_touches_no_file(tmp_path: Path) -> None:
    """The file is made by the first operation."""
    SqliteJobStore(tmp_path / "new" / "jobs.sqlite3")
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_cannot_be_read_are_counted_with_their_cause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Logged once each, until somebody has mended them."""
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as store:
        store.save_many([JobRecord("b", name) for name in ("good", "state", "json")])
        with sqlite3.connect(path) as connection:
            for name, text in (("state", '{"status": "paused"}'), ("json", "{bad")):
                connection.execute("UPDATE jobs SET properties = ? WHERE job = ?", (text, name))
        connection.close()
        for _ in range(2):
            assert [job.job_id for job in store.iter_runs("b")] == ["good"]
        seen = {job.job_id: job.reason for job in store.unreadable}
        assert seen.keys() == {"state", "json"}
        assert "'status' holds 'paused'" in seen["state"]
        assert "its properties are '{bad'" in seen["json"]
        assert len([r for r in caplog.records if "is left out" in r.getMessage()]) == 2
        store.save_many([JobRecord("b", "state"), JobRecord("b", "json")])
        assert len(list(store.iter_runs("b"))) == 3
        assert store.unreadable == []


@pytest.mark.parametrize(
    "change", ["status = 'pending'", "properties = json_set(properties, '$.status', 'pending')"]
)
def test_a_status_that_is_changed_by_hand_is_changed_everywhere(
    tmp_path: Path, change: str
) -> None:
    """Column and text never disagree, and a caller that has read the job before is refused."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.create(JobRecord("b", "j"))
        job = store.claim("b", worker="w", lease_seconds=600)
        assert job is not None
        with closing(sqlite3.connect(store.path)) as connection, connection:
            connection.execute(f"UPDATE jobs SET {change}")
        assert store.count_by_status("b") == {"pending": 1}
        assert [str(found.status) for found in store.iter_runs("b")] == ["pending"]
        with pytest.raises(JobConflictError):
            store.update(job.complete())
        assert store.claim("b", worker="w", lease_seconds=600)


_SCHEMA_1_0 = """
CREATE TABLE jobs (batch TEXT NOT NULL, job TEXT NOT NULL, etag TEXT NOT NULL, status TEXT,
    updated REAL, lease REAL, properties TEXT NOT NULL, PRIMARY KEY (batch, job)) WITHOUT ROWID;
CREATE INDEX jobs_by_status ON jobs (batch, status, job);
PRAGMA journal_mode = WAL;
"""


def test_a_file_of_version_1_0_goes_on_and_is_still_written_by_1_0(tmp_path: Path) -> None:
    """Its rows are found and claimed; its statements still work on the file afterwards."""
    path = tmp_path / "jobs.sqlite3"
    lease = '"lease_until":{"time":"1970-01-01T00:00:02+00:00"}'
    rows = [
        ("b", "old", "e1", "pending", 1.0, None, '{"status":"pending","payload__json":"{}"}'),
        ("b", "dead", "e2", "running", 1.0, 2.0, f'{{"status":"running",{lease}}}'),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(_SCHEMA_1_0)
        connection.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    with SqliteJobStore(path) as store:
        taken = {store.claim("b", worker="w", lease_seconds=60).job_id for _ in rows}  # type: ignore[union-attr]
        assert taken == {"old", "dead"}
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(
                "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)",
                ("b", "old", "e3", "completed", 3.0, None, '{"status":"completed"}'),
            )
            etag, *_ = connection.execute("SELECT etag FROM jobs WHERE job = 'old'").fetchone()
        assert etag == "e3"
        assert store.count_by_status("b") == {"completed": 1, "running": 1}


@pytest.mark.parametrize("old", [False, True])
def test_the_space_of_deleted_jobs_is_given_back(tmp_path: Path, old: bool) -> None:
    """To the disk; in a file of version 1.0 as well."""
    path = tmp_path / "jobs.sqlite3"
    if old:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(_SCHEMA_1_0)
    with SqliteJobStore(path) as store:
        store.save_many(JobRecord("b", f"{n}", payload={"text": "x" * 1000}) for n in range(600))
        store.create(JobRecord("other", "j"))
        assert store.delete_batch("b") == 600
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 200_000
        assert store.fetch("other", "j") is not None


@pytest.mark.posix
def test_a_file_that_is_removed_under_a_worker_is_reported(tmp_path: Path) -> None:
    """Nothing is completed into a file that is no longer there; reopening starts anew."""
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as store:
        store.create(JobRecord("b", "j"))
        job = store.claim("b", worker="w", lease_seconds=60)
        assert job is not None
        path.unlink()
        for _ in range(2):
            with pytest.raises(AzureTableError, match="was removed or replaced while it was open"):
                store.update(job.complete())
        with SqliteJobStore(path) as other:
            other.create(JobRecord("b", "new"))
        with pytest.raises(AzureTableError, match="was removed or replaced while it was open"):
            store.fetch("b", "j")
        store.close()
        assert store.fetch("b", "new") is not None


@pytest.mark.parametrize("open_elsewhere", [False, True])
@pytest.mark.parametrize("locked", ["", "jobs.sqlite3"])
def test_a_file_that_cannot_be_written_to_is_read(
    open_elsewhere: bool, locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor its folder, such as a mounted copy; a writer may be at it elsewhere.

    To change a job is refused, and nothing is left beside the file that its owner cannot write.
    """
    path = tmp_path / "jobs.sqlite3"
    with SqliteJobStore(path) as writer:
        writer.save(JobRecord("batch", "job"))
        if not open_elsewhere:
            writer.close()
        monkeypatch.setattr("os.access", lambda path, _: Path(path) != tmp_path / locked)
        before = sorted(tmp_path.iterdir())
        with SqliteJobStore(path) as store:
            assert [record.job_id for record in store.iter_runs("batch")] == ["job"]
            with pytest.raises(AzureTableError, match="give this user write permission"):
                store.save(JobRecord("batch", "other"))
        assert sorted(tmp_path.iterdir()) == before


def test_a_conflict_says_whether_the_job_was_changed_or_deleted(tmp_path: Path) -> None:
    """What to do is the same: fetch it again."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        job = store.create(JobRecord("b", "j"))
        store.save(JobRecord("b", "j"))
        with pytest.raises(JobConflictError, match="was changed by another worker since"):
            store.update(job)
        store.delete("b", "j")
        with pytest.raises(JobConflictError, match="was deleted since"):
            store.update(job)
