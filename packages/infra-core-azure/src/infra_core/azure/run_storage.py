"""Where runs keep their files, and manifests of what they left there.

Example:
    >>> import tempfile
    >>> from infra_core.azure.storage import AzureStorageSettings, get_client
    >>> settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    >>> manifest = build_manifest(tempfile.mkdtemp(), client=get_client(settings, mode))
    >>> manifest["summary"]
    {'total_files': 0, 'total_size_bytes': 0, 'file_types': {}}
"""

import json
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from infra_core.fs import file_hexdigest, media_category, media_type, safe_join

from ._artifacts import is_own_state
from ._checks import path_of, require_choice
from .exceptions import ConfigurationError

if TYPE_CHECKING:
    from .storage import AzureStorageClient

__all__ = [
    "build_manifest",
    "build_run_storage_path",
    "collect_blob_files",
    "collect_local_files",
    "manifest_schema",
    "resolve_base_path",
]

_logger = logging.getLogger("infra_core.azure.run_storage")
_NO_TYPE = "application/octet-stream"
_NAMED = 10  # files that the warning names

_TEMPORARY = ("TMP", "TEMP", "TMPDIR")


def resolve_base_path(env_var: str, *, fallback_envs: Iterable[str] | None = None) -> Path:
    """The folder below which runs keep their files.

    Args:
        env_var: Variable that names it.
        fallback_envs: Variables to look at after that; `TMP`, `TEMP`, `TMPDIR` by default.

    Returns:
        The folder that the first variable which is set names, else the system's temporary one.
        It need not exist.

    Raises:
        ConfigurationError: It begins with `~` and there is no such home folder.
    """
    fallbacks = _TEMPORARY if fallback_envs is None else tuple(fallback_envs)
    for variable in (env_var, *fallbacks):
        if value := os.environ.get(variable, "").strip():
            return path_of(variable, value)
    return Path(tempfile.gettempdir())


def build_run_storage_path(
    env_var: str, *segments: str | None, fallback_envs: Iterable[str] | None = None
) -> Path:
    """The folder of one run: the base path and below it a folder for each segment.

    Args:
        env_var: See `resolve_base_path`.
        segments: Names such as batch and job; `None`, empty ones and `.` are left out.
        fallback_envs: See `resolve_base_path`.

    Raises:
        UnsafePathError: A segment would leave the base path (`..`, absolute, and so on).
    """
    base = resolve_base_path(env_var, fallback_envs=fallback_envs)
    parts: list[str] = []
    for segment in segments:
        text = "" if segment is None else str(segment)
        inner = text.rstrip("/").removeprefix("./")
        if inner not in ("", ".") or text.startswith("/"):
            parts.append(inner or text)
    return safe_join(base, *parts)


def collect_local_files(
    storage_path: Path, *, checksum: str | None = None, timestamps: bool = False
) -> list[dict[str, int | str]]:
    """The files below a folder, sorted by path; none when there is no such folder.

    What could not be mirrored (a link to nothing, a name that is not Unicode) is left out and named
    in a warning. Locks and states of this library are not artifacts and left out.

    Args:
        storage_path: The folder.
        checksum: Algorithm to hash each file with, such as `sha256`; none by default.
        timestamps: Add when each was last written.

    Returns:
        For each `path`, `type`, `content_type`, `size_bytes` (also as `size`, 0.7's name) and, as
        asked, `checksum`
        (`algorithm:hexdigest`) and `modified_at` (RFC 3339, UTC).
    """
    from .storage._local_tree import walk_tree

    root = Path(storage_path)
    if not root.is_dir():
        return []
    files = []
    left_out: list[str] = []
    for file, reason in walk_tree(root, lambda name: not is_own_state(name)):
        if reason is not None:
            left_out.append(f"{file.name!r} ({reason})")
            continue
        entry = _entry(file.name, file.size)
        if checksum is not None:
            try:
                digest = file_hexdigest(root / file.name, checksum)
            except FileNotFoundError:  # deleted since it was listed
                continue
            entry["checksum"] = f"{checksum.lower()}:{digest}"
        if timestamps:
            when = datetime.fromtimestamp(file.mtime_ns / 1e9, timezone.utc)
            entry["modified_at"] = when.isoformat()
        files.append(entry)
    if left_out:
        names = ", ".join(left_out[:_NAMED]) + (", and others" if len(left_out) > _NAMED else "")
        _logger.warning(
            "left out of the list of files in %s, since they cannot be mirrored: %s; rename or "
            "remove them",
            root,
            names,
            extra={"left_out": len(left_out)},
        )
    return sorted(files, key=itemgetter("path"))


