"""What a killed download leaves for the next one: a note beside its partial file.

While a large file with a strong ETag comes in, a note is kept in the same folder: which URL and
version, which partial file, and how far it was good. "Good" is a digest over the bytes up to a
checkpoint, so a resume trusts nothing: it reads the partial file again (its hash is needed
anyway) and starts from zero unless the digest agrees, whatever a power cut did to the last pages.

Both names have the form of `infra_core.fs` partial files: listings skip them, and
`remove_stale_partials` sweeps them.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from infra_core.fs import AtomicFile, FsError, lock_descriptor, write_json_atomic

from ._fields import strong_etag
from ._plan import Body, Resume

if TYPE_CHECKING:
    from ._sink import Sink

__all__ = ["NOTE_SUFFIX", "Sidecar"]

NOTE_SUFFIX: Final = ".part.json"

_VERSION: Final = 1
_READ: Final = 1 << 20
CHECKPOINT: Final = 8 << 20  # bytes between two notes; smaller files are not worth one


@dataclass(frozen=True, slots=True)
class _Note:
    version: int
    source: str
    etag: str
    total: int
    partial: str
    offset: int
    sha256: str


class Sidecar:
    """The note of one download to a file, from where `url_identity` says."""

    def __init__(self, dest: Path, source: str) -> None:
        self._dest = dest
        self._source = source
        self._locked: AtomicFile | None = None
        self._left: Path | None = None
        self._body: Body | None = None
        self._noted = 0
        self.found: _Note | None = None

    @cached_property
    def _stem(self) -> str:
        name = self._dest.name
        key = hashlib.sha256(f"{self._source}\0{name}".encode("utf-8", "surrogateescape"))
        # Short, so that the names of AtomicFile's own partial files still begin with all of it.
        start = os.fsencode(name)[:24].decode("utf-8", "ignore")
        return f".{start}.{key.hexdigest()[:16]}.part"

    @cached_property
    def path(self) -> Path:
        """Where the note is kept."""
        return self._dest.with_name(self._stem + ".json")

    # -- a new call looks for what an earlier one left -------------------------------------------

    def load(self) -> Resume | None:
        """Find a partial file to continue; None when there is none, or its owner is alive."""
        try:
            note = _Note(**json.loads(self.path.read_bytes()))
            partial = self._dest.with_name(note.partial)
            usable = (
                note.version == _VERSION
                and note.source == self._source
                and partial.name == note.partial
                and strong_etag(note.etag) is not None
                and 0 < note.offset < note.total
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            with contextlib.suppress(OSError):  # a folder, or not ours to remove
                self.path.unlink()
            return None
        if not usable or _is_written(partial):
            return None
        self.found, self._left = note, partial
        return Resume(note.offset, note.etag, note.total)

    def restore(self, file: AtomicFile) -> bool:
        """Copy the part into a new file; returns whether it is what its note says. Blocking."""
        note = self.found
        if note is None or self._left is None:
            return False
        try:
            with self._left.open("rb", buffering=0) as part:
                while chunk := part.read(min(note.offset - file.size, _READ)):
                    file.write(chunk)
        except FsError:
            raise
        except OSError:
            return False
        return file.size == note.offset and file.hexdigest("sha256") == note.sha256

    # -- this call's own note --------------------------------------------------------------------

    def begin(self, sink: Sink, body: Body, *, small: bool) -> None:
        """Mark the partial file as alive and take notes, if it can be resumed and is worth one.

        The lock is on the file's own descriptor: the system drops it when the writer dies, however
        that happens, and with a second one Windows could not rename the file.
        """
        self._body = None
        if not (small or (body.total or 0) > CHECKPOINT) or not body.resumable:
            return
        file = sink.file
        self._noted = file.size
        try:
            if self._locked is file or lock_descriptor(file.fileno(), wait=False):
                self._locked, self._body = file, body
        except OSError:
            pass  # a file system without locks: what cannot be locked is not continued

    def checkpoint(self, file: AtomicFile) -> None:
        """Take a note if enough has come since the last; called in the writing thread."""
        if self._body is not None and file.size - self._noted >= CHECKPOINT:
            file.flush()  # what the note describes, the kernel must have
            self._write(file.temp_path, file)
            self._noted = file.size
            self._drop_left()

    def keep(self, file: AtomicFile) -> bool:
        """Leave the partial file with a note of all of it; the file is closed by this.

        Returns:
            False when there is nothing that could be resumed.
        """
        if self._body is None or self._body.resume_at(file.size) is None:
            return False
        self._drop_left()
        kept = self._dest.with_name(self._stem)
        file.leave_as(kept)
        self._write(kept, file)
        return True

    def remove(self) -> None:
        """Remove the note and whatever partial file an earlier call had left."""
        self._drop_left()
        if self.found is not None or self._noted or self._body is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)
                # What a process left that was killed while it wrote a note.
                for torn in self.path.parent.glob(f".{glob.escape(self._stem)}.*.part.json"):
                    torn.unlink(missing_ok=True)

    def _write(self, partial: Path, file: AtomicFile) -> None:
        done = None if self._body is None else self._body.resume_at(file.size)
        if done is None:
            return
        sha256 = file.hexdigest("sha256")
        note = _Note(
            _VERSION, self._source, done.etag, done.total, partial.name, done.offset, sha256
        )
        fields: dict[str, Any] = asdict(note)
        # A note that cannot be written costs a resume, not the download.
        with contextlib.suppress(OSError):
            write_json_atomic(self.path, fields, indent=None, durable=False)

    def _drop_left(self) -> None:
        left, self._left = self._left, None
        if left is not None:
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _is_written(path: Path) -> bool:
    """Whether the writer of a partial file is alive, or the file is not there for us."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return True
    try:
        return not lock_descriptor(descriptor, wait=False)
    except OSError:
        return True  # a file system without locks: what cannot be locked is not continued
    finally:
        os.close(descriptor)
