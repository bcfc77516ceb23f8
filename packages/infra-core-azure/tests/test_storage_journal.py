"""The journal of uploads on disk, and the proofs of who we are; no network."""

import asyncio
import base64
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    FileOutcome,
    JournalError,
    StorageConnectionError,
    TransferOptions,
)
from infra_core.azure.storage._auth import BearerToken, SharedKey
from infra_core.azure.storage._flush import FailedFiles
from infra_core.azure.storage._journal import Journal, open_journal
from infra_core.azure.storage._tree_types import TreeRules
from infra_core.runtime.testing import fast_time

pytestmark = pytest.mark.as_windows


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "pending.sqlite")


def test_entry_stays_until_its_upload_succeeds(journal: Journal, tmp_path: Path) -> None:
    """Busy entries are not pending; failed ones are, with their error; settled ones are gone."""
    number = journal.enter("file", "a.txt", path=tmp_path / "a.txt", content_type="text/plain")
    assert journal.pending() == []
    journal.fail(number, OSError("sig=SECRET no space"))
    (entry,) = journal.pending()
    assert (entry.blob, entry.path, entry.attempts) == ("a.txt", tmp_path / "a.txt", 1)
    assert entry.error is not None
    assert "SECRET" not in entry.error
    assert journal.claim(entry.id)
    assert not journal.claim(entry.id)
    journal.settle(entry.id)
    assert journal.pending() == []
    journal.close()


def test_newest_entry_of_a_blob_wins(journal: Journal) -> None:
    """A blob is uploaded once, with what was written last; an older upload settles nothing."""
    first = journal.enter("bytes", "a", data=b"one")
    second = journal.enter("bytes", "a", data=b"two")
    journal.settle(first)
    journal.fail(second, OSError())
    (entry,) = journal.pending()
    assert journal.data(entry.id) == b"two"
    journal.close()


