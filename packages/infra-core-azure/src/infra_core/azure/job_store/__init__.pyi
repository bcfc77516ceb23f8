from ..exceptions import (
    AzureTableError as AzureTableError,
    JobConflictError as JobConflictError,
    JobExistsError as JobExistsError,
    JobRecordError as JobRecordError,
    JobStateError as JobStateError,
)
from ._config import TableConfig as TableConfig, open_job_store as open_job_store
from ._protocol import (
    AzureTableRecordProtocol as AzureTableRecordProtocol,
    JobStore as JobStore,
    RecordT as RecordT,
)
from ._records import (
    BatchSummary as BatchSummary,
    JobAttempt as JobAttempt,
    JobRecord as JobRecord,
    JobStatus as JobStatus,
    UnreadableJob as UnreadableJob,
)
from ._sqlite import SqliteJobStore as SqliteJobStore
from ._table import (
    AzureTableJobStore as AzureTableJobStore,
    reset_table_client_cache as reset_table_client_cache,
)
from ._table_async import AsyncAzureTableJobStore as AsyncAzureTableJobStore
from ._table_errors import (
    TableAccessError as TableAccessError,
    TableConnectionError as TableConnectionError,
    TableNotFoundError as TableNotFoundError,
    TableRequestError as TableRequestError,
)
from ._work import (
    WorkSummary as WorkSummary,
    work_batch as work_batch,
    work_batch_async as work_batch_async,
)
