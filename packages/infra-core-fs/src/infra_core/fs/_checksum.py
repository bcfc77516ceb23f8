"""Checksums of files, and the one place where hash objects are made."""

import errno
import hashlib
import os
import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from ._errors import (
    ChecksumAlgorithmError,
    ChecksumFileError,
    ChecksumFileMissing,
    ChecksumFormatError,
    no_path,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "CHUNK_SIZE",
    "Hasher",
    "canonical_algorithm",
    "compute_checksum",
    "file_hexdigest",
    "new_hasher",
    "parse_checksum",
]

CHUNK_SIZE: Final = 8192
"""Size in bytes of a network read in 0.7; exported for those who import it."""

_READ_SIZE: Final = 1 << 18  # measured: from 256 KiB on, hashing is bound by the hash itself

# Extendable-output functions have no digest length of their own; these give them the full
# strength of their names (FIPS 202, table 4: collision resistance of min(d/2, 128 or 256) bits).
_XOF_BYTES: Final = {"shake_128": 32, "shake_256": 64}
_HEX: Final = re.compile(r"[0-9a-f]+")


class Hasher(Protocol):
    """The part of a `hashlib` object that this package uses."""

    def update(self, data: "Buffer", /) -> None:
        """Add data."""

    def hexdigest(self) -> str:
        """Return the digest of all data so far, in lower-case hex."""


class _FixedLengthXof:
    """A SHAKE hash with a fixed output length, so that it looks like any other hash."""

    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name, usedforsecurity=False)
        self._length = _XOF_BYTES[name]

    def update(self, data: "Buffer", /) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        # typeshed knows hashlib.new() only as a hash of fixed length
        return self._hash.hexdigest(self._length)  # type: ignore[call-arg]


@cache
def _google_crc32c() -> Any:
    """The package `google-crc32c` where it is installed with its C code; else None.

    Its code in Python takes a thousand times as long as a hash of `hashlib`, and it warns of that.
    """
    try:
        package = import_module("google_crc32c")
    except (ImportError, RuntimeWarning):
        return None
    return package if package.implementation == "c" else None


class _Crc32c:
    """CRC32C (RFC 3720, appendix B.4), which finds accidents but no forgery."""

    def __init__(self) -> None:
        self._extend = _google_crc32c().extend
        self._crc = 0

    def update(self, data: "Buffer", /) -> None:
        self._crc = self._extend(self._crc, bytes(data))  # a no-op for bytes, which it insists on

    def hexdigest(self) -> str:
        return f"{self._crc:08x}"


def canonical_algorithm(algorithm: str) -> str:
    """Return hashlib's own spelling: `SHA-256` becomes `sha256`, `sha3-256` `sha3_256`."""
    name = algorithm.strip().lower() if isinstance(algorithm, str) else ""
    for candidate in (name, name.replace("-", "_"), name.replace("-", "")):
        if candidate in hashlib.algorithms_available:
            return candidate
    if name in {"crc32c", "crc-32c"} and _google_crc32c() is not None:
        return "crc32c"
    known = ", ".join(sorted(hashlib.algorithms_guaranteed))
    raise ChecksumAlgorithmError(
        f"unknown checksum algorithm {algorithm!r}; use one that hashlib knows: {known}"
    )


def new_hasher(algorithm: str) -> Hasher:
    """Start a hash of any algorithm that `hashlib` knows, or of CRC32C.

    Args:
        algorithm: Name as in `hashlib.new`; case and dashes do not matter. `shake_128` and
            `shake_256` give 32 and 64 bytes. `crc32c` needs the package google-crc32c.

    Raises:
        ChecksumAlgorithmError: No such algorithm in this Python.
    """
    name = canonical_algorithm(algorithm)
    if name in _XOF_BYTES:
        return _FixedLengthXof(name)
    if name == "crc32c":
        return _Crc32c()
    try:
        # not for security: FIPS builds refuse md5 otherwise, though it only compares bytes
        return hashlib.new(name, usedforsecurity=False)
    except ValueError as error:  # listed, yet switched off in this OpenSSL
        raise ChecksumAlgorithmError(
            f"the checksum algorithm {algorithm!r} is switched off in this Python's OpenSSL; "
            "use sha256"
        ) from error


