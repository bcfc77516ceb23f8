"""The main job as a library: what is asked for comes back, recorded, whatever goes wrong."""

import asyncio
import errno
import gc
import hashlib
import json
import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from contextlib import closing
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from multiprocessing import Pipe
from multiprocessing.spawn import get_preparation_data
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from infra_core.azure.job_store import JobRecord, JobStatus, SqliteJobStore
from infra_core.azure.monitoring.testing import IngestionServer
from infra_core.batch import (
    BatchError,
    BatchItem,
    BatchOptions,
    BatchProgress,
    BatchResult,
    BatchRetry,
    Rejected,
    Summary,
    _claims,
    _dask,
    _finishing,
    _run,
    _workers,
    job_id_of,
    run_batch,
    run_batch_async,
)
from infra_core.batch._download import Downloads, WorkItem, share_of
from infra_core.batch._folder import is_link
from infra_core.batch._jobs import Job, JobBook
from infra_core.batch._results import Hooks, Outcome
from infra_core.batch._run import BatchRun
from infra_core.cli import main
from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    redirect,
    reset_after,
    slow,
    status,
)
from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time

pytestmark = pytest.mark.usefixtures("no_azure")


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        for number in range(20):
            server.add(f"/{number}.txt", body_of(number), content_type="text/plain")
        yield server


def body_of(number: int) -> bytes:
    return f"file {number}".encode() * 50


def records_of(out: Path) -> dict[str, JobRecord]:
    with SqliteJobStore(out / "jobs.sqlite3") as store:
        return {record.job_id: record for record in store.iter_runs("b")}


def manifest_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "b" / "manifest.json").read_text())
    return found


