"""Sending one file: whole, or in blocks, hashed on the way, recognised when the answer is lost."""

import asyncio
import base64
import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from urllib.parse import parse_qsl

from ._blobs import create_container, get_properties, list_blocks
from ._bounded import ending
from ._errors import (
    BlobConflictError,
    BlobNotFoundError,
    LocalFileChangedError,
    StorageAccessError,
    StorageError,
    StorageRequestError,
    local_error,
    request_error,
)
from ._properties import NO_PROPERTIES, StoredProperties
from ._service import BlobService, Request

__all__ = ["hash_file", "read_small", "upload_bytes", "upload_path"]

_CHUNK = 1 << 20
_ID_LENGTH, _SHORTEST_ID = 22, 14  # characters of a block's id: random ones, a dash, five digits
_PIECE = 1 << 18  # bytes; fits the cache of a core
_CONDITIONS = {"If-Match", "If-None-Match"}


def new_md5(data: bytes = b"") -> "hashlib._Hash":
    """MD5 as the service wants it: a check against accidents, no protection."""
    return hashlib.md5(data, usedforsecurity=False)


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


async def upload_bytes(
    service: BlobService,
    data: bytes,
    name: str,
    how: StoredProperties = NO_PROPERTIES,
    *,
    md5: bytes | None = None,
) -> None:
    """Store bytes that fit one request; the service checks their MD5 and keeps it."""
    digest = md5 or new_md5(data).digest()
    headers = {
        "x-ms-blob-type": "BlockBlob",
        "Content-MD5": _base64(digest),
        **await _headers(service, name, how),
    }
    request = Request("PUT", name, "upload", headers=headers, body=data)
    await _write(service, request, len(data), digest, [])


async def _headers(service: BlobService, name: str, how: StoredProperties) -> dict[str, str]:
    kept = await get_properties(service, name) if how.keep else None
    return {**how.headers(name, kept), **how.conditions}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


async def _write(
    service: BlobService, request: Request, size: int, md5: bytes | None, ids: list[str]
) -> None:
    """Write a blob; after a conflict look whether the content is ours.

    A conflict is what a retry meets when the first answer was lost: the service has the bytes, and
    an immutable container takes them no second time. Without a hash, the blocks that a blob is
    made of show whose it is: their ids are random.
    """
    try:
        await _send(service, request)
        return
    except StorageRequestError as refusal:
        error = conflict = _named(refusal, service)
        # The service looks at the lease of a blob before it looks at the condition.
        leased = error.code == "LeaseIdMissing" and "If-None-Match" in request.headers
        if not (leased or _may_be_ours(error)):
            raise error from refusal.__cause__
        conditional = _CONDITIONS & request.headers.keys()
        if leased or (conditional and error.code == "UnauthorizedBlobOverwrite"):
            # As it says "it exists".
            conflict = _refused(error, 409, "BlobAlreadyExists")
    unseen = None
    try:
        there = await get_properties(service, error.blob)
        ours = there is not None and (there.size, there.md5) == (size, md5)
        if ours and md5 is None:
            ours = await list_blocks(service, error.blob) == ids
    except StorageAccessError as denied:  # a token that may only write
        ours, unseen = False, denied
        conflict.remedy += (
            f" (whether its content is the same could not be looked at: status {denied.status}, "
            f"{denied.code or 'no error code'})"
        )
    if not ours:
        raise conflict from unseen


def _named(error: StorageRequestError, service: BlobService) -> StorageRequestError:
    """The refusal under its own code where a token that may only create met a blob that exists.

    Azurite calls it `AuthorizationPermissionMismatch`, as if the token allowed nothing. Of its
    permissions (`sp`), c creates and w replaces:
    https://learn.microsoft.com/rest/api/storageservices/create-service-sas
    """
    granted = dict(parse_qsl((service.config.sas_token or "").lstrip("?"))).get("sp", "")
    if error.code != "AuthorizationPermissionMismatch" or "c" not in granted or "w" in granted:
        return error
    return _refused(error, 403, "UnauthorizedBlobOverwrite")


def _refused(error: StorageRequestError, status: int, code: str) -> StorageRequestError:
    request_id = error.request_id
    return request_error(
        status, code, "", blob=error.blob, operation="upload", request_id=request_id
    )


def _may_be_ours(error: StorageRequestError) -> bool:
    """Whether what stands in the way of a write may be the same bytes, written before."""
    if error.code in ("BlobImmutableDueToPolicy", "UnauthorizedBlobOverwrite", "InvalidBlockList"):
        return True
    return isinstance(error, BlobConflictError) and (error.by_condition or error.attempts > 1)


async def _send(service: BlobService, request: Request) -> None:
    """Send; where the container is missing, make it and send again."""
    try:
        await service.send(request)
    except BlobNotFoundError as error:
        if error.code != "ContainerNotFound" or not await create_container(service):
            raise
        await service.send(request)


