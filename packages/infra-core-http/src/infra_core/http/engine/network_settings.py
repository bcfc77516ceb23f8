"""Proxies, CA certificates and netrc as the environment names them, read once for everybody.

Everything of this project that opens a connection asks here: the engine, requests, plain httpx
and, in the azure slice, the SDK's clients and telemetry.

| variable | meaning |
|---|---|
| `http_proxy`, `HTTP_PROXY` | proxy for `http://` URLs; the upper-case form is ignored where `REQUEST_METHOD` is set, since a CGI server fills it from a request's `Proxy` header |
| `https_proxy`, `HTTPS_PROXY` | proxy for `https://` URLs |
| `all_proxy`, `ALL_PROXY` | proxy for both, where the two above are not set |
| `no_proxy`, `NO_PROXY` | hosts that are asked directly |
| `SSL_CERT_FILE`, `SSL_CERT_DIR`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` | CA certificates in PEM form, instead of those of `certifi`; those of all that are set are trusted |
| `NETRC` | path of the netrc file, `~/.netrc` or `~/_netrc` without |

The lower-case form of a name wins over the upper-case one, and switches it off when it is empty.
"""  # noqa: E501 - a table

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ._proxies import (
    NoProxy,
    Proxy,
    UnusableProxy,
    address_of,
    basic_authorization,
    parse_proxy,
    plain_name,
)

__all__ = [
    "Netrc",
    "NetworkSettings",
    "NoProxy",
    "Proxy",
    "UnusableProxy",
    "ca_parts",
    "find_netrc",
    "netrc_logins",
    "read_netrc",
]

_logger = logging.getLogger("infra_core.http")
# In the order of the manual of ftp: comment, macro (up to a blank line), key and value, default.
_PART = re.compile(
    r"""(?P<passed> \#.* | macdef\b.*(?:\n.+)* )
    | (?P<key> machine|login|user|account|password)
      \s+ (?: "(?P<quoted>(?:[^"\\\n]|\\.)*)" | (?P<plain>(?!")(?:\\.|\S)+) )
    | (?P<default> default)(?!\S)
    | \S+""",
    re.VERBOSE,
)


class Netrc(NamedTuple):
    """What a netrc file holds.

    Attributes:
        logins: User and password by host: in lower case, an IPv6 address without brackets; those
            of `default` are for all others.
        odd_lines: The lines that are not understood, counted from 1; their entries are left out.
    """

    logins: Mapping[str, tuple[str, str]]
    odd_lines: list[int]


def read_netrc(path: str | Path) -> Netrc:
    """Read a netrc file, in UTF-8 with or without a byte order mark.

    The parser of the standard library gives up the whole file for one word that it does not know,
    such as the `port` of Emacs.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
    """
    text = Path(path).read_text(encoding="utf-8-sig")
    entries: dict[str, dict[str, str]] = {}
    odd_lines: list[int] = []
    host: str | None = None
    is_odd = False  # what follows belongs to an entry that is left out
    for part in _PART.finditer(text):
        key, value = part["key"], part["plain"] if part["quoted"] is None else part["quoted"]
        if key == "machine" or part["default"]:
            host, is_odd = _host_of(value) if key else "default", False
            if host is not None:
                entries[host] = {}
                continue
        elif key and host is not None:
            entries[host][key] = re.sub(r"\\(.)", r"\1", value)
            continue
        if not (is_odd or part["passed"]):
            odd_lines.append(text.count("\n", 0, part.start()) + 1)
            entries.pop(host or "", None)
            host, is_odd = None, True
    return Netrc({host: _login_of(entry) for host, entry in entries.items()}, odd_lines)


