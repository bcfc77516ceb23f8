"""What users of the storage client read when something is wrong: value, rule and remedy."""

import logging
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.run_report import render_html
from infra_core.azure.run_storage import build_manifest, resolve_base_path
from infra_core.azure.storage import (
    AzureStorageClient,
    AzureStorageSettings,
    BlobConflictError,
    BlobNotFoundError,
    ConfigurationError,
    JournalError,
    StorageAccessError,
    StorageRequestError,
    TransferOptions,
    TreeTransferError,
    UnsafeNamesError,
)
from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import FaultyOrigin

Make = Callable[..., AzureStorageClient]
MODES: list[Any] = ["strict", "best-effort", "dev-skip"]


@pytest.fixture
def make(azurite: AzuriteServer, tmp_path: Path) -> Iterator[Make]:
    container = f"said-{uuid.uuid4().hex[:12]}"
    (tmp_path / "base" / "folder").mkdir(parents=True)
    (tmp_path / "base" / "file").write_text("x")
    (tmp_path / "base" / "folder" / "below").write_text("y")
    made = []

    def build(mode: Any = "strict", **changes: Any) -> AzureStorageClient:
        values: dict[str, Any] = {
            "container": container,
            "connection_string": azurite.connection_string,
            "options": TransferOptions(max_retries=1, backoff=0.01, timeout=20),
            "journal": tmp_path / "journal.sqlite",
        }
        client = AzureStorageClient.from_settings(
            AzureStorageSettings(**values | changes), mode, base_path=tmp_path / "base"
        )
        made.append(client)
        return client

    yield build
    for client in made:
        client.close()


LOCAL = [
    ("none", FileNotFoundError, "there is no such file; write it first"),
    ("folder", IsADirectoryError, "it is a folder; upload_tree takes folders"),
    ("file/below", NotADirectoryError, "a part of its path is a file"),
]


@pytest.mark.parametrize(("name", "kind", "expected"), LOCAL)
def test_files_that_cannot_be_read(
    make: Make,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    kind: Any,
    expected: str,
) -> None:
    """The same class as before, with the remedy; best-effort logs it and keeps nothing."""
    path = tmp_path / "base" / name
    with pytest.raises(kind, match=expected) as raised:
        make().upload_file(path)
    assert raised.value.filename == str(path)
    gentle = make("best-effort")
    gentle.upload_file(path)
    assert f"upload of '{name}' failed" in caplog.text
    assert expected in caplog.text
    assert gentle.pending_uploads() == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_pipe_is_refused(make: Make, tmp_path: Path) -> None:
    """To open it would wait for ever."""
    os.mkfifo(tmp_path / "base" / "pipe")
    with pytest.raises(OSError, match=r"it is not a regular file.*write what it gives to a file"):
        make().upload_file(tmp_path / "base" / "pipe")


def test_unreadable_files_are_kept_for_later(make: Make, tmp_path: Path) -> None:
    """Somebody may give the permission: in best-effort the journal has it."""
    path = tmp_path / "base" / "file"
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(PermissionError, match="let this user read it"):
        make().upload_file(path)
    gentle = make("best-effort")
    gentle.upload_file(path)
    path.chmod(0o600)
    assert gentle.flush_pending().uploaded == 1


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"overwrite": "nope"}, "overwrite='nope' is unknown; use always, never, if-unchanged"),
    ({"etag": '"1"'}, "is not heeded with overwrite='always'; pass overwrite='if-unchanged'"),
    ({"overwrite": "if-unchanged", "etag": "a\nb"}, "etag=.* cannot stand in a header; pass"),
    ({"content_type": "a\r\nb: c"}, "content_type=.* pass a media type such as 'image/png'"),
    ({"content_type": "tëxt"}, "content_type='tëxt' cannot stand in a header"),
]


@pytest.mark.parametrize(("arguments", "expected"), ARGUMENTS)
@pytest.mark.parametrize("mode", MODES)
def test_arguments_that_cannot_work(
    make: Make, tmp_path: Path, mode: Any, arguments: dict[str, Any], expected: str
) -> None:
    """Refused in every mode: a mistake of the caller is no failure to be swallowed."""
    with pytest.raises(ValueError, match=expected):
        make(mode).upload_file(tmp_path / "base" / "file", **arguments)


