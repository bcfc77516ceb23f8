"""A run that meets a full disk, few descriptors, a store that fails, or a signal at its end."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from multiprocessing import Pipe
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from infra_core import _start
from infra_core.azure.job_store import JobRecord, JobStatus, SqliteJobStore
from infra_core.batch import (
    BatchOptions,
    BatchResult,
    Summary,
    _places,
    _workers,
    read_items,
    run_batch,
)
from infra_core.batch._download import Downloads
from infra_core.batch._errors import one_line, without_url
from infra_core.batch._index import JobIndex
from infra_core.batch._jobs import Ended, JobBook, mirrored
from infra_core.batch._places import length_of, places_of
from infra_core.cli import main
from infra_core.cli._arguments import seconds, speed
from infra_core.cli._batch import batch_options, next_command, warn_unset
from infra_core.cli._results import ResultsFile
from infra_core.cli._run import add_arguments, execute
from infra_core.http.testing import FaultyOrigin

pytestmark = pytest.mark.usefixtures("no_azure")

COMMAND = [sys.executable, "-m", "infra_core.cli", "run"]


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        for number in range(200):
            server.add(f"/{number}", bytes([number]) * 9_000)
        yield server


@pytest.fixture
def urls(origin: FaultyOrigin) -> list[str]:
    return [origin.url(f"/{number}") for number in range(200)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def statuses(store: Path, batch: str = "b") -> Counter[JobStatus]:
    with SqliteJobStore(store) as opened:
        return Counter(record.status for record in opened.iter_runs(batch))


def test_a_disk_that_is_taken_away_fails_no_url(
    urls: list[str], tmp_path: Path, place: dict[str, Any]
) -> None:
    """`assets` was a link to it: the run ends, and a resume brings the rest once it is back."""
    disk, gone = tmp_path / "disk", tmp_path / "gone"
    disk.mkdir()
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "assets").symlink_to(disk)

    def take_away(_: object) -> None:
        if disk.exists():
            disk.rename(gone)

    options: Any = {"batch_id": "b", "out": tmp_path / "out", "concurrency": 2, **place}
    summary = run_batch(urls[:40], on_result=take_away, **options)
    assert summary.failed == 0
    assert summary.pending > 0
    assert "this machine lacks something" in summary.problems[0]
    assert statuses(tmp_path / "out" / "jobs.sqlite3").keys() == {
        JobStatus.COMPLETED, JobStatus.PENDING
    }  # fmt: skip
    gone.rename(disk)
    assert run_batch(urls[:40], resume=True, **options).complete


def test_a_full_disk_ends_the_run_with_every_job_put_back(
    urls: list[str], small_disk: Path
) -> None:
    """Nothing has failed for ever or is called running; with more room a resume does the rest."""
    out = small_disk / "out"
    summary = run_batch(urls, batch_id="b", out=out, retries=0, concurrency=32)
    assert summary.failed == 0
    assert not summary.complete
    assert "space" in " ".join(summary.problems)
    found = statuses(out / "jobs.sqlite3")
    assert set(found) <= {JobStatus.COMPLETED, JobStatus.PENDING}
    assert found[JobStatus.COMPLETED] == summary.succeeded
    remount = ["mount", "-o", "remount,size=30m", str(small_disk)]
    subprocess.run(remount, check=True, capture_output=True)
    again = run_batch(urls, batch_id="b", out=out, resume=True)
    assert again.complete
    assert again.skipped == summary.succeeded
    assert not (out / "b" / "_state" / "reserve").exists()


def test_a_disk_that_becomes_read_only_fails_no_job(
    urls: list[str], small_disk: Path, tmp_path: Path
) -> None:
    """As Linux makes one after an error of the disk; the list is not read on for nothing."""
    assets = tmp_path / "b" / "assets"
    assets.parent.mkdir()
    assets.symlink_to(small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    summary = run_batch(urls, batch_id="b", out=tmp_path)
    assert (summary.failed, summary.pending) == (0, summary.total)
    assert "read-only" in summary.problems[0]


def test_a_full_folder_for_temporary_files_is_named() -> None:
    """What the run has seen of a long list stands there; its own disk may have room."""
    with closing(JobIndex()) as index:
        index._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(sqlite3.OperationalError, match=r"full: .*\(TMPDIR\)"):
            index.see([f"{number:032x}" for number in range(10_000)])


def test_a_manifest_of_any_length_lists_each_file_once() -> None:
    """In the order of their paths, by the page."""
    index = JobIndex()
    paths = [f"assets/{number:05}" for number in range(2_500)]
    index.put_files((path, f"{{entry of {path}}}") for path in reversed(paths))
    assert list(index.files()) == [f"{{entry of {path}}}" for path in paths]
    index.close()


def test_what_a_run_has_seen_is_not_closed_while_a_thread_reads_it() -> None:
    """The thread of an await that was cancelled goes on, and Python would crash."""
    index = JobIndex()
    index.put_files((f"{number:04}", str(number)) for number in range(1_500))
    assert list(index.files()) == [str(number) for number in range(1_500)]
    closing_it = threading.Thread(target=index.close)
    with index._transaction():
        closing_it.start()
        closing_it.join(0.05)
        assert closing_it.is_alive()
    closing_it.join()
    with pytest.raises(sqlite3.ProgrammingError):
        index.see(["00"])


@pytest.mark.posix
def test_few_descriptors_fail_no_job_permanently(urls: list[str], tmp_path: Path) -> None:
    """The summary comes whole, and says what to do."""
    import resource

    done = subprocess.run(
        [*COMMAND, "-", "--batch-id", "b", "--out", str(tmp_path), "--json", "--retries", "0",
         "--concurrency", "64"],
        input="\n".join(urls), capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    summary = json.loads(done.stdout)
    assert summary["failed"] == 0
    assert "ulimit -n" in summary["problems"][0]
    assert "Traceback" not in done.stderr
    assert JobStatus.RUNNING not in statuses(tmp_path / "jobs.sqlite3")


class FailingStore(SqliteJobStore[JobRecord]):
    """A store that refuses bulk writes for a while."""

    refusing = False
    refused = 0

    def save_many(self, records: Any) -> Any:
        if self.refusing:
            self.refused += 1
            raise OSError(5, "the store went away")
        return super().save_many(records)


def test_a_record_that_could_not_be_stored_does_not_replace_a_newer_one(tmp_path: Path) -> None:
    """That a job is completed is not stored, that it is mirrored is: no second upload."""
    with FailingStore(tmp_path / "jobs.sqlite3") as store:
        lost: list[str] = []
        services = Mock(store=store, claims=None, summary=Mock(batch_id="b"))
        book = JobBook(services, lost.append)
        for number in ("1", "2"):
            record = JobRecord("b", number).start()
            store.save_many([record])
            store.refusing = True
            book.settle([Ended(record.complete(mirrored=False))])
            store.refusing = number == "2"
            book.settle([Ended(mirrored(record.complete(mirrored=False)))])
        store.refusing = False
        book.conclude([])
        stored = [*store.iter_runs("b")]
    assert len(lost) == 3
    assert [record.payload["mirrored"] for record in stored] == [True, True]


def test_a_worker_process_starts_as_fast_as_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the same steps, in the same order; it imports no certificates that nothing uses."""
    steps: list[str] = []
    for name in ("begin", "import_engine", "started"):
        monkeypatch.setattr(_start, name, partial(steps.append, name))
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    opened = AsyncMock(side_effect=lambda: steps.append("downloads"))
    monkeypatch.setattr(Downloads, "open", opened)
    ours, theirs = Pipe()
    ours.send((BatchOptions(batch_id="b", out=tmp_path), tmp_path, {}))
    ours.send(_workers._END)
    _workers._main(theirs)
    assert steps == ["begin", "import_engine", "downloads", "started"]


