"""What the blob service refuses permanently: raised at once, listed once, never sent again."""

import asyncio
import base64
import hashlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure._access import _REMEDIES
from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    BlobConflictError,
    FileOutcome,
    StorageAccessError,
    StorageConnectionError,
    StorageMode,
    StorageRequestError,
    TransferOptions,
    UnsafeNamesError,
    _flush,
    _tree_types,
)
from infra_core.azure.storage._blobs import parse_page
from infra_core.azure.storage._config import resolve_config
from infra_core.azure.storage._errors import ending_of, request_error
from infra_core.azure.storage._flush import flush_journal
from infra_core.azure.storage._journal import Journal
from infra_core.azure.storage._refusals import REMEDIES, is_permanent
from infra_core.azure.storage._service import BlobService
from infra_core.azure.storage._tree_types import TreeRules
from infra_core.fs import FileWriteError
from infra_core.runtime import redact_secrets
from infra_core.runtime.testing import fast_time

Answer = tuple[int, dict[str, str], bytes]
FOR_GOOD = [
    (400, "InvalidHeaderValue"),
    (403, "UnauthorizedBlobOverwrite"),
    (403, "AuthorizationPermissionMismatch"),
    (405, "UnsupportedHttpVerb"),
    (409, "BlobImmutableDueToPolicy"),
    (409, "InvalidBlobType"),
    (409, "SnapshotsPresent"),
    (409, "BlobUsesCustomerSpecifiedEncryption"),
    (412, "SomethingNew"),
    (413, "RequestBodyTooLarge"),
]
IN_TIME = [
    (403, "AuthenticationFailed"),
    (404, "ContainerNotFound"),
    (409, "BlockCountExceedsLimit"),
    (409, "ContainerBeingDeleted"),
    (412, "LeaseIdMissing"),
    (400, "InvalidBlockList"),
    (503, "ServerBusy"),
]


def refusal(status: int, code: str) -> Answer:
    return status, {"x-ms-error-code": code}, b""


def refuse(part: str, status: int, code: str) -> Callable[..., Answer]:
    """Uploads of names with `part` in them are refused, all others arrive."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "HEAD":
            return refusal(404, "BlobNotFound")
        if part in path or ("restype" in path and status == 404):
            return refusal(status, code)
        return 201, {"ETag": '"1"'}, b""

    return answer


@pytest.mark.parametrize(("status", "code"), FOR_GOOD)
def test_refused_uploads_are_sent_once_and_listed(
    status: int, code: str, blob_server: Any, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Requests stay linear in files; the journal and the log name the cause."""
    server = blob_server(refuse("old", status, code))
    client = client_of(server, "best-effort")
    for number in range(10):
        client.write_text(client.base_path / f"old{number}", "x")
        client.write_text(client.base_path / f"new{number}", "x")
    assert server.count("PUT", "old") == 10
    entries = client.pending_uploads()
    assert [(entry.blob, entry.refused) for entry in entries] == [
        (f"old{number}", True) for number in range(10)
    ]
    assert all(code in (entry.error or "") for entry in entries)
    assert caplog.text.count("refused permanently") == 10


@pytest.mark.parametrize(("status", "code"), IN_TIME)
def test_what_may_pass_stays_pending_and_is_not_hammered(
    status: int, code: str, blob_server: Any, client_of: Any
) -> None:
    """While entries go on failing, flushes after a success keep growing pauses."""
    server = blob_server(refuse("old", status, code))
    client = client_of(server, "best-effort", max_retries=0)
    for number in range(20):
        client.write_text(client.base_path / f"old{number}", "x")
        client.write_text(client.base_path / f"new{number}", "x")
    assert server.count("PUT", "old") <= 40
    assert [entry.refused for entry in client.pending_uploads()] == [False] * 20


