"""Whose connections are whose: event loops, threads, processes, limits, the end of the process."""

import asyncio
import contextlib
import gc
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests
import trustme

import infra_core.http as http
from infra_core.http import (
    AsyncHttpClient,
    DeadlineExceeded,
    RequestsHttpClient,
    aio,
    fetch,
    fetch_async,
    get_shared_http_client,
    request,
    request_async,
    reset_shared_http_client,
    set_shared_http_client,
    stream,
    stream_async,
)
from infra_core.http.testing import FaultyOrigin, delay, stall
from infra_core.runtime import RateLimit
from infra_core.runtime.testing import fast_time


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"hello")
        yield running


def test_each_event_loop_has_its_own_httpx_client(origin: FaultyOrigin) -> None:
    """One client object serves loop after loop, and each loop's connections end with it."""
    client = AsyncHttpClient()
    seen = []

    async def work() -> None:
        inner = await client.get_client()
        assert inner is await client.get_client()
        assert isinstance(inner, httpx.AsyncClient)
        seen.append(inner)
        assert await fetch_async(origin.url("/page"), client=client) == "hello"

    for _ in range(3):
        asyncio.run(work())
    assert len({id(inner) for inner in seen}) == 3
    assert all(inner.is_closed for inner in seen)
    assert origin.connections == 3


def test_two_live_loops_do_not_disturb_each_other(origin: FaultyOrigin) -> None:
    """A request under way on one loop survives the first request on another."""
    origin.add("/slow", b"slow", always=delay(0.2))
    results: list[str] = []
    started = threading.Event()

    def other() -> None:
        async def work() -> None:
            task = asyncio.create_task(fetch_async(origin.url("/slow"), max_retries=0))
            while not origin.count("/slow"):  # noqa: ASYNC110 - it is in another thread
                await asyncio.sleep(0.001)
            started.set()
            results.append(await task)

        asyncio.run(work())

    thread = threading.Thread(target=other)
    thread.start()
    assert started.wait(30)
    results.append(asyncio.run(fetch_async(origin.url("/page"))))
    thread.join(30)
    assert sorted(results) == ["hello", "slow"]


async def test_a_closed_client_opens_again(origin: FaultyOrigin) -> None:
    """close() ends the connections, not the client."""
    client = AsyncHttpClient()
    first = await client.get_client()
    await fetch_async(origin.url("/page"), client=client)
    await client.close()
    assert first.is_closed
    await fetch_async(origin.url("/page"), client=client)
    assert (await client.get_client()) is not first
    assert origin.connections == 2
    await client.close()


HEAD = b"HTTP/1.1 200 OK\r\n"
BEGINNINGS = {
    "nothing": b"",
    "a head": HEAD,
    "a length": HEAD + b"Content-Length: 9\r\n\r\nabc",
    "chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "no end": HEAD + b"\r\nabc",
    "a redirect": b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 9\r\n\r\nabc",
}


@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("over_tls", [False, True])
async def test_who_waits_for_an_answer_hears_that_the_client_was_closed(
    beginning: bytes, authority: trustme.CA, *, over_tls: bool
) -> None:
    """At once, whatever has come; what came is not taken for all of it."""
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(here)
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    asked = asyncio.Semaphore(0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(beginning)
            asked.release()
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=here if over_tls else None)
    host, port = server.sockets[0].getsockname()
    url = f"http{'s' * over_tls}://{host}:{port}/"
    client = AsyncHttpClient(verify=trusted)

    async def streamed() -> None:
        async with stream_async("GET", url, client=client) as response:
            await response.aread()

    async def later() -> None:
        async with stream_async("GET", url, client=client) as response:
            await client.close()
            await response.aread()

    single: Any = {"client": client, "max_retries": 0}
    ways = [
        streamed(),
        fetch_async(url, **single),
        request_async("GET", url, **single),
        request_async("PUT", url, content=b"in", **single),
    ]
    tasks = [asyncio.ensure_future(way) for way in ways]
    for _ in tasks:
        await asked.acquire()
    await asyncio.sleep(0)
    await client.close()
    if beginning.count(b"\r\n") > 1 and b"Location" not in beginning:
        tasks.append(asyncio.ensure_future(later()))
    for task in tasks:
        with pytest.raises(httpx.ReadError, match="client was closed"):
            await asyncio.wait_for(task, 20)
    server.close()
    await client.close()


