"""Clients of function apps, against a local server that plays the Functions host."""

import asyncio
import json
import logging
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from infra_core.azure.client import (
    AzureFunctionAsyncClient,
    AzureFunctionSyncClient,
    RequestOptions,
    wait_for_completion,
)
from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.function_testing import FunctionsHost
from infra_core.http import AsyncHttpClient, OutcomeUnknown
from infra_core.http.testing import Exchange, Fault, hang_up, redirect, status
from infra_core.runtime.testing import fast_time

_FAST = RequestOptions(backoff=0.001, max_backoff=0.01)


class TestSurface:
    """The names and defaults of 0.7."""

    async def test_json_goes_there_and_back(self) -> None:
        """`post_json` sends JSON and returns JSON."""
        with FunctionsHost() as host:
            host.function("/api/run", lambda given: {"got": given})
            async with AzureFunctionAsyncClient(host.base_url) as client:
                assert await client.post_json("/api/run", json={"n": 1}) == {"got": {"n": 1}}
                assert await client.get_json("api/run") == {"got": None}

    async def test_an_empty_body_is_an_empty_object(self) -> None:
        """A function that answers nothing gives {}."""
        with FunctionsHost() as host:
            host.function("/api/quiet", None, status=204)
            async with AzureFunctionAsyncClient(host.base_url) as client:
                assert await client.request_json("GET", "/api/quiet") == {}
                await client.delete("/api/quiet")
            assert host.origin.count("/api/quiet", "DELETE") == 1

    @pytest.mark.parametrize(
        ("body", "kind", "read"),
        [
            (b" \r\n", "text/plain", {}),
            (b'{"a": "\xe9"}', "application/json; charset=iso-8859-1", {"a": "\u00e9"}),
            ('{"a": "\u00e9"}'.encode("utf-16"), "application/json", {"a": "\u00e9"}),
        ],
    )
    async def test_json_is_read_as_it_comes(self, body: bytes, kind: str, read: Any) -> None:
        """Blanks are an empty body; another charset than UTF-8 is named by the answer."""
        with FunctionsHost() as host:
            host.origin.add("/api/odd", body, content_type=kind)
            async with AzureFunctionAsyncClient(host.base_url) as client:
                assert await client.get_json("/api/odd") == read

    async def test_an_answer_that_is_no_json_says_where_it_came_from(self) -> None:
        """A log-in page instead of JSON is a ValueError."""
        with FunctionsHost() as host:
            host.origin.add("/api/login", b"<html>", content_type="text/html")
            async with AzureFunctionAsyncClient(host.base_url) as client:
                with pytest.raises(ValueError, match="Expecting value") as caught:
                    await client.get_json("/api/login")
        notes = getattr(caught.value, "__notes__", ["text/html"])
        assert any("text/html" in note for note in notes)

    @pytest.mark.parametrize(
        "base_url",
        [
            *("", "  ", "my-app.azurewebsites.net", "ftp://x", "https://", "https://x:no"),
            *("https://x:", "https://x:0", r"https://x\.other", "https://x%2F.y", "https://x..y"),
        ],
    )
    def test_an_unusable_base_url_is_refused(self, base_url: str) -> None:
        """At once, with the remedy."""
        with pytest.raises(ValueError, match="base_url"):
            AzureFunctionAsyncClient(base_url)
        with pytest.raises(ValueError, match="base_url"):
            AzureFunctionSyncClient(base_url)

    def test_a_key_in_the_base_url_is_refused_and_not_shown(self) -> None:
        """It belongs into api_key."""
        with pytest.raises(ValueError, match="api_key") as caught:
            AzureFunctionAsyncClient("https://app.example/api?code=verysecret1")
        assert "verysecret1" not in str(caught.value)

    def test_the_environment_gives_url_and_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the variables named, or the documented ones."""
        monkeypatch.setenv("MY_URL", "https://app.example/")
        monkeypatch.setenv("MY_KEY", " key\n")
        client = AzureFunctionAsyncClient.from_env(
            base_url_env="MY_URL", api_key_env="MY_KEY", timeout=5.0
        )
        assert client.base_url == "https://app.example"
        assert client._merged("https://app.example/x", None) == {"x-functions-key": "key"}
        env = {"AZURE_FUNCTION_BASE_URL": "https://b.example", "AZURE_FUNCTION_API_KEY": "k2"}
        sync = AzureFunctionSyncClient.from_env(env=env)
        headers = sync._async_client._merged("https://b.example", None)
        assert headers == {"x-functions-key": "k2"}

    def test_a_missing_variable_is_named(self) -> None:
        """A RuntimeError, as before."""
        with pytest.raises(ConfigurationError, match="MY_URL") as caught:
            AzureFunctionAsyncClient.from_env(base_url_env="MY_URL", env={})
        assert isinstance(caught.value, RuntimeError)
        with pytest.raises(RuntimeError, match="MY_URL"):
            AzureFunctionSyncClient.from_env(base_url_env="MY_URL", env={})

    def test_options_are_positional_as_before(self) -> None:
        """timeout, delay, max_retries, backoff, max_backoff."""
        options = RequestOptions(1.0, 2.0, 3, 4.0, 5.0)
        assert (options.timeout, options.delay, options.max_retries) == (1.0, 2.0, 3)
        assert (options.backoff, options.max_backoff) == (4.0, 5.0)

    async def test_options_of_a_call_complete_those_of_the_client(self) -> None:
        """What a call does not say, the client's options say."""
        with FunctionsHost() as host, fast_time(jitter=1.0) as time:
            host.function("/api/x", 1, faults=[status(500)] * 3)
            options = RequestOptions(backoff=3.0)
            async with AzureFunctionAsyncClient(host.base_url, options=options) as client:
                with pytest.raises(httpx.HTTPStatusError):
                    await client.get_json("/api/x", options=RequestOptions(max_retries=1, delay=7))
        assert time.slept == [7, 3.0]

    def test_the_key_is_in_no_representation(self) -> None:
        """Neither of the clients shows it."""
        for kind in (AzureFunctionAsyncClient, AzureFunctionSyncClient):
            assert "sesame" not in repr(kind("https://app.example", api_key="sesame"))

    def test_importing_the_clients_imports_no_sdk(self) -> None:
        """Neither the storage SDK nor an HTTP library."""
        script = (
            "import sys, infra_core.azure.client, infra_core.azure.function_cli\n"
            "print([n for n in sys.modules if n.startswith(('azure', 'httpx', 'aiohttp'))])"
        )
        found = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert found.stdout.strip() == "[]"


