"""What a server asks to wait is read in every form, and nonsense is as none."""

import email.utils
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, strategies as st

from infra_core.runtime import clock, parse_retry_after
from infra_core.runtime.testing import fast_time

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": " 120 "}, 120.0),
        ({"retry-after": "0"}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"X-Ms-Retry-After-Ms": "500"}, 0.5),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "Mon, 23 Nov 2026 12:00:10 GMT"}, 10.0),
        ({"retry-after": "Monday, 23-Nov-26 12:00:10 GMT"}, 10.0),
        ({"retry-after": "Mon Nov 23 12:00:10 2026"}, 10.0),
        ({"retry-after": "Mon, 23 Nov 2026 13:00:10 +0100"}, 10.0),
        ({"retry-after": "Mon, 23 Nov 2020 12:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"x-ms-retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "20", "retry-after": "5"}, 0.02),
        ({"retry-after-ms": "soon", "retry-after": "5"}, 5.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e5"}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after": ""}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, the three HTTP dates and the two millisecond headers; nonsense is as none."""
    assert parse_retry_after(headers, now=NOW.timestamp()) == seconds


@given(st.text(max_size=60))
def test_no_retry_after_can_raise_or_be_negative(text: str) -> None:
    """Whatever a server sends, the result is None or a number of seconds from zero up."""
    seconds = parse_retry_after({"retry-after": text}, now=NOW.timestamp())
    assert seconds is None or seconds >= 0


@given(st.integers(-(10**6), 10**6))
def test_every_http_date_gives_the_seconds_until_then(offset: int) -> None:
    """A date in the past gives zero, a date to come the difference."""
    text = email.utils.format_datetime(NOW + timedelta(seconds=offset), usegmt=True)
    assert parse_retry_after({"retry-after": text}, now=NOW.timestamp()) == max(0, offset)


def test_a_date_is_compared_with_the_clock_where_no_time_is_given() -> None:
    """The usual call: a header that names the next hour asks for what is left until then."""
    with fast_time():
        moment = clock.utc_now() + timedelta(hours=1)
        headers = {"retry-after": email.utils.format_datetime(moment, usegmt=True)}
        seconds = parse_retry_after(headers)
    assert seconds == pytest.approx(3600, abs=1)  # the header has no fractions
