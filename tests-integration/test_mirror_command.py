"""`infra-core mirror` and `infra-core manifest` against a real Azurite."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.storage._errors import request_error
from infra_core.azure.storage._journal import Journal
from infra_core.azure.testing import AzuriteServer

COMMAND = [sys.executable, "-m", "infra_core.cli"]


@pytest.fixture
def env(azurite: AzuriteServer, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AZURE_")}
    return kept | {
        "AZURE_STORAGE_CONTAINER": f"mirror-{abs(hash(tmp_path)) % 10**9}",
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_STORAGE_JOURNAL": str(tmp_path / "journal.sqlite3"),
    }


def call(env: Mapping[str, str], *arguments: str, code: int = 0) -> Any:
    done = subprocess.run(
        [*COMMAND, *arguments, "--json"], env=env, capture_output=True, text=True, timeout=50
    )
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else done.stderr


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "run-1"
    (root / "sub dir").mkdir(parents=True)
    (root / "a.txt").write_text("a")
    (root / "sub dir" / "ü#1.json").write_text("{}")
    (root / "b.png").write_bytes(b"\x89PNG" * 100)
    return root


def test_folder_goes_up_and_comes_back_the_same(env: dict[str, str], folder: Path) -> None:
    """The plan is what happens; a second time nothing does; the way back is exact."""
    steps = call(env, "mirror", "plan", str(folder))
    assert {step["action"] for step in steps} == {"upload"}
    report = call(env, "mirror", "up", str(folder))
    assert (report["transferred"], report["failed"]) == (len(steps), 0)
    assert call(env, "mirror", "up", str(folder))["skipped"] == 3
    names = [blob["name"] for blob in call(env, "mirror", "list", str(folder))]
    assert sorted(names) == ["a.txt", "b.png", "sub dir/ü#1.json"]
    before = tree(folder)
    (folder / "a.txt").unlink()
    (folder / "b.png").write_bytes(b"changed")
    assert call(env, "mirror", "down", str(folder))["transferred"] == 2
    assert tree(folder) == before


def test_delete_is_planned_and_done_only_when_asked(env: dict[str, str], folder: Path) -> None:
    """Without --delete the blob stays; with it the plan says so first."""
    call(env, "mirror", "up", str(folder))
    (folder / "a.txt").unlink()
    assert call(env, "mirror", "up", str(folder))["deleted"] == 0
    steps = call(env, "mirror", "plan", str(folder), "--delete")
    assert [s["name"] for s in steps if s["action"] == "delete"] == ["a.txt"]
    assert call(env, "mirror", "up", str(folder), "--delete")["deleted"] == 1


def test_missing_folder_and_settings_are_one_line(env: dict[str, str], tmp_path: Path) -> None:
    """No traceback; the exit code is 2 and the message names what is missing."""
    for verb in ("up", "down"):
        assert "missing" in call(env, "mirror", verb, str(tmp_path / "missing"), code=2)
    bare = {name: value for name, value in env.items() if not name.startswith("AZURE_")}
    assert "AZURE_STORAGE_CONTAINER" in call(bare, "mirror", "up", str(tmp_path), code=2)


def test_what_could_not_be_sent_waits_in_the_journal(env: dict[str, str], folder: Path) -> None:
    """Best effort against a closed port journals the tree; later the journal is flushed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    real = env["AZURE_STORAGE_CONNECTION_STRING"]
    parts = dict(part.split("=", 1) for part in real.strip(";").split(";"))
    down = {
        **env,
        "AZURE_STORAGE_MODE": "best-effort",
        "AZURE_STORAGE_MAX_RETRIES": "0",
        "AZURE_STORAGE_CONNECTION_STRING": real.replace(
            parts["BlobEndpoint"], f"http://127.0.0.1:{port}/devstoreaccount1"
        ),
    }
    report = call(down, "mirror", "up", str(folder), code=1)
    assert report["failed"] >= 1
    up = {**env, "AZURE_STORAGE_MODE": "best-effort"}
    assert len(call(up, "mirror", "pending")) >= 1
    assert call(up, "mirror", "pending", "--flush")["failed"] == 0
    assert call(up, "mirror", "pending") == []
    assert len(call(up, "mirror", "list", str(folder))) == 3


