"""Every guide of the documentation, followed to the letter from an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "pages"
GUIDES = sorted(path for path in PAGES.glob("guides/*.md") if path.stem != "index")

# What a reader does: Python blocks go to one session that stays open, shell blocks to a terminal
# in the same folder, and a block with a title is a file to save. Other blocks are there to be read.
READER = r"""
import re, subprocess, sys
from pathlib import Path

guide = Path(sys.argv[1])
text = guide.read_text("utf-8")
session = {"__name__": "__main__"}
for block in re.finditer(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', text, re.M | re.S):
    language, title, code = block.groups()
    line = text[: block.start(3)].count("\n")
    print(f"--- {guide.name}:{line} {language} {title or ''}", flush=True)
    if title:
        path = Path(title)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, "utf-8")
    elif language == "python":
        exec(compile("\n" * line + code, str(guide), "exec"), session)
        sys.stdout.flush()
    elif language == "bash":
        subprocess.run(["bash", "-c", "set -euo pipefail\n" + code], check=True)
"""


@pytest.mark.timeout(58)
@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_guide_works_from_an_empty_folder(
    guide: Path, example_com: dict[str, str], tmp_path: Path
) -> None:
    """A reader of the guide gets to its end, with no Azure account and nothing set."""
    if guide.stem == "dask":
        pytest.importorskip("distributed")
    home = tmp_path / "home"
    folder = tmp_path / "empty"
    home.mkdir()
    folder.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY")
        and not name.startswith(("AZURE_", "APPLICATIONINSIGHTS_", "APPINSIGHTS_", "XDG_"))
    }
    # The cache outside of the reader's home spares each guide an installation of Azurite.
    kept.setdefault("INFRA_CORE_CACHE", str(Path.home() / ".cache" / "infra-core"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error::ResourceWarning", "-c", READER, str(guide)],
        cwd=folder,
        env=kept | example_com | {"HOME": str(home), "PATH": path, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_guide_has_something_to_run() -> None:
    """A guide without a block that runs would pass the test above and show nothing."""
    assert GUIDES
    for guide in GUIDES:
        text = guide.read_text(encoding="utf-8")
        assert re.search(r"^```(?:python|bash)$", text, re.MULTILINE), guide.name


def test_guides_hold_no_block_that_is_quietly_left_out() -> None:
    """What looks like something to type is something that the test types."""
    for page in [*GUIDES, PAGES / "guides" / "index.md"]:
        languages = re.findall(r"^```(\S*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        unknown = set(languages) - {"", "python", "bash", "text", "console", "json"}
        assert not unknown, f"{page.name}: {unknown}"
