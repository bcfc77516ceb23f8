"""The jobs of a batch in its store: recorded in bulk, ended in bulk, never left running."""

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from infra_core.fs import media_category, media_type
from infra_core.runtime import clock, sanitize_url

from ._errors import one_line
from ._folder import ASSETS
from ._items import BatchItem
from ._results import Outcome

if TYPE_CHECKING:
    from infra_core.azure.job_store import JobRecord

    from ._services import Services

__all__ = ["Begun", "Ended", "Job", "JobBook", "completed", "is_same", "mirrored", "named"]

_FACTS = ("path", "checksum", "size", "content_type", "etag", "last_modified")
_BEAT = 1.0  # seconds between two beats that name a job


class Job(NamedTuple):
    """An item and the record of its job, as it was stored last."""

    item: BatchItem
    record: "JobRecord"
    path: str
    former: "JobRecord | None" = None  # where the server is asked whether the file here is current

    @property
    def job_id(self) -> str:
        """The job's id."""
        return self.record.job_id

    @property
    def url(self) -> str:
        """The URL without secrets."""
        return sanitize_url(self.item.url)

    @property
    def held(self) -> tuple[str | None, str | None]:
        """ETag and Last-Modified of the file that is here."""
        stored = {} if self.former is None else self.former.payload
        return stored.get("etag"), stored.get("last_modified")


class Begun(NamedTuple):
    """What becomes of jobs whose turn has come, each with its record of now."""

    kept: list[Job]  # completed before
    started: list[Job]  # recorded as running, unless their files are here
    elsewhere: list[Job]  # another run has them, or has their files
    passed_over: list[Job]  # not to be tried by this run


class Ended(NamedTuple):
    """What is to be recorded of a job, with its line in the run log."""

    record: "JobRecord"
    event: str = ""  # none for no line
    properties: Mapping[str, Any] = {}
    changed: bool = True  # whether the record differs from what is stored


