"""One URL of a batch: what is asked for, under which job it is recorded, and why a line is none."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from math import isfinite
from typing import Any
from urllib.parse import urlsplit

from infra_core.runtime import redact_secrets

__all__ = [
    "LONGEST",
    "SHOWN",
    "BatchItem",
    "Rejected",
    "is_host",
    "item_of",
    "job_id_of",
    "origin_of",
    "shown",
    "why_no_headers",
    "why_not",
]

SHOWN = 80  # characters of a line that is not a URL
LONGEST = 65_536  # no server takes a longer one; common limits are 8 to 16 KiB


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One file to download.

    Attributes:
        url: An http or https URL; a fragment is dropped, it is not sent to a server.
        name: File name to use in place of the URL's last segment.
        checksum: What the file must have, as `algorithm:hexdigest`.
        headers: Request headers for this URL alone; never recorded.
        metadata: JSON values that travel to the job record and to the result.
        line: Its number in the list, for messages.
    """

    url: str
    name: str | None = None
    checksum: str | None = None
    headers: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    line: int = field(default=0, compare=False, repr=False)

    @property
    def job_id(self) -> str:
        """The id of the item's job."""
        return job_id_of(self.url)


@dataclass(frozen=True, slots=True)
class Rejected:
    """An entry of a list that cannot be downloaded.

    Attributes:
        line: Its number, counted from 1.
        text: The entry, shortened, without secrets.
        reason: What is wrong and how to mend it.
    """

    line: int
    text: str
    reason: str


_NO_URL = "no 'url'; give each entry a url of text"
# No URL may have the last ones (RFC 3987, section 4.1).
_INVISIBLE = frozenset("\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e")
_MOST_METADATA = 400_000  # characters as JSON; a record, which has more than these, holds 1 MiB
_NAMES = frozenset(each.name for each in fields(BatchItem)) - {"line"}


def job_id_of(url: str) -> str:
    """The job's id: 128 bits of the URL's SHA-256, the same in every run."""
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def item_of(given: object, number: int) -> BatchItem | Rejected:
    """Make an item of what a list holds: a URL, a mapping of the fields, or an item.

    White space around a URL, such as a line's end, is not part of it.
    """
    if isinstance(given, str):
        # a byte order mark is what a file of UTF-8 may begin with, also one of several put together
        item = BatchItem(given.strip().removeprefix("\ufeff"), line=number)
    elif isinstance(given, Mapping):
        item_or_reason = _from_mapping(given, number)
        if isinstance(item_or_reason, str):
            return Rejected(number, shown(given.get("url", given)), item_or_reason)
        item = item_or_reason
    elif isinstance(given, BatchItem):
        item = given
    else:
        reason = f"of type {type(given).__name__}; pass a URL, a mapping with 'url' or a BatchItem"
        return Rejected(number, shown(given), reason)
    if reason := why_not(item.url) or _why_not_rest(item):
        return Rejected(number, shown(item.url), reason)
    return replace(item, url=item.url.partition("#")[0]) if "#" in item.url else item


def _from_mapping(given: Mapping[Any, Any], number: int) -> BatchItem | str:
    """An item of a mapping; names that are none of its fields are metadata."""
    if "url" not in given:  # but perhaps `URL`, as in lists of images
        lowered = {str(name).lower(): name for name in given}
        given = {name if name in _NAMES else n: given[n] for name, n in lowered.items()}
    if not isinstance(given.get("url"), str):
        return _NO_URL
    own = {name: given[name] for name in _NAMES & given.keys() if given[name] not in (None, "")}
    extra = {str(name): value for name, value in given.items() if name not in _NAMES}
    metadata = own.pop("metadata", None)
    if metadata is not None and not isinstance(metadata, Mapping):
        return "'metadata' is not a mapping; write an object of names and values"
    merged = {**extra, **(metadata or {})}
    return BatchItem(**own, metadata=merged or None, line=number)


