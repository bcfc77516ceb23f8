"""A manifest as one page: totals, a chart of types, thumbnails, a table to sort and filter.

The page needs nothing else: no server, no network, no other file. Its content policy lets nothing
run but its own script, whatever the files of a run are called.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from infra_core.fs import safe_join

__all__ = ["human_size", "render_html"]

_TYPES = ("image", "document", "data", "other")
_COLOURS = {"image": "#2f7ed8", "document": "#c76a15", "data": "#2e8b57", "other": "#7d7d8a"}
_EMBEDDED = 256 * 1024  # bytes
_EMBEDDED_IN_ALL = 20 * 1024 * 1024
_ASSETS = Path(__file__).with_name("report_assets")


def render_html(
    manifest: Mapping[str, Any], *, title: str = "Run manifest", folder: Path | None = None
) -> str:
    """Render a manifest as one self-contained HTML page.

    Args:
        manifest: What `build_manifest` made.
        title: Heading of the page.
        folder: The run's folder; images there of up to 256 KiB are put into the page, up to
            20 MiB in all. Other images are shown where they lie beside the page or, failing that,
            in the container.

    Returns:
        The page, UTF-8 once encoded.

    Raises:
        ValueError: It is no manifest; names the entry.

    Example:
        >>> page = render_html({"files": [], "storage": {}, "summary": {}})
        >>> page.startswith("<!doctype html>")
        True
    """
    rows = _rows(manifest)
    _embed_images(rows, folder)
    storage = manifest.get("storage") or {}
    style = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = (_ASSETS / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "img-src * data: file:; base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>{escape(title)}</title><style>{style}</style></head><body>",
        f"<header><h1>{escape(title)}</h1>{_place(storage)}</header>",
        _totals(rows),
        _chart(rows),
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
            rows.append(
                [
                    str(file["path"]),
                    str(file.get("type", "other")),
                    str(file.get("content_type", "")),
                    int(file.get("size_bytes", 0)),
                    _safe_url(file.get("url")),
                    file.get("checksum"),
                    file.get("modified_at"),
                ]
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError(
                f"manifest['files'][{number}] is {file!r:.200}, which is no entry of a manifest; "
                "it has path (text) and size_bytes (a whole number), see manifest_schema()"
            ) from None
    return rows


def _embed_images(rows: list[list[Any]], folder: Path | None) -> None:
    """Add to each row the image itself, if it is a small one, else nothing."""
    left = _EMBEDDED_IN_ALL
    for row in rows:
        image = None
        if folder is not None and row[1] == "image" and row[3] <= min(_EMBEDDED, left):
            try:
                content = safe_join(folder, row[0]).read_bytes()
            except (OSError, ValueError):  # not here, or not ours to read: the page links to it
                content = b""
            if 0 < len(content) <= _EMBEDDED:
                left -= len(content)
                image = f"data:{row[2]};base64,{base64.b64encode(content).decode('ascii')}"
        row.append(image)


def _safe_url(url: object) -> str | None:
    """A link that can only lead to a web server."""
    text = str(url or "")
    return text if text.startswith(("https://", "http://")) else None


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
    kinds = {row[1] for row in rows}
    facts = (
        (f"{len(rows):,}", "file" if len(rows) == 1 else "files"),
        (human_size(sum(row[3] for row in rows)), "in total"),
        (human_size(max((row[3] for row in rows), default=0)), "largest"),
        (str(len(kinds)), "type" if len(kinds) == 1 else "types"),
    )
    items = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in facts)
    return f'<dl class="totals">{items}</dl>'


def _chart(rows: list[list[Any]]) -> str:
    """Two bars, by number and by bytes, one part for each type."""
    counts = dict.fromkeys(_TYPES, 0)
    sizes = dict.fromkeys(_TYPES, 0)
    for row in rows:
        kind = row[1] if row[1] in counts else "other"
        counts[kind] += 1
        sizes[kind] += row[3]
    if not rows:
        return ""
    bars = []
    for line, (label, values) in enumerate((("Files", counts), ("Bytes", sizes))):
        total = sum(values.values()) or 1
        left = 0.0
        top = line * 34
        bars.append(f'<text x="0" y="{top + 17}" class="label">{label}</text>')
        for kind in _TYPES:
            width = 620 * values[kind] / total
            if width > 0:
                share = f"{kind}: {values[kind]:,} ({values[kind] / total:.0%})"
                bars.append(
                    f'<rect x="{60 + left:.2f}" y="{top}" width="{width:.2f}" height="24" '
                    f'fill="{_COLOURS[kind]}"><title>{share}</title></rect>'
                )
            left += width
    legend = "".join(
        f'<li><span class="swatch {kind}"></span>{kind}: {counts[kind]:,} '
        f"({human_size(sizes[kind])})</li>"
        for kind in _TYPES
        if counts[kind]
    )
    return (
        '<section aria-label="Types"><svg viewBox="0 0 680 60" role="img" '
        f'aria-label="Shares of the types">{"".join(bars)}</svg>'
        f'<ul class="legend">{legend}</ul></section>'
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
<label>Filter <input id="filter" type="search" placeholder="part of a path or type"></label>
<label>Type <select id="type"><option value="">all</option><option>image</option>
<option>document</option><option>data</option><option>other</option></select></label>
<output id="shown" aria-live="polite"></output></div>
<table id="table"><thead><tr>
<th class="preview">Preview</th>
<th aria-sort="ascending"><button data-column="0">Path</button></th>
<th><button data-column="1">Type</button></th>
<th><button data-column="2">Media type</button></th>
<th class="number"><button data-column="3">Size</button></th>
</tr></thead><tbody></tbody></table>
<p><button id="more" hidden>Show more</button></p>
<noscript><p>The table needs JavaScript, which this page's own script is.</p></noscript>
</section>"""