class JobBook:
    """Records jobs, and writes the run log's lines about them.

    Every method blocks and is called in a thread. The order of writes is what makes a killed run
    resumable: a file is durable, then its line is in the run log, then its row is committed. A
    kill in between repeats work and a line; it loses nothing.
    """

    def __init__(
        self, services: "Services", on_lost: Callable[[str], object] = lambda _: None
    ) -> None:
        self._services = services
        self._unstored: dict[str, JobRecord] = {}  # by job, the newest
        self._on_lost = on_lost
        self._beaten = -_BEAT
        self._lock = threading.Lock()

    def new(self, item: BatchItem) -> "JobRecord":
        """A record for an item that no run has seen."""
        from infra_core.azure.job_store import JobRecord

        payload: dict[str, Any] = {"url": sanitize_url(item.url)}
        if item.metadata:
            payload["metadata"] = dict(item.metadata)
        return JobRecord(self._services.summary.batch_id, item.job_id, payload=payload)

    def store(self, records: Sequence["JobRecord"]) -> None:
        """Store records; an error is raised."""
        if records:
            (self._services.claims or self._services.store).save_many(records)

    def store_later(self, record: "JobRecord") -> None:
        """Store a record at the end of the run."""
        self._unstored[record.job_id] = record

    def settle(self, ended: Sequence[Ended]) -> list[None]:
        """Store the records of jobs that have ended, with their lines in the run log.

        What cannot be recorded now is kept and tried once more at the end of the run, which
        `on_lost` brings about.
        """
        self._write([(each.event, each.record, each.properties) for each in ended if each.event])
        changed = [each.record for each in ended if each.changed]
        try:
            self.store(changed)
            for record in changed:  # what could not be stored earlier is out of date
                self._unstored.pop(record.job_id, None)
        except Exception as error:  # noqa: BLE001 - a full disk, a table out of reach
            self._unstored.update((record.job_id, record) for record in changed)
            self._on_lost(one_line(error))
        try:
            # the index knows what a job was when the run began, but of a shared table
            news = [each for each in ended if each.changed or self._services.claims is not None]
            self._services.index.put_files(
                entry for each in news for entry in self.entries(each.record)
            )
        except sqlite3.Error as error:  # the folder for temporary files is full
            self._services.summary.trouble("the manifest has gaps", one_line(error))
        self.beat(ended[-1].record.job_id)
        return [None] * len(ended)

    def entries(self, record: "JobRecord") -> Iterable[tuple[str, str | None]]:
        """What a record means for the manifest: its entry by path, or None to forget one."""
        stored = record.payload
        if "path" not in stored:
            return
        path = str(stored["path"]).removeprefix(f"{ASSETS}/")
        if record.status.value != "completed":
            yield path, None
            return
        content_type = stored.get("content_type") or media_type(path)
        known = content_type != media_type(path)  # the server knows more than the name says
        entry = {
            "path": path,
            "type": media_category(content_type if known else path.rpartition("/")[2]),
            "content_type": content_type,
            "size_bytes": stored.get("size"),
            "url": self._services.url_of(str(stored["path"])) if stored.get("mirrored") else None,
            "source_url": stored.get("url"),
            "checksum": stored.get("checksum"),
        }
        yield path, json.dumps(entry, ensure_ascii=False)

    def conclude(self, mine: Iterable["JobRecord"], ahead: Sequence["JobRecord"] = ()) -> None:
        """Store what could not be stored, and put back what was cut off: no dead job is running.

        Args:
            mine: Records that this run had at work.
            ahead: Records of jobs that were read from the list and have not begun.
        """
        from infra_core.azure.job_store import JobStatus

        try:
            self.store([*ahead, *self._unstored.values()])
            # a file may have become durable after its task was cut off: that job is recorded
            cut_off = [record for record in mine if record.status is JobStatus.RUNNING]
            self.store([record.requeue() for record in cut_off])
            store, claims = self._services.store, self._services.claims
            stale = store.iter_runs(self._services.summary.batch_id, status=JobStatus.RUNNING)
            self.store(
                [
                    record.requeue()
                    for record in stale
                    if not (record.lease_owner if claims is None else claims.is_held(record))
                ]
            )
        except Exception as error:  # noqa: BLE001 - the summary says so; a resume puts them back as well
            self._services.summary.trouble("jobs were not recorded", one_line(error))

    def beat(self, job_id: str | None) -> None:
        """Name what is under way in the heartbeat, now and then; a failure stops nothing."""
        now = clock.monotonic()
        with self._lock:
            if job_id is not None and now - self._beaten < _BEAT:
                return
            self._beaten = now
        with suppress(Exception):  # the heartbeat's on_error was called with it
            self._services.heartbeat.set_slug(job_id)

    def note(self, event: str, *, job: "JobRecord | None" = None, **properties: Any) -> None:
        """Write an event to the run log."""
        self._write([(event, job, properties)])

    def _write(self, events: "Iterable[tuple[str, JobRecord | None, Mapping[str, Any]]]") -> None:
        lines = []
        for event, job, properties in events:
            known = {} if job is None else {"job_id": job.job_id, "url": job.payload.get("url")}
            own = {"batch_id": self._services.summary.batch_id}
            lines.append({"event": event, **properties, **known, **own})
        try:
            self._services.log.write_many(lines)
        except OSError as error:
            self._services.summary.trouble("the run log has gaps", one_line(error))


def completed(record: "JobRecord", outcome: Outcome) -> "JobRecord":
    """The record of a job whose file is durable, be it a newer version of one that was here."""
    former = record
    if record.is_terminal:
        record = record.requeue(force=True).start()
    known = {n: each for n in _FACTS if (each := getattr(outcome, n)) is not None}
    # What the last answer said is not said of this one, such as an ETag that is not sent any more.
    rest = {name: value for name, value in former.payload.items() if name not in _FACTS}
    record = replace(record, payload=rest).complete(**known, mirrored=bool(outcome.mirrored))
    if former.is_terminal and former.payload.get("mirrored") and is_same(record, former):
        return mirrored(record)
    return record


def named(outcome: Outcome, path: str) -> Outcome:
    """The outcome of a download whose file has got its final name."""
    known = media_type(path)
    kind = outcome.content_type if known == media_type("") else known
    return outcome._replace(path=path, content_type=kind)


def is_same(record: "JobRecord", former: "JobRecord") -> bool:
    """Whether a job's file has the bytes, the type and the place that it had."""
    names = ("path", "checksum", "content_type")
    return all(record.payload.get(name) == former.payload.get(name) for name in names)


def mirrored(record: "JobRecord") -> "JobRecord":
    """The record of a job whose file is in the container as well."""
    return replace(record, payload={**record.payload, "mirrored": True})
