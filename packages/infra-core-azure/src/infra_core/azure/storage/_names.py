"""Names of blobs: how a path becomes one, how one becomes a URL, which are unsafe, and globs.

Pure functions. The rules for names are Azure's (1 to 1,024 characters, at most 254 parts,
https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata)
and, for names that shall become files, those of `infra_core.fs.safe_join`.

Globs: `*` stays within a part, `**` crosses parts, `?` and `[...]` as usual. A pattern without a
slash is matched against the last part (`*.png` anywhere), one with a slash against the whole path.
A pattern that ends in a slash matches all below that folder.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path, PurePath
from urllib.parse import quote

from infra_core.fs import UnsafePathError, safe_join

__all__ = [
    "altered_reason",
    "blob_name_for",
    "compile_globs",
    "compile_pruning",
    "encode_blob_name",
    "fold_name",
    "listed_globs",
    "reason_of",
    "tree_prefix",
    "unsafe_reason",
    "upload_problem",
]

MAX_NAME = 1024
MAX_PARTS = 254
_TEMPORARY = ("tmp/", "temp/", "var/tmp/")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")
_DROPPED_DOT = re.compile(r"\.(?:/|\Z)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Parts that begin with a word character, without colon or backslash, not devices of Windows
# and end in no dot or space, which it drops: nothing to object to.
_PART = (
    r"(?!(?:con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$) *(?:[./]|$))"
    r"\w[\w .,+@=()~%#&!$'\[\]{}^-]*(?<![ .])"
)
_PLAIN = re.compile(f"(?:{_PART}/)*{_PART}", re.ASCII | re.IGNORECASE)
_ANYWHERE = Path(os.sep)


def blob_name_for(path: PurePath, *, base: PurePath | None, prefix: str) -> str:
    """The blob name of a local path; a `ValueError` where it names nothing, as `..` at the root.

    Below `base` it is the path relative to it, whatever that path's first part is called. Outside
    of any base the leading slash or drive goes, and one leading `tmp/`, `temp/` or `var/tmp/`.
    """
    relative = _below(path, base) if base is not None else None
    if relative is None:
        plain = PurePath(os.path.normpath(path))
        if ".." in plain.parts:
            plain = PurePath(os.path.abspath(plain))  # noqa: PTH100 - must not follow links
        name = "/".join(part for part in plain.parts if part != plain.anchor and part != ".")
        for temporary in _TEMPORARY:
            if name.startswith(temporary):
                name = name[len(temporary) :]
                break
    else:
        name = "/".join(part for part in relative.parts if part != ".")
    prefix, name = prefix.strip("/"), name.lstrip("/")
    return f"{prefix}/{name}" if prefix and name else prefix or name


def _below(path: PurePath, base: PurePath) -> PurePath | None:
    """`path` relative to `base`, compared as written, then as absolute, then without links."""
    plain = PurePath(os.path.normpath(path))
    absolute = PurePath(os.path.abspath(path))  # noqa: PTH100 - links are looked at last
    for candidate, root in (
        (plain, PurePath(os.path.normpath(base))),
        (absolute, PurePath(os.path.abspath(base))),  # noqa: PTH100
        (Path(os.path.realpath(absolute.parent)) / absolute.name, Path(os.path.realpath(base))),
    ):
        if ".." not in candidate.parts and candidate.is_relative_to(root):
            return candidate.relative_to(root)
    return None


def tree_prefix(name: str) -> str:
    """The prefix of all blobs below a folder's name: with a slash, so `run-1` is not `run-10`."""
    return f"{name}/" if name else ""


def encode_blob_name(name: str) -> str:
    """Percent-encode a blob name for a URL path: all but unreserved characters and slashes.

    Two dots or one between slashes would be resolved away by clients and servers even when
    encoded; `upload_problem` refuses such names.
    """
    return quote(name, safe="/~")


@cache
def _fold(character: str) -> str:
    """Simple case folding, character by character, as file systems do it.

    `str.casefold` is the full one, which makes `ss` of `ß`: no file system takes Straße and Strasse
    for one file. https://www.unicode.org/reports/tr44/#CaseFolding.txt
    """
    folded = (character.casefold(), character.lower(), character)
    return next(form for form in folded if len(form) == 1)


def fold_name(name: str) -> str:
    """The form in which two names are one file on a file system that ignores case.

    Composed and decomposed accents are one name as well (APFS, HFS+). Compatibility forms are not:
    `m²` and `m2` are two names everywhere.
    """
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", "".join(map(_fold, unicodedata.normalize("NFC", name))))


def unsafe_reason(name: str) -> str | None:
    """Why a name (relative to its tree) must not become a file, or `None` when it may.

    The rules are those of `safe_join`; names of plain characters, nearly all, are passed at once.

    Example:
        >>> unsafe_reason("a/../../etc/passwd")
        "it has a '..' segment"
    """
    if len(name) < 200 and _PLAIN.fullmatch(name):
        return None
    if not name:
        return "it is empty"
    if _CONTROL.search(name):
        return "it has a control character, or one that XML cannot hold"
    if _SURROGATE.search(name):
        return "it is not valid UTF-8"
    try:
        safe_join(_ANYWHERE, name)
    except UnsafePathError as error:
        return reason_of(error, name)
    return None


