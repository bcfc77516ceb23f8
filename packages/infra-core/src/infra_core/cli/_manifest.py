"""`infra-core manifest`: a folder's files with types, sizes and URLs, as JSON or as a page."""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra_core._start import import_engine
from infra_core.batch._environment import open_jobs, open_storage, table_of
from infra_core.batch._errors import plural
from infra_core.batch._folder import ASSETS, JOBS_FILE, MANIFEST_FILE
from infra_core.fs import write_text_atomic

from . import exit_codes
from ._arguments import CommandError, add_options, check_writable, named
from ._report import print_json, to_json

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

DESCRIPTION = """\
List a folder's files with types, sizes and blob URLs.

  infra-core manifest runs/nightly-42
  infra-core manifest runs/nightly-42 --html report.html     one self-contained page

The page has thumbnails where infra-core[thumbnails] is installed. Of a batch it also shows
where each file came from, and which downloads failed, as its manifest and its job store have it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core manifest`."""
    parser.add_argument("folder", type=named, metavar="DIR", help="folder to list")
    options = [
        ("--out F", "write the JSON here, not to stdout", Path),
        ("--html F", "write a page for people", Path),
        ("--checksums", "add a sha256 of each file"),
        ("--base DIR", "folder that blob names are relative to (DIR/..)", named),
    ]
    add_options(parser, options)


def execute(options: argparse.Namespace) -> int:
    """Build the manifest and write it."""
    from infra_core.azure.run_storage import build_manifest

    if not options.folder.is_dir():
        problem = "is not a folder" if options.folder.exists() else "does not exist"
        raise CommandError(f"{str(options.folder)!r} {problem}; give a folder to list")
    check_writable(options.html, "--html")
    check_writable(options.out, "--out")
    if options.out and options.html and options.out.resolve() == options.html.resolve():
        raise CommandError("--out and --html name the same file; give each its own")
    folder = without_links(options.folder)
    given = options.folder.absolute()  # its assets may be a link to another disk
    recorded = recorded_files(given)
    with open_storage(os.environ, base_path=options.base or folder.parent) as storage:
        if storage.is_configured():
            import_engine()
        algorithm = "sha256" if options.checksums else None
        manifest = build_manifest(
            folder,
            client=storage,
            checksum=algorithm,
            timestamps=bool(options.html),
            content_types=recorded_types(recorded),
        )
        if storage.is_configured():
            blobs = build_manifest(folder, client=storage, source="blobs")["files"]
            stored = {file["path"] for file in blobs}
            without = [file for file in manifest["files"] if file["path"] not in stored]
            for file in without:
                file["url"] = None
            if without:
                base = (options.base or folder.parent).resolve()
                print(
                    f"{plural(len(without), 'file')} without a blob: names were sought relative to "
                    f"{str(base)!r}, --base names another folder",
                    file=sys.stderr,
                )
    add_sources(manifest["files"], recorded)
    if options.html:
        from infra_core.azure.run_report import render_html

        batch = batch_of(given)
        failed = failures(batch) if batch is not None else ()
        write_text_atomic(
            options.html,
            render_html(
                manifest, folder=folder, failures=failed, title=(batch or given).name or "Files"
            ),
        )
        for file in manifest["files"]:
            del file["modified_at"]  # which the page alone shows
    if options.out:
        write_text_atomic(options.out, to_json(manifest) + "\n")
    elif not options.html:
        print_json(manifest)
    return exit_codes.OK


def without_links(folder: Path) -> Path:
    """The folder without links, but for the one that `assets` may be: blobs have that name."""
    if folder.name == ASSETS:
        return folder.parent.resolve() / ASSETS
    return folder.resolve()


def batch_of(folder: Path) -> Path | None:
    """The folder of the batch whose files, or whose folder, this is."""
    batch = folder.parent if folder.name == ASSETS else folder
    return batch if (batch / ASSETS).is_dir() and (batch / MANIFEST_FILE).is_file() else None


def recorded_files(folder: Path) -> dict[str, dict[str, Any]]:
    """What a batch has written down of its files, by their path in a folder; else nothing.

    Args:
        folder: The batch's folder, or the one of its files.

    Raises:
        CommandError: The batch's manifest cannot be read.
    """
    batch = batch_of(folder)
    if batch is None:
        return {}
    path, prefix = batch / MANIFEST_FILE, "" if batch != folder else f"{ASSETS}/"
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {f"{prefix}{file['path']}": dict(file) for file in listed}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandError(
            f"cannot read {str(path)!r}: {error!r:.200}; resume the batch, which writes it again"
        ) from None


def recorded_types(recorded: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The media types that files were served with, by their path."""
    types = {path: file.get("content_type") for path, file in recorded.items()}
    return {path: kind for path, kind in types.items() if isinstance(kind, str)}


def add_sources(files: list[dict[str, Any]], recorded: dict[str, dict[str, Any]]) -> None:
    """Add to files where they came from, and their checksums, where they are as they were."""
    for file in files:
        entry = recorded.get(file["path"], {})
        if entry.get("size_bytes") == file["size_bytes"]:
            for name in ("source_url", "checksum"):
                if entry.get(name) and not file.get(name):
                    file[name] = entry[name]


def failures(batch: Path) -> Iterator[dict[str, Any]]:
    """The jobs of a batch that failed, as `render_html` shows them."""
    sqlite_path = batch.parent / JOBS_FILE
    if not table_of(os.environ) and not sqlite_path.is_file():
        return
    with open_jobs(os.environ, sqlite_path=sqlite_path) as store:
        for record in store.iter_runs(batch.name, status=["failed", "timed_out"]):
            yield {
                "url": record.payload.get("url"),
                "error": record.error,
                "updated_at": record.updated_at.isoformat(),
            }
