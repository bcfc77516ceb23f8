"""What to do with each file of a tree. The decisions are pure; plan and transfer share them."""

import os
import stat
from pathlib import Path
from typing import Literal

from ._blobs import BlobInfo
from ._tree_types import LocalFile, PlannedTransfer, TreeRules

__all__ = ["decide", "decide_by_hash", "local_state"]


def decide(
    direction: Literal["up", "down"],
    rules: TreeRules,
    name: str,
    source_size: int,
    there: BlobInfo | LocalFile | None,
    md5: bytes | None,
) -> PlannedTransfer | None:
    """What to do with a file of the source, given what the destination has of that name.

    Args:
        direction: Which way.
        rules: The rules.
        name: Relative name.
        source_size: Bytes at the source.
        there: The file or blob at the destination.
        md5: Hash stored with the blob, whichever side that is.

    Returns:
        The decision; `None` when it depends on the hash of the local file: see `decide_by_hash`.

    Example:
        >>> decide("up", TreeRules(), "a.txt", 3, None, None).reason
        'new'
    """
    move: Literal["upload", "download"] = "upload" if direction == "up" else "download"
    if there is None:
        return PlannedTransfer(move, name, source_size, "new")
    if rules.overwrite == "never":
        return PlannedTransfer("keep", name, source_size, "exists, and overwrite is 'never'")
    if rules.compare == "nothing":
        return PlannedTransfer(move, name, source_size, "replaces what is there")
    if there.size != source_size:
        return PlannedTransfer(move, name, source_size, "size differs")
    if rules.compare == "size":
        return PlannedTransfer("skip", name, source_size, "same size")
    if md5 is None:
        return PlannedTransfer(move, name, source_size, "no hash is stored to compare with")
    return None


def decide_by_hash(
    direction: Literal["up", "down"], name: str, size: int, local: bytes, stored: bytes
) -> PlannedTransfer:
    """The rest of `decide`, once the local file is hashed."""
    if local == stored:
        return PlannedTransfer("skip", name, size, "same content")
    return PlannedTransfer(
        "upload" if direction == "up" else "download", name, size, "content differs"
    )


def local_state(path: Path, name: str) -> tuple[LocalFile | None, bool]:
    """The regular file at a path, and whether a link stands there instead."""
    try:
        status = os.lstat(path)
    except OSError:  # nothing is there, or not to be reached: then writing fails, and says why
        return None, False
    if stat.S_ISLNK(status.st_mode):
        return None, True
    return LocalFile(name, path, status.st_size, status.st_mtime_ns), False
