"""The event loop that many services choose, uvloop, under tests of the packages."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("uvloop")


@pytest.mark.parametrize(
    "tests",
    [
        "infra-core-http/tests/test_download_disk.py",
        "infra-core-http/tests/test_download_load.py",
        "infra-core-polling/tests/test_polling_many.py",
        "infra-core-runtime/tests/test_task_runtime_run.py",
        "infra-core-azure/tests/test_storage_unreachable.py",
    ],
)
def test_tests_of_the_packages_pass_over_uvloop(tests: str) -> None:
    """Its order of callbacks, its timers and its transports are others than those of asyncio."""
    command = [sys.executable, "-m", "pytest", "--uvloop", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(ROOT / "packages" / tests)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