def test_a_store_that_goes_away_ends_the_run_in_order(urls: list[str], tmp_path: Path) -> None:
    """What was downloaded meanwhile is recorded once it is back, the rest is pending."""
    with FailingStore(tmp_path / "mine.sqlite3") as store:

        def on_result(result: BatchResult) -> None:
            store.refusing = store.refused < 3

        summary = run_batch(urls, batch_id="b", out=tmp_path, store=store, on_result=on_result)
        assert not summary.complete
        assert "jobs cannot be recorded" in summary.problems[0]
        assert summary.manifest is not None
        store.refusing = False
        again = run_batch(urls, batch_id="b", out=tmp_path, store=store, resume=True)
    assert again.complete
    assert JobStatus.RUNNING not in statuses(tmp_path / "mine.sqlite3")


@pytest.mark.posix
def test_a_job_file_that_was_removed_is_reported(urls: list[str], tmp_path: Path) -> None:
    """SQLite writes on into a file without a name."""

    def on_result(result: BatchResult) -> None:
        (tmp_path / "jobs.sqlite3").unlink(missing_ok=True)

    summary = run_batch(urls[:3], batch_id="b", out=tmp_path, on_result=on_result)
    assert not summary.complete
    assert "was removed" in summary.problems[0]


def test_a_signal_while_the_batch_concludes_leaves_nothing_out(
    urls: list[str], tmp_path: Path
) -> None:
    """Manifest and summary are written; the summary names the signal."""

    class Signalling(SqliteJobStore[JobRecord]):
        def iter_runs(self, *args: Any, **options: Any) -> Any:
            if options.get("status") is JobStatus.RUNNING:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().iter_runs(*args, **options)

    with Signalling(tmp_path / "mine.sqlite3") as store:
        summary = run_batch(urls[:3], batch_id="b", out=tmp_path, store=store)
    assert summary.interrupted == "SIGTERM"
    assert summary.succeeded == 3
    assert (tmp_path / "b" / "manifest.json").exists()


