"""The Table store without a server: settings, filters, batches, shared clients, lost answers."""

import asyncio
import inspect
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ServiceResponseError,
)
from azure.data.tables import EdmType, EntityProperty, TableEntity
from hypothesis import example, given, strategies as st

from infra_core.azure.exceptions import (
    AzureTableError,
    JobConflictError,
    JobExistsError,
)
from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    JobRecord,
    JobStatus,
    SqliteJobStore,
    TableConfig,
    _table,
    _table_rows,
    open_job_store,
    reset_table_client_cache,
)
from infra_core.azure.job_store._binding import RecordBinding
from infra_core.azure.job_store._entity import Int64
from infra_core.azure.job_store._rows import Query, Row, Tally, doing_of, plan_batches
from infra_core.azure.job_store._sqlite import _JobFile
from infra_core.azure.job_store._table import SharedClient
from infra_core.azure.job_store._table_rows import (
    entity_of,
    odata_filter,
    read_token,
    row_of,
    write_token,
)

_KEY = "c2VjcmV0"
_CONNECTION = "AccountName=acc;AccountKey=c2VjcmV0;EndpointSuffix=example.net"


class TestConfig:
    """Where the table is."""

    def test_the_positional_form_of_earlier_versions_works(self) -> None:
        """Connection string first, table name second."""
        config = TableConfig(_CONNECTION, "jobs")
        assert (config.connection_string, config.table_name) == (_CONNECTION, "jobs")

    def test_a_table_name_is_required(self) -> None:
        """As before, a missing name is a TypeError."""
        with pytest.raises(TypeError, match="table_name"):
            TableConfig("UseDevelopmentStorage=true")

    @pytest.mark.parametrize("name", ["ab", "1jobs", "my-jobs", "x" * 64, ""])
    def test_a_name_that_azure_refuses_is_refused_here(self, name: str) -> None:
        """3 to 63 letters and digits, a letter first."""
        with pytest.raises(AzureTableError, match="letters and digits"):
            TableConfig(_CONNECTION, name)

    def test_the_endpoint_is_made_from_the_account(self) -> None:
        """Unless one is given."""
        assert TableConfig(table_name="jobs", account_name="acc").resolved_table_endpoint == (
            "https://acc.table.core.windows.net"
        )
        given_one = TableConfig(table_name="jobs", account_name="acc", table_endpoint="https://t")
        assert given_one.resolved_table_endpoint == "https://t"
        assert TableConfig(_CONNECTION, "jobs").resolved_table_endpoint is None

    def test_the_key_is_not_in_the_representation(self) -> None:
        """Nor anywhere in it."""
        assert "c2VjcmV0" not in repr(TableConfig(_CONNECTION, "jobs"))

    def test_the_documented_variables_are_the_defaults(self) -> None:
        """AZURE_JOB_TABLE and AZURE_JOB_CONNECTION, then AZURE_STORAGE_CONNECTION_STRING."""
        env = {"AZURE_JOB_TABLE": " jobs ", "AZURE_JOB_CONNECTION": "one"}
        assert TableConfig.from_env(env=env) == TableConfig("one", "jobs")
        env = {"AZURE_JOB_TABLE": "jobs", "AZURE_STORAGE_CONNECTION_STRING": "two"}
        assert TableConfig.from_env(env=env) == TableConfig("two", "jobs")

    def test_an_account_without_connection_string_is_enough(self) -> None:
        """DefaultAzureCredential is used then."""
        env = {"T": "jobs", "AZURE_STORAGE_ACCOUNT": "acc"}
        config = TableConfig.from_env(connection_var="C", table_var="T", env=env)
        assert config == TableConfig(table_name="jobs", account_name="acc")

    @pytest.mark.parametrize(
        ("env", "named"), [({}, "MY_TABLE"), ({"MY_TABLE": "jobs"}, "MY_CONN")]
    )
    def test_a_missing_setting_is_named(
        self, env: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An empty mapping is honoured: the variables of the process are not looked at."""
        monkeypatch.setenv("MY_TABLE", "jobs")
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", _CONNECTION)
        with pytest.raises(AzureTableError, match=named):
            TableConfig.from_env(connection_var="MY_CONN", table_var="MY_TABLE", env=env)

    def test_a_store_names_the_variables_it_reads(self) -> None:
        """The constructor of earlier versions, with its three variables."""
        with pytest.raises(AzureTableError, match="RUNS_TABLE"):
            AzureTableJobStore(
                record_type=JobRecord,
                connection_string_var="RUNS_CONN",
                table_name_var="RUNS_TABLE",
                env={},
            )

    def test_a_configuration_without_connection_is_refused_at_once(self) -> None:
        """By both stores, before anything is tried."""
        config = TableConfig(table_name="jobs")
        with pytest.raises(AzureTableError, match="account_name"):
            AzureTableJobStore(config=config)
        with pytest.raises(AzureTableError, match="account_name"):
            AsyncAzureTableJobStore(config=config)

    def test_a_malformed_connection_string_is_reported_without_its_text(self) -> None:
        """It may hold a key."""
        store = AzureTableJobStore(config=TableConfig("AccountKey=c2VjcmV0", "jobs"))
        with store, pytest.raises(AzureTableError, match="cannot be read") as caught:
            store.fetch("b", "j")
        assert "c2VjcmV0" not in str(caught.value)

    @pytest.mark.parametrize(
        ("connection", "endpoint"),
        [
            (f"AccountName=acc;;AccountKey={_KEY}", "https://acc.table.core.windows.net"),
            (f" 'AccountName=acc;AccountKey={_KEY};EndpointSuffix=core.usgovcloudapi.net' ",
             "https://acc.table.core.usgovcloudapi.net"),
            (f"AccountKey={_KEY};BlobEndpoint=https://acc.blob.core.chinacloudapi.cn/;AccountName=a",
             "https://acc.table.core.chinacloudapi.cn"),
            ("UseDevelopmentStorage=true;", "http://127.0.0.1:10002/devstoreaccount1"),
            ("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite",
             "http://azurite:10002/devstoreaccount1"),
            ("TableEndpoint=https://h.example;SharedAccessSignature=?sv=1&sig=x",
             "https://h.example"),
        ],
    )  # fmt: skip
    def test_connection_strings_are_read_as_for_blobs(self, connection: str, endpoint: str) -> None:
        """Emulator, suffix, quotes, empty parts, sovereign clouds; the SDK takes the result."""
        config = TableConfig(connection, "jobs")
        parts = config.connection()
        assert parts is not None
        assert parts.table_endpoint == endpoint
        with SharedClient(config)._connect() as client:
            assert client.url.partition("?")[0] == endpoint

    @pytest.mark.parametrize(
        ("connection", "expected"),
        [
            (f"AccountName=acc;AccountKey={_KEY};BlobEndpoint=http://127.0.0.1:10000/acc",
             "holds no TableEndpoint, and BlobEndpoint is that of another"),
            ("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://h:1", "names a port"),
            ("AccountName=acc;AccountKey=§", "AccountKey in AZURE_JOB_CONNECTION is not base64"),
        ],
    )  # fmt: skip
    def test_what_cannot_be_read_names_the_variable(self, connection: str, expected: str) -> None:
        """And never a key."""
        env = {"AZURE_JOB_TABLE": "jobs", "AZURE_JOB_CONNECTION": connection}
        config = TableConfig.from_env(env=env)
        with pytest.raises(AzureTableError, match=expected) as caught:
            config.connection()
        assert "AZURE_JOB_CONNECTION" in str(caught.value)
        assert _KEY not in str(caught.value)

    def test_an_account_of_a_sovereign_cloud_is_named_once(self) -> None:
        """The blob endpoint names the cloud of the table as well."""
        env = {
            "AZURE_JOB_TABLE": "jobs",
            "AZURE_STORAGE_ACCOUNT": "acc",
            "AZURE_STORAGE_BLOB_ENDPOINT": "https://acc.blob.core.chinacloudapi.cn",
        }
        config = TableConfig.from_env(env=env)
        assert config.resolved_table_endpoint == "https://acc.table.core.chinacloudapi.cn"
        env["AZURE_STORAGE_TABLE_ENDPOINT"] = "https://own.example"
        assert TableConfig.from_env(env=env).resolved_table_endpoint == "https://own.example"


class TestOpen:
    """Which store the environment asks for."""

    def test_nothing_configured_means_embedded(self, tmp_path: Path) -> None:
        """No account is needed."""
        with open_job_store({}, sqlite_path=tmp_path / "jobs.sqlite3") as store:
            assert isinstance(store, SqliteJobStore)
            assert store.create(JobRecord("b", "j")).status is JobStatus.PENDING

    @pytest.mark.parametrize(
        "settings",
        [
            {"AZURE_JOB_CONNECTION": "UseDevelopmentStorage=true"},
            {"AZURE_STORAGE_CONNECTION_STRING": _CONNECTION},
            {"AZURE_STORAGE_ACCOUNT": "acc"},
        ],
    )
    def test_a_table_and_a_connection_mean_table(
        self, settings: dict[str, str], tmp_path: Path
    ) -> None:
        """By any of the ways to connect."""
        env = {"AZURE_JOB_TABLE": "jobs", **settings}
        with open_job_store(env, sqlite_path=tmp_path / "jobs.sqlite3") as store:
            assert isinstance(store, AzureTableJobStore)

    def test_a_table_without_connection_is_warned_about(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The jobs are kept in the file then."""
        with caplog.at_level(logging.WARNING):
            store = open_job_store({"AZURE_JOB_TABLE": "jobs"}, sqlite_path=tmp_path / "jobs.db")
        assert isinstance(store, SqliteJobStore)
        assert "AZURE_JOB_CONNECTION" in caplog.text

    def test_a_connection_without_table_means_embedded(self, tmp_path: Path) -> None:
        """A blob account alone does not turn on the table."""
        env = {"AZURE_STORAGE_CONNECTION_STRING": _CONNECTION}
        assert isinstance(open_job_store(env, sqlite_path=tmp_path / "j.db"), SqliteJobStore)


class TestFilters:
    """Queries as OData."""

    def test_no_condition_is_no_filter(self) -> None:
        """All rows."""
        assert odata_filter(Query()) == ""

    def test_conditions_are_joined(self) -> None:
        """Status alternatives in brackets, time bounds at whole milliseconds around them."""
        moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=timezone.utc)
        query = Query("it's", ("failed", "running"), since=moment, until=moment)
        assert odata_filter(query) == (
            "PartitionKey eq 'it''s' and (status eq 'failed' or status eq 'running') "
            "and updated_at ge datetime'2026-01-02T03:04:05.678Z' "
            "and updated_at lt datetime'2026-01-02T03:04:05.679Z'"
        )

    def test_claimable_jobs_are_pending_or_expired(self) -> None:
        """The condition holds together in brackets."""
        query = Query("b", claimable_at=datetime(2026, 1, 1, tzinfo=timezone.utc))
        assert odata_filter(query) == (
            "PartitionKey eq 'b' and (status eq 'pending' or (status eq 'running' "
            "and lease_until lt datetime'2026-01-01T00:00:00.001Z'))"
        )


