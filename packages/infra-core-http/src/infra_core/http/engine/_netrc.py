"""Logins of a netrc file, for requests that bring no credentials of their own."""

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from netrc import NetrcParseError, netrc
from pathlib import Path

__all__ = ["find_netrc", "netrc_logins"]

_logger = logging.getLogger("infra_core.http")


def find_netrc(named: str | None, *, at_home: bool) -> str | None:
    """Return the path of the file, None when there is none.

    Args:
        named: By the variable `NETRC`.
        at_home: Look for `~/.netrc` and `~/_netrc` too.
    """
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
        hosts = netrc(path).hosts
    except (NetrcParseError, OSError, UnicodeError) as error:
        # Not the error's text, which may quote a password.
        _logger.warning(
            "the netrc file %s cannot be read (%s), so no login of it is used: check its lines",
            path,
            type(error).__name__,
        )
        return {}
    return {
        host: (login or account or "", password or "")
        for host, (login, account, password) in hosts.items()
    }
