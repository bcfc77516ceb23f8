"""The storage client against a real Azurite: files, trees, safety, integrity, lifecycle."""

import asyncio
import gc
import os
import stat
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContentSettings

from infra_core.azure.run_storage import build_manifest
from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    BlobConflictError,
    FileOutcome,
    IntegrityError,
    StorageRequestError,
    TransferOptions,
    TreeProgress,
    TreeReport,
    UnsafeNamesError,
    get_client,
    reset_all_clients,
    reset_shared_client,
    set_shared_client,
)
from infra_core.azure.testing import AzuriteServer

Make = Callable[..., AzureStorageClient]
QUICK = TransferOptions(backoff=0.01, max_backoff=0.05, timeout=20)


@pytest.fixture
def make(azurite: AzuriteServer, tmp_path: Path) -> Iterator[Make]:
    """Clients of a fresh container, with a base folder of their own."""
    container = f"box-{uuid.uuid4().hex[:12]}"
    made = []

    def build(mode: Any = "strict", **changes: Any) -> AzureStorageClient:
        base = changes.pop("base_path", tmp_path / "base")
        values: dict[str, Any] = {
            "container": container,
            "connection_string": azurite.connection_string,
            "options": QUICK,
            "journal": tmp_path / "journal.sqlite",
        }
        client = AzureStorageClient.from_settings(
            AzureStorageSettings(**values | changes), mode, base_path=base
        )
        made.append(client)
        return client

    yield build
    for client in made:
        client.close()


def put_raw(client: AzureStorageClient, name: str, data: bytes = b"x", **options: Any) -> None:
    """Store a blob with the SDK, whatever its name."""
    container = client.container()
    assert container is not None
    container.upload_blob(name, data, overwrite=True, **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


def fill(folder: Path, **contents: bytes) -> Path:
    for name, data in contents.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


# -- files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 50_000])
def test_file_round_trip(make: Make, tmp_path: Path, size: int) -> None:
    """Whole, in blocks and empty: the bytes come back, verified, with hash and media type."""
    client = make(options=replace(QUICK, block_size=4096), prefix="pre")
    path = tmp_path / "base" / "a b" / "ü#?&%.json"
    path.parent.mkdir(parents=True)
    data = os.urandom(size)
    path.write_bytes(data)
    client.upload_file(path)
    found = client.stat(path)
    assert found is not None
    assert (found.size, found.content_type) == (size, "application/json")
    assert found.md5 is not None
    path.unlink()
    assert client.download_to_path(path) is True
    assert path.read_bytes() == data


async def test_async_methods_do_the_same(make: Make, tmp_path: Path) -> None:
    """Each method has its twin on the caller's own loop."""
    client = make()
    base = tmp_path / "base"
    await client.write_json_async(base / "a.json", {"ü": 1})
    await client.write_text_async(base / "b.txt", "text")
    await client.upload_text_async(base / "c.txt", "only there")
    await client.upload_file_async(base / "b.txt", blob_path="exact/name.txt")
    assert await client.list_tree_async(base) == [
        ("a.json", 14),
        ("b.txt", 4),
        ("c.txt", 10),
        ("exact/name.txt", 4),
    ]
    assert not (base / "c.txt").exists()
    assert await client.download_to_path_async(base / "c.txt")
    assert (base / "c.txt").read_text() == "only there"
    assert not await client.download_to_path_async(base / "none.txt")
    container = await client.container_async()
    assert container is not None
    assert await container.get_blob_client("a.json").exists()
    await client.aclose()


async def test_sync_methods_work_inside_a_running_loop(make: Make, tmp_path: Path) -> None:
    """As in 0.7: they block, and do not refuse."""
    client = make()
    client.write_text(tmp_path / "base" / "a.txt", "x")
    assert client.list_tree(tmp_path / "base") == [("a.txt", 1)]


def test_hook_of_a_synchronous_call_may_call_another(make: Make, tmp_path: Path) -> None:
    """It is answered, although the background loop stands still meanwhile."""
    client = make()
    base = fill(tmp_path / "base", a=b"1")
    listings: list[list[tuple[str, int]]] = []
    client.upload_tree(base, on_progress=lambda _: listings.append(client.list_tree(base)))
    assert listings[-1] == [("a", 1)]


def test_missing_file_raises_and_missing_blob_is_false(make: Make, tmp_path: Path) -> None:
    """The one is the caller's mistake, the other an answer."""
    client = make()
    with pytest.raises(FileNotFoundError):
        client.upload_file(tmp_path / "none")
    assert client.download_to_path(tmp_path / "none") is False
    assert client.stat(tmp_path / "none") is None


def test_overwrite_modes(make: Make, tmp_path: Path) -> None:
    """always replaces; never and if-unchanged refuse what somebody else wrote, not a twin."""
    client = make()
    path = fill(tmp_path / "base", a_txt=b"one") / "a.txt"
    client.upload_file(path, overwrite="never")
    client.upload_file(path, overwrite="never")  # the same content: as if its answer was lost
    first = client.stat(path)
    assert first is not None
    path.write_bytes(b"two")
    with pytest.raises(BlobConflictError, match="overwrite='always'"):
        client.upload_file(path, overwrite="never")
    client.upload_file(path, overwrite="if-unchanged", etag=first.etag)
    path.write_bytes(b"three")
    with pytest.raises(BlobConflictError):
        client.upload_file(path, overwrite="if-unchanged", etag=first.etag)
    client.upload_file(path)
    last = client.stat(path)
    assert last is not None
    assert last.size == 5


@pytest.mark.parametrize("same", [True, False])
def test_concurrent_uploads_of_one_blob_never_mix(make: Make, tmp_path: Path, same: bool) -> None:
    """Blocks of two writers stay apart: the blob is one of the two files, and both are done.

    The service drops the blocks of the one when it joins those of the other.
    """
    client = make(options=replace(QUICK, block_size=4096))
    one, two = os.urandom(40_000), os.urandom(40_000)
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "two").write_bytes(one if same else two)

    async def both() -> None:
        names = ("one", "two")
        uploads = [client.upload_file_async(tmp_path / n, blob_path="same") for n in names]
        await asyncio.gather(*uploads)

    asyncio.run(both())
    target = tmp_path / "base" / "same"
    assert client.download_to_path(target)
    assert target.read_bytes() in (one, two)


