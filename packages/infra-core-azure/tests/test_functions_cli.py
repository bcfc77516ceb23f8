"""Command lines of function apps: arguments, and triggering a batch."""

import argparse
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest

from infra_core.azure._function_answers import keys_in, without_keys
from infra_core.azure.client import AzureFunctionAsyncClient, DurableInstance, DurableStatus
from infra_core.azure.exceptions import ConfigurationError, JobNotFoundError, OrchestrationError
from infra_core.azure.function_cli import (
    add_azure_service_arguments,
    build_function_client,
    trigger_batch,
    trigger_batch_async,
)
from infra_core.azure.function_testing import FunctionsHost
from infra_core.http import OutcomeUnknown
from infra_core.http.testing import Exchange, Fault, hang_up, status
from infra_core.runtime.testing import fast_time


def _parse(*arguments: str, **options: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_azure_service_arguments(parser, base_url_env_var="APP_URL", **options)
    return parser.parse_args(arguments)


class TestArguments:
    """The arguments of 0.7."""

    def test_the_defaults(self) -> None:
        """Four at once, followed for ten minutes, asked every five seconds."""
        args = _parse("batch-1")
        assert vars(args) == {
            "batch_id": "batch-1",
            "base_url": None,
            "concurrency": 4,
            "poll": True,
            "poll_timeout": 600.0,
            "poll_interval": 5.0,
            "summary_file": None,
        }

    def test_everything_can_be_said(self) -> None:
        """Every option."""
        args = _parse(
            *("batch-1", "--base-url", "https://x", "--concurrency", "9", "--no-poll"),
            *("--poll-timeout", "1.5", "--poll-interval", "2", "--summary-file", "s.json"),
        )
        assert (args.base_url, args.concurrency, args.poll) == ("https://x", 9, False)
        assert (args.poll_timeout, args.poll_interval) == (1.5, 2.0)
        assert args.summary_file == Path("s.json")
        assert _parse("b", "--no-poll", "--poll").poll is True

    def test_the_summary_is_optional_and_the_default_concurrency_given(self) -> None:
        """include_summary=False, concurrency_default."""
        args = _parse("b", include_summary=False, concurrency_default=2)
        assert not hasattr(args, "summary_file")
        assert args.concurrency == 2

    def test_the_help_names_the_variable(self, capsys: pytest.CaptureFixture[str]) -> None:
        """And takes texts of the caller's own."""
        with pytest.raises(SystemExit):
            _parse("--help", summary_help="where to write")
        shown = capsys.readouterr().out
        assert "APP_URL" in shown
        assert "where to write" in shown
        with pytest.raises(SystemExit):
            _parse("--help", base_url_help="where the app is")
        assert "where the app is" in capsys.readouterr().out

    @pytest.mark.parametrize(
        "bad", [("--concurrency", "0"), ("--poll-timeout", "0"), ("--poll-interval", "nan")]
    )
    def test_numbers_without_sense_are_refused(self, bad: tuple[str, str]) -> None:
        """By the parser, before anything is sent."""
        with pytest.raises(SystemExit):
            _parse("b", *bad)


class _Storage:
    """Stands in for a storage client."""

    def __init__(self) -> None:
        self.written: dict[Path, Mapping[str, Any]] = {}

    def write_json(self, path: Path, data: Mapping[str, Any]) -> Path:
        self.written[path] = data
        return path


class TestTrigger:
    """From the command line to the summary."""

    def test_a_batch_is_scheduled_followed_and_summed_up(self, tmp_path: Path) -> None:
        """The summary file holds the result, without any key."""
        summary_file = tmp_path / "deep" / "summary.json"
        seen: list[Any] = []
        with FunctionsHost(api_key="sesame") as host, fast_time():
            host.orchestrator("/api/run", ["Pending", "Completed"], output={"ok": 3})
            args = _parse(
                "batch-1", "--base-url", host.base_url, "--summary-file", str(summary_file)
            )
            summary = trigger_batch(
                args,
                base_url_env_var="APP_URL",
                env={"AZURE_FUNCTION_API_KEY": "sesame"},
                payload={"mode": "full"},
                on_poll=seen.append,
            )
            sent = json.loads(host.origin.requests[0].body)
            key = host.system_key
        assert sent == {"batchId": "batch-1", "concurrency": 4, "mode": "full"}
        assert summary.succeeded
        assert [state.runtime_status for state in seen] == ["Pending", "Completed"]
        written = json.loads(summary_file.read_text())
        assert (written["status"], written["output"], written["polls"]) == (
            "Completed", {"ok": 3}, 2,
        )  # fmt: skip
        assert key not in summary_file.read_text()
        assert key in str(summary.resume_url)
        assert key not in repr(summary)

    def test_the_summary_is_mirrored(self, tmp_path: Path) -> None:
        """A storage client writes it where one is given."""
        storage = _Storage()
        with FunctionsHost() as host, fast_time():
            host.orchestrator("/api/run", ["Completed"])
            args = _parse(
                "b", "--base-url", host.base_url, "--summary-file", str(tmp_path / "s.json")
            )
            trigger_batch(args, env={}, storage=storage)
        assert storage.written[tmp_path / "s.json"]["succeeded"] is True

    def test_a_failed_batch_is_named_in_the_summary(self) -> None:
        """Not by an exception."""
        with FunctionsHost() as host, fast_time():
            for output, said in (("boom", "boom"), ({"why": None}, '{"why": null}')):
                host.orchestrator("/api/run", ["Failed"], output=output)
                summary = trigger_batch(_parse("b", "--base-url", host.base_url), env={})
                assert (summary.status, summary.succeeded) == ("Failed", False)
                assert summary.error == said

    async def test_a_program_may_test_itself_with_a_client_of_its_own(self) -> None:
        """With what the public methods answer, and nothing else."""
        client: Any = AsyncMock(AzureFunctionAsyncClient, base_url="https://app.example")
        client.start.return_value = DurableInstance(id="i")
        ended = DurableStatus(runtime_status="Completed", output="done")
        client.wait_for_completion.return_value = ended
        summary = await trigger_batch_async(client, _parse("b"))
        assert (summary.status, summary.instance_id, summary.output) == ("Completed", "i", "done")

    def test_a_batch_that_does_not_end_can_be_resumed(self) -> None:
        """The summary has what is needed; asked so, the batch is asked to end."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator("/api/run", ["Running"])
            often = ("--poll-timeout", "20", "--poll-interval", "7")
            args = _parse("b", "--base-url", host.base_url, *often)
            summary = trigger_batch(args, env={}, terminate_on_timeout=True)
            assert host.termination_reason("/api/run") is not None
        assert time.slept[-2:] == [7.0, 6.0]  # and once more at the end of the time
        assert datetime.fromisoformat(summary.started_at).tzinfo is not None
        assert (summary.status, summary.succeeded) == ("TimedOut", False)
        assert summary.resume_url == host.status_url(str(summary.instance_id))

    @pytest.mark.parametrize("durable", [True, False])
    def test_without_polling_it_returns_once_scheduled(self, durable: bool) -> None:
        """Also for a function that is not durable."""
        with FunctionsHost() as host:
            if durable:
                host.orchestrator("/api/run", ["Running"])
            else:
                host.function("/api/run", {"accepted": True}, status=202)
            started: list[Any] = []
            summary = trigger_batch(
                _parse("b", "--base-url", host.base_url, "--no-poll"),
                env={},
                on_started=started.append,
            )
            assert len(host.origin.requests) == 1
        assert (summary.status, summary.scheduled) == ("Scheduled", True)
        assert summary.succeeded is False
        assert len(started) == 1

    @pytest.mark.parametrize("poll", ["--poll", "--no-poll"])
    def test_a_sign_in_page_has_scheduled_nothing(self, poll: str) -> None:
        """Whether it would have been followed or not."""
        with FunctionsHost() as host:
            host.origin.add("/api/run", body=b"<html>Sign in</html>", content_type="text/html")
            with pytest.raises(OrchestrationError, match="Sign in"):
                trigger_batch(_parse("b", "--base-url", host.base_url, poll), env={})

    def test_a_redirect_that_drops_the_request_has_scheduled_nothing(self) -> None:
        """302 makes a GET of a POST; what that answers says nothing of a batch."""

        def lead_away(exchange: Exchange) -> None:
            exchange.reply.status, exchange.reply.headers["Location"] = 302, "/"

        with FunctionsHost() as host:
            host.function("/", {"ok": True})
            host.origin.add("/api/run", always=Fault("redirect", lead_away))
            with pytest.raises(OrchestrationError, match="neither a status URL"):
                trigger_batch(_parse("b", "--base-url", host.base_url, "--no-poll"), env={})

    def test_a_batch_that_had_ended_when_it_was_started_is_not_called_scheduled(self) -> None:
        """The starter's own answer holds the result."""
        with FunctionsHost() as host:
            for code in (200, 500):
                body = {"runtimeStatus": 3, "output": "boom"}
                host.function("/api/run", body, status=code)
                args = _parse("b", "--base-url", host.base_url, "--no-poll")
                summary = trigger_batch(args, env={})
                assert (summary.status, summary.error) == ("Failed", "boom")
                assert (summary.scheduled, summary.succeeded) == (False, False)

    def test_an_output_with_the_key_itself_spreads_it_nowhere(self) -> None:
        """Neither as the output of a batch nor as the reason why it failed."""
        with FunctionsHost() as host:
            host.orchestrator("/api/run", ["Failed"], output=f"no access with {host.system_key}")
            summary = trigger_batch(_parse("b", "--base-url", host.base_url), env={})
            assert host.system_key not in str(summary.to_dict())
        assert summary.error == "no access with <redacted>"

    def test_a_scheduled_batch_is_waited_for_from_what_was_stored(self, tmp_path: Path) -> None:
        """By another process; only this user can read the key."""
        folder = tmp_path / "state" / "triggers"
        with FunctionsHost() as host, fast_time():
            host.orchestrator("/api/run", ["Running", "Completed"], output=7)
            args = _parse("b", "--base-url", host.base_url, "--no-poll")
            trigger_batch(args, env={}, state_folder=folder)
            (stored,) = folder.iterdir()
            assert (stored.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
            summary = trigger_batch(args, env={}, state_folder=folder, resume=True)
            assert (summary.status, summary.output) == ("Completed", 7)
            assert len(host.instances("/api/run")) == 1
            other = _parse("other", "--base-url", host.base_url)
            with pytest.raises(JobNotFoundError, match="no triggered batch 'other'"):
                trigger_batch(other, env={}, state_folder=folder, resume=True)

    def test_a_folder_that_cannot_be_written_does_not_stop_the_batch(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is scheduled all the same, and the log says what does not work."""
        (tmp_path / "file").write_text("")
        with FunctionsHost() as host:
            host.orchestrator("/api/run", ["Running"])
            args = _parse("b", "--base-url", host.base_url, "--no-poll")
            assert trigger_batch(args, env={}, state_folder=tmp_path / "file" / "x").scheduled
        assert "cannot be waited for again" in caplog.text

    @pytest.mark.parametrize(
        ("faults", "code", "ended", "instance"),
        [
            ({"status_faults": [status(401)]}, "401", "Unknown", "api-run-1"),
            ({"faults": [status(400)]}, "400", "NotScheduled", None),
        ],
    )
    def test_a_batch_that_is_refused_or_cannot_be_followed_is_written_down(
        self, faults: dict[str, Any], code: str, ended: str, instance: str | None, tmp_path: Path
    ) -> None:
        """Either nothing was scheduled, or its end is not known."""
        path = tmp_path / "s.json"
        with FunctionsHost() as host:
            host.orchestrator("/api/run", **faults)
            args = _parse("b", "--base-url", host.base_url, "--summary-file", str(path))
            with pytest.raises(httpx.HTTPStatusError):
                trigger_batch(args, env={})
        written = json.loads(path.read_text())
        assert (written["status"], written["succeeded"]) == (ended, False)
        assert written["instance_id"] == instance
        assert code in written["error"]

    def test_an_unknown_outcome_is_written_down(self, tmp_path: Path) -> None:
        """The batch may run: the summary says so, and the error comes through."""
        path = tmp_path / "s.json"
        with FunctionsHost() as host:
            host.orchestrator("/api/run", faults=[hang_up()])
            args = _parse("b", "--base-url", host.base_url, "--summary-file", str(path))
            with pytest.raises(OutcomeUnknown):
                trigger_batch(args, env={})
        assert json.loads(path.read_text())["status"] == "OutcomeUnknown"

    def test_url_and_key_come_from_the_environment(self) -> None:
        """The command line's URL wins."""
        env = {"APP_URL": "https://env.example", "APP_KEY": "k"}
        client = build_function_client(
            _parse("b"), base_url_env_var="APP_URL", api_key_env_var="APP_KEY", env=env
        )
        assert client.base_url == "https://env.example"
        args = _parse("b", "--base-url", "https://arg.example")
        assert (
            build_function_client(args, base_url_env_var="APP_URL", env=env).base_url
            == "https://arg.example"
        )
        with pytest.raises(ConfigurationError, match="APP_URL"):
            build_function_client(_parse("b"), base_url_env_var="APP_URL", env={})
        with pytest.raises(ValueError, match="--base-url 'app' is not a URL"):
            build_function_client(_parse("b", "--base-url", "app"), env={"APP_URL": "https://x"})


def test_an_output_with_the_status_url_shows_no_key() -> None:
    """Orchestrators return their own management URLs; the key stands in no summary."""
    (key,) = keys_in("https://app.example/s/1?taskHub=H&code=s3c+r%2Ft==")
    assert key == "s3c+r/t=="
    output = {"urls": ["?code=s3c%2Br%2Ft%3d%3d", "https://app.example/s/1?code=s3c+r/t==", 7]}
    shown = without_keys(output, key, None)
    assert shown["urls"] == ["?code=<redacted>", "https://app.example/s/1?code=<redacted>", 7]
    assert without_keys(output, *keys_in(None)) == output
    assert without_keys({"a": "code=other"}, key, "a") == {"a": "code=other"}
