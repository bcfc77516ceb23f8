"""Credentials that stand in files: tokens, logins and cookies, read anew by each run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import BatchError

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    from ._options import BatchOptions

__all__ = ["cookie_jar", "with_credentials"]


def with_credentials(options: "BatchOptions", note: Callable[[str], object]) -> "BatchOptions":
    """The options with what the files hold that they name; `note` hears of what is passed over.

    A token goes before a header that is given, and a header before a login.

    Raises:
        BatchError: A file cannot be read, or holds something else.
    """
    headers = dict(options.headers)
    hosts = {} if options.netrc is None else _logins_of(options.netrc, note)
    for host, given in options.host_headers.items():
        hosts.setdefault(host.lower(), {}).update(given)
    if options.bearer_file is not None:
        _add_token(headers, options.bearer_file)
    for host, path in options.host_bearer_files.items():
        _add_token(hosts.setdefault(host.lower(), {}), path)
    cookies = options.cookies
    if isinstance(cookies, Path):
        cookies = cookie_jar(cookies)
    return replace(options, headers=headers, host_headers=hosts, cookies=cookies)


def _add_token(headers: dict[str, str], path: Path) -> None:
    option = "bearer_file (--bearer-file)"
    token = _text_of(option, path).strip()
    if not token or len(token.split()) != 1:
        raise BatchError(f"{option} {str(path)!r} must hold one token and nothing else")
    for name in [name for name in headers if name.lower() == "authorization"]:
        del headers[name]
    headers["Authorization"] = f"Bearer {token}"


def _logins_of(path: Path, note: Callable[[str], object]) -> dict[str, dict[str, str]]:
    """The `Authorization` header of each host that a netrc file names.

    An entry `default` is passed over: it would be sent to every host of the list.

    Raises:
        BatchError: The file cannot be read, or has lines that are not understood and is not the
            one of the user, which is read anyway.
    """
    from base64 import b64encode

    from infra_core.http.engine import NetworkSettings, read_netrc

    try:
        logins, odd_lines = read_netrc(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable("netrc (--netrc)", path, error) from None
    users_own = NetworkSettings.read().netrc_path  # which other programs read, with lines of theirs
    is_users = users_own is not None and path.resolve() == Path(users_own).resolve()
    for line in odd_lines:
        problem = f"netrc (--netrc) {str(path)!r}: line {line} is not understood"
        if not is_users:
            raise BatchError(f"{problem}; see the manual of curl")
        note(f"{problem}, so its login is not used")
    found = {}
    for host, login in logins.items():
        if host != "default":
            name = f"[{host}]" if host.count(":") > 1 and "[" not in host else host
            pair = b64encode(":".join(login).encode()).decode("ascii")
            found[name] = {"Authorization": f"Basic {pair}"}
    return found


def cookie_jar(path: Path) -> "CookieJar":
    """Read the cookies of a browser, in the format that curl reads and writes.

    Raises:
        BatchError: The file cannot be read, or a line has another format; its number is named.
    """
    from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy as Policy

    # Python sends a cookie of one host to the hosts below it as well; browsers and curl do not.
    jar = CookieJar(Policy(strict_ns_domain=Policy.DomainStrictNonDomain))
    lines = _text_of("cookies (--cookies)", path).split("\n")
    for number, line in enumerate(lines, 1):
        text = line.removeprefix("#HttpOnly_")
        if not text.strip() or text.startswith("#"):
            continue
        try:
            domain, below, folder, secure, ends, name, *rest = text.split("\t")
            expires = int(float(ends or 0)) or None  # 0 of a session, as curl and browsers write it
            (content,) = rest or [""]
        except (ValueError, OverflowError):
            raise BatchError(
                f"cookies (--cookies) {str(path)!r}: line {number} is not in Netscape's format, "
                "which has domain, TRUE or FALSE, path, TRUE or FALSE, expiry in seconds, name and "
                "value, with tabs between fields: export it as cookies.txt"
            ) from None
        if not (name or content):
            continue
        # one without a name is sent as its value alone: RFC 6265bis, section 5.8.3, and browsers
        name, value = (name, content) if name else (content, None)
        widely = below.upper() == "TRUE"
        domain = domain.removeprefix(".")
        if "." not in domain:
            domain = f"{domain}.local"  # as CookieJar names such hosts
        domain = "." * widely + domain
        jar.set_cookie(
            Cookie(
                0, name, value, None, False, domain, widely, widely, folder, False,
                secure.upper() == "TRUE", expires, expires is None, None, None, {},
            )
        )  # fmt: skip
    jar.clear_expired_cookies()
    return jar


def _text_of(option: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise _unreadable(option, path, error) from None


def _unreadable(option: str, path: Path, error: Exception) -> BatchError:
    cause = getattr(error, "strerror", None) or "it is not text"
    return BatchError(f"{option} {str(path)!r} cannot be read: {cause}")
