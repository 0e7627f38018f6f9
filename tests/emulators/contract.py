"""A vendor's OpenAPI as the judge of what we send and of what an emulator answers.

The documents lie in `shared/contracts` beside the checkout and are not part of it: without them nothing is judged,
but where CI is set their absence is an error.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "contracts"
_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head"})
_NAMES_ONLY = frozenset({"required", "additionalProperties", "unevaluatedProperties", "dependentRequired"})
_SHORT = frozenset(
    {
        *("type", "enum", "const", "pattern", "minimum", "maximum"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    }
)
_URI = "urn:contract"


def contract(file: str) -> Contract | None:
    """The contract of that file name, or None where the folder isn't there. Raises `FileNotFoundError` in CI."""
    path = FOLDER / file
    if not path.exists() and not os.environ.get("CI"):
        return None
    return _read(path)


@cache
def _read(path: Path) -> Contract:
    text = path.read_text()
    return Contract(json.loads(text) if path.suffix == ".json" else yaml.safe_load(text))


class Contract:
    """An OpenAPI 3.1 document. What it says is a problem comes as text that never holds a value that was sent."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._registry = Registry().with_resource(_URI, Resource.from_contents(document, DRAFT202012))
        self._validators: dict[str, Draft202012Validator] = {}
        # Paths without parameters win over those with: /registries/delegations is no registry's id.
        self._paths = sorted(
            ((_pattern(path), path) for path in document["paths"]), key=lambda entry: entry[1].count("{")
        )

    def knows(self, method: str, path: str) -> bool:
        return self._operation(method, path) is not None

    def allowed(self, path: str) -> list[str]:
        """The methods of a path; none for one that isn't in the contract."""
        template = self._template(path)
        return [name.upper() for name in self._document["paths"][template] if name in _METHODS] if template else []

    def request_problems(self, method: str, path: str, query: Mapping[str, list[str]], body: Any) -> list[str]:
        """What is wrong with a request. Query parameters that the contract doesn't have are let pass."""
        pointer = self._operation(method, path)
        if pointer is None:
            return [f"{method} {path} is not in the contract"]
        return [*self._query_problems(pointer, query), *self._body_problems(pointer, body)]

    def response_problems(self, method: str, path: str, status: int, content_type: str, body: bytes) -> list[str]:
        """What is wrong with an answer."""
        pointer = self._operation(method, path)
        if pointer is None:
            return []
        responses = self._at(pointer)["responses"]
        key = str(status) if str(status) in responses else "default"
        if key not in responses:
            return [f"status {status} is not in the contract"]
        found = self._resolved(f"{pointer}/responses/{key}")
        content = self._at(found).get("content", {})
        if not content:
            return ["a body where the contract has none"] if body else []
        media = content_type.partition(";")[0].strip()
        if media not in content:
            return [f"content type {media!r}, not {' or '.join(content)}"]
        if not media.endswith("json"):
            return []
        return self._problems(f"{found}/content/{_escaped(media)}/schema", json.loads(body))

    def _body_problems(self, pointer: str, body: Any) -> Iterator[str]:
        request = self._at(pointer).get("requestBody")
        if request is None:
            return
        if body is None:
            if request.get("required"):
                yield "the body is missing"
            return
        found = self._resolved(f"{pointer}/requestBody")
        yield from self._problems(f"{found}/content/{_escaped('application/json')}/schema", body)

    def _query_problems(self, pointer: str, query: Mapping[str, list[str]]) -> Iterator[str]:
        for index in range(len(self._at(pointer).get("parameters", ()))):
            found = self._resolved(f"{pointer}/parameters/{index}")
            parameter = self._at(found)
            name = parameter["name"]
            if parameter["in"] != "query":
                continue
            if name not in query:
                if parameter.get("required"):
                    yield f"query parameter {name} is missing"
                continue
            schema = self._at(self._resolved(f"{found}/schema"))
            value = _parsed(query[name], schema, parameter.get("explode", True))
            yield from (f"query parameter {name}: {text}" for text in self._problems(f"{found}/schema", value))

    def _problems(self, pointer: str, value: Any) -> list[str]:
        if pointer not in self._validators:
            self._validators[pointer] = Draft202012Validator(
                {"$ref": f"{_URI}#{pointer}"},
                registry=self._registry,
                format_checker=Draft202012Validator.FORMAT_CHECKER,
            )
        errors = list(self._validators[pointer].iter_errors(value))
        # A part that fails leaves its own properties "unevaluated", and that then says nothing.
        telling = [error for error in errors if error.validator != "unevaluatedProperties"] or errors
        return sorted(_told(error) for error in telling)

    def _template(self, path: str) -> str | None:
        return next((template for pattern, template in self._paths if pattern.fullmatch(path.rstrip("/"))), None)

    def _operation(self, method: str, path: str) -> str | None:
        template = self._template(path)
        if template is None or method.lower() not in self._document["paths"][template]:
            return None
        return f"/paths/{_escaped(template)}/{method.lower()}"

    def _resolved(self, pointer: str) -> str:
        """The pointer behind the one that is there."""
        reference = self._at(pointer).get("$ref")
        return self._resolved(reference.removeprefix("#")) if reference else pointer

    def _at(self, pointer: str) -> Any:
        found: Any = self._document
        for part in pointer.split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            found = found[int(part)] if isinstance(found, list) else found[part]
        return found


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{[^/]*?\\\}", "[^/]+", re.escape(path.rstrip("/"))))


def _escaped(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def _parsed(values: list[str], schema: Mapping[str, Any], explode: bool) -> Any:
    """A query parameter as its schema has it; a text that is no number stays one and fails against the schema."""
    if schema.get("type") == "array":
        return values if explode else [item for value in values for item in value.split(",")]
    try:
        known = {"integer": int, "number": float, "boolean": {"true": True, "false": False}.__getitem__}
        return known.get(str(schema.get("type")), str)(values[-1])
    except (ValueError, KeyError):
        return values[-1]


def _told(error: ValidationError) -> str:
    inner = best_match([error]) or error
    if inner.validator in _NAMES_ONLY:
        return f"{inner.json_path}: {inner.message}"
    wanted = json.dumps(inner.validator_value) if inner.validator in _SHORT else ""
    return f"{inner.json_path}: does not satisfy {' '.join(filter(None, [str(inner.validator), wanted]))}"
