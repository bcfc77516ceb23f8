"""One file over several connections: used where it is safe, given up where it is not."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from infra_core.http import IncompleteDownloadError
from infra_core.http.assets import download_asset, download_asset_async
from infra_core.http.download import _transfer
from infra_core.http.testing import (
    Exchange,
    Fault,
    FaultyOrigin,
    change_etag,
    corrupt,
    delay,
    hang_up,
    ignore_range,
    refuse_range,
    reset_after,
    slow,
    stall,
    status,
    truncate,
    wrong_range,
)

PIECE = 100_000
BODY = os.urandom(10 * PIECE + 12_345)
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven ranges for a megabyte."""
    monkeypatch.setattr(_transfer, "PIECE", PIECE)


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    """A running origin."""
    with FaultyOrigin() as server:
        yield server


def test_ranges_side_by_side(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Each range is fetched once, up to four at a time, and the file is whole."""
    origin.add("/f", BODY, etag='"v1"', always=delay(0.01))
    result = download_asset(origin.url("/f"), tmp_path / "f", connections=4)
    assert (tmp_path / "f").read_bytes() == BODY
    assert (result.checksum, result.attempts, result.resumed) == (CHECKSUM, 1, False)
    assert result.http_status == 206  # of a part
    asked = [request.headers["Range"] for request in origin.requests]
    assert len(asked) == len(set(asked)) == 11
    assert asked[0] == f"bytes=0-{PIECE - 1}"
    assert all(request.headers["If-Range"] == '"v1"' for request in origin.requests[1:])
    assert 1 < origin.peak_in_flight <= 4


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1])
def test_sizes_around_one_piece(origin: FaultyOrigin, tmp_path: Path, size: int) -> None:
    """Small files take one request; an empty one, whose range is refused, takes two."""
    origin.add("/f", BODY[:size], etag='"v1"')
    download_asset(origin.url("/f"), tmp_path / "f", connections=4)
    assert (tmp_path / "f").read_bytes() == BODY[:size]
    assert len(origin.requests) == (1 if 0 < size <= PIECE else 2)


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_strong_tag_one_request_takes_all(
    origin: FaultyOrigin, tmp_path: Path, etag: str | None
) -> None:
    """Pieces of a file that cannot be pinned could be of two versions."""
    origin.add("/f", BODY, etag=etag)
    download_asset(origin.url("/f"), tmp_path / "f", connections=4)
    assert (tmp_path / "f").read_bytes() == BODY
    assert [request.headers.get("Range") for request in origin.requests][1:] == [None]


def test_a_server_without_ranges_is_asked_once(origin: FaultyOrigin, tmp_path: Path) -> None:
    """200 to the first range is the file."""
    origin.add("/f", BODY, etag='"v1"', ranges=False)
    download_asset(origin.url("/f"), tmp_path / "f", connections=4)
    assert (tmp_path / "f").read_bytes() == BODY
    assert len(origin.requests) == 1


@pytest.mark.parametrize("code", [200, 203, 226])
@pytest.mark.parametrize("connections", [1, 4])
def test_a_part_is_one_whatever_its_status(
    origin: FaultyOrigin, tmp_path: Path, code: int, connections: int
) -> None:
    """Some servers serve the range with 200: neither is it the file, nor is it fetched again."""

    def rename(exchange: Exchange) -> None:
        if exchange.reply.status == 206:
            exchange.reply.status = code

    cut = [truncate(PIECE)] if connections == 1 else []
    origin.add("/f", BODY, etag='"v1"', faults=cut, always=Fault("status", rename))
    download_asset(origin.url("/f"), tmp_path / "f", connections=connections, backoff=0.001)
    assert (tmp_path / "f").read_bytes() == BODY
    assert len(origin.requests) == (2 if connections == 1 else 11)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409])
def test_a_server_that_refuses_several_connections_is_asked_over_one(
    origin: FaultyOrigin, tmp_path: Path, code: int
) -> None:
    """For all of it; what it answers then is the answer."""
    refusal = status(code)

    def refuse(exchange: Exchange) -> None:
        if "If-Range" in exchange.request.headers:
            refusal.change(exchange)

    origin.add("/f", BODY, etag='"v1"', always=Fault("alone", refuse))
    result = download_asset(origin.url("/f"), tmp_path / "f", connections=3)
    assert (tmp_path / "f").read_bytes() == BODY
    assert result.attempts == 1
    origin.add("/g", BODY, etag='"v1"', faults=[delay(0)], always=refusal)
    with pytest.raises(httpx.HTTPStatusError, match=str(code)):
        download_asset(origin.url("/g"), tmp_path / "g", connections=3)


@pytest.mark.parametrize("position", [0, 1, 4])
@pytest.mark.parametrize(
    "fault",
    [status(503), hang_up(), reset_after(5000), truncate(5000), stall(after=10), corrupt(),
     wrong_range(), ignore_range(), refuse_range(), change_etag('"v2"')],
    ids=repr,
)  # fmt: skip
def test_a_fault_in_one_of_the_ranges(
    origin: FaultyOrigin, tmp_path: Path, fault: Fault, position: int
) -> None:
    """The file is right all the same, and nothing else is left."""
    right = delay(0)
    origin.add("/f", BODY, etag='"v1"', faults=[right] * position + [fault])
    download_asset(
        origin.url("/f"),
        tmp_path / "f",
        connections=3,
        backoff=0.001,
        timeout=0.3,
        expected_checksum=CHECKSUM,
    )
    assert (tmp_path / "f").read_bytes() == BODY
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("fault", [reset_after(5000), truncate(5000), status(503)], ids=repr)
def test_ranges_that_came_are_not_fetched_again(
    origin: FaultyOrigin, tmp_path: Path, fault: Fault
) -> None:
    """After a fault of a later range the next attempt continues."""
    origin.add("/f", BODY, etag='"v1"')
    origin.script("/f", delay(0), delay(0), fault)
    result = download_asset(origin.url("/f"), tmp_path / "f", connections=1 + 1, backoff=0.001)
    assert (tmp_path / "f").read_bytes() == BODY
    assert (result.attempts, result.resumed, result.http_status) == (2, True, 206)
    asked = [request.headers["Range"] for request in origin.requests]
    assert asked.count(f"bytes=0-{PIECE - 1}") == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [(truncate(10), IncompleteDownloadError), (reset_after(10), IncompleteDownloadError),
     (slow(50), httpx.ReadTimeout)],
    ids=repr,
)  # fmt: skip
def test_errors_of_a_range_are_those_of_a_download(
    origin: FaultyOrigin, tmp_path: Path, fault: Fault, error: type[Exception]
) -> None:
    """`min_speed` holds for each range as well."""
    origin.add("/f", BODY, etag='"v1"', faults=[delay(0)], always=fault)
    with pytest.raises(error):
        download_asset(origin.url("/f"), tmp_path / "f", connections=2, max_retries=0, timeout=0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_between_ranges(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Never a mixture: the new version is fetched whole."""
    new = os.urandom(len(BODY))
    origin.add("/f", BODY, etag='"v1"', faults=[delay(0)] * 5 + [change_etag('"v2"', body=new)])
    download_asset(origin.url("/f"), tmp_path / "f", connections=3)
    assert (tmp_path / "f").read_bytes() == new


def test_ranges_end_with_the_deadline(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Stalled ranges are all cancelled."""
    origin.add("/f", BODY, etag='"v1"', faults=[delay(0)], always=stall(after=10))
    with pytest.raises(TimeoutError):
        download_asset(origin.url("/f"), tmp_path / "f", connections=3, deadline=0.2)
    assert list(tmp_path.iterdir()) == []


async def test_no_task_is_left(origin: FaultyOrigin, tmp_path: Path) -> None:
    """A failing range takes the others with it."""
    origin.add("/f", BODY, etag='"v1"', faults=[delay(0), status(500)])
    with pytest.raises(httpx.HTTPStatusError):
        await download_asset_async(origin.url("/f"), tmp_path / "f", connections=4, max_retries=0)
    assert len(asyncio.all_tasks()) == 1


async def test_no_range_goes_on_after_an_error_of_the_callers(
    origin: FaultyOrigin, tmp_path: Path
) -> None:
    """Such as one that `progress` raises while other ranges are under way."""
    origin.add("/f", BODY, etag='"v1"')

    def progress(done: int, total: int | None) -> None:
        if done > PIECE:
            raise KeyError(done)

    with pytest.raises(KeyError):
        await download_asset_async(
            origin.url("/f"), tmp_path / "f", connections=4, progress=progress
        )
    assert len(asyncio.all_tasks()) == 1


def test_max_bytes_holds_for_ranges(origin: FaultyOrigin, tmp_path: Path) -> None:
    """The size of the whole file is known from the first range."""
    origin.add("/f", BODY, etag='"v1"')
    with pytest.raises(Exception, match="max_bytes"):
        download_asset(origin.url("/f"), tmp_path / "f", connections=4, max_bytes=PIECE)
    assert len(origin.requests) == 1
