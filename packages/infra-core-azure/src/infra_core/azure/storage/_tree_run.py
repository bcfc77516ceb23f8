"""One engine for trees, planned or carried out, up or down, so that they cannot differ."""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from infra_core.runtime import clock

from .._artifacts import is_own_state
from ._blobs import list_pages
from ._bounded import ByteBudget, for_each, growing_batches
from ._errors import UnsafeNamesError, describe
from ._globs import compile_globs, compile_pruning
from ._service import BlobService, Outage
from ._tree_index import TreeIndex
from ._tree_types import (
    Action,
    FileOutcome,
    OnOutcome,
    OnProgress,
    PlannedTransfer,
    TreeProgress,
    TreeReport,
    TreeRules,
)

__all__ = ["READ_AHEAD", "TreeRun"]

T = TypeVar("T")
_LOGGED = 20  # failures that are logged one by one; all of them are counted
_LISTED = 100  # unsafe names that an error lists
READ_AHEAD = 128 * 1024  # bytes; smaller files are read by the batch, in one thread hop
_SLOW = 0.005  # seconds for one of them: the disk is far away, and several threads are faster
_ALONE = 64  # files that are read one by one before that is tried again


class TreeRun(ABC):
    """One tree, one way, once.

    Args:
        service: The container.
        root: The local folder.
        prefix: Prefix of the blobs, with a slash at its end or empty.
        rules: Which files travel.
        dry_run: Decide and report everything, touch nothing.
        on_progress: Called after each file, and while large ones travel.
        on_outcome: Called with what became of each file.
        log: The logger.
        journal: The journal of pending uploads, which is no artifact wherever it lies.
        leave: Names that are left alone, as those in `exclude` are; one that ends in a slash
            stands for all below it.
    """

    direction: ClassVar[Literal["up", "down"]]

    def __init__(
        self,
        service: BlobService,
        root: Path,
        prefix: str,
        rules: TreeRules,
        *,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
        on_outcome: OnOutcome | None = None,
        log: logging.Logger | None = None,
        journal: Path | None = None,
        leave: Collection[str] = (),
    ) -> None:
        self.report = TreeReport(self.direction)
        self._service = service
        self._root = root
        self._prefix = prefix
        self._rules = rules
        self._dry = dry_run
        self._on_progress = on_progress
        self._on_outcome = on_outcome
        self._log = log or logging.getLogger("infra_core.azure.storage")
        self._chosen = compile_globs(rules.include, rules.exclude)
        self._pruned = compile_pruning(rules.exclude)
        self._left_alone = {*_names_of_journal(root, journal), *leave}
        self._left_below = tuple(name for name in leave if name.endswith("/"))
        self._index = TreeIndex()
        options = service.config.options
        # One large file at full speed and small ones beside it.
        self._per_file = options.block_size * (options.block_concurrency + 1)
        self._budget = ByteBudget(self._per_file + options.block_size * 4)
        # The service client bounds requests; more files than those are under way, since some wait
        # for the disk.
        self._width = min(options.concurrency * 8, 320)
        self._total_bytes = 0
        self._done_bytes = 0
        self._done_files = 0
        self._outage = Outage(service)
        self._alone = 0  # files that are not to be read ahead

    async def run(self) -> TreeReport:
        """Do it.

        Returns:
            The report, failures included; nothing is raised for a single file.

        Raises:
            UnsafeNamesError: There are unsafe names and the rules say `raise`; nothing was
                touched.
            StorageError: The listing failed.
        """
        started = clock.monotonic()
        try:
            await self._run()
        finally:
            await asyncio.to_thread(self._index.close)
        self.report.seconds = clock.monotonic() - started
        return self.report

    def _wanted(self, name: str) -> bool:
        """Whether a name is chosen, and an artifact at all."""
        if is_own_state(name) or name in self._left_alone or name.startswith(self._left_below):
            return False
        return self._chosen(name)

    def _read_ahead(self, size: int, read: Callable[[], T]) -> T | None:
        """What `read` makes of a small file, `None` where it shall be read by itself, or must be.

        Called in the thread that makes a batch: a hop to another costs more than such a file.
        """
        if size > READ_AHEAD or self._alone:
            self._alone = max(0, self._alone - 1)
            return None
        begun = clock.monotonic()
        try:
            return read()
        except OSError:  # met again by the file alone
            return None
        finally:
            if clock.monotonic() - begun > _SLOW:
                self._alone = _ALONE

    @abstractmethod
    async def _run(self) -> None:
        """Bring the tree over."""

    async def _list_into_index(self, unsafe: Callable[[str], str | None] | None = None) -> None:
        async for page in list_pages(self._service, self._prefix):
            blobs = (blob for blob in page if self._wanted(blob.name))
            await asyncio.to_thread(self._index.add, blobs, unsafe)

    async def _refuse(
        self, count: int, rejected: Callable[[], Iterator[PlannedTransfer]], operation: str
    ) -> None:
        if not count:
            return
        if not self._dry:
            first = await asyncio.to_thread(lambda: list(islice(rejected(), _LISTED)))
            names = {plan.name: plan.reason for plan in first}
            if self._rules.on_unsafe == "raise":
                raise UnsafeNamesError(names, operation=operation, more=count - len(names))
            self._log.warning(
                "%d unsafe names below %r were left out, the first is %r: %s",
                count,
                self._prefix,
                first[0].name,
                first[0].reason,
                extra={"prefix": self._prefix},
            )

        async def report_rejected(plan: PlannedTransfer) -> None:
            self._report_outcome(FileOutcome(plan.name, "reject", plan.size, plan.reason))

        await for_each(growing_batches(rejected()), report_rejected, 1)

    def _may_delete(self) -> bool:
        if self.report.ok:
            return True
        self._note(
            f"nothing is deleted at the destination, since "
            f"{self.report.failed + self.report.rejected} of {self.report.files} files failed or "
            "were rejected; run it again when they pass"
        )
        return False

    def _note(self, text: str) -> None:
        """Say in the report and in the log what was not done."""
        self.report.notes.append(text)
        self._log.warning("%s", text, extra={"prefix": self._prefix})

    async def _outcome(
        self,
        name: str,
        size: int,
        work: Callable[[], Awaitable[PlannedTransfer]],
        *,
        move: Action | None = None,
        as_sent: Callable[[], tuple[str | None, str | None]] = lambda: (None, None),
    ) -> None:
        """Do the work on one file and report what became of it.

        Args:
            name: Of the file.
            size: Of the file.
            work: The work.
            move: What it was to be, for a failure; by default what this run does.
            as_sent: The ETag and the media type that a failed upload would have been sent with.
        """
        try:
            if self._outage.error is not None:
                raise self._outage.error
            async with self._budget.held(min(size, self._per_file)):
                plan = await work()
        except Exception as error:  # noqa: BLE001 - one file does not stop the others
            self._outage.see(error)
            move = move or ("upload" if self.direction == "up" else "download")
            failed = FileOutcome(name, move, size, "failed", error, *as_sent())
            self._report_outcome(failed)
        else:
            self._outage.see(None)
            self._report_outcome(FileOutcome(plan.name, plan.action, plan.size, plan.reason))

    def _report_outcome(self, outcome: FileOutcome) -> None:
        self.report.add(outcome)
        if outcome.action != "delete":
            self._done_files += 1
            if (
                outcome.error is not None
                or outcome.action not in ("upload", "download")
                or self._dry
            ):
                self._done_bytes += outcome.size
        if outcome.error is not None and self.report.failed <= _LOGGED:
            self._log.error(
                "%s",
                describe(outcome.error, outcome.action, self._prefix + outcome.name),
                extra={"blob_name": self._prefix + outcome.name},
            )
        if self._on_outcome is not None:
            self._on_outcome(outcome)
        self._progress(outcome.name)

    def _moved(self, count: int, name: str) -> None:
        self._done_bytes += count
        self._progress(name)

    def _progress(self, name: str) -> None:
        if self._on_progress is not None:
            self._on_progress(
                TreeProgress(
                    self._done_files,
                    self.report.files,
                    min(self._done_bytes, self._total_bytes),
                    self._total_bytes,
                    name,
                )
            )


def _names_of_journal(root: Path, journal: Path | None) -> frozenset[str]:
    """The journal of pending uploads and SQLite's files beside it, if they lie in the tree."""
    if journal is None:
        return frozenset()
    try:
        name = journal.absolute().relative_to(root.absolute()).as_posix()
    except ValueError:
        return frozenset()
    return frozenset(name + suffix for suffix in ("", "-wal", "-shm", "-journal"))
