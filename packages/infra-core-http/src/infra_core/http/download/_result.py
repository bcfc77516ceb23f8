"""What is asked for and what comes of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from infra_core.runtime import RetryDetails, sanitize_url

from .._errors import DownloadError

if TYPE_CHECKING:
    from infra_core.runtime import RateLimit, RetryPolicy

    from .._async_client import AnyClient
    from ._commit import CommitGroup

__all__ = [
    "DownloadItem",
    "DownloadOutcome",
    "DownloadResult",
    "DownloadSpec",
    "ProgressCallback",
    "RetryCallback",
]

E = TypeVar("E", bound=DownloadError)
ProgressCallback = Callable[[int, int | None], object]
"""Called with the bytes of the file so far and its size, None while that is not known."""


RetryCallback = Callable[[RetryDetails], Awaitable[None] | None]
"""Called before each wait, with the attempt that failed, its error and the seconds to wait."""


@dataclass
class DownloadResult:
    """A file that is on the disk, whole and verified.

    Attributes:
        path: Where it stands.
        checksum: `sha256:hexdigest` of its bytes; None with `compute_checksum=False`.
        mime: Its media type, by its name, else as the server said.
        reused: True when a file that was there before was kept.
        size: Bytes.
        attempts: How often it was tried, the first time included; 0 when no request was needed.
        resumed: True when an interrupted transfer was continued instead of begun again.
        etag: The entity tag that the server gave.
        last_modified: The date of last change that the server gave, as it wrote it.
        name: The file name that the server suggests (Content-Disposition), without folders; it may
            hold what a file system refuses, see `infra_core.fs.safe_file_name`.
        http_status: Status of the last answer; None when no request was needed.

    Two results are equal when the first four are: what 0.7 knew, and tests of its users compare.
    """

    path: Path
    checksum: str | None = None
    mime: str | None = None
    reused: bool = False
    size: int = field(default=0, compare=False)
    attempts: int = field(default=0, compare=False)
    resumed: bool = field(default=False, compare=False)
    etag: str | None = field(default=None, compare=False)
    last_modified: str | None = field(default=None, compare=False)
    name: str | None = field(default=None, compare=False)
    http_status: int | None = field(default=None, compare=False)


@dataclass(frozen=True)
class DownloadItem:
    """One file of `download_many`.

    Attributes:
        url: Where it comes from.
        dest_path: Where it goes.
        expected_checksum: `algorithm:hexdigest`, or None.
        headers: Sent for this file, over those of the call.
    """

    url: str
    dest_path: Path
    expected_checksum: str | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class DownloadOutcome:
    """What became of one item: a result or an error.

    Attributes:
        item: The item.
        result: Set on success.
        error: Set on failure.
    """

    item: DownloadItem
    result: DownloadResult | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the file is there."""
        return self.result is not None

    def unwrap(self) -> DownloadResult:
        """The result, or raise the error."""
        if self.result is None:
            raise self.error or RuntimeError("an outcome without result and error")
        return self.result


@dataclass(frozen=True)
class DownloadSpec:
    """All that one download needs to know, defaults filled in; see `download_asset`."""

    url: str
    dest: Path
    policy: RetryPolicy
    retry_statuses: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 60.0
    skip_if_exists: bool = True
    compute_checksum: bool = True
    expected_checksum: str | None = None
    max_bytes: int | None = None
    progress: ProgressCallback | None = None
    revalidate: bool = False
    keep_partial: bool = False
    connections: int = 1
    durable: bool = True
    min_speed: float = 1024.0
    client: AnyClient | None = None
    group: CommitGroup | None = None
    on_retry: RetryCallback | None = None
    on_turn: Callable[[], object] | None = None
    on_received: Callable[[int], object] | None = None
    pace: RateLimit | None = None
    held: Mapping[str, str] | None = None

    @property
    def shown(self) -> str:
        """The URL without secrets, for messages; most downloads need none."""
        return sanitize_url(self.url)

    def error(self, kind: type[E], problem: str, *, expected: object, actual: object) -> E:
        """An error of this download: its URL, and the problem with what to do."""
        shown = self.shown
        return kind(f"{shown} {problem}", url=shown, expected=expected, actual=actual)
