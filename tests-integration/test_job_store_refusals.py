"""What the Table stores say to a wrong key, a missing table and an account that does not answer."""

import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableError,
    AzureTableJobStore,
    JobRecord,
    TableConfig,
    _table,
)
from infra_core.azure.testing import AzuriteServer
from infra_core.runtime import run_sync


def _sync(config: TableConfig, use: Callable[[Any], Any]) -> Any:
    with AzureTableJobStore(config=config) as store:
        return use(store)


def _async(config: TableConfig, use: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with AsyncAzureTableJobStore(config=config) as store:
            return await use(store)

    return run_sync(run())


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's retries wait for minutes, and change no message."""
    options = {"retry_total": 0, "connection_timeout": 5, "read_timeout": 5}
    monkeypatch.setattr(_table, "CLIENT_OPTIONS", options)


@pytest.mark.parametrize("run", [_sync, _async])
@pytest.mark.parametrize(
    ("use", "doing"),
    [
        (lambda s: s.fetch("b", "j"), "fetching job 'j' of batch 'b'"),
        (lambda s: s.create(JobRecord("b", "j")), "storing job 'j' of batch 'b'"),
        (lambda s: s.save(JobRecord("b", "j")), "storing job 'j' of batch 'b'"),
        (lambda s: s.save_many([JobRecord("b", "j")]), "storing job 'j' of batch 'b'"),
        (lambda s: s.list_runs("b"), "listing batch 'b'"),
        (lambda s: s.delete("b", "j"), "deleting job 'j' of batch 'b'"),
    ],
)
def test_every_operation_names_a_wrong_key_and_a_dead_account(
    azurite: AzuriteServer, run: Callable[..., Any], use: Callable[[Any], Any], doing: str
) -> None:
    """In one line: what was tried, where, why, and what to check."""
    good = azurite.connection_string
    wrong_key = re.sub("AccountKey=[^;]+", "AccountKey=d3Jvbmc=", good)
    dead = azurite.connection_string_for(table_url="http://127.0.0.1:1/devstoreaccount1")
    for connection, why, remedy in (
        (wrong_key, "failed with status 403", "check the account key"),
        (dead, "the connection was refused", "that the service runs"),
    ):
        with pytest.raises(AzureTableError) as caught:
            run(TableConfig(connection, "jobs"), use)
        text = str(caught.value)
        assert text.startswith(f"{doing} in the job table 'jobs' at http://127.0.0.1:")
        assert why in text
        assert remedy in text
        assert not any(inside in text for inside in ("\n", "Content", "ssl:default", "d3Jvbmc"))


def test_a_table_that_went_away_is_not_a_job_that_is_missing(azurite: AzuriteServer) -> None:
    """fetch answers None for a job that is not there, and raises when the table is not."""
    config = TableConfig(azurite.connection_string, f"gone{uuid.uuid4().hex[:12]}")
    with AzureTableJobStore(config=config) as store:
        job = store.save(JobRecord("b", "j"))
        store.client.delete_table()
        uses: tuple[Callable[[], object], ...] = (
            lambda: store.fetch("b", "j"),
            lambda: store.save(JobRecord("b", "k")),
            lambda: store.update(job),
            lambda: store.delete("b", "j"),
            lambda: list(store.iter_runs("b")),
        )
        for use in uses:
            with pytest.raises(AzureTableError, match="create the table"):
                use()
        assert not store.table_exists()
