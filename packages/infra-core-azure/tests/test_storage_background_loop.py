"""Synchronous storage methods end wherever they are called from."""

from pathlib import Path

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
