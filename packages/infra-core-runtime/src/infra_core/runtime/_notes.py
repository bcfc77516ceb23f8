"""Notes on exceptions, where Python has them (PEP 678, 3.11 and newer)."""

__all__ = ["add_note"]


def add_note(error: BaseException, note: str) -> None:
    """Attach a line of context that tracebacks show; does nothing on Python 3.10.

    A note that the error carries already is not added twice.

    Args:
        error: Any exception.
        note: One line, with no secret in it (see `redact_secrets`).
    """
    attach = getattr(error, "add_note", None)
    if attach is not None and note not in getattr(error, "__notes__", ()):
        attach(note)
