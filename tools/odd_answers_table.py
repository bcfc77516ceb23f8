"""The table of odd answers: what a server sends, what is made of it, and why others differ.

`want` is what every way of `infra_core.http` makes of an answer: `ok(body)`, `ok(body, text)`
where the text is not the body in UTF-8, a status, or an error. Where curl, requests or httpx end
elsewhere, the last part of the table has the reason. Among our own ways only downloads
have one: they are asked for a file.
"""

from __future__ import annotations

import gzip as _gzip
import zlib
from dataclasses import dataclass, field

import backports.zstd
import brotli

FAILS = "error"


@dataclass(frozen=True)
class Case:
    """One answer.

    Attributes:
        name: Unique.
        raw: What is sent, byte for byte; the connection stays open when `closes` is False.
        want: See the module.
        closes: Whether the server closes the connection after it.
        more: Answers to other paths below this one's, for redirects.
        why: Reasons by program.
    """

    name: str
    raw: bytes
    want: tuple[object, ...]
    closes: bool = False
    more: dict[str, bytes] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)


CASES: list[Case] = []
BODY = b"whole text"


def ok(body: bytes = BODY, text: str | None = None) -> tuple[object, ...]:
    """A success with this body, and this text."""
    return ("ok", body, body.decode("utf-8") if text is None else text)


def failed() -> tuple[object, ...]:
    """An error other than that of a status."""
    return (FAILS,)


def status(code: int) -> tuple[object, ...]:
    """The error of a status."""
    return ("status", code)


def answer(
    body: bytes = BODY, *lines: bytes, first: bytes = b"HTTP/1.1 200 OK", length: bool = True
) -> bytes:
    """A message with these header lines, and its length unless `length` is false."""
    rest = [b"Content-Length: %d" % len(body)] if length else []
    return b"\r\n".join([first, *lines, *rest, b"", body])


def add(
    name: str,
    raw: bytes,
    want: tuple[object, ...],
    *,
    closes: bool = False,
    more: dict[str, bytes] | None = None,
) -> None:
    """Put a case into the table."""
    CASES.append(Case(name, raw, want, closes, more or {}))


def coded(body: bytes, *names: bytes) -> bytes:
    """A message whose body has these content codings, each on a line."""
    return answer(body, *(b"Content-Encoding: " + name for name in names))


def chunked(body: bytes, *lines: bytes) -> bytes:
    """A message with this body after `Transfer-Encoding: chunked`."""
    return answer(body, b"Transfer-Encoding: chunked", *lines, length=False)


def page(body: bytes, kind: bytes | None) -> bytes:
    """A message of this Content-Type."""
    return answer(body, *([] if kind is None else [b"Content-Type: " + kind]))


def redirect(location: bytes | None, code: int = 302, body: bytes = b"") -> bytes:
    """A redirect."""
    lines = [] if location is None else [b"Location: " + location]
    return answer(body, *lines, first=b"HTTP/1.1 %d X" % code)


# --- statuses ---------------------------------------------------------------------------------

for code in (200, 201, 203, 206, 226, 299):
    add(f"status {code}", answer(first=b"HTTP/1.1 %d X" % code), ok())
