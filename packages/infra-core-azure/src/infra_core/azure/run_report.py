"""A manifest as one page: totals, charts of types, hosts and days, a table to sort and filter.

The page needs nothing else: no server, no network, no other file. Its content policy lets nothing
run but its own script, whatever the files of a run are called, and loads no image from elsewhere.
"""

import base64
import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from infra_core.fs import safe_join

from ._thumbnails import can_make_thumbnails, thumbnails

__all__ = ["human_size", "render_html"]

_KINDS = ("image", "document", "data", "other", "failed")  # report.css has their colours
_PAGE = 1_900_000  # bytes that thumbnails may fill a page up to
_THUMBNAIL = 1_000  # bytes at most; a third more in the page
_HOSTS = 12  # that are named; the others are summed up
_DAYS = 31
_ASSETS = Path(__file__).with_name("report_assets")
# Columns of a row, as report.js reads them.
_PATH, _TYPE, _MEDIA, _SIZE, _URL, _SOURCE, _CHECKSUM, _TIME, _THUMB, _ERROR = range(10)


def render_html(
    manifest: Mapping[str, Any],
    *,
    title: str = "Run manifest",
    folder: Path | None = None,
    failures: Iterable[Mapping[str, Any]] = (),
) -> str:
    """Render a manifest as one self-contained HTML page.

    A page of 1,000 images has less than 2 MB: it holds thumbnails, and never a whole image.

    Args:
        manifest: What `build_manifest` made, or the `manifest.json` of a batch.
        title: Heading of the page.
        folder: The run's folder, where images are read for thumbnails. They need the extra
            `[thumbnails]`; without it, and for images that cannot be read, the page has a link
            with type and size.
        failures: What could not be downloaded: mappings with `url`, `error` and, if known,
            `updated_at` (RFC 3339).

    Returns:
        The page, UTF-8 once encoded.

    Raises:
        ValueError: It is not a manifest; names the entry.

    Example:
        >>> page = render_html({"files": [], "storage": {}, "summary": {}})
        >>> page.startswith("<!doctype html>")
        True
    """
    rows = _rows(manifest)
    rows += [_failure(failure) for failure in failures]
    note = "" if folder is None else _add_thumbnails(rows, folder)
    storage = manifest.get("storage") or {}
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = (_ASSETS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f"<header><h1>{escape(title)}</h1>{_place(storage)}{note}</header>",
        _totals(rows),
        _types(rows),
        _groups("By host", _by_host(rows)),
        _groups("By time (UTC)", _by_time(rows)),
        _TABLE,
        f'<script type="application/json" id="files">{_embed(rows)}</script>',
        f"<script>{script}</script>",
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _rows(manifest: Mapping[str, Any]) -> list[list[Any]]:
    """The entries of a manifest as rows of the table."""
    files: Any = manifest.get("files", ()) if isinstance(manifest, Mapping) else None
    if not isinstance(files, (list, tuple)):
        raise ValueError(
            "manifest has no list of files; pass what build_manifest returned, or the same read "
            "from JSON"
        )
    rows = []
    for number, file in enumerate(files):
        try:
            path = str(file["path"])
            checksum, time = file.get("checksum"), file.get("modified_at")
            rows.append(
                [
                    path,
                    str(file.get("type", "other")),
                    str(file.get("content_type", "")),
                    int(file.get("size_bytes", 0)),
                    _safe_url(file.get("url")) or _odd_link(path),
                    _safe_url(file.get("source_url")),
                    checksum and str(checksum),
                    time and str(time),
                    None,
                    None,
                ]
            )
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
            raise ValueError(
                f"manifest['files'][{number}] is {file!r:.200}, which is not an entry of a "
                "manifest; it has path (text) and size_bytes (whole number): see manifest_schema()"
            ) from None
    return rows


def _failure(failure: Mapping[str, Any]) -> list[Any]:
    """A row for what could not be downloaded."""
    url, when = str(failure.get("url") or ""), failure.get("updated_at")
    source, error = _safe_url(url), str(failure.get("error") or "no reason is known")
    return [url, "failed", "", 0, None, source, None, when and str(when), None, error]


def _add_thumbnails(rows: list[list[Any]], folder: Path) -> str:
    """Put thumbnails into the rows of images; returns what the page says where it has none."""
    images = []
    for row in rows:
        if row[_TYPE] == "image":
            try:
                images.append((row, safe_join(folder, row[_PATH])))
            except ValueError:  # not ours to read: the page links to it
                continue
    if not images:
        return ""
    if not can_make_thumbnails():
        return (
            '<p class="place">Without thumbnails: install infra-core-azure[thumbnails] (Pillow) '
            "and make this page again</p>"
        )
    # Base64 makes four bytes of three.
    left = max(_PAGE - len(_embed(rows)), _PAGE // 4) * 3 // 4
    each = max(min(_THUMBNAIL, left // len(images)), 400)
    made = thumbnails((path for _, path in images), each=each, total=left)
    for (row, _), image in zip(images, made, strict=True):
        if image is not None:
            row[_THUMB] = base64.b64encode(image).decode("ascii")
    return ""


def _safe_url(url: object) -> str | None:
    """A link that can only lead to a web server."""
    text = str(url or "")
    return text if text.startswith(("https://", "http://")) else None


def _odd_link(path: str) -> str | None:
    """The link to a file whose name is not UTF-8: the page's script makes those to all others."""
    for errors in ("strict", "surrogateescape", "replace"):
        with contextlib.suppress(UnicodeEncodeError):
            link = quote(path, errors=errors)
            return None if errors == "strict" else f"./{link}"
    return None


def _embed(value: object) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone surrogate, from a file name that is not UTF-8, could not be encoded.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _place(storage: Mapping[str, Any]) -> str:
    container = storage.get("container")
    if not container:
        return '<p class="place">Local files</p>'
    where = f"{container}/{storage.get('prefix') or ''}"
    return f'<p class="place">Container <code>{escape(where)}</code></p>'


def _totals(rows: list[list[Any]]) -> str:
    files = [row for row in rows if row[_ERROR] is None]
    failed = len(rows) - len(files)
    kinds = {row[_TYPE] for row in files}
    facts = [
        (f"{len(files):,}", "file" if len(files) == 1 else "files"),
        (human_size(sum(row[_SIZE] for row in files)), "in total"),
        (human_size(max((row[_SIZE] for row in files), default=0)), "largest"),
        (str(len(kinds)), "type" if len(kinds) == 1 else "types"),
        *([(f"{failed:,}", "failed")] if failed else []),
    ]
    items = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in facts)
    return f'<dl class="totals">{items}</dl>'


def _types(rows: list[list[Any]]) -> str:
    """Two bars, by number and by bytes, one part for each type."""
    if not rows:
        return ""
    counts, sizes = dict.fromkeys(_KINDS, 0), dict.fromkeys(_KINDS, 0)
    for row in rows:
        kind = row[_TYPE] if row[_TYPE] in counts else "other"
        counts[kind] += 1
        sizes[kind] += row[_SIZE]
    bars = []
    for label, values in (("Files", counts), ("Bytes", sizes)):
        total = sum(values.values()) or 1
        bars.append(f'<div class="bar"><span class="label">{label}</span>')
        for kind, value in values.items():
            if value:
                title = f"{kind}: {value:,} ({value / total:.0%})"
                style = f"flex-grow: {value}"
                bars.append(f'<span class="{kind}" style="{style}" title="{title}"></span>')
        bars.append("</div>")
    legend = "".join(
        f'<li><span class="swatch {kind}"></span>{kind}: {counts[kind]:,} '
        f"({human_size(sizes[kind])})</li>"
        for kind in _KINDS
        if counts[kind]
    )
    return (
        '<section aria-label="Types"><div role="img" aria-label="Shares of the types">'
        f'{"".join(bars)}</div><ul class="legend">{legend}</ul></section>'
    )


def _by_host(rows: list[list[Any]]) -> list[tuple[str, list[list[Any]]]]:
    """Rows by the host that they were downloaded from: those with the most first."""
    hosts: dict[str, list[list[Any]]] = {}
    for row in rows:
        if row[_SOURCE]:
            hosts.setdefault(_host(row[_SOURCE]), []).append(row)
    ordered = sorted(hosts.items(), key=lambda item: (-len(item[1]), _natural(item[0])))
    others = [row for _, found in ordered[_HOSTS:] for row in found]
    named = ordered[:_HOSTS]
    return [*named, (f"{len(ordered) - _HOSTS:,} others", others)] if others else named


def _natural(text: str) -> list[tuple[int, str]]:
    """A key that sorts h9 before h10."""
    return [(int(n), "") if n else (-1, other) for n, other in re.findall(r"(\d+)|(\D+)", text)]


def _host(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:  # no URL that can be taken apart
        return "?"


def _by_time(rows: list[list[Any]]) -> list[tuple[str, list[list[Any]]]]:
    """Rows by day, or by hour where all are of one day; the last 31."""
    times = [str(row[_TIME]) for row in rows if row[_TIME]]
    length = 10 if len({time[:10] for time in times}) > 1 else 13
    days: dict[str, list[list[Any]]] = {}
    for row in rows:
        if row[_TIME]:
            days.setdefault(str(row[_TIME])[:length].replace("T", " "), []).append(row)
    return sorted(days.items())[-_DAYS:]


def _groups(title: str, groups: list[tuple[str, list[list[Any]]]]) -> str:
    """A table of groups of rows: how many files and bytes, and how many failed."""
    if not groups:
        return ""
    lines = []
    for name, rows in groups:
        failed = sum(row[_ERROR] is not None for row in rows)
        size = human_size(sum(row[_SIZE] for row in rows))
        cells = (f"{len(rows) - failed:,}", size, f"{failed:,}" if failed else "")
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        lines.append(f"<tr><td>{escape(name)}</td>{numbers}</tr>")
    heads = "".join(f'<th class="number">{head}</th>' for head in ("Files", "Bytes", "Failed"))
    is_open = " open" if len(groups) <= 6 else ""
    return (
        f'<details{is_open}><summary>{title}</summary><table class="groups"><thead><tr><th></th>'
        f"{heads}</tr></thead><tbody>{''.join(lines)}</tbody></table></details>"
    )


def human_size(size: int) -> str:
    """Bytes in the unit that people would choose.

    Example:
        >>> human_size(512), human_size(245680)
        ('512 B', '239.9 KiB')
    """
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{size} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


_TABLE = """<section aria-label="Files">
<div class="controls">
<label>Filter <input id="filter" type="search" placeholder="part of a path or URL"></label>
<label>Type <select id="type"><option value="">all</option><option>image</option>
<option>document</option><option>data</option><option>other</option>
<option>failed</option></select></label>
<output id="shown" aria-live="polite"></output></div>
<table id="table"><thead><tr>
<th class="preview">Preview</th>
<th aria-sort="ascending"><button data-column="path">Path</button></th>
<th><button data-column="type">Type</button></th>
<th><button data-column="host">Host</button></th>
<th><button data-column="time">Time</button></th>
<th class="number"><button data-column="size">Size</button></th>
</tr></thead><tbody></tbody></table>
<p><button id="more" hidden>Show more</button></p>
<noscript><p>The table needs JavaScript, which this page's own script is.</p></noscript>
</section>"""
