"""Reading a heartbeat: alive, stalled, dead or stopped, and never an exception."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.azure import _process
from infra_core.azure._process import process_identity
from infra_core.azure.exceptions import ConfigurationError
from infra_core.azure.monitoring import (
    HeartbeatMonitor,
    HeartbeatState,
    read_heartbeat,
    read_heartbeat_blob,
)
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, BlobContent
from infra_core.runtime.testing import fast_time

NOW = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)
NO_PROCESS = 2**22 + 7  # above the largest process number that Linux gives


def write(root: Path, *, age: float = 1.0, **changes: Any) -> Path:
    """Write the heartbeat of a run that lives in this process."""
    beat = {
        "timestamp": (NOW - timedelta(seconds=age)).isoformat(),
        "slug": "item-1",
        "slug_seconds": 3.0,
        "stalled": False,
        "loop_lag_seconds": None,
        "state": "running",
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "process": process_identity(os.getpid()),
        "interval_seconds": 30.0,
        **changes,
    }
    path = root / "_state" / "heartbeat.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(beat))
    return path


def state(path: Path, **options: Any) -> str:
    return read_heartbeat(path, utc_now=lambda: NOW, **options).state.value


@pytest.mark.as_windows
def test_a_fresh_beat_of_a_living_process_is_alive(tmp_path: Path) -> None:
    """And the status names what the run is at."""
    status = read_heartbeat(write(tmp_path), utc_now=lambda: NOW)
    assert status.state is HeartbeatState.ALIVE
    assert status.is_alive
    assert (status.slug, status.slug_seconds, status.pid) == ("item-1", 3.0, os.getpid())
    assert status.age_seconds == 1.0
    assert "item-1" in status.reason


def test_the_storage_root_will_do_as_well(tmp_path: Path) -> None:
    """The caller need not know where below the root the file lies."""
    write(tmp_path)
    assert state(tmp_path) == "alive"


@pytest.mark.as_windows
def test_a_process_that_is_gone_is_dead_however_fresh_the_beat(tmp_path: Path) -> None:
    """The process decides where it can be checked."""
    assert state(write(tmp_path, pid=NO_PROCESS)) == "dead"


@pytest.mark.as_windows
@pytest.mark.skipif(sys.platform == "darwin", reason="it does not say when a process began")
def test_a_later_process_with_the_same_number_is_not_the_run(tmp_path: Path) -> None:
    """Numbers come again; start times do not."""
    mine = process_identity(os.getpid())
    assert mine is not None
    assert state(write(tmp_path, process=mine + "0")) == "dead"


@pytest.mark.parametrize(("age", "expected"), [(1, "alive"), (91, "dead")])
@pytest.mark.posix(reason="/proc")
@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_the_age_decides_where_the_system_hides_the_process(
    age: float, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `hidepid`, the processes of other users are there and cannot be looked at."""
    mine = process_identity(os.getpid())
    assert mine is not None
    boot, namespace, _ = mine.split("/")
    proc = tmp_path / "proc"
    (proc / "sys/kernel/random").mkdir(parents=True)
    (proc / "sys/kernel/random/boot_id").write_text(boot)
    (proc / "self/ns").mkdir(parents=True)
    (proc / "self/ns/pid").symlink_to(namespace)
    (proc / f"{os.getpid()}").symlink_to(f"/proc/{os.getpid()}")
    monkeypatch.setattr(_process, "_PROC", proc)
    run = subprocess.Popen([sys.executable, "-c", "open(0).read()"], stdin=subprocess.PIPE)
    try:
        path = write(tmp_path, age=age, pid=run.pid, process=f"{boot}/{namespace}/7")
        assert state(path) == expected
    finally:
        run.communicate()


@pytest.mark.posix(reason="boots")
@pytest.mark.skipif(sys.platform != "linux", reason="boots are known on Linux only")
def test_a_restart_of_the_machine_ended_the_run(tmp_path: Path) -> None:
    """A beat of an earlier boot of this machine is that of a dead run."""
    mine = process_identity(os.getpid())
    assert mine is not None
    _, _, rest = mine.partition("/")
    assert state(write(tmp_path, process=f"another-boot/{rest}")) == "dead"


@pytest.mark.parametrize(("age", "expected"), [(1, "alive"), (91, "dead")])
def test_elsewhere_the_age_decides(age: float, expected: str, tmp_path: Path) -> None:
    """A run on another machine is dead when three intervals passed without a beat."""
    path = write(tmp_path, age=age, host="elsewhere", process="a-boot/a-namespace/7", pid=1)
    assert state(path) == expected


