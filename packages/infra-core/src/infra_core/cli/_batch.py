"""`infra-core run` as a call of `infra_core.batch`: what is read, heard and printed."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

from infra_core._start import import_engine, started
from infra_core.batch import (
    BatchItem,
    BatchOptions,
    BatchResult,
    ListError,
    Rejected,
    Summary,
    run_batch,
)
from infra_core.batch._errors import one_line
from infra_core.batch._folder import JOBS_FILE, MANIFEST_FILE

from . import exit_codes
from ._arguments import CommandError, check_writable
from ._credentials import bearer_files_of, headers_of
from ._ending import Ending, ending_in_order
from ._list import ListLines, open_list
from ._report import Reporter
from ._results import ResultsFile

__all__ = ["batch_options", "exit_code", "next_command", "run"]


def run(options: argparse.Namespace, processes: int, concurrency: int) -> int:
    """Run the command.

    Args:
        options: Its arguments.
        processes: In how many processes to download.
        concurrency: Downloads at a time in each of them.
    """
    check_outputs(options)
    if processes == 1:  # else the workers need it
        import_engine()  # before the options, which look at headers with it
    chosen = batch_options(options, processes, concurrency)
    warn_unset(options.prefix)
    with ending_in_order() as ending:
        reporter = Reporter(as_json=options.json, quiet=options.quiet, files=options.show_files)
        try:
            summary = _run(options, chosen, ending, reporter)
        except (KeyboardInterrupt, SystemExit):
            if ending.received is None:
                raise
            summary = Summary(options.batch_id)  # it was ended before it had a URL
        if ending.received is not None and summary.interrupted is None:
            summary.interrupted = ending.received.name
        store_summary(summary, options.summary_file)
        reporter.finish(summary, next_command=next_command(options, summary))
        return exit_code(summary)


def _run(
    options: argparse.Namespace, chosen: BatchOptions, ending: Ending, reporter: Reporter
) -> Summary:
    """Run the batch over its list, and write the results."""

    def on_result(result: BatchResult) -> None:
        results.write(result)
        reporter.on_result(result)

    lines = ListLines()
    with (
        open_list(options) as items,
        closing(ResultsFile(options.results)) as results,
        reporter.display(),
    ):
        summary = run_batch(
            begun(items, ending, lines),
            chosen,
            on_rejected=lines.rejected,
            on_duplicate=lines.duplicate,
            **{**reporter.hooks, "on_result": on_result},
        )
    if not options.out.is_absolute():  # shown as it was given
        for name in ("folder", "manifest", "jobs"):
            path = getattr(summary, name)
            if path is not None and Path(path).is_absolute():
                setattr(summary, name, os.path.relpath(path))
    lines.finish()
    if lines.error is not None:
        summary.list_ended = False
        summary.trouble("the list was not read to its end", one_line(lines.error))
    if results.error is not None:
        summary.trouble(f"{str(options.results)!r} has gaps", one_line(results.error))
    return summary


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files that cannot be written, and those that would replace one which the run needs.

    Raises:
        CommandError: The message names the file.
    """
    folder = options.out / options.batch_id
    taken = {
        (options.out / JOBS_FILE).resolve(): "the job store",
        folder.resolve(): "the batch's folder",
        (folder / MANIFEST_FILE).resolve(): "the batch's manifest",
    }
    if options.urls != "-":
        taken[Path(options.urls).resolve()] = "the list"
    for path, name in ((options.summary_file, "--summary-file"), (options.results, "--results")):
        check_writable(path, name)
        if path is not None and (what := taken.setdefault(path.resolve(), name)) != name:
            raise CommandError(f"{name} {str(path)!r} is {what} as well: name another file")


def warn_unset(prefix: str | None) -> None:
    """Say that no variable has the prefix, which may be mistyped: files would quietly stay here."""
    if prefix is None:
        return
    name = f"{prefix.rstrip('_')}_AZURE_"
    if not any(variable.startswith(name) for variable in os.environ):
        text = f"no variable {name}* is set: files and jobs stay on this machine; check --prefix"
        print(text, file=sys.stderr)


def begun(
    items: Iterator[BatchItem | Rejected], ending: Ending, lines: ListLines
) -> Iterator[BatchItem | Rejected]:
    """The items; once one is asked for all is imported, and a signal leaves something to record.

    A list that cannot be read on ends there: what came before is in the summary.
    """
    ending.begun = True
    started()
    try:
        yield from items
    except (ListError, OSError) as error:
        lines.error = error


def batch_options(options: argparse.Namespace, processes: int, concurrency: int) -> BatchOptions:
    """The options of the library that the arguments ask for; they have the same names."""
    headers, host_headers = headers_of(options.header)
    bearer_file, host_bearer_files = bearer_files_of(options.bearer_file)
    names = {each.name for each in fields(BatchOptions)}
    chosen = {name: value for name, value in vars(options).items() if name in names}
    chosen |= {
        "headers": headers,
        "host_headers": host_headers,
        "bearer_file": bearer_file,
        "host_bearer_files": host_bearer_files,
        "only_failed": options.only == "failed",
        "limit_rate": options.limit_rate or None,
        "processes": processes,
        "concurrency": concurrency,
    }
    return BatchOptions(**{name: each for name, each in chosen.items() if each is not None})


def store_summary(summary: Summary, path: Path | None) -> None:
    """Write the summary's JSON; what prevents that stands in the summary that is printed."""
    from infra_core.fs import write_json_atomic

    if path is not None:
        try:
            write_json_atomic(path, summary.as_dict())
        except OSError as error:
            summary.trouble("the summary was not stored", error)


# What the next command says anew, or what is its caller's to choose.
_NOT_CARRIED = {
    *("command", "verbose", "urls", "batch_id", "out", "resume", "only", "strict", "results"),
    *("summary_file", "json", "quiet", "show_files"),
}


def next_command(options: argparse.Namespace, summary: Summary) -> str:
    """What to type for what is left, whole but for secrets."""
    resumable = summary.failed or summary.pending or summary.mirror_failed or summary.problems
    if options.urls == "-" or not (resumable or not summary.list_ended):
        return ""  # a resume brings nothing new where only malformed lines are left
    arguments = ["infra-core", "run", options.urls, "--batch-id", options.batch_id]
    arguments += ["--out", str(options.out), "--resume"]
    unfinished = summary.pending or summary.mirror_failed or not summary.list_ended
    # A line that was mended is a new one, which has not failed before.
    unfinished = unfinished or summary.rejected_lines
    if summary.failed and not unfinished and not options.revalidate:
        arguments += ["--only", "failed"]
    defaults = {each.name: each.default for each in fields(BatchOptions)}
    for name, value in vars(options).items():
        absent = value is None or value is False or value == []
        if absent or name in _NOT_CARRIED or value == defaults.get(name):
            continue
        for each in value if isinstance(value, list) else [value]:
            arguments.append("--" + name.replace("_", "-"))
            if each is not True:
                arguments.append(_without_secret(name, str(each)))
    return shlex.join(arguments)


def _without_secret(name: str, value: str) -> str:
    """The value of an option as it may be printed."""
    if name == "header":
        return value.partition("=")[0] + "=..."
    return "..." if name == "proxy" and "@" in value else value


def exit_code(summary: Summary) -> int:
    """The exit code for what came of a batch."""
    if summary.interrupted:
        return 128 + signal.Signals[summary.interrupted]  # as shells report it
    return exit_codes.OK if summary.complete else exit_codes.FAILED
