"""What can be done with blobs in one request each: look, list, delete, make the container."""

import asyncio
import base64
import binascii
import contextlib
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from ._errors import (
    BlobConflictError,
    BlobNotFoundError,
    IntegrityError,
    StorageAccessError,
    StorageError,
    StorageRequestError,
)
from ._service import BlobService, Request

__all__ = [
    "BlobContent",
    "BlobInfo",
    "create_container",
    "delete_blob",
    "get_properties",
    "is_folder",
    "list_pages",
    "read_blob",
]

RESOURCE_TYPE = "x-ms-resource-type"
_META = "x-ms-meta-"
_FOLDER_MARKS = ("hdi_isfolder", "asv_isfolder")
PAGE = 5000  # most that the service gives at a time
# Characters that XML cannot hold. The service encodes them; Azurite sends them as they are.
_ILLEGAL = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]|&#(x[0-9a-fA-F]{1,6}|[0-9]{1,7});"
)


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob as the service describes it.

    Attributes:
        name: Its name; in listings of a tree relative to that tree.
        size: Bytes.
        md5: Hash of its content as stored with it, `None` when none is.
        etag: Changes with each write.
        content_type: Media type stored with it.
        last_modified: When it was written, UTC.
        blob_type: `BlockBlob`, `AppendBlob` or `PageBlob`.
        cache_control: `Cache-Control` that it is served with.
        content_encoding: `Content-Encoding` that it is served with.
        content_language: `Content-Language` that it is served with.
        content_disposition: `Content-Disposition` that it is served with.
        metadata: Names, in lower case, and values.
    """

    name: str
    size: int
    md5: bytes | None = None
    etag: str = ""
    content_type: str = ""
    last_modified: datetime | None = None
    blob_type: str = ""
    cache_control: str = ""
    content_encoding: str = ""
    content_language: str = ""
    content_disposition: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)


def info_from_headers(name: str, headers: Mapping[str, str], *, with_time: bool = True) -> BlobInfo:
    """The blob that the headers of an answer describe."""
    content_range = headers.get("Content-Range", "")
    size = content_range.rpartition("/")[2] or headers.get("Content-Length", "")
    ranged = "x-ms-blob-content-md5" in headers or content_range
    md5 = headers.get("x-ms-blob-content-md5" if ranged else "Content-MD5")
    return BlobInfo(
        name,
        _size(size, name),
        decode_md5(md5),
        headers.get("ETag", ""),
        _text(headers.get("Content-Type", "")),
        _parse_time(headers.get("Last-Modified")) if with_time else None,
        headers.get("x-ms-blob-type", ""),
        _text(headers.get("Cache-Control", "")),
        _text(headers.get("Content-Encoding", "")),
        _text(headers.get("Content-Language", "")),
        _text(headers.get("Content-Disposition", "")),
        {
            key[len(_META) :].lower(): _text(value)
            for key, value in headers.items()
            if key[: len(_META)].lower() == _META
        },
    )


def _size(text: str, name: str) -> int:
    """The size that an answer gives; 0 where it gives none."""
    if text and not text.isdecimal():
        raise IntegrityError(
            f"the size of {name!r} is given as {text!r:.80}, which is not a number of bytes",
            blob=name,
            operation="look-up",
            remedy="a proxy in between may be at fault: try without it (NO_PROXY)",
        )
    return int(text or 0)


def _text(value: str) -> str:
    """A header's text: Latin-1 where it is not UTF-8, as the SDK writes and reads it."""
    try:
        value.isascii() or value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape").decode("latin-1")
    return value


def is_folder(metadata: Mapping[str, str], resource_type: str, size: int) -> bool:
    """Whether a blob stands for a folder and not for a file; names of metadata are in lower case.

    Accounts with a hierarchical namespace say so by a property; Hadoop's drivers (`wasb`, `abfs`)
    and the tools that learned from them by metadata, in any case. Where a blob has content all the
    same, that is not left out of a mirror: metadata may have been copied to it.
    """
    return resource_type.lower() == "directory" or (
        not size and any(metadata.get(name, "").lower() == "true" for name in _FOLDER_MARKS)
    )


def decode_md5(text: str | None) -> bytes | None:
    """The 16 bytes of a Content-MD5, `None` for nothing or nonsense."""
    if not text:
        return None
    try:
        digest = base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 16 else None


@lru_cache(maxsize=1024)  # a page repeats the seconds in which its blobs were written
def _parse_time(text: str | None) -> datetime | None:
    if not text:
        return None
    try:
        return parsedate_to_datetime(text).astimezone(timezone.utc)
    except (TypeError, ValueError):
        return None


async def get_properties(service: BlobService, name: str) -> BlobInfo | None:
    """The properties of a blob, `None` when there is none, or it stands for a folder."""
    try:
        response = await service.send(Request("HEAD", name, "look-up"))
    except BlobNotFoundError:
        return None
    info = info_from_headers(name, response.headers)
    resource_type = response.headers.get(RESOURCE_TYPE, "")
    return None if is_folder(info.metadata, resource_type, info.size) else info


class BlobContent(NamedTuple):
    """The content of a small blob.

    Attributes:
        data: Its bytes.
        age_seconds: Time since it was written, both moments by the clock of the service
            (`Last-Modified` and `Date`); `None` when the answer does not say.
    """

    data: bytes
    age_seconds: float | None


async def read_blob(service: BlobService, name: str) -> BlobContent | None:
    """Fetch a small blob in one request, `None` when there is none."""
    try:
        response = await service.send(Request("GET", name, "download"))
    except BlobNotFoundError:
        return None
    now, written = (_parse_time(response.headers.get(n)) for n in ("Date", "Last-Modified"))
    age = (now - written).total_seconds() if now and written else None
    return BlobContent(response.body, age)


