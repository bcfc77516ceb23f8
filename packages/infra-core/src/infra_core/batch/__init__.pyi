from ._api import (
    run_batch as run_batch,
    run_batch_async as run_batch_async,
)
from ._errors import BatchError as BatchError
from ._items import (
    BatchItem as BatchItem,
    Rejected as Rejected,
    job_id_of as job_id_of,
)
from ._options import BatchOptions as BatchOptions
from ._readers import (
    ListError as ListError,
    read_items as read_items,
)
from ._results import (
    BatchProgress as BatchProgress,
    BatchResult as BatchResult,
    BatchRetry as BatchRetry,
    Failure as Failure,
    Summary as Summary,
)
