"""Random answers, header by header: the file is what was sent, or there is an error of ours."""

from __future__ import annotations

import gzip
import hashlib
import logging
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from infra_core.http import HttpError, InvalidRequestError
from infra_core.http.assets import DownloadResult, download_asset
from infra_core.runtime.testing import fast_time

BODY = b"".join(b"%04d" % number for number in range(500))
ZIPPED = gzip.compress(BODY)
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
LONG = "9" * 5_000

statuses = st.sampled_from(
    ["200 OK", "200", "206 Partial Content", "203 X", "204 No Content", "304 Not Modified",
     "302 Found", "308 Permanent Redirect", "404 Not Found", "416 X", "429 X", "500 \x1b[2J",
     "200 \u00fc", "299 X", "999 X"]
)  # fmt: skip
numbers = st.sampled_from(
    ["0", "1", "-1", "+5", "²", "1e3", "0x10", " 7 ", "", LONG, str(len(BODY)), str(len(ZIPPED)),
     f"{len(BODY)}, {len(BODY)}", "5, 6"]
)  # fmt: skip
ranges = st.one_of(
    st.builds("bytes {}-{}/{}".format, numbers, numbers, st.one_of(numbers, st.just("*"))),
    st.sampled_from(
        [f"bytes 0-{len(BODY) - 1}/{len(BODY)}", "bytes */*", "items 0-1/2", "bytes", "\x80",
         f"bytes 100-{len(BODY) - 1}/{len(BODY)}"]
    ),
)  # fmt: skip
texts = st.text(st.characters(max_codepoint=255, exclude_characters="\0\r\n"), max_size=12)
tags = st.one_of(
    st.sampled_from(['"v1"', '"v2"', 'W/"v1"', "v1", '"', '""', '"a b"', '"\x1b"', '"\xe9"']), texts
)
codings = st.sampled_from(
    ["gzip", "x-gzip", "GZIP, gzip", "identity", "utf-8", "none", "br", "zstd", "deflate",
     "compress", ",,", "gzip, none", "\xff"]
)  # fmt: skip
digests = st.one_of(
    st.sampled_from(["md5=AAAAAAAAAAAAAAAAAAAAAA==", "sha-256=:AAAA:", "sha-256=::", "md5=", ",="]),
    texts,
)
places = st.one_of(
    st.sampled_from(["/f", "//", "http://", "?", "file:///etc/passwd", "http://[", "\xe9", " "]),
    texts,
)
headers = st.one_of(
    st.tuples(st.just("Content-Length"), numbers),
    st.tuples(st.just("Content-Range"), ranges),
    st.tuples(st.just("ETag"), tags),
    st.tuples(st.just("Last-Modified"), st.one_of(texts, st.just("Mon, 01 Jan 2024 00:00:00 GMT"))),
    st.tuples(st.just("Content-Encoding"), codings),
    st.tuples(st.sampled_from(["Digest", "Repr-Digest", "x-goog-hash", "Content-MD5"]), digests),
    st.tuples(st.just("Location"), places),
    st.tuples(st.just("Retry-After"), st.one_of(numbers, texts)),
    st.tuples(st.just("Set-Cookie"), texts),
    st.tuples(st.just("Content-Type"), texts),
    st.tuples(st.just("Transfer-Encoding"), st.sampled_from(["chunked", "gzip, chunked", "x"])),
    st.tuples(st.just("Warning"), st.sampled_from(["214 - x", "\xff"])),
)
bodies = st.sampled_from(
    [BODY, BODY[:700], ZIPPED, ZIPPED[:-3], ZIPPED + bytes(9), b"",
     b"7d0\r\n" + BODY + b"\r\n0\r\n\r\n", b"-5\r\nabc", b"zz\r\n", b"5\r\nabc"]
)  # fmt: skip
Answer = tuple[str, "list[tuple[str, str]]", bytes, bool]
answers: st.SearchStrategy[Answer] = st.tuples(
    statuses, st.lists(headers, max_size=5), bodies, st.booleans()
)


class Server:
    """Gives one answer after the other, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/f"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head and (more := connection.recv(65_536)):
                    head += more
                if head:
                    connection.sendall(
                        self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                    )

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One server for all examples."""
    logging.getLogger("infra_core.asset_client").disabled = True
    server = Server()
    yield server
    server.close()
    logging.getLogger("infra_core.asset_client").disabled = False


def on_the_wire(answer: Answer) -> bytes:
    status, lines, body, sized = answer
    head = [f"HTTP/1.1 {status}", "Connection: close", *(f"{n}: {v}" for n, v in lines)]
    names = {name for name, _ in lines}
    if sized and not names & {"Content-Length", "Transfer-Encoding"}:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join(head).encode("latin-1", "replace") + b"\r\n\r\n" + body


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    script=st.lists(answers, min_size=1, max_size=3),
    checked=st.booleans(),
    connections=st.sampled_from([1, 3]),
    keep_partial=st.booleans(),
    held=st.booleans(),
)
def test_odd_answers_bring_the_file_or_an_error_of_ours(
    server: Server,
    script: list[Answer],
    checked: bool,
    connections: int,
    keep_partial: bool,
    held: bool,
) -> None:
    """No bare ValueError and the like; the file is a body that was sent, as sent or decoded."""
    sent = {body for _, _, body, _ in script} | {BODY, b""}
    with tempfile.TemporaryDirectory() as folder, fast_time():
        dest = Path(folder) / "f"

        def get(**options: Any) -> DownloadResult:
            return download_asset(
                server.url,
                dest,
                expected_checksum=CHECKSUM if checked else None,
                timeout=5,
                max_retries=2,
                connections=connections,
                keep_partial=keep_partial,
                durable=False,
                **options,
            )

        if held:
            server.answers = [on_the_wire(("200 OK", [("ETag", '"v1"')], BODY, True))]
            get()
        server.answers = [on_the_wire(answer) for answer in script]
        try:
            result = get(revalidate=held, skip_if_exists=False)
        except (HttpError, httpx.HTTPError) as error:
            assert not isinstance(error, InvalidRequestError)
            assert dest.exists() == held
            assert not held or dest.read_bytes() == BODY
        else:
            content = dest.read_bytes()
            assert content == BODY if checked else any(content in body for body in sent)
            assert result.size == len(content)
            str(result).encode()  # no lone surrogates
        assert keep_partial or [path.name for path in Path(folder).iterdir()] in ([], ["f"])