@pytest.mark.parametrize("left", ["x" * 46, "x" * 64, "x"])
def test_blocks_that_another_program_left_behind_stop_no_upload(
    make: Make, tmp_path: Path, left: str
) -> None:
    """The service takes ids of one length alone; those of the SDK have 46 characters."""
    client = make(options=replace(QUICK, block_size=4096, max_retries=1))
    container = client.container()
    assert container is not None
    container.get_blob_client("big").stage_block(left, b"of a killed upload")
    path = fill(tmp_path / "base", big=os.urandom(9_000)) / "big"
    if left == "x":  # has no room for ids of our own
        with pytest.raises(StorageRequestError, match="another program has left blocks"):
            client.upload_file(path)
        return
    client.upload_file(path)
    blob = client.stat(path)
    assert blob is not None
    assert blob.size == 9_000


def test_damaged_blob_is_refused(make: Make, tmp_path: Path) -> None:
    """A hash that does not fit the bytes is an error, and no file appears."""
    from azure.storage.blob import ContentSettings

    client = make(options=replace(QUICK, max_retries=1))
    wrong = ContentSettings(content_md5=bytearray(16))
    put_raw(client, "a.txt", b"hello")
    container = client.container()
    assert container is not None
    container.get_blob_client("a.txt").set_http_headers(wrong)
    target = tmp_path / "base" / "a.txt"
    with pytest.raises(IntegrityError, match="upload it again"):
        client.download_to_path(target)
    assert not list(tmp_path.rglob("*a.txt*"))


