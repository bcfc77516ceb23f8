"""The manifest of a batch, written entry by entry: its size is the disk's concern, not memory's."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.fs import AtomicFile

from ._errors import one_line
from ._folder import ASSETS, MANIFEST_FILE

if TYPE_CHECKING:
    from ._services import Services

__all__ = ["store_manifest", "write_manifest"]


def write_manifest(path: Path, entries: Iterable[str], storage: dict[str, Any]) -> None:
    """Write a manifest that fits `infra_core.azure.run_storage.manifest_schema()`.

    An older one stands if the disk refuses it. The entries are JSON objects, sorted by path.
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


def store_manifest(services: "Services") -> None:
    """Write the manifest, locally first, then mirrored; what fails is a problem of the summary."""
    summary, storage = services.summary, services.storage
    path = services.folder / MANIFEST_FILE
    prefix = "" if storage is None else storage.blob_name_for_path(services.folder / ASSETS)
    where = {
        "provider": "local" if storage is None else "azure_blob",
        "container": None if storage is None else storage.config.container,  # type: ignore[union-attr]
        "prefix": prefix or f"{services.folder.name}/{ASSETS}",
    }
    try:
        write_manifest(path, services.index.files(), where)
        summary.manifest = str(path)
    except Exception as error:  # noqa: BLE001 - a full disk, too few descriptors; the files are here
        summary.trouble("there is no manifest", f"{one_line(error)}; a resume writes it (--resume)")
        return
    if storage is not None:
        try:
            storage.upload_file(path, raise_on_error=True)
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the file is here
            summary.trouble(f"{str(path)!r} was not mirrored", one_line(error))
