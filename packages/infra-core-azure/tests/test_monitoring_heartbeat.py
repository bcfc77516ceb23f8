"""The heartbeat: what it writes, when it reports trouble, and what it never waits for."""

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra_core.azure.monitoring import HeartbeatMonitor
from infra_core.fs import write_json_atomic
from infra_core.runtime.testing import fast_time

SOON = 10.0


class Client:
    """A storage client with `write_json`, which can be slow and can fail."""

    def __init__(self) -> None:
        self.beats: list[dict[str, Any]] = []
        self.strict: list[bool] = []
        self.failures: list[Exception] = []
        self.uploaded = threading.Semaphore(0)
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def is_configured(self) -> bool:
        return True

    def write_json(
        self, path: Path, data: Mapping[str, Any], *, raise_on_error: bool = False
    ) -> Path:
        self.entered.set()
        assert self.gate.wait(SOON)
        self.strict.append(raise_on_error)
        try:
            if self.failures:
                raise self.failures.pop(0)
            self.beats.append(dict(data))
            return path
        finally:
            self.uploaded.release()


class Events:
    """A log writer that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def write(self, event: str, **properties: Any) -> None:
        self.events.append((event, properties))

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


def read(root: Path) -> dict[str, Any]:
    text = (root / "_state" / "heartbeat.json").read_text(encoding="utf-8")
    beat: dict[str, Any] = json.loads(text)
    return beat


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., HeartbeatMonitor]]:
    """Make monitors that are stopped at the end, whatever they think of it."""
    made: list[HeartbeatMonitor] = []

    def factory(**options: Any) -> HeartbeatMonitor:
        options.setdefault("azure_client", None)
        monitor = HeartbeatMonitor(tmp_path, **options)
        made.append(monitor)
        return monitor

    yield factory
    for monitor in made:
        try:
            monitor.stop()
        except Exception:
            continue


def test_a_signal_handler_may_stop_it_in_the_middle_of_a_beat(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the thread that it interrupts; what it has written is the last word."""
    monitor = make()
    interrupted: list[int] = []

    def write(path: Path, beat: Mapping[str, Any], **options: Any) -> Path:
        if not interrupted:
            interrupted.append(1)
            monitor.stop()
        return write_json_atomic(path, beat, **options)

    monkeypatch.setattr("infra_core.azure.monitoring._heartbeat.write_json_atomic", write)
    monitor.set_slug("item-1")
    assert read(tmp_path)["state"] == "stopped"


