"""Single file names: what no file system may be asked to create, and those of partial files.

Sources: "Naming Files, Paths, and Namespaces" (Microsoft) for reserved device names, characters
and trailing dots; NAME_MAX of 255 bytes on Linux and macOS file systems.
"""

import hashlib
import os
import re
import time
from pathlib import Path, PurePath
from typing import Final

__all__ = [
    "NAME_MAX",
    "WINDOWS_ONLY",
    "is_device_name",
    "is_partial",
    "remove_stale_partials",
    "safe_name",
    "temp_name",
]

NAME_MAX: Final = 255
"""Longest file name in bytes on the usual file systems."""

_EXTENSION_MAX: Final = 16  # bytes; longer "extensions" are just text after a dot

_DEVICES: Final = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"]
)
_SEPARATORS: Final = re.compile(r"[/\\]")
# Control characters (C0, DEL, C1) and the Unicode ones that turn or hide text: a name is shown to
# people, and one that displays as another is a trap.
_INVISIBLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\U000e0000-\U000e007f]"
)
WINDOWS_ONLY: Final = re.compile(r'[<>:"|?*]')
_STEM_MAX: Final = 60
_PARTIAL: Final = re.compile(r"\..*\.[0-9a-f]{16}\.part(\.[^.]*)?", re.DOTALL)


def is_device_name(name: str) -> bool:
    """Say whether Windows takes this name for a device, with or without an extension."""
    return name.partition(".")[0].rstrip(" ").lower() in _DEVICES


def _shorten(name: str, limit: int) -> str:
    """Cut a name to `limit` bytes at a character, keeping its extension.

    Eight hex digits of the whole name's hash go before the extension, so that two long names with
    one beginning stay two names.
    """
    if len(_encode(name)) <= limit:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(_encode(extension)) > _EXTENSION_MAX:
        stem, dot, extension = name, "", ""
    tail = "~" + hashlib.sha256(_encode(name)).hexdigest()[:8] + dot + extension
    room = limit - len(_encode(tail))
    return _encode(stem)[:room].decode("utf-8", "ignore").rstrip(" .") + tail


def safe_name(text: str, *, fallback: str, limit: int, portable: bool) -> str:
    """Make one file name of any text: never empty, never a path, never a device.

    Args:
        text: Anything: a hint from a header, the end of a URL, hostile input.
        fallback: The name to use when nothing usable is left.
        limit: Longest result in bytes.
        portable: Also replace the characters that only Windows refuses.
    """
    name = _SEPARATORS.split(text)[-1]
    name = _INVISIBLE.sub("", name)
    # lone surrogates cannot be encoded, so no file can have them in its name
    name = name.encode("utf-8", "replace").decode("utf-8")
    if portable or os.name == "nt":
        name = WINDOWS_ONLY.sub("_", name)
    # Windows drops trailing dots and spaces, which would make two names one file ("." and ".."
    # end here as well)
    name = name.rstrip(" .").lstrip(" ")
    if not name:
        return fallback
    if is_device_name(name):
        name = "_" + name
    return _shorten(name, limit)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "replace")


def temp_name(name: str) -> str:
    """Return a new name for the partial form of `name`, with its extension kept.

    Tools that choose by extension (decoders, virus scanners) treat the partial file alike.
    """
    before, _, extension = name.rpartition(".")
    suffix = f".{extension}" if before and extension else ""
    if len(os.fsencode(suffix)) > _EXTENSION_MAX:
        suffix = ""
    stem = _shorten(name.removesuffix(suffix), _STEM_MAX)
    return f".{stem}.{os.urandom(8).hex()}.part{suffix}"


def is_partial(path: "str | PurePath") -> bool:
    """Say whether a name is that of a partial file of `AtomicFile`.

    Code that lists a folder while others write to it (manifests, mirrors) skips these.

    Example:
        >>> is_partial(".logo.0123456789abcdef.part.png"), is_partial("logo.png")
        (True, False)
    """
    return _PARTIAL.fullmatch(PurePath(path).name) is not None


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