class TestKey:
    """Where the function key goes, and where it does not."""

    async def test_the_key_opens_the_function(self) -> None:
        """It is sent once, in x-functions-key."""
        with FunctionsHost(api_key="sesame") as host:
            host.function("/api/run", {})
            async with AzureFunctionAsyncClient(host.base_url, api_key="sesame") as client:
                await client.get_json("/api/run")
            (request,) = host.origin.requests
            keys = [v for n, v in request.raw_headers if n.lower() == "x-functions-key"]
            assert keys == ["sesame"]

    async def test_a_header_of_the_call_wins_in_any_letter_case(self) -> None:
        """There are never two of a name."""
        with FunctionsHost() as host:
            host.function("/api/run", {})
            client = AzureFunctionAsyncClient(
                host.base_url, api_key="mine", default_headers={"X-Trace": "a"}
            )
            async with client:
                headers = {"X-Functions-Key": "theirs", "x-trace": "b"}
                await client.get_json("/api/run", headers=headers)
            (request,) = host.origin.requests
            sent = [(n.lower(), v) for n, v in request.raw_headers]
            assert [v for n, v in sent if n == "x-functions-key"] == ["theirs"]
            assert [v for n, v in sent if n == "x-trace"] == ["b"]

    async def test_default_headers_are_read_with_each_request(self) -> None:
        """A token in them may be renewed."""
        headers = {"Authorization": "Bearer 1"}
        with FunctionsHost() as host:
            host.function("/api/run", {})
            async with AzureFunctionAsyncClient(host.base_url, default_headers=headers) as client:
                await client.get_json("/api/run")
                headers["Authorization"] = "Bearer 2"
                await client.get_json("/api/run")
            sent = [request.headers["authorization"] for request in host.origin.requests]
        assert sent == ["Bearer 1", "Bearer 2"]

    async def test_another_origin_gets_neither_key_nor_default_headers(self) -> None:
        """An absolute URL may lead anywhere."""
        with FunctionsHost() as home, FunctionsHost() as away:
            away.function("/api/run", {})
            client = AzureFunctionAsyncClient(
                home.base_url, api_key="sesame", default_headers={"X-Secret": "s"}
            )
            async with client:
                await client.get_json(f"{away.base_url}/api/run")
            headers = away.origin.requests[0].headers
            assert "x-functions-key" not in headers
            assert "x-secret" not in headers

    async def test_an_absolute_url_of_the_app_gets_the_key(self) -> None:
        """Same scheme, host and port."""
        with FunctionsHost(api_key="sesame") as host:
            host.function("/api/run", {"ok": True})
            async with AzureFunctionAsyncClient(host.base_url, api_key="sesame") as client:
                assert await client.get_json(f"{host.base_url}/api/run") == {"ok": True}

    @pytest.mark.parametrize("url", ["https://app.test:443/api/run", "https://APP.test/api/run"])
    async def test_one_origin_is_written_in_several_ways(self, url: str) -> None:
        """The port of the scheme may be named, and a host has no case."""
        seen: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            seen.append(request)
            return httpx.Response(200, json={})

        http = AsyncHttpClient(transport=httpx.MockTransport(answer))
        async with AzureFunctionAsyncClient(
            "https://app.test", api_key="sesame", http_client=http
        ) as client:
            await client.get_json(url)
        assert seen[0].headers["x-functions-key"] == "sesame"

    @pytest.mark.parametrize("own_client", [True, False])
    async def test_the_key_does_not_follow_a_redirect_to_another_origin(
        self, own_client: bool
    ) -> None:
        """Neither through the own HTTP client nor through one that was given."""
        with FunctionsHost(api_key="sesame") as home, FunctionsHost() as away:
            away.function("/stolen", {})
            home.origin.add("/api/run", always=redirect(f"{away.base_url}/stolen", 307))
            given = None if own_client else AsyncHttpClient(headers={"X-Mine": "1"})
            client = AzureFunctionAsyncClient(home.base_url, api_key="sesame", http_client=given)
            async with client:
                await client.get_json("/api/run")
            if given is not None:
                await given.close()
            assert "x-functions-key" not in away.origin.requests[0].headers

    async def test_the_key_follows_no_redirect_at_all(self) -> None:
        """Not even to another function of the same app: that one has keys of its own."""
        with FunctionsHost(api_key="sesame") as host:
            host.origin.add("/api/run", always=redirect("/api/other", 307))
            host.origin.add("/api/other", b"{}", content_type="application/json")
            async with AzureFunctionAsyncClient(host.base_url, api_key="sesame") as client:
                assert await client.get_json("/api/run") == {}
            first, second = host.origin.requests
        assert first.headers["x-functions-key"] == "sesame"
        assert "x-functions-key" not in second.headers

    def test_a_path_cannot_name_another_host(self) -> None:
        """Leading slashes are one slash."""
        client = AzureFunctionAsyncClient("https://app.example/base/")
        assert client._url("//evil.example/x") == "https://app.example/base/evil.example/x"
        assert client._url("/api/x?v=1") == "https://app.example/base/api/x?v=1"
        assert client._url("") == "https://app.example/base"

    async def test_the_key_is_not_logged(self, caplog: pytest.LogCaptureFixture) -> None:
        """Not in a single record, at any level."""
        with caplog.at_level(logging.DEBUG), FunctionsHost() as host:
            host.function("/api/run", {}, faults=[status(503)])
            client = AzureFunctionAsyncClient(host.base_url, api_key="sesame1", options=_FAST)
            async with client:
                await client.get_json("/api/run", params={"code": "opensesame2"})
        assert caplog.records
        for record in caplog.records:
            assert "sesame" not in str(vars(record))


