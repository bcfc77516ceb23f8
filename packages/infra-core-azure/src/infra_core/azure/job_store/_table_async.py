"""The asynchronous twin of the Azure Table job store: the same one, in threads."""

import threading
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ._records import BatchSummary, RecordT, StatusFilter, UnreadableJob
from ._row_store import as_list
from ._table import AzureTableJobStore, TableJobStore
from ._table_rows import given_up

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncAzureTableJobStore"]

P = ParamSpec("P")
T = TypeVar("T")


class AsyncAzureTableJobStore(TableJobStore[RecordT]):
    """`AzureTableJobStore`, awaited: the same arguments, operations, settings and errors.

    An operation that is cancelled ends its wait at once and sends no further request; whether the
    service did what the last one asked is not known then.
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
        return await self._run(self._store.save_many, as_list(records))

    async def update(self, record: RecordT, *, expected: RecordT | None = None) -> RecordT:
        return await self._run(self._store.update, record, expected=expected)

    async def update_many(self, records: Iterable[RecordT]) -> list[RecordT | None]:
        return await self._run(self._store.update_many, as_list(records))

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
        self._store.close()

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, call: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        ended = threading.Event()

        def work() -> T:
            given_up.set(ended)  # in the context of this call alone
            return call(*args, **options)

        try:
            return await self._store._backend().threads.run_abandoning(work)
        finally:
            ended.set()
