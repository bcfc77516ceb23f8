"""The run log: every line on the disk at once, every line in the mirror in the end."""

import gc
import hashlib
import json
import logging
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from hypothesis import assume, example, given, settings, strategies as st

from infra_core.azure.monitoring import (
    HeartbeatMonitor,
    RunLogWriter,
    _log_file,
    _run_log_mirror,
    _run_log_state,
    _run_log_targets,
    read_heartbeat,
)
from infra_core.azure.monitoring._log_file import LogFile
from infra_core.azure.monitoring._plain import Bounds, plain_mapping, without_secrets
from infra_core.azure.monitoring._run_log_mirror import RunLogMirror
from infra_core.azure.monitoring.run_log_writer import RunLogHandler
from infra_core.fs import FileLock, FileLockUnsupported
from infra_core.runtime import redact_secrets

SOON = 30.0  # seconds; the first use of the SDK imports it


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Properties:
    def __init__(self, blob: "Blob") -> None:
        self.size = len(blob.data)
        self.blob_type = blob.kind
        self.append_blob_committed_block_count = blob.blocks
        self.etag = blob.etag


@dataclass
class Blob:
    kind: str = "AppendBlob"
    data: bytes = b""
    blocks: int = 0
    metadata: str = ""
    sealed: bool = False

    @property
    def etag(self) -> str:
        return hashlib.sha256(f"{self.kind}{self.data!r}{self.metadata}".encode()).hexdigest()


@dataclass
class Container:
    """The part of a container client that the mirror uses, with the service's rules."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    failures: list[Exception | str] = field(default_factory=list)
    uploaded: int = 0
    appends: int = 0
    max_blocks: int = 50_000
    gate: threading.Event | None = None

    def get_blob_client(self, name: str) -> "BlobClient":
        return BlobClient(self, name)

    def text(self) -> str:
        return b"".join(self.blobs[name].data for name in sorted(self.blobs, key=order)).decode()

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


def order(name: str) -> int:
    match = re.search(r"\.(\d+)\.log$", name)
    return int(match[1]) if match else 0


def failure(status: int, code: str, kind: type[HttpResponseError]) -> HttpResponseError:
    error: Any = kind(message=f"{code} sig=SECRET")
    error.status_code = status
    error.error_code = code
    assert isinstance(error, HttpResponseError)
    return error


class BlobClient:
    def __init__(self, container: Container, name: str) -> None:
        self.container, self.name = container, name
        self.blob_name = name

    def _blob(self) -> Blob:
        try:
            return self.container.blobs[self.name]
        except KeyError:
            raise failure(404, "BlobNotFound", ResourceNotFoundError) from None

    def create_append_blob(self, **_: object) -> dict[str, object]:
        if self.name in self.container.blobs:
            raise failure(409, "BlobAlreadyExists", ResourceExistsError)
        blob = self.container.blobs[self.name] = Blob()
        return {"etag": blob.etag}

    def append_block(
        self,
        data: bytes,
        *,
        length: int,
        appendpos_condition: int,
        etag: str | None,
        match_condition: MatchConditions | None,
        retry_total: int,
        **_: object,
    ) -> dict[str, object]:
        assert match_condition is (MatchConditions.IfNotModified if etag else None)
        assert retry_total == 0  # retries are the mirror's
        box = self.container
        box.appends += 1
        if box.gate is not None:
            assert box.gate.wait(SOON)
        fault = box.failures.pop(0) if box.failures else None
        if isinstance(fault, Exception):
            raise fault
        blob = self._blob()
        if blob.kind != "AppendBlob":
            raise failure(409, "InvalidBlobType", ResourceExistsError)
        if len(blob.data) != appendpos_condition:
            raise failure(412, "AppendPositionConditionNotMet", HttpResponseError)
        if etag not in (None, blob.etag):
            raise failure(412, "ConditionNotMet", HttpResponseError)
        if blob.sealed:
            raise failure(409, "BlobIsSealed", ResourceExistsError)
        if blob.blocks >= box.max_blocks:
            raise failure(409, "BlockCountExceedsLimit", ResourceExistsError)
        assert length == len(data)
        box.uploaded += length
        blob.data += data
        blob.blocks += 1
        if fault == "answer lost":
            raise HttpResponseError(message="connection lost")
        return {"etag": blob.etag}  # what else the service says, a proxy may have left out

    def delete_blob(self, *, etag: str, **_: object) -> None:
        assert etag == self._blob().etag
        del self.container.blobs[self.name]

    def get_blob_properties(self, **_: object) -> Properties:
        return Properties(self._blob())

    def download_blob(self, *, offset: int, length: int, **_: object) -> Any:
        piece = self._blob().data[offset : offset + length]

        class Download:
            def readall(self) -> bytes:
                return piece

        return Download()


class Client:
    """A storage client of today: it has a container."""

    def __init__(self, container: Container, *, configured: bool = True) -> None:
        self._container, self._configured = container, configured

    def is_configured(self) -> bool:
        return self._configured

    def container(self) -> Container:
        return self._container

    def blob_name_for_path(self, path: Path) -> str:
        return f"runs/{path.name}"


@pytest.fixture
def container() -> Container:
    return Container()


Make = Callable[..., RunLogWriter]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make writers that are closed at the end."""
    made: list[RunLogWriter] = []

    def factory(client: Any = None, **options: Any) -> RunLogWriter:
        options.setdefault("mirror_interval", 0.01)
        made.append(RunLogWriter(tmp_path, azure_client=client, **options))
        return made[-1]

    yield factory
    for writer in made:
        writer.close(0)


# Lines


@pytest.mark.as_windows
def test_a_line_is_on_the_disk_when_write_returns(make: Make, tmp_path: Path) -> None:
    """timestamp, event and properties, as one JSON object in one line below `_logs`."""
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    log = make(utc_now=lambda: now)
    entry = log.write("asset_downloaded", url="https://a.example/a.png", size=7)
    assert log.path == tmp_path / "_logs" / "run.log"
    assert log.path.read_bytes() == (
        b'{"timestamp": "2026-01-02T03:04:05+00:00", "event": "asset_downloaded", '
        b'"url": "https://a.example/a.png", "size": 7}\n'
    )
    assert lines(log.path) == [entry]


def test_many_events_are_one_write_or_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each a line as `write` makes it; what the disk cuts short is taken back as a whole."""
    log = make(labels={"service": "crawler"})
    log.write("first")
    real, writes = os.write, []

    def write(fd: int, data: bytes) -> int:
        writes.append(data)
        if len(writes) > 1 and failing:
            raise OSError(28, "No space left on device")
        return real(fd, data[:30] if failing else data)

    monkeypatch.setattr(os, "write", write)
    failing = True
    with pytest.raises(OSError, match="No space"):
        log.write_many({"event": name, "token": "abc"} for name in ("second", "third"))
    failing = False
    writes.clear()
    entries = log.write_many({"event": name, "token": "abc"} for name in ("fourth", "fifth"))
    assert log.write_many([]) == []
    monkeypatch.undo()
    assert len(writes) == 1
    kept = lines(log.path)
    assert kept[1:] == entries
    assert [line["event"] for line in kept] == ["first", "fourth", "fifth"]
    assert all((line["service"], line["token"]) == ("crawler", "<redacted>") for line in entries)


def test_labels_are_in_every_line(make: Make) -> None:
    """What is the same for all lines is said once."""
    log = make(labels={"service": "crawler", "event": "no"})
    log.write("a")
    log.write("b", service="other")
    assert [(line["event"], line["service"]) for line in lines(log.path)] == [
        ("a", "crawler"),
        ("b", "other"),
    ]


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    hidden: str = field(default="h", repr=False)


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Path("a/b"), "a/b"),
        (datetime(2026, 1, 1, tzinfo=timezone.utc), "2026-01-01T00:00:00+00:00"),
        (Colour.RED, "red"),
        (Point(1), {"x": 1}),
        (b"\xff\x00a", "\\xff\x00a"),
        (timedelta(minutes=1.5), 90.0),
        (type("Text", (str,), {})("a?sig=SECRET"), "a?sig=<redacted>"),
        (type("Number", (int,), {})(7), 7),
        (type("Share", (float,), {})("inf"), "inf"),
        ("x" * 300_000, "x" * 262_144 + "<truncated: 37856 more characters>"),
        ({1: {2}}, {"1": [2]}),
        ({(1, 2): None}, {"[1, 2]": None}),
        (float("nan"), "nan"),
        (10**30, hex(10**30)),
        (Decimal("1.5"), "1.5"),
        (UUID(int=1), str(UUID(int=1))),
        (ValueError("bad"), "ValueError: bad"),
        (Broken(), "<Broken that cannot be printed>"),
        ("\ud800", "\ud800"),
        ("a\u2028b\x85c\nd", "a\u2028b\x85c\nd"),
    ],
)
def test_any_property_makes_a_line(value: object, expected: object, make: Make) -> None:
    """Nothing is refused, and what JSON does not know becomes text."""
    log = make()
    log.write("e", value=value)
    [line] = log.path.read_bytes().splitlines()
    written = json.loads(line.decode())["value"]
    if isinstance(expected, dict) and "[1, 2]" in expected:
        assert list(written.values()) == [None]
    else:
        assert written == expected


def test_cycles_and_depth_are_bounded(make: Make) -> None:
    """A structure that contains itself makes a line as well."""
    loop: dict[str, Any] = {}
    loop["self"] = loop
    log = make()
    log.write("e", loop=loop)
    assert "nested more than" in log.path.read_text()


def test_objects_that_refer_to_one_another_make_a_line_soon(make: Make) -> None:
    """There are more paths through them than a line could hold, and texts on each."""
    nodes: list[dict[str, Any]] = [{"text": "x" * 100_000} for _ in range(20)]
    for node in nodes:
        node["near"] = nodes
        node["far"] = {str(number): other for number, other in enumerate(nodes)}
    log = make()
    log.write("e", nodes=nodes, url="u")
    [line] = lines(log.path)
    assert line["url"] == "u"
    assert "are allowed" in line["truncated"]
    assert log.path.stat().st_size <= 1024 * 1024


anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
        st.datetimes(), st.decimals(allow_nan=True), st.builds(Broken), st.complex_numbers(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(), st.integers(), st.binary()), inner, max_size=4),
    ),
    max_leaves=10,
)  # fmt: skip


def plain_value(value: object, *bounds: Bounds) -> Any:
    return plain_mapping({"value": value}, *bounds)["value"]


def test_a_text_is_cut_at_its_bound() -> None:
    """Not before, and what is missing is counted."""
    bounds = (100, 10, 3)
    assert plain_value("x" * 100, bounds) == "x" * 100
    assert plain_value("x" * 101, bounds) == "x" * 100 + "<truncated: 1 more characters>"
    assert plain_value(b"x" * 100, bounds) == "x" * 100
    assert plain_value(b"x" * 107, bounds) == "x" * 100 + "<truncated: 7 more bytes>"


def test_a_value_as_a_whole_is_bounded() -> None:
    """What was left out is counted where it was left out; what a line can hold is kept."""
    assert len(json.dumps(plain_value([list(range(1_000))] * 99))) > 99_000 * 4
    cut = plain_value([list(range(1_000))] * 101)
    assert cut[-2][-1] == "<truncated: 100 more items>"
    assert cut[-1] == "<truncated: 1 more items>"
    [cut] = plain_value([{str(number): dict.fromkeys(range(1_000)) for number in range(100)}])
    assert cut["99"]["<truncated>"] == "101 more items"


@settings(max_examples=100, deadline=None)
@given(value=anything)
def test_every_value_becomes_json_data(value: object) -> None:
    """Whatever it is, it can be written and read again, and is the same twice."""
    plain = plain_value(value)
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    assert plain_value(plain) == plain


@settings(max_examples=200, deadline=None)
@given(
    text=st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                ["sig", "code", "=", "key", "token", ":", "//", "@", "Bearer ", "eyJ", "abc123",
                 "%3D", '"', "\\", "&", "auth", "ſig", "toKen", "passwd", "a.b"]  # noqa: RUF001
            )
        ).map("".join),
    )
)  # fmt: skip
def test_the_shortcut_of_the_redactor_hides_nothing_less(text: str) -> None:
    """Texts that skip the redactor are texts that it would not change."""
    assert without_secrets(text) == redact_secrets(text)


def test_secrets_are_redacted(make: Make) -> None:
    """By the name of the property and wherever they stand in a text; a status code is none."""
    log = make()
    entry = log.write(
        "e",
        password="SECRET1",
        url="https://a.example/f?code=SECRET2",
        headers={"x-functions-key": "SECRET3", "Accept": "*/*", "authorization": Broken()},
        nested=[{"connection": "AccountKey=SECRET4=="}],
        code=404,
    )
    assert "SECRET" not in log.path.read_text()
    assert "SECRET" not in json.dumps(entry)
    assert entry["code"] == 404
    assert entry["headers"]["Accept"] == "*/*"
    assert entry["headers"]["authorization"] == "<redacted>"


def test_a_huge_line_is_cut_visibly(make: Make) -> None:
    """A line has at most 1 MiB and says what it lost."""
    log = make()
    log.write("e", blob={f"k{number}": "x" * 100_000 for number in range(50)}, url="u")
    [line] = lines(log.path)
    assert log.path.stat().st_size <= 1024 * 1024
    assert line["event"] == "e"
    assert "are allowed" in line["truncated"]


@pytest.mark.as_windows
def test_a_full_disk_is_reported_and_leaves_no_torn_line(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that the disk cuts short raises, and what was written of it is taken back."""
    log = make()
    log.write("first")
    real = os.write
    room = [20]

    def write(fd: int, data: bytes) -> int:
        if room[0] == 0:
            raise OSError(28, "No space left on device")
        room[0], piece = 0, data[: room[0]]
        return real(fd, piece)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OSError, match="No space"):
        log.write("second")
    monkeypatch.undo()
    log.write("third")
    assert [line["event"] for line in lines(log.path)] == ["first", "third"]


