"""The folder of a run, and the lock that keeps two runs of one batch on one machine apart."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISLNK

from infra_core.fs import UnsafePathError, ensure_parent, fsync_directory, lock_descriptor

from ._errors import BatchError

__all__ = [
    "ASSETS",
    "JOBS_FILE",
    "KNOWN_FOLDERS",
    "MANIFEST_FILE",
    "Reserve",
    "check_assets",
    "check_links",
    "exclusive",
    "leads_nowhere",
    "make_folder",
    "move_files",
    "run_folder",
]

ASSETS = "assets"
JOBS_FILE = "jobs.sqlite3"
MANIFEST_FILE = "manifest.json"
KNOWN_FOLDERS = 4_096  # of which something is kept in memory; there are 256 in the usual layout
_RESERVED = 1 << 20  # bytes; some thousand jobs that are put back
_JUNCTION = 0xA0000003  # stat.IO_REPARSE_TAG_MOUNT_POINT, which Windows alone has
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def run_folder(out: Path, batch_id: str) -> Path:
    """The folder of a batch below the output folder; refuses a batch id that can name none."""
    if batch_id.lower().startswith(JOBS_FILE):
        raise BatchError(
            f"batch id {batch_id!r} is the name of the job store's file or of one beside it: "
            "choose another (--batch-id)"
        )
    if not _NAME.fullmatch(batch_id) or batch_id.endswith("."):
        raise BatchError(
            f"batch id {batch_id!r} cannot name a folder: use 1 to 128 letters, digits, '.', '_' "
            "and '-', the first a letter or digit (--batch-id)"
        )
    return out / batch_id


def make_folder(folder: Path) -> None:
    """Make the folder, or say why it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise BatchError(
            f"cannot create {str(folder)!r}: {cause}; choose another output folder (--out)"
        ) from None


def check_assets(folder: Path) -> None:
    """Refuse a run whose files have no place: each would fail, those of earlier runs too."""
    assets = folder / ASSETS
    if leads_nowhere(assets):
        why = f"a link to {os.fspath(assets.readlink())!r}" if assets.is_symlink() else "a file"
        raise BatchError(
            f"{str(assets)!r} is {why} and leads to no folder: mount its disk, or move what is in "
            "the way"
        )


def leads_nowhere(assets: Path) -> bool:
    """Whether `assets` is something else than a folder, such as a link to a disk that is gone."""
    return os.path.lexists(assets) and not assets.is_dir()


def check_links(folder: Path, name: str) -> None:
    """Refuse the name of a file whose folder is a link: it may lead out, or to that of others.

    `assets` itself may be one that its owner made. A link in the place of the file is replaced.

    Raises:
        UnsafePathError: A folder between `assets` and the file is a link.
    """
    assets, *inner, _ = name.split("/")
    path = os.path.join(folder, assets)  # noqa: PTH118 - a third of the time, for each file
    for part in inner:
        path = f"{path}{os.sep}{part}"
        if is_link(path):
            raise UnsafePathError(
                f"{path!r} is a symbolic link, and files are written through none below assets: "
                "put the folder itself in its place",
                path=name,
                base=folder,
            )


def is_link(path: str) -> bool:
    """Whether a path is a symbolic link, or a junction of Windows."""
    try:
        status = os.lstat(path)
    except OSError:  # there is none
        return False
    return S_ISLNK(status.st_mode) or getattr(status, "st_reparse_tag", 0) == _JUNCTION


def move_files(folder: Path, moves: Sequence[tuple[str, str]]) -> list[Exception | None]:
    """Give files their final names, permanently; an older version of one is replaced in one step.

    Args:
        folder: Of the run; names are relative to it.
        moves: Each file with its new name, the same for one that stays.

    Returns:
        An entry for each: None, or what the disk refused, and then the file is where it was.
    """
    errors: list[Exception | None] = []
    folders: set[Path] = set()
    for name, to in moves:
        if name == to:
            errors.append(None)
            continue
        path = folder / to
        try:
            check_links(folder, to)
            ensure_parent(path)
            (folder / name).replace(path)
            folders.add(path.parent)
            errors.append(None)
        except (OSError, UnsafePathError) as error:
            errors.append(error)
    for each in folders:
        fsync_directory(each)
    return errors


class Reserve:
    """Room on the disk that is set aside for the end of a run.

    A full disk ends a run, and to record what is put back then needs some room. Where none can be
    set aside, there is none.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "_state" / "reserve"
        try:
            with self._path.open("wb") as file:
                file.write(os.urandom(_RESERVED))  # zeros may take no room where files are packed
        except OSError:  # full already
            self.release()

    def release(self) -> None:
        """Give the room back."""
        with suppress(OSError):
            self._path.unlink()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the batch: a second run of it at the same time is refused.

    The lock is the operating system's, so a killed run leaves none behind.
    """
    path = folder / "_state" / "run.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = path.open("a+b")
    except OSError as error:
        raise _unusable(path, error) from None
    with handle:
        try:
            taken = lock_descriptor(handle.fileno(), wait=False)
        except OSError as error:
            raise _unusable(path, error) from None
        if not taken:
            raise BatchError(
                f"another process is running this batch ({path} is locked); wait for it, or "
                "choose another batch id"
            )
        yield


def _unusable(path: Path, error: OSError) -> BatchError:
    return BatchError(
        f"cannot lock {str(path)!r}: {error.strerror or error}; choose another output folder "
        "(--out) on a file system that knows locks, or move what is in the way"
    )
