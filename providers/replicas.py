"""Several servers of one deployment, out of what an adapter declares for one. Pure.

The first server keeps its names, and the others have them with `-2`, `-3`, ...: going from one server to several, and
back, leaves the first as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from providers.base import Declaration, Declared, Ref, Text


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
    names = frozenset(declared.each)
    own = tuple(one for one in declared.resources if one.name in names)
    first = Replica(declared.server, "ready", declared.endpoint, declared.run, declared.ca, own)
    if not names:
        return (first,)
    return (first, *(_copy(first, names, f"-{number}") for number in range(2, count + 1)))


def resources(declared: Declared, servers: Sequence[Replica]) -> tuple[Declaration, ...]:
    """Everything that is registered for them, each after what it refers to."""
    return (*declared.resources, *(one for replica in servers[1:] for one in replica.own))


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


def _copy(first: Replica, names: frozenset[str], suffix: str) -> Replica:
    def renamed(value: Any) -> Any:
        match value:
            case Ref(resource, output) if resource in names:
                return Ref(resource + suffix, output)
            case Text(template, values):
                return Text(template, tuple(renamed(part) for part in values))
            case Mapping():
                return {key: renamed(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
            case list() | tuple():
                return type(value)(renamed(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
            case _:
                return value

    own = tuple(
        replace(
            one,
            name=one.name + suffix,
            inputs=renamed(one.inputs),
            depends_on=tuple(name + suffix if name in names else name for name in one.depends_on),
        )
        for one in first.own
    )
    return Replica(
        first.name + suffix, first.ready + suffix, renamed(first.endpoint), renamed(first.run), renamed(first.ca), own
    )
