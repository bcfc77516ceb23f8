"""Content codings: the whole body or an error, however it is cut into pieces."""

import gzip
import zlib
from collections.abc import Callable, Iterable

import backports.zstd
import brotli
import pytest
from hypothesis import given, strategies as st

from infra_core.http._errors import ResponseTooLarge
from infra_core.http._response.decode import (
    BodyReader,
    DamagedBody,
    codings_of,
    decoder_for,
    length_of,
)


def _bare_deflate(data: bytes) -> bytes:
    maker = zlib.compressobj(wbits=-15)
    return maker.compress(data) + maker.flush()


ENCODERS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("gzip;q=1", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", _bare_deflate),
    ("br", brotli.compress),
    ("zstd", backports.zstd.compress),
]


def decode(values: Iterable[str], body: bytes, size: int = 1 << 20) -> bytes:
    decoder = decoder_for(values)
    if decoder is None:
        return body
    parts = [
        piece
        for start in range(0, len(body), size)
        for piece in decoder.feed(body[start : start + size])
    ]
    decoder.finish()
    return b"".join(parts)


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
@given(data=st.binary(max_size=2000), size=st.integers(1, 50))
def test_a_body_comes_back_whole(
    coding: str, encode: Callable[[bytes], bytes], data: bytes, size: int
) -> None:
    """In pieces of any size."""
    assert decode([coding], encode(data), size) == data


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
@given(data=st.binary(max_size=300), cut=st.integers(1, 400), size=st.sampled_from([1, 7, 1000]))
def test_a_body_that_is_cut_is_an_error(
    coding: str, encode: Callable[[bytes], bytes], data: bytes, cut: int, size: int
) -> None:
    """At any byte: its end and its trailer belong to it."""
    encoded = encode(data)
    rest = encoded[: max(1, len(encoded) - cut)]
    if rest == encoded:
        return
    with pytest.raises(DamagedBody):
        decode([coding], rest, size)


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_bytes_after_the_end_are_an_error(
    coding: str, encode: Callable[[bytes], bytes], size: int
) -> None:
    """They may be the text that somebody wants."""
    with pytest.raises(DamagedBody):
        decode([coding], encode(b"text") + b"more", size)


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
@pytest.mark.parametrize(("coding", "encode"), [ENCODERS[0], ENCODERS[-1]])
def test_members_in_a_row_are_one_body(
    coding: str, encode: Callable[[bytes], bytes], size: int
) -> None:
    """Empty ones too."""
    assert decode([coding], encode(b"one ") + encode(b"") + encode(b"two"), size) == b"one two"


@pytest.mark.parametrize("size", [1, 20, 1 << 20])
def test_zeros_after_gzip_are_padding(size: int) -> None:
    """Also those that come in a later piece, and between members."""
    body = gzip.compress(b"one ") + bytes(9) + gzip.compress(b"two") + bytes(600)
    assert decode(["gzip"], body, size) == b"one two"


def test_a_wrong_trailer_is_an_error() -> None:
    """The checksum of the text, and its length."""
    whole = gzip.compress(b"text")
    for place in (-8, -1):
        wrong = bytearray(whole)
        wrong[place] ^= 1
        with pytest.raises(DamagedBody, match="incorrect"):
            decode(["gzip"], bytes(wrong))


def test_codings_are_undone_from_the_last_to_the_first() -> None:
    """In one line or several."""
    body = brotli.compress(zlib.compress(gzip.compress(b"text")))
    for lines in (["gzip, deflate, br"], ["gzip", "x", "deflate,br"], ["GZIP,,x", "deflate, BR"]):
        assert decode(lines, body, 5) == b"text"
    body = b"text"
    for _ in range(5):
        body = gzip.compress(body)
    assert decode(["gzip"] * 5, body) == b"text"
    with pytest.raises(DamagedBody, match="6 content codings"):
        decode(["gzip"] * 6, body)


