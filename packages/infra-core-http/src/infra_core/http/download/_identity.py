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
import logging
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from infra_core.fs import compute_checksum, file_hexdigest, media_type, parse_checksum
from infra_core.runtime import sanitize_url, trace_fields

from ._result import DownloadResult

if TYPE_CHECKING:
    from ._result import DownloadSpec

__all__ = ["SourceLabel", "inspect_existing", "read_label", "url_identity", "write_label"]

_logger = logging.getLogger("infra_core.asset_client")
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


def write_label(path: Path | int, label: SourceLabel) -> None:
    """Label a file; does nothing where there are no extended attributes."""
    if not hasattr(os, "setxattr"):
        return
    fields = {name: value for name, value in asdict(label).items() if value is not None}
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


def inspect_existing(spec: DownloadSpec, size: int) -> DownloadResult | None:
    """Judge the file at the destination; blocking, it may hash all of it.

    - An empty file: None.
    - With `expected_checksum` the content alone decides.
    - A file labelled with another URL belongs to that one, and is not reused.
    - Any other file is reused, as 0.7 did: somebody may have put it there for this purpose.

    Returns:
        What to return if it is reused: with its validators where it is unchanged since we
        downloaded it from the same URL. None where it may not be.
    """
    if size == 0:
        return None
    label = read_label(spec.dest)
    ours = label is None or label.source == url_identity(spec.url)
    if spec.expected_checksum is None and not ours:
        _logger.warning(
            "%s belongs to another URL and is downloaded anew; give each URL a path of its own, "
            "e.g. with infra_core.fs.unique_asset_path",
            spec.dest,
            extra={"url": sanitize_url(spec.url), "path": str(spec.dest), **trace_fields()},
        )
        return None
    checksum = None
    if spec.compute_checksum or spec.revalidate:
        checksum = compute_checksum(spec.dest)
    if spec.expected_checksum is not None:
        algorithm, wanted = parse_checksum(spec.expected_checksum)
        if checksum is not None and algorithm == "sha256":
            matches = checksum == f"sha256:{wanted}"
        else:
            matches = file_hexdigest(spec.dest, algorithm) == wanted
        if not matches:
            return None
        label = None
    if label is not None and (label.size, f"sha256:{label.sha256}") != (size, checksum):
        label = None
    return DownloadResult(
        spec.dest,
        checksum if spec.compute_checksum else None,
        media_type(spec.dest.name),
        reused=True,
        size=size,
        etag=None if label is None else label.etag,
        last_modified=None if label is None else label.last_modified,
    )
