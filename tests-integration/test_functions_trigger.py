"""A batch in a function app, triggered from the command line, its summary mirrored to blobs."""

import argparse
import json
import uuid
from pathlib import Path

import pytest

from infra_core.azure.function_cli import add_azure_service_arguments, trigger_batch
from infra_core.azure.function_testing import FunctionsHost
from infra_core.azure.storage import AzureStorageSettings, get_client, reset_all_clients
from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import hang_up, status
from infra_core.runtime.testing import fast_time


@pytest.mark.parametrize("state", ["Completed", "Failed"])
def test_the_summary_of_a_batch_lands_in_the_container(
    azurite: AzuriteServer, tmp_path: Path, state: str
) -> None:
    """Scheduled with the key, followed through faults, written locally and mirrored."""
    container = f"summaries-{uuid.uuid4().hex[:8]}"
    settings, mode = AzureStorageSettings.from_env(
        env={
            "AZURE_STORAGE_CONTAINER": container,
            "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
        }
    )
    parser = argparse.ArgumentParser()
    add_azure_service_arguments(parser, base_url_env_var="AZURE_FUNCTION_BASE_URL")
    summary_file = tmp_path / "summary.json"
    args = parser.parse_args(["batch-7", "--summary-file", str(summary_file)])
    with FunctionsHost(api_key="sesame") as host, fast_time():
        host.orchestrator(
            "/api/run",
            ["Pending", "Running", state],
            output={"jobs": 3},
            retry_after=1,
            faults=[status(503)],
            status_faults=[status(404), hang_up()],
        )
        storage = get_client(settings, mode)
        summary = trigger_batch(
            args,
            env={"AZURE_FUNCTION_BASE_URL": host.base_url, "AZURE_FUNCTION_API_KEY": "sesame"},
            storage=storage,
        )
        assert summary.status == state
        local = summary_file.read_bytes()
        summary_file.unlink()
        assert storage.download_to_path(summary_file)
        assert summary_file.read_bytes() == local
        written = json.loads(local)
        assert written["succeeded"] is (state == "Completed")
        assert host.system_key.encode() not in local
        assert host.origin.count("/api/run") == 2
    reset_all_clients()
