"""A tree of blobs into a local folder."""

import asyncio
import os
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path

from infra_core.fs import UnsafePathError, safe_join

from .._artifacts import run_log_is_mirrored, run_log_lives
from ._batch_writer import batch_writer
from ._blobs import BlobInfo
from ._bounded import growing_batches
from ._download import download_blob
from ._errors import LocalFileChangedError
from ._local_tree import local_state, walk_tree
from ._names import reason_of, unsafe_reason
from ._tree_run import Step, TreeRun
from ._tree_types import GONE, LocalFile, PlannedTransfer

__all__ = ["DownRun"]


class DownRun(TreeRun):
    """Downloads what is in the container; see `TreeRun`."""

    direction = "down"
    move = "download"
    surplus = "not in the container"

    async def _look(self) -> None:
        self._links: dict[str, Container[str] | None] = {}  # of each folder, see `_links_in`
        self._writer = batch_writer(self._width, coming=self._service.is_busy)
        await self._list_into_index(self._unsafe)
        self.report.files = self._index.count
        self._total_bytes = self._index.size
        keep_one = self._rules.on_unsafe == "skip"
        rejected = await asyncio.to_thread(self._index.find_collisions, keep_one=keep_one)
        await self._refuse(rejected)

    def _rejected(self) -> Iterator[PlannedTransfer]:
        return self._index.rejected()

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

    def _steps(self) -> Iterator[list[Step]]:
        for batch in growing_batches(self._index.accepted()):
            yield [self._step(b.name, b, local_state(self._root, b.name)[0]) for b in batch]

    def _keep_log(self, name: str, size: int, _blob: BlobInfo | None) -> PlannedTransfer | None:
        if not run_log_lives(self._root, name):
            return None
        return PlannedTransfer("keep", name, size, "a run log that mirrors itself lives here")

    async def _transfer(self, step: Step, plan: PlannedTransfer) -> PlannedTransfer:
        blob = step.blob
        assert blob is not None  # noqa: S101 - the source
        got = await download_blob(
            self._service,
            self._prefix + step.name,
            self._root / step.name,
            known=BlobInfo(self._prefix + step.name, blob.size, blob.md5, blob.etag),
            writer=self._writer,
            before_commit=partial(self._check_still, step),
            on_bytes=partial(self._moved, step.name),
        )
        return plan if got is not None else PlannedTransfer("skip", step.name, 0, GONE)

    def _check_still(self, step: Step) -> None:
        """Refuse to replace a local file that appeared or changed since it was looked at."""
        path = self._root / step.name
        found, is_link = local_state(self._root, step.name)
        if is_link and self._leads_out(step.name):
            raise LocalFileChangedError(
                f"{path} leads through a symbolic link now; remove the link", blob=step.name
            )
        if self._rules.overwrite != "always" and found != step.file:
            raise LocalFileChangedError(
                f"{path} changed while its blob was being downloaded, and overwrite is "
                f"{self._rules.overwrite!r}; run again or pass overwrite='always'",
                blob=step.name,
                operation="download",
            )

    def _extra(self) -> Iterator[list[LocalFile]]:
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
        for names in growing_batches(self._index.marked()):
            found = ((name, local_state(self._root, name)[0]) for name in names)
            yield [file or LocalFile(name, 0, 0) for name, file in found]

    async def _remove(self, item: LocalFile) -> None:
        await asyncio.to_thread((self._root / item.name).unlink, missing_ok=True)


def _links_in(folder: Path) -> Container[str] | None:
    """The names of the symbolic links in a folder, `None` where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return None