class TestRows:
    """Rows in the SDK's terms."""

    def test_64_bit_numbers_travel_as_such(self) -> None:
        """The SDK would write 32 bits and refuse larger ones."""
        entity = entity_of(Row("p", "k", {"n": Int64(5), "small": 5}))
        assert entity["n"] == EntityProperty(5, EdmType.INT64)
        assert entity["small"] == 5

    def test_rows_are_read_with_version_and_without_keys(self) -> None:
        """What the SDK gives becomes plain values."""
        entity = TableEntity(PartitionKey="p", RowKey="k", n=EntityProperty(5, EdmType.INT64))
        entity._metadata = {"etag": "v1", "timestamp": None}
        row = row_of(entity)
        assert (row.partition, row.key, row.properties, row.etag) == ("p", "k", {"n": 5}, "v1")

    def test_tokens_are_text_and_those_of_earlier_versions_are_taken(self) -> None:
        """A dict, as the SDK gives it, is passed on."""
        continuation = {"PartitionKey": "1!8!p", "RowKey": "r"}
        token = write_token(continuation)
        assert isinstance(token, str)
        assert read_token(token) == continuation == read_token(continuation)
        assert write_token(None) is None
        assert read_token(None) is None


_ROWS = st.lists(
    st.builds(
        lambda partition, key, size: Row(partition, key, {"text": "x" * size}),
        st.sampled_from("ab"),
        st.integers(0, 9).map(str),
        st.integers(0, 3_000),
    ),
    max_size=60,
)