class TestRetries:
    """What is sent again, and what is not."""

    async def test_a_get_is_tried_again(self) -> None:
        """Up to max_retries times after the first."""
        with FunctionsHost() as host:
            host.function("/api/x", {"n": 1}, faults=[status(500), hang_up()])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                assert await client.get_json("/api/x") == {"n": 1}
            assert host.origin.count("/api/x") == 3

    @pytest.mark.parametrize("code", [500, 502, 504])
    async def test_a_post_that_may_have_run_is_not_sent_again(self, code: int) -> None:
        """One request, whatever max_retries says."""
        with FunctionsHost() as host:
            host.function("/api/run", {}, faults=[status(code)])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                with pytest.raises((httpx.HTTPStatusError, OutcomeUnknown)):
                    await client.post_json("/api/run", json={})
            assert host.origin.count("/api/run") == 1

    async def test_a_page_of_the_platform_is_an_unknown_outcome(self) -> None:
        """Some plans answer 500 after 230 seconds (azure-docs#94418), with a page."""
        page = status(500, body=b"<html>500 - The request timed out.")
        with FunctionsHost() as host:
            host.function("/api/run", {"n": 1}, faults=[page, status(500, body=b'"oh"'), page])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                with pytest.raises(OutcomeUnknown, match="cut off with status 500"):
                    await client.post_json("/api/run", json={})
                with pytest.raises(httpx.HTTPStatusError, match="oh") as caught:
                    await client.post_json("/api/run", json={})
                assert not isinstance(caught.value, OutcomeUnknown)
                assert await client.get_json("/api/run") == {"n": 1}

    async def test_a_503_that_comes_when_the_platform_gives_up_is_an_unknown_outcome(self) -> None:
        """After 230 seconds (Azure-Functions#1914); a GET, and a POST that was quick, go again."""
        with FunctionsHost() as host, fast_time() as time:

            def give_up(exchange: Exchange) -> None:
                time.advance(230)
                exchange.reply.status = 503

            late = Fault("late", give_up)
            host.function("/api/run", {"n": 1}, faults=[status(503), late, late])
            async with AzureFunctionAsyncClient(host.base_url) as client:
                with pytest.raises(OutcomeUnknown, match="cut off with status 503"):
                    await client.post_json("/api/run", json={})
                assert host.origin.count("/api/run") == 2
                assert await client.get_json("/api/run") == {"n": 1}

    async def test_a_post_that_surely_did_not_run_is_sent_again(self) -> None:
        """After 429 and 503."""
        with FunctionsHost() as host:
            host.function("/api/run", {"n": 1}, faults=[status(503), status(429)])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                assert await client.post_json("/api/run", json={}) == {"n": 1}

    async def test_a_lost_answer_to_a_post_is_an_unknown_outcome(self) -> None:
        """The connection broke after the request went out."""
        with FunctionsHost() as host:
            host.function("/api/run", {"n": 1}, faults=[hang_up()])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                with pytest.raises(OutcomeUnknown):
                    await client.post_json("/api/run", json={})
            assert host.origin.count("/api/run") == 1

    @pytest.mark.parametrize("code", [502, 504])
    async def test_the_cut_at_230_seconds_is_an_unknown_outcome(self, code: int) -> None:
        """The gateway gives up while the function goes on; the old except clause still works."""
        with FunctionsHost() as host:
            host.function("/api/run", {}, faults=[status(code), status(code)])
            async with AzureFunctionAsyncClient(host.base_url) as client:
                with pytest.raises(OutcomeUnknown, match="230 s") as caught:
                    await client.post_json("/api/run", json={}, params={"code": "s3cret-key"})
                assert "s3cret" not in str(caught.value)
                assert caught.value.method == "POST"
                assert isinstance(caught.value, httpx.TransportError)  # as every lost answer
                again = pickle.loads(pickle.dumps(caught.value))  # from a process pool, say
                assert (type(again), str(again)) == (type(caught.value), str(caught.value))
                with pytest.raises(httpx.HTTPStatusError) as as_before:
                    await client.post_json("/api/run", json={})
                assert as_before.value.response.status_code == code

    async def test_a_repeatable_post_is_sent_again(self) -> None:
        """By option or by an idempotency key."""
        with FunctionsHost() as host:
            host.function("/api/run", {}, faults=[status(504)])
            async with AzureFunctionAsyncClient(host.base_url, options=_FAST) as client:
                await client.post_json("/api/run", json={}, options=RequestOptions(idempotent=True))
                host.origin.script("/api/run", status(504))
                await client.post_json("/api/run", json={}, headers={"Idempotency-Key": "1"})
            assert host.origin.count("/api/run") == 4

    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_a_client_error_is_not_tried_again(self, method: str) -> None:
        """404 is an answer, where no grace was asked for."""
        with FunctionsHost() as host:
            async with AzureFunctionAsyncClient(host.base_url) as client:
                with pytest.raises(httpx.HTTPStatusError):
                    await client.request(method, "/api/none")
            assert host.origin.count("/api/none") == 1


