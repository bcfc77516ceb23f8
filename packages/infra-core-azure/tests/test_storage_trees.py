"""Trees over a container in memory: round trips, plans, hostile names, memory; no network."""

import asyncio
import base64
import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from xml.sax.saxutils import escape

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st

from infra_core.azure.run_storage import collect_local_files
from infra_core.azure.storage import (
    AzureStorageSettings,
    IntegrityError,
    LocalFileChangedError,
    TransferOptions,
    TreeProgress,
    TreeReport,
    UnsafeNamesError,
    _tree_run,
)
from infra_core.azure.storage._bounded import FileToWrite, batch_writer
from infra_core.azure.storage._config import resolve_config
from infra_core.azure.storage._download import download_blob
from infra_core.azure.storage._errors import request_error
from infra_core.azure.storage._names import blob_name_for, unsafe_reason, upload_problem
from infra_core.azure.storage._service import BlobService, Request, Response
from infra_core.azure.storage._tree_types import FileOutcome, TreeRules
from infra_core.azure.storage._tree_ways import DownRun, UpRun
from infra_core.azure.storage._upload import upload_path

pytestmark = pytest.mark.as_windows


CONNECTION = "AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/a"


class MemoryService(BlobService):
    """A container in memory behind the one method through which all requests go."""

    def __init__(self, **options: Any) -> None:
        settings = AzureStorageSettings(
            "box", CONNECTION, options=TransferOptions(concurrency=4, **options)
        )
        config = resolve_config(settings, "strict")
        assert config is not None
        super().__init__(config)
        self.blobs: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.blocks: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.types: dict[str, str] = {}

    def put(self, name: str, data: bytes) -> None:
        self.blobs[name] = data
        self.etags[name] = f'"{len(self.requests)}-{len(data)}-{os.urandom(4).hex()}"'

    async def send_once(self, request: Request) -> Response:
        await asyncio.sleep(0)
        method, name, operation, params, headers, body, _ = request
        self.requests.append((method, name))
        if name is None:
            return Response(200, {}, self.listing(params.get("prefix", "")))
        if params.get("comp") == "block":
            self.blocks[params["blockid"]] = bytes(body or b"")
            return Response(201, {}, b"")
        self.check(name, headers, method, operation)
        if method == "DELETE":
            del self.blobs[name]
            return Response(202, {}, b"")
        if method == "PUT":
            data = bytes(body or b"")
            if params.get("comp") == "blocklist":
                ids = data.decode().split("<Latest>")[1:]
                data = b"".join(self.blocks[part.partition("<")[0]] for part in ids)
            self.put(name, data)
            self.types[name] = headers["x-ms-blob-content-type"]
            return Response(201, {"ETag": self.etags[name]}, b"")
        return self.get(method, name, headers, operation)

    def check(self, name: str, headers: Mapping[str, str], method: str, operation: str) -> None:
        wanted = headers.get("If-Match")
        if headers.get("If-None-Match") == "*" and name in self.blobs:
            raise request_error(409, "BlobAlreadyExists", "", blob=name, operation=operation)
        if wanted and wanted != self.etags.get(name):
            raise request_error(412, "ConditionNotMet", "", blob=name, operation=operation)
        if method != "PUT" and name not in self.blobs:
            raise request_error(404, "BlobNotFound", "", blob=name, operation=operation)

    def get(self, method: str, name: str, headers: Mapping[str, str], operation: str) -> Response:
        data = self.blobs[name]
        md5 = base64.b64encode(hashlib.md5(data).digest()).decode()
        found = {"ETag": self.etags[name], "Content-Length": str(len(data)), "Content-MD5": md5}
        if method == "HEAD" or "x-ms-range" not in headers:
            return Response(200, found, b"" if method == "HEAD" else data)
        if not data:
            raise request_error(416, "InvalidRange", "", blob=name, operation=operation)
        start, end = map(int, headers["x-ms-range"].removeprefix("bytes=").split("-"))
        part = data[start : end + 1]
        found["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(data)}"
        found["x-ms-blob-content-md5"] = md5
        return Response(206, found, part)

    def listing(self, prefix: str) -> bytes:
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>{len(data)}"
            f"</Content-Length><Etag>{escape(self.etags[name])}</Etag><Content-MD5>"
            f"{base64.b64encode(hashlib.md5(data).digest()).decode()}</Content-MD5>"
            f"<Content-Type>{self.types.get(name, '')}</Content-Type></Properties></Blob>"
            for name, data in self.blobs.items()
            if name.startswith(prefix)
        )
        return f"<EnumerationResults><Blobs>{items}</Blobs></EnumerationResults>".encode()


