"""Every name and parameter that users of 0.7 call still resolves, with the same defaults."""

import fnmatch
import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

COMPARE = Path(__file__).resolve().parents[3] / "tools" / "compare_0_7"
MODULES = list(json.loads((COMPARE / "surface_0_7_6.json").read_text(encoding="utf-8")))


def test_every_name_of_0_7_is_there_with_its_parameters_and_bases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also dunder methods, fields in their order, printed enums, names outside of `__all__`.

    What 0.7.6 offered stands in `surface_0_7_6.json`; rows of the migration page allow the rest.
    """
    monkeypatch.syspath_prepend(str(COMPARE))
    tool: Any = importlib.import_module("differences")
    patterns = tool.allowed()
    found = tool.surface_differences()
    names = {name for name in found if not any(fnmatch.fnmatch(name, p) for p in patterns)}
    assert {name: found[name] for name in names} == {}


@pytest.mark.parametrize("top", ["infra_core", "infra_core.azure"])
def test_importing_the_package_is_enough_for_its_modules(top: str) -> None:
    """`import infra_core; infra_core.http.fetch` works in a fresh interpreter, as in 0.7."""
    modules = [name for name in MODULES if name.rpartition(".")[0] == top]
    script = f"import {top}\n" + "\n".join(modules)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_star_import_does_not_shadow_the_request_of_a_web_framework() -> None:
    """0.7 had no `request`; `infra_core.request` is there for those who name it."""
    names: dict[str, Any] = {}
    exec("from infra_core import *", names)
    assert "fetch" in names
    assert not {"request", "http", "azure"} & set(names)
    assert importlib.import_module("infra_core").request


def test_constants_keep_their_values() -> None:
    """The retry statuses, browser headers and telemetry events are those of 0.7."""
    for module in ("infra_core.http", "infra_core.http_async"):
        loaded = importlib.import_module(module)
        assert set(loaded.DEFAULT_RETRY_STATUSES) == {429, 500, 502, 503, 504}
        assert loaded.DEFAULT_HEADERS["User-Agent"].startswith("Mozilla/5.0 (X11; Linux x86_64)")
        assert loaded.DEFAULT_HEADERS["Accept"].startswith("text/html,application/xhtml+x")
    assert importlib.import_module("infra_core.fs_utils").CHUNK_SIZE == 8192
    assert importlib.import_module("infra_core.retry").RetryCallState  # of tenacity
    monitoring = importlib.import_module("infra_core.azure.monitoring")
    assert frozenset(e.value for e in monitoring.TelemetryEvent) == monitoring.TELEMETRY_EVENTS
