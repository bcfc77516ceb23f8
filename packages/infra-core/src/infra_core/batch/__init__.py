"""The main job as a library: download a list of URLs as one batch that survives and resumes.

Example:
    >>> import tempfile
    >>> from infra_core.batch import run_batch
    >>> summary = run_batch([], batch_id="nightly", out=tempfile.mkdtemp())
    >>> summary.complete, summary.total
    (True, 0)
"""

from infra_core.runtime.lazy import stub_exports

__getattr__, __dir__, __all__ = stub_exports(__name__)
