"""A crawl that exists is asked for anew: what is current stays, what has changed is replaced."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.job_store import JobStatus, SqliteJobStore
from infra_core.batch import BatchError, BatchOptions, BatchResult, Summary, job_id_of, run_batch
from infra_core.batch._download import Downloads, WorkItem
from infra_core.http.testing import FaultyOrigin, status

pytestmark = [pytest.mark.usefixtures("no_azure"), pytest.mark.as_windows]
MONDAY = "Mon, 01 Jan 2024 00:00:00 GMT"
TUESDAY = "Tue, 02 Jan 2024 00:00:00 GMT"


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        yield server


def crawl(out: Path, urls: list[str], **options: Any) -> tuple[Summary, dict[str, BatchResult]]:
    results: dict[str, BatchResult] = {}
    summary = run_batch(
        urls, batch_id="b", out=out, retries=0,
        on_result=lambda result: results.update({result.url: result}), **options,
    )  # fmt: skip
    return summary, results


def payload_of(out: Path, url: str) -> dict[str, Any]:
    with SqliteJobStore(out / "jobs.sqlite3") as store:
        record = store.fetch("b", job_id_of(url))
    assert record is not None
    assert record.status is JobStatus.COMPLETED
    return record.payload


def sent(origin: FaultyOrigin, path: str) -> dict[str, str]:
    """The headers of the last request for a path."""
    request = [each for each in origin.requests if each.path == path][-1]
    return {name.lower(): value for name, value in request.headers.items()}


def test_what_is_current_stays_and_what_has_changed_is_replaced(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """By ETag, by date, and where the server has neither by its bytes; also what fails stays."""
    origin.add("/tag", b"tag", etag='W/"1"')
    origin.add("/date", b"date", last_modified=MONDAY)
    origin.add("/plain", b"plain")
    origin.add("/gone", b"gone", etag='"g"')
    origin.add("/new-tag", b"old", etag='"1"', last_modified=MONDAY)
    origin.add("/new-date", b"old", last_modified=MONDAY)
    names = ["tag", "date", "plain", "gone", "new-tag", "new-date"]
    urls = [origin.url(f"/{name}") for name in names]
    assert crawl(tmp_path, urls)[0].complete
    before = json.loads((tmp_path / "b" / "manifest.json").read_text())
    origin.add("/new-tag", b"new", last_modified=TUESDAY)
    origin.add("/new-date", b"new", last_modified=TUESDAY)
    origin.add("/gone", b"", always=status(404))
    origin.add("/added", b"added")
    summary, results = crawl(tmp_path, [*urls, origin.url("/added")], revalidate=True)

    found = {url.rpartition("/")[2]: result.status for url, result in results.items()}
    assert found == {
        "tag": "unchanged", "date": "unchanged", "plain": "unchanged", "gone": "failed",
        "new-tag": "completed", "new-date": "completed", "added": "completed",
    }  # fmt: skip
    assert (summary.succeeded, summary.skipped, summary.unchanged, summary.failed) == (3, 3, 3, 1)
    assert not summary.complete
    assert summary.pending == 0
    assert sent(origin, "/tag")["if-none-match"] == 'W/"1"'
    assert sent(origin, "/date")["if-modified-since"] == MONDAY
    statuses = {url.rpartition("/")[2]: result.http_status for url, result in results.items()}
    assert statuses == {
        "tag": 304, "date": 304, "plain": 200, "gone": 404, "new-tag": 200, "new-date": 200,
        "added": 200,
    }  # fmt: skip
    files = {name: payload_of(tmp_path, origin.url(f"/{name}")) for name in names}
    bodies = {name: (tmp_path / "b" / files[name]["path"]).read_bytes() for name in names}
    assert bodies == {
        "tag": b"tag", "date": b"date", "plain": b"plain", "gone": b"gone", "new-tag": b"new",
        "new-date": b"new",
    }  # fmt: skip
    # A tag that is not sent any more is not that of the new bytes.
    assert "etag" not in files["new-tag"]
    assert files["new-tag"]["last_modified"] == TUESDAY
    after = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert len(after["files"]) == 7
    assert {file["path"] for file in before["files"]} < {file["path"] for file in after["files"]}
    assert {f["checksum"] for f in after["files"]} >= {files["new-tag"]["checksum"]}
    log = (tmp_path / "b" / "_logs" / "run.log").read_text()
    assert log.count('"job_unchanged"') == 3
    assert "job_kept" not in log
    assert log.count('"revalidation_failed"') == 1

    again, _ = crawl(tmp_path, urls[:3], resume=True)
    assert (again.skipped, again.unchanged) == (3, 0)


def test_a_missing_file_is_fetched_without_a_condition(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """And a batch that does not exist begins."""
    origin.add("/tag", b"tag", etag='"1"')
    urls = [origin.url("/tag")]
    assert crawl(tmp_path, urls, revalidate=True)[1][urls[0]].status == "completed"
    (tmp_path / "b" / payload_of(tmp_path, urls[0])["path"]).write_bytes(b"TAG")
    assert crawl(tmp_path, urls, revalidate=True)[1][urls[0]].status == "completed"
    assert "if-none-match" not in sent(origin, "/tag")


def test_a_file_keeps_its_path_where_the_layout_is_another(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """It is replaced, not doubled."""
    origin.add("/x", b"old", etag='"1"')
    urls = [origin.url("/x")]
    crawl(tmp_path, urls)
    path = payload_of(tmp_path, urls[0])["path"]
    origin.add("/x", b"new", etag='"2"')
    assert crawl(tmp_path, urls, revalidate=True, layout="flat")[0].complete
    assert payload_of(tmp_path, urls[0])["path"] == path
    assert [f.read_bytes() for f in (tmp_path / "b/assets").rglob("*") if f.is_file()] == [b"new"]


def test_a_shared_table_keeps_up(origin: FaultyOrigin, tmp_path: Path, shared_table: Any) -> None:
    """No job is taken, or given up, for the sake of a question."""
    origin.add("/same", b"same", etag='"1"')
    origin.add("/new", b"old", etag='"1"')
    urls = [origin.url("/same"), origin.url("/new")]
    crawl(tmp_path, urls, store=shared_table)
    origin.add("/new", b"new", etag='"2"')
    summary, results = crawl(tmp_path, urls, store=shared_table, revalidate=True)
    assert summary.complete
    assert [results[url].status for url in urls] == ["unchanged", "completed"]
    records = {record.payload["url"]: record for record in shared_table.iter_runs("b")}
    assert {record.status for record in records.values()} == {JobStatus.COMPLETED}
    assert records[urls[1]].payload["etag"] == '"2"'
    assert records[urls[0]].attempts == 1


async def test_workers_elsewhere_ask_as_well(origin: FaultyOrigin, tmp_path: Path) -> None:
    """With the validators that the coordinator hands them."""
    origin.add("/x", b"x", etag='"1"')
    options = BatchOptions(batch_id="b", out=tmp_path)
    worker = Downloads(options, tmp_path / "b", lambda _: None, {})
    await worker.open()
    try:
        work = WorkItem("1", origin.url("/x"), "assets/x", held=('"1"', None))
        outcome = await worker.fetch(work)
    finally:
        await worker.close()
    assert outcome is not None
    assert outcome.status == "unchanged"
    assert not (tmp_path / "b" / "assets").exists()


def test_what_contradicts_it_is_refused(tmp_path: Path) -> None:
    """It goes on with a batch by itself."""
    with pytest.raises(BatchError, match="only_failed"):
        BatchOptions(batch_id="b", out=tmp_path, resume=True, revalidate=True, only_failed=True)
    assert BatchOptions(batch_id="b", out=tmp_path, revalidate=True).resume
