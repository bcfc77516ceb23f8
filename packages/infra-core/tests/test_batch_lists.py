"""Lists are read as people write them, a line at a time; what is no URL says why."""

import gzip
import io
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from infra_core.batch import BatchItem, ListError, Rejected, read_items
from infra_core.batch._formats import format_of
from infra_core.batch._items import item_of


def read(text: str | bytes, **options: Any) -> tuple[list[BatchItem], list[Rejected]]:
    raw = text.encode() if isinstance(text, str) else text
    found = list(read_items(io.BytesIO(raw), **options))
    items = [entry for entry in found if isinstance(entry, BatchItem)]
    return items, [entry for entry in found if isinstance(entry, Rejected)]


def urls_of(text: str | bytes, **options: Any) -> list[str]:
    items, rejected = read(text, **options)
    assert rejected == []
    return [item.url for item in items]


def test_blank_lines_comments_crlf_and_bom_are_passed_over() -> None:
    """Only URLs come out, in their order."""
    text = b"\xef\xbb\xbfhttps://a.example/1\r\n\r\n# note\n  https://a.example/2  "
    assert urls_of(text) == ["https://a.example/1", "https://a.example/2"]


def test_a_fragment_is_dropped_and_a_comment_is_none() -> None:
    """White space and # start a comment; # alone starts a fragment, which no server sees."""
    text = "https://a.example/x # why\nhttps://a.example/#top\n"
    assert urls_of(text) == ["https://a.example/x", "https://a.example/"]


def test_malformed_lines_are_rejected_with_number_and_reason() -> None:
    """Each rejected line says what is wrong."""
    lines = [
        b"example.com/x",
        b"ftp://example.com/x",
        b"https://",
        b"https://exa mple.com/",
        b"https://example.com:99999/",
        b"https://example.com:0/",
        b"https://[::1/",
        b"https://example.com/\xff",
        "https://example.com/\u2028x".encode(),
        "https://example.com/\x9bx".encode(),
    ]
    items, rejected = read(b"\n".join(lines))
    assert items == []
    assert [entry.line for entry in rejected] == list(range(1, 11))
    reasons = " | ".join(entry.reason for entry in rejected)
    for part in ("no scheme", "'ftp'", "no host", "white space", "ort", "byte 21 is not UTF-8"):
        assert part in reasons


@pytest.mark.parametrize("scheme", ["HTTPS", "Http"])
def test_schemes_are_taken_in_any_case(scheme: str) -> None:
    """RFC 3986, section 3.1."""
    assert urls_of(f"{scheme}://a.example/") == [f"{scheme}://a.example/"]


@pytest.mark.parametrize(
    ("digits", "algorithm"), [(32, "md5"), (40, "sha1"), (64, "sha256"), (128, "sha512")]
)
def test_lines_of_sha256sum_and_its_siblings_bring_their_checksum(
    digits: int, algorithm: str
) -> None:
    """Digest, two characters, URL."""
    for mark in (" ", "*"):
        items, _ = read(f"{'aB' * (digits // 2)} {mark}https://a.example/x\n")
        assert [(i.url, i.checksum) for i in items] == [
            ("https://a.example/x", f"{algorithm}:{'ab' * (digits // 2)}")
        ]


