"""The main job as a library: download a list of URLs as one batch that survives and resumes.

Example:
    >>> import tempfile
    >>> from infra_core.batch import run_batch
    >>> summary = run_batch([], batch_id="nightly", out=tempfile.mkdtemp())
    >>> summary.complete, summary.total
    (True, 0)
"""

from ._api import run_batch, run_batch_async
from ._errors import BatchError
from ._items import BatchItem, Rejected, job_id_of
from ._options import BatchOptions
from ._readers import ListError, read_items
from ._results import BatchProgress, BatchResult, BatchRetry, Failure, Summary

__all__ = [
    "BatchError",
    "BatchItem",
    "BatchOptions",
    "BatchProgress",
    "BatchResult",
    "BatchRetry",
    "Failure",
    "ListError",
    "Rejected",
    "Summary",
    "job_id_of",
    "read_items",
    "run_batch",
    "run_batch_async",
]
