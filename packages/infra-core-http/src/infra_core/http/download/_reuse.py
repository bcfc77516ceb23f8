"""Whether a file that is there already may stand for the one that is asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from infra_core.fs import compute_checksum, file_hexdigest, media_type, parse_checksum
from infra_core.runtime import sanitize_url, trace_fields

from ._identity import read_label, url_identity
from ._result import DownloadResult

if TYPE_CHECKING:
    from ._result import DownloadSpec

__all__ = ["inspect_existing"]

_logger = logging.getLogger("infra_core.asset_client")


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
