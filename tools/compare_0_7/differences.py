"""What 0.7.6 offered and ours does not, by a name for each difference; additions are none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Difference = tuple[str, str]


def surface_differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Difference]:
    """Compare what two distributions offer; yields a name and a text for each difference."""
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
    fields = new.get("fields", [])[: len(old.get("fields", ()))]
    if old.get("fields", []) != fields:
        yield f"{key}.fields", f"were {old['fields']}, are {new.get('fields')}"
    for flag in ("frozen", "runtime_checkable"):
        if old.get(flag) and not new.get(flag):
            yield f"{key}.{flag}", "is not so any more"
    fields = new.get("fields", ())
    for name, described in old.get("attributes", {}).items():
        if name in fields:  # of an instance; whether the class has it depends on slots
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
