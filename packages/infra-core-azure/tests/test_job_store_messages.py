"""What the job stores say: the value at fault, the rule it broke, what to do; no insides."""

import errno
import socket
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.data.tables._authentication import AzureSigningError

from infra_core.azure._sqlite_file import enter_wal
from infra_core.azure.exceptions import AzureTableError, JobRecordError
from infra_core.azure.job_store import (
    AsyncAzureTableJobStore,
    AzureTableJobStore,
    JobRecord,
    SqliteJobStore,
    TableAccessError,
    TableConfig,
    TableConnectionError,
    TableNotFoundError,
    TableRequestError,
)
from infra_core.azure.job_store._table_errors import table_error
from infra_core.runtime.testing import fast_time

CONFIG = TableConfig(
    "DefaultEndpointsProtocol=https;AccountName=acc;AccountKey=c2VjcmV0;"
    "EndpointSuffix=core.windows.net",
    "jobs",
)
Store = SqliteJobStore[JobRecord]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with SqliteJobStore(tmp_path / "jobs.sqlite3") as opened:
        opened.save(JobRecord("b", "j"))
        yield opened


@pytest.mark.parametrize(
    ("call", "kind", "value", "remedy"),
    [
        (lambda s: s.list_runs("b", limit=0), ValueError, "limit=0", "1 or more"),
        (lambda s: s.list_runs("b", limit="5"), TypeError, "limit='5'", "1 or more"),
        (lambda s: s.list_runs("b", limit=2.5), TypeError, "limit=2.5", "not a whole number"),
        *(
            (
                lambda s, token=token: s.list_runs("b", continuation_token=token),
                ValueError,
                f"continuation_token={token!r}",
                "pass what list_runs returned",
            )
            for token in ("x", "", "5", "null", "[1]", "[1, 2]", 5)
        ),
        (lambda s: s.iter_runs("b", status="runing"), ValueError, "'runing'", "timed_out"),
        (lambda s: s.iter_runs("b", status=5), ValueError, "status=5", "pending"),
        (lambda s: s.prune(older_than=30), TypeError, "older_than=30", "a timedelta"),
        (lambda s: s.iter_runs("b", since="2026-01-01"), TypeError, "'2026-01-01'", "datetime"),
        (lambda s: s.iter_runs("b", until=date(2026, 1, 2)), TypeError, "until=", "datetime"),
        (
            lambda s: s.iter_runs("b", since=datetime(2026, 2, 1), until=datetime(2026, 1, 1)),  # noqa: DTZ001
            ValueError,
            "2026-02-01",
            "swap them",
        ),
        *(
            (
                lambda s, lease=lease: s.claim("b", worker="w", lease_seconds=lease),
                kind,
                f"lease_seconds={lease!r}",
                "seconds",
            )
            for lease, kind in (
                (0, ValueError),
                (float("nan"), ValueError),
                (1e18, ValueError),
                ("60", TypeError),
                (None, TypeError),
                (timedelta(seconds=5), TypeError),
            )
        ),
        (
            lambda s: s.renew(s.fetch("b", "j"), lease_seconds=float("inf")),
            ValueError,
            "lease_seconds=inf",
            "a century",
        ),
        (
            lambda s: s.claim("b", worker="", lease_seconds=1),
            ValueError,
            "worker=''",
            "pass text",
        ),
        (
            lambda s: s.claim("b", worker="w", lease_seconds=1, max_attempts="3"),
            TypeError,
            "max_attempts='3'",
            "1 or more",
        ),
        (lambda s: s.create(None), JobRecordError, "None", "not a JobRecord"),
        (lambda s: s.save({"job_id": "j"}), JobRecordError, "a dict", "record_type="),
        (lambda s: s.update(s.fetch("b", "j"), expected="x"), JobRecordError, "'x'", "JobRecord"),
        (lambda s: s.renew(None, lease_seconds=1), JobRecordError, "None", "JobRecord"),
        (lambda s: s.save_many(JobRecord("b", "k")), TypeError, "records=JobRecord(", "a list"),
        (lambda s: s.save_many(None), TypeError, "records=None", "a list"),
        (lambda s: s.fetch("b", 5), JobRecordError, "job_id is 5", "str(number)"),
        (
            lambda s: s.save(JobRecord("b", "j", attempts="5")),  # type: ignore[arg-type]
            JobRecordError,
            "'5', a str",
            "convert the value",
        ),
    ],
)
def test_a_bad_argument_is_named_with_the_remedy(
    store: Store, call: Callable[[Any], Any], kind: type[Exception], value: str, remedy: str
) -> None:
    """At the call, and not by an error from further inside."""
    with pytest.raises(kind) as caught:
        call(store)
    assert value in str(caught.value)
    assert remedy in str(caught.value)