@pytest.mark.parametrize(
    ("options", "answer"),
    [({"limits": httpx.Limits(max_connections=1)}, None), ({"max_per_host": 1}, "hello")],
    ids=["a connection", "the turn of a host"],
)
async def test_who_waits_to_begin_when_the_client_is_closed(
    origin: FaultyOrigin, options: dict[str, Any], answer: str | None
) -> None:
    """Nothing is opened that no code closes: it is told, or goes over connections of the next."""
    origin.add("/stall", b"never", always=stall())
    client = AsyncHttpClient(**options)
    first = asyncio.ensure_future(fetch_async(origin.url("/stall"), client=client, max_retries=0))
    while not origin.count("/stall"):  # noqa: ASYNC110 - it is in another thread
        await asyncio.sleep(0.001)
    second = asyncio.ensure_future(fetch_async(origin.url("/page"), client=client, max_retries=0))
    await asyncio.sleep(0)
    await client.close()
    for task in (first, second) if answer is None else (first,):
        with pytest.raises(httpx.ReadError, match="client was closed"):
            await task
    if answer is not None:
        assert await second == answer
    await client.close()


async def test_a_client_is_closed_while_it_connects() -> None:
    """To a server that takes the connection and never begins with TLS."""
    here: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: here.put(writer), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    client = AsyncHttpClient()
    task = asyncio.ensure_future(fetch_async(f"https://{host}:{port}/", client=client))
    writer = await here.get()
    await client.close()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    writer.transport.abort()
    server.close()


async def test_a_client_that_somebody_else_closed_is_replaced(origin: FaultyOrigin) -> None:
    """`async with await client.get_client()` must not end the shared client for all."""
    async with AsyncHttpClient() as client:
        async with await client.get_client() as inner:
            assert (await inner.get(origin.url("/page"))).text == "hello"
        assert await fetch_async(origin.url("/page"), client=client) == "hello"
        assert not (await client.get_client()).is_closed


async def test_reconfigure_replaces_all_settings(origin: FaultyOrigin) -> None:
    """The next request has them."""
    async with AsyncHttpClient(headers={"X-A": "1"}) as client:
        await fetch_async(origin.url("/page"), client=client)
        await client.reconfigure(headers={"X-B": "2"})
        await fetch_async(origin.url("/page"), client=client)
    assert "x-a" in origin.requests[0].headers
    assert "x-a" not in origin.requests[1].headers
    assert origin.requests[1].headers["x-b"] == "2"


async def test_the_shared_async_client_can_be_set_reset_and_reconfigured(
    origin: FaultyOrigin,
) -> None:
    """By the names of 0.7."""
    mine = AsyncHttpClient(headers={"X-Whose": "mine"})
    aio.set_shared_http_client(mine)
    try:
        assert aio.get_shared_http_client() is mine
        await fetch_async(origin.url("/page"))
        assert origin.requests[-1].headers["x-whose"] == "mine"
        await aio.reconfigure_shared_http_client(headers={"X-Whose": "changed"})
        await fetch_async(origin.url("/page"))
        assert origin.requests[-1].headers["x-whose"] == "changed"
    finally:
        await aio.close_async_http_client()
        aio.reset_shared_http_client()
    assert aio.get_shared_http_client() is not mine
    await fetch_async(origin.url("/page"))
    assert "x-whose" not in origin.requests[-1].headers


