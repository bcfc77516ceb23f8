"""Durable functions, against a local server that speaks the protocol as it is documented."""

import logging
from typing import Any

import httpx
import pytest
from hypothesis import given, strategies as st

from infra_core.azure._durable import DurableStatus, read_start, read_status, terminate_url
from infra_core.azure.client import (
    AzureFunctionAsyncClient,
    AzureFunctionSyncClient,
    DurableInstance,
    wait_for_completion,
    wait_for_completion_async,
)
from infra_core.azure.exceptions import (
    JobNotFoundError,
    JobTimeoutError,
    OrchestrationError,
    OrchestrationFailedError,
    OrchestrationTimeoutError,
)
from infra_core.azure.function_testing import FunctionsHost
from infra_core.http.testing import hang_up, status
from infra_core.runtime.testing import fast_time

_PATH = "/api/run"


def _client(host: FunctionsHost) -> AzureFunctionAsyncClient:
    return AzureFunctionAsyncClient(host.base_url, api_key=host.api_key)


class TestFollowing:
    """From the starter to the end."""

    async def test_a_durable_function_is_started_and_followed_to_its_end(self) -> None:
        """202 while it runs, the output when it is done."""
        with FunctionsHost(api_key="k") as host, fast_time():
            states = ["Pending", "Running", "ContinuedAsNew", "Suspended", "Completed"]
            host.orchestrator(_PATH, states, output={"n": 3}, custom_status="half-way")
            seen: list[DurableStatus] = []
            async with _client(host) as client:
                done = await client.start_and_wait(_PATH, json={"batch": 1}, on_poll=seen.append)
        assert (done.runtime_status, done.output, done.succeeded) == ("Completed", {"n": 3}, True)
        assert done.body["input"] == {"batch": 1}
        assert [state.runtime_status for state in seen] == states
        assert seen[0].custom_status == "half-way"

    async def test_the_host_says_how_long_to_wait(self) -> None:
        """Retry-After comes before the interval."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator(_PATH, ["Running", "Running", "Completed"], retry_after=7)
            async with _client(host) as client:
                await client.start_and_wait(_PATH, poll_interval=1)
        assert [wait for wait in time.slept if wait] == [7.0, 7.0, 7.0]

    async def test_a_wait_beyond_the_deadline_is_not_waited_for(self) -> None:
        """The first question is asked at once then, and the deadline kept."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator(_PATH, ["Completed"], retry_after=3600, output=1)
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH, timeout=60)).output == 1
        assert not any(time.slept)

    async def test_without_a_word_of_the_host_the_interval_counts(self) -> None:
        """poll_interval seconds."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator(_PATH, ["Running", "Completed"])
            async with _client(host) as client:
                await client.start_and_wait(_PATH, poll_interval=3)
        assert [wait for wait in time.slept if wait] == [3.0]

    async def test_location_serves_where_the_body_names_no_url(self) -> None:
        """A proxy may have dropped the body."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running", "Completed"], only_location=True, output=1)
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH)).output == 1

    async def test_the_function_key_stays_away_from_a_status_url_elsewhere(self) -> None:
        """Its own code opens it."""
        with FunctionsHost() as home, FunctionsHost() as away, fast_time():
            away.orchestrator(_PATH, ["Completed"], output="away")
            async with _client(away) as client:
                instance = await client.start(_PATH)
            async with AzureFunctionAsyncClient(home.base_url, api_key="sesame") as client:
                done = await client.wait_for_completion(instance)
            assert done.output == "away"
            assert "x-functions-key" not in away.origin.requests[-1].headers

    async def test_a_few_failed_questions_do_not_end_the_wait(self) -> None:
        """The instance goes on whatever happens to one question."""
        with FunctionsHost() as host, fast_time():
            faults = [status(404), status(500), hang_up(), status(503)]
            host.orchestrator(_PATH, ["Running", "Completed"], status_faults=faults)
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH)).succeeded

    async def test_a_question_is_one_request(self) -> None:
        """The poll decides about the next, not a second layer of retries below it."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Completed"], status_faults=[status(500), status(503)])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                await client.wait_for_completion(instance)
            asked = [r for r in host.origin.requests if "/instances/" in r.path]
            assert len(asked) == 3

    async def test_a_refusal_ends_the_wait_at_once(self) -> None:
        """401 does not get better by waiting."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator(_PATH, ["Running"])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                wrong = str(instance.status_url).replace(host.system_key, "wrong")
                with pytest.raises(httpx.HTTPStatusError):
                    await client.wait_for_completion(wrong)
        assert not any(time.slept)

    async def test_an_instance_that_the_host_does_not_know_is_reported(self) -> None:
        """410, and 404 that stays, are JobNotFoundError; the key is not in the message."""
        with FunctionsHost() as host, fast_time():
            host.origin.add("/gone", always=status(410))
            async with _client(host) as client:
                with pytest.raises(JobNotFoundError, match="410") as caught:
                    await client.wait_for_completion(f"{host.base_url}/gone?code=s3cretkey99")
        assert "s3cretkey99" not in str(caught.value)

    def test_the_sync_client_does_the_same(self) -> None:
        """start, wait_for_completion, start_and_wait, terminate."""
        with FunctionsHost(api_key="k") as host, fast_time():
            host.orchestrator(_PATH, ["Running", "Completed"], output=5)
            with AzureFunctionSyncClient(host.base_url, api_key="k") as client:
                assert client.start_and_wait(_PATH, json={}).output == 5
                instance = client.start(_PATH)
                assert client.wait_for_completion(instance).output == 5
                assert client.terminate(instance) is False


