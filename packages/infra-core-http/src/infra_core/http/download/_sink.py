"""Where the bytes of a download go: small files inline, large ones through one thread at a time.

A hop to a thread costs as much as hashing 100 KiB, so it is made once per megabyte: the thread
hashes and writes (both release the interpreter lock) while the loop receives the next megabyte.
Files below that never leave the loop until they are flushed to the disk.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from infra_core.fs import AtomicFile

from ._threads import finished, in_thread

__all__ = ["Sink"]

HANDOVER: Final = 1 << 20  # bytes gathered before a thread takes them
_WRITEBACK: Final = 8 << 20  # bytes after which the kernel is asked to begin with the disk


class Sink:
    """An `AtomicFile` that is fed from an event loop.

    Args:
        path: Where the file shall stand.
        algorithms: Hashes to compute on the way.
        durable: Flush the file to the disk before it takes its name.
        on_written: Called in the writing thread after each batch, with the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        algorithms: frozenset[str],
        durable: bool,
        on_written: Callable[[AtomicFile], None] | None = None,
    ) -> None:
        self.file = AtomicFile(path, algorithms=algorithms, durable=durable)
        self.algorithms = algorithms
        self._durable = durable
        self._on_written = on_written
        self._parts: list[bytes] = []
        self._held = 0
        self._flushed = 0
        self._writing: asyncio.Future[None] | None = None

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; waits only when the disk is slower than the network."""
        self._parts.append(chunk)
        self._held += len(chunk)
        if self._held >= HANDOVER:
            await self._settle()
            parts, self._parts, self._held = self._parts, [], 0
            self._writing = asyncio.get_running_loop().run_in_executor(None, self._write, parts)

    async def drain(self) -> None:
        """Bring everything taken so far into the file and its hashes."""
        await self._settle()
        parts, self._parts, self._held = self._parts, [], 0
        if parts:
            self._write(parts)

    async def truncate(self) -> None:
        """Drop everything, to begin again from zero."""
        await self.discard()
        self.file.truncate()
        self._flushed = 0

    async def discard(self) -> None:
        """Drop what has not been written yet."""
        self._parts, self._held = [], 0
        await self._settle()

    async def commit(self, before: Callable[[AtomicFile], None]) -> None:
        """Flush the file to the disk and give it its name.

        Args:
            before: Called in the same thread just before, e.g. to label the file.
        """

        def work() -> None:
            before(self.file)
            self.file.commit()

        if self._durable:
            await in_thread(work)
        else:
            work()

    async def abort(self) -> None:
        """Remove the partial file once no thread writes to it any more; never raises."""
        try:
            await self.discard()
        except OSError:
            pass  # the error that brought us here is the one to tell
        finally:
            self.file.abort()

    async def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await finished(writing)

    def _write(self, parts: list[bytes]) -> None:
        for part in parts:
            self.file.write(part)
        if self._on_written is not None:
            self._on_written(self.file)
        if self._durable and self.file.size - self._flushed >= _WRITEBACK:
            _begin_writeback(self.file.temp_path, self._flushed, self.file.size - self._flushed)
            self._flushed = self.file.size


def _begin_writeback(path: Path, offset: int, length: int) -> None:
    """Ask the kernel to write a range out now, so that the fsync at the end finds little to do.

    On Linux, `POSIX_FADV_DONTNEED` starts the writing of dirty pages and does not wait for it
    (posix_fadvise(2)); pages on their way to the disk stay cached. Elsewhere nothing is done.
    """
    if not hasattr(os, "posix_fadvise"):
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass  # advice only
    finally:
        os.close(descriptor)
