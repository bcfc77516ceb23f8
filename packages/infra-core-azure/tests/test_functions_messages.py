"""What the Functions clients say: the value at fault, the rule it broke, what to do; no secrets."""

import argparse
import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra_core.azure.client import (
    AzureFunctionAsyncClient,
    AzureFunctionSyncClient,
    RequestOptions,
    wait_for_completion,
)
from infra_core.azure.exceptions import OrchestrationTimeoutError
from infra_core.azure.function_cli import (
    add_azure_service_arguments,
    trigger_batch,
)
from infra_core.azure.function_http import bootstrap_logging, json_response
from infra_core.azure.function_testing import FunctionsHost
from infra_core.http.testing import status

URL = "https://my-app.azurewebsites.net"


@pytest.fixture(scope="module")
def host() -> Iterator[FunctionsHost]:
    with FunctionsHost(api_key="key") as running:
        running.function("/api/f", {"a": 1})
        running.orchestrator("/api/run", ["Completed"], output=1)
        yield running


@pytest.fixture(scope="module")
def app(host: FunctionsHost) -> Iterator[AzureFunctionSyncClient]:
    with AzureFunctionSyncClient(host.base_url, api_key="key") as client:
        yield client


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"base_url": 5}, ValueError, "base_url is required and 5 is none: give the URL"),
        ({"base_url": "app.example"}, ValueError, "'app.example' is not a URL"),
        ({"base_url": "https://app:99999"}, ValueError, "'https://app:99999' is not a URL"),
        ({"base_url": "https://[::1"}, ValueError, "must begin with https://"),
        ({"base_url": "https://my app"}, ValueError, "'https://my app' is not a URL"),
        ({"base_url": URL, "timeout": 0}, ValueError, "timeout=0 is out of range: pass seconds"),
        ({"base_url": URL, "timeout": "5"}, TypeError, "timeout='5' is not a number: pass seconds"),
        ({"base_url": URL, "cold_start_grace": -1}, ValueError, "cold_start_grace=-1"),
        ({"base_url": URL, "cold_start_grace": "5"}, TypeError, "cold_start_grace='5'"),
        ({"base_url": URL, "options": {"timeout": 5}}, TypeError, "pass RequestOptions(timeout="),
        ({"base_url": URL, "default_headers": 5}, TypeError, "default_headers is an int, which is"),
        ({"base_url": URL, "api_key": 5}, ValueError, "api_key is not a key"),
    ],
)
def test_a_bad_setting_is_named_at_once(
    settings: dict[str, Any], kind: type[Exception], expected: str
) -> None:
    """When the client is made, not with its first request."""
    with pytest.raises(kind) as caught:
        AzureFunctionAsyncClient(**settings)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "https://user:S3CRET@app.example"},
        {"base_url": "https://app.example/?code=S3CRET"},
        {"base_url": URL, "api_key": "S3CRET\nnext line"},
        {"base_url": URL, "api_key": "S3CRETé"},
    ],
)
def test_a_secret_in_a_bad_setting_is_not_shown(settings: dict[str, Any]) -> None:
    """The message says where it stood, and api_key is where it belongs."""
    with pytest.raises(ValueError, match="api_key") as caught:
        AzureFunctionAsyncClient(**settings)
    assert "S3CRET" not in str(caught.value)


