"""Logins of a netrc file, for requests that bring no credentials of their own."""

import logging
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from ._proxies import address_of, plain_name

__all__ = ["Netrc", "find_netrc", "netrc_logins", "read_netrc"]

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
