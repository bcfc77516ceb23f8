"""How a blob is written: whether it may replace another, and what is stored beside its bytes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from infra_core.fs import media_type

from .._checks import require_choice
from ._errors import request_error
from ._settings import Overwrite

if TYPE_CHECKING:
    from ._blobs import BlobInfo

__all__ = ["NO_PROPERTIES", "StoredProperties", "check_header"]

# "metadata names must adhere to the naming rules for C# identifiers"
# https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources
_EXAMPLES = {
    "etag": "the etag of stat()",
    "content_type": "a media type such as 'image/png'",
    "cache_control": "such as 'max-age=3600'",
    "content_encoding": "such as 'gzip'",
}
_STORED = (  # the last two can only be kept
    "content_type",
    "cache_control",
    "content_encoding",
    "content_language",
    "content_disposition",
)
_WITH_THE_ENTRY = ("overwrite", "etag", "content_type")  # columns of their own in the journal
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_header(name: str, text: object, example: str) -> None:
    """Refuse by a `ValueError` what cannot stand in a header."""
    fits = isinstance(text, str) and text and text.isascii() and text.isprintable()
    if not fits or str(text).strip() != text:
        raise ValueError(f"{name}={text!r:.80} cannot stand in a header; pass {example}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProperties:
    """When an upload may replace a blob, and the properties that it gives it or lets it keep.

    For each see `AzureStorageClient.upload_file_async`; `keep` is `keep_properties`, and costs a
    request. A `ValueError` names what cannot be sent, or would not be heeded.
    """

    overwrite: Overwrite = "always"
    etag: str | None = None
    content_type: str | None = None
    cache_control: str | None = None
    content_encoding: str | None = None
    metadata: Mapping[str, str] | None = None
    keep: bool = False

    def __post_init__(self) -> None:
        require_choice("overwrite", self.overwrite, *get_args(Overwrite))
        if self.etag is not None and self.overwrite != "if-unchanged":
            raise ValueError(
                f"etag={self.etag!r:.80} is not heeded with overwrite={self.overwrite!r}; pass "
                "overwrite='if-unchanged' with it"
            )
        for name, example in _EXAMPLES.items():
            if (text := getattr(self, name)) is not None:
                check_header(name, text, example)
        if self.metadata is None:
            return
        if not isinstance(self.metadata, Mapping):
            raise ValueError(f"metadata={self.metadata!r:.80} is not a mapping; pass a dict")
        for name, value in self.metadata.items():
            if not (isinstance(name, str) and _NAME.fullmatch(name)):
                raise ValueError(
                    f"metadata has the name {name!r:.80}; use letters, digits and underscores, "
                    "beginning with a letter or an underscore"
                )
            check_header(f"metadata[{name!r}]", value, "printable ASCII text")
        if len({name.lower() for name in self.metadata}) < len(self.metadata):
            raise ValueError(
                f"metadata={dict(self.metadata)!r:.80} has a name twice: letter case makes no "
                "difference, so keep one of them"
            )

    @classmethod
    def load(cls, details: Mapping[str, Any]) -> "StoredProperties":
        """What `dump` made; an empty mapping makes none."""
        return cls(**{name: details[name] for name in cls.__dataclass_fields__ if name in details})

    def dump(self) -> dict[str, Any]:
        """The properties that differ from the default, as JSON takes them."""
        names = self.__dataclass_fields__.keys() - _WITH_THE_ENTRY
        values = {name: getattr(self, name) for name in names}
        return {
            name: dict(value) if isinstance(value, Mapping) else value
            for name, value in values.items()
            if value is not None and value is not False
        }

    @property
    def conditions(self) -> dict[str, str]:
        """Headers under which the service accepts the write."""
        if self.overwrite == "always":
            return {}
        if self.overwrite == "if-unchanged" and self.etag:
            return {"If-Match": self.etag}
        return {"If-None-Match": "*"}

    def headers(self, blob: str, kept: "BlobInfo | None") -> dict[str, str]:
        """The headers of what is stored with the bytes; those of `kept` stay."""
        found = {}
        for name in _STORED:
            if value := getattr(self, name, None) or getattr(kept, name, ""):
                found[f"x-ms-blob-{name.replace('_', '-')}"] = value
        found.setdefault("x-ms-blob-content-type", media_type(blob))
        metadata = self.metadata if self.metadata is not None or kept is None else kept.metadata
        for name, value in (metadata or {}).items():  # those that are kept may be empty
            found[f"x-ms-meta-{name.lower()}"] = value
        for name, value in found.items():
            if not value.isascii():  # only what is kept: anything else was refused before
                what = name.removeprefix("x-ms-")
                text = f"the blob there has {what} {value!r:.80}, which cannot be sent again"
                raise request_error(400, "InvalidMetadata", text, blob=blob, operation="upload")
        return found


NO_PROPERTIES = StoredProperties()
