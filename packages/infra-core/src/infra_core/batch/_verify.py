"""Whether the file of a completed job is here with the bytes that were verified."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from infra_core.fs import file_hexdigest, parse_checksum, safe_join

__all__ = ["Verifier", "contradicts"]

_FOLDERS = 4_096  # whose paths are kept; there are 256 in the usual layout


class Verifier:
    """Compares the files of one run with what their jobs recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = lru_cache(_FOLDERS)(self._find)

    def is_intact(self, stored: Mapping[str, Any], listed: str | None = None) -> bool:
        """Whether a file is what its job recorded, and has the checksum that the list gives now.

        One that cannot be read is a reason to fetch it again.
        """
        try:
            folder, _, name = str(stored["path"]).rpartition("/")
            path = self._inside(folder) / name
            checksums = {parse_checksum(str(stored["checksum"]))}
            if listed is not None:
                checksums.add(parse_checksum(listed))
            size = stored.get("size")
            if size is not None and path.stat().st_size != size:
                return False
            return all(file_hexdigest(path, name) == expected for name, expected in checksums)
        except (KeyError, ValueError, OSError):
            return False

    def _find(self, name: str) -> Path:
        """A folder of the run, whose `assets` may be a link that its owner made.

        Raises:
            ValueError: It is outside.
        """
        first, _, rest = name.partition("/")
        if first == "..":
            raise ValueError(f"{name!r} is outside of {str(self._folder)!r}")
        return safe_join(self._folder / first, rest) if rest else self._folder / first


def contradicts(stored: Mapping[str, Any], listed: str | None) -> bool:
    """Whether the list gives another checksum now than was verified, of one algorithm."""
    try:
        known, wanted = parse_checksum(str(stored["checksum"])), parse_checksum(listed or "")
    except (KeyError, ValueError):  # there is none to compare
        return False
    return known[0] == wanted[0] and known != wanted
