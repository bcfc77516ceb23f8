"""What several tests of this package share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.job_store import JobRecord, SqliteJobStore
from infra_core.batch._download import Downloads


@pytest.fixture
def no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of Azure is set, whatever the machine has."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "APPLICATIONINSIGHTS_")):
            monkeypatch.delenv(name)


class SharedTable:
    """A job store that several runs may share, as a table is: no file of this machine."""

    def __init__(self, store: SqliteJobStore[JobRecord]) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "path":
            raise AttributeError(name)
        return getattr(self._store, name)


@pytest.fixture
def shared_table(tmp_path: Path) -> Iterator[Any]:
    """A job store that counts as shared."""
    with SqliteJobStore(tmp_path / "shared.sqlite3") as store:
        yield SharedTable(store)


@pytest.fixture(params=["here", "processes"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options to download in this process, and as worker processes do."""
    monkeypatch.setattr("infra_core.batch._workers.ProcessWorkers", Downloads)
    return {} if request.param == "here" else {"processes": 2}
