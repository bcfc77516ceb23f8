"""A logging filter that keeps secrets out of every record that passes it."""

import logging
import traceback

from ._redaction import is_secret_name, redact_secrets

__all__ = ["SecretFilter"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class SecretFilter(logging.Filter):
    """Redacts message, arguments, traceback, stack and extra fields of log records.

    Add it to a handler, so that records of every logger pass it. The message is formatted and
    redacted as a whole; the traceback becomes redacted text, and the exception object itself,
    whose text nobody can redact, is taken out of the record.

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
            record.msg = redact_secrets(record.getMessage())
        except Exception:  # noqa: BLE001 - arguments that do not fit: logging reports them itself
            record.msg = redact_secrets(f"{record.msg} {record.args}")
        record.args = ()
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_info = None
        if record.exc_text:
            record.exc_text = redact_secrets(record.exc_text)
        if record.stack_info:
            record.stack_info = redact_secrets(record.stack_info)
        for field, value in vars(record).items():
            if field not in _STANDARD:
                setattr(record, field, _redact_value(field, value))
        return True


def _redact_value(name: str, value: object) -> object:
    """Redact an extra field, into mappings and sequences."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(name, str) and is_secret_name(name) and name not in {"code", "key"}:
        return "<redacted>"
    if isinstance(value, dict):
        return {key: _redact_value(key, item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redact_value("", item) for item in value]
    if isinstance(value, str):
        return redact_secrets(value)
    return value