def _host_of(text: str) -> str | None:
    """A host, perhaps with a port, as hosts are compared here; None for what is none."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if address_of(bare) is not None:
        return bare.lower()
    try:
        parts = urlsplit(f"//{text}")
        is_host = parts.netloc == text and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return plain_name(text) if is_host else None


def _login_of(entry: Mapping[str, str]) -> tuple[str, str]:
    user = entry.get("login") or entry.get("user") or entry.get("account") or ""
    return user, entry.get("password", "")


def find_netrc(named: str | None, *, at_home: bool) -> str | None:
    """Return the path of the file, None when there is none."""
    if named or not at_home:
        return named or None
    home = os.path.expanduser("~")  # noqa: PTH111 - a third of the time, at each call
    for name in (".netrc", "_netrc"):
        path = f"{home}{os.sep}{name}"
        if os.access(path, os.F_OK):  # raises nothing where there is none, as nearly everywhere
            return path
    return None


def netrc_logins(path: str) -> Mapping[str, tuple[str, str]]:
    """Return user and password by host, read anew when the file has changed.

    One that is missing is as good as empty; one that cannot be read is logged.
    """
    try:
        status = Path(path).stat()
    except OSError:
        return {}
    return _parsed(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=4)
def _parsed(path: str, _mtime: int, _size: int) -> Mapping[str, tuple[str, str]]:
    try:
        logins, odd_lines = read_netrc(path)
    except (OSError, UnicodeError) as error:
        # Not the error's text, which may quote a password.
        _logger.warning(
            "the netrc file %s cannot be read (%s), so no login of it is used: save it as UTF-8",
            path,
            type(error).__name__,
        )
        return {}
    for line in odd_lines:
        _logger.warning(
            "the netrc file %s: line %d is not understood, so its login is not used", path, line
        )
    return logins


_PORTS = {"http": 80, "https": 443}
_CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_ONE_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")


@dataclass(frozen=True)
class NetworkSettings:
    """What the environment says about the network.

    Attributes:
        http_proxy: Proxy for `http://` URLs, None for none.
        https_proxy: Proxy for `https://` URLs.
        all_proxy: Proxy for those of the two that are None.
        no_proxy: What is asked directly in spite of them.
        ca_settings: Variable and path of each file or folder of CA certificates to trust, in the
            order of the table above; those of `certifi` are meant when there is none.
        netrc_path: File with logins, None when there is none.
        system: Whether the proxies are those of Windows or macOS, whose own list of exceptions
            counts then.
        netrc_default: Whether the netrc file's entry `default` is for hosts that it does not name.
    """

    http_proxy: Proxy | UnusableProxy | None = None
    https_proxy: Proxy | UnusableProxy | None = None
    all_proxy: Proxy | UnusableProxy | None = None
    no_proxy: tuple[NoProxy, ...] = ()
    ca_settings: tuple[tuple[str, str], ...] = ()
    netrc_path: str | None = None
    system: bool = False
    netrc_default: bool = True

    @classmethod
    def read(cls, env: Mapping[str, str] | None = None) -> "NetworkSettings":
        """Return what the environment says now; equal answers are the same object.

        Args:
            env: `os.environ` when None; only then the system's own settings are looked at where
                no variable names a proxy (Windows, macOS), and `~` for a netrc file.
        """
        # Below os.environ is a dict, which can be asked at a tenth of the cost.
        below = getattr(os.environ, "_data", None) if env is None else None
        if isinstance(below, dict):
            values = tuple(map(below.get, _KEYS))
        else:
            values = tuple(map((os.environ if env is None else env).get, _VARIABLES))
        named = values[-1] and os.fsdecode(values[-1])
        return _read(values, find_netrc(named, at_home=env is None), env is None)

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that a URL is asked through, None when it is asked directly.

        Raises:
            InvalidRequestError: The variable that counts for it holds no proxy URL.
        """
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return self.proxy_for_origin(parts.scheme, parts.hostname or "", port)

    def proxy_for_origin(self, scheme: str, host: str, port: int) -> Proxy | None:
        """As `proxy_for`, for a URL taken apart.

        Raises:
            InvalidRequestError: The variable that counts for it holds no proxy URL.
        """
        proxy = {"http": self.http_proxy, "https": self.https_proxy}.get(scheme) or self.all_proxy
        if proxy is None or self._is_direct(scheme, host, port):
            return None
        if isinstance(proxy, UnusableProxy):
            raise proxy.error()
        return proxy

    @property
    def has_proxies(self) -> bool:
        """Whether any request may go through a proxy."""
        return bool(self.http_proxy or self.https_proxy or self.all_proxy)

    @property
    def needs_socks(self) -> bool:
        """Whether one of the proxies speaks SOCKS, for which the extra `socks` is needed."""
        every = (self.http_proxy, self.https_proxy, self.all_proxy)
        return any(isinstance(proxy, Proxy) and proxy.is_socks for proxy in every)

    def _is_direct(self, scheme: str, host: str, port: int) -> bool:
        if any(entry.covers(scheme, host, port) for entry in self.no_proxy):
            return True
        if self.system:
            from urllib.request import proxy_bypass

            return bool(proxy_bypass(host))
        return False

    @property
    def ca_path(self) -> str | None:
        """The file or folder for libraries that take a single one, None for `certifi`'s.

        The one that requests and the SDKs on it always read, where it is set.
        """
        named = dict(self.ca_settings)
        for variable in _ONE_CA_VARIABLES:
            for part in ca_parts(named.get(variable, "")):
                if Path(part).exists():
                    return part
        return next(iter(named.values()), None)

    def netrc_authorization(self, host: str) -> str | None:
        """Return the `Authorization` header that the netrc file holds for a host, or None.

        It is for requests that bring no credentials of their own: neither by a header of the
        call or the client, nor by `auth=`, nor in the URL.
        """
        if self.netrc_path is None:
            return None
        logins = netrc_logins(self.netrc_path)
        found = logins.get(plain_name(host.strip("[]")))
        if found is None and self.netrc_default:
            found = logins.get("default")
        return found and basic_authorization(*found)

    def describe(self) -> Iterator[tuple[str, str, str]]:
        """Yield name, value and problem of each setting in force, without credentials."""
        for proxy in (self.http_proxy, self.https_proxy, self.all_proxy):
            if isinstance(proxy, UnusableProxy):
                yield proxy.variable, "***", f"is not a proxy URL ({proxy.problem})"
            elif proxy is not None:
                login = "***@" if proxy.username is not None else ""
                yield proxy.variable, f"{proxy.scheme}://{login}{proxy.where}", ""
        if self.no_proxy:
            yield "NO_PROXY", ",".join(map(str, self.no_proxy)), ""
        for variable, path in self.ca_settings:
            found = all(Path(part).exists() for part in ca_parts(path))
            yield variable, path, "" if found else "does not exist"
        if self.netrc_path is not None:
            yield "NETRC", self.netrc_path, ""


