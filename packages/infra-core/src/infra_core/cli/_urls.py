"""Read a list of URLs as people write them, and say of each line that is no URL why."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from infra_core.runtime import redact_secrets

__all__ = ["Rejected", "UrlList", "read_urls"]

SHOWN = 80  # characters of a line that is no URL
LONGEST = 65_536  # no server takes a longer one; common limits are 8 to 16 KiB


@dataclass(frozen=True)
class Rejected:
    """A line that is not a URL we can download.

    Attributes:
        line: Its number, counted from 1.
        text: The line, shortened.
        reason: What is wrong and how to mend it.
    """

    line: int
    text: str
    reason: str


@dataclass
class UrlList:
    """What a list came to: URLs in their order, each once; the rest by kind.

    Attributes:
        urls: The URLs to download, in order.
        duplicates: Line numbers of URLs that stood in the list already.
        rejected: Lines that are no URL.
    """

    urls: list[str] = field(default_factory=list)
    duplicates: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def read_urls(lines: Iterable[bytes]) -> UrlList:
    r"""Read URLs, one a line; blank lines and lines that start with `#` are passed over.

    A line may end in CRLF, the list may start with a byte order mark, and a URL may be followed
    by white space and a comment (` # why`). A fragment is not sent to a server, so two URLs that
    differ in it alone are duplicates.

    Args:
        lines: The raw lines, as from a file opened in binary mode.

    Returns:
        The URLs, the line numbers of duplicates and the rejected lines with reasons.

    Example:
        >>> read_urls([b"https://example.com/a\r\n", b"# note\\n", b"ftp://x/y"]).urls
        ['https://example.com/a']
    """
    found = UrlList()
    seen: set[str] = set()
    for number, raw in enumerate(lines, 1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            shown = raw[:SHOWN].decode("utf-8", "replace").strip()
            reason = f"byte {error.start + 1} is not UTF-8; save the list as UTF-8"
            found.rejected.append(Rejected(number, redact_secrets(shown), reason))
            continue
        text = text.strip()
        if not text or text.startswith("#"):
            continue
        url = text.split(" #", 1)[0].split("\t#", 1)[0].rstrip()
        if reason := why_not(url):
            found.rejected.append(Rejected(number, redact_secrets(url[:SHOWN]), reason))
            continue
        url = url.partition("#")[0]
        if url in seen:
            found.duplicates.append(number)
        else:
            seen.add(url)
            found.urls.append(url)
    return found


def why_not(url: str) -> str:
    """The reason why this is no URL to download; empty when it is one."""
    if "\0" in url:
        return "a NUL byte; the list is no text in UTF-8, perhaps UTF-16: save it as UTF-8"
    if len(url) > LONGEST:
        return f"{len(url)} characters; a URL has at most {LONGEST}, is a line break missing?"
    if any(char.isspace() or ord(char) < 32 or ord(char) == 127 for char in url):
        return "white space inside the URL; write a space as %20, and one URL a line"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may hold a password
        return "malformed host or port; a port is at most 65535, an IPv6 address stands in []"
    if not parts.scheme or "://" not in url:
        return "no scheme; write https:// in front of the host name"
    if parts.scheme.lower() not in {"http", "https"}:
        return f"scheme {parts.scheme!r} is not http or https; only these are downloaded"
    if not parts.hostname:
        return "no host name after ://; write https://HOST/PATH"
    if port == 0:
        return "port 0 cannot be connected to; leave it out or give the right one"
    return ""
