"""What a person or a machine reads of a batch: progress, events as they happen, the summary."""

import json
import os
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, cast

from infra_core.azure.run_report import human_size

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Failure",
    "Reporter",
    "Summary",
    "is_capable",
    "make_console",
    "plural",
    "print_json",
    "print_marked",
    "print_rows",
    "to_json",
]

SHOWN_FAILURES = 20
SHORT_CELL = 20  # characters; a cell up to this length is never broken


@dataclass(frozen=True)
class Failure:
    """One URL that could not be had.

    Attributes:
        url: The URL, secrets redacted.
        status: `failed` or `timed_out`.
        cause: The last error in one line.
    """

    url: str
    status: str
    cause: str


@dataclass
class Summary:
    """What a batch came to; `--json` prints it and `--summary-file` stores it.

    Attributes:
        batch_id: The batch.
        total: URLs in the list, each counted once.
        succeeded: Downloaded and verified in this run.
        skipped: Kept from an earlier run after their checksum was verified.
        failed: Gave up, timeouts included.
        pending: Not tried or not finished when the run was interrupted.
        rejected_lines: Lines of the list that are no URL.
        duplicates: Lines that repeat a URL.
        bytes_downloaded: Sum of the sizes of files downloaded in this run.
        retries: Downloads tried again, over all URLs.
        duration_seconds: Wall time.
        failures: One entry for each failed URL.
        mirrored: Files uploaded in this run, `None` when no storage is configured.
        mirror_failed: Files that could not be uploaded in this run.
        problems: What else went wrong, such as a manifest that could not be written; a line each.
        interrupted: Name of the signal that ended the run early.
        manifest: Path of the manifest.
        jobs: Where the jobs are recorded.
        folder: The run's folder.
    """

    batch_id: str
    total: int = 0
    succeeded: int = 0
    skipped: int = 0
    failed: int = 0
    pending: int = 0
    rejected_lines: int = 0
    duplicates: int = 0
    bytes_downloaded: int = 0
    retries: int = 0
    duration_seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    mirrored: int | None = None
    mirror_failed: int = 0
    problems: list[str] = field(default_factory=list)
    interrupted: str | None = None
    manifest: str | None = None
    jobs: str | None = None
    folder: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every URL is here, every upload arrived and nothing else went wrong."""
        return not (self.failed or self.pending or self.mirror_failed or self.problems)

    def as_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return {**asdict(self), "complete": self.complete}


def plural(count: int, noun: str) -> str:
    """A number with its noun, such as `1 job` and `2 jobs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


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
    """A stream whose reader may leave or whose disk may fill: it falls silent, the work goes on.

    Args:
        stream: Where the text goes for as long as that is possible.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lost = False

    def write(self, text: str) -> int:
        """Write, or pass over what nobody can read."""
        if not self._lost:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush as long as there is somebody to flush to."""
        if not self._lost:
            try:
                self._stream.flush()
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
    """A console that is plain, unwrapped text where the stream is no terminal.

    Args:
        to_stderr: Print to standard error.
        lasting: Fall silent instead of failing when nobody can read on.
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
            print("\t".join(re.sub(r"[\t\r\n]", " ", cell) for cell in row), file=console.file)
        return
    if not (cells := [list(row) for row in rows]):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        widest = max((len(row[number]) for row in cells), default=0)
        number_like = name in {"size", "tries"}
        table.add_column(
            name,
            overflow="fold",
            no_wrap=widest <= SHORT_CELL,
            justify="right" if number_like else "left",
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def print_marked(console: "Console", mark: str, text: str, style: str = "") -> None:
    """Print a line with a mark in front; what does not fit on a terminal goes below the text."""
    from rich.table import Table
    from rich.text import Text

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

    Use it as a context manager around the run; then hand the summary to `finish`.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self._as_json = as_json
        self._console = make_console(to_stderr=as_json, lasting=True)
        # Machines read standard output; a person may still watch standard error.
        self._silent = as_json and not self._console.is_terminal
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("downloading", total=None, note="")
        self._bytes = 0

    def __enter__(self) -> "Reporter":
        """Start the progress display."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the progress display."""
        if not self._progress.disable:  # rich before 15 ends a line that was never begun
            self._progress.stop()

    def line(self, mark: str, text: str, style: str = "") -> None:
        """Print one event."""
        if self._silent:
            return
        print_marked(self._progress.console, mark, text, style)

    def begin(self, total: int) -> None:
        """The number of URLs is known."""
        self._progress.update(self._task, total=total)

    def advance(self, size: int = 0) -> None:
        """One URL is settled."""
        self._bytes += size
        self._progress.update(self._task, advance=1, note=human_size(self._bytes))

    def finish(self, summary: Summary) -> None:
        """Print the summary: JSON for machines, a table for people."""
        if self._as_json:
            print_json(summary.as_dict())
            return
        self._console.print()
        for name, value in rows_of(summary):
            self._console.print(f"{name:>16}  {value}", markup=False)
        for failure in summary.failures[:SHOWN_FAILURES]:
            self.line(failure.status, f"{failure.url}: {failure.cause}", "red")
        for problem in summary.problems:
            self.line("problem", problem, "red")
        if (more := len(summary.failures) - SHOWN_FAILURES) > 0:
            self.line("...", f"and {plural(more, 'more failure')}: infra-core jobs list")


def rows_of(summary: Summary) -> Iterable[tuple[str, str]]:
    """The rows of the summary table."""
    yield "batch", summary.batch_id
    yield "succeeded", str(summary.succeeded)
    why = " (here already, checksum verified)" if summary.skipped else ""
    yield "skipped", f"{summary.skipped}{why}"
    yield "failed", str(summary.failed)
    if summary.pending:
        yield "pending", f"{summary.pending} (run again with --resume)"
    if summary.rejected_lines:
        yield "rejected lines", str(summary.rejected_lines)
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
