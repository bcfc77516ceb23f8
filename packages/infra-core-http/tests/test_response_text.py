"""One page, one text: which of the things that name an encoding wins."""

import httpx
import pytest
from hypothesis import given, strategies as st

from infra_core.http._response.status import clean_reason, is_interim, is_success, status_text
from infra_core.http._response.text import codec_of, decode_text, encoding_of

META = "<html><head><meta charset='%s'></head><p>grüße</p>"


def text_of(body: bytes, content_type: str | None = None) -> str:
    text = decode_text(body, content_type)
    assert text == body.decode(encoding_of(body, content_type), "replace")
    return text


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("ü".encode(), None, "ü"),
        (b"\xfc", None, "ü"),
        (b"\x80", "text/plain", "€"),
        (b"\xfc", "text/plain; charset=utf-8", "\ufffd"),
        # the parameter, by the table of browsers
        (b"\x80", "text/html; charset=ISO-8859-1", "€"),
        (b"\xfc", "text/html;charset='latin1'", "ü"),
        (b'\x82"', 'text/html; charset="ascii"', '\u201a"'),
        ("①ü".encode("gb18030"), "text/plain; charset=gb2312", "①ü"),
        ("①".encode("cp932"), "text/plain; charset=Shift_JIS", "①"),
        ("똠".encode("cp949"), "text/plain; charset=euc-kr", "똠"),
        (b"\x82", "text/plain; charset=cp850", "é"),
        (b"\xc1", "text/html; charset=x; charset=koi8-r", "\u0430"),
        (b"\xc1", "text/plain, text/html; charset=koi8-r", "\u0430"),
        (b"\xc1", "text/plain; xcharset=koi8-r", "Á"),
        (b"\xc1", 'text/plain; a="b;charset=koi8-r"', "Á"),
        (b"\xc1", 'text/plain; a="b;charset=latin1"; charset=koi8-r', "\u0430"),
        (b"\xc1", 'text/plain; charset="koi8-r', "\u0430"),
        # byte order marks are no text
        (b"\xef\xbb\xbfa", "text/plain", "a"),
        (b"\xef\xbb\xbfa", "text/plain; charset=utf-8", "a"),
        ("aü".encode("utf-16"), "text/plain", "aü"),
        ("aü".encode("utf-16"), "text/plain; charset=utf-16", "aü"),
        ("\ufeffaü".encode("utf-16-be"), "text/plain; charset=utf-16", "aü"),
        ("\ufeffaü".encode("utf-16-be"), "text/plain; charset=utf-16le", "aü"),
        ("aü".encode("utf-16-be"), "text/plain; charset=utf-16be", "aü"),
        ("aü".encode("utf-16-le"), "text/plain; charset=utf-16", "aü"),
        ("aü".encode("utf-32"), "text/plain; charset=utf-32", "aü"),
        ("aü".encode("utf-32"), "text/plain", "aü"),
        (b"\xef\xbb\xbf", "text/plain; charset=koi8-r", "\u041e╩©"),
        # declarations
        (b"<meta charset=iso-8859-2>\xb3", "text/html", "<meta charset=iso-8859-2>ł"),
        (b"<META Charset = 'latin2' />\xb3", None, "<META Charset = 'latin2' />ł"),
        (b"<meta charset=latin2>\xb3", "text/html; charset=koi8-r", "<meta charset=latin2>Ё"),
        (b"<!--<meta charset=latin2>-->\xb3", "text/html", "<!--<meta charset=latin2>-->³"),
        (b"<a b='<meta charset=latin2>'>\xb3", "text/html", "<a b='<meta charset=latin2>'>³"),
        (b"<meta charset=utf-16>\xc3\xbc", "text/html", "<meta charset=utf-16>ü"),
        (b"<meta charset=nonsense>\xfc", "text/html", "<meta charset=nonsense>ü"),
        (b"<<meta charset=latin2>\xb3", "text/html", "<<meta charset=latin2>ł"),
        (b"<metacharset=latin2>\xb3", "text/html", "<metacharset=latin2>³"),
        (b'{"a": "<meta charset=latin2>\xc5\x82"}', "application/json", None),
        (b" " * 1024 + b"<meta charset=koi8-r>\xc3\xbc", "text/html", None),
        ("<?xml version='1.0'?>ü".encode("utf-16-be"), "text/xml", "<?xml version='1.0'?>ü"),
        ("<?xml version='1.0'?>ü".encode("utf-16-le"), "text/xml", "<?xml version='1.0'?>ü"),
        (b"", "text/html", ""),
    ],
)
def test_what_names_the_encoding(body: bytes, content_type: str | None, text: str | None) -> None:
    """The parameter, the mark, the declaration, the bytes."""
    assert text_of(body, content_type) == (body.decode() if text is None else text)


