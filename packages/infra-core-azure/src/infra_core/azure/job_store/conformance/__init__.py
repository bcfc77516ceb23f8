"""How every job store behaves, as checks that run against any of them.

One suite for all backends, ours and yours: inherit from the class, say how a store is opened, and
pytest collects the checks. They work in batches of their own, so a table may be shared.

Example:
    ::

        class TestMyStore(JobStoreConformance):
            def open_store(self, record_type=JobRecord):
                return MyStore(record_type)
"""

from ._base import EntityRecord, RichRecord
from ._claims import ClaimChecks
from ._values import ValueChecks
from ._writes import WriteChecks

__all__ = ["EntityRecord", "JobStoreConformance", "RichRecord"]


class JobStoreConformance(WriteChecks, ValueChecks, ClaimChecks):
    """All checks of a `JobStore`; override `open_store`."""
