"""Bad input is answered at once, by an error that names the value, the rule and the remedy."""

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra_core import fs

Call = Callable[[Path], object]


def wrong(value: object) -> Any:
    """What the type checker would refuse, and people pass all the same."""
    return value


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (
            lambda d: fs.write_text_atomic(d / "a", wrong(b"x")),
            TypeError,
            ["not bytes", "write_bytes"],
        ),
        (
            lambda d: fs.write_text_atomic(d / "a", wrong({})),
            TypeError,
            ["not dict", "write_json_atomic"],
        ),
        (
            lambda d: fs.write_bytes_atomic(d / "a", wrong("x")),
            TypeError,
            ["not str", "encode text"],
        ),
        (
            lambda d: fs.write_stream_atomic(d / "a", wrong(b"x")),
            TypeError,
            ["not int", "iterable of"],
        ),
        (
            lambda d: fs.AtomicFile(d / "a", algorithms="md5"),
            fs.ChecksumAlgorithmError,
            ["'md5' is one name", "write ['md5']"],
        ),
        (
            lambda d: fs.AtomicFile(d / "a", mode=644),
            ValueError,
            [f"mode={oct(644)} is not a file mode", "mode=0o644"],
        ),
        (lambda d: fs.AtomicFile(d / "a", mode=wrong("0644")), ValueError, ["mode='0644'"]),
        (
            lambda d: fs.write_bytes_atomic(f"{d}/a\0b", b"x"),
            fs.UnsafePathError,
            ["a\\x00b", "take out NUL"],
        ),
        (lambda d: fs.compute_checksum(f"{d}/a\0b"), fs.UnsafePathError, ["a\\x00b", "take out"]),
        (lambda d: fs.hashed_asset_path(d, wrong(None)), TypeError, ["such as its URL, not None"]),
        (lambda d: fs.unique_asset_path(d, wrong(b"k")), TypeError, ["not b'k'"]),
        (
            lambda _: fs.parse_checksum(wrong(None)),
            fs.ChecksumFormatError,
            ["None", "'sha256:<hexdig"],
        ),
        (lambda _: fs.parse_checksum("md5:a"), fs.ChecksumFormatError, ["has 1 hex digit where"]),
        (lambda d: fs.safe_join(d, ""), fs.UnsafePathError, ["'' ", "it is empty", "relative"]),
        (lambda d: fs.safe_join(d, "/etc"), fs.UnsafePathError, ["'/etc'", "it is absolute"]),
        (lambda d: fs.safe_join(d, "a//b"), fs.UnsafePathError, ["it has an empty segment"]),
        (lambda d: fs.safe_join(d, "a/./b"), fs.UnsafePathError, ["it has a '.' segment"]),
        (lambda d: fs.safe_join(d, wrong(b"a")), fs.UnsafePathError, ["b'a'", "bytes, not text"]),
        *(
            (
                lambda d, age=age: fs.remove_stale_partials(d, older_than=wrong(age)),
                ValueError,
                [f"0 or more seconds, not {age!r}", "86400 is a day"],
            )
            for age in (-1, math.nan, "5", None)
        ),
        *(
            (
                lambda d, seconds=seconds: fs.FileLock(d / "lock").acquire(timeout=wrong(seconds)),
                ValueError,
                [f"timeout={seconds!r} is not 0 or more", "or None for as"],
            )
            for seconds in (-1, math.nan, "5")
        ),
    ],
)
def test_bad_input_names_value_and_remedy(
    tmp_path: Path, call: Call, kind: type[Exception], words: list[str]
) -> None:
    """At the call, not in the depths; nothing is left behind."""
    with pytest.raises(kind) as caught:
        call(tmp_path)
    assert [word for word in words if word not in str(caught.value)] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.posix(reason="symbolic links need a privilege")
def test_a_link_out_of_the_base_is_refused_with_its_own_remedy(tmp_path: Path) -> None:
    """The name is as it should be: it is the link that has to go."""
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "link").symlink_to(tmp_path)
    with pytest.raises(fs.UnsafePathError, match="remove the link") as caught:
        fs.safe_join(tmp_path / "base", "link/x")
    assert "plain segments" not in str(caught.value)


@pytest.mark.posix(reason="folders are not flushed there")
def test_a_folder_that_cannot_be_flushed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's error has no name in it; the message says what is at stake."""

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="a power cut may lose its newest files") as caught:
        fs.fsync_directory(tmp_path)
    assert caught.value.errno == errno.EIO
    assert caught.value.filename == str(tmp_path)
