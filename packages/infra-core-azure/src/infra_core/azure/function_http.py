"""Answers of HTTP-triggered functions: JSON, errors, URLs to come back to, logging.

`azure.functions` is the host's own package and is imported when an answer is made, not before.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from infra_core.runtime import is_secret_name, redact_secrets

from ._sdk_logs import tidy_sdk_logs
from .exceptions import ConfigurationError

__all__ = ["absolute_url", "bootstrap_logging", "error_response", "json_response"]

_log = logging.getLogger(__name__)


class _StandardOutput(logging.StreamHandler):  # type: ignore[type-arg]
    """The handler that `bootstrap_logging` adds, to be known again.

    It writes to what is standard output at that moment: hosts, notebooks and test runners replace
    and close it. Characters that its encoding lacks are escaped.
    """

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        return super().format(record).encode(encoding, "backslashreplace").decode(encoding)


def bootstrap_logging(
    *, level: int = logging.INFO, logger_names: Sequence[str] | None = None
) -> None:
    """Send all log records to standard output, where the Functions host collects them.

    The handlers that are there already, such as that of the host, stay; calling it again adds no
    second one of this.

    Args:
        level: Least severe level to show.
        logger_names: Loggers to set to that level as well.

    Raises:
        TypeError: `logger_names` is one text, whose letters would be taken for names.
    """
    if isinstance(logger_names, str):
        raise TypeError(
            f"logger_names={logger_names!r} is one name: pass a list, [{logger_names!r}]"
        )
    root = logging.getLogger()
    for handler in [h for h in root.handlers if isinstance(h, _StandardOutput)]:
        root.removeHandler(handler)
    handler = _StandardOutput(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(name)s] %(message)s"))
    root.addHandler(handler)
    root.setLevel(level)
    tidy_sdk_logs()
    for name in logger_names or ():
        logging.getLogger(name).setLevel(level)


def json_response(
    payload: Mapping[str, Any],
    *,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """Return an `azure.functions.HttpResponse` with JSON: UTF-8, indented by 2, not to be cached.

    Args:
        payload: The body.
        status: Its status.
        headers: More headers; they win over ours, in any letter case.

    Raises:
        ConfigurationError: `azure-functions` is not installed.
        TypeError: The payload holds what JSON does not know.
    """
    functions = _azure_functions()
    try:
        body = json.dumps(payload, ensure_ascii=False, indent=2)
    except TypeError as error:
        raise TypeError(
            f"the payload cannot be written as JSON ({error}): convert such values, with str() or "
            "isoformat() for example"
        ) from None
    given = dict(headers or {})
    if not any(name.lower() == "cache-control" for name in given):
        given["Cache-Control"] = "no-store"
    return functions.HttpResponse(
        body=body,
        status_code=int(status),
        mimetype="application/json",
        charset="utf-8",
        headers=given,
    )


def error_response(
    code: str, message: str, *, status: HTTPStatus, log: logging.Logger | None = None
) -> Any:
    """Return `{"error": {"code": ..., "message": ...}}` and log it as an error.

    Secrets in the message (keys and tokens in URLs, connection strings) are redacted in both.

    Args:
        code: Short name of the error, for programs.
        message: What happened, for people.
        status: Status of the answer.
        log: Where to log; the logger of this module by default.

    Raises:
        ConfigurationError: `azure-functions` is not installed.
    """
    message = redact_secrets(message)
    (log or _log).error("API error [%s]: %s", code, message, extra={"code": code})
    return json_response({"error": {"code": code, "message": message}}, status=status)


def absolute_url(request_url: "str | Any", *segments: str) -> str:
    """Return an absolute URL below that of a request, for answers to point to.

    Keys in the query of the request (`code` and other secrets) are dropped: who polls sends a key
    of their own, and an answer must not spread the one it was asked with. Other parameters stay.

    Args:
        request_url: URL of the request; anything whose `str()` is one.
        *segments: Path segments to append.

    Example:
        >>> absolute_url("https://app.example/api/runs?code=KEY&v=2", "batch-1", "status")
        'https://app.example/api/runs/batch-1/status?v=2'
    """
    parts = urlsplit(str(request_url))
    trimmed = [segment.strip("/") for segment in segments if segment and segment.strip("/")]
    path = "/".join([parts.path.rstrip("/"), *trimmed]) or "/"
    kept = [
        (name, value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if not is_secret_name(name)
    ]
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, path, urlencode(kept), ""))


def _azure_functions() -> ModuleType:
    try:
        import azure.functions as functions
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "answers of Azure Functions need the package azure-functions; install it with "
            "`pip install azure-functions` (it is there when the host runs your code)"
        ) from error
    return functions
