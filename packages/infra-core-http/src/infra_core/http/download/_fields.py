"""Header fields of an answer as the download protocol reads them.

Servers send what no grammar allows: bytes outside of ASCII, numbers of 5,000 digits, tags without
quotes. What cannot be read or sent back is treated as absent; it never ends a download.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from infra_core.fs import new_hasher

from .._response.decode import length_of

__all__ = [
    "Digest",
    "Part",
    "announced_digests",
    "conditions",
    "content_length",
    "content_range",
    "disposition_name",
    "fields_of",
    "media_type_of",
    "strong_etag",
]

# RFC 9110 section 8.8.3, without obs-text: those bytes cannot be sent back as they came.
_ETAG: Final = re.compile(r'(?:W/)?"[\x21\x23-\x7e]*"')
# RFC 9110 section 5.6.7: letters, digits and the separators of its three date formats.
_DATE: Final = re.compile(r"[A-Za-z]{3,9},? [A-Za-z0-9 :+-]{8,40}")
_CONTENT_RANGE: Final = re.compile(
    r"bytes[ \t=]+([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", re.IGNORECASE
)
# RFC 6266 section 4.1, and what servers send in its place: spaces in an unquoted value, no type in
# front. A parameter, whose value may be quoted, or whatever stands up to the next semicolon; a
# comma after a quoted value begins another line of the header.
_PARAMETER: Final = re.compile(
    r'\s*(?:([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*"(?=\s*(?:[;,]|$))|[^;]*)|[^;]*)(?:[;,]|$)'
)
# RFC 8187 section 3.2
_EXTENDED: Final = re.compile(r"(utf-8|iso-8859-1)'[^']*'(.*)", re.IGNORECASE)
_MEDIA_TYPE: Final = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
_KNOWN: Final = {
    "sha-512": ("sha512", 64),
    "sha-256": ("sha256", 32),
    "sha": ("sha1", 20),
    "md5": ("md5", 16),
    "crc32c": ("crc32c", 4),
}
# One member of a dictionary of byte sequences; parameters may follow it.
_STRUCTURED: Final = re.compile(
    r"(?:^|,)[ \t]*([A-Za-z0-9*_.-]+)=:([A-Za-z0-9+/=]*):(?=[ \t]*(?:[;,]|$))"
)
_PLAIN: Final = re.compile(r"(?:^|,)[ \t]*([A-Za-z0-9-]+)=([^,;]*)")
# A proxy has changed the body: RFC 7234 section 5.5.6.
_TRANSFORMED: Final = re.compile(r"(?:^|,)[ \t]*214\b")
Digest = tuple[str, str]
"""Algorithm as `infra_core.fs` names it, and hex digits."""


def fields_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the fields by lower-case name, lines of the same name joined by a comma.

    RFC 9110 section 5.3; equal lines count once, as a proxy may repeat them, but for those of
    Content-Encoding, which may be applied twice. Bytes that are not UTF-8 are read as Latin-1, so
    that the text can be stored anywhere.

    Example:
        >>> fields_of({"ETag": '"v1"'})
        {'etag': '"v1"'}
    """
    lines: dict[str, list[str]] = {}
    # httpx.Headers.items() joins lines by itself
    pairs: Iterable[tuple[str, str]] = getattr(headers, "multi_items", headers.items)()
    for name, value in pairs:
        if not value.isascii():
            raw = value.encode("utf-8", "surrogateescape")
            try:
                raw.decode()
            except UnicodeDecodeError:
                value = raw.decode("latin-1")  # noqa: PLW2901
        name = name.lower()  # noqa: PLW2901
        known = lines.setdefault(name, [])
        if value not in known or name == "content-encoding":
            known.append(value)
    return {name: ", ".join(values) for name, values in lines.items()}


def sendable_etag(etag: object) -> str | None:
    """Return an entity tag, weak or strong, that may be sent in `If-None-Match`."""
    return etag if isinstance(etag, str) and _ETAG.fullmatch(etag) else None


def strong_etag(etag: object) -> str | None:
    """Return the tag if it is a strong one: only those pin bytes (RFC 9110 section 8.8.1)."""
    tag = sendable_etag(etag)
    return None if tag is None or tag.startswith("W/") else tag


def sendable_date(date: object) -> str | None:
    """Return a date that may be sent in `If-Modified-Since`."""
    return date if isinstance(date, str) and _DATE.fullmatch(date) else None


def conditions(etag: object, last_modified: object) -> dict[str, str] | None:
    """Return the headers that ask for another version of a file than these validators are of.

    RFC 9110 section 13.1. None where there are no validators, empty where none can be sent.
    """
    if sendable_etag(etag):
        return {"If-None-Match": str(etag)}
    if sendable_date(last_modified):
        return {"If-Modified-Since": str(last_modified)}
    return None if etag is None and last_modified is None else {}


