"""`infra-core heartbeat`, as a liveness probe calls it: the exit code is the answer."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.azure.monitoring import HeartbeatMonitor
from infra_core.cli import main
from infra_core.runtime.testing import FastTime, fast_time

pytestmark = pytest.mark.usefixtures("no_azure")


@pytest.fixture
def time() -> Iterator[FastTime]:
    """Time that a test moves."""
    with fast_time() as clock:
        yield clock


def test_the_exit_code_says_how_a_run_is(
    time: FastTime, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None, alive, stalled, alive for a patient probe, finished; with the reason on a line."""
    probe = ["heartbeat", str(tmp_path)]
    assert main(probe) == 6
    monitor = HeartbeatMonitor(tmp_path, azure_client=None, slug_timeout_seconds=None)
    monitor.set_slug("page-7")
    assert main(probe) == 0
    time.advance(100)
    assert main(probe) == 3
    assert main([*probe, "--max-age", "2m"]) == 0
    monitor.stop()
    assert main([*probe, "--json"]) == 5
    *printed, status = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in printed] == ["none", "alive", "stalled", "alive"]
    assert printed[1].endswith("on 'page-7'")
    assert json.loads(status)["state"] == "finished"


def test_help_says_each_exit_code_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of the other commands mean something else."""
    with pytest.raises(SystemExit):
        main(["heartbeat", "--help"])
    text = capsys.readouterr().out
    codes = re.findall(r"^  (\d+) {2,}\S", text, re.MULTILINE)
    assert codes == ["0", "3", "4", "5", "6", "1", "2"]
    assert "exit codes:" not in text


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"timestamp": "1999-01-01T00:00:00Z"}, 4),
        ({"timestamp": "2999-01-01T00:00:00Z"}, 4),
        ({"timestamp": "no time"}, 6),
    ],
)
def test_of_a_run_elsewhere_the_age_decides(
    changes: dict[str, str], code: int, time: FastTime, tmp_path: Path
) -> None:
    """Also one whose clock is ahead is dead in the end."""
    monitor = HeartbeatMonitor(tmp_path, azure_client=None)
    monitor.set_slug(None)
    beat = json.loads(monitor.path.read_text())
    beat |= {"host": "elsewhere", "process": "a/b/c", **changes}
    monitor.path.write_text(json.dumps(beat))
    assert main(["heartbeat", str(monitor.path)]) == code
    monitor.stop()


@pytest.mark.skipif(os.name != "posix", reason="a probe of a Linux container")
def test_an_exec_probe_is_answered_quickly_with_no_environment(tmp_path: Path) -> None:
    """No HOME, no PATH, another folder, no input; and nothing is imported that it does not need.

    Kubernetes gives an exec probe one second unless configured otherwise.
    """
    monitor = HeartbeatMonitor(tmp_path, azure_client=None)
    monitor.set_slug("a")
    probe = (
        "import sys\nfrom infra_core.cli import main\ncode = main(sys.argv[1:])\n"
        "heavy = {'httpx', 'requests', 'aiohttp', 'azure', 'rich', 'asyncio'} & set(sys.modules)\n"
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, "heartbeat", str(tmp_path)],
        env={}, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    monitor.stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("alive: last beat ")


@pytest.mark.parametrize("arguments", [[], ["folder", "--blob", "name"], ["--blob", "name"]])
def test_what_cannot_be_asked_is_refused(arguments: list[str]) -> None:
    """Nothing named, two things named, a blob without a container."""
    assert main(["heartbeat", *arguments]) == 2
