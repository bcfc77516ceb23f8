"""Uploading what the journal holds."""

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from infra_core.runtime import redact_secrets

from ._bounded import for_each
from ._errors import (
    BlobConflictError,
    JournalError,
    StorageConnectionError,
    StorageRequestError,
    UnsafeNamesError,
    describe,
)
from ._journal import Journal, PendingUpload
from ._names import tree_prefix
from ._properties import StoredProperties
from ._service import BlobService
from ._tree_types import KEPT_OUTCOMES, FileOutcome, OnOutcome
from ._tree_up import replay_tree
from ._upload import upload_bytes, upload_path

__all__ = ["FailedFiles", "FlushReport", "ending_of", "flush_journal", "refused_below"]


Ending = Literal["pending", "refused", "dropped"]


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
    service: BlobService, journal: Journal, log: logging.Logger, *, refused: bool = False
) -> FlushReport:
    """Upload every entry that no live process is at work on, several at a time, oldest first.

    When as many in a row as there are requests in flight met no service, the rest is left for the
    next time. What was refused permanently is sent again only with `refused`.
    """
    counts = dict.fromkeys(("uploaded", "failed", "missing", "refused"), 0)
    cut_off = 0

    async def one(entry: PendingUpload) -> None:
        nonlocal cut_off
        if cut_off >= service.config.options.concurrency:
            counts["failed"] += 1
        elif await asyncio.to_thread(journal.claim, entry.id):
            outcome, error = await _flush_entry(service, journal, entry, log)
            counts[outcome] += 1
            cut_off = cut_off + 1 if isinstance(error, StorageConnectionError) else 0

    which = None if refused else False
    width = service.config.options.concurrency
    await for_each(journal.pages(trees=False, refused=which), one, width)
    # trees bring their own concurrency
    await for_each(journal.pages(trees=True, refused=which), one, 1)
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
        text = redact_secrets(describe(error, "upload", entry.blob))
        extra = {"blob_name": entry.blob, "attempt": entry.attempts + 1}
        ending = ending_of(error)
        if ending == "dropped":
            log.warning("given up, %r leaves the journal: %s", entry.blob, text, extra=extra)
            await asyncio.to_thread(journal.settle, entry.id)
            return "refused", error
        refused = ending == "refused"
        await asyncio.to_thread(partial(journal.fail, entry.id, error, refused=refused))
        if refused:
            log.error("refused permanently, and not sent again: %s", text, extra=extra)
            return "refused", error
        log.warning(
            "kept for the next flush_pending(), failed %d times: %s",
            entry.attempts + 1,
            text,
            extra=extra,
        )
        return "failed", error
    except BaseException as error:
        with contextlib.suppress(JournalError):
            journal.fail(entry.id, error)
        raise
    await asyncio.to_thread(journal.settle, entry.id)
    return "uploaded", None


async def _flush_tree(
    service: BlobService, journal: Journal, entry: PendingUpload, root: Path
) -> tuple[str, Exception | None]:
    failed = FailedFiles()
    await replay_tree(service, root, entry.blob, entry.details, failed)
    await asyncio.to_thread(failed.note, journal, entry.id, root, entry.blob, entry.details)
    error = next(iter(failed.first.values()), None)
    return "failed" if failed.pending else "refused" if error else "uploaded", error


def ending_of(error: BaseException) -> Ending:
    """What becomes of an upload that failed of this.

    Returns:
        `pending`: it may pass, and is made up for. `refused`: the service will never take it, and
        it stays listed. `dropped`: `overwrite` or its name forbids it, or there is no such file.
    """
    if isinstance(error, BlobConflictError) and error.by_condition:
        return "dropped"
    hopeless = (FileNotFoundError, IsADirectoryError, NotADirectoryError, UnsafeNamesError)
    if isinstance(error, hopeless):
        return "dropped"
    if isinstance(error, StorageRequestError) and error.permanent:
        return "refused"
    return "pending"


def refused_below(journal: Journal, root: Path, name: str) -> dict[str, int]:
    """The entries of files of a tree that were refused permanently, by their names in the tree."""
    prefix, top = tree_prefix(name), Path(os.path.abspath(root))  # noqa: PTH100 - keeps links
    return {
        below: entry.id
        for page in journal.pages(trees=False, refused=True)
        for entry in page
        if (below := entry.blob.removeprefix(prefix)) != entry.blob or not prefix
        if entry.path is not None and entry.path == top / below
    }


class FailedFiles:
    """The uploads of a tree that failed, by what becomes of them: a tree's `on_outcome`.

    All are counted, and the first 1,000 kept.

    Args:
        then: Called with each outcome as well.
        refused: Entries of the tree's files that were refused earlier, by their names in the tree.

    Attributes:
        first: The first error of each kind.
        passed: Numbers of the entries in `refused` whose content is in the container now.
    """

    def __init__(
        self, then: OnOutcome | None = None, refused: Mapping[str, int] | None = None
    ) -> None:
        self.passed: list[int] = []
        self._refused = refused or {}
        self.first: dict[Ending, Exception] = {}
        self._counts: Counter[Ending] = Counter()
        self._kept: list[tuple[FileOutcome, Exception, Ending]] = []
        self._then = then

    def __call__(self, outcome: FileOutcome) -> None:
        """See what became of a file."""
        error = outcome.error
        if error is not None and outcome.action == "upload":
            ending = ending_of(error)
            self.first.setdefault(ending, error)
            self._counts[ending] += 1
            if len(self._kept) < KEPT_OUTCOMES:
                self._kept.append((outcome, error, ending))
        elif outcome.action in ("upload", "skip") and outcome.name in self._refused:
            self.passed.append(self._refused[outcome.name])
        if self._then is not None:
            self._then(outcome)

    @property
    def pending(self) -> int:
        """How many uploads may pass later."""
        return self._counts["pending"]

    def note(
        self, journal: Journal, number: int, root: Path, name: str, details: Mapping[str, Any]
    ) -> None:
        """Put the failures into the place of the tree's entry, or drop that when nothing failed."""
        if self._counts.total() > len(self._kept):  # too many to list: keep the tree
            ending = min(self.first, key=("pending", "refused", "dropped").index)
            journal.fail(number, self.first[ending], refused=ending != "pending")
            return
        prefix = tree_prefix(name)
        journal.replace_tree(
            number,
            [
                (prefix + outcome.name, root / outcome.name, outcome, error, ending == "refused")
                for outcome, error, ending in self._kept
                if ending != "dropped"
            ],
            overwrite=details.get("overwrite", "always"),
            details=StoredProperties.load(details).dump(),
        )


async def _upload(service: BlobService, journal: Journal, entry: PendingUpload) -> None:
    properties = StoredProperties.load(entry.details)
    if entry.kind == "bytes":
        data = await asyncio.to_thread(journal.data, entry.id)
        await upload_bytes(
            service, data, entry.blob, content_type=entry.content_type, properties=properties
        )
    elif entry.path is None:
        raise FileNotFoundError(entry.blob)
    else:
        await upload_path(
            service,
            entry.path,
            entry.blob,
            content_type=entry.content_type,
            overwrite=entry.overwrite,
            etag=entry.etag,
            properties=properties,
        )
