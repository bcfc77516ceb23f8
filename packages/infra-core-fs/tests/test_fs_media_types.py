"""One table of media types for all packages, the same on all machines."""

import mimetypes
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from infra_core import fs
from infra_core.fs import _media_types

# Pythons before 3.13 have older names for these; before 3.11 some lists were only half strict
RENAMED_SINCE_3_10 = {".js", ".mjs", ".bmp", ".rtf"}


class TestMediaType:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("logo.png", "image/png"),
            ("photo.JPG", "image/jpeg"),
            ("a.webp", "image/webp"),
            ("a.avif", "image/avif"),
            ("a.svg", "image/svg+xml"),
            ("a.woff2", "font/woff2"),
            ("a.json", "application/json"),
            ("a.jsonl", "application/jsonl"),
            ("a.csv", "text/csv"),
            ("a.parquet", "application/vnd.apache.parquet"),
            ("a.md", "text/markdown"),
            ("index.html", "text/html"),
            ("feed.xml", "text/xml"),
            ("a.zip", "application/zip"),
            ("a.tar.gz", "application/gzip"),
            ("a.pdf", "application/pdf"),
            ("a.mp4", "video/mp4"),
            ("a.yaml", "application/yaml"),
            ("app.js", "text/javascript"),
        ],
    )
    def test_common_names(self, name: str, expected: str) -> None:
        """The types of the web's and the batch jobs' usual files."""
        assert fs.media_type(name) == expected

    @pytest.mark.parametrize(
        "name", ["README", "", ".png", "..png", "a.", "a.unknown", "dir.png/file", "."]
    )
    def test_names_that_say_nothing(self, name: str) -> None:
        """Unknown is octet-stream; a dot file has no extension."""
        assert fs.media_type(name) == "application/octet-stream"

    def test_paths_and_urls(self) -> None:
        """Paths of any system and URLs with query and fragment."""
        assert fs.media_type(PurePosixPath("a/b.gif")) == "image/gif"
        assert fs.media_type(PureWindowsPath("a\\b.gif")) == "image/gif"
        assert fs.media_type("https://example.com/b.gif?x=a.txt#y.css") == "image/gif"
        assert fs.media_type("https://example.com/?file=b.gif") == "application/octet-stream"
        assert fs.media_type("notes#1.txt") == "text/plain"

    def test_agrees_with_pythons_own_table(self) -> None:
        """Where `mimetypes` knows a type without the machine's files, we say the same."""
        builtin = mimetypes.MimeTypes().types_map[True]
        shared = {"." + extension for extension in _media_types._TYPES} & set(builtin)
        if sys.version_info < (3, 13):
            shared -= RENAMED_SINCE_3_10
        differing = {
            extension: (fs.media_type("a" + extension), builtin[extension])
            for extension in shared
            if fs.media_type("a" + extension) != builtin[extension]
        }
        assert differing == {}
        assert len(shared) > 50

    def test_the_machines_own_types_have_no_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Deterministic: a registered type changes nothing."""
        monkeypatch.setattr(mimetypes, "guess_type", lambda *args: ("x/y", None))
        assert fs.media_type("a.png") == "image/png"


class TestMediaCategory:
    @pytest.mark.parametrize(
        ("category", "names"),
        [
            ("image", ["a.png", "a.svg", "a.avif", "image/png", "image/x-new", "IMAGE/PNG"]),
            (
                "document",
                [
                    "a.html",
                    "a.md",
                    "a.pdf",
                    "a.docx",
                    "a.xlsx",
                    "a.txt",
                    "text/html; charset=utf-8",
                    "text/plain",
                    "text/x-new",
                    "application/xhtml+xml",
                ],
            ),
            (
                "data",
                [
                    "a.json",
                    "a.jsonl",
                    "a.csv",
                    "a.parquet",
                    "a.xml",
                    "a.yml",
                    "a.sqlite",
                    "application/json",
                    "application/problem+json",
                    "application/xml",
                    "text/xml",
                ],
            ),
            (
                "other",
                ["a.zip", "a.woff2", "a.mp3", "a.js", "a.css", "a.py", "a", "", "application/zip",
                 "video/mp4", "application/x-new", "a.bat"],
            ),
        ],
    )  # fmt: skip
    def test_names_and_types(self, category: str, names: list[str]) -> None:
        """Names and types give one category."""
        assert {name: fs.media_category(name) for name in names} == dict.fromkeys(names, category)

    def test_a_path_that_looks_like_a_type_is_a_path(self) -> None:
        """`image/report.csv` is a file in a folder called image."""
        assert fs.media_category("image/report.csv") == "data"
        assert fs.media_category(Path("text/html")) == "other"

    def test_every_name_and_its_type_agree(self) -> None:
        """Manifest by name and manifest by content type say the same."""
        for extension, kind in _media_types._TYPES.items():
            if extension in {"bat", "py"}:  # code that is served as text
                continue
            assert fs.media_category("a." + extension) == fs.media_category(kind), extension


def test_a_program_without_mimetypes_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import would cost more than all look-ups of a short program."""
    monkeypatch.delitem(sys.modules, "mimetypes")
    assert fs.media_type("a.unknown") == "application/octet-stream"
    assert "mimetypes" not in sys.modules


def test_types_added_to_mimetypes_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in 0.7; what only the files of the machine have added is not."""
    import mimetypes

    mimetypes.init()
    monkeypatch.setattr(mimetypes, "types_map", dict(mimetypes.types_map))
    monkeypatch.setattr(mimetypes, "_db", None)
    before = fs.media_type("a.xml")
    mimetypes.init()
    try:
        assert fs.media_type("a.xml") == before
        mimetypes.add_type("application/x-infra", ".infra")
        mimetypes.add_type("application/x-own-xml", ".xml")
        assert fs.media_type("A.INFRA") == "application/x-infra"
        assert fs.media_type("a.xml") == "application/x-own-xml"
        assert fs.media_type("a.png") == "image/png"
        mimetypes.add_type("image/x-infra", ".infra")
        assert fs.media_category("a.infra") == "image"
    finally:
        mimetypes.init()
    assert fs.media_type("a.infra") == "application/octet-stream"


def test_a_type_has_one_usual_extension_which_stands_for_it() -> None:
    """Of several the one that people use; none for what is unknown."""
    for kind in sorted(set(_media_types._TYPES.values()) - {"application/octet-stream"}):
        extension = fs.media_extension(f" {kind.upper()} ; charset=utf-8")
        assert fs.media_type("x" + extension) == kind or kind == "application/xml"
    usual = {"image/jpeg": ".jpg", "text/plain": ".txt", "text/html": ".html", "text/xml": ".xml"}
    usual |= {"application/xml": ".xml", "application/problem+json": ".json", "audio/mpeg": ".mp3"}
    usual |= {"application/octet-stream": "", "x/unknown": "", "": ""}
    assert {kind: fs.media_extension(kind) for kind in usual} == usual
