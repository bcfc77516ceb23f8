"""Sending one file: whole, or in blocks, hashed on the way, recognised when the answer is lost."""

import asyncio
import base64
import errno
import hashlib
import os
import stat
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, TypeVar

from infra_core.fs import media_type

from ._blobs import create_container, list_blocks, look_at
from ._errors import (
    BlobConflictError,
    BlobNotFoundError,
    LocalFileChangedError,
    local_error,
)
from ._wire import BlobWire

__all__ = ["Overwrite", "check_upload", "hash_file", "read_small", "upload_bytes", "upload_path"]

Overwrite = Literal["always", "never", "if-unchanged"]
_CHUNK = 1 << 20
_PIECE = 1 << 18  # bytes; fits the cache of a core
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What became of an upload.

    Attributes:
        size: Bytes.
        etag: The blob's ETag now.
        md5: Its hash, `None` where blocks are not hashed.
        written: False when the content was there already (a lost response, or a twin).
    """

    size: int
    etag: str
    md5: bytes | None
    written: bool = True


def new_md5() -> "hashlib._Hash":
    """MD5 as the service wants it: a check against accidents, no protection."""
    return hashlib.md5(usedforsecurity=False)


def hash_file(path: Path) -> bytes:
    """MD5 of a file's content."""
    digest = new_md5()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise local_error(error, path, "file to compare") from error
    return digest.digest()


def check_upload(overwrite: str, etag: str | None, content_type: str | None) -> None:
    """Refuse what could only fail on the way, or would silently not be heeded.

    Raises:
        ValueError: `overwrite` is unknown, `etag` is not for it, or one of the others is no text
            for a header.
    """
    if overwrite not in ("always", "never", "if-unchanged"):
        raise ValueError(f"overwrite={overwrite!r:.80} is unknown; use always, never, if-unchanged")
    if etag is not None and overwrite != "if-unchanged":
        raise ValueError(
            f"etag={etag!r:.80} is not heeded with overwrite={overwrite!r}; pass "
            "overwrite='if-unchanged' with it"
        )
    for name, text, example in (
        ("etag", etag, "the etag of stat()"),
        ("content_type", content_type, "a media type such as 'image/png'"),
    ):
        if text is not None and not (
            isinstance(text, str) and text and text.isascii() and text.isprintable()
        ):
            raise ValueError(f"{name}={text!r:.80} cannot stand in a header; pass {example}")


def conditions(overwrite: Overwrite, etag: str | None) -> dict[str, str]:
    """Headers under which the service accepts the write."""
    if overwrite == "always":
        return {}
    if overwrite == "if-unchanged" and etag:
        return {"If-Match": etag}
    return {"If-None-Match": "*"}


async def upload_bytes(
    wire: BlobWire,
    data: bytes,
    name: str,
    *,
    content_type: str | None = None,
    overwrite: Overwrite = "always",
    etag: str | None = None,
    md5: bytes | None = None,
) -> Uploaded:
    """Store bytes that fit one request; the service checks their MD5 and keeps it.

    Raises:
        BlobConflictError: By `overwrite` it must not be written, and its content is another.
        StorageError: The service refuses or does not answer.
    """
    digest = md5 or new_md5_of(data)
    headers = {
        "x-ms-blob-type": "BlockBlob",
        "x-ms-blob-content-type": content_type or media_type(name),
        "Content-MD5": base64.b64encode(digest).decode("ascii"),
        **conditions(overwrite, etag),
    }

    async def put() -> Uploaded:
        reply = await wire.send("PUT", name, "upload", headers=headers, body=data)
        return Uploaded(len(data), reply.headers.get("ETag", ""), digest)

    return await _settled(wire, name, put, len(data), digest, [])


def new_md5_of(data: bytes) -> bytes:
    """MD5 of bytes."""
    return hashlib.md5(data, usedforsecurity=False).digest()


async def _settled(
    wire: BlobWire,
    name: str,
    write: Callable[[], Awaitable[Uploaded]],
    size: int,
    md5: bytes | None,
    block_ids: list[str],
) -> Uploaded:
    """Write; after a conflict look whether the content is ours.

    A conflict is what a retry meets when the first answer was lost: the service has the bytes.
    Without a hash, the blocks that a blob is made of tell whose it is: their names are random.
    """
    try:
        return await _with_container(wire, write)
    except BlobConflictError:
        there = await look_at(wire, name)
        if there is None or there.size != size or there.md5 != md5:
            raise
        if md5 is None and await list_blocks(wire, name) != block_ids:
            raise
        return Uploaded(size, there.etag, md5, written=False)


async def _with_container(wire: BlobWire, write: Callable[[], Awaitable[T]]) -> T:
    """Write; where the container is missing, make it and write again."""
    try:
        return await write()
    except BlobNotFoundError as error:
        if error.code != "ContainerNotFound" or not await create_container(wire):
            raise
        return await write()


