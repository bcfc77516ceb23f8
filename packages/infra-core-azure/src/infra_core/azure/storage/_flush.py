"""Uploading what the journal holds."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sized
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from infra_core.runtime import redact_secrets

from ._bounded import for_each
from ._errors import Ending, JournalError, describe, ending_of
from ._journal import LAST, Journal, PendingUpload, text_of
from ._names import tree_prefix
from ._properties import StoredProperties
from ._service import BlobService, Outage
from ._tree_types import GONE, KEPT_OUTCOMES, FileOutcome, TreeRules
from ._tree_ways import UpRun
from ._upload import upload_bytes, upload_path

__all__ = ["FailedFiles", "FlushReport", "flush_journal"]


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
    service: BlobService, journal: Journal, *, refused: bool = False
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
            outcome, error = await _flush_entry(service, journal, entry)
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
        path = str(journal.path)
        service.log.info("flushed %s: %s", path, counts, extra={"journal": path})
    return report


async def _flush_entry(
    service: BlobService, journal: Journal, entry: PendingUpload
) -> tuple[str, Exception | None]:
    try:
        if entry.kind == "tree" and entry.path is not None:
            return await _flush_tree(service, journal, entry, entry.path)
        await _upload(service, journal, entry)
    except FileNotFoundError as error:
        service.log.warning(
            "%s is gone, so it cannot be uploaded as %r any more and leaves the journal",
            entry.path,
            entry.blob,
            extra={"blob_name": entry.blob},
        )
        await asyncio.to_thread(journal.settle, entry.id)
        return "missing", error
    except Exception as error:  # noqa: BLE001 - one entry does not stop the others
        ending = await asyncio.to_thread(journal.fail, entry.id, error)
        attempt = entry.attempts + 1
        service.log.log(
            logging.ERROR if ending == "refused" else logging.WARNING,
            "%s: %s",
            {
                "dropped": "given up, leaves the journal",
                "refused": "refused permanently, and not sent again",
                "pending": f"kept for the next flush_pending(), failed {attempt} times",
            }[ending],
            redact_secrets(describe(error, "upload", entry.blob)),
            extra={"blob_name": entry.blob, "attempt": attempt},
        )
        return "failed" if ending == "pending" else "refused", error
    except BaseException as error:
        with contextlib.suppress(JournalError):
            journal.fail(entry.id, error)
        raise
    await asyncio.to_thread(journal.arrived, (entry.blob, entry.id))
    return "uploaded", None


async def _flush_tree(
    service: BlobService, journal: Journal, entry: PendingUpload, root: Path
) -> tuple[str, Exception | None]:
    """Upload a tree that an earlier process had begun: what arrived then is skipped by its hash."""
    if not await asyncio.to_thread(root.is_dir):
        raise FileNotFoundError(str(root))
    rules = TreeRules.load(entry.details)
    failed = FailedFiles(journal, root, entry.blob, rules, number=entry.id)
    run = UpRun(
        service,
        root,
        tree_prefix(entry.blob),
        replace(rules, on_outcome=failed),
        journal=journal.path,
        leave=await asyncio.to_thread(failed.left_to_others),
        replay=True,
    )
    await run.run()
    await asyncio.to_thread(failed.note)
    error = next(iter(failed.first.values()), None)
    return "failed" if "pending" in failed.first else "refused" if error else "uploaded", error


@dataclass(eq=False)
class FailedFiles:
    """The uploads of a tree that failed, by what becomes of them: a tree's `on_outcome`.

    They are listed file by file, by the thousand as they come, so that each is made up for, or
    refused, by itself; then the tree's own entry goes.

    Attributes:
        number: The tree's entry; `None` where failures are not noted.
        first: The first error of each kind.
    """

    journal: Journal
    root: Path
    name: str
    rules: TreeRules
    number: int | None = None
    first: dict[Ending, Exception] = field(default_factory=dict, init=False)
    _earlier: dict[str, int] = field(default_factory=dict, init=False)
    _trees: bool = field(default=False, init=False)
    _arrived: list[tuple[str, int]] = field(default_factory=list, init=False)
    _failed: list[PendingUpload] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._prefix = tree_prefix(self.name)

    def look_back(self) -> None:
        """See what waits already: what arrives is newer, and is not to be replaced by it."""
        self._earlier = self._entries_below()
        self._trees = self.journal.has_trees(self.number or LAST)

    def left_to_others(self) -> set[str]:
        """Names in the tree that a replay is not to send: refused, or uploaded after the tree."""
        newer = self.journal.newer(self.number or 0, self._prefix)
        names = {name.removeprefix(self._prefix) for name in newer}
        return names.union(self._entries_below(refused=True))

    def _entries_below(self, *, refused: bool | None = None) -> dict[str, int]:
        """The entries of blobs below the tree, of whatever file, by their names in the tree."""
        pages = self.journal.pages(trees=False, refused=refused, below=self._prefix)
        return {entry.blob.removeprefix(self._prefix): entry.id for page in pages for entry in page}

    def __call__(self, outcome: FileOutcome) -> None:
        """See what became of a file."""
        error = outcome.error
        if error is not None and outcome.action == "upload":
            ending = ending_of(error)
            self.first.setdefault(ending, error)
            if ending != "dropped" and self.number is not None:
                self._failed.append(self._entry(outcome, error))
                self._note_by_the_thousand(self._failed, self._note_failed)
        elif outcome.action in ("upload", "skip") and outcome.reason != GONE:
            earlier = self._earlier.get(outcome.name, 0)
            if earlier or self._trees:
                self._arrived.append((self._prefix + outcome.name, earlier))
                self._note_by_the_thousand(self._arrived, self._note_arrived)
        if self.rules.on_outcome is not None:
            self.rules.on_outcome(outcome)

    def note(self) -> None:
        """List the failures, and drop the entry of the tree itself."""
        self._note_arrived()
        if self.number is not None:
            self._note_failed()
            self.journal.settle(self.number)

    def _note_by_the_thousand(self, waiting: Sized, note: Callable[[], None]) -> None:
        if len(waiting) % KEPT_OUTCOMES == 0:
            with contextlib.suppress(JournalError):  # reported at the end
                note()

    def _note_arrived(self) -> None:
        if self._arrived:
            self.journal.arrived(*self._arrived, before=self.number or LAST)
            self._arrived.clear()

    def _note_failed(self) -> None:
        self.journal.keep(self.number or 0, self._failed)
        self._failed.clear()

    def _entry(self, outcome: FileOutcome, error: Exception) -> PendingUpload:
        # A replay that may replace everything replaces what it has listed.
        listed = self.rules.overwrite == "always" and outcome.etag
        return PendingUpload(
            0,
            "file",
            self._prefix + outcome.name,
            self.root / outcome.name,
            outcome.content_type,
            "if-unchanged" if listed else self.rules.overwrite,
            outcome.etag,
            attempts=1,
            error=text_of(error),
            refused=ending_of(error) == "refused",
            details=self.rules.properties.dump(),
        )


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
