"""Many files committed together: their flushes are shared, each keeps the promise of its own."""

import math
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ._atomic import AtomicFile
from ._replace import fsync_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["commit_together"]

Key = TypeVar("Key")
Entry = TypeVar("Entry", bound="AtomicFile | Callable[[], AtomicFile]")
_FLUSHERS: Final = 8  # files or folders of a batch that are flushed at the same time
_PATIENCE: Final = 0.02  # seconds until a thread gets company: on a fast disk it needs none


def commit_together(
    files: "Sequence[Entry]",
    *,
    before: "Callable[[Entry], object] | None" = None,
) -> "list[Exception | None]":
    """Commit many files for far less than each on its own, with the same promise for each.

    All are flushed to the disk first, several at once, then all take their names in the given
    order, then each folder is flushed once. One commit of a journalling file system serves many
    files, so that most flushes find little left to do (for files of 16 KiB on ext4 a third of the
    time, less on a busy disk). A file's name appears only when its bytes are on the disk, and
    on return the names are on the disk as well. Files are independent: when one fails, or the
    process is killed, each of the others is there whole or not at all.

    Args:
        files: Open files, each with all of its content written, or functions that make them, called
            first, one by one. Those opened with `durable=False` are not flushed.
        before: Called with each of `files` just before it takes its name; what it raises prevents
            that and is the file's error.

    Returns:
        One entry per file, in their order: None, or what its function raised, or the error that its
        `commit()` would have raised. A file with an error from before its name is aborted, and
        what stood there before still stands.

    Raises:
        BaseException: An interrupt such as `KeyboardInterrupt`; the files that do not yet have
            their names are aborted.

    Example:
        >>> folder = Path(tempfile.mkdtemp())
        >>> files = [AtomicFile(folder / name) for name in ("a.txt", "b.txt")]
        >>> for file in files:
        ...     _ = file.write(b"content")
        >>> commit_together(files)
        [None, None]
    """
    errors: list[Exception | None] = [None] * len(files)
    opened: dict[int, AtomicFile] = {}

    def open_one(index: int) -> None:
        entry = files[index]
        opened[index] = entry if isinstance(entry, AtomicFile) else entry()
        # Before the first flush: a file that changes after it needs another commit of the journal.
        opened[index]._hand_to_kernel()

    def take_name(index: int) -> None:
        if before is not None:
            before(files[index])
        opened[index]._take_name()

    def each(step: "Callable[[int], None]") -> None:
        for index in range(len(files)):
            if errors[index] is None:
                try:
                    step(index)
                except Exception as error:  # noqa: BLE001 - handed to its owner
                    errors[index] = error
                    if index in opened:
                        opened[index].abort()

    try:
        each(open_one)
        _flush_files(opened, errors)
        each(take_name)
    except BaseException:
        for file in opened.values():
            file.abort()
        raise
    _flush_folders(opened, errors)
    return errors


def _flush_files(files: "dict[int, AtomicFile]", errors: "list[Exception | None]") -> None:
    """Flush the files: all are on their way to the disk before the first is waited for."""
    chosen = [index for index, file in files.items() if file._durable and errors[index] is None]
    for index in chosen:
        files[index]._start_writing()
    for index, error in _flush([(index, files[index]._flush_to_disk) for index in chosen]):
        errors[index] = error


def _flush_folders(files: "dict[int, AtomicFile]", errors: "list[Exception | None]") -> None:
    """Flush each folder that names were taken in; an error is that of all its files."""
    folders: dict[str, list[int]] = {}
    for index, file in files.items():
        if file._durable and errors[index] is None:
            folder = os.path.dirname(file.temp_path)  # noqa: PTH120
            folders.setdefault(folder, []).append(index)
    flushes = [(folder, partial(fsync_directory, folder)) for folder in folders]
    for folder, error in _flush(flushes):
        for index in folders[folder]:
            errors[index] = error


def _flush(flushes: "Iterable[tuple[Key, Callable[[], object]]]") -> "list[tuple[Key, Exception]]":
    """Carry out several flushes; returns what failed and why.

    The first one commits the journal for all of them. Where all of them take their time, several
    are waited for at once, since the kernel makes one flush of the disk of those.
    """
    import threading

    queue = list(flushes)[::-1]
    failed: list[tuple[Key, Exception]] = []

    def flush(until: float = math.inf) -> None:
        while queue and time.perf_counter() < until:
            try:
                key, step = queue.pop()
            except IndexError:  # another thread took the last one
                return
            try:
                step()
            except Exception as error:  # noqa: BLE001 - handed to its owner
                failed.append((key, error))

    helpers: list[threading.Thread] = []
    try:
        flush(time.perf_counter() + _PATIENCE)
        for _ in range(min(_FLUSHERS, len(queue)) - 1):
            helper = threading.Thread(target=flush, name="infra-core-flush")
            try:
                helper.start()
            except RuntimeError:  # no more threads, or Python is ending: then there is this one
                break
            helpers.append(helper)
        flush()
    finally:
        queue.clear()  # an interrupt ends it here
        for helper in helpers:
            helper.join()
    return failed
