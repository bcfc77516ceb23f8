"""Names of blobs and files, globs, and the plan of a tree: pure functions."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given, strategies as st

from infra_core.azure.storage import BlobInfo
from infra_core.azure.storage._blobs import parse_page
from infra_core.azure.storage._names import (
    blob_name_for,
    compile_globs,
    compile_pruning,
    encode_blob_name,
    fold_name,
    unsafe_reason,
    upload_problem,
)
from infra_core.azure.storage._tree_run import decide, decide_by_hash
from infra_core.azure.storage._tree_types import TreeRules


@pytest.mark.parametrize(
    ("path", "base", "prefix", "name"),
    [
        ("/data/run/a.txt", "/data/run", "", "a.txt"),
        ("/data/run/a.txt", "/data/run", "pre", "pre/a.txt"),
        ("/data/run/a.txt", "/data/run", "/pre/", "pre/a.txt"),
        ("/data/run/tmp/a.txt", "/data/run", "", "tmp/a.txt"),
        ("/data/run", "/data/run", "pre", "pre"),
        ("/data/other/a.txt", "/data/run", "", "data/other/a.txt"),
        ("/tmp/runs/a.txt", None, "", "runs/a.txt"),
        ("/var/tmp/a.txt", None, "p", "p/a.txt"),
        ("/temp/tmp/a.txt", None, "", "tmp/a.txt"),
        ("/tmp/runs/a.txt", "/data", "", "runs/a.txt"),
        ("output/a.txt", None, "", "output/a.txt"),
        ("./output/./a.txt", None, "", "output/a.txt"),
        ("output/a.txt", "output", "", "a.txt"),
        ("/data/run/../run/a.txt", "/data/run", "", "a.txt"),
    ],
)
def test_blob_name_of_a_path(path: str, base: str | None, prefix: str, name: str) -> None:
    """Relative to the base; outside of any base one leading tmp/ goes, below a base never."""
    root = None if base is None else Path(base)
    assert blob_name_for(Path(path), base=root, prefix=prefix) == name


def test_relative_path_below_an_absolute_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a path is does not depend on how it is written."""
    monkeypatch.chdir(tmp_path)
    assert blob_name_for(Path("run/tmp/a"), base=tmp_path / "run", prefix="") == "tmp/a"


UNSAFE = [
    "", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a/./b", "a\\b",
    "a\x00b", "a\nb", "a\x7f", "a\x85b", "x" * 256, "\ud800", "a\ufffe", "\uffff",
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_unsafe_names(name: str) -> None:
    """What climbs, is absolute, ambiguous or unprintable never becomes a file or blob."""
    assert unsafe_reason(name)
    assert upload_problem(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a b/ü.txt",
        "...",
        "a..b",
        ".hidden/file",
        "ab:c2",
        "C:a",
        "c:d/e",
        "-x",
        "100%/#?&",
        "日本/語",
    ],
)
@pytest.mark.posix(reason="stricter there")
def test_safe_names(name: str) -> None:
    """Everything else may."""
    assert unsafe_reason(name) is None


@given(st.text(max_size=60))
def test_accepted_names_stay_below_their_root(name: str) -> None:
    """Whatever the rules let pass lies below the target."""
    if unsafe_reason(name) is None:
        joined = os.path.normpath("/target/" + name)
        assert joined.startswith("/target/")
        assert joined == "/target/" + name


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_encoded_names_come_back(name: str) -> None:
    """A URL's path decodes to exactly the name: nothing is taken for query or fragment."""
    url = "https://h/c/" + encode_blob_name(name)
    assert unquote(urlsplit(url).path.removeprefix("/c/")) == name
    assert not urlsplit(url).query
    assert not urlsplit(url).fragment


@pytest.mark.parametrize("name", ["a.", "dir./b", "...", "dir/a.b.", "a ."])
def test_names_that_the_service_would_cut(name: str) -> None:
    """The blob of `a.` is `a`: uploaded, it would stand in place of another file's."""
    assert upload_problem(name) == "it has a part that ends in a dot, which the blob service drops"
    assert unsafe_reason(name) is None  # emulators list them


def test_names_longer_than_azure_allows() -> None:
    """1,024 characters and 254 parts, the prefix counted."""
    assert upload_problem("/".join(["a" * 200] * 6))
    assert upload_problem("/".join("a" * 255))
    assert upload_problem("a" * 200, prefix_length=900)
    assert upload_problem("a" * 200, prefix_length=800) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("README", "readme"),
        ("Straße/Ä.TXT", "STRAẞE/A\u0308.txt"),
        ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c2"),
        ("Ǆ", "ǆ"),
        ("ŸÉ", "ÿe\u0301"),
    ],
)
def test_folding_finds_names_that_are_one_file_elsewhere(one: str, other: str) -> None:
    """Case, and composed against decomposed accents."""
    assert fold_name(one) == fold_name(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Straße", "Strasse"),
        ("m²", "m2"),
        ("\ufb01le", "file"),
        ("\uff41", "a"),
        ("\u2163", "IV"),
        ("½", "1/2"),
        ("\u0149", "\u02bcn"),
        ("é", "e"),
        ("a\u200db", "ab"),
    ],
)
def test_folding_keeps_apart_what_file_systems_keep_apart(one: str, other: str) -> None:
    """Full case folding and compatibility forms make one of names that are two files anywhere."""
    assert fold_name(one) != fold_name(other)


