"""Carrying out the steps of a job store: by a synchronous backend, or by one that is awaited.

Steps are generators that yield calls of backend primitives (see `_rows`) and are sent their
results, or the errors in the backend's words.
"""

from collections.abc import Callable, Generator
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple, TypeVar

from infra_core.runtime import add_note

from ._keys import unescape_key
from ._rows import Backend, Query, Row

__all__ = ["Call", "Steps", "carry_out", "carry_out_async", "drive", "drive_async"]

C = TypeVar("C")
T = TypeVar("T")


class Call(NamedTuple):
    """One primitive to be called."""

    name: str
    args: tuple[Any, ...]


Steps = Generator[Call, Any, T]


def drive(backend: Backend, steps: Steps[T]) -> T:
    """Carry out steps against a synchronous backend."""
    return carry_out(
        steps, lambda call: backend.perform(call.name, *call.args), partial(_explained, backend)
    )


async def drive_async(backend: Backend, steps: Steps[T]) -> T:
    """Carry out steps against an asynchronous backend."""
    return await carry_out_async(
        steps, lambda call: backend.perform(call.name, *call.args), partial(_explained, backend)
    )


def carry_out(
    steps: Generator[C, Any, T],
    perform: Callable[[C], Any] = lambda request: request,
    explain: Callable[[C, Exception], Exception] = lambda _, error: error,
) -> T:
    """As `carry_out_async`, where nothing that is performed has to be awaited."""
    try:
        carry_out_async(steps, perform, explain).send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError  # something was awaited


async def carry_out_async(
    steps: Generator[C, Any, T],
    perform: Callable[[C], Any] = lambda request: request,
    explain: Callable[[C, Exception], Exception] = lambda _, error: error,
) -> T:
    """Perform what a generator yields, and send it the results, or the errors as explained."""
    try:
        call = next(steps)
        while True:
            try:
                result = perform(call)
                if isawaitable(result):
                    result = await result
            except Exception as error:  # noqa: BLE001 - the steps judge
                call = steps.throw(explain(call, error))
            else:
                call = steps.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _explained(backend: Backend, call: Call, error: Exception) -> Exception:
    """Have the backend explain an error, with the job it is about; the service does not say."""
    explained = backend.explain(error, _doing(call))
    if explained is error:
        add_note(error, f"while {_doing(call)}")
    return explained


def _doing(call: Call) -> str:
    if call.name == "reclaim":
        return "giving the space of deleted jobs back"
    first = call.args[0]
    if call.name in ("page", "tally"):
        batch = first.partition if isinstance(first, Query) else first
        return "listing all jobs" if batch is None else f"listing batch {unescape_key(batch)!r}"
    if call.name == "get":
        rows = [Row(first, call.args[1], {})]
    else:
        rows = [first] if call.name == "insert" else first
    batch_id, job_id = rows[0].ids
    jobs = f"job {job_id!r}" if len(rows) == 1 else f"{len(rows)} jobs"
    verb = {"get": "fetching", "delete": "deleting"}.get(call.name, "storing")
    return f"{verb} {jobs} of batch {batch_id!r}"