@pytest.mark.parametrize(
    ("tag", "algorithm", "digits"),
    [
        ("MD5", "md5", 32),
        ("SHA1", "sha1", 40),
        ("SHA256", "sha256", 64),
        ("SHA2-256", "sha256", 64),
        ("SHA512/256", "sha512_256", 64),
        ("SHA2-512/224", "sha512_224", 56),
        ("SHA3-256", "sha3-256", 64),
        ("SHA512", "sha512", 128),
        ("BLAKE2b", "blake2b", 128),
    ],
)
def test_lines_in_the_form_of_bsd_bring_their_checksum(
    tag: str, algorithm: str, digits: int
) -> None:
    """`sha256sum --tag`, and `openssl dgst` without blanks; the URL may have parentheses."""
    url, digest = "https://a.example/x(1)", "aB" * (digits // 2)
    for line in (f"{tag} ({url}) = {digest}", f"{tag}({url})= {digest}  # why"):
        items, _ = read(f"{line}\r\n")
        assert [(i.url, i.checksum) for i in items] == [(url, f"{algorithm}:{digest.lower()}")]


@pytest.mark.parametrize("tag", ["BLAKE2b-256", "SHA256"])
def test_lines_in_the_form_of_bsd_that_cannot_be_verified_are_named(tag: str) -> None:
    """An algorithm that hashlib does not have, or another number of digits."""
    items, [rejected] = read(f"{tag} (https://a.example/x) = {'ab' * 31}\n")
    assert items == []
    assert "algorithm:hexdigest" in rejected.reason


def test_csv_names_its_columns_and_keeps_the_others_as_metadata() -> None:
    """Columns in any order, quotes, a headers column of JSON, empty cells."""
    text = (
        'shop,URL,name,checksum,headers\n"A, B",https://a.example/1,one.png,,"{""X-A"": ""1""}"\n'
        ",https://a.example/2,,,\n\n"
    )
    items, rejected = read(text, format="csv")
    assert rejected == []
    assert items[0] == BatchItem(
        "https://a.example/1", "one.png", headers={"X-A": "1"}, metadata={"shop": "A, B"}
    )
    assert items[1] == BatchItem("https://a.example/2")
    assert [item.line for item in items] == [2, 3]


def test_rows_of_a_csv_that_are_none_are_named() -> None:
    """Too many fields, no URL, bad JSON, bad digest: each by its line; the others go on."""
    text = (
        "url,checksum,headers\nhttps://a.example/1,,,,\n,,\nhttps://a.example/3,,{\n"
        "https://a.example/4,sha256:zz,\nhttps://a.example/5,,\n"
    )
    items, rejected = read(text, format="csv")
    assert [item.url for item in items] == ["https://a.example/5"]
    assert [entry.line for entry in rejected] == [2, 4, 5]
    reasons = [entry.reason for entry in rejected]
    assert "5 fields" in reasons[0]
    assert "not JSON" in reasons[1]
    assert "algorithm:hexdigest" in reasons[2]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("text", b"https://u:hunter2@a.example/\xff\n"),
        ("text", b"https://u:hunter2@a.example/" + b"x" * 200_000 + b"\n"),
        ("csv", b"url,headers\nhttps://u:hunter2@a.example/,,\n"),
        ("csv", b"url,headers\nhttps://u:hunter2@a.example/,{\n"),
        ("jsonl", b'{"url": "https://u:hunter2@a.example/",\n'),
    ],
)
def test_lines_are_quoted_without_secrets(format: str, text: bytes) -> None:  # noqa: A002
    """Whatever is wrong with them."""
    _, [rejected] = read(text, format=format)
    assert "a.example" in rejected.text
    assert "hunter2" not in str(rejected)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (BatchItem(7), "no 'url'"),  # type: ignore[arg-type]
        (BatchItem(None), "no 'url'"),  # type: ignore[arg-type]
        ({"url": "https://a.example", "page": "x" * 400_000}, "characters as JSON"),
        (BatchItem("https://a.example", metadata={"n": 10**5000}), "not JSON"),
        *(
            ({"url": "https://a.example", "headers": headers}, "'headers' is not a mapping")
            for headers in ("A: b", ["A"], {"A": 1}, {1: "b"})
        ),
    ],
)
def test_what_no_record_could_hold_is_rejected_alone(given: object, reason: str) -> None:
    """It would end the run, and each resume of it at the same entry."""
    found = item_of(given, 1)
    assert isinstance(found, Rejected)
    assert reason in found.reason


@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_a_byte_order_mark_at_the_beginning_of_a_line_is_no_part_of_it(format: str) -> None:  # noqa: A002
    """Of each of several files that were put together, and of what is handed over line by line."""
    line = {"jsonl": '\ufeff"https://a.example/%d"\r\n'}.get(
        format, "\ufeffhttps://a.example/%d\r\n"
    )
    text = ("\ufeffurl\r\n" if format == "csv" else "") + line % 1 + line % 2
    assert urls_of(text, format=format) == ["https://a.example/1", "https://a.example/2"]
    given = "\ufeffhttps://a.example/\n"
    assert item_of(given, 1) == item_of(given, 2) == BatchItem("https://a.example/")


@pytest.mark.parametrize("code", [0xAD, 0x200B, 0x2060, 0xFEFF, 0x200E, 0x202E])
@pytest.mark.parametrize("form", ["{}https://a.example/", "https://a.example/{}"])
def test_an_invisible_character_is_named(code: int, form: str) -> None:
    """As a web page has them for line breaks: the server would answer 404, and nobody see why."""
    _, [rejected] = read(("\u2060" if code == 0xFEFF else "") + form.format(chr(code)))
    assert "invisible character (U+" in rejected.reason


def test_a_control_character_is_none_of_a_url() -> None:
    """Whatever its number; those that end a line are in no text, but in JSON."""
    for code in (*range(33), *range(0x7F, 0xA1), 0x2028, 0x3000):
        rejected = item_of(f"https://a.example/{chr(code)}b", 1)
        assert isinstance(rejected, Rejected), hex(code)
        assert "NUL byte" in rejected.reason or "%20" in rejected.reason


def test_characters_that_letters_of_some_scripts_need_are_taken() -> None:
    """Joiners are part of words in Persian, and of emoji."""
    url = "https://a.example/\u0645\u200c\u0646/\U0001f468\u200d\U0001f469"
    assert urls_of(url) == [url]


