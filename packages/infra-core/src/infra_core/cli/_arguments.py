"""What all commands read and refuse alike: unknown options, numbers, files to be written."""

import argparse
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import Any, NoReturn

__all__ = [
    "CommandError",
    "Parser",
    "add_options",
    "add_prefix",
    "add_verb",
    "byte_count",
    "check_writable",
    "count",
    "named",
    "natural",
    "number",
    "prefix_name",
    "prefixed_environment",
    "seconds",
    "speed",
    "whole",
]


class CommandError(Exception):
    """A command cannot start; the message names the value, the rule and the remedy."""


class Parser(argparse.ArgumentParser):
    """An argument parser that names the option that was probably meant.

    argparse hands unknown arguments of a subcommand up to the topmost parser, whose usage line does
    not know the subcommand's options; this one refuses them where they are known.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": HelpFormatter, **options})

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; whatever is left over is an error."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, unknown

    def _refuse(self, unknown: list[str]) -> NoReturn:
        """End with an error that names the first unknown argument, without a value it may have."""
        import difflib

        first = next((item for item in unknown if item.startswith("-")), unknown[0])
        name = first.partition("=")[0]
        if not name.startswith("-"):
            self.error(f"{name!r} is one argument too many; quote values that hold spaces")
        known = re.findall(r"--[a-z][a-z-]*", self.format_help())
        near = difflib.get_close_matches(name, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
        self.error(f"there is no option {name}; {meant}")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description as long as they fit; narrow terminals get them wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(wrapped(block, width) for block in text.strip("\n").split("\n\n"))


def wrapped(block: str, width: int) -> str:
    """A paragraph filled anew, or lines of a list each wrapped below their own text."""
    lines = block.split("\n")
    if all(len(line) <= width for line in lines):
        return block
    if not any(line.startswith(" ") for line in lines):
        return textwrap.fill(" ".join(lines), width, break_on_hyphens=False)
    hanging = [re.match(r" *(?:\S+ {2,}(?=\S))?", line) for line in lines]
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * (match.end() if match and match[0].strip() else 6),
            break_on_hyphens=False,
        )
        for line, match in zip(lines, hanging, strict=True)
    )


def add_options(parser: Any, options: Iterable[tuple[Any, ...]]) -> None:
    """Add options, each with its help, and how its value is read.

    Args:
        parser: A parser, or a group of one.
        options: Of each `--name VALUE`, or `--name` for a switch; its help; an argparse type for
            the value, a tuple of all values that there are, or `list` where it may be repeated.
    """
    for names, text, *rest in options:
        flags = [word for word in names.split() if word.startswith("-")]
        kind = rest[0] if rest else str
        how: dict[str, Any] = {"metavar": names.split()[-1], "type": kind}
        if isinstance(kind, tuple):
            how = {"choices": kind}
        elif len(names.split()) == len(flags):
            how = {"action": "store_true"}
        elif kind is list:
            how |= {"action": "append", "default": [], "type": str}
        parser.add_argument(*flags, help=text, **how)


def add_prefix(parser: Any, *, default: Any = None) -> None:
    """Add the option that chooses one service's variables."""
    parser.add_argument(
        "--prefix", type=prefix_name, metavar="P", default=default,
        help="read P_AZURE_* in place of AZURE_*, such as CRAWLER",
    )  # fmt: skip


def prefix_name(text: str) -> str:
    """An argparse type: the beginning of a variable's name."""
    from infra_core.batch._options import why_no_prefix

    if why := why_no_prefix(text):
        raise argparse.ArgumentTypeError(why)
    return text


@contextmanager
def prefixed_environment(prefix: str | None) -> Iterator[None]:
    """Let a command read the variables of one service in place of all others' of Azure."""
    if not prefix:
        yield
        return
    from infra_core.batch._environment import environment_of

    before = dict(os.environ)
    chosen = environment_of(before, prefix)
    try:
        os.environ.clear()
        os.environ.update(chosen)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def add_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add one verb of a command with what all verbs take."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    # SUPPRESS, or the verb's default would undo what stands in front of it.
    add_prefix(parser, default=argparse.SUPPRESS)
    parser.add_argument(
        "-v", "--verbose", action="count", default=argparse.SUPPRESS, help="log more"
    )
    return parser


def named(text: str) -> Path:
    """An argparse type: a folder. An empty name, of a variable that is not set, is not a `.`."""
    if not text.strip():
        raise argparse.ArgumentTypeError("no folder is named; give its path, or . for this one")
    return Path(text)


def whole(least: int, most: float = inf) -> Callable[[str], int]:
    """An argparse type: a whole number within bounds."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            bounds = f"at least {least}" if most == inf else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {bounds}")
        return value

    return read


count, natural = whole(1), whole(0)


_UNITS = {"ms": 0.001, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_NUMBER = r"((?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)"
_TIME = re.compile(rf"{_NUMBER} *({'|'.join(sorted(_UNITS, reverse=True))})")
_SIZES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def seconds(text: str) -> float:
    """An argparse type: a time above zero, in seconds or with units: 90, 90s, 1.5m, 2h, 2m30s."""
    rest = text.strip().lower()
    value = _positive(rest) if rest[-1:] in "0123456789." else 0.0
    if not value:
        value = sum(_positive(part) * _UNITS[unit] for part, unit in _TIME.findall(rest))
        value = 0.0 if _TIME.sub("", rest).strip() else value
    if value <= 0 or not isfinite(value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds above 0; units are s, m, h, d, such as 5m"
        )
    return value


def number(text: str) -> float:
    """An argparse type: a number above zero."""
    value = _positive(text)
    if value <= 0 or not isfinite(value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number above 0; leave the option out for no limit"
        )
    return value


def byte_count(text: str) -> int:
    """An argparse type: a size in bytes, or with a unit of 1024: 500k, 10M, 2GiB, 10MB/s."""
    found = re.fullmatch(rf"{_NUMBER} *([kmgt]?)(?:i?b)?(?:/s)?", text.strip().lower())
    value = _positive(found[1]) * _SIZES[found[2]] if found else 0.0
    if value < 1 or not isfinite(value):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size of at least 1 byte; units are k, M, G, such as 10M; "
            "leave the option out for no limit"
        )
    return int(value)


def speed(text: str) -> int:
    """An argparse type: bytes a second, as `byte_count`; 0 for no limit, as for curl and aria2c."""
    return 0 if re.fullmatch(r"0+", text.strip()) else byte_count(text)


def _positive(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def check_writable(path: Path | None, option: str) -> None:
    """Refuse a file that cannot be written, before any work is done for it.

    Raises:
        CommandError: It is a folder or a device, or its folder cannot be written to.
    """
    from infra_core.fs import AtomicFile

    if path is None:
        return
    problem = "name a file"
    try:
        if str(path) == "-":
            problem = "nothing but the summary is written to standard output; name a file"
        elif path.is_dir():
            problem = "it is a folder; name a file in it"
        else:
            AtomicFile(path, durable=False).abort()
            return
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise CommandError(f"{option} {os.fspath(path)!r}: {problem}")
