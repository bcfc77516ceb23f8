"""What heartbeats and run logs need of the objects that they are given; 0.7's names."""

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeAlias

__all__ = [
    "HeartbeatEventWriter",
    "HeartbeatFileUploader",
    "HeartbeatJsonWriter",
    "HeartbeatUploader",
    "LockLike",
    "RunLogUploader",
    "UtcNowFunc",
]

UtcNowFunc: TypeAlias = Callable[[], datetime | str]
"""A source of timestamps; a text is taken as it is."""


class RunLogUploader(Protocol):
    """What the mirror of a run log needs of a storage client.

    A client with `container()` (an `azure.storage.blob.ContainerClient` or `None`) and
    `blob_name_for_path(path)` gets an append blob; any other must have `upload_file(path)`.
    """

    def is_configured(self) -> bool: ...


class HeartbeatUploader(Protocol):
    """What a heartbeat needs of a storage client.

    `write_json(path, data)` is used where the client has it, else `upload_file(path)`.
    """

    def is_configured(self) -> bool: ...


class HeartbeatJsonWriter(Protocol):
    """A storage client that writes JSON to a file and mirrors it."""

    def write_json(self, path: Path, data: Mapping[str, Any]) -> object: ...


class HeartbeatFileUploader(Protocol):
    """A storage client that mirrors a file."""

    def upload_file(self, path: Path) -> object: ...


class HeartbeatEventWriter(Protocol):
    """Where beats and timeouts are logged, such as a `RunLogWriter`."""

    def write(self, event: str, /, **properties: Any) -> object: ...


class LockLike(Protocol):
    """A lock, such as `threading.Lock`."""

    def acquire(self) -> object: ...

    def release(self) -> None: ...
