"""Uploading what the journal holds."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from infra_core.runtime import redact_secrets

from ._bounded import for_each
from ._errors import (
    BlobConflictError,
    JournalError,
    StorageConnectionError,
    UnsafeNamesError,
    describe,
)
from ._journal import Journal, PendingUpload
from ._upload import upload_bytes, upload_path
from ._wire import BlobWire

__all__ = ["FlushReport", "flush_journal", "may_pass"]


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What a flush of the journal did.

    Attributes:
        uploaded: Entries whose bytes are in the container now.
        failed: Entries that stay for the next time.
        missing: Entries dropped since their local file is gone.
        refused: Entries dropped since they must not overwrite what is in the container.
    """

    uploaded: int = 0
    failed: int = 0
    missing: int = 0
    refused: int = 0


async def flush_journal(wire: BlobWire, journal: Journal, log: logging.Logger) -> FlushReport:
    """Upload every entry that no live process is at work on, several at a time, oldest first.

    When as many in a row as there are requests in flight met no service, the rest is left for the
    next time.
    """
    counts = dict.fromkeys(("uploaded", "failed", "missing", "refused"), 0)
    cut_off = 0

    async def one(entry: PendingUpload) -> None:
        nonlocal cut_off
        if cut_off >= wire.config.options.concurrency:
            counts["failed"] += 1
        elif await asyncio.to_thread(journal.claim, entry.id):
            outcome, error = await _flush_entry(wire, journal, entry, log)
            counts[outcome] += 1
            cut_off = cut_off + 1 if isinstance(error, StorageConnectionError) else 0

    await for_each(journal.pages(trees=False), one, wire.config.options.concurrency)
    await for_each(journal.pages(trees=True), one, 1)  # they bring their own concurrency
    report = FlushReport(**counts)
    if report != FlushReport():
        log.info("flushed %s: %s", journal.path, counts, extra={"journal": str(journal.path)})
    return report


async def _flush_entry(
    wire: BlobWire, journal: Journal, entry: PendingUpload, log: logging.Logger
) -> tuple[str, Exception | None]:
    try:
        await _upload(wire, journal, entry)
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
        told = redact_secrets(describe(error, "upload", entry.blob))
        if is_refusal(error):
            log.warning(
                "given up, %r leaves the journal: %s", entry.blob, told,
                extra={"blob_name": entry.blob},
            )  # fmt: skip
            await asyncio.to_thread(journal.settle, entry.id)
            return "refused", error
        log.warning(
            "kept for the next flush_pending(), failed %d times: %s",
            entry.attempts + 1,
            told,
            extra={"blob_name": entry.blob, "attempt": entry.attempts + 1},
        )
        await asyncio.to_thread(journal.fail, entry.id, error)
        return "failed", error
    except BaseException as error:
        with contextlib.suppress(JournalError):
            journal.fail(entry.id, error)
        raise
    await asyncio.to_thread(journal.settle, entry.id)
    return "uploaded", None


def is_refusal(error: BaseException) -> bool:
    """Whether an upload must not be made up for: `overwrite` or its name forbids it."""
    if isinstance(error, BlobConflictError):
        return error.by_condition
    return isinstance(error, UnsafeNamesError)


def may_pass(error: BaseException) -> bool:
    """Whether an upload that failed of this is to be made up for: all but what never can."""
    hopeless = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
    return not isinstance(error, hopeless) and not is_refusal(error)


async def _upload(wire: BlobWire, journal: Journal, entry: PendingUpload) -> None:
    if entry.kind == "bytes":
        data = await asyncio.to_thread(journal.data, entry.id)
        await upload_bytes(wire, data, entry.blob, content_type=entry.content_type)
    elif entry.path is None:
        raise FileNotFoundError(entry.blob)
    elif entry.kind == "tree":
        from ._tree_run import replay_tree

        await replay_tree(wire, entry.path, entry.blob)
    else:
        await upload_path(
            wire,
            entry.path,
            entry.blob,
            content_type=entry.content_type,
            overwrite=entry.overwrite,
            etag=entry.etag,
        )
