"""One engine for trees, planned or carried out, up or down, so that they cannot differ."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from infra_core.runtime import clock

from .._artifacts import is_own_state
from ._blobs import BlobInfo, list_pages
from ._bounded import ByteBudget, for_each, growing_batches
from ._errors import UnsafeNamesError, describe
from ._names import compile_globs, compile_pruning
from ._service import BlobService, Outage
from ._tree_index import TreeIndex
from ._tree_types import (
    FileOutcome,
    LocalFile,
    TreeProgress,
    TreeReport,
    TreeRules,
)
from ._upload import hash_file, read_small

__all__ = ["Move", "Step", "TreeRun", "decide", "decide_by_hash"]

Move = Literal["upload", "download"]
_LOGGED = 20  # failures that are logged one by one; all of them are counted
_LISTED = 100  # unsafe names that an error lists
_READ_AHEAD = 128 * 1024  # bytes; smaller files are read by the batch, in one thread hop
_SLOW = 0.005  # seconds for one of them: the disk is far away, and several threads are faster
_ALONE = 64  # files that are read one by one before that is tried again


class Step(NamedTuple):
    """A file of the source, what both sides have of its name, and what is to be done.

    Without `plan` that depends on the hash of the local file; `small` is its content and MD5 where
    it was read already, and is to be sent.
    """

    name: str
    size: int
    blob: BlobInfo | None
    file: LocalFile | None
    plan: FileOutcome | None
    small: tuple[bytes, bytes] | None = None

    @property
    def stored(self) -> bytes | None:
        """The MD5 that is stored with the blob."""
        return self.blob.md5 if self.blob else None


def decide(
    move: Move,
    rules: TreeRules,
    name: str,
    size: int,
    there: BlobInfo | LocalFile | None,
    md5: bytes | None,
) -> FileOutcome | None:
    """What to do with a file of the source, given what the destination has of that name.

    `None` when that depends on the hash of the local file, which `md5`, that of the blob, is
    compared with: see `decide_by_hash`.
    """
    if there is None:
        return FileOutcome(name, move, size, "new")
    if rules.overwrite == "never":
        return FileOutcome(name, "keep", size, "exists, and overwrite is 'never'")
    if rules.compare == "nothing":
        return FileOutcome(name, move, size, "replaces what is there")
    if there.size != size:
        return FileOutcome(name, move, size, "size differs")
    if rules.compare == "size":
        return FileOutcome(name, "skip", size, "same size")
    if md5 is None:
        return FileOutcome(name, move, size, "no hash is stored to compare with")
    return None


def decide_by_hash(
    move: Move, name: str, size: int, local: bytes, stored: bytes | None
) -> FileOutcome:
    """The rest of `decide`, once the local file is hashed."""
    if local == stored:
        return FileOutcome(name, "skip", size, "same content")
    return FileOutcome(name, move, size, "content differs")


@dataclass(eq=False)
class TreeRun(ABC):
    """One tree, one way, once.

    Args:
        service: The container.
        root: The local folder.
        prefix: Prefix of the blobs, with a slash at its end or empty.
        rules: Which files travel, and how.
        journal: The journal of pending uploads, which is not an artifact wherever it lies.
        leave: Names that are left alone, as those in `exclude` are; one that ends in a slash
            stands for all below it.
        replay: An upload that an earlier process had begun: blobs are replaced only as they were
            listed, since what is written meanwhile is newer; any where they cannot be listed.
    """

    direction: ClassVar[Literal["up", "down"]]
    move: ClassVar[Move]
    surplus: ClassVar[str]  # why a file is deleted

    service: BlobService
    root: Path
    prefix: str
    rules: TreeRules
    journal: Path | None = None
    leave: Collection[str] = ()
    replay: bool = False

    def __post_init__(self) -> None:
        self.report = TreeReport(self.direction)
        self._dry = self.rules.dry_run
        self._log = self.service.log
        self._chosen = compile_globs(self.rules.include, self.rules.exclude)
        self._pruned = compile_pruning(self.rules.exclude)
        self._left_alone = {*_names_of_journal(self.root, self.journal), *self.leave}
        self._left_below = tuple(name for name in self.leave if name.endswith("/"))
        self._index = TreeIndex()
        options = self.service.config.options
        # One large file at full speed and small ones beside it.
        self._per_file = options.block_size * (options.block_concurrency + 1)
        self._budget = ByteBudget(self._per_file + options.block_size * 4)
        # The service client bounds requests; more files than those are under way, since some wait
        # for the disk.
        self._width = min(options.concurrency * 8, 320)
        self._total_bytes = 0
        self._done_bytes = 0
        self._done_files = 0
        self._outage = Outage(self.service)
        self._alone = 0  # files that are not to be read ahead

    async def run(self) -> TreeReport:
        """Do it; raises only what `_look` does: unsafe names, or a listing that fails."""
        started = clock.monotonic()
        try:
            await self._look()
            await for_each(self._steps(), self._do, self._width)
            if self.rules.delete and self.report.files and self._may_delete():
                await for_each(self._extra(), self._do, self._width)
        finally:
            await asyncio.to_thread(self._index.close)
        self.report.seconds = clock.monotonic() - started
        return self.report

    # -- what a direction knows; iterators are followed in a thread -------------------------------

    @abstractmethod
    async def _look(self) -> None:
        """Count the source, refuse its unsafe names, and look at what the destination has."""

    @abstractmethod
    def _rejected(self) -> Iterator[FileOutcome]:
        """What is unsafe, and why."""

    @abstractmethod
    def _steps(self) -> Iterator[list[Step]]:
        """What to do with each file of the source."""

    @abstractmethod
    def _keep_log(self, name: str, size: int, blob: BlobInfo | None) -> FileOutcome | None:
        """The decision for a run log that mirrors itself, `None` for everything else."""

    @abstractmethod
    async def _transfer(self, step: Step, plan: FileOutcome) -> FileOutcome:
        """Bring a file over; returns what was done after all."""

    def _as_sent(self, _: Step, failed: FileOutcome) -> FileOutcome:
        """A failed upload, with the ETag and the media type that it would have been sent with."""
        return failed

    @abstractmethod
    def _extra(self) -> Iterator[list[Step]]:
        """What to do with what the destination has and the source has not."""

    @abstractmethod
    async def _remove(self, step: Step) -> None:
        """Delete a file at the destination."""

    # -- what both do -----------------------------------------------------------------------------

    def _wanted(self, name: str) -> bool:
        """Whether a name is chosen, and an artifact at all."""
        if is_own_state(name) or name in self._left_alone or name.startswith(self._left_below):
            return False
        return self._chosen(name)

    async def _list_into_index(self, unsafe: Callable[[str], str | None] | None = None) -> None:
        async for page in list_pages(self.service, self.prefix):
            blobs = (blob for blob in page if self._wanted(blob.name))
            await asyncio.to_thread(self._index.add, blobs, unsafe)

    def _step(self, name: str, blob: BlobInfo | None, file: LocalFile | None) -> Step:
        """Decide about a file; a small one is read on the way, if that is necessary."""
        source, there = (file, blob) if self.move == "upload" else (blob, file)
        size = source.size if source else 0
        stored = blob.md5 if blob else None
        plan = self._keep_log(name, size, blob)
        plan = plan or decide(self.move, self.rules, name, size, there, stored)
        small = None
        if plan is None or (plan.action == "upload" and not self._dry):
            small = self._read_ahead(name, size)
        if plan is None and small is not None:
            plan = decide_by_hash(self.move, name, size, small[1], stored)
        sent = plan is not None and plan.action == "upload"
        return Step(name, size, blob, file, plan, small if sent else None)

    def _read_ahead(self, name: str, size: int) -> tuple[bytes, bytes] | None:
        """A small file's content and MD5; `None` where it shall be read by itself, or must be.

        Called in the thread that makes a batch: a hop to another costs more than such a file.
        """
        if size > _READ_AHEAD or self._alone:
            self._alone = max(0, self._alone - 1)
            return None
        begun = clock.monotonic()
        try:
            return read_small(self.root / name, _READ_AHEAD)
        except OSError:  # met again by the file alone
            return None
        finally:
            if clock.monotonic() - begun > _SLOW:
                self._alone = _ALONE

    async def _do(self, step: Step) -> None:
        """Carry out a step and report what became of it."""
        try:
            if self._outage.error is not None:
                raise self._outage.error
            size = min(step.size, self._per_file)
            await self._budget.take(size)
            try:
                outcome = await self._bring(step)
            finally:
                await self._budget.give(size)
        except Exception as error:  # noqa: BLE001 - one file does not stop the others
            self._outage.see(error)
            outcome = FileOutcome(step.name, self.move, step.size, "failed", error)
            if step.plan is not None and step.plan.action == "delete":
                outcome = replace(outcome, action="delete")
            else:
                outcome = self._as_sent(step, outcome)
        else:
            self._outage.see(None)
        self._report(outcome)

    async def _bring(self, step: Step) -> FileOutcome:
        plan = step.plan
        if plan is None:
            local = await asyncio.to_thread(hash_file, self.root / step.name)
            plan = decide_by_hash(self.move, step.name, step.size, local, step.stored)
        if self._dry:
            return plan
        if plan.action == "delete":
            await self._remove(step)
        return await self._transfer(step, plan) if plan.action == self.move else plan

    def _surplus(self, name: str, blob: BlobInfo | None, file: LocalFile | None) -> Step:
        """Decide about a file that the source does not have."""
        there = blob or file
        size = there.size if there else 0
        plan = self._keep_log(name, size, blob)
        return Step(name, size, blob, file, plan or FileOutcome(name, "delete", size, self.surplus))

    async def _refuse(self, count: int) -> None:
        if not count:
            return
        if not self._dry:
            first = await asyncio.to_thread(lambda: list(islice(self._rejected(), _LISTED)))
            names = {plan.name: plan.reason for plan in first}
            if self.rules.on_unsafe == "raise":
                raise UnsafeNamesError(names, operation=self.move, more=count - len(names))
            self._log.warning(
                "%d unsafe names below %r were left out, the first is %r: %s",
                count,
                self.prefix,
                first[0].name,
                first[0].reason,
                extra={"prefix": self.prefix},
            )

        async def report(outcome: FileOutcome) -> None:
            self._report(outcome)

        await for_each(growing_batches(self._rejected()), report, 1)

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
        self._log.warning("%s", text, extra={"prefix": self.prefix})

    def _report(self, outcome: FileOutcome) -> None:
        self.report.add(outcome)
        if outcome.action != "delete":
            self._done_files += 1
            if outcome.error is not None or outcome.action != self.move or self._dry:
                self._done_bytes += outcome.size
        if outcome.error is not None and self.report.failed <= _LOGGED:
            self._log.error(
                "%s",
                describe(outcome.error, outcome.action, self.prefix + outcome.name),
                extra={"blob_name": self.prefix + outcome.name},
            )
        if self.rules.on_outcome is not None:
            self.rules.on_outcome(outcome)
        self._progress(outcome.name)

    def _moved(self, name: str, count: int) -> None:
        self._done_bytes += count
        self._progress(name)

    def _progress(self, name: str) -> None:
        if self.rules.on_progress is not None:
            done = min(self._done_bytes, self._total_bytes)
            self.rules.on_progress(
                TreeProgress(self._done_files, self.report.files, done, self._total_bytes, name)
            )


def _names_of_journal(root: Path, journal: Path | None) -> frozenset[str]:
    """The journal of pending uploads and SQLite's files beside it, if they lie in the tree."""
    if journal is None:
        return frozenset()
    journal, root = journal.absolute(), root.absolute()
    if not journal.is_relative_to(root):
        return frozenset()
    name = journal.relative_to(root).as_posix()
    return frozenset(name + suffix for suffix in ("", "-wal", "-shm", "-journal"))