async def upload_path(
    service: BlobService,
    path: Path,
    name: str,
    how: StoredProperties = NO_PROPERTIES,
    *,
    on_bytes: Callable[[int], object] = lambda _: None,
    small: tuple[bytes, bytes] | None = None,
) -> None:
    """Store a file, in one request or in blocks; never more than a few blocks in memory.

    `small` is its content and MD5, if somebody read them already; see `read_small`.
    """
    if small is None:
        try:
            small = await asyncio.to_thread(_read_regular, path, service.config.options.block_size)
        except OSError as error:
            raise local_error(error, path) from error
    if small is not None:
        await upload_bytes(service, small[0], name, how, md5=small[1])
        on_bytes(len(small[0]))
        return
    if await _is_there(service, path, name, how):
        return
    headers = await _headers(service, name, how)
    file = await asyncio.to_thread(path.open, "rb", 0)
    id_length, fitted = _ID_LENGTH, False

    async def attempt() -> None:
        nonlocal id_length, fitted
        await asyncio.to_thread(file.seek, 0)
        fitted = False
        try:
            await _upload_blocks(service, file, path, name, headers, on_bytes, id_length)
        except StorageRequestError as error:
            if error.code == "InvalidBlobOrBlock":
                before, id_length = id_length, await _fitting_length(service, name)
                fitted = id_length != before
            raise

    def starts_over(error: Exception) -> bool:
        return fitted or getattr(error, "code", "") == "InvalidBlockList"

    try:
        await service.whole(attempt, name, "upload", starts_over)
    finally:
        await asyncio.to_thread(file.close)


async def _is_there(service: BlobService, path: Path, name: str, how: StoredProperties) -> bool:
    """Whether the same content is there already, as far as `how` has conditions.

    Blocks whose commit is known to be refused for another content need not be sent for that.
    """
    there = None
    if how.conditions:
        with contextlib.suppress(StorageAccessError):  # a token that may only write
            there = await get_properties(service, name)
    if there is None or (how.etag and how.etag == there.etag):
        return False
    size = (await asyncio.to_thread(path.stat)).st_size
    if there.size == size and there.md5 == await asyncio.to_thread(hash_file, path):
        return True
    status, code = (412, "ConditionNotMet") if how.etag else (409, "BlobAlreadyExists")
    raise request_error(status, code, "", blob=name, operation="upload")


def _read_regular(path: Path, limit: int) -> tuple[bytes, bytes] | None:
    """`read_small` of what has an end: opening a pipe would wait for somebody to write to it."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
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
    return (data, new_md5(data).digest()) if len(data) <= limit else None


async def _fitting_length(service: BlobService, name: str) -> int:
    """The length for ids of blocks that the service takes beside those that others left behind.

    "If a block is uploaded with a block ID of a different length than the block IDs for any
    existing uncommitted blocks, the service returns error response code 400": for a week, or until
    somebody writes the blob. https://learn.microsoft.com/rest/api/storageservices/put-block
    """
    with contextlib.suppress(StorageError):  # a token that may only write, say
        for block_id in await list_blocks(service, name, committed=False):
            return max(len(base64.b64decode(block_id)), _SHORTEST_ID)
    return _ID_LENGTH


async def _upload_blocks(
    service: BlobService,
    file: FileIO,
    path: Path,
    name: str,
    headers: Mapping[str, str],
    on_bytes: Callable[[int], object],
    id_length: int,
) -> None:
    before = os.fstat(file.fileno())
    block_size = service.config.options.block_size_for(before.st_size)
    count = -(-before.st_size // block_size)
    whole = new_md5() if service.config.options.block_md5 else None
    # Ids of one length; fresh for each upload, so that two writers of one blob never mix blocks.
    stem = os.urandom(id_length).hex()[: id_length - 6]
    ids = [_base64(f"{stem}-{i:05d}".encode()) for i in range(count)]
    gate = asyncio.Semaphore(service.config.options.block_concurrency)
    tasks: set[asyncio.Task[None]] = set()

    async def send(block_id: str, data: memoryview, hashed: dict[str, str]) -> None:
        where = {"blockid": block_id, "comp": "block"}
        try:
            await _send(service, Request("PUT", name, "upload of a block", where, hashed, data))
        finally:
            gate.release()
        on_bytes(len(data))

    async with ending(tasks):
        for index, block_id in enumerate(ids):
            await gate.acquire()
            for done in [task for task in tasks if task.done()]:
                tasks.discard(done)
                done.result()
            size = min(block_size, before.st_size - index * block_size)
            data, hashed = await asyncio.to_thread(_read_block, file, size, whole)
            if len(data) < size:  # no service takes an empty block
                raise _changed(path, name)
            tasks.add(asyncio.create_task(send(block_id, data, hashed)))
            del data
        await asyncio.gather(*tasks)
    if not await asyncio.to_thread(_is_at_its_end, file, before):
        raise _changed(path, name)
    digest = whole.digest() if whole is not None else None
    listed = "".join(f"<Latest>{block_id}</Latest>" for block_id in ids)
    body = f'<?xml version="1.0" encoding="utf-8"?><BlockList>{listed}</BlockList>'.encode()
    hashed = {} if digest is None else {"x-ms-blob-content-md5": _base64(digest)}
    request = Request("PUT", name, "upload", {"comp": "blocklist"}, {**headers, **hashed}, body)
    await _write(service, request, before.st_size, digest, ids)


def _is_at_its_end(file: FileIO, before: os.stat_result) -> bool:
    """Whether a file is read whole, and as it was; what the kernel makes up says no size."""
    after = os.fstat(file.fileno())
    same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    return same and not file.read(1)


def _changed(path: Path, name: str) -> LocalFileChangedError:
    return LocalFileChangedError(
        f"{path} changed while it was being uploaded, so nothing was stored; upload it again "
        "when it is complete, or upload a copy",
        blob=name,
        operation="upload",
    )


def _read_block(
    file: FileIO, size: int, whole: "hashlib._Hash | None"
) -> tuple[memoryview, dict[str, str]]:
    """The next block, and the header by which the service checks it; feeds the whole file's hash.

    Hashing costs more than all else. Both hashes take each piece while the processor's cache has
    it, in one thread: with more, they would take turns with what needs the other cores.
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
    return block[:end], {"Content-MD5": _base64(own.digest())}
