"""Synchronous storage methods end wherever they are called from."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.runtime import in_background_loop, run_sync


def test_blocking_the_background_loop_with_a_storage_call_is_no_deadlock(tmp_path: Path) -> None:
    """A coroutine on the background loop calls a synchronous method, and it returns."""
    settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    client = AzureStorageClient.from_settings(settings, mode, base_path=tmp_path)

    async def write() -> Path:
        assert in_background_loop()
        return client.write_json(tmp_path / "a.json", {"ok": True})

    try:
        assert run_sync(write(), timeout=20).read_text() == '{\n  "ok": true\n}\n'
        assert not in_background_loop()
    finally:
        client.close()


LATE = {
    "atexit": "atexit.register(call)",
    "thread": "threading.Thread(target=lambda: (threading.main_thread().join(), call())).start()",
}


@pytest.mark.parametrize("when", LATE)
@pytest.mark.parametrize(
    ("call", "written"),
    [
        ('client.write_text(base / "a", "x")', ["a"]),
        ('client.upload_text(base / "a", "x")', ["a"]),
        ("client.upload_tree(base)", ["b"]),
    ],
)
def test_first_call_comes_once_the_main_thread_has_ended(
    call: str, written: list[str], when: str, tmp_path: Path, blob_server: Any
) -> None:
    """A client that was made in time uploads, whatever has not been imported by then."""
    blobs: list[str] = []

    def answer(method: str, path: str, headers: Any, body: bytes) -> Any:
        if method == "PUT":
            blobs.append(path.rpartition("/")[2])
            return 201, {"ETag": '"1"'}, b""
        return 404, {"x-ms-error-code": "ContainerNotFound"}, b""

    server = blob_server(answer)
    (tmp_path / "b").write_text("x")
    code = (
        "import atexit, threading\n"
        "from pathlib import Path\n"
        "from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings\n"
        f"base = Path({str(tmp_path)!r})\n"
        f"settings = AzureStorageSettings('box', {server.connection_string!r},"
        " journal=base.parent / 'journal')\n"
        "client = AzureStorageClient.from_settings(settings, 'strict', base_path=base)\n"
        f"def call(): {call}\n"
        f"{LATE[when]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert blobs == written
