"""How a job store in an Azure table is made, whichever way its operations are called."""

from collections.abc import Mapping
from typing import Generic

from ._config import CONNECTION_VAR, FALLBACK_VAR, TABLE_VAR, TableConfig
from ._records import JobRecord, RecordT

__all__ = ["TableJobStore"]


class TableJobStore(Generic[RecordT]):
    """What the synchronous and the asynchronous store share: their settings."""

    def __init__(
        self,
        *,
        record_type: type[RecordT] = JobRecord,  # type: ignore[assignment]
        connection_string_var: str = CONNECTION_VAR,
        table_name_var: str = TABLE_VAR,
        fallback_connection_var: str = FALLBACK_VAR,
        config: TableConfig | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config or TableConfig.from_env(
            connection_var=connection_string_var,
            table_var=table_name_var,
            fallback_connection_var=fallback_connection_var,
            env=env,
        )
        self._open(record_type)

    def _open(self, record_type: type[RecordT]) -> None:
        raise TypeError(f"{type(self).__name__} provides no client")

    @property
    def config(self) -> TableConfig:
        """Where the table is."""
        return self._config
