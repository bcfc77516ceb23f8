"""What a program sees of the SDKs in its log."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra_core.azure._sdk_logs import tidy_sdk_logs
from infra_core.azure.job_store import (
    AzureTableError,
    AzureTableJobStore,
    TableConfig,
    _table,
)
from infra_core.azure.job_store._table_rows import CLIENT_OPTIONS
from infra_core.azure.storage import AzureStorageClient, AzureStorageSettings

_POLICY = "azure.core.pipeline.policies.http_logging_policy"


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    """Put the levels of the SDK's loggers back."""
    names = ("azure", "azure.core", _POLICY, "azure.identity", "msal")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.NOTSET)
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def test_a_program_that_logs_at_info_sees_no_dumps_of_requests(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor of tokens; the failure itself is in the error."""
    config = TableConfig(
        "AccountName=acc;AccountKey=a2V5;TableEndpoint=http://127.0.0.1:1/acc", "jobs"
    )
    options = {**CLIENT_OPTIONS, "retry_total": 0}
    monkeypatch.setattr(_table, "CLIENT_OPTIONS", options)
    with (
        caplog.at_level(logging.INFO),
        AzureTableJobStore(config=config) as store,
        pytest.raises(AzureTableError),
    ):
        store.fetch("b", "j")
    assert [record for record in caplog.records if record.levelno < logging.WARNING] == []


@pytest.mark.parametrize("name", [_POLICY, "azure.core", "azure"])
def test_what_was_asked_for_is_shown(name: str) -> None:
    """By a level on the logger, or on one above it."""
    logging.getLogger(name).setLevel(logging.INFO)
    tidy_sdk_logs()
    assert logging.getLogger(_POLICY).isEnabledFor(logging.INFO)
    logging.getLogger(name).setLevel(logging.NOTSET)
    tidy_sdk_logs()
    assert not logging.getLogger(_POLICY).isEnabledFor(logging.INFO)


def test_the_client_of_the_sdk_for_blobs_is_quiet_as_well(tmp_path: Path) -> None:
    """`container()` is the SDK's own."""
    settings = AzureStorageSettings(
        "box", "AccountName=acc;AccountKey=a2V5", journal=tmp_path / "journal"
    )
    with AzureStorageClient.from_settings(settings, "strict") as client:
        client.container(create=False)
    assert logging.getLogger(_POLICY).level == logging.WARNING
