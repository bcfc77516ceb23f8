"""Fixtures for the tests of services that stand on infra-core; pytest finds them by itself.

| fixture | scope | what it is |
|---|---|---|
| `fast_time` | test | waits of infra-core take no time; see `infra_core.runtime.testing` |
| `faulty_origin` | test | a web server on loopback that misbehaves on request |
| `functions_host` | test | a local server that plays an Azure Functions app and durable functions |
| `azurite` | session | a real Azurite on free ports, installed on first use |
| `job_store` | test | an embedded job store (SQLite) in the test's own folder |
| `local_storage` | test | a storage client that keeps files in the test's own folder |

A fixture of the same name in your `conftest.py` takes precedence. Nothing of infra-core is imported
before a fixture is used.

Example:
    ::

        def test_my_crawler_survives_a_503(faulty_origin, fast_time):
            faulty_origin.add("/page", b"hello", faults=[status(503)])
            assert crawl(faulty_origin.url("/page")) == "hello"
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from infra_core.azure.function_testing import FunctionsHost
    from infra_core.azure.job_store import JobRecord, SqliteJobStore
    from infra_core.azure.storage import AzureStorageClient
    from infra_core.azure.testing import AzuriteServer
    from infra_core.http.testing import FaultyOrigin
    from infra_core.runtime.testing import FastTime

__all__ = [
    "azurite",
    "fast_time",
    "faulty_origin",
    "functions_host",
    "job_store",
    "local_storage",
]


@pytest.fixture
def fast_time() -> "Iterator[FastTime]":
    """Sleeps and waits of infra-core return at once and move its clock; `.slept` lists them."""
    from infra_core.runtime.testing import fast_time as switch

    with switch() as time:
        yield time


@pytest.fixture
def faulty_origin() -> "Iterator[FaultyOrigin]":
    """A web server on loopback that misbehaves on request."""
    from infra_core.http.testing import FaultyOrigin

    with FaultyOrigin() as origin:
        yield origin


@pytest.fixture
def functions_host() -> "Iterator[FunctionsHost]":
    """A local server that plays an Azure Functions app and durable functions."""
    from infra_core.azure.function_testing import FunctionsHost

    with FunctionsHost() as host:
        yield host


@pytest.fixture(scope="session")
def azurite() -> "Iterator[AzuriteServer]":
    """A real Azurite, in memory, for the whole session; installed on first use."""
    from infra_core.azure.testing import AzuriteServer

    with AzuriteServer() as server:
        yield server


@pytest.fixture
def job_store(tmp_path: Path) -> "Iterator[SqliteJobStore[JobRecord]]":
    """An embedded job store in the test's own folder."""
    from infra_core.azure.job_store import JobRecord, SqliteJobStore

    with SqliteJobStore(tmp_path / "jobs.sqlite3", JobRecord) as store:
        yield store


@pytest.fixture
def local_storage(tmp_path: Path) -> "Iterator[AzureStorageClient]":
    """A storage client that keeps files in the test's own folder and uploads nothing."""
    from infra_core.batch._environment import open_storage

    with open_storage({}, base_path=tmp_path) as client:
        yield client