def content_length(fields: Mapping[str, str]) -> int | None:
    """Return the Content-Length where it says something; chunked transfer overrides it."""
    return None if "transfer-encoding" in fields else length_of([fields.get("content-length", "")])


Part = tuple[int, int, "int | None"]
"""First byte, byte after the last, and size of the file or None."""


def content_range(fields: Mapping[str, str]) -> Part | None:
    """Return the part of the file that a body is (RFC 9110 section 14.4)."""
    match = _CONTENT_RANGE.fullmatch(fields.get("content-range", "").strip(" \t"))
    if match is None:
        return None
    first, stop = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if first >= stop or (total is not None and stop > total):
        return None
    return first, stop, total


def disposition_name(fields: Mapping[str, str]) -> str | None:
    """Return the file name that `Content-Disposition` suggests, without any folders.

    RFC 6266: `filename*` goes before `filename`, unless it cannot be decoded (RFC 8187). The name
    is what a server says: it may hold characters that a file system refuses.

    Example:
        >>> disposition_name({"content-disposition": "inline; filename*=UTF-8''a%20b.txt"})
        'a b.txt'
    """
    header = fields.get("content-disposition")
    if not header:
        return None
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, value = (match[1] or "").lower(), (match[2] or "").strip()
        if name == "filename*":
            extended = _EXTENDED.fullmatch(value.strip('"'))
            try:
                value = unquote(extended[2], extended[1], "strict") if extended else ""
            except UnicodeDecodeError:
                value = ""
        elif name == "filename":
            if value.startswith('"'):
                value = re.sub(r'\\(["\\])', r"\1", value[1:].removesuffix('"'))
            value = _unescaped(value)
        found.setdefault(name, re.split(r"[/\\]", value)[-1].strip())
    name = found.get("filename*") or found.get("filename") or ""
    return None if not name.strip(" .") else name


def _unescaped(name: str) -> str:
    """Undo the escapes that browsers undo too, though no rule allows them in a plain name."""
    try:
        if not name.startswith("=?"):
            return unquote(name, errors="strict")
        from email.header import decode_header, make_header  # RFC 2047

        return str(make_header(decode_header(name)))
    except Exception:  # noqa: BLE001 - of malformed ones, email raises several kinds
        return name


def media_type_of(content_type: str | None) -> str | None:
    """Return the media type without its parameters; None where it is none."""
    name = (content_type or "").partition(";")[0].strip().lower()
    return name if _MEDIA_TYPE.fullmatch(name) else None


def announced_digests(fields: Mapping[str, str], *, whole: bool) -> frozenset[Digest]:
    """Read the digests of the whole file, in the form in which the server holds it.

    Sources: RFC 9530 (`Repr-Digest`, `Content-Digest`, in the syntax of RFC 9651), RFC 3230 and
    5843 (`Digest`), RFC 1864 (`Content-MD5`), and the documentation of Google Cloud Storage
    (`x-goog-hash`) and Azure Blob Storage (`x-ms-blob-content-md5`).

    What cannot be read is left out: a digest in a form of its own is no reason to refuse a file.
    Left out as well are digests of a stored object that was decoded or changed on its way. Where
    the body is not the whole file, `Content-MD5` and `Content-Digest` are those of that part.

    Example:
        >>> announced_digests({"content-md5": "kAFQmDzST7DWlj99KOF/cg=="}, whole=True)
        frozenset({('md5', '900150983cd24fb0d6963f7d28e17f72')})
    """
    found: set[Digest] = set()
    for name, text in _candidates(fields, whole=whole):
        algorithm, size = _KNOWN.get(name.lower(), ("", 0))
        value = text.strip(" \t'\"")
        try:
            raw = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
            new_hasher(algorithm)  # CRC32C is known where `google-crc32c` is installed
        except ValueError:
            continue
        if len(raw) == size:
            found.add((algorithm, raw.hex()))
    return frozenset(found)


def _candidates(fields: Mapping[str, str], *, whole: bool) -> Iterator[Digest]:
    if whole:
        yield from _STRUCTURED.findall(fields.get("content-digest", ""))
    if _was_changed(fields):
        return
    yield from _STRUCTURED.findall(fields.get("repr-digest", ""))
    for name in ("digest", "x-goog-hash"):
        yield from _PLAIN.findall(fields.get(name, ""))
    for name in ("x-ms-blob-content-md5", "content-md5") if whole else ("x-ms-blob-content-md5",):
        for text in fields.get(name, "").split(","):
            yield "md5", text


def _was_changed(fields: Mapping[str, str]) -> bool:
    """Whether the body is not what was stored, such as an object that GCS has decompressed.

    https://cloud.google.com/storage/docs/transcoding: the digests stay those of the stored object.
    """
    sent = fields.get("content-encoding", "identity").lower()
    return (
        fields.get("x-goog-stored-content-encoding", sent).lower() != sent
        or "x-guploader-response-body-transformations" in fields
        or _TRANSFORMED.search(fields.get("warning", "")) is not None
    )
