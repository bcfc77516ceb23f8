"""Every Python block of every README runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from infra_core.azure.testing import AzuriteServer

ROOT = Path(__file__).resolve().parent.parent
READMES = [ROOT / "README.md", *sorted(ROOT.glob("packages/*/README.md"))]

# Each block has a namespace of its own, so a reader may paste any of them alone.
RUNNER = """
import re, sys, traceback
from pathlib import Path
text = Path(sys.argv[1]).read_text("utf-8")
failed = 0
for match in re.finditer(r"^```python\\n(.*?)^```$", text, re.M | re.S):
    line = text[: match.start(1)].count("\\n")
    try:
        code = compile("\\n" * line + match[1], sys.argv[1], "exec")
        exec(code, {"__name__": "__main__"})
    except BaseException:
        failed += 1
        traceback.print_exc()
sys.exit(failed)
"""


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_python_blocks_of_the_readme_run(
    readme: Path, example_com: dict[str, str], azurite: AzuriteServer, tmp_path: Path
) -> None:
    """A reader who pastes an example gets what the README shows."""
    text = readme.read_text(encoding="utf-8")
    assert re.search(r"^```python$", text, re.MULTILINE) or readme.parent.name == "infra-core"
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().endswith("_PROXY") and not name.startswith("AZURE_")
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", RUNNER, str(readme)],
        cwd=tmp_path,
        env=kept
        | example_com
        | (
            {"AZURE_STORAGE_MODE": "dev-skip"}  # as it says beside the quick start
            if readme.parent == ROOT
            else {
                "AZURE_STORAGE_CONTAINER": "readme",
                "AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string,
            }
        ),
        capture_output=True,
        text=True,
        timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr
