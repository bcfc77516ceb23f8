"""Lists of URLs are read as people write them."""

from hypothesis import given, strategies as st

from infra_core.cli._urls import read_urls


def test_blank_lines_comments_crlf_and_bom_are_passed_over() -> None:
    """Only URLs come out, in their order."""
    lines = [
        b"\xef\xbb\xbfhttps://a.example/1\r\n",
        b"\r\n",
        b"# note\n",
        b"  https://a.example/2  ",
    ]
    found = read_urls(lines)
    assert found.urls == ["https://a.example/1", "https://a.example/2"]
    assert not found.rejected


def test_duplicates_are_reported_by_line_and_kept_once() -> None:
    """A fragment does not make another URL."""
    found = read_urls([b"https://a.example/", b"https://a.example/#top", b"https://a.example/"])
    assert found.urls == ["https://a.example/"]
    assert found.duplicates == [2, 3]


def test_a_comment_after_the_url_is_not_part_of_it() -> None:
    """White space and # start a comment; # alone starts a fragment."""
    assert read_urls([b"https://a.example/x # why"]).urls == ["https://a.example/x"]


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
    ]
    found = read_urls(lines)
    assert [item.line for item in found.rejected] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert found.urls == []
    reasons = " | ".join(item.reason for item in found.rejected)
    for part in ("no scheme", "'ftp'", "no host", "white space", "ort", "UTF-8"):
        assert part in reasons


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_every_line_is_accounted_for(lines: list[bytes]) -> None:
    """Whatever the bytes, no line raises, and none is counted twice."""
    found = read_urls(lines)
    assert len(found.urls) + len(found.duplicates) + len(found.rejected) <= len(lines)
    assert len(set(found.urls)) == len(found.urls)
