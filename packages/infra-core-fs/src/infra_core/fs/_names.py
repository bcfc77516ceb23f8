"""Rules for single file names: what no file system may be asked to create.

Sources: "Naming Files, Paths, and Namespaces" (Microsoft) for reserved device names, characters
and trailing dots; NAME_MAX of 255 bytes on Linux and macOS file systems.
"""

import hashlib
import os
import re
from typing import Final

__all__ = ["NAME_MAX", "WINDOWS_ONLY", "is_device_name", "safe_name", "shorten"]

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
_INVISIBLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
WINDOWS_ONLY: Final = re.compile(r'[<>:"|?*]')


def is_device_name(name: str) -> bool:
    """Say whether Windows takes this name for a device, with or without an extension."""
    return name.partition(".")[0].rstrip(" ").lower() in _DEVICES


def shorten(name: str, limit: int) -> str:
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
    return shorten(name, limit)


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "replace")
