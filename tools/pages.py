"""Writes what is generated of docs/: the reference of stack files from the spec, the known failures from their rules.

Both pages begin with text by hand and go on, below `MARKER`, with what this writes. `make docs` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ops.schema import stack_file_schema
from providers.base import platform_names
from serving import NAMESPACE
from serving.failures import RULES, Rule
from tools.heeded import where_heeded

ROOT = Path(__file__).resolve().parents[1]
MARKER = "<!-- From here on written by `make docs`. -->\n"
EVERYWHERE = "everywhere"


def config_reference() -> str:
    """Every key of a stack file, in Markdown: a section of the spec, or a platform, to a heading."""
    schema = stack_file_schema()
    config: Mapping[str, Any] = schema["properties"]["config"]["properties"]
    heeded = where_heeded()
    plain = {key: value for key, value in config.items() if "$ref" not in value}
    parts = {key.removeprefix(f"{NAMESPACE}:"): value for key, value in config.items() if "$ref" in value}
    lines = ["## Single values", "", *_table(plain, schema, "", {})]
    for name, value in parts.items():
        part = _resolved(value, schema)
        own = f"What only this platform has; [its page](platforms/{name}.md) explains it."
        about = own if name in platform_names() else part["description"]
        lines += ["", f"## `{name}`", "", about, ""]
        lines += _table(part["properties"], schema, f"{name}.", heeded)
    return "\n".join(lines) + "\n"


def known_failures() -> str:
    """Every rule of `serving.failures`, in Markdown."""
    return "\n".join(line for rule in RULES for line in _failure(rule)).rstrip() + "\n"


PAGES = {"docs/config.md": config_reference, "docs/troubleshooting.md": known_failures}
"""The pages that end in what is generated."""


def written(page: str, text: str) -> str:
    """The page's text with what is generated as it is now.

    Raises:
        ValueError: the page has no `MARKER`.
    """
    by_hand, marker, _ = text.partition(MARKER)
    if not marker:
        raise ValueError(f"{page} has no line {MARKER}")
    return f"{by_hand}{MARKER}\n{PAGES[page]()}"


def main() -> None:
    """Bring the pages up to date."""
    for page in PAGES:
        file = ROOT / page
        file.write_text(written(page, file.read_text(encoding="utf-8")), encoding="utf-8")


def _table(
    fields: Mapping[str, Any], schema: Mapping[str, Any], prefix: str, heeded: Mapping[str, str]
) -> Iterator[str]:
    where = any(f"{prefix}{name}" in heeded for name in fields)
    yield "| key | value | default | what it is |" + (" heeded by |" if where else "")
    yield "|---|---|---|---|" + ("---|" if where else "")
    for name, field in _leaves(fields, schema):
        key = name.removeprefix(f"{NAMESPACE}:")
        cells = [f"`{key}`", _kind(field), _default(field), _about(field)]
        if where:
            cells.append(heeded.get(f"{prefix}{key}", EVERYWHERE))
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _leaves(fields: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields, with those of a section within the section in its place: `route.tools`."""
    for name, found in fields.items():
        field = _resolved(found, schema)
        if "properties" in field:
            yield from ((f"{name}.{inner}", leaf) for inner, leaf in _leaves(field["properties"], schema))
        else:
            yield name, field


def _resolved(field: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" in field:
        definition = schema["$defs"][field["$ref"].rpartition("/")[2]]
        return {**definition, **{key: value for key, value in field.items() if key != "$ref"}}
    return dict(field)


def _kind(field: Mapping[str, Any]) -> str:
    """What a value looks like, for people: type and bounds."""
    alternatives = [one for one in field.get("anyOf", ()) if one.get("type") != "null"]
    if alternatives:
        return _kind(alternatives[0])
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    match field.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "integer":
            return f"whole number{_bounds(field)}"
        case "number":
            return f"number{_bounds(field)}"
        case "array":
            return f"list of {_kind(field['items'])}"
        case "object":
            return "secret"
        case _:
            return "text"


def _bounds(field: Mapping[str, Any]) -> str:
    low, above, high, below = (field.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"))
    parts = [
        f"from {low:,}" if low is not None else f"above {above:,}" if above is not None else "",
        f"to {high:,}" if high is not None else f"below {below:,}" if below is not None else "",
    ]
    return "".join(f" {part}" for part in parts if part)


def _default(field: Mapping[str, Any]) -> str:
    value = field.get("default")
    if value is None or value == "" or value == []:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{value}`"


def _about(field: Mapping[str, Any]) -> str:
    examples = [", ".join(map(str, one)) if isinstance(one, list) else str(one) for one in field.get("examples", ())]
    shown = " Such as " + " or ".join(f"`{one}`" for one in examples) + "." if examples else ""
    return f"{field.get('description', '')}{shown}"


def _failure(rule: Rule) -> Iterator[str]:
    yield f"### {rule.cause.rstrip('.')}"
    yield ""
    yield "In the log: " + " or ".join(f"`{words}`" for words in _words(rule.pattern))
    yield ""
    yield f"What helps: {_as_code(rule.fix)}"
    yield ""


def _words(pattern: str) -> list[str]:
    """What a pattern finds, for people: each alternative, with ... for what varies."""
    plain = re.sub(r"\[[^\]]*\][*+?]*|\\[A-Za-z][*+?]*|\.\*", "...", pattern)
    plain = re.sub(r"\(\?:([^|)]*)[^)]*\)(\?)?", lambda one: "" if one[2] else one[1], plain)
    plain = re.sub(r"(?<!\\)\([^)]*\)", "...", plain)
    plain = re.sub(r"(\.\.\.)[./]*\1", r"\1", plain)
    return [re.sub(r"\\(.)", r"\1", one).strip() for one in plain.split("|")]


def _as_code(fix: str) -> str:
    """The fix with its commands and keys set as code, and N for a figure from the log."""
    text = re.sub(r"\{\d\}", "N", fix)
    text = re.sub(r"(pulumi config set [^,(]*?)(?=$|,| \()", r"`\1`", text)
    return re.sub(rf"(?<![`\w])({NAMESPACE}:[\w.]+)(?![^`]*`[^`]*$)(?=$|[,) ])", r"`\1`", text)


if __name__ == "__main__":
    main()