class TestFailure:
    """Ends without success."""

    @pytest.mark.parametrize("state", ["Failed", "Terminated", "Canceled"])
    async def test_it_raises_with_the_state(self, state: str) -> None:
        """The error carries the state, and its message the output."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running", state], output="disk full")
            async with _client(host) as client:
                with pytest.raises(OrchestrationFailedError, match="disk full") as caught:
                    await client.start_and_wait(_PATH)
        assert isinstance(caught.value.last_status, DurableStatus)
        assert caught.value.last_status.runtime_status == state

    async def test_failed_as_500_is_the_same_as_failed_as_200(self) -> None:
        """The body decides; it is neither retried nor taken for a broken host."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Failed"], output="boom")
            async with _client(host) as client:
                instance = await client.start(_PATH)
                url = f"{instance.status_url}&returnInternalServerErrorOnFailure=true"
                with pytest.raises(OrchestrationFailedError, match="boom"):
                    await client.wait_for_completion(url)
            asked = [r for r in host.origin.requests if "/instances/" in r.path]
            assert len(asked) == 1

    async def test_the_state_is_returned_when_asked_so(self) -> None:
        """raise_on_failure=False."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Failed"], output="boom")
            async with _client(host) as client:
                done = await client.start_and_wait(_PATH, raise_on_failure=False)
        assert (done.failed, done.succeeded, done.output) == (True, False, "boom")


class TestTimeout:
    """It does not end in time."""

    async def test_the_error_lets_the_caller_go_on_waiting(self) -> None:
        """With the status URL, from another process, without a client of the app."""
        with FunctionsHost(api_key="k") as host, fast_time():
            host.orchestrator(_PATH, ["Running"] * 4 + ["Completed"], output="late")
            async with _client(host) as client:
                with pytest.raises(OrchestrationTimeoutError, match="goes on") as caught:
                    await client.start_and_wait(_PATH, timeout=10, poll_interval=5)
            error = caught.value
            assert isinstance(error, JobTimeoutError)
            assert isinstance(error.last_status, DurableStatus)
            assert error.last_status.runtime_status == "Running"
            assert error.terminated is False
            assert host.system_key not in str(error)
            assert error.status_url is not None
            done = await wait_for_completion_async(error.status_url)
            assert done.output == "late"
            assert host.termination_reason(_PATH) is None

    def test_a_stored_url_is_followed_from_synchronous_code(self) -> None:
        """wait_for_completion."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running", "Completed"], output=1)
            with AzureFunctionSyncClient(host.base_url) as client:
                url = client.start(_PATH).status_url
            assert url is not None
            assert wait_for_completion(url, timeout=60).output == 1

    async def test_it_is_terminated_when_asked_so(self) -> None:
        """With a reason that stands in its history."""
        with FunctionsHost(api_key="k") as host, fast_time():
            host.orchestrator(_PATH, ["Running"])
            async with _client(host) as client:
                with pytest.raises(OrchestrationTimeoutError, match="told to end") as caught:
                    await client.start_and_wait(_PATH, timeout=10, terminate_on_timeout=True)
                assert caught.value.terminated is True
                assert host.termination_reason(_PATH) == "not done within 10 s"
                instance = caught.value.status_url
                assert instance is not None
                with pytest.raises(OrchestrationFailedError, match="Terminated"):
                    await client.wait_for_completion(instance)

    async def test_it_is_terminated_by_its_status_url_alone(self) -> None:
        """A stored URL is enough."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running"])
            async with _client(host) as client:
                url = (await client.start(_PATH)).status_url
                assert url is not None
                assert await client.terminate(url, reason="a/b & c") is True
            assert host.termination_reason(_PATH) == "a/b & c"

    async def test_a_failed_termination_does_not_hide_the_timeout(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It is told in the message and logged, without the key."""
        with FunctionsHost() as host, fast_time(), caplog.at_level(logging.WARNING):
            host.orchestrator(_PATH, ["Running"])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                odd = DurableInstance(
                    status_url=instance.status_url, terminate_url=f"{host.base_url}/broken"
                )
                host.origin.add("/broken", always=status(403))
                with pytest.raises(OrchestrationTimeoutError, match="may go on") as caught:
                    await client.wait_for_completion(odd, timeout=5, terminate_on_timeout=True)
        assert caught.value.terminated is False
        assert "could not terminate" in caplog.text
        assert host.system_key not in caplog.text

    async def test_terminating_what_has_ended_says_so(self) -> None:
        """410 and 404 are no errors."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Completed"])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                assert await client.terminate(instance) is False
                assert await client.terminate(f"{host.base_url}/nowhere?code=x") is False


class TestStart:
    """What starters answer."""

    async def test_what_is_needed_later_is_returned_and_not_shown(self) -> None:
        """The URLs carry a key."""
        with FunctionsHost() as host:
            host.orchestrator(_PATH, retry_after=10)
            async with _client(host) as client:
                instance = await client.start(_PATH, json={"n": 1})
        assert instance.id == host.instances(_PATH)[0]
        assert instance.status_url == host.status_url(str(instance.id))
        assert instance.retry_after == 10.0
        assert host.system_key not in repr(instance)

    async def test_a_starter_that_waited_gives_the_result(self) -> None:
        """200 with the output, when the instance was quick enough."""
        with FunctionsHost() as host:
            host.function(_PATH, {"answer": 42})
            async with _client(host) as client:
                done = await client.start_and_wait(_PATH)
        assert (done.runtime_status, done.output) == ("Completed", {"answer": 42})

    async def test_an_answer_that_cannot_be_followed_is_an_error(self) -> None:
        """202 without any URL."""
        with FunctionsHost() as host:
            host.function(_PATH, {"accepted": True}, status=202)
            async with _client(host) as client:
                with pytest.raises(OrchestrationError, match="create_check_status_response"):
                    await client.start(_PATH)


def _response(code: int, body: Any = None, headers: dict[str, str] | None = None) -> httpx.Response:
    request = httpx.Request("GET", "https://app.example/api/run")
    return httpx.Response(code, json=body, headers=headers, request=request)


class TestProtocol:
    """What answers mean, without a server."""

    def test_the_url_of_the_body_comes_before_location(self) -> None:
        """And a relative one is completed."""
        body = {"statusQueryGetUri": "https://app.example/body"}
        both = read_start(_response(202, body, {"Location": "https://x/loc"}), what="x")
        assert both.status_url == "https://app.example/body"
        relative = read_start(_response(202, {}, {"Location": "/status/1"}), what="x")
        assert relative.status_url == "https://app.example/status/1"

    @pytest.mark.parametrize(
        ("code", "body", "state"),
        [
            (200, {"runtimeStatus": "Completed"}, "Completed"),
            (200, {"runtimeStatus": "Failed"}, "Failed"),
            (500, {"runtimeStatus": "Failed"}, "Failed"),
            (400, {"runtimeStatus": "Terminated"}, "Terminated"),
            (200, {"runtimeStatus": "Running"}, "Running"),
            (202, {"runtimeStatus": "Pending"}, "Pending"),
            (202, None, "Running"),
            (200, {"status": "running"}, "running"),
            (200, {"status": "succeeded"}, "succeeded"),
            (200, {"rows": 3}, "Completed"),
            (200, {"status": "ok, more or less"}, "Completed"),
            (500, {"error": "x"}, None),
            (404, None, None),
        ],
    )
    def test_the_body_decides(self, code: int, body: Any, state: str | None) -> None:
        """The HTTP status counts only where the body says nothing."""
        told = read_status(_response(code, body))
        assert (None if told is None else told.runtime_status) == state

    @given(st.text(max_size=40))
    def test_any_reason_fits_into_the_terminate_url(self, reason: str) -> None:
        """It is one parameter, and the key stays another."""
        if any("\ud800" <= c <= "\udfff" for c in reason):
            return
        for url, is_status in (
            ("https://a.example/i/1/terminate?reason={text}&code=k", False),
            ("https://a.example/i/1?code=k", True),
        ):
            made = httpx.URL(terminate_url(url, reason, is_status_url=is_status))
            assert made.path == "/i/1/terminate"
            assert dict(made.params) == {"reason": reason, "code": "k"}
