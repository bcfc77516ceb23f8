"""Trees by mode: a whole folder is one entry of the journal until each of its files is settled."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ._errors import JournalError, StorageError, TreeTransferError, UnsafeNamesError, describe
from ._flush import FailedFiles, entries_below
from ._names import tree_prefix
from ._tree_down import DownRun
from ._tree_run import TreeRun
from ._tree_types import OnOutcome, OnProgress, TreeReport, TreeRules
from ._tree_up import UpRun
from ._uploader import Uploader

__all__ = ["Trees"]


class Trees:
    """Makes folders and their blobs alike.

    Args:
        uploader: What uploads by mode, and keeps the journal.
        log: The logger.
    """

    def __init__(self, uploader: Uploader, log: logging.Logger) -> None:
        self._uploader = uploader
        self._log = log

    async def sync(
        self,
        path: Path,
        name: str,
        direction: Literal["up", "down"],
        rules: TreeRules,
        *,
        dry_run: bool,
        on_progress: OnProgress | None,
        on_outcome: OnOutcome | None,
        raise_on_error: bool,
    ) -> TreeReport:
        """See `AzureStorageClient.sync_tree_async`; `name` is the folder's in the container."""
        earlier, details, journal = None, rules.dump(), self._uploader.journal
        if direction == "up" and not dry_run:
            with contextlib.suppress(JournalError):  # reported where something is entered
                earlier = await asyncio.to_thread(entries_below, journal, name)
        failed = FailedFiles(journal, path, name, details, then=on_outcome, earlier=earlier)
        make = UpRun if direction == "up" else DownRun
        run: TreeRun = make(
            self._uploader.service,
            path,
            tree_prefix(name),
            rules,
            dry_run=dry_run,
            on_progress=on_progress,
            on_outcome=on_outcome if direction == "down" else failed,
            log=self._log,
            journal=journal.path,
        )
        if dry_run or direction == "down":
            report = await run.run()
        else:
            report = await self._upload(run, failed, path, name, details, raise_on_error)
        swallow = self._uploader.swallow and direction == "up"
        if report.failed and (raise_on_error or not swallow):
            raise _tree_error(report, path, name)
        return report

    async def _upload(
        self,
        run: TreeRun,
        failed: FailedFiles,
        path: Path,
        name: str,
        details: Mapping[str, Any],
        raise_on_error: bool,
    ) -> TreeReport:
        """Upload with the whole tree in the journal until each file is in the container."""
        uploader = self._uploader
        number = None
        if await asyncio.to_thread(path.is_dir):
            number = await uploader.enter("tree", name, {"path": path, "details": details})
        if number is None:
            report = await run.run()
            await uploader.in_journal(lambda _: failed.note())
            return report
        failed.number = number
        try:
            report = await run.run()
        except UnsafeNamesError:  # asked for, and no failure that passes
            await uploader.settle(number)
            raise
        except StorageError as error:  # nothing was transferred, for the listing failed
            await uploader.failed(error, name, number, raise_on_error)
            run.report.failed += 1
            return run.report
        except BaseException as error:
            uploader.fail_now(number, error)
            raise
        await uploader.in_journal(lambda _: failed.note())
        if "pending" in failed.first:
            uploader.want_flush()
        if not report.failed:
            await uploader.flush_leftovers()
        return report


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
