"""Values that trees are planned and reported with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from .._checks import require_choice, require_plain_function
from ._names import compile_globs
from ._properties import NO_PROPERTIES, StoredProperties
from ._settings import Overwrite

__all__ = [
    "Action",
    "Compare",
    "FileOutcome",
    "OnUnsafe",
    "TreeProgress",
    "TreeReport",
    "TreeRules",
]

Direction = Literal["up", "down"]
Action = Literal["upload", "download", "skip", "keep", "delete", "reject"]
Compare = Literal["hash", "size", "nothing"]
OnUnsafe = Literal["raise", "skip"]

KEPT_OUTCOMES = 1000
_COUNTED = {  # as what a report counts it
    "upload": "transferred",
    "download": "transferred",
    "skip": "skipped",
    "keep": "kept",
    "delete": "deleted",
    "reject": "rejected",
}
GONE = "deleted since it was listed"  # why the source's file is skipped


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """What is to be done with one file, or what became of it.

    Attributes:
        name: Path of the file relative to its tree, with forward slashes.
        action: `upload` or `download`; `skip`, since both sides are equal; `keep`, since
            `overwrite` forbids it; `delete` at the destination; `reject`, since the name is
            unsafe.
        size: Bytes at the source (for `delete`, at the destination).
        reason: Why, in a few words.
        error: What it failed of, `None` when it did not.
        etag: Of a failed upload, the ETag of the blob that it may replace, where it may no other.
        content_type: Of a failed upload, the media type to store, `None` for that of the name.
    """

    name: str
    action: Action
    size: int
    reason: str
    error: Exception | None = None
    etag: str | None = None
    content_type: str | None = None

    @property
    def ok(self) -> bool:
        """Whether it ended as planned."""
        return self.error is None and self.action != "reject"


@dataclass(frozen=True, slots=True)
class TreeProgress:
    """How far a tree is; totals are those of all files that were looked at or will be.

    Attributes:
        files_done: Files done, skipped ones included.
        files_total: Files of the source.
        bytes_done: Bytes done, those of skipped files included.
        bytes_total: Bytes of the source.
        name: The file that was done last, or that is under way.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    name: str


@dataclass(slots=True)
class TreeReport:
    """What became of a tree.

    Attributes:
        direction: `up` or `down`.
        files: Files of the source, after include and exclude.
        transferred: Files uploaded or downloaded.
        skipped: Files that were equal on both sides.
        kept: Files that `overwrite` kept from being replaced.
        deleted: Files deleted at the destination.
        rejected: Names that are unsafe.
        failed: Files that failed.
        bytes_transferred: Bytes uploaded or downloaded.
        problems: Outcomes that failed or were rejected, the first 1,000 of them.
        seconds: How long it took.
        notes: What was left out or could not be looked at, and what that means.
    """

    direction: Direction
    files: int = 0
    transferred: int = 0
    skipped: int = 0
    kept: int = 0
    deleted: int = 0
    rejected: int = 0
    failed: int = 0
    bytes_transferred: int = 0
    problems: list[FileOutcome] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed and nothing was rejected."""
        return not self.failed and not self.rejected

    def add(self, outcome: FileOutcome) -> None:
        """Count an outcome."""
        counted = _COUNTED[outcome.action] if outcome.error is None else "failed"
        setattr(self, counted, getattr(self, counted) + 1)
        if counted == "transferred":
            self.bytes_transferred += outcome.size
        if not outcome.ok and len(self.problems) < KEPT_OUTCOMES:
            self.problems.append(outcome)


OnProgress: TypeAlias = Callable[[TreeProgress], None]
OnOutcome: TypeAlias = Callable[[FileOutcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeRules:
    """Which files of a tree travel, when and how; see `AzureStorageClient.sync_tree_async`."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    overwrite: Overwrite = "always"
    compare: Compare = "hash"
    delete: bool = False
    on_unsafe: OnUnsafe = "raise"
    content_type: Callable[[str], str | None] | None = None
    properties: StoredProperties = NO_PROPERTIES
    dry_run: bool = False
    on_progress: OnProgress | None = None
    on_outcome: OnOutcome | None = None

    def __post_init__(self) -> None:
        require_choice("overwrite", self.overwrite, *get_args(Overwrite))
        require_choice("compare", self.compare, *get_args(Compare))
        require_choice("on_unsafe", self.on_unsafe, *get_args(OnUnsafe))
        for name in ("content_type", "on_progress", "on_outcome"):
            require_plain_function(name, getattr(self, name))
        compile_globs(self.include, self.exclude)  # raises for malformed ones, planned or not

    def dump(self) -> dict[str, Any]:
        """What the journal keeps of it; a replay deletes nothing and knows no callables."""
        rules = {"overwrite": self.overwrite, "compare": self.compare}
        globs = {"include": list(self.include), "exclude": list(self.exclude)}
        return {**rules, **globs, **self.properties.dump()}

    @classmethod
    def load(cls, details: Mapping[str, Any]) -> "TreeRules":
        """The rules of a replay; those of nothing for the entries of an earlier release."""
        return cls(
            include=tuple(details.get("include", ())),
            exclude=tuple(details.get("exclude", ())),
            overwrite=details.get("overwrite", "always"),
            compare=details.get("compare", "hash"),
            on_unsafe="skip",
            properties=StoredProperties.load(details),
        )


class LocalFile(NamedTuple):
    """A file of a local tree."""

    name: str
    size: int
    mtime_ns: int
