"""What an exception wraps, and the notes that it carries."""

from collections.abc import Iterator
from contextlib import suppress

__all__ = ["add_note", "error_chain", "name_call"]

# Where libraries keep what they met: urllib3.MaxRetryError, aiohttp.ClientConnectorError and
# ClientConnectorCertificateError, azure.core.exceptions.AzureError.
_WRAPPED = ("reason", "os_error", "certificate_error", "inner_exception")


def error_chain(error: BaseException, *, suppressed: bool = False) -> Iterator[BaseException]:
    """Yield an exception and all that it wraps, the nearest first, each once.

    Causes, contexts, exceptions among the arguments, members of exception groups, and the
    attributes in which urllib3, aiohttp and the Azure SDK keep what they met.

    Args:
        error: Where to begin; yielded first.
        suppressed: Follow contexts as well that `raise ... from` hides from tracebacks.
    """
    seen: set[int] = set()
    pending: list[object] = [error]
    for link in pending:  # grows meanwhile
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        pending.append(link.__cause__)
        if suppressed or not link.__suppress_context__:
            pending.append(link.__context__)
        pending += [getattr(link, name, None) for name in _WRAPPED]
        pending += link.args
        members = getattr(link, "exceptions", ())  # ExceptionGroup
        if isinstance(members, tuple):
            pending += members


def add_note(error: BaseException, note: str) -> None:
    """Attach a line of context that tracebacks show (PEP 678); does nothing on Python 3.10.

    A note that the error carries already is not added twice. An error that takes none, as that of a
    frozen dataclass, stays as it is.

    Args:
        error: Any exception.
        note: One line, with no secret in it (see `redact_secrets`).
    """
    with suppress(Exception):
        attach = getattr(error, "add_note", None)
        if attach is not None and note not in getattr(error, "__notes__", ()):
            attach(note)


def name_call(error: TypeError, what: str, *names: str) -> None:
    """Have an error about the arguments of a function that was called on behalf of `what` say so.

    An error about anything else stays as it is.

    Args:
        error: What Python raised for the arguments.
        what: What the caller has called, with brackets.
        names: Of functions that its arguments are handed on to.

    Example:
        >>> error = TypeError("get_async() got an unexpected keyword argument 'x'")
        >>> name_call(error, "get()", "get_async")
        >>> str(error)
        "get() got an unexpected keyword argument 'x'"
    """
    called, brackets, problem = str(error).partition("()")
    if brackets and called.rpartition(".")[2] in names:
        error.args = (what + problem,)
