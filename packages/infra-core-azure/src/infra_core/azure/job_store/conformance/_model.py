"""Any sequence of operations, by two users of a store at once, against a model of it."""

# ruff: noqa: S101 - these are tests
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from infra_core.runtime.testing import fast_time

from ...exceptions import JobConflictError, JobExistsError
from .._records import JobRecord, JobStatus

__all__ = ["check_model"]

_IDS = st.sampled_from(["a", "b/c", "d#"])
_USERS = st.integers(0, 1)


class JobStoreMachine(RuleBasedStateMachine):
    """Two users of one batch; what each has read may be stale, and the store must know."""

    def __init__(self, open_store: Callable[[], Any], new_batch: Callable[[], str]) -> None:
        super().__init__()
        self.stores = [open_store(), open_store()]
        self.batch = new_batch()
        self.model: dict[str, JobRecord] = {}
        self.read: list[dict[str, JobRecord]] = [{}, {}]
        self.time_switch = fast_time(jitter=0.0)
        self.time = self.time_switch.__enter__()
        self.number = 0

    def teardown(self) -> None:
        self.time_switch.__exit__(None, None, None)
        for store in self.stores:
            store.__exit__(None, None, None)

    def _new(self, job: str) -> JobRecord:
        self.number += 1
        return JobRecord(self.batch, job, payload={"n": self.number})

    @rule(user=_USERS, job=_IDS)
    def create(self, user: int, job: str) -> None:
        record = self._new(job)
        try:
            self.read[user][job] = self.stores[user].create(record)
        except JobExistsError:
            assert job in self.model
        else:
            assert job not in self.model
            self.model[job] = record

    @rule(user=_USERS, job=_IDS)
    def save(self, user: int, job: str) -> None:
        self.model[job] = self.read[user][job] = self.stores[user].save(self._new(job))

    @rule(user=_USERS, job=_IDS)
    def fetch(self, user: int, job: str) -> None:
        record = self.stores[user].fetch(self.batch, job)
        assert record == self.model.get(job)
        if record is not None:
            self.read[user][job] = record

    @rule(user=_USERS, job=_IDS, ending=st.sampled_from(["complete", "fail", "requeue"]))
    def update(self, user: int, job: str, ending: str) -> None:
        known = self.read[user].get(job)
        if known is None:
            return
        if known.status is not JobStatus.RUNNING or ending == "requeue":
            changed = known.requeue(force=True)
        else:
            changed = known.complete() if ending == "complete" else known.fail("x")
        stored = self.model.get(job)
        try:
            written = self.stores[user].update(changed)
        except JobConflictError as error:
            assert stored is None or stored.etag != known.etag
            assert error.theirs == stored
        else:
            assert stored is not None
            assert changed.etag == written.etag
            self.model[job] = self.read[user][job] = written

    @rule(user=_USERS)
    def claim(self, user: int) -> None:
        now = self.time.time()
        free = {
            job
            for job, record in self.model.items()
            if record.status is JobStatus.PENDING
            or (
                record.status is JobStatus.RUNNING
                and record.lease_until is not None
                and record.lease_until.timestamp() < now
            )
        }
        record = self.stores[user].claim(self.batch, worker=f"user-{user}", lease_seconds=10)
        if record is None:
            assert not free
            return
        assert record.job_id in free
        assert record.attempts == self.model[record.job_id].attempts + 1
        self.model[record.job_id] = self.read[user][record.job_id] = record

    @rule(user=_USERS, job=_IDS)
    def delete(self, user: int, job: str) -> None:
        assert self.stores[user].delete(self.batch, job) is (self.model.pop(job, None) is not None)

    @rule(seconds=st.sampled_from([1, 11]))
    def wait(self, seconds: int) -> None:
        self.time.advance(seconds)

    @invariant()
    def the_store_holds_what_was_written(self) -> None:
        stored = {record.job_id: record for record in self.stores[0].iter_runs(self.batch)}
        assert stored == self.model


def check_model(
    open_store: Callable[[], Any], new_batch: Callable[[], str], *, examples: int, steps: int
) -> None:
    """Try that many sequences of operations on the store, of so many steps at most."""
    run_state_machine_as_test(
        partial(JobStoreMachine, open_store, new_batch),  # type: ignore[arg-type] # any callable
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),  # a server may be slow
        ),
    )
