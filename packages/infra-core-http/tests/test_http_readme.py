"""The examples of the README run as they stand."""

import re
import runpy
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_example_runs(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each alone, in an empty folder, its assertions included."""
    if "DownloadProgress" in BLOCKS[number]:
        pytest.importorskip("rich")
    script = tmp_path / "example.py"
    script.write_text(BLOCKS[number], "utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
