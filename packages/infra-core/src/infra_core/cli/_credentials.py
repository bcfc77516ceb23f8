"""Credentials of `infra-core run`: headers, and tokens, logins and cookies of files."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ._arguments import CommandError

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

__all__ = ["cookie_jar", "headers_of"]

# Names that stand before a colon in curl's form of a header: no host is called like that.
_FIELDS = {
    *("accept", "accept-encoding", "accept-language", "authorization", "content-type", "cookie"),
    *("if-none-match", "origin", "range", "referer", "user-agent", "x-api-key", "x-auth-token"),
}


def headers_of(
    given: list[str], bearer_files: list[str], netrc_file: Path | None = None
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Request headers for every host, and those for one.

    Raises:
        CommandError: One is not of the form NAME=VALUE, or a file cannot be read.
    """
    for_all: dict[str, str] = {}
    by_host: dict[str, dict[str, str]] = {}

    def put(host: str, name: str, value: str) -> None:
        (by_host.setdefault(host.lower(), {}) if host else for_all)[name] = value

    if netrc_file is not None:
        for host, authorization in logins_of(netrc_file).items():
            put(host, "Authorization", authorization)
    for text in given:
        head, equals, value = text.partition("=")
        host, _, name = head.rpartition(":")
        curls = host and (name[:1].isspace() or host.lower() in _FIELDS)
        if not equals or not name.strip() or curls:
            shown = head.partition(":")[0]  # behind it there may be a secret: NAME: VALUE is curl's
            raise CommandError(
                f"--header {shown!r} is not of the form NAME=VALUE (or HOST:NAME=VALUE)"
            )
        put(host.strip(), name.strip(), value.strip())
    for text in bearer_files:
        host, colon, path = text.rpartition(":")
        if colon and Path(text).exists():  # a path with a colon in it, such as C:\token
            host, path = "", text
        try:
            token = Path(path).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable("--bearer-file", path, error) from None
        if not token or len(token.split()) != 1:
            raise CommandError(f"--bearer-file {path!r} must hold one token and nothing else")
        put(host, "Authorization", f"Bearer {token}")
    return for_all, by_host


def logins_of(path: Path) -> dict[str, str]:
    """The `Authorization` header of each host that a netrc file names.

    An entry `default` is passed over: it would be sent to every host of the list.

    Raises:
        CommandError: The file cannot be read, or has lines that are not understood and is not the
            one of the user, which is read anyway.
    """
    from base64 import b64encode

    from infra_core.http.engine import NetworkSettings, read_netrc

    try:
        logins, odd_lines = read_netrc(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("--netrc", path, error) from None
    users_own = NetworkSettings.read().netrc_path  # which other programs read, with lines of theirs
    is_users = users_own is not None and path.resolve() == Path(users_own).resolve()
    for line in odd_lines:
        problem = f"--netrc {str(path)!r}: line {line} is not understood"
        if not is_users:
            raise CommandError(f"{problem}; see the manual of curl")
        print(f"{problem}, so its login is not used", file=sys.stderr)
    found = {}
    for host, login in logins.items():
        if host != "default":
            name = f"[{host}]" if host.count(":") > 1 and "[" not in host else host
            pair = b64encode(":".join(login).encode()).decode("ascii")
            found[name] = f"Basic {pair}"
    return found


def cookie_jar(path: Path) -> "CookieJar":
    """Read the cookies of a browser, in the format that curl reads and writes.

    Raises:
        CommandError: The file cannot be read, or a line has another format; its number is named.
    """
    from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy as Policy

    # Python sends a cookie of one host to the hosts below it as well; browsers and curl do not.
    jar = CookieJar(Policy(strict_ns_domain=Policy.DomainStrictNonDomain))
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("--cookies", path, error) from None
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("#HttpOnly_")
        if not text.strip() or text.startswith("#"):
            continue
        try:
            domain, below, folder, secure, ends, name, *value = text.split("\t")
            expires = int(float(ends or 0)) or None  # 0 of a session, as curl and browsers write it
            (content,) = value or [""]
        except (ValueError, OverflowError):
            raise CommandError(
                f"--cookies {str(path)!r}: line {number} is not in Netscape's format, which has "
                "domain, TRUE or FALSE, path, TRUE or FALSE, expiry in seconds, name and value, "
                "with tabs between fields: export it as cookies.txt"
            ) from None
        widely = below.upper() == "TRUE"
        domain = domain.removeprefix(".")
        if "." not in domain:
            domain = f"{domain}.local"  # as CookieJar names such hosts
        domain = "." * widely + domain
        jar.set_cookie(
            Cookie(
                0, name, content, None, False, domain, widely, widely, folder, False,
                secure.upper() == "TRUE", expires, expires is None, None, None, {},
            )
        )  # fmt: skip
    jar.clear_expired_cookies()
    return jar


def _unreadable(option: str, path: object, error: Exception) -> CommandError:
    cause = getattr(error, "strerror", None) or "it is no text"
    return CommandError(f"{option} {str(path)!r} cannot be read: {cause}")
