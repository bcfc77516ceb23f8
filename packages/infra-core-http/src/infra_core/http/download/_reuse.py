"""Whether a file that is there already may stand for the one that is asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infra_core.fs import compute_checksum, file_hexdigest, parse_checksum
from infra_core.runtime import sanitize_url, trace_fields

from ._identity import SourceLabel, read_label, url_identity

if TYPE_CHECKING:
    import os

    from ._result import DownloadSpec

__all__ = ["Existing", "inspect_existing"]

_logger = logging.getLogger("infra_core.asset_client")


@dataclass(frozen=True, slots=True)
class Existing:
    """A file at the destination.

    Attributes:
        size: Bytes.
        checksum: `sha256:...` when it was computed.
        reusable: Whether it may be returned with no request made.
        label: Set when it is unchanged since we downloaded it from the same URL: its validators
            may be used to ask the server whether it is current.
    """

    size: int
    checksum: str | None
    reusable: bool
    label: SourceLabel | None


def inspect_existing(spec: DownloadSpec, status: os.stat_result) -> Existing | None:
    """Judge what is at the destination; blocking, it may hash the whole file.

    - An empty file: None.
    - With `expected_checksum` the content alone decides.
    - A file labelled with another URL belongs to that one, and is not reused.
    - Any other file is reused, as 0.7 did: somebody may have put it there for this purpose.

    Args:
        spec: What is asked for.
        status: What `stat` says of the destination.
    """
    if status.st_size == 0:
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
        return Existing(status.st_size, checksum, reusable=True, label=None)
    pinned = (
        label is not None
        and label.size == status.st_size
        and checksum == f"sha256:{label.sha256}"
        and (label.etag is not None or label.last_modified is not None)
    )
    return Existing(
        status.st_size,
        checksum,
        reusable=not spec.revalidate,
        label=label if pinned else None,
    )