GLOBS = [
    ("*.png", "a.png", True),
    ("*.png", "deep/er/a.png", True),
    ("*.png", "a.pngx", False),
    ("data/*.json", "data/a.json", True),
    ("data/*.json", "data/sub/a.json", False),
    ("data/*.json", "x/data/a.json", False),
    ("data/**", "data/sub/a", True),
    ("**/a.txt", "a.txt", True),
    ("**/a.txt", "x/y/a.txt", True),
    ("data/", "data/x", True),
    ("data/", "x/data/y", True),
    ("/data/", "x/data/y", False),
    ("data/", "data", False),
    ("a?.txt", "ab.txt", True),
    ("a?.txt", "a/.txt", False),
    ("[ab].txt", "a.txt", True),
    ("[!ab].txt", "a.txt", False),
    ("[.txt", "[.txt", True),
    ("a+(b).txt", "a+(b).txt", True),
]


@pytest.mark.parametrize(("glob", "name", "matches"), GLOBS)
def test_globs(glob: str, name: str, matches: bool) -> None:
    """`*` stays within a part, `**` crosses, a slash anchors, a trailing one means all below."""
    assert compile_globs([glob], [])(name) is matches
    assert compile_globs([], [glob])(name) is not matches


def test_exclude_wins() -> None:
    """A file that matches both is left alone."""
    wanted = compile_globs(["*.png"], ["tmp/"])
    assert not wanted("tmp/a.png")
    assert wanted("a.png")


@given(st.text(max_size=12), st.text(max_size=12))
def test_no_glob_breaks_the_matcher(glob: str, name: str) -> None:
    """Any text is a glob, or refused with a ValueError."""
    try:
        compile_globs([glob], [])(name)
    except ValueError as error:
        assert "matches nothing" in str(error) or "no valid glob" in str(error)


@given(st.text("ab*?/[].", max_size=8), st.text("ab/", min_size=1, max_size=5), st.text("ab/."))
def test_no_wanted_file_is_below_a_folder_that_is_not_looked_into(
    glob: str, folder: str, below: str
) -> None:
    """All below it is excluded, whatever it is called."""
    try:
        pruned, wanted = compile_pruning([glob]), compile_globs([], [glob])
    except ValueError:
        return
    assert not (pruned(folder) and wanted(f"{folder}/{below}"))


def test_one_string_instead_of_a_list_is_refused() -> None:
    """Or each of its letters would be a glob."""
    with pytest.raises(TypeError, match="list of globs"):
        compile_globs("*.png", [])


MD5 = b"0123456789abcdef"


@given(
    overwrite=st.sampled_from(["always", "never", "if-unchanged"]),
    compare=st.sampled_from(["hash", "size", "nothing"]),
    size=st.integers(0, 3),
    there=st.none() | st.integers(0, 3),
    md5=st.none() | st.just(MD5),
    move=st.sampled_from(["upload", "download"]),
)
def test_every_decision(overwrite, compare, size, there, md5, move) -> None:  # type: ignore[no-untyped-def]
    """Missing is transferred; never replaces nothing; a skip needs equal sizes at least."""
    rules = TreeRules(overwrite=overwrite, compare=compare)
    blob = None if there is None else BlobInfo("a", there, md5)
    plan = decide(move, rules, "a", size, blob, md5)
    if plan is None:
        assert compare == "hash"
        assert there == size
        assert md5 is not None
        assert overwrite != "never"
    elif there is None:
        assert plan.action == move
    elif overwrite == "never":
        assert plan.action == "keep"
    elif plan.action == "skip":
        assert there == size
        assert compare == "size"
    else:
        assert plan.action in ("upload", "download")


def test_hashes_decide_last() -> None:
    """Equal hashes skip, different ones transfer."""
    assert decide_by_hash("upload", "a", 1, MD5, MD5).action == "skip"
    assert decide_by_hash("download", "a", 1, MD5, MD5[::-1]).action == "download"


def test_listing_page_is_read() -> None:
    """Sizes, hashes, ETags with quotes, encoded names; directory markers are left out."""
    page = (
        b'<?xml version="1.0"?><EnumerationResults><Blobs>'
        b"<Blob><Name>a&amp;b</Name><Properties><Content-Length>3</Content-Length>"
        b"<Content-MD5>MDEyMzQ1Njc4OWFiY2RlZg==</Content-MD5><Etag>0x1</Etag>"
        b"<Last-Modified>Mon, 23 Nov 2026 12:00:00 GMT</Last-Modified></Properties></Blob>"
        b'<Blob><Name Encoded="true">x%01y</Name><Properties/></Blob>'
        b"<Blob><Name>dir/</Name><Properties><Content-Length>0</Content-Length></Properties></Blob>"
        b"<Blob><Name>hns</Name><Properties/><Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"
        b"</Blob><Blob><Name>h2</Name><Properties/><Metadata><Hdi_isfolder>True</Hdi_isfolder>"
        b"</Metadata></Blob><Blob><Name>wasb</Name><Properties/><Metadata><ASV_IsFolder>true"
        b"</ASV_IsFolder></Metadata></Blob><Blob><Name>gen2</Name><Properties><ResourceType>"
        b"directory</ResourceType></Properties></Blob></Blobs><NextMarker>more</NextMarker></EnumerationResults>"
    )
    blobs, marker = parse_page(page)
    assert [blob.name for blob in blobs] == ["a&b", "x\x01y"]
    assert (blobs[0].size, blobs[0].md5, blobs[0].etag) == (3, MD5, '"0x1"')
    assert blobs[0].last_modified is not None
    assert marker == "more"


@pytest.mark.parametrize("text", ["\x01", "\ufffe", "\uffff", "&#1;", "&#xFFFF;"])
def test_listing_with_characters_that_xml_cannot_hold(text: str) -> None:
    """Such a name is listed with a stand-in that no file may have, so it is rejected later."""
    blob = f"<Blob><Name>a{text}b</Name></Blob>"
    page = f"<EnumerationResults><Blobs>{blob}</Blobs></EnumerationResults>"
    blobs, _ = parse_page(page.encode())
    assert unsafe_reason(blobs[0].name)
