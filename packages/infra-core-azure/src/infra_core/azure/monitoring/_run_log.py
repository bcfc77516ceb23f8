"""The run log: JSON lines on the local disk at once, in an append blob a moment later."""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from infra_core.runtime import clock, trace_fields

from .._artifacts import MIRROR_STATE
from .._checks import require_mapping, require_number, type_name
from ._log_file import LogFile
from ._plain import Bounds, plain_mapping
from ._protocols import RunLogUploader, UtcNowFunc
from ._run_log_mirror import RunLogMirror

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["RUN_LOG_FILE", "RunLogWriter"]

RUN_LOG_FILE = Path("_logs") / "run.log"
"""Where the run log lies below the storage root."""

_MAX_LINE = 1024 * 1024
_SMALLER: tuple[Bounds, ...] = ((2_048, 100, 6), (256, 100, 1))


class RunLogWriter:
    """Appends events to `_logs/run.log` below the storage root, and mirrors them.

    One line is one JSON object: `timestamp` (ISO 8601, UTC), `event`, the labels, the ids of the
    active OpenTelemetry span if there is one, and the properties. When `write` returns, the line
    survives the end of this process, `kill -9` included; it survives a power cut only with
    `fsync=True`. Threads, processes and forked children may write to one log.

    Any value may be a property: what JSON does not know becomes text, what is too large is cut
    and says so, secrets are replaced by `<redacted>`. A line is at most 1 MiB.

    The mirror is an append blob of the same name, filled by a thread of its own in batches. While
    it cannot be reached the lines wait on the disk, for the next run as well if need be. Failures
    are logged and never raised. Rolled blobs are `run.000001.log`, `run.000002.log`...; rotated
    local segments have such names too, but the two are independent: the blobs in their order hold
    the lines in theirs.

    Args:
        storage_root: Folder of the run.
        azure_client: Storage client to mirror with (see `RunLogUploader`), or `None` to keep the
            log on this machine. One that is not configured does the same.
        utc_now: Source of timestamps, for tests; texts are taken as they are.
        labels: Properties of every line, such as `{"service": "crawler"}`.
        fsync: Flush every line to the disk before `write` returns.
        max_bytes: Size at which the local file is rotated; `None` for never.
        keep: Rotated files to keep; older ones are removed, never before they are mirrored.
            `None` keeps all.
        mirror_interval: Seconds between batches, which bounds how far the mirror lags behind.
        max_blocks: Blocks after which the mirror goes on with another blob; Azure allows 50,000.

    Raises:
        ValueError: A limit is out of range.
        TypeError: A limit is not a number, or `labels` is not a mapping.

    Example:
        >>> log = RunLogWriter(Path(tempfile.mkdtemp()), azure_client=None)
        >>> line = log.write("asset_downloaded", url="https://a.example/a.png?sig=abc", size=7)
        >>> line["url"], line["size"]
        ('https://a.example/a.png?sig=<redacted>', 7)
    """

    def __init__(
        self,
        storage_root: Path,
        *,
        azure_client: RunLogUploader | None,
        utc_now: UtcNowFunc | None = None,
        labels: Mapping[str, Any] | None = None,
        fsync: bool = False,
        max_bytes: int | None = 64 * 1024 * 1024,
        keep: int | None = None,
        mirror_interval: float = 0.5,
        max_blocks: int = 49_000,
    ) -> None:
        if max_bytes is not None:
            allowed = "a number of bytes, 1024 or more, or None for no limit"
            require_number("max_bytes", max_bytes, allowed, least=1024)
        if keep is not None:  # the newest rotated file gives the next its number
            allowed = "how many rotated files to keep, 1 or more, or None for all"
            require_number("keep", keep, allowed, least=1, whole=True)
        allowed = "seconds above 0, at most 60"
        require_number("mirror_interval", mirror_interval, allowed, above=0, most=60)
        allowed = "1 to 50,000 blocks, the limit of Azure"
        require_number("max_blocks", max_blocks, allowed, least=1, most=50_000, whole=True)
        require_mapping("labels", labels)
        root = Path(storage_root)
        self._utc_now = utc_now or clock.utc_now
        self._labels = {
            name: value
            for name, value in plain_mapping(labels or {}).items()
            if name not in {"timestamp", "event"}  # those are the line's own
        }
        self._file = LogFile(
            root / RUN_LOG_FILE,
            max_bytes=max_bytes,
            fsync=fsync,
            keep=keep,
            mirrored=azure_client is not None,
        )
        self._mirror = (
            RunLogMirror(
                azure_client,
                self._file,
                root / MIRROR_STATE,
                interval=mirror_interval,
                max_blocks=max_blocks,
            )
            if azure_client is not None
            else None
        )

    @property
    def path(self) -> Path:
        """The file that lines are being appended to."""
        return self._file.path

    @overload
    def write(self, event: str, /, **properties: Any) -> dict[str, Any]: ...

    @overload
    def write(self, /, *, event: str, **properties: Any) -> dict[str, Any]: ...

    def write(self, /, *name: str, **properties: Any) -> dict[str, Any]:
        """Append one event; it is on the local disk when this returns.

        Args:
            *name: What happened; also taken as `event=`.
            **properties: Anything worth knowing, of any name. `timestamp` replaces the current
                time; an `event` beside the positional one is written as `event_`.

        Returns:
            The line as it was written.

        Raises:
            OSError: The local disk refused it, and nothing of it is there.
        """
        if len(name) > 1 or not (name or "event" in properties):
            raise TypeError("write() takes one event: write('page_saved', url=...)")
        if name and "event" in properties:
            free = "event_"
            while free in properties:
                free += "_"
            properties[free] = properties.pop("event")
        return self.write_many([{"event": name[0] if name else "", **properties}])[0]

    def write_many(self, events: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Append several events at once, for far less than each on its own.

        Args:
            events: The properties of each, `event` among them.

        Returns:
            The lines as they were written.

        Raises:
            OSError: The local disk refused them, and none of them is there.
            TypeError: One of them is not a mapping; none is written.

        Example:
            >>> with RunLogWriter(Path(tempfile.mkdtemp()), azure_client=None) as log:
            ...     lines = log.write_many({"event": "page_saved", "page": n} for n in range(3))
            >>> lines[2]["page"]
            2
        """
        written = [_fitting_line(plain_mapping(self._entry(each))) for each in events]
        if written:
            self._file.append(b"".join(line for _, line in written))
            if self._mirror is not None:
                self._mirror.wake()
        return [entry for entry, _ in written]

    def _entry(self, event: Mapping[str, Any]) -> dict[str, Any]:
        if not isinstance(event, Mapping):
            raise TypeError(f"an event is {type_name(event)}: pass dicts, with an 'event' in each")
        now = self._utc_now()
        stamp = now if isinstance(now, str) else now.isoformat()
        entry = {"timestamp": stamp, "event": event.get("event", ""), **self._labels}
        return {**entry, **trace_fields(), **event}

    def flush(self, timeout: float = 10.0) -> bool:
        """Flush the local file to the disk and wait until the mirror has all lines.

        Args:
            timeout: Seconds to wait for the mirror at most.

        Returns:
            Whether the mirror has every line that this writer wrote; always true without one.
        """
        self._file.sync()
        return self._mirror is None or self._mirror.flush(timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Flush and end the mirror's thread; a later `write` starts it again.

        Args:
            timeout: Seconds to wait for the mirror at most.

        Returns:
            What `flush` returns.
        """
        self._file.sync()
        done = self._mirror is None or self._mirror.close(timeout)
        self._file.close()
        return done

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _encode(entry: Mapping[str, Any]) -> bytes:
    text = _dumps(entry)
    if not text.isascii():  # JSON allows these within strings, readers split lines at them
        text = _LINE_END.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode("utf-8", "backslashreplace") + b"\n"


_dumps = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would build one per line
_LINE_END = re.compile("[\x85\u2028\u2029]")


def _fitting_line(entry: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Return an entry and its line, cut down until it is short enough; it says what it lost."""
    size = len(line := _encode(entry))
    for bounds in _SMALLER:
        if len(line) > _MAX_LINE:
            truncated = f"the line had {size} bytes, {_MAX_LINE} are allowed"
            entry = {**plain_mapping(entry, bounds), "truncated": truncated}
            line = _encode(entry)
    return entry, line
