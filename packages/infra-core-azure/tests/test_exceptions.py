"""Errors of the package cross process borders, with Dask and multiprocessing."""

import pickle
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError

from infra_core.azure.exceptions import (
    _NOT_PICKLED,
    AzureServiceError,
    JobConflictError,
    JobExistsError,
    JobRecordError,
    JobStateError,
    OrchestrationTimeoutError,
    ResumeSourceActive,
    ResumeSourceNotFound,
    RunNotFound,
)
from infra_core.azure.job_store import TableConfig
from infra_core.azure.job_store._table_errors import table_error
from infra_core.azure.storage import (
    IntegrityError,
    StorageConnectionError,
    StorageTimeoutError,
    UnsafeNamesError,
)
from infra_core.azure.storage._errors import request_error
from infra_core.azure.storage._tree_types import FileOutcome, TreeReport
from infra_core.azure.storage._uploader import _tree_error


def _caused(error: Exception) -> Exception:
    """The error for one of the SDK, made while that is handled, as it is in fact."""
    config = TableConfig("UseDevelopmentStorage=true", "jobs")
    try:
        raise error
    except Exception as caught:
        return table_error(caught, "storing a job", config)


@pytest.mark.parametrize(
    "error",
    [
        AzureServiceError("m"),
        JobExistsError("b", "j"),
        JobConflictError("m", ours=1, theirs=2),
        JobRecordError("m", field="f"),
        JobStateError("m", job_id="j", current="a", wanted="b"),
        OrchestrationTimeoutError("m", status_url="u", last_status=1, terminated=True),
        RunNotFound("b", "j"),
        ResumeSourceNotFound("b", "j"),
        ResumeSourceActive("j"),
        _caused(HttpResponseError("refused")),
        _caused(ServiceRequestError("no answer", error=OSError("x"))),
        request_error(409, "BlobArchived", "", blob="a", operation="upload"),
        request_error(404, "BlobNotFound", "", blob="a", operation="download"),
        StorageConnectionError("m", blob="a", operation="upload", remedy="r"),
        StorageTimeoutError("m", blob="a", operation="upload"),
        IntegrityError("m", blob="a"),
        UnsafeNamesError({"a/../b": "it leaves the folder"}, operation="upload"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_keeps_what_it_knows_when_pickled(error: Exception) -> None:
    """Its class, its text, what stands in its attributes, and its notes on Pythons with notes."""
    error.__notes__ = ["seen"]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), again.args, again.__notes__) == (str(error), error.args, ["seen"])
    for name, value in vars(error).items():
        assert getattr(again, name) == (None if name in _NOT_PICKLED else value)


def test_the_report_of_a_tree_crosses_with_its_error() -> None:
    """The files that failed, each with its own error."""
    report = TreeReport("up")
    cause = request_error(403, "AuthorizationFailure", "", blob="a", operation="upload")
    report.problems.append(FileOutcome("a", "upload", 1, "new", error=cause))
    again = pickle.loads(pickle.dumps(_tree_error(report, Path("t"), "t")))
    assert str(again.report.problems[0].error) == str(cause)
