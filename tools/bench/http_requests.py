"""Requests per second against nginx on loopback: ours, httpx, aiohttp and others in one run.

Promises: at 50 at once, `fetch_async` does at least 10 times the requests of plain httpx, and 0.6
of those of bare aiohttp, over TLS as well; a redirected one, which is two requests, 0.45 of a
direct one. At 1 at once it does at least 3 times those of httpx, and `fetch` as many as
`httpx.Client`. Exits with 1 when a promise is broken.

    hatch run bench:python tools/bench/http_requests.py [--rounds 5] [--seconds 0.6] [--json]

Needs nginx on the PATH or in /usr/sbin (`apt install nginx-light`, `brew install nginx`).
Clients that are not installed (httpx-aiohttp, httpx-retries) are left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.util
import json
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import trustme

Get = Callable[[], Awaitable[object]]
BODY = b"<p>" + b"x" * 1017 + b"</p>"
CONFIG = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 10000000; default_type text/html;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port}; listen 127.0.0.1:{tls} ssl; root {folder}/www;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/cert.pem;
    location = /moved.html {{ return 302 /page.html; }}
  }}
}}
"""
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


@contextlib.contextmanager
def nginx() -> Iterator[tuple[str, str, str]]:
    """Serve one small page on two free ports; give out its URLs and the CA of the second one."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("nginx is not installed: apt install nginx-light, or brew install nginx")
    with tempfile.TemporaryDirectory(prefix="infra-core-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx started by root reads files as another user
        (folder / "www").mkdir()
        (folder / "www" / "page.html").write_bytes(BODY)
        with socket.socket() as probe, socket.socket() as second:
            probe.bind(("127.0.0.1", 0))
            second.bind(("127.0.0.1", 0))
            port, tls = probe.getsockname()[1], second.getsockname()[1]
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        certificate = authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem
        certificate.write_to_path(str(folder / "cert.pem"))
        (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, tls=tls))
        command = [program, "-p", name, "-c", str(folder / "nginx.conf"), "-e", f"{name}/start.log"]
        server = subprocess.Popen(command)
        try:
            wait_for(port, server)
            page = "page.html"
            yield (
                f"http://127.0.0.1:{port}/{page}",
                f"https://127.0.0.1:{tls}/{page}",
                str(folder / "ca.pem"),
            )
        finally:
            server.terminate()
            server.wait()


def wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        if server.poll() is not None:
            raise SystemExit(f"nginx ended with {server.returncode} instead of serving")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
            return
        time.sleep(0.02)
    raise SystemExit("nginx did not listen within 4 seconds")


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
        moved = url.replace("page", "moved")
        context = ssl.create_default_context(cafile=bundle)
        plain = await stack.enter_async_context(httpx.AsyncClient())
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def with_aiohttp() -> str:
            async with session.get(url) as response:
                return await response.text()

        async def with_aiohttp_over_tls() -> str:
            async with session.get(secure, ssl=context) as response:
                return await response.text()

        async def through_get_client() -> str:
            return (await (await ours.get_client()).get(url)).text

        found: dict[str, Get] = {
            "fetch_async": lambda: fetch_async(url, client=ours),
            REDIRECTED: lambda: fetch_async(moved, client=ours),
            OVER_TLS: lambda: fetch_async(secure, client=ours_tls),
            "request_async": lambda: request_async("GET", url, client=ours),
            "get_client().get": through_get_client,
            "httpx": lambda: plain.get(url),
            FASTEST: with_aiohttp,
            FASTEST_OVER_TLS: with_aiohttp_over_tls,
        }
        if importlib.util.find_spec("httpx_aiohttp"):
            from httpx_aiohttp import AiohttpTransport

            bridged = httpx.AsyncClient(transport=AiohttpTransport(client=session))
            stack.push_async_callback(bridged.aclose)
            found["httpx-aiohttp"] = lambda: bridged.get(url)
        if importlib.util.find_spec("httpx_retries"):
            from httpx_retries import RetryTransport

            retrying = httpx.AsyncClient(transport=RetryTransport())
            stack.push_async_callback(retrying.aclose)
            found["httpx-retries"] = lambda: retrying.get(url)
        yield found


async def rate(get: Get, at_once: int, seconds: float) -> float:
    """Requests per second of so many workers, each one request after the other."""
    done = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await get()
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done / (time.perf_counter() - started)


async def measure(
    urls: tuple[str, str, str], at_once: int, rounds: int, seconds: float
) -> dict[str, float]:
    """The median rate per client; the clients take turns, so that noise hits all alike."""
    samples: dict[str, list[float]] = {}
    async with clients(*urls) as found:
        for get in found.values():
            await rate(get, at_once, 0.2)
        for _ in range(rounds):
            for name, get in found.items():
                samples.setdefault(name, []).append(await rate(get, at_once, seconds))
    return {name: statistics.median(rates) for name, rates in samples.items()}


def measure_sync(url: str, at_once: int, rounds: int, seconds: float) -> dict[str, float]:
    """The same for the blocking clients, in threads."""
    import httpx
    import requests

    from infra_core.http import fetch

    local = threading.local()

    def with_requests() -> str:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        text: str = local.session.get(url, timeout=30).text
        return text

    blocking = httpx.Client(limits=httpx.Limits(max_connections=100))

    def one(get: Callable[[], object]) -> float:
        counts: list[int] = []
        end = time.perf_counter() + seconds

        def worker() -> None:
            done = 0
            while time.perf_counter() < end:
                get()
                done += 1
            counts.append(done)

        threads = [threading.Thread(target=worker) for _ in range(at_once)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - started)

    found: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(url),
        "requests.Session": with_requests,
        "httpx.Client": lambda: blocking.get(url, timeout=30).text,
    }
    samples: dict[str, list[float]] = {}
    with blocking:
        for get in found.values():
            one(get)
        for _ in range(rounds):
            for name, get in found.items():
                samples.setdefault(name, []).append(one(get))
    return {name: statistics.median(rates) for name, rates in samples.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Requests per second against nginx on loopback.")
    parser.add_argument("--rounds", type=int, default=5, help="turns per client (5)")
    parser.add_argument("--seconds", type=float, default=0.6, help="length of one turn (0.6)")
    parser.add_argument("--json", action="store_true", help="print the rates as JSON")
    args = parser.parse_args()
    rates: dict[int, dict[str, float]] = {}
    with nginx() as urls:
        for at_once in (1, 50):
            rates[at_once] = asyncio.run(measure(urls, at_once, args.rounds, args.seconds))
            rates[at_once] |= measure_sync(urls[0], at_once, min(args.rounds, 3), args.seconds)
    if args.json:
        print(json.dumps(rates, indent=2))
    else:
        for at_once, row in rates.items():
            print(f"\n{at_once} at once{'':17} {'requests/s':>10} {'x httpx':>8} {'x aiohttp':>9}")
            for name, value in sorted(row.items(), key=lambda item: -item[1]):
                against = f"{value / row['httpx']:8.2f} {value / row[FASTEST]:9.2f}"
                print(f"  {name:24} {value:10,.0f} {against}")
    broken = 0
    for at_once, client, peer, least in PROMISES:
        ratio = rates[at_once][client] / rates[at_once][peer]
        broken += ratio < least
        verdict = "BROKEN" if ratio < least else "kept"
        print(f"{at_once:3} at once: {client} / {peer} = {ratio:.2f}, promised {least} - {verdict}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
