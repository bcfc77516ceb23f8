"""Logins of netrc: the same in every half, and never over a header of the call."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra_core.http import AssetDownloadClient, AsyncHttpClient, fetch, fetch_async
from infra_core.http.testing import FaultyOrigin

BOB = "Basic Ym9iOmh1bnRlcjI="
HALVES = ["async", "plain", "sync", "download"]


@pytest.fixture
def origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyOrigin]:
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login bob password hunter2\n")
    monkeypatch.setenv("NETRC", str(path))
    with FaultyOrigin() as server:
        server.add("/page", b"page")
        yield server


def ask(half: str, url: str, folder: Path, **options: Any) -> None:
    async def over(**client_options: Any) -> None:
        async with AsyncHttpClient(**client_options) as client:
            if half == "download":
                await AssetDownloadClient(client=client).download(url, folder / "file", **options)
            else:
                await fetch_async(url, client=client, **options)

    if half == "sync":
        fetch(url, **options)
    else:
        asyncio.run(over(http2=True) if half == "plain" else over())


def sent(origin: FaultyOrigin) -> list[str | None]:
    return [
        next((v for k, v in request.headers.items() if k.lower() == "authorization"), None)
        for request in origin.requests
    ]


@pytest.mark.parametrize("half", HALVES)
def test_a_request_without_credentials_gets_the_login(
    origin: FaultyOrigin, tmp_path: Path, half: str
) -> None:
    """As requests and 0.7's blocking calls did."""
    ask(half, origin.url("/page"), tmp_path)
    assert sent(origin) == [BOB]


@pytest.mark.parametrize("half", HALVES)
def test_credentials_of_the_call_win(origin: FaultyOrigin, tmp_path: Path, half: str) -> None:
    """A header in any letter case, and a login in the URL."""
    ask(half, origin.url("/page"), tmp_path, headers={"AUTHORIZATION": "Bearer mine"})
    assert sent(origin) == ["Bearer mine"]
    (tmp_path / "file").unlink(missing_ok=True)
    ask(half, origin.url("/page").replace("//", "//me:mine@"), tmp_path)
    assert sent(origin)[1:] == ["Basic bWU6bWluZQ=="]


@pytest.mark.parametrize("half", HALVES)
def test_a_redirect_to_a_host_of_the_file_gets_its_login(
    origin: FaultyOrigin, tmp_path: Path, half: str
) -> None:
    """And the credentials of the call stay with the host that they were for."""
    origin.add("/away", b"", status=302, headers={"Location": origin.url("/page")})
    elsewhere = origin.url("/away").replace("127.0.0.1", "localhost")
    ask(half, elsewhere, tmp_path, headers={"Authorization": "Bearer mine"})
    assert sent(origin) == ["Bearer mine", BOB]