def test_a_flush_says_how_often_an_upload_has_failed(
    blob_server: Any, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The first try counts."""
    client = client_of(blob_server(refuse("old", 503, "ServerBusy")), "best-effort", max_retries=0)
    client.write_text(client.base_path / "old", "x")
    for times in (2, 3):
        client.flush_pending()
        assert f"kept for the next flush_pending(), failed {times} times: " in caplog.text
        assert [entry.attempts for entry in client.pending_uploads()] == [times]


def test_pending_uploads_are_tried_again_after_the_pause(blob_server: Any, client_of: Any) -> None:
    """A lease ends, a role is assigned: the next success after the pause makes up for it."""
    leased = [True]

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if leased[0] and "old" in path:
            return refusal(412, "LeaseIdMissing")
        return 201, {"ETag": '"1"'}, b""

    client = client_of(blob_server(answer), "best-effort")
    with fast_time() as time:
        client.write_text(client.base_path / "old", "x")
        client.write_text(client.base_path / "new", "x")  # flushes: it fails again
        leased[0] = False
        client.write_text(client.base_path / "new", "x")
        assert len(client.pending_uploads()) == 1
        time.advance(31)
        client.write_text(client.base_path / "new", "x")
    assert client.pending_uploads() == []


def test_refused_uploads_are_sent_again_or_forgotten_on_request(
    blob_server: Any, client_of: Any
) -> None:
    """After a policy was changed; by themselves they are not, not even by an explicit flush."""
    policy = [True]

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if policy[0] and method == "PUT":
            return refusal(409, "BlobImmutableDueToPolicy")
        return refusal(404, "BlobNotFound") if method == "HEAD" else (201, {"ETag": '"1"'}, b"")

    server = blob_server(answer)
    client = client_of(server, "best-effort")
    client.write_text(client.base_path / "a", "x")
    client.upload_text(client.base_path / "b", "y")
    sent = server.count("PUT")
    assert client.flush_pending().refused == 0
    assert server.count("PUT") == sent
    assert client.flush_pending(refused=True).refused == 2
    policy[0] = False
    assert client.flush_pending(refused=True).uploaded == 2
    assert client.pending_uploads() == []
    policy[0] = True
    client.write_text(client.base_path / "a", "x")
    assert client.forget_refused() == 1
    assert client.pending_uploads() == []


def test_refused_files_of_a_tree_are_listed_and_the_others_pending(
    blob_server: Any, client_of: Any
) -> None:
    """The tree's own rules go with its failures."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        if "bad" in path:
            return refusal(409, "InvalidBlobType")
        if "busy" in path:
            return refusal(412, "LeaseIdMissing")
        return 201, {"ETag": '"1"'}, b""

    client = client_of(blob_server(answer), "best-effort")
    for name in ("bad", "busy", "good"):
        (client.base_path / name).write_text(name)
    report = client.upload_tree(client.base_path, overwrite="never", cache_control="no-store")
    assert (report.failed, report.transferred) == (2, 1)
    entries = {entry.blob: entry for entry in client.pending_uploads()}
    assert {name: entry.refused for name, entry in entries.items()} == {"bad": True, "busy": False}
    assert entries["busy"].overwrite == "never"
    assert entries["busy"].details == {"cache_control": "no-store"}


def test_files_of_a_tree_are_made_up_for_as_they_were_to_be_sent(
    blob_server: Any, client_of: Any
) -> None:
    """With the media type that the caller gave, in place of the blob that was seen, or not."""
    server = blob_server(answer_with_one_blob)
    client = client_of(server, "best-effort", max_retries=0)
    for name in ("busy", "gone"):
        (client.base_path / name).write_text("new content")
    client.upload_tree(
        client.base_path, overwrite="if-unchanged", content_type=lambda name: "image/webp"
    )
    server.requests.clear()
    client.flush_pending()
    sent = {path.rpartition("/")[2]: headers for _, path, headers in server.requests}
    assert sent["busy"]["If-Match"] == '"7"'
    assert sent["gone"]["If-None-Match"] == "*"
    assert [h["x-ms-blob-content-type"] for h in sent.values()] == ["image/webp"] * 2


def answer_with_one_blob(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    if method != "GET":
        return refusal(503, "ServerBusy")
    seen = (
        b"<Blob><Name>busy</Name><Properties><Content-Length>3</Content-Length>"
        b'<Etag>"7"</Etag><BlobType>BlockBlob</BlobType></Properties></Blob>'
    )
    return 200, {}, b"<EnumerationResults><Blobs>" + seen + b"</Blobs></EnumerationResults>"


@pytest.mark.parametrize("mode", ["strict", "best-effort"])
def test_a_tree_that_brings_what_was_refused_takes_it_off_the_list(
    mode: str, blob_server: Any, client_of: Any
) -> None:
    """After the policy has ended, `mirror up` is how most send it again."""
    policy = [True]

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        if policy and "good" not in path:
            return refusal(409, "InvalidBlobType")
        return 201, {"ETag": '"1"'}, b""

    server = blob_server(answer)
    client = client_of(server, "best-effort")
    folder = client.base_path / "run"
    for path in (folder / "a", folder / "good", client.base_path / "beside"):
        client.write_text(path, "x")
    assert client.upload_tree(folder).failed == 1
    assert [entry.blob for entry in client.pending_uploads()] == ["beside", "run/a"]
    policy.clear()
    assert client_of(server, mode).upload_tree(folder).ok
    assert [entry.blob for entry in client.pending_uploads()] == ["beside"]


@pytest.mark.parametrize("how", ["file", "text", "tree"])
@pytest.mark.parametrize("status", [(409, "InvalidBlobType"), (412, "LeaseIdMissing")])
def test_a_newer_upload_stands_for_what_an_earlier_one_could_not_bring(
    how: str, status: tuple[int, str], blob_server: Any, client_of: Any
) -> None:
    """Else the next flush would put the older content over it, or it would be listed for ever."""
    refusing, stored = [True], {}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        if refusing:
            return refusal(*status)
        stored[path] = body
        return 201, {"ETag": '"1"'}, b""

    server = blob_server(answer)
    late, strict = client_of(server, "best-effort"), client_of(server, "strict")
    path = late.base_path / "run" / "a"
    late.upload_text(path, "old")
    late.write_text(path.with_name("other"), "other")
    refusing.clear()
    path.write_text("new")
    if how == "tree":
        late.upload_tree(path.parent, include=["a"])
    elif how == "file":
        strict.upload_file(path)
    else:
        strict.upload_text(path, "new")
    late.flush_pending(refused=True)
    assert late.pending_uploads() == []
    assert stored == {"/a/box/run/a": b"new", "/a/box/run/other": b"other"}


def test_pending_uploads_are_made_up_for_in_their_order(blob_server: Any, client_of: Any) -> None:
    """Text that came after a tree stands for the file that the tree would bring."""
    down, stored = [True], {}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if down:
            return refusal(503, "ServerBusy")
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        stored[path] = body
        return 201, {"ETag": '"1"'}, b""

    client = client_of(blob_server(answer), "best-effort", max_retries=0)
    (client.base_path / "a").write_text("older")
    client.upload_tree(client.base_path)
    client.upload_text(client.base_path / "a", "newer")
    assert [entry.kind for entry in client.pending_uploads()] == ["tree", "bytes"]
    down.clear()
    assert client.flush_pending().uploaded == 2
    assert stored == {"/a/box/a": b"newer"}


def test_trees_of_one_name_from_two_folders_both_wait(
    blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """The newer one stands for what both have, and for no more; a folder waits once."""
    down, stored = [True], {}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if down:
            return refusal(503, "ServerBusy")
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        stored[path.rpartition("/")[2]] = body
        return 201, {"ETag": '"1"'}, b""

    server = blob_server(answer)
    for root, name in ((tmp_path / "first", "a"), (tmp_path / "second", "b")) * 2:
        client = client_of(server, "best-effort", max_retries=0)
        client.base_path = root
        (root / "run").mkdir(parents=True, exist_ok=True)
        for each in (name, "both"):
            (root / "run" / each).write_text(root.name)
        client.upload_tree(root / "run")
    assert [entry.path for entry in client.pending_uploads()] == [
        tmp_path / "first" / "run", tmp_path / "second" / "run"
    ]  # fmt: skip
    down.clear()
    assert client.flush_pending().uploaded == 2
    assert stored == {"a": b"first", "b": b"second", "both": b"second"}


def test_a_tree_whose_listing_fails_says_why(blob_server: Any, client_of: Any) -> None:
    """In the report too, and not in the log alone."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return (201, {"ETag": '"1"'}, b"") if method == "PUT" else refusal(409, "ContainerDisabled")

    client = client_of(blob_server(answer), "best-effort")
    (client.base_path / "new").write_text("x")
    report = client.upload_tree(client.base_path, delete=True)
    assert (report.failed, report.problems, report.ok) == (1, [], False)
    assert report.notes[0].startswith("nothing was uploaded, since the listing failed: ")
    assert "ContainerDisabled" in report.notes[0]


def test_failed_deletion_is_no_pending_upload(blob_server: Any, client_of: Any) -> None:
    """No file is there to be uploaded, and a replay deletes nothing."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "DELETE":
            return refusal(412, "LeaseIdMissing")
        if method == "PUT":
            return 201, {"ETag": '"1"'}, b""
        return answer_with_one_blob(method, path, headers, body)

    client = client_of(blob_server(answer), "best-effort")
    (client.base_path / "new").write_text("x")
    seen: list[FileOutcome] = []
    report = client.upload_tree(client.base_path, delete=True, on_outcome=seen.append)
    assert [(item.action, item.ok) for item in seen] == [("upload", True), ("delete", False)]
    assert report.failed == 1
    (client.base_path / "un\\safe").write_text("x")
    report = client.upload_tree(client.base_path, delete=True, on_unsafe="skip")
    assert "nothing is deleted" in report.notes[0]
    assert client.pending_uploads() == []


@pytest.mark.parametrize("others", ["refused", "rejected"])
@pytest.mark.parametrize("waiting", [1, 5])
def test_thousand_problems_hide_no_upload_that_may_pass(
    others: str,
    waiting: int,
    blob_server: Any,
    client_of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report lists the first of them; what is made up for does not depend on its length.

    What is refused is sent once, however many there are.
    """
    for module in (_flush, _tree_types):
        monkeypatch.setattr(module, "KEPT_OUTCOMES", 3)

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        return refuse("bad", 400, "InvalidHeaderValue")(method, path, headers, body)

    leased = ["later"]

    def later(*given: Any) -> Answer:
        held = any(name in given[1] for name in leased)
        return refusal(412, "LeaseIdMissing") if held else answer(*given)

    server = blob_server(later)
    client = client_of(server, "best-effort", max_retries=0)
    for number in range(4):
        name = f"bad{number}" if others == "refused" else f"bad\\{number}"
        (client.base_path / name).write_text("x")
    for number in range(waiting):
        (client.base_path / f"later{number}").write_text("x")
    report = client.upload_tree(client.base_path, on_unsafe="skip")
    assert (report.failed + report.rejected, len(report.problems)) == (4 + waiting, 3)
    refused = 4 if others == "refused" else 0
    entries = client.pending_uploads()
    assert sum(entry.refused for entry in entries) == refused
    assert len([entry for entry in entries if not entry.refused]) == waiting
    assert all("LeaseIdMissing" in (e.error or "") for e in entries if not e.refused)
    client.flush_pending()
    leased.clear()
    client.flush_pending()
    assert [entry.refused for entry in client.pending_uploads()] == [True] * refused
    assert server.count("PUT", "bad") == refused


def test_replay_of_a_tree_keeps_its_rules(blob_server: Any, client_of: Any, tmp_path: Path) -> None:
    """A killed process had excluded files: the next one excludes them, too."""
    listing = b"<EnumerationResults><Blobs/></EnumerationResults>"
    server = blob_server(
        lambda method, *_: (200, {}, listing) if method == "GET" else (201, {"ETag": '"1"'}, b"")
    )
    client = client_of(server, "best-effort")
    for name in ("a.txt", "a.tmp"):
        (client.base_path / name).write_text(name)
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    details = {"exclude": ["*.tmp"], "overwrite": "never"}
    journal.fail(journal.enter("tree", "", path=client.base_path, details=details), OSError())
    journal.close()
    assert client.flush_pending().uploaded == 1
    (put,) = [headers for method, _, headers in server.requests if method == "PUT"]
    assert put["If-None-Match"] == "*"


class _Container:
    """Keeps what is put into it, as answers of `blob_server`; refuses the names in `leased`."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.leased: set[str] = set()

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, b"<EnumerationResults><Blobs/></EnumerationResults>"
        name = path.rpartition("/")[2]
        if method == "DELETE":
            del self.blobs[name]
            return 202, {}, b""
        if name in self.leased:
            return refusal(412, "LeaseIdMissing")
        self.blobs[name] = body
        return 201, {"ETag": '"1"'}, b""


@pytest.mark.parametrize("waits", [False, True], ids=["arrives", "waits"])
@pytest.mark.parametrize("mode", ["best-effort", "strict"])
@pytest.mark.parametrize("how", ["text", "file"])
def test_an_upload_outlives_the_replay_of_an_older_tree(
    how: str, mode: StorageMode, waits: bool, blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """Whether it arrives at once or later, the tree that waited brings all others."""
    container = _Container()
    server = blob_server(container)
    client, strict = client_of(server, "best-effort", max_retries=0), client_of(server, mode)
    path = client.base_path / "a"
    path.write_text("old")
    (client.base_path / "b").write_text("b")
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    if waits:
        container.leased = {"a", "b"}
    try:
        if how == "text":
            strict.upload_text(path, "new")
        else:
            (tmp_path / "other").write_text("new")
            strict.upload_file(tmp_path / "other", blob_path="a")
    except StorageRequestError:
        assert waits
        assert mode == "strict"
        return
    client.flush_pending()
    container.leased = {"b"}
    client.flush_pending()
    container.leased = set()
    assert client.flush_pending().failed == 0
    assert container.blobs == {"a": b"new", "b": b"b"}
    assert client.pending_uploads() == []
    assert journal.pending() == []
    with closing(sqlite3.connect(journal.path)) as db:
        assert db.execute("select count(*) from pending").fetchone() == (0,)
    journal.close()


@pytest.mark.parametrize("may_list", [True, False])
def test_a_blob_that_is_written_during_a_replay_stays(
    may_list: bool, blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """A replay may take minutes; without permission to list, it brings what it has."""
    container = _Container()
    container.blobs = {"a": b"first"}
    etag = ['"1"']

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET" and not may_list:
            return refusal(403, "AuthorizationPermissionMismatch")
        if method == "GET":
            name = f"<Name>a</Name><Properties><Etag>{etag[0]}</Etag></Properties>"
            etag[0], container.blobs["a"] = '"2"', b"written meanwhile"
            listing = f"<EnumerationResults><Blobs><Blob>{name}</Blob></Blobs></EnumerationResults>"
            return 200, {}, listing.encode()
        if headers.get("If-Match", etag[0]) != etag[0]:
            return refusal(412, "ConditionNotMet")
        if method == "HEAD":
            return 200, {"ETag": etag[0], "Content-Length": "1"}, b"?"
        return container(method, path, headers, body)

    client = client_of(blob_server(answer), "best-effort", max_retries=0)
    for name in "ab":
        (client.base_path / name).write_text("old")
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    journal.close()
    client.flush_pending()
    assert container.blobs == {"a": b"written meanwhile" if may_list else b"old", "b": b"old"}
    assert client.pending_uploads() == []


def test_what_a_replay_could_not_bring_is_brought_later(
    blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """In place of the blob that the replay has listed, and of no other."""
    container = _Container()
    container.leased = {"a", "b"}
    listed = "".join(
        f"<Blob><Name>{name}</Name><Properties><Etag>&quot;1&quot;</Etag></Properties></Blob>"
        for name in "ab"
    )
    current = {"a": '"1"', "b": '"1"'}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        name = path.rpartition("/")[2]
        if method == "GET":
            page = f"<EnumerationResults><Blobs>{listed}</Blobs></EnumerationResults>"
            return 200, {}, page.encode()
        if method == "HEAD":
            return 200, {"ETag": current[name], "Content-Length": "1"}, b"?"
        if headers.get("If-Match", current[name]) != current[name]:
            return refusal(412, "ConditionNotMet")
        return container(method, path, headers, body)

    client = client_of(blob_server(answer), "best-effort", max_retries=0)
    for name in "ab":
        (client.base_path / name).write_text("tree")
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    journal.close()
    client.flush_pending()
    assert sorted(entry.blob for entry in client.pending_uploads()) == ["a", "b"]
    container.leased, current["b"] = set(), '"2"'
    report = client.flush_pending()
    assert (report.uploaded, report.refused, report.failed) == (1, 1, 0)
    assert container.blobs == {"a": b"tree"}
    assert client.pending_uploads() == []


def test_a_tree_brings_what_it_was_asked_for_after_an_upload(
    blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """The newest wish counts, whichever kind it is of, and whatever waits."""
    container = _Container()
    client = client_of(blob_server(container), "best-effort")
    path = client.base_path / "a"
    path.write_text("tree")
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    with fast_time():
        container.leased = {"a"}
        client.upload_text(path, "text")
        container.leased = set()
        client.upload_text(path, "text")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    assert client.flush_pending().uploaded == 1
    assert container.blobs == {"a": b"tree"}
    journal.close()


def test_failures_of_a_tree_do_not_replace_newer_entries(tmp_path: Path) -> None:
    """A text that came while the tree was under way waits, or stays."""
    journal = Journal(tmp_path / "journal.sqlite")
    tree = journal.enter("tree", "run", path=tmp_path)
    journal.fail(journal.enter("bytes", "run/a", data=b"new"), OSError())
    journal.arrived(("run/b", journal.enter("bytes", "run/b", data=b"new")))
    failed = _flush.FailedFiles(journal, tmp_path, "run", TreeRules())
    failed.number = tree
    for name in "abc":
        failed(FileOutcome(name, "upload", 1, "new", error=OSError("no")))
    failed.note()
    assert [(entry.blob, entry.kind) for entry in journal.pending()] == [
        ("run/a", "bytes"), ("run/c", "file")
    ]  # fmt: skip
    journal.close()


def test_deleted_trees_do_not_come_back(blob_server: Any, client_of: Any) -> None:
    """What waits below a tree's name leaves the journal with its blobs."""
    container = _Container()
    container.leased = {"a"}
    client = client_of(blob_server(container), "best-effort", max_retries=0)
    client.write_text(client.base_path / "run" / "a", "x")
    client.write_text(client.base_path / "other", "x")
    assert [entry.blob for entry in client.pending_uploads()] == ["run/a"]
    container.leased = set()
    assert client.delete_tree(client.base_path / "run") == 0
    assert client.pending_uploads() == []
    client.flush_pending()
    assert container.blobs == {"other": b"x"}


@pytest.mark.parametrize("mode", ["best-effort", "strict"])
@pytest.mark.parametrize(("waiting", "later"), [("", "below"), ("below", ""), ("below", "below")])
def test_a_tree_from_elsewhere_is_not_replaced_by_one_that_waited(
    waiting: str, later: str, mode: StorageMode, blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """What it brought is newer, whatever folder it was; of the rest the one that waited brings."""
    container = _Container()
    client = client_of(blob_server(container), mode)
    old, new = client.base_path, tmp_path / "elsewhere"
    for root, names in ((old, ("a", "only old")), (new, ("a", "only new"))):
        (root / "below").mkdir(parents=True)
        for name in names:
            (root / "below" / name).write_text(root.name)
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", waiting, path=old / waiting), OSError())
    other = AzureStorageClient.from_settings(client.settings, mode, base_path=new)
    other.upload_tree(new / later)
    other.close()
    client.flush_pending()
    assert container.blobs.pop("only%20old") == b"base"
    assert container.blobs == {"a": b"elsewhere", "only%20new": b"elsewhere"}
    assert journal.newer(0, "") == set()
    journal.close()


def test_a_deleted_tree_is_not_brought_back_by_one_above_it(
    blob_server: Any, client_of: Any, tmp_path: Path
) -> None:
    """The tree above waits, and brings the others; what is uploaded later is as new as ever."""
    container = _Container()
    client = client_of(blob_server(container), "best-effort")
    below = client.base_path / "below"
    below.mkdir()
    for path in (below / "a", below / "b", client.base_path / "c", client.base_path / "below.d"):
        path.write_text(path.name)
    journal = Journal(tmp_path / "state" / "journal.sqlite")
    journal.fail(journal.enter("tree", "", path=client.base_path), OSError())
    client.delete_tree(below)
    client.upload_file(below / "b")  # and what waits after it
    assert container.blobs == {"b": b"b", "c": b"c", "below.d": b"below.d"}
    assert journal.newer(0, "") == set()
    journal.close()


@pytest.mark.parametrize(
    "code",
    [
        "BlobArchived",
        "BlobBeingRehydrated",
        "InvalidBlobType",
        "BlobUsesCustomerSpecifiedEncryption",
        "SomethingNew",
    ],
)
@pytest.mark.parametrize("status", [409, 412])
@pytest.mark.parametrize("call", ["download_to_path", "upload_file", "stat"])
def test_conflicts_that_do_not_pass_are_raised_at_once(
    call: str, status: int, code: str, blob_server: Any, client_of: Any
) -> None:
    """One request, and what to do."""
    server = blob_server(lambda *_: refusal(status, code))
    client = client_of(server)
    (client.base_path / "a").write_text("x")
    with pytest.raises(BlobConflictError) as raised:
        getattr(client, call)(client.base_path / "a")
    assert len(server.requests) == 1
    assert raised.value.remedy
    assert code in str(raised.value)


def test_bytes_that_were_altered_on_the_way_are_sent_again(
    blob_server: Any, client_of: Any
) -> None:
    """400 Md5Mismatch is no fault of the request."""
    answers = [refusal(400, "Md5Mismatch"), (201, {"ETag": '"1"'}, b"")]
    client = client_of(blob_server(lambda *_: answers.pop(0)))
    (client.base_path / "a").write_text("x")
    with fast_time():
        client.upload_file(client.base_path / "a")
    assert answers == []


@pytest.mark.parametrize(
    ("status", "code"), [(409, "BlobAlreadyExists"), (403, "UnauthorizedBlobOverwrite")]
)
def test_write_only_token_meets_a_blob_that_exists(
    status: int, code: str, blob_server: Any, client_of: Any
) -> None:
    """With overwrite="never" that is a conflict, which says what it could not look at."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method != "PUT":
            return refusal(403, "AuthorizationPermissionMismatch")
        return refusal(status, code)

    client = client_of(blob_server(answer))
    path = client.base_path / "a"
    path.write_text("x")
    with pytest.raises(BlobConflictError, match="could not be looked at") as raised:
        client.upload_file(path, overwrite="never")
    assert raised.value.by_condition
    kind = BlobConflictError if status == 409 else StorageAccessError
    with pytest.raises(kind):
        client.upload_file(path)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("overwrite", ["never", "if-unchanged", "always"])
def test_lease_on_a_blob_that_must_not_be_replaced(
    overwrite: Any, same: bool, blob_server: Any, client_of: Any
) -> None:
    """The service names the lease first; whoever only wanted to make the blob does not wait."""
    stored = {
        "Content-Length": "1",
        "Content-MD5": base64.b64encode(hashlib.md5(b"x" if same else b"y").digest()).decode(),
    }

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return (200, stored, b"") if method == "HEAD" else refusal(412, "LeaseIdMissing")

    client = client_of(blob_server(answer), "best-effort")
    path = client.base_path / "a"
    path.write_text("x")
    client.upload_file(path, overwrite=overwrite)
    assert [entry.blob for entry in client.pending_uploads()] == ["a"] * (overwrite == "always")
    if not same and overwrite != "always":
        with pytest.raises(BlobConflictError, match="BlobAlreadyExists"):
            client.upload_file(path, overwrite=overwrite, raise_on_error=True)


@pytest.mark.parametrize("permissions", ["c", "r", "cw"])
def test_emulator_has_no_word_for_a_blob_that_may_not_be_replaced(
    permissions: str, blob_server: Any, tmp_path: Path
) -> None:
    """Azurite calls everything that a token does not allow by one code; what it allows decides."""
    server = blob_server(lambda *_: refusal(403, "AuthorizationPermissionMismatch"))
    endpoint = server.connection_string.partition("BlobEndpoint=")[2]
    signature = f"SharedAccessSignature=sv=2022-11-02&sp={permissions}&sig=x"
    settings = AzureStorageSettings("box", f"BlobEndpoint={endpoint};{signature}")
    path = tmp_path / "a"
    path.write_text("x")
    with AzureStorageClient.from_settings(settings, "strict", base_path=tmp_path) as client:
        creates = permissions == "c"
        with pytest.raises(BlobConflictError if creates else StorageAccessError):
            client.upload_file(path, overwrite="never")
        with pytest.raises(StorageAccessError) as raised:
            client.upload_file(path)
    assert ("may create blobs but not replace them" in str(raised.value)) is creates
    assert raised.value.permanent


@pytest.mark.parametrize("overwrite", ["always", "never", "if-unchanged"])
def test_tree_goes_up_with_a_token_that_may_only_write(
    overwrite: str, blob_server: Any, client_of: Any
) -> None:
    """Nothing is compared, and the report says so; what exists is kept where it must be."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method != "PUT":
            return refusal(403, "AuthorizationPermissionMismatch")
        if "there" in path and headers.get("If-None-Match"):
            return refusal(409, "BlobAlreadyExists")
        return 201, {"ETag": '"1"'}, b""

    client = client_of(blob_server(answer))
    for name in ("there", "new"):
        (client.base_path / name).write_text(name)
    report = client.upload_tree(client.base_path, overwrite=overwrite)
    assert report.ok
    assert (report.transferred, report.kept) == ((2, 0) if overwrite == "always" else (1, 1))
    assert "could not be listed" in report.notes[0]
    with pytest.raises(StorageAccessError):
        client.upload_tree(client.base_path, delete=True)  # needs to know what is there


def test_doctor_accepts_a_token_that_may_only_write(blob_server: Any) -> None:
    """It says what it could not look at."""
    look_at_storage = pytest.importorskip("infra_core.cli._doctor").look_at_storage
    server = blob_server(lambda *_: refusal(403, "AuthorizationPermissionMismatch"))
    env = {
        "AZURE_STORAGE_CONTAINER": "box",
        "AZURE_STORAGE_CONNECTION_STRING": server.connection_string,
    }
    check = look_at_storage(env, None)
    assert check.state == "ok"
    assert "could not be looked at" in check.detail


def test_immutable_container_that_has_the_content_is_no_failure(
    blob_server: Any, client_of: Any
) -> None:
    """The answer to the first request was lost: what it wrote cannot be written again."""
    stored = {"ETag": '"1"'}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "HEAD":
            return 200, stored, b"x"
        stored["Content-MD5"] = headers["Content-MD5"]
        return refusal(409, "BlobImmutableDueToPolicy")

    client = client_of(blob_server(answer))
    (client.base_path / "a").write_text("x")
    client.upload_file(client.base_path / "a")


def test_roles_may_be_assigned_and_tokens_never_change() -> None:
    """The same code is final for a signature, and not for an identity."""
    code = "AuthorizationPermissionMismatch"
    assert is_permanent(403, code)
    assert not is_permanent(403, code, by_role=True)
    assert not any(is_permanent(status, "") for status in (0, 302, 401, 403, 404, 429, 500, 503))
    assert all(is_permanent(status, "") for status in (400, 405, 409, 411, 412, 413, 501))


@pytest.mark.parametrize("given", [{"sas_token": "sv=1&sig=a"}, {}])
def test_what_a_role_does_not_allow_yet_is_kept(given: dict[str, str]) -> None:
    """An identity may have its role a minute later; a signature never gets more rights."""
    config = resolve_config(AzureStorageSettings("box", account_name="acc", **given), "strict")  # type: ignore[arg-type] # keywords by name
    assert config is not None
    headers = {"x-ms-error-code": "AuthorizationPermissionMismatch"}
    error = BlobService(config)._refusal(403, headers, b"", "a", "upload")
    assert error.permanent is bool(given)


@pytest.mark.parametrize(
    ("status", "refused"), [(400, False), (405, False), (407, False), (409, False), (413, True)]
)
def test_what_a_proxy_says_is_no_refusal_of_the_service(status: int, refused: bool) -> None:
    """Without a header of the service an answer is none of its own; only size counts anywhere."""
    config = resolve_config(AzureStorageSettings("box", account_name="acc"), "strict")
    assert config is not None
    page, headers = b"<html>no</html>", {"Content-Type": "text/html"}
    assert BlobService(config)._refusal(status, headers, page, "a", "upload").permanent is refused
    headers = {"x-ms-request-id": "r"}
    permanent = BlobService(config)._refusal(status, headers, b"", "a", "upload").permanent
    assert permanent is (status != 407)


def test_remedies_stand_whole_in_the_journal() -> None:
    """Secrets are cut out of causes, and no word of a remedy looks like one."""
    answers = (request_error(status, "", "", blob="", operation="") for status in range(300, 600))
    for remedy in [*REMEDIES.values(), *_REMEDIES.values(), *(each.remedy for each in answers)]:
        assert redact_secrets(remedy) == remedy


@pytest.mark.parametrize("code", ["AccountBeingCreated", "LeaseAlreadyPresent", "SystemInUse"])
def test_no_remedy_against_waiting_for_what_passes(code: str) -> None:
    """What is kept as pending is not reported as hopeless."""
    error = request_error(409, code, "", blob="a", operation="upload")
    assert not error.permanent
    assert "does not help" not in error.remedy


def test_journal_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """It has no columns for what is refused."""
    path = tmp_path / "j.sqlite"
    with sqlite3.connect(path) as db:
        db.execute(
            "create table pending (id integer primary key autoincrement, slot text not null unique,"
            " kind text not null, blob text not null, path text, data blob, content_type text,"
            " overwrite text not null default 'always', etag text, created real not null,"
            " attempts integer not null default 0, error text, owner text not null)"
        )
        db.execute(
            "insert into pending (slot, kind, blob, path, created, owner)"
            " values ('blob a', 'file', 'a', '/x/a', 1.0, '')"
        )
    db.close()
    journal = Journal(path)
    (entry,) = journal.pending()
    assert (entry.blob, entry.refused, entry.details) == ("a", False, {})
    journal.fail(entry.id, request_error(400, "No", "", blob="", operation="upload"))
    assert [entry.refused for entry in journal.pending()] == [True]
    journal.close()


def test_strict_client_without_configuration_refuses_to_upload(tmp_path: Path) -> None:
    """0.7 did: a service that forgot its settings must not go on with local files alone."""
    client = AzureStorageClient(None, settings=AzureStorageSettings(None), mode="strict")
    (tmp_path / "a").write_text("x")
    for call in (
        lambda: client.upload_file(tmp_path / "a"),
        lambda: client.upload_text(tmp_path / "a", "x"),
        lambda: client.write_text(tmp_path / "b", "kept"),
        lambda: client.write_json(tmp_path / "c", {}),
        lambda: client.upload_tree(tmp_path),
    ):
        with pytest.raises(ConfigurationError, match="no container is named"):
            call()
    assert (tmp_path / "b").read_text() == "kept"


@pytest.mark.parametrize("mode", ["strict", "best-effort"])
def test_file_that_cannot_be_written_is_an_error_in_each_mode(
    blob_server: Any, client_of: Any, mode: StorageMode
) -> None:
    """What best-effort swallows is what the service says; nothing is sent, and nothing waits."""
    server = blob_server(lambda *_: (201, {}, b""))
    client = client_of(server, mode)
    blocked = client.base_path / "file"
    blocked.write_text("")
    with pytest.raises(FileWriteError):
        client.write_text(blocked / "a.txt", "x")
    with pytest.raises(TypeError):
        client.write_json(client.base_path / "b.json", {"x": object()})
    assert client.pending_uploads() == []
    assert server.requests == []


def test_unwritable_state_folder_is_logged_where_errors_are_swallowed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As in 0.7: swallow_errors=True logs and goes on; best-effort, which promises more, raises."""
    blocked = tmp_path / "file"
    blocked.write_text("")
    settings = AzureStorageSettings(
        "box",
        "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a",
        journal=blocked / "journal.sqlite",
        options=TransferOptions(max_retries=0),
    )
    with AzureStorageClient.from_settings(settings, "strict", swallow_errors=True) as client:
        client.write_text(tmp_path / "a", "x")
    assert "neither uploaded nor kept" in caplog.text
    with (
        AzureStorageClient.from_settings(settings, "best-effort") as client,
        pytest.raises(StorageConnectionError),
    ):
        client.write_text(tmp_path / "a", "x")


def test_leading_slash_of_a_prefix_stays_as_in_0_7(
    blob_server: Any, tmp_path: Path, client_of: Any
) -> None:
    """AZURE_STORAGE_BLOB_PREFIX=/shots/ made blobs called /shots/..., which are found again."""
    server = blob_server(lambda *_: (201, {"ETag": '"1"'}, b""))
    settings = AzureStorageSettings("box", server.connection_string, prefix="/shots/")
    with AzureStorageClient.from_settings(settings, "strict", base_path=tmp_path) as client:
        client.write_text(tmp_path / "run" / "a.txt", "x")
        name = client.blob_name_for_path(tmp_path / "run" / "a.txt")
        assert name == "/shots/run/a.txt"
        assert (client.blob_url_for_name(name) or "").endswith("/a/box//shots/run/a.txt")
    assert server.requests[0][1] == "/a/box//shots/run/a.txt"


def test_properties_are_stored_and_kept_on_request(blob_server: Any, client_of: Any) -> None:
    """Cache control, encoding and metadata; what is not given survives with keep_properties."""
    there = {
        "Content-Length": "1",
        "Content-Type": "image/webp",
        "Cache-Control": "max-age=60",
        "Content-Language": "de",
        "x-ms-meta-Origin": "crawl",
        "x-ms-meta-note": "",
    }
    server = blob_server(
        lambda method, *_: (200, there, b"x") if method == "HEAD" else (201, {"ETag": '"1"'}, b"")
    )
    client = client_of(server, block_size=1024)
    path = client.base_path / "a"
    for size in (1, 3000):
        path.write_text("x" * size)
        client.upload_file(
            path, cache_control="no-store", content_encoding="gzip", metadata={"Run": "42"}
        )
        sent = server.requests[-1][2]
        assert sent["x-ms-blob-cache-control"] == "no-store"
        assert sent["x-ms-blob-content-encoding"] == "gzip"
        assert sent["x-ms-meta-run"] == "42"
        client.upload_file(path, cache_control="no-store", keep_properties=True)
        sent = server.requests[-1][2]
        assert sent["x-ms-blob-cache-control"] == "no-store"
        assert sent["x-ms-blob-content-type"] == "image/webp"
        assert sent["x-ms-blob-content-language"] == "de"
        assert (sent["x-ms-meta-origin"], sent["x-ms-meta-note"]) == ("crawl", "")
    info = client.stat(path)
    assert (info.cache_control, info.metadata) == ("max-age=60", {"origin": "crawl", "note": ""})
    metadata: list[Any] = [{"a-b": "c"}, {"a": ""}, {"Run": "1", "run": "2"}]
    refused = ({"cache_control": "a\nb"}, *({"metadata": wrong} for wrong in metadata))
    for wrong in refused:
        with pytest.raises(ValueError, match=r"cache_control|metadata"):
            client.upload_file(path, **wrong)


@pytest.mark.parametrize(
    "marks",
    [
        {"x-ms-meta-Hdi_isfolder": "true"},
        {"x-ms-meta-asv_isfolder": "TRUE"},
        {"x-ms-resource-type": "directory"},
    ],
)
def test_folder_is_no_blob_of_a_file(
    marks: dict[str, str], blob_server: Any, client_of: Any
) -> None:
    """Single downloads and looks see none."""
    client = client_of(blob_server(lambda *_: (200, {**marks, "ETag": '"1"'}, b"")))
    assert client.stat(client.base_path / "dir") is None
    assert not client.download_to_path(client.base_path / "dir")
    assert not (client.base_path / "dir").exists()


def test_a_blob_with_content_is_a_file_whatever_its_metadata_say(
    blob_server: Any, client_of: Any
) -> None:
    """A mark of a folder may have been copied to it; its bytes are not left out."""
    marks = {"x-ms-meta-hdi_isfolder": "true", "ETag": '"1"'}
    client = client_of(blob_server(lambda *_: (200, marks, b"bytes")))
    assert client.stat(client.base_path / "file") is not None
    assert client.download_to_path(client.base_path / "file")
    assert (client.base_path / "file").read_bytes() == b"bytes"
    listed = (
        b"<EnumerationResults><Blobs><Blob><Name>file</Name><Properties><Content-Length>5"
        b"</Content-Length></Properties><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"
        b"</Blob></Blobs></EnumerationResults>"
    )
    assert [blob.name for blob in parse_page(listed)[0]] == ["file"]


def test_a_block_around_the_shared_client_of_the_sdk_does_not_close_it(
    blob_server: Any, client_of: Any
) -> None:
    """It is one for all: the mirror of a run log would find it closed."""
    client = client_of(blob_server(lambda *_: (200, {"ETag": '"1"'}, b"")))
    for _ in range(2):
        with client.container(create=False) as container:
            assert container.exists()

    async def twice() -> None:
        for _ in range(2):
            async with await client.container_async() as container:
                assert await container.exists()
        await client.aclose()
        with pytest.raises(ValueError, match="closed"):
            await container.exists()

    asyncio.run(twice())
    assert client.container(create=False).exists()  # a new one


@pytest.mark.posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_client_of_the_sdk_of_its_own(
    blob_server: Any, client_of: Any
) -> None:
    """Two processes that read from one connection would take each other's answers."""
    client = client_of(blob_server(lambda *_: (200, {"ETag": '"1"'}, b"")))
    container = client.container(create=False)
    assert client.container(create=False) is container
    child = os.fork()
    if child == 0:
        os._exit(client.container(create=False) is container)
    assert os.waitpid(child, 0)[1] == 0
    assert client.container(create=False) is container


def test_the_credential_of_the_client_of_the_sdk_ends_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own; what was given stays open."""
    closed = []

    class Credential:
        def get_token(self, *scopes: str, **options: Any) -> None:
            raise AssertionError(scopes)

        def close(self) -> None:
            closed.append(self)

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Credential)
    given = Credential()
    for credential in (None, given):
        with AzureStorageClient.from_settings(
            AzureStorageSettings("box", account_name="acc", journal=tmp_path / "j"),
            "strict",
            credential=credential,
        ) as client:
            container = client.container(create=False)
            assert container is not None
            assert container.url.endswith("/box")
    assert len(closed) == 1
    assert given not in closed


def test_an_upload_whose_file_is_gone_leaves_the_journal_with_a_warning(
    blob_server: Any, client_of: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The name of the file and that of the blob; it is counted as missing."""
    container = _Container()
    container.leased = {"a"}
    client = client_of(blob_server(container), "best-effort", max_retries=0)
    path = client.write_text(client.base_path / "a", "x")
    path.unlink()
    caplog.clear()
    assert client.flush_pending().missing == 1
    assert client.pending_uploads() == []
    (record,) = [r for r in caplog.records if r.levelname == "WARNING"]
    assert f"{path} is gone, so it cannot be uploaded as 'a' any more" in record.getMessage()


def test_what_no_blob_service_has_answered_stays_pending() -> None:
    """A login page in between: the next network may lead to the service."""
    error = StorageRequestError("answered by a login page", status=200)
    assert not error.permanent
    assert ending_of(error) == "pending"


def test_a_journal_without_failures_is_flushed_once(
    blob_server: Any, client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an earlier run left behind; then every success would read the journal for nothing."""
    client = client_of(blob_server(_Container()), "best-effort")
    flushed = []

    async def counted(*arguments: Any) -> Any:
        flushed.append(arguments)
        return await flush_journal(*arguments)

    monkeypatch.setattr("infra_core.azure.storage._uploader.flush_journal", counted)
    for number in range(3):
        client.write_text(client.base_path / f"{number}", "x")
    assert len(flushed) == 1


def test_nothing_is_uploaded_for_a_file_that_could_not_be_written(
    blob_server: Any, client_of: Any
) -> None:
    """The error comes through in any mode, and the journal forgets the upload."""
    server = blob_server(_Container())
    client = client_of(server, "best-effort")
    path = client.base_path / "a"
    path.write_text("old")
    with pytest.raises(TypeError):
        client.write_json(path, {"x": object()})
    assert server.requests == []
    assert client.pending_uploads() == []


@pytest.mark.parametrize("count", [1, 2, 11])
def test_unsafe_names_are_counted_in_the_error(count: int) -> None:
    """One name is one; beyond ten the others are a number."""
    names = {f"n{number}": "bad" for number in range(count)}
    text = str(UnsafeNamesError(names, operation="upload"))
    assert ("an unsafe name: " in text) is (count == 1)
    assert ("and 1 more" in text) is (count == 11)


@pytest.mark.posix
@pytest.mark.parametrize("name", ["run.", "we\\ird", "a\nb"])
@pytest.mark.parametrize("mode", ["strict", "best-effort"])
def test_folder_whose_name_no_blob_can_have(
    name: str, mode: Any, blob_server: Any, client_of: Any
) -> None:
    """Its blobs would lie below another name: nothing is listed, uploaded or kept for it."""
    server = blob_server(_Container())
    client = client_of(server, mode)
    folder = client.base_path / name
    folder.mkdir()
    (folder / "a").write_text("x")
    for call in (client.upload_tree, client.plan_tree):
        with pytest.raises(UnsafeNamesError, match="rename the folder"):
            call(folder)
    assert server.requests == []
    assert client.pending_uploads() == []


@pytest.mark.parametrize("code", _REMEDIES)
@pytest.mark.parametrize("status", [400, 403, 409])
def test_refused_access_has_its_remedy_under_any_status(code: str, status: int) -> None:
    """The service says `PublicAccessNotPermitted` with 409, for one."""
    error = request_error(status, code, "", blob="b", operation="upload")
    assert error.remedy == _REMEDIES[code]


@pytest.mark.posix
@pytest.mark.parametrize("name", ["a.", "run./a", "we\\ird"])
@pytest.mark.parametrize("call", ["download_to_path", "stat", "read_blob"])
def test_name_that_the_service_takes_for_another_is_not_read(
    call: str, name: str, blob_server: Any, client_of: Any
) -> None:
    """What came would be the content of another blob."""
    server = blob_server(lambda *_: (200, {}, b"another"))
    client = client_of(server)
    with pytest.raises(UnsafeNamesError, match=r"which the blob service .*name the file as its"):
        getattr(client, call)(client.base_path / name)
    assert server.requests == []
    assert not (client.base_path / name).exists()
