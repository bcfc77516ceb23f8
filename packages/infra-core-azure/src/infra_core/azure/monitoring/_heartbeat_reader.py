"""Reads a heartbeat from outside and says whether its run is alive, stalled or dead."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from infra_core.runtime import clock

from .._checks import require_number, type_name
from .._process import is_running
from ..exceptions import ConfigurationError
from ._heartbeat import HEARTBEAT_FILE
from ._protocols import UtcNowFunc

if TYPE_CHECKING:
    from ..storage import AzureStorageClient

__all__ = ["HeartbeatState", "HeartbeatStatus", "read_heartbeat", "read_heartbeat_blob"]

_ABSENT = "the run never started, or writes elsewhere"
_DEFAULT_INTERVAL = 30.0  # of 0.7, whose heartbeats do not say theirs
_Limits: TypeAlias = tuple[float | None, float | None]  # `stale_after`, `max_loop_lag`


class HeartbeatState(str, Enum):
    """What a heartbeat says about its run."""

    ALIVE = "alive"
    """It beats and makes progress."""
    STALLED = "stalled"
    """Its process lives but does not get along: stuck on an item, or too busy to beat."""
    DEAD = "dead"
    """Its process ended without stopping properly, or there never was one."""
    STOPPED = "stopped"
    """It ended properly, with `HeartbeatMonitor.stop`: not a death."""

    __str__ = str.__str__


@dataclass(frozen=True, slots=True)
class HeartbeatStatus:
    """The verdict on a heartbeat, and what it rests on.

    Attributes:
        state: The verdict.
        reason: It in words, for people.
        path: The file that was read.
        age_seconds: Time since the last beat; `None` when there is none.
        timestamp: When that was.
        slug: What the run was working on.
        slug_seconds: For how long, at the last beat.
        loop_lag_seconds: The lag of its event loop, at the last beat.
        pid: Its process.
        host: Where that runs.
    """

    state: HeartbeatState
    reason: str
    path: Path
    age_seconds: float | None = None
    timestamp: datetime | None = None
    slug: str | None = None
    slug_seconds: float | None = None
    loop_lag_seconds: float | None = None
    pid: int | None = None
    host: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the run is alive and makes progress."""
        return self.state is HeartbeatState.ALIVE


def read_heartbeat(
    path: Path | str,
    *,
    stale_after: float | None = None,
    max_loop_lag: float | None = None,
    utc_now: UtcNowFunc | None = None,
) -> HeartbeatStatus:
    """Read a heartbeat file and judge it. Never raises for what the file holds.

    In this order: it was stopped; on the machine of the run, its process is gone (a process that
    got the same number later is not taken for it, and a zombie is gone): dead; the last beat is
    older than `stale_after`: stalled if its process is known to live, else dead; it says that its
    item takes too long, or its event loop lags more than `max_loop_lag`: stalled; else alive.
    A beat that is dated further ahead than `stale_after` counts as older than that: a clock that is
    ahead keeps no dead run alive.

    The process cannot be checked from another machine or container, nor where the system hides the
    processes of other users: then the age decides. Heartbeats of 0.7 are understood and judged by
    age.

    Args:
        path: The heartbeat file, or the storage root that holds it.
        stale_after: Seconds; by default three of the run's intervals.
        max_loop_lag: Seconds; by default one interval.
        utc_now: Source of the time, for tests.

    Returns:
        The verdict. A missing or unreadable file is dead, and `reason` says so.

    Raises:
        ValueError: A limit is negative or NaN.
        TypeError: A limit is not a number.

    Example:
        >>> read_heartbeat("/nonexistent").state.value
        'dead'
    """
    limits = _checked(stale_after, max_loop_lag)
    path = Path(path)
    if path.is_dir():
        path = path / HEARTBEAT_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return _dead(path, f"there is no heartbeat at {path}: {_ABSENT}")
    except OSError as error:
        why = error.strerror or type(error).__name__
        return _dead(path, f"{path} cannot be read ({why}): check the path and its permissions")
    now = (utc_now or clock.utc_now)()
    if isinstance(now, str):
        now = datetime.fromisoformat(now.replace("Z", "+00:00"))
    return _verdict(path, content, _aware(now), None, limits)