add("status 204", b"HTTP/1.1 204 No Content\r\n\r\n", ok(b""))
add("status 204 with length 0", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", ok(b""))
add("status 204 with a length of letters", b"HTTP/1.1 204 X\r\nContent-Length: a\r\n\r\n", failed())
add("status 205", answer(b"", first=b"HTTP/1.1 205 X"), ok(b""))
add(
    "206 of the whole file",
    answer(BODY, b"Content-Range: bytes 0-9/10", first=b"HTTP/1.1 206 Partial Content"),
    ok(),
)
for code in (300, 304, 305, 306, 399):
    raw = answer(b"" if code == 304 else BODY, first=b"HTTP/1.1 %d X" % code)
    add(f"status {code}", raw, status(code))
for code in (301, 302, 303, 307, 308):
    add(f"status {code} without Location", redirect(None, code), status(code))
add("status 302 with a blank Location", redirect(b"  "), status(302))
for code in (300, 304):
    add(
        f"status {code} with a Location",
        redirect(b"/next", code),
        status(code),
        more={"/next": answer()},
    )
for code in (400, 401, 404, 407, 410, 418, 451, 499, 500, 503, 511, 599, 600, 999):
    add(f"status {code}", answer(b"no", first=b"HTTP/1.1 %d X" % code), status(code))
add("status without reason", answer(first=b"HTTP/1.1 200"), ok())
add("status with blank reason", answer(first=b"HTTP/1.1 200 "), ok())
add("reason beyond ASCII", answer(first=b"HTTP/1.1 200 \xc3\x9cber \xfc"), ok())
for code in (0, 99):
    add(f"status {code:03}", answer(first=b"HTTP/1.1 %03d OK" % code), failed())
add("status of two digits", answer(first=b"HTTP/1.1 20 OK"), failed())
add("status of four digits", answer(first=b"HTTP/1.1 2000 OK"), failed())
add("status that is not a number", answer(first=b"HTTP/1.1 abc OK"), failed())
add("HTTP/1.0", answer(first=b"HTTP/1.0 200 OK"), ok(), closes=True)
add("HTTP/1.0 without length", answer(first=b"HTTP/1.0 200 OK", length=False), ok(), closes=True)
add("other protocol", answer(first=b"ICY 200 OK"), failed(), closes=True)
add("HTTP/0.9", b"whole text\n", failed(), closes=True)
add("nothing", b"", failed(), closes=True)
add("half a head", b"HTTP/1.1 200 OK\r\nContent-Le", failed(), closes=True)

# --- interim answers ----------------------------------------------------------------------------

for code in (100, 102, 103, 199):
    interim = b"HTTP/1.1 %d X\r\nLink: </a.css>; rel=preload\r\n\r\n" % code
    add(f"interim {code}", interim + answer(), ok())
add("interim five times", b"HTTP/1.1 103 X\r\n\r\n" * 5 + answer(), ok())
add("interim with a length", b"HTTP/1.1 102 X\r\nContent-Length: 0\r\n\r\n" + answer(), ok())
add("interim and no answer", b"HTTP/1.1 100 Continue\r\n\r\n", failed(), closes=True)
add(
    "switching protocols",
    b"HTTP/1.1 101 X\r\nUpgrade: x\r\n\r\n" + answer(),
    status(101),
    closes=True,
)

# --- framing --------------------------------------------------------------------------------------

two = b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\nContent-Length: %b\r\n\r\n" + BODY
one = b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" + BODY
add("length twice, equal", two % (b"10", b"10"), ok())
add("length as a list", one % b"10, 10", ok())
add("length twice, different", two % (b"10", b"5"), failed(), closes=True)
add("length negative", one % b"-1", failed(), closes=True)
add("length with sign", one % b"+10", failed(), closes=True)
add("length of no digit", one % "²".encode("latin-1"), failed(), closes=True)
add("length of letters", one % b"abc", failed(), closes=True)
add("length of 5,000 digits", one % (b"9" * 5000), failed(), closes=True)
add("length with spaces", one % b" 10 ", ok())
add("length with zeros", one % b"00010", ok())
add("length above the body", one % b"11", failed(), closes=True)
add("length below the body", one % b"5", ok(b"whole"))
add("no length, closed", answer(length=False), ok(), closes=True)
add("chunked", chunked(b"5\r\nwhole\r\n5\r\n text\r\n0\r\n\r\n"), ok())
add("chunked, capitals and zeros", chunked(b"000A\r\nwhole text\r\n0000\r\n\r\n"), ok())
add("chunk extensions", chunked(b'A;a=b;c="d"\r\nwhole text\r\n0;x\r\n\r\n'), ok())
add("chunked with trailers", chunked(b"A\r\nwhole text\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n"), ok())
add("chunked, cut in a chunk", chunked(b"A\r\nwhole"), failed(), closes=True)
add("chunked, cut after a chunk", chunked(b"A\r\nwhole text\r\n"), failed(), closes=True)
add("chunk size of no number", chunked(b"xyz\r\nwhole text\r\n0\r\n\r\n"), failed(), closes=True)
add("chunk size negative", chunked(b"-1\r\nwhole text\r\n0\r\n\r\n"), failed(), closes=True)
add("chunk size of 5,000 digits", chunked(b"f" * 5000 + b"\r\nwhole"), failed(), closes=True)
add("chunk size empty", chunked(b"\r\nwhole text\r\n0\r\n\r\n"), failed(), closes=True)
add("chunk longer than its size", chunked(b"5\r\nwhole text\r\n0\r\n\r\n"), failed(), closes=True)
add(
    "chunked beside a length",
    chunked(b"A\r\nwhole text\r\n0\r\n\r\n", b"Content-Length: 3"),
    ok(),
    closes=True,
)
add(
    "Chunked in capitals",
    answer(b"A\r\nwhole text\r\n0\r\n\r\n", b"Transfer-Encoding: Chunked", length=False),
    ok(),
)

add(
    "Transfer-Encoding twice",
    chunked(b"A\r\nwhole text\r\n0\r\n\r\n", b"Transfer-Encoding: chunked"),
    ok(),
)
add("Transfer-Encoding identity", answer(BODY, b"Transfer-Encoding: identity"), ok())
add(
    "Transfer-Encoding gzip, chunked",
    chunked(b"A\r\nwhole text\r\n0\r\n\r\n", b"Transfer-Encoding: gzip"),
    failed(),
)
add(
    "Transfer-Encoding chunked, identity",
    answer(b"A\r\nwhole text\r\n0\r\n\r\n", b"Transfer-Encoding: chunked, identity", length=False),
    failed(),
    closes=True,
)
add("trailer that is none", chunked(b"A\r\nwhole text\r\n0\r\nnonsense\r\n\r\n"), failed())
add("chunk size with zeros before it", chunked(b"0" * 30 + b"A\r\nwhole text\r\n0\r\n\r\n"), ok())
add("HTTP/2.0 in text", answer(first=b"HTTP/2.0 200 OK"), ok())
add("HTTP/1.9", answer(first=b"HTTP/1.9 200 OK"), failed())
add(
    "status 204 with chunks",
    b"HTTP/1.1 204 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ok(b""),
)
add("status 304 with a length", b"HTTP/1.1 304 X\r\nContent-Length: 9\r\n\r\n", status(304))
add("length and close", answer(BODY, b"Connection: close"), ok(), closes=True)
add("HTTP/1.0 kept alive", answer(BODY, b"Connection: keep-alive", first=b"HTTP/1.0 200 OK"), ok())

# --- content codings ------------------------------------------------------------------------------

GZ = _gzip.compress(BODY)


def _bare(data: bytes) -> bytes:
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(data) + maker.flush()


for name in (b"gzip", b"x-gzip", b"GZIP", b'"gzip"'):
    add(f"coding {name.decode()}", coded(GZ, name), ok())
add("coding deflate", coded(zlib.compress(BODY), b"deflate"), ok())
add("coding deflate, bare", coded(_bare(BODY), b"deflate"), ok())
add("coding br", coded(brotli.compress(BODY), b"br"), ok())
add("coding zstd", coded(backports.zstd.compress(BODY), b"zstd"), ok())
add("codings in one line", coded(_gzip.compress(zlib.compress(BODY)), b"deflate, gzip"), ok())
add("codings in two lines", coded(_gzip.compress(zlib.compress(BODY)), b"deflate", b"gzip"), ok())
members = _gzip.compress(BODY[:3]) + _gzip.compress(b"") + _gzip.compress(BODY[3:])
add("gzip in members", coded(members, b"gzip"), ok())
add("gzip with zeros after it", coded(GZ + bytes(700), b"gzip"), ok())
add("gzip with text after it", coded(GZ + b"more", b"gzip"), failed())
add("gzip cut short", coded(GZ[:-12], b"gzip"), failed())
add("gzip without its trailer", coded(GZ[:-8], b"gzip"), failed())
add("gzip with a wrong trailer", coded(GZ[:-1] + b"x", b"gzip"), failed())
add("gzip that is plain text", coded(BODY, b"gzip"), failed())
add("gzip of nothing", coded(b"", b"gzip"), ok(b""))
add("deflate cut short", coded(zlib.compress(BODY)[:-3], b"deflate"), failed())
add("br cut short", coded(brotli.compress(BODY)[:-2], b"br"), failed())
add("zstd cut short", coded(backports.zstd.compress(BODY)[:-2], b"zstd"), failed())
add(
    "gzip in chunks",
    chunked(b"%x\r\n" % len(GZ) + GZ + b"\r\n0\r\n\r\n", b"Content-Encoding: gzip"),
    ok(),
)
add("gzip without length", answer(GZ, b"Content-Encoding: gzip", length=False), ok(), closes=True)
for name in (b"identity", b"utf-8", b"none", b"binary", b"aws-chunked", b"x-unheard-of", b""):
    add(f"coding {name.decode() or 'blank'}", coded(BODY, name), ok())
add("coding utf-8 beside gzip", coded(GZ, b"utf-8, gzip"), ok())
add("coding compress", coded(b"\x1f\x9d\x90whole", b"compress"), failed())

# --- redirects ------------------------------------------------------------------------------------

TARGET = {"/next": answer()}
for code in (301, 302, 303, 307, 308):
    add(f"redirect {code}", redirect(b"/next", code), ok(), more=TARGET)
add("redirect with a body", redirect(b"/next", body=b"gone" * 1000), ok(), more=TARGET)
add("redirect, relative", redirect(b"next"), ok(), more=TARGET)
add("redirect with dots", redirect(b"./x/../next"), ok(), more=TARGET)
add("redirect to a query", redirect(b"?a=1"), ok(), more={"/here?a=1": answer()})
add("redirect with a fragment", redirect(b"/next#top"), ok(), more=TARGET)
add("redirect in Latin-1", redirect(b"/caf\xe9"), ok(), more={"/caf%E9": answer()})
add("redirect in UTF-8", redirect("/龍".encode()), ok(), more={"/%E9%BE%8D": answer()})
add("redirect to a query in Latin-1", redirect(b"/a?q=\xfc"), ok(), more={"/a?q=%FC": answer()})
add("redirect, encoded already", redirect(b"/caf%E9"), ok(), more={"/caf%E9": answer()})
add("redirect with a space", redirect(b"/a b"), ok(), more={"/a%20b": answer()})
add("redirect with bars and braces", redirect(b"/a|{b}"), ok(), more={"/a%7C%7Bb%7D": answer()})
add("redirect with a lone percent", redirect(b"/100%"), ok(), more={"/100%": answer()})
add("redirect with brackets", redirect(b"/a[b]"), ok(), more={"/a[b]": answer()})
add("redirect with a tab", redirect(b"/a\tb"), ok(), more={"/a%09b": answer()})
add("redirect to itself", redirect(b"/here"), failed())
add("redirect to no host", redirect(b"http:///x"), failed())
add("redirect to another scheme", redirect(b"ftp://127.0.0.1/x"), failed())
add("redirect to a file", redirect(b"file:///etc/hostname"), failed())
add("redirect to a bad port", redirect(b"http://127.0.0.1:99999/"), failed())
add("redirect to a bad host", redirect(b"http://a..b/"), failed())
add(
    "redirect twice named",
    answer(b"", b"Location: /next", b"Location: /next", first=b"HTTP/1.1 302 X"),
    ok(),
    more=TARGET,
)
add(
    "redirect to an error",
    redirect(b"/next"),
    status(404),
    more={"/next": answer(b"no", first=b"HTTP/1.1 404 X")},
)
add(
    "redirect with a damaged body",
    answer(b"xx", b"Location: /next", b"Content-Encoding: gzip", first=b"HTTP/1.1 302 X"),
    ok(),
    more=TARGET,
)
add(
    "redirect with half a body",
    answer(b"xx", b"Location: /next", b"Content-Length: 9", first=b"HTTP/1.1 302 X", length=False),
    ok(),
    closes=True,
    more=TARGET,
)
add(
    "redirect, then interim",
    redirect(b"/next"),
    ok(),
    more={"/next": b"HTTP/1.1 103 X\r\n\r\n" + answer()},
)

# --- text -----------------------------------------------------------------------------------------

TEXT = "<p>grüße</p>"
META = "<meta charset='%s'>" + TEXT
UTF8 = (META % "utf-8").encode()


def encoded(name: str, text: str, codec: str, kind: bytes | None) -> None:
    """Put the case of a text in an encoding into the table."""
    add(name, page(text.encode(codec), kind), ok(text.encode(codec), text))


encoded("text in UTF-8", TEXT, "utf-8", b"text/html; charset=utf-8")
encoded("text without charset", TEXT, "utf-8", b"text/html")
encoded("text without type", TEXT, "utf-8", None)
encoded("text in windows-1252", TEXT, "cp1252", b"text/html")
encoded("text that is called Latin-1", "€", "cp1252", b"text/html; charset=iso-8859-1")
encoded("text with a mark", TEXT, "utf-8-sig", b"text/html")
encoded("text in UTF-16 with a mark", TEXT, "utf-16", b"text/plain")
encoded("text in UTF-16BE", TEXT, "utf-16-be", b"text/html; charset=utf-16be")
latin2 = META % "iso-8859-2"
encoded("text with meta", latin2, "iso-8859-2", b"text/html")
xml = "<?xml version='1.0' encoding='iso-8859-5'?><a>Ж</a>"
encoded("text with an XML declaration", xml, "iso-8859-5", b"application/xml")
encoded("text with charset before meta", latin2, "utf-8", b"text/html; charset=utf-8")
for label in (b"undefined", b"hex", b"idna", b"base64", b"rot13", b"nonsense", b"", b"\xff"):
    kind = b"text/html; charset=" + label
    add(f"charset {label.decode('latin-1') or 'blank'}", page(UTF8, kind), ok(UTF8))
encoded("charset in quotes", "Ж", "koi8-r", b'text/html; charset="koi8-r"')
add(
    "charset in another parameter",
    page(TEXT.encode(), b'text/html; a="b; charset=koi8-r"'),
    ok(TEXT.encode()),
)
encoded("charset gb2312", "①", "gb18030", b"text/html; charset=gb2312")
encoded("charset shift_jis", "①", "cp932", b"text/html; charset=Shift_JIS")
add(
    "UTF-8 with damaged bytes",
    page(b"a\xffb", b"text/plain; charset=utf-8"),
    ok(b"a\xffb", "a\ufffdb"),
)

# --- headers --------------------------------------------------------------------------------------

add("150 header lines", answer(BODY, *(b"X-%d: v" % i for i in range(150))), ok())
add("header of 30,000 bytes", answer(BODY, b"X-Long: " + b"a" * 30_000), ok())
add("header beyond ASCII", answer(BODY, b"X-A: \xfc\xe9\xff", b'ETag: "\xfc"'), ok())
add("header with ESC", answer(BODY, b"X-A: \x1b[2J", b'ETag: "\x1b"'), ok())
add("header without value", answer(BODY, b"X-A:", b"X-B: "), ok())
add(
    "header twice",
    answer(BODY, b"X-A: 1", b"x-a: 2", b"Content-Type: text/a", b"Content-Type: text/b"),
    ok(),
)
add("header without colon", answer(BODY, b"nonsense"), failed(), closes=True)
add("header with a space in its name", answer(BODY, b"X A: 1"), failed(), closes=True)
add("header with a space before the colon", answer(BODY, b"X-A : 1"), failed(), closes=True)
add("header without name", answer(BODY, b": 1"), failed(), closes=True)
add("header folded", answer(BODY, b"X-A: 1\r\n 2"), ok())
add("header with NUL", answer(BODY, b"X-A: a\0b"), failed(), closes=True)
add("header with a bare CR", answer(BODY, b"X-A: a\rb"), failed(), closes=True)
add("line ends without CR", answer().replace(b"\r\n", b"\n"), ok())
add(
    "100 cookies",
    answer(BODY, *(b"Set-Cookie: c%d=v; Path=/nowhere" % i for i in range(100))),
    ok(),
)
add("cookie beyond ASCII", answer(BODY, b"Set-Cookie: \xfc=\xe9; Path=/nowhere"), ok())
add(
    "Retry-After of 5,000 digits",
    answer(b"no", b"Retry-After: " + b"9" * 5000, first=b"HTTP/1.1 503 X"),
    status(503),
)
add(
    "digest of nonsense",
    answer(BODY, b"Digest: md5=???, \xfc", b"Content-MD5: \xff", b"Repr-Digest: x"),
    ok(),
)
add("empty lines before the answer", b"\r\n\r\n" + answer(), ok())
add("bytes after the answer", answer() + b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", ok())

# --- why others differ: programs and the reason, then cases ------------------------------------

_WHY = """
download: saves any success with a body, but for a part of the file
    status 204 | status 204 with length 0 | status 205 | status 204 with chunks | status 206
requests: takes every status below 400 for a success
    status 300 | status 304 | status 305 | status 306 | status 399 | status 301 without Location
    status 302 without Location | status 303 without Location | status 307 without Location
    status 308 without Location | status 302 with a blank Location | status 300 with a Location
    status 304 with a Location | switching protocols
httpx: follows an empty Location
    status 302 with a blank Location
requests: knows errors from 400 to 599 alone
    status 600 | status 999
curl requests: takes a head without an end for an answer
    half a head
requests: takes an interim answer for the answer
    interim 102 | interim 103 | interim 199 | interim five times | interim with a length
    redirect, then interim
httpx: refuses 101
    switching protocols
requests: waits for a body without an end
    length as a list
curl: believes the last one (RFC 9110, section 8.6, calls it an error)
    length twice, different
requests: reads a malformed length as none
    length negative | length with sign | length of no digit | length of letters
    length of 5,000 digits | status 204 with a length of letters
curl: takes a sign (RFC 9110, section 8.6, has digits alone)
    length with sign
curl: reads a malformed length as none
    length of 5,000 digits
httpx: does not know the old name
    coding x-gzip
curl requests httpx: knows names without quotes alone
    coding "gzip"
httpx: decodes it with another package
    coding zstd
curl httpx: decodes the first member alone
    gzip in members
curl: takes no padding
    gzip with zeros after it
requests httpx: drops what follows
    gzip with text after it
curl requests httpx: gives out what it has for the whole
    gzip cut short | gzip without its trailer | deflate cut short | br cut short | zstd cut short
curl: refuses names that are not codings; browsers take the body as it is
    coding utf-8 | coding binary | coding aws-chunked | coding x-unheard-of
    coding utf-8 beside gzip
requests: decodes nothing when one of the names is unknown
    coding utf-8 beside gzip
requests httpx: gives out the coded bytes as the text
    coding compress
requests: reads the bytes as UTF-8 alone
    redirect in Latin-1 | redirect to a query in Latin-1
httpx: encodes the bytes anew, as UTF-8
    redirect in Latin-1 | redirect to a query in Latin-1
curl: sends them as they came
    redirect with bars and braces
httpx: sends the braces as they came
    redirect with bars and braces
requests: asks the old host for it
    redirect to no host
requests: raises an error of urllib3
    redirect to a bad host
httpx: raises an error of a codec
    redirect to a bad host
requests httpx: joins the two by a comma
    redirect twice named
httpx: decodes a body that is not read
    redirect with a damaged body
requests: reads text/* as Latin-1
    text without charset | text with a mark | text in UTF-16 with a mark
httpx: reads all without a charset as UTF-8
    text in windows-1252 | text with an XML declaration | text with meta
    text in UTF-16 with a mark
requests httpx: reads it to the letter; browsers read windows-1252
    text that is called Latin-1
httpx: takes the mark for text
    text with a mark
requests httpx: raises an error of the codec
    charset undefined | charset idna
httpx: raises an error for a codec that is not of text
    charset hex | charset base64 | charset rot13
requests httpx: lacks Windows' characters, which browsers have
    charset shift_jis
requests: http.client takes 100 header lines
    150 header lines | 100 cookies
requests: takes what RFC 9112, section 5, forbids: two readers of one answer would differ
    header without colon | header with NUL | header with a space in its name
    header with a space before the colon | header without name | header with a bare CR
curl: takes what RFC 9112, section 5, forbids: two readers of one answer would differ
    header with a space in its name | header with a space before the colon | header without name
    header with a bare CR
curl: takes them for HTTP/0.9
    empty lines before the answer
requests httpx: refuses them
    empty lines before the answer
curl: does not read the length where no body follows
    status 204 with a length of letters
httpx: refuses two
    Transfer-Encoding twice
curl httpx: does not know identity, which was a transfer coding until RFC 7230
    Transfer-Encoding identity
requests: looks for chunked alone
    Transfer-Encoding gzip, chunked
curl requests: looks for chunked alone
    Transfer-Encoding chunked, identity
requests: reads no trailers
    trailer that is none
curl: takes at most 16 digits
    chunk size with zeros before it
httpx: takes at most 20 digits
    chunk size with zeros before it
requests: refuses a version that is not 1
    HTTP/2.0 in text
requests httpx: takes any version that begins with 1
    HTTP/1.9
requests: takes an answer below 400 for a success
    status 304 with a length
requests: encodes percent signs and brackets that it takes for mistakes
    redirect with a lone percent | redirect with brackets
curl httpx: refuses control characters in a URL
    redirect with a tab
requests: leaves tabs out
    redirect with a tab
httpx: wants a body whole that is not read
    redirect with half a body
requests: looks for it in quoted text too
    charset in another parameter
curl: follows a Location of any 3xx
    status 300 with a Location | status 304 with a Location
"""
_by_name = {case.name: case for case in CASES}
_programs = _reason = ""
for line in _WHY.strip().splitlines():
    if line.startswith(" "):
        for differs in line.strip().split(" | "):
            _by_name[differs].why.update(dict.fromkeys(_programs.split(), _reason))
    else:
        _programs, _, _reason = line.partition(": ")
