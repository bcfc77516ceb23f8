"""The command line: help, versions, errors in one line, and the jobs of a batch."""

import csv
import gc
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from infra_core import _start
from infra_core.azure.job_store import JobConflictError, JobRecord, JobStatus, SqliteJobStore
from infra_core.azure.monitoring import HeartbeatMonitor
from infra_core.batch import BatchError
from infra_core.batch._folder import exclusive, run_folder
from infra_core.cli import main
from infra_core.cli._demo import own_command
from infra_core.cli._main import COMMANDS
from infra_core.runtime.testing import fast_time

pytestmark = pytest.mark.usefixtures("no_azure")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An output folder with a batch of four jobs in four states."""
    jobs = [
        JobRecord("b1", f"job-{n}", payload={"url": f"https://x.example/{n}"}) for n in range(4)
    ]
    with SqliteJobStore(tmp_path / "jobs.sqlite3", JobRecord) as store:
        store.save_many(
            [
                jobs[0],
                jobs[1].start().complete(size=3),
                jobs[2].start().fail("HTTP 404"),
                jobs[3].start().time_out("slow"),
            ]
        )
    return tmp_path


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """A newcomer finds the commands and what their exit codes mean."""
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "exit codes:" in text
    assert "[--version] COMMAND ..." in text
    for name, _, summary in COMMANDS:
        assert name in text
        assert summary[:30] in " ".join(text.split())


@pytest.mark.parametrize("name", [name for name, _, _ in COMMANDS])
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`infra-core COMMAND --help` shows how it is called."""
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert f"\n  infra-core {name}" in capsys.readouterr().out


def test_the_demo_says_where_everything_lies_and_how_to_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it prints can be opened, and typed; hatch's environments are on no path of a shell."""
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("HATCH_ENV_ACTIVE", "default")
    with fast_time():
        assert main(["demo", "--out", str(tmp_path / "out")]) == 0
    _, _, printed = capsys.readouterr().out.partition("Where everything lies:\n")
    for name in ("files", "manifest", "run log", "heartbeat", "jobs"):
        (path,) = re.findall(rf"^  {name} +(/.*)$", printed, re.MULTILINE)
        assert Path(path).exists()
    (command,) = re.findall(r"^  (.*) jobs list demo --out .*$", printed, re.MULTILINE)
    assert command == f"{sys.executable} -m infra_core"
    monkeypatch.delenv("HATCH_ENV_ACTIVE")
    assert own_command() == ["infra-core"]
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert own_command() == [sys.executable, "-m", "infra_core"]


def test_help_imports_no_slice() -> None:
    """The help answers at once: nothing heavy is imported for it."""
    code = (
        "import sys\nfrom infra_core.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'httpx', 'requests', 'aiohttp', 'azure', 'rich', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_process_of_a_program_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes the command start faster is for its own process: collecting, certificates."""
    monkeypatch.setenv("SSL_CERT_FILE", "mine")
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr(sys, "argv", ["infra-core", "--version"])
    frozen = gc.get_freeze_count()
    with pytest.raises(SystemExit):
        main()
    _start.started()
    _start.import_engine()
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    monkeypatch.setattr(_start, "_own_process", True)
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    _start.import_engine()
    assert os.environ["SSL_CERT_FILE"] == "mine"
    assert "SSL_CERT_DIR" not in os.environ
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ImportError):
        _start.import_engine()
    assert os.environ["SSL_CERT_FILE"] == "mine"
    assert "SSL_CERT_DIR" not in os.environ
    monkeypatch.setattr(threading, "active_count", lambda: 2)
    _start.import_engine()


