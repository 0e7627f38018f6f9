"""Several servers of one deployment, out of what an adapter declares for one. Pure.

The first server keeps its names, and the others have them with `-2`, `-3`, ...: going from one server to several, and
back, leaves the first as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from providers.base import Declaration, Declared, Ref, Suffix, Text


@dataclass(frozen=True)
class Replica:
    """One server of a deployment.

    `name` is the resource that it is, `own` are all those that exist for it alone, and `ready` is its readiness gate.
    `endpoint`, `run` and `ca` are as in `Declared`.
    """

    name: str
    ready: str
    endpoint: Ref | Text
    run: Ref | Text
    ca: Ref | None
    own: tuple[Declaration, ...]


def replicas(declared: Declared, count: int) -> tuple[Replica, ...]:
    """`count` servers, the first of them as it was declared. What is not in `declared.each` is shared by all.

    Where the platform itself multiplies servers (`each` is empty), there is one.
    """
    suffixes = ["", *(f"-{number}" for number in range(2, count + 1))] if declared.each else [""]
    return tuple(_replica(declared, suffix) for suffix in suffixes)


def resources(declared: Declared, servers: Sequence[Replica]) -> tuple[Declaration, ...]:
    """Everything that is registered for them, each after what it refers to."""
    first = {one.name: one for one in servers[0].own}
    shared_and_first = (first.get(one.name) or _named(one, frozenset(), "") for one in declared.resources)
    return (*shared_and_first, *(one for replica in servers[1:] for one in replica.own))


def hardware(declared: Declared, servers: Sequence[Replica]) -> str:
    """The hardware of all of them, for people."""
    return f"{len(servers)} servers, each: {declared.hardware}" if len(servers) > 1 else declared.hardware


def created(declared: Declared, servers: Sequence[Replica]) -> list[tuple[str, str]]:
    """Name and type of what is registered, for people: what there is several times is named once."""
    times = f"{len(servers)} x " if len(servers) > 1 else ""
    return [(f"{times if one.name in declared.each else ''}{one.name}", one.type) for one in declared.resources]


def turns(servers: Sequence[Replica], serving: int) -> dict[str, tuple[str, ...]]:
    """The resources that have to be through before one is touched, for each that has to wait.

    The first `serving` servers are in use: each waits until the one before has answered, so that a change takes at
    most one of them out of service. The rest serve nobody yet and are made at once. Their gates wait until all of
    them are made: with more servers than the engine has places, waiting for one must not keep another from starting.
    """
    fresh = servers[serving:]
    made = tuple(replica.name for replica in fresh)
    return {
        **{one.name: (before.ready,) for before, after in itertools.pairwise(servers[:serving]) for one in after.own},
        **({replica.ready: made for replica in fresh} if len(fresh) > 1 else {}),
    }


def _replica(declared: Declared, suffix: str) -> Replica:
    names = frozenset(declared.each)
    own = [_named(one, names, suffix) for one in declared.resources if one.name in names]
    if suffix:
        took = {name + suffix: inputs for name, inputs in declared.follow.items()}
        own = [replace(one, inputs={**one.inputs, **took.get(one.name, {})}) for one in own]
    endpoint, run, ca = (_renamed(value, names, suffix) for value in (declared.endpoint, declared.run, declared.ca))
    return Replica(declared.server + suffix, "ready" + suffix, endpoint, run, ca, tuple(own))


def _named(one: Declaration, names: frozenset[str], suffix: str) -> Declaration:
    return replace(
        one,
        name=one.name + suffix,
        inputs=_renamed(one.inputs, names, suffix),
        depends_on=tuple(name + suffix if name in names else name for name in one.depends_on),
    )


def _renamed(value: Any, names: frozenset[str], suffix: str) -> Any:
    """A value whose references to `names` are to those of one server."""
    match value:
        case Suffix():
            return suffix
        case Ref(resource, output) if resource in names:
            return Ref(resource + suffix, output)
        case Text(template, values):
            return Text(template, tuple(_renamed(part, names, suffix) for part in values))
        case Mapping():
            return {key: _renamed(item, names, suffix) for key, item in value.items()}  # pyright: ignore
        case list() | tuple():
            return type(value)(_renamed(item, names, suffix) for item in value)  # pyright: ignore
        case _:
            return value