def ca_parts(path: str) -> list[str]:
    """Return the files or folders that a CA setting names: OpenSSL takes several folders."""
    if path and Path(path).exists():
        return [path]
    return [part for part in path.split(os.pathsep) if part]


_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_VARIABLES = (
    *_PROXY_VARIABLES,
    *(name.upper() for name in _PROXY_VARIABLES),
    *_CA_VARIABLES,
    "REQUEST_METHOD",
    "NETRC",
)
_KEYS = tuple(name.upper() if os.name == "nt" else os.fsencode(name) for name in _VARIABLES)


@lru_cache(maxsize=64)
def _read(
    values: tuple[str | bytes | None, ...], netrc_path: str | None, use_system: bool
) -> NetworkSettings:
    found = zip(_VARIABLES, values, strict=True)
    env = {name: os.fsdecode(value) for name, value in found if value is not None}
    if "REQUEST_METHOD" in env:
        env.pop("HTTP_PROXY", None)
        if os.name == "nt":  # where names have no case
            env.pop("http_proxy", None)
    proxies = {name: _proxy_of(env, name) for name in _PROXY_VARIABLES[:3]}
    system = False
    if use_system and not any(proxies.values()) and sys.platform in ("win32", "darwin"):
        from urllib.request import getproxies

        for name in _PROXY_VARIABLES[:3]:
            text = getproxies().get(name.removesuffix("_proxy"))
            if text:
                proxies[name], system = parse_proxy(text, f"the system's {name}"), True
    exceptions = env.get("no_proxy") or env.get("NO_PROXY") or ""
    return NetworkSettings(
        **proxies,
        no_proxy=tuple(NoProxy.parse(entry) for entry in re.split(r"[\s,]+", exceptions) if entry),
        ca_settings=tuple((name, env[name].strip()) for name in _CA_VARIABLES if env.get(name)),
        netrc_path=netrc_path,
        system=system,
        netrc_default=True,
    )


def _proxy_of(env: Mapping[str, str], name: str) -> Proxy | UnusableProxy | None:
    name = name if name in env else name.upper()
    text = env.get(name, "").strip()
    return parse_proxy(text, name) if text else None
