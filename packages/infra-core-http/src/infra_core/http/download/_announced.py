"""Digests of a file that servers announce in headers, all in the form algorithm to hex."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Final

__all__ = ["announced_digests"]

# The names of RFC 9530 (and of the older Digest header, RFC 3230) and their sizes in bytes.
_KNOWN: Final = {"sha-256": ("sha256", 32), "sha-512": ("sha512", 64), "md5": ("md5", 16)}
_STRUCTURED: Final = re.compile(r"([A-Za-z0-9-]+)=:([A-Za-z0-9+/=]*):")
_PLAIN: Final = re.compile(r"([A-Za-z0-9-]+)=([A-Za-z0-9+/]+=*)")


def announced_digests(headers: Mapping[str, str], *, whole: bool) -> dict[str, str]:
    """Read the digests of the whole file from the headers of an answer.

    Known are `Repr-Digest` (RFC 9530), `Digest` (RFC 3230), `x-goog-hash` (Google Cloud Storage),
    `x-ms-blob-content-md5` and, for a whole body, `Content-MD5` (Azure Blob Storage). What cannot
    be read is left out: a digest in a form of its own is no reason to refuse a file.

    Args:
        headers: Header fields by lower-case name.
        whole: Whether the body is the whole file; the `Content-MD5` of a part is of that part.

    Example:
        >>> announced_digests({"content-md5": "kAFQmDzST7DWlj99KOF/cg=="}, whole=True)
        {'md5': '900150983cd24fb0d6963f7d28e17f72'}
    """
    md5 = headers.get("x-ms-blob-content-md5") or (headers.get("content-md5") if whole else None)
    candidates = [("md5", md5 or "")]
    candidates += _PLAIN.findall(headers.get("x-goog-hash", ""))
    candidates += _PLAIN.findall(headers.get("digest", ""))
    candidates += _STRUCTURED.findall(headers.get("repr-digest", ""))
    found: dict[str, str] = {}
    for name, text in candidates:
        algorithm, size = _KNOWN.get(name.lower(), ("", 0))
        try:
            raw = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            continue
        if algorithm and len(raw) == size:
            found[algorithm] = raw.hex()
    return found
