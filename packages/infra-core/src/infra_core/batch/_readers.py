"""Read a list as people keep it: text, CSV or JSON lines, a line at a time."""

import csv
import json
import re
from collections import deque
from collections.abc import Callable, Iterator
from typing import IO, Any

from ._formats import Format
from ._items import LONGEST, SHOWN, BatchItem, Rejected, item_of, shown
from ._places import length_of

__all__ = ["ListError", "read_items"]

_ROW_LINES = 1_000  # of a CSV: a quoted field with more is one that was never closed
_ENDLESS = 16 << 20  # bytes without a line end: no list has such a line
_LINE_LIMIT = {"text": 2 * LONGEST, "csv": 1 << 20, "jsonl": 1 << 20}
# What sha256sum and its siblings print: digest, blank, blank or asterisk, name.
_SUM_LINE = re.compile(r"(?:\\)?([0-9a-fA-F]{32,128})[ \t]+\*?(\S.*)")
# What they print with --tag, as on BSD; openssl leaves out the blanks.
_TAG_LINE = re.compile(r"(?:\\)?([A-Za-z][\w/-]*) ?\((\S.*)\) ?= ?([0-9a-fA-F]+)", re.ASCII)
_ALGORITHMS = {32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384", 128: "sha512"}


class ListError(ValueError):
    """The list as a whole cannot be read; the message names the rule and the remedy."""


def read_items(lines: IO[bytes], *, format: Format = "text") -> Iterator[BatchItem | Rejected]:  # noqa: A002 - the field's word
    r"""Yield the items of a list, and what is wrong with each line that is none.

    The list is UTF-8, a byte order mark and CRLF are fine, and no more than a line of it is in
    memory.

    - `text`: a URL a line, perhaps with a digest as `sha256sum` or `sha256sum --tag` print it;
      blank lines and lines that start with `#` are passed over, and so is a comment behind white
      space (` # why`).
    - `csv`: a header line that names `url` and perhaps `name`, `checksum`, `headers` (JSON); other
      columns are metadata. A row goes over 1,000 lines at most, by fields in quotes.
    - `jsonl`: a URL in quotes, or an object with `url`, `name`, `checksum`, `headers`, `metadata`;
      other members are metadata.

    Args:
        lines: A file opened in binary mode.
        format: How it is written.

    Raises:
        ListError: A line without an end, or a CSV without a column `url` or with one name for two
            columns.

    Example:
        >>> import io
        >>> [item.url for item in read_items(io.BytesIO(b"https://example.com/a\r\n# note\n"))]
        ['https://example.com/a']
    """
    texts = _texts(lines, _LINE_LIMIT[format])
    if format == "csv":
        return _Entries(_read_csv(texts), lines)
    return _Entries(_read_lines(texts, json.loads if format == "jsonl" else _from_text), lines)


class _Entries(Iterator[BatchItem | Rejected]):
    """The entries of a file, which says about how many there are: `operator.length_hint`."""

    def __init__(self, entries: Iterator[BatchItem | Rejected], lines: IO[bytes]) -> None:
        self._entries = entries
        self._lines = lines

    def __next__(self) -> BatchItem | Rejected:
        return next(self._entries)

    def __length_hint__(self) -> int:
        return length_of(self._lines)


def _texts(lines: IO[bytes], limit: int) -> Iterator[tuple[int, str | Rejected]]:
    """Yield each line with its number; never holds more of one than `limit` bytes."""
    number = 0
    while raw := lines.readline(limit + 1):
        number += 1
        if len(raw) > limit and not raw.endswith(b"\n"):
            _skip_line(lines, number)
            reason = f"more than {limit} bytes in one line; is a line break missing?"
            yield number, Rejected(number, _beginning(raw), reason)
            continue
        try:
            # of each of several files that were put together
            yield number, raw.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            reason = f"byte {error.start + 1} is not UTF-8; save the list as UTF-8"
            if number == 1 and raw.startswith(b"\x1f\x8b"):
                reason = "the list is compressed with gzip; decompress it (gunzip)"
            yield number, Rejected(number, _beginning(raw).strip(), reason)


def _beginning(raw: bytes) -> str:
    return shown(raw[:SHOWN].decode("utf-8", "replace"))


def _skip_line(lines: IO[bytes], number: int) -> None:
    passed = 0
    while rest := lines.readline(1 << 16):
        if rest.endswith(b"\n"):
            return
        passed += len(rest)
        if passed > _ENDLESS:
            raise ListError(
                f"line {number} has no end within {_ENDLESS >> 20} MiB: this is not a list of "
                "URLs; write one URL a line"
            )


def _read_lines(
    texts: Iterator[tuple[int, str | Rejected]],
    parse: Callable[[str], Any],
) -> Iterator[BatchItem | Rejected]:
    for number, text in texts:
        if isinstance(text, Rejected):
            yield text
            continue
        text = text.strip()  # noqa: PLW2901 - the line without its end
        if not text or text.startswith("#"):
            continue
        try:
            given = parse(text)
            if isinstance(given, list):
                raise ValueError("a list")
            yield item_of(given, number)
        except (ValueError, RecursionError) as error:
            yield Rejected(number, shown(text), f"not JSON lines ({error}); write an object a line")


def _from_text(text: str) -> Any:
    url = text.split(" #", 1)[0].split("\t#", 1)[0].rstrip()
    found = _SUM_LINE.fullmatch(url)
    if found and (algorithm := _ALGORITHMS.get(len(found[1]))):
        return {"url": found[2], "checksum": f"{algorithm}:{found[1].lower()}"}
    if tagged := _TAG_LINE.fullmatch(url):
        return {"url": tagged[2], "checksum": f"{_algorithm(tagged[1])}:{tagged[3].lower()}"}
    return url


def _algorithm(tag: str) -> str:
    """Hashlib's spelling of an algorithm: `SHA2-512/256` of openssl, `RMD160` of the BSDs."""
    name = tag.lower().removeprefix("sha2-").replace("/", "_").replace("rmd160", "ripemd160")
    return f"sha{name}" if name[0].isdigit() else name


def _csv_rows(
    texts: Iterator[tuple[int, str | Rejected]],
) -> Iterator[tuple[int, list[str]] | Rejected]:
    """Yield each row that is not blank with the number of its first line.

    A quote that is opened and not closed costs its own line: those behind it are read anew. It is
    taken for one where it makes a row longer than the header, or a line break part of a URL.
    """
    header: list[str] = []
    again: deque[tuple[int, str | Rejected]] = deque()
    taken: list[tuple[int, str]] = []  # lines of the row: a quoted field may go over several
    rejected: list[Rejected] = []

    def plain() -> Iterator[str]:
        while (entry := again.popleft() if again else next(texts, None)) is not None:
            number, text = entry
            if isinstance(text, Rejected):
                rejected.append(text)
                continue
            taken.append((number, text))
            if len(taken) > _ROW_LINES:
                raise csv.Error("a row of too many lines")
            yield text

    rows = csv.reader(plain(), strict=True)
    while True:
        taken.clear()
        try:
            row = next(rows, None)
            if row and (why := _why_no_row(row, header)):
                raise csv.Error(why)
        except csv.Error as error:
            (number, text), *rest = taken
            again.extendleft(reversed(rest))
            rows = csv.reader(plain(), strict=True)  # the other one may be at its end
            reason = f"not CSV ({error}); quote fields that hold commas or quotes"
            if rest or "end of data" in str(error):
                reason = "not CSV: a quote is opened and not closed; write a quote itself as two"
            yield Rejected(number, shown(text.strip()), reason)
            row = []
        yield from rejected
        rejected.clear()
        if row is None:
            return
        if any(cell.strip() for cell in row):
            header = header or [cell.strip().lower() for cell in row]
            yield taken[0][0], row


def _why_no_row(row: list[str], header: list[str]) -> str:
    if header and len(row) > len(header):
        return f"{len(row)} fields under {len(header)} columns"
    for name, cell in zip(header, row, strict=False):
        if name == "url" and "\n" in cell.strip():
            return "a line break in the URL"
    return ""


def _read_csv(texts: Iterator[tuple[int, str | Rejected]]) -> Iterator[BatchItem | Rejected]:
    rows = _csv_rows(texts)
    header = next(rows, (0, []))
    if isinstance(header, Rejected):
        raise ListError(f"line {header.line}: {header.reason}")
    names = [name.strip() for name in header[1]]
    if "url" not in (lowered := [name.lower() for name in names]):
        raise ListError(
            f"the first line of the CSV names no column 'url' (it has "
            f"{shown(', '.join(names)) or 'none'}); write a header line such as url,name,checksum "
            "and commas between the fields"
        )
    for name in filter(None, lowered):
        if lowered.count(name) > 1:  # else one of them would be dropped silently
            raise ListError(
                f"the first line of the CSV names the column {name!r} twice; give each column a "
                "name of its own"
            )
    for entry in rows:
        if isinstance(entry, Rejected):
            yield entry
            continue
        number, row = entry
        yield _from_row(dict(zip(lowered, (cell.strip() for cell in row), strict=False)), number)


def _from_row(row: dict[str, Any], number: int) -> BatchItem | Rejected:
    for name in ("headers", "metadata"):
        if row.get(name):
            try:
                row[name] = json.loads(row[name])
            except (ValueError, RecursionError) as error:
                return Rejected(number, shown(row["url"]), f"{name!r} is not JSON ({error})")
    return item_of({name: value for name, value in row.items() if value != ""}, number)
