"""Paths: parents, hashed asset paths, joins that stay in their base."""

import hashlib
import os
import pickle
import re
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from infra_core import fs
from infra_core.fs import _paths

HOSTILE = [
    "..",
    ".",
    "",
    "...",
    "../../etc/passwd",
    "..\\..\\windows\\system32",
    "/etc/passwd",
    "C:\\boot.ini",
    "C:evil",
    "\\\\server\\share\\x",
    "a\x00b",
    "\x00",
    "a/b/c",
    "a\\b",
    "x" * 300,
    "ü" * 300,
    "日本語" * 100 + ".png",
    "CON",
    "con.txt",
    "NUL .txt",
    "aux.tar.gz",
    "COM1",
    "LPT9.log",
    "COM¹",
    "CONIN$",
    "trailing. . .",
    " leading",
    "new\nline",
    "\u202egnp.exe",
    "\ud800lone",
    "e\u0301",
    "~",
    "-rf",
    "a" * 250 + "." + "b" * 250,
]
hostile_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=320),
    st.text(alphabet="./\\:\x00~ aC", max_size=40),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("/".join),
    st.text(alphabet=st.characters(), max_size=40),  # lone surrogates too
)


class TestEnsureParent:
    def test_parents_are_made_and_may_exist(self, tmp_path: Path) -> None:
        """Calling it twice is fine; the file itself is not made."""
        target = tmp_path / "a" / "b" / "c.txt"
        fs.ensure_parent(target)
        fs.ensure_parent(target)
        assert target.parent.is_dir()
        assert not target.exists()


class TestHashedAssetPath:
    def test_the_form_of_0_7(self, tmp_path: Path) -> None:
        """Trees that exist keep their paths: base/ab/cd/name."""
        digest = hashlib.sha256(b"key").hexdigest()
        assert (
            fs.hashed_asset_path(tmp_path, "key", "logo.png")
            == tmp_path / digest[:2] / digest[2:4] / "logo.png"
        )

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("https://example.com/img/logo.png?size=2#top", "logo.png"),
            ("https://example.com/img/", "img"),
            ("https://example.com/", "asset"),
            ("https://example.com", "asset"),
            ("", "asset"),
            ("plain-key", "plain-key"),
            ("http://[broken/x.png?y", "x.png"),
            ("https://example.com/a%20b.png", "a%20b.png"),
        ],
    )
    def test_without_a_hint_the_name_comes_from_the_key(self, key: str, name: str) -> None:
        """The last part of the URL's path, else `asset`."""
        assert fs.hashed_asset_path(Path("base"), key).name == name

    @pytest.mark.parametrize("hint", ["logo.png", "a b.txt", "Grüße.md", ".hidden", "x" * 255])
    def test_harmless_hints_are_kept_as_they_are(self, hint: str) -> None:
        """Only what is dangerous is changed."""
        assert fs.hashed_asset_path(Path("base"), "key", hint).name == hint


