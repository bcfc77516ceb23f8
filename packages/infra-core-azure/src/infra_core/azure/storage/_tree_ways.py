"""The two ways of a tree: a local one into a container, and blobs into a local folder."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Container, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from infra_core.fs import UnsafePathError, media_type

from .._artifacts import is_run_log, run_log_is_mirrored, run_log_lives
from ._blobs import BlobInfo, delete_blob
from ._bounded import batch_writer, growing_batches
from ._download import download_blob
from ._errors import BlobConflictError, LocalFileChangedError, StorageAccessError
from ._local_tree import local_state, safe_path, walk_tree
from ._names import reason_of, unsafe_reason
from ._properties import check_header
from ._tree_run import Step, TreeRun
from ._tree_types import GONE, FileOutcome, LocalFile
from ._upload import upload_path

__all__ = ["DownRun", "UpRun"]

UNKNOWN_TYPE = "application/octet-stream"


class UpRun(TreeRun):
    """Uploads what is in the folder; see `TreeRun`."""

    direction = "up"
    move = "upload"
    surplus = "not in the local folder; its snapshots go with it"

    _unlisted = False  # the destination, without permission to list it

    def _source_files(
        self, left_out: Callable[[str], object] = lambda _: None
    ) -> Iterator[tuple[LocalFile, str | None]]:
        return walk_tree(
            self.root,
            self._wanted,
            prefix_length=len(self.prefix),
            left_out=left_out,
            pruned=self._pruned,
        )

    async def _look(self) -> None:
        await self._refuse(await asyncio.to_thread(self._survey))
        await self._look_there()

    def _survey(self) -> int:
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

    def _rejected(self) -> Iterator[FileOutcome]:
        for file, reason in self._source_files():
            if reason is not None:
                yield FileOutcome(file.name, "reject", file.size, reason)

    async def _look_there(self) -> None:
        """List the destination; a token that may only write goes without, unless it deletes."""
        rules = self.rules
        if self.replay and rules.overwrite == "always":
            rules = replace(rules, overwrite="if-unchanged")
        if not rules.delete and rules.compare == "nothing" and rules.overwrite == "always":
            return
        try:
            await self._list_into_index()
        except StorageAccessError as error:
            if rules.delete or not error.by_permission:
                raise
            self._unlisted = True
            self._note(
                f"the container could not be listed ({error.code}): nothing was compared, and "
                "overwrite was left to the service"
            )
        else:
            self.rules = rules

    def _steps(self) -> Iterator[list[Step]]:
        files = (file for file, reason in self._source_files() if reason is None)
        for batch in growing_batches(files):
            if self.rules.delete:
                self._index.mark(file.name for file in batch)
            listed = self._index.get if self._index.count else lambda _: None
            yield [self._step(file.name, listed(file.name), file) for file in batch]

    async def _bring(self, step: Step) -> FileOutcome:
        try:
            return await super()._bring(step)
        except FileNotFoundError:
            if await asyncio.to_thread(os.path.lexists, self.root / step.name):
                raise
            return FileOutcome(step.name, "skip", 0, GONE)

    async def _transfer(self, step: Step, plan: FileOutcome) -> FileOutcome:
        try:
            await upload_path(
                self.service,
                self.root / step.name,
                self.prefix + step.name,
                replace(
                    self.rules.properties,
                    overwrite=self.rules.overwrite,
                    etag=self._etag(step.blob) or None,
                    content_type=self._content_type(step.name, step.blob),
                ),
                on_bytes=partial(self._moved, step.name),
                small=step.small,
            )
        except BlobConflictError as error:
            if not (self._unlisted and error.by_condition):
                raise
            why = f"exists, and overwrite is {self.rules.overwrite!r}"
            return FileOutcome(step.name, "keep", step.size, why)
        return plan

    def _keep_log(self, name: str, size: int, blob: BlobInfo | None) -> FileOutcome | None:
        if not is_run_log(name):
            return None
        appended = blob is not None and blob.blob_type == "AppendBlob"
        if appended or run_log_is_mirrored(self.root, name):
            return FileOutcome(name, "keep", size, "the run log mirrors itself")
        return None

    def _etag(self, there: BlobInfo | None) -> str | None:
        """The ETag that a blob must still have to be replaced, `None` where any may be."""
        return there.etag if there and self.rules.overwrite == "if-unchanged" else None

    def _as_sent(self, step: Step, failed: FileOutcome) -> FileOutcome:
        content_type = None
        with contextlib.suppress(Exception):  # a callable's, which may be what failed
            content_type = self._content_type(step.name, step.blob)
        return replace(failed, etag=self._etag(step.blob), content_type=content_type)

    def _content_type(self, name: str, there: BlobInfo | None) -> str | None:
        """The type to store: what the caller says, else what a nameless type was stored as."""
        chosen = self.rules.content_type(name) if self.rules.content_type else None
        if chosen is not None:
            check_header(f"content_type of {name!r}", chosen, "such as 'image/png'")
        elif there is not None and media_type(name) == UNKNOWN_TYPE:
            chosen = there.content_type
        return chosen or None

    def _extra(self) -> Iterator[list[Step]]:
        for blobs in growing_batches(self._index.unmarked()):
            yield [self._surplus(blob.name, blob, None) for blob in blobs]

    async def _remove(self, step: Step) -> None:
        etag = step.blob.etag if step.blob else ""  # one that was written again meanwhile stays
        await delete_blob(self.service, self.prefix + step.name, etag=etag or None)


class DownRun(TreeRun):
    """Downloads what is in the container; see `TreeRun`."""

    direction = "down"
    move = "download"
    surplus = "not in the container"

    async def _look(self) -> None:
        self._links: dict[str, Container[str] | None] = {}  # of each folder, see `_links_in`
        self._writer = batch_writer(self._width, coming=self.service.is_busy)
        await self._list_into_index(self._unsafe)
        self.report.files = self._index.count
        self._total_bytes = self._index.size
        keep_one = self.rules.on_unsafe == "skip"
        rejected = await asyncio.to_thread(self._index.find_collisions, keep_one=keep_one)
        await self._refuse(rejected)

    def _rejected(self) -> Iterator[FileOutcome]:
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
            self._links[folder] = None if outside else _links_in(self.root / folder)
        links = self._links[folder]
        return self._leads_out(name) if links is None or last in links else None

    def _leads_out(self, name: str) -> str | None:
        """Why a path would leave the target through a symbolic link, or `None`."""
        try:
            safe_path(self.root, name)
        except UnsafePathError as error:
            return reason_of(error, name)
        return None

    def _steps(self) -> Iterator[list[Step]]:
        for batch in growing_batches(self._index.accepted()):
            yield [self._step(b.name, b, local_state(self.root, b.name)[0]) for b in batch]

    def _keep_log(self, name: str, size: int, _blob: BlobInfo | None) -> FileOutcome | None:
        if not run_log_lives(self.root, name):
            return None
        return FileOutcome(name, "keep", size, "a run log that mirrors itself lives here")

    async def _transfer(self, step: Step, plan: FileOutcome) -> FileOutcome:
        found = await download_blob(
            self.service,
            self.prefix + step.name,
            self.root / step.name,
            known=step.blob,
            writer=self._writer,
            before_commit=partial(self._check_still, step),
            on_bytes=partial(self._moved, step.name),
        )
        return plan if found else FileOutcome(step.name, "skip", 0, GONE)

    def _check_still(self, step: Step) -> None:
        """Refuse to replace a local file that appeared or changed since it was looked at."""
        path = self.root / step.name
        found, is_link = local_state(self.root, step.name)
        if is_link and self._leads_out(step.name):
            raise LocalFileChangedError(
                f"{path} leads through a symbolic link now; remove the link", blob=step.name
            )
        if self.rules.overwrite != "always" and found != step.file:
            raise LocalFileChangedError(
                f"{path} changed while its blob was being downloaded, and overwrite is "
                f"{self.rules.overwrite!r}; run again or pass overwrite='always'",
                blob=step.name,
                operation="download",
            )

    def _extra(self) -> Iterator[list[Step]]:
        """Files that the container does not have, noted before the first of them is deleted.

        What a file system lists of a folder that changes meanwhile is left open by POSIX.
        """
        extra = (
            file.name
            for file, reason in walk_tree(self.root, self._wanted, pruned=self._pruned)
            if reason is None
            and self._index.get(file.name) is None
            and not run_log_is_mirrored(self.root, file.name)
        )
        for names in growing_batches(extra):
            self._index.mark(names)
        for names in growing_batches(self._index.marked()):
            yield [self._surplus(name, None, local_state(self.root, name)[0]) for name in names]

    async def _remove(self, step: Step) -> None:
        await asyncio.to_thread((self.root / step.name).unlink, missing_ok=True)


def _links_in(folder: Path) -> Container[str] | None:
    """The names of the symbolic links in a folder, `None` where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_symlink()}
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError:
        return None