def test_a_payload_that_contains_itself_is_refused(store: Store) -> None:
    """Not by a RecursionError."""
    payload: dict[str, Any] = {}
    payload["self"] = payload
    with pytest.raises(JobRecordError, match="contains itself") as caught:
        store.save(JobRecord("b", "j", payload=payload))
    assert caught.value.field == "payload"


def test_an_unknown_status_of_a_record_lists_the_known_ones() -> None:
    """A state from elsewhere, with a typing error."""
    with pytest.raises(JobRecordError, match=r"'runing'.*pending, running") as caught:
        JobRecord("b", "j", status="runing").start()  # type: ignore[arg-type]
    assert caught.value.field == "status"


@pytest.mark.parametrize("record_type", [5, JobRecord("b", "j")])
def test_a_record_type_must_be_a_class(tmp_path: Path, record_type: Any) -> None:
    """An instance is a likely mistake."""
    with pytest.raises(JobRecordError, match=r"record_type=.* not a class: pass the class"):
        SqliteJobStore(tmp_path / "jobs.sqlite3", record_type)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"table_name": "my-jobs"}, "table_name='my-jobs'"),
        ({"table_name": 5}, "table_name=5"),
        ({"table_name": "Tables", "account_name": "acc"}, "not 'tables'"),
        ({"table_name": "jobs", "connection_string": 5}, "connection_string is not text"),
        ({"table_name": "jobs", "account_name": "My Account"}, "account_name='My Account'"),
        (
            {"table_name": "jobs", "account_name": "https://acc.table.core.windows.net"},
            "give the name alone",
        ),
        ({"table_name": "jobs", "table_endpoint": "acc"}, "table_endpoint='acc' is not an end"),
        *(
            ({"table_name": "jobs", "table_endpoint": f"https://{bad}"}, "is not an endpoint")
            for bad in ("[::1", "h.x#", "h.x:", "h.x:70000", "abc.table.core.windows.net/j")
        ),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused_at_once(
    setting: dict[str, Any], message: str
) -> None:
    """Instead of by the first operation, hours later."""
    with pytest.raises(AzureTableError) as caught:
        TableConfig(**setting)
    assert message in str(caught.value)


@pytest.mark.parametrize("store", [AzureTableJobStore, AsyncAzureTableJobStore])
def test_a_connection_string_is_no_configuration(store: Callable[..., object]) -> None:
    """And is not shown."""
    with pytest.raises(TypeError, match="config is a str: pass TableConfig") as caught:
        store(config="AccountName=a;AccountKey=c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"AZURE_JOB_TABLE": "my-jobs", "AZURE_STORAGE_ACCOUNT": "acc"}, "AZURE_JOB_TABLE="),
        ({"AZURE_JOB_TABLE": "jobs", "AZURE_STORAGE_ACCOUNT": "a.b"}, "AZURE_STORAGE_ACCOUNT="),
        (
            {"AZURE_JOB_TABLE": "jobs", "AZURE_STORAGE_TABLE_ENDPOINT": "acc"},
            "AZURE_STORAGE_TABLE_ENDPOINT=",
        ),
    ],
)
def test_a_bad_variable_is_named(env: dict[str, str], variable: str) -> None:
    """The operator sees variables, not parameters."""
    with pytest.raises(AzureTableError, match=variable):
        TableConfig.from_env(env=env)


