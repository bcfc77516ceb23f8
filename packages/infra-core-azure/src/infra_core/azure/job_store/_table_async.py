"""The asynchronous twin of the Azure Table job store."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import azure.core  # noqa: F401 - before its parts: another thread may import it
from azure.data.tables.aio import TableClient
from infra_core.runtime import LoopLocal

from .._network import async_transport
from ._config import TableConfig
from ._drive import Steps, carry_out_async, drive_async
from ._records import BatchSummary, RecordT, StatusFilter
from ._rows import plan_batches
from ._steps import JobSteps
from ._table_clients import TableJobStore, connect
from ._table_errors import table_error
from ._table_rows import PRIMITIVES, make_table

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncAzureTableJobStore"]

T = TypeVar("T")

_BATCH_BYTES = 1_000_000  # aiohttp warns about larger bodies, which would hold up the event loop


class AsyncAzureTableJobStore(TableJobStore[RecordT]):
    """`AzureTableJobStore`, awaited: the same arguments, operations, settings and errors.

    One store may be used from several event loops; each gets a client of its own. `close()`
    closes the one of the loop it is awaited in.
    """

    def _open(self, record_type: type[RecordT]) -> None:
        self._steps = JobSteps(record_type, partial(plan_batches, max_bytes=_BATCH_BYTES))
        self._clients: LoopLocal[_AsyncTableRows] = LoopLocal(
            lambda: _AsyncTableRows(self._config), _AsyncTableRows.close
        )

    async def create(self, record: RecordT) -> RecordT:
        return await self._run(self._steps.create(record))

    async def save(self, record: RecordT) -> RecordT:
        return await self._run(self._steps.save(record))

    async def save_many(self, records: Iterable[RecordT]) -> list[RecordT]:
        return await self._run(self._steps.save_many(records))

    async def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        return await self._run(self._steps.update(record, expected))

    async def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        return await self._run(self._steps.update_many(records))

    async def delete_batch(self, batch_id: str) -> int:
        return await self._run(self._steps.delete_batch(batch_id))

    async def prune(
        self,
        *,
        older_than: timedelta | datetime,
        status: StatusFilter = None,
        batch_id: str | None = None,
    ) -> int:
        return await self._run(self._steps.prune(older_than, status, batch_id))

    async def fetch(self, batch_id: str, job_id: str) -> RecordT | None:
        return await self._run(self._steps.fetch(batch_id, job_id))

    async def list_runs(
        self, batch_id: str, *, limit: int = 50, continuation_token: str | None = None
    ) -> tuple[list[RecordT], str | None]:
        return await self._run(self._steps.list_runs(batch_id, limit, continuation_token))

    def iter_runs(
        self,
        batch_id: str | None,
        *,
        status: StatusFilter = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[RecordT]:
        query = self._steps.query(batch_id, status, since, until)

        async def pages() -> AsyncIterator[RecordT]:
            token = None
            while True:
                records, token = await self._run(self._steps.page(query, token))
                for record in records:
                    yield record
                if token is None:
                    return

        return pages()

    async def count_by_status(self, batch_id: str) -> dict[str, int]:
        return await self._run(self._steps.count_by_status(batch_id))

    async def batches(self) -> list[BatchSummary]:
        return await self._run(self._steps.batches())

    async def claim(
        self,
        batch_id: str,
        *,
        worker: str,
        lease_seconds: float,
        max_attempts: int | None = None,
    ) -> RecordT | None:
        return await self._run(self._steps.claim(batch_id, worker, lease_seconds, max_attempts))

    async def renew(self, record: RecordT, *, lease_seconds: float) -> RecordT:
        return await self._run(self._steps.renew(record, lease_seconds))

    async def delete(self, batch_id: str, job_id: str, *, expected: RecordT | None = None) -> bool:
        etag = None if expected is None else self._steps.version(expected)
        return await self._run(self._steps.delete(batch_id, job_id, etag))

    async def close(self) -> None:
        """Close the client of this event loop. The store may be used again."""
        await self._clients.aclose()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        return await drive_async(self._clients.get(), steps)


class _AsyncTableRows:
    """The backend: primitives on rows, by the SDK's asynchronous client of one event loop."""

    def __init__(self, config: TableConfig) -> None:
        self._config = config
        self._credential: Any = None
        self._table: Any = None
        self._ready = False

    def _identity(self) -> Any:
        from .._tokens import AsyncSdkCredential, TokenSource, default_async_credential

        self._credential = AsyncSdkCredential(TokenSource(make=default_async_credential))
        return self._credential

    async def close(self) -> None:
        if self._table is not None:
            await self._table.close()
        if self._credential is not None:
            await self._credential.close()

    async def client(self) -> Any:
        if self._table is None:
            self._table = connect(TableClient, async_transport, self._config, self._identity)
        if not self._ready:
            # Two tasks may both come here; making a table twice is harmless.
            await carry_out_async(make_table(self._table))
            self._ready = True
        return self._table

    def explain(self, error: Exception, doing: str) -> Exception:
        return table_error(error, doing, self._config)

    async def perform(self, name: str, *args: Any) -> Any:
        requests = PRIMITIVES[name](await self.client(), *args)
        return await carry_out_async(requests)
