"""`vllm-anywhere schema`: the JSON Schema of a stack file, for editors."""

from __future__ import annotations

import json
from typing import Any

from providers.base import FOR_TESTS, load_adapter, platform_names
from serving import NAMESPACE
from serving.config import spec_schema
from serving.gateway import SECTION, GatewaySpec


def add_schema(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("schema", help=__doc__)
    parser.set_defaults(run=lambda _: print(json.dumps(stack_file_schema(), indent=2)))  # pyright: ignore


def stack_file_schema() -> dict[str, Any]:
    """The schema of `stacks/Pulumi.<stack>.yaml`, with the sections of every platform that people use."""
    sections = {name: load_adapter(name).options for name in platform_names() if name != FOR_TESTS}
    schema = spec_schema({**sections, SECTION: GatewaySpec})
    # A section like a platform's, but no platform.
    schema["properties"]["config"]["properties"][f"{NAMESPACE}:provider"]["enum"] = sorted(sections)
    return schema
