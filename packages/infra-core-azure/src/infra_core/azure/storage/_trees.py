"""Whole folders: up, down, planned, listed."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from ._blobs import BlobInfo, list_relative
from ._blocking import run_blocking
from ._errors import StorageError, TreeTransferError, UnsafeNamesError, describe
from ._files import FileClient
from ._globs import listed_globs
from ._names import tree_prefix
from ._tree_run import TreeRun
from ._tree_types import (
    Compare,
    FileOutcome,
    OnOutcome,
    OnProgress,
    OnUnsafe,
    PlannedTransfer,
    TreeReport,
    TreeRules,
)
from ._upload import Overwrite

__all__ = ["TreeClient"]


class TreeClient(FileClient):
    """Trees; see `AzureStorageClient`."""

    async def sync_tree_async(
        self,
        path: Path,
        direction: Literal["up", "down"],
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        overwrite: Overwrite = "always",
        compare: Compare = "hash",
        delete: bool = False,
        on_unsafe: OnUnsafe = "raise",
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
        on_outcome: OnOutcome | None = None,
        raise_on_error: bool = False,
    ) -> TreeReport:
        """Make a folder and the blobs below its name alike, in one direction.

        Args:
            path: The local folder.
            direction: `up` to the container or `down` from it.
            include: Globs of files to take; all without one. `*.png` matches in every folder,
                `data/*.json` from the top, `**` crosses folders, a slash at the end means all
                below.
            exclude: Globs of files to leave alone, on both sides.
            overwrite: `always`; `never` replaces nothing; `if-unchanged` replaces only what
                nobody else changed since it was compared.
            compare: `hash` skips what has the same size and MD5, `size` what has the same size,
                `nothing` transfers all.
            delete: Delete at the destination what the source does not have; never when the
                source is empty, nor after a failure.
            on_unsafe: Names with `..`, absolute, with backslashes, drives, control characters,
                through symbolic links, or equal but for case: `raise` before anything is
                touched, or `skip` them.
            dry_run: Decide and tell everything, touch nothing.
            on_progress: Called with a `TreeProgress` after each file and block.
            on_outcome: Called with the `FileOutcome` of each file.
            raise_on_error: Raise even where errors are swallowed.

        Returns:
            What became of it all. Empty when storage is not configured.

        Raises:
            UnsafeNamesError: See `on_unsafe`.
            NotADirectoryError: There is no such folder to upload.
            TreeTransferError: Files failed (mode strict); all others were transferred.
            StorageError: The container could not be listed.
        """
        path = Path(path)
        if direction not in ("up", "down"):
            raise ValueError(f"direction={direction!r:.80} is unknown; use up, down")
        rules = TreeRules(
            include=_globs(include, "include"),
            exclude=_globs(exclude, "exclude"),
            overwrite=overwrite,
            compare=compare,
            delete=delete,
            on_unsafe=on_unsafe,
        )
        name = self.blob_name_for_path(path)
        wire = self._ready(name)
        if wire is None:
            return TreeReport(direction)
        run = TreeRun(
            wire,
            direction,
            path,
            tree_prefix(name),
            rules,
            dry_run=dry_run,
            on_progress=on_progress,
            on_outcome=on_outcome,
            log=self._log,
        )
        if dry_run or direction == "down":
            report = await run.run()
        else:
            report = await self._run_noted(run, path, name, raise_on_error)
        if report.failed and (raise_on_error or not self._swallow or direction == "down"):
            raise _tree_error(report, path, name)
        return report

    async def _run_noted(
        self, run: TreeRun, path: Path, name: str, raise_on_error: bool
    ) -> TreeReport:
        """Upload with the whole tree in the journal until each file is in the container."""
        number = None
        if await asyncio.to_thread(path.is_dir):
            number = await self._enter("tree", name, {"path": path})
        if number is None:
            return await run.run()
        failed: list[FileOutcome] = []
        try:
            report = await run.run()
        except UnsafeNamesError:  # asked for, and no failure that passes
            await self._in_journal(lambda journal: journal.settle(number))
            raise
        except StorageError as error:  # nothing was transferred, for the listing failed
            await self._failed(error, name, number, raise_on_error)
            run.report.failed += 1
            return run.report
        except BaseException as error:
            self._fail_now(number, error)
            raise
        failed = [outcome for outcome in report.problems if outcome.error is not None]
        entry = number
        if len(failed) < report.failed:  # too many to list: keep the tree
            first = failed[0].error or RuntimeError("unknown")
            await self._in_journal(lambda journal: journal.fail(entry, first))
        else:
            prefix = tree_prefix(name)
            await self._in_journal(
                lambda journal: journal.replace_tree(
                    entry, [(prefix + item.name, path / item.name, item.error) for item in failed]
                )
            )
        self._flush_due = self._flush_due or bool(failed)
        if not failed:
            await self._flush_leftovers()
        return report

    async def upload_tree_async(self, path: Path, **options: Any) -> TreeReport:
        """`sync_tree_async(path, "up", ...)`."""
        return await self.sync_tree_async(path, "up", **options)

    async def download_tree_async(self, path: Path, **options: Any) -> bool:
        """`sync_tree_async(path, "down", ...)`, told in one word as in 0.7.

        Returns:
            Whether there was anything to download; False also when not configured.
        """
        report = await self.sync_tree_async(path, "down", **options)
        return report.files > 0

    async def plan_tree_async(
        self, path: Path, direction: Literal["up", "down"] = "up", **options: Any
    ) -> list[PlannedTransfer]:
        """What `sync_tree` with the same options would do, by the same planner, in order.

        For trees of millions pass `dry_run=True` and `on_outcome` to `sync_tree` instead.
        """
        plan: list[PlannedTransfer] = []

        def add(outcome: FileOutcome) -> None:
            if outcome.error is not None:
                raise outcome.error
            plan.append(PlannedTransfer(outcome.action, outcome.name, outcome.size, outcome.reason))

        await self.sync_tree_async(path, direction, dry_run=True, on_outcome=add, **options)
        return sorted(plan, key=lambda item: (item.name, item.action))

    async def iter_tree_async(self, path: Path) -> AsyncIterator[BlobInfo]:
        """Blobs below a path, page by page: for trees of any size. Names are relative to it."""
        if self._wire is None:
            return
        prefix = tree_prefix(self.blob_name_for_path(Path(path)))
        async for page in list_relative(self._wire, prefix):
            for blob in page:
                yield blob

    async def list_tree_async(self, path: Path) -> list[tuple[str, int]]:
        """Relative name and size of every blob below a path, sorted by name.

        Returns:
            An empty list when there are none, or storage is not configured.

        Raises:
            StorageError: The service refuses or does not answer.
        """
        return sorted([(blob.name, blob.size) async for blob in self.iter_tree_async(path)])

    # -- the same for synchronous callers -----------------------------------------------------

    def sync_tree(self, path: Path, direction: Literal["up", "down"], **options: Any) -> TreeReport:
        """See `sync_tree_async`; hooks are called on another thread."""
        return run_blocking(lambda: self.sync_tree_async(path, direction, **options), "sync_tree()")

    def upload_tree(self, path: Path, **options: Any) -> TreeReport:
        """See `sync_tree_async`."""
        return run_blocking(lambda: self.upload_tree_async(path, **options), "upload_tree()")

    def download_tree(self, path: Path, **options: Any) -> bool:
        """See `download_tree_async`."""
        return run_blocking(lambda: self.download_tree_async(path, **options), "download_tree()")

    def plan_tree(
        self, path: Path, direction: Literal["up", "down"] = "up", **options: Any
    ) -> list[PlannedTransfer]:
        """See `plan_tree_async`."""
        return run_blocking(lambda: self.plan_tree_async(path, direction, **options), "plan_tree()")

    def list_tree(self, path: Path) -> list[tuple[str, int]]:
        """See `list_tree_async`."""
        return run_blocking(lambda: self.list_tree_async(path), "list_tree()")

    def iter_tree(self, path: Path) -> Iterator[BlobInfo]:
        """Blobs below a path, page by page; see `iter_tree_async`."""
        if self._wire is None:
            return
        prefix = tree_prefix(self.blob_name_for_path(Path(path)))
        pages = list_relative(self._wire, prefix)

        async def following() -> list[BlobInfo] | None:
            return await anext(pages, None)

        while (page := run_blocking(following, "iter_tree()")) is not None:
            yield from page


def _globs(globs: Iterable[str], what: str) -> tuple[str, ...]:
    return tuple(listed_globs(globs, what))


def _tree_error(report: TreeReport, path: Path, name: str) -> TreeTransferError:
    failed = [outcome for outcome in report.problems if outcome.error is not None]
    what = "upload" if report.direction == "up" else "download"
    listed = "; ".join(
        describe(item.error, what, item.name) for item in failed[:3] if item.error is not None
    )
    error = TreeTransferError(
        f"{report.failed} of {report.files} files of {path} failed to {what}: {listed}",
        report=report,
        operation=what,
    )
    error.remedy = "the others are done, so running it again does only the rest"
    error.blob = name
    error.__cause__ = failed[0].error if failed else None
    return error
