"""The last step of a download: the file is judged, made durable and named, alone or with others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Final

from infra_core.fs import commit_together
from infra_core.runtime import ThreadBatcher

from ._receive import CallbackError
from ._sidecar import NOTE_SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from infra_core.fs import AtomicFile

    from ._result import DownloadResult

__all__ = ["CommitGroup", "ReceivedFile"]

_FOLDERS: Final = 10_000  # that a group remembers, the last ones
_NAMES: Final = 1_000  # in a folder; a larger one is looked at for each file

AfterCommit = Callable[[list["DownloadResult"]], "Sequence[Exception | None] | None"]


@dataclass(slots=True, eq=False)
class ReceivedFile:
    """A file whose bytes have all come.

    Attributes:
        complete: Writes the last bytes, checks and labels the file, and sets `result`; raises where
            it is not the right one. Called in a thread, once.
    """

    complete: Callable[[], AtomicFile]
    result: DownloadResult = field(init=False)
    abandoned: bool = False  # the download has given up waiting: the file takes no name
    after_error: Exception | None = None  # what `CommitGroup(after=...)` says of it

    def __call__(self) -> AtomicFile:
        """Complete the file."""
        return self.complete()

    def check_wanted(self) -> None:
        """Raise when the deadline of the download passed while its bytes were flushed."""
        if self.abandoned:
            raise TimeoutError("the deadline passed before the file took its name")


class CommitGroup:
    """Downloads whose files are made durable and named together, for far less than each alone.

    Pass one as `group=` to `AssetDownloadClient.download` of any number of concurrent downloads.
    Each call returns when its own file is durable under its name (and `after` has returned), as
    without a group; files below 1 MiB that are ready at the same time share their flushes.

    A group looks at each folder once: a file that comes into it later is not looked for before it
    is written, neither to reuse nor to resume it.

    Args:
        after: Called in the committing thread with the results of the files that are durable now,
            before their downloads return: to record them, say, in one transaction. Returns None,
            or an entry for each result: None, or an error for its download to raise. What it
            raises itself, all of them raise; the files stay. The threads of several event loops
            may call it at the same time.
        check: Called in the committing thread with the path of each file whose bytes have come,
            before it takes its name; what it raises prevents that, and its download raises it.
        size: Files of a batch at most.

    Example:
        ::

            def record(results: list[DownloadResult]) -> None:
                with database:  # one transaction
                    database.executemany(INSERT, [(str(r.path), r.checksum) for r in results])

            group = CommitGroup(after=record)
            await asyncio.gather(*(client.download(url, path, group=group) for ...))
    """

    def __init__(
        self,
        *,
        after: AfterCommit | None = None,
        check: Callable[[Path], object] | None = None,
        size: int = 256,
    ) -> None:
        self._after = after
        self._check = check
        # Two threads would share the interpreter, and halve the batches: each file costs a tenth
        # more then.
        self._batcher = ThreadBatcher(self.commit, size=size, workers=1)
        self._names_in = lru_cache(_FOLDERS)(_names_in)

    def finds_nothing(self, path: Path) -> bool:
        """Whether the folder had no such file, and no part of any, when the group first met it."""
        folder, name = os.path.split(path)
        names = self._names_in(folder)
        return names is not None and name not in names

    def look_at(self, path: Path) -> None:
        """Have the caller look at a path, before its file is written out and named."""
        if self._check is not None:
            try:
                self._check(path)
            except Exception as error:  # noqa: BLE001 - raised again where the download ends
                raise CallbackError(error) from None

    def commit(self, files: Sequence[ReceivedFile]) -> list[Exception | None]:
        """Make files durable and named, then call `after`; blocking, and at once.

        Returns:
            An entry for each file: None, or the error that its download raises.
        """
        errors = commit_together(files, before=ReceivedFile.check_wanted)
        done = [file for file, error in zip(files, errors, strict=True) if error is None]
        if self._after is None or not done:
            return errors
        try:
            after = self._after([file.result for file in done]) or [None] * len(done)
            for file, error in zip(done, after, strict=True):
                file.after_error = error
        except Exception as error:  # noqa: BLE001 - raised by the downloads that it was called for
            for file in done:
                file.after_error = error
        return errors

    async def add(self, file: ReceivedFile) -> None:
        """Commit a small file with those that are ready at the same time."""
        await self._batcher(file)


def _names_in(folder: str) -> frozenset[str] | None:
    """The names in a folder, none where it does not exist; None where each is to be looked at."""
    try:
        with os.scandir(folder) as entries:
            names = frozenset(entry.name for entry in islice(entries, _NAMES + 1))
    except FileNotFoundError:
        return frozenset()
    except OSError:
        return None
    has_notes = any(name.endswith(NOTE_SUFFIX) for name in names)
    return None if has_notes or len(names) > _NAMES else names
