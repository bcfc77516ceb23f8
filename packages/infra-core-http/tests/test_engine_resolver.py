"""Look-ups of names: temporary failures, hung name servers, and who waits for them."""

import asyncio
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests

from infra_core.http import (
    OutcomeUnknown,
    download_asset,
    fetch,
    fetch_async,
    request,
    request_async,
)
from infra_core.http.engine.resolver import lookup, lookup_async
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

Answer = Callable[[], None]


class NameServer:
    """Stands in for `socket.getaddrinfo`: names under `.test` are what a test says they are.

    Attributes:
        asked: Names in the order in which they were asked for.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self._changed = threading.Condition()
        self._answers: dict[str, list[BaseException]] = {}
        self._gates: dict[str, threading.Event] = {}
        true = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if not str(host).endswith(".test"):
                return true(host, port, *args, **kwargs)
            with self._changed:
                self.asked.append(host)
                self._changed.notify_all()
            gate = self._gates.get(host)
            if gate is not None:
                gate.wait(60)
            failures = self._answers.get(host)
            if failures:
                raise failures.pop(0)
            return true("127.0.0.1", port, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    def fail(self, host: str, number: int, *, times: int = 1) -> None:
        """Have a name fail with this number of `getaddrinfo`."""
        self._answers[host] = [socket.gaierror(number, "so says the test")] * times

    def hang(self, host: str) -> None:
        """Have a name not be answered until the end of the test."""
        self._gates[host] = threading.Event()

    def wait_for(self, number: int) -> None:
        """Wait until so many questions have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= number, 60)

    def answer(self) -> None:
        """Let all that hangs go on."""
        for gate in self._gates.values():
            gate.set()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer(monkeypatch)
    yield server
    server.answer()


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/page", b"ok")
        yield server


def url(origin: FaultyOrigin, host: str) -> str:
    return origin.url("/page").replace("127.0.0.1", host)


TEMPORARY = [socket.EAI_AGAIN, socket.EAI_MEMORY]


@pytest.mark.parametrize("number", TEMPORARY)
async def test_a_temporary_failure_is_retried(
    names: NameServer, origin: FaultyOrigin, tmp_path: Path, number: int
) -> None:
    """Fetched, sent with POST and downloaded alike: nothing had been sent."""
    with fast_time():
        names.fail("flaky.test", number)
        assert await fetch_async(url(origin, "flaky.test"), max_retries=1) == "ok"
        names.fail("again.test", number)
        answer = await request_async("POST", url(origin, "again.test"), json={}, max_retries=1)
        assert answer.text == "ok"
        names.fail("file.test", number)
        work = asyncio.to_thread(download_asset, url(origin, "file.test"), tmp_path / "file")
        assert (await work).size == 2
        names.fail("sync.test", number)
        assert fetch(url(origin, "sync.test"), max_retries=1) == "ok"
        names.fail("post.test", number)
        assert request("POST", url(origin, "post.test"), json={}, max_retries=1).text == "ok"
    assert names.asked.count("flaky.test") == 2
    assert names.asked.count("post.test") == 2


@pytest.mark.parametrize("half", ["async", "sync"])
def test_too_many_open_files_make_no_name_unknown(
    names: NameServer, origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """The C library cannot read its own files then. It is said, and tried again."""
    opened = os.open

    def full(path: Any, *args: Any, **options: Any) -> int:
        if path == os.devnull:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, *args, **options)

    def get(host: str, retries: int) -> str:
        if half == "sync":
            return fetch(url(origin, host), max_retries=retries)
        return asyncio.run(fetch_async(url(origin, host), max_retries=retries))

    monkeypatch.setattr(os, "open", full)
    names.fail("full.test", socket.EAI_NONAME)
    names.fail("named.test", socket.EAI_NONAME)
    with fast_time():
        assert get("full.test", 1) == "ok"
        with pytest.raises((httpx.ConnectError, requests.ConnectionError)) as caught:
            get("named.test", 0)
    assert os.strerror(errno.EMFILE) in str(caught.value)


@pytest.mark.parametrize("number", [socket.EAI_NONAME, socket.EAI_FAIL])
async def test_an_unknown_name_is_not_retried(
    names: NameServer, origin: FaultyOrigin, number: int
) -> None:
    """The name server's answer would be the same."""
    names.fail("unknown.test", number, times=9)
    with fast_time() as clock, pytest.raises(httpx.ConnectError) as caught:
        await fetch_async(url(origin, "unknown.test"))
    with fast_time() as blocking, pytest.raises(requests.ConnectionError) as raised:
        fetch(url(origin, "unknown.test"))
    assert clock.slept == blocking.slept == []
    for error in (caught.value, raised.value):
        assert "cannot resolve host 'unknown.test' (DNS: so says the test)" in str(error)


async def test_a_post_whose_name_never_resolves_was_not_sent(
    names: NameServer, origin: FaultyOrigin
) -> None:
    """Its outcome is known."""
    names.fail("flaky.test", socket.EAI_AGAIN, times=9)
    with fast_time(), pytest.raises(httpx.ConnectError) as caught:
        await request_async("POST", url(origin, "flaky.test"), json={}, max_retries=1)
    assert not isinstance(caught.value, OutcomeUnknown)
    assert names.asked == ["flaky.test"] * 2


