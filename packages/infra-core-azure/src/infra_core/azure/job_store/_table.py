"""The job store in Azure Table storage."""

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.data.tables import TableClient

from ._records import RecordT
from ._row_store import RowJobStore
from ._rows import plan_batches
from ._table_clients import SharedClient, TableJobStore, shared_client

__all__ = ["AzureTableJobStore"]


class AzureTableJobStore(TableJobStore[RecordT], RowJobStore[RecordT]):
    """Keeps jobs in an Azure table: one partition per batch, one row per job.

    Stores of the same configuration share one client, which is closed with the last of them; a
    store that is dropped without `close()` gives its share back as well. Nothing is sent before
    the first operation, which also makes the table.

    Args:
        record_type: A dataclass with `batch_id` and `job_id`, or a class with `to_entity()` and
            `from_entity()`. `JobRecord` by default.
        connection_string_var: Environment variable with the connection string.
        table_name_var: Environment variable with the table's name.
        fallback_connection_var: Variable to look into when the first is empty.
        config: The configuration, in place of environment variables.
        env: The environment; that of the process by default.

    Raises:
        AzureTableError: A setting is missing or malformed; the message names it.
        JobRecordError: The record type cannot be stored.
        TableRequestError: From operations: the service refused, after the SDK's retries.
        TableConnectionError: From operations: it could not be reached, or its answer was lost.
    """

    def _open(self, record_type: type[RecordT]) -> None:
        self._keep(record_type, plan_batches)
        self._held: SharedClient | None = shared_client(self._config)

    def _backend(self) -> SharedClient:
        self._held = held = self._held or shared_client(self._config)
        return held

    @property
    def client(self) -> TableClient:
        """The SDK's client of the table, for what this store does not do."""
        return self._backend().table()

    def table_exists(self) -> bool:
        """Whether the table is there; unlike every other operation it does not make it.

        Raises:
            TableRequestError: The service refused.
            TableConnectionError: It could not be reached.
        """
        return self._backend().exists()

    def close(self) -> None:
        """Give the shared client back. The store may be used again; it leases it anew."""
        self._held = None
