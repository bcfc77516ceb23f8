"""The manifest of a batch, written entry by entry: its size is the disk's concern, not memory's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infra_core.fs import AtomicFile

__all__ = ["write_manifest"]


def write_manifest(path: Path, entries: Iterable[str], storage: dict[str, Any]) -> None:
    """Write a manifest that fits `infra_core.azure.run_storage.manifest_schema()`.

    Args:
        path: Where.
        entries: JSON objects, sorted by path.
        storage: Where the files are mirrored: provider, container, prefix.

    Raises:
        OSError: The disk refuses it; an older manifest stands.
    """
    kinds: dict[str, int] = {}
    count = size = 0
    with AtomicFile(path) as file:
        file.write(b'{\n  "files": [')
        for entry in entries:
            described = json.loads(entry)
            kinds[described["type"]] = kinds.get(described["type"], 0) + 1
            size += described["size_bytes"] or 0
            comma = b"," if count else b""
            file.write(comma + b"\n    " + entry.encode("utf-8", "replace"))
            count += 1
        rest = {
            "storage": storage,
            "summary": {"total_files": count, "total_size_bytes": size, "file_types": kinds},
        }
        text = json.dumps(rest, ensure_ascii=False, indent=2)[1:].lstrip("\n")
        file.write((b"\n  ]" if count else b"]") + b",\n" + text.encode() + b"\n")
