"""`vllm-anywhere:runpod:Secret`: a value in RunPod's secret store, so that no pod's plain environment shows it.

`/v2/account/secrets` (docs.runpod.io, autumn 2026) is younger than the API's document of August 2026. An account or a
key that has no access to it gets the value itself as the reference, still a secret in state.
"""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar

from pydantic import Field, SecretStr

from providers.base import PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties
from providers.runpod import answers
from providers.runpod.client import Forbidden, Refused, RunPod, connect

_PATH = "/v2/account/secrets"
_NONE = "in-clear"


class SecretInputs(Labelled):
    """What to keep."""

    value: SecretStr = Field(description="The value.")


class SecretOutputs(Properties):
    """How to refer to it."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    reference: SecretStr = Field(description="`{{ RUNPOD_SECRET_name }}`, or the value where there is no secret store.")


class SecretResource(NativeResource[SecretInputs, SecretOutputs]):
    """Lifecycle of a secret. A new value is a new secret: what refers to it has to start anew to see it."""

    token: ClassVar[str] = "vllm-anywhere:runpod:Secret"
    doc: ClassVar[str] = "A value in RunPod's secret store."
    inputs = SecretInputs
    outputs = SecretOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"value"})

    def create(self, context: Context, inputs: SecretInputs) -> Created[SecretOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: SecretInputs) -> Created[SecretOutputs]:
        """`create`, in a given account."""
        name = name_of(inputs.label)
        value = inputs.value.get_secret_value()
        body = {"name": name, "value": value, "description": inputs.label}
        try:
            cloud.all(_PATH, "secrets", answers.Named)
        except (Refused, Forbidden) as error:
            if isinstance(error, Refused) and error.status not in (404, 405, 410):
                raise
            context.progress(f"RunPod's secret store can't be used, so pods will have the value in clear: {error}")
            return Created(_NONE, SecretOutputs(label=inputs.label, reference=inputs.value))
        made = ensure_one(
            context,
            name,
            create=lambda: cloud.create(_PATH, body, answers.Named, name),
            labelled=lambda label: cloud.labelled(_PATH, "secrets", answers.Named, label),
            destroy=lambda id: cloud.delete(f"{_PATH}/{id}"),
            # What it holds can't be read, so what was left is never known to be the same.
            same=lambda one: False,
        )
        reference = SecretStr(f"{{{{ RUNPOD_SECRET_{name} }}}}")
        return Created(made.id, SecretOutputs(label=inputs.label, reference=reference))

    def read(
        self, context: Context, id: str, inputs: SecretInputs | None, outputs: SecretOutputs | None
    ) -> Found[SecretInputs, SecretOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs, outputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: SecretInputs | None, outputs: SecretOutputs | None
    ) -> Found[SecretInputs, SecretOutputs] | None:
        """`read`, in a given account."""
        if inputs is None or outputs is None:
            raise PlatformError(
                "RunPod never shows what a secret holds, so it can't be imported; `pulumi up` makes one"
            )
        if id != _NONE and cloud.get(f"{_PATH}/{id}", answers.Named) is None:
            return None
        return Found(inputs, outputs)

    def update(
        self, context: Context, id: str, outputs: SecretOutputs, old: SecretInputs, new: SecretInputs
    ) -> Created[SecretOutputs]:
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: SecretOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""
        if id == _NONE:
            return
        ensure_gone(
            context,
            id,
            destroy=lambda id: cloud.delete(f"{_PATH}/{id}"),
            exists=lambda id: cloud.get(f"{_PATH}/{id}", answers.Named) is not None,
        )


def name_of(label: str) -> str:
    """The secret's name, which a reference can hold: letters, digits and `_`, different for each label."""
    return f"va_{re.sub(r'[^A-Za-z0-9]+', '_', label)[:120]}_{hashlib.sha256(label.encode()).hexdigest()[:8]}"