@pytest.mark.as_windows
def test_a_torn_line_of_a_killed_writer_costs_only_itself(make: Make) -> None:
    """The next line begins on a line of its own."""
    log = make()
    log.write("first")
    with log.path.open("ab") as file:
        file.write(b'{"event": "to')
    log.write("second")
    kept = log.path.read_text().splitlines()
    assert len(kept) == 3
    assert json.loads(kept[2])["event"] == "second"


@pytest.mark.as_windows
def test_a_signal_handler_may_write_and_close_in_the_middle_of_a_write(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs in the thread that it interrupts, so it must not wait for that."""
    log = make(max_bytes=1024)
    real = os.write
    interrupted: list[int] = []

    def write(fd: int, data: bytes) -> int:
        if not interrupted:
            interrupted.append(1)
            log.write("handler")
            log.close()
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    log.write("main")
    monkeypatch.undo()
    log.write("later")
    assert [line["event"] for line in lines(log.path)] == ["handler", "main", "later"]


@pytest.mark.parametrize("call", ["open", "fstat", "lseek", "write", "rename", "close"])
@pytest.mark.parametrize("after", [False, True])
def test_a_signal_handler_may_write_at_every_step_of_a_write(
    call: str, after: bool, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also right before and after the file is locked, rotated or closed."""
    make().write("first", text="x" * 900)
    log = make(max_bytes=1024)
    real = getattr(os, call)
    interrupted: list[str] = []

    def interrupt(where: object) -> None:
        if len(interrupted) < 3:
            interrupted.append(f"handler {len(interrupted)}")
            log.write(interrupted[-1], where=where)

    def interrupted_call(*arguments: Any, **options: Any) -> Any:
        if not after:
            interrupt("before")
        result = real(*arguments, **options)
        if after:
            interrupt("after")
        return result

    monkeypatch.setattr(os, call, interrupted_call)
    log.write("main", text="y" * 900)
    monkeypatch.undo()
    log.write("later")
    written = [line["event"] for line in all_lines(tmp_path)]
    assert interrupted
    assert sorted(written) == sorted(["first", "main", "later", *interrupted])


@pytest.mark.posix
def test_a_log_that_is_removed_meanwhile_is_made_again(make: Make) -> None:
    """Somebody who tidies up does not silence the log."""
    log = make()
    log.write("first")
    log.path.unlink()
    log.write("second")
    assert [line["event"] for line in lines(log.path)] == ["second"]


@pytest.mark.posix(reason="no folder is flushed there")
def test_a_flush_reaches_the_segments_that_were_rotated_since_the_last(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes no line that was written before it, nor the name of its file."""
    flushed: list[int] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        flushed.append(os.fstat(fd).st_ino)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    log = make(max_bytes=1024)
    known: set[int] = set()
    for _ in range(2):
        for number in range(5):
            log.write("line", number=number, text="x" * 600)
        make(max_bytes=1024).write("line", text="y" * 800)  # as another process rotates
        assert log.flush()
        rotated = {entry.stat().st_ino for entry in log.path.parent.glob("run.0*.log")}
        assert len(rotated - known) > 3
        assert set(flushed) >= rotated - known | {log.path.parent.stat().st_ino}
        known = rotated
        flushed.clear()


@pytest.mark.posix(reason="no folder is flushed there")
def test_fsync_flushes_every_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `fsync=True` a line has reached the disk when `write` returns."""
    flushed: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(stat.S_ISDIR(os.fstat(fd).st_mode)))
    make().write("a")
    assert flushed == []
    log = make(fsync=True)
    log.write("b")
    assert flushed == [True, False]  # the name of a new file is in its folder
    log.write("c")
    assert flushed == [True, False, False]


def test_the_active_span_is_in_the_line(make: Make) -> None:
    """Lines correlate with traces."""
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(trace_id=1, span_id=2, is_remote=False)
    log = make()
    with trace.use_span(trace.NonRecordingSpan(context)):
        entry = log.write("e")
    assert (entry["trace_id"], entry["span_id"]) == (f"{1:032x}", f"{2:016x}")


# Many writers


@pytest.mark.as_windows
def test_threads_write_whole_lines(make: Make) -> None:
    """Concurrent writers lose nothing and tear nothing."""
    log = make()

    def work(name: int) -> None:
        for number in range(200):
            log.write("e", worker=name, number=number, text="x" * 300)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {(line["worker"], line["number"]) for line in lines(log.path)}
    assert found == {(name, number) for name in range(8) for number in range(200)}


def all_lines(root: Path) -> list[dict[str, Any]]:
    return [line for path in sorted((root / "_logs").glob("run*.log")) for line in lines(path)]


def test_processes_write_whole_lines_and_rotate_together(tmp_path: Path) -> None:
    """Processes share one log, through rotations, without losing or tearing a line."""
    code = """
        import sys
        from pathlib import Path
        from infra_core.azure.monitoring import RunLogWriter
        log = RunLogWriter(Path(sys.argv[1]), azure_client=None, max_bytes=20_000)
        for number in range(300):
            log.write("e", worker=int(sys.argv[2]), number=number, text="x" * 100)
    """
    workers = [
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(name)])
        for name in range(3)
    ]
    for worker in workers:
        assert worker.wait(50) == 0
    found = [(line["worker"], line["number"]) for line in all_lines(tmp_path)]
    assert sorted(found) == [(name, number) for name in range(3) for number in range(300)]
    files = sorted((tmp_path / "_logs").iterdir())
    assert len(files) > 3
    assert all(file.stat().st_size <= 20_000 for file in files)


@pytest.mark.posix
def test_a_forked_child_goes_on_writing(tmp_path: Path) -> None:
    """A writer that was in use before the fork works in both processes."""
    code = """
        import os, sys
        from pathlib import Path
        from infra_core.azure.monitoring import RunLogWriter
        log = RunLogWriter(Path(sys.argv[1]), azure_client=None)
        log.write("before")
        child = os.fork()
        for number in range(200):
            log.write("child" if child == 0 else "parent", number=number)
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=50
    )
    events = [line["event"] for line in lines(tmp_path / "_logs" / "run.log")]
    assert (events.count("child"), events.count("parent"), len(events)) == (200, 200, 401)


@pytest.mark.posix
def test_a_process_without_descriptors_still_writes_its_log(tmp_path: Path) -> None:
    """It says there why it fails, whatever else has taken them all."""
    code = """
        import os, resource, sys
        from pathlib import Path
        from infra_core.azure.monitoring import RunLogWriter
        log = RunLogWriter(Path(sys.argv[1]), azure_client=None)
        log.write("first")
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                os.open(os.devnull, os.O_RDONLY)
        except OSError as error:
            log.write("failed", error=error)
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=50
    )
    assert [line["event"] for line in lines(tmp_path / "_logs" / "run.log")] == ["first", "failed"]


