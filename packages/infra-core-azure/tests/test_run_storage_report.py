"""The HTML report: what it holds, what it refuses, and how it behaves in a real browser."""

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.run_report import human_size, render_html


def entry(path: str, kind: str = "data", size: int = 1, url: str | None = None) -> dict[str, Any]:
    media = {"image": "image/png", "data": "text/csv"}.get(kind, "text/plain")
    return {"path": path, "type": kind, "content_type": media, "size_bytes": size, "url": url}


def rows(page: str) -> list[list[Any]]:
    found = re.search(r'<script type="application/json" id="files">(.*?)</script>', page, re.DOTALL)
    assert found
    loaded: list[list[Any]] = json.loads(found[1])
    return loaded


def test_totals_are_those_of_the_files() -> None:
    """Number, sum and largest file are told at the top."""
    page = render_html({"files": [entry("a", size=1024), entry("b", "image", 2048)]})
    for text in ("<dd>2</dd>", "<dd>3.0 KiB</dd>", "<dd>2.0 KiB</dd>", "image: 1 (2.0 KiB)"):
        assert text in page


def test_empty_manifest_renders() -> None:
    """A run without files is a page as well."""
    assert "<dd>0 B</dd>" in render_html({"files": [], "storage": {}, "summary": {}})


def test_hostile_names_cannot_leave_their_place() -> None:
    """Names are data: none ends the element that they stand in, none adds markup."""
    name = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\u2028.txt"
    page = render_html({"files": [entry(name)]}, title=name)
    assert page.count("<script") == 2
    assert "<img" not in page
    assert rows(page)[0][0] == name


def test_only_web_links_become_links() -> None:
    """A URL of another scheme is dropped."""
    page = render_html({"files": [entry("a", url="javascript:alert(1)")]})
    assert rows(page)[0][4] is None


def test_small_images_of_the_folder_are_embedded(tmp_path: Path) -> None:
    """The page needs no other file; names that leave the folder are not followed."""
    (tmp_path / "a.png").write_bytes(b"png")
    page = render_html(
        {"files": [entry("a.png", "image", 3), entry("../b.png", "image", 3)]}, folder=tmp_path
    )
    assert [row[7] for row in rows(page)] == ["data:image/png;base64,cG5n", None]


def test_page_fetches_nothing_from_elsewhere() -> None:
    """No script, style or font comes from a network, and the policy says so."""
    page = render_html({"files": [entry("a")]})
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB")])
def test_sizes_are_told_in_fitting_units(size: int, text: str) -> None:
    """Bytes up to 1,023, then binary units with one digit."""
    assert human_size(size) == text


def png(red: int, green: int, blue: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    pixels = (b"\0" + bytes((red, green, blue)) * 8) * 8
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

# Appended to the page by the test (with the policy taken out): plays the user, prints the table.
DRIVER = """
<script>
window.addEventListener("load", async () => {
  const paths = () => [...document.querySelectorAll("#table tbody a")].map((a) => a.textContent);
  const out = { start: paths() };
  document.querySelector("[data-column='3']").click();
  out.bySize = paths();
  document.querySelector("[data-column='3']").click();
  out.bySizeDown = paths();
  const filter = document.getElementById("filter");
  filter.value = "SHOT png";
  filter.dispatchEvent(new Event("input"));
  out.filtered = paths();
  out.shown = document.getElementById("shown").textContent;
  const image = document.querySelector("#table img");
  await image.decode();
  out.image = image.naturalWidth;
  filter.value = "";
  document.getElementById("type").value = "data";
  document.getElementById("type").dispatchEvent(new Event("change"));
  out.onlyData = paths();
  out.alerted = window.alerted === true;
  document.body.dataset.result = JSON.stringify(out);
});
</script>
"""


def browse(page: Path, tmp_path: Path, *options: str) -> str:
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--window-size=1100,900",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=55,
        check=True,
        env={**os.environ, "HOME": str(tmp_path)},
    )
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_table_sorts_and_filters_in_a_real_browser(tmp_path: Path) -> None:
    """Sorting, filtering and thumbnails work; a hostile name runs nothing."""
    (tmp_path / "shot one.png").write_bytes(png(200, 30, 30))
    hostile = "<img src=x onerror='window.alerted=true'>.txt"
    files = [
        entry("b10.csv", size=30),
        entry("b9.csv", size=10),
        entry("shot one.png", "image", 90),
        entry(hostile, "other", 20),
    ]
    page = tmp_path / "report.html"
    text = render_html({"files": files}, folder=tmp_path)
    unlocked = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    page.write_text(unlocked.replace("</body>", DRIVER + "</body>"), encoding="utf-8")
    dom = browse(page, tmp_path, "--dump-dom")
    result = re.search(r'data-result="([^"]*)"', dom)
    assert result, dom[-2000:]
    import html

    seen = json.loads(html.unescape(result[1]))
    assert seen["start"] == [hostile, "b9.csv", "b10.csv", "shot one.png"]
    assert seen["bySize"] == ["b9.csv", hostile, "b10.csv", "shot one.png"]
    assert seen["bySizeDown"] == seen["bySize"][::-1]
    assert seen["filtered"] == ["shot one.png"]
    assert seen["shown"] == "1 of 4"
    assert seen["image"] == 8
    assert seen["onlyData"] == ["b10.csv", "b9.csv"]
    assert seen["alerted"] is False


@pytest.mark.slow
@pytest.mark.skipif(not BROWSER, reason="no Chromium here")
def test_page_as_shipped_is_drawn(tmp_path: Path) -> None:
    """With its content policy in force the script runs, and the screen shows chart and image."""
    (tmp_path / "red.png").write_bytes(png(250, 0, 10))
    page = tmp_path / "report.html"
    files = [entry("red.png", "image", 5), entry("b.csv", size=5)]
    page.write_text(render_html({"files": files}, folder=tmp_path), encoding="utf-8")
    picture = tmp_path / "screen.png"
    browse(page, tmp_path, f"--screenshot={picture}")
    colours = colours_of(picture.read_bytes())
    assert (250, 0, 10) in colours, "the thumbnail is not there"
    assert (0x2F, 0x7E, 0xD8) in colours, "the chart is not there"


def colours_of(data: bytes) -> set[tuple[int, int, int]]:
    """All colours of a PNG with 8 bits per channel, as Chromium writes them."""
    position, packed, width, channels = 8, b"", 0, 4
    while position < len(data):
        (length,), kind = (
            struct.unpack(">I", data[position : position + 4]),
            data[position + 4 :][:4],
        )
        body = data[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, channels = struct.unpack(">I", body[:4])[0], {2: 3, 6: 4}[body[9]]
        if kind == b"IDAT":
            packed += body
        position += 12 + length
    raw, stride = zlib.decompress(packed), width * channels
    above = bytearray(stride)
    found: set[tuple[int, int, int]] = set()
    for start in range(0, len(raw), stride + 1):
        line = bytearray(raw[start + 1 : start + 1 + stride])
        unfilter(raw[start], line, above, channels)
        found.update(zip(line[0::channels], line[1::channels], line[2::channels], strict=True))
        above = line
    return found


def unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undo a PNG row filter (https://www.w3.org/TR/png-3/#9Filters)."""
    if kind == 0:
        return
    for i in range(len(line)):
        a = line[i - step] if i >= step else 0
        b = above[i]
        c = above[i - step] if i >= step else 0
        if kind == 1:
            add = a
        elif kind == 2:
            add = b
        elif kind == 3:
            add = (a + b) // 2
        else:
            p = a + b - c
            add = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
        line[i] = (line[i] + add) & 255