def test_each_thread_has_its_own_session(origin: FaultyOrigin) -> None:
    """requests.Session is not for sharing; close() closes them all."""
    made: list[requests.Session] = []
    closed: list[requests.Session] = []

    class Session(requests.Session):
        def close(self) -> None:
            closed.append(self)
            super().close()

    def factory() -> requests.Session:
        made.append(Session())
        return made[-1]

    client = RequestsHttpClient(session_factory=factory)
    barrier = threading.Barrier(3)

    def work() -> None:
        for _ in range(2):
            assert fetch(origin.url("/page"), client=client) == "hello"
            barrier.wait(30)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(made) == 3
    fetch(origin.url("/page"), client=client)  # a fourth thread; the ended ones are swept
    assert len(closed) == 3
    client.close()
    assert len(closed) == 4
    fetch(origin.url("/page"), client=client)
    assert len(made) == 5
    client.close()


def test_reconfigure_of_the_blocking_client_takes_another_factory(origin: FaultyOrigin) -> None:
    """And closes what the old one made."""

    def factory() -> requests.Session:
        session = requests.Session()
        session.headers["X-Whose"] = "mine"
        return session

    with RequestsHttpClient() as client:
        fetch(origin.url("/page"), client=client)
        client.reconfigure(session_factory=factory)
        fetch(origin.url("/page"), client=client)
    assert "x-whose" not in origin.requests[0].headers
    assert origin.requests[1].headers["x-whose"] == "mine"


def test_the_shared_blocking_client_can_be_set_and_reset(origin: FaultyOrigin) -> None:
    """By the names of 0.7."""
    before = get_shared_http_client()
    with RequestsHttpClient() as mine:
        set_shared_http_client(mine)
        assert get_shared_http_client() is mine
        assert fetch(origin.url("/page")) == "hello"
        reset_shared_http_client(session_factory=requests.Session)
    assert get_shared_http_client() not in (mine, before)
    assert fetch(origin.url("/page")) == "hello"
    reset_shared_http_client()


def test_nothing_is_left_open_at_the_end_of_the_process(origin: FaultyOrigin) -> None:
    """No code calls close(), whatever the loops and threads, and no ResourceWarning comes."""
    code = f"""
import asyncio, gc, threading, httpx
from infra_core.http import fetch, fetch_async, request_async, AsyncHttpClient
url = {origin.url("/page")!r}
for _ in range(2):
    asyncio.run(fetch_async(url))
asyncio.run(request_async("POST", url, json={{}}))
asyncio.run(AsyncHttpClient(transport=httpx.AsyncHTTPTransport()).get_client())
loop = asyncio.new_event_loop()
loop.run_until_complete(fetch_async(url))
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
fetch(url)
threading.Thread(target=fetch, args=(url,)).start()
gc.collect()
"""
    command = [sys.executable, "-W", "error", "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stderr) == (0, "")


async def test_a_client_left_open_is_closed_when_it_is_garbage(
    origin: FaultyOrigin,
) -> None:
    """By the garbage collector, through its loop."""
    client = AsyncHttpClient()
    await fetch_async(origin.url("/page"), client=client)
    inner = await client.get_client()
    del client
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)
    assert inner.is_closed


