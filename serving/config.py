"""Stack config -> the shared spec and a platform's options.

`parse_spec` is the only way in: it turns raw stack config into a `DeploymentSpec`, or raises `SpecError` whose problems
each name the stack-config key, the value, and what would work.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from serving import NAMESPACE
from serving.spec import DeploymentSpec, Problem, SecretRefusedError, SpecError

P = TypeVar("P", bound=BaseModel)

_SECRETS = {
    "hf_token": "Hugging Face token for gated models.",
    "own_api_key": "Your own API key, instead of the random one.",
    "gateway_api_key": "The key of the closed API behind a gateway.",
}
_MAY_BE_SECRET = re.compile("key|token|secret|password", re.IGNORECASE)
SECRET_KEYS = frozenset(_SECRETS)
"""Stack-config keys that hold secrets. They are never part of the spec, so they can't be printed with it."""


def parse_spec(config: Mapping[str, str], platforms: Collection[str]) -> tuple[DeploymentSpec, dict[str, Any]]:
    """Stack config -> the spec, and the raw section of the chosen platform (for `parse_part`).

    `config` maps full keys (`vllm-anywhere:model`) to text, JSON for objects, as Pulumi hands it out; keys of
    other namespaces are left alone. `platforms` are the names that `provider` may take; each may have a section
    of its own name, and the sections of the platforms that are not chosen are kept for when they are.

    Raises:
        SpecError: with every problem found.
    """
    sections = set(DeploymentSpec.model_fields)
    problems: list[Problem] = []
    fields: dict[str, Any] = {}
    own: dict[str, dict[str, Any]] = {}
    for full_key, text in config.items():
        namespace, _, key = full_key.partition(":")
        if namespace != NAMESPACE or key in SECRET_KEYS:
            continue
        if key not in sections and key not in platforms:
            known = sorted(sections | set(platforms) | SECRET_KEYS)
            problems.append(Problem(full_key, "", f"no such key. {_did_you_mean(key, known, _PATHS)}"))
        elif key == "provider":
            fields[key] = text
        else:
            value = _json_object(text)
            if value is None:
                problems.append(_no_map(full_key, key, text))
            elif key in platforms:
                own[key] = value
            else:
                fields[key] = value
    provider = fields.get("provider", DeploymentSpec.model_fields["provider"].default)
    if provider not in platforms:
        fix = f"no such platform. {_did_you_mean(provider, sorted(platforms))}"
        problems.append(Problem(f"{NAMESPACE}:provider", provider, fix))
        fields.pop("provider", None)
    try:
        spec = parse_part(DeploymentSpec, fields, "")
    except SpecError as error:
        problems.extend(error.problems)
    else:
        if not problems:
            return spec, own.get(provider, {})
    raise SpecError(problems)


def parse_part(part: type[P], raw: Mapping[str, Any], section: str) -> P:
    """Validate one section (`section` is its key, "" for the whole spec).

    Raises:
        SpecError: with every problem found, keyed by stack-config path.
    """
    try:
        return part.model_validate(dict(raw))
    except ValidationError as error:
        found = error.errors(include_url=False)
    raise SpecError([_problem(part, section, one) for one in found if not _follows(one, found)])


