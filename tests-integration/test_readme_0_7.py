"""The code blocks of 0.7's README run as they stand.

Each block runs unchanged in a process of its own. `https://example.com` is served on loopback: a
TLS server with a certificate for that name, reached through `HTTPS_PROXY`, as behind a firewall.
What a block takes as given (a job id, a path, command line arguments) stands in a prelude.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra_core.azure.testing import AzuriteServer
from infra_core.http.testing import FaultyOrigin

README = Path(__file__).parent / "data" / "readme-0.7.md"
BLOCKS = re.findall(
    r"^## (.*?)\n\n```python\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
)

RUNNER = """
import ast, asyncio, inspect, runpy, sys
from pathlib import Path
prelude, block, check = (Path(name).read_text("utf-8") for name in sys.argv[1:4])
sys.argv = ["cli", *sys.argv[4:]]
namespace = {"__name__": "__main__"}
exec(compile(prelude, "prelude", "exec"), namespace)
code = compile(block, "README", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, namespace))
else:
    try:
        exec(code, namespace)
    except namespace.get("EXPECTED", ()) as error:
        namespace["error"] = error
exec(compile(check, "check", "exec"), namespace)
"""


@dataclass(frozen=True)
class Case:
    """What surrounds a block: what it takes as given, and what must hold afterwards."""

    prelude: str = ""
    check: str = ""
    arguments: tuple[str, ...] = ()


CASES = {
    "HTTP Fetching": [
        Case(check="import asyncio\nassert html == asyncio.run(load_async()) == '<h1>example</h1>'")
    ],
    "Storage with Optional Azure Mirroring": [
        Case(
            check="assert asset_path.path.read_bytes() == b'picture'\n"
            "assert asset_path.reused is False\n"
            "assert storage.download_to_path(Path('output/results.json'))\n"
            "storage.close()"
        )
    ],
    "Run Storage Manifests": [
        Case(
            prelude="from pathlib import Path\n"
            "outputs = Path('/tmp/runs/batch-123/job-456/outputs')\n"
            "outputs.mkdir(parents=True, exist_ok=True)\n"
            "(outputs / 'screenshot.png').write_bytes(b'x' * 10)\n"
            "(outputs / 'metadata 1.json').write_bytes(b'{}')",
            check="files = {f['path']: f for f in manifest['files']}\n"
            "assert files['screenshot.png']['type'] == 'image'\n"
            "assert files['screenshot.png']['content_type'] == 'image/png'\n"
            "assert files['metadata 1.json']['url'].endswith('/outputs/metadata%201.json')\n"
            "assert 'sig=' not in str(manifest)\n"
            "assert manifest['storage']['provider'] == 'azure_blob'\n"
            "assert manifest['storage']['container'] == 'blocks'\n"
            "assert manifest['storage']['prefix'].endswith('runs/batch-123/job-456/outputs')\n"
            "assert manifest['summary'] == {'total_files': 2, 'total_size_bytes': 12,"
            " 'file_types': {'image': 1, 'data': 1}}\n"
            "azure_client.close()",
        ),
        Case(
            prelude="manifest = {'storage_path': 'x', 'blob_prefix': 'y', 'storage': {},"
            " 'files': [{'path': 'a', 'url': 'u'}]}"
        ),
    ],
    "Concurrent Task Runtime": [Case()],
    "Status Polling": [
        Case(
            prelude="from types import SimpleNamespace\n"
            "from infra_core.polling import PollingTimeoutError\n"
            "from infra_core.runtime.testing import fast_time\n"
            "switch = fast_time()\nswitch.__enter__()\n"
            "api_client = SimpleNamespace(get_status=lambda job: {'status': 'completed'})\n"
            "job_id = 'job-1'\nEXPECTED = PollingTimeoutError",
            # the status of the block never becomes terminal: 600 seconds later that is said
            check="assert result == {'status': 'completed'}\n"
            "assert error.last_response == {'status': 'running', 'progress': 50}",
        )
    ],
    "Storage mirroring & downloads": [
        Case(
            prelude="from pathlib import Path\npath = Path('notes/a.txt').absolute()\n"
            "target_path = path.parent",
            check="assert path.read_text() == 'content'\nclient.close()",
        )
    ],
    "Monitoring & telemetry": [Case(check="assert client.flush(5.0)")],
    "CLI wiring example": [Case(arguments=("batch-7", "--concurrency", "2"))],
    "Logging": [Case()],
    "OpenTelemetry/trace correlation": [
        Case(
            prelude="import logging\nfrom pathlib import Path\n"
            "from infra_core import download_asset_async\n"
            "url, dest = 'https://example.com/image.png', Path('traced.png')",
            check="assert dest.read_bytes() == b'picture'",
        )
    ],
}


def cases() -> Iterator[object]:
    seen: dict[str, int] = {}
    for heading, block in BLOCKS:
        number = seen.get(heading, 0)
        seen[heading] = number + 1
        yield pytest.param(block, CASES[heading][number], id=f"{heading}-{number}")


@pytest.mark.parametrize(("block", "case"), list(cases()))
def test_block_of_the_0_7_readme_runs_as_it_stands(
    block: str,
    case: Case,
    example_com: dict[str, str],
    azurite: AzuriteServer,
    tmp_path: Path,
) -> None:
    """A user of 0.7 upgrades, and the pasted code goes on working."""
    (tmp_path / "prelude.py").write_text(case.prelude, encoding="utf-8")
    (tmp_path / "block.py").write_text(block, encoding="utf-8")
    (tmp_path / "check.py").write_text(case.check, encoding="utf-8")
    kept = {k: v for k, v in os.environ.items() if not k.upper().endswith("_PROXY")}
    with FaultyOrigin() as functions:
        functions.add(
            "/api/run", json.dumps({"accepted": True}).encode(), content_type="application/json"
        )
        done = subprocess.run(
            [
                *(sys.executable, "-W", "error::ResourceWarning", "-c", RUNNER),
                *("prelude.py", "block.py", "check.py"),
                *case.arguments,
            ],
            cwd=tmp_path,
            env=kept
            | example_com
            | {
                "AZURE_STORAGE_CONTAINER": "blocks",
                "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
                "MYSERVICE_AZURE_STORAGE_CONTAINER": "blocks",
                "MYSERVICE_AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
                "CRAWLER_AZURE_STORAGE_CONTAINER": "blocks",
                "CRAWLER_AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
                "AZURE_FUNCTION_BASE_URL": functions.base_url,
                "AZURE_FUNCTION_API_KEY": "key-1",
            },
            capture_output=True,
            text=True,
            timeout=50,
        )
        requests = [(r.method, r.path, r.body) for r in functions.requests]
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr
    if case.arguments:
        assert requests == [
            ("POST", "/api/run", json.dumps({"batchId": "batch-7", "concurrency": 2}).encode())
        ] or json.loads(requests[0][2]) == {"batchId": "batch-7", "concurrency": 2}
        assert done.stdout.strip() == "{'accepted': True}"


def test_every_block_has_its_case() -> None:
    """No block of the README is left out."""
    assert {heading for heading, _ in BLOCKS} == set(CASES)
    assert len(BLOCKS) == sum(len(group) for group in CASES.values())
