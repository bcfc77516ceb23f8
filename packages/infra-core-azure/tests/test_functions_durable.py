"""Durable functions, against a local server that speaks the protocol as it is documented."""

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import respx
from hypothesis import given, strategies as st

from infra_core.azure._durable import (
    DurableStatus,
    failure_of,
    management_url,
    read_start,
    read_status,
    secure_url,
    state_in,
)
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
from infra_core.http import OutcomeUnknown
from infra_core.http.testing import Exchange, Fault, hang_up, status
from infra_core.runtime.testing import fast_time

_PATH = "/api/run"


def _reply(code: int, body: bytes) -> Fault:
    def run(exchange: Exchange) -> None:
        exchange.reply.status, exchange.reply.body = code, body
        exchange.reply.headers["Content-Type"] = "text/html" if body[:1] == b"<" else "text/json"

    return Fault(f"answer {code}", run)


_RUNNING = _reply(202, b'{"runtimeStatus": "Running"}')


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

    async def test_a_few_failed_questions_do_not_end_the_wait(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The instance goes on whatever happens to one question, which is a line in the log."""
        with FunctionsHost() as host, fast_time():
            faults = [status(404), status(500), hang_up(), status(503)]
            host.orchestrator(_PATH, ["Running", "Completed"], status_faults=faults)
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH)).succeeded
        assert [record.levelname for record in caplog.records] == ["WARNING"] * 4
        assert not any(record.exc_info for record in caplog.records)
        assert not logging.getLogger("infra_core.http_async").filters  # which are the program's

    @pytest.mark.parametrize("seen", [False, True])
    async def test_an_app_that_starts_or_restarts_is_waited_for_at_any_interval(
        self, seen: bool
    ) -> None:
        """For a time, not for a number of questions: 404 before it is known, 502 afterwards."""
        faults = [_RUNNING, *[_reply(502, b"<html>")] * 50] if seen else [status(404)] * 15
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Completed"], status_faults=faults)
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH, poll_interval=0.5)).succeeded

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

    async def test_an_instance_that_was_purged_is_reported_at_once(self) -> None:
        """404 twice after it was seen, or once of a URL that was stored."""
        with FunctionsHost() as host, fast_time() as time:
            faults = [_RUNNING, status(404), status(404), status(404)]
            host.orchestrator(_PATH, ["Running"], status_faults=faults)
            async with _client(host) as client:
                instance = await client.start(_PATH)
                with pytest.raises(JobNotFoundError, match="purged"):
                    await client.wait_for_completion(instance)
                with pytest.raises(JobNotFoundError, match="purged"):
                    await client.wait_for_completion(host.status_url(str(instance.id)))
        assert [wait for wait in time.slept if wait] == [5.0, 5.0]

    async def test_a_404_between_two_answers_is_asked_again(self) -> None:
        """azure-functions-durable-extension#1346: the instance runs on; as often as it happens."""
        faults = [_RUNNING, status(404)] * 3
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running", "Completed"], status_faults=faults)
            async with _client(host) as client:
                url = str((await client.start(_PATH)).status_url)
                assert (await client.wait_for_completion(url)).succeeded

    async def test_a_page_of_a_proxy_between_two_answers_is_waited_out(self) -> None:
        """Once the state could be read; before, it is an error at once."""
        page = _reply(200, b"<html>one moment</html>")
        with FunctionsHost() as host, fast_time():
            faults = [_RUNNING, page, page]
            host.orchestrator(_PATH, ["Running", "Completed"], status_faults=faults)
            host.origin.add("/page", body=b"<html>Sign in to your account")
            async with _client(host) as client:
                assert (await client.start_and_wait(_PATH)).succeeded
                with pytest.raises(OrchestrationError, match="Sign in to your account"):
                    await client.wait_for_completion("/page?code=x")

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


class TestKeys:
    """A key that an answer repeats stands in no error, wherever in the answer it stands."""

    KEY = "x3+y/Zw=="
    FORMS = (
        *("x3+y/Zw==", "x3%2By%2FZw%3D%3D", "x3%2by/Zw=="),
        *(r"x3\u002By\/Zw==", "x3&#x2B;y/Zw&#61;="),
    )

    @pytest.mark.parametrize("form", FORMS)
    async def test_an_answer_that_begins_with_the_key_does_not_show_it(self, form: str) -> None:
        """No name stands before it by which it could be told from other text."""
        said = f"{form} is not a valid key".encode()
        with FunctionsHost() as host:
            host.origin.add(_PATH, body=said, content_type="text/plain")
            host.origin.add("/refused", always=_reply(400, said))
            url = f"{host.base_url}{_PATH}?code={quote(self.KEY, safe='')}"
            token = {"Authorization": f"Bearer {self.KEY}"}
            client = AzureFunctionAsyncClient(host.base_url, api_key=self.KEY)
            by_token = AzureFunctionAsyncClient(host.base_url, default_headers=token)
            errors: list[BaseException] = []
            async with client, by_token, AzureFunctionAsyncClient(host.base_url) as other:
                for call in (
                    client.start(_PATH),
                    client.wait_for_completion(_PATH),
                    client.start("/refused"),
                    by_token.start("/refused"),
                    other.start(url),
                    other.start(url.replace("code=", "token=")),
                    other.get_status(url),
                    other.wait_for_completion(url),
                ):
                    with pytest.raises((OrchestrationError, httpx.HTTPStatusError)) as caught:
                        await call
                    errors.append(caught.value)
        for error in errors:
            assert "is not a valid key" in str(error)
            assert "Zw" not in str(error)

    @pytest.mark.parametrize("form", FORMS)
    async def test_a_failure_that_begins_with_the_key_does_not_show_it(self, form: str) -> None:
        """The orchestrator writes what it was refused with."""
        with FunctionsHost(api_key=self.KEY) as host:
            host.orchestrator(_PATH, ["Failed"], output={"why": [f"{form} was refused"]})
            async with _client(host) as client:
                with pytest.raises(OrchestrationFailedError, match="was refused") as caught:
                    await client.start_and_wait(_PATH)
            assert "Zw" not in str(caught.value)
            host.orchestrator("/api/it", ["Failed"], output=f"{host.system_key} was refused")
            async with _client(host) as client:
                instance = await client.start("/api/it")
                with pytest.raises(OrchestrationFailedError, match="was refused") as caught:
                    await client.wait_for_completion(instance)
            assert host.system_key not in str(caught.value)


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
                with pytest.raises(OrchestrationTimeoutError, match="asked to terminate") as caught:
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
        """It is named in the message and logged, without the key."""
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


class TestManagement:
    """What an instance or an entity is asked for after its start."""

    @pytest.mark.parametrize("by_url", [False, True])
    async def test_an_instance_is_managed(self, by_url: bool) -> None:
        """By what start() returned, and by its status URL alone."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running", "Failed"], events=["go on/now"])
            async with _client(host) as client:
                started = await client.start(_PATH)
                instance = str(started.status_url) if by_url else started
                assert await client.suspend(instance)
                assert (await client.get_status(instance)).runtime_status == "Suspended"
                assert await client.resume(instance)
                assert await client.raise_event(instance, "go on/now", {"a": [1]})
                assert await client.raise_event(instance, "go on/now")
                assert host.events(_PATH) == [("go on/now", {"a": [1]}), ("go on/now", None)]
                assert await client.rewind(instance) is False  # it runs
                with pytest.raises(OrchestrationFailedError):
                    await client.wait_for_completion(instance)
                assert await client.raise_event(instance, "go on/now") is False  # it has ended
                assert await client.suspend(instance) is False
                assert await client.rewind(instance)
                assert (await client.wait_for_completion(instance)).succeeded
                assert await client.purge(instance)
                assert await client.purge(instance) is False

    async def test_a_purged_instance_is_not_found_at_once(self) -> None:
        """With every client, and though the app is given time to start."""
        with FunctionsHost() as host, fast_time() as time:
            host.orchestrator(_PATH, ["Running"], events=["e"])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                assert await client.purge(instance)
            async with AzureFunctionAsyncClient(host.base_url, cold_start_grace=60) as client:
                for ask in (
                    client.get_status(instance),
                    client.raise_event(instance, "e"),
                    client.suspend(instance),
                    client.resume(instance),
                    client.rewind(instance),
                    client.wait_for_completion(str(instance.status_url)),
                ):
                    with pytest.raises(JobNotFoundError, match="purged") as caught:
                        await ask
                    assert host.system_key not in str(caught.value)
                assert not any(time.slept)
                with pytest.raises(JobNotFoundError, match="purged"):  # it may be too new
                    await client.wait_for_completion(instance)
        assert sum(time.slept) == 10.0

    @pytest.mark.parametrize(
        ("body", "deleted"),
        [(b'{"instancesDeleted": 1}', True), (b"", True), (b'{"instancesDeleted": 0}', False)],
    )
    async def test_a_purge_that_deleted_nothing_says_so(self, body: bytes, deleted: bool) -> None:
        """200 alone is no deletion."""
        with FunctionsHost() as host:
            host.origin.add("/i/1", body=body, content_type="application/json")
            async with _client(host) as client:
                assert await client.purge("/i/1?code=x") is deleted

    @pytest.mark.parametrize("redirected", [False, True])
    async def test_a_sign_in_page_has_done_nothing(self, redirected: bool) -> None:
        """Nor has a redirect that makes another method of the request."""
        page = _reply(200, b"<html>Sign in</html>")

        def lead_away(exchange: Exchange) -> None:
            exchange.reply.status, exchange.reply.headers["Location"] = 302, "/login"

        with FunctionsHost() as host:
            always = Fault("redirect", lead_away) if redirected else page
            host.origin.add("/login", always=_reply(202, b""))
            for path in ("", "/terminate", "/suspend", "/resume", "/rewind", "/raiseEvent/e"):
                host.origin.add(f"/i/1{path}", always=always)
            host.origin.add("/runtime/webhooks/durabletask/entities/C/k", always=always)
            async with _client(host) as client:
                url = f"{host.base_url}/i/1?code=s3cretkey99"
                for call in (
                    client.terminate(url),
                    client.suspend(url),
                    client.resume(url),
                    client.rewind(url),
                    client.raise_event(url, "e"),
                    client.signal_entity("C", "k", "add"),
                    *(() if redirected else (client.purge(url),)),  # DELETE stays what it is
                ):
                    with pytest.raises(OrchestrationError, match="done nothing") as caught:
                        await call
                    assert "s3cretkey99" not in str(caught.value)

    @pytest.mark.parametrize(
        "call",
        [
            lambda client: client.read_entity("C", ".."),
            lambda client: client.signal_entity("C", "a/b", "add"),
            lambda client: client.signal_entity("..", "k", "add"),
            lambda client: client.signal_entity("C", "a#b", "add"),
            lambda client: client.raise_event("/i/1?code=x", ".."),
            lambda client: client.raise_event("/i/1?code=x", "."),
        ],
    )
    async def test_a_name_that_would_lead_elsewhere_is_refused(
        self, call: Callable[[AzureFunctionAsyncClient], Awaitable[object]]
    ) -> None:
        """Two dots go one folder up in a URL; the extension knows no slash in an entity's key."""
        with FunctionsHost() as host:
            async with _client(host) as client:
                with pytest.raises(ValueError, match="names no"):
                    await call(client)
            assert not host.origin.requests

    async def test_an_event_is_sent_once(self) -> None:
        """A lost answer is an outcome that is not known; a refusal says what the host said."""
        with FunctionsHost() as host, fast_time():
            host.orchestrator(_PATH, ["Running"], events=["e"])
            async with _client(host) as client:
                instance = await client.start(_PATH)
                below = f"/runtime/webhooks/durabletask/instances/{instance.id}/raiseEvent/e"
                host.origin.script(below, hang_up(), _reply(409, b"instance is being deleted"))
                with pytest.raises(OutcomeUnknown):
                    await client.raise_event(instance, "e")
                with pytest.raises(httpx.HTTPStatusError, match=r"409.*instance is being deleted"):
                    await client.raise_event(instance, "e")
                with pytest.raises(ValueError, match="name='' names no event"):
                    await client.raise_event(instance, "")
                assert host.events(_PATH) == []

    def test_an_entity_is_read_and_signalled(self) -> None:
        """With the system key as a parameter, or as the key of the client."""
        with FunctionsHost() as host:
            host.entity("Counter", "a", {"value": 3})
            with AzureFunctionSyncClient(host.base_url) as client:
                key = host.system_key
                assert client.read_entity("Counter", "a", system_key=key) == {"value": 3}
                client.signal_entity("Counter", "a", "add", 4, system_key=key)
                with pytest.raises(JobNotFoundError, match="no entity 'Counter' with the key 'b'"):
                    client.read_entity("Counter", "b", system_key=key)
                with pytest.raises(ValueError, match="names no entity"):
                    client.read_entity("Counter", "")
            with AzureFunctionSyncClient(host.base_url, api_key=key) as client:
                client.signal_entity("Counter", "a", "reset")
            assert host.signals("Counter", "a") == [("add", 4), ("reset", None)]


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

    async def test_a_starter_that_waited_gives_the_result_where_that_was_said(self) -> None:
        """200 with the output, when the instance was quick enough; else it is no success."""
        with FunctionsHost() as host:
            host.function(_PATH, {"answer": 42})
            async with _client(host) as client:
                done = await client.start_and_wait(_PATH, accept_result=True)
                with pytest.raises(OrchestrationError, match=r"answer.*42.*accept_result=True"):
                    await client.start_and_wait(_PATH)
        assert (done.runtime_status, done.output) == ("Completed", {"answer": 42})

    @pytest.mark.parametrize(
        ("code", "body", "ended"),
        [
            (200, {"status": "success", "rows": 3}, "success"),
            (201, {"status": "completed", "id": "row-7"}, "completed"),
            (200, {"data": {"status": "failed"}}, "failed"),
            (200, {"status": "success", "data": {"status": "failed"}}, "failed"),
            (200, {"status": "success", "data": {"status": "running"}}, None),
            (200, {"instanceId": "7", "runtimeStatus": "Completed"}, "Completed"),
            (200, {"status": "success", "instanceId": "7"}, None),
            (200, {"status": "success", "data": {"instance_id": "7", "status": "done"}}, None),
            (200, {"status": "accepted"}, None),
            (200, {"status": "ok"}, None),
            (200, {"ok": True}, None),
        ],
    )
    def test_a_function_that_is_not_durable_has_ended_where_it_says_so(
        self, code: int, body: Any, ended: str | None
    ) -> None:
        """As plain functions of 0.7's users answer; what names an instance has started it only."""
        if ended is None:
            with pytest.raises(OrchestrationError, match="neither a status URL nor the end"):
                read_start(_response(code, body), what="POST /api/run")
        else:
            finished = read_start(_response(code, body), what="POST /api/run").finished
            assert finished is not None
            assert (finished.runtime_status, finished.failed) == (ended, ended == "failed")

    @pytest.mark.parametrize(
        "body",
        [
            {"runtimeStatus": "Not.Completed"},
            {"status": "failed", "data": {"runtimeStatus": "Completed"}},
            {"data": {"runtime-status": "Odd"}},
            {"status": "success", "payload": {"runtimeStatus": "Failed"}},
        ],
    )
    def test_a_status_is_no_result(self, body: Any) -> None:
        """A status that cannot be read is no output of an orchestrator that has completed."""
        with pytest.raises(OrchestrationError, match="nor the end of an instance"):
            read_start(_response(200, body), what="POST /api/run", accept_result=True)
        rows = {"rows": [{"runtimeStatus": "Failed"}]}  # what it has looked at, say
        done = read_start(_response(200, rows), what="POST /api/run", accept_result=True)
        assert done.finished is not None
        assert done.finished.output == rows

    def test_a_blank_status_url_is_none(self) -> None:
        """It would lead back to the starter itself."""
        with pytest.raises(OrchestrationError, match="neither statusQueryGetUri nor Location"):
            read_start(_response(202, {"statusQueryGetUri": " "}), what="POST /api/run")

    @pytest.mark.parametrize("body", [b"", b"<html>Sign in</html>", b"null", b"\xef\xbb\xbf"])
    async def test_no_json_is_no_result(self, body: bytes) -> None:
        """A sign-in page is not the output of an orchestration."""
        with FunctionsHost() as host:
            host.origin.add(_PATH, body=body, content_type="text/html")
            async with _client(host) as client:
                with pytest.raises(OrchestrationError, match="check that it is the starter"):
                    await client.start_and_wait(_PATH, accept_result=True)

    @pytest.mark.parametrize("state", ["Failed", "Terminated"])
    async def test_a_starter_that_waited_for_a_failure_has_started_it(self, state: str) -> None:
        """`wait_for_completion_or_create_check_status_response` of Python answers 500 then."""
        with FunctionsHost() as host:
            body = {"instanceId": "7", "runtimeStatus": state, "output": "boom"}
            host.function(_PATH, body, status=500)
            host.function("/api/odd", {**body, "runtimeStatus": "Odd"}, status=500)
            async with _client(host) as client:
                with pytest.raises(OrchestrationFailedError, match=r"instance '7' ended.*boom"):
                    await client.start_and_wait(_PATH)
                with pytest.raises(httpx.HTTPStatusError, match=r"answered 500.*boom"):
                    await client.start_and_wait("/api/odd")

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    async def test_a_redirect_that_drops_what_was_sent_is_no_start(self, code: int) -> None:
        """An app on https sends http:// requests there as GET, which its function takes as well."""

        def lead_on(exchange: Exchange) -> None:
            exchange.reply.status, exchange.reply.headers["Location"] = code, "/api/there"

        with FunctionsHost() as host:
            host.orchestrator("/api/there")
            host.origin.add(_PATH, always=Fault("redirect", lead_on))
            async with _client(host) as client:
                if code in (301, 302):
                    with pytest.raises(OrchestrationError, match="drops what was sent") as caught:
                        await client.start(_PATH, json={"n": 1})
                    assert host.system_key not in str(caught.value)
                else:
                    assert (await client.start(_PATH, json={"n": 1})).id == "api-there-1"

    @pytest.mark.parametrize("code", [400, 409, 412, 422, 500])
    async def test_a_refusal_says_what_the_app_said(self, code: int) -> None:
        """The body's reason, without secrets."""
        with FunctionsHost() as host:
            body = b'{"message": "instance nightly is running, see ?code=s3cretkey99"}'
            host.origin.add(_PATH, always=_reply(code, body))
            async with _client(host) as client:
                with pytest.raises(httpx.HTTPStatusError) as caught:
                    await client.start(_PATH)
        assert "instance nightly is running" in str(caught.value)
        assert "s3cretkey99" not in str(caught.value)

    async def test_nothing_is_started_that_is_to_be_waited_for_in_a_way_that_is_none(self) -> None:
        """A bad option is found before the request."""
        with FunctionsHost() as host:
            host.orchestrator(_PATH)
            async with _client(host) as client:
                with pytest.raises(ValueError, match="poll_interval=0"):
                    await client.start_and_wait(_PATH, poll_interval=0)
                with pytest.raises(TypeError, match="'interval': see WaitOptions"):
                    await client.wait_for_completion("/x", interval=1)  # type: ignore[call-arg]
            assert host.instances(_PATH) == []

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
        answer = _response(202, {"instanceId": "7"}, {"Location": "/status/1"})
        relative = read_start(answer, what="x")
        assert (relative.status_url, relative.id) == ("https://app.example/status/1", "7")

    @pytest.mark.parametrize("member", ["runtimeStatus", "status"])
    def test_three_envelopes_are_opened_and_a_fourth_is_not(self, member: str) -> None:
        """Deeper, it is no status of what was asked for."""
        for depth in range(5):
            body: Any = {member: "Failed"}
            for _ in range(depth):
                body = {"data": body}
            if depth < 4:
                reported = read_status(_response(200, body))
                assert reported.failed
            else:
                with pytest.raises(OrchestrationError, match="no runtimeStatus can be read"):
                    read_status(_response(200, body))

    def test_what_was_read_cannot_be_changed(self) -> None:
        """A state and an instance are records of what was answered."""
        for record in (DurableStatus(runtime_status="Failed"), DurableInstance(id="1")):
            with pytest.raises(AttributeError):
                record.id = "2"  # type: ignore[union-attr, misc]

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
            (200, {"runtimeStatus": 3}, "Failed"),
            (200, {"runtimeStatus": 0}, "Running"),
            (200, {"runtimeStatus": 1.0}, "Completed"),
            (200, {"runtimeStatus": "5"}, "Terminated"),
            (200, {"runtimeStatus": 6}, "Pending"),
            (200, {"RuntimeStatus": "Failed"}, "Failed"),
            (200, {"runtime_status": "failed"}, "Failed"),
            (200, {"runtimeStatus": "OrchestrationRuntimeStatus.Failed"}, "Failed"),
            (200, {"runtimeStatus": "ORCHESTRATION_STATUS_CONTINUED_AS_NEW"}, "ContinuedAsNew"),
            (200, {"data": {"runtimeStatus": "Failed"}}, "Failed"),
            (200, {"status": {"runtimeStatus": "Running"}}, "Running"),
            (200, {"result": {"value": {"RuntimeStatus": 3}}}, "Failed"),
            (200, [{"runtimeStatus": "Failed"}], "Failed"),
            (200, '{"runtimeStatus": "Failed"}', "Failed"),
            (200, {"data": {"status": "failed"}}, "failed"),
            (200, {"status": "success", "data": {"status": "failed"}}, "failed"),
            (200, {"status": "success", "result": [{"Status": "running"}]}, "running"),
            (202, {"status": "success", "data": {"status": "failed"}}, "failed"),
            (200, {"status": "success", "payload": {"job": {"status": "failed"}}}, "failed"),
            (200, {"status": "success", "output": {"status": "failed"}}, "success"),
            (200, {"status": "done", "a": {"status": "done"}, "b": {"status": "error"}}, "error"),
            (200, {"runtimeStatus": "df.OrchestrationRuntimeStatus.Completed"}, "Completed"),
            (200, {"runtimeStatus": "3.0"}, "Failed"),
            (200, {"runtimeStatus": "Failed", "RuntimeStatus": 3}, "Failed"),
            (200, {"status": "NotStarted"}, "NotStarted"),
            (200, {"status": "in-progress"}, "in-progress"),
            (200, {"status": "Timed Out", "error": {"code": "x"}}, "Timed Out"),
            (200, {"status": "Aborted"}, "Aborted"),
            (202, "accepted, come again", "Running"),
            (200, {"status": "completed", "output": {"runtimeStatus": "Odd"}}, "completed"),
            (202, {"status": "success", "message": "accepted"}, "Running"),
            (202, {"status": "success", "data": {"runtimeStatus": "Odd"}}, "Running"),
        ],
    )
    def test_the_body_decides(self, code: int, body: Any, state: str) -> None:
        """The HTTP status counts only where the body says nothing."""
        assert read_status(_response(code, body)).runtime_status == state

    @pytest.mark.parametrize(
        ("code", "body"), [(500, {"error": "x"}), (503, {"status": "error"}), (404, None)]
    )
    def test_an_error_holds_no_state(self, code: int, body: Any) -> None:
        """What says nothing of an instance stays the error that it is."""
        assert state_in(_response(code, body), body) is None

    @pytest.mark.parametrize("depth", [3, 300, 900, 1_500, 3_000, 100_000])
    def test_an_answer_of_many_envelopes_is_read_or_refused(self, depth: int) -> None:
        """As deep as JSON can be read; what is deeper is an error of ours."""
        body = b'{"status": "success", "data": ' * depth + b"{}" + b"}" * depth
        request = httpx.Request("GET", "https://app.example/api/run")
        try:
            reported = read_status(httpx.Response(200, content=body, request=request))
        except OrchestrationError:
            assert depth > 300
        else:
            assert reported.runtime_status == "success"

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"null", b"\xef\xbb\xbf", b"<html><title>Sign in</title>", b"{}", b"[]", b"true",
            b'{"rows": 3}', b'{"status": "ok, more or less"}', b'{"runtimeStatus": null}',
            b'{"runtimeStatus": true}', b'{"runtimeStatus": 8}', b'{"runtimeStatus": -1}',
            b'{"runtimeStatus": "Unknown"}', b'{"runtimeStatus": ["Completed"]}',
            b'[{"runtimeStatus": "Completed"}, {"runtimeStatus": "Failed"}]',
            b'{"output": {"runtimeStatus": "Completed"}}', b"[" * 100_000,
            # What wraps an answer speaks of the request, not of the instance.
            b'{"status": "success", "data": {"runtimeStatus": "Unknown"}}',
            b'{"status": "success", "payload": {"runtime_status": "Failed"}}',
            b'{"status": "done", "data": [{"runtimeStatus": 3}, {"runtimeStatus": 1}]}',
            b'{"status": "success", "RuntimeStatus": "Odd"}',
            '{"runtimeStatus": "\u00b2"}'.encode(), b'{"runtimeStatus": "--3"}',
            b'{"status": "success", "a": ' + b'{"a": ' * 9 + b'{"runtimeStatus": 3}' + b"}" * 10,
            b'{"status": "success", "x": {"Runtime-Status": "Failed"}}',
            b'{"status": "failed", "data": {"runtimeStatus": "Completed"}}',
            b'{"Status": "error", "runtimeStatus": "Completed"}',
            b'{"runtimeStatus": "NotStatus.Completed"}',
            b'{"runtimeStatus": "Not.Completed"}', b'{"runtimeStatus": ".Completed"}',
            b'{"runtimeStatus": "' + b"9" * 5000 + b'"}',
            # Said twice, and not the same.
            b'{"runtimeStatus": "Failed", "runtimeStatus": "Completed"}',
            b'{"runtimeStatus": "Completed", "runtime_status": "Failed"}',
            b'{"status": "failed", "data": {"status": "done"}, "status": "success"}',
            b'{"runtimeStatus": ' + b"[" * 900 + b"]" * 900 + b"}",
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("code", [200, 204])
    def test_an_answer_without_a_state_is_an_error(self, code: int, body: bytes) -> None:
        """Never a success; the error shows how the answer begins."""
        request = httpx.Request("GET", "https://app.example/x?code=s3cretkey99")
        response = httpx.Response(code, content=body, request=request)
        with pytest.raises(OrchestrationError, match="no runtimeStatus can be read") as caught:
            read_status(response)
        assert "s3cretkey99" not in str(caught.value)
        assert f"answered {code} (" in str(caught.value)
        assert ("no content type" in str(caught.value)) is bool(body.strip(b"\xef\xbb\xbf"))
        assert body.decode("utf-8-sig", "replace")[:10] in str(caught.value)

    @pytest.mark.parametrize(
        "url",
        [
            *("http://[::1", "http://app.example:x/", "ftp://a/b", "https://a:0/s", "https://a:/s"),
            *(r"https://a\.b/s?code=k", "https://a%2Fb/s", "https://a..b/s"),
        ],
    )
    def test_an_unusable_status_url_is_refused_at_the_start(self, url: str) -> None:
        """Not a ValueError of `urllib` later."""
        with pytest.raises(OrchestrationError, match="not an http"):
            read_start(_response(202, {"statusQueryGetUri": url}), what="POST /api/run")

    @pytest.mark.parametrize(
        "body",
        [
            b'{"runtimeStatus": "Completed", "output": 1, "output": 2}',
            b'{"runtimeStatus": "Completed", "runtimeStatus": "Completed"}',
        ],
    )
    def test_a_state_said_twice_is_read_where_it_is_one(self, body: bytes) -> None:
        """What else an app says twice is its own affair."""
        request = httpx.Request("GET", "https://app.example/x")
        response = httpx.Response(200, content=body, request=request)
        assert read_status(response).runtime_status == "Completed"

    @pytest.mark.parametrize("charset", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1"])
    def test_a_status_is_read_in_the_charset_it_came_in(self, charset: str) -> None:
        """Some servers write a byte order mark in front of JSON, or what is no UTF-8."""
        request = httpx.Request("GET", "https://app.example/x")
        kind = {"Content-Type": f"application/json; charset={charset}"}
        body = '{"runtimeStatus": "Failed", "output": "\u00e9"}'.encode(charset)
        reported = read_status(httpx.Response(200, content=body, headers=kind, request=request))
        assert (reported.failed, reported.output) == (True, "\u00e9")

    def test_a_failure_says_why_wherever_the_answer_has_it(self) -> None:
        """Operations of Azure that are no orchestrations have an `error`."""
        error = {"code": "ExecutionFailure", "message": "disk full"}
        for said in ({"output": error}, {"customStatus": error}, {"error": error}, error):
            reported = read_status(_response(200, {"status": "Failed", **said}))
            assert "disk full" in str(failure_of(reported, None))

    @given(st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
            st.sampled_from(["runtimeStatus", "RuntimeStatus", "status", "data", "output", "x"]),
            inner, max_size=3,
        ),
        max_leaves=6,
    ))  # fmt: skip
    def test_no_json_is_a_success_unless_it_says_so(self, body: Any) -> None:
        """Whatever it is; and nothing but our error is raised."""
        request = httpx.Request("GET", "https://app.example/x")
        response = httpx.Response(200, content=json.dumps(body).encode(), request=request)
        try:
            reported = read_status(response)
        except OrchestrationError:
            return
        if reported.succeeded:
            said = ("completed", "succeeded", "success", "done", "1")
            assert any(word in json.dumps(body).lower() for word in said)

    @pytest.mark.parametrize(
        ("url", "asked"),
        [
            ("http://app.example/s/1?code=k", "https://app.example/s/1?code=k"),
            ("http://app.example:80/s/1?code=k", "https://app.example/s/1?code=k"),
            ("https://other.example/s/1?code=k", "https://other.example/s/1?code=k"),
            ("http://other.example/s/1?code=k", None),
            ("http://app.example:8080/s/1?code=k", None),
        ],
    )
    def test_the_key_of_an_app_on_https_never_travels_in_the_clear(
        self, url: str, asked: str | None
    ) -> None:
        """A proxy that ends TLS in front of the app makes it write http://."""
        if asked is not None:
            assert secure_url(url, "https://app.example") == asked
            return
        with pytest.raises(OrchestrationError, match="must not travel in the clear") as caught:
            secure_url(url, "https://app.example")
        assert "code=k" not in str(caught.value)

    @pytest.mark.parametrize(
        ("location", "asked"),
        [
            ("http://app.example/s/2?code=k", "https://app.example/s/2?code=k"),
            ("/s/2?code=k", "https://app.example/s/2?code=k"),
            ("http://other.example/s/2?code=k", None),
            ("http://other.example/help", "http://other.example/help"),
        ],
    )
    async def test_a_redirect_takes_no_key_into_the_clear(
        self, location: str, asked: str | None, respx_mock: respx.MockRouter
    ) -> None:
        """As little as a status URL does."""
        moved = respx_mock.get("https://app.example/s/1?code=k")
        moved.respond(302, headers={"Location": location})
        async with AzureFunctionAsyncClient("https://app.example") as client:
            if asked is None:
                with pytest.raises(OrchestrationError, match="must not travel in the clear"):
                    await client.get_status("/s/1?code=k")
                return
            respx_mock.get(asked).respond(200, json={"runtimeStatus": "Completed"})
            assert (await client.get_status("/s/1?code=k")).succeeded

    async def test_a_location_that_is_no_url_is_read_where_it_counts(
        self, respx_mock: respx.MockRouter
    ) -> None:
        """As a redirect it is an error of the network; what the answer names besides is enough."""
        odd = {"Location": "http://[odd/s?code=k"}
        status_url = "https://app.example/s/1?code=k"
        started = respx_mock.post("https://app.example/api/run")
        started.respond(202, headers=odd, json={"id": "1", "statusQueryGetUri": status_url})
        respx_mock.get(status_url).respond(302, headers=odd)
        async with AzureFunctionAsyncClient("https://app.example") as client:
            instance = await client.start(_PATH)
            assert instance.status_url == status_url
            with pytest.raises(httpx.RemoteProtocolError, match="which is not a URL"):
                await client.get_status(instance)

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
    def test_any_text_fits_into_a_management_url(self, text: str) -> None:
        """A reason is one parameter, and the key stays another; an event's name is one segment."""
        status_url = "https://a.example/i/1?code=k"
        given = DurableInstance(
            status_url="https://b.example",
            terminate_url="https://a.example/i/1/terminate?reason={text}&code=k",
            urls={"raiseEvent": "https://a.example/i/1/raiseEvent/%7beventName%7d?code=k"},
        )
        for instance in (given, DurableInstance(status_url=status_url)):
            made = httpx.URL(str(management_url(instance, "terminate", reason=text)))
            assert made.path == "/i/1/terminate"
            assert dict(made.params) == {"reason": text, "code": "k"}
            raised = str(management_url(instance, "raiseEvent", name=text))
            assert raised == f"https://a.example/i/1/raiseEvent/{quote(text, safe='')}?code=k"
        assert management_url(DurableInstance(status_url=status_url), "purge") == status_url

    def test_urls_are_asked_as_their_host_means_them(self) -> None:
        """.NET writes a blank in an id as a plus sign, and its isolated worker braces twice."""
        below = "https://app.example/instances/a+b"
        body = {
            "Id": "a b",
            "StatusQueryGetUri": f"{below}?code=k+k",
            "TerminatePostUri": f"{below}/terminate?reason={{{{text}}}}&code=k+k",
        }
        instance = read_start(_response(202, body), what="POST /api/run")
        there = "https://app.example/instances/a%20b"
        assert instance.status_url == f"{there}?code=k+k"
        asked = management_url(instance, "terminate", reason="it is late")
        assert asked == f"{there}/terminate?reason=it%20is%20late&code=k+k"
        plus = read_start(_response(202, {**body, "Id": "a+b"}), what="POST /api/run")
        assert plus.status_url == body["StatusQueryGetUri"]
