"""Credentials of `infra-core run`: which header, and which file with a token, is for which host."""

from pathlib import Path

from ._arguments import CommandError

__all__ = ["bearer_files_of", "headers_of"]

# Names that stand before a colon in curl's form of a header: no host is called like that.
_FIELDS = {
    *("accept", "accept-encoding", "accept-language", "authorization", "content-type", "cookie"),
    *("if-none-match", "origin", "range", "referer", "user-agent", "x-api-key", "x-auth-token"),
}


def headers_of(given: list[str]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Request headers for every host, and those for one.

    Raises:
        CommandError: One is not of the form NAME=VALUE.
    """
    for_all: dict[str, str] = {}
    by_host: dict[str, dict[str, str]] = {}
    for text in given:
        head, equals, value = text.partition("=")
        host, _, name = head.rpartition(":")
        curls = host and (name[:1].isspace() or host.lower() in _FIELDS)
        if not equals or not name.strip() or curls:
            shown = head.partition(":")[0]  # behind it there may be a secret: NAME: VALUE is curl's
            raise CommandError(
                f"--header {shown!r} is not of the form NAME=VALUE (or HOST:NAME=VALUE)"
            )
        host = host.strip().lower()
        (by_host.setdefault(host, {}) if host else for_all)[name.strip()] = value.strip()
    return for_all, by_host


def bearer_files_of(given: list[str]) -> tuple[Path | None, dict[str, Path]]:
    """The file with the token for every host, and those for one."""
    for_all: Path | None = None
    by_host: dict[str, Path] = {}
    for text in given:
        host, _, path = text.rpartition(":")
        if host and Path(text).exists():  # a path with a colon in it, such as C:\token
            host, path = "", text
        if host:
            by_host[host.lower()] = Path(path)
        else:
            for_all = Path(path)
    return for_all, by_host