def collect_blob_files(
    client: "AzureStorageClient",
    storage_path: Path,
    *,
    checksum: str | None = None,
    timestamps: bool = False,
) -> list[dict[str, int | str]]:
    """The blobs of a folder, sorted by path; see `collect_local_files`.

    Args:
        client: The storage client.
        storage_path: The local folder whose mirror is listed.
        checksum: Add the MD5 that is stored with each blob, whatever the algorithm's name.
        timestamps: Add when each was last written.

    Raises:
        ConfigurationError: The client is not configured.
        StorageError: The listing failed.
    """
    if not client.is_configured():
        raise ConfigurationError(
            "blobs cannot be listed since Azure storage is not configured; set "
            "AZURE_STORAGE_CONTAINER and AZURE_STORAGE_CONNECTION_STRING (or "
            "AZURE_STORAGE_ACCOUNT), or collect local files"
        )
    path = Path(storage_path)
    if not (checksum or timestamps) and not _lists_itself(client):
        listed = client.list_tree(path)
        files = [_entry(name, size) for name, size in listed if not is_own_state(name)]
        return sorted(files, key=itemgetter("path"))
    files = []
    for blob in client.iter_tree(path):
        entry = _entry(blob.name, blob.size, blob.content_type)
        if checksum and blob.md5 is not None:
            entry["checksum"] = f"md5:{blob.md5.hex()}"
        if timestamps and blob.last_modified is not None:
            entry["modified_at"] = blob.last_modified.isoformat()
        files.append(entry)
    return sorted(files, key=itemgetter("path"))


def build_manifest(
    storage_path: str | Path,
    *,
    client: "AzureStorageClient",
    source: Literal["both", "local", "blobs"] = "both",
    checksum: str | None = None,
    timestamps: bool = False,
    content_types: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe the files of a run; the result fits `manifest_schema()`.

    Args:
        storage_path: The run's folder; an empty string gives an empty manifest.
        client: The storage client; without configuration only local files are listed.
        source: `both` local files and blobs that have no local file (0.7 left the latter out as
            soon as there was one local file); or one of them.
        checksum: Algorithm to hash local files with; blobs have their stored MD5.
        timestamps: Add when each file was last written.
        content_types: Media types that files were served with, by their path: better than what
            their names say. What blobs are stored with comes next.

    Returns:
        `files` (each with `path`, `type`, `content_type`, `size_bytes`, `url`), `storage`
        (`provider`, `container`, `prefix`) and `summary` (`total_files`, `total_size_bytes`,
        `file_types`). URLs are encoded and hold no token.

    Raises:
        ValueError: `source` is unknown.
        StorageError: The blobs could not be listed.
    """
    require_choice("source", source, "both", "local", "blobs")
    if not str(storage_path).strip():
        return _manifest([], client, "")
    path = Path(storage_path)
    configured = client.is_configured()
    found: dict[str, dict[str, Any]] = {}
    # Those that are set, so that plain calls work with clients that know no others.
    extras: dict[str, Any] = {"checksum": checksum} if checksum else {}
    if timestamps:
        extras["timestamps"] = True
    if configured and source != "local":
        for entry in collect_blob_files(client, path, **extras):
            found[str(entry["path"])] = entry
    if source != "blobs":
        for entry in collect_local_files(path, **extras):
            stored = found.get(str(entry["path"]))
            if stored is not None:  # as it was served, say, where the name does not say
                entry["type"], entry["content_type"] = stored["type"], stored["content_type"]
            found[str(entry["path"])] = entry
    prefix = client.blob_name_for_path(path)
    shown = ["path", "type", "content_type", "size_bytes", "url"]
    if checksum:
        shown.append("checksum")
    if timestamps:
        shown.append("modified_at")
    files: list[dict[str, Any]] = []
    for name in sorted(found):
        file = found[name]
        if served := (content_types or {}).get(name):
            known = _entry(name, 0, served)
            file["type"], file["content_type"] = known["type"], known["content_type"]
        blob = f"{prefix}/{name}" if prefix else name
        file["url"] = client.blob_url_for_name(blob) if configured else None
        files.append({key: file.get(key) for key in shown})
    return _manifest(files, client, prefix)


def _manifest(
    files: list[dict[str, Any]], client: "AzureStorageClient", prefix: str
) -> dict[str, Any]:
    config = getattr(client, "config", None)
    container = None if config is None else config.container
    if config is None and client.is_configured():  # a stand-in that was written for 0.7
        container = getattr(getattr(client, "settings", None), "container", None)
    return {
        "files": files,
        "storage": {
            "provider": "azure_blob" if client.is_configured() else "local",
            "container": container,
            "prefix": prefix,
        },
        "summary": {
            "total_files": len(files),
            "total_size_bytes": sum(file["size_bytes"] for file in files),
            "file_types": dict(Counter(file["type"] for file in files)),
        },
    }


def _entry(name: str, size: int, stored_type: str = "") -> dict[str, int | str]:
    """Describe a file; the type that a blob is stored with wins over that of its name."""
    content_type, category = media_type(name), media_category(name.rpartition("/")[2])
    stored = stored_type.partition(";")[0].strip().lower()
    if stored not in ("", _NO_TYPE, content_type):
        content_type, category = stored_type, media_category(stored)
    return {
        "path": name,
        "type": category,
        "content_type": content_type,
        "size_bytes": size,
        "size": size,
    }


def _lists_itself(client: "AzureStorageClient") -> bool:
    """Whether the client's listing is our own, which has types, and not that of a stand-in."""
    from .storage import AzureStorageClient

    listing = getattr(client, "list_tree", None)
    return getattr(listing, "__func__", None) is AzureStorageClient.list_tree


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of manifests, shipped with this package."""
    file = Path(__file__).with_name("schemas") / "manifest.schema.json"
    return cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