@pytest.mark.parametrize(
    "declaration",
    [
        "<meta http-equiv='Content-Type' content='text/html; charset=koi8-r'>",
        "<meta content=\"a;charset='koi8-r'\" HTTP-EQUIV=content-type>",
        "<?xml version='1.0' encoding='koi8-r'?>",
        "<!doctype html><title>charset</title><meta name=x content=y><meta charset=KOI8-R>",
    ],
)
def test_a_page_says_its_encoding(declaration: str) -> None:
    """Within its first 1,024 bytes."""
    page = f"{declaration}привет"
    assert text_of(page.encode("koi8-r"), "application/xhtml+xml") == page


NO_TEXT = "undefined hex idna rot13 base64 punycode utf-7 unicode_escape zlib 🙂 \udcff a\0b"


@pytest.mark.parametrize("label", ["", *NO_TEXT.split(" ")])
def test_a_label_that_names_no_text_is_ignored(label: str) -> None:
    """The page goes on to say, or the bytes do."""
    assert codec_of(label) is None
    page = META % "utf-8"
    assert text_of(page.encode(), f"text/html; charset={label}") == page


def test_the_default_of_a_client_comes_after_the_parameter() -> None:
    """As `httpx.Client(default_encoding=)` has it, as a label or a function."""
    assert decode_text(b"\xc1", "text/plain", "koi8-r") == "\u0430"
    assert decode_text(b"\xc1", "text/plain", lambda body: "koi8-r") == "\u0430"
    assert decode_text(b"\xc1", "text/plain; charset=latin1", "koi8-r") == "Á"
    assert decode_text(b"\xc1", "text/plain", "undefined") == "Á"


@given(st.binary(max_size=200), st.one_of(st.none(), st.text(max_size=60)))
def test_any_bytes_are_some_text(body: bytes, content_type: str | None) -> None:
    """Nothing that a server sends makes it fail."""
    text_of(body, content_type)
    text_of(b"<meta charset=" + body, content_type)
    text_of(b"<?xml encoding='" + body, content_type)


@pytest.mark.parametrize("status", [100, 101, 199, 300, 304, 306, 399, 400, 500, 599, 999])
def test_only_2xx_is_a_success(status: int) -> None:
    """And 1xx but 101 announce an answer."""
    assert not is_success(status)
    assert is_success(200)
    assert is_success(299)
    assert is_interim(status) == (status in (100, 199))


def test_the_text_of_a_status_has_no_secrets_and_nothing_that_moves_a_terminal() -> None:
    """Reason phrases are the server's."""
    text = status_text(
        "GET", "https://u:hunter2@h/?sig=hunter2", 403, b"No\x1b[2J \xe2\x80\xae token=hunter2", {}
    )
    assert "hunter2" not in text
    assert text.isprintable()
    assert text.startswith("GET https://")
    assert text.endswith(": check the credentials")
    assert clean_reason(500, "a" * 100) == "a" * 80


@pytest.mark.parametrize(
    ("status", "headers", "remedy"),
    [
        (503, {"Retry-After": "7"}, "the server asks to wait 7 s, more than max_backoff=5"),
        (302, {"Location": "/x?sig=hunter2"}, "redirects are not followed"),
        (302, {}, "a redirect without a Location"),
        (304, {}, "If-None-Match"),
        *((status, {}, "check the credentials") for status in (401, 403)),
        *((status, {}, "check the URL and the method") for status in (404, 405, 410)),
        *((status, {}, "ask less often, or try again later") for status in (408, 425, 429)),
        (400, {}, "check the request"),
        (407, {}, "check the credentials for the proxy"),
        (500, {}, "see the server's log"),
    ],
)
def test_the_text_of_a_status_says_what_to_do(
    status: int, headers: dict[str, str], remedy: str
) -> None:
    """By what the answer has."""
    text = status_text("GET", "http://h/", status, "", httpx.Headers(headers), max_backoff=5)
    assert remedy in text
    assert "hunter2" not in text
    assert clean_reason(status, "") in text
