"""What one version leaves, the other reads: rows, blobs, run folders, heartbeats, logs, manifests.

    python exchange.py write|read CONNECTION_STRING FOLDER

`write` stores one of each with the names that both versions have; `read` prints what it finds of
them as JSON. In a rolling upgrade both happen at once, in both directions.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any


@dataclasses.dataclass
class Run:
    """A record as services of 0.7 write them: whatever the row holds goes to the constructor."""

    batch_id: str
    job_id: str
    status: str = "pending"
    updated_at: str = "2026-03-01T00:00:00+00:00"
    count: int = 0
    ratio: float = 0.5
    flag: bool = True

    def to_entity(self) -> dict[str, Any]:
        return {"PartitionKey": self.batch_id, "RowKey": self.job_id, **vars(self)}

    @classmethod
    def from_entity(cls, entity: Any) -> Run:
        return cls(**{k: v for k, v in entity.items() if k not in ("PartitionKey", "RowKey")})


def store(connection: str) -> Any:
    from infra_core.azure.job_store import AzureTableJobStore, TableConfig

    return AzureTableJobStore(
        record_type=Run,
        connection_string_var="X",
        table_name_var="Y",
        config=TableConfig(connection, "exchanged"),
    )


def client(connection: str, base: Path) -> Any:
    from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings

    env = {
        "AZURE_STORAGE_CONTAINER": "exchanged",
        "AZURE_STORAGE_CONNECTION_STRING": connection,
        "AZURE_STORAGE_BLOB_PREFIX": "runs",
    }
    settings, mode = AzureStorageSettings.from_env(env=env)
    return AzureStorageClient.from_settings(settings, mode, base_path=base)


def write(connection: str, folder: Path) -> None:
    """Leave one of each."""
    from infra_core.azure.monitoring import HeartbeatMonitor, RunLogWriter

    with store(connection) as jobs:
        for number in range(3):
            record = Run("b", f"job {number}", count=number)
            jobs.create(record)
            jobs.save(dataclasses.replace(record, status="done"))
        jobs.create(Run("b 3", "created", count=3))
        jobs.save(Run("b 2", "it's Ü", count=2**31 - 1))
    run = folder / "run"
    storage = client(connection, folder)
    try:
        storage.write_json(run / "result.json", {"ü": [1, None]})
        storage.write_text(run / "sub dir" / "a b.txt", "text\n")
        storage.upload_text(run / "only blob.txt", "blob")
        log = RunLogWriter(run, azure_client=storage)
        log.write("started", number=1, text="ü")
        log.write("ended", number=2)
        beat = HeartbeatMonitor(run, azure_client=storage, interval_seconds=60)
        beat.start()
        beat.set_slug("job 1")
        beat.stop()
        if hasattr(log, "close"):
            log.close()
    finally:
        storage.close()


def read(connection: str, folder: Path) -> dict[str, Any]:
    """Find what was left, as a program would; FOLDER is empty or the writer's."""
    from infra_core.azure.run_storage import build_manifest

    found: dict[str, Any] = {}
    with store(connection) as jobs:
        found["row"] = dataclasses.asdict(jobs.fetch("b", "job 1"))
        found["odd row"] = dataclasses.asdict(jobs.fetch("b 2", "it's Ü"))
        found["created row"] = dataclasses.asdict(jobs.fetch("b 3", "created"))
        page, _ = jobs.list_runs("b")
        found["rows"] = sorted(record.job_id for record in page)
        again = jobs.fetch("b", "job 2")
        jobs.save(dataclasses.replace(again, count=7))
        found["saved again"] = jobs.fetch("b", "job 2").count
    storage = client(connection, folder)
    try:
        names = [name for name, _ in storage.list_tree(folder / "run")]
        found["blobs"] = sorted(n for n in names if not n.startswith(("_logs", "_state")))
        found["has log and beat"] = [
            any(n.startswith("_logs/run") for n in names),
            "_state/heartbeat.json" in names,
        ]
        storage.download_tree(folder / "run")
        found["json"] = json.loads((folder / "run" / "result.json").read_text("utf-8"))
        found["text"] = (folder / "run" / "sub dir" / "a b.txt").read_text()
        beat = json.loads((folder / "run" / "_state" / "heartbeat.json").read_text())
        found["beat"] = [beat["slug"], isinstance(beat["timestamp"], str)]
        lines = [
            json.loads(line)
            for path in sorted((folder / "run" / "_logs").glob("run*.log"))
            for line in path.read_text("utf-8").splitlines()
        ]
        found["log"] = [line["event"] for line in lines if line["event"] in ("started", "ended")]
        manifest = build_manifest(folder / "run", client=storage)
        found["manifest"] = sorted(
            file["path"]
            for file in manifest["files"]
            if not file["path"].startswith(("_logs", "_state"))
        )
    finally:
        storage.close()
    return found


if __name__ == "__main__":
    verb, connection_string, place = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    if verb == "write":
        write(connection_string, place)
    else:
        print(json.dumps(read(connection_string, place), sort_keys=True))
