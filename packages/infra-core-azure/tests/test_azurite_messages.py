"""What the test server says when it cannot start."""

import os
from pathlib import Path

import pytest

from infra_core.azure.testing import AzuriteServer, AzuriteUnavailable, find_azurite


@pytest.mark.posix(reason="a shell script stands in for Azurite")
def test_a_server_that_ended_is_not_said_to_be_slow(tmp_path: Path) -> None:
    """Its exit code and output say more than the time."""
    script = tmp_path / "azurite"
    script.write_text("#!/bin/sh\necho oops\nexit 3\n")
    script.chmod(0o755)
    env = {"INFRA_CORE_AZURITE": str(script), "PATH": os.environ["PATH"]}
    with pytest.raises(AzuriteUnavailable, match=r"ended with exit code 3 .*(?s:.)*oops"):
        AzuriteServer(env=env).start()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """With the variable it comes from."""
    file = tmp_path / "file"
    file.write_text("x")
    env = {"PATH": "", "INFRA_CORE_CACHE": str(file)}
    with pytest.raises(AzuriteUnavailable, match=r"INFRA_CORE_CACHE.*choose another"):
        find_azurite(env)


def test_a_server_that_was_not_started_has_no_connection_string() -> None:
    """One without endpoints would fail far from here."""
    with pytest.raises(AzuriteUnavailable, match="use it in a with block"):
        _ = AzuriteServer().connection_string


def test_a_startup_timeout_must_be_positive() -> None:
    """Zero would start it without success."""
    with pytest.raises(ValueError, match="startup_timeout=0 is out of range: pass seconds above 0"):
        AzuriteServer(startup_timeout=0)
