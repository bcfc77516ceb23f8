"""What 0.7.6 offered and ours does not, by a name for each difference; additions are none."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from surface import surface  # type: ignore[import-not-found]

Difference = tuple[str, str]
HERE = Path(__file__).resolve().parent
SURFACE = HERE / "surface_0_7_6.json"  # what 0.7.6 offered when `compare.py --write` asked it
MIGRATION = HERE.parent.parent / "docs" / "pages" / "migration.md"


def surface_differences() -> dict[str, str]:
    """What 0.7.6 offered and ours does not: a text by a name for each; needs no registry."""
    old = json.loads(SURFACE.read_text(encoding="utf-8"))
    return dict(_differences(old, surface(list(old))))


def allowed() -> dict[str, str]:
    """The patterns that rows of the migration page allow, each with the row's number."""
    patterns: dict[str, str] = {}
    for line in MIGRATION.read_text(encoding="utf-8").splitlines():
        comment = re.search(r"<!-- probes: (.*?) -->", line)
        number = re.match(r"\| *(\d+) *\|", line)
        if comment and number:
            for pattern in comment[1].split(","):
                patterns[pattern.strip()] = number[1]
    return patterns


def _differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    for module, names in old.items():
        for name, described in names.items():
            key = f"surface.{module.removeprefix('infra_core.')}.{name}"
            found = new.get(module, {}).get(name)
            if found is None:
                yield key, "the name is gone"
            else:
                yield from _described(key, described, found)


def _described(key: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    if old["kind"] != new["kind"]:
        yield f"{key}.kind", f"was a {old['kind']}, is a {new['kind']}"
        return
    if old["kind"] == "value" and old["type"] != new["type"]:
        yield f"{key}.type", f"was of type {old['type']}, is of type {new['type']}"
    yield from _parameters(key, old.get("parameters"), new.get("parameters"))
    for base in old.get("bases", ()):
        if base not in new["bases"]:
            yield f"{key}.bases.{base}", f"is no {base} any more"
    for member, texts in old.get("members", {}).items():
        if new["members"].get(member) != texts:
            yield f"{key}.{member}", f"was {texts}, is {new['members'].get(member)}"
    for name in old.get("dunders", ()):
        if name not in new["dunders"]:
            yield f"{key}.{name}", "the method is gone"
    lost = set(old.get("fields", ())) - set(new.get("fields", ()))
    if lost:  # the order of those of `__init__` is compared with its parameters
        yield f"{key}.fields", f"lacks {sorted(lost)}"
    for flag in ("frozen", "runtime_checkable"):
        if old.get(flag) and not new.get(flag):
            yield f"{key}.{flag}", "is not so any more"
    fields = new.get("fields", ())
    for name, described in old.get("attributes", {}).items():
        # Whether a class has the fields of its instances depends on slots; notes came with 3.11.
        if name in fields or name == "add_note":
            continue
        found = new.get("attributes", {}).get(name)
        if found is None:
            yield f"{key}.{name}", "the attribute is gone"
            continue
        kinds = {described["kind"], found["kind"]}
        if len(kinds) > 1 and kinds != {"property", "attribute"}:
            yield f"{key}.{name}.kind", f"was a {described['kind']}, is a {found['kind']}"
        yield from _parameters(
            f"{key}.{name}", described.get("parameters"), found.get("parameters")
        )


def _parameters(
    key: str, old: list[list[str]] | None, new: list[list[str]] | None
) -> Iterator[Difference]:
    if old is None or new is None:
        return
    kinds = {kind for _, kind, _ in new}
    known = {name: (kind, default) for name, kind, default in new}
    takes_words = "VAR_KEYWORD" in kinds
    places = [name for name, kind, _ in new if kind.startswith("POSITIONAL")]
    wanted = [name for name, kind, _ in old if kind.startswith("POSITIONAL")]
    if places[: len(wanted)] != wanted and "VAR_POSITIONAL" not in kinds:
        yield f"{key}.order", f"positional parameters were {wanted}, are {places}"
    for name, kind, default in old:
        if kind.startswith("VAR"):
            if kind not in kinds:
                yield f"{key}.{name}", "does not take any more arguments"
            continue
        if name.startswith("_"):
            continue
        if name not in known:
            if not takes_words:
                yield f"{key}.{name}", "the parameter is gone"
            continue
        if default == "required" or "some" in (default, known[name][1]):
            continue
        if known[name][1] != default:
            yield f"{key}.{name}", f"the default was {default}, is {known[name][1]}"
    for name, kind, default in new:
        if default == "required" and not kind.startswith("VAR"):
            before = {n: d for n, _, d in old}
            if before.get(name) != "required" and not any(k == "VAR_KEYWORD" for _, k, _ in old):
                yield f"{key}.{name}", "the parameter must be given now"
