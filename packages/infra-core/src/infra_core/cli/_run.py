"""`infra-core run`: one batch of downloads, from a list of URLs to a manifest."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import exit_codes
from ._arguments import CommandError, check_writable, count, natural, seconds
from ._errors import one_line
from ._folder import JOBS_FILE, MANIFEST_FILE, exclusive, run_folder
from ._report import Reporter, Summary, plural
from ._storage import open_jobs, open_storage
from ._urls import UrlList, read_urls

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord, JobStore
    from infra_core.azure.storage import AzureStorageClient

    from ._batch import BatchOptions

__all__ = ["DESCRIPTION", "RunSettings", "add_arguments", "execute", "run_batch"]

DESCRIPTION = """\
Download a list of URLs as one batch that survives faults, and resumes.

Each URL is a job: downloaded with retries, verified (length and checksum), recorded in the job
store, mirrored to Blob Storage when that is configured. At the end a manifest lists the files.

  infra-core run urls.txt --batch-id nightly-42 --out runs
  infra-core run urls.txt --batch-id nightly-42 --out runs --resume
  sort -u *.txt | infra-core run - --batch-id all --out runs --json

Below OUT lies jobs.sqlite3 and a folder for each batch: assets/ (no two URLs share a path),
manifest.json, _logs/run.log (JSON lines) and _state/heartbeat.json.

With no AZURE_* variable set everything stays on this machine. AZURE_STORAGE_* mirrors the files
to a container, AZURE_JOB_TABLE keeps the jobs in Table Storage, and
AZURE_STORAGE_CONNECTION_STRING=UseDevelopmentStorage=true is Azurite.

