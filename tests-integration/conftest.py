"""Servers that all integration tests share."""

from collections.abc import Iterator

import pytest

from infra_core.azure.testing import AzuriteServer


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzuriteServer]:
    """A real Azurite, in memory, for the whole run."""
    with AzuriteServer() as server:
        yield server