def test_manifest_lists_files_with_types_and_urls(env: dict[str, str], folder: Path) -> None:
    """URLs are encoded; the page for people is one file."""
    page = folder.parent / "report.html"
    listed = folder.parent / "manifest.json"
    call(env, "mirror", "up", str(folder))
    done = subprocess.run(
        [*COMMAND, "manifest", str(folder), "--html", str(page), "--out", str(listed)],
        env=env, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    manifest = json.loads(listed.read_text(encoding="utf-8"))
    files = {entry["path"]: entry for entry in manifest["files"]}
    assert files["b.png"]["type"] == "image"
    assert files["sub dir/ü#1.json"]["url"].endswith("/run-1/sub%20dir/%C3%BC%231.json")
    html = page.read_text(encoding="utf-8")
    assert "<html" in html
    assert "b.png" in html


def test_doctor_reaches_container_and_table_and_makes_neither(
    env: dict[str, str], folder: Path
) -> None:
    """What is not there yet is said to be so, before and after."""
    env["AZURE_JOB_TABLE"] = "doctorRuns"
    for _ in range(2):
        found = {item["name"]: item for item in call(env, "doctor")}
        assert "made on first upload" in found["storage"]["detail"]
        assert "made on first use" in found["jobs"]["detail"]
    call(env, "mirror", "up", str(folder))
    found = {item["name"]: item for item in call(env, "doctor")}
    assert found["storage"]["detail"].endswith("answers")


def test_doctor_names_a_wrong_key(env: dict[str, str]) -> None:
    """The service answers and refuses; the remedy is the key."""
    parts = env["AZURE_STORAGE_CONNECTION_STRING"].split(";")
    wrong = [f"AccountKey={'A' * 86}==" if p.startswith("AccountKey=") else p for p in parts]
    env["AZURE_STORAGE_CONNECTION_STRING"] = ";".join(wrong)
    found = {item["name"]: item for item in call(env, "doctor", code=1)}
    assert found["storage"]["state"] == "problem"
    assert "key" in found["storage"]["remedy"]


def container_of(env: Mapping[str, str]) -> Any:
    from azure.storage.blob import ContainerClient

    return ContainerClient.from_connection_string(
        env["AZURE_STORAGE_CONNECTION_STRING"], env["AZURE_STORAGE_CONTAINER"]
    )


def test_blob_with_a_wrong_md5_is_downloaded_on_request(env: dict[str, str], folder: Path) -> None:
    """The service keeps any MD5 that a writer names; without the option it is an error."""
    from azure.storage.blob import ContentSettings

    call(env, "mirror", "up", str(folder))
    with container_of(env) as container:
        blob = container.get_blob_client("run-1/a.txt")
        blob.set_http_headers(ContentSettings(content_md5=bytearray(16)))
    (folder / "a.txt").unlink()
    report = call(env, "mirror", "down", str(folder), code=1)
    assert "wrong from the start" in report["problems"][0]["problem"]
    assert "--accept-wrong-md5" in report["problems"][0]["problem"]
    call(env, "mirror", "down", str(folder), "--accept-wrong-md5")
    assert (folder / "a.txt").read_text() == "a"


def test_delete_takes_snapshots_along_and_says_so(env: dict[str, str], folder: Path) -> None:
    """A blob with snapshots cannot be deleted without them."""
    call(env, "mirror", "up", str(folder))
    with container_of(env) as container:
        container.get_blob_client("run-1/a.txt").create_snapshot()
    (folder / "a.txt").unlink()
    (step,) = [
        step
        for step in call(env, "mirror", "plan", str(folder), "--delete")
        if step["action"] == "delete"
    ]
    assert "snapshots" in step["reason"]
    assert call(env, "mirror", "up", str(folder), "--delete")["deleted"] == 1


def test_refused_uploads_are_listed_sent_again_and_forgotten(
    env: dict[str, str], folder: Path
) -> None:
    """A refusal stays listed until somebody acts on it; a lease, in contrast, passes."""
    env["AZURE_STORAGE_MODE"] = "best-effort"
    call(env, "mirror", "up", str(folder))
    journal = Journal(Path(env["AZURE_STORAGE_JOURNAL"]))
    number = journal.enter("file", "run-1/a.txt", path=folder / "a.txt")
    immutable = request_error(409, "BlobImmutableDueToPolicy", "", blob="", operation="upload")
    journal.fail(number, immutable)
    journal.close()
    (entry,) = call(env, "mirror", "pending")
    assert (entry["blob"], entry["refused"]) == ("run-1/a.txt", True)
    (storage,) = [item for item in call(env, "doctor") if item["name"] == "storage"]
    assert storage["detail"].endswith("1 upload in the journal (infra-core mirror pending)")
    call(env, "mirror", "pending", "--flush", code=1)  # says that something is left
    assert call(env, "mirror", "pending", "--flush", "--refused")["uploaded"] == 1
    assert call(env, "mirror", "pending") == []
    with container_of(env) as container:
        lease = container.get_blob_client("run-1/b.png").acquire_lease()
        (folder / "b.png").write_bytes(b"changed")
        call(env, "mirror", "up", str(folder), code=1)
        (entry,) = call(env, "mirror", "pending")
        assert (entry["blob"], entry["refused"]) == ("run-1/b.png", False)
        assert "LeaseIdMissing" in entry["error"]
        lease.release()
        assert call(env, "mirror", "pending", "--flush")["uploaded"] == 1
    assert call(env, "mirror", "pending", "--forget") == {"forgotten": 0}
    assert "--flush" in call(env, "mirror", "pending", "--refused", code=2)
