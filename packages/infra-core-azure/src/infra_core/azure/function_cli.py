"""Command lines that trigger a batch in a function app: arguments, scheduling, summary."""

import argparse
from collections.abc import Callable
from pathlib import Path

from ._function_trigger import (
    TriggerSummary,
    build_function_client,
    state_folder,
    trigger_batch,
    trigger_batch_async,
    write_summary,
)

__all__ = [
    "TriggerSummary",
    "add_azure_service_arguments",
    "build_function_client",
    "state_folder",
    "trigger_batch",
    "trigger_batch_async",
    "write_summary",
]


def add_azure_service_arguments(
    parser: argparse.ArgumentParser,
    *,
    base_url_env_var: str,
    base_url_help: str | None = None,
    concurrency_default: int = 4,
    include_summary: bool = True,
    summary_help: str | None = None,
) -> None:
    """Add the arguments that every command of this kind has.

    `batch_id`, `--base-url`, `--concurrency`, `--poll`/`--no-poll` (on), `--poll-timeout` (600),
    `--poll-interval` (5) and `--summary-file`.

    Args:
        parser: Where to add them.
        base_url_env_var: Variable that stands in for `--base-url`; named in the help.
        base_url_help: Help of `--base-url`.
        concurrency_default: Default of `--concurrency`.
        include_summary: Whether to add `--summary-file`.
        summary_help: Help of `--summary-file`.
    """
    add = parser.add_argument
    add("batch_id", type=_batch_id, help="batch that the jobs belong to")
    where = base_url_help or f"base URL of the function app (default: ${base_url_env_var})"
    add("--base-url", help=where)
    at_once = "jobs that the app works on at once (default: %(default)s)"
    add("--concurrency", type=_positive_int, default=concurrency_default, help=at_once)
    follow = "wait until the batch has ended; otherwise return as soon as it is scheduled"
    add("--poll", action=argparse.BooleanOptionalAction, default=True, help=follow)
    longest = "longest time to wait, in seconds (default: %(default)s)"
    add("--poll-timeout", type=_positive_float, default=600.0, help=longest)
    between = "time between two questions, in seconds (default: %(default)s)"
    add("--poll-interval", type=_positive_float, default=5.0, help=between)
    if include_summary:
        summary_help = summary_help or "write a JSON summary of the run to this file"
        add("--summary-file", type=Path, help=summary_help)


def _above_zero(kind: Callable[[str], float], what: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}; give one")
        return number

    return read


_positive_int = _above_zero(int, "whole number of 1 or more")
_positive_float = _above_zero(float, "number of seconds above 0")


def _batch_id(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a name; give the batch one")
    return text