@pytest.mark.parametrize("form", ['"{}"', "'{}'", "<{}>", '-"{}"', "[a]({})", "url={}"])
def test_what_stands_in_front_of_a_url_is_what_is_wrong(form: str) -> None:
    """Not that it lacks a scheme."""
    _, [rejected] = read(form.format("https://a.example/"))
    assert "in front of the URL" in rejected.reason


@pytest.mark.parametrize("behind", [1, 10_000])
def test_an_open_quote_in_a_csv_costs_its_own_line(behind: int) -> None:
    """Whatever follows, up to the next quote, the bound of a field or the end."""
    row = "https://a.example/%d,n\n"
    text = 'url,note\nhttps://a.example/x,"16 inch\n' + "".join(row % n for n in range(behind))
    items, [rejected] = read(text + 'https://a.example/y,"a\nb"\n', format="csv")
    assert [item.url for item in items[:-1]] == [f"https://a.example/{n}" for n in range(behind)]
    assert (items[-1].metadata, items[-1].line) == ({"note": "a\nb"}, 3 + behind)
    assert (rejected.line, rejected.text) == (2, 'https://a.example/x,"16 inch')
    assert "a quote is opened and not closed" in rejected.reason


@pytest.mark.parametrize(
    "text",
    [
        'https://a.example/1,"16 inch\nhttps://a.example/2,b\nhttps://a.example/3,17",blue\n',
        '"https://a.example/1,n\nhttps://a.example/2,b\n","\nhttps://a.example/3,c,d\n',
    ],
)
def test_an_open_quote_that_a_later_line_closes_costs_no_line_between(text: str) -> None:
    """The row is longer than the header, or its URL goes over lines."""
    items, rejected = read("url,note\n" + text, format="csv")
    assert [(item.url, item.line) for item in items] == [("https://a.example/2", 3)]
    assert rejected[0].line == 2
    assert "a quote is opened and not closed" in rejected[0].reason
    assert rejected[-1].line == len(text.splitlines()) + 1
    assert "3 fields under 2 columns" in rejected[-1].reason


def test_open_quotes_in_every_line_take_neither_all_memory_nor_time() -> None:
    """Each opens one that the next closes, and opens another: a row without an end."""
    asked: list[int] = []

    class Lines(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            asked.append(1)
            return super().readline(size)

    entries = read_items(Lines(b"url,note\n" + b'x","\n' * 2_000), format="csv")
    first = next(entries)
    assert isinstance(first, Rejected)
    assert (first.line, len(asked) < 1_100) == (2, True)
    assert [entry.line for entry in entries if isinstance(entry, Rejected)] == [*range(3, 2_002)]


def test_blank_lines_above_the_header_of_a_csv_are_passed_over() -> None:
    """Spreadsheets leave them; lines keep their numbers."""
    items, rejected = read("\ufeff\n , \r\nurl\nhttps://a.example/1\n", format="csv")
    assert [(item.url, item.line) for item in items] == [("https://a.example/1", 4)]
    assert rejected == []


def test_a_line_of_a_csv_that_is_no_text_is_named() -> None:
    """It costs nothing but itself."""
    text = b"url,note\nhttps://a.example/1,\nhttps://a.example/2,\xfcber\nhttps://a.example/3,\n"
    items, [rejected] = read(text, format="csv")
    assert [item.line for item in items] == [2, 4]
    assert (rejected.line, "UTF-8" in rejected.reason) == (3, True)


def test_csv_without_a_url_column_is_refused() -> None:
    """With what a header line looks like."""
    with pytest.raises(ListError, match="url,name,checksum"):
        read("a,b\n1,2\n", format="csv")
    with pytest.raises(ListError, match="none"):
        read("", format="csv")
    with pytest.raises(ListError) as caught:
        read(f"https://a.example/?sig=hidden&{'x' * 9_000}\n", format="csv")
    assert "hidden" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_two_columns_of_one_name_are_refused() -> None:
    """One of them would be dropped, be it a URL or metadata; columns without a name are none."""
    with pytest.raises(ListError, match="names the column 'url' twice"):
        read("url,note,URL \n1,2,3\n", format="csv")
    assert read("url,,\nhttps://a.example/,,\n", format="csv")[1] == []


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("jsonl", f"{'[' * 100_000}\n" + '"https://a.example/"\n'),
        ("csv", f"url,headers\nhttps://b.example/,{'[' * 100_000}\nhttps://a.example/,\n"),
    ],
)
def test_json_that_is_nested_too_deeply_costs_its_own_line(format: str, text: str) -> None:  # noqa: A002
    """Python raises no ValueError for it."""
    items, [rejected] = read(text, format=format)
    assert [item.url for item in items] == ["https://a.example/"]
    assert "not JSON" in rejected.reason