def test_a_beat_holds_slug_process_and_state(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """The local file holds the whole beat as soon as `set_slug` returns, without any client."""
    import os

    monitor = make(interval_seconds=60)
    monitor.start()
    monitor.set_slug("item-1")
    beat = read(tmp_path)
    assert beat["slug"] == "item-1"
    assert beat["pid"] == os.getpid()
    assert beat["state"] == "running"
    assert beat["stalled"] is False
    assert beat["interval_seconds"] == 60


def test_it_beats_by_itself_every_interval(make: Callable[..., HeartbeatMonitor]) -> None:
    """Without any call the beats come."""
    client = Client()
    make(interval_seconds=0.01, azure_client=client).start()
    for _ in range(4):
        assert client.uploaded.acquire(timeout=SOON)


def test_stop_writes_a_last_beat_in_state_stopped(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """The last beat says that the end was a proper one, locally and in the blob."""
    client = Client()
    monitor = make(azure_client=client)
    monitor.start()
    monitor.stop()
    assert read(tmp_path)["state"] == "stopped"
    assert client.beats[-1]["state"] == "stopped"


def test_a_monitor_that_is_stopped_leaves_no_thread(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """Neither that of the beats nor that of the uploads, idle as they may be."""
    before = {*threading.enumerate()}
    client = Client()
    monitor = make(interval_seconds=600, azure_client=client)
    monitor.start()
    assert client.uploaded.acquire(timeout=SOON)
    assert len({*threading.enumerate()} - before) == 2
    monitor.stop()
    assert not {*threading.enumerate()} - before


def test_no_beat_is_flushed_to_the_disk(
    make: Callable[..., HeartbeatMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that a power cut takes with it was that of a dead run; a flush takes milliseconds."""
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    monitor = make(azure_client=Client())
    monitor.start()
    monitor.set_slug("a")
    monitor.stop()
    assert not flushed


def test_blob_and_local_file_have_one_format(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """What is uploaded is what the local file says."""
    client = Client()
    monitor = make(azure_client=client)
    monitor.pulse()
    assert client.beats[-1] == read(tmp_path)


def test_an_upload_that_writes_the_file_leaves_no_older_beat(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """As 0.7's clients do; meanwhile there were further beats."""
    posted, go, done = threading.Event(), threading.Event(), threading.Event()

    class Writing:
        beats = 0

        def is_configured(self) -> bool:
            return True

        def write_json(self, path: Path, beat: Mapping[str, Any]) -> None:
            self.beats += 1
            if self.beats == 1:
                posted.set()
                assert go.wait(10)
            else:
                done.set()
                assert read(tmp_path)["slug"] == "b"  # put back after the first
            path.write_text(json.dumps(dict(beat)))

    monitor = make(azure_client=Writing(), interval_seconds=600)
    monitor.start()
    assert posted.wait(10)
    monitor.set_slug("a")
    monitor.set_slug("b")
    go.set()
    assert done.wait(10)
    monitor.stop()


def test_set_slug_does_not_wait_behind_a_slow_upload(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """While an upload hangs, `set_slug` and `pulse` return and the local file goes on."""
    client = Client()
    client.gate.clear()
    monitor = make(interval_seconds=60, azure_client=client)
    monitor.start()
    assert client.entered.wait(SOON)
    for number in range(50):
        monitor.set_slug(f"item-{number}")
    monitor.pulse()
    assert read(tmp_path)["slug"] == "item-49"
    assert client.beats == []
    client.gate.set()
    monitor.stop()
    assert client.beats[-1]["slug"] == "item-49"
    assert len(client.beats) < 10, "beats that were overtaken are not uploaded"


def test_beats_and_stall_detection_go_on_while_an_upload_hangs(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """A hanging upload delays neither the local beats nor the slug's timeout."""
    client, fired = Client(), threading.Event()
    client.gate.clear()
    monitor = make(
        interval_seconds=60,
        slug_timeout_seconds=0.01,
        azure_client=client,
        on_timeout=lambda slug, elapsed: fired.set(),
    )
    monitor.start()
    assert client.entered.wait(SOON)
    monitor.set_slug("stuck")
    assert fired.wait(SOON)
    client.gate.set()


def test_a_failed_upload_is_raised_by_the_next_call_once(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """The failure is kept, passed to `on_error` at once, raised once, and the beats go on."""
    client, reported = Client(), threading.Event()
    client.failures = [OSError("no route")]
    monitor = make(interval_seconds=60, azure_client=client, on_error=lambda error: reported.set())
    monitor.start()
    assert reported.wait(SOON)
    with pytest.raises(OSError, match="no route"):
        monitor.set_slug("a")
    monitor.set_slug("b")
    monitor.stop()
    assert client.beats[-1]["state"] == "stopped"


def test_one_failed_upload_does_not_end_stall_detection(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """After a failure the slug's timeout still fires."""
    client, reported, fired = Client(), threading.Event(), threading.Event()
    client.failures = [OSError("no route")]
    monitor = make(
        interval_seconds=60,
        slug_timeout_seconds=0.05,
        azure_client=client,
        on_error=lambda error: reported.set(),
        on_timeout=lambda slug, elapsed: fired.set(),
    )
    monitor.start()
    assert reported.wait(SOON)
    with pytest.raises(OSError, match="no route"):
        monitor.set_slug("a")
    assert fired.wait(SOON)


def test_stop_raises_a_kept_failure(make: Callable[..., HeartbeatMonitor]) -> None:
    """The failure of the very last upload is not lost."""
    client = Client()
    monitor = make(interval_seconds=60, azure_client=client)
    monitor.start()
    assert client.uploaded.acquire(timeout=SOON)
    client.failures = [OSError("gone")]
    with pytest.raises(OSError, match="gone"):
        monitor.stop()


def test_the_error_of_the_block_is_the_one_that_is_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `stop` raises besides is logged."""
    client = Client()
    client.failures = [OSError("gone")] * 9
    with (
        pytest.raises(KeyError, match="theirs"),
        HeartbeatMonitor(tmp_path, interval_seconds=60, azure_client=client),
    ):
        assert client.uploaded.acquire(timeout=SOON)
        raise KeyError("theirs")
    assert "could not be stopped cleanly" in caplog.text
    assert read(tmp_path)["state"] == "stopped"


def test_a_second_start_does_nothing(make: Callable[..., HeartbeatMonitor]) -> None:
    """Neither another thread nor another beat."""
    monitor = make(interval_seconds=60)
    monitor.start()
    threads, beat = threading.active_count(), monitor.path.read_bytes()
    monitor.start()
    assert (threading.active_count(), monitor.path.read_bytes()) == (threads, beat)


def test_a_beat_of_the_thread_that_fails_is_raised_by_the_next_call(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """The disk of the log is full, say: for the beats as for the report of a stall."""
    reported: list[str] = []
    both = threading.Event()

    class Full(Events):
        def write(self, event: str, **properties: Any) -> None:
            super().write(event, **properties)
            if len(self.events) > 2:
                raise OSError(f"no space for {event}")

    def on_error(error: Exception) -> None:
        reported.append(str(error))
        if {"no space for heartbeat", "no space for heartbeat_timeout"} <= {*reported}:
            both.set()

    log = Full()
    monitor = make(
        interval_seconds=0.01, slug_timeout_seconds=0.05, log_writer=log, on_error=on_error
    )
    monitor.start()
    monitor.set_slug("a")
    assert both.wait(SOON)
    with pytest.raises(OSError, match="no space for"):
        monitor.pulse()


def test_beats_are_uploaded_in_the_call_where_no_thread_can_be_started(
    make: Callable[..., HeartbeatMonitor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the interpreter, or where the system has none to give."""
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        if thread.name == "infra-core-heartbeat-upload":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refused)
    client = Client()
    monitor = make(interval_seconds=60, azure_client=client)
    monitor.start()
    monitor.set_slug("a")
    assert [beat["slug"] for beat in client.beats] == [None, "a"]


def test_a_beat_that_cannot_be_put_back_is_logged(
    make: Callable[..., HeartbeatMonitor], caplog: pytest.LogCaptureFixture
) -> None:
    """After an upload that was overtaken; the beats that follow report it themselves."""

    class Replacing:
        uploads = 0

        def is_configured(self) -> bool:
            return True

        def write_json(self, path: Path, beat: Mapping[str, Any]) -> None:
            self.uploads += 1
            if self.uploads == 1:
                monitor.pulse()
                path.unlink()
                (path / "in the way").mkdir(parents=True)

    monitor = make(azure_client=Replacing())
    monitor.set_slug("a")
    assert "the heartbeat could not be written" in caplog.text


def test_without_start_the_upload_happens_in_the_call(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """An unstarted monitor uploads synchronously and raises its own failure."""
    client = Client()
    client.failures = [OSError("no route")]
    seen: list[Exception] = []
    monitor = make(azure_client=client, on_error=seen.append)
    with pytest.raises(OSError, match="no route"):
        monitor.set_slug("a")
    assert [str(error) for error in seen] == ["no route"]
    monitor.pulse()
    assert client.beats[-1]["slug"] == "a"


def test_uploads_force_raise_on_error(make: Callable[..., HeartbeatMonitor]) -> None:
    """A client that would swallow errors is asked not to."""
    client = Client()
    make(azure_client=client).pulse()
    assert client.strict == [True]


def test_a_client_that_knows_no_raise_on_error_is_called_once(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """Old and self-written clients work, and a TypeError of theirs is not taken for a refusal."""
    calls: list[Path] = []

    class Old:
        def is_configured(self) -> bool:
            return True

        def upload_file(self, path: Path) -> None:
            calls.append(path)
            raise TypeError("its own")

    monitor = make(azure_client=Old())
    with pytest.raises(TypeError, match="its own"):
        monitor.pulse()
    assert calls == [monitor.path]


def test_an_unconfigured_client_is_refused(make: Callable[..., HeartbeatMonitor]) -> None:
    """A heartbeat that could never be seen is an error, and the message knows the way out."""

    class Unconfigured(Client):
        def is_configured(self) -> bool:
            return False

    monitor = make(azure_client=Unconfigured())
    for call in (monitor.pulse, lambda: monitor.set_slug("a"), monitor.stop):
        with pytest.raises(RuntimeError, match="azure_client=None"):
            call()


def test_a_client_without_upload_method_is_refused(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """A client that can upload nothing is an error as well."""

    class Nothing:
        def is_configured(self) -> bool:
            return True

    with pytest.raises(RuntimeError, match="neither write_json nor upload_file"):
        make(azure_client=Nothing()).pulse()


def test_the_slug_timeout_fires_once_per_set_slug(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """Callback and log event come once; setting a slug, the same one too, arms it anew."""
    fired: list[tuple[str, float]] = []
    released = threading.Semaphore(0)
    events = Events()

    def on_timeout(slug: str, elapsed: float) -> None:
        fired.append((slug, elapsed))
        released.release()

    with fast_time() as clock:
        monitor = make(
            interval_seconds=1000,
            slug_timeout_seconds=300,
            on_timeout=on_timeout,
            log_writer=events,
        )
        monitor.start()
        for _ in range(2):
            monitor.set_slug("a")
            clock.advance(301)
            with monitor._wake:
                monitor._wake.notify_all()
            assert released.acquire(timeout=SOON)
            monitor.pulse()
        assert [slug for slug, _ in fired] == ["a", "a"]
        assert fired[0][1] == pytest.approx(301, abs=1)
        assert events.names().count("heartbeat_timeout") == 2
        assert read(tmp_path)["stalled"] is True
        monitor.set_slug("b")
        assert read(tmp_path)["stalled"] is False


def test_a_pulse_is_no_progress(make: Callable[..., HeartbeatMonitor], tmp_path: Path) -> None:
    """`pulse` beats but leaves the slug's clock alone."""
    with fast_time() as clock:
        monitor = make(slug_timeout_seconds=None)
        monitor.set_slug("a")
        clock.advance(40)
        monitor.pulse()
        assert read(tmp_path)["slug_seconds"] == pytest.approx(40, abs=1)


def test_a_drill_treats_the_first_slug_as_stalled(make: Callable[..., HeartbeatMonitor]) -> None:
    """`force_first_slug_timeout` fires for the first slug only."""
    fired, released = [], threading.Semaphore(0)

    def on_timeout(slug: str, elapsed: float) -> None:
        fired.append(slug)
        released.release()

    monitor = make(interval_seconds=60, force_first_slug_timeout=True, on_timeout=on_timeout)
    monitor.start()
    monitor.set_slug("first")
    assert released.acquire(timeout=SOON)
    monitor.set_slug("second")
    monitor.stop()
    assert fired == ["first"]


def test_a_raising_on_timeout_ends_nothing(
    make: Callable[..., HeartbeatMonitor], caplog: pytest.LogCaptureFixture
) -> None:
    """What a callback raises is logged, and the monitor goes on."""
    again = threading.Semaphore(0)

    def on_timeout(slug: str, elapsed: float) -> None:
        again.release()
        raise ValueError("callback")

    monitor = make(interval_seconds=60, slug_timeout_seconds=0.01, on_timeout=on_timeout)
    monitor.start()
    for _ in range(2):
        monitor.set_slug("a")
        assert again.acquire(timeout=SOON)
    monitor.stop()
    assert "on_timeout of the heartbeat failed" in caplog.text


def test_every_beat_goes_to_the_log_writer(make: Callable[..., HeartbeatMonitor]) -> None:
    """The log writer gets an event `heartbeat` with timestamp and slug."""
    events = Events()
    monitor = make(log_writer=events)
    monitor.set_slug("a")
    [(event, properties)] = events.events
    assert event == "heartbeat"
    assert properties["slug"] == "a"
    assert properties["timestamp"]


def test_interrupt_main_on_error_interrupts_the_main_thread(
    make: Callable[..., HeartbeatMonitor],
) -> None:
    """A critical failure ends a main thread that does not look."""
    client = Client()
    client.failures = [OSError("no route")]
    monitor = make(azure_client=client, interrupt_main_on_error=True)
    with pytest.raises(KeyboardInterrupt):
        monitor.start()
        for _ in range(200):  # a signal right before a wait is noticed after it
            threading.Event().wait(0.05)


def test_stop_does_not_wait_for_ever_for_the_last_upload(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """`stop` is bounded and says that the last beat is missing; locally it is there."""
    client = Client()
    client.gate.clear()
    monitor = make(azure_client=client, stop_timeout=0.01)
    monitor.start()
    with pytest.raises(TimeoutError, match="not uploaded within"):
        monitor.stop()
    assert read(tmp_path)["state"] == "stopped"
    client.gate.set()


def test_a_stopped_monitor_can_be_started_again(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """start, stop, start is a running monitor."""
    monitor = make(interval_seconds=60)
    monitor.start()
    monitor.stop()
    monitor.start()
    assert read(tmp_path)["state"] == "running"


def test_an_unwritable_folder_is_reported_at_start(tmp_path: Path) -> None:
    """A heartbeat that cannot be written at all fails early and in the open."""
    (tmp_path / "_state").write_text("a file, not a folder")
    with pytest.raises(OSError, match="_state"):
        HeartbeatMonitor(tmp_path, azure_client=None).pulse()


@pytest.mark.parametrize("options", [{"interval_seconds": 0}, {"slug_timeout_seconds": -1}])
def test_times_must_be_positive(
    options: dict[str, float], make: Callable[..., HeartbeatMonitor]
) -> None:
    """Zero and negative times are refused with the parameter's name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


async def test_a_beat_holds_the_lag_of_the_event_loop(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """Started within a loop, the monitor measures how late the loop's callbacks run."""
    import asyncio

    monitor = make(interval_seconds=60)
    monitor.start()
    probe = monitor._probe
    assert probe is not None
    probe.ask()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    monitor.pulse()
    lag = read(tmp_path)["loop_lag_seconds"]
    assert lag is not None
    assert 0 <= lag < SOON


async def test_a_blocked_loop_shows_while_it_is_blocked(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """The age of an unanswered question counts: busy is distinguished from dead."""
    with fast_time() as clock:
        monitor = make(interval_seconds=60)
        monitor.start()
        assert monitor._probe is not None
        monitor._probe.ask()
        clock.advance(12)  # the loop runs nothing meanwhile: we are still in it
        monitor.pulse()
        assert read(tmp_path)["loop_lag_seconds"] == pytest.approx(12, abs=1)


def test_without_a_loop_there_is_no_lag(
    make: Callable[..., HeartbeatMonitor], tmp_path: Path
) -> None:
    """A synchronous program's beats have no loop lag."""
    make().pulse()
    assert read(tmp_path)["loop_lag_seconds"] is None


@pytest.mark.parametrize("name", ["on_timeout", "on_error"])
def test_an_asynchronous_hook_is_refused(tmp_path: Path, name: str) -> None:
    """Its coroutine was dropped, so that nobody heard of the stall."""

    async def hook(*_: object) -> None: ...

    options: dict[str, Any] = {name: hook}
    with pytest.raises(TypeError, match=f"{name} is asynchronous, and is not awaited here"):
        HeartbeatMonitor(tmp_path, azure_client=None, **options)