def reason_of(error: UnsafePathError, name: str) -> str:
    """The reason alone of an error of `safe_join`, without the advice for its direct callers."""
    text = str(error)
    reason = text.rpartition(": it ")[2]
    return f"it {reason.partition(';')[0]}" if reason != text else text


def altered_reason(name: str) -> str | None:
    """Why the service takes a name for that of another blob, or `None` where it does not.

    "No path segments should end with a dot (.)": the blob of `a.` is `a`.
    """
    if "\\" in name:
        return "it has a backslash, which the blob service takes for a slash"
    if _DROPPED_DOT.search(name):
        return "it has a part that ends in a dot, which the blob service drops"
    return None


def upload_problem(name: str, prefix_length: int = 0) -> str | None:
    """Why a blob of this name cannot be stored or could never come back as a file, or `None`.

    The name is that below a tree; `prefix_length` characters will stand before it.
    """
    if reason := unsafe_reason(name):
        return reason
    if reason := altered_reason(name):
        return reason
    if len(name) + prefix_length > MAX_NAME:
        return f"it makes a blob name of more than {MAX_NAME} characters"
    if name.count("/") >= MAX_PARTS:
        return f"it has more than {MAX_PARTS} parts"
    return None


def compile_globs(include: Iterable[str], exclude: Iterable[str]) -> Callable[[str], bool]:
    """Whether a relative path is included and not excluded.

    Example:
        >>> wanted = compile_globs(["*.png", "data/**"], ["data/tmp/"])
        >>> [wanted(p) for p in ("a/b.png", "data/x/y.json", "data/tmp/z", "c.txt")]
        [True, True, False, False]
    """
    wanted = [_translate(glob) for glob in listed_globs(include, "include")]
    unwanted = [_translate(glob) for glob in listed_globs(exclude, "exclude")]

    def matches(name: str) -> bool:
        if wanted and not any(pattern.match(name) for pattern in wanted):
            return False
        return not any(pattern.match(name) for pattern in unwanted)

    return matches


def compile_pruning(exclude: Iterable[str]) -> Callable[[str], bool]:
    """Whether all below a folder is excluded, so that it need not be looked into.

    Example:
        >>> pruned = compile_pruning(["cache/", "**/old/**", "data/*"])
        >>> [pruned(p) for p in ("cache", "a/cache", "a/old", "data", "a")]
        [True, True, True, False, False]
    """
    unwanted = [_translate(glob) for glob in listed_globs(exclude, "exclude")]
    whole = [pattern for pattern in unwanted if pattern.pattern.endswith(r".*\Z")]
    return lambda folder: any(pattern.match(f"{folder}/") for pattern in whole)


def listed_globs(globs: Iterable[str], what: str) -> list[str]:
    """The globs of a parameter, checked to be some."""
    if isinstance(globs, str):
        raise TypeError(f"{what}={globs!r} is one string; pass a list of globs, [{globs!r}]")
    try:
        listed = list(globs)
    except TypeError:
        raise TypeError(f"{what}={globs!r:.80} is not a list of globs; pass one, or []") from None
    for glob in listed:
        if not isinstance(glob, str):
            raise TypeError(f"{what} holds {glob!r:.80}; pass a list of globs, such as ['*.png']")
    return listed


@lru_cache(maxsize=256)
def _translate(glob: str) -> re.Pattern[str]:
    glob = glob.removeprefix("./")
    anchored = "/" in glob.rstrip("/") or glob.startswith("/")
    body = glob.strip("/")
    if not body:
        raise ValueError(f"{glob!r} matches nothing; write '**' to match everything")
    text = "" if anchored else "(?:.*/)?"
    position = 0
    while position < len(body):
        piece, position = _piece(body, position)
        text += piece
    text += "/.*" if glob.endswith("/") else ""
    try:
        return re.compile(text + r"\Z", re.DOTALL)
    except re.error as error:  # a range the wrong way round, such as [z-a]
        raise ValueError(
            f"{glob!r} is not a valid glob: {error.msg}; write [a-z] ranges in order"
        ) from None


def _piece(body: str, at: int) -> tuple[str, int]:
    """The regular expression of what stands at a position, and the position after it."""
    if body.startswith("**/", at) and (at == 0 or body[at - 1] == "/"):
        return "(?:.*/)?", at + 3
    if body.startswith("**", at):
        return ".*", at + 2
    character = body[at]
    if character == "*":
        return "[^/]*", at + 1
    if character == "?":
        return "[^/]", at + 1
    end = body.find("]", at + 2) if character == "[" else -1
    if end > 0:
        inside = body[at + 1 : end]
        negated = inside[:1] in "!^"
        safe = (inside[1:] if negated else inside).replace("\\", r"\\").replace("[", r"\[")
        return f"(?!/)[{'^' if negated else ''}{safe}]", end + 1
    return re.escape(character), at + 1
