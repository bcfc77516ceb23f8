"""Files are named as the URL, the list or the server says: one path a URL, inside of the folder."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from infra_core.batch import BatchError, BatchItem, BatchOptions, Summary, run_batch
from infra_core.batch._index import JobIndex
from infra_core.batch._names import INCOMING, FileNames
from infra_core.batch._results import Outcome
from infra_core.http.testing import FaultyOrigin

pytestmark = pytest.mark.usefixtures("no_azure")


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        yield server


def crawl(out: Path, items: list[Any], **options: Any) -> tuple[Summary, dict[str, str]]:
    """The summary, and the path below assets by the URL's path."""
    paths: dict[str, str] = {}
    summary = run_batch(
        items, batch_id="b", out=out, retries=0, concurrency=1,
        on_result=lambda result: paths.update({
            "/" + result.url.split("/", 3)[3]: str(result.path).removeprefix("assets/")
        }), **options,
    )  # fmt: skip
    return summary, paths


def files_in(out: Path) -> dict[str, bytes]:
    root = out / "b" / "assets"
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def names_of(layout: str, index: JobIndex, **options: Any) -> FileNames:
    return FileNames(BatchOptions(batch_id="b", out=Path(), layout=layout, **options), index)


def final(names: FileNames, url: str, **facts: Any) -> str:
    item = BatchItem(url)
    path = names.path_of(item, item.job_id)
    assert path == f"{INCOMING}{item.job_id}-{path.rpartition('-')[2]}"
    outcome = Outcome(job_id=item.job_id, status="completed", **facts)
    return names.final_path(item, outcome, path)


def suggest(origin: FaultyOrigin, path: str, name: str) -> None:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    origin.add(path, path.encode(), headers=headers)


def test_files_are_named_as_the_server_says(
    origin: FaultyOrigin, tmp_path: Path, place: dict[str, Any]
) -> None:
    """Never two on one path, never outside; where it says nothing, by the URL; a resume knows."""
    for path, name in [("/a", "report.pdf"), ("/b", "report.pdf"), ("/c", "../../../up.txt")]:
        suggest(origin, path, name)
    suggest(origin, "/given", "server.txt")
    origin.add("/plain.txt", b"/plain.txt")
    given_name = BatchItem(origin.url("/given"), name="mine.txt")
    items = [*map(origin.url, ["/a", "/b", "/c", "/plain.txt"]), given_name]
    options = {"layout": "flat", "content_disposition": True, **place}
    summary, paths = crawl(tmp_path, items, **options)
    assert summary.complete
    assert min(paths.values()) == "mine.txt"
    assert {paths["/c"], paths["/plain.txt"]} == {"up.txt", "plain.txt"}
    assert len({paths["/a"], paths["/b"], "report.pdf"}) == 2
    assert files_in(tmp_path) == {path: url.encode() for url, path in paths.items()}
    assert not (tmp_path / "b" / INCOMING).exists()
    files = json.loads((tmp_path / "b" / "manifest.json").read_text())["files"]
    assert {file["path"] for file in files} == set(paths.values())
    assert {f["content_type"] for f in files if "report" in f["path"]} == {"application/pdf"}

    for url in ("/a", "/b"):
        (tmp_path / "b" / "assets" / paths[url]).unlink()
    (tmp_path / "b" / INCOMING).mkdir()
    (tmp_path / "b" / INCOMING / "of-a-killed-run").touch()
    suggest(origin, "/new", "report.pdf")
    summary, again = crawl(tmp_path, [origin.url("/new"), *reversed(items)], resume=True, **options)
    assert (summary.complete, summary.skipped, summary.succeeded) == (True, 3, 3)
    assert {url: again[url] for url in paths} == paths
    assert files_in(tmp_path) == {path: url.encode() for url, path in again.items()}


def test_names_that_a_shared_table_records_are_not_given_away(
    origin: FaultyOrigin, tmp_path: Path, shared_table: Any
) -> None:
    """A resume knows them before it looks at the jobs one by one."""
    origin.add("/x/a.txt", b"/x/a.txt")
    origin.add("/y/a.txt", b"/y/a.txt")
    one, two = origin.url("/x/a.txt"), origin.url("/y/a.txt")
    options = {"layout": "flat", "store": shared_table}
    assert crawl(tmp_path, [one], **options)[1] == {"/x/a.txt": "a.txt"}
    summary, paths = crawl(tmp_path, [two, one], resume=True, **options)
    assert (summary.succeeded, summary.skipped) == (1, 1)
    assert files_in(tmp_path) == {path: url.encode() for url, path in paths.items()}


def test_a_name_that_the_disk_refuses_fails_that_url_alone(
    origin: FaultyOrigin, tmp_path: Path, place: dict[str, Any]
) -> None:
    """With the cause."""
    suggest(origin, "/a", "a.pdf")
    suggest(origin, "/b", "b.pdf")
    (tmp_path / "b" / "assets" / "a.pdf").mkdir(parents=True)
    options = {"layout": "flat", "content_disposition": True, **place}
    summary, paths = crawl(tmp_path, [origin.url("/a"), origin.url("/b")], **options)
    assert (summary.failed, summary.succeeded, summary.pending) == (1, 1, 0)
    assert "directory" in summary.failures[0].cause.lower()
    assert paths["/b"] == "b.pdf"