async def upload_path(
    wire: BlobWire,
    path: Path,
    name: str,
    *,
    content_type: str | None = None,
    overwrite: Overwrite = "always",
    etag: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
    small: tuple[bytes, bytes] | None = None,
) -> Uploaded:
    """Store a file, in one request or in blocks; never more than a few blocks in memory.

    Args:
        wire: Where to.
        path: The file.
        name: Name of the blob.
        content_type: Media type; by default that of the name.
        overwrite: `always`; `never` (must not exist); `if-unchanged` (must have `etag`, or not
            exist when that is `None`).
        etag: See `overwrite`.
        on_bytes: Told the number of bytes whenever some have arrived.
        small: Content and MD5 of the file, if somebody read them already; see `read_small`.

    Raises:
        OSError: The file cannot be read.
        LocalFileChangedError: It changed while it was being read in blocks.
        BlobConflictError: See `upload_bytes`.
        StorageError: The service refuses or does not answer.
    """
    limit = wire.config.options.block_size
    if small is None:
        try:
            small = await asyncio.to_thread(_read_regular, path, limit)
        except OSError as error:
            raise local_error(error, path) from error
    kind = content_type or media_type(name)
    if small is not None:
        data, md5 = small
        done = await upload_bytes(
            wire, data, name, content_type=kind, overwrite=overwrite, etag=etag, md5=md5
        )
        if on_bytes is not None:
            on_bytes(done.size)
        return done
    file = await asyncio.to_thread(path.open, "rb", 0)
    try:
        return await _upload_blocks(
            wire, file, path, name, kind, conditions(overwrite, etag), on_bytes
        )
    finally:
        await asyncio.to_thread(file.close)


def _read_regular(path: Path, limit: int) -> tuple[bytes, bytes] | None:
    """`read_small` of what has an end: opening a pipe would wait for somebody to write to it."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return read_small(path, limit)


def read_small(path: Path, limit: int) -> tuple[bytes, bytes] | None:
    """Content and MD5 of a file of at most `limit` bytes, `None` for a larger one."""
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > limit:
            return None
        # A file that grows while it is read (a log) is taken as far as it went.
        data = file.read(limit + 1) or b""
        if len(data) > limit:
            return None
        while data and len(data) < limit and (more := file.read(limit + 1 - len(data))):
            data += more
    return (data, new_md5_of(data)) if len(data) <= limit else None


async def _upload_blocks(
    wire: BlobWire,
    file: FileIO,
    path: Path,
    name: str,
    content_type: str,
    condition: dict[str, str],
    on_bytes: Callable[[int], None] | None,
) -> Uploaded:
    before = os.fstat(file.fileno())
    block_size = wire.config.options.block_size_for(before.st_size)
    count = -(-before.st_size // block_size)
    whole = new_md5() if wire.config.options.block_md5 else None
    # Ids of one length; fresh for each upload, so that two writers of one blob never mix blocks.
    stem = os.urandom(8).hex()
    ids = [base64.b64encode(f"{stem}-{i:05d}".encode()).decode("ascii") for i in range(count)]
    gate = asyncio.Semaphore(wire.config.options.block_concurrency)
    tasks: set[asyncio.Task[None]] = set()

    async def send(block_id: str, data: memoryview, headers: dict[str, str]) -> None:
        try:
            await _with_container(
                wire,
                lambda: wire.send(
                    "PUT",
                    name,
                    "upload of a block",
                    params={"blockid": block_id, "comp": "block"},
                    headers=headers,
                    body=data,
                ),
            )
        finally:
            gate.release()
        if on_bytes is not None:
            on_bytes(len(data))

    try:
        for block_id in ids:
            await gate.acquire()
            for done in [task for task in tasks if task.done()]:
                tasks.discard(done)
                done.result()
            data, headers = await asyncio.to_thread(_read_block, file, block_size, whole)
            tasks.add(asyncio.create_task(send(block_id, data, headers)))
            del data
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
    after = os.fstat(file.fileno())
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise LocalFileChangedError(
            f"{path} changed while it was being uploaded, so nothing was stored; upload it again "
            "when it is complete, or upload a copy",
            blob=name,
            operation="upload",
        )
    digest = whole.digest() if whole is not None else None
    listed = "".join(f"<Latest>{block_id}</Latest>" for block_id in ids)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
    headers = {"x-ms-blob-content-type": content_type, **condition}
    if digest is not None:
        headers["x-ms-blob-content-md5"] = base64.b64encode(digest).decode("ascii")

    async def commit() -> Uploaded:
        reply = await wire.send(
            "PUT", name, "upload", params={"comp": "blocklist"}, headers=headers, body=body
        )
        return Uploaded(before.st_size, reply.headers.get("ETag", ""), digest)

    return await _settled(wire, name, commit, before.st_size, digest, ids)


def _read_block(
    file: FileIO, size: int, whole: "hashlib._Hash | None"
) -> tuple[memoryview, dict[str, str]]:
    """The next block, and the header by which the service checks it; feeds the whole file's hash.

    Hashing costs more than all else. Both hashes take each piece while the processor's cache has
    it, in one thread: with more, they would take turns with whoever needs the other cores.
    """
    block = memoryview(bytearray(size))
    own = new_md5()
    end = 0
    while end < size and (count := file.readinto(block[end : end + _PIECE])):
        if whole is not None:
            piece = block[end : end + count]
            whole.update(piece)
            own.update(piece)
        end += count
    if whole is None:
        return block[:end], {}
    return block[:end], {"Content-MD5": base64.b64encode(own.digest()).decode("ascii")}
