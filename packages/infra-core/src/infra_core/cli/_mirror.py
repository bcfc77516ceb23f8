"""`infra-core mirror`: a folder and its blobs made alike, in one direction."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from infra_core._start import import_engine, import_storage, started
from infra_core.batch._environment import open_storage
from infra_core.batch._errors import plural

from . import exit_codes
from ._arguments import CommandError, add_options, add_verb, named
from ._manifest import recorded_files, recorded_types, without_links
from ._report import human_size, make_console, print_found, print_json

if TYPE_CHECKING:
    from infra_core.azure.storage import AzureStorageClient, TreeProgress, TreeReport

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

SHOWN_PROBLEMS = 20
T = TypeVar("T")

DESCRIPTION = """\
Mirror a folder to Blob Storage or back, or say what that would do.

Blobs are named after the folder (`nightly-42/assets/...` for runs/nightly-42), below
AZURE_STORAGE_BLOB_PREFIX; `--base` names another folder that names are relative to.

  infra-core mirror up runs/nightly-42               upload what the container does not have
  infra-core mirror down runs/nightly-42             download what is not here
  infra-core mirror plan runs/nightly-42 --delete    what `up` would do, by the same planner
  infra-core mirror plan runs/nightly-42 --down      what `down` would do
  infra-core mirror list runs/nightly-42             the blobs of a folder
  infra-core mirror pending                          uploads that failed and wait in the journal
  infra-core mirror pending --flush                  try them again now
  infra-core mirror pending --flush --refused        and what the service refused permanently
  infra-core mirror pending --forget                 drop from the journal what it refused

Files of equal size and MD5 are skipped. Names that would leave the folder (`..`, absolute, with
backslashes, through symbolic links, equal but for case) are refused before anything is touched;
with --skip-unsafe they are left out and the rest is transferred.
"""


_PLACE = [
    ("--base DIR", "folder that blob names are relative to (DIR/..)", named),
    ("--mode", "in place of AZURE_STORAGE_MODE", ("strict", "best-effort")),
]
_RULES = [
    ("--include GLOB", "only these", list),
    ("--exclude GLOB", "not these", list),
    ("--overwrite", "which files at the destination may be replaced (always)",
     ("always", "never", "if-unchanged")),
    ("--compare", "what makes two files equal, so that they are skipped (hash)",
     ("hash", "size", "nothing")),
    ("--delete", "delete at the destination what the source lacks (blobs with their snapshots)"),
    ("--skip-unsafe", "leave unsafe names out instead of stopping"),
]  # fmt: skip
_VERBS: list[tuple[str, str, list[tuple[Any, ...]]]] = [
    ("up", "folder to container", _RULES),
    ("down", "container to folder", [
        *_RULES,
        ("--accept-wrong-md5", "take blobs that were stored with an MD5 which is not theirs"),
    ]),
    ("plan", "what `up` (or with --down, `down`) would do",
     [("--down", "plan a download"), *_RULES]),
    ("list", "the blobs of a folder", []),
    ("pending", "uploads that wait in the journal", [
        ("--flush", "upload them now"),
        ("--refused", "with --flush: also what was refused permanently"),
        ("--forget", "drop what was refused permanently; the files stay"),
    ]),
]  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core mirror`."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, summary, options in _VERBS:
        verb = add_verb(verbs, name, summary)
        if name != "pending":
            verb.add_argument("folder", type=named, metavar="DIR", help="local folder")
        add_options(verb, [*_PLACE, *options])
        verb.set_defaults(overwrite="always", compare="hash")


def execute(options: argparse.Namespace) -> int:
    """Run the verb."""
    import_storage()
    if options.verb != "pending":
        import_engine()
        from infra_core.http.engine import Engine  # noqa: F401
    started()
    folder = getattr(options, "folder", Path())
    base = options.base or without_links(folder).parent
    wrong = getattr(options, "accept_wrong_md5", False)
    with open_storage(
        os.environ, base_path=base.resolve(), mode=options.mode, accept_wrong_md5=wrong
    ) as client:
        if client.mode == os.environ.get("AZURE_STORAGE_MODE", "").strip() == "dev-skip":
            raise CommandError(
                "AZURE_STORAGE_MODE=dev-skip keeps everything on this machine: unset it, or give "
                "--mode strict or --mode best-effort"
            )
        if not client.is_configured():
            raise CommandError(
                "storage is not configured; set AZURE_STORAGE_CONTAINER and "
                "AZURE_STORAGE_CONNECTION_STRING (or AZURE_STORAGE_ACCOUNT)"
            )
        verbs = {"pending": pending, "list": list_blobs, "plan": plan}
        return verbs.get(options.verb, transfer)(client, options)


def rules(options: argparse.Namespace) -> dict[str, Any]:
    """The options that `up`, `down` and `plan` hand to the storage client alike."""
    names = ("include", "exclude", "overwrite", "compare", "delete")
    unsafe = "skip" if options.skip_unsafe else "raise"
    return {**{name: getattr(options, name) for name in names}, "on_unsafe": unsafe}


def plan(client: "AzureStorageClient", options: argparse.Namespace) -> int:
    """Print what would be done with each file, and why."""
    direction: Literal["up", "down"] = "down" if options.down else "up"
    steps = checked(client.plan_tree, options.folder, direction, **rules(options))
    if not steps and not options.json:
        print("no file here and no blob there", file=sys.stderr)
    names = ("action", "name", "size", "reason")
    found = ({name: getattr(step, name) for name in names} for step in steps)
    rows = ([step.action, human_size(step.size), step.name, step.reason] for step in steps)
    print_found(found, ["action", "size", "name", "why"], rows, as_json=options.json)
    return exit_codes.OK


def transfer(client: "AzureStorageClient", options: argparse.Namespace) -> int:
    """Upload or download, with a progress bar on a terminal."""
    from infra_core.azure.storage import TreeTransferError

    settings = rules(options)
    if options.verb == "up":
        with suppress(CommandError):  # it is not a batch's manifest
            recorded = recorded_files(options.folder.absolute())
            settings["content_type"] = recorded_types(recorded).get
    with ExitStack() as stack:
        # rich takes longer to load than many a folder to travel
        show = stack.enter_context(progress_bar(options.verb)) if sys.stderr.isatty() else None
        try:
            report = checked(
                client.sync_tree, options.folder, options.verb, on_progress=show, **settings
            )
        except TreeTransferError as error:
            report = error.report
    blobs = client.iter_tree(options.folder)
    if options.verb == "down" and not report.files and next(blobs, None) is None:
        raise CommandError(
            f"nothing was downloaded: the container {client.settings.container!r} has no blob "
            f"below {client.blob_name_for_path(options.folder)!r}, or does not exist; check the "
            "folder's name, --base and AZURE_STORAGE_BLOB_PREFIX"
        )
    print_report(report, as_json=options.json)
    return exit_codes.OK if report.ok else exit_codes.FAILED


@contextmanager
def progress_bar(verb: str) -> "Iterator[Callable[[TreeProgress], None]]":
    """Show a progress bar on standard error; yields what moves it on."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True))
    console = make_console(to_stderr=True)
    with Progress(
        *columns,
        TransferSpeedColumn(),
        console=console,
        transient=True,  # the report says it all
    ) as bar:
        task = bar.add_task(verb, total=None)

        def show(progress: "TreeProgress") -> None:
            done, total = progress.files_done, progress.files_total
            bar.update(
                task,
                completed=progress.bytes_done,
                total=progress.bytes_total,
                description=f"{verb} {done}/{total} files",
            )

        yield show


