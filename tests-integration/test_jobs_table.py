"""`infra-core jobs` and the worker over a table."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    JobRecord,
    TableConfig,
    work_batch_async,
)
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
from infra_core.azure.testing import AzuriteServer
from infra_core.cli import main


def point_at(monkeypatch: pytest.MonkeyPatch, azurite: AzuriteServer, table: str) -> TableConfig:
    """Set the environment to a table."""
    monkeypatch.setenv("AZURE_JOB_TABLE", table)
    monkeypatch.setenv("AZURE_JOB_CONNECTION", azurite.connection_string)
    return TableConfig(azurite.connection_string, table)


@pytest.mark.parametrize("verb", [["list", "b"], ["retry", "b"], ["batches"], ["delete", "b"]])
def test_a_mistyped_table_is_not_made(
    azurite: AzuriteServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    verb: list[str],
) -> None:
    """The error names the table and the variable."""
    config = point_at(monkeypatch, azurite, "mistyped")
    assert main(["jobs", *verb]) == 2
    assert "no table 'mistyped'; check AZURE_JOB_TABLE" in capsys.readouterr().err
    with AzureTableJobStore(config=config) as store:
        assert not store.table_exists()


def test_failed_jobs_of_a_table_are_put_back_and_worked_at(
    azurite: AzuriteServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In batches by the command, then by a worker over the asynchronous store."""
    config = point_at(monkeypatch, azurite, "putback")
    with AzureTableJobStore(config=config) as store:
        store.save_many(JobRecord("b", f"{n:03}").start().fail("no") for n in range(105))
        assert main(["jobs", "retry", "b"]) == 0
        assert capsys.readouterr().out.startswith("105 jobs put back")
        store.prune(older_than=timedelta(0), status="pending", batch_id="b")
        store.save_many(JobRecord("b", f"{n:03}") for n in range(20))

    async def work() -> None:
        async def handler(job: JobRecord) -> dict[str, str]:
            return {"seen": job.job_id}

        async with AsyncAzureTableJobStore(config=config) as store:
            done = await work_batch_async(store, "b", handler, concurrency=8)
            assert done.completed == 20

    asyncio.run(work())
    with AzureTableJobStore(config=config) as store:
        assert store.count_by_status("b") == {"completed": 20}
        job = store.fetch("b", "007")
        assert job is not None
        assert job.payload == {"seen": "007"}


def test_the_blobs_of_a_run_are_deleted_with_its_jobs_on_request(
    azurite: AzuriteServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """Those below its name alone; also where its folder is not on this machine."""
    config = point_at(monkeypatch, azurite, "withblobs")
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "withblobs")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    settings, mode = AzureStorageSettings.from_env()
    with (
        AzureTableJobStore(config=config) as store,
        AzureStorageClient.from_settings(settings, mode, base_path=tmp_path) as storage,
    ):
        store.create(JobRecord("b", "1").start().complete())
        for name in ("b/assets/1", "b/2", "b2/3"):
            storage.upload_text(tmp_path / name, "x")
        assert main(["jobs", "delete", "b", "--out", str(tmp_path), "--blobs"]) == 0
        assert capsys.readouterr().out == "1 job, 2 blobs deleted\n"
        assert [name for name, _ in storage.list_tree(tmp_path)] == ["b2/3"]
        with pytest.raises(ValueError, match="is the base folder"):
            storage.delete_tree(tmp_path)