async def list_blocks(service: BlobService, name: str, *, committed: bool = True) -> list[str]:
    """The ids of the blocks of a blob, in order, or of those that wait for a commit."""
    kind = "committed" if committed else "uncommitted"
    params = {"blocklisttype": kind, "comp": "blocklist"}
    response = await service.send(Request("GET", name, "look-up", params=params))
    tree = ET.fromstring(response.body)  # noqa: S314 - expat resolves no entities
    return [block.text or "" for block in tree.iterfind(f"{kind.title()}Blocks/Block/Name")]


async def delete_blob(service: BlobService, name: str, *, etag: str | None = None) -> bool:
    """Delete a blob, if it still has the ETag; returns whether it was there."""
    headers = {"x-ms-delete-snapshots": "include"}
    if etag:
        headers["If-Match"] = etag
    try:
        await service.send(Request("DELETE", name, "deletion", headers=headers))
    except BlobNotFoundError:
        return False
    except BlobConflictError as error:
        if not (etag and error.by_condition):
            raise
        # Nothing has the ETag where another deletion, or an earlier try of this one, was faster.
        with contextlib.suppress(StorageAccessError):  # a token that may only delete
            if await get_properties(service, name) is None:
                return False
        raise
    return True


async def create_container(service: BlobService) -> bool:
    """Make the container, unless somebody else was faster; False when we may not."""
    try:
        await service.send(Request("PUT", None, "creation", params={"restype": "container"}))
    except BlobConflictError as error:
        if error.code == "ContainerBeingDeleted":
            raise
    except StorageRequestError as error:
        if error.status in (401, 403):
            return False
        raise
    return True


async def list_pages(
    service: BlobService, prefix: str, *, page_size: int = PAGE, folders: bool = False
) -> AsyncIterator[list[BlobInfo]]:
    """Blobs whose names begin with `prefix`, page by page, named relative to it.

    What stands for a folder (see `is_folder`, and empty blobs whose name ends in a slash) is left
    out, or with `folders` all else. A container that does not exist lists nothing.

    Raises:
        StorageError: The service refuses, does not answer, or comes to no end. A container that is
            deleted meanwhile is one that refuses: half a listing must not pass for a whole one.
    """
    marker = ""
    while True:
        params = {
            "comp": "list",
            "include": "metadata",
            "maxresults": str(page_size),
            "restype": "container",
        }
        if prefix:
            params["prefix"] = prefix
        if marker:
            params["marker"] = marker
        try:
            response = await service.send(
                Request("GET", None, "listing", params=params, expect=4 << 20)
            )
        except BlobNotFoundError:
            if marker:
                raise
            return
        before = marker
        blobs, marker = await asyncio.to_thread(
            parse_page, response.body, len(prefix), folders=folders
        )
        if blobs:
            yield blobs
        if not marker:
            return
        if marker == before:
            raise StorageError(
                f"the listing comes to no end: its page after {marker!r:.80} is followed by itself",
                operation="listing",
                remedy="check that the endpoint is a blob service, and the proxies in between",
            )


def parse_page(
    content: bytes, start: int = 0, *, folders: bool = False
) -> tuple[list[BlobInfo], str]:
    """The blobs of one page of a listing, named from `start` on, and the marker of the next one."""
    try:
        tree = ET.fromstring(content)  # noqa: S314 - expat resolves no entities
    except ET.ParseError:
        try:
            tree = ET.fromstring(_ILLEGAL.sub(_stand_in, content))  # noqa: S314
        except ET.ParseError as error:
            raise StorageError(
                f"the listing is not XML ({error}); check that the endpoint is a blob service",
                operation="listing",
            ) from error
    if tree.tag != "EnumerationResults":
        raise StorageError(
            f"the listing is <{tree.tag:.80}>; check that the endpoint is a blob service",
            operation="listing",
        )
    blobs = []
    for item in tree.iterfind("Blobs/Blob"):
        # plain loops: searching by path costs more than all the rest of a page
        parts = {part.tag: part for part in item}
        named = parts.get("Name")
        if named is None or not named.text:
            continue
        name = unquote(named.text) if named.get("Encoded") == "true" else named.text
        found = {child.tag: child.text or "" for child in parts.get("Properties", ())}
        size = _size(found.get("Content-Length", ""), name)
        metadata = {child.tag.lower(): child.text or "" for child in parts.get("Metadata", ())}
        resource_type = found.get("ResourceType", "")
        marker = is_folder(metadata, resource_type, size) or (name[-1] == "/" and not size)
        if marker is not folders:
            continue
        etag = found.get("Etag") or found.get("ETag") or ""
        blobs.append(
            BlobInfo(
                name[start:],
                size,
                decode_md5(found.get("Content-MD5")),
                etag if etag.startswith(('"', "W/")) or not etag else f'"{etag}"',
                found.get("Content-Type", ""),
                _parse_time(found.get("Last-Modified")),
                found.get("BlobType", ""),
                found.get("Cache-Control", ""),
                found.get("Content-Encoding", ""),
                found.get("Content-Language", ""),
                found.get("Content-Disposition", ""),
                metadata,
            )
        )
    return blobs, tree.findtext("NextMarker") or ""


def _stand_in(match: "re.Match[bytes]") -> bytes:
    """What no XML may hold as what no file name of ours may (U+0080 to U+009F)."""
    digits = match[1] or b"0"
    code = int(digits[1:], 16) if digits[:1] == b"x" else int(digits)
    if code in (9, 10, 13) or (code >= 0x20 and code not in (0xFFFE, 0xFFFF)):
        return match[0]
    return b"\xc2\x80"
