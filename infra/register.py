"""Declarations, which are data, become Pulumi resources."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pulumi

from providers.base import ConfigSecret, Declaration, Ref, Text, load_advice
from serving import NAMESPACE

Registered = dict[str, pulumi.CustomResource]
Turns = Mapping[str, Sequence[str]]
"""For a resource, the ones that have to be through before it is registered."""


class Native(pulumi.CustomResource):
    """A resource of this project's own provider; `outputs` are the ones that somebody refers to."""

    def __init__(
        self,
        declaration: Declaration,
        inputs: Mapping[str, Any],
        outputs: Iterable[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        properties: dict[str, Any] = {**dict.fromkeys(outputs), **inputs}
        super().__init__(declaration.type, declaration.name, properties, opts)


def register(
    declarations: Iterable[Declaration],
    wanted: Iterable[Ref],
    parent: pulumi.Resource,
    platform: str,
    turns: Awaitable[Turns] | None = None,
) -> Registered:
    """Register in order; a declaration may refer to those before it. `wanted` are outputs needed beyond them.

    `turns` may hold a resource back until others are through. It makes them no dependencies: state would keep those,
    and a destroy would go through them one by one.
    """
    declarations = list(declarations)
    advising = _advising(platform) if any(d.python for d in declarations) else None
    outputs: dict[str, set[str]] = {}
    for ref in [*wanted, *(ref for d in declarations for ref in refs_in(d.inputs))]:
        outputs.setdefault(ref.resource, set()).add(ref.output)
    registered: Registered = {}
    for declaration in declarations:
        opts = pulumi.ResourceOptions(
            parent=parent,
            depends_on=_in_turn(declaration, registered, turns),
            delete_before_replace=declaration.delete_before_replace or None,
            hooks=advising if declaration.python else None,
        )
        inputs = {key: resolve(value, registered) for key, value in declaration.inputs.items()}
        if declaration.python:
            module, _, name = declaration.python.partition(":")
            resource = getattr(importlib.import_module(module), name)(declaration.name, opts=opts, **inputs)
        else:
            resource = Native(declaration, inputs, outputs.get(declaration.name, ()), opts)
        registered[declaration.name] = resource
    return registered


def _in_turn(
    declaration: Declaration, registered: Registered, turns: Awaitable[Turns] | None
) -> pulumi.Input[Sequence[pulumi.Resource]]:
    """What the resource depends on, as soon as its turn has come."""
    depends_on = [registered[name] for name in declaration.depends_on]
    if turns is None:
        return depends_on

    async def in_turn() -> list[pulumi.CustomResource]:
        for name in (await turns).get(declaration.name, ()):
            # A URN is known once the engine has done what there was to do.
            await registered[name].urn.future()
        return depends_on

    return pulumi.Output.from_input(in_turn())


def _advising(platform: str) -> pulumi.ResourceHookBinding:
    """Says what to do when a resource of another Pulumi package fails: its own text names no command of ours."""
    advice = load_advice(platform)

    def advise(args: pulumi.ErrorHookArgs) -> bool:
        if text := advice(" ".join(args.errors)):
            pulumi.error(f"{args.name}: {text}")
        return False

    return pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("advise", advise)])


def refs_in(value: Any) -> Iterator[Ref]:
    """Every reference in a value, at any depth."""
    match value:
        case Ref():
            yield value
        case Text():
            yield from (part for part in value.values if isinstance(part, Ref))
        case Mapping():
            for item in value.values():  # pyright: ignore[reportUnknownVariableType]
                yield from refs_in(item)
        case list() | tuple():
            for item in value:  # pyright: ignore[reportUnknownVariableType]
                yield from refs_in(item)
        case _:
            pass


def resolve(value: Any, registered: Registered) -> Any:
    """A value with its references as Pulumi outputs."""
    match value:
        case Ref(resource, "id"):
            return registered[resource].id
        case Ref(resource, output):
            return getattr(registered[resource], output)
        case ConfigSecret(key):
            return pulumi.Config(NAMESPACE).require_secret(key)
        case Text(template, values):
            parts = [resolve(part, registered) for part in values]
            return pulumi.Output.all(*parts).apply(lambda found: template.format(*found))
        case Mapping():
            return {key: resolve(item, registered) for key, item in value.items()}  # pyright: ignore
        case list() | tuple():
            return [resolve(item, registered) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value
