"""`infra-core trigger` against a local server that plays the Functions host."""

import errno
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.azure.function_testing import FunctionsHost
from infra_core.cli import main
from infra_core.http.testing import Exchange, Fault, status


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FunctionsHost]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
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


def test_a_batch_is_followed_to_its_end_when_the_reader_of_its_states_leaves(
    host: FunctionsHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`infra-core trigger ... 2>&1 >summary | head -1`."""

    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    host.orchestrator("/api/run", ["Pending", "Running", "Completed"], output={"pages": 3})
    monkeypatch.setattr(sys, "stderr", Gone())
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--poll-interval", "0.01"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "Completed"


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"<html>Sign in</html>", b'{"rows": 3}', b'{"runtimeStatus": 3}', b'{"ok": 1}'],
)
def test_only_a_status_that_says_so_is_a_success(
    host: FunctionsHost, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    """Neither of the starter nor of the status URL."""
    host.origin.add("/status", body=body)
    host.function("/api/run", {"statusQueryGetUri": "/status?code=s3cretkey99"}, status=202)
    host.origin.add("/api/direct", body=body)
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--poll-interval", "0.01"]
    assert main(arguments) == 1
    assert main([*arguments, "--path", "/api/direct"]) == 1
    shown = capsys.readouterr()
    assert "s3cretkey99" not in shown.out + shown.err


def test_a_scheduled_batch_is_waited_for_and_its_code_stands_nowhere(
    host: FunctionsHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--no-poll` says scheduled, `--wait` follows what was stored."""
    host.orchestrator("/api/run", ["Running", "Completed"], output=7)
    path = tmp_path / "summary.json"
    arguments = ["trigger", "b 1", "--base-url", host.base_url, "--summary-file", str(path)]
    assert main([*arguments, "--no-poll", "--json"]) == 0
    shown = capsys.readouterr()
    printed = json.loads(shown.out)
    assert printed["status"] == "Scheduled"
    assert (printed["scheduled"], printed["succeeded"]) == (True, False)
    assert "trigger 'b 1' --wait" in " ".join(shown.err.split())
    texts = [shown.out, shown.err, path.read_text()]
    assert main([*arguments, "--wait", "--poll-interval", "0.01"]) == 0
    shown = capsys.readouterr()
    assert json.loads(path.read_text())["output"] == 7
    assert len(host.instances("/api/run")) == 1
    assert not any(host.system_key in t for t in [*texts, shown.out, shown.err, path.read_text()])
    assert main(["trigger", "b2", "--base-url", host.base_url, "--wait"]) == 1
    assert "no triggered batch 'b2'" in capsys.readouterr().err


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
def test_a_refusal_says_what_the_app_said(
    host: FunctionsHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """409: an instance of this name runs already."""
    body = b'{"message": "instance nightly is running"}'
    host.origin.add("/api/run", always=status(409, body=body))
    assert main(["trigger", "b1", "--base-url", host.base_url]) == 1
    assert "instance nightly is running" in capsys.readouterr().err


def test_a_batch_that_takes_longer_and_a_refusal_say_what_to_do_in_a_line(
    host: FunctionsHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which command goes on waiting; and no traceback of what the server refused."""
    host.orchestrator("/api/run", ["Running"])
    arguments = ["trigger", "b1", "--base-url", host.base_url]
    assert main([*arguments, "--poll-timeout", "0.01"]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert f"infra-core trigger b1 --wait --base-url {host.base_url} follows it" in shown
    host.origin.add("/api/refused", always=status(401))
    assert main([*arguments, "--path", "/api/refused"]) == 1
    shown = capsys.readouterr().err
    assert "401" in shown
    assert "Traceback" not in shown


def test_what_an_orchestrator_writes_moves_no_cursor_and_fits_into_a_file(
    host: FunctionsHost, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control sequences are shown as text; half of a character is written as its escape."""
    host.orchestrator("/api/run", ["Completed"], output="\x1b[2Jdone \ud800")
    path = tmp_path / "summary.json"
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--summary-file", str(path)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "done" in shown
    assert json.loads(path.read_text(encoding="utf-8"))["output"] == "\x1b[2Jdone \\ud800"


@pytest.mark.posix(reason="it has no pthread_kill")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("polling", [True, False])
def test_a_signal_ends_the_wait_and_says_what_is_known(
    host: FunctionsHost,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    polling: bool,
) -> None:
    """How to go on where the batch was scheduled; that nothing is known before. The summary too."""
    ended = threading.Event()

    def kill(exchange: Exchange) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, number)
        ended.wait(60)

    faults = [Fault("signal", kill)]
    host.orchestrator("/api/run", ["Running"], **{"status_faults" if polling else "faults": faults})  # type: ignore[arg-type]
    path = tmp_path / "summary.json"
    arguments = ["trigger", "b1", "--base-url", host.base_url, "--summary-file", str(path)]
    code: object
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    finally:
        ended.set()
    assert code == 128 + number
    shown, summary = " ".join(capsys.readouterr().err.split()), json.loads(path.read_text())
    assert summary["error"] == "interrupted"
    if polling:
        assert "it goes on: infra-core trigger b1 --wait" in shown
        assert (summary["status"], summary["succeeded"]) == ("Scheduled", False)
    else:
        assert "whether it was scheduled is not known" in shown
        assert summary["status"] == "OutcomeUnknown"


def test_a_status_url_that_is_refused_is_not_blamed_on_the_functions_key(
    host: FunctionsHost, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status URL has a key of its own; the command says how to follow the batch."""
    host.origin.add("/status", always=status(401))
    host.function("/api/run", {"statusQueryGetUri": "/status?code=s3cretkey99"}, status=202)
    assert main(["trigger", "b1", "--base-url", host.base_url]) == 1
    shown = " ".join(capsys.readouterr().err.split())
    assert "AZURE_FUNCTION_API_KEY" not in shown
    assert "the key in the status URL may have been renewed" in shown
    assert "its end is not known: infra-core trigger b1 --wait" in shown
    assert "s3cretkey99" not in shown


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