def _follows(error: Any, errors: Sequence[Any]) -> bool:
    """Whether a list is only too short because what is in it was refused."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(e["loc"] != loc and e["loc"][: len(loc)] == loc for e in errors)


def spec_schema(platform_options: Mapping[str, type[BaseModel]]) -> dict[str, Any]:
    """JSON Schema of a whole stack file (`Pulumi.<stack>.yaml`), so that editors complete and check it."""
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    parts = {"": DeploymentSpec, **platform_options}
    for name, part in parts.items():
        schema = part.model_json_schema(ref_template="#/$defs/{model}")
        definitions.update(schema.pop("$defs", {}))
        if name:
            definitions[part.__name__] = schema
            properties[f"{NAMESPACE}:{name}"] = {"$ref": f"#/$defs/{part.__name__}"}
        else:
            properties.update({f"{NAMESPACE}:{key}": value for key, value in schema["properties"].items()})
    properties[f"{NAMESPACE}:provider"]["enum"] = sorted(platform_options)
    for key, meaning in _SECRETS.items():
        text = f"{meaning} Set it with `pulumi config set --secret {key}`."
        properties[f"{NAMESPACE}:{key}"] = {"description": text, "type": "object", "required": ["secure"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "vllm-anywhere stack file",
        "type": "object",
        "properties": {
            "config": {
                "type": "object",
                "properties": properties,
                "patternProperties": {f"^(?!{NAMESPACE}:)": {}},
                "additionalProperties": False,
            }
        },
        "$defs": definitions,
    }


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None  # pyright: ignore[reportUnknownVariableType]


def _no_map(full_key: str, key: str, text: str) -> Problem:
    """A section that is one value."""
    if key == "api_key":
        # Whoever writes a key there means it to be one.
        fix = "a map of settings, such as `{rotation: 2}`; a key of your own is `own_api_key`, set with `--secret`"
        return Problem(full_key, "[secret]", fix)
    names = (
        getattr(DeploymentSpec.model_fields[key].annotation, "model_fields", {})
        if key in DeploymentSpec.model_fields
        else {}
    )
    example = "".join(f", such as `{{{name}: ...}}`" for name in list(names)[:1])
    return Problem(full_key, _shown(text), f"a map of settings{example}")


def _problem(part: type[BaseModel], section: str, found: Any) -> Problem:
    """One pydantic error as a problem of the stack config."""
    parts = [section, *(str(p) for p in found["loc"])] if section else [str(p) for p in found["loc"]]
    key = f"{NAMESPACE}:" + ".".join(p for p in parts if p)
    if found["type"] == "extra_forbidden":
        known = _fields_at(part, found["loc"][:-1])
        meant = _did_you_mean(str(found["loc"][-1]), known, _PATHS if part is DeploymentSpec else {})
        shown = "[secret]" if _MAY_BE_SECRET.search(str(found["loc"][-1])) else _shown(found["input"])
        return Problem(key, shown, f"no such key. {meant}")
    hidden = isinstance((found.get("ctx") or {}).get("error"), SecretRefusedError)
    shown = "[secret]" if hidden else _shown(found["input"])
    return Problem(key, shown, _what_works(key, found) + _meaning(part, found["loc"]))


def _what_works(key: str, found: Any) -> str:
    context: Mapping[str, Any] = found.get("ctx") or {}
    match found["type"]:
        case "literal_error":
            return f"one of {context['expected']}"
        case "greater_than_equal":
            return f"{context['ge']} or more"
        case "greater_than":
            return f"more than {context['gt']}"
        case "less_than_equal":
            return f"{context['le']} or less"
        case "int_parsing" | "int_type" | "int_from_float":
            return "a whole number"
        case "float_parsing" | "float_type" | "decimal_parsing" | "decimal_type":
            return "a number"
        case "bool_parsing" | "bool_type":
            return "true or false"
        case "string_type":
            return "text"
        case "tuple_type" | "list_type":
            how = f"; one item at a time: `pulumi config set --path '{key}[0]' VALUE`"
            return f"a list, such as `[L4, T4]`{how if isinstance(found['input'], str) else ''}"
        case "model_type" | "model_attributes_type":
            return "a map of settings"
        case "string_pattern_mismatch":
            return f"text that matches {context['pattern']}"
        case "value_error":
            return str(context["error"])
        case _:
            return str(found["msg"])


def _meaning(part: type[BaseModel], loc: Sequence[str | int]) -> str:
    """The field's own description, so that the error explains the key too."""
    model: Any = part
    description = ""
    for step in loc:
        fields: Mapping[str, Any] = getattr(model, "model_fields", {})
        field = fields.get(str(step))
        if field is None:
            break
        description, model = field.description or "", field.annotation
    return f". {description}" if description else ""


def _fields_at(part: type[BaseModel], loc: Sequence[str | int]) -> list[str]:
    model: Any = part
    for step in loc:
        model = model.model_fields[str(step)].annotation
    return sorted(model.model_fields)


_PATHS: Mapping[str, str] = {
    **{
        name: f"{section}.{name}"
        for section, field in DeploymentSpec.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    },
    **{name: name for name in SECRET_KEYS},
    "replicas": "scaling.min",
    "tensor_parallel_size": "hardware.gpu_count",
}
"""What is asked for in the wrong place, or by the name that others give it, and its place."""


def _did_you_mean(word: str, known: Sequence[str], elsewhere: Mapping[str, str] = {}) -> str:
    """The nearest of the names that can stand there, or the place of one that stands `elsewhere`."""
    names = {**elsewhere, **{name: name for name in known}}
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"Did you mean `{names[close[0]]}`?" if close else "What there is: " + ", ".join(f"`{k}`" for k in known)


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
