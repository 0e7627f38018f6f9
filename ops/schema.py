"""`vllm-anywhere schema`: the JSON Schema of a stack file, for editors."""

from __future__ import annotations

from typing import Any

from providers.base import load_adapter, platform_names
from serving.spec import spec_schema

_FOR_TESTS = "fake"


def stack_file_schema() -> dict[str, Any]:
    """The schema of `stacks/Pulumi.<stack>.yaml`, with the sections of every platform that people use."""
    return spec_schema({name: load_adapter(name).options for name in platform_names() if name != _FOR_TESTS})