class TestBatches:
    """What goes into one transaction."""

    @given(_ROWS)
    def test_batches_keep_every_rule_of_a_transaction(self, rows: list[Row]) -> None:
        """One partition, each row once, bounded count and size; order kept, nothing lost."""
        batches = plan_batches(rows, max_count=7, max_bytes=12_000)
        assert sorted(position for batch in batches for position, _ in batch) == list(
            range(len(rows))
        )
        for batch in batches:
            assert len({row.partition for _, row in batch}) == 1
            assert len({row.key for _, row in batch}) == len(batch) <= 7
            assert sum(len(row.properties["text"]) for _, row in batch) < 12_000
        for partition in "ab":
            order = [p for batch in batches for p, row in batch if row.partition == partition]
            assert order == sorted(order)

    @given(
        st.text(max_size=200).flatmap(lambda text: st.sampled_from([text, text * 20])),
        st.binary(max_size=200),
        st.integers(-(2**63), 2**63 - 1),
    )
    @example("\U0001f600" * 500, bytes(1_000), -(2**63))
    @example('\\"' * 500, b"", 0)
    def test_the_estimate_is_never_below_what_is_sent(
        self, text: str, blob: bytes, number: int
    ) -> None:
        """The size of a row is at least that of the JSON the SDK makes of it."""
        from azure.data.tables._serialize import _add_entity_properties

        from infra_core.azure.job_store._rows import _wire_size

        row = Row("p", "k", {"text": text, "blob": blob, "n": Int64(number)})
        sent = json.dumps(_add_entity_properties(entity_of(row)))
        assert _wire_size(row) >= len(sent)

    def test_a_hundred_rows_go_at_once(self) -> None:
        """Azure's limit."""
        rows = [Row("p", str(n), {}) for n in range(201)]
        assert [len(batch) for batch in plan_batches(rows)] == [100, 100, 1]


