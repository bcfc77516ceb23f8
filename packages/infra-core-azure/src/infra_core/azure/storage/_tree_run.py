"""Carrying out the plan of a tree, or only reporting it: one engine, so that they cannot differ."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from infra_core.fs import UnsafePathError, media_type, safe_join
from infra_core.runtime import clock

from .._artifacts import is_own_state, is_run_log, run_log_is_mirrored, run_log_lives
from ._batch_writer import BatchWriter
from ._blobs import BlobInfo, delete_blob, list_pages
from ._bounded import ByteBudget, for_each, growing_batches
from ._download import download_blob
from ._errors import (
    BlobConflictError,
    LocalFileChangedError,
    StorageAccessError,
    StorageConnectionError,
    UnsafeNamesError,
    describe,
)
from ._globs import compile_globs
from ._local_tree import walk_tree
from ._names import reason_of, tree_prefix, unsafe_reason
from ._properties import check_header
from ._service import BlobService
from ._tree_index import TreeIndex
from ._tree_plan import decide, decide_by_hash, local_state
from ._tree_types import (
    Action,
    FileOutcome,
    LocalFile,
    OnOutcome,
    OnProgress,
    PlannedTransfer,
    TreeProgress,
    TreeReport,
    TreeRules,
)
from ._upload import hash_file, read_small, upload_path

__all__ = ["TreeRun", "replay_tree"]

UNKNOWN_TYPE = "application/octet-stream"
_READ_AHEAD = 128 * 1024  # bytes; smaller files are read by the batch, in one thread hop
_LOGGED = 20  # failures that are logged one by one; all of them are counted
_LISTED = 100  # unsafe names that an error lists
_MANY_FILES = 256  # of which one may wait a moment for others


@dataclass(frozen=True, slots=True)
class _ToUpload:
    file: LocalFile
    there: BlobInfo | None
    plan: PlannedTransfer | None
    small: tuple[bytes, bytes] | None


@dataclass(frozen=True, slots=True)
class _ToDownload:
    blob: BlobInfo
    path: Path
    there: LocalFile | None
    plan: PlannedTransfer | None


class TreeRun:
    """One tree, one way, once.

    Args:
        service: The container.
        direction: `up` or `down`.
        root: The local folder.
        prefix: Prefix of the blobs, with a slash at its end or empty.
        rules: Which files travel.
        dry_run: Decide and report everything, touch nothing.
        on_progress: Called after each file, and while large ones travel.
        on_outcome: Called with what became of each file.
        log: The logger.
        journal: The journal of pending uploads, which is no artifact wherever it lies.
    """

    def __init__(
        self,
        service: BlobService,
        direction: Literal["up", "down"],
        root: Path,
        prefix: str,
        rules: TreeRules,
        *,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
        on_outcome: OnOutcome | None = None,
        log: logging.Logger | None = None,
        journal: Path | None = None,
    ) -> None:
        self.report = TreeReport(direction)
        self._service = service
        self._direction = direction
        self._root = root
        self._prefix = prefix
        self._rules = rules
        self._dry = dry_run
        self._on_progress = on_progress
        self._on_outcome = on_outcome
        self._log = log or logging.getLogger("infra_core.azure.storage")
        self._chosen = compile_globs(rules.include, rules.exclude)
        self._journal = _names_of_journal(root, journal)
        self._index = TreeIndex()
        options = service.config.options
        # One large file at full speed and small ones beside it.
        self._per_file = options.block_size * (options.block_concurrency + 1)
        self._budget = ByteBudget(self._per_file + options.block_size * 4)
        # The service client bounds requests; more files than those are under way, since some wait
        # for the disk.
        self._width = min(options.concurrency * 8, 320)
        self._writer = BatchWriter(self._width)
        self._unlisted = False  # the destination, without permission to list it
        self._safe_folders: set[str] = set()
        self._total_bytes = 0
        self._done_bytes = 0
        self._done_files = 0
        self._cut_off = 0  # files in a row that met no service
        self._no_service: StorageConnectionError | None = None

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
            if self._direction == "up":
                await self._run_up()
            else:
                await self._run_down()
        finally:
            await asyncio.to_thread(self._index.close)
        self.report.seconds = clock.monotonic() - started
        return self.report

    def _wanted(self, name: str) -> bool:
        """Whether a name is chosen, and an artifact at all."""
        return self._chosen(name) and not is_own_state(name) and name not in self._journal

    # -- up -----------------------------------------------------------------------------------

    async def _run_up(self) -> None:
        rejected = await asyncio.to_thread(self._survey_local)
        await self._refuse(rejected, self._rejected_files, "upload")
        rules = self._rules
        if rules.delete or rules.compare != "nothing" or rules.overwrite != "always":
            await self._list_blobs_there()

        async def one(item: _ToUpload) -> None:
            file = item.file
            await self._outcome(file.name, file.size, lambda: self._up(item), sent=item)

        await for_each(self._local_batches(), one, self._width)
        if rules.delete and self.report.files and self._may_delete():
            await for_each(self._index.unmarked(), self._delete_blob, self._width)

    async def _list_blobs_there(self) -> None:
        """List the destination; a token that may only write goes without, unless it deletes."""
        try:
            await self._list_into_index(collisions=False)
        except StorageAccessError as error:
            if self._rules.delete or not error.by_permission:
                raise
            self._unlisted = True
            note = (
                f"the container could not be listed ({error.code}): nothing was compared, and "
                "overwrite was left to the service"
            )
            self.report.notes.append(note)
            self._log.warning("%s", note, extra={"prefix": self._prefix})

    def _source_files(self) -> Iterator[tuple[LocalFile, str | None]]:
        return walk_tree(self._root, self._wanted, prefix_length=len(self._prefix))

    def _survey_local(self) -> int:
        """Count the source and its unsafe names, before anything is touched."""
        rejected = 0
        for file, reason in self._source_files():
            self.report.files += 1
            if reason is None:
                self._total_bytes += file.size
            else:
                rejected += 1
        return rejected

    def _rejected_files(self) -> Iterator[PlannedTransfer]:
        for file, reason in self._source_files():
            if reason is not None:
                yield PlannedTransfer("reject", file.name, file.size, reason)

    def _local_batches(self) -> Iterator[list[_ToUpload]]:
        """What to do with each local file, small ones already read; runs in a thread."""
        files = (file for file, reason in self._source_files() if reason is None)
        for batch in growing_batches(files):
            if self._rules.delete:
                self._index.mark(file.name for file in batch)
            yield [self._prepare(file) for file in batch]

    def _prepare(self, file: LocalFile) -> _ToUpload:
        there = self._index.get(file.name) if self._index.count else None
        plan = self._keep_log(file.name, file.size, there) or decide(
            "up", self._rules, file.name, file.size, there, there.md5 if there else None
        )
        small = None
        if file.size <= _READ_AHEAD and not self._dry and plan and plan.action == "upload":
            with contextlib.suppress(OSError):  # met again when it is uploaded
                small = read_small(file.path, _READ_AHEAD)
        return _ToUpload(file, there, plan, small)

    async def _up(self, item: _ToUpload) -> PlannedTransfer:
        file, there, plan = item.file, item.there, item.plan
        if plan is None:
            ours = await asyncio.to_thread(hash_file, file.path)
            stored = (there.md5 if there else None) or b""
            plan = decide_by_hash("up", file.name, file.size, ours, stored)
        if plan.action == "upload" and not self._dry:
            try:
                await upload_path(
                    self._service,
                    file.path,
                    self._prefix + file.name,
                    overwrite=self._rules.overwrite,
                    etag=self._etag(there),
                    content_type=self._content_type(file.name, there),
                    properties=self._rules.properties,
                    on_bytes=lambda count: self._moved(count, file.name),
                    small=item.small,
                )
            except BlobConflictError as error:
                if not (self._unlisted and error.by_condition):
                    raise
                why = f"exists, and overwrite is {self._rules.overwrite!r}"
                return PlannedTransfer("keep", file.name, file.size, why)
        return plan

    def _keep_log(self, name: str, size: int, there: BlobInfo | None) -> PlannedTransfer | None:
        """The decision for a run log that mirrors itself, `None` for everything else."""
        if not is_run_log(name):
            return None
        if (there is not None and there.blob_type == "AppendBlob") or run_log_is_mirrored(
            self._root, name
        ):
            return PlannedTransfer("keep", name, size, "the run log mirrors itself")
        return None

    def _etag(self, there: BlobInfo | None) -> str | None:
        """The ETag that a blob must still have to be replaced, `None` where any may be."""
        return there.etag if there and self._rules.overwrite == "if-unchanged" else None

    def _content_type(self, name: str, there: BlobInfo | None) -> str | None:
        """The type to store: what the caller says, else what a nameless type was stored as."""
        chosen = self._rules.content_type(name) if self._rules.content_type else None
        if chosen is not None:
            check_header(f"content_type of {name!r}", chosen, "such as 'image/png'")
        elif there is not None and media_type(name) == UNKNOWN_TYPE:
            chosen = there.content_type
        return chosen or None

    async def _delete_blob(self, blob: BlobInfo) -> None:
        async def delete() -> PlannedTransfer:
            if (kept := self._keep_log(blob.name, blob.size, blob)) is not None:
                return kept
            if not self._dry:  # one that was written again meanwhile stays
                await delete_blob(self._service, self._prefix + blob.name, etag=blob.etag or None)
            why = "not in the local folder; its snapshots go with it"
            return PlannedTransfer("delete", blob.name, blob.size, why)

        await self._outcome(blob.name, blob.size, delete, move="delete")

    # -- down ---------------------------------------------------------------------------------

    async def _run_down(self) -> None:
        await self._list_into_index(collisions=True)
        rejected = await asyncio.to_thread(self._survey_blobs)
        await self._refuse(rejected, self._rejected_blobs, "download")
        if self.report.files >= _MANY_FILES:
            self._writer = BatchWriter(self._width, lingers=True)

        async def one(item: _ToDownload) -> None:
            await self._outcome(item.blob.name, item.blob.size, lambda: self._down(item))

        await for_each(self._blob_batches(), one, self._width)
        if self._rules.delete and self.report.files and self._may_delete():
            await for_each(self._extra_files(), self._delete_file, self._width)

    def _survey_blobs(self) -> int:
        """Count and find names that must not become files here, links in the target included."""
        self.report.files = self._index.count
        self._total_bytes = self._index.size
        self._index.find_collisions(keep_one=self._rules.on_unsafe == "skip")
        for batch in self._index.accepted():
            found = []
            for blob in batch:
                reason = unsafe_reason(blob.name) or self._leads_out(blob.name)
                if reason:
                    found.append((blob.name, reason))
            self._index.reject(found)
        return self._index.count_rejected()

    def _rejected_blobs(self) -> Iterator[PlannedTransfer]:
        for row in self._index.rejected():
            yield PlannedTransfer("reject", *row)

    def _leads_out(self, name: str) -> str | None:
        """Why the path of a name would leave the target through a symbolic link, or `None`."""
        folder = name.rpartition("/")[0]
        try:
            if folder and folder not in self._safe_folders:
                safe_join(self._root, folder)
                if len(self._safe_folders) > 10_000:
                    self._safe_folders.clear()
                self._safe_folders.add(folder)
            if local_state(self._root / name, name)[1]:
                safe_join(self._root, name)
        except UnsafePathError as error:
            return reason_of(error, name)
        return None

    def _blob_batches(self) -> Iterator[list[_ToDownload]]:
        """What to do with each blob, by what stands at its path; runs in a thread."""
        for batch in growing_batches(chain.from_iterable(self._index.accepted())):
            found = []
            for blob in batch:
                path = self._root / blob.name
                there, _ = local_state(path, blob.name)
                if run_log_lives(self._root, blob.name):
                    why = "a run log that mirrors itself lives here"
                    plan: PlannedTransfer | None = PlannedTransfer(
                        "keep", blob.name, blob.size, why
                    )
                else:
                    plan = decide("down", self._rules, blob.name, blob.size, there, blob.md5)
                found.append(_ToDownload(blob, path, there, plan))
            yield found

    async def _down(self, item: _ToDownload) -> PlannedTransfer:
        blob, path, there, plan = item.blob, item.path, item.there, item.plan
        if plan is None:
            ours = await asyncio.to_thread(hash_file, path)
            plan = decide_by_hash("down", blob.name, blob.size, ours, blob.md5 or b"")
        if plan.action == "download" and not self._dry:
            known = BlobInfo(self._prefix + blob.name, blob.size, blob.md5, blob.etag)
            got = await download_blob(
                self._service,
                known.name,
                path,
                known=known,
                writer=self._writer,
                before_commit=lambda: self._still(path, blob.name, there),
                on_bytes=lambda count: self._moved(count, blob.name),
            )
            if got is None:
                return PlannedTransfer("skip", blob.name, 0, "deleted since it was listed")
        return plan

    def _still(self, path: Path, name: str, seen: LocalFile | None) -> None:
        """Refuse to replace a local file that appeared or changed since it was looked at."""
        if self._leads_out(name):
            raise LocalFileChangedError(
                f"{path} leads through a symbolic link now; remove the link", blob=name
            )
        if self._rules.overwrite != "always" and local_state(path, name)[0] != seen:
            raise LocalFileChangedError(
                f"{path} changed while its blob was being downloaded, and overwrite is "
                f"{self._rules.overwrite!r}; run again or pass overwrite='always'",
                blob=name,
                operation="download",
            )

    def _extra_files(self) -> Iterator[list[LocalFile]]:
        """Files that the container does not have, noted before the first of them is deleted.

        What a file system lists of a folder that changes meanwhile is left open by POSIX.
        """
        extra = (
            file.name
            for file, reason in walk_tree(self._root, self._wanted)
            if reason is None
            and self._index.get(file.name) is None
            and not run_log_is_mirrored(self._root, file.name)
        )
        for names in growing_batches(extra):
            self._index.mark(names)
        yield from growing_batches(self._extra_file(name) for name in self._index.marked())

    def _extra_file(self, name: str) -> LocalFile:
        path = self._root / name
        try:
            return LocalFile(name, path, path.stat().st_size, 0)
        except OSError:
            return LocalFile(name, path, 0, 0)

    async def _delete_file(self, file: LocalFile) -> None:
        async def delete() -> PlannedTransfer:
            if not self._dry:
                await asyncio.to_thread(file.path.unlink, missing_ok=True)
            return PlannedTransfer("delete", file.name, file.size, "not in the container")

        await self._outcome(file.name, file.size, delete, move="delete")

    # -- both ---------------------------------------------------------------------------------

    async def _list_into_index(self, *, collisions: bool) -> None:
        async for page in list_pages(self._service, self._prefix):
            blobs = [blob for blob in page if self._wanted(blob.name)]
            await asyncio.to_thread(self._index.add, blobs, folded=collisions)

    async def _refuse(
        self, count: int, rejected: Callable[[], Iterator[PlannedTransfer]], operation: str
    ) -> None:
        if not count:
            return
        if self._rules.on_unsafe == "raise" and not self._dry:
            first = await asyncio.to_thread(lambda: list(islice(rejected(), _LISTED)))
            names = {plan.name: plan.reason for plan in first}
            raise UnsafeNamesError(names, operation=operation, more=count - len(names))

        async def report_rejected(plan: PlannedTransfer) -> None:
            self._report_outcome(FileOutcome(plan.name, "reject", plan.size, plan.reason))

        await for_each(growing_batches(rejected()), report_rejected, 1)

    def _may_delete(self) -> bool:
        if self.report.ok:
            return True
        note = (
            f"nothing is deleted at the destination, since "
            f"{self.report.failed + self.report.rejected} of {self.report.files} files failed or "
            "were rejected; run it again when they pass"
        )
        self.report.notes.append(note)
        self._log.warning("%s", note, extra={"prefix": self._prefix})
        return False

    async def _outcome(
        self,
        name: str,
        size: int,
        work: Callable[[], Awaitable[PlannedTransfer]],
        *,
        move: Action | None = None,
        sent: _ToUpload | None = None,
    ) -> None:
        """Do the work on one file and report what became of it."""
        try:
            if self._no_service is not None:
                raise self._no_service
            async with self._budget.held(min(size, self._per_file)):
                plan = await work()
        except Exception as error:  # noqa: BLE001 - one file does not stop the others
            if isinstance(error, StorageConnectionError):
                self._cut_off += 1
                if self._cut_off >= self._service.config.options.concurrency:
                    self._no_service = error  # so many in a row: the others need not wait for it
            move = move or ("upload" if self._direction == "up" else "download")
            etag = content_type = None
            if sent is not None:
                etag = self._etag(sent.there)
                with contextlib.suppress(Exception):  # a callable's, which may be what failed
                    content_type = self._content_type(name, sent.there)
            self._report_outcome(FileOutcome(name, move, size, "failed", error, etag, content_type))
        else:
            self._cut_off = 0
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


async def replay_tree(
    service: BlobService,
    root: Path,
    name: str,
    details: Mapping[str, Any],
    on_outcome: OnOutcome,
) -> None:
    """Upload a tree that an earlier process had begun: what arrived then is skipped by its hash.

    Raises:
        FileNotFoundError: The folder is gone.
        StorageError: The listing failed.
    """
    if not await asyncio.to_thread(root.is_dir):
        raise FileNotFoundError(str(root))
    rules = TreeRules.load(details)
    await TreeRun(service, "up", root, tree_prefix(name), rules, on_outcome=on_outcome).run()