TREES: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("sideways", {}, ValueError, "direction='sideways' is unknown; use up, down"),
    ("up", {"include": "*.png"}, TypeError, "include='.*' is one string; pass a list"),
    ("up", {"exclude": None}, TypeError, "exclude=None is not a list of globs"),
    ("up", {"include": [5]}, TypeError, "include holds 5; pass a list of globs"),
    ("up", {"include": ["[z-a]"]}, ValueError, r"'\[z-a\]' is not a valid glob: bad .* z-a; write"),
    ("down", {"compare": "md5"}, ValueError, "compare='md5' is unknown; use hash, size, nothing"),
]


@pytest.mark.parametrize(("direction", "options", "kind", "expected"), TREES)
@pytest.mark.parametrize("mode", MODES)
def test_options_of_trees_that_cannot_work(
    make: Make, tmp_path: Path, mode: Any, direction: Any, options: Any, kind: Any, expected: str
) -> None:
    """Refused in every mode, also where nothing would have been transferred."""
    with pytest.raises(kind, match=expected):
        make(mode).sync_tree(tmp_path / "base", direction, **options)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a//b", "'a//b': it has an empty segment; rename the file, or pass another name as"),
        ("x" * 1100, "x'...: it has a segment of 1100 bytes"),
        (os.fsdecode(b"caf\xe9"), "it is not valid UTF-8"),
    ],
)
def test_blob_names_that_cannot_be(make: Make, tmp_path: Path, name: str, expected: str) -> None:
    """One name, its reason, and what to do about one file; never a thousand characters of it."""
    with pytest.raises(UnsafeNamesError) as raised:
        make().upload_file(tmp_path / "base" / "file", blob_path=name)
    assert "refused to upload an unsafe name: " in str(raised.value)
    assert expected in str(raised.value)
    assert len(str(raised.value)) < 300


def test_file_names_that_are_not_utf8_are_rejected(make: Make, tmp_path: Path) -> None:
    """They cannot be blob names; the others of the tree travel, in best-effort as well."""
    base = tmp_path / "base"
    try:
        (base / os.fsdecode(b"caf\xe9")).write_text("x")
    except OSError:
        pytest.skip("this file system wants UTF-8")
    report = make("best-effort").upload_tree(base, on_unsafe="skip")
    assert (report.transferred, report.rejected, report.failed) == (2, 1, 0)
    assert report.problems[0].reason == "it is not valid UTF-8"


def test_wrong_key(make: Make, azurite: AzuriteServer, tmp_path: Path) -> None:
    """403: which setting holds the key; best-effort keeps the upload until it is right."""
    wrong = "A" * 86 + "=="
    connection = azurite.connection_string.replace(azurite.account_key, wrong)
    client = make(connection_string=connection, variables={"connection_string": "APP_CONNECTION"})
    for call in (client.upload_file, client.stat, client.list_tree, client.upload_tree):
        with pytest.raises(StorageAccessError, match="check that the key in APP_CONNECTION") as got:
            call(tmp_path / "base" / ("folder" if call == client.upload_tree else "file"))
        assert wrong not in str(got.value)
    gentle = make("best-effort", connection_string=connection)
    gentle.upload_file(tmp_path / "base" / "file")
    assert [entry.blob for entry in gentle.pending_uploads()] == ["file"]


def test_unknown_account(make: Make, azurite: AzuriteServer, tmp_path: Path) -> None:
    """404, where the emulator answers for any account."""
    connection = azurite.connection_string.replace("devstoreaccount1", "nosuchaccount")
    with pytest.raises(BlobNotFoundError, match="check the account, the container and the name"):
        make(connection_string=connection).upload_file(tmp_path / "base" / "file")


