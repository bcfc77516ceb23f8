"""The asynchronous twin of the Azure Table job store: the same one, in threads."""

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from infra_core.runtime import ThreadPool

from ._records import BatchSummary, RecordT, StatusFilter, UnreadableJob
from ._table import AzureTableJobStore, TableJobStore

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncAzureTableJobStore"]

P = ParamSpec("P")
T = TypeVar("T")

# One operation each: one that the service does not answer holds no other up, nor other work.
_threads = ThreadPool("infra-core-table", 64)


class AsyncAzureTableJobStore(TableJobStore[RecordT]):
    """`AzureTableJobStore`, awaited: the same arguments, operations, settings and errors.

    An operation that is cancelled ends its wait at once; whether the service did what it was asked
    is not known then.
    """

    def _open(self, record_type: type[RecordT]) -> None:
        self._store = AzureTableJobStore(record_type=record_type, config=self._config)

    @property
    def unreadable(self) -> list[UnreadableJob]:
        """As `AzureTableJobStore.unreadable`."""
        return self._store.unreadable

    async def create(self, record: RecordT) -> RecordT:
        return await self._run(self._store.create, record)

    async def save(self, record: RecordT) -> RecordT:
        return await self._run(self._store.save, record)

    async def save_many(self, records: Iterable[RecordT]) -> list[RecordT]:
        return await self._run(self._store.save_many, records)

    async def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        return await self._run(self._store.update, record, expected=expected)

    async def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        return await self._run(self._store.update_many, records)

    async def delete_batch(self, batch_id: str) -> int:
        return await self._run(self._store.delete_batch, batch_id)

    async def prune(
        self,
        *,
        older_than: timedelta | datetime,
        status: StatusFilter = None,
        batch_id: str | None = None,
    ) -> int:
        return await self._run(
            self._store.prune, older_than=older_than, status=status, batch_id=batch_id
        )

    async def fetch(self, batch_id: str, job_id: str) -> RecordT | None:
        return await self._run(self._store.fetch, batch_id, job_id)

    async def list_runs(
        self, batch_id: str, *, limit: int = 50, continuation_token: str | None = None
    ) -> tuple[list[RecordT], str | None]:
        return await self._run(
            self._store.list_runs, batch_id, limit=limit, continuation_token=continuation_token
        )

    def iter_runs(
        self,
        batch_id: str | None,
        *,
        status: StatusFilter = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[RecordT]:
        pages = self._store.pages(batch_id, status, since, until)

        async def records() -> AsyncIterator[RecordT]:
            while (page := await self._run(next, pages, None)) is not None:
                for record in page:
                    yield record

        return records()

    async def count_by_status(self, batch_id: str) -> dict[str, int]:
        return await self._run(self._store.count_by_status, batch_id)

    async def batches(self) -> list[BatchSummary]:
        return await self._run(self._store.batches)

    async def claim(
        self,
        batch_id: str,
        *,
        worker: str,
        lease_seconds: float,
        max_attempts: int | None = None,
    ) -> RecordT | None:
        return await self._run(
            self._store.claim,
            batch_id,
            worker=worker,
            lease_seconds=lease_seconds,
            max_attempts=max_attempts,
        )

    async def renew(self, record: RecordT, *, lease_seconds: float) -> RecordT:
        return await self._run(self._store.renew, record, lease_seconds=lease_seconds)

    async def delete(self, batch_id: str, job_id: str, *, expected: RecordT | None = None) -> bool:
        return await self._run(self._store.delete, batch_id, job_id, expected=expected)

    async def close(self) -> None:
        """Give the shared client back. The store may be used again."""
        await self._run(self._store.close)

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        return await _threads.run_abandoning(partial(call, *args, **options))
