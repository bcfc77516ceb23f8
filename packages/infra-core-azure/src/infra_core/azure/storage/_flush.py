"""Uploading what the journal holds."""

import asyncio
import contextlib
import logging
import sqlite3
from dataclasses import dataclass

from infra_core.runtime import redact_secrets

from ._errors import BlobConflictError, StorageError, UnsafeNamesError
from ._journal import Journal, PendingUpload
from ._upload import upload_bytes, upload_path
from ._wire import BlobWire

__all__ = ["FlushReport", "flush_journal"]


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
    """Upload every entry that no live process is at work on, several at a time, oldest first."""
    entries = await asyncio.to_thread(journal.pending)
    counts = dict.fromkeys(("uploaded", "failed", "missing", "refused"), 0)
    gate = asyncio.Semaphore(wire.config.options.concurrency)

    async def one(entry: PendingUpload) -> None:
        async with gate:
            if not await asyncio.to_thread(journal.claim, entry.id):
                return
            counts[await _flush_entry(wire, journal, entry, log)] += 1

    # Trees come last and alone: they bring their own concurrency.
    await asyncio.gather(*(one(entry) for entry in entries if entry.kind != "tree"))
    for entry in entries:
        if entry.kind == "tree":
            await one(entry)
    if entries:
        log.info("flushed %s: %s", journal.path, counts, extra={"journal": str(journal.path)})
    return FlushReport(**counts)


async def _flush_entry(
    wire: BlobWire, journal: Journal, entry: PendingUpload, log: logging.Logger
) -> str:
    try:
        await _upload(wire, journal, entry)
    except FileNotFoundError:
        log.warning(
            "%s is gone, so it cannot be uploaded as %r any more",
            entry.path,
            entry.blob,
            extra={"blob_name": entry.blob},
        )
        await asyncio.to_thread(journal.settle, entry.id)
        return "missing"
    except (BlobConflictError, UnsafeNamesError) as error:
        log.warning("gave up %r: %s", entry.blob, error, extra={"blob_name": entry.blob})
        await asyncio.to_thread(journal.settle, entry.id)
        return "refused"
    except (OSError, StorageError) as error:
        log.warning(
            "upload of %r failed again: %s",
            entry.blob,
            redact_secrets(str(error)),
            extra={"blob_name": entry.blob, "attempt": entry.attempts + 1},
        )
        await asyncio.to_thread(journal.fail, entry.id, error)
        return "failed"
    except BaseException as error:
        with contextlib.suppress(OSError, sqlite3.Error):
            journal.fail(entry.id, error)
        raise
    await asyncio.to_thread(journal.settle, entry.id)
    return "uploaded"


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
