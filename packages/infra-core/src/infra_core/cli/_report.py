"""What a person or a machine reads of a batch: progress, events as they happen, the summary."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import IO, TYPE_CHECKING, Any, cast

from infra_core.batch._errors import plural
from infra_core.runtime import printable

if TYPE_CHECKING:
    from rich.console import Console

    from infra_core.batch import BatchProgress, BatchResult, BatchRetry, Summary

__all__ = [
    "Reporter",
    "human_size",
    "is_capable",
    "make_console",
    "print_found",
    "print_json",
    "print_marked",
    "print_rows",
    "to_json",
]

SHOWN_EVENTS = 20  # of a kind
SHORT_CELL = 20  # characters; a cell up to this length is never broken


def human_size(size: int) -> str:
    """Bytes in the unit that people would choose."""
    from infra_core.azure import run_report  # which loads what makes whole pages

    return run_report.human_size(size)


def to_json(value: object, encoding: str = "utf-8") -> str:
    """JSON for people and machines: readable if it can be encoded, escaped if not."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:  # a stream in ASCII, or a file name that is not UTF-8
        text = json.dumps(value, indent=2, default=str)
    return text


def print_json(value: object) -> None:
    """Print JSON to standard output."""
    print(to_json(value, getattr(sys.stdout, "encoding", None) or "utf-8"))


class Lasting:
    """A stream whose reader may leave or whose disk may fill: it falls silent, the work goes on."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> int:
        """Write, or drop the text once its reader has gone."""
        self._try(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        """Flush, unless the reader has gone."""
        self._try(self._stream.flush)

    def _try(self, method: Callable[..., object], *args: str) -> None:
        if not self._lost:
            try:
                method(*args)
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self._lost = True
        with suppress(OSError, ValueError):  # what is buffered would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        with suppress(OSError, ValueError):
            text = f"infra-core: the output ends here ({error.strerror}); the work goes on"
            print(text, file=sys.stderr, flush=True)

    def __getattr__(self, name: str) -> Any:
        """Encoding, descriptor and so on are those of the stream."""
        return getattr(self._stream, name)


def make_console(*, to_stderr: bool = False, lasting: bool = False) -> "Console":
    """A console that is plain, unwrapped text where the stream is not a terminal.

    One that is `lasting` falls silent instead of failing once the reader has gone.
    """
    from rich.console import Console

    stream = sys.stderr if to_stderr else sys.stdout
    if lasting:
        stream = cast("Any", Lasting(stream))
    return Console(file=stream, soft_wrap=not stream.isatty(), highlight=False, emoji=False)


def is_capable(console: "Console") -> bool:
    """Whether tables can be laid out: the width of a dumb terminal is not known."""
    return console.is_terminal and not console.is_dumb_terminal


def print_rows(console: "Console", columns: list[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table: aligned on a terminal, tab-separated lines elsewhere.

    On a terminal nothing is cut off: short cells stay in one line, long ones are folded.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not is_capable(console):
        for row in rows:  # not by the console, which makes spaces of tabs
            line = "\t".join(printable(re.sub(r"[\t\r\n]", " ", cell)) for cell in row)
            print(line, file=console.file)
        return
    if not (cells := [list(row) for row in rows]):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        widest = max((len(row[number]) for row in cells), default=0)
        number_like = name in {"size", "starts"}
        table.add_column(
            name,
            overflow="fold",
            no_wrap=widest <= SHORT_CELL,
            justify="right" if number_like else "left",
        )
    for row in cells:
        table.add_row(*(Text(printable(cell, keep_lines=True)) for cell in row))
    console.print(table)


def print_found(
    found: Iterable[Any], columns: list[str], rows: Iterable[Iterable[str]], *, as_json: bool
) -> None:
    """Print what was found: each as JSON, or a table of it."""
    if as_json:
        print_json(list(found))
    else:
        print_rows(make_console(), columns, rows)


def print_marked(console: "Console", mark: str, text: str, style: str = "") -> None:
    """Print a line with a mark in front; what does not fit on a terminal goes below the text."""
    from rich.table import Table
    from rich.text import Text

    text = printable(text, keep_lines=True)
    if not is_capable(console):
        console.print(Text(f"{mark:>8}", style=style), Text(text), soft_wrap=True)
        return
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=8, justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(Text(mark, style=style), Text(text))
    console.print(grid)


class Reporter:
    """Shows a batch at work: a progress bar on a terminal, a line an event elsewhere.

    Show its `display` around the run; then hand the summary to `finish`.

    Args:
        as_json: Standard output is for the summary alone; events go to a terminal's standard error.
        quiet: Show nothing but the summary.
        files: Show a line for each file.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, files: bool = False) -> None:
        self._as_json = as_json
        stream = sys.stderr if as_json else sys.stdout
        # Machines read standard output; a person may still watch standard error.
        self._silent = quiet or (as_json and not stream.isatty())
        self._files = files
        self._counts: Counter[str] = Counter()
        self._plain = cast("IO[str]", Lasting(stream))
        self._bar: _Bar | None = None
        if stream.isatty() and not self._silent:
            self._bar = _Bar(make_console(to_stderr=as_json, lasting=True))

    def display(self) -> "AbstractContextManager[object]":
        """Show the progress, around the run."""
        return nullcontext() if self._bar is None else self._bar.progress

    @property
    def hooks(self) -> dict[str, Any]:
        """What `run_batch` is to call."""
        names = ("on_result", "on_retry", "on_progress", "on_event")
        return {name: getattr(self, name) for name in names}

    def line(self, mark: str, text: str, style: str = "") -> None:
        """Print one event."""
        if self._silent:
            return
        if self._bar is not None:
            print_marked(self._bar.console, mark, text, style)
        else:
            self._plain.write(f"{mark:>8} {text}\n")

    def on_result(self, result: "BatchResult") -> None:
        """Show a failure, and a file where that was asked for."""
        if result.error is not None:
            text = f"{result.url}: {result.error}"
            self._first("failures", "job store", result.status.replace("_", " "), text, "red")
        elif self._files:
            if result.status == "completed":
                self.line("ok", f"{result.url} ({human_size(result.size or 0)})")
            else:
                self.line(result.status, result.url, "dim")

    def on_retry(self, retry: "BatchRetry") -> None:
        """Show the first retries."""
        text = f"{retry.url}: attempt {retry.attempt} failed, next in {retry.wait:.2f} s"
        self._first("retries", "run log", "retry", f"{text} ({retry.error[:300]})", "yellow")

    def _first(self, kind: str, place: str, mark: str, text: str, style: str) -> None:
        """Print the first events of a kind; where the others are said once."""
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN_EVENTS:
            self.line(mark, text, style)
        elif self._counts[kind] == SHOWN_EVENTS + 1:
            self.line("...", f"further {kind} are not shown, the {place} has them")

    def on_event(self, word: str, text: str) -> None:
        """Show what else happens."""
        self.line(word, text, "yellow")

    def on_progress(self, progress: "BatchProgress") -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(progress)

    def finish(self, summary: "Summary", *, next_command: str = "") -> None:
        """Print the summary: JSON for machines, for people a table and what to type next."""
        if self._as_json:
            print_json(summary.as_dict())
            return
        problems = [("problem", problem) for problem in summary.problems]
        rows = [("", ""), *rows_of(summary), *problems]
        if next_command and not summary.complete:
            rows.append(("next", next_command))
        for name, value in rows:
            self._plain.write(f"{name:>16}  {printable(value)}\n" if name else "\n")
        self._plain.flush()


