"""`infra-core trigger` against a local server that plays the Functions host."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.azure.function_testing import FunctionsHost
from infra_core.cli import main


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[FunctionsHost]:
    monkeypatch.setenv("AZURE_FUNCTION_API_KEY", "key-1")
    with FunctionsHost(api_key="key-1") as server:
        yield server


def test_batch_is_scheduled_polled_and_summed_up(
    host: FunctionsHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every state is shown, the output lands in the summary, no key does."""
    host.orchestrator("/api/run", ["Pending", "Running", "Completed"], output={"pages": 3})
    path = tmp_path / "summary.json"
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--poll-interval", "0.01"]
    assert main([*arguments, "--summary-file", str(path), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["output"] == {"pages": 3}
    assert "Running" in shown.err
    stored = path.read_text(encoding="utf-8")
    assert json.loads(stored)["status"] == "Completed"
    assert "key-1" not in stored + shown.out + shown.err


def test_failed_batch_gives_exit_code_1(
    host: FunctionsHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """The body decides, whatever the status code says."""
    host.orchestrator("/api/run", ["Running", "Failed"], output="boom")
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--poll-interval", "0.01"]
    assert main(arguments) == 1
    assert "boom" in capsys.readouterr().out


def test_missing_base_url_and_bad_payload_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable that would do is named."""
    monkeypatch.delenv("AZURE_FUNCTION_BASE_URL", raising=False)
    assert main(["trigger", "b1"]) == 2
    assert "AZURE_FUNCTION_BASE_URL" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["trigger", "b1", "--payload", "[1]"])
    assert stop.value.code == 2
