"""Atomic, fsynced file writes, checksums, safe joins and media types for Python services.

Everything that infra-core writes to a disk goes through `AtomicFile`.
"""

from ._atomic import AtomicFile, commit_together
from ._checksum import CHUNK_SIZE, compute_checksum, parse_checksum
from ._errors import (
    AtomicFileClosed,
    ChecksumAlgorithmError,
    ChecksumFileError,
    ChecksumFileMissing,
    ChecksumFormatError,
    FileLockUnsupported,
    FileWriteDenied,
    FileWriteError,
    FsError,
    UnsafePathError,
)
from ._locks import FileLock, lock_descriptor, unlock_descriptor
from ._media_types import media_category, media_type
from ._paths import ensure_parent, hashed_asset_path, safe_join, unique_asset_path
from ._replace import fsync_directory
from ._temp_names import is_partial, remove_stale_partials
from ._write import (
    write_bytes_atomic,
    write_json_atomic,
    write_stream_atomic,
    write_text_atomic,
)

__all__ = [
    "CHUNK_SIZE",
    "AtomicFile",
    "AtomicFileClosed",
    "ChecksumAlgorithmError",
    "ChecksumFileError",
    "ChecksumFileMissing",
    "ChecksumFormatError",
    "FileLock",
    "FileLockUnsupported",
    "FileWriteDenied",
    "FileWriteError",
    "FsError",
    "UnsafePathError",
    "commit_together",
    "compute_checksum",
    "ensure_parent",
    "fsync_directory",
    "hashed_asset_path",
    "is_partial",
    "lock_descriptor",
    "media_category",
    "media_type",
    "parse_checksum",
    "remove_stale_partials",
    "safe_join",
    "unique_asset_path",
    "unlock_descriptor",
    "write_bytes_atomic",
    "write_json_atomic",
    "write_stream_atomic",
    "write_text_atomic",
]

for _name in __all__:  # errors and reprs show the public name, not the private module
    _value = globals()[_name]
    if hasattr(_value, "__module__"):
        _value.__module__ = __name__
del _name, _value
