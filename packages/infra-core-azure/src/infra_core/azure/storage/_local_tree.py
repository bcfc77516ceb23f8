"""Walking a local folder: file by file, in bounded memory."""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

from infra_core.fs import UnsafePathError, is_partial, safe_join

from ._errors import local_error
from ._names import reason_of, upload_problem
from ._tree_types import LocalFile

__all__ = ["local_state", "safe_path", "walk_tree"]

_ASSETS = "assets"
_RUN = "_state/run.lock"  # which the folder of a batch has
_SORTED = 10_000  # entries of one folder that are held at a time


def walk_tree(
    root: Path,
    wanted: Callable[[str], bool],
    *,
    prefix_length: int = 0,
    left_out: Callable[[str], object] = lambda _: None,
    pruned: Callable[[str], bool] = lambda _: False,
) -> Iterator[tuple[LocalFile, str | None]]:
    """Files below a folder with the reason why one must not be mirrored, if there is one.

    By name within their folder, where that has at most 10,000 entries: of larger ones the entries
    come in the order of the file system, so that no folder is too large for the memory. Links to
    files within the tree are followed; one that leads out of it is unsafe. Links to folders are
    not: what they show is elsewhere in the tree, or outside of it; but for `assets` of a batch,
    which its owner may have on another disk. Partial files of writers at work are left out.

    Args:
        root: The folder.
        wanted: Says of a name, relative to it, whether the file is.
        prefix_length: Characters that a blob's name has in front of it.
        left_out: Called with each name of a link to a folder, a pipe, a socket or a device.
        pruned: Says of a folder's name whether nothing below it is wanted; it may be unreadable.
    """
    if not root.is_dir():
        raise NotADirectoryError(
            f"{root} is not a folder; name the folder whose files shall be mirrored"
        )
    stack = [("", str(root))]
    while stack:
        below, folder = stack.pop()
        folders = []
        for entry in _entries(folder):
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False) or _is_linked_assets(folder, entry.name):
                if not pruned(name):
                    folders.append((name + "/", entry.path))
                continue
            is_file, is_dir = _kind(entry)
            if is_file and not is_partial(entry.name) and wanted(name):
                found = _look(root, entry, name, prefix_length)
                if found is not None:
                    yield found
            elif entry.is_symlink() and not is_dir and wanted(name):
                yield LocalFile(name, 0, 0), "it is a link to nothing"
            elif not is_file and wanted(name):
                left_out(name)
        stack.extend(reversed(folders))


def _entries(folder: str) -> Iterator["os.DirEntry[str]"]:
    """The entries of a folder; none when it was removed meanwhile."""
    try:
        listing = os.scandir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise local_error(error, folder, "folder") from error
    with listing:
        first = sorted(islice(listing, _SORTED), key=lambda entry: entry.name)
        if len(first) == _SORTED:
            yield from chain(first, listing)
            return
    yield from first  # with the folder closed


def _kind(entry: "os.DirEntry[str]") -> tuple[bool, bool]:
    """Whether an entry is a file or a folder, links followed.

    Neither is a link that leads in a circle, through a file, or to where this user may not look.
    """
    try:
        return entry.is_file(), entry.is_dir()
    except OSError:
        return False, False


def _look(
    root: Path, entry: "os.DirEntry[str]", name: str, prefix_length: int
) -> tuple[LocalFile, str | None] | None:
    try:
        status = entry.stat()
    except FileNotFoundError:
        return None
    reason = upload_problem(name, prefix_length)
    if reason is None and entry.is_symlink():
        try:
            safe_path(root, name)
        except UnsafePathError as error:
            reason = reason_of(error, name)
    return LocalFile(name, status.st_size, status.st_mtime_ns), reason


def _is_linked_assets(folder: str, name: str) -> bool:
    """Whether these are the files of a batch, behind a link to their folder."""
    if name != _ASSETS:
        return False
    path = Path(folder, name)
    return path.is_symlink() and path.is_dir() and Path(folder, _RUN).is_file()


def safe_path(root: Path, name: str) -> Path:
    """Join a name to a folder by `safe_join`, which the link of a batch's `assets` does not leave.

    Raises:
        UnsafePathError: It would leave the folder.
    """
    parts = name.split("/")
    for count, part in enumerate(parts):
        if part == _ASSETS:
            run = safe_join(root, *parts[:count])
            if _is_linked_assets(str(run), part):
                return safe_join(run / part, *parts[count + 1 :])
    return safe_join(root, name)


def local_state(root: Path, name: str) -> tuple[LocalFile | None, bool]:
    """The regular file of a name below a folder, and whether a link stands there instead."""
    try:
        status = os.lstat(root / name)
    except OSError:  # nothing is there, or not to be reached: then writing fails, and says why
        return None, False
    if stat.S_ISLNK(status.st_mode):
        return None, True
    return LocalFile(name, status.st_size, status.st_mtime_ns), False
