"""Every way of `infra_core.http` makes the same of an odd answer, and what others make of it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[1] / "tools" / "odd_answers.py"


@pytest.mark.timeout(600)
def test_no_way_differs_from_another_nor_from_other_programs_without_a_reason() -> None:
    """Statuses, framings, codings, redirects, charsets and headers, byte for byte."""
    done = subprocess.run(
        [sys.executable, str(TOOL)], capture_output=True, text=True, check=False, timeout=590
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " answers, 0 with a difference that has no reason" in done.stdout
    assert "names a body" not in done.stdout
    if shutil.which("curl") is None:
        pytest.skip("compared with requests and httpx alone: curl is not installed")
