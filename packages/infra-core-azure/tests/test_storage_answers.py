"""Odd answers: half a listing, a size that is no number, the page of another server."""

import base64
import hashlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    BlobConflictError,
    BlobNotFoundError,
    IntegrityError,
    LocalFileChangedError,
    StorageAccessError,
    StorageError,
    StorageRequestError,
)
from infra_core.azure.storage._blobs import parse_page
from infra_core.runtime.testing import fast_time

Answer = tuple[int, dict[str, str], bytes]


def page(names: str, marker: str) -> bytes:
    """A page of a listing whose blobs have one letter each."""
    blobs = "".join(
        f"<Blob><Name>run/{name}</Name><Properties><Content-Length>1</Content-Length></Properties>"
        "</Blob>"
        for name in names
    )
    text = f"<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker>"
    return f"{text}</EnumerationResults>".encode()


CALLS: dict[str, Callable[[Any, Path], object]] = {
    "down": lambda client, path: client.sync_tree(path, "down", delete=True, compare="size"),
    "up": lambda client, path: client.sync_tree(path, "up", delete=True),
    "list": lambda client, path: client.list_tree(path),
    "iterate": lambda client, path: list(client.iter_tree(path)),
    "delete": lambda client, path: client.delete_tree(path),
}


@pytest.mark.parametrize("call", CALLS)
def test_half_a_listing_is_no_whole_one(call: str, blob_server: Any, client_of: Any) -> None:
    """The container is deleted after the first page: what that lacks is not gone."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET" and "marker" in path:
            return 404, {"x-ms-error-code": "ContainerNotFound"}, b""
        return (200, {}, page("ab", "next")) if method == "GET" else (202, {}, b"")

    server = blob_server(answer)
    client = client_of(server)
    run = client.base_path / "run"
    run.mkdir()
    for name in "abcd":
        (run / name).write_text(name)
    with pytest.raises(BlobNotFoundError, match=r"listing of 'box' failed .*ContainerNotFound"):
        CALLS[call](client, run)
    assert sorted(file.name for file in run.iterdir()) == ["a", "b", "c", "d"]
    assert server.count("PUT") == 0
    assert server.count("DELETE") == (2 if call == "delete" else 0)


def test_listing_that_comes_to_no_end_is_refused(blob_server: Any, client_of: Any) -> None:
    """A page that is followed by itself would be read for ever."""
    server = blob_server(lambda *_: (200, {}, page("a", "again")))
    client = client_of(server)
    with pytest.raises(StorageError, match="comes to no end: its page after 'again'"):
        client.list_tree(client.base_path / "run")
    assert server.count("GET") == 2


@pytest.mark.parametrize("given", ["*", "-1", "1e3", "many"])
def test_size_that_is_no_number_is_reported(given: str, blob_server: Any, client_of: Any) -> None:
    """By name, and not as an error of `int`; in ranges and in listings."""
    found = {"Content-Range": f"bytes 0-4/{given}", "ETag": '"1"'}
    client = client_of(blob_server(lambda *_: (206, found, b"hello")), max_retries=0)
    with pytest.raises(IntegrityError, match=r"the size of 'a' is given as .*, which is not"):
        client.download_to_path(client.base_path / "a")
    listing = page("a", "").replace(b">1<", f">{given}<".encode())
    with pytest.raises(IntegrityError, match="the size of 'run/a' is given as"):
        parse_page(listing)


def test_range_that_was_not_asked_for_is_reported(blob_server: Any, client_of: Any) -> None:
    """With what was asked and what came, and where to look."""
    found = {"Content-Range": "bytes 0-4/5000", "ETag": '"1"'}
    client = client_of(
        blob_server(lambda *_: (206, found, b"hello")), block_size=1024, max_retries=0
    )
    said = "asked for bytes 0-1023/5000 and got bytes 0-4/5000 with 5 bytes"
    with pytest.raises(IntegrityError, match=said) as raised:
        client.download_to_path(client.base_path / "a")
    assert (raised.value.blob, raised.value.operation) == ("a", "download")
    assert "NO_PROXY" in raised.value.remedy


def test_folder_of_a_listing_may_have_no_size() -> None:
    """`<Content-Length/>` is what some services say of it."""
    folder = "<Content-Length/><ResourceType>directory</ResourceType>"
    listing = page("ab", "").replace(b"<Content-Length>1</Content-Length>", folder.encode(), 1)
    assert [blob.name for blob in parse_page(listing)[0]] == ["run/b"]


def test_folders_of_a_deleted_tree_go_after_what_is_in_them(
    blob_server: Any, client_of: Any
) -> None:
    """Those that tools have made as blobs, and those of a hierarchical namespace."""
    marked = "<Metadata><Hdi_isfolder>true</Hdi_isfolder></Metadata>"
    folder = "<Properties><ResourceType>directory</ResourceType></Properties>"
    items = {"run/": "", "run/a": folder, "run/a/b": marked, "run/a/b/c": "", "run/ab": marked}
    there = {name: f"<Blob><Name>{name}</Name>{text}</Blob>" for name, text in items.items()}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            blobs = "".join(there.values())
            listed = f"<EnumerationResults><Blobs>{blobs}</Blobs></EnumerationResults>"
            return 200, {}, listed.encode()
        name = path.removeprefix("/a/box/")
        if any(other.startswith(f"{name}/") for other in there):
            return 409, {"x-ms-error-code": "DirectoryIsNotEmpty"}, b""
        del there[name]
        return 202, {}, b""

    client = client_of(blob_server(answer))
    assert client.delete_tree(client.base_path / "run") == 1
    assert there == {}


@pytest.mark.parametrize("code", ["DirectoryIsNotEmpty", "LeaseIdMissing"])
def test_folder_of_a_deleted_tree_into_which_something_came_stays(
    code: str, blob_server: Any, client_of: Any
) -> None:
    """Another program may write while the tree is deleted; that is no failure."""
    folder = "<Properties><ResourceType>directory</ResourceType></Properties>"
    blobs = f"<Blob><Name>run/a</Name>{folder}</Blob>"
    listed = f"<EnumerationResults><Blobs>{blobs}</Blobs></EnumerationResults>".encode()

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return (200, {}, listed) if method == "GET" else (409, {"x-ms-error-code": code}, b"")

    client = client_of(blob_server(answer))
    if code == "DirectoryIsNotEmpty":
        assert client.delete_tree(client.base_path / "run") == 0
    else:
        with pytest.raises(StorageError, match=code):
            client.delete_tree(client.base_path / "run")


def test_base_folder_is_no_blob(blob_server: Any, client_of: Any) -> None:
    """And a client without storage has none: neither is asked for."""
    server = blob_server(lambda *_: (200, {"ETag": '"1"'}, b"x"))
    client = client_of(server)
    without = AzureStorageClient.from_settings(
        AzureStorageSettings(None), "dev-skip", base_path=client.base_path
    )
    for one, path in ((client, client.base_path), (without, client.base_path / "a")):
        assert one.download_to_path(path) is False
        assert one.stat(path) is None
        assert one.read_blob(path) is None
    without.close()
    assert server.requests == []


FOREIGN: dict[str, Callable[[Any, Path], object]] = {
    "download": lambda client, path: client.download_to_path(path),
    "stat": lambda client, path: client.stat(path),
    "read": lambda client, path: client.read_blob(path),
    "upload": lambda client, path: client.upload_text(path, "x"),
    **CALLS,
}


@pytest.mark.parametrize("call", FOREIGN)
def test_what_another_server_does_not_have_may_exist(
    call: str, blob_server: Any, client_of: Any
) -> None:
    """Its 404 would have meant an empty container, or a blob that is not there yet."""
    server = blob_server(lambda *_: (404, {}, b"<html><h1>nginx: 404 Not Found</h1></html>"))
    server.signs = False
    client = client_of(server)
    run = client.base_path / "run"
    run.mkdir()
    (run / "a").write_text("a")
    said = "status 404, but not by a blob service"
    with pytest.raises(StorageRequestError, match=said) as raised:
        FOREIGN[call](client, run)
    assert not isinstance(raised.value, BlobNotFoundError)
    assert (run / "a").exists()


@pytest.mark.parametrize("with_md5", [True, False])
def test_answer_in_chunks_needs_no_length(with_md5: bool, blob_server: Any, client_of: Any) -> None:
    """As a proxy or a network for contents in front of the service sends it, range or not."""
    md5 = {"Content-MD5": base64.b64encode(hashlib.md5(b"hello").digest()).decode()}
    found = {"Transfer-Encoding": "chunked", "ETag": '"1"', **(md5 if with_md5 else {})}
    server = blob_server(lambda *_: (200, found, b"5\r\nhello\r\n0\r\n\r\n"))
    server.has_length = False
    client = client_of(server, max_retries=0)
    path = client.base_path / "a"
    assert client.download_to_path(path)
    assert path.read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("Signature not valid in the specified time frame: Start [A] - Expiry [B]", True),
        ("Request date header too old: 'C'", True),
        ("The MAC signature found in the HTTP request 'c2VjcmV0' is not the same", False),
    ],
)
def test_refusal_of_a_credential_says_why(
    detail: str, shown: bool, blob_server: Any, client_of: Any
) -> None:
    """Which date a token has, or that the clock is wrong; but no signature."""
    text = "<Error><Code>AuthenticationFailed</Code><Message>Failed.\nRequestId:r</Message>"
    text += f"<AuthenticationErrorDetail>{detail}\nmore</AuthenticationErrorDetail></Error>"
    client = client_of(blob_server(lambda *_: (403, {}, b"\xef\xbb\xbf" + text.encode())))
    with pytest.raises(StorageAccessError, match=r"AuthenticationFailed: Failed\.") as raised:
        client.list_tree(client.base_path)
    assert (detail in str(raised.value)) is shown
    assert "more" not in str(raised.value)
    assert (raised.value.operation, raised.value.blob) == ("listing", "box")


def test_blob_that_is_written_again_and_again_is_reported_as_such(
    blob_server: Any, client_of: Any
) -> None:
    """Nothing is uploaded here, so that no word is said of uploads."""
    refused = 412, {"x-ms-error-code": "ConditionNotMet"}, b""
    found = {"Content-Range": "bytes 0-1023/5000", "ETag": '"1"'}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return refused if "If-Match" in headers else (206, found, bytes(1024))

    client = client_of(blob_server(answer), block_size=1024, max_retries=0)
    with pytest.raises(BlobConflictError, match="it is written again and again") as raised:
        client.download_to_path(client.base_path / "a")
    assert "upload" not in str(raised.value)


@dataclass
class _Growing:
    """An append blob to which each request finds something appended, and maybe another in place."""

    data: bytes = b"a" * 5000
    made: int = 0
    again_after: int = 0  # requests after which there is another blob of that name
    asked: int = 0

    def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.asked += 1
        if self.asked == self.again_after:
            self.data, self.made = b"b" * 7000, 1
        self.data += b"x"
        etag = f'"{self.asked}"'
        if "restype" in path:
            text = f"<Name>log</Name><Properties><Content-Length>{len(self.data)}</Content-Length>"
            text += f"<Etag>{escape(etag)}</Etag><BlobType>AppendBlob</BlobType></Properties>"
            text = f"<EnumerationResults><Blobs><Blob>{text}</Blob></Blobs></EnumerationResults>"
            return 200, {}, text.encode()
        if headers.get("If-Match", etag) != etag:
            return 412, {"x-ms-error-code": "ConditionNotMet"}, b""
        start, end = map(int, headers["x-ms-range"].removeprefix("bytes=").split("-"))
        part = self.data[start : end + 1]
        found = {
            "ETag": etag,
            "x-ms-blob-type": "AppendBlob",
            "x-ms-creation-time": f"Mon, 01 Jan 2024 00:00:0{self.made} GMT",
            "Content-Range": f"bytes {start}-{start + len(part) - 1}/{len(self.data)}",
            "Content-MD5": base64.b64encode(hashlib.md5(part).digest()).decode(),
        }
        return 206, found, part


@pytest.mark.parametrize("tree", [False, True])
@pytest.mark.parametrize("again_after", [0, 4])
def test_an_append_blob_that_grows_meanwhile_is_downloaded(
    again_after: int, tree: bool, blob_server: Any, client_of: Any
) -> None:
    """A log, say: what it held at the beginning; never parts of two blobs of that name."""
    blob = _Growing(again_after=again_after)
    client = client_of(blob_server(blob), block_size=1024, max_retries=1, backoff=0.001)
    path = client.base_path / "log"
    with fast_time():
        if tree:
            client.download_tree(client.base_path, compare="nothing")
        else:
            client.download_to_path(path)
    content = path.read_bytes().rstrip(b"x")
    assert content == (b"b" * 7000 if again_after else b"a" * 5000)


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("condition", [{"overwrite": "never"}, {"etag": '"0"'}, {"etag": '"1"'}])
def test_blocks_that_would_be_refused_are_not_sent(
    condition: dict[str, Any], same: bool, blob_server: Any, client_of: Any
) -> None:
    """A blob that must not be replaced is looked at first: gigabytes would go for a conflict."""
    md5 = base64.b64encode(hashlib.md5(bytes(5000)).digest()).decode()
    found = {"ETag": '"1"', "Content-MD5": md5 if same else "MDEyMzQ1Njc4OWFiY2RlZg=="}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        return (
            (200, found | {"Content-Length": "5000"}, b"") if method == "HEAD" else (201, {}, b"")
        )

    server = blob_server(answer)
    client = client_of(server, block_size=1024)
    file = client.base_path / "a"
    file.write_bytes(bytes(5000))
    how = {"overwrite": "if-unchanged", **condition}
    met = condition.get("etag") == '"1"'
    if met or same:
        client.upload_file(file, **how)
    else:
        with pytest.raises(BlobConflictError, match=r"BlobAlready|ConditionNot") as raised:
            client.upload_file(file, **how)
        assert raised.value.by_condition
    assert server.count("PUT") == (6 if met else 0)


@pytest.mark.parametrize("left", [0, 1500])
def test_file_that_is_cut_while_blocks_are_read_stays_pending(
    left: int, blob_server: Any, client_of: Any
) -> None:
    """No service takes an empty block, and its refusal would be one for good."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if "comp=block" in path:
            file.write_bytes(bytes(left))
        if "comp=block&" in path and not body:
            return 400, {"x-ms-error-code": "InvalidHeaderValue"}, b""
        return 201, {"ETag": '"1"'}, b""

    server = blob_server(answer)
    client = client_of(server, "best-effort", block_size=1024, block_concurrency=1)
    file = client.base_path / "a"
    file.write_bytes(bytes(20_000))
    client.upload_file(file)
    (entry,) = client.pending_uploads()
    assert not entry.refused
    assert (entry.error or "").startswith("LocalFileChangedError")
    assert server.count("PUT", "blocklist") == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_file_without_a_size_is_not_stored_as_an_empty_one(
    blob_server: Any, client_of: Any
) -> None:
    """What the kernel makes up has 0 bytes by its properties, and more when it is read."""
    server = blob_server(lambda *_: (201, {"ETag": '"1"'}, b""))
    client = client_of(server, block_size=1024)
    with pytest.raises(LocalFileChangedError, match="upload a copy"):
        client.upload_file(Path("/proc/self/maps"))
    assert server.count("PUT", "blocklist") == 0