def test_a_bad_variable_is_named() -> None:
    """The operator sees variables, not parameters."""
    with pytest.raises(ValueError, match="APP_URL 'app' is not a URL of a function app"):
        AzureFunctionAsyncClient.from_env(base_url_env="APP_URL", env={"APP_URL": "app"})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"delay": float("inf")}, "delay=inf is out of range: pass seconds, 0 to a day"),
        ({"delay": "1"}, "delay='1' is not a number"),
        ({"max_retries": 1.5}, "max_retries=1.5 is not a whole number"),
        ({"max_retries": -1}, "max_retries=-1 is out of range"),
        ({"backoff": float("nan")}, "backoff=nan is out of range"),
        ({"deadline": 0}, "deadline=0 is out of range: pass seconds above 0, or None"),
        ({"max_bytes": "5"}, "max_bytes='5' is not a whole number: pass a number of bytes"),
        ({"retry_statuses": 503}, "retry_statuses=503 is not a collection"),
        ({"retry_statuses": "503"}, "pass one of HTTP statuses, such as {429, 503}"),
    ],
)
def test_a_bad_option_is_named(options: dict[str, Any], expected: str) -> None:
    """Where it is written, not where it is used."""
    with pytest.raises((TypeError, ValueError)) as caught:
        RequestOptions(**options)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda app: app.get_json(5), "path=5 is not a path: pass text"),
        (lambda app: app.get_json("/api/f", headers=[("a", "b")]), "headers is a list, which is"),
        (lambda app: app.get_json("/api/f", options={"timeout": 5}), "is not a RequestOptions"),
        (lambda app: app.wait_for_completion(None), "instance is a NoneType: pass the Durable"),
        (lambda app: app.wait_for_completion(""), "instance is empty: pass the DurableInstance"),
        (lambda app: app.wait_for_completion({"code": "S3CRET"}), "instance is a dict: pass"),
        (lambda app: app.terminate(5), "instance is an int: pass the DurableInstance"),
        (lambda app: app.terminate("/api/x", reason=None), "reason=None is not text: pass str()"),
        (lambda app: app.raise_event("/api/x", ""), "name='' names no event: pass the name that"),
        (lambda app: app.raise_event("/api/x", " "), "name=' ' names no event: pass the name that"),
        (lambda app: app.raise_event("/api/x", None), "name=None is not text: pass str() of it"),
        (lambda app: app.start_and_wait("/api/run", timeout="5"), "timeout='5' is not a number"),
        (lambda app: app.start_and_wait("/api/run", timeout=None), "timeout=None is not a number"),
        (
            lambda app: app.start_and_wait("/api/run", poll_interval=float("inf")),
            "poll_interval=inf is out of range: pass seconds above 0, up to a day",
        ),
        (lambda app: wait_for_completion("/api/x"), "status_url '/api/x' is not a URL"),
        (lambda app: wait_for_completion(None), "status_url is required"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_argument_of_a_call_is_named(
    app: AzureFunctionSyncClient, call: Callable[[Any], object], expected: str
) -> None:
    """With what to pass instead."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call(app)
    assert expected in str(caught.value)
    assert "S3CRET" not in str(caught.value)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exceptions have no notes")
@pytest.mark.parametrize(
    ("api_key", "path", "expected"),
    [
        (
            "wrong",
            "/api/f",
            "refused the key that was sent: check api_key (AZURE_FUNCTION_API_KEY)",
        ),
        (None, "/api/f", "wants a key, and none was sent"),
        ("key", "/api/nowhere", "no function answers at this path: check it"),
    ],
)
def test_an_answer_with_a_likely_cause_says_what_to_check(
    host: FunctionsHost, api_key: str | None, path: str, expected: str
) -> None:
    """The error itself stays the one that 0.7 raised."""
    with (
        AzureFunctionSyncClient(host.base_url, api_key=api_key) as client,
        pytest.raises(httpx.HTTPStatusError) as caught,
    ):
        client.get_json(path)
    assert expected in "\n".join(caught.value.__notes__)


def test_an_answer_that_is_no_json_says_what_it_is(
    host: FunctionsHost, app: AzureFunctionSyncClient
) -> None:
    """Also where exceptions have no notes."""
    host.origin.add("/api/page", body=b"<html>", content_type="text/html")
    with pytest.raises(ValueError, match=r"/api/page answered 200 with text/html.*check the path"):
        app.get_json("/api/page")


def test_an_instance_that_was_never_seen_is_not_said_to_go_on(
    host: FunctionsHost, app: AzureFunctionSyncClient
) -> None:
    """Whether it runs is unknown."""
    host.origin.add("/broken", always=status(503))
    with pytest.raises(OrchestrationTimeoutError, match="whether it runs is not known") as caught:
        app.wait_for_completion("/broken?code=x", timeout=0.05, poll_interval=0.02)
    assert "it goes on" not in str(caught.value)


def _parsed(*arguments: str) -> Namespace:
    parser = argparse.ArgumentParser("trigger")
    add_azure_service_arguments(parser, base_url_env_var="APP_URL")
    return parser.parse_args(arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["b", "--concurrency", "x"], "--concurrency: 'x' is not a whole number of 1 or more"),
        (["b", "--concurrency", "0"], "--concurrency: '0' is not a whole number of 1 or more"),
        (["b", "--poll-timeout", "x"], "--poll-timeout: 'x' is not a number of seconds above 0"),
        (["b", "--poll-interval", "nan"], "--poll-interval: 'nan' is not a number of seconds"),
        ([" "], "batch_id: ' ' is not a name; give the batch one"),
    ],
)
def test_a_bad_argument_of_the_command_line_is_named(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words, not by the name of one of our functions."""
    with pytest.raises(SystemExit):
        _parsed(*arguments)
    assert expected in capsys.readouterr().err


def test_a_summary_that_cannot_be_written_does_not_hide_what_came_of_the_batch(
    host: FunctionsHost, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has the outcome; a failure of the batch itself comes through."""
    args = _parsed("b", "--base-url", host.base_url, "--summary-file", str(tmp_path))
    env = {"AZURE_FUNCTION_API_KEY": "key"}
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="is a folder"):
        trigger_batch(args, env=env, base_url_env_var="APP_URL")
    assert "was not written" in caplog.text
    assert "batch 'b': Completed, instance 'api-run-" in caplog.text
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        trigger_batch(args, env={}, base_url_env_var="APP_URL")


def test_a_payload_must_be_a_mapping(host: FunctionsHost) -> None:
    """A list is no part of a JSON object."""
    args = _parsed("b", "--base-url", host.base_url)
    with pytest.raises(TypeError, match="payload is a list, which is not a mapping"):
        trigger_batch(args, env={}, base_url_env_var="APP_URL", payload=[1])


def test_an_answer_that_a_function_cannot_give_is_refused_with_the_remedy() -> None:
    """And one logger's name is not taken for many."""
    with pytest.raises(TypeError, match=r"payload cannot be written as JSON .*isoformat"):
        json_response({"x": object()})
    with pytest.raises(TypeError, match=r"logger_names='azure' is one name"):
        bootstrap_logging(logger_names="azure")


def test_a_path_without_orchestrator_lists_those_there_are(host: FunctionsHost) -> None:
    """A typing error in a test."""
    with pytest.raises(LookupError, match=r"no orchestrator was added at '/api/x'.*'/api/run'"):
        host.instances("/api/x")


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("request", ("GET", "/api/f")),
        ("get_json", ("/api/f",)),
        ("start", ("/api/run",)),
        ("start_and_wait", ("/api/run",)),
        ("terminate", ("/x",)),
        ("purge", ()),
    ],
)
def test_a_wrong_argument_names_what_was_called(
    method: str, arguments: tuple[str, ...], app: AzureFunctionSyncClient
) -> None:
    """Not the asynchronous method or function behind it."""
    with pytest.raises(TypeError) as caught:
        getattr(app, method)(*arguments, foo=1)
    said = f"AzureFunctionSyncClient.{method}() got an unexpected keyword argument 'foo'"
    assert str(caught.value) == said


async def test_a_wrong_argument_of_a_start_is_one_of_the_client() -> None:
    """No parameter of what the client calls is taken by accident."""
    async with AzureFunctionAsyncClient(URL) as client:
        for name in ("foo", "client", "cold", "on_retry"):
            with pytest.raises(TypeError, match=r"^AzureFunctionAsyncClient\.request\(\) got"):
                given: Any = {name: 1}
                await client.start("/api/run", **given)


def test_a_wrong_argument_of_trigger_batch_names_it(host: FunctionsHost) -> None:
    """It makes a client first."""
    args = Namespace(base_url=host.base_url)
    with pytest.raises(TypeError, match=r"^trigger_batch\(\) got an unexpected .*'foo'"):
        trigger_batch(args, foo=1)
