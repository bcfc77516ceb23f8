"""Where the bytes of a download go: to one thread at a time, a megabyte at a time.

A hop to a thread costs as much as hashing 100 KiB, so it is made once per megabyte: the thread
hashes and writes (both release the interpreter lock) while the loop receives the next megabyte.
A file below that makes one hop in all, in which it is written, flushed and named.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from infra_core.fs import AtomicFile
from infra_core.runtime import in_thread, until_done

from .._response.decode import Decoder
from ._fields import media_type_of

if TYPE_CHECKING:
    from ._plan import Body

__all__ = ["HANDOVER", "Sink", "is_coded_file"]

HANDOVER: Final = 1 << 20  # bytes gathered before a thread takes them
_READ: Final = 1 << 18
_HEAD: Final = 1 << 16
# Files that hold such data by their name or type, and how the data begins where that is fixed.
_OF_FILES: Final = {
    "gzip": ((".gz", ".tgz", ".svgz", "application/gzip", "application/x-gzip"), b"\x1f\x8b"),
    "zstd": ((".zst", "application/zstd"), b"\x28\xb5\x2f\xfd"),
    "br": ((".br",), b""),
}


@dataclass(eq=False, repr=False)
class Sink:
    """An `AtomicFile` that is fed from an event loop.

    The file is opened by the first thread that writes to it: creating, flushing and naming a file
    cost far more than receiving 16 KiB, and must not hold up other downloads. `on_written` is
    called in the writing thread after each batch.
    """

    path: Path
    algorithms: frozenset[str]
    durable: bool
    on_written: Callable[[AtomicFile], None] | None = None
    size: int = 0
    _file: AtomicFile | None = None
    _parts: list[bytes] = field(default_factory=list)
    _held: int = 0
    _writing: asyncio.Future[None] | None = None

    @property
    def file(self) -> AtomicFile:
        """The file, opened now if it was not yet; blocking."""
        if self._file is None:
            self._file = AtomicFile(self.path, algorithms=self.algorithms, durable=self.durable)
        return self._file

    @property
    def closed(self) -> bool:
        """Whether there is no partial file on the disk, not yet or not any more."""
        return self._writing is None and (self._file is None or self._file.closed)

    async def write(self, chunk: bytes) -> None:
        """Take a chunk; waits only when the disk is slower than the network."""
        self._parts.append(chunk)
        self._held += len(chunk)
        self.size += len(chunk)
        if self._held >= HANDOVER:
            await self._settle()
            parts = self._take()
            self._writing = asyncio.ensure_future(in_thread(self._write, parts))

    async def drain(self) -> None:
        """Bring everything taken so far into the file and its hashes."""
        parts = await self.take_rest()
        if parts:
            await in_thread(self._write, parts)

    async def take_rest(self) -> list[bytes]:
        """Wait for the writing thread and return the bytes that are yet to be written."""
        await self._settle()
        return self._take()

    def write_parts(self, parts: list[bytes]) -> AtomicFile:
        """Write bytes and return the file with all of them; blocking."""
        file = self.file
        for part in parts:
            file.write(part)
        return file

    def decode(self, decoder: Decoder, check_size: Callable[[int], None]) -> AtomicFile:
        """Replace the file, which holds an encoded body, by what it decodes to; blocking.

        `check_size` is called with the size so far; what it raises ends the decoding.
        """
        encoded = self.file
        encoded.flush()
        plain = AtomicFile(self.path, algorithms=self.algorithms, durable=self.durable)
        try:
            os.lseek(encoded.fileno(), 0, os.SEEK_SET)
            while chunk := os.read(encoded.fileno(), _READ):
                for piece in decoder.feed(chunk):
                    plain.write(piece)
                    check_size(plain.size)
            decoder.finish()
        except BaseException:
            plain.abort()
            raise
        encoded.abort()
        self._file, self.size = plain, plain.size
        return plain

    async def abort(self) -> None:
        """Remove the partial file once no thread writes to it any more; never raises."""
        self._take()
        try:
            await self._settle()
        except OSError:
            pass  # the error that brought us here is the one to raise
        finally:
            if self._file is not None:
                self._file.abort()

    def _take(self) -> list[bytes]:
        parts, self._parts, self._held = self._parts, [], 0
        return parts

    async def _settle(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await until_done(writing)

    def _write(self, parts: list[bytes]) -> None:
        file = self.write_parts(parts)
        if self.on_written is not None:
            self.on_written(file)


def is_coded_file(name: str, body: Body, file: AtomicFile) -> bool:
    """Whether a body is a compressed file whose server has named its format as a content coding.

    Servers that go by the extension do so: `x.tar.gz` comes with `Content-Encoding: gzip`, and
    decoded it would no longer be what its name says. Where it was encoded once more on its way,
    what it decodes to is such a file.
    """
    kinds, magic = _OF_FILES.get(", ".join(body.codings), ((), b""))
    if not {PurePath(name).suffix.lower(), media_type_of(body.content_type)} & {*kinds}:
        return False
    if not magic:
        return True
    file.flush()
    with file.temp_path.open("rb") as sent:
        inner = next(Decoder(body.codings).feed(sent.read(_HEAD)), b"")
    return not inner.startswith(magic)