@pytest.mark.posix
@pytest.mark.parametrize("fork", ["os.fork", "ctypes.CDLL(None).fork"])
def test_a_child_that_is_forked_amid_a_write_holds_no_lock(fork: str, tmp_path: Path) -> None:
    """It has a copy of the descriptor, and with it of the lock, also where Python knows nothing."""
    code = f"""
        import ctypes, os, sys
        from pathlib import Path
        from infra_core.azure.monitoring import RunLogWriter
        log = RunLogWriter(Path(sys.argv[1]), azure_client=None)
        read, send = os.pipe()
        real, children, fork = os.write, [], {fork}

        def link_of(fd):
            path = Path(f"/proc/self/fd/{{fd}}")
            return os.readlink(path) if path.is_symlink() else ""

        def write(fd, data):
            if not children:
                children.append(fork())
                if not children[0]:
                    log.write("child")
                    log.close()
                    os.close(send)
                    os.read(read, 1)
                    held = ["run.log" in link for link in map(link_of, range(64))]
                    os._exit(any(held) if os.fork is fork else 0)
            return real(fd, data)

        os.write = write
        log.write("amid")
        log.write("parent")
        os.close(send)
        assert os.waitpid(children[0], 0)[1] == 0
    """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=50
    )
    events = {line["event"] for line in lines(tmp_path / "_logs" / "run.log")}
    assert events == {"child", "amid", "parent"}


@pytest.mark.posix
def test_lines_survive_kill_9(tmp_path: Path) -> None:
    """A line whose `write` returned is there, however the process ended."""
    code = """
        import os, signal, sys
        from pathlib import Path
        from infra_core.azure.monitoring import RunLogWriter
        log = RunLogWriter(Path(sys.argv[1]), azure_client=None)
        for number in range(500):
            log.write("e", number=number)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=False, timeout=50
    )
    assert done.returncode == -signal.SIGKILL
    assert [line["number"] for line in lines(tmp_path / "_logs" / "run.log")] == list(range(500))


# Rotation


@pytest.mark.as_windows
def test_the_file_rotates_by_size(make: Make, tmp_path: Path) -> None:
    """Segments are numbered, none is larger than allowed, and no line is lost."""
    log = make(max_bytes=1024)
    for number in range(50):
        log.write("e", number=number)
    names = sorted(path.name for path in (tmp_path / "_logs").iterdir())
    assert names[:2] == ["run.000001.log", "run.000002.log"]
    assert names[-1] == "run.log"
    assert [line["number"] for line in all_lines(tmp_path)] == list(range(50))


@pytest.mark.as_windows
def test_two_writers_of_a_log_rotate_it_together(make: Make, tmp_path: Path) -> None:
    """On Windows neither may keep it open, or the other could not rename it."""
    first, second = make(max_bytes=1024), make(max_bytes=1024)
    for number in range(100):
        (first, second)[number % 2].write("e", number=number)
    kept = sorted((tmp_path / "_logs").glob("run.*log"))
    assert len(kept) > 5
    assert max(path.stat().st_size for path in kept) <= 1100
    assert sorted(line["number"] for line in all_lines(tmp_path)) == list(range(100))


@pytest.mark.as_windows
def test_rotated_files_are_kept_as_asked(make: Make, tmp_path: Path) -> None:
    """`keep=2` leaves two rotated files; by default all stay."""
    log = make(max_bytes=1024, keep=2)
    for number in range(100):
        log.write("e", number=number)
    assert len(list((tmp_path / "_logs").iterdir())) == 3
    numbers = [line["number"] for line in all_lines(tmp_path)]
    assert numbers == list(range(numbers[0], 100))


def test_a_log_on_a_file_system_without_locks_is_written_and_not_rotated(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Another process could be in the middle of a line."""
    unsupported = FileLockUnsupported(tmp_path)
    monkeypatch.setattr(_log_file, "lock_descriptor", Mock(side_effect=unsupported))
    log = make(max_bytes=1024)
    for number in range(50):
        log.write("e", number=number)
    assert [path.name for path in log.path.parent.iterdir()] == ["run.log"]
    assert [line["number"] for line in lines(log.path)] == list(range(50))


