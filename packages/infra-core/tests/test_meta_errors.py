"""Bad input is reported in one line with the value, the rule and the remedy, and no traceback."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core import find_capabilities, fs
from infra_core.azure.client import AzureFunctionSyncClient
from infra_core.azure.job_store import JobRecord, SqliteJobStore, work_batch
from infra_core.azure.monitoring import RunLogWriter
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.batch import _manifest, run_batch
from infra_core.batch._errors import one_line, plural
from infra_core.cli import _main, main
from infra_core.cli._arguments import CommandError, check_writable
from infra_core.cli._report import Lasting, to_json
from infra_core.http import fetch
from infra_core.http.assets import download_asset, download_many
from infra_core.http.testing import FaultyOrigin
from infra_core.polling import poll_until

COMMAND = [sys.executable, "-m", "infra_core"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_azure: None) -> Path:
    """The current folder: a list, a folder, a file, a store with one finished job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "urls").write_text("https://x.invalid/\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with SqliteJobStore(tmp_path / "jobs.sqlite3", JobRecord) as store:
        store.save(JobRecord("b1", "job-1").start().complete())
    return tmp_path


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/a", b"a")
        yield server


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and the last line of standard error, with the slashes of POSIX; no other output."""
    try:
        code = main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    line = shown.err.strip().splitlines()[-1]
    return code, line.replace("\\\\", "/").replace("\\", "/") if os.name == "nt" else line


RUN = ("run", "urls", "--batch-id", "b", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        pytest.param(["rnu"], ["'rnu'", "choose from"], id="command"),
        pytest.param(
            [*RUN, "--concurency", "3"],
            ["no option --concurency", "did you mean --concurrency?"],
            id="near-option",
        ),
        pytest.param([*RUN, "--key=hunter2"], ["no option --key;", "--help"], id="far-option"),
        pytest.param([*RUN, "more"], ["'more'", "one argument too many"], id="argument"),
        pytest.param(
            ["jobs", "list", "b1", "--jsn"], ["no option --jsn", "--json?"], id="option-of-a-verb"
        ),
        pytest.param([*RUN, "--concurrency", "0"], ["'0'", "at least 1"], id="zero"),
        pytest.param([*RUN, "--concurrency", "abc"], ["'abc'", "whole number"], id="word"),
        pytest.param([*RUN, "--retries", "-1"], ["'-1'", "at least 0"], id="negative"),
        pytest.param([*RUN, "--max-bytes", "1.5x"], ["'1.5x'", "10M"], id="size"),
        pytest.param([*RUN, "--task-timeout", "nan"], ["'nan'", "seconds above 0"], id="nan"),
        pytest.param([*RUN, "--backoff", "inf"], ["'inf'", "seconds above 0"], id="infinite"),
        pytest.param(["jobs", "watch", "b1", "--interval", "0"], ["'0'", "above 0"], id="interval"),
        pytest.param(["jobs", "watch", "b1", "--timeout", "nan"], ["'nan'"], id="watch-timeout"),
        pytest.param(["doctor", "--timeout", "-1"], ["'-1'", "above 0"], id="doctor-timeout"),
        pytest.param(["doctor", "--prefix", "a b"], ["'a b'", "letters, digits"], id="prefix"),
        pytest.param([*RUN, "--header", "bad name=x"], ["'bad name'", "letters"], id="header"),
        pytest.param([*RUN, "--header", "X\nY=x"], ["header name", "letters"], id="header-line"),
        pytest.param([*RUN, "--header", "X=a\nb"], ["'X'", "line breaks"], id="header-value"),
        pytest.param([*RUN, "--header", "h:bad name=x"], ["of h: 'bad name'"], id="host-header"),
        pytest.param([*RUN, "--header", "=x"], ["''", "NAME=VALUE"], id="header-without-name"),
        pytest.param([*RUN, "--header", "A: s=="], ["'A'", "NAME=VALUE"], id="header-of-curl"),
        pytest.param([*RUN, "--prefix", "a-b"], ["'a-b'", "letters, digits"], id="prefix-of-run"),
        pytest.param(
            ["jobs", "list", "b1", "--since", "99999999999d"],
            ["'99999999999d'", "ISO 8601"],
            id="age-before-all-time",
        ),
        pytest.param(["jobs", "list", "b1", "--since", "²d"], ["'²d'", "90s"], id="age"),
        pytest.param(["run", "none", *RUN[2:]], ["'none'", "No such file", "or -"], id="no-list"),
        pytest.param(["run", "folder", *RUN[2:]], ["'folder'", "directory"], id="folder-as-list"),
        pytest.param(["run", "file", *RUN[2:]], ["'file'", "one http(s) URL a line"], id="empty"),
        pytest.param(
            [*RUN, "--summary-file", "folder"],
            ["--summary-file 'folder'", "name a file in it"],
            id="summary-is-a-folder",
        ),
        pytest.param(
            [*RUN, "--summary-file", "file/s.json", "--json"],
            ["--summary-file", "choose another path"],
            id="summary-below-a-file",
        ),
        pytest.param(
            [*RUN, "--results", "-"],
            ["--results '-'", "name a file"],
            id="results to standard output",
        ),
        pytest.param(
            [*RUN, "--summary-file", "/dev/null"],
            ["device", "ordinary file"],
            id="device",
            marks=pytest.mark.posix,
        ),
        pytest.param(
            ["run", "urls", "--batch-id", "b", "--out", "file"],
            ["file/b'", "choose another output folder (--out)"],
            id="out-is-a-file",
        ),
        pytest.param(
            ["manifest", "none"], ["'none' does not exist", "give a folder"], id="manifest-none"
        ),
        pytest.param(["manifest", "file"], ["'file' is not a folder"], id="manifest-file"),
        pytest.param(
            ["manifest", "folder", "--out", "m", "--html", "./m"], ["name the same file"], id="same"
        ),
        pytest.param(["manifest", "folder", "--html", "folder"], ["--html 'folder'"], id="html"),
        pytest.param(["manifest", "folder", "--out", "file/m"], ["--out 'file/m'"], id="json"),
        pytest.param(["mirror", "plan", "folder"], ["AZURE_STORAGE_CONTAINER"], id="no-storage"),
        pytest.param(
            ["jobs", "list", "typo", "--json"],
            ["'typo'", "'jobs.sqlite3'", "--out"],
            id="unknown-batch",
        ),
        pytest.param(["jobs", "retry", "typo"], ["'typo'", "--out"], id="retry-unknown-batch"),
        pytest.param(["demo", "--out", "file/x"], ["'file/x'", "output folder"], id="demo-out"),
        pytest.param(["trigger", " ", "--base-url", "http://x.invalid"], ["batch_id"], id="no-id"),
        pytest.param(
            ["trigger", "b", "--path", "http://evil.invalid/?code=hunter2"],
            ["does not begin with /", "--base-url"],
            id="path-is-a-url",
        ),
        pytest.param(["trigger", "b", "--payload", '{"a": NaN}'], ["NaN"], id="nan-payload"),
        pytest.param(["trigger", "b", "--payload", "[1]"], ["'[1]'", "JSON object"], id="payload"),
        pytest.param(
            ["trigger", "b", "--base-url", "http://x.invalid", "--summary-file", "folder"],
            ["--summary-file 'folder'"],
            id="trigger-summary",
        ),
    ],
)
def test_bad_arguments_are_refused_and_nothing_starts(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line that names the value, the rule and the remedy; no secret in it."""
    code, line = run_cli(capsys, *arguments)
    assert code == 2
    assert [part for part in parts if part not in line] == []
    assert "hunter2" not in line
    assert not Path("o").exists()


@pytest.mark.parametrize("blocked", ["o/b/_state", "o/jobs.sqlite3"])
def test_what_stands_in_the_way_is_named(blocked: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a folder has to be, a folder where the job store has to be."""
    path = Path(blocked)
    path.parent.mkdir(parents=True)
    path.mkdir() if path.suffix else path.touch()
    code, line = run_cli(capsys, *RUN)
    assert code == 2
    assert blocked in line


def test_job_table_without_a_connection_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs that went to a file in silence would be sought in the table."""
    monkeypatch.setenv("AZURE_JOB_TABLE", "runs")
    for arguments in (RUN, ("jobs", "list", "b1")):
        code, line = run_cli(capsys, *arguments)
        assert code == 2
        assert "AZURE_JOB_CONNECTION" in line


def test_failure_that_is_no_fault_of_the_arguments_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A service out of reach, a bug: one line without secrets; -v adds where it came from."""

    def fail(*_: object) -> None:
        raise RuntimeError("it broke at https://x.invalid/?sig=hunter2")

    monkeypatch.setattr("infra_core.cli._jobs.list_jobs", fail)
    code, line = run_cli(capsys, "jobs", "list", "b1")
    assert code == 1
    assert line.startswith("infra-core jobs: RuntimeError: it broke")
    assert line.endswith("-v shows where this came from")
    assert "hunter2" not in line
    assert main(["jobs", "list", "b1", "-v"]) == 1
    shown = capsys.readouterr().err
    assert "in fail" in shown
    assert "hunter2" not in shown


def test_ctrl_c_is_130_at_every_stage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Even while the command line is still being read."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_main, "build_parser", interrupt)
    assert run_cli(capsys, "doctor") == (130, "infra-core: interrupted")


def test_malformed_lines_are_shown_without_secrets_and_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A terminal obeys what it is sent; and a thousand lines are too many to read."""
    lines = ["\x1b[31mred", "htp://u:hunter2@h/?sig=hunter2", "x\0y", "http://h:abc/"]
    lines += [f"https://x.invalid/{'a' * 70_000}", *["word"] * 30]
    Path("urls").write_text("\n".join(lines))
    assert main([*RUN]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 22
    assert shown[-2] == "... and 15 more malformed lines"
    assert shown[0].endswith(r"'\x1b[31mred'")
    assert "UTF-16" in shown[2]
    assert "at most 65535" in shown[3]
    assert "at most 65536" in shown[4]
    assert len(shown[4]) < 250
    assert "hunter2" not in "".join(shown)


# Each command in a process of its own, forked from one that has imported everything.
FORKS = """
import json, os, sys
import aiohttp, rich.console
from infra_core.cli import _doctor, _jobs, _run, main

for number, command in enumerate(json.loads(sys.argv[1])):
    for how in ("full", "gone"):
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            print(json.dumps([how, code, open("err").read()]), flush=True)
            continue
        reader, gone = os.pipe()
        os.close(reader)
        os.dup2(os.open("/dev/full", os.O_WRONLY) if how == "full" else gone, 1)
        os.dup2(os.open("err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.exit(main(command))
"""


@pytest.mark.posix
def test_output_that_cannot_be_written_is_no_traceback(origin: FaultyOrigin) -> None:
    """A full disk is reported, a reader that left and a closed stream are not."""
    Path("urls").write_text(origin.url("/a"))
    run = [*RUN, "--json", "--resume"]
    commands = [["--version"], ["jobs", "list", "b1"], ["doctor", "--json"], run]
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(commands)],
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2 * len(commands)
    for how, code, error in found:
        assert code == 1
        assert error.count("\n") == (how == "full"), error
        assert (os.strerror(errno.ENOSPC) in error) == (how == "full")
    script = 'exec "$@" <&- >&- 2>&-'
    for command in (["--version"], run):
        closed = subprocess.run(["sh", "-c", script, "sh", *COMMAND, *command], timeout=50)
        assert closed.returncode == 0


def test_batch_goes_on_when_its_reader_leaves(
    origin: FaultyOrigin, capsys: pytest.CaptureFixture[str]
) -> None:
    """`infra-core run ... | head -1`: the lines end, the downloads do not."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    stream = Lasting(Gone())
    assert stream.write("a") == 1
    assert stream.write("b") == 1
    stream.flush()
    assert capsys.readouterr().err.count("the work goes on") == 1
    Path("urls").write_text(origin.url("/a"))
    reader, gone = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *RUN], stdout=gone, stderr=subprocess.PIPE, timeout=50)
    os.close(gone)
    assert done.returncode == 0
    assert len(list(Path("o/b/assets").rglob("*-a"))) == 1


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1"])
def test_json_stays_json_in_every_stream_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Characters that it cannot are escaped, and text that is no UTF-8 as well."""
    (Path("folder") / "Übersicht ✓").touch()
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    assert main(["manifest", "folder"]) == 0
    names = {item["path"] for item in json.loads(raw.getvalue().decode(encoding))["files"]}
    assert names == {"Übersicht ✓"}
    for text in ("é", "\udcff"):
        assert json.loads(to_json(text, encoding).encode(encoding).decode(encoding)) == text
    assert to_json("é") == '"é"'
    assert json.loads(to_json({"path": Path("é")}, encoding)) == {"path": "é"}


def test_what_cannot_be_stored_is_a_problem_of_the_batch(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk fills in mid-run: downloads count, what is lost is named once, exit code 1."""

    def failing_for(call: Callable[..., Any], *marks: str) -> Callable[..., Any]:
        def wrapped(*args: Any, **options: Any) -> Any:
            if any(mark in str(arg) for mark in marks for arg in args):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "disk")
            return call(*args, **options)

        return wrapped

    stored = failing_for(fs.write_json_atomic, "s.json")
    monkeypatch.setattr(fs, "write_json_atomic", stored)
    manifest = failing_for(_manifest.write_manifest, "manifest")
    monkeypatch.setattr(_manifest, "write_manifest", manifest)
    monkeypatch.setattr(RunLogWriter, "write_many", failing_for(RunLogWriter.write_many, "job_"))
    rows = failing_for(SqliteJobStore.save_many, "HTTPStatus")
    monkeypatch.setattr(SqliteJobStore, "save_many", rows)
    Path("urls").write_text(f"{origin.url('/a')}\n{origin.url('/none')}")
    assert main([*RUN, "--json", "--summary-file", "s.json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["succeeded"], summary["failed"], summary["complete"]) == (1, 1, False)
    kinds = [problem.partition(":")[0] for problem in summary["problems"]]
    assert sorted(kinds) == [
        "ended early",
        "jobs were not recorded",
        "the run log has gaps",
        "the summary was not stored",
        "there is no manifest",
    ]


def test_file_that_can_be_written_is_left_alone(place: Path) -> None:
    """The look beforehand makes folders and changes nothing else."""
    (place / "s.json").write_text("old")
    check_writable(place / "s.json", "--x")
    check_writable(place / "new" / "s.json", "--x")
    check_writable(None, "--x")
    assert (place / "s.json").read_text() == "old"
    assert [path.name for path in place.rglob("*.json")] == ["s.json"]
    with pytest.raises(CommandError, match="--x"):
        check_writable(place / "a\0b", "--x")


@pytest.mark.parametrize(
    ("outputs", "what"),
    [
        (["--results", "urls"], "--results 'urls' is the list"),
        (["--summary-file", "o/../urls"], "is the list"),
        (["--summary-file", "o/jobs.sqlite3"], "is the job store"),
        (["--summary-file", "o/b"], "is the batch's folder"),
        (["--results", "o/b/manifest.json"], "is the batch's manifest"),
        (["--results", "same", "--summary-file", "same"], "is --summary-file"),
    ],
)
def test_outputs_that_would_replace_what_the_run_needs_are_refused(
    outputs: list[str], what: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything of it is written to."""
    Path("urls").write_text("http://127.0.0.1:1/a\n")
    assert main([*RUN, *outputs]) == 2
    assert what in capsys.readouterr().err
    assert Path("urls").read_text() == "http://127.0.0.1:1/a\n"


def test_one_is_no_plural() -> None:
    """`1 job`, `2 jobs`."""
    assert [plural(n, "job") for n in (0, 1, 2)] == ["0 jobs", "1 job", "2 jobs"]


def test_what_a_killed_run_left_half_written_is_swept(origin: FaultyOrigin) -> None:
    """Beside the manifest and the heartbeat; the lock says that no process writes there now."""
    Path("urls").write_text(origin.url("/a"))
    Path("o/b/_state").mkdir(parents=True)
    for name in ("o/b/.m.0123456789abcdef.part.json", "o/b/_state/.h.0123456789abcdef.part"):
        assert fs.is_partial(name)
        Path(name).touch()
    assert main([*RUN]) == 0
    assert [path for path in Path("o").rglob("*") if fs.is_partial(path)] == []


MISSING = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("infra_core.http"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import infra_core
try:
    infra_core.fetch
except ModuleNotFoundError as error:
    print(error)
from infra_core.cli import main
sys.exit(main(["manifest", "folder", "--html", "x.html"]) + main(["demo", "--out", "d"]))
"""


def test_slice_that_is_missing_is_named_with_its_installation() -> None:
    """The facade names the distribution, and the command that it is incomplete."""
    done = subprocess.run(
        [sys.executable, "-c", MISSING], capture_output=True, text=True, timeout=50
    )
    assert "pip install infra-core-http" in done.stdout.splitlines()[0]
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "pip install --upgrade infra-core" in done.stderr


def test_query_that_is_no_text_is_refused() -> None:
    """With what a query looks like."""
    with pytest.raises(TypeError, match="blob upload"):
        find_capabilities(None)  # type: ignore[arg-type]


def test_error_that_is_logged_again_and_again_is_shown_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A heartbeat that fails every few seconds does not bury everything else."""
    logger = logging.getLogger("infra_core.azure.monitoring")
    with _main.logging_to_stderr(0):
        for cause in ("down", "down", "gone", "down"):
            logger.error("the heartbeat failed: %s", cause)
    shown = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in shown] == ["down", "gone"]


@pytest.mark.parametrize(("verbose", "shown"), [(0, ""), (1, "WARNING azure.identity: no CLI\n")])
def test_warnings_of_the_sdks_are_shown_on_request_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verbose: int, shown: str
) -> None:
    """Where no token is to be had azure-identity logs a dozen lines; the error says it in one."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
    with _main.logging_to_stderr(verbose):
        logging.getLogger("azure.identity").warning("no CLI")
    assert capsys.readouterr().err == shown


def test_a_demo_that_cannot_write_does_not_start(
    capsys: pytest.CaptureFixture[str], place: Path
) -> None:
    """The option is named, and nothing is served."""
    (place / "o/urls.txt").mkdir(parents=True)
    code, shown = run_cli(capsys, "demo", "--out", "o")
    assert code == 2
    assert "--out" in shown


@pytest.mark.parametrize(
    "arguments",
    [
        *(["mirror", "up", ""], ["mirror", "down", " "], ["mirror", "list", "a", "--base", ""]),
        *(["run", "u", "--batch-id", "b", "--out", ""], ["manifest", ""]),
        *(["jobs", "list", "b", "--out", ""],),
    ],
)
def test_an_empty_name_of_a_folder_is_not_the_current_one(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A variable of the shell that is not set would mirror, or delete, what is there."""
    code, shown = run_cli(capsys, *arguments)
    assert code == 2
    assert "no folder is named; give its path, or . for this one" in shown


def test_a_mirror_that_the_mode_keeps_off_names_the_mode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The container is set, so to ask for one would not help."""
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "artifacts")
    monkeypatch.setenv("AZURE_STORAGE_MODE", "dev-skip")
    code, shown = run_cli(capsys, "mirror", "up", "folder")
    assert code == 2
    assert "AZURE_STORAGE_MODE=dev-skip" in shown
    assert "set AZURE_STORAGE_CONTAINER" not in shown


def test_what_a_server_said_does_not_steer_the_terminal() -> None:
    """Escape sequences, C1 controls and marks of text direction are shown as escapes."""
    shown = one_line(ValueError("a\x1b[2J\x9b1m \u202egpj"))
    assert shown == r"ValueError: a\x1b[2J\x9b1m \u202egpj"


async def _forever() -> None:
    return None


def _work() -> object:
    store: SqliteJobStore[JobRecord] = SqliteJobStore("s", JobRecord)
    return work_batch(store, "b", str)


@pytest.mark.parametrize(
    ("call", "instead"),
    [
        (lambda: download_asset("http://127.0.0.1:1/f", Path("f")), "download_asset_async"),
        (lambda: download_many([("http://127.0.0.1:1/f", Path("f"))]), "download_many_async"),
        (lambda: poll_until(_forever, lambda _: True), "poll_until_async"),
        (lambda: run_batch(["http://127.0.0.1:1/f"], batch_id="b", out="out"), "run_batch_async"),
        (_work, "work_batch_async"),
    ],
)
async def test_what_cannot_block_an_event_loop_names_what_to_await(
    call: Callable[[], object], instead: str
) -> None:
    """One error for all; no coroutine is left that nothing awaited."""
    with pytest.raises(RuntimeError, match=rf"runs an event loop, .*: await {instead}\(\), or"):
        call()


async def test_synchronous_clients_work_in_a_running_loop_as_in_0_7(place: Path) -> None:
    """In a notebook, say: they block it."""
    with FaultyOrigin() as origin, AzureFunctionSyncClient(origin.url("/")) as functions:
        origin.add("/api/f", b"{}")
        assert fetch(origin.url("/api/f")) == "{}"
        assert functions.get_json("api/f") == {}
        assert poll_until(lambda: 1, lambda found: found == 1) == 1
    settings = AzureStorageSettings("box")
    with AzureStorageClient.from_settings(settings, "dev-skip", base_path=place) as storage:
        assert storage.write_json(place / "x.json", {}).exists()
    with SqliteJobStore(place / "jobs.sqlite3", JobRecord) as store:
        assert len(list(store.iter_runs("b1"))) == 1
