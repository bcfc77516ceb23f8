"""`infra-core run` end to end: real processes, a misbehaving origin, a real Azurite."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.azure.testing import AzuriteServer
from infra_core.batch import run_batch
from infra_core.fs import is_partial
from infra_core.http.testing import FaultyOrigin, reset_after, slow, status, truncate

COMMAND = [sys.executable, "-m", "infra_core.cli"]


def body_of(number: int, size: int = 20_000) -> bytes:
    block = hashlib.sha256(str(number).encode()).digest()
    return (block * (size // len(block) + 1))[:size]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AZURE_", "APPLICATIONINSIGHTS_"))
    }
    return kept | {"PYTHONUNBUFFERED": "1"} | dict(extra or {})


def run(
    urls: str, out: Path, *arguments: str, env: Mapping[str, str] | None = None, batch: str = "b1"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "run", "-", "--batch-id", batch, "--out", str(out), *arguments],
        input=urls,
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=50,
    )


def paths_of(out: Path, urls: list[str], batch: str = "b1") -> list[Path]:
    """Where the file of each URL is, as the manifest says."""
    manifest = json.loads((out / batch / "manifest.json").read_text())
    found = {file["source_url"]: file["path"] for file in manifest["files"]}
    return [out / batch / "assets" / found[url] for url in urls]


def summary_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def azurite_env(azurite: AzuriteServer, container: str) -> dict[str, str]:
    return {
        "AZURE_STORAGE_CONTAINER": container,
        "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        "AZURE_JOB_TABLE": container.replace("-", ""),
    }


def blobs_of(env: Mapping[str, str], base: Path) -> dict[str, bytes]:
    """Every blob of the container, fetched to a folder of its own and read."""
    settings, mode = AzureStorageSettings.from_env(env=env)
    client = AzureStorageClient.from_settings(settings, mode, base_path=base)
    try:
        client.download_tree(base)
    finally:
        client.close()
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in base.rglob("*") if p.is_file()}


def test_batch_survives_faults_and_every_byte_is_right(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """503, resets, truncations and a slow stream are retried; the files equal their sources."""
    faults = [status(503, retry_after="0"), reset_after(500), truncate(700), slow(200_000)]
    for number in range(8):
        origin.add(f"/f/{number}.bin", body_of(number), faults=faults[number % 4 : number % 4 + 1])
    urls = [origin.url(f"/f/{number}.bin") for number in range(8)]
    done = run("\n".join(urls), tmp_path, "--backoff", "0.01", "--json")
    assert done.returncode == 0, done.stderr
    summary = summary_of(done)
    assert (summary["succeeded"], summary["failed"], summary["retries"]) == (8, 0, 6)
    assert summary["complete"] is True
    for number, path in enumerate(paths_of(tmp_path, urls)):
        assert path.read_bytes() == body_of(number)
    manifest = json.loads((tmp_path / "b1" / "manifest.json").read_text())
    assert manifest["summary"]["total_files"] == 8
    assert manifest["summary"]["total_size_bytes"] == 8 * 20_000


def test_failure_is_reported_with_its_cause_and_exit_code(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """A 404 fails its job alone; the summary names it and the exit code is 1."""
    origin.add("/ok", b"fine")
    urls = [origin.url("/ok"), origin.url("/missing")]
    done = run("\n".join(urls), tmp_path, "--json", "--summary-file", str(tmp_path / "s.json"))
    assert done.returncode == 1, done.stderr
    summary = summary_of(done)
    assert (summary["succeeded"], summary["failed"]) == (1, 1)
    assert summary["failures"][0]["url"] == urls[1]
    assert "404" in summary["failures"][0]["cause"]
    assert json.loads((tmp_path / "s.json").read_text())["failed"] == 1
    assert origin.count("/missing") == 1


def test_resume_downloads_only_what_is_missing_or_damaged(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Of five files one is deleted and one damaged: those two are requested again."""
    for number in range(5):
        origin.add(f"/{number}", body_of(number))
    urls = [origin.url(f"/{number}") for number in range(5)]
    assert run("\n".join(urls), tmp_path).returncode == 0
    paths = paths_of(tmp_path, urls)
    paths[0].unlink()
    damaged = bytearray(paths[1].read_bytes())
    damaged[100] ^= 1
    paths[1].write_bytes(damaged)
    done = run("\n".join(urls), tmp_path, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert (summary_of(done)["succeeded"], summary_of(done)["skipped"]) == (2, 3)
    assert [origin.count(f"/{number}") for number in range(5)] == [2, 2, 1, 1, 1]
    assert [path.read_bytes() for path in paths] == [body_of(number) for number in range(5)]


def test_batch_that_exists_is_not_run_again_without_resume(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """The error says what to do, and nothing is requested."""
    origin.add("/a", b"a")
    assert run(origin.url("/a"), tmp_path).returncode == 0
    done = run(origin.url("/a"), tmp_path)
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert origin.count("/a") == 1


def test_malformed_lines_are_reported_by_number_and_strict_refuses_them(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Comments, blank lines, CRLF and duplicates are fine; anything else is named."""
    origin.add("/a", b"a")
    text = f"# list\r\n\r\n{origin.url('/a')}\r\nnot a url\r\n{origin.url('/a')}\r\nftp://x/y\r\n"
    done = run(text, tmp_path, "--strict")
    assert done.returncode == 2
    assert origin.count("/a") == 0
    assert "line 4:" in done.stderr
    assert "line 6:" in done.stderr
    done = run(text, tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    assert (summary_of(done)["succeeded"], summary_of(done)["complete"]) == (1, False)
    done = run(text, tmp_path, "--json", "--resume", "--skip-malformed")
    assert done.returncode == 0, done.stderr
    assert summary_of(done)["rejected_lines"] == 2
    assert summary_of(done)["duplicates"] == 1


def test_batch_through_azurite_lands_every_byte(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """Files and manifest are in the container, jobs in the table."""
    for number in range(6):
        origin.add(f"/p {number}#é.png".replace(" ", "%20").replace("#é", "x"), body_of(number))
    urls = [origin.url(f"/p%20{number}x.png") for number in range(6)]
    env = azurite_env(azurite, "runs-through")
    done = run("\n".join(urls), tmp_path / "out", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert summary_of(done)["mirrored"] == 6
    assert not (tmp_path / "out" / "jobs.sqlite3").exists()
    blobs = blobs_of(env, tmp_path / "back")
    for number, path in enumerate(paths_of(tmp_path / "out", urls)):
        assert blobs[path.relative_to(tmp_path / "out").as_posix()] == body_of(number)
    manifest = json.loads(blobs["b1/manifest.json"])
    assert manifest["summary"]["total_files"] == 6
    assert "b1/_logs/run.log" in blobs
    assert "b1/_state/heartbeat.json" in blobs
    listed = subprocess.run(
        [*COMMAND, "jobs", "list", "b1", "--json"],
        env=environment(env), capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert {job["status"] for job in json.loads(listed.stdout)} == {"completed"}
    origin.add("/p%203x.png", b"changed")
    again = run_batch(urls, batch_id="b1", out=tmp_path / "out", revalidate=True, env=env)
    assert (again.unchanged, again.succeeded, again.mirrored) == (5, 1, 1)
    assert again.complete
    changed = paths_of(tmp_path / "out", urls)[3].relative_to(tmp_path / "out").as_posix()
    assert blobs_of(env, tmp_path / "again")[changed] == b"changed"


def test_type_that_a_file_was_served_with_is_that_of_blob_and_manifests(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """The name of a screenshot need not show it; the server of the blob later says what it is."""
    origin.add("/shot", b"RIFF", content_type="image/webp")
    env = azurite_env(azurite, "runs-types")
    done = run(origin.url("/shot"), tmp_path / "out", "--json", env=env)
    assert done.returncode == 0, done.stderr
    (file,) = json.loads((tmp_path / "out" / "b1" / "manifest.json").read_text())["files"]
    assert (file["type"], file["content_type"]) == ("image", "image/webp")
    settings, mode = AzureStorageSettings.from_env(env=env)
    with AzureStorageClient.from_settings(settings, mode, base_path=tmp_path / "out") as client:
        (path,) = paths_of(tmp_path / "out", [origin.url("/shot")])
        info = client.stat(path)
        assert info is not None
        assert info.content_type == "image/webp"
        path.write_bytes(b"RIFFRIFF")
        client.upload_tree(tmp_path / "out" / "b1" / "assets")  # the type is not lost to a tree
        assert client.stat(path).content_type == "image/webp"  # type: ignore[union-attr]
    listed = subprocess.run(
        [*COMMAND, "manifest", str(tmp_path / "out" / "b1" / "assets"), "--base",
         str(tmp_path / "out")],
        env=environment(env), capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    (file,) = json.loads(listed.stdout)["files"]
    assert (file["type"], file["content_type"]) == ("image", "image/webp")


@pytest.mark.parametrize("backend", ["local", "azurite"])
def test_killed_run_resumes_and_ends_with_every_byte(
    backend: str, origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """Kill -9 in mid-run, then --resume: what was done is kept, the rest follows, all is right."""
    env = azurite_env(azurite, "killed-runs") if backend == "azurite" else {}
    out = tmp_path / "out"
    for number in range(30):
        origin.add(f"/{number}", body_of(number), always=slow(100_000))
    urls = [origin.url(f"/{number}") for number in range(30)]
    with subprocess.Popen(
        [*COMMAND, "run", "-", "--batch-id", "b1", "--out", str(out), "--concurrency", "3",
         "--show-files"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(env), text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n".join(urls))
        process.stdin.close()
        finished = 0
        for line in process.stdout:
            finished += " ok " in line
            if finished == 8:
                break
        process.kill()
    for number in range(30):
        origin.add(f"/{number}", body_of(number))
    before = {number: origin.count(f"/{number}") for number in range(30)}
    done = run("\n".join(urls), out, "--resume", "--json", env=env)
    assert done.returncode == 0, done.stderr
    summary = summary_of(done)
    assert summary["succeeded"] + summary["skipped"] == 30
    assert summary["skipped"] >= 8
    again = sum(origin.count(f"/{number}") > before[number] for number in range(30))
    assert again == summary["succeeded"] <= 22
    names = [path.relative_to(out).as_posix() for path in paths_of(out, urls)]
    assert [(out / name).read_bytes() for name in names] == [body_of(n) for n in range(30)]
    assert not [path for path in out.rglob("*") if is_partial(path)]
    if backend == "azurite":
        blobs = blobs_of(env, tmp_path / "back")
        assert [blobs[name] for name in names] == [body_of(number) for number in range(30)]
        assert json.loads(blobs["b1/manifest.json"])["summary"]["total_files"] == 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_drains_records_and_leaves(
    number: signal.Signals, code: int, origin: FaultyOrigin, tmp_path: Path
) -> None:
    """What is in flight ends, the rest is pending, and a resume finishes the batch."""
    for index in range(20):
        origin.add(f"/{index}", body_of(index), always=slow(100_000))
    urls = [origin.url(f"/{index}") for index in range(20)]
    with subprocess.Popen(
        [*COMMAND, "run", "-", "--batch-id", "b1", "--out", str(tmp_path), "--concurrency", "2",
         "--show-files"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write("\n".join(urls))
        process.stdin.close()
        while " ok " not in process.stdout.readline():
            pass
        process.send_signal(number)
        rest = process.stdout.read()
        errors = process.stderr.read()
        assert process.wait(timeout=30) == code, errors
    assert "pending" in rest
    assert "Traceback" not in errors
    for index in range(20):
        origin.add(f"/{index}", body_of(index))
    done = run("\n".join(urls), tmp_path, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert summary_of(done)["skipped"] >= 2
    assert summary_of(done)["succeeded"] + summary_of(done)["skipped"] == 20


@pytest.mark.parametrize("arguments", [[], ["--azurite"]], ids=["embedded", "azurite"])
def test_demo_comes_out_as_promised(arguments: list[str], tmp_path: Path) -> None:
    """The command of the README: faults are survived, shown, and every byte compared."""
    done = subprocess.run(
        [*COMMAND, "demo", "--out", str(tmp_path), *arguments],
        env=environment(), capture_output=True, text=True, timeout=55,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("retry ") == 5
    assert "404" in done.stdout
    assert "Every byte compared" in done.stdout
    assert f"goes to {tmp_path}\n" in done.stdout
    if not arguments:
        last = done.stdout.splitlines()[-1]
        typed = subprocess.run(last, shell=True, capture_output=True, text=True, timeout=55)
        assert "/missing/page.html" in typed.stdout, typed.stderr


def test_two_runs_of_one_batch_at_once_are_refused(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The second ends with the error that another process holds the batch."""
    origin.add("/a", body_of(1, 200_000), always=slow(50_000))
    origin.add("/b", b"b")
    with subprocess.Popen(
        [*COMMAND, "run", "-", "--batch-id", "b1", "--out", str(tmp_path), "--show-files"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{origin.url('/a')}\n{origin.url('/b')}")
        process.stdin.close()
        while " ok " not in process.stdout.readline():
            pass
        done = run(origin.url("/a"), tmp_path, "--resume")
        process.kill()
    assert done.returncode == 2
    assert "another process" in done.stderr


def test_storage_that_is_down_loses_nothing_and_a_resume_sends_it(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """The files are here, each one unsent is named in a line, and --resume uploads them."""
    env = azurite_env(azurite, "storage-down") | {
        "AZURE_STORAGE_MAX_RETRIES": "0",
        "AZURE_STORAGE_JOURNAL": str(tmp_path / "journal.sqlite3"),
    }
    del env["AZURE_JOB_TABLE"]
    real = env["AZURE_STORAGE_CONNECTION_STRING"]
    endpoint = next(part for part in real.split(";") if part.startswith("BlobEndpoint="))
    with FaultyOrigin() as gone:
        closed = f"BlobEndpoint={gone.base_url}/devstoreaccount1"
    down = env | {"AZURE_STORAGE_CONNECTION_STRING": real.replace(endpoint, closed)}
    for number in range(3):
        origin.add(f"/{number}", body_of(number))
    urls = [origin.url(f"/{number}") for number in range(3)]
    done = run("\n".join(urls), tmp_path / "out", env=down)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count(" unsent ") >= 3
    assert "Traceback" not in done.stderr
    manifest = json.loads((tmp_path / "out" / "b1" / "manifest.json").read_text())
    assert manifest["summary"]["total_files"] == 3
    done = run("\n".join(urls), tmp_path / "out", "--resume", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert (summary_of(done)["skipped"], summary_of(done)["mirrored"]) == (3, 3)
    blobs = blobs_of(env, tmp_path / "back")
    for number, path in enumerate(paths_of(tmp_path / "out", urls)):
        assert blobs[path.relative_to(tmp_path / "out").as_posix()] == body_of(number)
    assert [origin.count(f"/{number}") for number in range(3)] == [1, 1, 1]


def test_what_the_container_lost_is_downloaded_again_where_it_had_the_only_copy(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """With --scratch no file is here to upload again."""
    env = azurite_env(azurite, "lost-scratch")
    for number in range(4):
        origin.add(f"/{number}", body_of(number))
    urls = "\n".join(origin.url(f"/{number}") for number in range(4))
    arguments = ["--scratch", str(tmp_path / "scratch"), "--json"]
    first = run(urls, tmp_path / "out", *arguments, env=env)
    assert first.returncode == 0, first.stderr
    settings, mode = AzureStorageSettings.from_env(env=env)
    client = AzureStorageClient.from_settings(settings, mode, base_path=tmp_path / "out")
    container = client.container()
    assert container is not None
    lost = next(blob.name for blob in container.list_blobs() if "/assets/" in blob.name)
    container.delete_blob(lost)
    client.close()
    again = run(urls, tmp_path / "out", "--resume", "--verify-mirror", *arguments, env=env)
    assert again.returncode == 0, again.stderr
    assert (summary_of(again)["succeeded"], summary_of(again)["skipped"]) == (1, 3)
    assert len([name for name in blobs_of(env, tmp_path / "read") if "/assets/" in name]) == 4


def test_a_blob_that_was_overwritten_with_as_many_bytes_is_no_mirror(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """--verify-mirror compares the MD5 that the service keeps, not the size alone."""
    env = azurite_env(azurite, "altered")
    for number in range(3):
        origin.add(f"/{number}", body_of(number))
    urls = "\n".join(origin.url(f"/{number}") for number in range(3))
    assert run(urls, tmp_path / "out", env=env).returncode == 0
    settings, mode = AzureStorageSettings.from_env(env=env)
    client = AzureStorageClient.from_settings(settings, mode, base_path=tmp_path / "out")
    container = client.container()
    assert container is not None
    altered = next(blob for blob in container.list_blobs() if "/assets/" in blob.name)
    container.upload_blob(altered.name, b"X" * altered.size, overwrite=True)
    again = run(urls, tmp_path / "out", "--resume", "--verify-mirror", "--json", env=env)
    assert again.returncode == 0, again.stderr
    assert (summary_of(again)["skipped"], summary_of(again)["mirrored"]) == (3, 1)
    downloaded = container.download_blob(altered.name).readall()
    assert downloaded != b"X" * altered.size
    client.close()


def test_a_batch_that_is_mirrored_later_keeps_the_types_that_files_were_served_with(
    origin: FaultyOrigin, azurite: AzuriteServer, tmp_path: Path
) -> None:
    """A page without extension is a page in the container too; other folders are as before."""
    origin.add("/page", b"<p>", content_type="text/html")
    assert run(origin.url("/page"), tmp_path / "out", env={}).returncode == 0
    env = azurite_env(azurite, "typed")
    (tmp_path / "other" / "assets").mkdir(parents=True)
    (tmp_path / "other" / "manifest.json").write_text('{"name": "of a web site"}')
    for folder in (next((tmp_path / "out").glob("*/assets")).parent, tmp_path / "other"):
        command = [sys.executable, "-m", "infra_core.cli", "mirror", "up", str(folder)]
        up = subprocess.run(command, env=environment(env), capture_output=True, text=True)
        assert up.returncode == 0, up.stderr
    settings, mode = AzureStorageSettings.from_env(env=env)
    client = AzureStorageClient.from_settings(settings, mode)
    container = client.container()
    assert container is not None
    types = {blob.name: blob.content_settings.content_type for blob in container.list_blobs()}
    assert [kind for name, kind in types.items() if "page" in name] == ["text/html"]
    assert types["other/manifest.json"] == "application/json"
    client.close()


def test_the_manifest_command_says_where_it_sought_blobs(
    azurite: AzuriteServer, tmp_path: Path
) -> None:
    """A folder above or below would make other names."""
    env = azurite_env(azurite, "sought")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    base = ["--base", str(tmp_path)]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments], env=environment(env), capture_output=True, text=True, timeout=50
        )

    assert call("mirror", "up", str(tmp_path / "files")).returncode == 0
    found = call("manifest", str(tmp_path / "files"), *base)
    assert found.stderr == ""
    assert json.loads(found.stdout)["files"][0]["url"]
    missed = call("manifest", str(tmp_path / "files"), "--base", str(tmp_path.parent))
    assert json.loads(missed.stdout)["files"][0]["url"] is None
    assert f"1 file without a blob: names were sought relative to {str(tmp_path.parent)!r}" in (
        missed.stderr
    )
