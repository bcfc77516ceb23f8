"""A logging filter through which no secret passes."""

import dataclasses
import enum
import io
import logging
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, strategies as st

from infra_core.runtime import SecretFilter, printable, redact_library_logs

# Explicit marks of the bidirectional algorithm, UAX 9.
BIDI_CONTROLS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


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


def test_the_exception_object_leaves_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A structured formatter would print it with its secret."""
    try:
        raise ValueError("sig=S3CR3T")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "x", "exc_info": (ValueError, error, None)})
    assert SecretFilter().filter(record)
    assert record.exc_info is None
    assert record.exc_text == "ValueError: sig=<redacted>"
    monkeypatch.setattr("traceback.format_exception", lambda *_, **__: int("none"))
    record = logging.makeLogRecord({"msg": "x", "exc_info": (ValueError, ValueError("x"), None)})
    assert SecretFilter().filter(record)
    assert record.exc_text == "<ValueError>"


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


class Point(NamedTuple):
    """A record whose second field is a secret by its name."""

    x: int
    token: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """A record that hides its password in its repr, but not from a formatter that asks for it."""

    url: str
    password: str = dataclasses.field(repr=False)
    parent: Any = None


class Lazy:
    """Text that is made when it is asked for."""

    def __str__(self) -> str:
        return "https://h/?sig=S3CR3T"


class Endpoint(str, enum.Enum):
    """Text that has a name as well."""

    TOKENS = "https://h/tokens"


class Broken:
    """An object that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Unwalkable(dict[str, str]):
    """A mapping that cannot be read."""

    def items(self) -> Any:
        raise RuntimeError("closed")


def chained() -> ValueError:
    """Return an exception whose cause alone holds a secret."""
    try:
        try:
            raise KeyError("token=S3CR3T")
        except KeyError as cause:
            raise ValueError("harmless") from cause
    except ValueError as error:
        return error


def filtered(**extra: object) -> dict[str, Any]:
    """Return the fields of a record that passed the filter."""
    record = logging.makeLogRecord({"msg": "x", **extra})
    assert SecretFilter().filter(record)
    return vars(record)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"sig=S3CR3T", b"sig=<redacted>"),
        (bytearray(b"sig=S3CR3T"), bytearray(b"sig=<redacted>")),
        ({"sig=S3CR3T", "a"}, {"sig=<redacted>", "a"}),
        (frozenset({"sig=S3CR3T"}), frozenset({"sig=<redacted>"})),
        (("a", "b", "sig=S3CR3T"), ("a", "b", "sig=<redacted>")),
        ([("Authorization", "S3CR3T")], [("Authorization", "<redacted>")]),
        ({"https://h/?sig=S3CR3T": 1}, {"https://h/?sig=<redacted>": 1}),
        ({b"token": b"S3CR3T"}, {b"token": "<redacted>"}),
        ({"pin": 4711, "code": 404, "key": "a"}, {"pin": "<redacted>", "code": 404, "key": "a"}),
        ({"code": "Zm9vYmFyMTIzNDU2Nzg5MA"}, {"code": "<redacted>"}),
        (Point(1, "S3CR3T"), Point(1, "<redacted>")),
        (Settings("?sig=S3CR3T", "S3CR3T"), Settings("?sig=<redacted>", "<redacted>")),
        (MappingProxyType({"session": "S3CR3TS3CR3T1234"}), {"session": "<redacted>"}),
        (Lazy(), "https://h/?sig=<redacted>"),
        (Broken(), Broken),
        (Unwalkable(sig="S3CR3T"), "{'sig': '<redacted>'}"),
        (3.5, 3.5),
        (Path("/a/b"), Path("/a/b")),
        (ValueError("sig=S3CR3T"), "sig=<redacted>"),
        (chained(), "harmless"),
        (True, True),
        (2.5, 2.5),
        # one sees that there is none
        ({"token": None, "password": False}, {"token": None, "password": False}),
    ],
)
def test_an_extra_field_of_any_type_is_redacted(value: object, expected: object) -> None:
    """It keeps its type where it can; what holds no secret is the very same object."""
    found = filtered(field=value)["field"]
    if isinstance(expected, type):
        assert isinstance(found, expected)
    else:
        assert found == expected
        assert type(found) is type(expected)
    assert "S3CR3T" not in f"{vars(found) if hasattr(found, '__dict__') else found!r}"


def test_an_exception_without_secrets_stays_as_it_is() -> None:
    """Structured formatters may look at it."""
    error = ValueError("harmless")
    assert filtered(error=error)["error"] is error


def test_what_refers_to_itself_does_not_end_the_logging() -> None:
    """Through a mapping, a list, a dataclass and a chain of exceptions."""
    loop: dict[str, Any] = {"token": "S3CR3T"}
    loop["self"] = [loop]
    assert filtered(loop=loop)["loop"] == {"token": "<redacted>", "self": ["<...>"]}
    settings = Settings("u", "S3CR3T")
    object.__setattr__(settings, "parent", settings)
    assert filtered(settings=settings)["settings"].parent == "<...>"
    error = ValueError("sig=S3CR3T")
    error.__cause__ = error
    assert "S3CR3T" not in str(filtered(error=error)["error"])
    exc_info = (ValueError, error, None)
    record = logging.makeLogRecord({"msg": "%s", "args": (loop,), "exc_info": exc_info})
    SecretFilter().filter(record)
    assert "S3CR3T" not in f"{record.getMessage()} {record.exc_text}"