def compute_checksum(path: "Path | str", algorithm: str = "sha256") -> str:
    """Return the checksum of a file's bytes in the form `algorithm:hexdigest`.

    The form of `DownloadResult.checksum`, of manifests and of `parse_checksum`, as in 0.7;
    `file_hexdigest` returns the digest alone.

    Args:
        path: The file to read.
        algorithm: Any algorithm of `hashlib`.

    Returns:
        The algorithm as it was given, a colon, the digest in lower-case hex.

    Raises:
        ChecksumAlgorithmError: No such algorithm; no byte has been read.
        ChecksumFileMissing: No such file (also a `FileNotFoundError`).
        ChecksumFileError: The file cannot be read (also an `OSError`).
        UnsafePathError: No file can have that path, which has a NUL or a lone surrogate.

    Example:
        >>> from infra_core.fs import compute_checksum, write_bytes_atomic
        >>> path = write_bytes_atomic(Path(tempfile.mkdtemp()) / "a.bin", b"abc")
        >>> compute_checksum(path)[:23]
        'sha256:ba7816bf8f01cfea'
    """
    return f"{algorithm}:{file_hexdigest(path, algorithm)}"


def file_hexdigest(path: "Path | str", algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes in lower-case hex, without the algorithm's name.

    Args:
        path: The file to read.
        algorithm: Any algorithm of `hashlib`.

    Raises:
        ChecksumAlgorithmError: No such algorithm; no byte has been read.
        ChecksumFileMissing: No such file (also a `FileNotFoundError`).
        ChecksumFileError: The file cannot be read (also an `OSError`).
        UnsafePathError: No file can have that path, which has a NUL or a lone surrogate.

    Example:
        >>> from infra_core.fs import file_hexdigest, write_bytes_atomic
        >>> path = write_bytes_atomic(Path(tempfile.mkdtemp()) / "a.bin", b"abc")
        >>> file_hexdigest(path)[:16]
        'ba7816bf8f01cfea'
    """
    hasher = new_hasher(algorithm)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - str paths are welcome too
            buffer = memoryview(bytearray(_READ_SIZE))
            while count := file.readinto(buffer):
                hasher.update(buffer[:count])
    except FileNotFoundError as error:
        raise ChecksumFileMissing(
            errno.ENOENT, "no such file to checksum; check the path", os.fspath(path)
        ) from error
    except ValueError as error:  # of the system's path encoding
        raise no_path(error, path) from error
    except OSError as error:
        raise ChecksumFileError(
            error.errno,
            f"cannot read the file to checksum ({error.strerror}); give a readable, regular file",
            os.fspath(path),
        ) from error
    return hasher.hexdigest()


def parse_checksum(text: str) -> tuple[str, str]:
    """Split `"sha256:BA78…"` into the algorithm and the lower-case hex digest.

    Args:
        text: A checksum as `DownloadResult.checksum` and the manifest write it.

    Returns:
        `(algorithm, hexdigest)`; the algorithm in hashlib's spelling.

    Raises:
        ChecksumFormatError: No colon, no hex digits, or not as many as the algorithm gives.
        ChecksumAlgorithmError: No such algorithm.

    Example:
        >>> parse_checksum("MD5:900150983CD24FB0D6963F7D28E17F72")
        ('md5', '900150983cd24fb0d6963f7d28e17f72')
    """
    if not isinstance(text, str):
        raise ChecksumFormatError(
            f"the checksum {text!r} is not text; write it as 'sha256:<hexdigest>'"
        )
    algorithm, colon, digest = text.strip().partition(":")
    digest = digest.strip().lower()
    if not colon or not algorithm.strip():
        raise ChecksumFormatError(
            f"the checksum {text!r} names no algorithm before a colon; write it as "
            "'sha256:<hexdigest>'"
        )
    if not _HEX.fullmatch(digest):
        raise ChecksumFormatError(
            f"the checksum {text!r} has other than hex digits after its colon, or none; write it "
            "as 'sha256:<hexdigest>'"
        )
    name = canonical_algorithm(algorithm)
    expected = len(new_hasher(name).hexdigest())
    if len(digest) != expected:
        raise ChecksumFormatError(
            f"the checksum {text!r} has {len(digest)} hex digit{'s' * (len(digest) != 1)} where "
            f"{name} has {expected}; give the whole digest"
        )
    return name, digest
