"""A tree of blobs into a local folder."""

import asyncio
import os
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from infra_core.fs import UnsafePathError, safe_join

from .._artifacts import run_log_is_mirrored, run_log_lives
from ._batch_writer import batch_writer
from ._blobs import BlobInfo
from ._bounded import for_each, growing_batches
from ._download import download_blob
from ._errors import LocalFileChangedError
from ._local_tree import walk_tree
from ._names import reason_of, unsafe_reason
from ._tree_plan import decide, decide_by_hash, local_state
from ._tree_run import TreeRun
from ._tree_types import GONE, LocalFile, PlannedTransfer
from ._upload import hash_file

__all__ = ["DownRun"]


class _ToDownload(NamedTuple):
    blob: BlobInfo
    path: Path
    there: LocalFile | None
    plan: PlannedTransfer | None


class DownRun(TreeRun):
    """Downloads what is in the container; see `TreeRun`."""

    direction = "down"

    async def _run(self) -> None:
        self._links: dict[str, Container[str] | None] = {}  # of each folder, see `_links_in`
        await self._list_into_index(self._unsafe)
        rejected = await asyncio.to_thread(self._survey_blobs)
        await self._refuse(rejected, self._index.rejected, "download")
        self._writer = batch_writer(self._width, coming=self._service.is_busy)

        async def one(item: _ToDownload) -> None:
            await self._outcome(item.blob.name, item.blob.size, lambda: self._down(item))

        await for_each(self._blob_batches(), one, self._width)
        if self._rules.delete and self.report.files and self._may_delete():
            await for_each(self._extra_files(), self._delete_file, self._width)

    def _survey_blobs(self) -> int:
        """Count, and find names that cannot stand beside each other."""
        self.report.files = self._index.count
        self._total_bytes = self._index.size
        self._index.find_collisions(keep_one=self._rules.on_unsafe == "skip")
        return self._index.count_rejected()

    def _unsafe(self, name: str) -> str | None:
        """Why a blob of that name must not become a file here, or `None`."""
        if reason := unsafe_reason(name):
            return reason
        folder, _, last = name.rpartition("/")
        if folder not in self._links:
            if len(self._links) > 10_000:
                self._links.clear()
            outside = folder and self._leads_out(folder)
            self._links[folder] = None if outside else _links_in(self._root / folder)
        links = self._links[folder]
        return self._leads_out(name) if links is None or last in links else None

    def _leads_out(self, name: str) -> str | None:
        """Why a path would leave the target through a symbolic link, or `None`."""
        try:
            safe_join(self._root, name)
        except UnsafePathError as error:
            return reason_of(error, name)
        return None

    def _blob_batches(self) -> Iterator[list[_ToDownload]]:
        """What to do with each blob, by what stands at its path; runs in a thread."""
        for batch in growing_batches(self._index.accepted()):
            yield [self._prepare(blob) for blob in batch]

    def _prepare(self, blob: BlobInfo) -> _ToDownload:
        path = self._root / blob.name
        there, _ = local_state(path, blob.name)
        plan = decide("down", self._rules, blob.name, blob.size, there, blob.md5)
        if run_log_lives(self._root, blob.name):
            why = "a run log that mirrors itself lives here"
            plan = PlannedTransfer("keep", blob.name, blob.size, why)
        elif plan is None:
            plan = self._read_ahead(blob.size, partial(self._by_hash, blob, path))
        return _ToDownload(blob, path, there, plan)

    def _by_hash(self, blob: BlobInfo, path: Path) -> PlannedTransfer:
        return decide_by_hash("down", blob.name, blob.size, hash_file(path), blob.md5 or b"")

    async def _down(self, item: _ToDownload) -> PlannedTransfer:
        blob, path, there, plan = item.blob, item.path, item.there, item.plan
        if plan is None:
            plan = await asyncio.to_thread(self._by_hash, blob, path)
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
                return PlannedTransfer("skip", blob.name, 0, GONE)
        return plan

    def _still(self, path: Path, name: str, seen: LocalFile | None) -> None:
        """Refuse to replace a local file that appeared or changed since it was looked at."""
        found, is_link = local_state(path, name)
        if is_link and self._leads_out(name):
            raise LocalFileChangedError(
                f"{path} leads through a symbolic link now; remove the link", blob=name
            )
        if self._rules.overwrite != "always" and found != seen:
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
            for file, reason in walk_tree(self._root, self._wanted, pruned=self._pruned)
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


def _links_in(folder: Path) -> Container[str] | None:
    """The names of the symbolic links in a folder, `None` where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return None