def test_a_living_process_that_does_not_beat_is_stalled_not_dead(tmp_path: Path) -> None:
    """Frozen or starved is distinguished from gone."""
    assert state(write(tmp_path, age=91)) == "stalled"
    assert state(write(tmp_path, age=40), stale_after=20) == "stalled"


def test_a_run_that_is_stuck_on_an_item_is_stalled(tmp_path: Path) -> None:
    """It beats, but it does not get along; the reason says with what."""
    status = read_heartbeat(write(tmp_path, stalled=True, slug_seconds=400.0), utc_now=lambda: NOW)
    assert status.state is HeartbeatState.STALLED
    assert "401 s on 'item-1'" in status.reason


def test_a_run_whose_loop_is_blocked_is_stalled(tmp_path: Path) -> None:
    """The lag in the beat distinguishes busy from well."""
    assert state(write(tmp_path, loop_lag_seconds=0.5)) == "alive"
    assert state(write(tmp_path, loop_lag_seconds=31.0)) == "stalled"
    assert state(write(tmp_path, loop_lag_seconds=0.5), max_loop_lag=0.1) == "stalled"


def test_a_stopped_run_is_not_dead(tmp_path: Path) -> None:
    """A proper end raises no alarm, long after and with the process gone."""
    assert state(write(tmp_path, state="stopped", pid=NO_PROCESS, age=9000)) == "stopped"


def test_a_heartbeat_of_0_7_is_classified_by_its_age(tmp_path: Path) -> None:
    """Two fields were all there was."""
    path = tmp_path / "heartbeat.json"
    path.write_text(json.dumps({"timestamp": "2026-01-01T11:59:50Z", "slug": "a"}))
    assert state(path) == "alive"
    path.write_text(json.dumps({"timestamp": "2026-01-01T11:50:00+00:00", "slug": None}))
    assert state(path) == "dead"


@pytest.mark.parametrize("interval", [-5, 0, -1e300, float("nan"), "30", None])
@pytest.mark.parametrize(("age", "expected"), [(1, "alive"), (91, "dead")])
def test_an_interval_that_is_none_is_that_of_0_7(
    interval: object, age: float, expected: str, tmp_path: Path
) -> None:
    """30 s: a heartbeat that another program wrote need not say its own."""
    path = write(tmp_path, age=age, host="elsewhere", process=None, interval_seconds=interval)
    assert state(path) == expected


def test_a_clock_ahead_of_ours_is_no_reason_to_worry(tmp_path: Path) -> None:
    """A beat from the future has come just now."""
    assert read_heartbeat(write(tmp_path, age=-50), utc_now=lambda: NOW).age_seconds == 0.0


def test_a_clock_that_is_ahead_keeps_no_dead_run_alive(tmp_path: Path) -> None:
    """The age of a beat from a far future is not known, which is as bad as too old."""
    elsewhere = {"host": "elsewhere", "process": "a-boot/a-namespace/7", "pid": 1}
    assert state(write(tmp_path, age=-89, **elsewhere)) == "alive"
    path = write(tmp_path, age=-86_400, **elsewhere)
    assert state(path) == "dead"
    assert "86400 s ahead of the clock" in read_heartbeat(path, utc_now=lambda: NOW).reason
    assert state(path, stale_after=90_000) == "alive"
    assert state(write(tmp_path, age=-91)) == "stalled"


class Mirror:
    """What of a storage client the reader of blobs asks for."""

    base_path = Path("out")

    def __init__(self, data: bytes | None, age: float | None) -> None:
        self.found = None if data is None else BlobContent(data, age)
        self.asked = Path()

    def is_configured(self) -> bool:
        return True

    def read_blob(self, path: Path) -> BlobContent | None:
        self.asked = path
        return self.found


@pytest.mark.parametrize("skew", [-86_400, 0, 86_400])
@pytest.mark.parametrize(("age", "expected"), [(1, "alive"), (91, "dead")])
def test_the_age_of_a_blob_is_what_its_service_says(
    skew: float, age: float, expected: str, tmp_path: Path
) -> None:
    """Whatever the clock of the run or of the reader says."""
    beat = write(tmp_path, age=skew, host="elsewhere", process="a-boot/a-namespace/7", pid=1)
    mirror = Mirror(beat.read_bytes(), age)
    status = read_heartbeat_blob(cast("AzureStorageClient", mirror), "nightly")
    assert (status.state, status.age_seconds) == (expected, age)
    assert mirror.asked == Path("out/nightly/_state/heartbeat.json")


