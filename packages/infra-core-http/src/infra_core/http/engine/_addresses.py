"""Which addresses are public, judged by the address alone."""

import ipaddress
import re
import socket

__all__ = ["literal_address", "reason_not_public", "without_escape"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_SHARED = ipaddress.ip_network("100.64.0.0/10")  # RFC 6598
# What not every supported Python knows as private: most of the protocols' own (IANA's registry of
# special addresses, RFC 6890), documentation (RFC 9637), site-local (RFC 3879), NAT64 (RFC 8215).
_PRIVATE = tuple(
    map(ipaddress.ip_network, ("192.0.0.0/24", "3fff::/20", "fec0::/10", "64:ff9b:1::/48"))
)
_ANYCAST = frozenset(map(ipaddress.ip_address, ("192.0.0.9", "192.0.0.10")))
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_COMPATIBLE = ipaddress.ip_network("::/96")  # RFC 4291, 2.5.5.1
# Looks public and is answered by the host of a virtual machine: it hands out its certificates.
_AZURE_PLATFORM = ipaddress.ip_address("168.63.129.16")
_LOW_32 = 0xFFFF_FFFF
_NUMBERS = re.compile(r"[0-9a-fA-FxX.]+")
_UNNAMED = re.compile(r"[0-9.]+")


def without_escape(host: str) -> str:
    """Return a host with the zone of an address as the system takes it (RFC 6874)."""
    return host.replace("%25", "%", 1) if ":" in host else host


def literal_address(host: str) -> str | None:
    """Return the address that a host of a URL is without any look-up, None for a name.

    Decimal, octal, hexadecimal and shortened spellings of IPv4 (`2130706433`, `0177.0.0.1`,
    `0x7f.1`) are what the system's resolver takes them for.
    """
    bare = host.partition("%")[0]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        if ":" in host:
            raise
    if _NUMBERS.fullmatch(host):
        try:
            return socket.inet_ntoa(socket.inet_aton(host))
        except OSError:
            if _UNNAMED.fullmatch(host):
                raise ValueError(f"{host!r} is neither a host name nor an address") from None
    return None


def reason_not_public(address: str) -> str | None:
    """Return what kind of address that is not public this is, None for a public one.

    Addresses of IPv6 that carry one of IPv4 (mapped, compatible, 6to4, Teredo, NAT64) are as
    public as that one.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    for inner, way in _carried(found):
        reason = _reason(inner)
        if reason is not None:
            return f"{reason} {inner} in the form of {way}"
    return _reason(found)


def _carried(address: _Address) -> list[tuple[ipaddress.IPv4Address, str]]:
    if isinstance(address, ipaddress.IPv4Address):
        return []
    low = ipaddress.IPv4Address(int(address) & _LOW_32)
    if address.ipv4_mapped is not None:
        return [(low, "an IPv4-mapped address")]
    if address.sixtofour is not None:
        return [(address.sixtofour, "a 6to4 address")]
    if address.teredo is not None:
        return [(inner, "a Teredo address") for inner in address.teredo]
    if address in _NAT64:
        return [(low, "a NAT64 address")]
    if address in _COMPATIBLE and int(address) > 1:
        return [(low, "an IPv4-compatible address")]
    return []


def _reason(address: _Address) -> str | None:
    for kind, reason in _KINDS.items():
        if getattr(address, kind):
            return reason
    if address == _AZURE_PLATFORM:
        return "the address of Azure's own platform"
    if address in _SHARED:
        return "the carrier-grade NAT address"
    if address not in _ANYCAST and any(address in network for network in _PRIVATE):
        return "the private address"
    if _carried(address):
        return None  # judged by what it carries
    if address.is_reserved:
        return "the reserved address"
    return "the private address" if address.is_private or not address.is_global else None


_KINDS = {
    "is_unspecified": "the unspecified address",
    "is_loopback": "the loopback address",
    "is_link_local": "the link-local address",
    "is_multicast": "the multicast address",
}
