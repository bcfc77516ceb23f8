"""`infra-core doctor` says what is missing, what cannot be reached, and never a secret."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.azure.monitoring.testing import IngestionServer
from infra_core.cli import main
from infra_core.cli._doctor import remedy_for_silence
from infra_core.http.testing import FaultyOrigin

KEY = "c2VjcmV0LWtleS0xMjM0NTY3ODkwYWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo="


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    network = ("_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "_CA_BUNDLE", "NETRC")
    for name in list(os.environ):
        if (
            "AZURE_" in name
            or name.startswith(("APPLICATIONINSIGHTS_", "APPINSIGHTS_"))
            or name.upper().endswith(network)
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/no/such/home")  # where a netrc file would lie


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as held:  # so that no other server gets it
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def looked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, str]]:
    """Run the doctor; its findings by name, with the exit code under `code`."""
    code = main(["doctor", "--json", *arguments])
    shown = capsys.readouterr()
    assert KEY not in shown.out + shown.err
    findings = {item["name"]: item for item in json.loads(shown.out)}
    findings["code"] = {"state": str(code)}
    return findings


def test_what_is_not_configured_is_no_problem(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line names the variable that would turn it on."""
    found = looked(capsys)
    assert found.pop("code") == {"state": "0"}
    assert {item["state"] for item in found.values()} == {"off"}
    assert "AZURE_STORAGE_CONTAINER" in found["storage"]["remedy"]
    assert "AZURE_JOB_TABLE" in found["jobs"]["remedy"]
    assert "AZURE_FUNCTION_BASE_URL" in found["functions"]["remedy"]
    assert "APPLICATIONINSIGHTS_CONNECTION_STRING" in found["telemetry"]["remedy"]


def test_prefix_names_the_variables_of_one_service(capsys: pytest.CaptureFixture[str]) -> None:
    """The remedy is the one of that service."""
    found = looked(capsys, "--prefix", "CRAWLER")
    assert "CRAWLER_AZURE_STORAGE_CONTAINER" in found["storage"]["remedy"]


def test_incomplete_settings_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A container without credentials, a table without a connection."""
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "artifacts")
    monkeypatch.setenv("AZURE_JOB_TABLE", "runs")
    found = looked(capsys)
    assert found["code"] == {"state": "1"}
    assert found["storage"]["state"] == found["jobs"]["state"] == "problem"
    assert "AZURE_STORAGE_CONNECTION_STRING" in found["storage"]["detail"]
    assert "AZURE_JOB_CONNECTION" in found["jobs"]["detail"]


def test_services_out_of_reach_are_problems_and_keys_stay_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], closed_port: int
) -> None:
    """Nothing listens there: reported within the time given, without the key."""
    address = f"http://127.0.0.1:{closed_port}"
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName=acc;AccountKey={KEY};"
        f"BlobEndpoint={address}/acc;TableEndpoint={address}/acc"
    )
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "artifacts")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    # Nothing is tried again: the refusal is shown, and no silence.
    monkeypatch.setenv("AZURE_STORAGE_MAX_RETRIES", "9")
    monkeypatch.setenv("AZURE_STORAGE_BACKOFF", "20")
    monkeypatch.setenv("AZURE_JOB_TABLE", "runs")
    monkeypatch.setenv("AZURE_FUNCTION_BASE_URL", f"{address}/?code={KEY}")
    monkeypatch.setenv(
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        f"InstrumentationKey=00000000-0000-0000-0000-000000000001;IngestionEndpoint={address}",
    )
    found = looked(capsys, "--timeout", "5")
    assert found.pop("code") == {"state": "1"}
    assert found.pop("network")["state"] == "off"
    assert {item["state"] for item in found.values()} == {"problem"}
    assert "refused the connection" in found["functions"]["detail"]
    assert "refused the connection" in found["storage"]["detail"]


def test_a_journal_that_cannot_be_used_is_a_problem_of_best_effort(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It is what uploads that fail are kept in."""
    (tmp_path / "journal").write_text("no database, but as long as one would have to be")
    connection = f"AccountName=acc;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:1/acc"
    monkeypatch.setenv("AZURE_STORAGE_CONTAINER", "artifacts")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
    monkeypatch.setenv("AZURE_STORAGE_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("AZURE_STORAGE_MODE", "best-effort")
    found = looked(capsys, "--timeout", "20")
    assert found["storage"]["state"] == "problem"
    assert "set AZURE_STORAGE_JOURNAL to a file" in str(found["storage"])


def test_services_that_answer_are_fine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any answer of a web server will do: what it says is its own business."""
    with FaultyOrigin() as functions, IngestionServer() as ingestion:
        monkeypatch.setenv("AZURE_FUNCTION_BASE_URL", functions.base_url)
        monkeypatch.setenv("APPLICATIONINSIGHTS_CONNECTION_STRING", ingestion.connection_string)
        found = looked(capsys)
    assert found["functions"]["state"] == found["telemetry"]["state"] == "ok"
    assert "HTTP 404" in found["functions"]["detail"]


def test_people_get_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    """State, name, finding; the remedy below."""
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9
    assert lines[0].startswith("     off storage: not configured")


def test_the_timeout_holds_for_the_command_as_a_whole(tmp_path: Path) -> None:
    """Services that take a connection and say nothing: the process ends all the same."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        # The SDK itself would wait for 300 s, several times.
        connection = (
            "DefaultEndpointsProtocol=http;AccountName=acc;AccountKey=a2V5;"
            f"BlobEndpoint=http://127.0.0.1:{port}/acc;TableEndpoint=http://127.0.0.1:{port}/acc"
        )
        done = subprocess.run(
            [sys.executable, "-m", "infra_core.cli", "doctor", "--timeout", "1", "--json"],
            env={
                **os.environ,
                "AZURE_STORAGE_CONTAINER": "box",
                "AZURE_STORAGE_CONNECTION_STRING": connection,
                "AZURE_JOB_TABLE": "jobs",
                "AZURE_FUNCTION_BASE_URL": f"http://127.0.0.1:{port}",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=tmp_path,
        )
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    for name in ("storage", "jobs", "functions"):
        assert "no answer within 1 s" in checks[name]["detail"], checks[name]
    assert "AZURE_STORAGE_CONNECTION_STRING" in checks["storage"]["remedy"]
    by_credential = remedy_for_silence("storage", {"AZURE_STORAGE_ACCOUNT": "acc"}, None)
    assert "token endpoint of its credential" in by_credential


def test_the_network_settings_in_force_are_shown_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Proxies, exceptions and certificates as all packages read them."""
    bundle = tmp_path / "ca.pem"
    bundle.touch()
    monkeypatch.setenv("HTTPS_PROXY", "user:hunter2@proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", "localhost, 10.0.0.0/8")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    found = looked(capsys)["network"]
    assert found["state"] == "ok"
    assert found["detail"] == (
        "HTTPS_PROXY=http://***@proxy.example:3128, NO_PROXY=localhost,10.0.0.0/8, "
        f"REQUESTS_CA_BUNDLE={bundle}"
    )
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter2@proxy:port")
    bundle.unlink()
    found = looked(capsys)["network"]
    assert found["state"] == "problem"
    assert "HTTP_PROXY=*** is not a proxy URL (its port" in found["detail"]
    assert f"{bundle} does not exist" in found["detail"]
    assert "hunter2" not in str(found)