def test_a_file_that_is_fetched_again_stands_in_the_manifest_once(
    urls: list[str], tmp_path: Path
) -> None:
    """Also where another layout gives it another path."""
    run_batch(urls[:3], batch_id="b", out=tmp_path)
    before = json.loads((tmp_path / "b" / "manifest.json").read_text())["files"]
    (tmp_path / "b" / "assets" / before[0]["path"]).unlink()
    results: list[BatchResult] = []
    run_batch(
        urls[:3], batch_id="b", out=tmp_path, resume=True, layout="url", on_result=results.append
    )
    after = json.loads((tmp_path / "b" / "manifest.json").read_text())["files"]
    assert len(after) == 3
    assert {f"assets/{file['path']}" for file in after} == {result.path for result in results}


def test_a_file_of_urls_is_a_list_of_urls(urls: list[str], tmp_path: Path) -> None:
    """Its line ends and blank lines are no part of them; a URL alone is no list."""
    (tmp_path / "urls.txt").write_text("\n".join([urls[0], "", urls[1], "  ", ""]))
    with (tmp_path / "urls.txt").open() as lines:
        summary = run_batch(lines, batch_id="b", out=tmp_path)
    assert (summary.succeeded, summary.rejected_lines) == (2, 0)
    alone: Any = urls[0]
    with pytest.raises(TypeError, match="list of URLs"):
        run_batch(alone, batch_id="c", out=tmp_path)


