"""Manifests, base paths and the mixin, without any server."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.run_service import RunStorageMixin
from infra_core.azure.run_storage import (
    build_manifest,
    build_run_storage_path,
    collect_blob_files,
    collect_local_files,
    manifest_schema,
    resolve_base_path,
)
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, _local_tree
from infra_core.fs import UnsafePathError

jsonschema: Any = pytest.importorskip("jsonschema")
CONNECTION = (
    "DefaultEndpointsProtocol=https;AccountName=account;AccountKey=a2V5;"
    "EndpointSuffix=core.windows.net"
)


def client(base: Path | None = None, *, blobs: list[tuple[str, int]] | None = None) -> Any:
    """A configured client whose container lists these blobs."""
    made = AzureStorageClient.from_settings(
        AzureStorageSettings("box", CONNECTION, prefix="pre"), "strict", base_path=base
    )
    made.list_tree = lambda path: list(blobs or [])  # type: ignore[method-assign]
    return made


def local_client() -> AzureStorageClient:
    return AzureStorageClient.from_settings(AzureStorageSettings(None), "dev-skip")


def check(manifest: dict[str, Any]) -> dict[str, Any]:
    jsonschema.Draft202012Validator(manifest_schema()).validate(manifest)
    return manifest


def test_schema_is_itself_valid() -> None:
    """The published schema is a correct draft 2020-12 schema."""
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


def test_empty_path_gives_an_empty_valid_manifest() -> None:
    """`build_manifest("")` lists nothing and sends no request."""
    manifest = check(build_manifest("", client=local_client()))
    assert manifest["files"] == []
    assert manifest["summary"] == {"total_files": 0, "total_size_bytes": 0, "file_types": {}}


def test_shape_of_a_manifest(tmp_path: Path) -> None:
    """Files with type, media type, size and URL; storage; summary."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "screenshot.png").write_bytes(b"12345")
    (tmp_path / "run" / "metadata.json").write_bytes(b"{}")
    manifest = check(build_manifest(tmp_path / "run", client=client(tmp_path)))
    assert manifest == {
        "files": [
            {
                "path": "metadata.json",
                "type": "data",
                "content_type": "application/json",
                "size_bytes": 2,
                "url": "https://account.blob.core.windows.net/box/pre/run/metadata.json",
            },
            {
                "path": "screenshot.png",
                "type": "image",
                "content_type": "image/png",
                "size_bytes": 5,
                "url": "https://account.blob.core.windows.net/box/pre/run/screenshot.png",
            },
        ],
        "storage": {"provider": "azure_blob", "container": "box", "prefix": "pre/run"},
        "summary": {
            "total_files": 2,
            "total_size_bytes": 7,
            "file_types": {"data": 1, "image": 1},
        },
    }


def test_urls_are_encoded(tmp_path: Path) -> None:
    """Spaces, unicode and what has a meaning in URLs are percent-encoded; slashes stay."""
    blobs = [("a b/ü#?&%25.png", 1), ("plus+and'quote.txt", 1)]
    manifest = check(build_manifest(tmp_path / "run", client=client(tmp_path, blobs=blobs)))
    base = "https://account.blob.core.windows.net/box/pre/run/"
    assert [file["url"] for file in manifest["files"]] == [
        base + "a%20b/%C3%BC%23%3F%26%2525.png",
        base + "plus%2Band%27quote.txt",
    ]


def test_urls_never_hold_a_sas_token(tmp_path: Path) -> None:
    """The token that the client works with stays out of manifests."""
    sas = AzureStorageSettings("box", account_name="account", sas_token="sv=1&sig=SECRET")
    made = AzureStorageClient.from_settings(sas, "strict", base_path=tmp_path)
    made.list_tree = lambda path: []  # type: ignore[method-assign]
    (tmp_path / "a.txt").write_bytes(b"x")
    text = str(check(build_manifest(tmp_path, client=made)))
    assert "SECRET" not in text
    assert "sig=" not in text


def test_one_local_file_does_not_hide_the_blobs(tmp_path: Path) -> None:
    """Blobs without a local file are listed as well; a local file wins over its blob."""
    (tmp_path / "a.txt").write_bytes(b"local")
    made = client(tmp_path, blobs=[("a.txt", 99), ("b.txt", 3)])
    manifest = check(build_manifest(tmp_path, client=made))
    assert [(f["path"], f["size_bytes"]) for f in manifest["files"]] == [("a.txt", 5), ("b.txt", 3)]
    only = build_manifest(tmp_path, client=made, source="local")
    assert [f["path"] for f in only["files"]] == ["a.txt"]


def test_unconfigured_client_is_never_asked_to_list(tmp_path: Path) -> None:
    """Without configuration only local files are looked at, and nothing has a URL."""
    made = local_client()
    made.list_tree = lambda path: pytest.fail("listed")  # type: ignore[method-assign]
    (tmp_path / "a.txt").write_bytes(b"x")
    manifest = check(build_manifest(tmp_path, client=made))
    assert manifest["files"][0]["url"] is None
    assert manifest["storage"]["provider"] == "local"


