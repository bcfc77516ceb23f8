"""The Table job stores against a real Azurite: the checks of every store, sync and async."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    JobRecord,
    JobStore,
    TableConfig,
)
from infra_core.azure.job_store.conformance import JobStoreConformance
from infra_core.azure.testing import AzuriteServer
from infra_core.runtime import run_sync


@pytest.fixture(scope="module")
def table(azurite: AzuriteServer) -> TableConfig:
    """The table that the checks share; each works in a batch of its own."""
    return TableConfig(azurite.connection_string, f"jobs{uuid.uuid4().hex[:12]}")


class TestTable(JobStoreConformance):
    """The suite that every job store passes, on Azure Table storage."""

    model_examples = 3

    @pytest.fixture(autouse=True)
    def _config(self, table: TableConfig) -> None:
        self.config = table

    def open_store(self, record_type: type[Any] = JobRecord) -> JobStore[Any]:
        """Open a store of the shared table."""
        return AzureTableJobStore(record_type=record_type, config=self.config)


class _Awaited:
    """An asynchronous store as a synchronous one, so that the same checks can run on it."""

    def __init__(self, store: AsyncAzureTableJobStore[Any]) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return run_sync(method(*args, **kwargs), what=name)

        return call

    def iter_runs(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        found = self._store.iter_runs(*args, **kwargs)

        async def collect() -> list[Any]:
            return [record async for record in found]

        return iter(run_sync(collect(), what="iter_runs"))

    def __enter__(self) -> "_Awaited":
        return self

    def __exit__(self, *_: object) -> None:
        run_sync(self._store.close(), what="close")


class TestAsyncTable(JobStoreConformance):
    """The same suite on the asynchronous twin."""

    model_examples = 2

    @pytest.fixture(autouse=True)
    def _config(self, table: TableConfig) -> None:
        self.config = table

    def open_store(self, record_type: type[Any] = JobRecord) -> Any:
        """Open a store of the shared table."""
        return _Awaited(AsyncAzureTableJobStore(record_type=record_type, config=self.config))
