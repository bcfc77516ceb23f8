"""The fixtures that users get, used as a user would."""

import subprocess
import sys
from pathlib import Path

from infra_core import fetch
from infra_core.azure.client import AzureFunctionAsyncClient
from infra_core.azure.function_testing import FunctionsHost
from infra_core.azure.job_store import JobRecord, SqliteJobStore
from infra_core.azure.storage import AzureStorageClient
from infra_core.http.testing import FaultyOrigin, status
from infra_core.runtime.testing import FastTime


def test_a_retry_takes_no_time(faulty_origin: FaultyOrigin, fast_time: FastTime) -> None:
    """The wait that the server asked for is recorded, not slept."""
    faulty_origin.add("/a", b"hello", faults=[status(503, retry_after="30")])
    assert fetch(faulty_origin.url("/a")) == "hello"
    assert fast_time.slept == [30.0]


def test_embedded_stores_are_fresh(
    job_store: SqliteJobStore[JobRecord], local_storage: AzureStorageClient, tmp_path: Path
) -> None:
    """Each test has its own folder."""
    job_store.create(JobRecord("b", "j"))
    local_storage.write_text(tmp_path / "a.txt", "a")
    assert not local_storage.is_configured()
    assert (tmp_path / "a.txt").read_text() == "a"


async def test_functions_host_answers(functions_host: FunctionsHost) -> None:
    """A client of the test's own talks to it."""
    functions_host.function("/api/x", {"n": 1})
    async with AzureFunctionAsyncClient(functions_host.base_url) as client:
        assert await client.get_json("/api/x") == {"n": 1}


def test_plugin_is_found_and_imports_nothing_of_ours(tmp_path: Path) -> None:
    """A test that uses no fixture of ours pays nothing for them."""
    (tmp_path / "test_user.py").write_text(
        "import sys\n"
        "def test_cheap(request):\n"
        "    assert request.config.pluginmanager.hasplugin('infra-core')\n"
        "    heavy = {'httpx', 'aiohttp', 'requests', 'infra_core.azure'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:respx",
         "-p", "no:pytest_httpx", "-p", "no:hypothesispytest", "-p", "no:anyio",
         "-p", "no:requests_mock", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
