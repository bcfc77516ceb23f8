"""Errors of a batch, and what people read: an error in one line, a count."""

import re

__all__ = ["BatchError", "one_line", "plural", "without_url"]

_SHOWN = 500  # characters
_NO_URL = re.compile(r"""[\s'",;)]|[:.](?:\s|\Z)|\Z""")  # what may stand behind one


class BatchError(Exception):
    """A batch cannot start, or an option makes no sense: the message names value, rule, remedy."""


def one_line(error: BaseException, *, url: str = "") -> str:
    """The error's type and message in one line, without secrets, and without a URL shown beside."""
    from infra_core.runtime import printable, redact_secrets

    text = " ".join(str(error).split())
    name = type(error).__name__
    line = printable(redact_secrets(f"{name}: {text}" if text else name))
    return without_url(line, url)[:_SHOWN]


def plural(count: int, noun: str) -> str:
    """A number with its noun, such as `1 job` and `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def without_url(cause: str, url: str) -> str:
    """The cause without the URL that stands in front of it already."""
    if not url:
        return cause
    shown, *parts = cause.split(url)  # no pattern, which takes longer to compile than a failure
    for part in parts:
        if not _NO_URL.match(part):  # a longer one
            shown += url + part
        elif shown.endswith("'") and part.startswith("'"):
            shown = f"{shown[:-1]}it{part[1:]}"
        elif shown.endswith("from "):
            shown += f"it{part}"
        else:
            shown += part.lstrip()
    return shown
