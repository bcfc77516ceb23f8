"""Whether the file of a completed job is here with the bytes that were verified."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra_core.fs import file_hexdigest, parse_checksum, safe_join

__all__ = ["is_intact"]


def is_intact(folder: Path, stored: Mapping[str, Any]) -> bool:
    """Compare a file with what its job recorded; an unreadable one is a reason to fetch again.

    Args:
        folder: The run's folder; `assets` in it may be a link that its owner made.
        stored: The payload of the job.
    """
    try:
        name = str(stored["path"])
        first, _, rest = name.partition("/")
        path = safe_join(folder / first, rest) if rest else safe_join(folder, name)
        algorithm, expected = parse_checksum(str(stored["checksum"]))
        size = stored.get("size")
        if size is not None and path.stat().st_size != size:
            return False
        return file_hexdigest(path, algorithm) == expected
    except (KeyError, ValueError, OSError):
        return False
