"""A logging filter through which no secret passes."""

import io
import logging
from collections.abc import Iterator

import pytest

from infra_core.runtime import SecretFilter


@pytest.fixture
def output() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    """A logger whose only handler redacts and writes into a buffer."""
    logger = logging.getLogger("test_runtime_secret_filter")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(SecretFilter())
    logger.addHandler(handler)
    yield logger, stream
    logger.removeHandler(handler)


Output = tuple[logging.Logger, io.StringIO]


def test_message_and_arguments_are_redacted_as_one(output: Output) -> None:
    """Also where name and value come from different arguments."""
    logger, stream = output
    logger.info("GET %s with %s=%s", "https://h/?sig=abc", "x-functions-key", "def")
    assert stream.getvalue() == "GET https://h/?sig=<redacted> with x-functions-key=<redacted>\n"


def test_the_traceback_is_redacted(output: Output) -> None:
    """Exception text, chained ones included, loses its secrets and nothing else."""
    logger, stream = output
    try:
        try:
            raise ValueError("https://u:S3CR3T@h/")
        except ValueError as error:
            raise RuntimeError("code=S3CR3T") from error
    except RuntimeError:
        logger.exception("failed for api_key=S3CR3T")
    text = stream.getvalue()
    assert "S3CR3T" not in text
    assert "RuntimeError: code=<redacted>" in text
    assert "ValueError: https://<redacted>@h/" in text
    assert "Traceback (most recent call last)" in text


def test_the_exception_object_leaves_the_record() -> None:
    """A structured formatter would print it with its secret."""
    try:
        raise ValueError("sig=S3CR3T")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "x", "exc_info": (ValueError, error, None)})
    assert SecretFilter().filter(record)
    assert record.exc_info is None
    assert record.exc_text == "ValueError: sig=<redacted>"


def test_extra_fields_and_the_stack_are_redacted() -> None:
    """By their names and by what they hold, into mappings and sequences."""
    record = logging.makeLogRecord(
        {
            "msg": "x",
            "url": "https://h/?sig=abc",
            "api_key": "abc",
            "headers": {"Authorization": "Bearer abc", "Accept": "*/*"},
            "urls": ["https://h/?code=abc"],
            "attempt": 2,
            "status": None,
            "stack_info": 'Stack:\n  get("https://h/?sig=abc")',
        }
    )
    SecretFilter().filter(record)
    fields = vars(record)
    assert fields["url"] == "https://h/?sig=<redacted>"
    assert fields["api_key"] == "<redacted>"
    assert fields["headers"] == {"Authorization": "<redacted>", "Accept": "*/*"}
    assert fields["urls"] == ["https://h/?code=<redacted>"]
    assert (fields["attempt"], fields["status"]) == (2, None)
    assert fields["stack_info"] == 'Stack:\n  get("https://h/?sig=<redacted>")'


def test_a_message_whose_arguments_do_not_fit_is_still_redacted() -> None:
    """A programming error in a log call must not leak."""
    record = logging.makeLogRecord({"msg": "%s %s sig=abc", "args": ("code=abc",)})
    assert SecretFilter().filter(record)
    assert "abc" not in record.getMessage()


def test_only_records_of_the_named_logger_are_touched() -> None:
    """The name works as in logging.Filter, but nothing is held back."""
    record = logging.makeLogRecord({"name": "other", "msg": "sig=abc"})
    assert SecretFilter("mine").filter(record)
    assert record.getMessage() == "sig=abc"