@pytest.mark.posix
def test_a_forked_child_uses_connections_of_its_own(origin: FaultyOrigin) -> None:
    """And leaves those of the parent alone, whatever other threads did at that moment."""
    code = f"""
import os, warnings, asyncio
warnings.simplefilter("ignore")
from infra_core.http import fetch, fetch_async, get_shared_http_client
url = {origin.url("/page")!r}
fetch(url); asyncio.run(fetch_async(url))
get_shared_http_client()._lock.acquire()
pid = os.fork()
if not pid:
    get_shared_http_client().close()
    ok = fetch(url) == "hello" and asyncio.run(fetch_async(url)) == "hello"
    os._exit(0 if ok else 1)
get_shared_http_client()._lock.release()
_, status = os.waitpid(pid, 0)
assert status == 0, status
assert fetch(url) == "hello"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=50)


async def test_requests_to_one_host_are_limited_in_number(origin: FaultyOrigin) -> None:
    """max_per_host at once, and no more."""
    origin.add("/slow", b"x", always=delay(0.02))
    async with AsyncHttpClient(max_per_host=2) as client:
        await asyncio.gather(*(fetch_async(origin.url("/slow"), client=client) for _ in range(8)))
    assert origin.peak_in_flight == 2


async def test_requests_to_one_host_are_limited_in_rate(origin: FaultyOrigin) -> None:
    """Evenly spaced; another host is not held up."""
    with FaultyOrigin() as other, fast_time() as time:
        other.add("/page", b"x")
        async with AsyncHttpClient(max_per_second_per_host=4) as client:
            for _ in range(3):
                await fetch_async(origin.url("/page"), client=client)
            assert time.slept == [pytest.approx(0.25), pytest.approx(0.25)]
            await fetch_async(other.url("/page"), client=client)
            assert len(time.slept) == 2


def test_the_blocking_client_has_the_same_limits(origin: FaultyOrigin) -> None:
    """In number across threads, and in rate."""
    origin.add("/slow", b"x", always=delay(0.02))
    with RequestsHttpClient(max_per_host=2) as client:
        url = origin.url("/slow")
        threads = [
            threading.Thread(target=fetch, args=(url,), kwargs={"client": client}) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert origin.peak_in_flight == 2
    with RequestsHttpClient(max_per_second_per_host=10) as client, fast_time() as time:
        for deadline in (None, None, 60):
            fetch(origin.url("/page"), client=client, deadline=deadline)
    assert sum(time.slept) == pytest.approx(0.2)


@pytest.mark.parametrize("half", ["async", "sync"])
@pytest.mark.parametrize("limit", [{"max_per_host": 1}, {"max_per_second_per_host": 0.0001}])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_wait_for_a_turn_ends_with_the_deadline(
    origin: FaultyOrigin, half: str, limit: dict[str, Any], method: str
) -> None:
    """And what never had its turn was not sent: no outcome is unknown."""
    url = origin.url("/page")
    if half == "async":

        async def work() -> None:
            async with (
                AsyncHttpClient(**limit) as client,
                stream_async("GET", url, client=client),
            ):
                await request_async(method, url, client=client, deadline=0.1)

        with pytest.raises(DeadlineExceeded):
            asyncio.run(work())
    else:
        with (
            RequestsHttpClient(**limit) as client,
            stream("GET", url, client=client),
            pytest.raises(DeadlineExceeded),
        ):
            request(method, url, client=client, deadline=0.1)
    assert origin.count("/page") == 1


def test_a_rate_schedule_spaces_starts_evenly_and_forgets_old_hosts() -> None:
    """Time that passed is not saved up for a burst."""
    schedule = RateLimit(2, catch_up=0.0)
    assert [schedule.reserve(0.0, "a") for _ in range(3)] == [0.0, 0.5, 1.0]
    assert schedule.reserve(0.0, "b") == 0.0
    assert schedule.reserve(100.0, "a") == 0.0
    assert schedule.reserve(100.0, "a") == 0.5
    for number in range(5000):
        schedule.reserve(200.0 + number, str(number))
    assert len(schedule._next) < 5000


@pytest.mark.parametrize(
    "limits",
    [{"max_per_host": 0}, {"max_per_second_per_host": 0}, {"max_per_second_per_host": -1}],
)
def test_limits_that_let_nothing_through_are_refused(limits: dict[str, Any]) -> None:
    """At once, by a ValueError that names the parameter."""
    for client in (AsyncHttpClient, RequestsHttpClient):
        with pytest.raises(ValueError, match=next(iter(limits))):
            client(**limits)


def test_every_exported_name_resolves() -> None:
    """Of the package and of the names of 0.7's http_async."""
    for module in (http, aio):
        assert sorted(set(module.__all__)) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)


def test_the_retry_policy_of_0_7_is_checked() -> None:
    """Positional, frozen, and no negative numbers."""
    policy = aio.RetryPolicy(1, 0.5, 2.0, [503])
    assert (policy.max_retries, policy.backoff, policy.max_backoff) == (1, 0.5, 2.0)
    assert policy.retry_statuses == [503]
    assert aio.RetryPolicy().retry_statuses is None
    wrong: Any
    for wrong in (-1, []):
        with pytest.raises(ValueError, match="max_retries"):
            aio.RetryPolicy(max_retries=wrong)
