"""Answers of HTTP-triggered functions."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from http import HTTPStatus

import pytest

from infra_core.azure.function_http import (
    absolute_url,
    bootstrap_logging,
    error_response,
    json_response,
)


def test_json_is_readable_and_not_cached() -> None:
    """UTF-8, indented by two, Cache-Control: no-store."""
    response = json_response({"name": "ü", "n": 1})
    assert response.status_code == 200
    assert response.mimetype == "application/json"
    assert response.charset == "utf-8"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.get_body() == '{\n  "name": "ü",\n  "n": 1\n}'.encode()


def test_headers_of_the_caller_win_in_any_letter_case() -> None:
    """There is one Cache-Control."""
    response = json_response(
        {}, status=HTTPStatus.ACCEPTED, headers={"cache-control": "max-age=5", "X-A": "1"}
    )
    assert response.status_code == 202
    assert response.headers["Cache-Control"] == "max-age=5"
    assert response.headers["X-A"] == "1"


def test_an_error_has_a_code_and_a_message_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In the logger of the caller, without secrets in either place."""
    log = logging.getLogger("my.service")
    message = "cannot call https://app.example/x?code=s3cretkey99"
    with caplog.at_level(logging.ERROR):
        response = error_response("upstream", message, status=HTTPStatus.BAD_GATEWAY, log=log)
    error = json.loads(response.get_body())["error"]
    assert response.status_code == 502
    assert error["code"] == "upstream"
    assert "cannot call" in error["message"]
    assert "s3cretkey99" not in error["message"] + caplog.text
    assert caplog.records[0].name == "my.service"


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """azure-functions is imported when an answer is made."""
    monkeypatch.setitem(sys.modules, "azure.functions", None)
    with pytest.raises(RuntimeError, match="pip install azure-functions"):
        json_response({})


@pytest.mark.parametrize(
    ("url", "segments", "expected"),
    [
        ("https://a.example/api/run", ("x", "/y/"), "https://a.example/api/run/x/y"),
        ("https://a.example/api/run?code=KEY", ("status",), "https://a.example/api/run/status"),
        ("https://a.example/run?v=2&CODE=K&key=1", (), "https://a.example/run?v=2"),
        ("https://a.example/run?sig=s&x-functions-key=k", ("a",), "https://a.example/run/a"),
        ("https://user:pw@a.example/", ("a", "", "b"), "https://a.example/a/b"),
        ("https://a.example", (), "https://a.example/"),
    ],
)
def test_urls_for_the_client_carry_no_key(
    url: str, segments: tuple[str, ...], expected: str
) -> None:
    """A status URL made from a request never keeps ?code=KEY."""
    assert absolute_url(url, *segments) == expected


def test_a_url_may_be_any_object() -> None:
    """Requests of frameworks have URL types of their own."""
    import httpx

    assert absolute_url(httpx.URL("https://a.example/x"), "y") == "https://a.example/x/y"


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    """The root logger, put back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_handlers_of_the_host_stay(root_logger: logging.Logger) -> None:
    """The Functions host hangs its own onto the root logger, before any code of ours."""
    own = logging.NullHandler()
    root_logger.addHandler(own)
    before = len(root_logger.handlers)
    for _ in range(2):
        bootstrap_logging()
    assert own in root_logger.handlers
    assert len(root_logger.handlers) == before + 1


def test_logging_follows_what_standard_output_is(
    root_logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is replaced and closed by others; characters that it lacks are escaped."""
    first = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    monkeypatch.setattr(sys, "stdout", first)
    bootstrap_logging()
    first.close()
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="cp1252"))
    logging.getLogger("some.library").info("naïve \u2192 \U0001f382")
    assert file.getvalue().rstrip().endswith(b"[some.library] na\xefve \\u2192 \\U0001f382")
    text = io.StringIO()  # which has no encoding
    monkeypatch.setattr(sys, "stdout", text)
    logging.getLogger("some.library").info("\u2192")
    assert text.getvalue().endswith("\u2192\n")


def test_logging_goes_to_standard_output(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, at the level asked for; named loggers as well."""
    bootstrap_logging(level=logging.WARNING, logger_names=["some.library"])
    bootstrap_logging(level=logging.INFO, logger_names=["some.library"])
    logging.getLogger("some.library").info("hello")
    assert [type(h).__name__ for h in root_logger.handlers].count("_StandardOutput") == 1
    assert logging.getLogger("some.library").level == logging.INFO
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    assert lines[0].endswith("INFO [some.library] hello")
    logging.getLogger("some.library").setLevel(logging.NOTSET)