def run(
    service: MemoryService, direction: Any, root: Path, prefix: str = "", **rules: Any
) -> tuple[TreeReport, list[FileOutcome]]:
    outcomes: list[FileOutcome] = []
    make: Any = UpRun if direction == "up" else DownRun
    tree = make(service, root, prefix, TreeRules(**rules, on_outcome=outcomes.append))
    return asyncio.run(tree.run()), sorted(outcomes, key=lambda o: (o.name, o.action))


def files_of(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


part = st.text(st.sampled_from("abAB.é "), min_size=1, max_size=3).filter(lambda t: t.strip(". "))
paths = st.lists(part, min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(paths, st.binary(max_size=30), max_size=8)
quick = hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def write(root: Path, tree: dict[str, bytes]) -> dict[str, bytes]:
    """Write what fits together on this file system; return what is there then."""
    for name, data in sorted(tree.items()):
        if upload_problem(name):
            continue
        with contextlib.suppress(OSError):  # one is a file, and another needs a folder of its name
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(data)
    return files_of(root)


@quick
@given(trees)
def test_what_went_up_comes_down_the_same(tree: dict[str, bytes]) -> None:
    """Any folder: up, again up (nothing to do), down elsewhere or refused as a whole."""
    with tempfile.TemporaryDirectory() as folder:
        root, target = Path(folder, "a"), Path(folder, "b")
        root.mkdir()
        files = write(root, tree)
        service = MemoryService(block_size=1024)
        report, _ = run(service, "up", root, "p/")
        assert report.transferred == len(files)
        assert run(service, "up", root, "p/")[0].skipped == len(files)
        try:
            run(service, "down", target, "p/")
        except UnsafeNamesError as error:  # names that differ only in case
            assert error.names
            assert not target.exists()
        else:
            assert (files_of(target) if target.exists() else {}) == files


@quick
@given(trees, trees, st.booleans(), st.sampled_from(["up", "down"]), st.data())
def test_plan_and_run_are_one(
    here: dict[str, bytes], there: dict[str, bytes], delete: bool, way: str, data: st.DataObject
) -> None:
    """Whatever stands on both sides, the dry run prints what the run then does."""
    rules: dict[str, Any] = {
        "delete": delete,
        "overwrite": data.draw(st.sampled_from(["always", "never", "if-unchanged"])),
        "compare": data.draw(st.sampled_from(["hash", "size", "nothing"])),
        "exclude": data.draw(st.sampled_from([(), ("a*",)])),
        "on_unsafe": "skip",
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "a")
        root.mkdir()
        write(root, here)
        service = MemoryService(block_size=1024)
        for name, content in there.items():
            service.put(name, content)
        before, blobs = files_of(root), dict(service.blobs)
        _, planned = run(service, way, root, dry_run=True, **rules)
        assert (files_of(root), service.blobs) == (before, blobs)
        report, done = run(service, way, root, **rules)
        if report.failed:  # a folder stands where a file shall be, or the other way round
            return
        assert done == planned
        if delete and way == "up" and report.files and report.ok:
            wanted = {name for name in service.blobs if not (rules["exclude"] and unplain(name))}
            assert wanted <= files_of(root).keys() | {""}


def unplain(name: str) -> bool:
    return name.rpartition("/")[2].startswith("a")


hostile = st.text(st.sampled_from("ab/.\\:C\t~"), min_size=1, max_size=9)


@quick
@given(st.dictionaries(hostile, st.just(b"x"), min_size=1, max_size=6))
def test_no_container_writes_outside_the_target(blobs: dict[str, bytes]) -> None:
    """Hostile names are rejected one by one; what is written lies in the target."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "deep", "target")
        service = MemoryService()
        for name, content in blobs.items():
            service.put("p/" + name, content)
        report, _ = run(service, "down", target, "p/", on_unsafe="skip")
        everything = {p for p in Path(folder).rglob("*") if p.is_file()}
        assert all(p.is_relative_to(target) for p in everything)
        for path in everything:
            assert unsafe_reason(path.relative_to(target).as_posix()) is None
        if report.rejected:
            with pytest.raises(UnsafeNamesError):
                run(service, "down", Path(folder, "other"), "p/")
            assert not Path(folder, "other").exists()


def test_backslash_in_a_blob_name_is_refused(tmp_path: Path) -> None:
    """Azurite never holds one, Azure may."""
    service = MemoryService()
    service.put("a\\..\\b", b"x")
    with pytest.raises(UnsafeNamesError, match="backslash"):
        run(service, "down", tmp_path / "t")


def test_file_that_changes_while_blocks_are_read_is_not_stored(tmp_path: Path) -> None:
    """Half of the old and half of the new file would be neither."""
    path = tmp_path / "big"
    path.write_bytes(b"a" * 5000)
    service = MemoryService(block_size=1024)

    async def go() -> None:
        await upload_path(service, path, "big", on_bytes=lambda _: os.utime(path, (1, 1)))

    with pytest.raises(LocalFileChangedError, match="upload it again"):
        asyncio.run(go())
    assert "big" not in service.blobs


def test_local_change_during_a_download_is_kept(tmp_path: Path) -> None:
    """With if-unchanged, what somebody wrote meanwhile is not overwritten."""
    (tmp_path / "a").write_bytes(b"old")
    service = MemoryService()
    service.put("a", b"longer")
    whole = service.get

    def meddle(*args: Any) -> Response:
        (tmp_path / "a").write_bytes(b"somebody's")
        return whole(*args)

    setattr(service, "get", meddle)  # noqa: B010 - a method, replaced for once
    report, outcomes = run(service, "down", tmp_path, overwrite="if-unchanged")
    assert report.failed == 1
    assert isinstance(outcomes[0].error, LocalFileChangedError)
    assert (tmp_path / "a").read_bytes() == b"somebody's"


def test_file_that_goes_while_its_tree_is_uploaded_is_skipped(tmp_path: Path) -> None:
    """As a blob that goes is on the way down: there is nothing left to be lost."""
    write(tmp_path, {"large": b"x" * 200_000, "read": b"y"})
    service = MemoryService()
    _, outcomes = run(service, "up", tmp_path, content_type=lambda name: (tmp_path / name).unlink())
    assert [(o.action, o.ok, o.size) for o in outcomes] == [("skip", True, 0), ("upload", True, 1)]
    assert service.blobs == {"read": b"y"}


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(("size", "slow"), [(5, 3600.0), (5, -1.0), (200_000, 3600.0)])
def test_file_that_cannot_be_compared_stops_no_other(
    direction: str, size: int, slow: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its batch reads it, or it is read by itself: a large one, any on a slow disk."""
    monkeypatch.setattr(_tree_run, "_SLOW", slow)
    service = MemoryService()
    tree = {name: name.encode() * size for name in "abcd"}
    for name, data in write(tmp_path, tree).items():
        service.put(name, data)
    opened: Any = Path.open

    def refuse(path: Path, *args: Any, **options: Any) -> Any:
        if path.name == "a":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    report, outcomes = run(service, direction, tmp_path)
    assert (report.failed, report.skipped) == (1, 3)
    assert isinstance(outcomes[0].error, PermissionError)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_progress_is_reported_within_a_large_file(direction: str, tmp_path: Path) -> None:
    """Byte by byte as they travel, and never more than there are."""
    content = os.urandom(200_000)
    service, seen = MemoryService(block_size=30_000), list[TreeProgress]()
    if direction == "up":
        write(tmp_path, {"big": content})
    else:
        service.put("big", content)
    run(service, direction, tmp_path, on_progress=seen.append)
    moved = [progress.bytes_done for progress in seen if progress.files_done == 0]
    assert moved == sorted(moved)
    assert len(set(moved) - {0, 200_000}) >= 4
    last = seen[-1]
    assert last == TreeProgress(1, 1, 200_000, 200_000, "big")


class Slow(MemoryService):
    """A service whose requests take longer all in all than each may."""

    async def send(self, request: Request) -> Response:
        await asyncio.sleep(0.01)
        return await self.send_once(request)


def test_deadline_is_that_of_a_request_and_not_of_a_file(tmp_path: Path) -> None:
    """A large file takes as long as it takes, both ways."""
    service = Slow(block_size=1024, deadline=0.001)
    (tmp_path / "a").write_bytes(os.urandom(3000))
    asyncio.run(upload_path(service, tmp_path / "a", "a"))
    assert asyncio.run(download_blob(service, "a", tmp_path / "b"))
    assert (tmp_path / "b").read_bytes() == service.blobs["a"]


class Forgetful(MemoryService):
    """A service that stores no hash, and may not know how to hash a range either."""

    def get(self, method: str, name: str, headers: Mapping[str, str], operation: str) -> Response:
        response = super().get(method, name, headers, operation)
        stored = ("Content-MD5", "x-ms-blob-content-md5")
        left = {k: v for k, v in response.headers.items() if k not in stored}
        return response._replace(headers=left)


class Wrong(MemoryService):
    """A service whose blobs were stored with an MD5 that is not theirs."""

    lies = 99

    def get(self, method: str, name: str, headers: Mapping[str, str], operation: str) -> Response:
        response = super().get(method, name, headers, operation)
        self.lies -= 1
        if self.lies < 0:
            return response
        found = {
            key: base64.b64encode(bytes(16)).decode() if key.lower().endswith("md5") else value
            for key, value in response.headers.items()
        }
        return response._replace(headers=found)


@pytest.mark.parametrize("size", [10, 3000])
def test_wrong_stored_md5_is_reported_as_such(size: int, tmp_path: Path) -> None:
    """The same bytes came twice: fetched no third time, and the option that accepts it is named."""
    service = Wrong(block_size=1024, max_retries=5)
    service.put("a", os.urandom(size))
    with pytest.raises(IntegrityError, match="wrong from the start") as raised:
        asyncio.run(download_blob(service, "a", tmp_path / "a"))
    assert "accept_wrong_md5" in raised.value.remedy
    assert (raised.value.blob, raised.value.operation) == ("a", "download")
    assert len(service.requests) == 2 * -(-size // 1024)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("size", [10, 3000])
def test_wrong_stored_md5_can_be_accepted(
    size: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning, and after a second look."""
    service = Wrong(block_size=1024, accept_wrong_md5=True)
    service.put("a", os.urandom(size))
    assert asyncio.run(download_blob(service, "a", tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == service.blobs["a"]
    assert "is accepted although" in caplog.text
    assert len(service.requests) == 2 * -(-size // 1024)


def test_bytes_that_were_altered_once_are_fetched_again(tmp_path: Path) -> None:
    """One wrong look, by a proxy say, is not taken for a wrong MD5."""
    service = Wrong()
    service.lies = 1
    service.put("a", b"content")
    assert asyncio.run(download_blob(service, "a", tmp_path / "a"))
    assert len(service.requests) == 2


@pytest.mark.posix(reason="they are one file there")
def test_one_of_a_pair_that_collides_elsewhere_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With on_unsafe="skip", and a line in the log; the whole tree is refused without."""
    service = MemoryService()
    for name in ("README", "readme", "Straße", "Strasse", "m²", "m2", "a/b", "A"):
        service.put(name, name.encode())
    with pytest.raises(UnsafeNamesError, match="only in case"):
        run(service, "down", tmp_path / "t")
    report, outcomes = run(service, "down", tmp_path / "t", on_unsafe="skip")
    assert {o.name for o in outcomes if o.action == "reject"} == {"readme", "A"}
    assert (report.rejected, report.transferred) == (2, 6)
    assert "2 unsafe names below '' were left out, the first is 'A': it is a folder" in caplog.text
    assert (tmp_path / "t" / "README").exists()


FOLDERS = (
    "<Blob><Name>empty</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>"
    "<Blob><Name>old</Name><Properties/><Metadata><Hdi_isfolder>TRUE</Hdi_isfolder></Metadata>"
    "</Blob><Blob><Name>older</Name><Properties/><Metadata><asv_isfolder>true</asv_isfolder>"
    "</Metadata></Blob>"
)


class WithFolders(MemoryService):
    """A service with blobs that stand for folders, and have no children."""

    def listing(self, prefix: str) -> bytes:
        return super().listing(prefix).replace(b"<Blobs>", b"<Blobs>" + FOLDERS.encode())


def test_folders_become_no_files_and_are_not_deleted(tmp_path: Path) -> None:
    """Neither way, whatever the rules."""
    service = WithFolders()
    service.put("a", b"x")
    run(service, "down", tmp_path)
    assert set(files_of(tmp_path)) == {"a"}
    report, _ = run(service, "up", tmp_path, delete=True)
    assert (report.deleted, report.failed, report.skipped) == (0, 0, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_file_is_left_out_with_a_word(tmp_path: Path) -> None:
    """Links to folders, which would bring what lies elsewhere, and pipes, which have no end."""
    write(tmp_path, {"tree/a": b"x", "away/b": b"y"})
    os.mkfifo(tmp_path / "tree" / "pipe")
    (tmp_path / "tree" / "linked").symlink_to(tmp_path / "away")
    report, _ = run(MemoryService(), "up", tmp_path / "tree", exclude=["p*"])
    assert (report.files, report.rejected) == (1, 0)
    (note,) = report.notes
    assert "the first is 'linked'" in note
    report, _ = run(MemoryService(), "up", tmp_path / "tree", include=["a"])
    assert report.notes == []


@pytest.mark.posix(reason="links need a right there")
def test_links_that_lead_nowhere_stop_no_other_file(tmp_path: Path) -> None:
    """In a circle, or through a file: each is a name that is refused, or one file that fails."""
    root = tmp_path / "t"
    write(root, {"a": b"x"})
    (root / "circle").symlink_to("circle")
    (root / "through").symlink_to("a/b")
    service = MemoryService()
    report, _ = run(service, "up", root, on_unsafe="skip")
    assert (report.transferred, report.rejected) == (1, 2)
    assert [entry["path"] for entry in collect_local_files(root)] == ["a"]
    for name in ("circle/x", "new"):
        service.put(name, b"y")
    report, _ = run(service, "down", root)
    assert (report.transferred, report.failed) == (1, 1)
    assert blob_name_for(root / "circle" / "x", base=tmp_path, prefix="") == "t/circle/x"
    assert blob_name_for(root / "circle" / "x", base=tmp_path / "other", prefix="")


@pytest.mark.posix(reason="links need a right there")
@pytest.mark.parametrize("listed", [True, False])
def test_links_that_lead_out_are_found_before_anything_is_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    """In place of a file or of a folder; also where a folder can be entered, but not listed."""
    root, service = tmp_path / "t", MemoryService()
    write(root, {"in": b"old"})
    for link, to in (("file", "../secret"), ("folder", ".."), ("near", "in")):
        (root / link).symlink_to(to)
    for name in ("a", "file", "folder/b", "near"):
        service.put(name, b"x")
    if not listed:
        refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
        monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(UnsafeNamesError) as caught:
        run(service, "down", root)
    assert set(caught.value.names) == {"file", "folder/b"}
    assert not (root / "a").exists()


def test_excluded_folder_need_not_be_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as lost+found, where a disk is mounted; any other stops the tree before it begins."""
    write(tmp_path, {"a": b"x", "lost+found/b": b"y"})
    scan = os.scandir

    def refused(path: str) -> Any:
        if path.endswith("lost+found"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    report, _ = run(MemoryService(), "up", tmp_path, exclude=["lost+found/"])
    assert report.transferred == 1
    with pytest.raises(PermissionError, match="lost\\+found"):
        run(MemoryService(), "up", tmp_path)


def test_trees_take_no_locks_and_states_of_our_own(tmp_path: Path) -> None:
    """Nor the journal, wherever it lies; what an earlier release mirrored stays where it is."""
    names = ["_state/run_log_mirror.json", "_state/run.lock", "j.sqlite", "j.sqlite-wal"]
    write(tmp_path, dict.fromkeys([*names, "a", "_state/heartbeat.json", "yarn.lock"], b"x"))
    service = MemoryService()
    tree = UpRun(service, tmp_path, "", TreeRules(delete=True), journal=tmp_path / "j.sqlite")
    service.put("_state/run_log_mirror.json", b"old")
    asyncio.run(tree.run())
    journal = tmp_path / "j.sqlite"
    replay = UpRun(service, tmp_path, "", TreeRules(), journal=journal, replay=True)
    asyncio.run(replay.run())
    assert set(service.blobs) == {
        "_state/run_log_mirror.json", "a", "_state/heartbeat.json", "yarn.lock"
    }  # fmt: skip
    assert service.blobs["_state/run_log_mirror.json"] == b"old"
    run(service, "down", tmp_path, delete=True)
    assert (tmp_path / "_state" / "run_log_mirror.json").read_bytes() == b"x"
    assert (tmp_path / "_state" / "run.lock").exists()


def test_type_that_no_name_implies_survives_a_tree(tmp_path: Path) -> None:
    """A file without an ending keeps the type that its blob was stored with."""
    write(tmp_path, {"shot": b"new", "page.html": b"new", "data": b"new"})
    service = MemoryService()
    service.put("shot", b"old!")
    service.types["shot"] = "image/webp"
    run(service, "up", tmp_path, content_type={"data": "text/csv"}.get)
    assert service.types == {"shot": "image/webp", "page.html": "text/html", "data": "text/csv"}


def test_service_that_hashes_no_ranges_is_asked_once_only(tmp_path: Path) -> None:
    """Then the length is all that there is to check, and nothing is fetched twice for it."""
    service = Forgetful(block_size=1024)
    service.put("a", os.urandom(3000))
    service.put("b", os.urandom(3000))
    for name in "ab":
        asyncio.run(download_blob(service, name, tmp_path / name))
        assert (tmp_path / name).read_bytes() == service.blobs[name]
    assert [name for _, name in service.requests] == ["a"] * 4 + ["b"] * 3


def test_cancelled_download_leaves_no_partial_file(tmp_path: Path) -> None:
    """0.7 left its temporary files behind."""
    service = MemoryService(block_size=1024)
    service.put("big", os.urandom(100_000))

    async def go() -> None:
        def stop(count: int) -> None:
            task.cancel()

        task = asyncio.create_task(download_blob(service, "big", tmp_path / "big", on_bytes=stop))
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_read_may_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the option."""
    refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(PermissionError, match=r"let this user read it, or .*--exclude"):
        run(MemoryService(), "up", tmp_path)


def test_folder_of_any_size_is_walked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small folders by name, larger ones as they come; nothing is left out or listed twice."""
    from infra_core.azure.storage import _local_tree

    monkeypatch.setattr(_local_tree, "_SORTED", 10)
    expected = {}
    for folder, count in (("small", 9), ("even", 10), ("large", 25), ("large/below", 3)):
        for number in range(count):
            expected[f"{folder}/{number:02}"] = b""
    write(tmp_path, expected)
    walked = [file.name for file, _ in _local_tree.walk_tree(tmp_path, lambda _: True)]
    assert sorted(walked) == sorted(expected)
    small = [name for name in walked if name.startswith("small/")]
    assert small == sorted(small)
    service = MemoryService()
    service.put("small/00", b"")
    report, _ = run(service, "down", tmp_path, delete=True)
    assert report.deleted == len(expected) - 1
    assert files_of(tmp_path) == {"small/00": b""}


@pytest.mark.parametrize("batch", ["", "runs/b/"])
def test_assets_of_a_batch_may_be_a_link_that_its_owner_made(batch: str, tmp_path: Path) -> None:
    """To another disk; it is gone through both ways, and what is deleted is what is surplus."""
    disk, tree = tmp_path / "disk", tmp_path / "tree"
    write(tree, {f"{batch}_state/run.lock": b"", f"{batch}manifest.json": b"{}"})
    write(disk, {"ab/1": b"1", "ab/2": b"2"})
    (tree / batch / "assets").symlink_to(disk)
    service = MemoryService()
    service.put(f"{batch}assets/gone", b"x")
    report, _ = run(service, "up", tree, delete=True)
    assert (report.ok, report.transferred, report.deleted) == (True, 3, 1)
    assert {f"{batch}assets/ab/1", f"{batch}assets/ab/2"} < service.blobs.keys()
    (disk / "ab/1").unlink()
    write(disk, {"surplus": b""})
    report, _ = run(service, "down", tree, delete=True)
    assert (report.ok, report.transferred, report.deleted) == (True, 1, 1)
    assert files_of(disk) == {"ab/1": b"1", "ab/2": b"2"}


def test_a_file_of_a_batch_may_be_a_link_to_another_file_of_its_tree(tmp_path: Path) -> None:
    """Where `assets` is a plain folder, a link below it leads as far as any other of the tree."""
    write(tmp_path, {"_state/run.lock": b"", "extra/f": b"x"})
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets/l").symlink_to(tmp_path / "extra/f")
    service = MemoryService()
    report, _ = run(service, "up", tmp_path)
    assert report.ok
    assert {"assets/l", "extra/f"} <= service.blobs.keys()


def test_another_link_to_a_folder_is_gone_through_neither_way(tmp_path: Path) -> None:
    """A folder that no batch has run in; a link below the link of one that did."""
    outside, disk, tree = tmp_path / "outside", tmp_path / "disk", tmp_path / "tree"
    write(outside, {"1": b"1"})
    write(disk, {"0": b"0"})
    (disk / "sub").symlink_to(outside)
    write(tree, {"b/_state/run.lock": b"", "c/manifest.json": b"{}"})
    (tree / "b" / "assets").symlink_to(disk)
    (tree / "c" / "assets").symlink_to(outside)
    service = MemoryService()
    run(service, "up", tree)
    assert service.blobs.keys() == {"b/assets/0", "c/manifest.json"}
    for name in ("b/assets/sub/1", "c/assets/1"):
        service.put(name, b"other")
    report, _ = run(service, "down", tree, on_unsafe="skip", delete=True)
    assert report.rejected == 2
    assert files_of(outside) == {"1": b"1"}


def test_many_unsafe_names_are_listed_one_by_one(tmp_path: Path) -> None:
    """All of them to the hook, the first hundred in the error, the first thousand in the report."""
    service = MemoryService()
    for number in range(1100):
        service.put(f"bad\\{number:04}", b"x")
    with pytest.raises(UnsafeNamesError, match="and 1090 more") as raised:
        run(service, "down", tmp_path / "t")
    assert len(raised.value.names) == 100
    report, outcomes = run(service, "down", tmp_path / "t", on_unsafe="skip")
    assert (report.rejected, len(outcomes), len(report.problems)) == (1100, 1100, 1000)


@pytest.mark.posix
def test_memory_does_not_grow_with_the_names(tmp_path: Path) -> None:
    """A hundred thousand names of the other side take a bounded cache, not a dictionary."""
    code = (
        "import resource\n"
        "from infra_core.azure.storage._tree_index import TreeIndex\n"
        "from infra_core.azure.storage._blobs import BlobInfo\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "index, before = TreeIndex(), peak()\n"
        "for start in range(0, 100_000, 5000):\n"
        "    index.add([BlobInfo(f'run/{n // 999:05}/file-{n:09}' + 'x' * 200, n, b'0' * 16)\n"
        "               for n in range(start, start + 5000)], lambda _: None)\n"
        "index.find_collisions(keep_one=False)\n"
        "assert sum(1 for _ in index.accepted()) == 100_000\n"
        "print(peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64  # MiB; the names alone are above 50, twice


async def test_files_that_wait_for_others_are_written_each_by_itself(tmp_path: Path) -> None:
    """Those of a large tree linger for a batch; one that is refused stops no other."""
    writer = batch_writer(12, coming=lambda: True)

    def refuse() -> None:
        raise LookupError

    few = await asyncio.gather(
        writer(FileToWrite(tmp_path / "a", b"1", lambda: None)),
        writer(FileToWrite(tmp_path / "b", b"2", refuse)),
        return_exceptions=True,
    )
    assert few[0] is None
    assert isinstance(few[1], LookupError)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class _Hook:
    async def __call__(self, *_: object) -> None: ...


@pytest.mark.parametrize("name", ["content_type", "on_progress", "on_outcome"])
@pytest.mark.parametrize("hook", [_Hook(), _Hook().__call__, "print"], ids=range(3))
def test_a_hook_whose_coroutine_would_be_dropped_is_refused(name: str, hook: object) -> None:
    """Before anything is transferred; what cannot be called, too."""
    with pytest.raises(TypeError, match=rf"^{name}.* pass a (plain )?function"):
        TreeRules(**{name: hook})  # type: ignore[arg-type]