def test_failing_listing_is_raised(tmp_path: Path) -> None:
    """A manifest is whole or an error."""
    made = client(tmp_path)

    def fail(path: Path) -> list[tuple[str, int]]:
        raise ConnectionError("gone")

    made.list_tree = fail
    with pytest.raises(ConnectionError, match="gone"):
        build_manifest(tmp_path, client=made)


def test_collect_blob_files_needs_configuration(tmp_path: Path) -> None:
    """An unconfigured client cannot list blobs, and the error says what to set."""
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONTAINER"):
        collect_blob_files(local_client(), tmp_path)


def test_checksums_and_timestamps_on_request(tmp_path: Path) -> None:
    """Both are optional parts of the schema."""
    file = tmp_path / "a.txt"
    file.write_bytes(b"abc")
    os.utime(file, (0, 0))
    found = check(
        build_manifest(tmp_path, client=local_client(), checksum="sha256", timestamps=True)
    )["files"][0]
    assert found["checksum"].startswith("sha256:ba7816bf")
    assert found["modified_at"] == "1970-01-01T00:00:00+00:00"


def test_file_that_goes_while_files_are_listed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is at work has temporary files."""
    for name in ("goes", "stays"):
        (tmp_path / name).write_text("x")
    walk = _local_tree.walk_tree

    def walk_once_gone(*arguments: Any, **options: Any) -> Any:
        for found in walk(*arguments, **options):
            (tmp_path / "goes").unlink(missing_ok=True)
            yield found

    monkeypatch.setattr(_local_tree, "walk_tree", walk_once_gone)
    found = collect_local_files(tmp_path, checksum="md5")
    assert [entry["path"] for entry in found] == ["stays"]


def test_a_folder_and_file_named_like_a_media_type_is_a_path(tmp_path: Path) -> None:
    """`image/png` below a run is a file without extension."""
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "png").write_bytes(b"")
    assert collect_local_files(tmp_path)[0]["type"] == "other"


def test_missing_folder_has_no_files(tmp_path: Path) -> None:
    """A run that wrote nothing is no error."""
    assert collect_local_files(tmp_path / "none") == []


@pytest.mark.slow
def test_a_hundred_thousand_files_take_seconds(tmp_path: Path) -> None:
    """Building the manifest of 100,000 blobs is a matter of seconds."""
    blobs = [(f"folder {i % 100}/file {i}.png", i) for i in range(100_000)]
    made = client(tmp_path, blobs=blobs)
    started = time.process_time()  # others may be at work on this machine
    manifest = build_manifest(tmp_path, client=made)
    assert manifest["summary"]["total_files"] == 100_000
    assert time.process_time() - started < 15


names = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="/\\"), min_size=1
).filter(lambda name: name not in (".", "..") and name.strip())


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.lists(names, min_size=1, max_size=3).map("/".join), st.integers(0))))
def test_every_listing_gives_a_valid_manifest(blobs: list[tuple[str, int]]) -> None:
    """Whatever blobs are called, the manifest fits the schema and is sorted."""
    manifest = check(build_manifest("run", client=client(blobs=blobs)))
    paths = [file["path"] for file in manifest["files"]]
    assert paths == sorted({name for name, _ in blobs})


def test_base_path_comes_from_the_first_variable_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The named variable, then TMP, TEMP, TMPDIR, then the system's default."""
    for name in ("TMP", "TEMP", "TMPDIR", "RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/system")
    assert resolve_base_path("RUNS") == Path("/system")
    monkeypatch.setenv("TMPDIR", "/three")
    assert resolve_base_path("RUNS") == Path("/three")
    monkeypatch.setenv("TEMP", "/two")
    monkeypatch.setenv("TMP", "/one")
    assert resolve_base_path("RUNS") == Path("/one")
    monkeypatch.setenv("RUNS", "/runs")
    assert resolve_base_path("RUNS") == Path("/runs")
    monkeypatch.delenv("RUNS")
    monkeypatch.setenv("OTHER", "/other")
    assert resolve_base_path("RUNS", fallback_envs=["OTHER"]) == Path("/other")


def test_run_path_stays_below_its_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments become folders; none of them can climb out."""
    monkeypatch.setenv("RUNS", str(tmp_path))
    assert build_run_storage_path("RUNS", "batch-1", "", "job") == tmp_path / "batch-1" / "job"
    with pytest.raises(UnsafePathError):
        build_run_storage_path("RUNS", "..", "etc")


@pytest.mark.parametrize(
    "segments", [("runs", None, "job"), ("runs/", "./job"), (".", "runs", "job")]
)
def test_empty_segments_are_left_out(
    segments: tuple[str | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None made no folder of its own in 0.7, a slash at the end and a dot no error."""
    monkeypatch.setenv("RUNS", str(tmp_path))
    assert build_run_storage_path("RUNS", *segments) == tmp_path / "runs" / "job"