def test_a_zstd_body_may_not_ask_for_more_memory_than_its_registration_allows() -> None:
    """8 MiB (RFC 9659): a frame of some bytes can ask for gigabytes."""
    for log, allowed in ((23, True), (24, False)):
        options: dict[int, int] = {backports.zstd.CompressionParameter.window_log: log}
        maker = backports.zstd.ZstdCompressor(options=options)
        frame = maker.compress(b"text") + maker.flush()
        if allowed:
            assert decode(["zstd"], frame) == b"text"
        else:
            with pytest.raises(DamagedBody):
                decode(["zstd"], frame)


@pytest.mark.parametrize("name", ["utf-8", "none", "binary", "aws-chunked", "identity", "", "7bit"])
def test_a_name_that_is_no_coding_says_nothing(name: str) -> None:
    """The body is taken as it is."""
    assert codings_of([name]) == ()
    assert decode([name], b"text") == b"text"
    assert decode([f"{name}, gzip"], gzip.compress(b"text")) == b"text"


@pytest.mark.parametrize("name", ["gzip", "br", "zstd", "deflate", "compress"])
def test_an_empty_body_is_empty_in_any_coding(name: str) -> None:
    """Servers name the coding of bodies that they do not send."""
    assert decode([name], b"") == b""


def test_a_coding_that_cannot_be_undone_is_an_error() -> None:
    """Compressed bytes are not the text."""
    with pytest.raises(DamagedBody, match="Accept-Encoding: identity"):
        decode(["compress"], b"\x1f\x9d\x90")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    import sys

    for module in ("brotli", "brotlicffi", "compression", "backports.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    for name, extra in (("br", "brotli"), ("zstd", "zstd")):
        with pytest.raises(DamagedBody, match=rf"install infra-core-http\[{extra}\]"):
            decode([name], b"x")


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
def test_a_bomb_comes_in_small_pieces(coding: str, encode: Callable[[bytes], bytes]) -> None:
    """A caller with a limit can stop after the first."""
    decoder = decoder_for([coding])
    assert decoder is not None
    sizes = [len(piece) for piece in decoder.feed(encode(bytes(20_000_000)))]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 1 << 19


def test_a_bound_counts_what_was_decoded() -> None:
    """And an announced length above it is refused before anything is read."""
    reader = BodyReader("http://h/?sig=hunter2", ["gzip"], 1000)
    with pytest.raises(ResponseTooLarge) as caught:
        list(reader.feed(gzip.compress(bytes(1001))))
    assert caught.value.limit == 1000
    assert "hunter2" not in str(caught.value)
    assert b"".join(BodyReader("u", ["gzip"], 1000).feed(gzip.compress(b"x" * 1000))) == b"x" * 1000
    with pytest.raises(ResponseTooLarge):
        BodyReader("u", [], 1000).check_length(1001)


@pytest.mark.parametrize(
    ("coding", "filler"),
    [
        ("gzip", gzip.compress(b"", mtime=0)),
        ("deflate", b"\x00\x00\x00\xff\xff"),
        ("zstd", b"\x50\x2a\x4d\x18\x00\x00\x00\x00"),
    ],
)
def test_a_bound_holds_for_work_on_nothing(coding: str, filler: bytes) -> None:
    """Endless empty members and blocks never reach a bound on decoded bytes."""
    reader = BodyReader("u", [coding], 1000)
    fed = 0
    with pytest.raises(ResponseTooLarge):
        for _ in range(100_000):
            fed += len(filler) * 100
            list(reader.feed(filler * 100))
    assert fed < 200_000


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        (["600"], 600),
        (["600", " 600 "], 600),
        (["600, 600"], 600),
        (["600", "601"], None),
        (["0600"], 600),
        (["²"], None),
        (["٣"], None),
        (["-1"], None),
        (["+1"], None),
        (["9" * 19], 10**19 - 1),
        (["9" * 20], None),
        (["9" * 5000], None),
        (["0" * 5000 + "7"], 7),
        ([""], None),
        ([], None),
    ],
)
def test_an_announced_length_is_digits_of_ascii(lines: list[str], length: int | None) -> None:
    """Equal lines count once, whatever else is there says nothing."""
    assert length_of(lines) == length
