"""`infra-core manifest`: a folder's files with types, sizes and URLs, as JSON or as a page."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from infra_core.batch._services import open_storage
from infra_core.fs import write_text_atomic

from . import exit_codes
from ._arguments import CommandError, check_writable
from ._report import plural, print_json, to_json

__all__ = ["DESCRIPTION", "add_arguments", "execute"]

DESCRIPTION = """\
List a folder's files with types, sizes and blob URLs.

  infra-core manifest runs/nightly-42/assets
  infra-core manifest runs/nightly-42/assets --html report.html     one self-contained page
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `infra-core manifest`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder to list")
    parser.add_argument("--out", type=Path, metavar="F", help="write the JSON here, not to stdout")
    parser.add_argument("--html", type=Path, metavar="F", help="write a page for people")
    parser.add_argument("--checksums", action="store_true", help="add a sha256 of each file")
    parser.add_argument(
        "--base", type=Path, metavar="DIR", help="folder that blob names are relative to (DIR/..)"
    )


def execute(options: argparse.Namespace) -> int:
    """Build the manifest and write it."""
    from infra_core.azure.run_storage import build_manifest

    if not options.folder.is_dir():
        problem = "is no folder" if options.folder.exists() else "does not exist"
        raise CommandError(f"{str(options.folder)!r} {problem}; give a folder to list")
    check_writable(options.html, "--html")
    check_writable(options.out, "--out")
    folder = options.folder.resolve()
    storage = open_storage(os.environ, base_path=options.base or folder.parent)
    try:
        algorithm = "sha256" if options.checksums else None
        manifest = build_manifest(folder, client=storage, checksum=algorithm)
        without = 0
        if storage.is_configured():
            stored = build_manifest(folder, client=storage, source="blobs")["files"]
            without = leave_out_urls(manifest["files"], {file["path"] for file in stored})
        if without:
            base = (options.base or folder.parent).resolve()
            print(
                f"{plural(without, 'file')} without a blob: names were sought relative to "
                f"{str(base)!r}, --base names another folder",
                file=sys.stderr,
            )
    finally:
        storage.close()
    if options.html:
        from infra_core.azure.run_report import render_html

        write_text_atomic(options.html, render_html(manifest, folder=folder))
    if options.out:
        write_text_atomic(options.out, to_json(manifest) + "\n")
    elif not options.html:
        print_json(manifest)
    return exit_codes.OK


def leave_out_urls(files: list[dict[str, Any]], stored: set[str]) -> int:
    """Take away URLs of blobs that do not exist; returns how many."""
    missing = [file for file in files if file["path"] not in stored]
    for file in missing:
        file["url"] = None
    return len(missing)
