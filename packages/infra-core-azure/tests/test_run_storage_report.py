"""The HTML report: what it holds and what it refuses; tests-integration/ has it in a browser."""

import base64
import io
import json
import math
import os
import re
import struct
import sys
import tracemalloc
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
    """Number, sum and largest file stand at the top."""
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


@pytest.mark.parametrize(
    ("name", "link"),
    [
        ("a b/é.txt", None),
        ("caf\udce9 1/é.txt", "./caf%E9%201/%C3%A9.txt"),
        ("\ud800", "./%3F"),
    ],
)
def test_a_name_that_is_not_utf_8_has_a_link(name: str, link: str | None) -> None:
    """By its bytes, made here: the page's script cannot encode it, and would end there."""
    page = render_html({"files": [entry(name), entry(name, url="https://a.example/b")]})
    assert [row[4] for row in rows(page)] == [link, "https://a.example/b"]
    page.encode()


def test_what_the_page_sorts_and_shows_is_text() -> None:
    """Whatever other programs put there: the script would end at a number."""
    odd = {**entry("a"), "modified_at": 1_700_000_000, "checksum": {"md5": "x"}}
    assert rows(render_html({"files": [odd]}))[0][6:8] == ["{'md5': 'x'}", "1700000000"]
    for size in (math.inf, math.nan):
        with pytest.raises(ValueError, match=r"manifest\['files'\]\[0\] is .*not an entry"):
            render_html({"files": [{**entry("a"), "size_bytes": size}]})


def picture(path: Path, size: tuple[int, int], **options: Any) -> dict[str, Any]:
    """Write an image of many colours, which compresses badly, and describe it."""
    image = pytest.importorskip("PIL.Image").effect_noise(size, 90)
    image.convert("RGB").save(path, **options)
    return entry(path.name, "image", path.stat().st_size)


def shown(page: str) -> dict[str, Any]:
    """Width and height of each row's thumbnail, by path; None where there is none."""
    image = pytest.importorskip("PIL.Image")
    found = {}
    for row in rows(page):
        data = row[8] and io.BytesIO(base64.b64decode(row[8]))
        found[row[0]] = data and image.open(data, formats=["WEBP"]).size
    return found


def test_images_are_shown_as_thumbnails(tmp_path: Path) -> None:
    """Of long screenshots the top, of photos as they are held; names outside are not read."""
    files = [
        picture(tmp_path / "a.png", (640, 480)),
        picture(tmp_path / "long.png", (300, 2000)),
        picture(tmp_path / "turned.jpg", (400, 300), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12"
        b"\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        entry("../b.png", "image", 3),
    ]  # fmt: skip
    page = render_html({"files": files}, folder=tmp_path)
    sizes = shown(page)
    assert {name: sizes[name] and sizes[name][0] > sizes[name][1] for name in sizes} == {
        "a.png": True,
        "long.png": True,
        "turned.jpg": False,
        "../b.png": None,
    }
    assert len(page) < 30_000


def test_page_of_a_thousand_images_is_small(tmp_path: Path) -> None:
    """Under 2 MB, though each is noise and has long URLs; all have a thumbnail."""
    sample = picture(tmp_path / "0.png", (36, 27))
    sample |= {"checksum": "sha256:" + "0" * 64, "modified_at": "2026-11-27T00:00:00.000000+00:00"}
    files = [sample]
    for number in range(1, 1000):
        os.link(tmp_path / "0.png", tmp_path / f"{number}.png")
        url = f"https://host{number % 40}.example/{'folder/' * 20}{number}.png"
        files.append(sample | {"path": f"{number}.png", "url": url, "source_url": url})
    page = render_html({"files": files}, folder=tmp_path)
    assert all(shown(page).values())
    assert len(page.encode("utf-8")) < 2_000_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no image",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"GIF89a\xff\xff\xff\xff\0\0\0",
    ],
)
def test_broken_images_have_no_thumbnail(content: bytes, tmp_path: Path) -> None:
    """The page is made, and names them."""
    (tmp_path / "a.png").write_bytes(content)
    whole = picture(tmp_path / "b.png", (64, 48))
    cut = picture(tmp_path / "cut.png", (64, 48))
    (tmp_path / "cut.png").write_bytes((tmp_path / "b.png").read_bytes()[:-3000])
    files = [entry("a.png", "image", len(content)), whole, cut, entry("gone.png", "image", 9)]
    sizes = shown(render_html({"files": files}, folder=tmp_path))
    assert [name for name in sizes if sizes[name]] == ["b.png"]


@pytest.mark.parametrize("side", [6_000, 12_000, 30_000])
def test_decompression_bombs_are_not_decoded(side: int, tmp_path: Path) -> None:
    """A few bytes that claim to be hundreds of megapixels; Pillow warns of some, refuses others."""
    pytest.importorskip("PIL")
    bomb = png(0, 0, 0).replace(struct.pack(">II", 8, 8), struct.pack(">II", side, side))
    header = bomb[12:29]
    bomb = bomb.replace(bomb[29:33], struct.pack(">I", zlib.crc32(header)), 1)
    (tmp_path / "a.png").write_bytes(bomb)
    tracemalloc.start()
    try:
        page = render_html({"files": [entry("a.png", "image", len(bomb))]}, folder=tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    assert shown(page) == {"a.png": None}


def test_page_without_pillow_says_what_brings_thumbnails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No image is put in whole in their place; without images there is nothing to say."""
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    (tmp_path / "a.png").write_bytes(b"png")
    page = render_html({"files": [entry("a.png", "image", 3)]}, folder=tmp_path)
    assert "install infra-core-azure[thumbnails]" in page
    assert rows(page)[0][8] is None
    assert base64.b64encode(b"png").decode() not in page
    assert "thumbnails]" not in render_html({"files": [entry("a.csv")]}, folder=tmp_path)


def test_failures_hosts_and_days_are_shown() -> None:
    """What failed is a row of its own; hosts come by number, days in order."""
    files = [
        entry(f"{day}.csv", size=1024)
        | {"source_url": f"https://h{day % 2}.example:8443/", "modified_at": f"2026-11-{day:02}T01"}
        for day in (9, 10, 11)
    ]
    failed = {
        "url": "https://h0.example:8443/x?<b>",
        "error": "HTTPStatusError: 404",
        "updated_at": "2026-11-10T05:00:00+00:00",
    }
    page = render_html({"files": files}, failures=[failed, {}])
    assert "<dd>2</dd>" in page
    assert [row[9] for row in rows(page)][3:] == ["HTTPStatusError: 404", "no reason is known"]
    assert rows(page)[3][:2] == ["https://h0.example:8443/x?<b>", "failed"]
    groups = re.findall(r"<tr><td>(.*?)</td>", page)
    assert groups[:2] == ["h0.example:8443", "h1.example:8443"]
    assert groups[2:] == ["2026-11-09", "2026-11-10", "2026-11-11"]
    cells = [">1</td>", ">1.0 KiB</td>", ">1</td>"]
    assert '<td class="number"'.join(["<tr><td>2026-11-10</td>", *cells]) in page


def test_page_fetches_nothing_from_elsewhere() -> None:
    """No script, style or font comes from a network, and the policy says so."""
    page = render_html({"files": [entry("a")]})
    assert "default-src &#x27;none&#x27;" in page
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=", page)


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB")])
def test_sizes_are_printed_in_fitting_units(size: int, text: str) -> None:
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
