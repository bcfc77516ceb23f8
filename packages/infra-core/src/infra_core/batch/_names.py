"""Where the file of a URL stands: by digest, by URL, flat, or by a template; never two on one."""

import hashlib
import re
import string
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from infra_core.fs import media_extension, safe_file_name

from ._errors import BatchError
from ._folder import ASSETS
from ._index import JobIndex
from ._items import BatchItem
from ._results import Outcome

if TYPE_CHECKING:
    from ._options import BatchOptions

__all__ = ["INCOMING", "LAYOUTS", "FileNames", "check_layout", "names_by_content"]

LAYOUTS = {
    "hashed": "{shard}/{digest}-{name}",
    "url": "{host}/{path}",
    "flat": "{name}",
}
INCOMING = f"{ASSETS}/.incoming/"  # of files that are named when the server has answered
_FIELDS = ("host", "path", "name", "stem", "ext", "digest", "sha256", "shard", "index")
_DEPTH = 32  # folders; a URL may have thousands, a path may not
_WIDE = re.compile(r"\d{3}|{")  # in any script, as format() reads them
_SEGMENT = 120  # bytes; leaves room for what a partial file's name adds


def check_layout(layout: str) -> None:
    """Refuse a layout that names no file.

    Raises:
        BatchError: An unknown field, none that differs between URLs, or a name without a bound.
    """
    try:
        for _, _, spec, _ in string.Formatter().parse(layout):
            if _WIDE.search(spec or ""):
                raise BatchError(
                    f"layout {layout!r} has the format {spec!r}: a width has two digits at most, "
                    "as in {index:06}"
                )
        found = _fields_of(layout)
        if found <= set(_FIELDS):
            LAYOUTS.get(layout, layout).format_map({**dict.fromkeys(_FIELDS, "x"), "index": 1})
    except (ValueError, KeyError) as error:
        raise BatchError(
            f"layout {layout!r} is not a template ({error}); double a plain brace"
        ) from None
    unknown = sorted(found - set(_FIELDS))
    if unknown:
        known = ", ".join(f"{{{name}}}" for name in _FIELDS)
        raise BatchError(
            f"layout {layout!r} has an unknown field {{{unknown[0]}}}; use {', '.join(LAYOUTS)} "
            f"or a template of {known}"
        )
    if not found - {"host", "ext", "shard"}:
        raise BatchError(
            f"layout {layout!r} gives many URLs one name; add {{digest}}, {{path}} or {{name}}"
        )


def names_by_content(layout: str) -> bool:
    """Whether the name of a file is known only when its bytes are."""
    return "sha256" in _fields_of(layout)


def _fields_of(layout: str) -> set[str]:
    parsed = string.Formatter().parse(LAYOUTS.get(layout, layout))
    return {field for _, field, _, _ in parsed if field is not None}


class FileNames:
    """Chooses the path of each item's file, relative to the run's folder.

    Attributes:
        unique: Whether the names of two URLs differ by themselves.
    """

    def __init__(self, options: "BatchOptions", index: JobIndex) -> None:
        self._options = options
        self._template = LAYOUTS.get(options.layout, options.layout)
        self.unique = "{digest}" in self._template
        self._by_content = names_by_content(options.layout)
        self._index = index
        self._count = 0

    def path_of(self, item: BatchItem, job_id: str) -> str:
        """Return a path that no other URL has, in `INCOMING` where the answer decides on the name.

        Where another URL has the name already, part of the job's id is added to it.
        """
        self._count += 1
        if self._by_content or (
            item.name is None
            and (
                self._options.content_disposition
                or (self._options.adjust_extension and not _has_extension(_name_of(item)))
            )
        ):
            return f"{INCOMING}{job_id}-{self._count}"
        return self._free(item, job_id, self._count)

    def final_path(self, item: BatchItem, outcome: Outcome, path: str) -> str:
        """Return the path of a file, now that the server has answered: none in `INCOMING`."""
        if not path.startswith(INCOMING):
            return path
        extension, given = "", item.name is not None
        if self._options.content_disposition and outcome.name and not given:
            item = replace(item, name=outcome.name)
        if self._options.adjust_extension and not given and not _has_extension(_name_of(item)):
            extension = media_extension(outcome.content_type or "")
        number = int(path.rpartition("-")[2])
        sha256 = (outcome.checksum or "").rpartition(":")[2]
        return self._free(item, outcome.job_id, number, extension, sha256)

    def _free(
        self, item: BatchItem, job_id: str, number: int, extension: str = "", sha256: str = ""
    ) -> str:
        """A path that is this job's alone."""
        hashed = f"{ASSETS}/{job_id[:2]}/{job_id}-{_name_of(item, extension)}"
        if self._template == LAYOUTS["hashed"]:
            return hashed
        path = f"{ASSETS}/{self._fill(item, job_id, number, extension, sha256)}"
        if f"{path}/".startswith(INCOMING):
            return hashed
        # with its job's id in it, it cannot be another's
        if job_id in path or self._index.claim_path(path, job_id):
            return path
        head = PurePosixPath(path)
        stem, suffix = (head.name, "") if "." not in head.name[1:] else _split(head.name)
        named = str(head.with_name(f"{stem}-{job_id[:8]}{suffix}"))
        return named if self._index.claim_path(named, job_id) else hashed

    def _fill(self, item: BatchItem, job_id: str, number: int, extension: str, sha256: str) -> str:
        parts = urlsplit(item.url)
        name = _name_of(item, extension)
        stem, suffix = _split(name)
        host = parts.hostname or "host"
        values: dict[str, str | int] = {
            "host": _safe(host if parts.port is None else f"{host}_{parts.port}", "host"),
            "path": _path_of(parts.path, parts.query, name, item.name),
            "name": name,
            "stem": stem,
            "ext": suffix,
            "digest": job_id,
            "sha256": sha256,
            "shard": job_id[:2],
            "index": number,
        }
        filled = self._template.format_map(values)
        segments = [_safe(part, "_") for part in filled.split("/") if part]
        return "/".join(segments[-_DEPTH:]) or name


def _has_extension(name: str) -> bool:
    """Whether a name has an extension; the end of a version such as `tool-1.2` is none."""
    extension = _split(name)[1]
    return len(extension) > 1 and not extension[1:].isdigit()


def _name_of(item: BatchItem, extension: str = "") -> str:
    if item.name:
        name = _safe(item.name, "file")
    else:
        path = urlsplit(item.url).path.rstrip("/")
        name = _safe(unquote(path.rpartition("/")[2]), "file" if path else "index.html")
    return _safe(name + extension, "file") if extension else name


def _path_of(path: str, query: str, name: str, given: str | None) -> str:
    """The URL's path as folders; a query, which makes another file, is a digest in the name."""
    folders = [_safe(unquote(part), "_") for part in path.split("/")[:-1] if part]
    last = name
    if path.endswith("/") and given is None:
        last = "index.html"
        if len(path) > 1:
            folders = [_safe(unquote(part), "_") for part in path.split("/") if part]
    if query:
        stem, suffix = _split(last)
        last = f"{stem}~{hashlib.sha256(query.encode()).hexdigest()[:8]}{suffix}"
    return "/".join([*folders, last])


def _split(name: str) -> tuple[str, str]:
    stem, dot, extension = name.rpartition(".")
    return (stem, dot + extension) if stem and len(extension) <= 16 else (name, "")


def _safe(text: str, fallback: str) -> str:
    return safe_file_name(text, fallback=fallback, limit=_SEGMENT)
