"""Which file a URL names, and the label that a downloaded file carries about where it came from.

A path can be asked for again with another URL: a hash collision of short names, a changed
configuration. To know, the client labels each file it downloads with an extended attribute
(`user.infra_core.source`), which costs no second file, moves with the file on a rename and
vanishes when another program replaces it. Where the operating or file system has no extended
attributes, a file simply has no label, and is treated like one that somebody else put there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from dataclasses import dataclass, fields as fields_of
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

__all__ = ["SourceLabel", "read_label", "url_identity", "write_label"]

_ATTRIBUTE: Final = "user.infra_core.source"
_LARGEST: Final = 2048  # bytes; ext4 keeps all attributes of a file in one block
_PLAIN: Final = re.compile(r"https?://[!\"$->@-~]+")  # splitting and joining would not change it
# Query parameters that sign a request and change with every signature, by the one whose
# presence means that they do: Azure SAS, AWS and Google presigned URLs, CloudFront.
_SIGNED: Final = {
    "sig": ("sig", "se", "st", "sp", "sv", "sr", "spr", "sip", "ss", "srt", "skoid", "sktid",
            "skt", "ske", "sks", "skv", "sdd", "ses"),
    "x-amz-signature": ("x-amz-",),
    "x-goog-signature": ("x-goog-",),
    "signature": ("signature", "expires", "key-pair-id", "policy", "awsaccesskeyid",
                  "googleaccessid"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceLabel:
    """Where a file came from, and what it was then."""

    source: str  # `url_identity` of its URL
    size: int
    sha256: str | None = None
    etag: str | None = None
    last_modified: str | None = None


_FIELDS: Final = [field.name for field in fields_of(SourceLabel)]


def url_identity(url: str) -> str:
    """A digest of the file that a URL names.

    The fragment does not count, nor do the parameters of a signature: a new SAS token names the
    same blob. It is a digest so that no secret of a URL is ever stored.
    """
    if _PLAIN.fullmatch(url):
        return hashlib.sha256(url.encode()).hexdigest()
    try:
        parts = urlsplit(url)
    except ValueError:  # the request will say what is wrong with it
        return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    pairs = parse_qsl(parts.query, keep_blank_values=True) if parts.query else []
    names = {name.lower() for name, _ in pairs}
    for signature, signing in _SIGNED.items():
        if signature in names:
            pairs = [
                (name, value)
                for name, value in pairs
                if not any(
                    name.lower().startswith(sign) if sign.endswith("-") else name.lower() == sign
                    for sign in signing
                )
            ]
    plain = urlunsplit((parts.scheme, parts.netloc, parts.path, urlencode(pairs), ""))
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()


def write_label(path: Path, label: SourceLabel) -> None:
    """Label a file; does nothing where there are no extended attributes."""
    if not hasattr(os, "setxattr"):
        return
    values = {name: getattr(label, name) for name in _FIELDS}
    fields = {name: value for name, value in values.items() if value is not None}
    text = json.dumps(fields, separators=(",", ":")).encode()
    if len(text) > _LARGEST:  # an ETag of that size is not worth a failure
        text = json.dumps({"source": label.source, "size": label.size}).encode()
    with contextlib.suppress(OSError):  # no such feature on this file system, or no room for it
        os.setxattr(path, _ATTRIBUTE, text)


def read_label(path: Path) -> SourceLabel | None:
    """The label of a file; None when it has none."""
    if not hasattr(os, "getxattr"):
        return None
    try:
        fields = json.loads(os.getxattr(path, _ATTRIBUTE))
        return SourceLabel(**fields)
    except (OSError, ValueError, TypeError):
        return None
