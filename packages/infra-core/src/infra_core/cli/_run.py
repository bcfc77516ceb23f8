"""`infra-core run`: the command line of `infra_core.batch`."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from infra_core._start import import_engine, started
from infra_core.batch import BatchItem, BatchOptions, BatchResult, Rejected, Summary, run_batch
from infra_core.batch._folder import JOBS_FILE
from infra_core.batch._readers import FORMATS

from . import exit_codes
from ._arguments import (
    CommandError,
    add_prefix,
    byte_count,
    check_writable,
    count,
    natural,
    number,
    seconds,
    speed,
)
from ._credentials import cookie_jar, headers_of
from ._ending import Ending, ending_in_order
from ._errors import one_line
from ._list import ListLines, open_list
from ._report import Reporter
from ._results import ResultsFile

__all__ = ["DESCRIPTION", "add_arguments", "execute", "exit_code"]

DESCRIPTION = """\
Download a list of URLs as one batch that survives faults, and resumes.

Each URL is a job: downloaded with retries, verified (length and checksum), recorded in the job
store, mirrored to Blob Storage when that is configured. At the end a manifest lists the files.

  infra-core run urls.txt --batch-id nightly-42 --out runs
  infra-core run urls.txt --batch-id nightly-42 --out runs --resume
  infra-core run items.csv --batch-id shop --out runs --results results.jsonl
  infra-core run urls.txt --batch-id polite --out runs --max-per-host 2 --rate-per-host 1
  sort -u *.txt | infra-core run - --batch-id all --out runs --json

Below OUT lies jobs.sqlite3 and a folder for each batch: assets/ (no two URLs share a path),
manifest.json, _logs/run.log (JSON lines) and _state/heartbeat.json.

With no AZURE_* variable set everything stays on this machine. AZURE_STORAGE_* mirrors the files
to a container, AZURE_JOB_TABLE keeps the jobs in Table Storage, and
AZURE_STORAGE_CONNECTION_STRING=UseDevelopmentStorage=true is Azurite.

Ctrl-C and SIGTERM let the downloads in flight end, record the rest as pending and leave; a second
signal cuts them off. A run that was killed goes on with --resume: what is here and passes its
checksum is kept, the rest is downloaded.

