"""Whatever the service does: the sync form, the async form and that of many jobs agree."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from infra_core.polling import (
    PollingConfig,
    PollingTimeoutError,
    StatusPoller,
    _run,
    poll_many_async,
)
from infra_core.runtime import clock
from infra_core.runtime.testing import fast_time

answers = st.one_of(
    st.sampled_from(["running", "completed", "failed", None]).map(lambda s: {"status": s}),
    st.sampled_from([ConnectionResetError, KeyError, TimeoutError]),
    st.integers(0, 30).map(lambda n: {"status": "running", "wait": n}),
)
configs = st.builds(
    PollingConfig,
    timeout=st.integers(1, 100),
    poll_interval=st.integers(1, 20),
    initial_delay=st.integers(0, 20),
    backoff_multiplier=st.sampled_from([1, 1.5, 2]),
    max_backoff=st.integers(1, 40),
    strict=st.booleans(),
    max_consecutive_errors=st.integers(0, 3),
)


@pytest.fixture(autouse=True, scope="module")
def slow_last_checks() -> Iterator[None]:
    """The thread of a last check may take its time to start, as on a busy machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_run, "LAST_CHECK_GRACE", 20)
        yield


Observed = tuple[object, object, int, list[float]]


def play(script: list[Any], took: list[int], times: list[float]) -> Callable[[], Any]:
    """A fetch that gives the answers in turn, each after its time; the last one repeats."""
    began = clock.monotonic()
    calls = 0

    def fetch() -> Any:
        nonlocal calls
        times.append(round(clock.monotonic() - began, 6))
        answer = script[min(calls, len(script) - 1)]
        clock.sleep(took[calls % len(took)])
        calls += 1
        if isinstance(answer, type):
            raise answer
        return answer

    return fetch


def next_delay(answer: Any) -> float | None:
    return answer.get("wait") if isinstance(answer, dict) else None


def observed(
    call: Callable[[Callable[[], Any]], Any], script: list[Any], took: list[int]
) -> Observed:
    """Everything that can be seen of one poll."""
    times: list[float] = []
    with fast_time():
        fetch = play(script, took, times)
        try:
            outcome = call(fetch)
        except Exception as error:
            return (type(error), getattr(error, "last_response", None), len(times), times)
        return ("returned", outcome, len(times), times)


@given(
    config=configs,
    script=st.lists(answers, min_size=1, max_size=8),
    took=st.lists(st.sampled_from([0, 0, 0, 1, 7]), min_size=1, max_size=4),
)
@settings(max_examples=80)
def test_the_forms_agree(config: PollingConfig, script: list[Any], took: list[int]) -> None:
    """Same result or error, same number of checks, at the same times; none begins too late."""

    def poller(fetch: Callable[[], Any]) -> StatusPoller[Any]:
        return StatusPoller(fetch, config, next_delay=next_delay)

    def through_many(fetch: Callable[[], Any]) -> Any:
        async def run() -> Any:
            outcomes = poll_many_async(
                [1], lambda job: fetch(), config=config, next_delay=next_delay, concurrency=1
            )
            (outcome,) = [outcome async for outcome in outcomes]
            return outcome.result()

        return asyncio.run(run())

    sync = observed(lambda fetch: poller(fetch).poll(), script, took)
    assert observed(lambda fetch: asyncio.run(poller(fetch).poll_async()), script, took) == sync
    assert observed(through_many, script, took) == sync
    kind, _, checks, times = sync
    assert times == sorted(times)
    assert all(time <= config.timeout for time in times)
    if kind is PollingTimeoutError and checks == 0:
        assert config.initial_delay >= config.timeout


@pytest.mark.parametrize("form", ["sync", "async", "many"])
def test_a_timeout_of_a_poll_inside_of_the_fetch_is_an_error_of_the_fetch(form: str) -> None:
    """`is_transient` judges it as any other."""
    calls = 0

    def fetch(job: object = None) -> dict[str, str]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise PollingTimeoutError("of the inner poll")
        return {"status": "completed"}

    def is_transient(error: Exception) -> bool:
        return isinstance(error, PollingTimeoutError)

    async def fetch_async(job: object = None) -> dict[str, str]:
        return fetch()

    async def many() -> dict[str, str]:
        outcomes = poll_many_async(["job"], fetch_async, is_transient=is_transient)
        [answer] = [outcome.result() async for outcome in outcomes]
        return answer

    with fast_time():
        if form == "sync":
            answer = StatusPoller(fetch, is_transient=is_transient).poll()
        elif form == "async":
            poller = StatusPoller(fetch_async, is_transient=is_transient)
            answer = asyncio.run(poller.poll_async())
        else:
            answer = asyncio.run(many())
    assert (answer, calls) == ({"status": "completed"}, 2)
