"""A logging filter that keeps secrets out of every record that passes it."""

import copy
import dataclasses
import logging
import traceback
from collections.abc import Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any

from ._printable import as_text, printable
from ._redaction import REDACTED, redact_secrets
from ._secret_names import is_secret_name, is_weak_name

__all__ = ["SecretFilter", "redact_library_logs"]

# Names that the program chose, of no interest; all others may hold what a user or a server sent.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) - {"message"} | {"asctime"}
_NAMES = ("threadName", "processName", "taskName")  # a task bears the id of its item: a URL

# Who logs URLs and headers of requests, down to the logger, since filters of a logger do not count
# for those below it.
_LIBRARIES = (
    *("urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.response"),
    *("urllib3.util.retry", "httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2"),
    *("httpcore.proxy", "httpcore.socks", "aiohttp.access", "aiohttp.client", "aiohttp.internal"),
    *("aiohttp.server", "aiohttp.web", "aiohttp.websocket", "requests_oauthlib.oauth2_session"),
    "azure.core.pipeline.policies.http_logging_policy",
    "azure.core.pipeline.policies._universal",
    "azure.core.pipeline.policies._retry",
    "azure.core.pipeline.policies._retry_async",
    "azure.core.pipeline.policies._redirect",
    "azure.core.pipeline.transport._requests_basic",
    "azure.core.pipeline.transport._aiohttp",
    "azure.identity._credentials.chained",
    "azure.identity._internal.get_token_mixin",
    "azure.identity._internal.decorators",
    "azure.identity.aio._credentials.chained",
    "azure.identity.aio._internal.get_token_mixin",
    "azure.identity.aio._internal.decorators",
    "azure.storage.blob._shared.policies",
    "azure.storage.blob._shared.policies_async",
    "msal.token_cache",
    "msal.application",
)
_DEPTH = 32


class SecretFilter(logging.Filter):
    """Redacts message, arguments, traceback, stack and extra fields of log records.

    Add it to a handler, so that records of every logger pass it. The message is formatted and
    redacted as a whole, and what a terminal would obey instead of showing it (escape sequences,
    marks that turn the direction of the text) is escaped; line breaks stay. The traceback becomes
    redacted text, and the exception object itself, whose text cannot be redacted, is taken out of
    the record. Extra fields keep their types (mappings become dicts); an object whose text holds a
    secret is replaced by its redacted text.

    Args:
        name: As of `logging.Filter`: only records of this logger and its children are touched.

    Example:
        >>> import logging
        >>> handler = logging.StreamHandler()
        >>> handler.addFilter(SecretFilter())
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Redact the record in place; always lets it pass."""
        if not super().filter(record):
            return True
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit: logging reports them itself
            message = f"{as_text(record.msg)} {as_text(record.args)}"
        record.msg = _line(message)
        record.args = ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = _traceback(*record.exc_info)
        record.exc_info = None
        for field, value in list(vars(record).items()):
            if field in ("exc_text", "stack_info", "message", *_NAMES):
                if isinstance(value, str):
                    setattr(record, field, _line(value))
            elif field not in _STANDARD:
                setattr(record, field, _redact_value(field, value, ()))
        return True


def redact_library_logs() -> None:
    """Hang a `SecretFilter` onto the loggers of the libraries that send our requests.

    urllib3, httpx, httpcore, aiohttp, msal and the Azure SDKs log URLs, and at DEBUG headers, of
    every request. The clients of infra-core call this when they open their first session; calling
    it again changes nothing. A filter costs nothing for records below the logger's level.
    """
    for name in _LIBRARIES:
        logging.getLogger(name).addFilter(_library_filter)


_library_filter = SecretFilter()


def _line(text: str) -> str:
    return printable(redact_secrets(text), keep_lines=True)


def _traceback(
    kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> str:
    lines = partial(traceback.format_exception, kind, tb=trace)
    return as_text(error, lambda error: "".join(lines(value=error)).rstrip("\n"))


def _redact_value(name: object, value: Any, above: tuple[int, ...]) -> Any:
    """Redact a field, into whatever it holds.

    Args:
        name: Its name or key, by which its value may be a secret.
        value: Anything.
        above: Identities of the objects that it is part of.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(name, (str, bytes)) and is_secret_name(as_text(name)):
        if not is_weak_name(as_text(name)):
            return REDACTED
        if isinstance(value, str):  # {"code": "NotFound"} stays, {"code": <a key>} does not
            return _line(f"code: {value}").removeprefix("code: ")
    if isinstance(value, (int, float, complex)):
        return value
    if isinstance(value, str):
        return _line(value)
    if isinstance(value, (bytes, bytearray)):
        text = as_text(value)
        clean = redact_secrets(text)
        return value if clean == text else type(value)(clean.encode())
    if id(value) in above:
        return "<...>"  # as a repr shows what refers to itself
    if len(above) >= _DEPTH:
        return _line(as_text(value))
    try:
        return _redact_object(value, (*above, id(value)))
    except Exception:  # noqa: BLE001 - an object that cannot be walked or copied
        return _line(as_text(value))


def _redact_object(value: Any, above: tuple[int, ...]) -> Any:
    if isinstance(value, Mapping):
        named = value.get("name")  # {"name": "API_KEY", "value": ...}
        return {
            _redact_value("", key, above): _redact_value(
                named if key == "value" and isinstance(named, str) else key, item, above
            )
            for key, item in value.items()
        }
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        pairs = zip(value._fields, value, strict=True)
        return type(value)(*(_redact_value(name, item, above) for name, item in pairs))
    if isinstance(value, (list, tuple)):
        # what is a pair may be a header: ("Authorization", "Bearer ...")
        names = ["", value[0]] if len(value) == 2 else [""] * len(value)
        items = [_redact_value(n, item, above) for n, item in zip(names, value, strict=True)]
        return tuple(items) if isinstance(value, tuple) else items
    if isinstance(value, (set, frozenset)):
        return type(value)(_redact_value("", item, above) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        clean = copy.copy(value)
        for field in dataclasses.fields(value):
            item = _redact_value(field.name, getattr(value, field.name), above)
            object.__setattr__(clean, field.name, item)
        return clean
    texts = list(_texts(value))
    if any(_line(text) != text for text in texts):
        return _line(texts[0])
    return value


def _texts(value: object) -> Iterator[str]:
    """Every text that a formatter could make of an object; of an exception with its causes."""
    yield as_text(value)
    yield as_text(value, repr)
    if isinstance(value, BaseException):
        yield _traceback(type(value), value, None)
