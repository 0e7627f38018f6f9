"""What changed between two sets of inputs, leaf by leaf, without what Google writes in more than one way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.doubles.gcp.check import without_defaults
from tests.doubles.gcp.kinds import Kind, short

_LINKS = frozenset({"zone", "region", "machineType", "network", "subnetwork", "instanceTemplate", "healthCheck"})
"""Inputs in which a URL and the name at its end are the same."""


def changes(olds: Mapping[str, Any], news: Mapping[str, Any]) -> dict[str, str]:
    """Property paths that differ, each with ADD, DELETE or UPDATE."""
    return dict(_changes(without_defaults(olds), without_defaults(news), ""))


def replacing(kind: Kind, changed: Mapping[str, str]) -> set[str]:
    """The changes that mean another resource."""
    return {path for path in changed if kind.replaces(path)}


def same(path: str, old: Any, new: Any) -> bool:
    """Whether two values of a property are one to the provider: `DiffSuppressFunc`, as far as our inputs have any."""
    if old == new:
        return True
    name = re.sub(r"\[\d+\]", "", path).rsplit(".", 1)[-1]
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    if name in _LINKS or path.startswith("guestAccelerators["):
        return short(old).split("?")[0] == short(new).split("?")[0]
    if name in ("image", "sourceImage"):
        # An image of the family that is asked for is that family, by its name alone.
        return short(new) in short(old)
    return name == "scopes" and short(old) == short(new)


def _changes(old: Any, new: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            step = key if re.fullmatch(r"\w+", key) else f'["{key}"]'
            below = f"{path}{step}" if step.startswith("[") or not path else f"{path}.{step}"
            if key not in old:
                yield below, "ADD"
            elif key not in new:
                yield below, "DELETE"
            else:
                yield from _changes(old[key], new[key], below)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            if index >= len(old):
                yield f"{path}[{index}]", "ADD"
            elif index >= len(new):
                yield f"{path}[{index}]", "DELETE"
            else:
                yield from _changes(old[index], new[index], f"{path}[{index}]")
    elif not same(path, old, new):
        yield path, "UPDATE"
