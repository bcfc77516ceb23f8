"""`public_only`: hosts without a public address are refused, on whatever way they are named."""

import asyncio
import ipaddress
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from hypothesis import given, settings as hypothesis_settings, strategies as st

from infra_core.http import (
    AssetDownloadClient,
    AsyncHttpClient,
    InvalidRequestError,
    PrivateAddressError,
    RequestsHttpClient,
    fetch,
    fetch_async,
    request,
    request_async,
    stream_async,
)
from infra_core.http.engine._addresses import literal_address, reason_not_public
from infra_core.http.engine.network_settings import NetworkSettings
from infra_core.http.testing import FaultyOrigin
from infra_core.runtime.testing import fast_time

NOT_PUBLIC = [
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("::1", "loopback"),
    ("0.0.0.0", "unspecified"),
    ("::", "unspecified"),
    ("10.0.0.1", "private"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.168.1.1", "private"),
    ("fd00::1", "private"),
    ("fec0::1", "private"),
    ("169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.100.100.200", "carrier-grade NAT"),
    ("168.63.129.16", "Azure"),
    ("224.0.0.1", "multicast"),
    ("ff02::1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "reserved"),
    ("192.0.2.1", "private"),
    ("198.18.0.1", "private"),
    ("2001:db8::1", "private"),
    ("0.1.2.3", "private"),
    ("::ffff:127.0.0.1", "loopback address 127.0.0.1 in the form of an IPv4-mapped"),
    ("::ffff:10.0.0.1", "IPv4-mapped"),
    ("::127.0.0.1", "IPv4-compatible"),
    ("2002:7f00:1::", "loopback address 127.0.0.1 in the form of a 6to4"),
    ("2002:a00:1::1", "6to4"),
    ("64:ff9b::7f00:1", "loopback address 127.0.0.1 in the form of a NAT64"),
    ("64:ff9b::a9fe:a9fe", "NAT64"),
    ("64:ff9b:1::1", "private"),
    ("192.0.0.8", "private"),
    ("192.0.0.192", "private"),
    ("3fff::1", "private"),
    ("2001:0:7f00:1::", "Teredo"),
]
PUBLIC = [
    "93.184.216.34",
    "8.8.8.8",
    "172.32.0.1",
    "192.0.0.9",
    "100.128.0.1",
    "2606:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize(("address", "kind"), NOT_PUBLIC)
def test_addresses_that_are_not_public_are_known(address: str, kind: str) -> None:
    """Each with its kind; IPv4 within IPv6 is judged by the former."""
    assert kind in str(reason_not_public(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_let_through(address: str) -> None:
    """Also those of IPv6 that carry a public one of IPv4."""
    assert reason_not_public(address) is None


@hypothesis_settings(deadline=None)
@given(st.ip_addresses())
def test_what_is_let_through_is_global_for_python_too(address: Any) -> None:
    """An address that no standard calls global never passes, whatever carries it."""
    if reason_not_public(str(address)) is None:
        carried = isinstance(address, ipaddress.IPv6Address)
        assert address.is_global or carried
        assert not address.is_loopback
        assert not address.is_link_local


@pytest.mark.parametrize(
    "host", ["2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "127.1", "017700000001"]
)
def test_odd_spellings_of_ipv4_are_read_as_the_resolver_reads_them(host: str) -> None:
    """Decimal, octal, hexadecimal, shortened."""
    assert literal_address(host) == "127.0.0.1"


@pytest.mark.parametrize("host", ["999.1.1.1", "127.0.0.1.", "1.2.3.4.5", "99999999999"])
def test_numbers_that_are_no_address_are_no_host(host: str) -> None:
    """What a resolver would make of them is unknown."""
    with pytest.raises(ValueError, match="neither a host name nor an address"):
        literal_address(host)
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        literal_address(f"::{host}")


@pytest.mark.parametrize("host", ["example.com", "a.b", "fade.cafe", "1e100.net", "localhost"])
def test_names_are_no_addresses(host: str) -> None:
    """They are looked up."""
    assert literal_address(host) is None


@pytest.fixture
def origin() -> Iterator[FaultyOrigin]:
    with FaultyOrigin() as server:
        server.add("/page", b"private")
        yield server


HOSTS = ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "0x7f.1", "127.1", "[::1]"]
HOSTS += ["[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.0.0.1."]
# Some of them are no URL for httpx, or no host for the resolver.
NO_HOSTS = ["0177.0.0.1", "127.0.0.1."]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("way", ["fetch", "post", "stream", "client", "http2"])
async def test_a_host_that_is_not_public_is_never_asked(
    origin: FaultyOrigin, host: str, way: str
) -> None:
    """However it is spelled, and not a second time."""
    url = origin.url("/page").replace("127.0.0.1", host)
    options: dict[str, Any] = {"http2": True} if way == "http2" else {}
    with fast_time() as clock:
        async with AsyncHttpClient(public_only=True, **options) as client:
            with pytest.raises((httpx.ConnectError, httpx.InvalidURL)) as caught:
                if way in ("fetch", "http2"):
                    await fetch_async(url, client=client)
                elif way == "post":
                    await request_async("POST", url, json={}, client=client)
                elif way == "stream":
                    async with stream_async("GET", url, client=client):
                        pass
                else:
                    await (await client.get_client()).get(url)
    assert origin.requests == []
    assert clock.slept == []
    assert isinstance(caught.value, PrivateAddressError) or host in NO_HOSTS


async def test_the_error_names_host_address_rule_and_remedy(origin: FaultyOrigin) -> None:
    """And travels between processes."""
    url = origin.url("/page").replace("127.0.0.1", "localhost")
    async with AsyncHttpClient(public_only=True) as client:
        with pytest.raises(PrivateAddressError) as caught:
            await fetch_async(url, client=client)
    error = caught.value
    assert (error.host, error.reason) == ("localhost", "the loopback address")
    assert error.address in ("127.0.0.1", "::1")
    assert str(error) == (
        f"public_only refuses the host 'localhost' at {error.address} (the loopback address): "
        "check the URL, or set public_only=False for hosts of your own network"
    )
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.host) == (type(error), str(error), error.host)


class Rebinding:
    """A name server whose name `rebind.test` is public at first and this machine afterwards."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked = 0
        self._answers = answers
        true = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
            if host != "rebind.test":
                return true(host, port, *args, **kwargs)
            addresses = self._answers[min(self.asked, len(self._answers) - 1)]
            self.asked += 1
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in addresses
            ]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("options", [{}, {"http2": True}])
async def test_a_name_that_cannot_be_resolved_is_one_error_on_each_way(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Look-ups of our own for plain httpx have the error and the words of the engine."""

    def getaddrinfo(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with AsyncHttpClient(public_only=True, **options) as client:
        with pytest.raises(httpx.ConnectError, match=r"cannot resolve host 'none\.test' \(DNS"):
            await fetch_async("http://none.test/", client=client)


@pytest.mark.parametrize("options", [{}, {"http2": True}])
async def test_a_name_that_changes_its_address_does_not_get_through(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """What was checked is what is connected to (DNS rebinding)."""
    names = Rebinding(monkeypatch, ["127.0.0.1", "10.0.0.1"])
    url = origin.url("/page").replace("127.0.0.1", "rebind.test")
    async with AsyncHttpClient(public_only=True, **options) as client:
        with pytest.raises(PrivateAddressError, match=r"rebind\.test"):
            await fetch_async(url, client=client)
    assert names.asked == 1
    # The check passes at first, and a second look-up would lead to this machine. 192.0.0.9 is
    # global by the registry, and nothing answers there.
    names = Rebinding(monkeypatch, ["192.0.0.9"], ["127.0.0.1"])
    async with AsyncHttpClient(public_only=True, **options) as client:
        with pytest.raises(httpx.TransportError):
            await asyncio.wait_for(fetch_async(url, client=client, timeout=0.3, max_retries=0), 30)
    assert names.asked == 1
    assert origin.requests == []


async def test_a_redirect_does_not_lead_to_this_machine(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hop is checked: here the first is let through by name, the second is refused."""
    from infra_core.http.engine import _session, resolver

    origin.add("/away", b"", status=302, headers={"Location": "http://localhost:1/x"})

    def lenient(address: str) -> str | None:
        return None if address == "127.0.0.1" else reason_not_public(address)

    def named(host: str, infos: list[Any]) -> list[Any]:
        raise PrivateAddressError(host, "127.0.0.1", "the loopback address")

    monkeypatch.setattr(_session, "reason_not_public", lenient)
    monkeypatch.setattr(resolver, "public_only_of", named)
    async with AsyncHttpClient(public_only=True) as client:
        with pytest.raises(PrivateAddressError, match="'localhost'"):
            await fetch_async(origin.url("/away"), client=client)


async def test_a_request_through_a_proxy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy would look the name up and connect; what it meets cannot be checked here."""
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy.example:3128")
    monkeypatch.delenv("http_proxy", raising=False)
    for http2 in (False, True):
        async with AsyncHttpClient(public_only=True, http2=http2) as client:
            with pytest.raises(PrivateAddressError) as caught:
                await fetch_async("http://example.com/", client=client)
        assert "the proxy proxy.example:3128 of HTTP_PROXY" in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"transport": httpx.MockTransport(lambda request: httpx.Response(200))},
        {"mounts": {"http://": None, "all://": httpx.MockTransport(lambda _: httpx.Response(200))}},
        {"proxy": "http://127.0.0.1:9"},
    ],
)
def test_what_connects_by_itself_cannot_be_checked(options: dict[str, Any]) -> None:
    """So the client is refused at once."""
    with pytest.raises(InvalidRequestError, match="public_only cannot be checked"):
        AsyncHttpClient(public_only=True, **options)


async def test_it_is_off_unless_asked_for(origin: FaultyOrigin) -> None:
    """And a client may change its mind."""
    async with AsyncHttpClient() as client:
        assert await fetch_async(origin.url("/page"), client=client) == "private"
        await client.reconfigure(public_only=True)
        with pytest.raises(PrivateAddressError):
            await fetch_async(origin.url("/page"), client=client)
    assert NetworkSettings().has_proxies is False


class _Adapter(requests.adapters.HTTPAdapter):
    """One that connects in a way of its own."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("own", [False, True])
def test_the_blocking_half_never_asks_a_host_that_is_not_public(
    origin: FaultyOrigin, host: str, own: bool
) -> None:
    """Over our sessions, and over those of a factory."""
    url = origin.url("/page").replace("127.0.0.1", host)
    options: dict[str, Any] = {"session_factory": requests.Session if own else None}
    with fast_time() as clock, RequestsHttpClient(public_only=True, **options) as client:
        for method in ("GET", "POST"):
            with pytest.raises(requests.RequestException) as caught:
                request(method, url, client=client)
            assert isinstance(caught.value, PrivateAddressError) or host in NO_HOSTS
    assert origin.requests == []
    assert clock.slept == []
    if host == "localhost":
        assert isinstance(caught.value, requests.ConnectionError)
        assert "public_only refuses the host 'localhost' at" in str(caught.value)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value).split("\n")[0])


def test_the_blocking_half_connects_to_what_it_checked(
    origin: FaultyOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding, as above."""
    url = origin.url("/page").replace("127.0.0.1", "rebind.test")
    names = Rebinding(monkeypatch, ["127.0.0.1", "10.0.0.1"])
    with RequestsHttpClient(public_only=True) as client, pytest.raises(PrivateAddressError):
        fetch(url, client=client)
    names = Rebinding(monkeypatch, ["192.0.0.9"], ["127.0.0.1"])
    with (
        RequestsHttpClient(public_only=True) as client,
        pytest.raises(requests.RequestException),
    ):
        fetch(url, client=client, timeout=0.3, max_retries=0)
    assert names.asked == 1
    assert origin.requests == []


@pytest.mark.parametrize("own", [False, True])
def test_the_blocking_half_refuses_proxies_and_foreign_adapters(
    monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    """Whether the environment names them, or the session."""
    monkeypatch.delenv("http_proxy", raising=False)
    monkeypatch.setenv("HTTP_PROXY", "http://user:secret@proxy.example:3128")

    def factory() -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        session.proxies = {"http": "http://user:secret@proxy.example:3128"}
        return session

    options: dict[str, Any] = {"session_factory": factory} if own else {}
    with (
        RequestsHttpClient(public_only=True, **options) as client,
        pytest.raises(PrivateAddressError) as caught,
    ):
        fetch("http://example.com/", client=client)
    assert "'example.com'" in str(caught.value)
    assert "the proxy proxy.example:3128 of" in str(caught.value)
    assert "secret" not in str(caught.value)

    def strange() -> requests.Session:
        session = requests.Session()
        session.mount("http://", _Adapter())
        return session

    with (
        RequestsHttpClient(public_only=True, session_factory=strange) as client,
        pytest.raises(InvalidRequestError, match="_Adapter that is mounted for http://"),
    ):
        fetch("http://example.com/", client=client)


async def test_downloads_refuse_what_is_not_public(origin: FaultyOrigin, tmp_path: Path) -> None:
    """Of a client of their own; beside `client=` the argument would say nothing."""
    async with AssetDownloadClient(public_only=True) as downloads:
        with pytest.raises(PrivateAddressError):
            await downloads.download(origin.url("/page"), tmp_path / "page")
    assert origin.requests == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InvalidRequestError, match="public_only= beside client="):
        AssetDownloadClient(public_only=True, client=AsyncHttpClient())
