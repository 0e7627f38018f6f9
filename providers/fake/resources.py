"""`vllm-anywhere:fake:Instance`: the pattern that every cloud's resource follows, without a cloud."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, SecretStr

from providers.fake.client import FakeCloud, Instance, cloud, serve
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties, generation_in


class InstanceInputs(Labelled):
    """What to rent."""

    gpu: str = Field(description="GPU.")
    model: str = Field(description="Served model name.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    previous_key: SecretStr = Field(default=SecretStr(""), description="A key that counts too; empty for none.")
    status: str = Field(default="running", description="Leave it: refresh says `stopped` here, and `up` replaces it.")


class InstanceOutputs(Properties):
    """What was rented."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    gpu: str = Field(description="GPU.")
    status: str = Field(description="`running` or `stopped`.")
    endpoint: str = Field(description="OpenAI base URL; it answers while the engine runs.")


class FakeInstance(NativeResource[InstanceInputs, InstanceOutputs]):
    """Lifecycle of one fake instance."""

    token: ClassVar[str] = "vllm-anywhere:fake:Instance"
    doc: ClassVar[str] = "An instance of a cloud that exists only for tests."
    inputs = InstanceInputs
    outputs = InstanceOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"gpu", "model", "api_key", "previous_key", "status"})

    def create(self, context: Context, inputs: InstanceInputs) -> Created[InstanceOutputs]:
        return self.create_in(cloud(), context, inputs)

    def create_in(self, where: FakeCloud, context: Context, inputs: InstanceInputs) -> Created[InstanceOutputs]:
        """`create`, in a given cloud."""

        def same(one: Instance) -> bool:
            return (one.gpu, one.model, one.status) == (inputs.gpu, inputs.model, "running")

        made = ensure_one(
            context,
            inputs.label,
            create=lambda: where.create(inputs.label, inputs.gpu, inputs.model),
            labelled=where.labelled,
            destroy=where.destroy,
            same=same,
        )
        keys = {key.get_secret_value() for key in (inputs.api_key, inputs.previous_key)}
        port = serve(inputs.model, keys - {""})
        return Created(made.id, _outputs(made, f"http://127.0.0.1:{port}/v1"))

    def read(
        self, context: Context, id: str, inputs: InstanceInputs | None, outputs: InstanceOutputs | None
    ) -> Found[InstanceInputs, InstanceOutputs] | None:
        found = cloud().get(id)
        if found is None:
            return None
        if inputs is None:
            inputs = InstanceInputs(
                gpu=found.gpu,
                model=found.model,
                api_key=SecretStr(""),
                label=found.label,
                generation=generation_in(found.label),
            )
        inputs = inputs.model_copy(update={"status": found.status})
        return Found(inputs, _outputs(found, outputs.endpoint if outputs else ""))

    def update(
        self, context: Context, id: str, outputs: InstanceOutputs, old: InstanceInputs, new: InstanceInputs
    ) -> Created[InstanceOutputs]:
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: InstanceOutputs) -> None:
        self.delete_in(cloud(), context, id)

    def delete_in(self, where: FakeCloud, context: Context, id: str) -> None:
        """`delete`, in a given cloud."""
        ensure_gone(context, id, destroy=where.destroy, exists=lambda id: where.get(id) is not None)


def _outputs(one: Instance, endpoint: str) -> InstanceOutputs:
    return InstanceOutputs(label=one.label, gpu=one.gpu, status=one.status, endpoint=endpoint)


RESOURCES = (FakeInstance(),)
