"""Checksums of files and their written form."""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings, strategies as st

from infra_core import fs
from infra_core.fs import _checksum


class TestComputeChecksum:
    @pytest.mark.parametrize("algorithm", ["sha256", "md5", "SHA512"])
    def test_the_form_of_0_7(self, tmp_path: Path, algorithm: str) -> None:
        """`algorithm:hexdigest`, which downloads and manifests write and `parse_checksum` reads."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        digest = hashlib.new(algorithm, b"abc").hexdigest()
        assert fs.compute_checksum(path, algorithm) == f"{algorithm}:{digest}"
        assert fs.parse_checksum(fs.compute_checksum(path, algorithm))[1] == digest

    def test_the_default_is_sha256(self, tmp_path: Path) -> None:
        """Under the names of 0.7 as well."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        assert fs.compute_checksum(path) == "sha256:" + hashlib.sha256(b"abc").hexdigest()


class TestFileHexdigest:
    def test_the_default_is_sha256(self, tmp_path: Path) -> None:
        """A bare lower-case hex digest."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        assert fs.file_hexdigest(path) == hashlib.sha256(b"abc").hexdigest()

    @pytest.mark.parametrize("algorithm", sorted(hashlib.algorithms_guaranteed))
    def test_every_hashlib_algorithm_works(self, tmp_path: Path, algorithm: str) -> None:
        """SHAKE has no length of its own and gets the one of its full strength."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        expected = (
            hashlib.new(algorithm, b"abc").hexdigest({"shake_128": 32, "shake_256": 64}[algorithm])  # type: ignore[call-arg]
            if algorithm.startswith("shake")
            else hashlib.new(algorithm, b"abc").hexdigest()
        )
        assert fs.file_hexdigest(path, algorithm) == expected

    def test_crc32c_works_where_google_crc32c_is_installed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With its C code; its code in Python would take a thousand times as long."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        pieces: list[bytes] = []

        def extend(crc: int, data: bytes) -> int:
            pieces.append(data)
            return crc + len(data)

        for implementation in ("python", "c"):
            package = SimpleNamespace(implementation=implementation, extend=extend)
            monkeypatch.setitem(sys.modules, "google_crc32c", package)
            _checksum._google_crc32c.cache_clear()
            if implementation == "python":
                with pytest.raises(fs.ChecksumAlgorithmError, match="crc32c"):
                    fs.file_hexdigest(path, "crc32c")
        assert fs.compute_checksum(path, "CRC32C") == "CRC32C:00000003"
        assert fs.parse_checksum("crc32c:00000003") == ("crc32c", "00000003")
        assert pieces == [b"abc"]
        assert type(pieces[0]) is bytes
        monkeypatch.setitem(sys.modules, "google_crc32c", None)
        _checksum._google_crc32c.cache_clear()
        with pytest.raises(fs.ChecksumAlgorithmError, match="unknown checksum algorithm 'crc32c'"):
            fs.new_hasher("crc32c")

    @pytest.mark.parametrize("size", [0, 1, 8191, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 1 << 20])
    def test_sizes_around_the_buffer(self, tmp_path: Path, size: int) -> None:
        """No byte is lost at a buffer's edge, nor hashed twice."""
        data = bytes(i % 251 for i in range(size))
        path = fs.write_bytes_atomic(tmp_path / "a", data, durable=False)
        assert fs.file_hexdigest(path) == hashlib.sha256(data).hexdigest()

    @pytest.mark.parametrize("spelling", ["SHA-256", "Sha256", " sha256 ", "SHA256"])
    def test_spelling_does_not_matter(self, tmp_path: Path, spelling: str) -> None:
        """Case, blanks and the dash of the standards' names are accepted."""
        path = fs.write_bytes_atomic(tmp_path / "a", b"abc")
        assert fs.file_hexdigest(path, spelling) == fs.file_hexdigest(path)

    @pytest.mark.parametrize("algorithm", ["sha257", "", "crc"])
    def test_an_unknown_algorithm_lists_the_known_ones(
        self, tmp_path: Path, algorithm: str
    ) -> None:
        """Also a ValueError, and raised before the file is looked at."""
        with pytest.raises(fs.ChecksumAlgorithmError, match="sha256") as caught:
            fs.file_hexdigest(tmp_path / "missing", algorithm)
        assert isinstance(caught.value, ValueError)

    def test_an_algorithm_that_openssl_refuses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Listed but switched off: a clear error as well."""

        def refuse(name: str, **options: object) -> object:
            raise ValueError("unsupported hash type")

        monkeypatch.setattr(hashlib, "new", refuse)
        with pytest.raises(fs.ChecksumAlgorithmError, match="switched off"):
            _checksum.new_hasher("md5")

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        """Also a FileNotFoundError."""
        with pytest.raises(FileNotFoundError, match="check the path") as caught:
            fs.file_hexdigest(tmp_path / "missing")
        assert isinstance(caught.value, fs.ChecksumFileMissing)
        assert caught.value.filename == str(tmp_path / "missing")

    def test_a_folder_is_refused(self, tmp_path: Path) -> None:
        """Only files have checksums."""
        with pytest.raises(fs.ChecksumFileError, match="regular file"):
            fs.file_hexdigest(tmp_path)


class TestParseChecksum:
    @given(data=st.binary(), algorithm=st.sampled_from(["sha256", "md5", "sha512", "blake2s"]))
    @settings(max_examples=30, deadline=None)
    def test_what_we_write_is_read(self, data: bytes, algorithm: str) -> None:
        """`algorithm:hexdigest` there and back, in any letter case."""
        digest = hashlib.new(algorithm, data).hexdigest()
        assert fs.parse_checksum(f"{algorithm}:{digest}") == (algorithm, digest)
        assert fs.parse_checksum(f" {algorithm.upper()}: {digest.upper()} ") == (algorithm, digest)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("a" * 64, "names no algorithm"),
            (":" + "a" * 64, "names no algorithm"),
            ("sha256:", "hex digits"),
            ("sha256:xyz", "hex digits"),
            ("sha256:abcd", "has 4 hex digits where sha256 has 64"),
            ("", "names no algorithm"),
        ],
    )
    def test_other_forms_are_refused_with_the_remedy(self, text: str, problem: str) -> None:
        """A checksum that cannot match is an error before the download."""
        with pytest.raises(fs.ChecksumFormatError, match=problem) as caught:
            fs.parse_checksum(text)
        assert isinstance(caught.value, ValueError)

    def test_an_unknown_algorithm(self) -> None:
        """The algorithm's own error comes through."""
        with pytest.raises(fs.ChecksumAlgorithmError):
            fs.parse_checksum("sha257:abcd")


def test_chunk_size_stays_exported() -> None:
    """Users of 0.7 import it."""
    assert fs.CHUNK_SIZE == 8192
