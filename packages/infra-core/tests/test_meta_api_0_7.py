"""Every name and parameter that users of 0.7 call still resolves, with the same defaults.

`api_0_7.json` is the table of the published 0.7.6: module, name, kind, parameters, defaults.
"""

import enum
import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TABLE: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "api_0_7.json").read_text(encoding="utf-8")
)
# Annotations and values that are more than one word, compared by the test that names them.
ELSEWHERE = {"DEFAULT_HEADERS", "DEFAULT_RETRY_STATUSES", "TELEMETRY_EVENTS", "T", "T_co"}


def entries() -> Iterator[Any]:
    for module, names in TABLE.items():
        for name, entry in names.items():
            yield pytest.param(module, name, entry, id=f"{module}.{name}")


@pytest.mark.parametrize(("module", "name", "entry"), list(entries()))
def test_name_of_0_7_resolves_with_its_parameters(
    module: str, name: str, entry: dict[str, Any]
) -> None:
    """A name of 0.7 is importable, of its kind, and takes the parameters it took."""
    value = getattr(importlib.import_module(module), name)
    kind = entry["kind"]
    if kind == "class":
        check_class(value, entry)
    elif kind.endswith("function"):
        assert inspect.iscoroutinefunction(value) == (kind == "async function")
        check_parameters(value, entry["parameters"])
    elif kind == "enum":
        assert issubclass(value, enum.Enum)
        assert {n: value[n].value for n in entry["members"]} == entry["members"]
    elif kind == "constant" and name not in ELSEWHERE:
        assert str(value) == entry["value"]


@pytest.mark.parametrize("top", ["infra_core", "infra_core.azure"])
def test_importing_the_package_is_enough_for_its_modules(top: str) -> None:
    """`import infra_core; infra_core.http.fetch` works in a fresh interpreter, as in 0.7."""
    modules = [name for name in TABLE if name.rpartition(".")[0] == top]
    assert modules
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
    monitoring = importlib.import_module("infra_core.azure.monitoring")
    assert frozenset(e.value for e in monitoring.TelemetryEvent) == monitoring.TELEMETRY_EVENTS


def check_class(value: Any, entry: dict[str, Any]) -> None:
    assert inspect.isclass(value)
    if base := entry["base"]:
        assert base in {parent.__name__ for parent in value.__mro__[1:]}
    if entry["parameters"] is not None:
        check_parameters(value, entry["parameters"])
    for name, member in entry.get("members", {}).items():
        attribute = inspect.getattr_static(value, name)
        if member["kind"] == "property":
            assert isinstance(attribute, property) or not callable(attribute), name
            continue
        if member["kind"] == "classmethod":
            assert isinstance(attribute, classmethod), name
        bound = getattr(value, name)
        assert inspect.iscoroutinefunction(bound) == (member["kind"] == "async"), name
        if member["parameters"] is not None:
            check_parameters(bound, member["parameters"])


def check_parameters(function: Any, expected: list[dict[str, Any]]) -> None:
    signature = inspect.signature(function)
    actual = dict(signature.parameters)
    actual.pop("self", None)
    takes_any_keyword = any(p.kind is p.VAR_KEYWORD for p in actual.values())
    takes_any_position = any(p.kind is p.VAR_POSITIONAL for p in actual.values())
    positional = [n for n, p in actual.items() if p.kind is p.POSITIONAL_OR_KEYWORD]
    wanted_positional = [p["name"] for p in expected if p["kind"] == "positional"]
    if not takes_any_position:
        assert positional[: len(wanted_positional)] == wanted_positional, signature
    for parameter in expected:
        if parameter["kind"] == "var":
            continue
        name = parameter["name"]
        if name not in actual:
            assert takes_any_keyword, f"{name} is missing in {signature}"
            continue
        if "default" in parameter:
            check_default(name, parameter["default"], actual[name].default)
        else:
            pass  # a parameter that was required may have become optional
    extra = [
        p.name
        for p in actual.values()
        if p.default is p.empty
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and p.name not in {e["name"] for e in expected}
    ]
    assert not extra, f"new required parameters {extra} in {signature}"


def check_default(name: str, text: str, value: Any) -> None:
    if text == "os.environ":
        assert value is None or isinstance(value, object)  # read at call time, not at import
        return
    if text.startswith("<HTTPStatus"):
        assert int(value) == 200
        return
    if text in {str(value), repr(value)}:
        return
    try:
        number = float(text)
    except ValueError:
        raise AssertionError(f"default of {name} was {text}, is {value!r}") from None
    assert isinstance(value, (int, float)), f"default of {name} was {text}, is {value!r}"
    assert float(value) == number, f"default of {name} was {text}, is {value!r}"
