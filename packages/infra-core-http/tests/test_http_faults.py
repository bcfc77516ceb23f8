"""The table of faults: every fault, both halves, GET and POST; never a hang, never a silent repeat.

For each cell: the call ends within its deadline; what it returns is the whole body; a POST that
reached the server more than once was turned away each time but the last; a POST whose answer was
lost is `OutcomeUnknown`.
"""

import asyncio
import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import requests
from hypothesis import HealthCheck, given, settings, strategies as st

from infra_core.http import (
    AsyncHttpClient,
    HttpError,
    OutcomeUnknown,
    RequestsHttpClient,
    fetch_async,
    request,
    request_async,
)
from infra_core.http.testing import (
    Fault,
    FaultyOrigin,
    chunked,
    chunked_early_end,
    delay,
    gzip_encoded,
    hang_up,
    lie_length,
    oversized_headers,
    redirect_loop,
    reset_after,
    slow,
    stall,
    status,
    truncate,
)

BODY = b"0123456789" * 20
SHORT, AMPLE = 0.15, 10.0  # seconds: for faults that only a deadline ends, and for all others

TABLE: dict[str, Callable[[], Fault]] = {
    "status 500": lambda: status(500),
    "status 503": lambda: status(503),
    "429 with seconds": lambda: status(429, retry_after="0"),
    "429 for an hour": lambda: status(429, retry_after="3600"),
    "503 with milliseconds": lambda: status(503, retry_after_ms=1),
    "503 with a past date": lambda: status(503, retry_after="Sun, 06 Nov 1994 08:49:37 GMT"),
    "503 with nonsense": lambda: status(503, retry_after="whenever"),
    "hang up": hang_up,
    "reset at once": lambda: reset_after(0),
    "reset in the body": lambda: reset_after(50),
    "truncated at once": lambda: truncate(0),
    "truncated": lambda: truncate(50),
    "stall before the status": lambda: stall(None),
    "stall in the body": lambda: stall(50),
    "late": lambda: delay(0.02),
    "drip": lambda: slow(100),
    "length too large": lambda: lie_length(7),
    "chunked": chunked,
    "chunked, cut": lambda: chunked_early_end(50),
    "gzip unasked": gzip_encoded,
    "headers too large": oversized_headers,
    "redirect loop": redirect_loop,
}
# Answers that say that nothing was done.
TURNED_AWAY = {name for name in TABLE if name.startswith(("429", "503", "status 503"))}
LOST = {
    "hang up",
    "reset at once",
    "reset in the body",
    "truncated at once",
    "truncated",
    "stall before the status",
    "stall in the body",
    "drip",
    "length too large",
    "chunked, cut",
}


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        yield running


def call(half: str, method: str, url: str, **options: Any) -> bytes:
    """One request by the half under test, on a client of its own."""
    if half == "sync":
        with RequestsHttpClient() as client:
            return request(method, url, client=client, **options).content

    async def work() -> bytes:
        return (await request_async(method, url, **options)).content

    return asyncio.run(work())


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("half", ["sync", "async"])
@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("name", TABLE)
def test_every_fault_ends_well_or_is_an_error(
    origin: FaultyOrigin, name: str, always: bool, half: str, method: str
) -> None:
    """See the module's docstring."""
    if always:
        origin.add("/x", BODY, always=TABLE[name]())
    else:
        origin.add("/x", BODY, faults=[TABLE[name]()])
    hangs = name == "drip" or "stall" in name
    deadline = SHORT if hangs else AMPLE
    options: dict[str, Any] = {"max_retries": 3, "backoff": 0.001, "deadline": deadline}
    started = time.perf_counter()
    error: Exception | None = None
    try:
        body = call(half, method, origin.url("/x"), **options)
    except (HttpError, httpx.HTTPError, requests.RequestException) as caught:
        error = caught
    assert time.perf_counter() - started < deadline + 5  # a busy machine, but no hang
    if error is None:
        assert body == BODY
    if method == "POST":
        if hangs and not origin.count("/x"):
            assert error is not None  # so busy a machine that it was not sent in time
            return
        if name not in TURNED_AWAY and "redirect" not in name:
            assert origin.count("/x") == 1
        if name in LOST:
            assert isinstance(error, OutcomeUnknown)
    elif not always and not hangs and name != "429 for an hour":
        assert error is None


SCRIPTS = st.lists(
    st.sampled_from(sorted(set(TABLE) - {"drip", "late", "stall in the body"} - {"redirect loop"})),
    max_size=4,
)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(script=SCRIPTS, data=st.binary(max_size=3000), method=st.sampled_from(["GET", "POST"]))
def test_in_every_script_a_body_is_whole_and_a_post_runs_once(
    origin: FaultyOrigin, script: list[str], data: bytes, method: str
) -> None:
    """For random scripts of faults: the answer is the source's or an error."""
    before = origin.count("/x")
    origin.add("/x", data, faults=[TABLE[name]() for name in script])
    options: dict[str, Any] = {"max_retries": 5, "backoff": 0.0001, "timeout": 0.15}
    with suppress(HttpError, httpx.HTTPError):
        assert call("async", method, origin.url("/x"), **options) == data
    answered = origin.count("/x") - before
    if method == "POST":
        turned_away = 0
        for name in script:
            if name not in TURNED_AWAY:
                break
            turned_away += 1
        assert answered <= turned_away + 1


@pytest.mark.parametrize("half", ["sync", "async", "plain"])
def test_an_answer_says_how_long_it_took(origin: FaultyOrigin, half: str) -> None:
    """As those of httpx and requests do."""
    origin.add("/late", b"x", always=delay(0.05))

    async def work() -> httpx.Response:
        async with AsyncHttpClient(http2=half == "plain") as client:
            return await request_async("GET", origin.url("/late"), client=client)

    late: Any = request("GET", origin.url("/late")) if half == "sync" else asyncio.run(work())
    assert 0.02 < late.elapsed.total_seconds() < 60  # timers may be early


async def test_many_requests_at_once_survive_a_bad_server(origin: FaultyOrigin) -> None:
    """Each gets its own answer, never that of another."""
    for number in range(30):
        faults = [reset_after(1), status(503), truncate(2)][: number % 4]
        origin.add(f"/{number}", str(number).encode() * 10, faults=faults)
    texts = await asyncio.gather(
        *(
            fetch_async(origin.url(f"/{number}"), max_retries=5, backoff=0.001)
            for number in range(30)
        )
    )
    assert texts == [str(number) * 10 for number in range(30)]


@pytest.mark.parametrize(
    ("body", "coding", "fault"),
    [
        (gzip.compress(b"\0" * 1_000_000), "gzip", None),
        (b"no gzip", "gzip", None),
        (b"which nothing undoes", "compress", None),
        (b"x" * 1_000_000, "identity", None),
        (b"cut", "identity", truncate(1)),
        (b"cut", "identity", chunked_early_end(1)),
    ],
)
def test_what_a_redirect_holds_beside_its_target_is_no_matter(
    get: Callable[..., str], body: bytes, coding: str, fault: Fault | None
) -> None:
    """Whether that inflates, is damaged, long or cut: nobody asked for it."""
    headers = {"Location": "/page", "Content-Encoding": coding}
    with FaultyOrigin() as origin:
        origin.add("/page", b"hello")
        origin.add("/moved", body, status=302, headers=headers, always=fault)
        assert get(origin.url("/moved")) == "hello"
