"""poll_until and poll_until_async: one behaviour, two drivers."""

import asyncio
import contextvars
import functools
import gc
import logging
import math
import threading
import time as real_time
from collections.abc import Callable
from typing import Any

import pytest

from infra_core.polling import (
    PollingCancelledError,
    PollingError,
    PollingTimeoutError,
    StatusPoller,
    poll_until,
    poll_until_async,
)
from infra_core.runtime import ThreadPool, clock
from infra_core.runtime.testing import FastTime, fast_time


def is_done(response: object) -> bool:
    return response == "done"


class TestReturning:
    async def test_the_terminal_response_is_returned(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """After as many checks as it takes, an interval apart."""
        fetch = script("queued", "running", "done")
        assert await poll(fetch, is_done, poll_interval=5) == "done"
        assert fetch.calls == 3
        assert time.slept == [5, 5]

    async def test_the_first_check_is_at_once(self, time: FastTime, poll: Any, script: Any) -> None:
        """Without an initial delay nothing is waited for."""
        assert await poll(script("done"), is_done) == "done"
        assert time.slept == []

    async def test_initial_delay(self, time: FastTime, poll: Any, script: Any) -> None:
        """The first check comes after it."""
        await poll(script("done"), is_done, initial_delay=2)
        assert time.slept == [2]

    async def test_backoff(self, time: FastTime, poll: Any, script: Any) -> None:
        """Intervals grow up to max_backoff."""
        await poll(
            script(1, 2, 3, 4, "done"), is_done,
            poll_interval=1, backoff_multiplier=3, max_backoff=5,
        )  # fmt: skip
        assert time.slept == [1, 3, 5, 5]

    async def test_jitter(self, poll: Any, script: Any) -> None:
        """The wait shrinks by the chosen fraction at most."""
        with fast_time(jitter=1.0) as time:
            await poll(script(1, "done"), is_done, poll_interval=10, jitter=0.25)
        assert time.slept == [7.5]

    async def test_a_falsy_response_is_a_response(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """None and 0 are answers like any other."""
        assert await poll(script(None, 0), lambda r: r == 0) == 0

    async def test_on_poll_sees_every_response(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The terminal one included, in order."""
        seen: list[object] = []
        await poll(script("a", "done"), is_done, on_poll=seen.append)
        assert seen == ["a", "done"]

    async def test_an_async_on_poll_is_awaited(self, time: FastTime, script: Any) -> None:
        """In the async form."""
        seen: list[object] = []

        async def on_poll(response: object) -> None:
            await asyncio.sleep(0)
            seen.append(response)

        await poll_until_async(script("a", "done"), is_done, on_poll=on_poll)
        assert seen == ["a", "done"]

    async def test_an_error_of_on_poll_comes_through(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The callback's mistakes are not polling errors, not even transient ones."""

        def on_poll(response: object) -> None:
            raise ConnectionError("mine")

        with pytest.raises(ConnectionError, match="mine"):
            await poll(script("a"), is_done, on_poll=on_poll)


class TestFetchForms:
    async def test_an_async_fetch(self, time: FastTime, poll: Any) -> None:
        """A coroutine function, in both forms."""

        async def fetch() -> str:
            await asyncio.sleep(0)
            return "done"

        assert await poll(fetch, is_done) == "done"

    async def test_a_sync_wrapper_that_returns_an_awaitable(
        self, time: FastTime, poll: Any
    ) -> None:
        """`lambda: client.get(...)`."""

        async def get() -> str:
            return "done"

        assert await poll(lambda: get(), is_done) == "done"

    async def test_any_awaitable(self, time: FastTime, poll: Any) -> None:
        """An object with `__await__` is awaited too."""

        class Later:
            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return "done"

        assert await poll(Later, is_done) == "done"

    async def test_a_sync_fetch_does_not_stop_the_loop(self) -> None:
        """It runs in a thread, with the caller's context variables, as in 0.7."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("seen")
        loop, turned = asyncio.get_running_loop(), threading.Event()
        seen: list[tuple[bool, str, threading.Thread]] = []

        def fetch() -> str:
            loop.call_soon_threadsafe(turned.set)
            seen.append((turned.wait(30), variable.get(), threading.current_thread()))
            return "done"

        class Fetch:
            def __call__(self) -> str:
                return fetch()

        for form in (fetch, Fetch(), functools.partial(fetch), lambda: fetch()):
            turned.clear()
            assert await poll_until_async(form, is_done) == "done"
        turned.clear()
        states = {"done": "completed"}
        answer = await StatusPoller(lambda: {"status": states[fetch()]}).poll_async()
        assert answer == {"status": "completed"}
        assert all(turn and value == "seen" for turn, value, _ in seen)
        assert threading.current_thread() not in {thread for _, _, thread in seen}

    @pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_a_sync_wrapper_that_needs_the_loop_gets_it(self) -> None:
        """`lambda: asyncio.create_task(...)` cannot run in a thread."""

        async def get() -> str:
            return "done"

        assert await poll_until_async(lambda: asyncio.create_task(get()), is_done) == "done"
        assert await poll_until_async(lambda: asyncio.ensure_future(get()), is_done) == "done"
        gc.collect()  # the coroutine of the try in the thread

    def test_sync_polls_share_one_loop(self, time: FastTime) -> None:
        """Pooled clients survive: every check of every poll runs on the same event loop."""
        loops: set[int] = set()
        threads: set[int] = set()

        async def fetch() -> str:
            loops.add(id(asyncio.get_running_loop()))
            threads.add(threading.get_ident())
            return "done" if len(seen) >= 3 else "running"

        for _ in range(2):
            seen: list[object] = []
            poll_until(fetch, is_done, on_poll=seen.append)
        assert len(loops) == 1
        assert threading.get_ident() not in threads
        assert len(threads) == 1

    async def test_a_sync_poll_of_an_async_fetch_inside_a_loop_is_refused(self) -> None:
        """With the remedy, and without a `never awaited` warning."""

        async def fetch() -> str:
            raise AssertionError("must not run")

        with pytest.raises(RuntimeError, match="poll_until_async"):
            poll_until(fetch, is_done)


class TestDeadline:
    async def test_the_last_check_is_at_the_deadline(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The last wait is cut, and one more check made: the job may just have finished."""
        began = time.monotonic()
        checks: list[float] = []
        with pytest.raises(PollingTimeoutError) as caught:
            await poll(
                lambda: checks.append(time.monotonic() - began), is_done,
                timeout=12, poll_interval=5,
            )  # fmt: skip
        assert checks == pytest.approx([0, 5, 10, 12])
        assert time.slept == pytest.approx([5, 5, 2])
        assert caught.value.elapsed == pytest.approx(12)

    async def test_done_at_the_last_check_is_done(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The answer of the last check counts."""
        fetch = script("a", "b", "done")
        assert await poll(fetch, is_done, timeout=7, poll_interval=5) == "done"
        assert time.slept == pytest.approx([5, 2])

    async def test_what_the_error_carries(self, time: FastTime, poll: Any, script: Any) -> None:
        """Enough to take the wait up again."""
        with pytest.raises(PollingTimeoutError, match=r"job-7 timed out after 12 s") as caught:
            await poll(script({"id": 7}), is_done, timeout=12, poll_interval=5, label="job-7")
        error = caught.value
        assert error.last_response == {"id": 7}
        assert error.attempts == 4
        assert error.elapsed == pytest.approx(12)
        assert error.label == "job-7"
        assert error.last_error is None
        assert isinstance(error, PollingError)

    async def test_an_initial_delay_that_uses_up_the_time(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The deadline is checked before the first fetch, and not slept past."""
        fetch = script("done")
        with pytest.raises(PollingTimeoutError, match="make initial_delay shorter") as caught:
            await poll(fetch, is_done, timeout=5, initial_delay=60)
        assert fetch.calls == 0
        assert time.slept == [5]
        assert caught.value.attempts == 0

    @pytest.mark.parametrize("timeout", [0, -1, math.nan])
    async def test_a_timeout_must_be_positive(
        self, time: FastTime, poll: Any, script: Any, timeout: float
    ) -> None:
        """Arguments are checked before the first fetch."""
        fetch = script("done")
        with pytest.raises(ValueError, match="timeout must be positive"):
            await poll(fetch, is_done, timeout=timeout)
        assert fetch.calls == 0

    async def test_secrets_in_the_label_are_not_shown(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The message redacts a status URL; the attribute has it whole, to go on with."""
        url = "https://example.com/status?code=SECRETKEY123"
        with pytest.raises(PollingTimeoutError) as caught:
            await poll(script("a"), is_done, timeout=1, label=url)
        assert "SECRETKEY123" not in str(caught.value)
        assert caught.value.label == url

    async def test_a_hung_async_fetch_is_cut(self, poll: Any) -> None:
        """It is cancelled at the deadline, and its clean-up runs."""
        cleaned = []

        async def fetch() -> str:
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)
            return "done"

        began = real_time.monotonic()
        with pytest.raises(PollingTimeoutError, match="still running and was cut") as caught:
            await poll(fetch, is_done, timeout=0.06)
        assert real_time.monotonic() - began < 20
        assert caught.value.attempts == 1
        assert cleaned == [True]

    async def test_the_fetchs_own_timeout_is_an_error_of_the_fetch(
        self, time: FastTime, poll: Any
    ) -> None:
        """It is transient, not the end of the poll."""
        calls = []

        async def fetch() -> str:
            calls.append(1)
            if len(calls) == 1:
                raise TimeoutError("read timed out")
            return "done"

        assert await poll(fetch, is_done) == "done"

    async def test_a_sync_fetch_that_comes_back_late_is_reported(
        self, time: FastTime, poll: Any
    ) -> None:
        """Its answer is no success any more, and is kept in the error."""

        def fetch() -> str:
            time.advance(90)
            return "done"

        words = r"polled operation timed .* took 90\.000 s and came"
        with pytest.raises(PollingTimeoutError, match=words) as caught:
            await poll(fetch, is_done, timeout=60)
        assert caught.value.last_response == "done"
        assert caught.value.elapsed == pytest.approx(90)

    async def test_a_hard_timeout_leaves_a_hung_sync_fetch_behind(self, poll: Any) -> None:
        """The caller is back at the deadline although the fetch is not."""
        release = threading.Event()
        began = real_time.monotonic()
        try:
            with pytest.raises(PollingTimeoutError, match="still running"):
                await poll(release.wait, is_done, timeout=0.06, hard_timeout=True)
            assert real_time.monotonic() - began < 20
        finally:
            release.set()

    async def test_a_hard_timeout_changes_nothing_else(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Values, errors and context variables pass through the helper thread."""
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("seen")
        fetch = script(ConnectionError("x"), "running", "done")
        contexts: list[str] = []

        def call() -> object:
            contexts.append(variable.get())
            return fetch()

        assert await poll(call, is_done, hard_timeout=True) == "done"
        assert contexts == ["seen"] * 3
        assert time.slept == [5, 5]

    async def test_a_hard_timeout_with_an_awaitable_result(self, time: FastTime, poll: Any) -> None:
        """A sync wrapper may still return something to await."""

        async def get() -> str:
            return "done"

        assert await poll(lambda: get(), is_done, hard_timeout=True) == "done"

    async def test_a_sync_fetch_that_hangs_is_left_behind_by_the_async_form(self) -> None:
        """Also without `hard_timeout`: an event loop cannot wait for it."""
        release = threading.Event()
        began = real_time.monotonic()
        try:
            with pytest.raises(PollingTimeoutError, match="still running"):
                await poll_until_async(release.wait, is_done, timeout=0.06)
            assert real_time.monotonic() - began < 20
        finally:
            release.set()

    async def test_a_runtime_error_of_a_sync_fetch_is_its_own(self, poll: Any) -> None:
        """It is not called again on the loop, as a fetch that needs the running loop is."""
        calls: list[int] = []

        def fetch() -> str:
            calls.append(1)
            raise RuntimeError("broken")

        with pytest.raises(RuntimeError, match="broken"):
            await poll(fetch, is_done)
        assert calls == [1]

    async def test_fetches_that_hang_keep_no_later_poll_from_its_thread(
        self, poll: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Threads that were left behind do not count."""
        monkeypatch.setattr("infra_core.polling._drivers._threads", ThreadPool("few", 1))
        release = threading.Event()
        try:
            for _ in range(2):
                with pytest.raises(PollingTimeoutError):
                    await poll(release.wait, is_done, timeout=0.06, hard_timeout=True)
            assert await poll(lambda: "done", is_done, timeout=30, hard_timeout=True) == "done"
        finally:
            release.set()

    @pytest.mark.parametrize("hard", [False, True])
    async def test_no_deadline(self, time: FastTime, poll: Any, script: Any, hard: bool) -> None:
        """An infinite timeout waits for ever, in all forms."""
        answers = script(*range(5), "done")

        async def fetch() -> Any:
            return answers()

        assert await poll(fetch, is_done, timeout=math.inf, hard_timeout=hard) == "done"
        answers.calls = 0
        assert await poll(answers, is_done, timeout=math.inf, hard_timeout=hard) == "done"


class TestErrors:
    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
    async def test_a_server_error_does_not_end_the_poll(
        self, time: FastTime, poll: Any, script: Any, http_error: Any, status: int
    ) -> None:
        """One 503 says nothing about the job."""
        fetch = script("a", http_error(status), "done")
        assert await poll(fetch, is_done) == "done"
        assert time.slept == [5, 5]

    @pytest.mark.parametrize(
        "error", [ConnectionResetError("reset"), TimeoutError("slow"), BrokenPipeError()]
    )
    async def test_a_broken_connection_does_not_end_the_poll(
        self, time: FastTime, poll: Any, script: Any, error: Exception
    ) -> None:
        """A reset says nothing about the job either."""
        assert await poll(script(error, "done"), is_done) == "done"

    @pytest.mark.parametrize("status", [400, 401, 403, 410, 501])
    async def test_a_refusal_ends_the_poll(
        self, time: FastTime, poll: Any, script: Any, http_error: Any, status: int
    ) -> None:
        """The fetch's own exception comes through, at once."""
        error = http_error(status)
        fetch = script(error, "done")
        with pytest.raises(type(error)) as caught:
            await poll(fetch, is_done)
        assert caught.value is error
        assert fetch.calls == 1

    async def test_a_mistake_in_the_fetch_ends_the_poll(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """A KeyError is not transient."""
        with pytest.raises(KeyError):
            await poll(script(KeyError("id"), "done"), is_done)

    async def test_the_budget_of_consecutive_errors(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Up to that many are waited out; the next one is raised as it is."""
        error = ConnectionResetError("down")
        fetch = script(error)
        with pytest.raises(ConnectionResetError) as caught:
            await poll(fetch, is_done, max_consecutive_errors=3)
        assert caught.value is error
        assert fetch.calls == 4

    async def test_a_response_resets_the_budget(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Errors must come in a row to count."""
        down = ConnectionResetError("down")
        fetch = script(down, down, "a", down, down, "done")
        assert await poll(fetch, is_done, max_consecutive_errors=2) == "done"

    async def test_five_errors_in_a_row_are_waited_out_by_default(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The sixth is raised, by both forms."""
        fetch = script(ConnectionError("reset"))
        with pytest.raises(ConnectionError):
            await poll(fetch, is_done)
        assert fetch.calls == 6

    async def test_no_budget(self, time: FastTime, poll: Any, script: Any) -> None:
        """0 raises the first error, as 0.7 did."""
        fetch = script(ConnectionResetError("down"), "done")
        with pytest.raises(ConnectionResetError):
            await poll(fetch, is_done, max_consecutive_errors=0)
        assert fetch.calls == 1

    async def test_what_is_transient_can_be_said(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The predicate replaces the default judgement."""
        fetch = script(KeyError("not yet"), "done")
        assert await poll(fetch, is_done, is_transient=lambda e: isinstance(e, KeyError)) == "done"
        with pytest.raises(ConnectionError):
            await poll(script(ConnectionError()), is_done, is_transient=lambda e: False)

    async def test_404_means_not_yet(
        self, time: FastTime, poll: Any, script: Any, http_error: Any
    ) -> None:
        """However often: it does not count as an error."""
        fetch = script(*[http_error(404)] * 20, "done")
        assert await poll(fetch, is_done, max_consecutive_errors=0) == "done"

    async def test_404_as_a_refusal(
        self, time: FastTime, poll: Any, script: Any, http_error: Any
    ) -> None:
        """`handle_404=False` raises it."""
        error = http_error(404)
        with pytest.raises(type(error)):
            await poll(script(error, "done"), is_done, handle_404=False)

    async def test_a_timeout_after_errors_names_them(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The last response and the error after it are both there."""
        error = ConnectionResetError("down")
        with pytest.raises(PollingTimeoutError, match="ConnectionResetError") as caught:
            await poll(script("a", error), is_done, timeout=12)
        assert caught.value.last_response == "a"
        assert caught.value.last_error is error
        assert caught.value.__cause__ is error

    @pytest.mark.skipif(not hasattr(BaseException, "add_note"), reason="Python 3.11")
    async def test_an_error_that_ends_the_poll_has_a_note(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Where Python has notes, attempts and time are in one."""
        with pytest.raises(KeyError) as caught:
            await poll(script("a", KeyError("id")), is_done, label="job-7")
        assert caught.value.__notes__ == ["while polling: job-7, 2 checks in 5.000 s"]
        with pytest.raises(KeyError) as caught:
            await poll(script(KeyError("id")), is_done, label="job-8")
        assert caught.value.__notes__ == ["while polling: job-8, 1 check in 0.000 s"]

    async def test_base_exceptions_come_through(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Nothing is waited out that means stop."""
        with pytest.raises(SystemExit):
            await poll(script(SystemExit(3), "done"), is_done, is_transient=lambda e: True)


class TestServerDelay:
    async def test_retry_after_of_an_error(
        self, time: FastTime, poll: Any, script: Any, http_error: Any
    ) -> None:
        """A 503 that says when to come back is obeyed."""
        await poll(script(http_error(503, {"Retry-After": "17"}), "done"), is_done)
        assert time.slept == [17]

    async def test_retry_after_of_a_response(self, time: FastTime, poll: Any, script: Any) -> None:
        """So is a 202."""
        accepted = type("Response", (), {"headers": {"Retry-After": "3"}})()
        await poll(script(accepted, "done"), is_done)
        assert time.slept == [3]

    async def test_an_extractor(self, time: FastTime, poll: Any, script: Any) -> None:
        """The body may say it as well."""
        fetch = script({"eta": 40}, {"eta": None}, "done")
        await poll(fetch, is_done, next_delay=lambda r: r["eta"] if isinstance(r, dict) else None)
        assert time.slept == [40, 5]

    async def test_it_never_leads_past_the_deadline(
        self, time: FastTime, poll: Any, script: Any, http_error: Any
    ) -> None:
        """An hour's Retry-After and a minute's timeout: one last check after a minute."""
        fetch = script(http_error(503, {"Retry-After": "3600"}))
        with pytest.raises(PollingTimeoutError):
            await poll(fetch, is_done, timeout=60)
        assert time.slept == [60]
        assert fetch.calls == 2


def test_the_defaults_are_those_of_the_documentation(script: Any) -> None:
    """Five errors in a row are waited out, five seconds apart, ten minutes long."""
    reset = ConnectionResetError()
    forms: list[Callable[[Callable[[], Any]], Any]] = [
        lambda fetch: poll_until(fetch, is_done),
        lambda fetch: StatusPoller(fetch).poll(),
    ]
    for form in forms:
        with fast_time() as time, pytest.raises(ConnectionResetError):
            form(script("running", *[reset] * 6))
        assert time.slept == [5.0] * 6
        with fast_time() as time, pytest.raises(PollingTimeoutError):
            form(script("running"))
        assert sum(time.slept) == 600


class TestCancelling:
    async def test_a_fetch_whose_clean_up_fails_makes_no_noise(self) -> None:
        """Its error is not reported as one that was never retrieved."""
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))
        event = asyncio.Event()

        async def fetch() -> None:
            event.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("while cleaning up")

        with pytest.raises(PollingCancelledError):
            await poll_until_async(fetch, is_done, cancel=event)
        gc.collect()
        assert complaints == []

    async def test_an_event_that_is_set_before(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """Not even the first check is made."""
        event = threading.Event()
        event.set()
        fetch = script("done")
        with pytest.raises(PollingCancelledError, match="cancelled by its event"):
            await poll(fetch, is_done, cancel=event)
        assert fetch.calls == 0

    async def test_an_asyncio_event_that_is_set_before(self, script: Any) -> None:
        """The same for the async form's own event."""
        event = asyncio.Event()
        event.set()
        fetch = script("done")
        with pytest.raises(PollingCancelledError):
            await poll_until_async(fetch, is_done, cancel=event)
        assert fetch.calls == 0

    async def test_an_event_that_is_set_while_waiting(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The wait ends within a moment, the error carries the last response."""
        event = threading.Event()
        fetch = script("running")

        def on_poll(response: object) -> None:
            event.set()

        with pytest.raises(PollingCancelledError) as caught:
            await poll(fetch, is_done, cancel=event, on_poll=on_poll, poll_interval=300)
        assert caught.value.last_response == "running"
        assert caught.value.attempts == 1
        assert sum(time.slept) < 1

    async def test_an_unset_event_changes_no_wait(
        self, time: FastTime, poll: Any, script: Any
    ) -> None:
        """The pieces of a wait add up to the wait."""
        await poll(script("a", "done"), is_done, cancel=threading.Event(), poll_interval=2)
        assert sum(time.slept) == pytest.approx(2)

    async def test_an_asyncio_event_cuts_a_hung_fetch(self) -> None:
        """At once, clean-up included."""
        event = asyncio.Event()
        cleaned = []

        async def fetch() -> str:
            event.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)
            return "done"

        with pytest.raises(PollingCancelledError) as caught:
            await poll_until_async(fetch, is_done, cancel=event)
        assert cleaned == [True]
        assert caught.value.attempts == 1

    async def test_a_thread_event_cuts_a_hung_async_fetch(self, poll: Any) -> None:
        """Within a moment, clean-up included; what the clean-up raises is not lost loudly."""
        event = threading.Event()
        cleaned = []

        async def fetch() -> str:
            event.set()
            try:
                await asyncio.Event().wait()
            finally:
                cleaned.append(True)
                raise OSError("while cleaning up")

        with pytest.raises(PollingCancelledError):
            await poll(fetch, is_done, cancel=event)
        assert cleaned == [True]

    async def test_a_thread_event_leaves_a_hung_sync_fetch_behind(self, poll: Any) -> None:
        """With a hard timeout, long before it."""
        event, release = threading.Event(), threading.Event()

        def fetch() -> str:
            event.set()
            release.wait()
            return "done"

        try:
            with pytest.raises(PollingCancelledError):
                await poll(fetch, is_done, cancel=event, hard_timeout=True, timeout=300)
        finally:
            release.set()

    @pytest.mark.parametrize("hard", [False, True])
    async def test_an_unset_event_lets_everything_through(
        self, time: FastTime, poll: Any, script: Any, hard: bool
    ) -> None:
        """Values and errors of async and sync fetches."""
        answers = script(ConnectionError("x"), "a", "done")

        async def fetch() -> Any:
            await asyncio.sleep(0)
            return answers()

        for form in (fetch, answers):
            answers.calls = 0
            result = await poll(form, is_done, cancel=threading.Event(), hard_timeout=hard)
            assert result == "done"

    @pytest.mark.parametrize("hard", [False, True])
    async def test_the_deadline_holds_beside_an_unset_event(self, poll: Any, hard: bool) -> None:
        """A fetch that hangs is cut."""
        with pytest.raises(PollingTimeoutError):
            await poll(
                asyncio.Event().wait, is_done, cancel=threading.Event(), timeout=0.06,
                hard_timeout=hard,
            )  # fmt: skip

    async def test_an_asyncio_event_that_is_never_set(self, time: FastTime, script: Any) -> None:
        """The result comes through, and no task is left."""
        before = asyncio.all_tasks()
        assert (
            await poll_until_async(script("a", "done"), is_done, cancel=asyncio.Event()) == "done"
        )
        assert asyncio.all_tasks() == before

    async def test_errors_come_through_beside_an_asyncio_event(
        self, time: FastTime, script: Any
    ) -> None:
        """The child task's error is the poll's."""
        with pytest.raises(KeyError):
            await poll_until_async(script(KeyError("x")), is_done, cancel=asyncio.Event())

    def test_an_event_of_another_loop_cancels_when_it_is_set(self) -> None:
        """An `asyncio.Event` belongs to the loop that waited for it first; it may live longer."""
        event = asyncio.Event()

        async def poll(*answers: int) -> int:
            left = iter(answers)

            async def fetch() -> int:
                await asyncio.sleep(0)
                if (answer := next(left)) < 0:
                    event.set()
                    await asyncio.Event().wait()
                return answer

            return await poll_until_async(
                fetch, lambda answer: answer == 2, poll_interval=0.001, cancel=event
            )

        assert asyncio.run(poll(1, 2)) == 2
        assert asyncio.run(poll(1, 1, 2)) == 2
        with pytest.raises(PollingCancelledError):
            asyncio.run(poll(1, -1))

    def test_an_asyncio_event_is_no_use_to_a_thread(self, script: Any) -> None:
        """With the remedy."""
        with pytest.raises(TypeError, match=r"threading\.Event"):
            poll_until(script("done"), is_done, cancel=asyncio.Event())  # type: ignore[call-overload]

    @pytest.mark.parametrize("event", [None, asyncio.Event])
    async def test_cancelling_the_task_always_propagates(
        self, event: Callable[[], asyncio.Event] | None
    ) -> None:
        """In the wait and in the fetch; nothing swallows it."""
        started = asyncio.Event()
        ended = []

        async def fetch() -> str:
            started.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(True)
            return "done"

        task = asyncio.create_task(
            poll_until_async(fetch, is_done, cancel=event() if event else None)
        )
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == [True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_cancelling_the_task_in_its_wait(self, script: Any) -> None:
        """A long interval does not delay it."""
        polled = asyncio.Event()
        task = asyncio.create_task(
            poll_until_async(
                script("a"), is_done, poll_interval=300, on_poll=lambda r: polled.set()
            )
        )
        await polled.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestLogging:
    async def test_checks_are_debug_records_with_fields(
        self, time: FastTime, poll: Any, script: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Logger `infra_core.polling`; attempt, wait, elapsed and label as fields."""
        caplog.set_level(logging.DEBUG, "infra_core.polling")
        await poll(script("a", "done"), is_done, label="x?sig=SECRET99")
        records = [r for r in caplog.records if r.name == "infra_core.polling"]
        assert [(r.__dict__["attempt"], r.__dict__["terminal"]) for r in records] == [
            (1, False),
            (2, True),
        ]
        assert records[0].__dict__["wait"] == 5
        assert records[1].__dict__["elapsed"] == pytest.approx(5)
        assert all("SECRET99" not in r.__dict__["label"] for r in records)

    async def test_transient_errors_are_warnings(
        self,
        time: FastTime,
        poll: Any,
        script: Any,
        http_error: Any,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """With the error's class; a 404 is only a debug record."""
        caplog.set_level(logging.INFO, "infra_core.polling")
        await poll(script(ConnectionResetError("secret=1"), "done"), is_done)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert record.__dict__["error_type"] == "ConnectionResetError"
        assert record.__dict__["wait"] == 5
        caplog.clear()
        caplog.set_level(logging.DEBUG, "infra_core.polling")
        await poll(script(http_error(404), "done"), is_done)
        record = caplog.records[0]
        assert record.levelno == logging.DEBUG
        assert record.getMessage() == "check 1: not there yet (404); next check in 5 s"


def test_the_clock_is_monotonic(monkeypatch: pytest.MonkeyPatch, script: Any) -> None:
    """A wall clock that jumps has no say over a deadline."""
    monkeypatch.setattr(clock, "time", lambda: pytest.fail("looked at the wall clock"))
    with fast_time():
        assert poll_until(script("a", "done"), is_done) == "done"
