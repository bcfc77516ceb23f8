"""Keys: any id, reversibly, within the limits of a table key."""

import pytest
from hypothesis import given, strategies as st

from infra_core.azure.exceptions import JobRecordError
from infra_core.azure.job_store._keys import (
    MAX_KEY_BYTES,
    escape_key,
    odata_string,
    unescape_key,
)

_ANYTHING = st.text(st.characters(), min_size=1, max_size=60)
_NASTY = st.text("!x2F/\\#?'\x00\x1f\x7f\x9f\ud800\uffffA0", min_size=1, max_size=40)


@given(_ANYTHING | _NASTY)
def test_escaping_is_reversible(text: str) -> None:
    """Every id comes back from its key."""
    assert unescape_key(escape_key(text)) == text


@given(_ANYTHING | _NASTY)
def test_a_key_holds_nothing_that_azure_forbids(text: str) -> None:
    """No slash, backslash, hash, question mark, control character or lone surrogate is left."""
    key = escape_key(text)
    assert not set(key) & set("/\\#?")
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 for c in key)
    key.encode("utf-8")


def test_what_names_no_character_is_no_escape() -> None:
    """Rows of others may have such a key: a batch with one is listed all the same."""
    assert unescape_key("!x110000!!xFFFFFF!!x10FFFF!") == "!x110000!!xFFFFFF!\U0010ffff"


@given(_NASTY, _NASTY)
def test_two_ids_never_share_a_key(one: str, other: str) -> None:
    """Different ids have different keys."""
    assert (escape_key(one) == escape_key(other)) == (one == other)


@pytest.mark.parametrize("text", ["job-1", "it's", "100%", "a%2Fb", "hurrah!", "!", "ü"])
def test_a_legal_key_stays_as_it_is(text: str) -> None:
    """Rows that earlier versions wrote are found again."""
    assert escape_key(text) == text


def test_the_limit_counts_bytes_of_utf16_after_escaping() -> None:
    """512 plain characters fit; escapes and characters beyond the basic plane count for more."""
    assert len(escape_key("x" * 512)) * 2 == MAX_KEY_BYTES
    assert escape_key("\U0001f600" * 256)
    for text in ("x" * 513, "/" * 103, "\U0001f600" * 257):
        with pytest.raises(JobRecordError, match="1,024") as caught:
            escape_key(text, field="job_id")
        assert caught.value.field == "job_id"


@pytest.mark.parametrize("value", ["", None, 5])
def test_an_id_must_be_text(value: object) -> None:
    """Empty ids and other types are refused, by name."""
    with pytest.raises(JobRecordError, match="batch_id"):
        escape_key(value, field="batch_id")  # type: ignore[arg-type]


def test_quotation_marks_are_doubled_in_literals() -> None:
    """An id cannot end the literal it stands in."""
    assert odata_string("x' or 'a' eq 'a") == "'x'' or ''a'' eq ''a'"