def test_downloaded_files_get_the_mode_of_the_umask(make: Make, tmp_path: Path) -> None:
    """Like any other new file; what is replaced keeps its mode."""
    client = make()
    base = fill(tmp_path / "base", a_txt=b"1", b_txt=b"2")
    client.upload_tree(base)
    (base / "a.txt").unlink()
    (base / "b.txt").write_bytes(b"changed")
    (base / "b.txt").chmod(0o640)
    old = os.umask(0o027)
    try:
        client.download_tree(base)
    finally:
        os.umask(old)
    assert stat.S_IMODE((base / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE((base / "b.txt").stat().st_mode) == 0o640


# -- trees ------------------------------------------------------------------------------------


def test_tree_round_trip_and_second_time_nothing(make: Make, tmp_path: Path) -> None:
    """All files go up and come down; what is equal by size and hash is skipped."""
    client = make(prefix="pre")
    base = fill(tmp_path / "base", a_txt=b"a", sub__b_png=b"bb", **{"sub__deep er__ü": b"ccc"})
    before = files_of(base)
    assert client.upload_tree(base).transferred == 3
    again = client.upload_tree(base)
    assert (again.transferred, again.skipped, again.ok) == (0, 3, True)
    (base / "a.txt").write_bytes(b"A")  # same size, other content
    assert client.upload_tree(base).transferred == 1
    (base / "a.txt").write_bytes(b"a")
    client.upload_tree(base)
    for path in list(before)[:2]:
        (base / path).unlink()
    report = client.sync_tree(base, "down")
    assert (report.transferred, report.skipped) == (2, 1)
    assert files_of(base) == before
    assert client.download_tree(tmp_path / "base" / "nothing here") is False


def test_tree_is_not_its_namesake(make: Make, tmp_path: Path) -> None:
    """`run-1` has nothing to do with `run-10`."""
    client = make()
    fill(tmp_path / "base", **{"run-1__a": b"1", "run-10__b": b"2"})
    client.upload_tree(tmp_path / "base")
    assert client.list_tree(tmp_path / "base" / "run-1") == [("a", 1)]


def test_plan_is_what_happens(make: Make, tmp_path: Path) -> None:
    """A dry run reports exactly the outcomes of the real one, and changes nothing."""
    client = make()
    base = fill(tmp_path / "base", same=b"1", changed=b"new", fresh=b"3", skip_tmp=b"4")
    put_raw(client, "same", b"1")
    put_raw(client, "changed", b"old")
    put_raw(client, "extra", b"5")
    put_raw(client, "kept.tmp", b"6")
    for direction in ("up", "down"):
        options: dict[str, Any] = {"exclude": ["*.tmp"], "delete": True}
        planned = client.plan_tree(base, direction, **options)
        listing = client.list_tree(base)
        assert client.plan_tree(base, direction, **options) == planned
        assert client.list_tree(base) == listing
        outcomes: list[FileOutcome] = []
        client.sync_tree(base, direction, on_outcome=outcomes.append, **options)
        done = sorted((o.name, o.action, o.size) for o in outcomes)
        assert done == sorted((p.name, p.action, p.size) for p in planned)
        if direction == "up":
            assert [(p.name, p.action) for p in planned] == [
                ("changed", "upload"),
                ("extra", "delete"),
                ("fresh", "upload"),
                ("same", "skip"),
            ]
    assert ("kept.tmp", 1) in client.list_tree(base)


def test_delete_is_off_by_default_and_never_empties_a_side(make: Make, tmp_path: Path) -> None:
    """Nothing goes unasked; an empty source deletes nothing."""
    client = make()
    base = fill(tmp_path / "base", a=b"1")
    put_raw(client, "other", b"2")
    assert client.upload_tree(base).deleted == 0
    assert client.sync_tree(tmp_path / "base" / "missing", "down", delete=True).deleted == 0
    empty = tmp_path / "base" / "empty"
    empty.mkdir()
    put_raw(client, "empty/there", b"3")
    assert client.upload_tree(empty, delete=True).deleted == 0
    assert client.sync_tree(base, "down", delete=True).deleted == 0
    (base / "only local").write_bytes(b"4")
    assert client.sync_tree(base, "down", delete=True).deleted == 1
    assert not (base / "only local").exists()


def test_overwrite_never_in_trees(make: Make, tmp_path: Path) -> None:
    """What exists is kept, in both directions, and reported."""
    client = make()
    base = fill(tmp_path / "base", a=b"local", b=b"new")
    put_raw(client, "a", b"remote")
    report = client.upload_tree(base, overwrite="never")
    assert (report.kept, report.transferred) == (1, 1)
    report = client.sync_tree(base, "down", overwrite="never")
    assert report.kept == 2
    assert (base / "a").read_bytes() == b"local"


def test_progress_ends_at_the_totals(make: Make, tmp_path: Path) -> None:
    """Files and bytes grow to exactly what there was."""
    client = make(options=replace(QUICK, block_size=4096))
    base = fill(tmp_path / "base", a=os.urandom(10_000), b=b"1", c=b"")
    seen: list[TreeProgress] = []
    client.upload_tree(base, on_progress=seen.append)
    assert (seen[-1].files_done, seen[-1].files_total) == (3, 3)
    assert (seen[-1].bytes_done, seen[-1].bytes_total) == (10_001, 10_001)
    assert [p.bytes_done for p in seen] == sorted(p.bytes_done for p in seen)


def test_large_listing_is_streamed(make: Make, tmp_path: Path) -> None:
    """A tree of more files than a page comes whole, by iterator too."""
    from infra_core.azure.storage import _blobs

    client = make()
    base = fill(tmp_path / "base", **{f"f{i:03}": b"" for i in range(25)})
    client.upload_tree(base)
    pages: list[int] = []

    async def read() -> None:
        assert client._service is not None
        listed = _blobs.list_pages(client._service, "", page_size=10)
        pages.extend([len(page) async for page in listed])
        await client.aclose()

    asyncio.run(read())
    assert pages == [10, 10, 5]
    assert [blob.name for blob in client.iter_tree(base)] == [f"f{i:03}" for i in range(25)]


# -- safety -----------------------------------------------------------------------------------

# Backslashes are not here: Azurite turns them into slashes itself.
HOSTILE = [
    "a/../../evil",
    "/etc/evil",
    "x//y",
    "tab\tname",
    "CASE",
    "case",
]


def put_hostile(client: AzureStorageClient, names: list[str]) -> None:
    """Store blobs under names that clients with manners, the SDK too, would tidy up or refuse."""
    from infra_core.azure.storage._upload import upload_bytes

    async def put() -> None:
        assert client._service is not None
        for name in names:
            await upload_bytes(client._service, b"x", f"p/{name}")
        await client.aclose()

    asyncio.run(put())


def test_unsafe_names_raise_before_anything_is_written(make: Make, tmp_path: Path) -> None:
    """By default: the list of names, and not one file."""
    client = make(prefix="p")
    put_hostile(client, [*HOSTILE, "good.txt"])
    target = tmp_path / "base"
    with pytest.raises(UnsafeNamesError) as raised:
        client.download_tree(target)
    assert set(HOSTILE) <= set(raised.value.names)
    assert not target.exists()


def test_unsafe_names_are_skipped_on_request(make: Make, tmp_path: Path) -> None:
    """The rest is downloaded, the outcomes name what was not, nothing lands elsewhere."""
    client = make(prefix="p")
    put_hostile(client, [*HOSTILE, "good.txt", "file", "file/below"])
    target = tmp_path / "base"
    report = client.sync_tree(target, "down", on_unsafe="skip")
    # of the two that differ only in case, which fit side by side here, the first is kept
    assert files_of(target).keys() == {"good.txt", "file/below", "CASE"}
    assert report.rejected == len(HOSTILE)
    assert {problem.name for problem in report.problems} == {*HOSTILE, "file"} - {"CASE"}
    assert not report.ok
    assert {path.name for path in tmp_path.iterdir()} <= {"base", "journal.sqlite"}


def test_symlinked_parent_is_never_followed_out(make: Make, tmp_path: Path) -> None:
    """A link in the target that leads elsewhere is as good as `..`."""
    client = make()
    put_raw(client, "link/file.txt")
    put_raw(client, "ok.txt")
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "base"
    target.mkdir()
    (target / "link").symlink_to(outside)
    with pytest.raises(UnsafeNamesError, match="link"):
        client.download_tree(target)
    report = client.sync_tree(target, "down", on_unsafe="skip")
    assert (report.transferred, report.rejected) == (1, 1)
    assert not list(outside.iterdir())


def test_local_links_out_of_the_tree_are_not_uploaded(make: Make, tmp_path: Path) -> None:
    """A link within the tree is its content; one that leads out is unsafe."""
    client = make()
    base = fill(tmp_path / "base", a=b"1")
    (tmp_path / "secret").write_bytes(b"s")
    (base / "inside").symlink_to(base / "a")
    (base / "outside").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeNamesError, match="outside"):
        client.upload_tree(base)
    client.upload_tree(base, on_unsafe="skip")
    assert [name for name, _ in client.list_tree(base)] == ["a", "inside"]


def test_directory_markers_are_skipped(make: Make, tmp_path: Path) -> None:
    """Empty blobs that stand for folders are no files."""
    client = make()
    put_raw(client, "dir/", b"")
    put_raw(client, "hns", b"", metadata={"hdi_isfolder": "true"})
    put_raw(client, "dir/a", b"1")
    assert client.list_tree(tmp_path / "base") == [("dir/a", 1)]
    assert client.download_tree(tmp_path / "base")
    assert files_of(tmp_path / "base") == {"dir/a": b"1"}


# -- proofs and lifecycle ---------------------------------------------------------------------


def test_sas_token_read_only(make: Make, azurite: AzuriteServer, tmp_path: Path) -> None:
    """Read-only credentials download and list; an upload says what is missing, not the token."""
    from datetime import datetime, timedelta, timezone

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    client = make()
    base = fill(tmp_path / "base", a=b"1")
    client.upload_tree(base)
    assert client.config is not None
    token = generate_container_sas(
        azurite.account_name,
        client.config.container,
        account_key=azurite.account_key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(timezone.utc) + timedelta(hours=1),
    )
    reader = make(
        connection_string=None,
        account_name=azurite.account_name,
        blob_endpoint=azurite.blob_url,
        sas_token=token,
    )
    (base / "a").unlink()
    assert reader.download_tree(base)
    assert reader.container() is not None
    from azure.core.exceptions import HttpResponseError

    with pytest.raises(HttpResponseError) as raised:  # the SDK's class of 0.7 still catches it
        reader.upload_file(base / "a")
    secret = token.partition("sig=")[2]
    assert secret not in str(raised.value)
    assert secret not in repr(reader)
    assert "sig=" not in str(build_manifest(base, client=reader))


def test_manifest_of_blobs(make: Make, tmp_path: Path) -> None:
    """With an empty folder the container is listed; URLs lead to the blobs."""
    from azure.storage.blob import BlobClient

    client = make(prefix="runs")
    base = fill(tmp_path / "base", **{"a b#ü?_png": b"123"})
    client.upload_tree(base)
    (base / "a b#ü?.png").unlink()
    (file,) = build_manifest(base, client=client, checksum="md5", timestamps=True)["files"]
    assert (file["path"], file["type"], file["size_bytes"]) == ("a b#ü?.png", "image", 3)
    assert file["checksum"] == "md5:202cb962ac59075b964b07152d234b70"
    blob = BlobClient.from_blob_url(file["url"])
    assert blob.blob_name == "runs/a b#ü?.png"
    blob.close()


def test_shared_clients(make: Make) -> None:
    """One per settings and mode; set and reset manage them; an emulator's own form works."""
    mine = make()
    first = get_client(mine.settings, "strict")
    assert get_client(mine.settings, "strict") is first
    assert get_client(mine.settings, "best-effort") is not first
    set_shared_client(mine, mine.settings, "strict")
    assert get_client(mine.settings, "strict") is mine
    reset_shared_client(mine.settings, "strict")
    assert get_client(mine.settings, "strict") not in (mine, first)
    reset_all_clients()
    first.close()


def test_one_client_many_loops_and_threads(make: Make, tmp_path: Path) -> None:
    """Loops come and go, threads share it; no warning about anything left open."""
    client = make()
    base = tmp_path / "base"
    errors: list[BaseException] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()  # what other tests and their tools left is not meant here

    def work(index: int) -> None:
        try:
            for turn in range(3):
                asyncio.run(client.write_text_async(base / f"{index}-{turn}", "x"))
                client.write_text(base / f"s{index}-{turn}", "x")
        except BaseException as error:
            errors.append(error)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gc.collect()
    assert not errors
    assert len(client.list_tree(base)) == 24


LIFECYCLE = """
import asyncio, os, pathlib, sys
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
settings, mode = AzureStorageSettings.from_env()
base = pathlib.Path(sys.argv[1])
client = AzureStorageClient.from_settings(settings, mode, base_path=base)
client.write_text(base / "sync", "1")
asyncio.run(client.write_text_async(base / "async", "2"))
client.container()
if hasattr(os, "fork"):
    pid = os.fork()
    if pid == 0:
        client.write_text(base / "child", "3")
        asyncio.run(client.write_text_async(base / "child async", "4"))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
client.write_text(base / "after", "5")
print(len(client.list_tree(base)))
"""


def test_process_ends_clean_without_close(
    make: Make, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """No ResourceWarning at exit, also after a fork, and a child works on its own."""
    client = make()
    assert client.config is not None
    env = {
        **os.environ,
        "AZURE_STORAGE_CONTAINER": client.config.container,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
    }
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-W", "ignore::DeprecationWarning", "-c",
         LIFECYCLE, str(tmp_path / "base")],
        env=env, capture_output=True, text=True, check=False, timeout=50,
    )  # fmt: skip
    assert done.stdout.strip() == "5", done.stderr
    assert "Warning" not in done.stderr
    assert "Unclosed" not in done.stderr