def test_what_is_nested_deeply_does_not_end_the_logging() -> None:
    """Deeper than Python's stack."""
    nested: list[Any] = ["sig=S3CR3T"]
    for _ in range(5_000):
        nested = [nested]
    found = filtered(nested=nested)["nested"]
    for _ in range(40):
        found = found[0]
        if isinstance(found, str):
            break
    assert "S3CR3T" not in found


def test_messages_that_are_no_text_are_redacted() -> None:
    """Bytes, exceptions and objects are logged as well."""
    for message in (b"sig=S3CR3T", ValueError("sig=S3CR3T"), Lazy(), {"token": "S3CR3T"}):
        record = logging.makeLogRecord({"msg": message})
        assert SecretFilter().filter(record)
        assert "S3CR3T" not in record.getMessage()
        assert "redacted" in record.getMessage()
    record = logging.makeLogRecord({"msg": Broken(), "args": (1,)})
    assert SecretFilter().filter(record)
    assert "<Broken>" in record.getMessage()


def test_names_of_threads_and_tasks_are_redacted() -> None:
    """A task bears the id of its item, which may be a URL."""
    url = "https://h/?sig=S3CR3T"
    fields = filtered(taskName=url, threadName=url, processName=url, message=url)
    assert [fields[name] for name in ("taskName", "threadName", "processName", "message")] == [
        "https://h/?sig=<redacted>"
    ] * 4


def test_a_record_cannot_steer_the_terminal_that_shows_it() -> None:
    """Escape sequences, C1 controls, bidi marks and odd line ends, in every text of the record."""
    hostile = "a\x1b[2J\x9b2J\x85\u2028\u202egpj\u2066\r\x00"
    record = logging.makeLogRecord({"msg": "%s\n\tnext", "args": (hostile,), "field": hostile})
    record.exc_text = record.stack_info = hostile
    SecretFilter().filter(record)
    expected = r"a\x1b[2J\x9b2J\x85\u2028\u202egpj\u2066\r\x00"
    assert record.getMessage() == f"{expected}\n\tnext"
    assert (record.exc_text, record.stack_info) == (expected, expected)
    assert vars(record)["field"] == expected


def test_the_logs_of_libraries_are_redacted_at_their_source(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """urllib3's debug log shows the path of every request; the handler is the user's own."""
    redact_library_logs()
    redact_library_logs()
    logger = logging.getLogger("urllib3.connectionpool")
    assert len([f for f in logger.filters if isinstance(f, SecretFilter)]) == 1
    with caplog.at_level(logging.DEBUG, logger.name):
        logger.debug('%s:%s "%s %s" %s', "h", 443, "GET", "/?sid=S3CR3T", 200)
    assert caplog.messages == ['h:443 "GET /?sid=<redacted>" 200']
    caplog.clear()  # which repeats what the token endpoint answered
    logging.getLogger("azure.identity._credentials.chained").warning("no: client_secret=S3CR3T")
    assert caplog.messages == ["no: client_secret=<redacted>"]


@given(text=st.text(), keep_lines=st.booleans())
def test_printable_text_holds_nothing_that_is_obeyed(text: str, keep_lines: bool) -> None:
    """No control, format or separator character that a terminal acts on; and it can be written."""
    shown = printable(text, keep_lines=keep_lines)
    shown.encode()
    kept = {"\n", "\t"} if keep_lines else set()
    rest = set(shown) - kept
    assert not [c for c in rest if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"}]
    assert not [c for c in shown if unicodedata.bidirectional(c) in BIDI_CONTROLS]
    assert printable(shown, keep_lines=keep_lines) == shown


def test_printable_text_is_for_people() -> None:
    """Letters of every script, emoji and their joiners stay; other objects are shown as text."""
    for text in ("caf\u00e9 \u65e5\u672c", "\U0001f468\u200d\U0001f469", "\u05e9\u05dc\u05d5"):
        assert printable(text) == text
    assert printable(b"a\x1bb\xff") == r"a\x1bb" + "\ufffd"
    assert printable("a\tb\nc") == r"a\tb\nc"
    assert printable("a\tb\nc\r", keep_lines=True) == "a\tb\nc" + r"\r"
    assert printable(None) == "None"
    assert printable(Endpoint.TOKENS) == "https://h/tokens"
    assert printable(Broken()) == "<Broken>"


def test_the_value_of_what_is_named_as_a_secret_is_redacted() -> None:
    """In lists of settings, of variables and of headers, as a HAR file has them."""
    record = logging.makeLogRecord(
        {"msg": "x", "env": [{"name": "API_KEY", "value": "S3CR3T"}, {"name": "n", "value": "1"}]}
    )
    SecretFilter().filter(record)
    assert vars(record)["env"] == [
        {"name": "API_KEY", "value": "<redacted>"},
        {"name": "n", "value": "1"},
    ]
