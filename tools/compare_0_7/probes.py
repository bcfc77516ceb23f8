"""What a user of 0.7 does, and what comes of it: run in 0.7.6 and in ours, printed as JSON.

    python probes.py BASE_URL CONNECTION_STRING FOLDER

Imports nothing but what 0.7.6 offers, under its names. A probe is a function; what it returns is
compared as JSON, what it raises by class, bases and the words that users match. FOLDER is empty and
this run's alone. BASE_URL is what `origin.py` serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from infra_core import (
    AssetDownloadClient,
    RuntimeCancellationError,
    RuntimeConfig,
    TaskRuntime,
    compute_checksum,
    download_asset,
    ensure_parent,
    fetch,
    fetch_async,
    find_capabilities,
    poll_until,
    poll_until_async,
)
from infra_core.azure.client import AzureFunctionAsyncClient, AzureFunctionSyncClient
from infra_core.azure.function_cli import add_azure_service_arguments
from infra_core.azure.job_store import AzureTableJobStore, TableConfig
from infra_core.azure.monitoring import (
    HeartbeatMonitor,
    RunLogWriter,
    TelemetryClient,
    TelemetryConfig,
    TelemetryEvent,
)
from infra_core.azure.run_service import RunStorageMixin
from infra_core.azure.run_storage import (
    build_manifest,
    build_run_storage_path,
    collect_local_files,
    resolve_base_path,
)
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings, get_client
from infra_core.fs_utils import CHUNK_SIZE, compute_checksum as other, hashed_asset_path
from infra_core.http import RequestsHttpClient
from infra_core.http_async import AsyncHttpClient, request_async
from infra_core.http_utils import absolute_url
from infra_core.logging_utils import redact_sas_tokens, sanitize_url
from infra_core.polling import PollingConfig, StatusExtractor, StatusPoller
from infra_core.retry import AsyncRetryConfig, retry_state_summary, run_with_retries_sync

PROBES: dict[str, Callable[[], Any]] = {}
BASE, CONNECTION, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])


_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


def probe(function: Callable[[], Any]) -> Callable[[], Any]:
    PROBES[function.__name__.replace("__", ".")] = function
    return function


def outcome(function: Callable[[], Any]) -> dict[str, Any]:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING and record.name.startswith("infra_core"):
                records.append(record)

    handler = Keep()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                found = {"value": plain(function())}
            except Exception as error:  # noqa: BLE001 - what is compared
                found = {"raises": type(error).__name__, "bases": bases(error)}
    finally:
        root.removeHandler(handler)
    found["fields"] = sorted(
        {
            f"{record.levelname} {record.name} {field}"
            for record in records
            for field in set(vars(record)) - _EVERY_RECORD
        }
    )
    found["logs"] = sorted({f"{record.levelname} {record.name}" for record in records})
    found["warns"] = sorted({w.category.__name__ for w in caught if "infra_core" in str(w.message)
                             or issubclass(w.category, DeprecationWarning)})  # fmt: skip
    return found


def bases(error: BaseException) -> list[str]:
    """The classes that an `except` of a user's names."""
    return sorted(
        f"{base.__module__.partition('.')[0]}.{base.__name__}"
        for base in type(error).__mro__
        if base.__module__.partition(".")[0] in {"builtins", "httpx", "requests", "azure"}
        and base not in (object, BaseException, Exception)
    )


def plain(value: Any) -> Any:
    if isinstance(value, Path):
        with contextlib.suppress(ValueError):
            return f"FOLDER/{value.relative_to(FOLDER)}"
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(plain(item) for item in value)]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(plain(item) for item in value)]
    if isinstance(value, (str, int, float, type(None))):
        return str(value).replace(str(FOLDER), "FOLDER").replace(BASE, "BASE") if isinstance(
            value, str) else value  # fmt: skip
    return type(value).__name__


counter = iter(range(1_000_000))


def new(suffix: str = "") -> Path:
    return FOLDER / f"f{next(counter)}{suffix}"