@pytest.mark.parametrize("given", [None, 5, object()])
def test_what_is_no_list_is_refused_before_anything_is_made(given: Any, tmp_path: Path) -> None:
    """Such as the result of a function that returns nothing."""
    with pytest.raises(TypeError, match=f"items is of type {type(given).__name__}"):
        run_batch(given, batch_id="b", out=tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_a_list_that_cannot_be_read_on_ends_there_with_a_summary(
    urls: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What came before it was done: the command has started."""
    (tmp_path / "urls.txt").write_text(f"{urls[0]}\n{'x' * (17 << 20)}")
    where = ["--batch-id", "b", "--out", str(tmp_path)]
    assert main(["run", str(tmp_path / "urls.txt"), *where, "--json"]) == 1
    summary = json.loads(capsys.readouterr().out)
    assert (summary["succeeded"], summary["list_ended"]) == (1, False)
    assert "line 2 has no end" in summary["problems"][0]


def result_of(**facts: Any) -> BatchResult:
    return BatchResult(**{"job_id": "1", "url": "http://h/", "status": "failed", **facts})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("count", [1, 10_000])
def test_results_that_cannot_be_written_are_reported(count: int) -> None:
    """When the buffer is flushed, or only when the file is closed."""
    results = ResultsFile(Path("/dev/full"))
    for _ in range(count):
        results.write(result_of())
    results.close()
    assert results.error is not None


def test_results_hold_no_formula(tmp_path: Path) -> None:
    """A spreadsheet would run what a server sends."""
    results = ResultsFile(tmp_path / "r.csv")
    formulas = ["=1+1", "@SUM(1)", "\n=1+1", "\uff1d1+1"]
    for formula in formulas:
        results.write(result_of(content_type=formula, error="two\nlines", metadata={"n": "\xe9"}))
    results.write(result_of())
    results.close()
    with (tmp_path / "r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["content_type"] for row in rows[:-1]] == [f"'{formula}" for formula in formulas]
    assert [row["metadata"] for row in rows[-2:]] == ['{"n": "\xe9"}', ""]
    assert rows[0]["error"] == "two\nlines"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("90", 90.0),
        ("1e2", 100.0),
        ("1.5m", 90.0),
        ("5min", 300.0),
        ("500ms", 0.5),
        ("2m30s", 150.0),
        ("1h 30m", 5400.0),
        *((wrong, None) for wrong in ("", "0", "-1", "1:30", "2m30", "5mm", "1e400", "inf", "nan")),
        *((wrong, None) for wrong in ("2m1.2.3s", "2m..s", "2m-30s")),
    ],
)
def test_times_are_written_as_people_write_them(text: str, value: float | None) -> None:
    """With one unit or several, as Go and systemd print them."""
    try:
        assert seconds(text) == value
    except ArgumentTypeError:
        assert value is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10M", 10 << 20),
        ("1.5MiB", 3 << 19),
        ("10MB/s", 10 << 20),
        ("1e6", 1_000_000),
        *((wrong, None) for wrong in ("", "0.5", "-1", "10,5M", "1e400", "inf")),
    ],
)
def test_sizes_are_written_as_people_write_them(text: str, value: int | None) -> None:
    """As other downloaders take them."""
    try:
        assert speed(text) == value
    except ArgumentTypeError:
        assert value is None


def next_of(arguments: Sequence[str], **summary: Any) -> str:
    parser = ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args(["u s.txt", "--batch-id", "b", "--out", "o", *arguments])
    return next_command(options, Summary(batch_id="b", **summary))


def test_what_to_type_next_is_the_whole_command_without_secrets() -> None:
    """Another layout or prefix would make another batch of it."""
    text = next_of(
        ["--layout", "url", "--prefix", "P", "--header", "h:Key=hunter2", "--public-only",
         "--concurrency", "9", "--retries", "4", "--proxy", "http://me:hunter2@proxy"],
        pending=1,
    )  # fmt: skip
    assert text == (
        "infra-core run 'u s.txt' --batch-id b --out o --resume --concurrency 9 "
        "--header h:Key=... --proxy ... --public-only --layout url --prefix P"
    )


def test_a_zero_that_was_asked_for_stays_asked_for() -> None:
    """No retry, no failure, no slowest speed; 0 is no bound for curl and aria2c, and here."""
    zeros = "--retries 0 --min-speed 0 --max-failures 0"
    assert next_of(zeros.split(), pending=1).endswith(zeros)
    parser = ArgumentParser()
    add_arguments(parser)
    needed = ["u", "--batch-id", "b", "--out", "o"]
    parsed = parser.parse_args([*needed, "--min-speed", "0", "--limit-rate", "0"])
    options = batch_options(parsed, 1, 8)
    assert (options.min_speed, options.limit_rate) == (0, None)


@pytest.mark.parametrize(
    ("more", "places"),
    [
        ("--concurrency 32", (2, 16)),
        ("--concurrency 40 --public-only", (2, 20)),
        ("--concurrency 500", (3, 166)),
        ("--concurrency 31", (1, 31)),
        ("", (1, 8)),
        ("--concurrency 32 --processes 1", (1, 32)),
        ("--concurrency 32 --processes 5", (5, 32)),
        ("--concurrency 32 --resume", (1, 32)),
        ("--concurrency 32 --revalidate", (1, 32)),
        ("--concurrency 32 --rate-per-host 5", (1, 32)),
        ("--concurrency 32 --max-per-host 5", (1, 32)),
        ("--concurrency 32 --limit-rate 5k", (1, 32)),
        ("--concurrency 32 --cookies jar", (1, 32)),
        ("--concurrency 32 --scratch folder", (1, 32)),
        ("--concurrency 32 --dask tcp://h", (1, 32)),
        ("--concurrency 32 -v", (1, 32)),
    ],
)
@pytest.mark.posix(reason="Linux alone forks them")
def test_a_long_list_is_shared_among_cores_where_it_makes_no_difference(
    more: str, places: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In all, no more is asked for at a time, nor faster, than the options say."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)
    monkeypatch.setattr(_start, "_own_process", True)
    forked: list[int] = []
    monkeypatch.setattr(_workers, "fork_workers", forked.append)
    monkeypatch.setattr("infra_core.cli._batch.run", lambda options, *places: places)
    parser = ArgumentParser()
    parser.add_argument("-v", "--verbose", action="count", default=0)
    add_arguments(parser)
    urls = tmp_path / "urls.txt"
    urls.write_text("https://example.com/a/long/one\n" * 1_000)
    arguments = [str(urls), "--batch-id", "b", "--out", str(tmp_path), *more.split()]
    options = parser.parse_args(arguments)
    places_of: Any = execute
    assert places_of(options) == places
    assert forked == ([places[0]] if places[0] > 1 or "--scratch" in more else [])
    if "--processes" in more:
        return
    urls.write_text("https://example.com/\n" * 100)
    assert places_of(options) == (1, options.concurrency)
    for absent in ("-", str(tmp_path / "absent"), "a\0b"):
        options.urls = absent
        assert places_of(options) == (1, options.concurrency)


def generated() -> Iterator[str]:
    yield "http://h.example/"


class Endless(list[str]):
    """A source whose length is not to be had."""

    def __len__(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("make", "processes"),
    [
        (lambda _: ["http://h.example/"] * 4_000, 2),
        (lambda file: file, 2),
        (read_items, 2),
        (lambda file: read_items(io.BytesIO(file.read())), 1),
        (lambda _: ["http://h.example/"] * 400, 1),
        (lambda _: generated(), 1),
        (lambda _: Endless(["http://h.example/"]), 1),
    ],
)
@pytest.mark.posix(reason="Linux alone chooses")
def test_a_program_may_leave_the_number_of_processes_to_the_batch(
    make: Any, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the length of its list can be seen; to begin with imports is for a longer one."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(3), raising=False)
    path = tmp_path / "urls.txt"
    path.write_text("http://h.example/a/long/one\n" * 10_000)
    options = BatchOptions(batch_id="b", out=tmp_path, concurrency=40, processes="auto")
    with path.open("rb") as file:
        assert places_of(options, length_of(make(file))) == (processes, 40 // processes)


@pytest.mark.posix
def test_a_batch_shares_its_concurrency_among_the_processes_that_it_chose(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cluster and of a daemonic process it chooses none."""
    made = Mock(side_effect=Downloads)
    monkeypatch.setattr(_workers, "ProcessWorkers", made)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2), raising=False)
    monkeypatch.setattr(_places, "_SPAWNED_FOR", 2)
    settings: dict[str, Any] = {"out": tmp_path, "concurrency": 33, "processes": "auto"}
    urls = [origin.url("/1"), origin.url("/2")]
    assert run_batch(urls, batch_id="a", **settings).complete
    chosen = made.call_args.args[0]
    assert (chosen.processes, chosen.concurrency) == (2, 16)
    assert run_batch(urls[:1], batch_id="b", **settings).complete
    monkeypatch.setattr("multiprocessing.current_process", lambda: Mock(daemon=True))
    assert run_batch(urls, batch_id="c", **settings).complete
    made.assert_called_once()


