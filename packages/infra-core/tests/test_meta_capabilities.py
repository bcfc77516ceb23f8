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
    """What has most of the words comes first; a query without a match finds nothing."""
    assert find_capabilities("Upload BLOB")[0].slug == "azure-blob-storage"
    assert find_capabilities("no-such-thing") == []
    assert find_capabilities("") == list(CAPABILITIES)
    assert find_capabilities("poll async job status")[0].slug == "status-polling"


def test_matches_by_name_or_keyword_come_first() -> None:
    """Searching for poll finds the poller before anything that merely mentions it."""
    assert find_capabilities("poll")[0].name == "status-polling"


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda c: c.slug)
def test_import_line_can_be_pasted(capability: Capability) -> None:
    """The line names module and symbols, and they are those of the package that is named."""
    exec(capability.import_line, {})
    assert capability.import_line == capability.preferred_import
    assert capability.package in {"infra-core", f"infra-core-{capability.module.split('.')[1]}"}
    assert capability.slug in capability.searchable_text()
    assert capability.extras == ("azure",) * (capability.package == "infra-core-azure")  # of 0.7