def words(function: Callable[[], Any], *texts: str) -> dict[str, bool]:
    """Whether an error has the words that users match."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 - what is compared
        return {text: text.lower() in str(error).lower() for text in texts}
    return dict.fromkeys(texts, False)


# -- files ---------------------------------------------------------------------------------------


@probe
def fs__checksum() -> Any:
    path = new()
    path.write_bytes(b"text")
    return [compute_checksum(path), other(path, "md5"), other(path, algorithm="sha1")]


@probe
def fs__hashed_paths() -> Any:
    keys = ["https://a.example/x.png", "https://a.example/x.png;v=1", "https://a.example/", "key",
            "https://a.example/a%20b.png?x=1", "https://a.example/d/"]  # fmt: skip
    hints = [None, "x.png", "thumb/x.png", "full/x.png"]
    return [hashed_asset_path(FOLDER, key, hint) for key in keys for hint in hints]


@probe
def fs__ensure_parent() -> Any:
    path = new() / "a" / "b.txt"
    ensure_parent(path)
    return path.parent.is_dir()


@probe
def fs__chunk_size() -> Any:
    return CHUNK_SIZE


# -- requests ------------------------------------------------------------------------------------


@probe
def http__fetch() -> Any:
    return [fetch(BASE + "/ok"), asyncio.run(fetch_async(BASE + "/ok"))]


@probe
def http__redirects() -> Any:
    return [fetch(BASE + "/redirect"), asyncio.run(fetch_async(BASE + "/redirect"))]


@probe
def http__missing_sync() -> Any:
    return fetch(BASE + "/missing")


@probe
def http__missing_async() -> Any:
    return asyncio.run(fetch_async(BASE + "/missing"))


@probe
def http__refused_sync() -> Any:
    return fetch("http://127.0.0.1:9/", max_retries=0)


@probe
def http__refused_async() -> Any:
    return asyncio.run(fetch_async("http://127.0.0.1:9/", max_retries=0))


@probe
def http__request() -> Any:
    response = asyncio.run(request_async("GET", BASE + "/ok", params={"a": "b"}))
    return [type(response).__name__, response.status_code, response.text, str(response.url)]


@probe
def http__async_with_gives_a_client() -> Any:
    async def main() -> Any:
        async with AsyncHttpClient() as client:
            response = await client.get(BASE + "/ok")
            return [isinstance(client, __import__("httpx").AsyncClient), response.text]

    return asyncio.run(main())


@probe
def http__absolute_url() -> Any:
    pairs = [("https://a.example", "b", "c"), ("https://a.example/", "/b/"), ("",), ("/",)]
    return [absolute_url(*pair) for pair in [*pairs, ("https://a.example/x", "y z")]]


@probe
def http__reconfigured_client_keeps_its_factory() -> Any:
    import requests

    class Own(requests.Session):
        pass

    made: list[str] = []

    def factory() -> requests.Session:
        session = Own()
        made.append(type(session).__name__)
        return session

    client = RequestsHttpClient(session_factory=factory)
    client.get(BASE + "/ok", headers={}, timeout=5)
    client.reconfigure()
    client.get(BASE + "/ok", headers={}, timeout=5)
    client.close()
    return sorted(set(made))


@probe
def http__sessions_share_cookies_between_threads() -> Any:
    import threading

    import requests

    session = requests.Session()
    client = RequestsHttpClient(session_factory=lambda: session)
    seen: list[str] = []

    def work() -> None:
        client.get(BASE + "/ok", headers={}, timeout=5)
        seen.append(threading.current_thread().name[:0] + "done")

    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    client.close()
    return seen


@probe
def http__header_none_is_left_out() -> Any:
    return fetch(BASE + "/headers", headers={"User-Agent": None})


@probe
def http__text_of_odd_pages() -> Any:
    return asyncio.run(fetch_async(BASE + "/latin"))


@probe
def http__bad_arguments() -> Any:
    return words(lambda: asyncio.run(fetch_async(BASE + "/ok", max_retries=-1)), "max_retries")


# -- downloads -----------------------------------------------------------------------------------


@probe
def assets__download() -> Any:
    path = new(".png")
    first = download_asset(BASE + "/image.png", path)
    second = download_asset(BASE + "/image.png", path)
    return [first.path == path, first.checksum, first.mime, first.reused, second.reused,
            oct(path.stat().st_mode & 0o777), path.read_bytes().hex()]  # fmt: skip


@probe
def assets__missing() -> Any:
    return download_asset(BASE + "/missing", new())


@probe
def assets__client_is_a_context_manager() -> Any:
    async def main() -> Any:
        async with AssetDownloadClient(max_retries=0) as client:
            result = await client.download(BASE + "/image.png", new(".png"))
            return [type(client).__name__, result.mime]

    return asyncio.run(main())


@probe
def assets__inside_a_loop() -> Any:
    async def main() -> Any:
        return download_asset(BASE + "/image.png", new())

    return asyncio.run(main())


@probe
def assets__truncated() -> Any:
    return download_asset(BASE + "/cut", new(), max_retries=0)


@probe
def assets__folder_in_the_way() -> Any:
    path = new()
    path.mkdir()
    return download_asset(BASE + "/image.png", path, skip_if_exists=False)


# -- runtime, retry, polling ---------------------------------------------------------------------


def run_tasks(tasks: Any, **options: Any) -> Any:
    config = options.pop("config", RuntimeConfig(concurrency=2))
    return asyncio.run(TaskRuntime(config=config).run(tasks, **options))


@probe
def runtime__each_task_is_its_own() -> Any:
    seen: list[Any] = []

    async def task() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)

    run_tasks([(str(n), task) for n in range(5)])
    return len(set(map(id, seen)))


@probe
def runtime__order() -> Any:
    seen: list[int] = []

    async def task(number: int) -> None:
        seen.append(number)

    tasks = [(str(n), lambda n=n: task(n)) for n in range(8)]
    run_tasks(tasks, config=RuntimeConfig(concurrency=3))
    return seen


@probe
def runtime__first_error() -> Any:
    async def task() -> None:
        raise LookupError("x")

    return run_tasks([("a", task)])


@probe
def runtime__on_error() -> Any:
    reported: list[Any] = []

    async def task() -> None:
        raise LookupError("x")

    run_tasks([("a", task), ("b", task)], on_error=lambda name, e: reported.append([name, str(e)]))
    return sorted(reported)


@probe
def runtime__cancellation_error_of_a_task_ends_the_run() -> Any:
    async def task() -> None:
        raise RuntimeCancellationError("stop")

    return run_tasks([("a", task)], on_error=lambda name, error: None)


@probe
def runtime__event_set_by_the_last_task() -> Any:
    async def main() -> Any:
        event = asyncio.Event()

        async def task() -> None:
            event.set()

        runtime = TaskRuntime(config=RuntimeConfig(concurrency=1), cancel_event=event)
        return await runtime.run([("a", task)])

    return asyncio.run(main())


@probe
def runtime__timeout() -> Any:
    reported: list[str] = []

    async def task() -> None:
        await asyncio.sleep(30)

    run_tasks([("a", task)], on_timeout=reported.append,
              config=RuntimeConfig(concurrency=1, task_timeout=0.05))  # fmt: skip
    return reported


@probe
def runtime__config_is_checked() -> Any:
    return words(lambda: RuntimeConfig(concurrency=0), "concurrency")


@probe
def retry__state_and_waits() -> Any:
    seen: list[Any] = []
    calls = iter(range(10))

    def operation() -> str:
        if next(calls) < 2:
            raise ValueError("again")
        return "done"

    def before_sleep(state: Any) -> None:
        error, wait, attempt = retry_state_summary(state)
        seen.append([type(error).__name__, wait, attempt, type(state).__module__.split(".")[0]])

    config = AsyncRetryConfig.create(max_retries=3, backoff=0.01)
    value = run_with_retries_sync(
        operation, config=config, should_retry=lambda error: True, before_sleep=before_sleep
    )
    return [value, seen, config.max_attempts]


@probe
def retry__create_refuses() -> Any:
    return AsyncRetryConfig.create(max_retries=-1)


@probe
def polling__until() -> Any:
    answers = iter([{"status": "running"}, {"status": "completed"}])
    return poll_until(lambda: next(answers), lambda a: a["status"] == "completed",
                      poll_interval=0.01, timeout=5)  # fmt: skip


@probe
def polling__a_plain_fetch_runs_beside_the_loop() -> Any:
    async def main() -> Any:
        import threading

        names: list[bool] = []

        def fetch() -> str:
            names.append(threading.current_thread() is threading.main_thread())
            return "done"

        await poll_until_async(fetch, lambda answer: True, poll_interval=0.01, timeout=5)
        return names

    return asyncio.run(main())


@probe
def polling__timeout_words() -> Any:
    return words(lambda: poll_until(lambda: 1, lambda a: False, timeout=0.02, poll_interval=0.01),
                 "timed out")  # fmt: skip


@probe
def polling__timeout() -> Any:
    return poll_until(lambda: 1, lambda answer: False, timeout=0.02, poll_interval=0.01)


@probe
def polling__arguments() -> Any:
    return words(lambda: poll_until(lambda: 1, lambda a: True, timeout=0), "must be positive")


@probe
def polling__failure() -> Any:
    config = PollingConfig(failure_statuses={"failed"}, terminal_statuses={"completed", "failed"})
    return StatusPoller(lambda: {"status": "failed", "error": "no"}, config=config).poll()


@probe
def polling__extractor_is_checkable() -> Any:
    return isinstance(lambda answer: "x", StatusExtractor)


@probe
def logging__urls() -> Any:
    urls = ["https://h/x?sig=abc", "https://h/", "https://h", "https://u:p@h/x", "https://h/x?a=b"]
    shown = [sanitize_url(url) for url in urls] + [redact_sas_tokens("x?sig=abc&a=b")]
    return ["abc" in text or ":p@" in text for text in shown] + [shown[4]]


# -- capabilities --------------------------------------------------------------------------------


@probe
def capabilities__found() -> Any:
    found = find_capabilities("poll async job status")
    return [type(found).__name__, bool(found), hasattr(found[0], "slug") if found else None]


# -- storage -------------------------------------------------------------------------------------


def storage(container: str, base: Path, **more: Any) -> Any:
    env = {"AZURE_STORAGE_CONTAINER": container,
           "AZURE_STORAGE_CONNECTION_STRING": CONNECTION, **more}  # fmt: skip
    settings, mode = AzureStorageSettings.from_env(env=env)
    return AzureStorageClient.from_settings(settings, mode, base_path=base)


@contextlib.contextmanager
def closing(client: Any) -> Iterator[Any]:
    try:
        yield client
    finally:
        client.close()


@probe
def storage__round_trip() -> Any:
    base = new()
    with closing(storage("probe-round", base)) as client:
        client.write_json(base / "run" / "a.json", {"x": 1, "ü": [1, 2]})
        client.write_text(base / "run" / "b.txt", "text")
        client.upload_text(base / "run" / "c.log", "line")
        listed = client.list_tree(base / "run")
        back = new()
    with closing(storage("probe-round", back)) as other:
        done = other.download_tree(back / "run")
        return [listed, done, (back / "run" / "a.json").read_text(), client.is_configured(),
                other.download_to_path(back / "none"),
                client.blob_name_for_path(base / "run" / "a.json")]  # fmt: skip


@probe
def storage__prefix_with_a_slash() -> Any:
    base = new()
    more = {"AZURE_STORAGE_BLOB_PREFIX": "/shots/"}
    with closing(storage("probe-slash", base, **more)) as client:
        client.write_text(base / "run" / "a.txt", "text")
        return [client.blob_name_for_path(base / "run" / "a.txt"), client.list_tree(base / "run"),
                [blob.name for blob in client.container().list_blobs()]]  # fmt: skip


@probe
def storage__strict_without_configuration() -> Any:
    client = AzureStorageClient(None, settings=AzureStorageSettings(container=None), mode="strict")
    return client.write_text(new(".txt"), "text")


@probe
def storage__missing_settings() -> Any:
    settings, mode = AzureStorageSettings.from_env(env={})
    return AzureStorageClient.from_settings(settings, mode)


@probe
def storage__words() -> Any:
    settings, mode = AzureStorageSettings.from_env(env={})
    return words(lambda: AzureStorageClient.from_settings(settings, mode), "configur")


@probe
def storage__modes() -> Any:
    names = ["strict", "best-effort", "best", "warn", "dev-skip", "dev", "dev-no-upload",
             "local-dev-no-upload", "best_effort", "STRICT"]  # fmt: skip
    return [AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": name})[1] for name in names]


@probe
def storage__unknown_mode() -> Any:
    return AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "nope"})


@probe
def storage__names_and_urls() -> Any:
    base = new()
    with closing(storage("probe-names", base)) as client:
        paths = [base / "a b.txt", base / "tmp" / "a.txt", Path("/tmp/x/y.txt"), base / "ü#?.txt"]
        names = [client.blob_name_for_path(path) for path in paths]
        urls = [str(client.blob_url_for_name(name)).replace(CONNECTION, "") for name in names]
        return [names, [url.partition("/devstoreaccount1/")[2] for url in urls]]


@probe
def storage__two_settings_at_once() -> Any:
    more = {"AZURE_STORAGE_ACCOUNT": "other", "AZURE_STORAGE_BLOB_ENDPOINT": "https://cdn.example/"}
    with closing(storage("probe-both", new(), **more)) as client:
        return client.is_configured()


# -- runs ----------------------------------------------------------------------------------------


@probe
def runs__manifest_local() -> Any:
    folder = new()
    for name in ("a.png", "b.json", "c.csv", "d.pdf", "e.log", "f.txt", "g.bin", "h.xml", "i.ini"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    manifest = build_manifest(folder, client=get_client(settings, mode))
    local = collect_local_files(folder)
    return {
        "keys": sorted(manifest),
        "storage": bool(manifest.get("storage")),
        "url": ["url" in file for file in manifest["files"]],
        "types": {file["path"]: file["type"] for file in manifest["files"]},
        "content": {file["path"]: file["content_type"] for file in manifest["files"]},
        "local_has": ["size" in entry and "path" in entry for entry in local],
    }


@probe
def runs__manifest_mirrored() -> Any:
    base = new()
    with closing(storage("probe-manifest", base)) as client:
        client.write_text(base / "run" / "a b.txt", "text")
        manifest = build_manifest(base / "run", client=client)
        url = manifest["files"][0].pop("url")
        return [manifest, url.partition("/devstoreaccount1/")[2]]


@probe
def runs__empty_manifest() -> Any:
    settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    return build_manifest("", client=get_client(settings, mode))["files"]


@probe
def runs__paths() -> Any:
    os.environ["PROBE_BASE"] = str(FOLDER)
    return [resolve_base_path("PROBE_BASE"), build_run_storage_path("PROBE_BASE", "runs", "job"),
            build_run_storage_path("PROBE_BASE", "runs", None, "job"),
            build_run_storage_path("PROBE_BASE", "runs/", "job"),
            build_run_storage_path("PROBE_BASE", ".", "job")]  # fmt: skip


@probe
def runs__mixin_reads_run_storage_path() -> Any:
    folder = new()
    folder.mkdir()
    (folder / "a.txt").write_text("a")

    class Record:
        run_storage_path = str(folder)

    settings, mode = AzureStorageSettings.from_env(env={"AZURE_STORAGE_MODE": "dev-skip"})
    mixin = RunStorageMixin(azure_client=get_client(settings, mode))
    return len(mixin.build_result_manifest(Record())["files"])


# -- jobs ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Run:
    batch_id: str
    job_id: str
    status: str = "pending"
    updated_at: str = "2026-03-01T00:00:00+00:00"
    note: str = ""

    def to_entity(self) -> dict[str, Any]:
        return {"PartitionKey": self.batch_id, "RowKey": self.job_id, **vars(self)}

    @classmethod
    def from_entity(cls, entity: Any) -> Run:
        names = {name for name in entity if name not in ("PartitionKey", "RowKey")}
        return cls(**{name: entity[name] for name in names})


def jobs(table: str) -> Any:
    return AzureTableJobStore(
        record_type=Run, connection_string_var="X", table_name_var="Y",
        config=TableConfig(CONNECTION, table),
    )  # fmt: skip


def raw_rows(table: str) -> Any:
    from azure.data.tables import TableServiceClient

    with TableServiceClient.from_connection_string(CONNECTION) as service:
        return [dict(row) for row in service.get_table_client(table).list_entities()]


@probe
def jobs__records_that_spread_vars() -> Any:
    with jobs("probespread") as store:
        record = store.create(Run("b", "1"))
        store.save(record)
        record.status = "done"
        store.save(record)
        fetched = store.fetch("b", "1")
        store.save(fetched)
        return [fetched, store.fetch("b", "1"), sorted(raw_rows("probespread")[0])]


@probe
def jobs__order() -> Any:
    with jobs("probeorder") as store:
        for number, moment in enumerate(["2026-01", "2026-03", "2026-02"]):
            store.save(Run("b", str(number), updated_at=moment))
        page, token = store.list_runs("b")
        return [[record.job_id for record in page], token]


@probe
def jobs__pages() -> Any:
    with jobs("probepages") as store:
        for number in range(5):
            store.save(Run("b", str(number)))
        page, token = store.list_runs("b", limit=2)
        return [len(page), type(token).__name__, store.fetch("b", "none")]


@probe
def jobs__missing_settings() -> Any:
    return TableConfig.from_env(connection_var="PROBE_A", table_var="PROBE_B", env={})


# -- monitoring ----------------------------------------------------------------------------------


@probe
def monitoring__run_log() -> Any:
    root = new()
    with closing(storage("probe-log", FOLDER)) as client:
        log = RunLogWriter(root, azure_client=client, utc_now=lambda: "2026-01-01T00:00:00+00:00")
        line = log.write("started", x=1, text="t")
        if hasattr(log, "close"):
            log.close()
        stored = json.loads(log.path.read_text().splitlines()[0])
        return [line, stored, log.path]


@probe
def monitoring__heartbeat() -> Any:
    root = new()
    with closing(storage("probe-beat", FOLDER)) as client:
        beat = HeartbeatMonitor(root, azure_client=client, interval_seconds=60,
                                utc_now=lambda: "2026-01-01T00:00:00+00:00")  # fmt: skip
        beat.start()
        beat.set_slug("job-1")
        path, text = root / "_state" / "heartbeat.json", {"slug": ""}
        until = time.monotonic() + 10  # an upload may put the beat before it back for a moment
        while text["slug"] != "job-1" and time.monotonic() < until:
            text = json.loads(path.read_text())
        beat.stop()
        return {name: text[name] for name in ("timestamp", "slug")}


@probe
def monitoring__heartbeat_without_slug_timeout() -> Any:
    with closing(storage("probe-beat", FOLDER)) as client:
        HeartbeatMonitor(new(), azure_client=client, slug_timeout_seconds=0)
    return "made"


@probe
def monitoring__telemetry() -> Any:
    records: list[logging.LogRecord] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger = logging.getLogger("probe.telemetry")
    logger.setLevel(logging.INFO)
    logger.addHandler(Keep())
    client = TelemetryClient(config=TelemetryConfig(), service_name="probe",
                             logger_name="probe.telemetry")  # fmt: skip
    client.track_event(TelemetryEvent.STARTED, batch_id="b", job_id="j", metadata={"a": 1})
    events = [str(event) for event in TelemetryEvent]
    return [events, f"{TelemetryEvent.STARTED}", sorted({r.levelname for r in records})]


@probe
def monitoring__telemetry_logger() -> Any:
    seen: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.name)

    handler = Keep()
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        client = TelemetryClient(config=TelemetryConfig(), service_name="probe")
        client.track_event(TelemetryEvent.STARTED, batch_id="b")
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    return sorted({name for name in seen if "telemetry" in name})


@probe
def monitoring__unknown_event() -> Any:
    return TelemetryClient(config=TelemetryConfig(), service_name="p").track_event("nope")


# -- functions -----------------------------------------------------------------------------------


@probe
def functions__sync_client_inside_a_loop() -> Any:
    client = AzureFunctionSyncClient(BASE)

    async def main() -> Any:
        return client.get_json("/json")

    try:
        return asyncio.run(main())
    finally:
        client.close()


@probe
def functions__calls() -> Any:
    client = AzureFunctionSyncClient(BASE, api_key="k")
    try:
        return [client.get_json("/json"), client.post_json("/json", json={"a": 1}),
                client.request("GET", "/ok").status_code]  # fmt: skip
    finally:
        client.close()


@probe
def functions__missing() -> Any:
    client = AzureFunctionSyncClient(BASE)
    try:
        return client.get_json("/missing")
    finally:
        client.close()


@probe
def functions__base_url_is_required() -> Any:
    return AzureFunctionAsyncClient("")


@probe
def functions__arguments() -> Any:
    import argparse

    parser = argparse.ArgumentParser()
    add_azure_service_arguments(parser, base_url_env_var="PROBE_URL")
    return vars(parser.parse_args(["batch"]))


@probe
def packages__star_import() -> Any:
    names: dict[str, Any] = {}
    exec("from infra_core import *", names)
    return "request" in names


@probe
def packages__nothing_on_stderr_without_logging() -> Any:
    import subprocess

    code = (
        "import sys\nfrom infra_core import fetch\n"
        "try: fetch(sys.argv[1] + '/flaky', max_retries=1, backoff=0.01)\nexcept Exception: pass"
    )
    done = subprocess.run([sys.executable, "-c", code, BASE], capture_output=True, text=True)
    return done.stderr


def main() -> None:
    found = {}
    for name, function in PROBES.items():
        started = time.monotonic()
        found[name] = outcome(function)
        if os.environ.get("PROBE_VERBOSE"):
            print(name, f"{time.monotonic() - started:.2f}", file=sys.stderr)
    print(json.dumps(found, sort_keys=True))


if __name__ == "__main__":
    main()