def test_leased_blob(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A conflict that passes: reported with what it waits for, and kept in best-effort."""
    client = make()
    container = client.container()
    assert container is not None
    blob = container.get_blob_client("file")
    blob.upload_blob(b"theirs")
    lease = blob.acquire_lease()
    with pytest.raises(BlobConflictError, match="a client holds a lease on it; release it"):
        client.upload_file(tmp_path / "base" / "file")
    gentle = make("best-effort")
    gentle.upload_file(tmp_path / "base" / "file")
    assert "kept for flush_pending(): upload of 'file' failed with status 412" in caplog.text
    caplog.clear()
    assert gentle.flush_pending().failed == 1
    assert "kept for the next flush_pending(), failed 2 times: upload of 'file'" in caplog.text
    lease.release()
    assert gentle.flush_pending().uploaded == 1


def test_base_folder_is_no_blob(make: Make, tmp_path: Path) -> None:
    """An answer, not a request for something else."""
    client = make()
    assert client.stat(tmp_path / "base") is None
    assert client.download_to_path(tmp_path / "base") is False


@pytest.mark.parametrize("kind", ["folder", "junk", "other"])
def test_journal_that_cannot_be_used(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Uploads go on and it is logged; the error of asking for the journal says what to set."""
    path = tmp_path / f"{kind}.sqlite"
    if kind == "folder":
        path.mkdir()
    elif kind == "junk":
        path.write_bytes(b"no database at all" * 100)
    else:
        import sqlite3

        other = sqlite3.connect(path)
        other.execute("create table pending (something int)")
        other.commit()
        other.close()
    client = make("best-effort", journal=path, variables={"journal": "APP_JOURNAL"})
    client.upload_file(tmp_path / "base" / "file")
    assert client.list_tree(tmp_path / "base") == [("file", 1)]
    assert "cannot be used" in caplog.text
    for ask in (client.pending_uploads, client.flush_pending):
        with pytest.raises(JournalError, match=r"\.sqlite cannot be used .*; set APP_JOURNAL to"):
            ask()


def test_failures_of_trees_are_reported_once(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Operation and name stand once in each message; deletion says why it did not happen."""
    client = make()
    container = client.container()
    assert container is not None
    container.upload_blob("file/below", b"a file below a file")
    container.upload_blob("fine", b"1")
    with caplog.at_level(logging.WARNING), pytest.raises(TreeTransferError) as raised:
        client.sync_tree(tmp_path / "base", "down", delete=True)
    text = str(raised.value)
    assert text.startswith(f"1 of 2 files of {tmp_path / 'base'} failed to download: download of ")
    assert text.count("'file/below'") == 1
    assert text.endswith("so running it again does only the rest")
    assert "nothing is deleted at the destination, since 1 of 2 files failed" in caplog.text


def test_login_page_is_no_blob_service(make: Make, tmp_path: Path) -> None:
    """What answers every request with 200 has stored nothing: best-effort keeps the upload."""
    with FaultyOrigin() as origin:
        origin.add("/acc", body=b"<html>please log in</html>", content_type="text/html")
        for mode in ("strict", "best-effort"):
            client = make(
                mode,
                connection_string=None,
                blob_endpoint=f"{origin.base_url}/acc",
                container="$root",
                sas_token="sv=1&sig=1",
            )
            origin.add("/acc/$root/file", body=b"<html>please log in</html>")
            if mode == "strict":
                with pytest.raises(StorageRequestError, match="not by a blob service; check blob"):
                    client.upload_file(tmp_path / "base" / "file")
            else:
                client.upload_file(tmp_path / "base" / "file")
                assert len(client.pending_uploads()) == 1


def test_paths_and_manifests_that_cannot_work(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable, the parameter, the entry of the manifest: by name, with the remedy."""
    monkeypatch.setenv("RUNS_DIR", "~nobody-of-this-name/runs")
    with pytest.raises(ConfigurationError, match=r"RUNS_DIR='~nobody.*set it to an absolute path"):
        resolve_base_path("RUNS_DIR")
    source: Any = "remote"
    with pytest.raises(ValueError, match="source='remote' is unknown; use both, local, blobs"):
        build_manifest(tmp_path, client=make("dev-skip"), source=source)
    manifests: list[Any] = [None, "x", {"files": {}}]
    for manifest in manifests:
        with pytest.raises(ValueError, match="manifest has no list of files; pass what build_man"):
            render_html(manifest)
    for entry in ({"type": "image"}, {"path": "a", "size_bytes": "big"}, 5):
        with pytest.raises(ValueError, match=r"manifest\['files'\]\[0\] is .* see manifest_schema"):
            render_html({"files": [entry]})