@pytest.mark.parametrize(
    "call",
    [
        lambda secret: TableConfig("jobs", f"AccountName=a;AccountKey={secret}"),
        lambda secret: TableConfig(
            table_name="jobs", table_endpoint=f"https://a.example/?sv=1&sig={secret}"
        ),
        lambda secret: TableConfig.from_env(
            env={
                "AZURE_JOB_TABLE": f"AccountName=a;AccountKey={secret}",
                "AZURE_JOB_CONNECTION": "jobs",
            }
        ),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(call: Callable[[str], object]) -> None:
    """Table name and connection string swapped, a SAS in the endpoint."""
    with pytest.raises(AzureTableError) as caught:
        call("c2VjcmV0IQ")
    assert "c2VjcmV0IQ" not in str(caught.value)


def _make_folder(path: Path) -> None:
    path.mkdir()


def _make_other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE jobs (x)")
    connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_make_folder, "it is a folder; name a file in it"),
        (_make_other_database, "the database of another program; choose another path"),
        (lambda path: path.write_bytes(b"no database" * 500), "a file of another kind"),
    ],
)
def test_a_file_that_is_no_job_store_is_recognized(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    """With what was tried and the path."""
    path = tmp_path / "x.db"
    make(path)
    with SqliteJobStore(path) as store, pytest.raises(AzureTableError) as caught:
        store.fetch("b", "j")
    assert f"fetching job 'j' of batch 'b' in the job store {str(path)!r} failed" in str(
        caught.value
    )
    assert message in str(caught.value)


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    """Not by a FileExistsError of pathlib."""
    (tmp_path / "file").write_text("x")
    store = SqliteJobStore(tmp_path / "file" / "jobs.sqlite3")
    with store, pytest.raises(AzureTableError, match=r"cannot be made .*choose another path"):
        store.fetch("b", "j")


@pytest.mark.parametrize("path", [None, 5, "a\0b"])
def test_a_path_that_is_none_is_named(path: Any) -> None:
    """When the store is opened."""
    with pytest.raises(AzureTableError, match=r"path=.* is not a path"):
        SqliteJobStore(path)


def test_a_refused_switch_of_mode_is_not_waited_out() -> None:
    """Only a lock goes away; a read-only file stays one."""

    class ReadOnly:
        def execute(self, statement: str) -> Any:
            raise sqlite3.OperationalError("attempt to write a readonly database")

    with fast_time() as time, pytest.raises(sqlite3.OperationalError):
        enter_wal(ReadOnly())  # type: ignore[arg-type]
    assert time.slept == []


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ("{bad", "its properties are '{bad'"),
        ("[1]", "its properties are '[1]'"),
        ('{"created_at": {"time": "x"}}', "its properties are"),
        ('{"status": "nosuch"}', "'status' holds 'nosuch'"),
        ('{"payload__json": "{"}', "'payload' is incomplete in the store: '{' is not JSON"),
        ('{"error__parts": "x"}', "'error' is incomplete in the store: its number of parts is 'x'"),
    ],
)
def test_a_damaged_row_names_the_job(store: Store, properties: str, message: str) -> None:
    """Also when it is met in a listing."""
    connection = sqlite3.connect(store.path)
    with connection:
        connection.execute("UPDATE jobs SET properties = ?", (properties,))
    connection.close()
    for read in (lambda: store.fetch("b", "j"), lambda: list(store.iter_runs("b"))):
        with pytest.raises(JobRecordError, match="job 'j' of batch 'b' cannot be read") as caught:
            read()
        assert message in str(caught.value)


