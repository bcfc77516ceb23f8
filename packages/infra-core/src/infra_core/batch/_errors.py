"""Errors of a batch, and any error as one line for people."""

__all__ = ["BatchError", "one_line", "without_url"]

_SHOWN = 500  # characters


class BatchError(Exception):
    """A batch cannot start, or an option makes no sense: the message names value, rule, remedy."""


def one_line(error: BaseException) -> str:
    """The error's type and message in one line, without secrets."""
    from infra_core.runtime import printable, redact_secrets

    text = " ".join(str(error).split())
    name = type(error).__name__
    return printable(redact_secrets(f"{name}: {text}" if text else name))[:_SHOWN]


def without_url(cause: str, url: str) -> str:
    """The cause without the URL that stands in front of it already."""
    return cause.replace(f"{url} ", "").replace(url, "") if url else cause
