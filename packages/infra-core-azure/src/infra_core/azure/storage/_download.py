"""Fetching one blob: in ranges pinned to one version, hashed on the way, whole or not at all."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from infra_core.fs import AtomicFile
from infra_core.runtime import ThreadBatcher

from ._blobs import RESOURCE_TYPE, BlobInfo, decode_md5, info_from_headers, is_folder
from ._bounded import FileToWrite, batch_writer, ending
from ._errors import (
    BlobConflictError,
    BlobNotFoundError,
    IntegrityError,
    StorageRequestError,
    error_of,
    request_error,
)
from ._service import BlobService, Request, Response
from ._upload import new_md5

__all__ = ["download_blob"]

# "When this header is set to true and specified together with the Range header, the service returns
# the MD5 hash for the range, as long as the range is less than or equal to 4 mebibytes (MiB) in
# size." https://learn.microsoft.com/rest/api/storageservices/get-blob
_HASHED = "x-ms-range-get-content-md5"
_MAX_HASHED = 4 << 20


async def download_blob(
    service: BlobService,
    name: str,
    path: Path,
    *,
    known: BlobInfo | None = None,
    writer: ThreadBatcher[FileToWrite] | None = None,
    before_commit: Callable[[], object] = lambda: None,
    on_bytes: Callable[[int], object] = lambda _: None,
) -> bool:
    """Write a blob to a file that appears whole, verified, or not at all; False without a blob.

    Length, range and MD5 are checked: that of the whole blob, or where none is stored that of each
    range, which the service computes. A blob that is replaced meanwhile is fetched again from the
    start; of an append blob that grows, what it held at the beginning is fetched.

    Args:
        service: Where from.
        name: Name of the blob.
        path: The file; see `AtomicFile` for temporary names, permissions and durability.
        known: What a listing said, which saves asking for the size; its name does not matter.
        writer: What writes small files; one for a tree flushes many at once.
        before_commit: Called, in a thread, before the file appears; may raise to prevent it.
        on_bytes: Called with the number of bytes whenever some have arrived.
    """
    once = partial(
        _download_once, service, name, path, writer or batch_writer(), before_commit, on_bytes
    )
    came: bytes | None = None  # the MD5 of content that did not fit the stored one
    listed = known

    async def attempt() -> None:
        nonlocal came, listed
        info, listed = listed, None
        while True:
            try:
                return await once(info, came)
            except _MismatchError as error:
                before, came = came, error.md5
                if before is not None:
                    raise
                # Again, at once: was it altered on the way, or stored so?

    try:
        await service.whole(attempt, name, "download", _starts_over)
    except BlobNotFoundError:
        return False
    return True


def _starts_over(error: Exception) -> bool:
    """Single requests are retried below; here only what makes the whole file worthless."""
    if isinstance(error, BlobConflictError):  # replaced since its first range: If-Match says so
        return error.status == 412 and error.code in ("ConditionNotMet", "")
    return isinstance(error, IntegrityError) and not error.permanent


async def _download_once(
    service: BlobService,
    name: str,
    path: Path,
    writer: ThreadBatcher[FileToWrite],
    before_commit: Callable[[], object],
    on_bytes: Callable[[int], object],
    known: BlobInfo | None,
    came: bytes | None,
) -> None:
    response, info = await _first_part(service, name, known)
    first = response.body
    check = partial(_check, service, name, info, came)
    if len(first) == info.size:
        await writer(
            FileToWrite(
                path, first, lambda: check(len(first), new_md5(first).digest()), before_commit
            )
        )
        on_bytes(info.size)
        return
    file = await asyncio.to_thread(AtomicFile, path)
    # Of a blob without MD5 each range has been hashed already.
    md5 = new_md5() if info.md5 is not None and service.config.options.block_md5 else None

    async def take(part: bytes) -> None:
        work: list[Awaitable[object]] = [asyncio.to_thread(file.write, part)]
        if md5 is not None:  # takes as long as writing, or longer: side by side
            work.append(asyncio.to_thread(md5.update, part))
        await asyncio.gather(*work)
        on_bytes(len(part))

    try:
        await take(first)
        async for part in _ranges(service, info, len(first), _created(response)):
            await take(part)
        check(file.size, md5.digest() if md5 is not None else None)
        await asyncio.to_thread(lambda: (before_commit(), file.commit()))
    finally:
        file.abort()  # does nothing after the commit


async def _first_part(
    service: BlobService, name: str, known: BlobInfo | None
) -> tuple[Response, BlobInfo]:
    """The whole blob if it fits a block, else its first block."""
    step = service.config.options.block_size
    headers: dict[str, str] = {}
    if known is not None:
        step, headers = _step(service, known)
        if known.etag and known.blob_type != "AppendBlob":
            headers["If-Match"] = known.etag
    if known is None or known.size > step or _HASHED in headers:
        headers["x-ms-range"] = f"bytes=0-{step - 1}"
    size = step if known is None else known.size
    request = Request("GET", name, "download", headers=headers, expect=size)
    try:
        response = await service.send(request)
    except StorageRequestError as error:
        if error.status != 416:  # an empty blob has no ranges
            raise
        response = await service.send(Request("GET", name, "download"))
    if known is not None and known.etag and known.etag == response.headers.get("ETag"):
        # listed a moment ago, and not as a folder
        info = known if response.status == 200 else replace(known, name=name)
    else:
        info = info_from_headers(name, response.headers, with_time=False)
        if response.status == 200 and "Content-Length" not in response.headers:
            info = replace(info, size=len(response.body))  # in chunks, whose end the engine checks
    if is_folder(info.metadata, response.headers.get(RESOURCE_TYPE, ""), info.size):
        raise request_error(404, "BlobNotFound", "it is a folder", blob=name, operation="download")
    if response.status == 206:
        if known is None and _HASHED in _step(service, info)[1]:
            return await _first_part(service, name, info)  # again, now with what verifies it
        await _check_range(service, response, info, 0, min(step, info.size), _HASHED in headers)
    elif len(response.body) != info.size:
        raise error_of(
            IntegrityError,
            "download",
            name,
            f"brought {len(response.body)} bytes of {info.size}",
            "run it again; if it happens every time, look at the proxies in between",
        )
    return response, info


def _created(response: Response) -> str:
    """When an append blob was made: one that grows is the same, another in its place is not.

    Empty for other blobs, which cannot grow.
    """
    appended = response.headers.get("x-ms-blob-type") == "AppendBlob"
    return response.headers.get("x-ms-creation-time", "") if appended else ""


def _step(service: BlobService, info: BlobInfo) -> tuple[int, dict[str, str]]:
    """How much of a blob to fetch at a time, and the headers for that.

    Of a blob that is stored without MD5 the service hashes each range by itself.
    """
    step = service.config.options.block_size
    hashed = service.hashes_ranges and (info.size <= step or service.config.options.block_md5)
    if info.md5 is not None or not info.size or not hashed:
        return step, {}
    return min(step, _MAX_HASHED), {_HASHED: "true"}


async def _ranges(
    service: BlobService, info: BlobInfo, start: int, created: str
) -> AsyncIterator[bytes]:
    """The rest of a blob in order, several ranges under way, all of the version of `info`."""
    step, headers = _step(service, info)
    if info.etag and not created:
        headers["If-Match"] = info.etag
    under_way: deque[asyncio.Task[bytes]] = deque()
    async with ending(under_way):
        while start < info.size or under_way:
            while start < info.size and len(under_way) < service.config.options.block_concurrency:
                end = min(start + step, info.size)
                part = _range(service, info, start, end, headers, created)
                under_way.append(asyncio.create_task(part))
                start = end
            yield await under_way[0]
            under_way.popleft()


async def _range(
    service: BlobService,
    info: BlobInfo,
    start: int,
    end: int,
    headers: dict[str, str],
    created: str,
) -> bytes:
    headers = {**headers, "x-ms-range": f"bytes={start}-{end - 1}"}
    response = await service.send(
        Request("GET", info.name, "download", headers=headers, expect=end - start)
    )
    size = response.headers.get("Content-Range", "").rpartition("/")[2]
    if created and created == _created(response) and size.isdecimal():  # it may have grown
        info = replace(info, size=max(info.size, int(size)))
    await _check_range(service, response, info, start, end, _HASHED in headers)
    return response.body


async def _check_range(
    service: BlobService, response: Response, info: BlobInfo, start: int, end: int, hashed: bool
) -> None:
    expected = f"bytes {start}-{end - 1}/{info.size}"
    actual = response.headers.get("Content-Range", "no range")
    if response.status != 206 or actual != expected or len(response.body) != end - start:
        raise error_of(
            IntegrityError,
            "download",
            info.name,
            f"asked for {expected} and got {actual} with {len(response.body)} bytes",
            "a proxy in between may be at fault: try without it (NO_PROXY)",
        )
    if not hashed:
        return
    claimed = decode_md5(response.headers.get("Content-MD5"))
    if claimed is None:
        service.hashes_ranges = False  # a service that does not know the header: length must do
        return
    md5 = await asyncio.to_thread(lambda: new_md5(response.body).digest())
    if md5 != claimed:
        raise error_of(
            IntegrityError,
            "download",
            info.name,
            f"brought {expected} with MD5 {md5.hex()}, where the service read {claimed.hex()}",
            "something in between alters bytes: use https, and look at the proxies",
        )


class _MismatchError(IntegrityError):
    """The content, of this `md5`, does not fit the one that is stored with it."""

    md5 = b""


def _check(
    service: BlobService,
    name: str,
    info: BlobInfo,
    before: bytes | None,
    size: int,
    md5: bytes | None,
) -> None:
    """Refuse content that is not what is stored; `before` is the MD5 of what came instead."""
    if size == info.size and (md5 is None or info.md5 is None or md5 == info.md5):
        return
    came, stored = (value.hex() if value else "none" for value in (md5, info.md5))
    if size != info.size or md5 != before:
        kind = IntegrityError if size != info.size else _MismatchError
        error = error_of(
            kind,
            "download",
            name,
            f"brought {size} bytes with MD5 {came}, where {info.size} bytes with MD5 {stored} are "
            "stored",
            "if it happens every time, the blob is damaged: upload it again",
        )
        if isinstance(error, _MismatchError):
            error.md5 = md5 or b""
        raise error
    if service.config.options.accept_wrong_md5:
        service.log.warning(
            "download of %r came twice with MD5 %s, and is accepted although %s is stored",
            name,
            came,
            stored,
            extra={"blob_name": name},
        )
        return
    final = error_of(
        IntegrityError,
        "download",
        name,
        f"brought the same bytes twice, with MD5 {came}: the MD5 that is stored, {stored}, was "
        "wrong from the start",
        f"upload it again, or accept it with {service.config.variable('accept_wrong_md5')}=true "
        "(`infra-core mirror down --accept-wrong-md5`)",
    )
    final.permanent = True
    raise final
