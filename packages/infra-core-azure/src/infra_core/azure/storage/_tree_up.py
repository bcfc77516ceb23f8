"""A local tree into a container."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from infra_core.fs import media_type

from .._artifacts import is_run_log, run_log_is_mirrored
from ._blobs import BlobInfo, delete_blob
from ._bounded import for_each, growing_batches
from ._errors import BlobConflictError, StorageAccessError
from ._local_tree import walk_tree
from ._names import tree_prefix
from ._properties import check_header
from ._service import BlobService
from ._tree_plan import decide, decide_by_hash
from ._tree_run import READ_AHEAD, TreeRun
from ._tree_types import GONE, LocalFile, OnOutcome, PlannedTransfer, TreeRules
from ._upload import hash_file, read_small, upload_path

__all__ = ["UpRun", "replay_tree"]

UNKNOWN_TYPE = "application/octet-stream"


class _ToUpload(NamedTuple):
    file: LocalFile
    there: BlobInfo | None
    plan: PlannedTransfer | None
    small: tuple[bytes, bytes] | None


class UpRun(TreeRun):
    """Uploads what is in the folder; see `TreeRun`."""

    direction = "up"
    _unlisted = False  # the destination, without permission to list it
    _unlisted_rules: TreeRules | None = None  # for such a destination

    def keep_what_changes(self) -> None:
        """Replace a blob only as it was listed; any where it cannot be listed."""
        self._unlisted_rules = self._rules
        self._rules = replace(self._rules, overwrite="if-unchanged")

    async def _run(self) -> None:
        rejected = await asyncio.to_thread(self._survey_local)
        await self._refuse(rejected, self._rejected_files, "upload")
        rules = self._rules
        if rules.delete or rules.compare != "nothing" or rules.overwrite != "always":
            await self._list_blobs_there()

        async def one(item: _ToUpload) -> None:
            file = item.file
            await self._outcome(
                file.name, file.size, lambda: self._up(item), as_sent=lambda: self._as_sent(item)
            )

        await for_each(self._local_batches(), one, self._width)
        if rules.delete and self.report.files and self._may_delete():
            await for_each(growing_batches(self._index.unmarked()), self._delete_blob, self._width)

    async def _list_blobs_there(self) -> None:
        """List the destination; a token that may only write goes without, unless it deletes."""
        try:
            await self._list_into_index()
        except StorageAccessError as error:
            if self._rules.delete or not error.by_permission:
                raise
            self._unlisted = True
            self._rules = self._unlisted_rules or self._rules
            self._note(
                f"the container could not be listed ({error.code}): nothing was compared, and "
                "overwrite was left to the service"
            )

    def _source_files(
        self, left_out: Callable[[str], object] = lambda _: None
    ) -> Iterator[tuple[LocalFile, str | None]]:
        prefix_length = len(self._prefix)
        return walk_tree(
            self._root,
            self._wanted,
            prefix_length=prefix_length,
            left_out=left_out,
            pruned=self._pruned,
        )

    def _survey_local(self) -> int:
        """Count the source and its unsafe names, before anything is touched."""
        rejected = others = 0
        first = ""

        def left_out(name: str) -> None:
            nonlocal others, first
            others, first = others + 1, first or name

        for file, reason in self._source_files(left_out):
            self.report.files += 1
            if reason is None:
                self._total_bytes += file.size
            else:
                rejected += 1
        if others:
            self._note(
                f"{others} links to folders, pipes, sockets or devices were left out, the first is "
                f"{first!r}; mirror the folder that a link leads to by itself"
            )
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
        stored = there.md5 if there else None
        plan = self._keep_log(file.name, file.size, there) or decide(
            "up", self._rules, file.name, file.size, there, stored
        )
        small = None
        reads = plan is None or (plan.action == "upload" and not self._dry)
        if reads:
            small = self._read_ahead(file.size, partial(read_small, file.path, READ_AHEAD))
        if plan is None and small is not None:
            plan = decide_by_hash("up", file.name, file.size, small[1], stored or b"")
        return _ToUpload(file, there, plan, small if plan and plan.action == "upload" else None)

    async def _up(self, item: _ToUpload) -> PlannedTransfer:
        try:
            return await self._bring(item)
        except FileNotFoundError:
            if await asyncio.to_thread(os.path.lexists, item.file.path):
                raise
            return PlannedTransfer("skip", item.file.name, 0, GONE)

    async def _bring(self, item: _ToUpload) -> PlannedTransfer:
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
                    replace(
                        self._rules.properties,
                        overwrite=self._rules.overwrite,
                        etag=self._etag(there) or None,
                        content_type=self._content_type(file.name, there),
                    ),
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

    def _as_sent(self, item: _ToUpload) -> tuple[str | None, str | None]:
        content_type = None
        with contextlib.suppress(Exception):  # a callable's, which may be what failed
            content_type = self._content_type(item.file.name, item.there)
        return self._etag(item.there), content_type

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


async def replay_tree(
    service: BlobService,
    root: Path,
    name: str,
    details: Mapping[str, Any],
    on_outcome: OnOutcome,
    *,
    leave: Collection[str] = (),
    journal: Path | None = None,
) -> None:
    """Upload a tree that an earlier process had begun: what arrived then is skipped by its hash.

    A blob that is written while the replay is under way is newer than the tree, and stays.

    Args:
        service: The container.
        root: The folder.
        name: Its name in the container.
        details: The rules, as the journal keeps them.
        on_outcome: Called with what became of each file.
        leave: Names of files that are not sent.
        journal: The journal itself, which is no artifact.

    Raises:
        FileNotFoundError: The folder is gone.
        StorageError: The listing failed.
    """
    if not await asyncio.to_thread(root.is_dir):
        raise FileNotFoundError(str(root))
    rules = TreeRules.load(details)
    run = UpRun(
        service, root, tree_prefix(name), rules, on_outcome=on_outcome, journal=journal, leave=leave
    )
    if rules.overwrite == "always":
        run.keep_what_changes()
    await run.run()
