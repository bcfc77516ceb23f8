"""Trees by mode: a whole folder is one entry of the journal until each of its files is settled."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ._errors import JournalError, StorageError, TreeTransferError, UnsafeNamesError, describe
from ._flush import FailedFiles
from ._names import tree_prefix
from ._tree_down import DownRun
from ._tree_run import TreeRun
from ._tree_types import TreeReport, TreeRules
from ._tree_up import UpRun
from ._uploader import Uploader

__all__ = ["sync_tree"]


async def sync_tree(
    uploader: Uploader,
    path: Path,
    name: str,
    direction: Literal["up", "down"],
    rules: TreeRules,
    raise_on_error: bool,
) -> TreeReport:
    """See `AzureStorageClient.sync_tree_async`; `name` is the folder's in the container."""
    up = direction == "up"
    failed = FailedFiles(uploader.journal, path, name, rules)
    run = (UpRun if up else DownRun)(
        uploader.service,
        path,
        tree_prefix(name),
        replace(rules, on_outcome=failed),
        journal=uploader.journal.path,
    )
    if rules.dry_run or not up:
        report = await run.run()
    else:
        entry = {"path": path, "details": rules.dump()}
        report = await _upload(uploader, run, failed, name, entry, raise_on_error)
    if report.failed and (raise_on_error or not (uploader.swallow and up)):
        raise _tree_error(report, path, name)
    return report


async def _upload(
    uploader: Uploader,
    run: TreeRun,
    failed: FailedFiles,
    name: str,
    entry: Mapping[str, Any],
    raise_on_error: bool,
) -> TreeReport:
    """Upload with the whole tree in the journal until each file is in the container."""
    with contextlib.suppress(JournalError):  # reported where something is entered
        await asyncio.to_thread(failed.look_back)
    if await asyncio.to_thread(entry["path"].is_dir):
        failed.number = await uploader.enter("tree", name, entry)
    number = failed.number
    try:
        report = await run.run()
    except UnsafeNamesError:  # asked for, and no failure that passes
        await uploader.settle(number)
        raise
    except StorageError as error:  # nothing was transferred, for the listing failed
        if number is None:
            raise
        await uploader.failed(error, name, number, raise_on_error)
        run.report.failed += 1
        return run.report
    except BaseException as error:
        uploader.fail_now(number, error)
        raise
    await uploader.in_journal(lambda _: failed.note())
    if number is not None:
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
