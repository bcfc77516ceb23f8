"""Users of 0.7 upgrade without a surprise: 0.7.6 itself beside ours, on the same probes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra_core.azure.function_testing import FunctionsHost
from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import FaultyOrigin

COMPARE = Path(__file__).resolve().parent.parent / "tools" / "compare_0_7" / "compare.py"
NO_REGISTRY = 3
EXAMPLES = sorted((Path(__file__).parent / "data" / "examples-0.7").glob("*.py"))
PRINTED = {
    "azure_function_and_job_store": "status='submitted'",
    "bounded_async_runtime": "processed 5",
    "download_and_mirror_asset": "mirrored to blob",
    "http_fetch_with_retries": "healthy",
    "poll_remote_job": "'status': 'succeeded'",
}


def compare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(COMPARE), *arguments], capture_output=True, text=True, timeout=560
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="printed forms of enums changed with 3.11")
@pytest.mark.timeout(600)
def test_only_what_the_migration_page_lists_differs() -> None:
    """Values, errors, log records, rows, blobs, files; and data, both ways."""
    done = compare()
    if done.returncode == NO_REGISTRY:
        pytest.skip(f"the registry is out of reach: {done.stdout[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_of_0_7_run(
    example: Path, azurite: AzuriteServer, functions_host: FunctionsHost, tmp_path: Path
) -> None:
    """As 0.7 shipped them; only the hosts that they name are servers on loopback."""
    functions_host.function("/jobs", {"job_id": "job-1", "state": {"queued": True}})
    with FaultyOrigin() as origin:
        origin.add("/healthz", b"healthy")
        origin.add("/static/img/python-logo.png", b"\x89PNG", content_type="image/png")
        text = example.read_text(encoding="utf-8")
        for host in ("https://example.com", "https://www.python.org"):
            text = text.replace(host, origin.base_url)
        script = tmp_path / example.name
        script.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-W", "error::ResourceWarning", str(script)],
            cwd=tmp_path, capture_output=True, text=True, timeout=50,
            env={
                **os.environ,
                "MYAPP_AZURE_FUNCTION_BASE_URL": functions_host.base_url,
                "MYAPP_AZURE_FUNCTION_API_KEY": "key",
                "AZURE_JOB_CONNECTION": azurite.connection_string,
                "AZURE_JOB_TABLE": "examples",
                "CRAWLER_AZURE_STORAGE_CONTAINER": "examples",
                "CRAWLER_AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
            },
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert PRINTED[example.stem] in done.stdout
