"""What is set on a client counts for every way, also when it is set later."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    fetch_async,
    request_async,
    stream_async,
)
from infra_core.http.testing import FaultyOrigin, redirect, stall


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as running:
        running.add("/page", b"page")
        yield running


async def _fetch(client: Any, url: str) -> None:
    await fetch_async(url, client=client, max_retries=0)


async def _request(client: Any, url: str) -> None:
    await request_async("POST", url, client=client, json={}, max_retries=0)


async def _stream(client: Any, url: str) -> None:
    async with stream_async("GET", url, client=client) as response:
        await response.aread()


async def _get(client: Any, url: str) -> None:
    http = client if isinstance(client, httpx.AsyncClient) else await client.get_client()
    await http.get(url)


async def _download(client: Any, url: str) -> None:
    with TemporaryDirectory() as folder:
        await AssetDownloadClient(client=client, max_retries=0).download(url, Path(folder, "f"))


WAYS = [_fetch, _request, _stream, _get, _download]
Way = Callable[[Any, str], Awaitable[None]]


@pytest.fixture(params=["ours", "httpx"])
def later(request: pytest.FixtureRequest) -> Callable[..., Awaitable[Any]]:
    """Make a client and set attributes on the httpx client of it."""

    async def make(**settings: Any) -> Any:
        if request.param == "httpx":
            client: Any = httpx.AsyncClient()
            http = client
        else:
            client = AsyncHttpClient()
            http = await client.get_client()
        for name, value in settings.items():
            setattr(http, name, value)
        return client

    return make


async def _close(client: Any) -> None:
    await (client.aclose() if isinstance(client, httpx.AsyncClient) else client.close())


@pytest.mark.parametrize("way", WAYS)
async def test_auth(origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]) -> None:
    """At construction and later."""
    for client in (AsyncHttpClient(auth=("me", "pw")), await later(auth=("me", "pw"))):
        await way(client, origin.url("/page"))
        assert origin.requests[-1].headers["Authorization"] == "Basic bWU6cHc="
        await _close(client)


@pytest.mark.parametrize("way", WAYS)
async def test_params_add_to_the_query(
    origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]
) -> None:
    """That of the path stays."""
    for client in (AsyncHttpClient(params={"key": "v"}), await later(params={"key": "v"})):
        if way is _get and isinstance(client, httpx.AsyncClient):
            continue  # httpx by itself replaces the query
        await way(client, origin.url("/page?a=1&a=%2F"))
        assert origin.requests[-1].path == "/page?a=1&a=%2F&key=v"
        await _close(client)


@pytest.mark.parametrize("params", [{}, {"b": "2"}, [("b", "2"), ("b", "3")], "b=2"])
async def test_params_of_a_call_add_to_the_query(origin: FaultyOrigin, params: Any) -> None:
    """Also empty ones, which once dropped the query of the path."""
    more = {"{}": ""}.get(str(params), "&" + str(httpx.QueryParams(params))).rstrip("&")
    async with httpx.AsyncClient() as plain:
        for client in (None, plain):
            url = origin.url("/page?a=1")
            await request_async("GET", url, params=params, client=client)
            assert origin.requests[-1].path == "/page?a=1" + more
            async with stream_async("GET", url, params=params, client=client):
                pass
            assert origin.requests[-1].path == "/page?a=1" + more


class _Named(httpx.AsyncClient):
    """Of a program that keeps more on its client, under names that ours has too."""

    network = "production"
    origin_headers = ("x-key",)


@pytest.mark.parametrize("way", WAYS)
async def test_what_a_client_of_others_has_is_its_own(origin: FaultyOrigin, way: Way) -> None:
    """Only a client of ours is asked what belongs to a host."""
    with FaultyOrigin() as other:
        other.add("/page", b"page")
        origin.add("/away", b"", always=redirect(other.url("/page")))
        async with _Named(follow_redirects=True) as client:
            await way(client, origin.url("/away"))
        assert other.count("/page") == 1


@pytest.mark.parametrize("way", WAYS)
async def test_event_hooks(
    origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]
) -> None:
    """Of requests and of answers."""
    seen: list[str] = []

    async def asked(request: httpx.Request) -> None:
        seen.append(request.method)
        request.headers["X-Hook"] = "1"

    async def answered(response: httpx.Response) -> None:
        seen.append(str(response.status_code))

    hooks = {"request": [asked], "response": [answered]}
    for client in (AsyncHttpClient(event_hooks=hooks), await later(event_hooks=hooks)):
        seen.clear()
        await way(client, origin.url("/page"))
        assert seen[1] == "200"
        assert origin.requests[-1].headers["X-Hook"] == "1"
        await _close(client)


@pytest.mark.parametrize("way", WAYS)
async def test_base_url(
    origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]
) -> None:
    """Relative URLs are joined to it."""
    base = origin.base_url
    for client in (AsyncHttpClient(base_url=base), await later(base_url=base)):
        await way(client, "/page")
        assert origin.requests[-1].path == "/page"
        await _close(client)


@pytest.mark.parametrize("way", WAYS)
async def test_timeout(
    origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]
) -> None:
    """Where the call gives none."""
    origin.add("/page", b"page", always=stall())
    short = httpx.Timeout(30, read=0.1)
    for client in (AsyncHttpClient(timeout=short), await later(timeout=short)):
        with pytest.raises((httpx.ReadTimeout, httpx.TransportError)):
            await way(client, origin.url("/page"))
        await _close(client)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_of_httpx_has_its_own_timeout(way: Way) -> None:
    """Also the 5 s of httpx, but for downloads, which allow more unless the client says."""
    seen: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, content=b"page")

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        await way(client, "http://h.test/page")
        client.timeout = httpx.Timeout(9, read=7)
        await way(client, "http://h.test/page")
    assert seen == [60.0 if way is _download else 5.0, 7.0]


async def test_the_timeout_of_a_call_wins(origin: FaultyOrigin) -> None:
    """Also when it is the number that counts without any."""
    client = AsyncHttpClient(timeout=httpx.Timeout(30, read=0.000_001))
    assert await fetch_async(origin.url("/page"), client=client, timeout=30.0) == "page"
    await client.close()


@pytest.mark.parametrize("way", WAYS)
async def test_mounts(origin: FaultyOrigin, way: Way) -> None:
    """A transport for some URLs."""
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(200, text="mounted")

    client = AsyncHttpClient(mounts={"all://mounted.example": httpx.MockTransport(answer)})
    await way(client, "http://mounted.example/")
    assert seen == ["mounted.example"]
    await way(client, origin.url("/page"))
    assert origin.count("/page") == 1
    await client.close()


@pytest.mark.parametrize("way", WAYS)
async def test_max_redirects_and_follow_redirects(origin: FaultyOrigin, way: Way) -> None:
    """Set later; the loop ends with TooManyRedirects."""
    origin.add("/loop", b"", always=redirect("/loop"))
    client = AsyncHttpClient()
    http = await client.get_client()
    http.max_redirects = 2
    with pytest.raises(httpx.TooManyRedirects, match="more than 2 redirects"):
        await way(client, origin.url("/loop"))
    assert origin.count("/loop") == 3
    http.follow_redirects = False
    if way in (_fetch, _request, _download):
        with pytest.raises(httpx.HTTPStatusError, match="redirects are not followed"):
            await way(client, origin.url("/loop"))
    else:
        await way(client, origin.url("/loop"))
    assert origin.count("/loop") == 4
    await client.close()


@pytest.mark.parametrize("way", WAYS)
async def test_header_names_keep_their_case(origin: FaultyOrigin, way: Way) -> None:
    """Some servers compare them letter by letter, against RFC 9110."""
    client = AsyncHttpClient(headers={"X-Client-ID": "1"})
    await way(client, origin.url("/page"))
    names = [name for name, _ in origin.requests[-1].raw_headers]
    assert "X-Client-ID" in names
    await client.close()


@pytest.mark.parametrize("way", WAYS)
async def test_headers_may_change_between_requests(
    origin: FaultyOrigin, way: Way, later: Callable[..., Awaitable[Any]]
) -> None:
    """Set, set anew and taken out, on a client that has sent some already."""
    client = await later()
    http = client if isinstance(client, httpx.AsyncClient) else await client.get_client()
    await way(client, origin.url("/page"))
    for value in ("1", "2"):
        http.headers["X-Later"] = value
        await way(client, origin.url("/page"))
    del http.headers["X-Later"]
    await way(client, origin.url("/page"))
    sent = [request.headers.get("X-Later") for request in origin.requests]
    assert sent == [None, "1", "2", None]
    await _close(client)


@pytest.mark.parametrize("way", WAYS)
async def test_origin_headers_stay_with_their_origin(origin: FaultyOrigin, way: Way) -> None:
    """Whatever they are called; others follow a redirect, and those of the new host come along."""
    with FaultyOrigin() as other:
        other.add("/page", b"page")
        origin.add("/away", b"", always=redirect(other.url("/page")))
        origin.add("/here", b"", always=redirect("/page"))
        keys = {origin.url("/"): {"X-Own": "1"}, other.url("/"): {"Authorization": "Basic eDp5"}}

        def headers_of(url: str) -> dict[str, str]:
            return next(each for host, each in keys.items() if url.startswith(host))

        client = AsyncHttpClient(
            origin_headers=headers_of, headers={"x-own": "1", "X-All": "2", "Authorization": "all"}
        )
        await way(client, origin.url("/away"))
        assert origin.requests[-1].headers["X-Own"] == "1"
        assert "X-Own" not in other.requests[-1].headers
        assert other.requests[-1].headers["X-All"] == "2"
        assert other.requests[-1].headers["Authorization"] == "Basic eDp5"
        await way(client, origin.url("/here"))
        assert origin.requests[-1].headers["X-Own"] == "1"
        assert origin.requests[-1].headers["Authorization"] == "all"
        await client.close()


async def test_async_with_gives_the_httpx_client_out(origin: FaultyOrigin) -> None:
    """As 0.7 did; every call takes it as `client=`, with the limits of its maker."""
    async with AsyncHttpClient(max_per_host=1) as client:
        assert isinstance(client, httpx.AsyncClient)
        assert (await client.get(origin.url("/page"))).text == "page"
        assert await fetch_async(origin.url("/page"), client=client) == "page"
        assert await client.get_client() is client
    assert client.is_closed