def test_a_batch_brings_files_records_manifest_and_results(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """All four agree."""
    urls = [origin.url(f"/{number}.txt") for number in range(20)]
    results: list[BatchResult] = []
    progress: list[BatchProgress] = []
    summary = run_batch(
        urls, batch_id="b", out=tmp_path, on_result=results.append, on_progress=progress.append
    )
    assert summary.complete
    assert (summary.total, summary.succeeded, summary.failed) == (20, 20, 0)
    assert {result.url for result in results} == set(urls)
    assert all(result.ok and result.status == "completed" for result in results)
    for result in results:
        number = int(result.url.rpartition("/")[2].removesuffix(".txt"))
        assert result.path is not None
        assert (tmp_path / "b" / result.path).read_bytes() == body_of(number)
        assert result.size == len(body_of(number))
    records = records_of(tmp_path)
    assert {record.status for record in records.values()} == {JobStatus.COMPLETED}
    assert {r.payload["path"] for r in records.values()} == {result.path for result in results}
    manifest = manifest_of(tmp_path)
    assert manifest["summary"]["total_files"] == 20
    assert [file["path"] for file in manifest["files"]] == sorted(
        str(result.path).removeprefix("assets/") for result in results
    )
    assert {file["source_url"]: file["checksum"] for file in manifest["files"]} == {
        result.url: result.checksum for result in results
    }
    assert progress[-1].settled == progress[-1].read == 20
    assert progress[-1].list_ended


def test_items_bring_names_checksums_headers_and_metadata(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Mappings and BatchItems are taken beside URLs; metadata travels to record and result."""
    good = {"url": origin.url("/1.txt"), "name": "one.txt", "metadata": {"shop": 7}}
    bad = BatchItem(origin.url("/2.txt"), checksum="sha256:" + "0" * 64)
    headed = BatchItem(origin.url("/3.txt"), headers={"X-Key": "hunter2"})
    results: dict[str, BatchResult] = {}
    summary = run_batch(
        [good, bad, headed], batch_id="b", out=tmp_path, retries=0,
        headers={"X-All": "yes"}, host_headers={"127.0.0.1": {"X-Host": "here"}},
        on_result=lambda result: results.update({result.url: result}),
    )  # fmt: skip
    assert (summary.succeeded, summary.failed) == (2, 1)
    one = results[origin.url("/1.txt")]
    assert str(one.path).endswith("-one.txt")
    assert one.metadata == {"shop": 7}
    assert records_of(tmp_path)[one.job_id].payload["metadata"] == {"shop": 7}
    assert "ChecksumMismatch" in str(results[origin.url("/2.txt")].error)
    request = next(request for request in origin.requests if request.path == "/3.txt")
    sent = {name.lower(): value for name, value in request.headers.items()}
    assert (sent["x-key"], sent["x-all"], sent["x-host"]) == ("hunter2", "yes", "here")
    assert sent["user-agent"].startswith("infra-core/")
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or b"hunter2" not in file.read_bytes()


def test_headers_of_a_host_stay_with_it(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A redirect to another one does not take them along."""
    with FaultyOrigin() as other:
        other.add("/to", b"x")
        origin.add("/from", always=redirect(other.url("/to")))
        here = origin.base_url.partition("//")[2].rstrip("/")
        run_batch([origin.url("/from")], batch_id="b", out=tmp_path,
                  host_headers={here: {"X-Host": "hunter2"}})  # fmt: skip
        assert origin.requests[-1].headers["X-Host"] == "hunter2"
        assert "X-Host" not in other.requests[-1].headers
        assert other.requests[-1].headers["User-Agent"].startswith("infra-core/")


def test_a_host_that_a_redirect_leads_to_gets_its_own_headers(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """And what concerns a third host changes nothing; a port has its own beside those of a host."""
    with FaultyOrigin() as other:
        other.add("/to", b"x")
        origin.add("/from", always=redirect(other.url("/to")))
        here, there = (each.base_url.partition("//")[2].rstrip("/") for each in (origin, other))
        run_batch(
            [origin.url("/from")], batch_id="b", out=tmp_path,
            host_headers={
                "127.0.0.1": {"X-Host": "both", "X-Port": "none"}, here: {"X-Port": "here"},
                there: {"X-Port": "there"}, "third.example": {"User-Agent": "third", "X-Host": "3"},
            },
        )  # fmt: skip
    for server, port in ((origin, "here"), (other, "there")):
        sent = server.requests[-1].headers
        assert (sent["X-Host"], sent["X-Port"]) == ("both", port)
        assert sent["User-Agent"].startswith("infra-core/")


@pytest.mark.parametrize(
    "metadata",
    [{"a": {1}}, {"a": b"x"}, {1: 2}, {"a": [{2: 3}]}, {"a": float("nan")}, {"a": [float("-inf")]}],
)
def test_metadata_that_is_no_json_is_refused_alone(
    metadata: Any, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The entry is passed over with its reason; the rest of the batch goes on."""
    rejected: list[Rejected] = []
    items = [{"url": origin.url("/1.txt"), "metadata": metadata}, origin.url("/2.txt")]
    summary = run_batch(items, batch_id="b", out=tmp_path, on_rejected=rejected.append)
    assert (summary.succeeded, summary.rejected_lines) == (1, 1)
    assert "'metadata' is not JSON" in rejected[0].reason


def test_a_batch_runs_in_any_thread(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Signals are handled where Python allows it, in the main thread alone."""
    call = partial(run_batch, [origin.url("/1.txt")], batch_id="b", out=tmp_path)
    assert asyncio.run(asyncio.to_thread(call)).succeeded == 1


@pytest.mark.parametrize(
    ("host", "url", "sent"),
    [
        ("Example.COM", "https://example.com/f", True),
        ("example.com:443", "https://example.com/f", True),
        ("example.com:80", "http://example.com./f", True),
        ("example.com:8443", "https://example.com/f", False),
        ("example.com", "https://example.com:8443/f", True),
        ("m\u00fcller.example", "https://xn--mller-kva.example/f", True),
        ("[::1]", "http://[::1]:8080/f", True),
        ("[::1]:8080", "http://[::1]:8080/f", True),
        ("example.com", "https://www.example.com/f", False),
    ],
)
def test_headers_of_a_host_know_it_in_every_form(
    host: str, url: str, sent: bool, tmp_path: Path
) -> None:
    """The port that a scheme implies, letter case, a final dot, brackets, IDNA."""
    options = BatchOptions(batch_id="b", out=tmp_path, host_headers={host: {"X": "y"}})
    downloads = Downloads(options, tmp_path, lambda retry: None)
    assert downloads._headers(WorkItem("1", url, "1")) == ({"X": "y"} if sent else {})


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, *range(520, 525), 529])
def test_what_a_server_answers_in_passing_is_tried_again(
    code: int, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """A CDN's words for an origin that is down or overloaded among them."""
    origin.add("/flaky", b"x", faults=[status(code)])
    given: Any = {"batch_id": "b", "out": tmp_path, "backoff": 0.001}
    assert run_batch([origin.url("/flaky")], **given).retries == 1


@pytest.mark.parametrize("code", [403, 404, 410, 451, 501, 505, 525, 526])
def test_what_a_server_means_is_not_asked_again(
    code: int, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The answer would be the same."""
    origin.add("/none", b"x", faults=[status(code)])
    summary = run_batch([origin.url("/none")], batch_id="b", out=tmp_path)
    assert (summary.failed, summary.retries) == (1, 0)


def test_retries_failures_and_rejected_entries_are_reported(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each through its hook, each in the summary; a hook that raises ends nothing."""
    origin.add("/flaky", b"x", faults=[status(503, retry_after="0"), reset_after(0)])
    retries: list[BatchRetry] = []
    rejected: list[Rejected] = []
    duplicates: list[BatchItem] = []

    def broken(result: BatchResult) -> None:
        raise RuntimeError("a hook of the caller's")

    summary = run_batch(
        [origin.url("/flaky"), origin.url("/none"), "no url", 7, origin.url("/none")],
        batch_id="b", out=tmp_path, backoff=0.01, on_retry=retries.append, on_result=broken,
        on_rejected=rejected.append, on_duplicate=duplicates.append,
    )  # fmt: skip
    assert (summary.succeeded, summary.failed, summary.retries) == (1, 1, 2)
    assert caplog.text.count("RuntimeError: a hook of the caller's") == 2
    assert [retry.attempt for retry in retries] == [1, 2]
    assert [entry.line for entry in rejected] == [3, 4]
    assert [item.line for item in duplicates] == [5]
    assert (summary.rejected_lines, summary.duplicates) == (2, 1)
    assert not summary.complete
    failed = records_of(tmp_path)[job_id_of(origin.url("/none"))]
    assert failed.status is JobStatus.FAILED
    assert "404" in str(failed.error)


@pytest.mark.parametrize(
    "value",
    [
        BatchItem("https://h.example/"),
        Rejected(1, "no url", "why"),
        BatchRetry("https://h.example/", 1, 0.5, "HTTP 503"),
        BatchProgress(1, 2, True, 3, 4.0),
        BatchResult(job_id="1", url="https://h.example/", status="completed"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_hook_is_given_stays_as_it_is(value: Any) -> None:
    """It may be kept, compared, and handed to other threads, by the hundred thousand."""
    assert pickle.loads(pickle.dumps(value)) == value == replace(value)
    assert not hasattr(value, "__dict__")
    with pytest.raises(AttributeError):
        setattr(value, fields(value)[0].name, "other")


def test_the_line_of_an_item_is_no_part_of_it() -> None:
    """Two lists may have it in different places."""
    one, other = (BatchItem("https://h.example/", line=line) for line in (1, 2))
    assert one == other
    assert repr(one) == repr(other)


def test_an_async_function_is_no_hook(tmp_path: Path) -> None:
    """Nothing would await it, and its results would be lost without a word."""

    async def hook(result: BatchResult) -> None: ...

    for given in (hook, partial(hook), AsyncMock()):
        with pytest.raises(TypeError, match="on_result is an async function"):
            run_batch(["http://h.example/"], batch_id="b", out=tmp_path, on_result=given)


@pytest.mark.parametrize("name", [each.name for each in fields(Hooks)])
def test_a_hook_that_cannot_be_called_is_refused(name: str, tmp_path: Path) -> None:
    """Not called for each URL to be logged each time."""
    hook: Any = {name: "print"}
    with pytest.raises(TypeError, match=f"{name} must be a function, got 'print'"):
        run_batch(["http://h.example/"], batch_id="b", out=tmp_path / "o", **hook)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("ending", [SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("name", [each.name for each in fields(Hooks)])
def test_a_hook_may_end_the_program(
    name: str, ending: BaseException, place: dict[str, Any], origin: FaultyOrigin, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """In order: what is done is recorded, and asyncio has nothing to say of tasks."""

    def leave(*given: object) -> None:
        raise ending

    netrc = tmp_path / "netrc"
    netrc.write_text("what is this\n")
    monkeypatch.setenv("NETRC", str(netrc))
    origin.add("/flaky", b"x", faults=[status(503, retry_after="0")] * 3)
    urls = [*(origin.url(f"/{number}.txt") for number in range(20)), origin.url("/flaky")]
    settings: Any = {"concurrency": 1, name: leave, **place}
    if name == "on_event":
        settings["netrc"] = netrc  # of which it hears before the run begins
    with pytest.raises(type(ending)) as raised:
        run_batch(["no url", *urls, *urls], batch_id="b", out=tmp_path, **settings)
    assert raised.value is ending
    if name == "on_event":
        assert list(origin.requests) == []
    gc.collect()
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    assert (tmp_path / "b" / "manifest.json").exists()
    found = {record.status for record in records_of(tmp_path).values()}
    assert found <= {JobStatus.COMPLETED, JobStatus.PENDING}
    assert run_batch(urls, batch_id="b", out=tmp_path, resume=True, backoff=0.01).complete


async def test_a_run_that_is_cancelled_twice_concludes_nevertheless(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout around it may end while it puts jobs back; then the caller is told."""
    begun, go = threading.Event(), threading.Event()
    conclude = JobBook.conclude

    def waiting(*arguments: Any) -> None:
        begun.set()
        go.wait(30)
        conclude(*arguments)

    monkeypatch.setattr(JobBook, "conclude", waiting)
    run = asyncio.create_task(run_batch_async([origin.url("/1.txt")], batch_id="b", out=tmp_path))
    await asyncio.to_thread(begun.wait, 30)
    for _ in range(5):
        run.cancel()
        await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (tmp_path / "b" / "manifest.json").exists()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_run_that_is_cancelled_reads_its_source_no_further(
    asynchronous: bool, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """No thread or task is left at it, in a program that goes on."""
    ended, begun = asyncio.Event(), asyncio.Event()
    before = set(threading.enumerate())

    async def source() -> AsyncIterator[str]:
        try:
            yield origin.url("/1.txt")
            await asyncio.Event().wait()
        finally:
            ended.set()

    endless = (origin.url(f"/none/{number}") for number in count())
    run = asyncio.create_task(
        run_batch_async(
            source() if asynchronous else endless, batch_id="b", out=tmp_path, retries=0,
            on_result=lambda _: begun.set(),
        )
    )  # fmt: skip
    await asyncio.wait_for(begun.wait(), 60)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    if asynchronous:
        await asyncio.wait_for(ended.wait(), 30)
    for thread in set(threading.enumerate()) - before:
        if thread.name == "infra-core-list":
            await asyncio.to_thread(thread.join, 30)
            assert not thread.is_alive()


def test_a_loop_that_cannot_be_made_is_the_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with too few descriptors: Python has no warning about the batch beside it."""
    full = OSError(errno.EMFILE, "Too many open files")
    monkeypatch.setattr(asyncio, "new_event_loop", Mock(side_effect=full))
    monkeypatch.setattr("asyncio.events.new_event_loop", Mock(side_effect=full))
    with pytest.raises(OSError, match="Too many open files"):
        run_batch(["http://h.example/"], batch_id="b", out=tmp_path)
    gc.collect()  # a warning would be an error


def test_an_asynchronous_source_is_read_beside_the_downloads(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The first download does not wait for the end of the list."""
    first_done = asyncio.Event()

    async def main() -> None:
        async def source() -> AsyncIterator[str]:
            yield origin.url("/1.txt")
            await first_done.wait()
            yield origin.url("/2.txt")

        summary = await run_batch_async(
            source(), batch_id="b", out=tmp_path, on_result=lambda _: first_done.set()
        )
        assert (summary.succeeded, summary.complete) == (2, True)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_the_source_raises_comes_through_after_what_came_before(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Nothing that was read is lost, and nothing stays running."""

    def source() -> Iterator[str]:
        yield origin.url("/1.txt")
        raise LookupError("the list broke")

    with pytest.raises(LookupError, match="the list broke"):
        run_batch(source(), batch_id="b", out=tmp_path)
    assert {r.status for r in records_of(tmp_path).values()} == {JobStatus.COMPLETED}


def test_a_resume_keeps_what_is_intact_and_puts_back_what_was_cut_off(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Also jobs of the batch that are in another list than the one that is resumed."""
    urls = [origin.url(f"/{number}.txt") for number in range(4)]
    run_batch(urls[:3], batch_id="b", out=tmp_path)
    records = records_of(tmp_path)
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        killed = records[job_id_of(urls[0])].requeue(force=True).start()
        store.save(killed)
    path = tmp_path / "b" / str(records[job_id_of(urls[1])].payload["path"])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    results: dict[str, str] = {}
    summary = run_batch(
        urls[1:], batch_id="b", out=tmp_path, resume=True,
        on_result=lambda result: results.update({result.url: result.status}),
    )  # fmt: skip
    assert results == {urls[1]: "completed", urls[2]: "kept", urls[3]: "completed"}
    assert summary.complete
    statuses = {job: record.status for job, record in records_of(tmp_path).items()}
    assert statuses.pop(job_id_of(urls[0])) is JobStatus.PENDING
    assert set(statuses.values()) == {JobStatus.COMPLETED}


def test_a_job_that_cannot_be_read_is_left_as_it_is(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Of a newer program, or damaged: the rest is done, and the summary says so."""
    urls = [origin.url(f"/{number}.txt") for number in range(3)]
    run_batch(urls[:2], batch_id="b", out=tmp_path)
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection, connection:
        connection.execute(
            "UPDATE jobs SET properties = json_set(properties, '$.attempts', 'many') WHERE job = ?",
            (job_id_of(urls[0]),),
        )
    summary = run_batch(urls, batch_id="b", out=tmp_path, resume=True)
    assert (summary.succeeded, summary.skipped, origin.count("/0.txt")) == (1, 1, 1)
    assert "1 job left as they are: unreadable, JobRecordError" in summary.problems[0]
    assert job_id_of(urls[0]) not in records_of(tmp_path)


def test_only_what_failed_is_tried_again_when_asked_for(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The others are neither requested nor verified, and stay in the manifest."""
    urls = [origin.url("/1.txt"), origin.url("/late")]
    assert run_batch(urls, batch_id="b", out=tmp_path).failed == 1
    origin.add("/late", b"here now")
    new = origin.url("/2.txt")
    summary = run_batch([*urls, new], batch_id="b", out=tmp_path, resume=True, only_failed=True)
    assert (summary.total, summary.succeeded, summary.pending) == (2, 1, 1)
    assert not summary.complete
    assert records_of(tmp_path)[job_id_of(new)].status is JobStatus.PENDING
    assert origin.count("/1.txt") == 1
    assert origin.count("/2.txt") == 0
    assert manifest_of(tmp_path)["summary"]["total_files"] == 2
    history = records_of(tmp_path)[job_id_of(urls[1])].attempt_history
    assert [(each.number, each.outcome) for each in history] == [(1, "failed"), (2, "completed")]


@pytest.mark.parametrize("folder", ["b/assets", "b"])
def test_the_page_of_a_batch_shows_where_files_came_from_and_what_failed(
    folder: str, origin: FaultyOrigin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its manifest and its job store have it; the JSON has sources and checksums as well."""
    url, gone = origin.url("/1.txt"), origin.url("/gone")
    assert run_batch([url, gone], batch_id="b", out=tmp_path).failed == 1
    page = tmp_path / "report.html"
    paths = ["--html", str(page), "--out", str(tmp_path / "listed.json")]
    assert main(["manifest", str(tmp_path / folder), *paths]) == 0
    text = page.read_text(encoding="utf-8")
    for part in (url, gone, "404", "<dt>failed</dt><dd>1</dd>", ">b</h1>"):
        assert part in text
    listed = json.loads((tmp_path / "listed.json").read_text(encoding="utf-8"))["files"]
    (file,) = (file for file in listed if file["path"].endswith("1.txt"))
    (known,) = manifest_of(tmp_path)["files"]
    assert (file["source_url"], file["checksum"]) == (url, known["checksum"])
    assert "modified_at" not in file
    (tmp_path / "b" / "manifest.json").write_text("[]")
    assert main(["manifest", str(tmp_path / folder)]) == 2
    assert "which writes it again" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["b/assets", "b"])
def test_the_manifest_of_a_batch_keeps_the_types_that_files_were_served_with(
    folder: str, origin: FaultyOrigin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page without extension is a page; the counts are of the same types."""
    origin.add("/page", b"<p>", content_type="text/html")
    assert run_batch([origin.url("/page")], batch_id="b", out=tmp_path).complete
    assert main(["manifest", str(tmp_path / folder)]) == 0
    shown = json.loads(capsys.readouterr().out)
    (page,) = (file for file in shown["files"] if file.get("source_url"))
    (known,) = manifest_of(tmp_path)["files"]
    assert page["content_type"] == known["content_type"] == "text/html"
    assert page["type"] == known["type"]
    assert shown["summary"]["file_types"][known["type"]] >= 1


def test_a_batch_that_exists_is_refused_without_resume(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """With both spellings of the remedy."""
    run_batch([origin.url("/1.txt")], batch_id="b", out=tmp_path)
    with pytest.raises(BatchError, match="resume=True"):
        run_batch([origin.url("/1.txt")], batch_id="b", out=tmp_path)


def test_a_bound_on_failures_ends_the_run_early(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture, place: dict[str, Any]
) -> None:
    """What was not tried is pending, and the summary says why; the event loop has no complaint."""
    urls = [origin.url(f"/none{number}") for number in range(30)]
    run = partial(run_batch, batch_id="b", out=tmp_path, concurrency=1, retries=0)
    summary = run(urls, max_failures=3, **place)
    assert summary.failed == 4
    assert summary.pending == summary.total - summary.failed
    assert "max_failures=3" in summary.problems[0]
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    statuses = {record.status for record in records_of(tmp_path).values()}
    assert JobStatus.RUNNING not in statuses


def test_a_url_that_takes_too_long_names_the_option(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Not `deadline`, which is that of the whole run."""
    origin.add("/slow", b"x" * 60_000, always=slow(1_000))
    summary = run_batch([origin.url("/slow")], batch_id="b", out=tmp_path, task_timeout=0.2)
    [failure] = summary.failures
    assert failure.status == "timed_out"
    assert "within 0.2 s" in failure.cause
    assert "--task-timeout" in failure.cause
    assert "deadline" not in failure.cause.partition(":")[2]


def test_progress_is_shown_while_nothing_ends(origin: FaultyOrigin, tmp_path: Path) -> None:
    """One slow file is alive as well."""
    shown: list[BatchProgress] = []
    ended = threading.Event()

    def see(progress: BatchProgress) -> None:
        shown.append(progress)
        if progress.read:
            ended.set()

    def wait(exchange: Exchange) -> None:
        ended.wait(60)

    origin.add("/slow", b"x", always=Fault("wait", wait))
    summary = run_batch([origin.url("/slow")], batch_id="b", out=tmp_path, on_progress=see)
    assert summary.complete
    assert (shown[0].settled, shown[-1].settled) == (0, 1)


def test_a_list_has_ended_when_all_of_it_is_accounted_for(tmp_path: Path) -> None:
    """What was read ahead, and is dropped when the run ends early, is left to the resume."""
    urls = [f"http://127.0.0.1:1/{number}" for number in range(1_500)]
    summary = run_batch(urls, batch_id="b", out=tmp_path, retries=0, concurrency=1, max_failures=0)
    assert len(records_of(tmp_path)) == summary.total < len(urls)
    assert not summary.list_ended
    again = run_batch(urls[:50], batch_id="b", out=tmp_path, retries=0, resume=True)
    assert (again.total, again.failed, again.list_ended) == (50, 50, True)
    early = run_batch(
        urls[:30], batch_id="c", out=tmp_path, retries=0, concurrency=1, max_failures=0
    )
    assert (early.total, early.list_ended) == (30, True)
    assert early.pending > 0


async def test_a_failure_that_a_second_signal_cuts_off_is_recorded_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted already; its job would be pending."""
    results: list[BatchResult] = []

    class Settler:
        """The thread that records is at another job."""

        def __init__(self, *_: Any, **more: Any) -> None: ...

        def __call__(self, ended: object) -> Any:
            raise asyncio.CancelledError

    monkeypatch.setattr(_finishing, "ThreadBatcher", Settler)
    urls = ["http://127.0.0.1:1/"]
    summary = await run_batch_async(
        urls, batch_id="b", out=tmp_path, retries=0, on_result=results.append
    )
    assert (summary.failed, len(results)) == (1, 1)
    assert {record.status for record in records_of(tmp_path).values()} == {JobStatus.FAILED}


def test_all_downloads_of_a_run_share_its_rate(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Worker processes get equal shares of it."""
    urls = [origin.url(f"/{number}.txt") for number in range(20)]
    with fast_time() as time:
        began = time.monotonic()
        summary = run_batch(urls, batch_id="b", out=tmp_path, limit_rate=100, task_timeout=999)
        assert time.monotonic() - began >= (summary.bytes_downloaded - len(body_of(19))) / 100
    assert summary.complete
    options = BatchOptions(batch_id="b", out=tmp_path, limit_rate=100)
    assert share_of(options, 4).limit_rate == 25


def test_processes_share_what_bounds_the_requests_to_a_host(tmp_path: Path) -> None:
    """A crawl that is polite is as polite in four processes."""
    options = BatchOptions(batch_id="b", out=tmp_path, max_per_host=8, rate_per_host=1)
    share = share_of(options, 4)
    assert (share.max_per_host, share.rate_per_host) == (2, 0.25)
    assert share_of(options, 16).max_per_host == 1
    assert share_of(BatchOptions(batch_id="b", out=tmp_path), 4).max_per_host is None


@pytest.mark.parametrize("scratch", [None, "scratch"])
async def test_blobs_are_named_relative_to_where_the_files_of_a_worker_are(
    scratch: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below its own folder as below the shared one."""
    opened = Mock(return_value=None)
    monkeypatch.setattr("infra_core.batch._environment.open_mirror", opened)
    own = None if scratch is None else tmp_path / scratch
    options = BatchOptions(batch_id="b", out=tmp_path, scratch=own)
    worker = Downloads(options, tmp_path, lambda _: None, {})
    await worker.open()
    await worker.close()
    assert opened.call_args.kwargs["base_path"] == (own or tmp_path)


def test_secrets_do_not_stand_in_the_options_that_a_log_shows(tmp_path: Path) -> None:
    """As a service prints its settings when it starts."""
    secret = {"Authorization": "hidden"}
    shown = repr(
        BatchOptions(
            batch_id="b", out=tmp_path, headers=secret, host_headers={"h.example": secret},
            proxy="http://user:hidden@h.example:1", cookies="hidden",
        )
    )  # fmt: skip
    assert "batch_id='b'" in shown
    assert "hidden" not in shown


def test_mappings_of_any_kind_go_to_other_processes(tmp_path: Path) -> None:
    """Such as one that nobody can change; metadata stays here."""
    given: Any = MappingProxyType({"A": "b"})
    options = BatchOptions(batch_id="b", out=tmp_path, headers=given, host_headers={"h": given})
    item = BatchItem("http://h/", "n", "md5:" + "0" * 32, given, MappingProxyType({"n": 1}))
    shard = WorkItem.of(Job(item, JobRecord("b", "1"), "assets/1"))
    options, sent = pickle.loads(pickle.dumps((options, shard)))
    assert (options.headers, options.host_headers) == ({"A": "b"}, {"h": {"A": "b"}})
    assert sent == ("1", item.url, "assets/1", item.checksum, {"A": "b"}, (None, None))


def test_a_worker_does_not_run_the_main_module_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a script without a guard, which would call `run_batch` again, or standard input."""
    main = ModuleType("__main__")
    main.__file__ = str(tmp_path / "<stdin>")
    monkeypatch.setitem(sys.modules, "__main__", main)
    context, started = Mock(Pipe=Pipe), Mock()
    context.Process.return_value.start = lambda: started(get_preparation_data("worker"))
    monkeypatch.setattr(_workers, "get_context", lambda _: context)
    for pipe in (_workers._started("spawn")[0], _workers._started("spawn")[0]):
        pipe.close()
    for (prepared,), _ in started.call_args_list:
        assert "init_main_from_path" not in prepared
        assert prepared["init_main_from_name"].endswith(".__main__")  # which Python passes over
    assert main.__spec__ is None


def test_processes_are_refused_where_there_can_be_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by an AssertionError."""
    monkeypatch.setattr(_workers, "current_process", lambda: Mock(daemon=True))
    with pytest.raises(BatchError, match="in a daemonic process"):
        run_batch(["http://h.example/"], batch_id="b", out=tmp_path, processes=2)


@pytest.mark.parametrize("cluster", [{"dask": "tcp://h:8786"}, {"client": "tcp://h:8786"}])
def test_a_cluster_without_its_library_is_refused_with_the_remedy(
    cluster: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is downloaded elsewhere in its place."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BatchError, match=r'pip install "infra-core\[dask\]"'):
        run_batch(["http://h.example/"], batch_id="b", out=tmp_path, **cluster)


async def test_items_go_to_a_cluster_together_and_the_last_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for others that do not come."""
    shards: list[int] = []

    async def result_of(_: Any, items: list[WorkItem]) -> _dask.ShardResult:
        shards.append(len(items))
        return _dask.ShardResult([Outcome(job_id=i.job_id, status="failed") for i in items], [])

    monkeypatch.setattr(_dask.DaskWorkers, "_result_of", result_of)
    options = BatchOptions(batch_id="b", out=tmp_path, concurrency=2)
    workers = _dask.DaskWorkers(options, tmp_path, lambda _: None, {}, "tcp://h:8786")
    items = [WorkItem(str(number), "http://h.example/", "x") for number in range(9)]
    assert await asyncio.wait_for(workers.fetch(items[0]), 30) is not None
    found = await asyncio.wait_for(asyncio.gather(*map(workers.fetch, items)), 30)
    assert [outcome and outcome.job_id for outcome in found] == [item.job_id for item in items]
    assert shards == [1, 4, 4, 1]


@pytest.mark.parametrize("is_link", [False, True])
def test_assets_that_are_no_folder_end_the_run_before_a_job_fails(
    is_link: bool, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Such as a link to a disk that is not mounted: what was downloaded counts once it is back."""
    run = partial(run_batch, [origin.url("/1.txt")], batch_id="b", out=tmp_path)
    assert run().succeeded == 1
    assets, away = tmp_path / "b" / "assets", tmp_path / "away"
    assets.rename(away)
    if is_link:
        assets.symlink_to(tmp_path / "unmounted")
    else:
        assets.write_bytes(b"")
    with pytest.raises(BatchError, match=r"assets' is a (file|link to .*unmounted')"):
        run(resume=True)
    assets.unlink()
    assets.symlink_to(away)
    assert run(resume=True).skipped == 1


async def test_no_download_begins_once_the_run_is_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]
) -> None:
    """What waits for its turn stays pending, at workers too; only what is in flight may end."""
    asked: list[str] = []
    stopped = asyncio.Event()
    stop_reading = BatchRun._stop_reading

    def stop(run: BatchRun) -> None:
        stop_reading(run)
        stopped.set()

    async def download(_: Any, work: WorkItem, *rest: Any) -> Outcome:
        asked.append(work.url)
        signal.raise_signal(signal.SIGTERM)
        await stopped.wait()
        return Outcome(job_id=work.job_id, status="failed", error="gone")

    monkeypatch.setattr(BatchRun, "_stop_reading", stop)
    monkeypatch.setattr(Downloads, "_download", download)
    urls = [f"http://h.example/{number}" for number in range(9)]
    summary = await run_batch_async(urls, batch_id="b", out=tmp_path, concurrency=1, **place)
    assert len(asked) == summary.failed == 1
    assert (summary.pending, summary.interrupted) == (summary.total - 1, "SIGTERM")
    statuses = {record.status for record in records_of(tmp_path).values()}
    assert statuses <= {JobStatus.FAILED, JobStatus.PENDING}


async def test_a_turn_at_a_host_that_comes_too_late_begins_no_download(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """It may be minutes after the run was asked to end, with a slow rate for each host."""
    downloads = Downloads(BatchOptions(batch_id="b", out=tmp_path), tmp_path, lambda retry: None)
    downloads.stop()
    item = BatchItem(origin.url("/1.txt"))
    assert await downloads.fetch(WorkItem(item.job_id, item.url, "1")) is None
    await downloads.close()
    assert origin.count("/1.txt") == 0


def test_what_waits_for_a_host_holds_no_place_that_another_could_use(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    """A list sorted by host: the second host is asked while the first one takes its time."""
    others_are_here = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/first"):
                others_are_here.wait(60)
            self.send_response(200)
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"x")

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    ended: list[str] = []

    def on_result(result: BatchResult) -> None:
        ended.append(result.url)
        if len(ended) == 5:
            others_are_here.set()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        port = server.server_port
        first = [f"http://127.0.0.1:{port}/first/{number}" for number in range(100)]
        second = [f"http://localhost:{port}/second/{number}" for number in range(5)]
        summary = run_batch(
            [*first, *second], batch_id="b", out=tmp_path, concurrency=4, max_per_host=2,
            on_result=on_result, **place,
        )  # fmt: skip
        server.shutdown()
        thread.join()
    assert summary.succeeded == 105
    assert set(ended[:5]) == set(second)


def test_workers_are_given_as_many_items_as_they_say_once_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster is asked for its size when it is connected to."""

    class Cluster(Downloads):
        def __init__(self, *settings: Any) -> None:
            super().__init__(*settings)
            self.width = 1

        async def open(self) -> None:
            self.width, self.asked, self.all_asked = 5, 0, asyncio.Event()

        async def fetch(self, work: WorkItem) -> Outcome | None:
            self.asked += 1
            if self.asked == self.width:
                self.all_asked.set()
            await asyncio.wait_for(self.all_asked.wait(), 30)
            return Outcome(job_id=work.job_id, status="failed", error="gone")

        async def close(self, *, kill: bool = False) -> None:
            """Nothing was opened."""

    monkeypatch.setattr(_workers, "ProcessWorkers", Cluster)
    urls = [f"http://h.example/{number}" for number in range(5)]
    summary = run_batch(urls, batch_id="b", out=tmp_path, processes=2)
    assert [failure.cause for failure in summary.failures] == ["gone"] * 5


async def test_a_rate_for_each_host_keeps_no_run_from_its_end(tmp_path: Path) -> None:
    """What waits for its turn is pending at once."""
    options = BatchOptions(batch_id="b", out=tmp_path, rate_per_host=0.001, concurrency=1)
    downloads = Downloads(options, tmp_path, lambda retry: None)
    assert downloads._rate is not None
    downloads._rate.reserve(clock.monotonic(), ("127.0.0.1", 9))
    work = WorkItem("1", "http://127.0.0.1:9/", "1")
    waiting = asyncio.ensure_future(downloads.fetch(work))
    await asyncio.sleep(0)
    downloads.stop()
    assert await waiting is None


def test_a_process_that_exits_waits_for_no_worker(tmp_path: Path) -> None:
    """A signal may cut off their start; `multiprocessing` sends one that they ignore."""
    program = f"""
import asyncio
from infra_core.batch import BatchOptions
from infra_core.batch._download import WorkItem
from infra_core.batch._workers import ProcessWorkers

async def main():
    options = BatchOptions(batch_id="b", out={str(tmp_path)!r}, processes=2, retries=0)
    workers = ProcessWorkers(options, options.out, print, {{}})
    workers._workers = [worker := workers._started(asyncio.get_running_loop())]
    await worker.fetch(WorkItem("1", "http://127.0.0.1:9/", "x"))  # it is there
    exit("cut off")

if __name__ == "__main__":
    asyncio.run(main())
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "cut off\n")


async def test_a_worker_that_is_to_stop_ends_what_is_in_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own; what it has not begun comes back as such."""
    begun, stopped = asyncio.Event(), asyncio.Event()
    stop, close = Downloads.stop, Downloads.close
    done: list[str] = []

    def stopping(worker: Downloads) -> None:
        stop(worker)
        stopped.set()

    async def closing(worker: Downloads) -> None:
        done.append("closed")
        await close(worker)

    async def download(_: Any, work: WorkItem, *rest: Any) -> Outcome:
        begun.set()
        await stopped.wait()
        for _turn in range(100):
            await asyncio.sleep(0)
        done.append("downloaded")
        return Outcome(job_id=work.job_id, status="failed", error="gone")

    monkeypatch.setattr(Downloads, "stop", stopping)
    monkeypatch.setattr(Downloads, "close", closing)
    monkeypatch.setattr(Downloads, "_download", download)
    ours, theirs = Pipe()
    options = BatchOptions(batch_id="b", out=tmp_path, concurrency=1)
    serving = asyncio.ensure_future(_workers._serve(theirs, options, tmp_path, {}))
    items = [BatchItem(f"http://h.example/{number}") for number in range(3)]
    ours.send([(7 + n, WorkItem(i.job_id, i.url, "assets/x")) for n, i in enumerate(items)])
    await begun.wait()
    ours.send(_workers._STOP)
    ours.send(_workers._END)
    ended: dict[int, Outcome | None] = {}
    while len(ended) < len(items):
        ended.update(await asyncio.to_thread(ours.recv))
    assert [outcome and outcome.status for _, outcome in sorted(ended.items())] == [
        "failed", None, None,
    ]  # fmt: skip
    await serving
    assert done == ["downloaded", "closed"]


@pytest.mark.posix(reason="it cannot stop a process")
async def test_a_worker_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs, or is stopped; the command would wait for it for ever."""
    monkeypatch.setattr(_workers, "_END_SECONDS", 0.01)
    options = BatchOptions(batch_id="b", out=tmp_path, retries=0)
    workers = _workers.ProcessWorkers(options, tmp_path, lambda _: None, {})
    await workers.open()
    await workers.fetch(WorkItem("1", "http://127.0.0.1:9/", "assets/x"))  # it is there
    pids = [pid for worker in workers._workers if (pid := worker._process.pid) is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    await workers.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_workers_that_were_forked_are_used_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are there already, and share what they imported."""
    started = Mock(side_effect=AssertionError)
    monkeypatch.setattr(_workers, "_started", started)
    ours, theirs = Pipe()
    forked = Mock()
    monkeypatch.setattr(_workers, "_forked", [(ours, forked)])
    worker = _workers._Process(b"settings", Mock(), lambda _: None)
    assert theirs.recv_bytes() == b"settings"
    theirs.close()
    worker._reader.join()
    ours.close()
    assert worker._process is forked


async def test_an_item_of_a_worker_that_dies_is_not_done_again_once_the_run_is_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of its URLs has begun then, as far as the run knows."""
    died = AsyncMock(side_effect=_workers._WorkerDied("exit code -9"))
    worker = Mock(load=0, fetch=died)
    monkeypatch.setattr(_workers, "_Process", Mock(return_value=worker))
    options = BatchOptions(batch_id="b", out=tmp_path)
    workers = _workers.ProcessWorkers(options, tmp_path, lambda _: None, {})
    await workers.open()
    workers.stop()
    outcome = await workers.fetch(WorkItem("1", "http://h.example/", "assets/x"))
    assert (outcome, died.await_count) == (None, 1)


async def test_workers_that_cannot_be_started_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each URL that asks for one, and the run ends; they are started beside the first records."""
    refused = OSError(errno.EAGAIN, "Resource temporarily unavailable")
    monkeypatch.setattr(_workers, "_Process", Mock(side_effect=refused))
    urls = [f"http://h.example/{number}" for number in range(9)]
    summary = await run_batch_async(urls, batch_id="b", out=tmp_path, processes=2)
    assert (summary.failed, summary.pending) == (0, summary.total)
    assert "temporarily unavailable" in str(summary.problems)
    assert {record.status for record in records_of(tmp_path).values()} == {JobStatus.PENDING}


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_resume_keeps_no_file_whose_checksum_the_list_contradicts(
    algorithm: str, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The list may have got it, or another, since the file was downloaded."""
    url, run = origin.url("/1.txt"), partial(run_batch, batch_id="b", out=tmp_path)
    assert run([url]).succeeded == 1
    right = hashlib.new(algorithm, body_of(1)).hexdigest()
    good, bad = ({"url": url, "checksum": f"{algorithm}:{x}"} for x in (right, "0" * len(right)))
    assert run([good], resume=True).skipped == 1
    summary = run([bad], resume=True, retries=0)
    assert (summary.skipped, summary.failed) == (0, 1)
    assert "Checksum" in summary.failures[0].cause
    assert manifest_of(tmp_path)["files"] == []
    assert run([good], resume=True).succeeded == 1


def test_a_file_elsewhere_does_not_count_whose_checksum_the_list_contradicts(
    origin: FaultyOrigin, tmp_path: Path, shared_table: Any
) -> None:
    """Of two machines that share a table, each has a list of its own."""
    url = origin.url("/1.txt")
    run = partial(run_batch, batch_id="b", store=shared_table, resume=True, retries=0)
    assert run([url], out=tmp_path / "one").succeeded == 1
    right = hashlib.sha256(body_of(1)).hexdigest()
    good, bad = ({"url": url, "checksum": f"sha256:{digest}"} for digest in (right, "0" * 64))
    assert run([good], out=tmp_path / "two").elsewhere == 1
    summary = run([bad], out=tmp_path / "two")
    assert (summary.elsewhere, summary.failed) == (0, 1)
    assert "Checksum" in summary.failures[0].cause


def test_no_job_of_a_dead_run_stays_running_in_a_shared_table(
    origin: FaultyOrigin, tmp_path: Path, shared_table: Any
) -> None:
    """Whichever list the next run is given; what another run holds stays its own."""
    urls = [origin.url(f"/{number}.txt") for number in range(4)]
    run = partial(run_batch, batch_id="b", store=shared_table, out=tmp_path)
    assert run(urls[:1]).succeeded == 1
    place = shared_table.fetch("b", job_id_of(urls[0])).payload["place"]
    later, earlier = (clock.utc_now() + timedelta(minutes=sign) for sign in (1, -1))
    leases = [(f"{place}/dead", later), ("there/ab/dead", earlier), ("there/ab/alive", later)]
    for url, (owner, until) in zip(urls[1:], leases, strict=True):
        record = JobRecord("b", job_id_of(url), payload={"url": url}).start(worker=owner)
        shared_table.create(replace(record, lease_owner=owner, lease_until=until))
    assert run(urls[:1], resume=True).complete
    found = [shared_table.fetch("b", job_id_of(url)).status.value for url in urls]
    assert found == ["completed", "pending", "pending", "running"]


def test_a_lease_lasts_for_as_long_as_a_download_may(
    origin: FaultyOrigin, tmp_path: Path, shared_table: Any
) -> None:
    """The wait for its turn at its host included: no other run is to take the job meanwhile."""
    leases: list[float] = []

    def look(exchange: Exchange) -> None:
        record = shared_table.fetch("b", job_id_of(origin.url("/1.txt")))
        leases.append((record.lease_until - record.updated_at).total_seconds())

    origin.add("/1.txt", b"x", faults=[Fault("look", look)] * 3)
    run = partial(run_batch, [origin.url("/1.txt")], out=tmp_path, store=shared_table, retries=0)
    for bounds in ({}, {"rate_per_host": 0.1}, {"max_per_host": 2}):
        run(batch_id="b", task_timeout=100.0, concurrency=8, **bounds)
        assert shared_table.delete_batch("b") == 1
    assert [lease // 10 for lease in leases] == [16, 24, 46]  # a minute more


def test_a_run_looks_now_and_then_at_what_another_one_holds(
    origin: FaultyOrigin, tmp_path: Path, shared_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as often as it can, which a table bills."""
    url = origin.url("/1.txt")
    held = replace(
        JobRecord("b", job_id_of(url), payload={"url": url}).start(worker="there/ab/alive"),
        lease_owner="there/ab/alive", lease_until=clock.utc_now() + timedelta(hours=1),
    )  # fmt: skip
    shared_table.create(held)
    waits, wait_for = list[float](), asyncio.wait_for

    async def wait(awaited: Any, timeout: float | None) -> Any:
        if timeout != 0.012_3:
            return await wait_for(awaited, timeout)
        waits.append(timeout)
        if len(waits) == 3:
            shared_table.save(replace(shared_table.fetch("b", held.job_id).complete(path="x")))
        return await wait_for(awaited, timeout)

    monkeypatch.setattr(_run, "_LOOK_AGAIN", 0.012_3)
    monkeypatch.setattr(asyncio, "wait_for", wait)
    fetched = Mock(wraps=shared_table.fetch)
    monkeypatch.setattr(shared_table, "fetch", fetched, raising=False)
    summary = run_batch([url], batch_id="b", out=tmp_path, store=shared_table, resume=True)
    assert (summary.total, summary.failed, len(waits)) == (1, 0, 3)
    assert fetched.call_count <= 8


def test_what_a_run_was_about_to_take_is_left_when_it_ends(
    tmp_path: Path, shared_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would download it, until its lease ends."""
    entered, release, fetched = threading.Semaphore(0), threading.Event(), list[str]()
    queued = threading.Semaphore(0)

    class Slow:
        def __getattr__(self, name: str) -> Any:
            return getattr(shared_table, name)

        def fetch(self, batch_id: str, job_id: str) -> None:
            fetched.append(job_id)
            entered.release()
            release.wait(60)

    store: Any = Slow()
    claims = _claims.Claims(store, BatchOptions(batch_id="b", out=tmp_path), tmp_path)
    jobs = [Job(BatchItem("http://h/"), JobRecord("b", str(n)), "x") for n in range(40)]
    submit = claims._threads.submit

    def submitting(*work: Any) -> Any:
        future = submit(*work)
        queued.release()
        return future

    def take() -> None:
        with pytest.raises(CancelledError):
            claims.take(jobs)

    monkeypatch.setattr(claims._threads, "submit", submitting)
    taking = threading.Thread(target=take)
    taking.start()
    for _ in jobs:
        assert queued.acquire(timeout=60)
    for _ in range(_claims._THREADS):
        assert entered.acquire(timeout=60)
    claims.close()
    release.set()
    taking.join()
    assert len(fetched) == _claims._THREADS


@pytest.mark.parametrize(
    "layout", ["hashed", "url", "flat", "{host}/{digest}{ext}", "{stem}{ext}", "{sha256}"]
)
def test_no_two_urls_share_a_path_in_any_layout(
    layout: str, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Names that collide, folders that are files, queries, letter case, names that climb."""
    paths = ["/a", "/a/b", "/A", "/x.png?v=1", "/x.png?v=2", "/x.png", "/d/", "/%2e%2e/etc", "/q/a"]
    for path in paths:
        origin.add(path, path.encode())
    urls = [origin.url(path) for path in paths]
    results: dict[str, str] = {}
    summary = run_batch(
        urls, batch_id="b", out=tmp_path, layout=layout, concurrency=1,
        on_result=lambda result: results.update({result.url: str(result.path)}),
    )  # fmt: skip
    assert summary.failures == []
    assert summary.complete
    assert len({path.casefold() for path in results.values()}) == len(paths)
    root = (tmp_path / "b" / "assets").resolve()
    for path, url in zip(paths, urls, strict=True):
        stored = (tmp_path / "b" / results[url]).resolve()
        assert stored.is_relative_to(root)
        assert stored.read_bytes() == path.encode()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"concurrency": 0}, "concurrency must be a whole number of at least 1, got 0"),
        ({"concurrency": True}, "got True"),
        ({"task_timeout": float("nan")}, "task_timeout"),
        ({"retries": -1}, "retries"),
        ({"max_bytes": "10M"}, "max_bytes must be a whole number of at least 0, or None"),
        ({"limit_rate": 0}, "limit_rate must be a number of at least 1, or None, got 0"),
        ({"concurrency": 100_000}, "a whole number of at most 10000, got 100000"),
        ({"layout": "{nope}"}, "{nope}"),
        ({"layout": "{"}, "template"),
        ({"layout": "same"}, "gives many URLs one name"),
        ({"layout": "{sha256}", "revalidate": True}, "leave {sha256} out"),
        ({"layout": "{sha256}", "scratch": "s", "dask": "tcp://h:1"}, "{sha256}"),
        ({"only_failed": True}, "resume"),
        ({"batch_id": "../x"}, "cannot name a folder"),
        ({"headers": {"bad name": "x"}}, "headers (--header): 'bad name' is not a header name"),
        ({"headers": {"": "x"}}, "headers (--header): '' is not a header name"),
        ({"headers": {"X": "a\nb"}}, "the value of header 'X' has line breaks"),
        ({"host_headers": {"h": {"a:b": "x"}}}, "host_headers of h: 'a:b' is not a header name"),
        ({"host_headers": {"https://h": {"X": "y"}}}, "'https://h' names no host"),
        ({"host_headers": {"h:x": {"X": "y"}}}, "'h:x' names no host"),
        ({"user_agent": "a\nb"}, "user_agent (--user-agent): the value of header"),
        ({"prefix": "MY-CRAWLER"}, "'MY-CRAWLER' begins no variable's name"),
        ({"layout": "{index:05x}{name:d}"}, "template (Unknown format code 'd'"),
        ({"layout": "{name!x}"}, "template"),
        ({"layout": "{name:{nope}}"}, "the format '{nope}'"),
        ({"layout": "{digest}{name:>9999999999}"}, "a width has two digits at most"),
        ({"layout": "{digest}{name:>\u0669\u0669\u0669}"}, "a width has two digits at most"),
        ({"proxy": "ftp://user:hidden@h:1"}, "proxy (--proxy) is not a proxy URL (its scheme"),
        ({"proxy": "h:port"}, "its port is not a number"),
        ({"grace": 0}, "grace must be a number above 0, got 0"),
        ({"processes": "all"}, "a whole number of at least 1, or 'auto', got 'all'"),
        ({"out": ""}, "out must be a path, got an empty one"),
        ({"out": None}, "out must be a path, got NoneType"),
        ({"netrc": False}, "netrc must be a path, got bool"),
        ({"cookies": b"a=hidden"}, "cookies must be a cookie jar or a path, got bytes"),
        ({"cookies": 5}, "cookies must be a cookie jar or a path, got int"),
        ({"cookies": ""}, "cookies must be a path, got an empty one"),
        ({"host_bearer_files": ["a"]}, "host_bearer_files must be a mapping, got list"),
        ({"proxy": b"http://user:hidden@h:1"}, "proxy must be a string, got bytes"),
        ({"layout": 5}, "layout must be a string, got int"),
    ],
)
def test_bad_options_are_refused_with_their_rule(
    options: dict[str, Any], part: str, tmp_path: Path
) -> None:
    """Before anything is made."""
    settings: dict[str, Any] = {"batch_id": "b", "out": tmp_path / "o", **options}
    with pytest.raises(BatchError) as caught:
        run_batch([], **settings)
    assert part in str(caught.value)
    assert not (tmp_path / "o").exists()


def test_options_come_whole_or_by_field(tmp_path: Path) -> None:
    """An unknown field is a TypeError that names the function; both forms at once are refused."""
    options = BatchOptions(batch_id="b", out=tmp_path)
    assert run_batch([], options).complete
    with pytest.raises(BatchError, match="not both"):
        run_batch([], options, concurrency=3)
    with pytest.raises(TypeError, match=r"run_batch\(\).*concurency"):
        run_batch([], batch_id="b", out=tmp_path, concurency=3)


async def test_the_blocking_form_is_refused_inside_a_running_loop(tmp_path: Path) -> None:
    """With the name of the other."""
    with pytest.raises(RuntimeError, match="run_batch_async"):
        run_batch([], batch_id="b", out=tmp_path)


def test_a_store_of_the_callers_is_used_and_stays_open(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """In place of what the environment says."""
    with SqliteJobStore(tmp_path / "mine.sqlite3") as store:
        run_batch([origin.url("/1.txt")], batch_id="b", out=tmp_path, store=store)
        assert [record.status for record in store.iter_runs("b")] == [JobStatus.COMPLETED]
    assert not (tmp_path / "jobs.sqlite3").exists()


def test_assets_may_be_a_link_that_its_owner_made(origin: FaultyOrigin, tmp_path: Path) -> None:
    """To another disk, say; a resume follows it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "assets").symlink_to(disk)
    urls = [origin.url("/1.txt")]
    run_batch(urls, batch_id="b", out=tmp_path)
    summary = run_batch(urls, batch_id="b", out=tmp_path, resume=True)
    assert (summary.skipped, summary.succeeded) == (1, 0)
    for folder in ("b", "b/assets"):
        assert main(["manifest", str(tmp_path / folder), "--out", str(tmp_path / "list.json")]) == 0
        found = json.loads((tmp_path / "list.json").read_text())
        (listed,) = (each for each in found["files"] if each["path"].endswith("1.txt"))
        assert listed["source_url"] == urls[0]
        assert found["storage"]["prefix"] == Path(folder).name


@pytest.mark.parametrize("more", [{}, {"content_disposition": True}])
@pytest.mark.parametrize("layout", ["hashed", "url", "{index}/deep/{name}"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_file_is_written_through_a_link_below_assets(
    inside: bool, layout: str, more: dict[str, Any], place: dict[str, Any],
    origin: FaultyOrigin, tmp_path: Path,
) -> None:  # fmt: skip
    """Neither out of it nor to the folder of another; a link in the place of a file is replaced."""
    url, assets = origin.url("/1.txt"), tmp_path / "b" / "assets"
    results: list[BatchResult] = []
    options: Any = {"out": tmp_path, "layout": layout, "on_result": results.append, **more, **place}
    run_batch([url], batch_id="a", **options)
    assert results[0].path is not None
    path = tmp_path / "b" / results[0].path
    top = assets / path.relative_to(assets).parts[0]
    other = assets / "other" if inside else tmp_path / "outside"
    other.mkdir(parents=True)
    assets.mkdir(parents=True, exist_ok=True)
    top.symlink_to(other)
    summary = run_batch([url], batch_id="b", **options)
    assert summary.failed == 1
    assert f"{str(top)!r} is a symbolic link, and files are" in str(results[1].error)
    assert list(other.iterdir()) == []
    top.unlink()
    path.parent.mkdir(parents=True)
    (tmp_path / "victim").write_text("precious")
    path.symlink_to(tmp_path / "victim")
    assert run_batch([url], batch_id="b", resume=True, **options).complete
    assert (tmp_path / "victim").read_text() == "precious"
    assert path.read_bytes() == body_of(1)
    assert not path.is_symlink()


def test_a_junction_of_windows_is_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that a program keeps in the cloud is none, though it has such a tag too."""
    status = Mock(st_mode=stat.S_IFDIR, st_reparse_tag=0xA0000003)
    monkeypatch.setattr(os, "lstat", lambda _: status)
    assert is_link("assets/x")
    status.st_reparse_tag = 0x9000001A
    assert not is_link("assets/x")


def test_a_link_that_is_made_during_a_download_is_seen(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """When its bytes are here, before the file gets its name; and nothing of it stays behind it."""
    outside, folder = tmp_path / "outside", tmp_path / "b" / "assets" / "deep" / "er"
    outside.mkdir()

    def link(exchange: Exchange) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(tmp_path / "former")
        folder.symlink_to(outside)

    origin.add("/2.txt", body_of(2), faults=[Fault("link", link)])
    url, layout = origin.url("/2.txt"), "deep/er/{digest}"
    summary = run_batch([url], batch_id="b", out=tmp_path, layout=layout, retries=0)
    assert f"{str(folder)!r} is a symbolic link" in summary.failures[0].cause
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_program_may_change_its_folder_while_a_batch_runs(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    """A relative `out` counts from the folder in which the batch was begun, to its end."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")
    urls = [origin.url(f"/{number}.txt") for number in range(3)]

    def source() -> Iterator[str]:
        yield urls[0]
        os.chdir(tmp_path / "second")  # the fixture goes back
        yield from urls[1:]

    summary = run_batch(source(), batch_id="b", out="runs", concurrency=1, processes=processes)
    folder = tmp_path / "first" / "runs" / "b"
    assert summary.complete
    assert summary.folder == str(folder)
    assert summary.manifest == str(folder / "manifest.json")
    assert summary.jobs == str(folder.parent / "jobs.sqlite3")
    assert len([path for path in (folder / "assets").rglob("*") if path.is_file()]) == 3
    assert list((tmp_path / "second").iterdir()) == []


def test_a_deadline_ends_the_run_like_a_signal(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what was done recorded, the list left where it was, and why in the summary."""
    end: list[Any] = []

    async def main() -> Summary:
        loop = asyncio.get_running_loop()
        begin = loop.call_later

        def call_later(delay: float, *arguments: Any, **more: Any) -> asyncio.TimerHandle:
            if delay == 7200.0:
                end.extend(arguments)
            return begin(delay, *arguments, **more)

        async def endless() -> AsyncIterator[str]:
            yield origin.url("/1.txt")
            await asyncio.Event().wait()

        monkeypatch.setattr(loop, "call_later", call_later)
        return await run_batch_async(
            endless(), batch_id="b", out=tmp_path, deadline=7200.0,
            on_result=lambda _: loop.call_soon(*end),
        )  # fmt: skip

    summary = asyncio.run(main())
    assert (summary.succeeded, summary.list_ended, summary.complete) == (1, False, False)
    assert "deadline of 7200 s" in summary.problems[0]


def test_a_deadline_cuts_off_what_the_grace_does_not_end(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """As a signal does: what is in flight may last for long."""
    origin.add("/slow", b"x" * 60_000, always=slow(1_000))
    summary = run_batch(
        [origin.url("/slow")], batch_id="b", out=tmp_path, deadline=0.2, grace=0.2, min_speed=0
    )
    assert (summary.succeeded, summary.failed) == (0, 0)
    assert {record.status for record in records_of(tmp_path).values()} <= {JobStatus.PENDING}


def test_a_deadline_is_forgotten_when_the_run_has_ended(
    origin: FaultyOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a service whose loop goes on, the summary stays what it was."""
    timers: list[asyncio.TimerHandle] = []

    async def main() -> Summary:
        loop = asyncio.get_running_loop()
        begin = loop.call_later

        def call_later(delay: float, *arguments: Any, **more: Any) -> asyncio.TimerHandle:
            timer = begin(delay, *arguments, **more)
            if delay == 7200.0:
                timers.append(timer)
            return timer

        monkeypatch.setattr(loop, "call_later", call_later)
        urls = [origin.url("/1.txt")]
        return await run_batch_async(urls, batch_id="b", out=tmp_path, deadline=7200.0)

    assert asyncio.run(main()).complete
    assert [timer.cancelled() for timer in timers] == [True]


def test_the_beginning_and_the_end_of_a_batch_are_tracked(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """As events of telemetry; a batch that is refused has neither."""
    with IngestionServer() as ingestion:
        env = {"APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion.connection_string}
        run_batch([origin.url("/1.txt")], batch_id="b", out=tmp_path, env=env)
        assert ingestion.names() == ["started", "completed"]
        tracked = [item["data"]["baseData"]["properties"] for item in ingestion.items]
        assert [properties["batch_id"] for properties in tracked] == ["b", "b"]
        with pytest.raises(BatchError, match="has 1 job already"):
            run_batch([origin.url("/1.txt")], batch_id="b", out=tmp_path, env=env)
        assert ingestion.names() == ["started", "completed"]
        run_batch([origin.url("/none")], batch_id="b", out=tmp_path, env=env, resume=True)
        assert ingestion.names() == ["started", "completed", "started", "failed"]