def test_a_blob_that_is_not_there_is_no_heartbeat() -> None:
    """And a client without a container cannot say."""
    status = read_heartbeat_blob(cast("AzureStorageClient", Mirror(None, None)), "a/beat.json")
    assert (status.state, status.timestamp) == ("dead", None)
    assert "no blob a/beat.json" in status.reason
    here, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    with pytest.raises(ConfigurationError, match="AZURE_STORAGE_CONTAINER"):
        read_heartbeat_blob(AzureStorageClient.from_settings(here, mode), "a")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no heartbeat at"),
        ("", "is not a heartbeat"),
        ("[]", "instead of an object"),
        ('{"slug": "a"}', "has no timestamp"),
        ('{"timestamp": "yesterday"}', "is not a heartbeat"),
    ],
)
def test_what_is_no_heartbeat_is_dead_and_says_why(
    content: str | None, reason: str, tmp_path: Path
) -> None:
    """Missing and broken files do not raise: the watchdog needs an answer."""
    path = tmp_path / "heartbeat.json"
    if content is not None:
        path.write_text(content)
    status = read_heartbeat(path)
    assert status.state is HeartbeatState.DEAD
    assert reason in status.reason


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=9)
)


@settings(max_examples=60, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ["timestamp", "slug", "slug_seconds", "stalled", "loop_lag_seconds", "state", "pid",
             "host", "process", "interval_seconds"]
        ),
        values,
    )
)  # fmt: skip
def test_no_content_makes_the_reader_raise(
    changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a file says, there is a verdict with a reason."""
    status = read_heartbeat(write(tmp_path_factory.mktemp("beat"), **changes))
    assert status.state in HeartbeatState
    assert status.reason


def test_a_monitor_and_the_reader_understand_each_other(tmp_path: Path) -> None:
    """Running, stuck and stopped, as the monitor writes them."""
    with fast_time() as clock:
        monitor = HeartbeatMonitor(tmp_path, azure_client=None, slug_timeout_seconds=None)
        monitor.set_slug("a")
        assert read_heartbeat(tmp_path).state is HeartbeatState.ALIVE
        clock.advance(200)
        assert read_heartbeat(tmp_path).state is HeartbeatState.STALLED
        monitor.stop()
        assert read_heartbeat(tmp_path).state is HeartbeatState.STOPPED


@contextmanager
def started_run(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that beats into a folder until it is ended."""
    code = """
        import sys
        from pathlib import Path
        from infra_core.azure.monitoring import HeartbeatMonitor
        HeartbeatMonitor(Path(sys.argv[1]), azure_client=None).start()
        print("started", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"started\n"
        try:
            yield run
        finally:
            run.kill()


@pytest.mark.posix
@pytest.mark.skipif(not hasattr(os, "waitid"), reason="needs waitid")
def test_a_killed_run_is_dead_at_once_even_as_a_zombie(tmp_path: Path) -> None:
    """kill -9 shows without waiting for any interval, also before its parent has noticed."""
    with started_run(tmp_path) as run:
        assert read_heartbeat(tmp_path).state is HeartbeatState.ALIVE
        run.kill()
        # Wait for the end without reaping: it stays a zombie.
        os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
        assert read_heartbeat(tmp_path).state is HeartbeatState.DEAD


@pytest.mark.posix
def test_a_frozen_run_is_stalled_not_dead(tmp_path: Path) -> None:
    """A process that is there and does not beat."""
    with started_run(tmp_path) as run:
        run.send_signal(signal.SIGSTOP)
        later = datetime.now(timezone.utc) + timedelta(seconds=120)
        assert read_heartbeat(tmp_path, utc_now=lambda: later).state is HeartbeatState.STALLED


@pytest.mark.posix
def test_a_forked_child_does_not_beat_for_its_parent(tmp_path: Path) -> None:
    """The heartbeat stays the parent's, whatever the child does with the monitor it inherited."""
    code = """
        import os, sys
        from pathlib import Path
        from infra_core.azure.monitoring import HeartbeatMonitor, read_heartbeat
        monitor = HeartbeatMonitor(Path(sys.argv[1]), azure_client=None)
        monitor.start()
        child = os.fork()
        if child == 0:
            monitor.set_slug("child")
            monitor.stop()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        status = read_heartbeat(sys.argv[1])
        assert (status.pid, status.slug, status.state.value) == (os.getpid(), None, "alive")
        monitor.stop()
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=50
    )
