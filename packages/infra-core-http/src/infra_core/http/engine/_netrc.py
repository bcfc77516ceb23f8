"""Logins of a netrc file, for requests that bring no credentials of their own."""

import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from netrc import NetrcParseError, netrc
from pathlib import Path

__all__ = ["find_netrc", "netrc_logins"]

_logger = logging.getLogger("infra_core.http")


def find_netrc(env: Mapping[str, str], *, at_home: bool) -> str | None:
    """Return the path of the file, None when there is none.

    Args:
        env: Its variable `NETRC` counts.
        at_home: Look for `~/.netrc` and `~/_netrc` too.
    """
    named = env.get("NETRC")
    if named:
        return named
    if at_home:
        for name in ("~/.netrc", "~/_netrc"):
            path = os.path.expanduser(name)  # noqa: PTH111 - a third of the time, at each call
            if os.path.exists(path):  # noqa: PTH110 - likewise
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
