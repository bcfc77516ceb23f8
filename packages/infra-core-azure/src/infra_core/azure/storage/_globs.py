"""Globs over relative paths: `*` stays within a part, `**` crosses parts, `?` and `[...]` as usual.

A pattern without a slash is matched against the last part (`*.png` anywhere), one with a slash
against the whole path. A pattern that ends in a slash matches all below that folder.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

__all__ = ["compile_globs", "compile_pruning", "listed_globs"]


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
        raise TypeError(f"{what}={globs!r:.80} is no list of globs; pass one, or []") from None
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
            f"{glob!r} is no valid glob: {error.msg}; write [a-z] ranges in order"
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
