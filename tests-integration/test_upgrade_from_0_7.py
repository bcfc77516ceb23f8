"""Whoever runs 0.7 upgrades without a surprise: 0.7.6 itself beside ours, on the same probes."""

import subprocess
import sys
from pathlib import Path

import pytest

COMPARE = Path(__file__).resolve().parent.parent / "tools" / "compare_0_7" / "compare.py"
NO_REGISTRY = 3


def compare(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(COMPARE), *arguments], capture_output=True, text=True, timeout=560
    )


def test_every_name_of_0_7_is_there_with_its_parameters_and_bases() -> None:
    """Also dunder methods, fields in their order, printed enums, names outside of `__all__`."""
    done = compare("--surface")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(600)
def test_only_what_the_migration_page_lists_differs() -> None:
    """Values, errors, log records, rows, blobs, files; and data, both ways."""
    done = compare()
    if done.returncode == NO_REGISTRY:
        pytest.skip(f"the registry is out of reach: {done.stdout[-300:]}")
    assert done.returncode == 0, done.stdout + done.stderr
