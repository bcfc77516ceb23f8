"""The table of the embedded job store, and rows and queries in its terms; no I/O."""

import base64
import json
import os
import uuid
from datetime import datetime, timezone
from typing import Any

from ._entity import to_utc
from ._rows import Query, Row

__all__ = ["ONE_STATUS", "SCHEMA", "conditions_of", "moment_at", "row_of", "values_of"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    batch TEXT NOT NULL,
    job TEXT NOT NULL,
    etag TEXT NOT NULL,
    status TEXT,
    updated REAL,
    lease REAL,
    properties TEXT NOT NULL,
    PRIMARY KEY (batch, job)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (batch, status, job);
CREATE INDEX IF NOT EXISTS jobs_to_start ON jobs (batch, lease, job) WHERE status = 'pending';
CREATE INDEX IF NOT EXISTS jobs_leased ON jobs (batch, lease, job) WHERE status = 'running';
"""
# The status stands in a column, to be found by, and in the text, which version 1.0 reads. A change
# by hand must change both, and the version, so that a worker's update is refused.
_OTHER_STATUS = (
    "json_valid(NEW.properties) AND json_type(NEW.properties, '$.status') = 'text' "
    "AND json_extract(NEW.properties, '$.status') IS NOT NEW.status"
)
_THIS_ROW = (
    "etag = lower(hex(randomblob(8))), lease = CASE {} WHEN 'pending' THEN NULL ELSE lease END "
    "WHERE batch = NEW.batch AND job = NEW.job; END;"
)
_TEXT = "json_extract(NEW.properties, '$.status')"
ONE_STATUS = f"""
CREATE TRIGGER IF NOT EXISTS jobs_status AFTER UPDATE OF status ON jobs
WHEN NEW.status IS NOT OLD.status AND NEW.properties IS OLD.properties AND {_OTHER_STATUS}
BEGIN UPDATE jobs SET properties = json_set(properties, '$.status', NEW.status),
{_THIS_ROW.format("NEW.status")}
CREATE TRIGGER IF NOT EXISTS jobs_text AFTER UPDATE OF properties ON jobs
WHEN NEW.status IS OLD.status AND NEW.properties IS NOT OLD.properties AND {_OTHER_STATUS}
BEGIN UPDATE jobs SET status = {_TEXT}, {_THIS_ROW.format(_TEXT)}
CREATE TRIGGER IF NOT EXISTS jobs_new AFTER INSERT ON jobs WHEN {_OTHER_STATUS}
BEGIN UPDATE jobs SET status = {_TEXT}, {_THIS_ROW.format(_TEXT)}
"""  # noqa: S608 - of constants


def values_of(row: Row) -> tuple[Any, ...]:
    """Return a row as values of the columns, with a version of its own."""
    status = row.properties.get("status")
    due = row.properties.get("not_before" if status == "pending" else "lease_until")
    return (
        row.partition,
        row.key,
        os.urandom(8).hex(),
        status if isinstance(status, str) else None,
        _seconds(row.properties.get("updated_at")),
        _seconds(due),
        _ENCODER.encode(row.properties),
    )


def row_of(found: tuple[str, str, str, str]) -> Row:
    """Return what was selected, keys, version and properties, as a row."""
    batch, job, etag, properties = found
    if not properties:
        return Row(batch, job, {}, etag, partial=True)
    try:
        values = json.loads(properties, object_hook=_from_json)
    except (TypeError, ValueError) as error:
        values = error
    if not isinstance(values, dict):
        damage = f"its properties are {properties!r:.60}"
        return Row(batch, job, {}, etag, damage=damage)
    return Row(batch, job, values, etag)


def _seconds(value: object) -> float | None:
    return to_utc(value).timestamp() if isinstance(value, datetime) else None


def moment_at(seconds: float | None) -> datetime | None:
    """Return the time that a column holds."""
    return None if seconds is None else datetime.fromtimestamp(seconds, tz=timezone.utc)


def conditions_of(query: Query) -> tuple[list[str], list[Any]]:
    """Return the conditions of a query, `claimable_at` left out, and their arguments."""
    where: list[str] = []
    arguments: list[Any] = []
    if query.partition is not None:
        where.append("batch = ?")
        arguments.append(query.partition)
    if query.statuses:
        where.append(f"status IN ({', '.join('?' * len(query.statuses))})")
        arguments += query.statuses
    for condition, moment in (("updated >= ?", query.since), ("updated < ?", query.until)):
        if moment is not None:
            where.append(condition)
            arguments.append(_seconds(moment))
    return where, arguments


def _to_json(value: object) -> Any:
    """Write what JSON does not know as an object of one tagged member."""
    if isinstance(value, datetime):
        return {"time": to_utc(value).isoformat()}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, uuid.UUID):
        return {"uuid": str(value)}
    raise TypeError(f"unexpected {type(value).__name__} in packed properties")


_ENCODER = json.JSONEncoder(default=_to_json, separators=(",", ":"))


def _from_json(tagged: dict[str, Any]) -> Any:
    if len(tagged) != 1:
        return tagged
    ((tag, value),) = tagged.items()
    if tag == "time":
        return datetime.fromisoformat(value).astimezone(timezone.utc)
    if tag == "bytes":
        return base64.b64decode(value)
    return uuid.UUID(value) if tag == "uuid" else tagged