def test_entries_of_a_killed_process_are_pending(tmp_path: Path) -> None:
    """What a process had begun when it was killed is found by the next one."""
    path = tmp_path / "pending.sqlite"
    code = (
        "import os, pathlib, sys\n"
        "from infra_core.azure.storage._journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "journal.enter('file', 'a', path=pathlib.Path('/x'))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    journal = Journal(path)
    assert [entry.blob for entry in journal.pending()] == ["a"]
    journal.close()


def test_entries_of_a_live_process_are_left_to_it(tmp_path: Path) -> None:
    """Another process that is at work on an upload is not disturbed."""
    path = tmp_path / "pending.sqlite"
    code = (
        "import pathlib, sys\n"
        "from infra_core.azure.storage._journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "journal.enter('file', 'a', path=pathlib.Path('/x'))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        journal = Journal(path)
        assert journal.pending() == []
        assert not journal.claim(1)
        assert other.stdin is not None
        other.stdin.close()
        other.wait()
    assert len(journal.pending()) == 1
    journal.close()


def test_journal_is_its_owners_alone(journal: Journal) -> None:
    """It can hold text that was to be uploaded."""
    journal.enter("bytes", "a", data=b"x")
    assert journal.path.stat().st_mode & 0o077 == 0
    journal.close()


def test_tree_is_replaced_by_its_failures(journal: Journal, tmp_path: Path) -> None:
    """Each is listed before the tree goes, so that a crash leaves the one or the others."""
    failed = FailedFiles(journal, tmp_path, "run", TreeRules(overwrite="never", exclude=("b",)))
    failed.number = journal.enter("tree", "run", path=tmp_path)
    error = OSError("full")
    failed(FileOutcome("a", "upload", 1, "failed", error, '"7"', "image/png"))
    failed.note()
    (entry,) = journal.pending()
    assert (entry.kind, entry.blob, entry.path) == ("file", "run/a", tmp_path / "a")
    assert (entry.etag, entry.content_type) == ('"7"', "image/png")
    assert (entry.attempts, entry.overwrite, entry.error) == (1, "never", "OSError: full")
    journal.close()


@pytest.mark.posix(reason="an open file cannot be removed there")
def test_journal_that_is_removed_while_it_is_open_loses_nothing(journal: Journal) -> None:
    """By a cleaner of old files, say: what this process knows goes into a new one."""
    waiting, busy = (journal.enter("bytes", name, data=b"x") for name in ("waiting", "busy"))
    journal.fail(waiting, OSError())
    for file in journal.path.parent.iterdir():
        file.unlink()
    assert [entry.blob for entry in journal.pending()] == ["waiting"]
    journal.settle(journal.enter("bytes", "other", data=b"y"))
    journal.fail(busy, OSError())
    journal.close()
    assert [entry.blob for entry in Journal(journal.path).pending()] == ["waiting", "busy"]


def test_one_object_per_file_in_a_process(tmp_path: Path) -> None:
    """Two clients of one journal know of each other's uploads."""
    first = open_journal(tmp_path / "j.sqlite")
    assert open_journal(tmp_path / "j.sqlite") is first
    first.enter("file", "a", path=tmp_path)
    assert open_journal(tmp_path / "j.sqlite").pending() == []
    first.close()


def test_threads_share_it(journal: Journal) -> None:
    """Many uploads at once lose no entry."""

    def work(index: int) -> None:
        for turn in range(5):
            number = journal.enter("bytes", f"{index}-{turn}", data=b"x")
            journal.fail(number, OSError()) if turn % 2 else journal.settle(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.pending()) == 12
    journal.close()


@pytest.mark.posix
def test_forked_child_uses_a_connection_of_its_own(tmp_path: Path) -> None:
    """SQLite connections must not cross a fork."""
    code = (
        "import os, pathlib, sys\n"
        "from infra_core.azure.storage._journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "one = journal.enter('bytes', 'parent', data=b'x')\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    journal.fail(journal.enter('bytes', 'child', data=b'x'), OSError())\n"
        "    os._exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "journal.fail(one, OSError())\n"
        "print(sorted(entry.blob for entry in journal.pending()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "j.sqlite")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "['child', 'parent']", done.stderr


def test_unusable_journal_is_reported_and_loses_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where neither container nor journal take an artifact, best-effort raises after all."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = AzureStorageSettings(
        "box",
        "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a",
        journal=blocked / "journal.sqlite",
    )
    client = AzureStorageClient.from_settings(settings, "best-effort", base_path=tmp_path)
    with fast_time(), pytest.raises(StorageConnectionError) as raised:
        client.write_text(tmp_path / "a.txt", "kept")
    assert "a.txt" in str(raised.value)
    assert (tmp_path / "a.txt").read_text() == "kept"
    assert "cannot be used" in caplog.text
    client.close()


class Credential:
    """Counts how often it is asked."""

    def __init__(self, lifetime: float) -> None:
        self.asked = 0
        self.closed = False
        self.lifetime = lifetime

    def get_token(self, *scopes: str) -> Any:
        from infra_core.runtime import clock

        assert scopes == ("https://storage.azure.com/.default",)
        self.asked += 1
        return SimpleNamespace(token=f"t{self.asked}", expires_on=clock.time() + self.lifetime)

    def close(self) -> None:
        self.closed = True


async def test_tokens_are_kept_until_they_are_about_to_expire() -> None:
    """One request to the credential serves many requests to the service."""
    credential = Credential(3600)
    auth = BearerToken(credential)
    for _ in range(3):
        headers: dict[str, str] = {}
        await auth.authorize("GET", "/c/b", {}, headers)
        assert headers["Authorization"] == "Bearer t1"
    short = BearerToken(brief := Credential(60))
    for _ in range(2):
        await short.authorize("GET", "/c/b", {}, {})
    assert (credential.asked, brief.asked) == (1, 2)
    await auth.aclose()
    assert not credential.closed  # it is the caller's


def test_signature_is_that_of_the_sdk() -> None:
    """The SDK's own signer gives the same, for all headers that we send."""
    from azure.core.pipeline import PipelineContext, PipelineRequest
    from azure.core.pipeline.transport import HttpRequest
    from azure.storage.blob._shared.authentication import SharedKeyCredentialPolicy

    key = base64.b64encode(b"key").decode()
    path = "/acc/box/a%20b/%C3%BC"
    params = {"comp": "block", "blockid": "YWI+/w=="}
    headers = {
        "x-ms-version": "2023-11-03",
        "x-ms-client-request-id": "1",
        "x-ms-date": "Mon, 23 Nov 2026 12:00:00 GMT",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-blob-content-type": "text/plain",
        "x-ms-blob-content-md5": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Content-MD5": "MDEyMzQ1Njc4OWFiY2RlZg==",
        "Content-Type": "application/octet-stream",
        "Content-Length": "3",
        "If-None-Match": "*",
        # the service sorts underscores before digits
        **{f"x-ms-meta-{name}": name for name in ("a", "ab", "a1", "a_b", "a_1", "_a", "z9", "z_")},
    }
    request = HttpRequest(
        "PUT", "http://h" + path + "?comp=block&blockid=YWI%2B%2Fw%3D%3D", headers
    )
    wrapped = PipelineRequest(request, PipelineContext(None))
    signer: Any = SharedKeyCredentialPolicy
    signer("acc", key).on_request(wrapped)
    expected = request.headers["Authorization"]
    assert f"SharedKey acc:{SharedKey('acc', key).sign('PUT', path, params, headers)}" == expected


def test_broken_journal_file_is_reported_and_left_alone(tmp_path: Path) -> None:
    """A file that is no database is never overwritten; the error names it and the setting."""
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    journal = Journal(path, "APP_AZURE_STORAGE_JOURNAL")
    with pytest.raises(JournalError, match=r"j\.sqlite cannot be used .*; set APP_AZURE_STORAGE_"):
        journal.pending()
    journal.close()
    assert path.read_bytes().startswith(b"not a database")


def test_names_that_are_not_utf8_are_kept(journal: Journal, tmp_path: Path) -> None:
    """Linux allows them in paths; SQLite holds no such text."""
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    number = journal.enter("file", "cafe", path=path)
    journal.fail(number, OSError("down"))
    assert [entry.path for entry in journal.pending()] == [path]


def test_long_journal_is_flushed_by_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much waits, only a page of it is in memory; what meets no service ends the try."""
    from infra_core.azure.storage import _journal

    monkeypatch.setattr(_journal, "_PAGE", 10)
    journal = open_journal(tmp_path / "j.sqlite")
    for number in range(35):
        kind: Any = "bytes" if number % 7 else "tree"
        entry = journal.enter(kind, f"b{number}", path=tmp_path, data=b"x")
        journal.fail(entry, OSError("down"))
    pages = [len(page) for page in journal.pages(trees=False)]
    assert pages == [10, 10, 10]
    assert [len(page) for page in journal.pages()] == [10, 10, 10, 5]
    assert [entry.blob for entry in journal.pending()] == [f"b{n}" for n in range(35)]
    settings = AzureStorageSettings(
        "box",
        "AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/acc",
        options=TransferOptions(max_retries=0, concurrency=2),
        journal=tmp_path / "j.sqlite",
    )
    with AzureStorageClient.from_settings(settings, "best-effort") as client:
        report = client.flush_pending()
        assert report.failed == 35
        tried = [entry for entry in client.pending_uploads() if entry.attempts > 1]
    assert 2 <= len(tried) <= 4


def _of_an_empty_container(method: str) -> tuple[int, dict[str, str], bytes]:
    """Answer as a container that holds nothing, and takes what comes."""
    if method == "GET":
        return 200, {}, b"<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>"
    if method == "HEAD":
        return 404, {"x-ms-error-code": "BlobNotFound"}, b""
    return 201, {"ETag": '"1"'}, b""


@pytest.mark.parametrize("what", ["file", "text", "tree"])
async def test_an_upload_that_is_cancelled_is_kept_for_the_next_flush(
    what: str, blob_server: Any, client_of: Any
) -> None:
    """Its caller is gone, such as a handler with a timeout; the next success makes up for it."""
    asked, go = threading.Event(), threading.Event()

    def answer(
        method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if method == "PUT" and "slow" in path and not go.is_set():
            asked.set()
            go.wait(60)
        return _of_an_empty_container(method)

    server = blob_server(answer)
    client = client_of(server, "best-effort")
    file = client.base_path / "in" / "slow"
    file.parent.mkdir()
    file.write_bytes(b"x" * 100)
    if what == "file":
        task = asyncio.ensure_future(client.upload_file_async(file))
    elif what == "text":
        task = asyncio.ensure_future(client.write_text_async(file, "y"))
    else:
        task = asyncio.ensure_future(client.upload_tree_async(file.parent))
    await asyncio.to_thread(asked.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    assert len(client.pending_uploads()) == 1
    await client.write_text_async(client.base_path / "new", "x")
    assert client.pending_uploads() == []
    assert server.count("PUT", "slow") == 2


def test_what_failed_of_a_tree_is_made_up_for_by_the_next_success(
    blob_server: Any, client_of: Any
) -> None:
    """Of an upload or of a tree; and a tree makes up for what failed before it."""
    failing = {"first", "tree/second"}

    def answer(
        method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if method == "PUT" and any(path.endswith(f"/{name}") for name in failing):
            return 500, {}, b""
        return _of_an_empty_container(method)

    server = blob_server(answer)
    client = client_of(server, "best-effort", max_retries=0)

    def pending() -> list[str]:
        return [entry.blob for entry in client.pending_uploads()]

    tree = client.base_path / "tree"
    for name in ("second", "third"):
        tree.mkdir(exist_ok=True)
        (tree / name).write_text(name)
    client.write_text(client.base_path / "first", "x")
    assert pending() == ["first"]
    failing.remove("first")
    client.upload_tree(tree)
    assert pending() == ["first", "tree/second"]
    failing.clear()
    client.write_text(client.base_path / "another", "x")
    assert pending() == []
    failing.add("first")
    client.write_text(client.base_path / "first", "y")
    assert pending() == ["first"]
    failing.clear()
    client.upload_tree(tree)
    assert pending() == []
