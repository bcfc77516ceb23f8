"""`infra-core run`: its arguments, and in how many processes it downloads."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra_core import _start
from infra_core.batch._formats import FORMATS

from ._arguments import add_prefix, byte_count, count, natural, number, seconds, speed

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

_DOWNLOADS_EACH = 16  # of a process, unless it is said how many there are to be
_MOST_PROCESSES = 4
_LONG_LIST = 16 << 10  # bytes: some hundred URLs, which are worth the start of processes

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
    add(
        "--processes",
        count,
        "N",
        "processes that download, each with the whole concurrency (1; on Linux a new batch of some "
        f"hundred URLs has one for {_DOWNLOADS_EACH} downloads at a time, at most one a core and "
        f"{_MOST_PROCESSES}, which share the concurrency)",
    )
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
        "{name} {stem} {ext} {digest} {sha256} {shard} {index}",
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
    """Run the command: its workers are there before it reads anything."""
    processes, concurrency = places_of(options)
    if options.dask is None and (processes > 1 or options.scratch is not None):
        from infra_core.batch._workers import fork_workers

        fork_workers(processes)
    from ._batch import run

    return run(options, processes, concurrency)


def places_of(options: argparse.Namespace) -> tuple[int, int]:
    """In how many processes to download, and how much at a time in each of them.

    Python uses one core a process. More are worth their start where there is much to do, and are
    used where the run is the same but for its time: what bounds all of it is not shared out.
    """
    processes, concurrency = options.processes, options.concurrency
    if processes is None:
        processes = _worth_starting(options)
        concurrency //= processes
    return processes, concurrency


def _worth_starting(options: argparse.Namespace) -> int:
    """How many processes a run has where it is not said."""
    processes = min(options.concurrency // _DOWNLOADS_EACH, _MOST_PROCESSES)
    going_on = options.resume or options.revalidate  # with little to download, mostly
    bounds = (options.max_per_host, options.rate_per_host, options.limit_rate)
    others = (options.dask, options.scratch, options.cookies, *bounds)
    if processes < 2 or going_on or options.verbose or any(each is not None for each in others):
        return 1
    if not _start.is_own_process() or sys.platform != "linux":  # to spawn them takes long
        return 1
    try:
        size = os.stat(options.urls).st_size  # noqa: PTH116 - before anything is imported
    except (OSError, ValueError):  # standard input, or none: its reader says so
        return 1
    return 1 if size < _LONG_LIST else min(processes, len(os.sched_getaffinity(0)))
