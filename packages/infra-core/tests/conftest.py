"""What several tests of this package share."""

import os

import pytest


@pytest.fixture
def no_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of Azure is set, whatever the machine has."""
    for name in list(os.environ):
        if name.startswith(("AZURE_", "APPLICATIONINSIGHTS_")):
            monkeypatch.delenv(name)
