"""`infra-core run`: its arguments, and its workers, which are there before anything else."""

import argparse
import os
from pathlib import Path
from typing import Any

from infra_core import _start
from infra_core.batch._formats import FORMATS
from infra_core.batch._places import DOWNLOADS_EACH, MOST_CHOSEN, URL_BYTES, places_of

from ._arguments import (
    add_options,
    add_prefix,
    byte_count,
    count,
    named,
    natural,
    number,
    seconds,
    speed,
    whole,
)

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

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

Ctrl-C, SIGTERM and SIGHUP let downloads in flight end, record the rest as pending and leave; a
second signal cuts them off. A run that was killed goes on with --resume: what is here and passes
its checksum is kept, the rest is downloaded.

Sizes may be written 500k, 10M, 2G; times 90, 90s, 5m, 2h30m.
"""


# By group, as `add_options` takes them. A default that a help names is that of `BatchOptions`.
_OPTIONS: dict[str, list[tuple[Any, ...]]] = {
    "the list": [
        ("--input-format", ("text: a URL a line, perhaps with a digest as sha256sum [--tag] writes "
         "it; csv: columns url, name, checksum, headers; jsonl: the same as objects (by the file's "
         "ending)"), FORMATS),
        ("--strict", "refuse the list if any line is malformed"),
        ("--skip-malformed", "malformed lines do not make the exit code 1"),
    ],
    "going on with a batch": [
        ("--resume", "continue a batch: keep what passes its checksum"),
        ("--revalidate", ("continue a batch, and ask for each file that is here whether it is "
         "current (ETag, Last-Modified); what has changed is replaced")),
        ("--only", "with --resume: try only what failed before", ("failed",)),
        ("--verify-mirror", ("with --resume: ask the container for each file that counts as "
         "mirrored")),
    ],
    "downloads": [
        ("--concurrency N", "downloads at a time (8)", count),
        ("--processes N", ("processes that download, each with the whole concurrency (1; on Linux "
         f"a new batch of some hundred URLs has one for {DOWNLOADS_EACH} downloads at a time, at "
         f"most one a core and {MOST_CHOSEN}, which share the concurrency)"),
         whole(1, _start.MOST_PROCESSES)),
        ("--dask ADDRESS", "Dask scheduler whose workers download: tcp://HOST:8786"),
        ("--scratch DIR", ("folder of each worker's own for files, which are mirrored and removed; "
         "without it OUT is shared"), named),
        ("--max-per-host N", "downloads at a time from one host", count),
        ("--rate-per-host R", "requests begun a second at one host", number),
        ("--limit-rate B", ("bytes downloaded a second by the whole run, such as 10M; 0 for no "
         "limit"), speed),
        ("--task-timeout S", "time for one URL, retries included (300)", seconds),
        ("--timeout S", "time to wait for a connection or for bytes (60)", seconds),
        ("--deadline S", "time for the whole run; then it ends as after a signal", seconds),
        ("--retries N", "attempts after the first (4)", natural),
        ("--backoff S", "longest wait before the first retry (1); doubled for each more", seconds),
        ("--min-speed B", ("bytes a second, over the time of --timeout, below which a server "
         "counts as stalled (1024); 0 for no limit"), speed),
        ("--max-bytes B", "refuse files larger than this", byte_count),
        ("--max-failures N", "end the run early when more URLs than this have failed", natural),
        ("--grace S", "time for downloads in flight to end after a signal or an early end (10)",
         seconds),
    ],
    "requests (values are never printed nor recorded)": [
        ("--header [HOST:]NAME=VALUE", ("request header, for one host where HOST: stands in front; "
         "may be repeated"), list),
        ("--user-agent TEXT", "User-Agent (infra-core/VERSION)"),
        ("--bearer-file [HOST:]F", ("file with a token for Authorization: Bearer, for one host "
         "where HOST: is in front"), list),
        ("--netrc F", ("logins by host, as curl and ftp read them, beside those of ~/.netrc or "
         "$NETRC; a default entry is sent to no host"), Path),
        ("--no-netrc", "send no login of ~/.netrc or $NETRC"),
        ("--cookies F", "cookies of a browser, in Netscape's format", Path),
        ("--proxy URL", "proxy for all requests, in place of what *_PROXY says"),
        ("--public-only", ("refuse private, loopback and link-local addresses, also after "
         "redirects")),
    ],
    "files, storage and what is printed": [
        ("--layout L", ("names below assets/: hashed, url (HOST/PATH), flat, or a template of "
         "{host} {path} {name} {stem} {ext} {digest} {sha256} {shard} {index}")),
        ("--content-disposition", "name files as the server says (Content-Disposition)"),
        ("--adjust-extension", ("give files without an extension the one of the type that they "
         "were served with")),
        ("--mode", "storage mode; default: AZURE_STORAGE_MODE, or local files only without AZURE_*",
         ("strict", "best-effort", "dev-skip")),
        ("--results F", "write what became of each URL here, as JSON lines, or as CSV to F.csv",
         Path),
        ("--summary-file F", "store the summary as JSON here as well", Path),
        ("--json", "print the summary as JSON"),
        ("--quiet -q", "print the summary alone"),
        ("--show-files", "print a line for each file"),
    ],
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core run`."""
    parser.add_argument("urls", metavar="URLS", help="file with a URL a line, - for standard input")
    parser.add_argument("--batch-id", required=True, metavar="ID", help="name of the batch")
    parser.add_argument("--out", required=True, type=named, metavar="DIR", help="output folder")
    for title, options in _OPTIONS.items():
        group = parser.add_argument_group(title)
        add_options(group, options)
    add_prefix(group)
    parser.set_defaults(concurrency=8)


def execute(options: argparse.Namespace) -> int:
    """Run the command: its workers are there before it reads anything."""
    length = 0 if options.verbose else _length_of(options.urls)  # what workers log is not shown
    processes, concurrency = places_of(options, length)
    if options.dask is None and (processes > 1 or options.scratch is not None):
        from infra_core.batch._workers import fork_workers

        fork_workers(processes)
    from ._batch import run

    return run(options, processes, concurrency)


def _length_of(urls: str) -> int:
    """How many URLs a list has, about, before anything is imported that could read it."""
    try:
        return os.stat(urls).st_size // URL_BYTES  # noqa: PTH116
    except (OSError, ValueError):  # standard input, or none: its reader says so
        return 0