def test_a_file_without_extension_gets_that_of_its_type(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Nothing else changes: a folder's index, an extension, a name of the list."""
    served = {
        "/page": "text/html; charset=utf-8", "/docs/": "text/html", "/tool-1.2": "application/zip",
        "/list.php": "text/html", "/odd": "application/x-unknown", "/photo": "image/jpeg",
        "/named": "text/html",
    }  # fmt: skip
    for path, kind in served.items():
        origin.add(path, path.encode(), content_type=kind)
    items: list[Any] = [origin.url(path) for path in served if path != "/named"]
    items.append({"url": origin.url("/named"), "name": "plain"})
    summary, paths = crawl(tmp_path, items, layout="{path}", adjust_extension=True)
    assert summary.complete
    assert paths == {
        "/page": "page.html", "/docs/": "docs/index.html", "/tool-1.2": "tool-1.2.zip",
        "/list.php": "list.php", "/odd": "odd", "/photo": "photo.jpg", "/named": "plain",
    }  # fmt: skip
    assert files_in(tmp_path) == {path: url.encode() for url, path in paths.items()}


def test_both_work_with_every_layout() -> None:
    """The extension of the type follows a name of the server's that has none."""
    facts = {"name": "naïve", "content_type": "text/csv"}
    for layout, expected in {
        "hashed": "{shard}/{id}-naïve.csv",
        "url": "h.example/d/naïve~{query}.csv",
        "{stem}{ext}/{index}": "naïve.csv/1",
    }.items():
        with closing(JobIndex()) as index:
            names = names_of(layout, index, content_disposition=True, adjust_extension=True)
            path = final(names, "http://h.example/d/get?id=1", **facts)
        job_id = BatchItem("http://h.example/d/get?id=1").job_id
        query = path.partition("~")[2].partition(".")[0]
        assert path == "assets/" + expected.format(shard=job_id[:2], id=job_id, query=query)


def test_a_name_by_content(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Equal files have one digest and two paths; a resume names what has changed anew."""
    for path in ("/a.txt", "/b.txt", "/c"):
        origin.add(path, b"one")
    digests = [hashlib.sha256(body).hexdigest() for body in (b"one", b"two")]
    items: list[Any] = [origin.url("/a.txt"), origin.url("/b.txt")]
    items.append({"url": origin.url("/c"), "name": "named.md"})
    layout = {"layout": "{sha256:.2}/{sha256}{ext}"}
    summary, paths = crawl(tmp_path, items, **layout)
    assert summary.complete
    first = f"{digests[0][:2]}/{digests[0]}"
    # Files are named in the order in which they become durable.
    one, two = paths.pop("/a.txt"), paths.pop("/b.txt")
    longer = [f"{first}-{BatchItem(url).job_id[:8]}.txt" for url in items[:2]]
    assert (one, two) in [(f"{first}.txt", longer[1]), (longer[0], f"{first}.txt")]
    assert paths == {"/c": f"{first}.md"}
    assert crawl(tmp_path, items, resume=True, **layout)[0].skipped == 3
    (tmp_path / "b" / "assets" / one).unlink()
    origin.add("/a.txt", b"two")
    _, paths = crawl(tmp_path, items, resume=True, **layout)
    assert paths["/a.txt"] == f"{digests[1][:2]}/{digests[1]}.txt"
    assert files_in(tmp_path)[paths["/a.txt"]] == b"two"


def test_digests_of_a_layout_are_not_lost_in_a_long_path() -> None:
    """A path is cut at its beginning, and the digest may stand there."""
    urls = [f"http://h/{number}" + "/d" * 40 for number in range(2)]
    with closing(JobIndex()) as index:
        names = names_of("{digest}/{path}", index)
        assert len({names.path_of(item, item.job_id) for item in map(BatchItem, urls)}) == 2


@given(
    st.lists(st.text(max_size=30) | st.just("a.txt"), min_size=2, max_size=6),
    st.sampled_from(["flat", "url", "hashed", "{path}", "{name}/{ext}", ".incoming/{name}"]),
    st.sampled_from(["", "/", "/.incoming", "/a.txt", "/a.txt/b"]),
)
def test_no_two_urls_share_a_path_under_any_suggested_name(
    suggested: list[str], layout: str, path: str
) -> None:
    """Nor does any leave the folder, or take the place of one that has no name yet."""
    with closing(JobIndex()) as index:
        names = names_of(layout, index, content_disposition=True, adjust_extension=True)
        found = [
            final(names, f"http://h{number}.example{path}", name=name, content_type="text/html")
            for number, name in enumerate(suggested)
        ]
    folded = [each.casefold() for each in found]
    assert len(set(folded)) == len(folded)
    for each in folded:
        parts = each.split("/")
        assert parts[0] == "assets"
        assert not {"", ".", ".."} & set(parts)
        assert not f"{each}/".startswith(INCOMING)
        assert not any(other.startswith(f"{each}/") for other in folded)


def test_names_that_wait_are_refused_where_files_leave_at_once(tmp_path: Path) -> None:
    """A worker with a scratch folder mirrors a file before the coordinator sees its name."""
    with pytest.raises(BatchError, match="adjust_extension"):
        BatchOptions(batch_id="b", out=tmp_path, scratch=tmp_path, adjust_extension=True)


def test_paths_that_some_file_systems_keep_as_one_are_one() -> None:
    """Letter case, and accents composed or apart: macOS looks at neither."""
    first, *others = "caf\u00e9/a", "CAF\u00c9/A", "cafe\u0301/a"
    with closing(JobIndex()) as index:
        assert index.claim_path(first, "00")
        assert not any(index.claim_path(path, "01") for path in others)
        assert index.claim_path("cafe/a", "01")


def test_numbers_of_a_layout_are_numbers() -> None:
    """With leading zeros, as other programs write them."""
    with closing(JobIndex()) as index:
        names = names_of("{index:05d}{ext}", index)
        assert names.path_of(BatchItem("http://h/a.txt"), "00") == "assets/00001.txt"