def test_size_of_0_7_is_reported_as_well(tmp_path: Path) -> None:
    """`entry["size"]` of 0.7 and `entry["size_bytes"]` are the same."""
    (tmp_path / "a.txt").write_bytes(b"abc")
    (local,) = collect_local_files(tmp_path)
    (blob,) = collect_blob_files(client(blobs=[("b.txt", 4)]), tmp_path)
    assert (local["size"], local["size_bytes"], blob["size"]) == (3, 3, 4)


def test_locks_and_states_of_our_own_are_no_artifacts(tmp_path: Path) -> None:
    """The log and the heartbeat are; a lock file of somebody else's is."""
    names = [
        "_logs/run.log",
        "_state/heartbeat.json",
        "poetry.lock",
        "deep/_state/other.json",
    ]
    own = [
        "_state/run_log_mirror.json",
        "_state/run_log_mirror.lock",
        "_state/run.lock",
        "deep/_state/run_log_mirror.json",
        ".infra-core-state/x",
        "deep/.infra-core.json",
        ".logo.0123456789abcdef.part.png",
    ]
    for name in names + own:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [entry["path"] for entry in collect_local_files(tmp_path)] == sorted(names)
    made = client(tmp_path, blobs=[(name, 1) for name in names + own[:-1]])
    listed = [entry["path"] for entry in collect_blob_files(made, tmp_path)]
    assert listed == sorted(names)


def test_stand_in_of_0_7_has_settings_and_no_config(tmp_path: Path) -> None:
    """Tests of users made such clients."""
    stand_in: Any = SimpleNamespace(
        settings=SimpleNamespace(container="box"),
        is_configured=lambda: True,
        list_tree=lambda path: [("a.txt", 1)],
        blob_name_for_path=lambda path: "run",
        blob_url_for_name=lambda name: f"https://a/box/{name}",
    )
    manifest = check(build_manifest(tmp_path, client=stand_in))
    assert manifest["storage"] == {"provider": "azure_blob", "container": "box", "prefix": "run"}
    assert manifest["files"][0]["url"] == "https://a/box/run/a.txt"


LISTING = b"""<EnumerationResults><Blobs>
<Blob><Name>shot</Name><Properties><Content-Length>3</Content-Length>
<Content-Type>image/webp</Content-Type></Properties></Blob>
<Blob><Name>page</Name><Properties><Content-Length>1</Content-Length>
<Content-Type>text/html; charset=utf-8</Content-Type></Properties></Blob>
<Blob><Name>old.png</Name><Properties><Content-Length>1</Content-Length>
<Content-Type>application/octet-stream</Content-Type></Properties></Blob>
</Blobs></EnumerationResults>"""


def test_stored_types_are_those_of_manifest_and_report(
    tmp_path: Path, blob_server: Any, client_of: Any
) -> None:
    """A file that was stored with the type it was served with keeps it, here and in the blob."""
    made = client_of(blob_server(lambda *_: (200, {}, LISTING)))
    folder = made.base_path
    (folder / "shot").write_bytes(b"RIF")
    (folder / "data").write_bytes(b"1,2")
    manifest = check(build_manifest(folder, client=made, content_types={"data": "text/csv"}))
    seen = {file["path"]: (file["type"], file["content_type"]) for file in manifest["files"]}
    assert seen["data"] == ("data", "text/csv")
    assert seen["shot"] == ("image", "image/webp")
    assert seen["page"] == ("document", "text/html; charset=utf-8")
    assert seen["old.png"] == ("image", "image/png")


def test_mixin_builds_the_manifest_of_a_record(tmp_path: Path) -> None:
    """The record says where its files lie; one without a path gives an empty manifest."""
    (tmp_path / "a.txt").write_bytes(b"x")
    service = RunStorageMixin(azure_client=local_client())
    for record in (
        SimpleNamespace(storage_path=str(tmp_path)),
        {"storage_path": tmp_path},
        SimpleNamespace(run_storage_path=str(tmp_path), storage_path=None),  # 0.7's name
        {"run_storage_path": tmp_path},
    ):
        assert service.build_result_manifest(record)["summary"]["total_files"] == 1
    for record in (SimpleNamespace(), {}, SimpleNamespace(storage_path=None)):
        assert service.build_result_manifest(record)["files"] == []


def test_files_that_cannot_be_mirrored_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are missing from the manifest, and not silently."""
    (tmp_path / "good.txt").write_text("x")
    for number in range(11):
        (tmp_path / f"dangling-{number:02}").symlink_to("nowhere")
    assert [entry["path"] for entry in collect_local_files(tmp_path)] == ["good.txt"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "'dangling-00' (it is a link to nothing)" in record.message
    assert record.message.endswith(", and others; rename or remove them")