def test_empty_report_when_not_configured(tmp_path: Path) -> None:
    """Without configuration trees stay where they are."""
    client = AzureStorageClient.from_settings(AzureStorageSettings(None), "dev-skip")
    assert client.upload_tree(fill(tmp_path, a=b"1")) == TreeReport("up")


def test_missing_container(make: Make, tmp_path: Path) -> None:
    """It lists nothing, and the first upload makes it."""
    client = make()
    assert client.list_tree(tmp_path) == []
    client.upload_text(tmp_path / "base" / "a", "made")
    assert client.list_tree(tmp_path / "base") == [("a", 4)]


def test_properties_that_are_not_ascii_are_read_as_the_sdk_does_and_not_sent(
    make: Make, tmp_path: Path
) -> None:
    """The SDK writes Latin-1; what cannot be kept is said, with the remedy, and never dropped."""
    client = make("best-effort")
    base = tmp_path / "base"
    base.mkdir()
    path = base / "a.txt"
    path.write_text("new")
    container = client.container()
    assert container is not None
    blob = container.get_blob_client("a.txt")
    attachment = ContentSettings(content_disposition="attachment; filename=é.txt")
    for metadata, settings in (({"owner": "é"}, None), ({}, attachment)):
        blob.upload_blob(b"old", overwrite=True, metadata=metadata, content_settings=settings)
        there = client.stat(path)
        assert there is not None
        assert there.metadata == blob.get_blob_properties().metadata == metadata
        (listed,) = client.iter_tree(base)
        assert listed.metadata == metadata
        with pytest.raises(StorageRequestError, match="cannot be sent again") as raised:
            client.upload_file(path, keep_properties=True, raise_on_error=True)
        assert "without keep_properties" in raised.value.remedy
        (entry,) = client.pending_uploads()
        assert entry.refused
        client.forget_refused()
    client.upload_file(path)
    assert blob.download_blob().readall() == b"new"
