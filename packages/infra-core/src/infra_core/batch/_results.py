"""What a batch reports, and to which functions: each URL, each retry, and at the end a summary."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, NamedTuple

from infra_core.runtime import is_async_function

from ._items import BatchItem, Rejected

__all__ = [
    "BatchProgress",
    "BatchResult",
    "BatchRetry",
    "Failure",
    "Hooks",
    "Outcome",
    "Summary",
]

_logger = logging.getLogger("infra_core.batch")

Status = Literal["completed", "kept", "unchanged", "failed", "timed_out", "elsewhere"]
HERE = ("completed", "kept", "unchanged")  # with a file
KEPT_FAILURES = 1_000  # of which the summary keeps the cause; the job store has them all


class Outcome(NamedTuple):
    """What one download came to; made where it was done, which may be far away.

    Attributes:
        path: Of the file, relative to the run's folder.
        name: File name that the server suggests.
        error: Why it failed, in one line without secrets.
        mirrored: Whether the file was uploaded; None where nothing is mirrored.
        by_load: Whether it failed because this machine has too little of something (file
            descriptors, disk space) or its disk fails: then it is not failed permanently.
    """

    job_id: str
    status: Status
    path: str | None = None
    size: int | None = None
    checksum: str | None = None
    content_type: str | None = None
    etag: str | None = None
    last_modified: str | None = None
    name: str | None = None
    attempts: int = 0
    error: str | None = None
    http_status: int | None = None
    mirrored: bool | None = None
    mirror_error: str | None = None
    by_load: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """What became of one URL.

    Attributes:
        job_id: Its job in the store.
        url: The URL, secrets redacted.
        status: `completed` (downloaded in this run), `kept` (here from an earlier run, verified),
            `unchanged` (kept, and current according to the server or by its bytes), `failed`,
            `timed_out`, or `elsewhere` (another run of the batch has it).
        path: Of the file, relative to the run's folder.
        size: Bytes.
        checksum: `algorithm:hexdigest`.
        content_type: Its media type.
        http_status: Status of the answer; None where there was none, or no request was needed.
        attempts: How often the download was tried in this run, the first time included.
        error: Why it failed, in one line.
        mirrored: Whether it was uploaded; None where nothing is mirrored.
        metadata: What the item brought along.
    """

    job_id: str
    url: str
    status: Status
    path: str | None = None
    size: int | None = None
    checksum: str | None = None
    content_type: str | None = None
    http_status: int | None = None
    attempts: int = 0
    error: str | None = None
    mirrored: bool | None = None
    metadata: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether the file is here."""
        return self.status in HERE

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class BatchRetry:
    """A download that failed and is tried again.

    Attributes:
        url: The URL, secrets redacted.
        attempt: Number of the attempt that failed, from 1.
        wait: Seconds until the next.
        error: Why it failed, in one line.
    """

    url: str
    attempt: int
    wait: float
    error: str


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        settled: URLs that have come to their end in this run.
        read: URLs read from the list so far; all of them once `list_ended`.
        list_ended: Whether the list has been read to its end.
        bytes_downloaded: Sum of the sizes.
        seconds: Since the beginning.
    """

    settled: int
    read: int
    list_ended: bool
    bytes_downloaded: int
    seconds: float


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
        total: URLs read from the list, each counted once.
        succeeded: Downloaded and verified in this run.
        skipped: Kept from an earlier run after their checksum was verified.
        unchanged: Of these, current according to the server, or by the bytes that it sent.
        failed: Gave up, timeouts included.
        pending: Not tried or not finished when the run ended early; of what was read of the list.
        elsewhere: Done by another run of the batch that shares the job table.
        rejected_lines: Lines of the list that are not URLs.
        skip_malformed: Whether such lines were to be passed over.
        duplicates: Lines that repeat a URL.
        bytes_downloaded: Sum of the sizes of files downloaded in this run.
        retries: Downloads tried again, over all URLs.
        duration_seconds: Wall time.
        failures: The first 1,000 failed URLs; the job store has all.
        mirrored: Files uploaded in this run, `None` when no storage is configured.
        mirror_failed: Files that could not be uploaded in this run.
        problems: What else went wrong, such as a manifest that could not be written; a line each.
        interrupted: Name of the signal that ended the run early.
        list_ended: Whether the list was read to its end.
        manifest: Path of the manifest, absolute.
        jobs: Where the jobs are recorded: the path of a file, absolute, or "Table Storage".
        folder: The run's folder, absolute.
    """

    batch_id: str
    total: int = 0
    succeeded: int = 0
    skipped: int = 0
    unchanged: int = 0
    failed: int = 0
    pending: int = 0
    elsewhere: int = 0
    rejected_lines: int = 0
    skip_malformed: bool = False
    duplicates: int = 0
    bytes_downloaded: int = 0
    retries: int = 0
    duration_seconds: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    mirrored: int | None = None
    mirror_failed: int = 0
    problems: list[str] = field(default_factory=list)
    interrupted: str | None = None
    list_ended: bool = False
    manifest: str | None = None
    jobs: str | None = None
    folder: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every URL is here, every upload arrived and nothing else went wrong."""
        unfinished = self.failed or self.pending or self.mirror_failed
        malformed = self.rejected_lines and not self.skip_malformed
        return self.list_ended and not (unfinished or malformed or self.problems)

    def trouble(self, what: str, error: object) -> None:
        """Keep what went wrong beside the downloads, each kind once."""
        if not any(problem.startswith(what) for problem in self.problems):
            self.problems.append(f"{what}: {error}")

    def as_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return {**asdict(self), "complete": self.complete}


@dataclass(eq=False, repr=False)
class Hooks:
    """Functions of the caller's, see `run_batch_async`; each is called in the event loop.

    Attributes:
        raised: What one raised that ends the program, such as SystemExit.
        on_raised: Called with a word about that, to end the run in order.

    Raises:
        TypeError: One is an async function, or no function.
    """

    on_result: Callable[[BatchResult], object] | None = None
    on_retry: Callable[[BatchRetry], object] | None = None
    on_progress: Callable[[BatchProgress], object] | None = None
    on_rejected: Callable[[Rejected], object] | None = None
    on_duplicate: Callable[[BatchItem], object] | None = None
    on_event: Callable[[str, str], object] | None = None

    def __post_init__(self) -> None:
        self.raised: BaseException | None = None
        self.on_raised: Callable[[str], object] = lambda _: None
        for each in fields(self):
            name, hook = each.name, getattr(self, each.name)
            if is_async_function(hook):
                raise TypeError(
                    f"{name} is an async function, and nothing would await it: pass a plain one, "
                    "which may start a task (asyncio.create_task) or fill a queue"
                )
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} must be a function, got {hook!r:.80}")

    def call(self, name: str, *arguments: object) -> None:
        """Call a hook; an error that it raises is logged, and what ends the program ends the run.

        No task of the event loop could raise that: asyncio would leave the others where they are.
        """
        hook = getattr(self, name)
        if hook is None:
            return
        try:
            hook(*arguments)
        except Exception:
            _logger.exception("a hook of the batch raised")
        except BaseException as error:  # noqa: BLE001 - raised when all is recorded
            self.raised = self.raised or error
            self.on_raised(f"{name} raised {type(error).__name__}")
