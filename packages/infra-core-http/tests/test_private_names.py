"""The private names of aiohttp and httpx that are used: each still means what it meant."""

import asyncio
import inspect
import re
from pathlib import Path

import aiohttp
import httpx
import pytest
from aiohttp.client_proto import ResponseHandler

import infra_core.http
from infra_core.http.engine import _private_names as private
from infra_core.http.engine._protocol import Protocol
from infra_core.http.engine.connections import Connector
from infra_core.http.testing import FaultyOrigin

NAMES: tuple[tuple[type, str, str], ...] = (
    (aiohttp.BaseConnector, "_get", "look at a connection before it is used again"),
    (aiohttp.BaseConnector, "_release", "end a connection that is not in step"),
    (aiohttp.BaseConnector, "_conns", "idle connections, to end them with their client"),
    (aiohttp.BaseConnector, "_acquired", "connections in use, likewise"),
    (aiohttp.BaseConnector, "_factory", "the class of a connection's protocol"),
    (ResponseHandler, "_reschedule_timeout", "one timer for a connection, not two a request"),
    (ResponseHandler, "_drop_timeout", "likewise"),
    (ResponseHandler, "_on_read_timeout", "what to do when that fires"),
    (ResponseHandler, "_read_timeout", "its seconds"),
    (ResponseHandler, "_payload", "the body whose reader is to hear that the client was closed"),
    (httpx.AsyncClient, "_mounts", "transports that were set on a client"),
    (httpx.AsyncClient, "_build_redirect_request", "where a redirect leads, by our rules"),
    (aiohttp.ClientSession, "_retry_connection", "no second request behind the retry policy"),
)
# Class, name, purpose. Attributes of instances are looked up on one made for the test.


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, name, _ in NAMES], ids=str)
async def test_each_name_is_there(owner: type, name: str) -> None:
    """A release that renames one is noticed here, and not by users."""
    if owner is aiohttp.BaseConnector:
        connector = aiohttp.TCPConnector()
        assert hasattr(connector, name)
        await connector.close()
    elif owner is ResponseHandler:
        assert hasattr(ResponseHandler(asyncio.get_running_loop()), name)
    elif owner is aiohttp.ClientSession:
        async with aiohttp.ClientSession() as session:
            assert hasattr(session, name)
    else:
        async with httpx.AsyncClient() as client:
            assert hasattr(client, name)


def test_overridden_methods_take_what_they_took() -> None:
    """Their signatures are part of what is relied on."""
    get = inspect.signature(aiohttp.BaseConnector._get)
    assert list(get.parameters) == ["self", "key", "traces"]
    assert inspect.iscoroutinefunction(aiohttp.BaseConnector._get)
    release = inspect.signature(aiohttp.BaseConnector._release)
    assert list(release.parameters) == ["self", "key", "protocol", "should_close"]


async def test_connections_are_made_with_our_protocol_and_can_be_listed() -> None:
    """In use and idle, until the connector is closed."""
    with FaultyOrigin() as origin:
        origin.add("/f", b"text")
        connector = Connector()
        async with aiohttp.ClientSession(connector=connector) as session:
            async with session.get(origin.url("/f")) as response:
                assert len(list(private.protocols_of(connector))) == 1
                await response.read()
            await asyncio.sleep(0)
            [protocol] = private.protocols_of(connector)
            assert isinstance(protocol, Protocol)
        assert list(private.protocols_of(connector)) == []


async def test_a_connection_has_one_timer_that_moves_and_goes() -> None:
    """Requests set it and bring it forward; a connection that is lost leaves none behind."""
    loop = asyncio.get_running_loop()
    protocol = Protocol(loop)
    protocol.connection_made(asyncio.Transport())
    protocol.read_timeout = 60
    protocol.start_timeout()
    first = protocol._alarm
    protocol.start_timeout()
    assert first is not None
    assert protocol._alarm is first
    protocol.read_timeout = 30
    protocol.start_timeout()
    assert protocol._alarm is not None
    assert protocol._alarm.when() < first.when()
    assert first.cancelled()
    moved = protocol._alarm
    protocol._on_alarm()  # too early: the peer has 30 seconds
    assert protocol._alarm.when() == moved.when()
    assert protocol.exception() is None
    protocol.read_timeout = 1e-9
    protocol.start_timeout()
    await asyncio.sleep(0)
    protocol._on_alarm()
    assert isinstance(protocol.exception(), aiohttp.SocketTimeoutError)
    protocol.read_timeout = 30
    protocol.start_timeout()
    last = protocol._alarm
    protocol.connection_lost(None)
    assert last is not None
    assert last.cancelled()


def test_no_other_module_uses_a_private_name_of_theirs() -> None:
    """They stand in one place; `httpx` modules with an underscore are private as well."""
    home = Path(infra_core.http.__path__[0])
    pattern = re.compile(
        r"\b(?:session|connector|client|transport|httpx|aiohttp)\._(?!name__|_)[a-z]\w*"
    )
    ours = {"client._here", "client._clients", "client._session"}
    found = {
        f"{path.relative_to(home)}: {name}"
        for path in home.rglob("*.py")
        if path.name not in ("_private_names.py", "_intercept.py")
        for name in pattern.findall(path.read_text(encoding="utf-8"))
        if name not in ours
    }
    assert found == set()