@pytest.mark.parametrize(
    ("format", "text", "said"),
    [
        ("text", '{"url": "https://a.example/"}\n', "give --input-format jsonl"),
        ("text", '["https://a.example/"]\n', "give --input-format jsonl"),
        ("jsonl", '["https://a.example/"]\n', "not JSON lines (a list)"),
        ("jsonl", '[\n"https://a.example/",\n', "write an object a line"),
    ],
)
def test_json_that_is_no_list_of_its_format_is_named_as_such(
    format: str,  # noqa: A002
    text: str,
    said: str,
) -> None:
    """Not as a URL with white space in it, nor as a type of Python."""
    _, [rejected, *_] = read(text, format=format)
    assert said in rejected.reason


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("jsonl", '{"URL": "https://a.example/", "Name": "n", "TEXT": "t"}\n'),
        ("csv", "URL,Name,TEXT\nhttps://a.example/,n,t\n"),
    ],
)
def test_names_of_fields_count_in_any_case(format: str, text: str) -> None:  # noqa: A002
    """Lists of images for training have `URL`."""
    [item], _ = read(text, format=format)
    metadata = {"TEXT" if format == "jsonl" else "text": "t"}
    assert item == BatchItem("https://a.example/", "n", metadata=metadata)


def test_a_compressed_list_is_named_as_such() -> None:
    """Not as bytes that are no text."""
    raw = gzip.compress(b"https://a.example/1\n")
    first = next(iter(read_items(io.BytesIO(raw))))
    assert isinstance(first, Rejected)
    assert "compressed with gzip" in first.reason


def test_json_lines_hold_texts_or_objects() -> None:
    """Other members are metadata, an object of metadata is merged."""
    lines = [
        json.dumps("https://a.example/1"),
        json.dumps({"url": "https://a.example/2", "name": "b", "metadata": {"x": 1}, "y": [2]}),
        "{",
        json.dumps({"name": "no url"}),
        json.dumps(["list"]),
        json.dumps({"url": "https://a.example/6", "headers": {"A": 1}}),
        json.dumps({"url": "https://a.example/7", "metadata": 1}),
        json.dumps({"url": "https://a.example/8", "headers": {"bad name": "hunter2"}}),
        json.dumps({"url": "https://a.example/9", "headers": {"X": "hunter2\n"}}),
    ]
    items, rejected = read("\n".join(lines), format="jsonl")
    assert items == [
        BatchItem("https://a.example/1"),
        BatchItem("https://a.example/2", "b", metadata={"x": 1, "y": [2]}),
    ]
    assert [entry.line for entry in rejected] == [3, 4, 5, 6, 7, 8, 9]
    assert "'bad name' is not a header name" in rejected[-2].reason
    assert "hunter2" not in str(rejected)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.CSV", "csv"), ("a.jsonl", "jsonl"), ("a.ndjson", "jsonl"),
     ("a.json", "jsonl"), ("a.txt", "text"), ("-", "text"), ("csv", "csv")],
)  # fmt: skip
def test_format_follows_the_extension(name: str, kind: str) -> None:
    """Text for whatever is unknown."""
    assert format_of(name) == kind or name == "csv"


class Endless(io.RawIOBase):
    """What /dev/zero gives: bytes without a line end; counts what was asked for."""

    largest = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        assert size is not None
        assert size > 0
        self.largest = max(self.largest, size)
        return b"\0" * size


def test_a_line_without_an_end_is_refused_before_it_is_in_memory() -> None:
    """/dev/zero given for a list."""
    source = Endless()
    with pytest.raises(ListError, match="no end within 16 MiB"):
        list(read_items(source))  # type: ignore[arg-type]
    assert source.largest <= 1 << 18


def test_a_line_that_is_too_long_is_passed_over() -> None:
    """The next one is read as usual."""
    items, rejected = read(b"x" * 300_000 + b"\nhttps://a.example/\n")
    assert [item.url for item in items] == ["https://a.example/"]
    assert [(entry.line, len(entry.text)) for entry in rejected] == [(1, 80)]


@given(st.binary(max_size=300), st.sampled_from(["text", "jsonl"]))
def test_no_line_raises_for_any_bytes(raw: bytes, kind: str) -> None:
    """Each is an item, a reason, or nothing."""
    items, rejected = read(raw, format=kind)
    assert len(items) + len(rejected) <= raw.count(b"\n") + 1


@given(st.binary(max_size=300))
def test_a_csv_of_any_bytes_is_read_or_refused_as_a_list(raw: bytes) -> None:
    """No error but ours."""
    try:
        read(b"url,x\n" + raw, format="csv")
        read(raw, format="csv")
    except ListError:
        pass
