"""Names of partial files: unique, hidden, recognisable, never too long."""

import os
import re
import time
from pathlib import Path, PurePath
from typing import Final

from ._names import shorten

__all__ = ["is_partial", "remove_stale_partials", "temp_name"]

_STEM_BYTES: Final = 60
_SUFFIX_BYTES: Final = 16
_FORM: Final = re.compile(r"\..*\.[0-9a-f]{16}\.part(\.[^.]*)?", re.DOTALL)


def temp_name(name: str) -> str:
    """Return a new name for the partial form of `name`, with its extension kept.

    Tools that choose by extension (decoders, virus scanners) treat the partial file alike.
    """
    before, _, extension = name.rpartition(".")
    suffix = f".{extension}" if before and extension else ""
    if len(os.fsencode(suffix)) > _SUFFIX_BYTES:
        suffix = ""
    stem = shorten(name.removesuffix(suffix), _STEM_BYTES)
    return f".{stem}.{os.urandom(8).hex()}.part{suffix}"


def is_partial(path: "str | PurePath") -> bool:
    """Say whether a name is that of a partial file of `AtomicFile`.

    Code that lists a folder while others write to it (manifests, mirrors) skips these.

    Example:
        >>> is_partial(".logo.0123456789abcdef.part.png"), is_partial("logo.png")
        (True, False)
    """
    return _FORM.fullmatch(PurePath(path).name) is not None


def remove_stale_partials(folder: "Path | str", *, older_than: float = 86_400.0) -> list[Path]:
    """Remove partial files that killed writers left in a folder.

    A writer that raises or is cancelled removes its own; one that is killed cannot. The age is
    counted from the last write, so a slow download that is alive is not touched.

    Args:
        folder: The folder to look in; folders below it are left alone.
        older_than: Seconds since the last write. One day by default.

    Returns:
        The files removed; empty when the folder does not exist.

    Raises:
        ValueError: `older_than` is negative, or no number.
        OSError: The folder cannot be read, or a file not be removed.

    Example:
        >>> remove_stale_partials(tempfile.mkdtemp())
        []
    """
    if not (isinstance(older_than, (int, float)) and older_than >= 0):  # NaN is refused as well
        raise ValueError(
            f"older_than must be 0 or more seconds, not {older_than!r}; 86400 is a day"
        )
    removed = []
    # file times are wall-clock times, so this one cannot be monotonic
    limit = time.time() - older_than
    try:
        entries = sorted(Path(folder).iterdir())
    except FileNotFoundError:
        return []
    for path in entries:
        if is_partial(path):
            try:
                if path.lstat().st_mtime <= limit:
                    path.unlink()
                    removed.append(path)
            except FileNotFoundError:
                continue  # its writer, or another sweeper, was faster
            except PermissionError as error:
                if getattr(error, "winerror", None) != 32:  # Windows: a writer has it open
                    raise
    return removed
