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


@pytest.mark.parametrize("when", LATE)
def test_first_call_of_an_app_comes_once_the_main_thread_has_ended(
    when: str, blob_server: Any
) -> None:
    """As of storage: a last word to an app on the way out."""
    asked: list[str] = []

    def answer(method: str, path: str, headers: Any, body: bytes) -> Any:
        asked.append(f"{method} {path}")
        return 200, {}, b"{}"

    port = blob_server(answer).http.server_address[1]
    code = (
        "import atexit, threading\n"
        "from infra_core.azure.client import AzureFunctionSyncClient\n"
        f"client = AzureFunctionSyncClient('http://127.0.0.1:{port}')\n"
        "def call(): client.get_json('/api/end')\n"
        f"{LATE[when]}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, asked) == (0, "", ["GET /api/end"])


@pytest.mark.parametrize("module", ["client", "storage", "job_store", "monitoring"])
def test_an_import_starts_nothing(module: str) -> None:
    """No thread, and nothing to be done at exit: that is for who makes a client."""
    code = (
        "import atexit, logging, threading\n"  # which has a hook of its own
        "before = atexit._ncallbacks()\n"
        f"import infra_core.azure.{module}\n"
        "print(threading.active_count(), atexit._ncallbacks() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["1", "0"]
