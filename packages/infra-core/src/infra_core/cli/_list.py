"""The list of `infra-core run`: opened, looked at for a URL, its malformed lines printed."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from infra_core.batch import BatchItem, ListError, Rejected, read_items
from infra_core.batch._errors import plural
from infra_core.batch._formats import format_of

from ._arguments import CommandError

__all__ = ["ListLines", "open_list"]

SHOWN_LINES = 20
SOUGHT_LINES = 10_000  # among which there must be a URL


@contextmanager
def open_list(options: argparse.Namespace) -> Iterator[Iterator[BatchItem | Rejected]]:
    """Open the list; with --strict it is read to its end before anything is downloaded.

    Raises:
        CommandError: It cannot be read, holds no URL, or has a malformed line and --strict.
    """
    source: str = options.urls
    kind = options.input_format or format_of(source)
    name = "standard input" if source == "-" else repr(source)
    with ExitStack() as stack:
        try:
            if source == "-":
                stream = standard_input()
            else:
                stream = stack.enter_context(Path(source).open("rb"))
            entries = read_items(stream, format=kind)
            if options.strict:
                listed = list(entries)
                if malformed := say_rejected(listed):
                    raise CommandError(
                        f"{plural(malformed, 'malformed line')} and --strict: nothing was "
                        "downloaded; mend what is named above, or leave --strict out"
                    )
                entries = iter(listed)
            head = first_entries(entries)
        except OSError as error:
            cause = error.strerror or str(error)
            raise CommandError(f"cannot read {source!r}: {cause}; give a file or -") from None
        except ListError as error:
            raise CommandError(f"{name}: {error}") from None
        if not head or isinstance(head[-1], Rejected):
            say_rejected(head)
            raise CommandError(
                f"no URL in {name}; write one http(s) URL a line"
                if len(head) < SOUGHT_LINES
                else f"no URL in the first {SOUGHT_LINES} lines of {name}: it is not a list of URLs"
            )
        yield chain(head, entries)


def first_entries(entries: Iterator[BatchItem | Rejected]) -> list[BatchItem | Rejected]:
    """What stands before the first URL, and that: a list without any starts nothing."""
    head: list[BatchItem | Rejected] = []
    for entry in entries:
        head.append(entry)
        if isinstance(entry, BatchItem) or len(head) == SOUGHT_LINES:
            break
    return head


def say_rejected(entries: list[BatchItem | Rejected]) -> int:
    """Print what is wrong with a list; returns the number of malformed lines."""
    lines = ListLines()
    for entry in entries:
        if isinstance(entry, Rejected):
            lines.rejected(entry)
    lines.finish()
    return lines.count


def standard_input() -> IO[bytes]:
    """Standard input under a descriptor of its own.

    A thread may still wait for a line when the process ends, and Python aborts where that thread
    holds the lock of `sys.stdin`.
    """
    try:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb")
    except (OSError, ValueError, AttributeError):  # replaced by a stream in memory
        return sys.stdin.buffer


class ListLines:
    """Prints which lines are passed over; of many only the first ones, and how many there are.

    Attributes:
        count: Lines that are not URLs.
        error: Why the list could not be read to its end, once that was begun.
    """

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._duplicates: list[int] = []
        self._repeated = 0

    def rejected(self, entry: Rejected) -> None:
        """A line that is not a URL."""
        self.count += 1
        if self.count <= SHOWN_LINES:
            # repr(): a list may hold control characters, and a terminal obeys them
            print(f"line {entry.line}: {entry.reason}: {entry.text!r}", file=sys.stderr)

    def duplicate(self, item: BatchItem) -> None:
        """A line whose URL stood there before."""
        self._repeated += 1
        if len(self._duplicates) < 10:
            self._duplicates.append(item.line)

    def finish(self) -> None:
        """Say how many there were."""
        if (more := self.count - SHOWN_LINES) > 0:
            print(f"... and {plural(more, 'more malformed line')}", file=sys.stderr)
        if self._repeated:
            lines = ", ".join(map(str, self._duplicates))
            etc = ", ..." if self._repeated > len(self._duplicates) else ""
            repeated = plural(self._repeated, "duplicate URL")
            print(f"{repeated} passed over (line {lines}{etc})", file=sys.stderr)