Ctrl-C and SIGTERM let the downloads in flight end, record the rest as pending and leave; a second
signal cuts them off. A run that was killed goes on with --resume: what is here and passes its
checksum is kept, the rest is downloaded.
"""


SHOWN_LINES = 20


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Everything a run needs to know, apart from the URLs.

    Attributes:
        options: How the batch is run.
        out: Output folder.
        retries: Tries after the first one for each URL.
        backoff: Seconds that the wait before the first retry is at most.
        mode: Storage mode, `None` for what the environment says.
        summary_file: Where the summary is stored as JSON.
        as_json: Print the summary as JSON.
        env: Environment variables to read settings from.
    """

    options: "BatchOptions"
    out: Path
    retries: int = 4
    backoff: float = 1.0
    mode: str | None = None
    summary_file: Path | None = None
    as_json: bool = False
    env: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core run`."""
    parser.add_argument("urls", metavar="URLS", help="file with a URL a line, - for standard input")
    parser.add_argument("--batch-id", required=True, metavar="ID", help="name of the batch")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="output folder")
    parser.add_argument(
        "--resume", action="store_true", help="continue a batch: keep what passes its checksum"
    )
    parser.add_argument(
        "--concurrency", type=count, default=8, metavar="N", help="downloads at a time (8)"
    )
    parser.add_argument(
        "--task-timeout",
        type=seconds,
        default=300.0,
        metavar="S",
        help="seconds for one URL, retries included (300)",
    )
    parser.add_argument(
        "--retries", type=natural, default=4, metavar="N", help="tries after the first (4)"
    )
    parser.add_argument(
        "--backoff",
        type=seconds,
        default=1.0,
        metavar="S",
        help="longest wait before the first retry, doubled for each further one (1)",
    )
    parser.add_argument(
        "--max-bytes", type=count, metavar="N", help="refuse files larger than N bytes"
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=10.0,
        metavar="S",
        help="seconds for downloads in flight to end after a signal (10)",
    )
    parser.add_argument(
        "--mode",
        choices=["strict", "best-effort", "dev-skip"],
        help="storage mode; default: AZURE_STORAGE_MODE, or local files only without AZURE_*",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse the list if any line is malformed"
    )
    parser.add_argument(
        "--summary-file", type=Path, metavar="F", help="store the summary as JSON here as well"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def execute(options: argparse.Namespace) -> int:
    """Run the command."""
    from ._batch import BatchOptions

    check_writable(options.summary_file, "--summary-file")
    found = load_urls(options.urls, strict=options.strict)
    settings = RunSettings(
        options=BatchOptions(
            batch_id=options.batch_id,
            concurrency=options.concurrency,
            task_timeout=options.task_timeout,
            resume=options.resume,
            grace=options.grace,
            max_bytes=options.max_bytes,
        ),
        out=options.out,
        retries=options.retries,
        backoff=options.backoff,
        mode=options.mode,
        summary_file=options.summary_file,
        as_json=options.json,
        env=os.environ,
    )
    return exit_code(run_batch(found, settings))


def load_urls(source: str, *, strict: bool) -> UrlList:
    """Read the list from a file or standard input and report what is wrong with it."""
    try:
        if source == "-":
            found = read_urls(sys.stdin.buffer)
        else:
            with Path(source).open("rb") as lines:
                found = read_urls(lines)
    except OSError as error:
        cause = error.strerror or str(error)
        raise CommandError(f"cannot read {source!r}: {cause}; give a file or -") from None
    report_lines(found)
    if found.rejected and strict:
        raise CommandError(
            f"{plural(len(found.rejected), 'malformed line')} and --strict: nothing was "
            "downloaded; mend what is named above, or leave --strict out to skip it"
        )
    if not found.urls:
        name = "standard input" if source == "-" else repr(source)
        raise CommandError(f"no URL in {name}; write one http(s) URL a line")
    return found


def report_lines(found: UrlList) -> None:
    """Say which lines are passed over, but no more of them than somebody reads."""
    for item in found.rejected[:SHOWN_LINES]:
        # repr(): a list may hold control characters, and a terminal obeys them
        print(f"line {item.line}: {item.reason}: {item.text!r}", file=sys.stderr)
    if (more := len(found.rejected) - SHOWN_LINES) > 0:
        print(f"... and {plural(more, 'more malformed line')}", file=sys.stderr)
    if found.duplicates:
        lines = ", ".join(map(str, found.duplicates[:10]))
        etc = ", ..." if len(found.duplicates) > 10 else ""
        repeated = plural(len(found.duplicates), "duplicate URL")
        print(f"{repeated} passed over (line {lines}{etc})", file=sys.stderr)


def run_batch(found: UrlList, settings: RunSettings) -> Summary:
    """Run a batch from its URLs to its summary, with everything opened and closed around it.

    Raises:
        CommandError: The batch cannot start.
        ConfigurationError: The storage settings are unusable.
    """
    from infra_core.fs import remove_stale_partials

    folder = run_folder(settings.out, settings.options.batch_id)
    with ExitStack() as stack:
        storage = open_storage(settings.env, base_path=settings.out, mode=settings.mode)
        stack.callback(storage.close)
        make_folder(folder)
        stack.enter_context(exclusive(folder))
        for place in (folder, folder / "_state"):  # of a run that was killed while it wrote
            remove_stale_partials(place, older_than=0.0)
        jobs_file = settings.out / JOBS_FILE
        store = stack.enter_context(open_jobs(settings.env, sqlite_path=jobs_file))
        reporter = stack.enter_context(Reporter(as_json=settings.as_json))
        summary = asyncio.run(run_with_services(found, settings, folder, store, storage, reporter))
        summary.rejected_lines = len(found.rejected)
        summary.duplicates = len(found.duplicates)
        summary.jobs = str(jobs_file) if jobs_file.exists() else "Table Storage"
        conclude(summary, settings, folder, storage)
    reporter.finish(summary)
    return summary


def make_folder(folder: Path) -> None:
    """Make the folder, or say why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise CommandError(
            f"cannot create {str(folder)!r}: {cause}; choose another --out"
        ) from None


async def run_with_services(
    found: UrlList,
    settings: RunSettings,
    folder: Path,
    store: "JobStore[JobRecord]",
    storage: "AzureStorageClient",
    reporter: Reporter,
) -> Summary:
    """Open what lives in the event loop, run the batch, close it."""
    from infra_core.azure.monitoring import (
        HeartbeatMonitor,
        RunLogWriter,
        TelemetryClient,
        TelemetryConfig,
        TelemetryEvent,
    )
    from infra_core.http.assets import AssetDownloadClient

    from ._batch import Batch, Services

    mirror = storage if storage.is_configured() else None
    downloads = AssetDownloadClient(max_retries=settings.retries, backoff=settings.backoff)
    log = RunLogWriter(folder, azure_client=mirror)
    telemetry = TelemetryClient(
        config=TelemetryConfig.from_env(env=settings.env),
        service_name="infra-core run",
        journal=log,  # events survive a killed process
    )
    troubles: list[str] = []

    def trouble(error: Exception) -> None:
        if not troubles:
            troubles.append(one_line(error))
            reporter.line("unsent", f"heartbeat: {troubles[0]}", "yellow")

    heartbeat = HeartbeatMonitor(
        folder, interval_seconds=5.0, azure_client=mirror, log_writer=log, on_error=trouble
    )
    batch_id = settings.options.batch_id
    batch = Batch(
        settings.options,
        folder,
        Services(
            downloads=downloads,
            store=store,
            storage=storage,
            log=log,
            heartbeat=heartbeat,
            reporter=reporter,
        ),
    )
    try:
        heartbeat.start()
        telemetry.track_event(TelemetryEvent.STARTED, batch_id=batch_id)
        summary = await batch.run(found.urls)
        event = TelemetryEvent.COMPLETED if summary.complete else TelemetryEvent.FAILED
        telemetry.track_event(event, batch_id=batch_id, metadata={"failed": summary.failed})
        return summary
    finally:
        await downloads.close()
        with suppress(Exception):  # told by on_error as it happened
            await asyncio.to_thread(heartbeat.stop)
        await asyncio.to_thread(log.close)
        await asyncio.to_thread(telemetry.flush, 5.0)


def conclude(
    summary: Summary, settings: RunSettings, folder: Path, storage: "AzureStorageClient"
) -> None:
    """Write manifest and summary, locally first, then mirrored."""
    from infra_core.azure.run_storage import build_manifest
    from infra_core.fs import write_json_atomic

    def failed(what: str, error: Exception) -> None:
        summary.problems.append(f"{what}: {one_line(error)}")

    def listed() -> dict[str, Any]:
        assets.mkdir(exist_ok=True)
        if storage.is_configured():
            try:
                return build_manifest(assets, client=storage)
            except Exception as error:  # noqa: BLE001 - local files can be listed all the same
                failed("the container was not listed, the manifest has local files only", error)
        with open_storage({}, base_path=settings.out) as local:
            return build_manifest(assets, client=local)

    assets = folder / "assets"
    written: list[Path] = []
    try:
        written.append(write_json_atomic(folder / MANIFEST_FILE, listed()))
        summary.manifest = str(written[0])
    except OSError as error:
        failed("there is no manifest", error)
    if settings.summary_file is not None:
        try:
            written.append(write_json_atomic(settings.summary_file, summary.as_dict()))
        except OSError as error:
            failed("the summary was not stored", error)
    if not storage.is_configured():
        return
    for path in written:
        try:
            storage.upload_file(path, raise_on_error=True)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            failed(f"{str(path)!r} was not mirrored", error)


def exit_code(summary: Summary) -> int:
    """The exit code that tells scripts what came of a batch."""
    if summary.interrupted == signal.Signals.SIGTERM.name:
        return exit_codes.TERMINATED
    if summary.interrupted:
        return exit_codes.INTERRUPTED
    return exit_codes.OK if summary.complete else exit_codes.FAILED
