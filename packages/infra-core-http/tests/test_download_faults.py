"""Every fault of the wire against every way to download: never a wrong byte, never a hang."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from infra_core.http import ChecksumMismatchError, DownloadError, IncompleteDownloadError
from infra_core.http.assets import (
    DownloadResult,
    download_asset,
    download_asset_async,
    download_many,
)
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    change_etag,
    chunked,
    chunked_early_end,
    corrupt,
    delay,
    gzip_encoded,
    hang_up,
    ignore_range,
    lie_length,
    oversized_headers,
    redirect,
    redirect_loop,
    refuse_range,
    reset_after,
    slow,
    stall,
    status,
    truncate,
    wrong_range,
)

T = TypeVar("T")
BODY = os.urandom(200_000)
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
QUICK: dict[str, Any] = {"backoff": 0.001, "expected_checksum": CHECKSUM, "timeout": 0.3}

Downloader = Callable[..., DownloadResult]


def via_async(url: str, dest: Path, **options: Any) -> DownloadResult:
    return run(download_asset_async(url, dest, **options))


def via_sync(url: str, dest: Path, **options: Any) -> DownloadResult:
    return download_asset(url, dest, **options)


def via_many(url: str, dest: Path, **options: Any) -> DownloadResult:
    (outcome,) = download_many([(url, dest)], **options)
    return outcome.unwrap()


CLIENTS = [via_async, via_sync, via_many]
# fault, whether one of it followed by right answers ends well, what endless ones raise
TABLE: list[tuple[Fault, type[Exception] | None]] = [
    (status(503, retry_after="0"), httpx.HTTPStatusError),
    (status(429, retry_after_ms=1), httpx.HTTPStatusError),
    (status(500), httpx.HTTPStatusError),
    (status(502, retry_after="soon"), httpx.HTTPStatusError),
    (status(504, retry_after="Mon, 01 Jan 2024 00:00:00 GMT"), httpx.HTTPStatusError),
    (hang_up(), httpx.TransportError),
    (reset_after(0), httpx.TransportError),
    (reset_after(150_000), None),
    (truncate(0), IncompleteDownloadError),
    (truncate(150_000), None),
    (stall(after=None), httpx.TimeoutException),
    (stall(after=1000), None),
    (lie_length(10), IncompleteDownloadError),
    (lie_length(-10), ChecksumMismatchError),
    (chunked(), None),
    (chunked_early_end(1000), IncompleteDownloadError),
    (gzip_encoded(), None),
    (gzip_encoded() & corrupt(), DownloadError),
    (gzip_encoded() & truncate(1000), IncompleteDownloadError),
    (gzip_encoded() & chunked_early_end(1000), IncompleteDownloadError),
    (corrupt(), ChecksumMismatchError),
    (oversized_headers(), httpx.TransportError),
    (delay(0.01), None),
    (slow(4_000_000), None),
    (redirect("/elsewhere"), None),
    (wrong_range(), None),
    (ignore_range(), None),
    (refuse_range(), None),
    (reset_after(5000) & change_etag('"v2"'), None),
]


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in another thread: pytest-asyncio keeps a loop for this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


@pytest.fixture(scope="module")
def origin() -> Iterator[FaultyOrigin]:
    """One origin for the module; every test has a path of its own."""
    with FaultyOrigin() as server:
        server.add("/elsewhere", BODY)
        yield server


def left(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", [fault for fault, _ in TABLE], ids=repr)
def test_one_fault_is_survived(
    origin: FaultyOrigin, tmp_path: Path, client: Downloader, fault: Fault
) -> None:
    """After a fault the right file comes, and nothing else is left in the folder."""
    origin.add("/f", BODY, etag='"v1"', faults=[fault])
    result = client(origin.url("/f"), tmp_path / "f.bin", deadline=20, **QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert (result.checksum, result.size, result.reused) == (CHECKSUM, len(BODY), False)
    assert left(tmp_path) == {"f.bin"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(("fault", "error"), [row for row in TABLE if row[1] is not None], ids=repr)
def test_an_endless_fault_is_an_error_and_keeps_the_old_file(
    origin: FaultyOrigin, tmp_path: Path, client: Downloader, fault: Fault, error: type[Exception]
) -> None:
    """The last failure comes through; the file that was there stands, and nothing else is left."""
    origin.add("/f", BODY, etag='"v1"', always=fault)
    (tmp_path / "f.bin").write_bytes(b"old")
    options = {**QUICK, "timeout": 0.02} if "stall" in fault.name else QUICK
    with pytest.raises(error):
        client(origin.url("/f"), tmp_path / "f.bin", max_retries=1, deadline=20, **options)
    assert (tmp_path / "f.bin").read_bytes() == b"old"
    assert left(tmp_path) == {"f.bin"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "second",
    [wrong_range(), ignore_range(), refuse_range(), corrupt(), change_etag('"v2"'), truncate(10),
     status(500)],
    ids=repr,
)  # fmt: skip
def test_faults_while_continuing_after_a_reset(
    origin: FaultyOrigin, tmp_path: Path, client: Downloader, second: Fault
) -> None:
    """The request for the rest meets another fault: still the right file."""
    origin.add("/f", BODY, etag='"v1"', faults=[reset_after(50_000), second])
    client(origin.url("/f"), tmp_path / "f.bin", **QUICK)
    assert (tmp_path / "f.bin").read_bytes() == BODY
    assert left(tmp_path) == {"f.bin"}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", [stall(after=None), stall(after=0), stall(after=1000), slow(2000),
                                   delay(30), status(503, retry_after=59)], ids=repr)  # fmt: skip
def test_nothing_outlives_the_deadline(
    origin: FaultyOrigin, tmp_path: Path, client: Downloader, fault: Fault
) -> None:
    """Whatever the server does, the call ends with its deadline and leaves nothing."""
    origin.add("/f", BODY, always=fault)
    with pytest.raises((TimeoutError, httpx.HTTPStatusError)):
        client(origin.url("/f"), tmp_path / "f.bin", deadline=0.15)
    assert left(tmp_path) == set()


def test_redirect_loop_ends(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A loop is noticed and not retried for ever."""
    origin.add("/loop", always=redirect_loop())
    with pytest.raises(httpx.TooManyRedirects):
        download_asset(origin.url("/loop"), tmp_path / "f", max_retries=1, backoff=0.001)
    assert left(tmp_path) == set()


