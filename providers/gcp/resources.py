"""The project's own resources for GCP: the name that all others share, the zone with capacity, the VM's run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from providers.base import PlatformError
from providers.gcp.run import Run
from providers.gcp.zone import Zone
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties


def slug_of(label: str) -> str:
    """A name for everything of a stack: `va-<stack>-<hash of project and stack>`, at most 27 characters.

    A service account's may have 30, lower case and starting with a letter (RFC 1035).
    """
    project, stack, *_ = label.split("/")
    words = re.sub(r"[^a-z0-9]+", "-", stack.lower())[:17].strip("-")
    digest = hashlib.sha256(f"{project}/{stack}".encode()).hexdigest()[:6]
    return "-".join(part for part in ("va", words, digest) if part)


class NameInputs(Labelled):
    """Nothing but the label."""


class NameOutputs(Properties):
    """The name."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    slug: str = Field(description="What names of this stack's resources begin with, and the value of their label.")


class Name(NativeResource[NameInputs, NameOutputs]):
    """The stack's own name on Google Cloud: the same in every run, known before anything is created."""

    token: ClassVar[str] = "vllm-anywhere:gcp:Name"
    doc: ClassVar[str] = "A name for the resources of this stack on Google Cloud."
    inputs = NameInputs
    outputs = NameOutputs

    def preview(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"label": inputs["label"], "slug": slug_of(inputs["label"])} if inputs.get("label") else {}

    def create(self, context: Context, inputs: NameInputs) -> Created[NameOutputs]:
        slug = slug_of(inputs.label)
        return Created(slug, NameOutputs(label=inputs.label, slug=slug))

    def read(
        self, context: Context, id: str, inputs: NameInputs | None, outputs: NameOutputs | None
    ) -> Found[NameInputs, NameOutputs] | None:
        if inputs is None or outputs is None:
            raise PlatformError("a name is made from the stack's own; import the VM, the name comes by itself")
        return Found(inputs, outputs)

    def update(
        self, context: Context, id: str, outputs: NameOutputs, old: NameInputs, new: NameInputs
    ) -> Created[NameOutputs]:
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: NameOutputs) -> None:
        return None


RESOURCES: tuple[NativeResource[Any, Any], ...] = (Name(), Zone(), Run())
