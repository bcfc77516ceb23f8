"""Uploading what the journal holds."""

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from infra_core.runtime import redact_secrets

from ._bounded import for_each
from ._errors import Ending, JournalError, describe, ending_of
from ._journal import Journal, PendingUpload, text_of
from ._names import tree_prefix
from ._options import Overwrite
from ._properties import StoredProperties
from ._service import BlobService, Outage
from ._tree_types import GONE, KEPT_OUTCOMES, FileOutcome, OnOutcome
from ._tree_up import replay_tree
from ._upload import upload_bytes, upload_path

__all__ = ["FailedFiles", "FlushReport", "entries_below", "flush_journal"]


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What a flush of the journal did.

    Attributes:
        uploaded: Entries whose bytes are in the container now.
        failed: Entries that stay for the next time.
        missing: Entries dropped since their local file is gone.
        refused: Entries that can never pass: those that must not overwrite what is in the
            container leave the journal, those that the service refuses permanently stay in it, and
            are not sent again.
    """

    uploaded: int = 0
    failed: int = 0
    missing: int = 0
    refused: int = 0


async def flush_journal(
    service: BlobService, journal: Journal, log: logging.Logger, *, refused: bool
) -> FlushReport:
    """Upload every entry that no live process is at work on, several at a time, oldest first.

    When as many in a row as there are requests in flight met no service, the rest is left for the
    next time. What was refused permanently is sent again only with `refused`.
    """
    counts = dict.fromkeys(("uploaded", "failed", "missing", "refused"), 0)
    outage = Outage(service)

    async def one(entry: PendingUpload) -> None:
        if outage.error is not None:
            counts["failed"] += 1
        elif await asyncio.to_thread(journal.claim, entry.id):
            outcome, error = await _flush_entry(service, journal, entry, log)
            counts[outcome] += 1
            outage.see(error)

    which = None if refused else False
    width = service.config.options.concurrency
    pages = journal.pages(refused=which)
    while (page := await asyncio.to_thread(next, pages, None)) is not None:
        # One after the other: what came after a tree stands for what that brings, and vice versa.
        for tree, entries in groupby(page, lambda entry: entry.id if entry.kind == "tree" else 0):
            await for_each(iter([list(entries)]), one, 1 if tree else width)
    report = FlushReport(**counts)
    if report != FlushReport():
        log.info("flushed %s: %s", journal.path, counts, extra={"journal": str(journal.path)})
    return report


async def _flush_entry(
    service: BlobService, journal: Journal, entry: PendingUpload, log: logging.Logger
) -> tuple[str, Exception | None]:
    try:
        if entry.kind == "tree" and entry.path is not None:
            return await _flush_tree(service, journal, entry, entry.path)
        await _upload(service, journal, entry)
    except FileNotFoundError as error:
        log.warning(
            "%s is gone, so it cannot be uploaded as %r any more and leaves the journal",
            entry.path,
            entry.blob,
            extra={"blob_name": entry.blob},
        )
        await asyncio.to_thread(journal.settle, entry.id)
        return "missing", error
    except Exception as error:  # noqa: BLE001 - one entry does not stop the others
        ending = await asyncio.to_thread(journal.fail, entry.id, error)
        outcome, level, what = {
            "dropped": ("refused", logging.WARNING, "given up, leaves the journal"),
            "refused": ("refused", logging.ERROR, "refused permanently, and not sent again"),
            "pending": (
                "failed",
                logging.WARNING,
                f"kept for the next flush_pending(), failed {entry.attempts + 1} times",
            ),
        }[ending]
        log.log(
            level,
            "%s: %s",
            what,
            redact_secrets(describe(error, "upload", entry.blob)),
            extra={"blob_name": entry.blob, "attempt": entry.attempts + 1},
        )
        return outcome, error
    except BaseException as error:
        with contextlib.suppress(JournalError):
            journal.fail(entry.id, error)
        raise
    await asyncio.to_thread(journal.arrived, entry.blob, entry.id)
    return "uploaded", None


async def _flush_tree(
    service: BlobService, journal: Journal, entry: PendingUpload, root: Path
) -> tuple[str, Exception | None]:
    failed = FailedFiles(journal, root, entry.blob, entry.details)
    failed.number = entry.id
    leave = await asyncio.to_thread(failed.left_to_others)
    tree = (root, entry.blob, entry.details)
    await replay_tree(service, *tree, failed, leave=leave, journal=journal.path)
    await asyncio.to_thread(failed.note)
    error = next(iter(failed.first.values()), None)
    return "failed" if "pending" in failed.first else "refused" if error else "uploaded", error


def entries_below(journal: Journal, name: str, *, refused: bool | None = None) -> dict[str, int]:
    """The entries of blobs below a tree's name, by their names in the tree; on request the refused.

    Whatever file they are of: a tree that brings the blob replaces them, as a newer upload does.
    """
    prefix = tree_prefix(name)
    pages = journal.pages(trees=False, refused=refused, below=prefix)
    return {entry.blob.removeprefix(prefix): entry.id for page in pages for entry in page}


class FailedFiles:
    """The uploads of a tree that failed, by what becomes of them: a tree's `on_outcome`.

    They are listed file by file, by the thousand as they come, so that each is made up for, or
    refused, by itself; then the tree's own entry goes.

    Args:
        journal: Where they are noted.
        root: The folder.
        name: Its name in the container.
        details: The rules of the tree, as the journal keeps them.
        then: Called with each outcome as well.
        earlier: Entries of the tree's files from before, by their names in the tree.
        others: Whether a tree waits that has other files of the same names: those that arrive are
            newer, and it is not to replace them.

    Attributes:
        number: The tree's entry; `None` where failures are not noted.
        first: The first error of each kind.
        passed: Numbers of the entries in `earlier` whose blob is in the container now.
    """

    def __init__(
        self,
        journal: Journal,
        root: Path,
        name: str,
        details: Mapping[str, Any],
        *,
        then: OnOutcome | None = None,
        earlier: Mapping[str, int] | None = None,
        others: bool = False,
    ) -> None:
        self.number: int | None = None
        self.first: dict[Ending, Exception] = {}
        self.passed: list[int] = []
        self._journal = journal
        self._root = root
        self._name, self._prefix = name, tree_prefix(name)
        self._overwrite: Overwrite = details.get("overwrite", "always")
        self._details = StoredProperties.load(details).dump()
        self._then = then
        self._earlier = earlier or {}
        self._others = others
        self._arrived: list[str] = []
        self._failed: list[tuple[FileOutcome, Exception]] = []

    def __call__(self, outcome: FileOutcome) -> None:
        """See what became of a file."""
        error, earlier = outcome.error, self._earlier.get(outcome.name)
        arrived = error is None and outcome.action in ("upload", "skip") and outcome.reason != GONE
        if error is not None and outcome.action == "upload":
            ending = ending_of(error)
            self.first.setdefault(ending, error)
            if ending != "dropped" and self.number is not None:
                self._failed.append((outcome, error))
                if len(self._failed) % KEPT_OUTCOMES == 0:
                    with contextlib.suppress(JournalError):  # reported at the end
                        self._list()
        if arrived and earlier:
            self.passed.append(earlier)
        if arrived and self._others:
            self._arrived.append(self._prefix + outcome.name)
            if len(self._arrived) == KEPT_OUTCOMES:
                with contextlib.suppress(JournalError):
                    self._note_arrived()
        if self._then is not None:
            self._then(outcome)

    def left_to_others(self) -> set[str]:
        """Names in the tree that a replay is not to send: refused, or uploaded after the tree."""
        refused = entries_below(self._journal, self._name, refused=True)
        newer = self._journal.newer(self.number or 0, self._prefix)
        return {*refused, *(name.removeprefix(self._prefix) for name in newer)}

    def note(self) -> None:
        """List the failures, and drop the entry of the tree itself."""
        self._note_arrived()
        if self.passed:
            self._journal.settle(*self.passed)
        if self.number is not None:
            self._list()
            self._journal.settle(self.number)

    def _note_arrived(self) -> None:
        if self._arrived:
            self._journal.add_newer(self._arrived)
            self._arrived.clear()

    def _overwrite_of(self, outcome: FileOutcome) -> Overwrite:
        """As the tree says; a replay that may replace everything replaces what it has listed."""
        replayed = self._overwrite == "always" and outcome.etag
        return "if-unchanged" if replayed else self._overwrite

    def _list(self) -> None:
        self._journal.keep(
            self.number or 0,
            [
                PendingUpload(
                    0,
                    "file",
                    self._prefix + outcome.name,
                    self._root / outcome.name,
                    outcome.content_type,
                    self._overwrite_of(outcome),
                    outcome.etag,
                    attempts=1,
                    error=text_of(error),
                    refused=ending_of(error) == "refused",
                    details=self._details,
                )
                for outcome, error in self._failed
            ],
        )
        self._failed.clear()


async def _upload(service: BlobService, journal: Journal, entry: PendingUpload) -> None:
    how = replace(
        StoredProperties.load(entry.details),
        content_type=entry.content_type,
        overwrite=entry.overwrite,
        etag=entry.etag,
    )
    if entry.kind == "bytes":
        data = await asyncio.to_thread(journal.data, entry.id)
        await upload_bytes(service, data, entry.blob, how)
    elif entry.path is None:
        raise FileNotFoundError(entry.blob)
    else:
        await upload_path(service, entry.path, entry.blob, how)