class TestUniqueAssetPath:
    def test_keys_that_collide_in_the_short_form_do_not_here(self) -> None:
        """The whole hash is in the path."""
        seen: dict[Path, str] = {}
        number = 0
        while True:  # about 300 tries find two keys with the same 16 bits
            key = f"https://example.com/{number}/logo.png"
            path = fs.hashed_asset_path(Path("base"), key)
            if path in seen:
                break
            seen[path] = key
            number += 1
        assert fs.unique_asset_path(Path("base"), key) != fs.unique_asset_path(
            Path("base"), seen[path]
        )

    @settings(deadline=None)  # a busy machine makes an example slow, not wrong
    @given(first=hostile_text, second=hostile_text, hint=st.none() | hostile_text)
    def test_two_keys_never_share_a_path(self, first: str, second: str, hint: str | None) -> None:
        """Equal paths mean equal keys, whatever the hint."""
        same = fs.unique_asset_path(Path("b"), first, hint) == fs.unique_asset_path(
            Path("b"), second, hint
        )
        assert same == (first == second)

    def test_the_path_is_the_same_everywhere(self) -> None:
        """Nothing but key and hint decides: a recorded value of another machine."""
        path = fs.unique_asset_path(Path("assets"), "https://example.com/logo.png")
        digest = hashlib.sha256(b"https://example.com/logo.png").hexdigest()
        assert path.as_posix() == f"assets/{digest[:2]}/{digest[2:4]}/{digest[4:]}/logo.png"

    def test_the_name_is_portable(self) -> None:
        """Characters that Windows refuses are replaced."""
        assert fs.unique_asset_path(Path("b"), "k", 'a<b>:"|?*.png').name == "a_b______.png"

    def test_what_hides_or_turns_text_is_left_out(self) -> None:
        """A name that displays as another one is a trap."""
        hidden = "\x07\x9b\xad\u061c\u180e\u200b\u200f\u2028\u202e\u2060\u2069\ufeff\U000e0041"
        assert fs.safe_file_name("é".join(hidden)) == "é" * (len(hidden) - 1)

    def test_long_names_keep_their_extension_and_stay_apart(self) -> None:
        """A cut name carries a hash of the whole."""
        first = fs.unique_asset_path(Path("b"), "k", "x" * 300 + "1.png").name
        second = fs.unique_asset_path(Path("b"), "k", "x" * 300 + "2.png").name
        assert first != second
        assert first.endswith(".png")
        assert len(first.encode()) <= 120

    def test_a_cut_name_is_the_same_in_every_version(self) -> None:
        """A file that was stored under it is looked for under it."""
        assert fs.safe_file_name("a" * 300 + ".txt") == "a" * 242 + "~ecba145f.txt"


class TestTheFormOf07:
    @pytest.mark.parametrize(
        ("hint", "name"),
        [
            ("thumb/x.png", "thumb/x.png"),
            ("full/2026/x.png", "full/2026/x.png"),
            pytest.param("16:9/x.png", "16:9/x.png", marks=pytest.mark.posix),
            ("../x.png", "x.png"),
            ("a/../x.png", "x.png"),
            ("/etc/x.png", "x.png"),
            ("a//x.png", "x.png"),
            ("./x.png", "x.png"),
            ("a\\b/x.png", "x.png"),
            ("../x.png/", "asset"),
        ],
    )
    def test_a_hint_keeps_its_folder_when_it_stays_inside(self, hint: str, name: str) -> None:
        """Two sizes of one picture are two files."""
        path = fs.hashed_asset_path(Path("b"), "key", hint)
        digest = hashlib.sha256(b"key").hexdigest()
        assert path.as_posix() == f"b/{digest[:2]}/{digest[2:4]}/{name}"

    @pytest.mark.parametrize(
        ("key", "name"),
        [
            ("https://h/a/x.png;v=1", "x.png"),
            ("https://h/a/x.png;v=1?q#f", "x.png"),
            ("https://h/a;b/x.png", "x.png"),
            ("https://h/a/", "a"),
            ("https://h", "asset"),
        ],
    )
    def test_the_name_of_a_key(self, key: str, name: str) -> None:
        """The last part of its path, without parameters: files of 0.7 are found."""
        assert fs.hashed_asset_path(Path("b"), key).name == name


