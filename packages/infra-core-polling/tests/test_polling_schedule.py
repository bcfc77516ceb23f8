"""The pure schedule: properties that hold for any numbers."""

import math
from typing import Any

import pytest
from hypothesis import assume, given, strategies as st

from infra_core.polling import PollingConfig
from infra_core.polling._config import LAST_CHECK_GRACE
from infra_core.polling._run import PollRules, PollRun

seconds = st.floats(min_value=0.001, max_value=1e6)
schedules = st.builds(
    PollingConfig,
    timeout=seconds,
    poll_interval=seconds,
    initial_delay=st.floats(min_value=0, max_value=1e6),
    backoff_multiplier=st.floats(min_value=1, max_value=100),
    max_backoff=seconds,
    jitter=st.floats(min_value=0, max_value=1),
)


class TestValidation:
    @pytest.mark.parametrize("name", ["timeout", "poll_interval", "max_backoff"])
    @pytest.mark.parametrize("value", [0, -1, math.nan])
    def test_times_must_be_positive(self, name: str, value: Any) -> None:
        """The error names the argument and its value."""
        rule = f"{name} must be positive, a number of seconds, not {value}"
        with pytest.raises(ValueError, match=rule):
            PollingConfig(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("backoff_multiplier", 0.5),
            ("backoff_multiplier", math.nan),
            ("initial_delay", -0.1),
            ("jitter", -0.1),
            ("jitter", 1.1),
            ("poll_interval", math.inf),
            ("backoff_multiplier", math.inf),
        ],
    )
    def test_other_ranges(self, name: str, value: Any) -> None:
        """Each has its rule in the message."""
        with pytest.raises(ValueError, match=name):
            PollingConfig(**{name: value})


class TestInterval:
    @given(schedule=schedules, waits=st.integers(min_value=0, max_value=5000))
    def test_it_grows_up_to_its_ceiling(self, schedule: PollingConfig, waits: int) -> None:
        """Never shorter than the first one, never longer than max_backoff (or the first one)."""
        interval = schedule.interval(waits)
        assert schedule.poll_interval <= interval
        assert interval <= max(schedule.max_backoff, schedule.poll_interval)
        assert interval <= schedule.interval(waits + 1)

    def test_doubling(self) -> None:
        """5, 10, 20, 30, 30."""
        schedule = PollingConfig(poll_interval=5, backoff_multiplier=2, max_backoff=30)
        assert [schedule.interval(n) for n in range(5)] == [5, 10, 20, 30, 30]

    def test_an_interval_above_the_ceiling_stays(self) -> None:
        """Who asks for 120 s is not polled every 60 s because of the default ceiling."""
        assert PollingConfig(poll_interval=120).interval(3) == 120


class TestNextWait:
    @given(
        schedule=schedules,
        waits=st.integers(min_value=0, max_value=100),
        elapsed=st.floats(min_value=0, max_value=2e6),
        check_time=st.floats(min_value=0, max_value=1e3),
        server=st.none() | st.floats(allow_nan=True, allow_infinity=True),
        chance=st.floats(min_value=0, max_value=1),
    )
    def test_no_wait_ends_after_the_deadline(
        self,
        schedule: PollingConfig,
        waits: int,
        elapsed: float,
        check_time: float,
        server: float | None,
        chance: float,
    ) -> None:
        """Whatever interval, backoff, jitter and server say."""
        planned = schedule.next_wait(
            waits, elapsed, check_time=check_time, server_delay=server, chance=chance
        )
        if elapsed >= schedule.timeout:
            assert planned is None
            return
        assert planned is not None
        wait, last = planned
        assert 0 <= wait <= schedule.timeout - elapsed
        if not last:
            assert wait < schedule.timeout - elapsed

    @given(schedule=schedules, chance=st.floats(min_value=0, max_value=1))
    def test_jitter_only_shortens(self, schedule: PollingConfig, chance: float) -> None:
        """And by no more than its fraction."""
        assume(schedule.timeout > 2 * schedule.poll_interval)
        planned = schedule.next_wait(0, 0, chance=chance)
        assert planned is not None
        low = schedule.poll_interval * (1 - schedule.jitter)
        assert low <= planned[0] <= schedule.poll_interval

    @given(schedule=schedules)
    def test_every_poll_ends(self, schedule: PollingConfig) -> None:
        """With answers that take no time, the waits add up to the timeout."""
        assume(schedule.timeout / schedule.poll_interval < 200)
        elapsed, waits, lasts = 0.0, 0, 0
        while (planned := schedule.next_wait(waits, elapsed)) is not None:
            elapsed += planned[0]
            waits += 1
            lasts += planned[1]
            if planned[1]:
                break
        assert lasts == 1 or elapsed >= schedule.timeout
        assert elapsed == pytest.approx(schedule.timeout)

    def test_the_last_wait_is_cut_to_the_deadline(self) -> None:
        """Not 5 s more when 2 s are left."""
        schedule = PollingConfig(timeout=12, poll_interval=5)
        assert schedule.next_wait(1, 5.0) == (5, False)
        assert schedule.next_wait(2, 10.0) == (2, True)
        assert schedule.next_wait(3, 12.0) is None

    def test_a_slow_fetch_begins_its_last_check_earlier(self) -> None:
        """Twice the time of the newest one, at most an interval."""
        schedule = PollingConfig(timeout=12, poll_interval=5)
        assert schedule.next_wait(2, 10.0, check_time=0.5) == (1.0, True)
        assert schedule.next_wait(2, 10.0, check_time=60) == (0.0, True)
        assert schedule.next_wait(2, 10.0, check_time=0.02) == (2.0, True)

    def test_the_servers_wish_goes_first(self) -> None:
        """Instead of the interval, and not jittered."""
        schedule = PollingConfig(timeout=100, poll_interval=5, jitter=1)
        assert schedule.next_wait(0, 0, server_delay=30, chance=1) == (30, False)
        assert schedule.next_wait(0, 0, server_delay=0.5, chance=1) == (0.5, False)
        assert schedule.next_wait(0, 0, server_delay=3600) == (100, True)

    @pytest.mark.parametrize("server", [0.0, -1.0, math.nan, math.inf])
    def test_senseless_wishes_are_passed_over(self, server: float) -> None:
        """The interval holds."""
        assert PollingConfig(poll_interval=5).next_wait(0, 0, server_delay=server) == (5, False)

    def test_no_deadline(self) -> None:
        """An infinite timeout never ends and never shortens a wait."""
        schedule = PollingConfig(timeout=math.inf, poll_interval=5)
        assert schedule.next_wait(0, 1e9) == (5, False)


class TestBudget:
    def test_until_the_deadline(self) -> None:
        """And a small grace for the check that begins there."""
        rules: PollRules[object] = PollRules(
            PollingConfig(timeout=10), bool, is_transient=None, next_delay=None
        )
        run = PollRun(rules)
        assert run.begin_check(run.began + 4) == pytest.approx(6)
        assert run.begin_check(run.began + 10) == LAST_CHECK_GRACE
        assert run.begin_check(run.began + 11) == LAST_CHECK_GRACE

    def test_the_first_wait_stops_at_the_deadline(self) -> None:
        """An initial delay longer than the timeout is not slept through."""
        assert PollingConfig(timeout=5, initial_delay=60).first_wait() == 5