@pytest.mark.parametrize(
    ("code", "all_are_sent"),
    [("AuthenticationFailed", False), ("UnauthorizedBlobOverwrite", True)],
)
def test_token_that_has_ended_is_not_tried_for_each_file(
    code: str, all_are_sent: bool, blob_server: Any, client_of: Any
) -> None:
    """So many refusals of everything in a row are enough; what is refused of one blob is not."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "GET":
            return 200, {}, page("", "")
        return 403, {"x-ms-error-code": code}, b""

    server = blob_server(answer)
    client = client_of(server, "best-effort", concurrency=2)
    run = client.base_path / "run"
    run.mkdir()
    for number in range(100):
        (run / f"{number}").write_text("x")
    assert client.upload_tree(run).failed == 100
    sent = server.count("PUT")
    assert (sent == 100) is all_are_sent
    assert sent >= 2
    assert len(client.pending_uploads()) == 100
    flushed = client.flush_pending()
    assert (flushed.failed, flushed.refused) == ((0, 0) if all_are_sent else (100, 0))
    assert server.count("PUT") - sent < 20


@pytest.mark.parametrize("there", [200, 404, 403])
@pytest.mark.parametrize("delete", ["tree", "mirror"])
def test_a_blob_that_is_gone_already_fails_no_deletion(
    there: int, delete: str, blob_server: Any, client_of: Any
) -> None:
    """Another mirror was faster, or the first try of this one: nothing has the ETag any more."""
    codes = {404: "BlobNotFound", 403: "AuthorizationPermissionMismatch"}

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if method == "DELETE":
            code = "ConditionNotMet" if "If-Match" in headers else "BlobNotFound"
            return (412 if "If-Match" in headers else 404), {"x-ms-error-code": code}, b""
        if method == "HEAD":
            return there, {"x-ms-error-code": codes[there]} if there in codes else {}, b""
        if method == "PUT":
            return 201, {"ETag": '"1"'}, b""
        return 200, {}, page("a", "").replace(b"</Properties>", b"<Etag>1</Etag></Properties>")

    client = client_of(blob_server(answer))
    run = client.base_path / "run"
    run.mkdir()
    (run / "new").write_text("x")
    if delete == "tree":
        assert client.delete_tree(run) == 0
    elif there == 404:
        assert client.sync_tree(run, "up", delete=True).ok
    else:
        with pytest.raises(StorageError, match="written since it was listed"):
            client.sync_tree(run, "up", delete=True)