@pytest.mark.parametrize("function", [fs.hashed_asset_path, fs.unique_asset_path])
class TestHostileNames:
    @given(key=hostile_text, hint=st.none() | hostile_text)
    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_no_key_and_no_hint_leaves_the_base(
        self, tmp_path: Path, function: "type", key: str, hint: str | None
    ) -> None:
        """The path stays below base, and its name is one that every file system takes."""
        path: Path = function(tmp_path, key, hint)
        assert os.path.commonpath([os.path.normpath(path), tmp_path]) == str(tmp_path)
        assert os.path.normpath(path) == str(path)
        name = path.name
        assert 0 < len(name.encode("utf-8")) <= 255
        assert not re.search(r"[/\\\x00-\x1f\x7f]", name)
        assert not name.endswith((" ", "."))
        assert not re.match(r"(?i)(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\.|$)", name)

    @pytest.mark.as_windows
    @pytest.mark.parametrize("text", HOSTILE)
    def test_the_file_can_be_written(self, tmp_path: Path, function: "type", text: str) -> None:
        """What the function returns, the file system accepts."""
        path: Path = function(tmp_path, text, text)
        fs.write_bytes_atomic(path, b"1", durable=False)
        assert path.read_bytes() == b"1"


@pytest.mark.as_windows
class TestSafeJoin:
    @pytest.mark.parametrize(
        "parts",
        [("a",), ("a/b.txt",), ("a", "b/c"), ("Grüße.md",), ("a b",), ("..a",), ("x" * 255,)]
        + [
            pytest.param(parts, marks=pytest.mark.posix)
            for parts in [("x..",), ("c:d/e",), ("x:",), ("a/C:x",)]
        ],
    )
    def test_plain_names_are_joined(self, tmp_path: Path, parts: tuple[str, ...]) -> None:
        """Ordinary relative names pass unchanged; `x:` is no drive but on Windows."""
        assert fs.safe_join(tmp_path, *parts) == tmp_path.joinpath(*parts)

    def test_no_parts_give_the_base(self, tmp_path: Path) -> None:
        """Nothing joined is the base itself."""
        assert fs.safe_join(tmp_path) == tmp_path

    @pytest.mark.parametrize(
        "part",
        [
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "/etc/passwd",
            "//server/share",
            "a//b",
            "a/",
            "./a",
            ".",
            "",
            "a\\b",
            "..\\x",
            "\\\\server\\share",
            "a\x00b",
            "a\nb",
            "x" * 256,
            "ü" * 128,
            "\ud800",
        ],
    )
    def test_hostile_names_are_refused(self, tmp_path: Path, part: str) -> None:
        """Each is an error that carries the name and the base."""
        with pytest.raises(fs.UnsafePathError, match="cannot be joined") as caught:
            fs.safe_join(tmp_path, "ok", part)
        assert caught.value.path == part
        assert caught.value.base == tmp_path
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize(
        ("part", "reason"),
        [
            ("a?b=1", "no '\\?' in a name"),
            ('a/"b"/c', "no '\"' in a name"),
            ("a|b", "no '\\|' in a name"),
            ("a<b", "no '<' in a name"),
            ("*.png", "no '\\*' in a name"),
            ("c:d", "another meaning"),
            ("a.", "another meaning"),
            ("a /b", "another meaning"),
            ("nul.txt", "another meaning"),
        ],
    )
    def test_what_windows_cannot_have_is_refused_there(
        self, tmp_path: Path, part: str, reason: str
    ) -> None:
        """It would refuse the name, or take it for another one without a word."""
        if _paths.os.name == "nt":  # type: ignore[attr-defined]  # there, or on its stand-in
            with pytest.raises(fs.UnsafePathError, match=reason):
                fs.safe_join(tmp_path, part)
        else:
            assert fs.safe_join(tmp_path, part) == tmp_path / part

    @given(part=hostile_text)
    @settings(
        max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    def test_every_accepted_path_lies_in_the_base(self, tmp_path: Path, part: str) -> None:
        """And is the only name that gives its path."""
        try:
            path = fs.safe_join(tmp_path, part)
        except fs.UnsafePathError:
            return
        assert os.path.realpath(path).startswith(os.path.realpath(tmp_path) + os.sep)
        assert path.relative_to(tmp_path).as_posix() == part

    def test_a_symlinked_parent_out_of_the_base_is_refused(self, tmp_path: Path) -> None:
        """A link planted in the tree does not lead out of it."""
        base = tmp_path / "base"
        base.mkdir()
        (base / "link").symlink_to(tmp_path)
        with pytest.raises(fs.UnsafePathError, match="symbolic link"):
            fs.safe_join(base, "link/x")

    def test_a_symlinked_file_out_of_the_base_is_refused(self, tmp_path: Path) -> None:
        """The last part is checked as well, dangling or not."""
        base = tmp_path / "base"
        base.mkdir()
        (base / "link").symlink_to(tmp_path / "nowhere")
        with pytest.raises(fs.UnsafePathError, match="symbolic link"):
            fs.safe_join(base, "link")

    @pytest.mark.parametrize("name", ["link", "sub/link"])
    def test_a_link_at_the_leaf_that_leads_to_a_file_outside_is_refused(
        self, tmp_path: Path, name: str
    ) -> None:
        """What is written there would land outside, what is read comes from there."""
        base, secret = tmp_path / "base", tmp_path / "secret"
        (base / "sub").mkdir(parents=True)
        secret.write_text("kept")
        (base / name).symlink_to(secret)
        with pytest.raises(fs.UnsafePathError, match="symbolic link"):
            fs.safe_join(base, name)

    @pytest.mark.parametrize("part", ["..", "../base-evil/x", "a/../../x", "sub/../.."])
    def test_dots_never_leave_the_base(self, tmp_path: Path, part: str) -> None:
        """Also where the folders exist and the result would lie beside the base."""
        base = tmp_path / "base"
        (base / "sub").mkdir(parents=True)
        (tmp_path / "base-evil").mkdir()
        for parts in ((part,), ("sub", part), ("sub/" + part,)):
            with pytest.raises(fs.UnsafePathError, match=r"'\.\.' segment"):
                fs.safe_join(base, *parts)

    def test_links_within_the_base_are_fine(self, tmp_path: Path) -> None:
        """A base that is itself a link, and links that stay inside, work."""
        real = tmp_path / "real"
        (real / "sub").mkdir(parents=True)
        (real / "inner").symlink_to(real / "sub")
        base = tmp_path / "base"
        base.symlink_to(real)
        assert fs.safe_join(base, "inner/x") == base / "inner" / "x"

    def test_the_base_may_be_relative_or_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Joining does not need the folder to exist."""
        monkeypatch.chdir(tmp_path)
        assert fs.safe_join(Path("out"), "a") == Path("out/a")
        assert fs.safe_join(Path("/"), "a") == Path("/a")

    def test_a_sibling_with_the_same_beginning_is_outside(self, tmp_path: Path) -> None:
        """`/base-evil` is not below `/base`."""
        base, evil = tmp_path / "base", tmp_path / "base-evil"
        base.mkdir()
        evil.mkdir()
        (base / "l").symlink_to(evil)
        with pytest.raises(fs.UnsafePathError):
            fs.safe_join(base, "l/x")

    def test_windows_meanings_are_refused_on_windows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Device names, streams and trailing dots are other files there."""
        from infra_core.fs import _paths

        monkeypatch.setattr(os, "name", "nt")
        for segment in ("NUL", "con.txt", "C:", "C:x", "a.txt:stream", "a.", "a "):
            assert _paths._segment_problem(segment)
        assert _paths._segment_problem("a.txt") is None

    def test_the_error_survives_pickling(self, tmp_path: Path) -> None:
        """Process pools hand errors over by pickle."""
        with pytest.raises(fs.UnsafePathError) as caught:
            fs.safe_join(tmp_path, "..")
        again = pickle.loads(pickle.dumps(caught.value))
        assert (str(again), again.path, again.base) == (str(caught.value), "..", tmp_path)


def test_composed_and_decomposed_names_stay_what_they_are() -> None:
    """Names are not normalised: that would make two blobs one file."""
    name = unicodedata.normalize("NFD", "é.png")
    assert fs.hashed_asset_path(Path("b"), "k", name).name == name
