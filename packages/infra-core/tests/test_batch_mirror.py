"""Files of a batch go to a container as they come: what arrives, and what does not."""

import base64
import hashlib
import os
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from infra_core.azure.job_store import SqliteJobStore
from infra_core.batch import BatchResult, run_batch
from infra_core.http.testing import FaultyOrigin

pytestmark = pytest.mark.usefixtures("no_azure")


COUNT: Any = {"x_ms_blob_committed_block_count": "1"}


class Container:
    """A container behind HTTP, and the variables that name it."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.looks: list[str] = []
        self.refused: set[str] = set()  # ends of names
        container = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

            def reply(self, status: int, length: int = 0, **headers: str) -> None:
                self.send_response(status)
                sent = {"x-ms-request-id": "r", "ETag": '"1"', "Content-Length": str(length)}
                for name, value in {**sent, **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0))
                name = unquote(urlsplit(self.path).path).removeprefix("/a/box").lstrip("/")
                if name.endswith(tuple(container.refused)):
                    self.reply(403, x_ms_error_code="AuthorizationFailure")
                    return
                if "comp=appendblock" in self.path:  # of the run log
                    container.blobs[name] += body
                    self.reply(201)
                    return
                if self.headers["If-None-Match"] and name in container.blobs:
                    self.reply(409, x_ms_error_code="BlobAlreadyExists")
                    return
                container.uploads.append(name)
                container.blobs[name] = body
                self.reply(201)

            def do_HEAD(self) -> None:
                name = unquote(urlsplit(self.path).path).removeprefix("/a/box/")
                container.looks.append(name)
                body = container.blobs.get(name)
                if body is None:
                    self.reply(404, x_ms_error_code="BlobNotFound")
                else:
                    md5 = base64.b64encode(hashlib.md5(body).digest()).decode()
                    kind = "AppendBlob" if name.endswith("run.log") else "BlockBlob"
                    self.reply(200, len(body), Content_MD5=md5, x_ms_blob_type=kind, **COUNT)

            def do_GET(self) -> None:
                self.reply(404, x_ms_error_code="BlobNotFound")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        endpoint = f"http://127.0.0.1:{self.server.server_port}/a"
        self.env = {
            "AZURE_STORAGE_CONTAINER": "box",
            "AZURE_STORAGE_CONNECTION_STRING": (
                f"AccountName=a;AccountKey=a2V5;BlobEndpoint={endpoint}"
            ),
        }

    def files(self) -> dict[str, bytes]:
        """The files that were downloaded, by the end of their names."""
        return {
            name.rpartition("-")[2]: body for name, body in self.blobs.items() if "assets/" in name
        }

    def sent(self, name: str) -> int:
        """How many times a file was uploaded."""
        return sum("assets/" in each and each.endswith(name) for each in self.uploads)


@pytest.fixture
def container() -> Iterator[Container]:
    container = Container()
    thread = Thread(target=container.server.serve_forever, args=(0.01,))
    thread.start()
    yield container
    container.server.shutdown()
    container.server.server_close()
    thread.join()


FILES = {f"{name}.txt": name.encode() for name in ("one", "two", "three")}


@pytest.fixture
def urls() -> Iterator[list[str]]:
    with FaultyOrigin() as origin:
        for name, body in FILES.items():
            origin.add(f"/{name}", body, content_type="text/plain")
        yield [origin.url(f"/{name}") for name in FILES]


def mirrored_of(out: Path) -> dict[str, bool]:
    with SqliteJobStore(out / "jobs.sqlite3") as store:
        payloads = [record.payload for record in store.iter_runs("b")]
    return {each["url"].rpartition("/")[2]: each.get("mirrored", False) for each in payloads}


def test_each_file_is_mirrored_and_counted(
    place: dict[str, Any], container: Container, urls: list[str], tmp_path: Path
) -> None:
    """By whoever downloads it; the manifest comes after the files that it lists."""
    results: list[BatchResult] = []
    summary = run_batch(
        urls, batch_id="b", out=tmp_path, env=container.env, on_result=results.append, **place
    )
    assert summary.problems == []
    assert (summary.mirrored, summary.mirror_failed, summary.complete) == (3, 0, True)
    assert [result.mirrored for result in results] == [True] * 3
    assert container.files() == FILES
    assert b'"batch_ended"' in container.blobs["b/_logs/run.log"]
    assert mirrored_of(tmp_path) == dict.fromkeys(FILES, True)
    manifest = container.blobs["b/manifest.json"]
    assert all(name.encode() in manifest for name in container.blobs if "assets/" in name)


def test_an_upload_that_fails_is_left_to_the_next_run(
    place: dict[str, Any], container: Container, urls: list[str], tmp_path: Path
) -> None:
    """The file is here; it is said which one and why, and the others are not sent again."""
    run = partial(run_batch, urls, batch_id="b", out=tmp_path, env=container.env, **place)
    container.refused.add("two.txt")
    results, events = dict[str, BatchResult](), list[tuple[str, str]]()
    summary = run(
        on_result=lambda result: results.update({result.url: result}),
        on_event=lambda *event: events.append(event),
    )
    assert (summary.succeeded, summary.mirrored, summary.mirror_failed) == (3, 2, 1)
    assert not summary.complete
    assert [results[url].mirrored for url in urls] == [True, False, True]
    [(word, text)] = events
    assert word == "unsent"
    assert urls[1] in text
    assert "AuthorizationFailure" in text
    assert mirrored_of(tmp_path) == {"one.txt": True, "two.txt": False, "three.txt": True}
    container.refused.clear()
    again = run(resume=True)
    assert (again.skipped, again.mirrored, again.mirror_failed) == (3, 1, 0)
    assert again.complete
    assert [container.sent(name) for name in FILES] == [1, 1, 1]
    assert mirrored_of(tmp_path) == dict.fromkeys(FILES, True)


def test_the_container_is_asked_for_its_files_on_request(
    container: Container, urls: list[str], tmp_path: Path
) -> None:
    """What it has lost, or holds with other bytes, is sent again."""
    run = partial(run_batch, urls, batch_id="b", out=tmp_path, env=container.env)
    assert run().complete
    one, two, _ = (next(n for n in container.blobs if n.endswith(name)) for name in FILES)
    del container.blobs[one]
    container.blobs[two] = b"owt"
    container.looks.clear()
    assert run(resume=True).mirrored == 0
    assert [name for name in container.looks if "assets/" in name] == []
    assert run(resume=True, verify_mirror=True).mirrored == 2
    assert container.files() == FILES
    assert [container.sent(name) for name in FILES] == [2, 2, 1]


def test_files_that_are_in_the_container_alone_are_not_fetched_again(
    container: Container, urls: list[str], tmp_path: Path, place: dict[str, Any]
) -> None:
    """With a scratch folder; what is not there, or differs from the list now, is."""
    given = {**place, "scratch": tmp_path / "scratch", "env": container.env}
    run: Any = partial(run_batch, batch_id="b", out=tmp_path, retries=0, **given)
    container.refused.add("two.txt")
    assert run(urls).mirror_failed == 1
    assert [path.name[-7:] for path in (tmp_path / "scratch").rglob("*.txt")] == ["two.txt"]
    container.refused.clear()
    again = run(urls, resume=True)
    assert (again.skipped, again.succeeded, again.mirrored) == (2, 1, 1)
    assert again.complete
    assert list((tmp_path / "scratch").rglob("*.txt")) == []
    other = {"url": urls[0], "checksum": "sha256:" + "0" * 64}
    assert run([other], resume=True).failed == 1


def test_a_relative_scratch_folder_counts_from_where_the_batch_was_begun(
    container: Container, urls: list[str], tmp_path: Path, place: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The program may change its folder while the batch runs."""
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    monkeypatch.chdir(tmp_path / "first")

    def source() -> Iterator[str]:
        yield urls[0]
        os.chdir(tmp_path / "second")  # the fixture goes back
        yield from urls[1:]

    given: Any = {**place, "scratch": "scratch", "env": container.env}
    assert run_batch(source(), batch_id="b", out="out", **given).complete
    assert container.files() == FILES
    assert (tmp_path / "first" / "scratch").is_dir()
    assert list((tmp_path / "second").iterdir()) == []