def checked(method: Callable[..., T], *args: Any, **options: Any) -> T:
    """Call the storage client; names and folders that it refuses are errors of the command line."""
    from infra_core.azure.storage import StorageError, UnsafeNamesError

    try:
        return method(*args, **options)
    except UnsafeNamesError as error:
        text = str(error).replace("pass on_unsafe='skip'", "give --skip-unsafe")
        raise CommandError(text) from None
    except StorageError:
        raise
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from None


def print_report(report: "TreeReport", *, as_json: bool) -> None:
    """Print what became of a tree."""
    counts = {
        name: getattr(report, name)
        for name in ("files", "transferred", "skipped", "kept", "deleted", "rejected", "failed")
    }
    problems = [
        {"name": item.name, "action": item.action, "problem": str(item.error or item.reason)}
        for item in report.problems
    ]
    if as_json:
        size = {"bytes_transferred": report.bytes_transferred, "seconds": report.seconds}
        print_json(counts | size | {"problems": problems, "notes": report.notes})
        return
    for name, count in counts.items():
        if count or name in {"files", "transferred", "failed"}:
            print(f"{name:>12}  {count}")
    print(f"{'bytes':>12}  {human_size(report.bytes_transferred)} in {report.seconds:.2f} s")
    for note in report.notes:
        print(f"{'note':>12}  {note}")
    for item in problems[:SHOWN_PROBLEMS]:
        print(f"{item['action']:>12}  {item['name']}: {item['problem']}")
    if (more := len(problems) - SHOWN_PROBLEMS) > 0:
        print(f"{'...':>12}  and {plural(more, 'more problem')}; --json lists all")


def list_blobs(client: "AzureStorageClient", options: argparse.Namespace) -> int:
    """Print the blobs of a folder, page by page."""
    blobs = client.iter_tree(options.folder)
    found = ({"name": blob.name, "size_bytes": blob.size} for blob in blobs)
    rows = ([human_size(blob.size), blob.name] for blob in blobs)
    print_found(found, ["size", "name"], rows, as_json=options.json)
    return exit_codes.OK


def pending(client: "AzureStorageClient", options: argparse.Namespace) -> int:
    """Print the uploads that wait in the journal, try them again, or forget what was refused."""
    if options.refused and not options.flush:
        raise CommandError("--refused says what --flush sends; give --flush as well")
    if options.forget or options.flush:
        if options.forget:
            counts = {"forgotten": client.forget_refused()}
        else:
            counts = dataclasses.asdict(client.flush_pending(refused=options.refused))
        if options.json:
            print_json(counts)
        else:
            print("  ".join(f"{name} {count}" for name, count in counts.items()))
        refused_left = options.flush and any(entry.refused for entry in client.pending_uploads())
        return exit_codes.FAILED if counts.get("failed") or refused_left else exit_codes.OK
    entries = client.pending_uploads()
    names = ("blob", "kind", "path", "refused", "error")
    found = ({name: getattr(entry, name) for name in names} for entry in entries)
    rows = (
        ["refused" if each.refused else "pending", each.kind, each.blob, str(each.path or ""),
         each.error or ""]
        for each in entries
    )  # fmt: skip
    columns = ["state", "kind", "blob", "path", "last error"]
    print_found(found, columns, rows, as_json=options.json)
    if not options.json:
        refused = sum(entry.refused for entry in entries)
        more = f", {refused} refused permanently" if refused else ""
        print(f"{plural(len(entries) - refused, 'pending upload')}{more}")
    return exit_codes.OK