class _LossyTable:
    """A client whose writes happen, and are answered by what Azure says to the second try."""

    def __init__(self) -> None:
        self.stored: Any = None

    def _store(self, entity: dict[str, Any]) -> None:
        version = f"v{0 if self.stored is None else int(self.stored.metadata['etag'][1:]) + 1}"
        self.stored = TableEntity(**entity)
        self.stored._metadata = {"etag": version}

    def create_entity(self, entity: dict[str, Any]) -> None:
        self._store(entity)
        raise ServiceResponseError("lost")

    def update_entity(self, entity: dict[str, Any], *, raw_response_hook: Any, **_: Any) -> None:
        self._store(entity)
        raw_response_hook(SimpleNamespace(context={"infra_core_attempts": 2}))
        raise ResourceModifiedError("changed")

    def get_entity(self, *_: str) -> Any:
        return self.stored


class TestLostAnswers:
    """A write that happened is not reported as somebody else's."""

    def test_our_own_writes_are_recognised(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Create and update succeed when what is stored is what was sent."""
        table = _LossyTable()
        monkeypatch.setattr(SharedClient, "table", lambda _: table)
        with AzureTableJobStore(config=TableConfig(_CONNECTION, "jobs")) as store:
            job = store.create(JobRecord("b", "j"))
            job = store.update(job.start())
            stored = store.fetch("b", "j")
        assert stored is not None
        assert (stored.status, stored.etag) == (JobStatus.RUNNING, job.etag)

    def test_the_write_of_somebody_else_is_not(self, tmp_path: Path) -> None:
        """An equal record of another writer stays a refusal."""
        with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
            record = JobRecord("b", "j")
            store.create(record)
            same = JobRecord("b", "j", created_at=record.created_at, updated_at=record.updated_at)
            with pytest.raises(JobExistsError):
                store.create(same)
            same.etag = "another version"
            with pytest.raises(JobConflictError):
                store.update(same)


class _GappyPages(_JobFile):
    """A backend that puts an empty page, with a token, before every other one, as Azure may."""

    def page(self, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
        if token is None or not token.startswith("after gap "):
            return [], f"after gap {token or ''}"
        return super().page(query, limit, token.removeprefix("after gap ") or None)


def test_listing_and_claiming_go_on_behind_an_empty_page(tmp_path: Path) -> None:
    """Pages, queries and claims find what comes after the gap."""
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store._rows = _GappyPages(store.path)
        store.save_many(JobRecord("b", str(n)) for n in range(5))
        page, token = store.list_runs("b", limit=2)
        assert len(page) == 2
        rest, end = store.list_runs("b", limit=9, continuation_token=token)
        assert (len(rest), end) == (3, None)
        assert store.claim("b", worker="w", lease_seconds=60) is not None


@dataclass
class _WithoutTime:
    batch_id: str
    job_id: str
    status: str = "pending"


@dataclass
class _TextOfTime(_WithoutTime):
    """In a form of its own, which no backend can compare."""

    updated_at: str = "2026-11-28T12:00:00+00:00"


class _Asked(_JobFile):
    """A backend that keeps what it is asked for."""

    asked: ClassVar[list[Query | str | None]] = []

    def page(self, query: Query, limit: int, token: str | None) -> tuple[list[Row], str | None]:
        self.asked.append(query)
        return super().page(query, limit, token)

    def tally(self, partition: str | None) -> list[Tally]:
        self.asked.append(partition)
        return super().tally(partition)


@pytest.mark.parametrize(
    ("record_type", "by_status", "by_time"),
    [(JobRecord, True, True), (_WithoutTime, True, False), (_TextOfTime, True, False)],
)
def test_what_the_backend_can_judge_is_not_read(
    record_type: Any,
    by_status: bool,
    by_time: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counts, listings and prunes of many jobs transfer what matches alone."""
    monkeypatch.setattr(_Asked, "asked", [])
    old, new = (datetime(2026, month, 1, tzinfo=timezone.utc) for month in (1, 12))
    with SqliteJobStore(tmp_path / "jobs.sqlite3", record_type) as store:
        store._rows = rows = _Asked(store.path)
        store.save_many(record_type("b", str(number)) for number in range(3))
        assert store.count_by_status("b") == {"pending": 3}
        assert len(store.batches()) == 1
        assert len(list(store.iter_runs("b", status="pending"))) == 3
        if record_type is not _WithoutTime:  # which has nothing to compare
            assert len(list(store.iter_runs("b", since=old, until=new))) == 3
            assert store.prune(older_than=old, status="pending") == 0
    everything = Query("b")
    expected: list[Query | str | None] = ["b", None] if by_time else [everything, Query()]
    expected.append(replace(everything, statuses=("pending",)) if by_status else everything)
    if record_type is not _WithoutTime:
        pruned = Query(statuses=("pending",), until=old, keys_only=True)
        timed = [replace(everything, since=old, until=new), pruned]
        expected += timed if by_time else [everything, Query()]
    assert rows.asked == expected


class _Refusing(_JobFile):
    """A backend that is out of order."""

    def upsert(self, rows: Sequence[Row]) -> list[str]:
        raise sqlite3.OperationalError("disk I/O error")

    def get(self, partition: str, key: str) -> Row | None:
        raise sqlite3.OperationalError("disk I/O error")


def test_an_error_of_the_service_says_which_job_it_is_about(tmp_path: Path) -> None:
    """The service's own message does not."""
    job = JobRecord("the/batch", "the#job")
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as store:
        store._rows = _Refusing(store.path)
        for operation in (
            lambda: store.save(job),
            lambda: store.save_many([job]),
            lambda: store.fetch("the/batch", "the#job"),
        ):
            with pytest.raises(AzureTableError, match="of batch 'the/batch' in the job store"):
                operation()


class _FakeCredential:
    """Counts how often it is closed."""

    closed = 0

    def get_token(self, *scopes: str, **kwargs: Any) -> Any:
        raise AssertionError("nothing is sent here")

    def close(self) -> Any:
        type(self).closed += 1


class TestCredential:
    """DefaultAzureCredential, where there is no connection string."""

    def test_it_is_closed_with_the_last_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Client and credential are released together."""
        monkeypatch.setattr("azure.identity.DefaultAzureCredential", _FakeCredential)
        monkeypatch.setattr(_FakeCredential, "closed", 0)
        monkeypatch.setattr(_table, "make_table", _table_rows.reclaim)
        config = TableConfig(table_name="jobs", account_name="acc")
        one, other = AzureTableJobStore(config=config), AzureTableJobStore(config=config)
        assert one.client is other.client
        assert one.client.url == "https://acc.table.core.windows.net"
        one.close()
        assert _FakeCredential.closed == 0
        other.close()
        assert _FakeCredential.closed == 1

    async def test_that_of_the_async_store_is_closed_with_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is the synchronous one, in threads."""
        monkeypatch.setattr("azure.identity.DefaultAzureCredential", _FakeCredential)
        monkeypatch.setattr(_FakeCredential, "closed", 0)
        monkeypatch.setattr(_table, "make_table", _table_rows.reclaim)
        config = TableConfig(table_name="jobs", account_name="acc")
        async with AsyncAzureTableJobStore(config=config) as store:
            assert store._store.client.url == "https://acc.table.core.windows.net"
        assert _FakeCredential.closed == 1

    def test_an_endpoint_without_tls_is_refused_with_the_remedy(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A token must not travel in the clear."""
        monkeypatch.setattr("azure.identity.DefaultAzureCredential", _FakeCredential)
        config = TableConfig(table_name="jobs", table_endpoint="http://127.0.0.1:10002/dev")
        store = AzureTableJobStore(config=config)
        with store, pytest.raises(AzureTableError, match="https"):
            store.fetch("b", "j")


async def test_a_deadline_ends_the_wait_for_a_silent_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, and other operations go on meanwhile."""
    answered = threading.Event()

    def perform(_: object, name: str, *args: object) -> None:
        if args[0] == "silent":
            answered.wait(60)

    monkeypatch.setattr(SharedClient, "perform", perform)
    config = TableConfig(_CONNECTION, "jobs")
    async with AsyncAzureTableJobStore(config=config) as store:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.fetch("silent", "j"), 0.05)
        assert not answered.is_set()
        assert await store.fetch("b", "j") is None
        answered.set()


async def test_tables_that_do_not_answer_hold_no_other_table_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many operations wait for them, or were given up: their threads are their own."""
    answered = threading.Event()

    def perform(client: SharedClient, *_: object) -> None:
        if client._config.table_name == "silent":
            answered.wait(60)

    monkeypatch.setattr(SharedClient, "perform", perform)
    silent = AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "silent"))
    healthy = AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "healthy"))
    try:
        waiting: list[asyncio.Task[object]] = []
        for _ in range(6):
            waiting += [asyncio.create_task(silent.fetch("b", str(n))) for n in range(64)]
            await asyncio.sleep(0)
            for task in waiting[:-64]:
                task.cancel()
        await asyncio.wait_for(healthy.fetch("b", "j"), 30)
        await asyncio.wait_for(healthy.close(), 30)
        await asyncio.wait_for(silent.close(), 30)
    finally:
        answered.set()
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("ends", ["cancelled", "timed out"])
async def test_an_operation_that_is_given_up_sends_no_further_request(
    monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Of the batches of `save_many`, the one that is on its way is the last."""
    loop, sent = asyncio.get_running_loop(), asyncio.Event()
    given_up, released = threading.Event(), threading.Event()
    batches: list[int] = []

    def upsert(_: object, rows: Sequence[Row]) -> list[str]:
        try:
            _table_rows._count_attempt(SimpleNamespace(context={}))  # as the SDK calls it
        except asyncio.CancelledError:
            released.set()
            raise
        batches.append(len(rows))
        loop.call_soon_threadsafe(sent.set)
        given_up.wait(60)
        return ["etag"] * len(rows)

    monkeypatch.setattr(SharedClient, "table", _table_rows.reclaim)
    monkeypatch.setattr(_table_rows, "upsert", upsert)
    async with AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "jobs")) as store:
        records = [JobRecord(batch_id="b", job_id=str(number)) for number in range(300)]
        saving = asyncio.create_task(store.save_many(records))
        await sent.wait()
        if ends == "cancelled":
            saving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await saving
        else:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(saving, 0)
        given_up.set()
        assert await asyncio.to_thread(released.wait, 60)
        assert batches == [100]


