"""What pulumi_gcp takes and gives, read from its typed classes: names on the wire, types, what is required."""

from __future__ import annotations

import collections.abc
import importlib
import importlib.util
import inspect
import sys
import types
import typing
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pulumi
from pulumi import _types as sdk_types  # pyright: ignore[reportPrivateUsage]

from providers.native import Unknown


@dataclass(frozen=True)
class Field:
    """One property: what its value may be, as the SDK annotates it, and whether it has to be given."""

    annotation: Any
    required: bool


@dataclass(frozen=True)
class Failure:
    """Why an input is refused, at a Pulumi property path such as `networkInterfaces[0].network`."""

    path: str
    reason: str


@dataclass(frozen=True)
class Shape:
    """A resource type of the SDK: its inputs, and the names of all its outputs."""

    inputs: Mapping[str, Field]
    outputs: frozenset[str]


def load_modules_alone() -> None:
    """Make single modules of pulumi_gcp importable without their packages: half a second less for each plugin start."""
    spec = importlib.util.find_spec("pulumi_gcp")
    root = Path(next(iter(spec.submodule_search_locations or ()))) if spec else Path()
    for name in ("", "compute", "projects", "secretmanager", "serviceaccount"):
        package = types.ModuleType(f"pulumi_gcp.{name}".rstrip("."))
        package.__path__ = [str(root / name)]
        sys.modules[package.__name__] = package


@cache
def shape(module: str, name: str) -> Shape:
    """The resource class `name` in `pulumi_gcp.<module>`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = importlib.import_module(f"pulumi_gcp.{module}")
    outputs = sdk_types.resource_types(getattr(loaded, name))
    return Shape(fields(getattr(loaded, f"{name}Args")), frozenset(outputs))


@cache
def provider_fields() -> Mapping[str, Field]:
    """The provider's own configuration."""
    return fields(importlib.import_module("pulumi_gcp.provider").ProviderArgs)


@cache
def fields(args: type) -> Mapping[str, Field]:
    """The properties of an args class under their names on the wire."""
    parameters = inspect.signature(args.__init__).parameters
    required = {name for name, one in parameters.items() if one.default is inspect.Parameter.empty}
    wire = sdk_types.input_type_py_to_pulumi_names(args)
    return {
        wire[name]: Field(_plain(annotation), name in required)
        for name, annotation in zip(wire, sdk_types.input_type_types(args).values(), strict=True)
    }


def failures(given: Mapping[str, Any], known: Mapping[str, Field], path: str = "") -> Iterator[Failure]:
    """What the typed class would not have: unknown names, missing ones, values of the wrong type."""
    for name in given.keys() - known.keys():
        yield Failure(_join(path, name), f"An argument named {name!r} is not expected here")
    for name, field in known.items():
        if given.get(name) is not None:
            yield from _value(given[name], field.annotation, _join(path, name))
        elif field.required:
            yield Failure(_join(path, name), f"The argument {name!r} is required, but no definition was found.")


def _value(value: Any, annotation: Any, path: str) -> Iterator[Failure]:
    origin = typing.get_origin(annotation)
    if isinstance(value, Unknown) or annotation is Any:
        return
    if origin is collections.abc.Sequence:
        item = _plain(typing.get_args(annotation)[0])
        if not isinstance(value, list):
            yield _wrong(value, "a list", path)
            return
        for index, each in enumerate(value):
            yield from _value(each, item, f"{path}[{index}]")
    elif origin is collections.abc.Mapping:
        item = _plain(typing.get_args(annotation)[1])
        if not isinstance(value, dict):
            yield _wrong(value, "a map", path)
            return
        for key, each in value.items():
            yield from _value(each, item, _join(path, key))
    elif sdk_types.is_input_type(annotation):
        if not isinstance(value, dict):
            yield _wrong(value, "an object", path)
            return
        yield from failures(value, fields(annotation), path)
    elif not _is(value, annotation):
        yield _wrong(value, annotation.__name__, path)


def _is(value: Any, annotation: type) -> bool:
    if isinstance(value, bool) or annotation is bool:
        return annotation is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if annotation is float else annotation)


def _wrong(value: Any, wanted: str, path: str) -> Failure:
    return Failure(path, f"expected {wanted}, got {type(value).__name__}")


def _plain(annotation: Any) -> Any:
    """An annotation without what the program may wrap values in: outputs, awaitables, None, dict forms."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return annotation
    for choice in typing.get_args(annotation):
        origin = typing.get_origin(choice)
        if choice is not type(None) and origin not in (pulumi.Output, collections.abc.Awaitable):
            return _plain(choice)
    raise TypeError(f"{annotation} allows no plain value")


def _join(path: str, name: str) -> str:
    step = name if name.replace("-", "_").isidentifier() and "-" not in name else f'["{name}"]'
    return f"{path}{step}" if step.startswith("[") or not path else f"{path}.{step}"