def test_a_file_that_cannot_be_renamed_takes_the_line_and_rotates_later(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Somebody may have it open on Windows, or the folder takes no other name for a while."""
    log = make(max_bytes=1024)
    log.write("e", text="x" * 900)
    with monkeypatch.context() as refusing:
        refusing.setattr(os, "rename", Mock(side_effect=PermissionError))
        log.write("e", text="y" * 900)
    assert len(lines(log.path)) == 2
    log.write("e")
    assert len(lines(log.path)) == 1
    assert len(all_lines(tmp_path)) == 3


def test_segments_that_are_still_to_be_mirrored_are_not_removed(tmp_path: Path) -> None:
    """However many were rotated since the mirror said how far it came."""
    log = LogFile(tmp_path / "run.log", max_bytes=20, fsync=False, keep=1, mirrored=True)
    for number in range(6):
        log.append(b"line number %d\n" % number)
    assert log.segments() == [1, 2, 3, 4, 5, 6]
    log.remove_before(3)
    assert log.segments() == [3, 4, 5, 6]
    log.remove_before(6)
    assert log.segments() == [5, 6]


@pytest.mark.parametrize(
    "options",
    [{"max_bytes": 10}, {"keep": 0}, {"mirror_interval": 0}, {"max_blocks": 50_001}],
)
def test_limits_are_checked(options: dict[str, Any], make: Make) -> None:
    """Senseless limits are refused with the parameter's name."""
    with pytest.raises(ValueError, match=next(iter(options))):
        make(**options)


# The mirror


def test_lines_reach_the_append_blob_by_themselves(make: Make, container: Container) -> None:
    """Without any flush the mirror follows."""
    log = make(Client(container))
    log.write("first")
    log.write("second")
    assert mirrored(log)
    assert container.text() == log.path.read_text()
    assert list(container.blobs) == ["runs/run.log"]


def mirrored(log: RunLogWriter) -> bool:
    """Whether the mirror's thread comes to its end by itself, without a flush."""
    assert log._mirror is not None
    worker = log._mirror._worker
    with worker.changed:
        return worker.changed.wait_for(lambda: not worker.pending, SOON)


@pytest.mark.parametrize("what", ["removed", "shorter", "another program's"])
def test_an_append_notices_what_happened_to_the_blob(
    what: str, make: Make, container: Container
) -> None:
    """Without a flush, which would look first."""
    log = make(Client(container))
    for number in range(3):
        log.write("e", number=number)
        assert log.flush(SOON)
    if what == "removed":
        container.blobs.clear()
    elif what == "shorter":
        shorten(container, to_blocks=1, of=3)
    else:
        container.blobs["runs/run.log"] = Blob("BlockBlob", log.path.read_bytes())
    log.write("e", number=3)
    assert mirrored(log)
    assert container.text() == log.path.read_text()


def test_lines_that_another_process_is_at_are_waited_for(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """It mirrors for all; what it has not reached is no success."""
    lock = FileLock(tmp_path / "_state" / "run_log_mirror.lock")
    assert lock.acquire(timeout=0)
    log = make(Client(container))
    log.write("e")
    assert not log.flush(0.2)
    assert not container.blobs
    lock.release()
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


def test_the_mirror_is_filled_in_batches_and_linearly(make: Make, container: Container) -> None:
    """Every byte is uploaded once, and many lines share a block."""
    container.gate = threading.Event()
    log = make(Client(container), mirror_interval=0.05)
    for number in range(2000):
        log.write("e", number=number)
    container.gate.set()
    assert log.flush(SOON)
    assert container.uploaded == log.path.stat().st_size
    # The first block has what the mirror found; all that was written during its upload shares the
    # second, however fast the machine writes.
    assert container.appends <= 2
    assert container.text() == log.path.read_text()


def test_the_mirror_pauses_between_its_rounds(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first round comes at once, each further one when the interval has passed."""
    rounds = 0
    ended = threading.Event()
    one_pass = RunLogMirror._pass

    def counted(*arguments: Any, **options: Any) -> bool:
        nonlocal rounds
        done = one_pass(*arguments, **options)
        rounds += 1
        ended.set()
        return done

    monkeypatch.setattr(RunLogMirror, "_pass", counted)
    started = time.monotonic()
    log = make(Client(container), mirror_interval=0.05)
    for number in range(10):
        ended.clear()
        log.write("e", number=number)
        assert ended.wait(SOON)
    assert rounds <= (time.monotonic() - started) / 0.05 + 2
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


def test_write_does_not_wait_for_the_mirror(make: Make, container: Container) -> None:
    """While an upload hangs, lines go on being written; flush is bounded."""
    container.gate = threading.Event()
    log = make(Client(container))
    for number in range(100):
        log.write("e", number=number)
    assert len(lines(log.path)) == 100
    assert not log.flush(0.01)
    container.gate.set()
    assert log.flush(SOON)


@pytest.mark.as_windows
def test_the_mirror_survives_an_outage(
    make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Failures are logged without secrets, never raised, and nothing is missing in the end."""
    refused = HttpResponseError("It is not authorized.\nRequestId:1\nTime:2")
    refused.error_code = "AuthorizationPermissionMismatch"  # type: ignore[attr-defined]
    busy = failure(503, "ServerBusy", HttpResponseError)
    container.failures = [refused, busy, OSError("no route")]
    log = make(Client(container))
    for number in range(20):
        log.write("e", number=number)
    while not log.flush(0.05):
        continue
    assert container.text() == log.path.read_text()
    assert "run log mirror failed" in caplog.text
    assert "AuthorizationPermissionMismatch: It is not authorized; give this" in caplog.text
    assert "RequestId" not in caplog.text  # one line, and what to do
    assert "SECRET" not in caplog.text


def test_a_batch_whose_answer_was_lost_is_not_sent_twice(make: Make, container: Container) -> None:
    """The append position shows that it arrived."""
    container.failures = ["answer lost"]
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    log.write("second")
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


def test_a_batch_whose_answer_was_lost_and_cannot_be_looked_for_is_not_sent_twice(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state says nothing of it before it was found."""
    looks: list[int] = []
    download = BlobClient.download_blob

    def flaky(self: BlobClient, **options: int) -> Any:
        looks.append(1)
        if len(looks) == 1:
            raise OSError("no route")
        return download(self, **options)

    monkeypatch.setattr(BlobClient, "download_blob", flaky)
    container.failures = ["answer lost"]
    log = make(Client(container))
    log.write("first")
    while not log.flush(0.05):
        continue
    assert len(looks) == 2
    assert container.text() == log.path.read_text()


def test_an_outage_is_logged_ever_more_rarely(
    make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """The 1st, 2nd, 4th, 8th failure in a row; one that succeeds begins anew."""
    log = make(Client(container))
    for failures in (9, 1):
        container.failures = [OSError("no route")] * failures
        log.write("e")
        while not log.flush(0.05):
            continue
    assert re.findall(r"\(try (\d+)\)", caplog.text) == ["1", "2", "4", "8", "1"]


@pytest.mark.as_windows
def test_a_restart_goes_on_where_the_last_run_ended(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """What an outage left unmirrored is mirrored by the next run, in order and once."""
    container.failures = [failure(503, "ServerBusy", HttpResponseError)] * 1000
    log = make(Client(container))
    log.write("lost so far")
    assert not log.close(0.05)
    container.failures = []
    again = make(Client(container))
    again.write("after the restart")
    assert again.flush(SOON)
    assert container.text() == again.path.read_text()
    assert len(container.events()) == 2


def test_a_kill_between_append_and_book_keeping_doubles_nothing(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """The state file may be older than the blob; what landed is recognised."""
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    state = tmp_path / "_state" / "run_log_mirror.json"
    before = state.read_bytes()
    log.write("second")
    assert log.close(SOON)
    state.write_bytes(before)
    again = make(Client(container))
    again.write("third")
    assert again.flush(SOON)
    assert container.text() == again.path.read_text()


@pytest.mark.parametrize(("blocks", "blobs"), [(3, 3), (1, 8)])
def test_blobs_roll_before_their_limit_of_blocks(
    blocks: int, blobs: int, make: Make, container: Container
) -> None:
    """Another blob follows in time; together they hold every line in order."""
    log = make(Client(container), max_blocks=blocks)
    for number in range(8):
        log.write("e", number=number)
        assert log.flush(SOON)
    names = [f"runs/run.{number:06d}.log" for number in range(1, blobs)]
    assert sorted(container.blobs) == [*names, "runs/run.log"]
    assert [event["number"] for event in container.events()] == list(range(8))


def test_a_409_rolls_as_well(make: Make, container: Container) -> None:
    """A blob that takes no more blocks is followed by another one."""
    container.max_blocks = 2
    log = make(Client(container))
    for number in range(5):
        log.write("e", number=number)
        assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == list(range(5))
    assert len(container.blobs) == 3


@pytest.mark.parametrize("before", [0, 2])
def test_a_sealed_blob_is_followed_by_another(
    before: int, make: Make, container: Container
) -> None:
    """Also one that was sealed while it was empty, and would never take a line."""
    container.blobs["runs/run.log"] = Blob()
    log = make(Client(container))
    for number in range(4):
        container.blobs["runs/run.log"].sealed = number >= before
        log.write("e", number=number)
        assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == list(range(4))
    assert [blob.blocks for blob in container.blobs.values()] == [before, 4 - before]


def test_a_log_that_0_7_left_as_a_block_blob_goes_on_under_its_name(
    make: Make, container: Container
) -> None:
    """In a fresh folder: its lines stand before the new ones."""
    container.blobs["runs/run.log"] = Blob("BlockBlob", b'{"event": "old"}\n', 0)
    log = make(Client(container))
    log.write("new")
    assert log.flush(SOON)
    assert set(container.blobs) == {"runs/run.log"}
    blob = container.blobs["runs/run.log"]
    assert blob.kind == "AppendBlob"
    events = [json.loads(line)["event"] for line in blob.data.splitlines()]
    assert events == ["old", "new"]


def test_an_empty_block_blob_becomes_an_append_blob(make: Make, container: Container) -> None:
    """As an upload of an empty folder's log left it."""
    container.blobs["runs/run.log"] = Blob("BlockBlob", b"", 0)
    log = make(Client(container))
    log.write("new")
    assert log.flush(SOON)
    assert container.blobs["runs/run.log"].kind == "AppendBlob"
    assert container.text() == log.path.read_text()


def test_a_block_blob_with_other_lines_than_those_kept_of_0_7_is_left_alone(
    make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Which of them are the older ones is not known: the log goes to the next name."""
    container.blobs["runs/run.log"] = Blob("BlockBlob", b'{"event": "old"}\n', 0)
    log = make(Client(container))
    log.path.parent.mkdir()
    log.path.with_name("run.000000.log").write_bytes(b'{"event": "kept"}\n')
    log.write("new")
    assert log.flush(SOON)
    assert container.blobs["runs/run.log"] == Blob("BlockBlob", b'{"event": "old"}\n', 0)
    events = [json.loads(line)["event"] for line in container.text().splitlines()]
    assert events == ["old", "kept", "new"]
    assert "cannot be made one, the lines go to the next name" in caplog.text


def test_a_log_of_0_7_in_its_own_folder_is_not_copied(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """The local file begins with all that 0.7 had uploaded."""
    old = b'{"event": "old"}\n'
    container.blobs["runs/run.log"] = Blob("BlockBlob", old, 0)
    (tmp_path / "_logs").mkdir()
    (tmp_path / "_logs" / "run.log").write_bytes(old)
    log = make(Client(container))
    log.write("new")
    assert log.flush(SOON)
    assert list(container.blobs) == ["runs/run.log"]
    assert container.text() == log.path.read_text()


def test_a_block_blob_that_cannot_be_replaced_is_left_alone(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An immutable one, say: the lines go to the next name."""

    def refuse(*_: object, **__: object) -> None:
        raise failure(409, "BlobImmutableDueToPolicy", ResourceExistsError)

    monkeypatch.setattr(BlobClient, "delete_blob", refuse)
    container.blobs["runs/run.log"] = Blob("BlockBlob", b'{"event": "old"}\n', 0)
    log = make(Client(container))
    log.write("new")
    assert log.flush(SOON)
    assert json.loads(container.blobs["runs/run.000001.log"].data)["event"] == "new"
    assert container.blobs["runs/run.log"].kind == "BlockBlob"


def shorten(container: Container, *, to_blocks: int, of: int) -> None:
    """What a failover to a secondary, or a restore, does to an append blob."""
    blob = container.blobs["runs/run.log"]
    pieces = blob.data.splitlines(keepends=True)
    assert len(pieces) == of
    blob.data, blob.blocks = b"".join(pieces[:to_blocks]), to_blocks


@pytest.mark.parametrize("surplus", [-1, 0, 1])
@pytest.mark.parametrize("more", [False, True])
def test_a_blob_that_became_shorter_and_grew_again_is_filled_again(
    surplus: int, more: bool, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """With what another machine has written since: shorter, as long as it was, or longer."""
    log = make(Client(container))
    for number in range(5):
        log.write("e", number=number)
        assert log.flush(SOON)
    blob = container.blobs["runs/run.log"]
    size = len(blob.data)
    shorten(container, to_blocks=2, of=5)
    theirs = b'{"number": "theirs"}'
    blob.data += theirs + b" " * (size - len(blob.data) - len(theirs) - 1 + surplus) + b"\n"
    assert len(blob.data) == size + surplus
    if more:
        log.write("e", number=5)
    assert log.flush(SOON)
    numbers = [event["number"] for event in container.events()]
    assert [number for number in numbers if number != "theirs"] == list(range(5 + more))
    assert "are sent again" in caplog.text


@pytest.mark.parametrize("rotated", [False, True])
def test_a_blob_of_which_only_the_metadata_changed_is_as_it_was(
    rotated: bool, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent twice, nothing is told as lost, and appends go on."""
    log = make(Client(container), max_bytes=1024 if rotated else None, keep=1)
    for number in range(40):
        log.write("e", number=number)
        assert log.flush(SOON)
        container.blobs["runs/run.log"].metadata += "x"
        if number % 2:
            assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == list(range(40))
    assert container.appends < 90
    assert not caplog.records


def test_a_token_that_may_compare_no_etags_appends_by_position(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with the condition, a batch is sent without it."""
    append = BlobClient.append_block

    def strict(self: BlobClient, data: bytes, **options: Any) -> dict[str, object]:
        if options["etag"] is not None:
            raise failure(403, "AuthorizationPermissionMismatch", HttpResponseError)
        return append(self, data, **options)

    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    monkeypatch.setattr(BlobClient, "append_block", strict)
    for name in ("second", "third"):
        log.write(name)
        while not log.flush(0.05):
            continue
    assert container.text() == log.path.read_text()


def test_a_token_that_may_only_append_goes_on_after_a_change_of_the_metadata(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot look at what changed: the position decides then."""
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    refusal = failure(403, "AuthorizationPermissionMismatch", HttpResponseError)
    monkeypatch.setattr(BlobClient, "get_blob_properties", Mock(side_effect=refusal))
    container.blobs["runs/run.log"].metadata = "x"
    log.write("second")
    while not log.flush(0.05):
        continue
    assert container.text() == log.path.read_text()


@pytest.mark.parametrize("left", [0, 1, 3])
@pytest.mark.parametrize("more", [False, True])
def test_a_blob_that_became_shorter_is_filled_again(
    left: int, more: bool, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """What is missing is still on the disk: sent again, also when nothing new is written."""
    log = make(Client(container))
    for number in range(5):
        log.write("e", number=number)
        assert log.flush(SOON)
    shorten(container, to_blocks=left, of=5)
    if more:
        log.write("e", number=5)
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()
    assert "are sent again" in caplog.text


def test_a_full_blob_that_became_shorter_is_noticed_when_the_next_begins(
    make: Make, container: Container
) -> None:
    """The last look at a blob: nothing is appended to it any more."""
    log = make(Client(container), max_blocks=2)
    for number in range(2):
        log.write("e", number=number)
        assert log.flush(SOON)
    shorten(container, to_blocks=1, of=2)
    log.write("e", number=2)
    assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == [0, 1, 2]


def test_a_blob_that_became_shorter_and_cannot_be_read_is_no_success(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror compares again until it can, and flush does not say True before."""
    log = make(Client(container))
    for number in range(3):
        log.write("e", number=number)
        assert log.flush(SOON)
    shorten(container, to_blocks=1, of=3)
    with monkeypatch.context() as patched:
        patched.setattr(BlobClient, "download_blob", refused := Mock(side_effect=OSError("no")))
        assert not log.flush(0.2)
        assert refused.called
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("rolled", [False, True])
def test_a_blob_that_was_replaced_is_filled_again(
    more: bool, rolled: bool, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """By a block blob of another program: the lines that were confirmed are sent again."""
    log = make(Client(container), max_blocks=3 if rolled else 50_000)
    for number in range(5):
        log.write("e", number=number)
        assert log.flush(SOON)
    last = max(container.blobs, key=order)
    assert (order(last) == 1) is rolled
    container.blobs[last] = Blob("BlockBlob", b'{"number": "theirs"}\n' * 20, 0)
    if more:
        log.write("e", number=5)
    assert log.flush(SOON)
    numbers = [event["number"] for event in container.events()]
    assert [number for number in numbers if number != "theirs"] == list(range(5 + more))
    assert numbers.count("theirs") == 20
    assert "are sent again" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        {"reached": [-7, 0]}, {"reached": [1, 10**30]}, {"reached": [1, 1.5]}, {"reached": [1]},
        {"begin": ["a", "b"]}, {"blob": -7}, {"position": -7}, {"blocks": -7}, {"end": -7},
        {"tail": -7},
    ],
    ids=str,
)  # fmt: skip
def test_a_state_with_impossible_numbers_doubles_no_line(
    damage: dict[str, Any], make: Make, container: Container, tmp_path: Path
) -> None:
    """It is damaged, and the blob itself shows how far it holds the log."""
    log = make(Client(container))
    for number in range(5):
        log.write("e", number=number)
    assert log.close(SOON)
    path = tmp_path / "_state" / "run_log_mirror.json"
    state = json.loads(path.read_text())
    state["parts"][-1].update(damage)
    path.write_text(json.dumps(state))
    again = make(Client(container))
    again.write("e", number=5)
    assert again.flush(SOON)
    assert container.text() == again.path.read_text()


def test_a_blob_that_became_shorter_is_noticed_after_hours_without_a_line(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mirror's thread has ended meanwhile; with a log that is closed, nothing begins anew."""
    monkeypatch.setattr(_run_log_mirror, "_IDLE_SECONDS", 0.01)
    log = make(Client(container))
    for number in range(2):
        log.write("e", number=number)
    assert log.flush(SOON)
    assert log._mirror is not None
    worker = log._mirror._worker
    with worker.changed:
        thread = worker._thread
    if thread is not None:
        thread.join(SOON)
    with monkeypatch.context() as ending:  # the interpreter, which starts no thread any more
        ending.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError))
        assert log.flush(SOON)
    container.blobs["runs/run.log"].data = b""
    assert log.close(SOON)
    assert container.text() == log.path.read_text()
    container.blobs.clear()
    assert log.close(SOON)
    assert not container.blobs


def rolled(make: Make, container: Container, **options: Any) -> RunLogWriter:
    """A log of nine lines in five blobs."""
    options = {"max_blocks": 2, "max_bytes": 1024, **options}
    log = make(Client(container), **options)
    for number in range(9):
        log.write("e", number=number, text="x" * 900)
        assert log.flush(SOON)
    assert len(container.blobs) == 5
    return log


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("damaged", [(0,), (3,), (1, 2), (3, 4), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("left", [None, 0, 1])
def test_a_blob_before_that_became_shorter_is_filled_again(
    left: int | None,
    damaged: tuple[int, ...],
    later: bool,
    make: Make,
    container: Container,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In its place, so that the blobs in their order hold the lines in theirs.

    One that was removed is made again where the one behind it is damaged, too: nobody meant that.
    """
    log = rolled(make, container)
    assert not later or log.close(SOON)
    for name in [name for name in container.blobs if order(name) in damaged]:
        if left is None:
            del container.blobs[name]
        else:
            blob = container.blobs[name]
            blob.data, blob.blocks = b"".join(blob.data.splitlines(True)[:left]), left
    if later:
        log = make(Client(container), max_blocks=2, max_bytes=1024)
        log.write("e", number=9)
    assert log.flush(SOON)
    meant = left is None and 4 not in damaged  # to remove them
    expected = [n for n in range(9 + later) if not meant or n // 2 not in damaged]
    assert [event["number"] for event in container.events()] == expected
    found = 0 if meant else len(damaged) - ((left, damaged[-1]) == (1, 4))
    assert caplog.text.count("are sent again") == found
    before = container.appends
    assert log.flush(SOON)
    assert container.appends == before


@pytest.mark.parametrize("keep", [None, 3])
@pytest.mark.parametrize("surplus", [0, 100])
def test_a_blob_before_that_became_shorter_and_grew_again_is_noticed(
    surplus: int, keep: int | None, make: Make, container: Container
) -> None:
    """Also where its lines are on the disk no more: what it ended with is remembered."""
    log = rolled(make, container, keep=keep)
    for blob in container.blobs.values():
        size = len(blob.data)
        blob.data = b'{"number": "theirs"}'.rjust(size + surplus - 1) + b"\n"
    assert log.flush(SOON) is (keep is None)
    numbers = [event["number"] for event in container.events() if event["number"] != "theirs"]
    assert numbers == list(range(0 if keep is None else 5, 9))


def test_blobs_before_that_were_converted_are_left_alone(make: Make, container: Container) -> None:
    """To block blobs, which alone can be archived: whoever did it did not want others."""
    log = rolled(make, container)
    for name, blob in container.blobs.items():
        if order(name) < 3:
            container.blobs[name] = Blob("BlockBlob", blob.data)
    before = {name: blob.data for name, blob in container.blobs.items()}
    assert log.flush(SOON)
    assert {name: blob.data for name, blob in container.blobs.items()} == before


def test_blobs_before_of_which_only_the_metadata_changed_are_as_they_were(
    make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent twice, and lines of others stay."""
    log = rolled(make, container)
    before = container.appends
    for blob in container.blobs.values():
        blob.metadata = "x"
    container.blobs["runs/run.log"].data += b'{"number": "theirs"}\n'
    assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == [0, 1, "theirs", *range(2, 9)]
    assert container.appends == before
    assert not caplog.records


@pytest.mark.parametrize("left", [0, 1])
def test_lost_lines_of_blobs_before_are_reported(
    left: int, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that the disk still has are sent again."""
    log = rolled(make, container, keep=3)  # lines 5 to 8
    for name in ("runs/run.log", "runs/run.000002.log"):
        blob = container.blobs[name]
        blob.data, blob.blocks = b"".join(blob.data.splitlines(True)[:left]), left
    assert not log.flush(SOON)
    log.write("e", number=9)
    assert not log.flush(SOON)
    numbers = [event["number"] for event in container.events()]
    assert numbers == [*[0] * left, 2, 3, *[4] * left, *range(5, 10)]
    assert "of run log blob runs/run.log are lost: they are on this disk no more" in caplog.text


@pytest.mark.parametrize("problem", ["sealed", "immutable", "another program's"])
@pytest.mark.parametrize("damaged", [[0], [3], [1, 2]])
def test_what_a_blob_before_takes_no_more_goes_to_the_newest(
    damaged: list[int], problem: str, make: Make, container: Container
) -> None:
    """Behind what it has: rather a line is there twice than never."""
    log = rolled(make, container)
    for name in [name for name in container.blobs if order(name) in damaged]:
        blob = container.blobs[name]
        blob.data, blob.blocks = b"".join(blob.data.splitlines(True)[:1]), 1
        if problem == "sealed":
            blob.sealed = True
        elif problem == "immutable":
            blob.blocks = 2
        elif order(name):  # the first is taken over
            container.blobs[name] = Blob("BlockBlob", b'{"number": "theirs"}\n')
    assert log.flush(SOON)
    numbers = [event["number"] for event in container.events()]
    assert {number for number in numbers if number != "theirs"} == set(range(9))
    before = container.appends
    log.write("e", number=9)
    assert log.flush(SOON)
    assert container.appends <= before + 3
    assert container.events()[-1]["number"] == 9


def test_as_many_blobs_before_are_looked_at_as_are_remembered(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A log that goes on for months asks for no more of them with each flush."""
    monkeypatch.setattr(_run_log_state, "_REMEMBERED", 2)
    log = rolled(make, container)
    look, asked = BlobClient.get_blob_properties, []

    def counted(self: BlobClient, **options: Any) -> Properties:
        asked.append(self.name)
        return look(self, **options)

    monkeypatch.setattr(BlobClient, "get_blob_properties", counted)
    assert log.flush(SOON)
    assert sorted(map(order, asked)) == [2, 3, 4]
    state = json.loads((tmp_path / "_state" / "run_log_mirror.json").read_text())
    assert [part["blob"] for part in state["parts"]] == [2, 3, 4]


def test_a_blob_that_became_shorter_is_noticed_by_the_next_run(
    make: Make, container: Container
) -> None:
    """Through rotations, and with another machine's lines in between."""
    log = make(Client(container), max_bytes=1024)
    for number in range(40):
        log.write("e", number=number)
        assert log.flush(SOON)
        if number == 20:
            container.blobs["runs/run.log"].data += b'{"number": "theirs"}\n'
    assert log.close(SOON)
    shorten(container, to_blocks=10, of=41)
    again = make(Client(container), max_bytes=1024)
    again.write("e", number=40)
    assert again.flush(SOON)
    assert [event["number"] for event in container.events()] == list(range(41))


def test_lost_lines_are_reported(
    make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest is sent again, and flush does not claim that the mirror has everything."""
    log = make(Client(container), max_bytes=1024, keep=1)
    for number in range(60):
        log.write("e", number=number)
        assert log.flush(SOON)
    shorten(container, to_blocks=2, of=60)
    log.write("e", number=60)
    assert not log.flush(SOON)
    numbers = [event["number"] for event in container.events()]
    assert numbers[:2] == [0, 1]
    assert numbers[2:] == list(range(numbers[2], 61))
    assert 2 < numbers[2] < 60
    assert "are lost: they are on this disk no more" in caplog.text
    assert not log.flush(SOON)


@pytest.mark.parametrize("blobs", [1, 2, 4])
@pytest.mark.parametrize("left", [0, 1])
def test_a_blob_that_was_lost_is_no_loss_where_the_disk_begins_with_its_lines(
    blobs: int, left: int, make: Make, container: Container, caplog: pytest.LogCaptureFixture
) -> None:
    """What the disk has no more stands in the blobs before, which take no more lines."""
    log = make(Client(container), max_bytes=1024, keep=1, max_blocks=2)
    for number in range(2 * blobs):
        log.write("e", number=number, text="x" * 900)
        assert log.flush(SOON)
    last = max(container.blobs, key=order)
    assert len(container.blobs) == blobs
    if left:
        blob = container.blobs[last]
        blob.data, blob.blocks = b'{"number": "theirs"}\n', 1
    else:
        del container.blobs[last]
    log.write("e", number=2 * blobs, text="x" * 900)
    assert log.flush(SOON)
    numbers = [event["number"] for event in container.events() if event["number"] != "theirs"]
    assert numbers == list(range(2 * blobs + 1))
    assert "are lost" not in caplog.text
    assert "are sent again" in caplog.text


@pytest.mark.as_windows
@pytest.mark.parametrize(
    ("lines", "most"),
    [(5, 64 * 1024 * 1024), (50, 200), (50, 2_000), (50, 64 * 1024 * 1024)],
)
def test_a_lost_state_doubles_no_line(
    lines: int,
    most: int,
    make: Make,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The blob is compared with the log first; of a large one our last line, at its end."""
    monkeypatch.setattr(_run_log_targets, "_LARGEST_READ", most)
    log = make(Client(container))
    for number in range(lines):
        log.write("e", number=number)
    assert log.close(SOON)
    (tmp_path / "_state" / "run_log_mirror.json").unlink()
    again = make(Client(container))
    again.write("e", number=lines)
    assert again.flush(SOON)
    assert container.text() == again.path.read_text()


def test_a_blob_that_must_not_be_looked_at_is_trusted(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token that may only append, flush says what was confirmed."""
    log = make(Client(container))
    log.write("e")
    refusal = failure(403, "AuthorizationPermissionMismatch", HttpResponseError)

    def refuse(*_: object, **__: object) -> None:
        raise refusal

    monkeypatch.setattr(BlobClient, "get_blob_properties", refuse)
    assert log.flush(SOON)
    assert log.flush(SOON)


@pytest.mark.parametrize("state", [None, {"segment": 1, "offset": 9, "blob": 0}])
def test_a_lost_or_older_state_doubles_no_line_of_rolled_blobs(
    state: dict[str, object] | None, make: Make, container: Container, tmp_path: Path
) -> None:
    """Each blob records how far it holds the log; the state of another version is none."""
    log = make(Client(container), max_blocks=2, max_bytes=1024)
    for number in range(25):
        log.write("e", number=number)
        assert log.flush(SOON)
    assert log.close(SOON)
    path = tmp_path / "_state" / "run_log_mirror.json"
    path.unlink() if state is None else path.write_text(json.dumps(state))
    again = make(Client(container), max_blocks=2, max_bytes=1024)
    again.write("e", number=25)
    assert again.flush(SOON)
    assert [event["number"] for event in container.events()] == list(range(26))


@pytest.mark.parametrize("left", [1, 4])
def test_lines_that_are_alike_are_all_there(left: int, make: Make, container: Container) -> None:
    """With a clock that stands still: after a lost answer, and in a blob that became shorter."""
    log = make(Client(container), utc_now=lambda: "2026-01-02T03:04:05Z")
    for number in range(5):
        container.failures = ["answer lost"] * (number == 3)
        log.write("e", number=number // 4)
        assert log.flush(SOON)
    assert container.text() == log.path.read_text()
    shorten(container, to_blocks=left, of=5)
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


def test_an_answer_that_was_lost_is_found_behind_lines_of_others(
    make: Make, container: Container
) -> None:
    """Our batch is there, and another machine's lines around it."""
    log = make(Client(container))
    log.write("ours 1")
    assert log.flush(SOON)
    container.blobs["runs/run.log"].data += b'{"event": "theirs 1"}\n'
    log.write("ours 2")
    assert log.flush(SOON)
    container.failures = ["answer lost"]
    log.write("ours 3")
    assert log.flush(SOON)
    container.blobs["runs/run.log"].data += b'{"event": "theirs 2"}\n'
    log.write("ours 4")
    assert log.flush(SOON)
    events = [event["event"] for event in container.events()]
    assert events == ["ours 1", "theirs 1", "ours 2", "ours 3", "theirs 2", "ours 4"]


def test_an_append_that_is_refused_for_another_reason_than_its_position_is_no_busy_loop(
    make: Make, container: Container
) -> None:
    """A lease is a 412 as well: waited out like every failure."""
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    leased = failure(412, "LeaseIdMissing", HttpResponseError)
    container.failures, container.appends = [leased] * 500, 0
    log.write("second")
    assert not log.flush(0.2)
    assert container.appends < 20
    container.failures = []
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


def test_a_proxy_that_leaves_out_etags_holds_no_line_up(
    make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The position alone says then where a batch goes."""
    monkeypatch.setattr(Blob, "etag", None)
    log = make(Client(container))
    for number in range(3):
        log.write("e", number=number)
        assert log.flush(SOON)
    assert [event["number"] for event in container.events()] == [0, 1, 2]
    assert container.appends == 3


def test_a_container_that_is_being_deleted_is_waited_for(make: Make, container: Container) -> None:
    """Another blob in it would fare no better."""
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    container.failures = [failure(409, "ContainerBeingDeleted", HttpResponseError)]
    log.write("second")
    while not log.flush(0.05):
        continue
    assert list(container.blobs) == ["runs/run.log"]
    assert container.text() == log.path.read_text()


@pytest.mark.parametrize("rotated", [False, True])
def test_a_line_that_is_longer_than_a_batch_or_has_no_end_is_mirrored(
    rotated: bool, make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another program may have left it; of the active file its end is waited for."""
    monkeypatch.setattr(_run_log_state, "BATCH_BYTES", 100)
    log = make(Client(container))
    log.path.parent.mkdir()
    left = log.path.with_name("run.000001.log") if rotated else log.path
    left.write_bytes(b"x" * 250)
    assert rotated or make(Client(container)).flush(SOON)
    log.write("next", text="y" * 300)
    assert log.flush(SOON)
    expected = log.path.read_text()
    assert container.text() == (left.read_text() + expected if rotated else expected)


def test_a_container_that_takes_no_appends_is_not_filled_with_empty_blobs(
    make: Make, container: Container
) -> None:
    """A 409 for the first block of a blob is no full blob: another name would not help."""
    immutable = failure(409, "BlobImmutableDueToPolicy", ResourceExistsError)
    container.failures = [immutable] * 500
    log = make(Client(container))
    log.write("first")
    assert not log.flush(0.2)
    assert list(container.blobs) == ["runs/run.log"]
    container.failures = []
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


@pytest.mark.parametrize("status", [409, 412])
def test_a_name_that_takes_no_blob_is_no_busy_loop(
    status: int, make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused although no blob is there: waited out like every failure."""
    refused = Mock(side_effect=failure(status, "BlobImmutableDueToPolicy", HttpResponseError))
    with monkeypatch.context() as patched:
        patched.setattr(BlobClient, "create_append_blob", refused)
        log = make(Client(container))
        log.write("e")
        assert not log.flush(0.2)
    assert 0 < refused.call_count < 5
    assert log.flush(SOON)
    assert container.text() == log.path.read_text()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_block_blob_whose_removal_was_not_answered_costs_no_line(
    deleted: bool, make: Make, container: Container, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines are on the disk before it goes."""
    delete, asked = BlobClient.delete_blob, []

    def once(self: BlobClient, **options: Any) -> None:
        asked.append(1)
        if len(asked) > 1 or deleted:
            delete(self, **options)
        if len(asked) == 1:
            raise HttpResponseError(message="connection lost")

    monkeypatch.setattr(BlobClient, "delete_blob", once)
    container.blobs["runs/run.log"] = Blob("BlockBlob", b'{"event": "old"}\n', 0)
    log = make(Client(container))
    log.write("new")
    while not log.flush(0.05):
        continue
    assert [event["event"] for event in container.events()] == ["old", "new"]
    assert list(container.blobs) == ["runs/run.log"]


STEPS = st.lists(
    st.sampled_from(
        ["write"] * 6 + ["flush"] * 6
        + ["answer lost", "outage", "theirs", "shorten", "remove", "replace", "old state",
           "no state", "restart", "shorten one before"]
    ),
    max_size=40,
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@example(steps=["write", "flush", "write", "flush", "remove", "shorten"], max_blocks=2, old=True)
@example(
    steps=[*["write"] * 6, "flush", "write", "write", "flush", "shorten one before"],
    max_blocks=2,
    old=False,
)
@given(steps=STEPS, max_blocks=st.sampled_from([2, 3, 50_000]), old=st.booleans())
def test_whatever_happens_to_blob_and_state_every_line_is_in_the_mirror(
    steps: list[str], max_blocks: int, old: bool
) -> None:
    """In order; and once, unless a blob was changed by others or the state is older than that.

    Without its state the mirror cannot know what the blobs before had.
    """
    assume("shorten one before" not in steps or not {"old state", "no state"} & {*steps})
    with tempfile.TemporaryDirectory() as folder:
        state, before = Path(folder, "state.json"), b"{}"
        container, number = Container(), 0
        if old:
            container.blobs["runs/run.log"] = Blob("BlockBlob", b'{"number": "old"}\n', 0)
        log = LogFile(Path(folder, "run.log"), max_bytes=100, fsync=False)

        def mirror() -> bool:
            made = RunLogMirror(Client(container), log, state, interval=1, max_blocks=max_blocks)
            target = made._make_target()
            assert target is not None
            try:
                return made._pass(target, look=True)
            except HttpResponseError:
                return False

        for step in steps:
            last = max(container.blobs, key=order, default="")
            blob = container.blobs.get(last)
            if blob is None or blob.kind == "BlockBlob":
                last, blob = "", Blob()  # nothing yet that could change
            if step == "write":
                log.append(b'{"number": %d}\n' % number)
                number += 1
            elif step == "flush":
                before = state.read_bytes() if state.exists() else before
                mirror()
            elif step in ("answer lost", "outage"):
                container.failures = [HttpResponseError("no route") if step == "outage" else step]
            elif step == "theirs":
                blob.data += b'{"number": "theirs"}\n'
            elif step == "shorten":
                blob.data = b"".join(blob.data.splitlines(keepends=True)[: blob.blocks // 2])
            elif step == "remove":
                container.blobs.pop(last, None)
            elif step == "shorten one before" and len(container.blobs) > 1:
                name = sorted(container.blobs, key=order)[number % (len(container.blobs) - 1)]
                container.blobs[name].data = container.blobs[name].data.splitlines(True)[0]
                container.blobs[name].blocks = 0  # what was restored has room for what it lost
            elif step == "replace" and last:
                container.blobs[last] = Blob("BlockBlob", b'{"number": "theirs"}\n', 0)
            elif step == "old state":
                state.write_bytes(before)
            elif step == "no state":
                state.unlink(missing_ok=True)
        container.failures = []
        assert mirror()
        found = [event["number"] for event in container.events()]
        ours = [event for event in found if isinstance(event, int)]
        assert set(ours) == set(range(number))
        if "replace" not in steps:
            assert ours == list(range(number))
            assert found.count("old") == old or not number or "old state" in steps


EXIT = """
import logging, pathlib, sys
from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings
settings = AzureStorageSettings("box", sys.argv[2], journal=pathlib.Path(sys.argv[1], "j.sqlite"))
client = AzureStorageClient.from_settings(settings, "best-effort", base_path=sys.argv[1])
for name in range(20):
    log = RunLogWriter(pathlib.Path(sys.argv[1], str(name)), azure_client=client)
    for number in range(10):
        log.write("e", number=number)
HeartbeatMonitor(pathlib.Path(sys.argv[1]), azure_client=client).start()
"""


def test_exit_is_prompt_where_storage_is_down_and_nothing_was_closed(tmp_path: Path) -> None:
    """No traceback of a thread, whatever it was at; the lines wait on the disk.

    Many logs wait together, not one after another.
    """
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, says nothing
        running = {
            port: subprocess.Popen(
                [
                    sys.executable, "-c", EXIT, str(tmp_path / f"{port}"),
                    f"AccountName=a;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:{port}/a",
                ],
                stderr=subprocess.PIPE, text=True,
            )
            for port in (1, silent.getsockname()[1])
        }  # fmt: skip
        said = {port: process.communicate(timeout=50)[1] for port, process in running.items()}
    assert time.monotonic() - started < 25  # a few seconds; the machine may be busy
    for port, process in running.items():
        assert process.returncode == 0
        assert "Traceback" not in said[port]
        assert "Exception in thread" not in said[port]
        for name in range(20):
            assert len(lines(tmp_path / f"{port}" / f"{name}" / "_logs" / "run.log")) == 10


def test_a_mirror_that_fails_at_exit_is_waited_for_no_longer_and_ends(
    make: Make,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever time is left: the next run goes on from there.

    A thread that still logged would abort the interpreter while it ends.
    """
    monkeypatch.setattr(_run_log_mirror, "_EXIT_SECONDS", 600.0)
    container.gate = threading.Event()
    container.failures = [OSError("no route")] * 500
    log = make(Client(container))
    log.write("e")
    assert log._mirror is not None
    ending = threading.Thread(target=log._mirror._flush_at_exit, args=[time.monotonic()])
    ending.start()
    container.gate.set()
    ending.join(SOON)
    assert not ending.is_alive()
    assert "the next run goes on from there" in caplog.text
    for thread in threading.enumerate():
        if thread.name == "infra-core-run-log":
            thread.join(SOON)
            assert not thread.is_alive()
    log._mirror._failures = 0
    before = len(caplog.records)
    log._mirror._failed(OSError("late"))
    assert len(caplog.records) == before


def test_timestamps_may_be_texts(make: Make, tmp_path: Path) -> None:
    """As 0.7's `utc_now` returned them."""
    log = make(utc_now=lambda: "2026-01-02T03:04:05Z")
    assert log.write("e")["timestamp"] == "2026-01-02T03:04:05Z"
    monitor = HeartbeatMonitor(tmp_path, azure_client=None, utc_now=lambda: "2026-01-02T03:04:05Z")
    monitor.pulse()
    beat = read_heartbeat(tmp_path, utc_now=lambda: "2026-01-02T03:04:06+00:00")
    assert beat.age_seconds == 1.0


def test_another_machine_s_lines_stay(make: Make, container: Container) -> None:
    """Somebody else appends to the same blob: both logs are whole."""
    log = make(Client(container))
    log.write("ours 1")
    assert log.flush(SOON)
    container.blobs["runs/run.log"].data += b'{"event": "theirs"}\n'
    log.write("ours 2")
    assert log.flush(SOON)
    assert [event["event"] for event in container.events()] == ["ours 1", "theirs", "ours 2"]


def test_our_last_line_is_found_wherever_the_parts_of_the_blob_that_are_read_end(
    container: Container, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Behind it stands what others have written since, of any length."""
    monkeypatch.setattr(_run_log_targets, "_PIECE_BYTES", 100)
    log = LogFile(tmp_path / "run.log", max_bytes=None, fsync=False)
    theirs, ours = b'{"event": "theirs"}\n', b'{"event": "ours"}\n'
    log.append(ours)
    client: Any = container
    target = _run_log_targets.AppendBlobTarget(client, "run.log", log, max_blocks=9)
    state, end = _run_log_state.Part(), len(theirs + ours)
    for more in range(250):
        data = theirs + ours + b"{" + b" " * more + b"}\n"
        container.blobs["run.log"] = Blob(data=data)
        assert target._last_line(state, 0, len(data), (1, 0)) == ((1, len(ours)), end)


@pytest.mark.parametrize("theirs", [0, 5, 50])
def test_our_last_line_may_be_too_far_behind_theirs_to_be_found_again(
    theirs: int,
    make: Make,
    container: Container,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was confirmed counts then: nothing is sent twice, nothing is told as lost."""
    monkeypatch.setattr(_run_log_targets, "_LARGEST_READ", 100)
    log = make(Client(container), max_bytes=1024, keep=1)
    for number in range(40):
        log.write("e", number=number)
        for _ in range(3):
            container.blobs.setdefault("runs/run.log", Blob()).data += b'{"n": "theirs"}\n' * theirs
            assert log.flush(SOON)
    numbers = [event["number"] for event in container.events() if "number" in event]
    assert numbers == list(range(40))
    assert not caplog.records


def test_a_blob_that_others_made_anew_is_noticed_behind_their_lines(
    make: Make, container: Container
) -> None:
    """It is longer than the one before, whose end was theirs: our last line is looked for."""
    log = make(Client(container))
    log.write("ours 1")
    assert log.flush(SOON)
    container.blobs["runs/run.log"].data += b'{"event": "theirs"}\n'
    assert log.flush(SOON)
    container.blobs["runs/run.log"] = Blob(data=b'{"event": "theirs"}\n' * 50)
    log.write("ours 2")
    assert log.flush(SOON)
    events = [event["event"] for event in container.events() if event["event"] != "theirs"]
    assert events == ["ours 1", "ours 2"]


def test_a_removed_blob_is_made_again_with_its_lines(make: Make, container: Container) -> None:
    """The lines are still on the disk, so the mirror has them again."""
    log = make(Client(container))
    log.write("first")
    assert log.flush(SOON)
    container.blobs.clear()
    log.write("second")
    assert log.flush(SOON)
    assert [event["event"] for event in container.events()] == ["first", "second"]


@pytest.mark.as_windows
def test_rotation_and_outage_together_lose_nothing(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """Segments that were rotated during an outage are mirrored before they are removed."""
    container.failures = [OSError("no route")] * 3
    log = make(Client(container), max_bytes=1024, keep=1)
    for number in range(100):
        log.write("e", number=number)
    while not log.flush(0.05):
        continue
    assert log.close(SOON)
    assert [event["number"] for event in container.events()] == list(range(100))
    assert len(list((tmp_path / "_logs").iterdir())) == 2


def test_a_replaced_local_file_is_mirrored_from_its_start(make: Make, container: Container) -> None:
    """A new log in an old place is not mistaken for a part that is mirrored already."""
    log = make(Client(container))
    log.write("old", text="x" * 6000)
    assert log.close(SOON)
    log.path.unlink()
    again = make(Client(container))
    again.write("new", text="y" * 700)
    assert again.flush(SOON)
    assert [event["event"] for event in container.events()] == ["old", "new"]


def test_a_log_that_was_removed_altogether_is_no_endless_work(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """Lines that somebody removed before they were mirrored are not waited for."""
    log = make(Client(container), max_bytes=1024, mirror_interval=60)
    log.write("first")
    assert log.flush(SOON)
    for number in range(50):
        log.write("removed", number=number)
    for path in (tmp_path / "_logs").iterdir():
        path.unlink()
    log.write("new")
    assert log.flush(SOON)
    assert container.events()[-1]["event"] == "new"


@pytest.mark.posix
@pytest.mark.parametrize("max_bytes", [None, 1024])
@pytest.mark.parametrize("closed", [False, True])
def test_what_follows_a_mirrored_log_that_was_removed_is_waited_for(
    make: Make, container: Container, tmp_path: Path, max_bytes: int | None, closed: bool
) -> None:
    """Its positions begin anew, below those that the mirror has reached."""
    log = make(Client(container), max_bytes=max_bytes, mirror_interval=60)
    for number in range(50):
        log.write("removed", number=number)
    assert log.close(SOON) if closed else log.flush(SOON)
    for path in (tmp_path / "_logs").iterdir():
        path.unlink()
    log.write("new")
    assert log.flush(SOON)
    assert container.events()[-1]["event"] == "new"


def test_a_broken_state_file_costs_a_repetition_at_most(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """Nonsense in the state is a new state: lines may be doubled, never lost."""
    state = tmp_path / "_state" / "run_log_mirror.json"
    state.parent.mkdir()
    for nonsense in (
        "", "[]", '{"segment": "x"}', '{"segment": null, "offset": 1}', '{"segment": 1e999}',
        "[" * 100_000,
    ):  # fmt: skip
        state.write_text(nonsense)
        log = make(Client(container))
        log.write(f"after {nonsense:.40}")
        assert log.close(SOON)
        assert container.events()[-1]["event"] == f"after {nonsense:.40}"


def test_a_state_that_cannot_be_written_blocks_no_other_process(
    make: Make, container: Container, tmp_path: Path
) -> None:
    """The disk is full, say: the lock of the pass is released, and its lines arrive later."""
    state = tmp_path / "_state" / "run_log_mirror.json"
    state.mkdir(parents=True)  # nothing can take this name
    (state / "file").touch()
    log = make()
    log.write("e")
    options: dict[str, Any] = {"interval": 0.01, "max_blocks": 9}
    mirror = RunLogMirror(Client(container), log._file, state, **options)
    target = mirror._make_target()
    assert target is not None
    with pytest.raises(OSError) as caught:  # which holds the pass that failed, and its lock
        mirror._pass(target, look=False)
    lock = FileLock(state.with_suffix(".lock"))
    assert lock.acquire(timeout=0)
    lock.release()
    del caught
    (state / "file").unlink()
    state.rmdir()
    mirror.wake()
    assert mirror.close(SOON)
    assert [event["event"] for event in container.events()] == ["e"]


@pytest.mark.as_windows
def test_several_writers_share_one_mirror(make: Make, container: Container) -> None:
    """The process that mirrors takes everybody's lines, and everybody's flush waits for its own."""
    first, second = make(Client(container)), make(Client(container))
    for number in range(50):
        first.write("first", number=number)
        second.write("second", number=number)
    assert first.flush(SOON)
    assert second.flush(SOON)
    assert container.text() == first.path.read_text()
    assert container.uploaded == first.path.stat().st_size


def test_a_client_with_upload_file_only_works(make: Make) -> None:
    """Clients of 0.7's shape get the whole file, in batches, and are called once each."""
    uploads: list[str] = []

    class Old:
        def is_configured(self) -> bool:
            return True

        def upload_file(self, path: Path) -> None:
            uploads.append(path.read_text())

    log = make(Old())
    for number in range(100):
        log.write("e", number=number)
    assert log.flush(SOON)
    assert uploads[-1] == log.path.read_text()
    assert len(uploads) < 10


def test_what_is_written_during_an_upload_of_the_whole_file_waits_for_the_next(make: Make) -> None:
    """Or a log that is written all the time would be uploaded without a pause."""
    uploads: list[int] = []

    class Old:
        def is_configured(self) -> bool:
            return True

        def upload_file(self, path: Path) -> None:
            uploads.append(len(lines(path)))
            if len(uploads) < 20:
                log.write("meanwhile")

    log = make(Old())
    log.write("e")
    assert log.flush(SOON)
    assert len(uploads) < 5
    assert log.close(SOON)


def test_a_client_with_upload_file_only_gets_each_rotated_file(make: Make, tmp_path: Path) -> None:
    """Under its own name, and whole in the end."""
    uploaded: dict[str, str] = {}

    class Old:
        def is_configured(self) -> bool:
            return True

        def upload_file(self, path: Path) -> None:
            uploaded[path.name] = path.read_text()

    log = make(Old(), max_bytes=1024)
    for number in range(50):
        log.write("e", number=number)
    assert log.flush(SOON)
    assert uploaded == {path.name: path.read_text() for path in log.path.parent.iterdir()}
    assert len(uploaded) > 2


def test_an_upload_file_that_swallows_errors_is_refused(make: Make) -> None:
    """Only what really arrived counts as mirrored."""
    strict: list[bool] = []

    class Swallowing:
        def is_configured(self) -> bool:
            return True

        def upload_file(self, path: Path, *, raise_on_error: bool = False) -> None:
            strict.append(raise_on_error)

    log = make(Swallowing())
    log.write("e")
    assert log.flush(SOON)
    assert strict == [True]


@pytest.mark.as_windows
def test_an_unconfigured_client_means_no_mirror(make: Make, container: Container) -> None:
    """The log stays on this machine, flush does not wait for nothing, and `keep` counts."""
    log = make(Client(container, configured=False), max_bytes=1024, keep=2)
    for number in range(100):
        log.write("e", number=number)
    assert log.flush(SOON)
    assert container.blobs == {}
    assert len(list(log.path.parent.iterdir())) == 3


def test_a_useless_client_is_logged_not_raised(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A failing mirror never raises."""

    class Useless:
        def is_configured(self) -> bool:
            return True

    log = make(Useless())
    log.write("e")
    assert not log.flush(0.2)
    assert "neither container() nor upload_file()" in caplog.text


@pytest.mark.as_windows
def test_write_after_close_opens_the_log_again(make: Make, container: Container) -> None:
    """A late line is better than a lost one."""
    log = make(Client(container))
    log.write("first")
    assert log.close(SOON)
    log.write("second")
    assert log.close(SOON)
    assert [event["event"] for event in container.events()] == ["first", "second"]


def test_threads_end_with_close(make: Make, container: Container) -> None:
    """A closed log leaves no thread."""
    before = threading.active_count()
    log = make(Client(container))
    log.write("e")
    assert log.close(SOON)
    assert threading.active_count() == before


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_log_that_is_not_closed_leaves_nothing_behind(
    mirrored: bool, container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor, and no thread once there is nothing to mirror: 0.7's log had no `close`."""
    monkeypatch.setattr(_run_log_mirror, "_IDLE_SECONDS", 0.01)
    log = RunLogWriter(tmp_path, azure_client=Client(container) if mirrored else None)
    log.write("first")
    assert log.flush(SOON)
    for thread in threading.enumerate():
        if thread.name == "infra-core-run-log":
            thread.join(SOON)
            assert not thread.is_alive()
    log.write("second")
    assert log.flush(SOON)
    fd, gone = log._file._fd, weakref.ref(log._file)
    assert fd is not None
    opened = os.fstat(fd)
    del log
    for thread in threading.enumerate():
        if thread.name == "infra-core-run-log":
            thread.join(SOON)
    gc.collect()
    assert gone() is None
    with suppress(OSError):  # or it is another file's by now
        assert not os.path.samestat(os.fstat(fd), opened)
    assert len(lines(tmp_path / "_logs" / "run.log")) == 2
    assert len(container.events()) == 2 * mirrored


# The handler


def test_log_records_become_lines(make: Make) -> None:
    """Message, level, logger, extra fields and the traceback, redacted."""
    log = make()
    logger = logging.Logger("crawler")  # noqa: LOG001 - one that no other test sees
    logger.addHandler(RunLogHandler(log))
    logger.info("got %s", "it", extra={"url": "https://a.example/?sig=SECRET", "event": "x"})
    try:
        raise ValueError("token=SECRET")
    except ValueError:
        logger.exception("failed")
    first, second = lines(log.path)
    assert first["event"] == "log"
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "crawler", "got it")
    assert "ValueError" in second["exception"]
    assert "SECRET" not in log.path.read_text()


def test_a_line_of_a_record_has_all_of_it(make: Make) -> None:
    """Its own time and stack, its traceback as text, and fields that are named as ours are."""
    log = make()
    handler = RunLogHandler(log)
    fields = {
        "created": 1_700_000_000.25, "msg": "m", "levelname": "INFO", "name": "crawler",
        "exc_text": "Traceback of elsewhere", "stack_info": "Stack (most recent call last)",
        "event": "page_saved", "level": 5, "level_": 6, "timestamp": 12.5, "stack": [1],
    }  # fmt: skip
    handler.handle(logging.makeLogRecord(fields))
    assert lines(log.path) == [
        {
            "timestamp": "2023-11-14T22:13:20.250000+00:00", "event": "log", "message": "m",
            "level": "INFO", "logger": "crawler", "exception": "Traceback of elsewhere",
            "stack": "Stack (most recent call last)", "event_": "page_saved", "level_": 5,
            "level__": 6, "timestamp_": 12.5, "stack_": [1],
        }
    ]  # fmt: skip


def test_what_the_mirror_logs_is_no_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each upload would make lines to be uploaded; also where records name no thread."""
    log = make()
    logger = logging.Logger("azure")  # noqa: LOG001 - one that no other test sees
    logger.addHandler(RunLogHandler(log))
    monkeypatch.setattr(logging, "logThreads", False)
    thread = threading.Thread(target=logger.info, args=("request",), name="infra-core-run-log")
    thread.start()
    thread.join()
    fields = {"threadName": "infra-core-run-log", "levelno": logging.INFO}  # by a queue, say
    logger.handle(logging.makeLogRecord(fields))
    logger.info("ours")
    assert [line["message"] for line in lines(log.path)] == ["ours"]


def test_a_failing_handler_does_not_raise(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with every handler of logging."""
    (tmp_path / "_logs").write_text("a file, not a folder")
    logger = logging.Logger("crawler")  # noqa: LOG001 - one that no other test sees
    logger.addHandler(RunLogHandler(make()))
    logger.info("hello")
    assert "Logging error" in capsys.readouterr().err


def test_a_property_may_have_any_name(tmp_path: Path) -> None:
    """Those of the parameters as well; 0.7's keyword goes on working."""
    with RunLogWriter(tmp_path, azure_client=None) as log:
        line = log.write("e", event="inner", self="s", name="n", properties=1)
        assert (line["event"], line["event_"]) == ("e", "inner")
        assert (line["self"], line["name"], line["properties"]) == ("s", "n", 1)
        assert log.write(event="e", n=1)["event"] == "e"
        both = log.write("e", event="inner", event_="second")
        assert (both["event_"], both["event__"]) == ("second", "inner")
        for wrong in ((), ("a", "b")):
            with pytest.raises(TypeError, match="takes one event"):
                log.write(*wrong)
