"""Digests that servers announce in headers, as pairs of algorithm and hex digits.

Sources: RFC 9530 (`Repr-Digest`, `Content-Digest`, in the syntax of RFC 9651), RFC 3230 and 5843
(`Digest`), RFC 1864 (`Content-MD5`), and the documentation of Google Cloud Storage
(`x-goog-hash`) and Azure Blob Storage (`x-ms-blob-content-md5`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final

from infra_core.fs import new_hasher

__all__ = ["Digest", "announced_digests"]

Digest = tuple[str, str]
"""Algorithm as `infra_core.fs` names it, and hex digits."""

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


def announced_digests(fields: Mapping[str, str], *, whole: bool) -> frozenset[Digest]:
    """Read the digests of the whole file, in the form in which the server holds it.

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