@pytest.mark.parametrize("operation", ["save_many", "update_many"])
async def test_records_are_read_where_the_store_is_called(
    monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """A cursor of sqlite3, for one, belongs to its thread."""

    def perform(_: object, name: str, *args: Any) -> list[str] | None:
        return None if name == "get" else ["etag"] * len(args[0])

    monkeypatch.setattr(SharedClient, "perform", perform)
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE names AS SELECT 'a' AS name UNION SELECT 'b'")
    records = (
        JobRecord(batch_id="b", job_id=name, etag="1")
        for (name,) in database.execute("SELECT name FROM names")
    )
    async with AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "jobs")) as store:
        stored = await getattr(store, operation)(records)
    database.close()
    assert [record.job_id for record in stored] == ["a", "b"]


async def test_records_are_iterated_over_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page ends nothing; what is asked for is checked at the call."""
    binding = RecordBinding(JobRecord)
    rows = [[binding.to_row(JobRecord("b", name))] for name in ("a", "b")]
    pages: dict[str | None, object] = {None: ([], "1"), "1": (rows[0], "2"), "2": (rows[1], None)}

    def perform(_: object, _name: str, _query: Query, _size: int, token: str | None) -> object:
        return pages[token]

    monkeypatch.setattr(SharedClient, "perform", perform)
    async with AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "jobs")) as store:
        assert [record.job_id async for record in store.iter_runs("b")] == ["a", "b"]
        with pytest.raises(ValueError, match="no-such"):
            store.iter_runs("b", status="no-such")


_AWAITED = sorted(
    name
    for name, method in vars(AsyncAzureTableJobStore).items()
    if callable(method) and not name.startswith("_") and name != "close"
)


@pytest.mark.parametrize("name", _AWAITED)
async def test_every_argument_of_an_awaited_operation_is_that_of_its_twin(name: str) -> None:
    """None is left out on the way to the thread, or takes the place of another."""
    taken: dict[str, object] = {}
    async with AsyncAzureTableJobStore(config=TableConfig(_CONNECTION, "jobs")) as store:
        twin = "pages" if name == "iter_runs" else name
        signature = inspect.signature(getattr(store._store, twin))

        def take(*args: object, **options: object) -> Iterator[object]:
            taken.update(signature.bind(*args, **options).arguments)
            return iter(())

        setattr(store._store, twin, take)
        names = inspect.signature(getattr(store, name)).parameters
        given = {name: [object()] if name == "records" else object() for name in names}
        result = getattr(store, name)(**given)
        if name != "iter_runs":
            await result
    assert taken == given


class _FakeTable:
    """Counts what the shared client is asked for."""

    made: ClassVar[list["_FakeTable"]] = []
    refusal: Exception | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        assert kwargs["retry_total"] < 10
        self.closed = 0
        self.created = 0
        _FakeTable.made.append(self)

    def create_table(self) -> None:
        self.created += 1
        if _FakeTable.refusal is not None:
            raise _FakeTable.refusal

    def get_entity(self, *args: str) -> None:
        raise ResourceNotFoundError("none")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[_FakeTable]]:
    """A client class that needs no server."""
    monkeypatch.setattr(_table, "TableClient", _FakeTable)
    monkeypatch.setattr(_FakeTable, "made", [])
    monkeypatch.setattr(_FakeTable, "refusal", None)
    reset_table_client_cache()
    yield _FakeTable.made
    reset_table_client_cache()


def _open(table: str = "jobs") -> AzureTableJobStore[JobRecord]:
    return AzureTableJobStore(config=TableConfig("UseDevelopmentStorage=true", table))


@pytest.mark.usefixtures("tables")
class TestSharedClients:
    """Stores of one configuration share a client."""

    def test_making_a_store_connects_to_nothing(self, tables: list[_FakeTable]) -> None:
        """The first operation does."""
        with _open() as store:
            assert tables == []
            store.fetch("b", "j")
            assert tables[0].created == 1

    def test_one_client_serves_all_and_is_closed_with_the_last(
        self, tables: list[_FakeTable]
    ) -> None:
        """Closing one store does not cut off another."""
        one, other = _open(), _open()
        assert one.client is other.client
        one.close()
        one.close()
        assert tables[0].closed == 0
        other.close()
        assert tables[0].closed == 1
        assert len(tables) == 1

    def test_another_table_has_another_client(self, tables: list[_FakeTable]) -> None:
        """Configurations are not mixed up."""
        with _open("one1") as one, _open("two2") as two:
            assert one.client is not two.client

    def test_a_store_that_is_dropped_gives_its_client_back(self, tables: list[_FakeTable]) -> None:
        """Also without close()."""
        store = _open()
        store.fetch("b", "j")
        del store
        assert tables[0].closed == 1

    @pytest.mark.posix
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_forked_child_connects_for_itself(self, tables: list[_FakeTable]) -> None:
        """Two processes that read from one connection would take each other's answers."""
        with _open() as opened:
            store: Any = opened  # whose client is one of these tables
            assert store.client is tables[0]
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    assert store.client is tables[1]
                    store.close()
                    assert [table.closed for table in tables] == [0, 1]
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(child, 0)[1] == 0
            assert store.client is tables[0]

    def test_reset_makes_new_stores_connect_anew(self, tables: list[_FakeTable]) -> None:
        """Open stores keep their client until they are closed."""
        old = _open()
        old.fetch("b", "j")
        reset_table_client_cache()
        assert tables[0].closed == 0
        with _open() as new:
            assert new.client is not old.client
        old.close()
        assert tables[0].closed == 1

    def test_a_table_that_is_there_or_may_not_be_made_is_fine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Credentials that may only read and write rows work."""
        refused = HttpResponseError("not allowed")
        refused.status_code = 403
        for refusal in (ResourceExistsError("there"), refused):
            monkeypatch.setattr(_FakeTable, "refusal", refusal)
            with _open() as store:
                assert store.fetch("b", "j") is None

    def test_another_refusal_comes_through_and_closes_the_client(
        self, tables: list[_FakeTable], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The next operation tries again."""
        broken = HttpResponseError("broken")
        broken.status_code = 400
        monkeypatch.setattr(_FakeTable, "refusal", broken)
        with _open() as store:
            with pytest.raises(HttpResponseError, match="broken"):
                store.fetch("b", "j")
            assert tables[0].closed == 1
            monkeypatch.setattr(_FakeTable, "refusal", None)
            assert store.fetch("b", "j") is None

    async def test_first_operations_share_the_error_of_a_service_that_is_silent(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One after the other, each with its timeouts, the last would fail minutes later."""
        operations, entered, created = 16, threading.Semaphore(0), []
        table = SharedClient.table

        def enter(client: SharedClient) -> Any:
            entered.release()
            return table(client)

        def create_table(_: object) -> None:
            created.append(threading.current_thread())
            for _ in range(operations if len(created) == 1 else 0):
                assert entered.acquire(timeout=60)
            raise ServiceResponseError("silent")

        monkeypatch.setattr(SharedClient, "table", enter)
        monkeypatch.setattr(_FakeTable, "create_table", create_table)
        config = TableConfig("UseDevelopmentStorage=true", "jobs")
        async with AsyncAzureTableJobStore(config=config) as store:
            fetched = (store.fetch("b", str(number)) for number in range(operations))
            errors = await asyncio.gather(*fetched, return_exceptions=True)
        assert all(isinstance(error, AzureTableError) for error in errors)
        assert len(created) < operations  # one, unless a thread took very long to begin its wait

    async def test_a_first_operation_that_is_given_up_leaves_the_table_to_the_next(
        self, monkeypatch: pytest.MonkeyPatch, tables: list[_FakeTable]
    ) -> None:
        """What waits for it makes the table itself."""
        loop, begun, release = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def create_table(table: _FakeTable) -> None:
            table.created += 1
            if len(tables) == 1:
                loop.call_soon_threadsafe(begun.set)
                release.wait(60)
                _table_rows._count_attempt(SimpleNamespace(context={}))

        monkeypatch.setattr(_FakeTable, "create_table", create_table)
        config = TableConfig("UseDevelopmentStorage=true", "jobs")
        async with AsyncAzureTableJobStore(config=config) as store:
            first = asyncio.create_task(store.fetch("b", "first"))
            await begun.wait()
            other = asyncio.create_task(store.fetch("b", "other"))
            await asyncio.sleep(0)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            release.set()
            assert await other is None
        assert [(table.created, table.closed) for table in tables] == [(1, 1), (1, 1)]

    def test_seldom_used_clients_are_dropped_from_the_cache(self, tables: list[_FakeTable]) -> None:
        """The cache is bounded; a store keeps its client all the same."""
        stores = [_open(f"table{n}") for n in range(20)]
        for store in stores:
            store.fetch("b", "j")
        assert sum(table.closed for table in tables) == 0
        for store in stores:
            store.close()
        assert [table.closed for table in tables] == [1] * 20


def test_the_interface_can_be_imported_without_the_sdk() -> None:
    """Records, configuration, protocol and the embedded store cost no Azure import."""
    import subprocess
    import sys

    script = (
        "import sys\n"
        "from infra_core.azure.job_store import (\n"
        "    JobRecord, JobStatus, JobStore, SqliteJobStore, TableConfig, open_job_store)\n"
        "print([name for name in sys.modules if name.startswith(('azure', 'httpx', 'aiohttp'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


def test_a_row_of_another_version_is_no_table_that_is_gone() -> None:
    """What was sent once has met somebody else's doing; without a table there is no row at all."""

    def client(error: Exception) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise error

        return SimpleNamespace(update_entity=refuse, delete_entity=refuse, get_entity=refuse)

    row = Row("p", "k", {}, "e")
    changed = client(ResourceModifiedError("changed"))
    assert _table_rows.replace(changed, [row]) == [None]
    assert _table_rows.delete(changed, [row]) == 0
    missing: Any = ResourceNotFoundError("gone")
    missing.error_code = "TableNotFound"
    with pytest.raises(ResourceNotFoundError):
        _table_rows.replace(client(missing), [row])
    with pytest.raises(ResourceNotFoundError):
        _table_rows.get(client(missing), "p", "k")


@pytest.mark.parametrize("change", [_table_rows.replace, _table_rows.delete])
def test_a_transaction_that_is_refused_for_one_row_is_made_row_by_row(change: Any) -> None:
    """Which one has changed, the service does not say; another refusal is an error."""
    rows = [Row("p", key, {}, "e") for key in ("a", "b")]

    def refused(status: int) -> Any:
        error = HttpResponseError("refused")
        error.status_code = status

        def refuse(*_: object) -> None:
            raise error

        def one(*_: object, **__: object) -> dict[str, str]:
            return {"etag": "new"}

        return SimpleNamespace(submit_transaction=refuse, update_entity=one, delete_entity=one)

    assert change(refused(412), rows) in (["new", "new"], 2)
    with pytest.raises(HttpResponseError, match="refused"):
        change(refused(413), rows)


def test_a_transaction_gives_each_row_its_version() -> None:
    """In the order of the rows."""
    rows = [Row("p", key, {}, "e") for key in ("a", "b")]
    client = SimpleNamespace(
        submit_transaction=lambda changes: [{"etag": each["RowKey"]} for _, each, _ in changes]
    )
    assert _table_rows.replace(client, rows) == ["a", "b"]
    assert _table_rows.upsert(client, rows) == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "doing"),
    [
        (("page", Query(None)), "listing all jobs"),
        (("tally", "a!x2F!b"), "listing batch 'a/b'"),
        (("get", "b", "j"), "fetching job 'j' of batch 'b'"),
        (("upsert", [Row("b", "j", {})]), "storing job 'j' of batch 'b'"),
        (("delete", [Row("b", "j", {})] * 2), "deleting 2 jobs of batch 'b'"),
        (("reclaim",), "giving the space of deleted jobs back"),
    ],
)
def test_an_error_says_what_was_to_be_done(call: tuple[Any, ...], doing: str) -> None:
    """To which job or batch, by the ids that the caller knows."""
    assert doing_of(*call) == doing


def test_a_page_goes_on_where_the_one_before_it_ended() -> None:
    """A listing of all batches, and one of a batch; the limit goes to the service."""
    asked: list[Any] = []
    entity: Any = TableEntity(PartitionKey="p", RowKey="k")
    entity._metadata = {"etag": "e"}

    class Pages:
        continuation_token: ClassVar = {"PartitionKey": "p", "RowKey": "k"}

        def __next__(self) -> list[TableEntity]:
            return [entity]

        def by_page(self, continuation_token: Any) -> "Pages":
            asked.append(continuation_token)
            return self

    def listing(*odata: str, **options: Any) -> Pages:
        asked.extend((*odata, options["results_per_page"]))
        return Pages()

    client = SimpleNamespace(query_entities=listing, list_entities=listing)
    token: str | None = None
    for partition in (None, "p"):
        ((row,), token) = _table_rows.page(client, Query(partition), 7, token)
        assert (row.partition, row.key, row.etag) == ("p", "k", "e")
    assert asked == [
        7, None, "PartitionKey eq 'p'", 7, {"PartitionKey": "p", "RowKey": "k"}
    ]  # fmt: skip
