"""Requests per second against nginx on loopback: ours, httpx, aiohttp and others in one run.

Each request asks for a URL that was not asked for before, as a crawler does, so that nothing gains
by remembering URLs, and over connections that are open before the clock starts. Beside the rate
stands the CPU time of the client per request, which changes less with what else the machine does.
Each is that of the best of several turns.

Promises: at 50 at once, `fetch_async` does at least 10 times the requests of plain httpx, and 0.6
of those of bare aiohttp, over TLS as well; a redirected one, which is two requests, 0.45 of a
direct one. At 1 at once it does at least 3 times those of httpx, and `fetch` as many as
`httpx.Client`. Exits with 1 when a promise is broken.

    hatch run bench:python tools/bench/http_requests.py [--rounds 15] [--seconds 0.2] [--json]

Needs nginx on the PATH or in /usr/sbin (`apt install nginx-light`, `brew install nginx`).
Clients that are not installed (httpx-aiohttp, httpx-retries) are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import itertools
import json
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import trustme
from download import Nginx  # type: ignore[import-not-found]

Get = Callable[[str], Awaitable[object]]
BODY = b"<p>" + b"x" * 1017 + b"</p>"
FASTEST = "aiohttp"
REDIRECTED = "fetch_async, redirected"
OVER_TLS = "fetch_async, TLS"
FASTEST_OVER_TLS = "aiohttp, TLS"
PROMISES = [  # at once, client, peer, at least
    (50, "fetch_async", "httpx", 10.0),
    (50, "fetch_async", FASTEST, 0.6),
    (50, OVER_TLS, FASTEST_OVER_TLS, 0.6),
    (50, REDIRECTED, "fetch_async", 0.45),
    (1, "fetch_async", "httpx", 3.0),
    (1, "fetch", "httpx.Client", 1.0),
]

_queries = itertools.count()


class Cost(NamedTuple):
    """What a request cost.

    Attributes:
        rate: Requests per second.
        cpu: Microseconds of CPU time that the client's process spent on each, user and system.
    """

    rate: float
    cpu: float


@contextlib.contextmanager
def nginx() -> Iterator[tuple[str, str, str]]:
    """Serve one small page on two free ports; give out its URLs and the CA of the second one."""
    with tempfile.TemporaryDirectory(prefix="infra-core-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx started by root reads files as another user
        (folder / "page.html").write_bytes(BODY)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            tls = probe.getsockname()[1]
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        certificate.write_to_path(str(folder / "cert.pem"))
        server = Nginx(
            folder,
            folder,
            f"listen 127.0.0.1:{tls} ssl; ssl_certificate {folder}/cert.pem;"
            f"ssl_certificate_key {folder}/cert.pem;"
            "location = /moved.html { return 302 /page.html?$args; }",
        )
        try:
            page = "page.html"
            yield f"{server.base}/{page}", f"https://127.0.0.1:{tls}/{page}", f"{folder}/ca.pem"
        finally:
            server.stop()


@contextlib.asynccontextmanager
async def clients(url: str, secure: str, bundle: str) -> AsyncIterator[dict[str, Get]]:
    """Every client that is installed, as a coroutine function that fetches the page's text."""
    import aiohttp
    import httpx

    from infra_core.http import AsyncHttpClient, fetch_async, request_async

    async with contextlib.AsyncExitStack() as stack:
        ours = AsyncHttpClient()
        stack.push_async_callback(ours.close)
        ours_tls = AsyncHttpClient(verify=bundle)
        stack.push_async_callback(ours_tls.close)
        context = ssl.create_default_context(cafile=bundle)
        plain = await stack.enter_async_context(httpx.AsyncClient())
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def with_aiohttp(query: str) -> str:
            async with session.get(url + query) as response:
                return await response.text()

        async def with_aiohttp_over_tls(query: str) -> str:
            async with session.get(secure + query, ssl=context) as response:
                return await response.text()

        async def through_get_client(query: str) -> str:
            return (await (await ours.get_client()).get(url + query)).text

        moved = url.replace("page", "moved")
        found: dict[str, Get] = {
            "fetch_async": lambda query: fetch_async(url + query, client=ours),
            REDIRECTED: lambda query: fetch_async(moved + query, client=ours),
            OVER_TLS: lambda query: fetch_async(secure + query, client=ours_tls),
            "request_async": lambda query: request_async("GET", url + query, client=ours),
            "get_client().get": through_get_client,
            "httpx": lambda query: plain.get(url + query),
            FASTEST: with_aiohttp,
            FASTEST_OVER_TLS: with_aiohttp_over_tls,
        }
        if importlib.util.find_spec("httpx_aiohttp"):
            from httpx_aiohttp import AiohttpTransport

            bridged = httpx.AsyncClient(transport=AiohttpTransport(client=session))
            stack.push_async_callback(bridged.aclose)
            found["httpx-aiohttp"] = lambda query: bridged.get(url + query)
        if importlib.util.find_spec("httpx_retries"):
            from httpx_retries import RetryTransport

            retrying = httpx.AsyncClient(transport=RetryTransport())
            stack.push_async_callback(retrying.aclose)
            found["httpx-retries"] = lambda query: retrying.get(url + query)
        yield found


