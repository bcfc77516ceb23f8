"""Where files go: parents, hashed asset paths and joins that cannot leave their base."""

import hashlib
import os
from pathlib import Path
from typing import Final

from ._errors import UnsafePathError
from ._names import NAME_MAX, WINDOWS_ONLY, is_device_name, safe_name

__all__ = [
    "ensure_parent",
    "hashed_asset_path",
    "safe_file_name",
    "safe_join",
    "unique_asset_path",
]

_FALLBACK: Final = "asset"
_UNIQUE_NAME_MAX: Final = 120  # bytes; the folders take 66 more, and old Windows stops at 260


def ensure_parent(path: "Path | str") -> None:
    """Create the folder that `path` lies in, and those above it, where they are missing.

    Raises:
        OSError: The folder cannot be made, for example because a file has its name.

    Example:
        >>> target = Path(tempfile.mkdtemp()) / "reports" / "2026" / "summary.json"
        >>> ensure_parent(target)
        >>> target.parent.is_dir()
        True
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)


def hashed_asset_path(base_dir: "Path | str", key: str, filename_hint: str | None = None) -> Path:
    """Return `base/ab/cd/name`, where `abcd` are the first hex digits of the key's SHA-256.

    This is 0.7's form, kept for trees that exist. **Two keys can share a path**: the folder holds
    16 bits of hash, so among a few hundred assets that are all called `logo.png` two meet. Use
    `unique_asset_path` for anything new; callers of this one must check, as `infra_core.http`
    does, that an existing file belongs to the same key before reusing it.

    Args:
        base_dir: The folder that the result lies in, whatever key and hint hold.
        key: What identifies the asset, usually its URL.
        filename_hint: The file name wanted; without one the last part of the key's URL path is
            taken, else `asset`. `thumb/x.png` keeps its folder; a hint that is absolute or has
            `..`, empty segments or backslashes gives its last part. Control characters, Windows
            device names and names longer than 255 bytes are made harmless.

    Example:
        >>> hashed_asset_path("assets", "https://example.com/logo.png").as_posix()
        'assets/ad/c2/logo.png'
    """
    digest = _key_digest(key)
    name = _asset_name(key, filename_hint, limit=NAME_MAX, portable=False)
    return Path(base_dir, digest[:2], digest[2:4], *_folders(filename_hint or ""), name)


def unique_asset_path(base_dir: "Path | str", key: str, filename_hint: str | None = None) -> Path:
    """Return `base/ab/cd/<60 hex digits>/name`: no two keys ever share a path.

    The folders hold the whole SHA-256 of the key, so the path depends on nothing but key and
    hint, is the same on every machine, and the last folder belongs to this key alone.

    Args:
        base_dir: The folder that the result lies in, whatever key and hint hold.
        key: What identifies the asset, usually its URL.
        filename_hint: As in `hashed_asset_path`; the name is cut to 120 bytes and free of
            characters that Windows refuses.

    Example:
        >>> path = unique_asset_path("assets", "https://example.com/logo.png")
        >>> path.name, len(path.parent.name)
        ('logo.png', 60)
    """
    digest = _key_digest(key)
    name = _asset_name(key, filename_hint, limit=_UNIQUE_NAME_MAX, portable=True)
    return Path(base_dir) / digest[:2] / digest[2:4] / digest[4:] / name


def safe_file_name(text: str, *, fallback: str = _FALLBACK, limit: int = NAME_MAX) -> str:
    """Make one file name of any text: never empty, never a path, good on every system.

    Args:
        text: Anything: the end of a URL, a header, hostile input. Of a path the last part counts.
        fallback: The name where nothing usable is left.
        limit: Longest result in bytes; the extension stays.

    Example:
        >>> safe_file_name("../../etc/pass:wd")
        'pass_wd'
    """
    return safe_name(text, fallback=fallback, limit=limit, portable=True)


def _key_digest(key: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the key of an asset path is a str such as its URL, not {key!r}")
    # surrogatepass: a key with a lone surrogate is odd, yet still a key of its own
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _asset_name(key: str, hint: str | None, *, limit: int, portable: bool) -> str:
    if not hint:
        hint = _url_path(key)
    return safe_name(hint, fallback=_FALLBACK, limit=limit, portable=portable)


def _folders(hint: str) -> list[str]:
    """Return the folders that a hint names, if it is a plain relative path."""
    folders = hint.split("/")[:-1]
    if "\\" in hint or any(folder in {"", ".", ".."} for folder in folders):
        return []
    names = [safe_name(name, fallback="", limit=NAME_MAX, portable=False) for name in folders]
    return names if all(names) else []


def _url_path(key: str) -> str:
    from urllib.parse import urlparse  # only needed without a hint

    try:
        path = urlparse(key).path  # without ";parameters" of its last part
    except ValueError:  # "http://[" and its like: a key need not be a good URL
        path = key.partition("#")[0].partition("?")[0]
    return path.rstrip("/")


def safe_join(base: "Path | str", *parts: str) -> Path:
    """Join names from outside to a folder, or refuse: the result lies in `base`, always.

    Made for blob names, archive members and URL paths. Forward slashes separate; two different
    names never give one path. Symbolic links that exist are followed for the check, so a link
    below `base` that points outside is refused, the last part included. (A link made between the
    check and the use is beyond any check: keep `base` writable by yourself alone.)

    Args:
        base: The folder to stay in; need not exist.
        parts: Relative names, each of one or more segments.

    Returns:
        `base` with the parts joined; `base` is not resolved.

    Raises:
        UnsafePathError: Absolute, `..`, `.` or empty segments, a backslash, a NUL or control
            character, a segment of more than 255 bytes, on Windows also drive letters and other
            colons, `<>"|?*`, device names and trailing dots; or a symbolic link out of `base`.

    Example:
        >>> safe_join("out", "2026/logo.png").as_posix()
        'out/2026/logo.png'
        >>> safe_join("out", "../../etc/passwd")
        Traceback (most recent call last):
        infra_core.fs.UnsafePathError: ...
    """
    base_path = Path(base)
    segments: list[str] = []
    for part in parts:
        if not isinstance(os.fspath(part), str):
            raise _unsafe(part, base, "it is bytes, not text")
        for segment in os.fspath(part).split("/"):
            problem = _segment_problem(segment)
            if problem:
                if not segment and part:
                    problem = "it is absolute" if part[0] == "/" else "it has an empty segment"
                raise _unsafe(part, base, problem)
            segments.append(segment)
    if not segments:
        return base_path
    joined = base_path.joinpath(*segments)
    root = os.path.realpath(base_path)
    target = os.path.realpath(joined)
    if not Path(target).is_relative_to(root):  # on another drive as well
        raise _unsafe(
            "/".join(segments),
            base,
            "it leads through a symbolic link out of that folder",
            remedy="remove the link, or join to the folder that it leads to",
        )
    return joined


def _segment_problem(segment: str) -> str | None:
    """Say why a segment must not be joined; None when it may."""
    if not segment:
        return "it is empty"
    if segment in {".", ".."}:
        return f"it has a {segment!r} segment"
    if "\\" in segment:
        return "it has a backslash"
    if any(character < " " or character == "\x7f" for character in segment):
        return "it has a NUL or control character"
    try:
        length = len(os.fsencode(segment))
    except UnicodeEncodeError:
        return "it has characters that the file system cannot encode"
    if length > NAME_MAX:
        return f"it has a segment of {length} bytes, over {NAME_MAX}"
    if os.name == "nt" and ":" not in segment and (refused := WINDOWS_ONLY.search(segment)):
        return f"Windows allows no {refused[0]!r} in a name"
    if os.name == "nt" and (
        ":" in segment or segment != segment.rstrip(" .") or is_device_name(segment)
    ):
        return "Windows gives that name another meaning"
    return None


def _unsafe(
    part: str,
    base: "Path | str",
    problem: str,
    *,
    remedy: str = "give a relative name of plain segments separated by '/'",
) -> UnsafePathError:
    return UnsafePathError(
        f"the name {part!r} cannot be joined to {os.fspath(base)!r}: {problem}; {remedy}",
        path=part,
        base=base,
    )
