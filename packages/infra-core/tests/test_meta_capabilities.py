"""The capability index names only what exists and finds it by words."""

import importlib

import pytest

from infra_core import CAPABILITIES, Capability, find_capabilities


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda c: c.name)
def test_every_symbol_of_the_index_exists(capability: Capability) -> None:
    """Each listed name is importable from the listed module."""
    module = importlib.import_module(capability.module)
    for symbol in capability.symbols:
        assert hasattr(module, symbol)


def test_search_takes_words_in_any_order_and_case() -> None:
    """All words must match; a query without a match finds nothing."""
    assert [c.name for c in find_capabilities("Upload BLOB")] == ["mirror-to-blob-storage"]
    assert find_capabilities("no-such-thing") == ()
    assert find_capabilities("") == CAPABILITIES


def test_matches_by_name_or_keyword_come_first() -> None:
    """Searching for poll finds the poller before anything that merely mentions it."""
    assert find_capabilities("poll")[0].name == "poll-until-done"


def test_import_line_can_be_pasted() -> None:
    """The line names module and symbols."""
    capability = find_capabilities("poll until")[0]
    exec(capability.import_line, {})