def next_query() -> str:
    """Return a query that no request had before."""
    return f"?item={next(_queries)}"


@contextlib.contextmanager
def measuring(samples: list[Cost]) -> Iterator[Callable[[int], None]]:
    """Add to the samples what the requests cost that are counted within the block."""
    done = 0

    def count(requests: int = 1) -> None:
        nonlocal done
        done += requests

    started, cpu = time.perf_counter(), time.process_time()
    yield count
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    samples.append(Cost(done / seconds, cpu / done * 1e6))


def best(samples: dict[str, list[Cost]]) -> dict[str, Cost]:
    """The best turn of each client: what else the machine does only makes a turn worse."""
    return {
        name: Cost(max(cost.rate for cost in costs), min(cost.cpu for cost in costs))
        for name, costs in samples.items()
    }


async def run(get: Get, at_once: int, seconds: float, samples: list[Cost]) -> None:
    """So many workers, each one request after the other."""
    await asyncio.gather(*(get(next_query()) for _ in range(at_once)))
    end = time.perf_counter() + seconds

    async def worker(count: Callable[[int], None]) -> None:
        while time.perf_counter() < end:
            await get(next_query())
            count(1)

    with measuring(samples) as count:
        await asyncio.gather(*(worker(count) for _ in range(at_once)))


async def measure(
    urls: tuple[str, str, str], at_once: int, rounds: int, seconds: float
) -> dict[str, Cost]:
    """The cost per client; the clients take turns, so that noise hits all alike."""
    samples: dict[str, list[Cost]] = {}
    async with clients(*urls) as found:
        for get in found.values():
            await run(get, at_once, 0.2, [])
        for _ in range(rounds):
            for name, get in found.items():
                await run(get, at_once, seconds, samples.setdefault(name, []))
    return best(samples)


def measure_sync(url: str, at_once: int, rounds: int, seconds: float) -> dict[str, Cost]:
    """The same for the blocking clients, in threads."""
    import httpx
    import requests

    from infra_core.http import fetch

    local = threading.local()

    def with_requests(query: str) -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        text: str = local.session.get(url + query, timeout=30).text
        return text

    blocking = httpx.Client(limits=httpx.Limits(max_connections=100))

    def one(get: Callable[[str], object], samples: list[Cost]) -> None:
        counts: list[int] = []
        ready = threading.Barrier(at_once + 1)

        def worker() -> None:
            get(next_query())
            ready.wait()
            done = 0
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                get(next_query())
                done += 1
            counts.append(done)

        threads = [threading.Thread(target=worker) for _ in range(at_once)]
        for thread in threads:
            thread.start()
        ready.wait()
        with measuring(samples) as count:
            for thread in threads:
                thread.join()
            count(sum(counts))

    found: dict[str, Callable[[str], object]] = {
        "fetch": lambda query: fetch(url + query),
        "requests.Session": with_requests,
        "httpx.Client": lambda query: blocking.get(url + query, timeout=30).text,
    }
    samples: dict[str, list[Cost]] = {}
    with blocking:
        for get in found.values():
            one(get, [])
        for _ in range(rounds):
            for name, get in found.items():
                one(get, samples.setdefault(name, []))
    return best(samples)


def as_json(costs: dict[int, dict[str, Cost]]) -> dict[int, object]:
    return {
        at_once: {name: cost._asdict() for name, cost in row.items()}
        for at_once, row in costs.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Requests per second against nginx on loopback.")
    parser.add_argument("--rounds", type=int, default=15, help="turns per client (15)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of one turn (0.2)")
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")
    args = parser.parse_args()
    costs: dict[int, dict[str, Cost]] = {}
    with nginx() as urls:
        for at_once in (1, 50):
            costs[at_once] = asyncio.run(measure(urls, at_once, args.rounds, args.seconds))
            costs[at_once] |= measure_sync(urls[0], at_once, args.rounds, args.seconds)
    if args.json:
        print(json.dumps(as_json(costs), indent=2))
    else:
        for at_once, row in costs.items():
            print(f"\n{at_once:2} at once {'':15} requests/s  x httpx x aiohttp  CPU us a request")
            for name, (rate, cpu) in sorted(row.items(), key=lambda item: -item[1].rate):
                against = f"{rate / row['httpx'].rate:8.2f} {rate / row[FASTEST].rate:9.2f}"
                print(f"  {name:24} {rate:10,.0f} {against} {cpu:17,.0f}")
        print()
    broken = 0
    for at_once, client, peer, least in PROMISES:
        ours, other = costs[at_once][client], costs[at_once][peer]
        ratio = ours.rate / other.rate
        broken += ratio < least
        print(
            f"{at_once:3} at once: {client} / {peer} = {ratio:.2f} ({other.cpu / ours.cpu:.2f} by "
            f"CPU time), promised {least} - {'BROKEN' if ratio < least else 'kept'}"
        )
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
