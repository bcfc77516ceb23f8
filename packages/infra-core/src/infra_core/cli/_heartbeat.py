"""`infra-core heartbeat`: a liveness probe; its exit code says how a run is."""

import argparse
import dataclasses
import json
import os
from pathlib import Path

from infra_core._start import import_engine
from infra_core.azure.monitoring import HeartbeatState, HeartbeatStatus, read_heartbeat
from infra_core.runtime import printable

from . import exit_codes
from ._arguments import CommandError, add_options, seconds

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

STALLED, DEAD, FINISHED, NONE = 3, 4, 5, 6
VERDICTS = {
    HeartbeatState.ALIVE: ("alive", exit_codes.OK),
    HeartbeatState.STALLED: ("stalled", STALLED),
    HeartbeatState.DEAD: ("dead", DEAD),
    HeartbeatState.STOPPED: ("finished", FINISHED),
}
DESCRIPTION = f"""\
Say whether a run is alive, by its heartbeat.

  infra-core heartbeat runs/nightly-42 --max-age 2m
  infra-core heartbeat --blob nightly-42 --max-age 2m       of a run on another machine

The exit code is the answer, a line says why:

  {exit_codes.OK}    alive: it beats and makes progress
  {STALLED}    stalled: its process lives, but is stuck on an item or too busy to beat
  {DEAD}    dead: its process is gone, or its last beat is too old
  {FINISHED}    finished: it was stopped properly
  {NONE}    none: there is no heartbeat, or it cannot be read
  {exit_codes.FAILED}    not known: the storage refused or did not answer
  {exit_codes.USAGE}    not known: wrong arguments or settings

A file's age is the time since its beat by the clocks of both machines. A beat that is dated further
ahead than --max-age counts as too old. The age of a blob is counted by the storage's clock alone.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core heartbeat`."""
    parser.epilog = None  # that is the table of exit codes of the other commands
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="FOLDER",
        help="folder of the run, or its heartbeat.json",
    )  # fmt: skip
    options = [
        ("--blob NAME", "the same, mirrored to the container of AZURE_STORAGE_*"),
        ("--max-age S", "oldest beat of a run that is alive (three of its intervals)", seconds),
        ("--json", "print what is known as JSON"),
    ]
    add_options(parser, options)


def execute(options: argparse.Namespace) -> int:
    """Read the heartbeat, print the verdict and return its exit code."""
    if (options.folder is None) == (options.blob is None):
        raise CommandError("give either the FOLDER of a run or --blob NAME")
    if options.folder is None:
        status = read_blob(options)
    else:
        status = read_heartbeat(options.folder, stale_after=options.max_age)
    name, code = ("none", NONE) if status.timestamp is None else VERDICTS[status.state]
    if options.json:
        fields = {**dataclasses.asdict(status), "state": name, "exit_code": code}
        print(json.dumps(fields, default=str))
    else:
        print(f"{name}: {printable(status.reason)}")
    return code


def read_blob(options: argparse.Namespace) -> HeartbeatStatus:
    """Judge the mirror of a heartbeat."""
    import_engine()
    from infra_core.azure.monitoring import read_heartbeat_blob
    from infra_core.batch._environment import open_storage

    with open_storage(os.environ, base_path=Path()) as storage:
        return read_heartbeat_blob(storage, options.blob, stale_after=options.max_age)