@pytest.mark.parametrize(
    ("summary", "only"),
    [
        ({"failed": 1, "list_ended": True}, True),
        ({"failed": 1, "list_ended": True, "mirror_failed": 1}, False),
        ({"failed": 1, "list_ended": False}, False),
        ({"failed": 1, "list_ended": True, "rejected_lines": 1}, False),
    ],
)
def test_only_failed_is_proposed_where_nothing_else_is_left(
    summary: dict[str, Any], only: bool
) -> None:
    """A file that was not mirrored is no failed job, nor is a line that is mended meanwhile."""
    assert ("--only failed" in next_of([], **summary)) is only


@pytest.mark.parametrize("more", [{"failed": 1}, {"problems": ["x"]}, {"list_ended": False}])
def test_nothing_is_to_be_typed_where_only_malformed_lines_are_left(more: dict[str, Any]) -> None:
    """A resume would bring nothing; the line about them says what to do."""
    left: dict[str, Any] = {"rejected_lines": 2, "list_ended": True}
    assert next_of([], **left) == ""
    assert "--resume" in next_of([], **{**left, **more})


def test_a_failed_download_is_one_line(
    origin: FaultyOrigin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not a traceback, which the log of the client would print as well."""
    (tmp_path / "urls").write_text(origin.url("/none"))
    where = ["--batch-id", "b", "--out", str(tmp_path)]
    assert main(["run", str(tmp_path / "urls"), *where, "--retries", "0"]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("/none") == 1


def test_a_url_that_is_none_is_shown_once() -> None:
    """The cause stands behind the URL already."""
    url = "http://xn--a./x"
    assert without_url(f"InvalidURL: {url!r} is not a URL", url) == "InvalidURL: it is not a URL"
    assert without_url(f"{url} was not stored", url) == "was not stored"
    assert without_url(f"GET {url}: no", url) == "GET : no"
    assert without_url(f"the last from {url}: no", url) == "the last from it: no"
    longer = f"the last from {url}y: no"
    assert without_url(longer, url) == longer


def test_the_cause_stands_behind_a_long_url() -> None:
    """As those that storage services sign have it."""
    url = "http://h.example/?" + "x" * 900
    error = ValueError(f"GET {url} answered 403 Forbidden: check the credentials")
    shown = "ValueError: GET answered 403 Forbidden: check the credentials"
    assert one_line(error, url=url) == shown


def test_every_command_reads_the_variables_of_one_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --prefix, in front of the verb or behind it; the environment is as before after it."""
    monkeypatch.setenv("P_AZURE_JOB_TABLE", "not a table")
    monkeypatch.setenv("P_AZURE_STORAGE_MODE", "odd")
    before = dict(os.environ)
    out = ["--out", str(tmp_path)]
    prefix = ["--prefix", "P"]
    for arguments in (["jobs", *prefix, "list", "b"], ["jobs", "list", "b", *prefix]):
        assert main([*arguments, *out]) == 2
        assert "not a table" in capsys.readouterr().err
    for arguments in (["manifest", str(tmp_path)], ["mirror", "list", str(tmp_path)]):
        assert main([*arguments, "--prefix", "P"]) == 2
        assert "odd" in capsys.readouterr().err
    assert main(["jobs", "list", "b", *out]) == 2
    assert "AZURE_JOB_TABLE is not set" in capsys.readouterr().err
    assert dict(os.environ) == before


def test_a_prefix_without_variables_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is probably mistyped, and the files would not be mirrored."""
    monkeypatch.setenv("CRAWLER_AZURE_STORAGE_CONTAINER", "pages")
    warn_unset("CRAWLER")
    warn_unset(None)
    assert capsys.readouterr().err == ""
    warn_unset("CRALWER")
    assert "no variable CRALWER_AZURE_* is set" in capsys.readouterr().err