class TestColdStart:
    """An app that is not there yet."""

    async def test_not_found_and_unavailable_are_waited_out(self) -> None:
        """Within the grace, for a POST as well: nothing ran."""
        with FunctionsHost() as host, fast_time():
            host.function("/api/run", {"n": 1}, faults=[status(404), status(503), status(404)])
            async with AzureFunctionAsyncClient(host.base_url, cold_start_grace=60) as client:
                assert await client.post_json("/api/run", json={}) == {"n": 1}
            assert host.origin.count("/api/run") == 4

    async def test_once_warm_a_404_is_an_answer(self) -> None:
        """The grace ends with the first other answer."""
        with FunctionsHost() as host, fast_time():
            host.function("/api/run", {})
            async with AzureFunctionAsyncClient(host.base_url, cold_start_grace=60) as client:
                await client.get_json("/api/run")
                with pytest.raises(httpx.HTTPStatusError):
                    await client.get_json("/api/none")
            assert host.origin.count("/api/none") == 1

    @pytest.mark.parametrize("code", [404, 503])
    async def test_the_grace_has_an_end(self, code: int) -> None:
        """Then the last answer comes through, and the grace is not given again."""
        options = RequestOptions(max_retries=9, retry_statuses={500, 503}, backoff=99)
        with FunctionsHost() as host, fast_time() as time:
            host.origin.add("/api/none", always=status(code))
            client = AzureFunctionAsyncClient(host.base_url, cold_start_grace=20, options=options)
            async with client:
                with pytest.raises(httpx.HTTPStatusError):
                    await client.get_json("/api/none")
                assert 15 < sum(time.slept) < 30
                before = host.origin.count("/api/none")
                with pytest.raises(httpx.HTTPStatusError):
                    await client.get_json("/api/none", options=RequestOptions(max_retries=0))
            assert host.origin.count("/api/none") == before + 1

    async def test_other_errors_are_retried_as_ever_within_the_grace(self) -> None:
        """A 500 is for the usual retries, in one layer."""
        with FunctionsHost() as host, fast_time():
            host.function("/api/x", {}, faults=[status(404), status(500), status(500)])
            async with AzureFunctionAsyncClient(host.base_url, cold_start_grace=60) as client:
                assert await client.get_json("/api/x") == {}

    def test_a_negative_grace_is_refused(self) -> None:
        """It means nothing."""
        with pytest.raises(ValueError, match="cold_start_grace"):
            AzureFunctionAsyncClient("https://app.example", cold_start_grace=-1)


