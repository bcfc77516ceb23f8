"""Send a table of odd answers through every way of `infra_core.http`, and through other programs.

    python tools/odd_answers.py             where we differ among ourselves, and from the others
    python tools/odd_answers.py gzip 206    cases with such names, with what each way made of them

Exits with 1 when two of our ways differ, when one differs from the table, or when another program
differs and the table has no reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import shutil
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import h11
import httpx
import requests

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    RequestsHttpClient,
    fetch,
    fetch_async,
    request,
    request_async,
    stream,
    stream_async,
)
from odd_answers_table import CASES, Case

Outcome = tuple[object, ...]
TIMEOUT = 5.0
AFTER = b"the answer to the next request"
_ENCODED = re.compile("%[0-9a-f]{2}", re.IGNORECASE)
_NOT_ASKED_FOR = b"HTTP/1.1 421 Not asked for\r\nContent-Length: 0\r\n\r\n"


class Origin:
    """A server that sends each case's bytes as they are, and reads requests as strictly as h11."""

    def __init__(self) -> None:
        self.cases = {f"/{number}": case for number, case in enumerate(CASES)}
        self.complaints: list[str] = []
        origin = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    origin._serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

        self.server = Server(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        rest = b""
        while True:
            reader = h11.Connection(h11.SERVER)
            if rest:
                reader.receive_data(rest)
            target = None
            while True:
                try:
                    event = reader.next_event()
                except h11.RemoteProtocolError as error:
                    self.complaints.append(str(error))
                    return
                if event is h11.NEED_DATA:
                    data = connection.recv(65_536)
                    if not data:
                        return
                    reader.receive_data(data)
                elif isinstance(event, h11.Request):
                    target = event.target.decode("ascii")
                    named = {name for name, _ in event.headers}
                    if named & {b"transfer-encoding", b"content-length"}:
                        self.complaints.append(f"a GET of {target} names a body")
                elif not isinstance(event, h11.Data):
                    break
            rest = reader.trailing_data[0]
            assert target is not None
            raw, closes = self._answer(target)
            connection.sendall(raw)
            if closes:
                connection.shutdown(socket.SHUT_WR)
                return

    def _answer(self, target: str) -> tuple[bytes, bool]:
        number, _, path = target[1:].partition("/")
        case = self.cases.get("/" + number)
        if case is None:
            return _NOT_ASKED_FOR, False
        if path == "here":
            # an absolute path is one below the number of the case
            inside = b"Location: /%b/" % number.encode()
            return case.raw.replace(b"Location: /", inside), case.closes
        if path == "after":
            head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
            return head % len(AFTER) + AFTER, False
        capital = _ENCODED.sub(lambda found: found[0].upper(), path)
        return case.more.get("/" + capital, _NOT_ASKED_FOR), False


def judged(call: Callable[[], Outcome]) -> Outcome:
    """What a call comes to."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - that is what this is about
        return _failure(error)


async def _judged_async(way: Callable[[str], Any], url: str) -> Outcome:
    try:
        outcome: Outcome = await way(url)
    except Exception as error:  # noqa: BLE001 - as above
        return _failure(error)
    return outcome


def _failure(error: Exception) -> Outcome:
    """A status, an error that callers expect, or the name of one that they do not."""
    if isinstance(error, (requests.HTTPError, httpx.HTTPStatusError)):
        return ("status", error.response.status_code)
    if isinstance(error, (requests.RequestException, httpx.HTTPError, OSError)):
        return ("error",)
    names = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return ("error",) if "infra_core" in names else ("raises", type(error).__name__)


class Ours:
    """The ways of `infra_core.http`, each with one client for all cases."""

    def __init__(self, folder: Path) -> None:
        self.sync = {name: RequestsHttpClient() for name in ("fetch", "request", "stream")}
        names = ("fetch_async", "request_async", "stream_async")
        self.asynchronous = {name: AsyncHttpClient() for name in names}
        self.download = AssetDownloadClient(max_retries=0, timeout=TIMEOUT)
        self.folder = folder
        self.options: dict[str, Any] = {"timeout": TIMEOUT, "max_retries": 0}

    def ways(self) -> dict[str, Callable[[str], Any]]:
        return {
            "fetch": self._fetch,
            "request": self._request,
            "max_bytes": self._capped,
            "stream": self._stream,
            "fetch_async": self._fetch_async,
            "request_async": self._request_async,
            "max_bytes_async": self._capped_async,
            "stream_async": self._stream_async,
            "download": self._download,
        }

    def _fetch(self, url: str) -> Outcome:
        return "ok", None, fetch(url, client=self.sync["fetch"], **self.options)

    def _request(self, url: str) -> Outcome:
        response = request("GET", url, client=self.sync["request"], **self.options)
        return "ok", response.content, response.text

    def _capped(self, url: str) -> Outcome:
        client = self.sync["request"]
        response = request("GET", url, client=client, max_bytes=100_000, **self.options)
        return "ok", response.content, response.text

    def _stream(self, url: str) -> Outcome:
        with stream("GET", url, client=self.sync["stream"], timeout=TIMEOUT) as response:
            body = b"".join(response.iter_content(7))
            if not 200 <= response.status_code < 300:
                return "status", response.status_code
        return "ok", body, None

    async def _fetch_async(self, url: str) -> Outcome:
        client = self.asynchronous["fetch_async"]
        return "ok", None, await fetch_async(url, client=client, **self.options)

    async def _request_async(self, url: str) -> Outcome:
        client = self.asynchronous["request_async"]
        response = await request_async("GET", url, client=client, **self.options)
        return "ok", response.content, response.text

    async def _capped_async(self, url: str) -> Outcome:
        client = self.asynchronous["request_async"]
        response = await request_async("GET", url, client=client, max_bytes=100_000, **self.options)
        return "ok", response.content, response.text

    async def _stream_async(self, url: str) -> Outcome:
        client = self.asynchronous["stream_async"]
        async with stream_async("GET", url, client=client, timeout=TIMEOUT) as response:
            body = b"".join([piece async for piece in response.aiter_bytes()])
            if not 200 <= response.status_code < 300:
                return "status", response.status_code
        return "ok", body, None

    async def _download(self, url: str) -> Outcome:
        path = self.folder / url.rpartition("://")[2].replace("/", "_")
        path.unlink(missing_ok=True)
        await self.download.download(url, path)
        return "ok", path.read_bytes(), None

    async def close(self) -> None:
        for client in self.sync.values():
            client.close()
        for asynchronous in self.asynchronous.values():
            await asynchronous.close()
        await self.download.close()


def with_curl(url: str) -> Outcome:
    """`curl -L --compressed`."""
    command = ["curl", "-sSL", "--compressed", "--max-time", "5", "--max-redirs", "20"]
    done = subprocess.run(
        [*command, "-w", "\\n%{http_code}", url], capture_output=True, check=False
    )
    if done.returncode:
        return ("error",)
    body, _, code = done.stdout.rpartition(b"\n")
    return ("ok", body, None) if code.startswith(b"2") else ("status", int(code))


def with_requests(url: str) -> Outcome:
    """`requests.get` and `raise_for_status`."""
    response = requests.get(url, timeout=TIMEOUT)
    response.raise_for_status()
    return "ok", response.content, response.text


def with_httpx(url: str) -> Outcome:
    """`httpx.get` and `raise_for_status`."""
    response = httpx.get(url, timeout=TIMEOUT, follow_redirects=True, verify=False)
    response.raise_for_status()
    return "ok", response.content, response.text


OTHER_WAYS: dict[str, Callable[[str], Outcome]] = {
    "curl": with_curl,
    "requests": with_requests,
    "httpx": with_httpx,
}


def agrees(outcome: Outcome, want: Outcome) -> bool:
    """Whether an outcome is the wanted one, as far as that way shows."""
    if outcome[0] != want[0]:
        return False
    return all(
        there is None or there == wanted for there, wanted in zip(outcome, want, strict=True)
    )


async def ours(origin: Origin, case: Case, number: str, all_ours: Ours) -> dict[str, Outcome]:
    """Return what each of our ways makes of a case, and of the request after it."""
    found: dict[str, Outcome] = {}
    for name, way in all_ours.ways().items():
        for path in ("here", "after"):
            url = f"{origin.base}{number}/{path}"
            if asyncio.iscoroutinefunction(way):
                outcome = await _judged_async(way, url)
            else:
                outcome = await asyncio.to_thread(judged, partial(way, url))
            if path == "here":
                found[name] = outcome
            elif not agrees(outcome, ("ok", AFTER, AFTER.decode())):
                found[f"{name}, next request"] = outcome
    return found


def problems(
    case: Case, found: dict[str, Outcome], others: dict[str, Outcome]
) -> Iterator[tuple[str, Outcome]]:
    """Yield who differs from the table without a reason."""
    for name, outcome in found.items():
        if not agrees(outcome, case.want) and name != "download":
            yield name, outcome
    judged_by_reason = {**others, "download": found["download"]}
    for name, outcome in judged_by_reason.items():
        if agrees(outcome, case.want) == (name in case.why):
            yield f"{name} ({case.why.get(name, 'no reason')})", outcome


async def main(words: list[str]) -> int:
    """Run the table."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    origin = Origin()
    programs = [name for name in OTHER_WAYS if name != "curl" or shutil.which("curl")]
    if "curl" not in programs:
        print("curl is not installed, and not compared")
    count = bad = 0
    with tempfile.TemporaryDirectory() as folder:
        all_ours = Ours(Path(folder))
        for number, case in origin.cases.items():
            if words and not any(word in case.name for word in words):
                continue
            count += 1
            found = await ours(origin, case, number, all_ours)
            here = f"{origin.base}{number}/here"
            others = {
                name: await asyncio.to_thread(judged, partial(OTHER_WAYS[name], here))
                for name in programs
            }
            wrong = list(problems(case, found, others))
            bad += bool(wrong)
            if wrong or words:
                print(f"{case.name}: expected {shown(case.want)}")
            for name, outcome in [*found.items(), *others.items()] if words else wrong:
                print(f"    {name}: {shown(outcome)}")
        await all_ours.close()
    for complaint in dict.fromkeys(origin.complaints):
        print(f"a request of ours or theirs: {complaint}")
    print(f"{count} answers, {bad} with a difference that has no reason")
    return int(bool(bad))


def shown(outcome: Outcome) -> str:
    """An outcome, short."""
    return " ".join(str(part)[:60] for part in outcome if part is not None)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