Sizes may be written 500k, 10M, 2G; times 90, 90s, 5m, 2h.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core run`."""
    parser.add_argument("urls", metavar="URLS", help="file with a URL a line, - for standard input")
    parser.add_argument("--batch-id", required=True, metavar="ID", help="name of the batch")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    _add_list(parser.add_argument_group("the list"))
    _add_resume(parser.add_argument_group("going on with a batch"))
    _add_downloads(parser.add_argument_group("downloads"))
    _add_requests(parser.add_argument_group("requests (values are never printed nor recorded)"))
    _add_output(parser.add_argument_group("files, storage and what is printed"))


def _add_list(group: Any) -> None:
    group.add_argument(
        "--input-format",
        choices=FORMATS,
        help="text: a URL a line, perhaps with a digest as sha256sum [--tag] writes it; csv: "
        "columns url, name, checksum, headers; jsonl: the same as objects (by the file's ending)",
    )
    group.add_argument(
        "--strict", action="store_true", help="refuse the list if any line is malformed"
    )
    group.add_argument(
        "--skip-malformed", action="store_true", help="malformed lines do not make the exit code 1"
    )


def _add_resume(group: Any) -> None:
    group.add_argument(
        "--resume", action="store_true", help="continue a batch: keep what passes its checksum"
    )
    group.add_argument(
        "--revalidate",
        action="store_true",
        help="continue a batch, and ask for each file that is here whether it is current (ETag, "
        "Last-Modified); what has changed is replaced",
    )
    group.add_argument(
        "--only", choices=["failed"], help="with --resume: try only what failed before"
    )
    group.add_argument(
        "--verify-mirror",
        action="store_true",
        help="with --resume: ask the container for each file that counts as mirrored",
    )


def _add_downloads(group: Any) -> None:
    def add(name: str, kind: Callable[[str], object], metavar: str, text: str, **more: Any) -> None:
        group.add_argument(name, type=kind, metavar=metavar, help=text, **more)

    add("--concurrency", count, "N", "downloads at a time (8)", default=8)
    add("--processes", count, "N", "processes that download (1)", default=1)
    add("--dask", str, "ADDRESS", "Dask scheduler whose workers download: tcp://HOST:8786")
    add(
        "--scratch",
        Path,
        "DIR",
        "folder of each worker's own for files, which are mirrored and "
        "removed; without it OUT is shared",
    )
    add("--max-per-host", count, "N", "downloads at a time from one host")
    add("--rate-per-host", number, "R", "requests begun a second at one host")
    add("--limit-rate", speed, "B", "bytes downloaded a second by the whole run, such as 10M; "
        "0 for no limit")  # fmt: skip
    add("--task-timeout", seconds, "S", "time for one URL, retries included (300)", default=300.0)
    add("--timeout", seconds, "S", "time to wait for a connection or for bytes (60)", default=60.0)
    add("--deadline", seconds, "S", "time for the whole run; then it ends as after a signal")
    add("--retries", natural, "N", "attempts after the first (4)", default=4)
    add("--backoff", seconds, "S", "longest wait before the first retry (1); doubled for each more",
        default=1.0)  # fmt: skip
    add("--min-speed", speed, "B", "bytes a second below which a server counts as stalled "
        "(1024); 0 for no limit", default=1024)  # fmt: skip
    add("--max-bytes", byte_count, "B", "refuse files larger than this")
    add("--max-failures", natural, "N", "end the run early when more URLs than this have failed")
    add("--grace", seconds, "S", "time for downloads in flight to end after a signal or an early "
        "end (10)", default=10.0)  # fmt: skip


def _add_requests(group: Any) -> None:
    group.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="[HOST:]NAME=VALUE",
        help="request header, for one host where HOST: stands in front; may be repeated",
    )
    group.add_argument("--user-agent", metavar="TEXT", help="User-Agent (infra-core/VERSION)")
    group.add_argument(
        "--bearer-file",
        action="append",
        default=[],
        metavar="[HOST:]F",
        help="file with a token for Authorization: Bearer, for one host where HOST: is in front",
    )
    group.add_argument(
        "--netrc", type=Path, metavar="F", help="logins by host, as curl and ftp read them"
    )
    group.add_argument(
        "--cookies", type=Path, metavar="F", help="cookies of a browser, in Netscape's format"
    )
    group.add_argument(
        "--proxy", metavar="URL", help="proxy for all requests, in place of what *_PROXY says"
    )
    group.add_argument(
        "--public-only",
        action="store_true",
        help="refuse private, loopback and link-local addresses, also after redirects",
    )


def _add_output(group: Any) -> None:
    group.add_argument(
        "--layout",
        default="hashed",
        metavar="L",
        help="names below assets/: hashed, url (HOST/PATH), flat, or a template of {host} {path} "
        "{name} {stem} {ext} {digest} {sha256} {index}",
    )
    group.add_argument(
        "--content-disposition",
        action="store_true",
        help="name files as the server says (Content-Disposition)",
    )
    group.add_argument(
        "--adjust-extension",
        action="store_true",
        help="give files without an extension the one of the type that they were served with",
    )
    group.add_argument(
        "--mode",
        choices=["strict", "best-effort", "dev-skip"],
        help="storage mode; default: AZURE_STORAGE_MODE, or local files only without AZURE_*",
    )
    add_prefix(group)
    group.add_argument(
        "--results",
        type=Path,
        metavar="F",
        help="write what became of each URL here, as JSON lines, or as CSV to F.csv",
    )
    group.add_argument(
        "--summary-file", type=Path, metavar="F", help="store the summary as JSON here as well"
    )
    group.add_argument("--json", action="store_true", help="print the summary as JSON")
    group.add_argument("--quiet", "-q", action="store_true", help="print the summary alone")
    group.add_argument("--show-files", action="store_true", help="print a line for each file")


def execute(options: argparse.Namespace) -> int:
    """Run the command."""
    check_outputs(options)
    if options.processes == 1:  # else the workers need it
        import_engine()  # before the options, which look at headers with it
    chosen = batch_options(options)
    warn_unset(options.prefix)
    with ExitStack() as stack:
        ending = stack.enter_context(ending_in_order())
        items = stack.enter_context(open_list(options))
        reporter = Reporter(as_json=options.json, quiet=options.quiet, files=options.show_files)
        results = ResultsFile(options.results)
        stack.callback(results.close)

        def on_result(result: BatchResult) -> None:
            results.write(result)
            reporter.on_result(result)

        lines = ListLines()
        with reporter:
            summary = run_batch(
                begun(items, ending),
                chosen,
                on_result=on_result,
                on_retry=reporter.on_retry,
                on_progress=reporter.on_progress,
                on_rejected=lines.rejected,
                on_duplicate=lines.duplicate,
                on_event=reporter.on_event,
            )
        lines.finish()
        results.close()
        if results.error is not None:
            summary.trouble(f"{str(options.results)!r} has gaps", one_line(results.error))
        if ending.received is not None and summary.interrupted is None:
            summary.interrupted = ending.received.name
        store_summary(summary, options.summary_file)
        reporter.finish(summary, next_command=next_command(options, summary))
        return exit_code(summary)


def check_outputs(options: argparse.Namespace) -> None:
    """Refuse files that cannot be written, and those that would replace one which the run needs.

    Raises:
        CommandError: The message names the file.
    """
    taken = {(options.out / JOBS_FILE).resolve(): "the job store"}
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


def begun(items: Iterator[BatchItem | Rejected], ending: Ending) -> Iterator[BatchItem | Rejected]:
    """The items; once one is asked for all is imported, and a signal leaves something to record."""
    ending.begun = True
    started()
    yield from items


def batch_options(options: argparse.Namespace) -> BatchOptions:
    """The options of the library that the arguments ask for."""
    headers, by_host = headers_of(options.header, options.bearer_file, options.netrc)
    return BatchOptions(
        batch_id=options.batch_id,
        out=options.out,
        resume=options.resume,
        revalidate=options.revalidate,
        only_failed=options.only == "failed",
        verify_mirror=options.verify_mirror,
        skip_malformed=options.skip_malformed,
        concurrency=options.concurrency,
        processes=options.processes,
        dask=options.dask,
        scratch=options.scratch,
        max_per_host=options.max_per_host,
        rate_per_host=options.rate_per_host,
        limit_rate=options.limit_rate or None,
        task_timeout=options.task_timeout,
        timeout=options.timeout,
        deadline=options.deadline,
        retries=options.retries,
        backoff=options.backoff,
        min_speed=options.min_speed,
        max_bytes=options.max_bytes,
        max_failures=options.max_failures,
        grace=options.grace,
        headers=headers,
        host_headers=by_host,
        user_agent=options.user_agent,
        cookies=None if options.cookies is None else cookie_jar(options.cookies),
        proxy=options.proxy,
        public_only=options.public_only,
        layout=options.layout,
        content_disposition=options.content_disposition,
        adjust_extension=options.adjust_extension,
        mode=options.mode,
        prefix=options.prefix,
    )


def store_summary(summary: Summary, path: Path | None) -> None:
    """Write the summary's JSON; what prevents that stands in the summary that is printed."""
    from infra_core.fs import write_json_atomic

    if path is not None:
        try:
            write_json_atomic(path, summary.as_dict())
        except OSError as error:
            summary.trouble("the summary was not stored", error)


_CARRIED = (
    "input_format", "skip_malformed", "revalidate", "verify_mirror", "concurrency", "processes",
    "dask", "scratch", "max_per_host", "rate_per_host", "limit_rate", "task_timeout", "timeout",
    "deadline", "retries", "backoff", "min_speed", "max_bytes", "max_failures", "grace", "header",
    "user_agent", "bearer_file", "netrc", "cookies", "proxy", "public_only", "layout",
    "content_disposition", "adjust_extension", "mode", "prefix",
)  # fmt: skip


def next_command(options: argparse.Namespace, summary: Summary) -> str:
    """What to type for what is left, whole but for secrets."""
    if options.urls == "-":
        return ""
    arguments = ["infra-core", "run", options.urls, "--batch-id", options.batch_id]
    arguments += ["--out", str(options.out), "--resume"]
    unfinished = summary.pending or summary.mirror_failed or not summary.list_ended
    if summary.failed and not unfinished and not options.revalidate:
        arguments += ["--only", "failed"]
    defaults = {each.name: each.default for each in fields(BatchOptions)}
    for name in _CARRIED:
        value = getattr(options, name, None)
        if value is None or value is False or value == [] or value == defaults.get(name):
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
    if summary.interrupted == signal.Signals.SIGTERM.name:
        return exit_codes.TERMINATED
    if summary.interrupted:
        return exit_codes.INTERRUPTED
    return exit_codes.OK if summary.complete else exit_codes.FAILED
