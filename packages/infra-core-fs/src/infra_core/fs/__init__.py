"""Atomic, fsynced file writes, checksums, safe joins and media types for Python services.

Everything that infra-core writes to a disk goes through `AtomicFile`.
"""

from ._atomic import AtomicFile as AtomicFile
from ._checksum import (
    CHUNK_SIZE as CHUNK_SIZE,
    Hasher as Hasher,
    compute_checksum as compute_checksum,
    file_hexdigest as file_hexdigest,
    new_hasher as new_hasher,
    parse_checksum as parse_checksum,
)
from ._errors import (
    AtomicFileClosed as AtomicFileClosed,
    ChecksumAlgorithmError as ChecksumAlgorithmError,
    ChecksumFileError as ChecksumFileError,
    ChecksumFileMissing as ChecksumFileMissing,
    ChecksumFormatError as ChecksumFormatError,
    FileLockUnsupported as FileLockUnsupported,
    FileWriteDenied as FileWriteDenied,
    FileWriteError as FileWriteError,
    FsError as FsError,
    UnsafePathError as UnsafePathError,
)
from ._locks import (
    FileLock as FileLock,
    lock_descriptor as lock_descriptor,
    unlock_descriptor as unlock_descriptor,
)
from ._media_types import (
    media_category as media_category,
    media_extension as media_extension,
    media_type as media_type,
)
from ._names import is_partial as is_partial, remove_stale_partials as remove_stale_partials
from ._paths import (
    ensure_parent as ensure_parent,
    hashed_asset_path as hashed_asset_path,
    safe_file_name as safe_file_name,
    safe_join as safe_join,
    unique_asset_path as unique_asset_path,
)
from ._replace import fsync_directory as fsync_directory
from ._together import commit_together as commit_together
from ._write import (
    write_bytes_atomic as write_bytes_atomic,
    write_json_atomic as write_json_atomic,
    write_stream_atomic as write_stream_atomic,
    write_text_atomic as write_text_atomic,
)

__all__ = [name for name in list(globals()) if not name.startswith("_")]

for _name in __all__:  # errors and reprs show the public name, not the private module
    _value = globals()[_name]
    if hasattr(_value, "__module__"):
        _value.__module__ = __name__
del _name, _value
