"""The package schema, made from the resources' own models, so that it can't say anything else than they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from providers.native import NativeResource
from providers.plugin.functions import Function
from serving import NAMESPACE

_SCALARS = {"string": "string", "integer": "integer", "number": "number", "boolean": "boolean"}


def package_schema(
    version: str, resources: Iterable[NativeResource[Any, Any]], functions: Iterable[Function]
) -> dict[str, Any]:
    """Pulumi's package schema (https://www.pulumi.com/docs/iac/packages-and-automation/pulumi-packages/schema/)."""
    types: dict[str, Any] = {}
    return {
        "name": NAMESPACE,
        "version": version,
        "displayName": "vLLM anywhere",
        "description": "vLLM deployments on GPU clouds and on your own machine.",
        "license": "Apache-2.0",
        "provider": {},
        "config": {},
        "resources": {r.token: _resource(r, types) for r in resources},
        "functions": {f.token: _function(f, types) for f in functions},
        "types": types,
    }


def _resource(resource: NativeResource[Any, Any], types: dict[str, Any]) -> dict[str, Any]:
    inputs, outputs = (
        _object(resource.inputs, resource.token, types),
        _object(resource.outputs, resource.token, types),
    )
    for name in resource.replace_on:
        wire = resource.inputs.model_fields[name].alias or name
        inputs["properties"][wire]["willReplaceOnChanges"] = True
    return {
        "description": resource.doc,
        "inputProperties": inputs["properties"],
        "requiredInputs": inputs["required"],
        "properties": outputs["properties"],
        "required": outputs["required"],
    }


def _function(function: Function, types: dict[str, Any]) -> dict[str, Any]:
    outputs = _object(function.outputs, function.token, types)
    return {
        "description": function.doc,
        "inputs": _object(function.inputs, function.token, types),
        "outputs": outputs,
    }


def _object(model: type[BaseModel], token: str, types: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(by_alias=True)
    module = token.rsplit(":", 1)[0]
    for name, definition in schema.get("$defs", {}).items():
        types[f"{module}:{name}"] = {"type": "object", **_properties(definition, module)}
    return {"description": schema.get("description", ""), **_properties(schema, module)}


def _properties(schema: Mapping[str, Any], module: str) -> dict[str, Any]:
    properties = {name: _property(value, module) for name, value in schema.get("properties", {}).items()}
    return {"properties": properties, "required": sorted(schema.get("required", []))}


def _property(schema: Mapping[str, Any], module: str) -> dict[str, Any]:
    described = {"description": schema["description"]} if schema.get("description") else {}
    formats = {option.get("format") for option in (schema, *schema.get("anyOf", []))}
    secret = {"secret": True} if "password" in formats else {}
    kind = _type(schema, module)
    default = {"default": schema["default"]} if isinstance(schema.get("default"), str | int | float | bool) else {}
    return {**kind, **described, **secret, **(default if "type" in kind else {})}


def _type(schema: Mapping[str, Any], module: str) -> dict[str, Any]:
    if "$ref" in schema:
        return {"$ref": f"#/types/{module}:{schema['$ref'].rsplit('/', 1)[-1]}"}
    options = [option for option in schema.get("anyOf", []) if option.get("type") != "null"]
    if len(options) == 1:
        return _type(options[0], module)
    if {option.get("type") for option in options} == {"number", "string"}:
        # A Decimal: as text, which loses none of its digits on the way.
        return {"type": "string"}
    match schema.get("type"):
        case "array":
            return {"type": "array", "items": _type(schema.get("items", {}), module)}
        case "object":
            extra = schema.get("additionalProperties")
            values = extra if isinstance(extra, Mapping) else {}
            return {"type": "object", "additionalProperties": _type(values, module)}
        case str() as kind if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        case _:
            return {"$ref": "pulumi.json#/Any"}
