"""One proxy, and one entry of `NO_PROXY`: what people write, taken apart."""

import ipaddress
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from .._errors import InvalidRequestError

__all__ = [
    "NoProxy",
    "Proxy",
    "UnusableProxy",
    "address_of",
    "basic_authorization",
    "parse_proxy",
    "plain_name",
]

_PROXY_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks4a": 1080}
_PROXY_PORTS |= {"socks5": 1080, "socks5h": 1080}
_HOST_NAME = re.compile(r"[^\s/?#@:\[\]\\%<>\"'`|^{}\x00-\x20\x7f]+")
_PORT_NUMBER = re.compile(r"[0-9]{1,5}")


def basic_authorization(username: str, password: str) -> str:
    """Return the header value of HTTP's Basic scheme (RFC 7617), in UTF-8."""
    return "Basic " + b64encode(f"{username}:{password}".encode()).decode("ascii")


@dataclass(frozen=True)
class Proxy:
    """A proxy to send requests through.

    Attributes:
        scheme: `http`, `https` (TLS to the proxy itself), `socks4`, `socks4a`, `socks5` (names
            are looked up here) or `socks5h` (by the proxy).
        host: Without brackets.
        port: 80, 443 and 1080 where the setting names none.
        username: Percent-decoded, or None.
        password: Percent-decoded, or None; never part of a `repr`.
        variable: Which setting named it, for messages.
    """

    scheme: str
    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    variable: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str, variable: str = "proxy") -> "Proxy":
        """Read what a proxy variable holds: a URL, or host and port without a scheme.

        Raises:
            InvalidRequestError: It is none. The text names the variable and not its value, which
                may hold a password.
        """
        found = parse_proxy(text, variable)
        if isinstance(found, UnusableProxy):
            raise found.error()
        return found

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def bare_url(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}://{self.where}"

    @property
    def url(self) -> str:
        """The URL with credentials, percent-encoded: not for messages."""
        if self.username is None:
            return self.bare_url
        login = quote(self.username, safe="")
        if self.password is not None:
            login += ":" + quote(self.password, safe="")
        return f"{self.scheme}://{login}@{self.where}"

    @property
    def authorization(self) -> str | None:
        """The value of the `Proxy-Authorization` header, None without credentials."""
        if self.username is None:
            return None
        return basic_authorization(self.username, self.password or "")

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS, for which the extra `socks` is needed."""
        return self.scheme.startswith("socks")


@dataclass(frozen=True)
class UnusableProxy:
    """A proxy variable whose value is not a proxy.

    Attributes:
        variable: Its name.
        problem: What is wrong, without the value.
    """

    variable: str
    problem: str

    def error(self) -> "InvalidRequestError":
        """Return what to raise when a request would need this proxy."""
        from .._errors import InvalidRequestError  # which stands on httpx

        return InvalidRequestError(
            f"{self.variable} is not a proxy URL ({self.problem}): set it to http://host:port, "
            "with user:password@ in front of the host where the proxy asks for a login, or unset it"
        )


def parse_proxy(text: str, variable: str) -> Proxy | UnusableProxy:
    """Read what a proxy variable holds, without raising."""
    # By hand: a parser of URLs cuts unencoded passwords at "/", "#" and "?", and its errors
    # show them.
    text = text.strip()
    scheme, mark, rest = text.partition("://")
    if not mark:
        scheme, rest = "http", text
    scheme = scheme.lower()
    if scheme not in _PROXY_PORTS:
        return UnusableProxy(variable, f"its scheme is none of {', '.join(_PROXY_PORTS)}")
    login, at, place = rest.rpartition("@")
    place = re.split(r"[/?#]", place, maxsplit=1)[0]
    if place.startswith("["):
        host, bracket, tail = place[1:].partition("]")
        port = tail.removeprefix(":") if tail.startswith(":") or not tail else "?"
        if not bracket or address_of(host) is None:
            return UnusableProxy(variable, "what stands in its brackets is not an IPv6 address")
    elif place.count(":") > 1:
        return UnusableProxy(variable, "an IPv6 address must stand in brackets, as in [::1]:3128")
    else:
        host, _, port = place.partition(":")
        if not _HOST_NAME.fullmatch(host):
            problem = "its host is not a host name" if host else "it names no host"
            return UnusableProxy(variable, problem)
    if port and not (_PORT_NUMBER.fullmatch(port) and 0 < int(port) <= 65_535):
        return UnusableProxy(variable, "its port is not a number from 1 to 65535")
    number = int(port) if port else _PROXY_PORTS[scheme]
    username = password = None
    if at:
        user, colon, secret = login.partition(":")
        username, password = unquote(user), unquote(secret) if colon else None
    return Proxy(scheme, host, number, username, password, variable)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def address_of(host: str) -> _Address | None:
    """Return the address that a host is, None for a name; IPv4 in IPv6 counts as IPv4."""
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


@dataclass(frozen=True)
class NoProxy:
    """One entry of `NO_PROXY`: what it stands for is asked directly.

    `*` stands for all hosts. A name stands for itself and the names below it, with a leading dot
    (`.example.com`, `*.example.com`) or without. An address stands for itself, in brackets or
    not, a network (`10.0.0.0/8`, `fe80::/10`) for the addresses in it; names are not looked up
    for that. With a port (`localhost:8000`, `[::1]:8000`) only that port is meant, with a scheme
    (`http://example.com`) only that scheme.
    """

    scheme: str | None = None
    port: int | None = None
    name: str | None = None
    network: _Network | None = None

    @classmethod
    def parse(cls, text: str) -> "NoProxy":
        """Read one entry; one that makes no sense stands for a name that no host has."""
        scheme: str | None = None
        if "://" in text:
            scheme, _, text = text.partition("://")
            scheme = None if scheme.lower() == "all" else scheme.lower()
        port: int | None = None
        head, colon, tail = text.rpartition(":")
        if colon and _PORT_NUMBER.fullmatch(tail) and (":" not in head or head.endswith("]")):
            text, port = head, int(tail)
        bare = text.replace("[", "").replace("]", "")
        try:
            return cls(scheme, port, network=ipaddress.ip_network(bare, strict=False))
        except ValueError:
            pass
        name = text if text == "*" else plain_name(text.removeprefix("*").lstrip("."))
        return cls(scheme, port, name=name)

    def covers(self, scheme: str, host: str, port: int) -> bool:
        """Whether a host is asked directly."""
        if (self.scheme or scheme) != scheme or (self.port or port) != port:
            return False
        if self.name == "*":
            return True
        address = address_of(host)
        if self.network is not None:
            return address is not None and address in self.network
        if address is not None or not self.name:
            return False
        plain = plain_name(host)
        return plain == self.name or plain.endswith("." + self.name)

    def __str__(self) -> str:
        place = self.name or str(self.network).removesuffix("/32").removesuffix("/128")
        if self.port is not None and ":" in place:
            place = f"[{place}]"
        port = "" if self.port is None else f":{self.port}"
        return (f"{self.scheme}://" if self.scheme else "") + place + port


def plain_name(host: str) -> str:
    """Return a name as it is compared: lower case, no trailing dot, other scripts in IDNA."""
    host = host.lower().rstrip(".")
    if not host.isascii():
        try:
            return host.encode("idna").decode("ascii")
        except UnicodeError:
            pass
    return host