def test_a_command_loads_of_the_sdk_only_its_errors() -> None:
    """Its client is not loaded for them, and works with them where it is."""
    code = (
        "import sys\n"
        "from infra_core import _start\n"
        "_start.begin()\n"
        "_start.import_storage()\n"
        "assert 'azure.core' not in sys.modules\n"
        "import azure.identity, azure.storage.blob.aio\n"
        "from azure.core.exceptions import ResourceNotFoundError\n"
        "from infra_core.azure.storage import BlobNotFoundError\n"
        "assert issubclass(BlobNotFoundError, ResourceNotFoundError)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("watched", ["", "import sys; sys.setprofile(lambda *_: None)\n"])
def test_the_process_of_a_command_ends_in_order(watched: str) -> None:
    """What is registered for its end runs, and what was printed arrives, under every observer."""
    code = (
        "import atexit, sys\natexit.register(print, 'last')\n"
        "from infra_core._start import command\n"
        f"{watched}sys.argv = ['infra-core', 'jobs', 'list', 'nothing', '--out', 'nowhere']\n"
        "code = command()\nprint('still here')\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout.splitlines() == (["still here", "last"] if watched else ["last"])
    assert "nowhere" in done.stderr


def test_a_command_that_reads_much_before_it_starts_collects_garbage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Very seldom until it has started, seldom then; never not at all."""
    usual = gc.get_threshold()
    monkeypatch.setattr(_start, "_own_process", False)
    try:
        _start.begin()
        assert gc.isenabled()
        before = gc.get_threshold()[0]
        _start.started()
        assert usual[0] < gc.get_threshold()[0] < before
        assert gc.get_threshold()[1:] == (1, 1)  # old garbage would be kept a hundred times as long
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()


def test_version_names_every_slice(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report needs one command."""
    with pytest.raises(SystemExit):
        main(["--version"])
    text = capsys.readouterr().out
    names = ("infra-core ", "infra-core-fs", "infra-core-runtime", "infra-core-azure", "Python")
    for name in names:
        assert name in text


def test_wrong_arguments_exit_with_2() -> None:
    """argparse's code for usage errors."""
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    "option", ["--concurrency=0", "--task-timeout=-1", "--retries=-1", "--processes=100000"]
)
def test_numbers_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the option and the value."""
    with pytest.raises(SystemExit) as stop:
        main(["run", "-", "--batch-id", "b", "--out", "o", option])
    assert stop.value.code == 2
    assert option.split("=", maxsplit=1)[0] in capsys.readouterr().err


def test_unreadable_list_is_one_line_not_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the file and the remedy."""
    missing = tmp_path / "none.txt"
    assert main(["run", str(missing), "--batch-id", "b", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(missing) in error
    assert error.count("\n") == 1


def test_incomplete_storage_settings_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable that is missing is named, and nothing is written."""
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "artifacts")
    (tmp_path / "urls").write_text("https://x.example/\n")
    code = main(["run", str(tmp_path / "urls"), "--batch-id", "b", "--out", str(tmp_path / "o")])
    assert code == 2
    assert "AZURE_STORAGE_CONNECTION_STRING" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "batch_id",
    ["", "../x", "a/b", ".hidden", "x" * 200, "a\0b", "end.", "jobs.sqlite3", "Jobs.sqlite3-wal"],
)
def test_batch_id_that_is_no_folder_name_is_refused(batch_id: str, tmp_path: Path) -> None:
    """The output folder is never left."""
    with pytest.raises(BatchError, match="--batch-id"):
        run_folder(tmp_path, batch_id)


def test_batch_can_be_held_once_only(tmp_path: Path) -> None:
    """A second holder is refused; the lock ends with its holder."""
    with exclusive(tmp_path), pytest.raises(BatchError, match="another process"):
        exclusive(tmp_path).__enter__()
    with exclusive(tmp_path):
        pass


@pytest.mark.parametrize("absolute", [False, True])
def test_paths_of_a_run_are_shown_as_its_folder_was_given(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    absolute: bool,
) -> None:
    """Relative ones can be read, and copied, without the path to the working folder."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "runs" if absolute else Path("runs")
    Path("urls.txt").write_text("http://127.0.0.1:1/a\n")
    with fast_time():
        code = main(["run", "urls.txt", "--batch-id", "b", "--out", str(out), "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert code == 1
    assert shown["folder"] == str(out / "b")
    assert shown["manifest"] == str(out / "b" / "manifest.json")
    assert shown["jobs"] == str(out / "jobs.sqlite3")


def test_jobs_are_listed_and_filtered(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plain text has a line a job; a filter leaves the others out."""
    assert main(["jobs", "list", "b1", "--out", str(out)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main(["jobs", "list", "b1", "--out", str(out), "--status", "failed", "--json"]) == 0
    (job,) = json.loads(capsys.readouterr().out)
    assert (job["job_id"], job["error"]) == ("job-2", "HTTP 404")


def test_job_is_shown_by_the_beginning_of_its_id(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As long as it is the only one; otherwise the error says how many there are."""
    assert main(["jobs", "show", "b1", "job-1", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["payload"]["size"] == 3
    assert main(["jobs", "show", "b1", "job", "--out", str(out)]) == 2
    assert "4 jobs begin with" in capsys.readouterr().err


def test_retry_puts_failed_and_timed_out_jobs_back(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Completed jobs stay unless they are asked for."""
    assert main(["jobs", "retry", "b1", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("2 jobs put back")
    with SqliteJobStore(out / "jobs.sqlite3", JobRecord) as store:
        states = [record.status for record in store.iter_runs("b1")]
        # A worker with a limit would fail them again at once.
        assert {r.attempts for r in store.iter_runs("b1", status="pending")} == {0}
    pending, completed = JobStatus.PENDING, JobStatus.COMPLETED
    assert states == [pending, completed, pending, pending]
    assert main(["jobs", "retry", "b1", "job-1", "--out", str(out)]) == 2
    shown = capsys.readouterr()
    assert "--completed" in shown.err
    assert shown.out == ""
    assert main(["jobs", "retry", "b1", "--out", str(out)]) == 0
    assert capsys.readouterr().out == "no job failed or timed out; nothing was put back\n"
    assert main(["jobs", "retry", "b1", "job-1", "--completed", "--out", str(out)]) == 0


def test_watch_ends_when_every_job_has_ended(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the counts, and its exit code says whether any failed."""
    assert main(["jobs", "watch", "b1", "--out", str(out), "--timeout", "0"]) == 1
    assert "pending 1" in capsys.readouterr().out
    with SqliteJobStore(out / "jobs.sqlite3", JobRecord) as store:
        for record in list(store.iter_runs("b1")):
            store.save(record.requeue(force=True).start().complete())
    assert main(["jobs", "watch", "b1", "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["completed"] == 4


def test_missing_jobs_say_where_they_were_sought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The remedy is the --out of the run."""
    assert main(["jobs", "list", "b1", "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err


def test_retry_leaves_leases_that_run_and_frees_those_that_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A held job needs --force; the others are put back all the same."""

    def jobs(*arguments: str) -> int:
        return main(["jobs", *arguments, "--out", str(tmp_path)])

    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save_many(JobRecord("b", name) for name in ("dead", "held"))
        taken = [store.claim("b", worker="w1", lease_seconds=600) for _ in range(2)]
        held = next(job for job in taken if job and job.job_id == "held")
        dead = next(job for job in taken if job and job.job_id == "dead")
        ended = datetime.now(timezone.utc) - timedelta(seconds=1)
        store.update(replace(dead, lease_until=ended))
        store.create(JobRecord("b", "failed").start().fail("no"))
        store.create(replace(JobRecord("b", "lost").start(), updated_at=ended - timedelta(days=2)))
        assert jobs("retry", "b", "held", "failed", "none") == 2
        error = capsys.readouterr().err
        assert "'held' is running, held by w1" in error
        assert "--force" in error
        assert "there is no job 'none'" in error
        assert store.count_by_status("b") == {"pending": 1, "running": 3}
        assert jobs("retry", "b") == 0
        printed = capsys.readouterr()
        assert "1 running job left to the workers" in printed.err
        assert printed.out.startswith("2 jobs put back")
        assert jobs("retry", "b", "held", "--force") == 0
        with pytest.raises(JobConflictError):
            store.update(held.complete())


def test_retry_goes_on_after_a_conflict_and_reports_the_count(
    out: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that another changes at the same moment is left to that one."""
    update_many = SqliteJobStore.update_many

    def meanwhile(store: SqliteJobStore[JobRecord], records: Any) -> Any:
        with SqliteJobStore(out / "jobs.sqlite3") as other:
            job = other.fetch("b1", "job-2")
            assert job is not None
            other.update(job.start())
        return update_many(store, records)

    monkeypatch.setattr(SqliteJobStore, "update_many", meanwhile)
    assert main(["jobs", "retry", "b1", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith("1 job put back")
    assert "1 job changed meanwhile" in printed.err


def test_watch_does_not_wait_for_abandoned_jobs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A job that was started two days ago without a lease ends the watch, with the remedy."""
    old = datetime.now(timezone.utc) - timedelta(days=2)
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.create(replace(JobRecord("b", "lost").start(), updated_at=old))
    assert main(["jobs", "watch", "b", "--out", str(tmp_path)]) == 1
    assert "1 running job abandoned" in capsys.readouterr().err


def test_watch_does_not_wait_for_jobs_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No worker takes one; its cause is shown."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.create(JobRecord("b", "odd"))
        store.create(JobRecord("b", "done").start().complete())
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection, connection:
        connection.execute(
            "UPDATE jobs SET properties = json_set(properties, '$.attempts', 'many') "
            "WHERE job = 'odd'"
        )
    assert main(["jobs", "watch", "b", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "odd: JobRecordError: " in printed
    assert "no worker takes it" in printed


def test_show_has_the_history_of_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line a start; for programs, its fields."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.create(JobRecord("b", "j").start(worker="ann").fail("no disk").requeue())
        store.claim("b", worker="bob", lease_seconds=60)
    assert main(["jobs", "show", "b", "j", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"starts\s+2\n", printed)
    assert re.search(r"start 1\s.*Z failed by ann: no disk", printed)
    assert re.search(r"start 2\s.*Z running by bob", printed)
    assert main(["jobs", "show", "b", "j", "--out", str(tmp_path), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["attempt_history"][0]
    assert (first["number"], first["outcome"], first["error"]) == (1, "failed", "no disk")
    assert first["started_at"] <= first["ended_at"]


@pytest.mark.parametrize("killed", [False, True])
def test_watch_ends_when_the_run_of_the_batch_has_ended(
    killed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted or killed: what is left stays so, whatever the store calls running."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store.save_many([JobRecord("b", "left"), JobRecord("b", "was at work").start()])
    heartbeat = tmp_path / "b" / "_state" / "heartbeat.json"
    with HeartbeatMonitor(tmp_path / "b", azure_client=None):
        last = json.loads(heartbeat.read_text())
    if killed:  # on another machine, whose processes cannot be seen
        heartbeat.write_text(json.dumps({**last, "host": "elsewhere", "process": None}))
    with fast_time() as time:
        assert main(["jobs", "watch", "b", "--out", str(tmp_path)]) == 1
        assert 10 <= sum(time.slept) <= 120
    error = capsys.readouterr().err
    assert "no run is at work on batch 'b'" in error
    assert "1 pending, 1 running" in error
    assert "--batch-id b --resume" in error


def test_watch_goes_on_while_a_run_or_a_worker_lives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its heartbeat, its lease, or a job that waits for its next try; else it ends as well."""
    watch = ["jobs", "watch", "b", "--out", str(tmp_path), "--timeout", "300"]
    soon = datetime.now(timezone.utc) + timedelta(seconds=900)
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store, fast_time():
        store.save_many(JobRecord("b", name) for name in ("one", "two"))
        job = store.claim("b", worker="w", lease_seconds=900)
        assert job is not None
        assert main(watch) == 1
        store.update(job.requeue(not_before=soon))
        assert main(watch) == 1
        assert "no run" not in capsys.readouterr().err
        with HeartbeatMonitor(tmp_path / "b", azure_client=None, interval_seconds=600):
            store.save_many(JobRecord("b", name) for name in ("one", "two"))
            assert main(watch) == 1
        assert "no run" not in capsys.readouterr().err
    with fast_time():
        assert main(["jobs", "watch", "b", "--out", str(tmp_path)]) == 1
    assert "stopped properly" in capsys.readouterr().err


def test_jobs_are_listed_as_asked(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Sorted, limited, by worker and time, with a header, as CSV and JSON lines."""

    def lines(*arguments: str) -> list[str]:
        assert main(["jobs", "list", "b1", "--out", str(out), *arguments]) == 0
        return capsys.readouterr().out.splitlines()

    ids = [line.partition("\t")[0] for line in lines("--sort=-job", "--limit", "2")]
    assert ids == ["job-3", "job-2"]
    assert lines("--worker", "nobody") == []
    assert lines("--until", "1h") == []
    assert len(lines("--since", "1h")) == 4
    assert lines("--since", "0s") == []
    assert lines("--header", "--limit", "1")[0].split("\t")[:2] == ["job", "status"]
    assert lines("--sort=-starts", "--format", "csv")[:2] != lines("--format", "csv")[:2]
    table = list(csv.DictReader(lines("--format", "csv")))
    assert [row["starts"] for row in table] == ["0", "1", "1", "1"]
    assert [row["status"] for row in table] == ["pending", "completed", "failed", "timed_out"]
    assert json.loads(lines("--format", "jsonl")[2])["error"] == "HTTP 404"


def test_the_files_of_a_run_are_deleted_with_its_jobs_on_request(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own alone, and never under a run that is at work."""
    for name in ("b1/assets/a.txt", "b1/manifest.json", "b10/manifest.json"):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    command = ["jobs", "delete", "b1", "--out", str(out), "--force"]
    assert main([*command, "--blobs"]) == 2
    assert "--blobs needs a container" in capsys.readouterr().err
    with exclusive(run_folder(out, "b1")):
        assert main([*command, "--files"]) == 2
    assert (out / "b1/manifest.json").exists()
    assert main([*command, "--files"]) == 0
    assert capsys.readouterr().out == "4 jobs, 3 files deleted\n"  # its lock is one of them
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["b10"]


def test_files_behind_a_link_are_said_to_stay_when_their_run_is_deleted(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its owner made the link, perhaps to a folder with more in it."""
    disk = out / "disk"
    disk.mkdir()
    (disk / "a.txt").touch()
    (out / "b1").mkdir()
    (out / "b1/assets").symlink_to(disk)
    assert main(["jobs", "delete", "b1", "--out", str(out), "--force", "--files"]) == 0
    assert f"is a link: what is in {str(disk)!r} stays" in capsys.readouterr().err
    assert (disk / "a.txt").exists()
    assert not (out / "b1").exists()


def test_batches_are_summed_up_deleted_and_pruned(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs that have not ended are deleted by force only."""

    def jobs(*arguments: str) -> tuple[int, str]:
        code = main(["jobs", *arguments, "--out", str(out), "--json"])
        return code, capsys.readouterr().out

    code, text = jobs("batches")
    (batch,) = json.loads(text)
    assert (code, batch["batch_id"]) == (0, "b1")
    assert batch["counts"] == {"completed": 1, "failed": 1, "pending": 1, "timed_out": 1}
    assert batch["first_change"] <= batch["last_change"]
    assert main(["jobs", "batches", "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith("b1\t1\t0\t1\t1\t1\t")
    assert jobs("prune", "--older-than", "1d")[1] == '{\n  "deleted": 0\n}\n'
    pruned = jobs("prune", "--older-than", "0s", "--status", "failed")[1]
    assert json.loads(pruned) == {"deleted": 1}
    assert jobs("delete", "b1")[0] == 2
    assert json.loads(jobs("delete", "b1", "--force")[1]) == {"deleted": 3}
    assert jobs("delete", "b1")[0] == 2