class _Bar:
    """The progress bar of a terminal, with rate and time left."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._task = self.progress.add_task("downloading", total=None, note="")

    def update(self, progress: "BatchProgress") -> None:
        rate = progress.settled / progress.seconds if progress.seconds > 0 else 0.0
        self.progress.update(
            self._task,
            completed=progress.settled,
            total=progress.read if progress.list_ended else None,
            note=f"{rate:.0f}/s {human_size(progress.bytes_downloaded)}",
        )


def rows_of(summary: "Summary") -> Iterable[tuple[str, str]]:
    """The rows of the summary table."""
    yield "batch", summary.batch_id
    yield "succeeded", str(summary.succeeded)
    why = " (here already, checksum verified)" if summary.skipped else ""
    yield "skipped", f"{summary.skipped}{why}"
    if summary.unchanged:
        yield "unchanged", f"{summary.unchanged} of these, as the server says"
    yield "failed", str(summary.failed)
    if summary.pending:
        rest = "" if summary.list_ended else ", and the list was not read to its end"
        yield "pending", f"{summary.pending}{rest} (run again with --resume)"
    if summary.elsewhere:
        yield "elsewhere", f"{summary.elsewhere} (done by another run of this batch)"
    if summary.rejected_lines:
        what = "passed over" if summary.skip_malformed else "mend and resume, or --skip-malformed"
        yield "rejected lines", f"{summary.rejected_lines} ({what})"
    yield "downloaded", human_size(summary.bytes_downloaded)
    yield "retries", str(summary.retries)
    yield "duration", f"{summary.duration_seconds:.2f} s"
    if summary.mirrored is not None:
        files = plural(summary.mirrored, "file")
        yield "mirrored", f"{files}, {summary.mirror_failed} not uploaded"
    if summary.interrupted:
        yield "interrupted by", summary.interrupted
    for name in ("folder", "manifest", "jobs"):
        if value := getattr(summary, name):
            yield name, value