def read_heartbeat_blob(
    client: "AzureStorageClient",
    path: Path | str,
    *,
    stale_after: float | None = None,
    max_loop_lag: float | None = None,
) -> HeartbeatStatus:
    """Read a heartbeat that is mirrored to Blob Storage, and judge it as `read_heartbeat` does.

    Its age is the time since the blob was written, by the clock of the service alone: neither a
    wrong clock of the run's machine nor one of this machine changes it.

    Args:
        client: The storage client; it must be configured.
        path: The heartbeat's path, or that of the storage root that it lies in; relative to the
            client's `base_path`, or below it.
        stale_after: As for `read_heartbeat`.
        max_loop_lag: As for `read_heartbeat`.

    Returns:
        The verdict. A missing or unreadable blob is dead, and `reason` says so.

    Raises:
        StorageError: The service refuses or does not answer, so nothing is known.
        ConfigurationError: The client has no container.
    """
    limits = _checked(stale_after, max_loop_lag)
    if not client.is_configured():
        raise ConfigurationError(
            "no container to read the heartbeat from: set AZURE_STORAGE_CONTAINER and the "
            "credentials"
        )
    path = Path(path)
    if path.suffix != HEARTBEAT_FILE.suffix:
        path = path / HEARTBEAT_FILE
    found = client.read_blob((client.base_path or Path()) / path)
    if found is None:
        return _dead(path, f"there is no blob {path}: {_ABSENT}")
    return _verdict(path, found.data, clock.utc_now(), found.age_seconds, limits)


def _checked(stale_after: float | None, max_loop_lag: float | None) -> _Limits:
    for name, limit in (("stale_after", stale_after), ("max_loop_lag", max_loop_lag)):
        if limit is not None:
            require_number(name, limit, "seconds, 0 or more, or None for the default", least=0)
    return stale_after, max_loop_lag


def _verdict(
    path: Path, content: bytes, now: datetime, age: float | None, limits: _Limits
) -> HeartbeatStatus:
    """Judge what a heartbeat holds, by its timestamp where its storage does not say its age."""
    try:
        beat = json.loads(content)
        if not isinstance(beat, dict):
            raise ValueError(f"it holds {type_name(beat)} instead of an object")
        timestamp = _aware(datetime.fromisoformat(str(beat["timestamp"]).replace("Z", "+00:00")))
    except KeyError:
        return _dead(path, f"{path} is not a heartbeat: it has no timestamp")
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return _dead(path, f"{path} is not a heartbeat: it holds no JSON")
    except ValueError as error:
        return _dead(path, f"{path} is not a heartbeat: {error}")
    if age is None:
        age = (now - timestamp).total_seconds()
    pid = beat.get("pid")
    status = HeartbeatStatus(
        state=HeartbeatState.ALIVE,
        reason="",
        path=path,
        age_seconds=max(0.0, age),
        timestamp=timestamp,
        slug=_text(beat.get("slug")),
        slug_seconds=_number(beat.get("slug_seconds")),
        loop_lag_seconds=_number(beat.get("loop_lag_seconds")),
        pid=pid if isinstance(pid, int) and not isinstance(pid, bool) else None,
        host=_text(beat.get("host")),
    )
    state, reason = _judge(beat, status, age, limits)
    return replace(status, state=state, reason=reason)


def _judge(
    beat: Mapping[str, Any], status: HeartbeatStatus, age: float, limits: _Limits
) -> tuple[HeartbeatState, str]:
    interval = max(0.0, _number(beat.get("interval_seconds")) or 0.0) or _DEFAULT_INTERVAL
    stale_after = 3 * interval if limits[0] is None else limits[0]
    max_loop_lag = interval if limits[1] is None else limits[1]
    slug, pid, lag = beat.get("slug"), status.pid, status.loop_lag_seconds
    at_work = f"on {slug!r}" if slug is not None else "between items"
    ahead, age = -age, max(0.0, age)
    if beat.get("state") == "stopped":
        return HeartbeatState.STOPPED, f"the run was stopped properly {age:.0f} s ago"
    process = _text(beat.get("process"))
    running = None if pid is None else is_running(pid, status.host, process)
    if running is False:
        return HeartbeatState.DEAD, f"process {pid} is gone; its last beat was {age:.0f} s ago"
    lost = HeartbeatState.STALLED if running else HeartbeatState.DEAD
    if ahead > stale_after:
        # Until that moment comes, nothing would show whether it still beats.
        return lost, (
            f"its last beat is dated {ahead:.0f} s ahead of the clock here, so that its age is not "
            "known: set the clocks of both machines, or read the heartbeat from its blob"
        )
    if age > stale_after and running:
        return lost, f"process {pid} is there, but has not beaten for {age:.0f} s {at_work}"
    if age > stale_after:
        return lost, f"no beat for {age:.0f} s, the last one {at_work}"
    if beat.get("stalled"):
        seconds = (status.slug_seconds or 0.0) + age
        return HeartbeatState.STALLED, f"stuck for {seconds:.0f} s {at_work}"
    if lag is not None and lag > max_loop_lag:
        return HeartbeatState.STALLED, f"its event loop was blocked for {lag:.1f} s {at_work}"
    return HeartbeatState.ALIVE, f"last beat {age:.0f} s ago, {at_work}"


def _dead(path: Path, reason: str) -> HeartbeatStatus:
    return HeartbeatStatus(HeartbeatState.DEAD, reason, path)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=timezone.utc)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
