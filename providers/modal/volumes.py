"""`vllm-anywhere:modal:Volume`: where weights and compiled kernels stay, so that a start needn't fetch them again.

The first TiB of a workspace is free, and what is above it is billed as long as it is there; so a volume is a resource
of its own that goes with the stack. Its name is no other stack's and nobody else's, so that a destroy never takes the
files of somebody who has chosen the same one.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from providers.base import PlatformError
from providers.lifecycle import ensure_gone
from providers.modal.client import Modal, connect
from providers.modal.labels import id_of, name_of, split_id
from providers.modal.session import NoAnswer
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties, owner_in


class VolumeInputs(Labelled):
    """Where it is."""

    environment: str = Field(min_length=1, description="Modal environment.")


class VolumeOutputs(Properties):
    """What is kept until it is destroyed."""

    label: str = Field(description="project/stack/resource/generation-owner, which the name is made of.")
    environment: str = Field(description="Modal environment.")
    name: str = Field(description="Name of the volume.")


class VolumeResource(NativeResource[VolumeInputs, VolumeOutputs]):
    """Lifecycle of a volume. Its id is environment/name."""

    token: ClassVar[str] = "vllm-anywhere:modal:Volume"
    doc: ClassVar[str] = "A Modal volume for weights and compiled kernels."
    inputs = VolumeInputs
    outputs = VolumeOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"environment"})

    def create(self, context: Context, inputs: VolumeInputs) -> Created[VolumeOutputs]:
        return self.create_in(connect(context.pause), inputs)

    def create_in(self, cloud: Modal, inputs: VolumeInputs) -> Created[VolumeOutputs]:
        """`create`, in a given account. With an owner, what is there already can only be this stack's own.

        Raises:
            PlatformError: Modal did not answer; or without an owner, there is one of that name already.
        """
        id = id_of(inputs.environment, name_of(inputs.label))
        try:
            cloud.create_volume(id, again=bool(owner_in(inputs.label)))
        except NoAnswer as error:
            raise PlatformError(
                f"{error}. If it is there, it is empty and costs nothing: `pulumi up` asks again"
            ) from error
        return Created(id, _outputs(id, inputs.label))

    def read(
        self, context: Context, id: str, inputs: VolumeInputs | None, outputs: VolumeOutputs | None
    ) -> Found[VolumeInputs, VolumeOutputs] | None:
        return self.read_in(connect(context.pause), id, inputs)

    def read_in(self, cloud: Modal, id: str, inputs: VolumeInputs | None) -> Found[VolumeInputs, VolumeOutputs] | None:
        """`read`, in a given account."""
        if not cloud.has_volume(id):
            return None
        known = inputs or VolumeInputs(environment=split_id(id)[0])
        return Found(known, _outputs(id, known.label))

    def update(
        self, context: Context, id: str, outputs: VolumeOutputs, old: VolumeInputs, new: VolumeInputs
    ) -> Created[VolumeOutputs]:
        return Created(id, _outputs(id, new.label))

    def delete(self, context: Context, id: str, outputs: VolumeOutputs) -> None:
        self.delete_in(connect(context.pause), context, id)

    def delete_in(self, cloud: Modal, context: Context, id: str) -> None:
        """`delete`, in a given account, with all that is on it."""
        ensure_gone(context, id, destroy=cloud.delete_volume, exists=cloud.has_volume)


def _outputs(id: str, label: str) -> VolumeOutputs:
    environment, name = split_id(id)
    return VolumeOutputs(label=label, environment=environment, name=name)