def test_cut_body_names_url_expected_and_actual(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The error says what was expected of which URL and what came; secrets are not in it."""
    origin.add("/f", BODY, always=truncate(1234))
    with pytest.raises(IncompleteDownloadError) as caught:
        download_asset(origin.url("/f?sig=S3CRET"), tmp_path / "f", max_retries=0)
    assert (caught.value.expected, caught.value.actual) == (len(BODY), 1234)
    assert caught.value.url.startswith(origin.url("/f"))
    assert "1234 of 200000 bytes" in str(caught.value)
    assert "S3CRET" not in f"{caught.value!r} {caught.value}"


def test_altered_body_names_url_expected_and_actual(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A wrong checksum is reported with both values, after all tries from zero."""
    origin.add("/f", BODY, etag='"v1"', always=corrupt())
    with pytest.raises(ChecksumMismatchError) as caught:
        download_asset(origin.url("/f"), tmp_path / "f", max_retries=2, **QUICK)
    assert caught.value.expected == CHECKSUM
    assert str(caught.value.actual).startswith("sha256:")
    assert [request.headers.get("Range") for request in origin.requests[-3:]] == [None] * 3


def test_a_4xx_is_not_retried(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A missing file is reported at once."""
    with pytest.raises(httpx.HTTPStatusError) as caught:
        download_asset(origin.url("/missing"), tmp_path / "f")
    assert caught.value.response.status_code == 404
    for request in (caught.value.request, caught.value.response.request):
        assert (request.method, str(request.url)) == ("GET", origin.url("/missing"))
    assert origin.count("/missing") == 1


def test_no_retry_statuses_means_none(origin: FaultyOrigin, tmp_path: Path) -> None:
    """`retry_statuses=[]` is not the default list."""
    origin.add("/f503", BODY, faults=[status(503)])
    with pytest.raises(httpx.HTTPStatusError):
        download_asset(origin.url("/f503"), tmp_path / "f", retry_statuses=[])
    assert origin.count("/f503") == 1


def test_a_wait_beyond_the_cap_is_logged(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A Retry-After above max_backoff ends the retries and is on the error."""
    origin.add("/busy", BODY, always=status(503, retry_after=3600))
    with pytest.raises(httpx.HTTPStatusError) as caught:
        download_asset(origin.url("/busy"), tmp_path / "f")
    assert getattr(caught.value, "retry_after", None) == 3600
    assert origin.count("/busy") == 1


def test_unknown_host_is_not_retried(tmp_path: Path) -> None:
    """DNS failures, malformed and foreign URLs are reported at once."""
    for url in ("http://does-not-exist.invalid/f", "http://[bad", "ftp://127.0.0.1/f"):
        with pytest.raises((httpx.HTTPError, httpx.InvalidURL)):
            download_asset(url, tmp_path / "f", backoff=30)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("code", [204, 202])
def test_success_without_a_file_is_an_error(
    origin: FaultyOrigin, tmp_path: Path, code: int
) -> None:
    """An answer that carries no file does not make an empty one."""
    origin.add("/none", always=status(code))
    with pytest.raises(DownloadError, match=str(code)):
        download_asset(origin.url("/none"), tmp_path / "f")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("code", [200, 203, 206, 226])
@pytest.mark.parametrize("part", ["0-2/9", "3-5/9", "3-5/*"])
def test_an_unrequested_part_is_an_error(
    origin: FaultyOrigin, tmp_path: Path, code: int, part: str
) -> None:
    """What Content-Range calls a part of the file is not stored as the file."""
    headers = {"Content-Range": f"bytes {part}"}
    origin.add("/part", BODY, always=status(code, body=b"abc", headers=headers))
    with pytest.raises(DownloadError, match=f"{code} with a part of the file"):
        download_asset(origin.url("/part"), tmp_path / "f")
    assert left(tmp_path) == set()


@pytest.mark.parametrize("part", ["0-2/3", "0-2/*", "0-9/10", "5-9/10", "0-4/3", "words"])
def test_a_content_range_that_does_not_fit_the_body_says_nothing(
    origin: FaultyOrigin, tmp_path: Path, part: str
) -> None:
    """With a status that promises the whole file."""
    headers = {"Content-Range": f"bytes {part}"}
    origin.add("/whole", always=status(200, body=b"abc", headers=headers))
    download_asset(origin.url("/whole"), tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == b"abc"


def test_a_part_without_a_range_is_an_error(origin: FaultyOrigin, tmp_path: Path) -> None:
    """206 to a request for all of it."""
    origin.add("/part", BODY, always=status(206, body=b"abc"))
    with pytest.raises(DownloadError, match="206"):
        download_asset(origin.url("/part"), tmp_path / "f")


def test_an_unrequested_encoding_is_an_error(origin: FaultyOrigin, tmp_path: Path) -> None:
    """What cannot be decoded cannot be stored as the file."""
    origin.add("/br", BODY, headers={"Content-Encoding": "compress"})
    with pytest.raises(DownloadError, match="identity"):
        download_asset(origin.url("/br"), tmp_path / "f")


def test_retries_are_logged_with_redacted_url(
    origin: FaultyOrigin, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each retry is one warning with url, attempt, status and wait."""
    origin.add("/log", BODY, faults=[status(503)])
    download_asset(origin.url("/log?sig=S3CRET"), tmp_path / "f", backoff=0.001)
    (record,) = [r for r in caplog.records if r.name == "infra_core.asset_client"]
    fields = vars(record)
    assert (fields["attempt"], fields["status"]) == (1, 503)
    assert fields["wait"] >= 0
    assert "S3CRET" not in record.getMessage() + fields["url"]


def test_dripping_server_is_cut_off_without_a_deadline(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Below `min_speed` over `timeout` seconds an attempt ends; retries are finite."""
    origin.add("/drip", BODY, always=slow(400))
    with pytest.raises(httpx.ReadTimeout, match="min_speed"):
        download_asset(
            origin.url("/drip"), tmp_path / "f", timeout=0.3, max_retries=0, min_speed=1e6
        )
    assert left(tmp_path) == set()


def test_credentials_do_not_follow_a_redirect_to_another_origin(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """A function key stays with the server that it was given to."""
    with FaultyOrigin() as other:
        other.add("/f", BODY)
        origin.add("/cross", always=redirect(other.url("/f")))
        headers = {"x-functions-key": "S3CRET", "X-Plain": "1"}
        download_asset(origin.url("/cross"), tmp_path / "f", headers=headers)
        (request,) = other.requests
    assert "x-functions-key" not in request.headers
    assert request.headers["x-plain"] == "1"
    assert (tmp_path / "f").read_bytes() == BODY