def _why_not_rest(item: Any) -> str:
    if item.name is not None and not isinstance(item.name, str):
        return "'name' is not text; write a file name"
    if item.headers is not None and not (
        isinstance(item.headers, Mapping)
        and all(isinstance(part, str) for pair in item.headers.items() for part in pair)
    ):
        return "'headers' is not a mapping of names to texts; write an object of header names"
    if item.headers and (why := why_no_headers(item.headers)):
        return why
    if item.metadata is not None and (why := _why_no_metadata(item.metadata)):
        return why
    if item.checksum is not None:
        from infra_core.fs import parse_checksum

        try:
            parse_checksum(item.checksum)
        except (ValueError, TypeError, AttributeError):
            return "the checksum is not of the form algorithm:hexdigest, such as sha256:9f86..."
    return ""


def _why_no_metadata(metadata: Mapping[str, Any]) -> str:
    try:
        # A mapping of another type is recorded as a dict; json takes none within it, and no integer
        # of 5,000 digits.
        size = len(json.dumps(dict(metadata))) if _is_json(metadata) else None
    except (TypeError, ValueError):
        size = None
    if size is None:
        return (
            "'metadata' is not JSON; use texts, finite numbers, booleans, None, lists, and "
            "mappings with texts as keys"
        )
    if size > _MOST_METADATA:
        return (
            f"'metadata' takes {size:,} characters as JSON, and a job record holds "
            f"{_MOST_METADATA:,}: keep it in a file and give its name"
        )
    return ""


def _is_json(value: object, depth: int = 100) -> bool:
    if value is None or isinstance(value, (str, int)):
        return True
    if isinstance(value, float):
        return isfinite(value)
    if not depth:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _is_json(v, depth - 1) for k, v in value.items())
    return isinstance(value, (list, tuple)) and all(_is_json(v, depth - 1) for v in value)


def origin_of(text: str) -> tuple[str, int | None]:
    """Host and port of `//host:port` or a URL, in one form for `Example.com.` and `example.com`."""
    parts = urlsplit(text)
    host = (parts.hostname or "").rstrip(".")
    with suppress(UnicodeError):
        host = host.encode("idna").decode("ascii")
    return host, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def is_host(text: object) -> bool:
    """Whether a text is a host as it stands in a URL, with or without a port."""
    try:
        parts = urlsplit(f"//{text}")
        return isinstance(text, str) and parts.netloc == text and bool(origin_of(f"//{text}")[0])
    except ValueError:  # of the port, or of half an IPv6 address
        return False


def why_no_headers(headers: Mapping[str, str]) -> str:
    """Why no request could carry these; empty where one can."""
    from infra_core.http import InvalidRequestError, checked_headers

    try:
        checked_headers(headers)
    except InvalidRequestError as error:
        return redact_secrets(str(error))
    return ""


def shown(given: object) -> str:
    """The beginning of an entry as a message may quote it, without secrets."""
    return redact_secrets(str(given)[:SHOWN])


def why_not(url: Any) -> str:
    """The reason why this is not a URL to download; empty when it is one."""
    if not isinstance(url, str):
        return _NO_URL
    if "\0" in url:
        return "a NUL byte; the list is not text in UTF-8, perhaps UTF-16: save it as UTF-8"
    if url.startswith(('{"', '["', "[{")):
        return "JSON in a list of text; call the file .jsonl, or give --input-format jsonl"
    if len(url) > LONGEST:
        return f"{len(url)} characters; a URL has at most {LONGEST}, is a line break missing?"
    # true of most URLs, and costs one call; a space is printable
    if (" " in url or not url.isprintable()) and (why := _why_no_characters(url)):
        return why
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a password
        return "malformed host or port; a port is at most 65535, an IPv6 address stands in []"
    if "http" not in parts.scheme and ("http://" in url or "https://" in url):
        return "text in front of the URL; write it alone, without quotes, brackets or marks"
    if not parts.scheme or "://" not in url:
        return "no scheme; write https:// in front of the host name"
    if parts.scheme not in {"http", "https"}:
        return f"scheme {parts.scheme!r} is not http or https; only these are downloaded"
    if not parts.hostname:
        return "no host name after ://; write https://HOST/PATH"
    if port == 0:
        return "port 0 cannot be connected to; leave it out or give the right one"
    return ""


def _why_no_characters(url: str) -> str:
    if any(char.isspace() or ord(char) < 32 or 127 <= ord(char) < 160 for char in url):
        return "white space inside the URL; write a space as %20, and one URL a line"
    if found := _INVISIBLE.intersection(url):  # as copied from a web page
        return f"an invisible character (U+{ord(min(found)):04X}) in the URL; take it out"
    return ""