def _refused(status: int, code: str, kind: type[HttpResponseError] = HttpResponseError) -> Any:
    error = kind(f"The server says no.\nRequestId:1\nTime:2\nErrorCode:{code}\nContent: <xml/>")
    error.status_code = status
    error.error_code = code  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "kind", "remedy"),
    [
        (_refused(403, "AuthenticationFailed"), TableAccessError, "check the account key or SAS"),
        (_refused(401, ""), TableAccessError, "Storage Table Data Contributor"),
        (
            _refused(404, "TableNotFound", ResourceNotFoundError),
            TableNotFoundError,
            "create the table",
        ),
        (_refused(404, "ResourceNotFound"), TableRequestError, "check the account name"),
        (_refused(409, "TableBeingDeleted"), TableRequestError, "wait until it is gone"),
        (_refused(400, "InvalidResourceName"), TableRequestError, "table service"),
        (_refused(503, "ServerBusy"), TableRequestError, "slow down"),
        (_refused(500, "InternalError"), TableRequestError, "try again later"),
        (_refused(409, "AccountIsDisabled"), TableRequestError, "enable the account"),
        (_refused(200, ""), TableRequestError, "check the endpoint and the proxies in between"),
    ],
)
def test_a_refusal_of_the_service_is_one_line(
    error: HttpResponseError, kind: type[TableRequestError], remedy: str
) -> None:
    """Status, code, what to do; the raw answer stays in the cause."""
    message = table_error(error, "fetching job 'j' of batch 'b'", CONFIG)
    text = str(message)
    assert type(message) is kind
    assert isinstance(message, HttpResponseError)
    assert isinstance(message, AzureTableError)
    assert message.status == message.status_code == error.status_code
    assert text.startswith(
        "fetching job 'j' of batch 'b' in the job table 'jobs' at "
        f"https://acc.table.core.windows.net failed with status {error.status_code} ("
    )
    assert remedy in text
    assert not any(inside in text for inside in ("RequestId", "Content", "\n", "c2VjcmV0"))
    assert message.__cause__ is error


_KEY = ConnectionKey("acc", 443, True, True, None, None, None)


def _untrusted() -> OSError:
    """aiohttp's own class of error, which lacks what OpenSSL's has."""
    inner = ssl.SSLCertVerificationError(1, "certificate verify failed")
    inner.verify_message = "self-signed certificate"
    return aiohttp.ClientConnectorCertificateError(_KEY, inner)


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), "the connection was refused"),
        (socket.gaierror(-2, "Name or service not known"), "cannot resolve the host name (DNS)"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "the TLS handshake failed"),
        (_untrusted(), "its certificate is not trusted (self-signed certificate)"),
        (TimeoutError(), "no answer in time"),
        (OSError(errno.ENETUNREACH, "unreachable"), "there is no route to it"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), "the connection broke"),
    ],
)
@pytest.mark.parametrize("kind", [ServiceRequestError, ServiceResponseError])
def test_a_missing_answer_says_what_happened(
    kind: type[AzureError], cause: OSError, message: str
) -> None:
    """In words, without the objects of the HTTP library; caught as what 0.7 let through."""
    try:
        try:
            raise cause
        except OSError as below:
            raise RuntimeError("Cannot connect to host x:443 ssl:default [None]") from below
    except RuntimeError as wrapper:
        error = kind(str(wrapper), error=wrapper)
    found = table_error(error, "listing batch 'b'", CONFIG)
    assert isinstance(found, TableConnectionError)
    assert isinstance(found, kind)
    assert message in str(found)
    assert "; check " in str(found)
    assert "ssl:default" not in str(found)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (AzureSigningError(), "AccountKey of the connection string is not base64; copy"),
        (
            ClientAuthenticationError("DefaultAzureCredential failed.\nAttempted credentials:\n"),
            "`az login`",
        ),
    ],
)
def test_a_missing_credential_says_where_to_get_one(error: AzureError, remedy: str) -> None:
    """Instead of a page about every credential that was tried."""
    message = table_error(error, "listing batch 'b'", CONFIG)
    assert isinstance(message, TableAccessError)
    assert remedy in str(message)
    assert "\n" not in str(message)
