"""Which items of a list need a download: what is here is kept, what another run has is left."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra_core.fs import file_hexdigest, parse_checksum, safe_join

from ._folder import KNOWN_FOLDERS
from ._items import BatchItem
from ._jobs import Begun, Ended, Job, JobBook
from ._names import FileNames

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord

    from ._claims import Claims
    from ._services import Services

__all__ = ["Starter", "Verifier", "contradicts"]


class Starter:
    """Turns items into jobs, and jobs into such that may begin."""

    def __init__(self, services: "Services", book: JobBook, names: FileNames) -> None:
        self._options = services.options
        self._services = services
        self._book = book
        self._names = names
        self._verifier = Verifier(services.folder)

    def see(self, items: list[BatchItem]) -> "tuple[list[Job], list[JobRecord], list[BatchItem]]":
        """Make jobs of items; returns also their records that are new, and duplicates. Blocking."""
        shared = self._services.claims is not None
        jobs: list[Job] = []
        new: list[JobRecord] = []
        duplicates: list[BatchItem] = []
        seen = self._services.index.see([item.job_id for item in items])
        for item, known in zip(items, seen, strict=True):
            if known is False:
                duplicates.append(item)
                continue
            record = self._book.new(item) if known is True else known
            if known is True and not shared:  # else it is recorded when it is taken
                new.append(record)
            jobs.append(Job(item, record, self._names.path_of(item, record.job_id)))
        return jobs, new, duplicates

    async def begin(self, group: list[Job]) -> Begun:
        """Settle what is here already; record the rest as running, where no other run has it."""
        claims = self._services.claims
        if claims is None:
            found = self._taken(group)
        else:
            found = await asyncio.to_thread(claims.take, group)
        kept = await self._kept(found.kept) if found.kept else set[str]()
        here = [job for job in found.kept if job.job_id in kept]
        lost = [job for job in found.kept if job.job_id not in kept]
        again, elsewhere = list[Job](), list[Job]()
        if len(kept) < len(group):
            record = self._record if claims is None else partial(self._take_again, claims)
            again, elsewhere = await asyncio.to_thread(record, found, lost)
        if not self._options.revalidate:
            return Begun(here, found.started + again, elsewhere, found.passed_over)
        # It stays recorded as completed meanwhile: its file is good, whatever the server says.
        asked = [
            job._replace(former=job.record, path=str(job.record.payload["path"])) for job in here
        ]
        return Begun([], found.started + again + asked, elsewhere, found.passed_over)

    def _taken(self, group: list[Job]) -> Begun:
        """What becomes of jobs of a store that is this run's alone."""
        from infra_core.azure.job_store import JobStatus

        found = Begun([], [], [], [])
        for job in group:
            record = job.record
            if self._options.only_failed and not record.status.is_failure:
                found.passed_over.append(job)
            elif record.status is JobStatus.COMPLETED:
                found.kept.append(job)
            else:
                if record.status is JobStatus.RUNNING:  # an earlier run was killed here
                    record = record.requeue()
                found.started.append(job._replace(record=record.start()))
        return found

    def _record(self, found: Begun, lost: list[Job]) -> tuple[list[Job], list[Job]]:
        """Record what begins, also of the jobs whose files are lost; in a thread."""
        again = [job._replace(record=job.record.requeue(force=True).start()) for job in lost]
        if again:
            entries = (entry for job in again for entry in self._book.entries(job.record))
            self._services.index.put_files(entries)
        left = [job for job in found.passed_over if not job.record.is_terminal]
        self._book.store([job.record for job in found.started + again + left])
        return again, []

    def _take_again(
        self, claims: "Claims", found: Begun, lost: list[Job]
    ) -> tuple[list[Job], list[Job]]:
        """Take from a shared table what is completed and not here; in a thread."""
        again, elsewhere = list[Job](), list[Job]()
        for job in lost:
            taken, stored = None, job.record.payload
            # else it is on another machine's disk, and good
            here = stored.get("place") in (None, claims.place)
            if here or contradicts(stored, job.item.checksum):
                taken = claims.reopen(job)
            (elsewhere if taken is None else again).append(taken or job)
        claims.deferred.extend(found.elsewhere)
        return again, elsewhere

    async def _kept(self, jobs: list[Job]) -> set[str]:
        """Which of these jobs need no download, settled."""
        if self._options.scratch is not None and self._options.verify_mirror:
            # The container has the only copy. One that cannot be asked is no reason to fetch it.
            folder, ask = self._services.folder, self._services.is_mirrored
            stored = [job.record.payload for job in jobs]
            found = await asyncio.gather(
                *(ask(folder / str(each.get("path")), each) for each in stored),
                return_exceptions=True,
            )
            jobs = [job for job, there in zip(jobs, found, strict=True) if there is not False]
        return await asyncio.to_thread(self._verified, jobs)

    def _verified(self, jobs: list[Job]) -> set[str]:
        """Which of these jobs' files are here with the bytes that were verified; in a thread."""
        kept = [job.record for job in jobs if self._is_here(job)]
        if kept:
            event = "" if self._options.revalidate else "job_kept"
            self._book.settle([Ended(record, event, changed=False) for record in kept])
        return {record.job_id for record in kept}

    def _is_here(self, job: Job) -> bool:
        stored, listed = job.record.payload, job.item.checksum
        if self._options.scratch is not None:  # files are in the container alone
            return bool(stored.get("mirrored")) and not contradicts(stored, listed)
        return self._verifier.is_intact(stored, listed)


class Verifier:
    """Compares the files of one run with what their jobs recorded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inside = lru_cache(KNOWN_FOLDERS)(self._find)

    def is_intact(self, stored: Mapping[str, Any], listed: str | None = None) -> bool:
        """Whether a file is what its job recorded, and has the checksum that the list gives now.

        One that cannot be read is a reason to fetch it again.
        """
        try:
            folder, _, name = str(stored["path"]).rpartition("/")
            path = self._inside(folder) / name
            checksums = {parse_checksum(str(stored["checksum"]))}
            if listed is not None:
                checksums.add(parse_checksum(listed))
            size = stored.get("size")
            if size is not None and path.stat().st_size != size:
                return False
            return all(file_hexdigest(path, name) == expected for name, expected in checksums)
        except (KeyError, ValueError, OSError):
            return False

    def _find(self, name: str) -> Path:
        """A folder of the run, whose `assets` may be a link that its owner made.

        Raises:
            ValueError: It is outside.
        """
        first, _, rest = name.partition("/")
        if first == "..":
            raise ValueError(f"{name!r} is outside of {str(self._folder)!r}")
        return safe_join(self._folder / first, rest) if rest else self._folder / first


def contradicts(stored: Mapping[str, Any], listed: str | None) -> bool:
    """Whether the list gives another checksum now than was verified, of one algorithm."""
    try:
        known, wanted = parse_checksum(str(stored["checksum"])), parse_checksum(listed or "")
    except (KeyError, ValueError):  # there is none to compare
        return False
    return known[0] == wanted[0] and known != wanted
