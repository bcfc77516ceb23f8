"""The command line: help, versions, errors in one line, and the jobs of a batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra_core.azure.job_store import JobRecord, JobStatus, SqliteJobStore
from infra_core.batch import BatchError
from infra_core.batch._folder import exclusive, run_folder
from infra_core.cli import main
from infra_core.cli._main import COMMANDS


@pytest.fixture(autouse=True)
def no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AZURE_"):
            monkeypatch.delenv(name)


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


def test_help_imports_no_slice() -> None:
    """The help answers at once: nothing heavy is imported for it."""
    code = (
        "import sys\nfrom infra_core.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'httpx', 'requests', 'aiohttp', 'azure', 'rich', 'asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_version_names_every_slice(capsys: pytest.CaptureFixture[str]) -> None:
    """A bug report needs one command."""
    with pytest.raises(SystemExit):
        main(["--version"])
    text = capsys.readouterr().out
    for name in (
        "infra-core ",
        "infra-core-fs",
        "infra-core-runtime",
        "infra-core-azure",
        "Python",
    ):
        assert name in text


def test_wrong_arguments_exit_with_2() -> None:
    """argparse's code for usage errors."""
    with pytest.raises(SystemExit) as stop:
        main(["run"])
    assert stop.value.code == 2


@pytest.mark.parametrize("option", ["--concurrency=0", "--task-timeout=-1", "--retries=-1"])
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


@pytest.mark.parametrize("batch_id", ["", "../x", "a/b", ".hidden", "x" * 200, "a\0b", "end."])
def test_batch_id_that_is_no_folder_name_is_refused(batch_id: str, tmp_path: Path) -> None:
    """The output folder is never left."""
    with pytest.raises(BatchError, match="--batch-id"):
        run_folder(tmp_path, batch_id)


def test_batch_can_be_held_once_only(tmp_path: Path) -> None:
    """A second holder is told so; the lock ends with its holder."""
    with exclusive(tmp_path), pytest.raises(BatchError, match="another process"):
        exclusive(tmp_path).__enter__()
    with exclusive(tmp_path):
        pass


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
    pending, completed = JobStatus.PENDING, JobStatus.COMPLETED
    assert states == [pending, completed, pending, pending]
    assert main(["jobs", "retry", "b1", "job-1", "--out", str(out)]) == 2
    assert "--completed" in capsys.readouterr().err
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
