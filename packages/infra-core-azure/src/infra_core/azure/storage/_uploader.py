"""Files and trees by mode: noted in the journal, written to the disk, sent, and settled."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from infra_core.runtime import clock, redact_secrets, trace_fields

from ._errors import (
    JournalError,
    StorageError,
    TreeTransferError,
    UnsafeNamesError,
    describe,
    ending_of,
)
from ._flush import FailedFiles, flush_journal
from ._journal import LAST, Journal
from ._names import tree_prefix, upload_problem
from ._properties import NO_PROPERTIES, StoredProperties
from ._service import BlobService
from ._tree_run import TreeRun
from ._tree_types import TreeReport, TreeRules
from ._tree_ways import DownRun, UpRun
from ._upload import upload_bytes, upload_path

__all__ = ["Uploader"]

T = TypeVar("T")
# Seconds between automatic flushes while entries go on failing: doubled each time. Requests grow
# with time then, not with the number of files.
_FIRST_PAUSE, _LAST_PAUSE = 30.0, 900.0


@dataclass(eq=False)
class Uploader:
    """Uploads files and bytes so that each is in the container, in the journal, or raised.

    With `swallow` failures are logged and kept instead of raised; with `must_keep` one that the
    journal cannot keep is raised after all.
    """

    service: BlobService
    journal: Journal
    swallow: bool
    must_keep: bool
    _flush_due: bool = field(default=True, init=False)  # what an earlier run left behind
    _flush_after: float = field(default=0.0, init=False)
    _pause: float = field(default=0.0, init=False)

    async def upload_file(
        self,
        path: Path,
        name: str,
        how: StoredProperties = NO_PROPERTIES,
        *,
        raise_on_error: bool = False,
        before: Callable[[], object] | None = None,
    ) -> None:
        """Upload a file; `before` writes it, in a thread, after it was noted in the journal."""
        entry = {
            "path": path,
            "content_type": how.content_type,
            "overwrite": how.overwrite,
            "etag": how.etag,
            "details": how.dump(),
        }
        send = partial(upload_path, self.service, path, name, how)
        await self._upload("file", name, send, raise_on_error, entry, before)

    async def upload_bytes(self, data: bytes, name: str, *, raise_on_error: bool = False) -> None:
        """Upload bytes that have no file."""
        send = partial(upload_bytes, self.service, data, name)
        await self._upload("bytes", name, send, raise_on_error, {"data": data}, None)

    async def _upload(
        self,
        kind: Literal["file", "bytes"],
        name: str,
        send: Callable[[], Awaitable[object]],
        raise_on_error: bool,
        entry: Mapping[str, Any],
        before: Callable[[], object] | None,
    ) -> None:
        """Note in the journal, write, upload, settle: in this order nothing can get lost.

        The entry comes before the local file, so that from the moment the file stands it is
        accounted for.
        """
        problem = upload_problem(name.removeprefix("/"))  # of the prefix; no part of the path
        number = await self._enter(kind, name, entry) if problem is None else None
        earlier = number
        if not self.swallow and self.journal.path.exists():  # of a best-effort run
            with contextlib.suppress(JournalError):
                earlier = await asyncio.to_thread(self.journal.entry_of, name)
        try:
            if before is not None:
                await asyncio.to_thread(before)
        except BaseException:
            await self._settle(number)
            raise
        try:
            if problem is not None:
                raise UnsafeNamesError(
                    {name: problem},
                    operation="upload",
                    remedy="rename the file, or pass another name as blob_path",
                )
            await send()
        except Exception as error:  # noqa: BLE001 - raised again unless errors are swallowed
            await self._failed(error, name, number, raise_on_error)
        except BaseException as error:
            self._fail_now(number, error)  # cancelled: the next flush does it
            raise
        else:
            if earlier is not None:
                blob, limit = (name, earlier), None if earlier == number else LAST
                await self.in_journal(lambda journal: journal.arrived(blob, before=limit))
            self.service.log.debug("uploaded %r", name, extra={"blob_name": name, **trace_fields()})
            await self._flush_leftovers()

    # -- trees --------------------------------------------------------------------------------

    async def sync_tree(
        self, path: Path, name: str, up: bool, rules: TreeRules, *, raise_on_error: bool
    ) -> TreeReport:
        """See `AzureStorageClient.sync_tree_async`; `name` is the folder's in the container."""
        if up and name and (problem := upload_problem(name.removeprefix("/"))):
            remedy = "rename the folder, or mirror it below another base_path"
            raise UnsafeNamesError({name: problem}, operation="upload", remedy=remedy)
        failed = FailedFiles(self.journal, path, name, rules)
        seen, kind = replace(rules, on_outcome=failed), UpRun if up else DownRun
        run = kind(self.service, path, tree_prefix(name), seen, journal=self.journal.path)
        if rules.dry_run or not up:
            report = await run.run()
        else:
            entry = {"path": path, "details": rules.dump()}
            report = await self._upload_tree(run, failed, name, entry, raise_on_error)
        if report.failed and (raise_on_error or not (self.swallow and up)):
            raise _tree_error(report, path, name)
        return report

    async def _upload_tree(
        self,
        run: TreeRun,
        failed: FailedFiles,
        name: str,
        entry: Mapping[str, Any],
        raise_on_error: bool,
    ) -> TreeReport:
        """Upload with the whole tree in the journal until each file is in the container."""
        if await asyncio.to_thread(entry["path"].is_dir):
            failed.number = await self._enter("tree", name, entry)
        with contextlib.suppress(JournalError):  # reported where something is entered
            await asyncio.to_thread(failed.look_back)
        number = failed.number
        try:
            report = await run.run()
        except UnsafeNamesError:  # asked for, and no failure that passes
            await self._settle(number)
            raise
        except StorageError as error:  # nothing was transferred, for the listing failed
            if number is None:
                raise
            await self._failed(error, name, number, raise_on_error)
            run.report.failed += 1
            run.report.notes.append(f"nothing was uploaded, since the listing failed: {error}")
            return run.report
        except BaseException as error:
            self._fail_now(number, error)
            raise
        await self.in_journal(lambda _: failed.note())
        if number is not None:
            self._flush_due = self._flush_due or "pending" in failed.first
            if not report.failed:
                await self._flush_leftovers()
        return report

    # -- the journal --------------------------------------------------------------------------

    async def _enter(
        self, kind: Literal["file", "bytes", "tree"], name: str, entry: Mapping[str, Any]
    ) -> int | None:
        """Note an upload while errors are swallowed; its number, `None` when it is not noted."""
        if not self.swallow:
            return None
        return await self.in_journal(lambda journal: journal.enter(kind, name, **entry))

    async def _settle(self, number: int | None) -> None:
        """Forget an entry: its upload arrived, or is not to be made up for."""
        if number is not None:
            await self.in_journal(lambda journal: journal.settle(number))

    async def _failed(
        self, error: Exception, name: str, number: int | None, raise_on_error: bool
    ) -> None:
        """Keep or drop the journal's entry, then log or raise."""
        ending = ending_of(error)
        if number is not None:
            await self.in_journal(lambda journal: journal.fail(number, error))
            self._flush_due = self._flush_due or ending == "pending"
        lost = ending != "dropped" and number is None
        if raise_on_error or not self.swallow or (lost and self.must_keep):
            raise error
        what = {
            "dropped": "",
            "refused": "refused permanently, and not sent again: ",
            "pending": "kept for flush_pending(): ",
        }[ending]
        self.service.log.error(
            "%s%s",
            "neither uploaded nor kept in the journal: " if lost else what,
            redact_secrets(describe(error, "upload", name)),
            extra={
                "blob_name": name,
                "error": type(error).__name__,
                "journal": None if lost or ending == "dropped" else str(self.journal.path),
                **trace_fields(),
            },
        )

    def _fail_now(self, number: int | None, error: BaseException) -> None:
        """Keep an entry from within a cancelled task, which can await nothing more."""
        if number is None:
            return
        with contextlib.suppress(JournalError):
            self.journal.fail(number, error)
        self._flush_due = True

    async def in_journal(self, do: Callable[[Journal], T]) -> T | None:
        """Do something with the journal in a thread; one that cannot be written stops nothing."""
        try:
            return await asyncio.to_thread(do, self.journal)
        except JournalError as error:
            self.service.log.error("%s", error, extra={"journal": str(self.journal.path)})
            return None

    async def _flush_leftovers(self) -> None:
        """After a success: what failed before, in this run or an earlier one, may pass now."""
        if not (self.swallow and self._flush_due) or clock.monotonic() < self._flush_after:
            return
        self._flush_due = False
        with contextlib.suppress(JournalError):  # logged when the upload was entered
            report = await flush_journal(self.service, self.journal)
            self._pause = min(max(_FIRST_PAUSE, 2 * self._pause), _LAST_PAUSE)
            if not report.failed:
                self._pause = 0.0
            self._flush_due = self._flush_due or bool(report.failed)
            self._flush_after = clock.monotonic() + self._pause


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