async def test_a_hung_name_stops_no_other(names: NameServer, origin: FaultyOrigin) -> None:
    """Neither other look-ups nor the default executor, however many names hang."""
    for number in range(40):
        names.hang(f"hung{number}.test")
    waiting = [
        asyncio.create_task(fetch_async(url(origin, f"hung{number}.test"), max_retries=0))
        for number in range(40)
    ]
    await asyncio.to_thread(names.wait_for, 40)
    assert await asyncio.wait_for(fetch_async(url(origin, "fine.test")), 30) == "ok"
    assert await asyncio.wait_for(asyncio.to_thread(lambda: 1), 30) == 1
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_timeout_and_deadline_hold_while_a_name_hangs(
    names: NameServer, origin: FaultyOrigin
) -> None:
    """Both name the host."""
    names.hang("hung.test")
    started = time.monotonic()
    with pytest.raises(httpx.ConnectTimeout, match=r"hung\.test"):
        await fetch_async(url(origin, "hung.test"), timeout=0.1, max_retries=0)
    with pytest.raises(httpx.TimeoutException, match=r"hung\.test"):
        await fetch_async(url(origin, "hung.test"), deadline=0.1)
    assert time.monotonic() - started < 20


async def test_many_who_ask_for_one_name_ask_once(names: NameServer) -> None:
    """Waiters on a loop and in threads share the look-up under way."""
    names.hang("busy.test")
    tasks = [asyncio.create_task(lookup_async("busy.test", 80, flags=0)) for _ in range(20)]
    threads = [
        asyncio.create_task(asyncio.to_thread(lookup, "busy.test", 80, timeout=60))
        for _ in range(3)
    ]
    await asyncio.to_thread(names.wait_for, 1)
    names.answer()
    found = await asyncio.gather(*tasks, *threads)
    assert {answers[0][4] for answers in found} == {("127.0.0.1", 80)}
    assert len(names.asked) <= 2  # a thread that began late asks anew


async def test_a_waiter_that_gives_up_leaves_the_others_their_answer(names: NameServer) -> None:
    """Cancelled alone."""
    names.hang("busy.test")
    first, second = (asyncio.create_task(lookup_async("busy.test", 80)) for _ in range(2))
    await asyncio.to_thread(names.wait_for, 1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    names.answer()
    assert (await second)[0][4] == ("127.0.0.1", 80)
    assert names.asked == ["busy.test"]


async def test_an_answer_is_not_handed_on_to_later_callers(names: NameServer) -> None:
    """Though one who waited for it has not gone on yet: a name is never older than its question."""
    waiting = asyncio.create_task(lookup_async("busy.test", 80, flags=0))
    await asyncio.sleep(0)
    asked = []
    for _ in range(3):  # and the loop has no turn meanwhile
        assert lookup("busy.test", 80, timeout=60)
        asked.append(len(names.asked))
    assert asked[2] == asked[1] + 1 == asked[0] + 2
    await waiting


async def test_each_waiter_gets_an_exception_of_its_own(names: NameServer) -> None:
    """One that is raised twice would gather both tracebacks."""
    names.hang("bad.test")
    names.fail("bad.test", socket.EAI_AGAIN)
    tasks = [asyncio.create_task(lookup_async("bad.test", 80)) for _ in range(2)]
    await asyncio.to_thread(names.wait_for, 1)
    names.answer()
    one, two = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(one, socket.gaierror)
    assert isinstance(two, socket.gaierror)
    assert one is not two
    assert one.args == two.args


def test_timeout_and_deadline_hold_in_the_blocking_half_too(
    names: NameServer, origin: FaultyOrigin
) -> None:
    """Though `getaddrinfo` itself would block for as long as it likes."""
    names.hang("hung.test")
    started = time.monotonic()
    with pytest.raises(requests.ConnectTimeout, match=r"hung\.test"):
        fetch(url(origin, "hung.test"), timeout=0.1, max_retries=0)
    with pytest.raises(requests.Timeout, match=r"hung\.test"):
        fetch(url(origin, "hung.test"), deadline=0.1)
    assert fetch(url(origin, "fine.test")) == "ok"
    assert time.monotonic() - started < 20


def test_a_blocking_look_up_ends_in_time(names: NameServer) -> None:
    """Though getaddrinfo itself cannot be stopped."""
    names.hang("hung.test")
    with pytest.raises(TimeoutError, match=r"hung\.test"):
        lookup("hung.test", 80, timeout=0.05)
    assert lookup("fine.test", 80, timeout=30)[0][4] == ("127.0.0.1", 80)


def test_the_process_ends_while_a_name_hangs() -> None:
    """At once, without waiting for the thread."""
    code = """
import asyncio, logging, socket, time
logging.disable(50)
socket.getaddrinfo = lambda *a, **k: time.sleep(600)
from infra_core.http import fetch_async
async def main():
    try:
        await fetch_async("http://hung.test/", timeout=0.2, max_retries=0)
    except Exception as error:
        print(type(error).__name__)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.strip(), done.stderr) == ("ConnectTimeout", "")
