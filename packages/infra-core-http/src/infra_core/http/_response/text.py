"""One page, one text: in which encoding a body is written, and what it says.

In this order: the charset parameter of Content-Type; the encoding that the caller sets as default;
a byte order mark; `<meta>` or the XML declaration within the first 1,024 bytes (HTML standard,
section 13.2.3.2); UTF-8 where the bytes are valid; windows-1252. Labels mean what the Encoding
standard of the WHATWG says, as in browsers: `latin1` is windows-1252, `gb2312` is GBK. Labels that
name no encoding of text (`undefined`, `hex`, `idna`) are ignored.
"""

import codecs
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

import webencodings

__all__ = ["DefaultEncoding", "codec_of", "decode_text", "encoding_of"]

DefaultEncoding = str | Callable[[bytes], str] | None

_PRESCAN: Final = 1024
_CHARSET: Final = re.compile(
    r"""(?:^|[;,\s])charset\s*=\s*(?:"([^"]*)(?:"|$)|'([^']*)(?:'|$)|([^;,\s"']+))|"[^"]*(?:"|$)""",
    re.IGNORECASE,  # the last branch passes over the quoted values of other parameters
)
# Encodings that Python decodes and the table of the WHATWG lacks.
_BEYOND_TABLE: Final = re.compile(r"(?:utf[-_]?32(?:[-_]?[lb]e)?|(?:cp|ibm)[-_]?\d{3,4})", re.ASCII)
# What the table's names are in Python where webencodings has a smaller set of characters, or none.
_CODECS: Final = {"gbk": "gb18030", "x-user-defined": "cp1252", "replacement": None}
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before that of UTF-16, which it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FIRST_OF_MARKS: Final = frozenset(mark[:1] for mark, _ in _MARKS)


def decode_text(
    body: bytes, content_type: str | None, default_encoding: DefaultEncoding = None
) -> str:
    r"""Return the text of a body; bytes that its encoding does not know become U+FFFD.

    Example:
        >>> decode_text(b"<meta charset=latin2>\xb3", "text/html")[-1]
        'ł'
    """
    known = _known(body, content_type, default_encoding)
    if known is None:
        try:  # the usual page, decoded once
            return body.decode("utf-8")
        except UnicodeDecodeError:
            known = "cp1252"
    return body.decode(known, "replace")


def encoding_of(
    body: bytes, content_type: str | None, default_encoding: DefaultEncoding = None
) -> str:
    """Return the Python codec with which a body decodes to the text of `decode_text`."""
    known = _known(body, content_type, default_encoding)
    if known is None:
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return "cp1252"
    return known or "utf-8"


def _known(body: bytes, content_type: str | None, default: DefaultEncoding) -> str | None:
    """Return the codec that is named or marked; None where the bytes must decide."""
    declared, kind = _read_type(content_type)
    if declared is None and default is not None:
        label = default(body) if callable(default) else default
        declared = codec_of(label) if isinstance(label, str) else None
    mark = None
    if body[:1] in _FIRST_OF_MARKS:
        mark = next((codec for mark, codec in _MARKS if body.startswith(mark)), None)
    if declared is None:
        return mark or (_prescan(body[:_PRESCAN], kind) if kind else None)
    # The mark of the declared encoding is not part of the text, and says the order of its bytes.
    if mark is not None and mark.split("-")[:2] == declared.split("-")[:2]:
        return mark
    return declared


@lru_cache(maxsize=256)
def _read_type(content_type: str | None) -> tuple[str | None, str]:
    """Return the codec of the charset parameter, and whether the body is "html", "xml" or ""."""
    if content_type is None:
        return None, "html"
    labels = (label for groups in _CHARSET.findall(content_type) for label in groups if label)
    codec = next(filter(None, map(codec_of, labels)), None)
    lower = content_type.lower()
    return codec, "html" if "html" in lower else "xml" if "xml" in lower else ""


@lru_cache(maxsize=256)
def codec_of(label: str) -> str | None:
    """Return the Python codec for a label (Encoding standard, section 4.2); None if it names none.

    Example:
        >>> codec_of("Latin1"), codec_of("undefined")
        ('cp1252', None)
    """
    if not label.isascii():
        return None
    found = webencodings.lookup(label)
    if found is not None:
        return _CODECS.get(found.name, found.codec_info.name)
    name = label.strip().lower()
    if _BEYOND_TABLE.fullmatch(name):
        try:
            return codecs.lookup(name).name
        except LookupError:
            return None
    return None


# HTML standard, section 13.2.3.2, "prescan a byte stream to determine its encoding".
_META: Final = re.compile(rb"<meta(?=[\s/])", re.IGNORECASE)
_TAG: Final = re.compile(rb"</?[a-z][^\s>/]*", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(
    rb"""[\s/]*(=?[^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>"'][^\s>]*)))?"""
)
_CONTENT: Final = re.compile(
    rb"""charset\s*=\s*(?:"([^"]*)"|'([^']*)'|([^;\s"']+))""", re.IGNORECASE
)
_XML: Final = re.compile(rb"""\s*<\?xml\b[^>]*?\sencoding\s*=\s*["']([^"'>]+)["']""")


def _prescan(head: bytes, kind: str) -> str | None:
    if head.startswith(b"<\0?\0x\0"):
        return "utf-16-le"
    if head.startswith(b"\0<\0?\0x"):
        return "utf-16-be"
    lower = head.lower()
    if b"encoding" in lower and (found := _XML.match(head)):
        codec = _read_codec(found[1])
        if codec is not None:
            return codec
    if kind != "html" or b"charset" not in lower:
        return None
    return next(filter(None, map(_meta_codec, _metas(head))), None)


def _metas(head: bytes) -> Iterable[dict[bytes, bytes]]:
    """Yield the attributes of each `<meta>` outside of comments."""
    at = head.find(b"<")
    while at >= 0:
        if head.startswith(b"<!--", at):
            end = head.find(b"-->", at + 2)
            if end < 0:
                return
            at = end + 3
        elif tag := _META.match(head, at) or _TAG.match(head, at):
            attributes: dict[bytes, bytes] = {}
            at = tag.end()
            while found := _ATTRIBUTE.match(head, at):
                name, *values = found.groups(b"")
                attributes.setdefault(name.lower(), b"".join(values))
                at = found.end()
            if tag.re is _META:
                yield attributes
        else:
            at = head.find(b">", at) if head[at + 1 : at + 2] in (b"!", b"/", b"?") else at + 1
            if at < 0:
                return
        at = head.find(b"<", at)


def _meta_codec(attributes: dict[bytes, bytes]) -> str | None:
    label = attributes.get(b"charset")
    if label is None and attributes.get(b"http-equiv", b"").lower() == b"content-type":
        found = _CONTENT.search(attributes.get(b"content", b""))
        label = b"".join(found.groups(b"")) if found else None
    return None if label is None else _read_codec(label)


def _read_codec(label: bytes) -> str | None:
    """Return the codec for a label that was read as ASCII, and so is not of UTF-16."""
    codec = codec_of(label.decode("ascii", "replace"))
    return "utf-8" if codec and codec.startswith(("utf-16", "utf-32")) else codec