class _Closing(AsyncHttpClient):
    closed = 0

    async def close(self) -> None:
        self.closed += 1
        await super().close()


class TestOwnership:
    """Who closes what."""

    async def test_a_client_that_was_given_is_left_open(self) -> None:
        """Its owner closes it."""
        given = _Closing()
        await AzureFunctionAsyncClient("https://app.example", http_client=given).close()
        assert given.closed == 0

    async def test_the_own_client_is_closed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """With `close()` and at the end of the block."""
        made: list[_Closing] = []

        def make(**settings: Any) -> _Closing:
            made.append(_Closing(**settings))
            return made[-1]

        monkeypatch.setattr("infra_core.http.AsyncHttpClient", make)
        with FunctionsHost() as host:
            host.function("/api/x", {})
            async with AzureFunctionAsyncClient(host.base_url) as client:
                await client.get_json("/api/x")
        assert [client.closed for client in made] == [1]

    async def test_closing_an_unused_client_makes_none(self) -> None:
        """Nothing was opened."""
        client = AzureFunctionAsyncClient("https://app.example")
        await client.close()
        assert client._own is None


class TestSync:
    """The synchronous client."""

    def test_calls_share_the_background_loop_and_its_connections(self) -> None:
        """Ten calls of two clients, one connection each."""
        with FunctionsHost(api_key="k") as host:
            host.function("/api/x", lambda given: given)
            clients = [AzureFunctionSyncClient(host.base_url, api_key="k") for _ in range(2)]
            for n in range(5):
                for client in clients:
                    assert client.post_json("/api/x", json=n) == (n or 0)
            assert host.origin.connections == 2
            for client in clients:
                client.close()
                client.close()

    def test_every_method_works(self) -> None:
        """request, request_json, get_json, delete."""
        with FunctionsHost() as host, AzureFunctionSyncClient(host.base_url) as client:
            host.function("/api/x", {"a": 1})
            assert client.request("GET", "/api/x").status_code == 200
            assert client.request_json("GET", "/api/x") == {"a": 1}
            assert client.get_json("/api/x") == {"a": 1}
            assert client.delete("/api/x") is None

    async def test_inside_a_running_loop_it_works_and_blocks(self) -> None:
        """As in 0.7: a notebook, an asynchronous view."""
        with FunctionsHost(api_key="k") as host:
            host.function("/api/x", {"n": 1})
            host.orchestrator("/api/run", ["Completed"], output=2)
            with AzureFunctionSyncClient(host.base_url, api_key="k") as client:
                assert client.get_json("/api/x") == {"n": 1}
                url = client.start("/api/run").status_url
                assert url is not None
                assert wait_for_completion(url).output == 2

    def test_one_async_client_serves_several_loops(self) -> None:
        """Each `asyncio.run` opens connections of its own."""
        with FunctionsHost() as host:
            host.function("/api/x", {"a": 1})
            client = AzureFunctionAsyncClient(host.base_url)
            # In a thread: asyncio.run takes away the loop that the tests of this thread share.
            with ThreadPoolExecutor(1) as pool:
                for _ in range(2):
                    assert pool.submit(asyncio.run, _get(client)).result() == {"a": 1}


def test_a_sync_client_left_open_ends_with_the_process() -> None:
    """Quietly: no warning of an open connection, no hanging exit."""
    script = (
        "from infra_core.azure.client import AzureFunctionSyncClient\n"
        "from infra_core.azure.function_testing import FunctionsHost\n"
        "with FunctionsHost() as host:\n"
        "    host.function('/api/x', {'a': 1})\n"
        "    client = AzureFunctionSyncClient(host.base_url)\n"
        "    print(client.get_json('/api/x'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "{'a': 1}", "")


async def _get(client: AzureFunctionAsyncClient) -> Any:
    return json.loads((await client.request("get", "/api/x")).content)
