"""What monitoring costs its callers, and how far its mirror lags behind, with budgets.

Run it with `hatch run bench:python tools/bench/monitoring.py`; `--azurite` adds the mirror on a
real Azurite. Returns 1 when a figure misses its budget.
"""

import argparse
import contextlib
import logging
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra_core.azure.monitoring import (
    HeartbeatMonitor,
    RunLogWriter,
    TelemetryClient,
    TelemetryConfig,
)
from infra_core.azure.monitoring.testing import IngestionServer

LINE = {
    "url": "https://origin.example/assets/image-000123.png",
    "path": "assets/ab/cd/image-000123.png",
    "bytes": 48_213,
    "attempts": 1,
    "sha256": "ab" * 32,
    "elapsed": 0.127,
}


def per_second(count: int, work: Callable[[], object]) -> tuple[float, float]:
    """Return how often `work` runs per second and per second of CPU time; best of three rounds.

    The latter is the former on a machine that does nothing else, and hardly depends on what else
    a machine does.
    """
    wall = cpu = 0.0
    for _ in range(3):
        started, burnt = time.perf_counter(), time.thread_time()
        for _ in range(count):
            work()
        cpu = max(cpu, count / (time.thread_time() - burnt))
        wall = max(wall, count / (time.perf_counter() - started))
    return wall, cpu


def run_log_lines(root: Path) -> tuple[float, float]:
    """Lines a second and a CPU second, without a mirror."""
    with RunLogWriter(root / "local", azure_client=None) as log:
        return per_second(20_000, lambda: log.write("asset_downloaded", **LINE))


def tracking() -> tuple[float, float]:
    """Events tracked a second, and events delivered a second to a local server."""
    with IngestionServer() as server:
        client = TelemetryClient(config=TelemetryConfig(server.connection_string))
        started = time.perf_counter()
        for number in range(5_000):
            client.track_event("progress", batch_id="batch-1", metadata={"n": number})
        tracked = 5_000 / (time.perf_counter() - started)
        client.flush(60)
        delivered = client.stats().delivered / (time.perf_counter() - started)
        client.close(10)
    return tracked, delivered


def set_slug_beside_a_slow_upload(root: Path) -> float:
    """Longest `set_slug`, in milliseconds, while every upload takes half a second."""

    class Slow:
        def is_configured(self) -> bool:
            return True

        def write_json(self, path: Path, data: object, **_: object) -> Path:
            threading.Event().wait(0.5)
            return path

    worst = 0.0
    with HeartbeatMonitor(root / "beat", azure_client=Slow()) as heartbeat:
        for number in range(300):
            started = time.perf_counter()
            heartbeat.set_slug(f"item-{number}")
            worst = max(worst, time.perf_counter() - started)
    return worst * 1000


def track_memory() -> float:
    """MiB that a queue takes when nothing answers and 10,000 large events are tracked."""
    config = TelemetryConfig("InstrumentationKey=k;IngestionEndpoint=http://127.0.0.1:9/")
    tracemalloc.start()
    client = TelemetryClient(config=config)
    for number in range(10_000):
        client.track_event("progress", metadata={"text": f"{number}" + "x" * 4_000})
    size = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    client.close(0)
    return size


def mirror(root: Path) -> dict[str, float]:
    """Lines a second with a mirror on Azurite, its lag, and bytes uploaded per byte logged."""
    from azure.storage.blob import ContainerClient

    from infra_core.azure.testing import AzuriteServer

    uploaded = [0]

    class Counting:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        def append_block(self, data: bytes, **options: Any) -> Any:
            uploaded[0] += len(data)
            return self._inner.append_block(data, **options)

    with contextlib.ExitStack() as stack:
        azurite = stack.enter_context(AzuriteServer())
        container = stack.enter_context(
            ContainerClient.from_connection_string(azurite.connection_string, "bench")
        )
        container.create_container()

        class Box:
            def get_blob_client(self, name: str) -> Any:
                return Counting(container.get_blob_client(name))

        class Client:
            def is_configured(self) -> bool:
                return True

            def container(self) -> Any:
                return Box()

            def blob_name_for_path(self, path: Path) -> str:
                return path.name

        log = stack.enter_context(RunLogWriter(root / "mirrored", azure_client=Client()))
        lines, _ = per_second(20_000, lambda: log.write("asset_downloaded", **LINE))
        log.flush(60)
        lags = []
        assert log._mirror is not None
        worker = log._mirror._worker
        for _ in range(20):
            for _ in range(50):
                log.write("asset_downloaded", **LINE)
            started = time.perf_counter()
            with worker.changed:
                worker.changed.wait_for(lambda: not worker.pending, 10)
            lags.append(time.perf_counter() - started)
        log.flush(60)
        return {
            "lines": lines,
            "lag_median": statistics.median(lags),
            "lag_worst": max(lags),
            "ratio": uploaded[0] / log.path.stat().st_size,
        }


def main() -> int:
    """Print every figure; return 1 when one misses its budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--azurite", action="store_true", help="measure the mirror as well")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # what is lost here is lost on purpose
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        lines, lines_cpu = run_log_lines(root)
        slug = set_slug_beside_a_slow_upload(root)
        tracked, delivered = tracking()
        memory = track_memory()
        rows = [
            ("run log, lines/s", lines, True),
            ("run log, lines/s of CPU time", lines_cpu, lines_cpu >= 20_000),
            ("set_slug beside a 500 ms upload, worst ms", slug, slug < 100),
            ("telemetry tracked, events/s", tracked, True),
            ("telemetry delivered to loopback, events/s", delivered, True),
            ("telemetry queue without a service, MiB", memory, memory < 48),
        ]
        if options.azurite:
            figures = mirror(root)
            rows += [
                ("run log with mirror, lines/s", figures["lines"], True),
                ("mirror lag, median s", figures["lag_median"], True),
                ("mirror lag, worst s", figures["lag_worst"], figures["lag_worst"] <= 1.0),
                ("bytes uploaded per byte logged", figures["ratio"], figures["ratio"] < 1.01),
            ]
    for name, figure, kept in rows:
        print(f"{name:46}{figure:14,.2f}{'' if kept else '   OVER BUDGET'}")
    return 0 if all(kept for _, _, kept in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
