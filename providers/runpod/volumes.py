"""`vllm-anywhere:runpod:NetworkVolume` and `:RegistryAuth`: what pods and workers refer to by id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr

from providers.base import AuthError, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties, generation_in
from providers.runpod import answers
from providers.runpod.client import RunPod, connect

PASSWORD_VARIABLE = "RUNPOD_REGISTRY_PASSWORD"

_VOLUMES = "/v2/network-volumes"
_REGISTRIES = "/v2/registries"


class VolumeInputs(Labelled):
    """How large, where."""

    size_gb: int = Field(ge=10, le=4096, description="Size in GB; it can only grow.")
    data_center: str = Field(min_length=1, description="The data centre, which pins what mounts it.")
    storage: Literal["", "STANDARD", "HIGH_PERFORMANCE"] = Field(
        default="", description="Storage tier; the data centre's own if empty."
    )


class VolumeOutputs(Properties):
    """What is kept, and billed, until it is destroyed."""

    label: str = Field(description="project/stack/resource/generation-owner, which is the volume's name.")
    size_gb: int = Field(description="Size in GB.")
    data_center: str = Field(description="Where it is.")
    storage: str = Field(description="Storage tier.")


class VolumeResource(NativeResource[VolumeInputs, VolumeOutputs]):
    """Lifecycle of a network volume."""

    token: ClassVar[str] = "vllm-anywhere:runpod:NetworkVolume"
    doc: ClassVar[str] = "A RunPod network volume."
    inputs = VolumeInputs
    outputs = VolumeOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"data_center", "storage"})

    def create(self, context: Context, inputs: VolumeInputs) -> Created[VolumeOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: VolumeInputs) -> Created[VolumeOutputs]:
        """`create`, in a given account."""

        def same(volume: answers.NetworkVolume) -> bool:
            there = (volume.size, volume.data_center)
            return there == (inputs.size_gb, inputs.data_center) and inputs.storage in ("", volume.type)

        body: dict[str, Any] = {"name": inputs.label, "size": inputs.size_gb, "dataCenter": inputs.data_center}
        if inputs.storage:
            body["type"] = inputs.storage
        made = ensure_one(
            context,
            inputs.label,
            create=lambda: cloud.create(_VOLUMES, body, answers.NetworkVolume, inputs.label),
            labelled=lambda label: cloud.labelled(_VOLUMES, "networkVolumes", answers.NetworkVolume, label),
            destroy=lambda id: cloud.delete(f"{_VOLUMES}/{id}"),
            same=same,
        )
        return Created(made.id, _volume(made))

    def read(
        self, context: Context, id: str, inputs: VolumeInputs | None, outputs: VolumeOutputs | None
    ) -> Found[VolumeInputs, VolumeOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs)

    def read_in(self, cloud: RunPod, id: str, inputs: VolumeInputs | None) -> Found[VolumeInputs, VolumeOutputs] | None:
        """`read`, in a given account."""
        found = cloud.get(f"{_VOLUMES}/{id}", answers.NetworkVolume)
        if found is None:
            return None
        known = inputs or VolumeInputs(
            label=found.label, generation=generation_in(found.label), size_gb=found.size, data_center=found.data_center
        )
        there = {"size_gb": found.size, "data_center": found.data_center}
        return Found(known.model_copy(update=there), _volume(found))

    def update(
        self, context: Context, id: str, outputs: VolumeOutputs, old: VolumeInputs, new: VolumeInputs
    ) -> Created[VolumeOutputs]:
        return self.update_in(connect(context.wait), id, outputs, new)

    def update_in(self, cloud: RunPod, id: str, outputs: VolumeOutputs, new: VolumeInputs) -> Created[VolumeOutputs]:
        """`update`, in a given account."""
        if new.size_gb < outputs.size_gb:
            raise PlatformError(
                f"the volume {id} has {outputs.size_gb} GB and RunPod can't make it smaller; it stays as it is. Set "
                f"`vllm-anywhere:runpod.volume_gb: {outputs.size_gb}` or more"
            )
        body = {"size": new.size_gb, "name": new.label}
        return Created(id, _volume(cloud.patch(f"{_VOLUMES}/{id}", body, answers.NetworkVolume)))

    def delete(self, context: Context, id: str, outputs: VolumeOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""
        ensure_gone(
            context,
            id,
            destroy=lambda id: cloud.delete(f"{_VOLUMES}/{id}"),
            exists=lambda id: cloud.get(f"{_VOLUMES}/{id}", answers.NetworkVolume) is not None,
        )


class RegistryInputs(Labelled):
    """Who may pull. RunPod never shows either again, so any change makes a new credential."""

    username: str = Field(min_length=1, description="User of the registry.")
    password: SecretStr | None = Field(
        default=None, description=f"Password or token; read from {PASSWORD_VARIABLE} if absent."
    )


class RegistryOutputs(Properties):
    """A credential that pods and workers refer to by its id."""

    label: str = Field(description="project/stack/resource/generation-owner, which is the credential's name.")


class RegistryResource(NativeResource[RegistryInputs, RegistryOutputs]):
    """Lifecycle of a registry credential."""

    token: ClassVar[str] = "vllm-anywhere:runpod:RegistryAuth"
    doc: ClassVar[str] = "A RunPod credential for a private container registry."
    inputs = RegistryInputs
    outputs = RegistryOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"username", "password"})

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        if not inputs.get("password") and not os.environ.get(PASSWORD_VARIABLE):
            return [Failure("username", f"its password is missing: `export {PASSWORD_VARIABLE}=...`")]
        return []

    def create(self, context: Context, inputs: RegistryInputs) -> Created[RegistryOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: RegistryInputs) -> Created[RegistryOutputs]:
        """`create`, in a given account."""
        password = inputs.password.get_secret_value() if inputs.password else os.environ.get(PASSWORD_VARIABLE, "")
        if not password:
            raise AuthError(f"the registry's password is missing; `export {PASSWORD_VARIABLE}=...`, then `pulumi up`")
        body = {"name": inputs.label, "username": inputs.username, "password": password}
        made = ensure_one(
            context,
            inputs.label,
            create=lambda: cloud.create(_REGISTRIES, body, answers.Named, inputs.label),
            labelled=lambda label: cloud.labelled(_REGISTRIES, "registries", answers.Named, label),
            destroy=lambda id: cloud.delete(f"{_REGISTRIES}/{id}"),
            # What it holds can't be read, so what was left is never known to be the same.
            same=lambda one: False,
        )
        return Created(made.id, RegistryOutputs(label=made.label))

    def read(
        self, context: Context, id: str, inputs: RegistryInputs | None, outputs: RegistryOutputs | None
    ) -> Found[RegistryInputs, RegistryOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: RegistryInputs | None
    ) -> Found[RegistryInputs, RegistryOutputs] | None:
        """`read`, in a given account."""
        found = cloud.get(f"{_REGISTRIES}/{id}", answers.Named)
        if found is None:
            return None
        known = inputs or RegistryInputs(label=found.label, generation=generation_in(found.label), username="unknown")
        return Found(known, RegistryOutputs(label=found.label))

    def update(
        self, context: Context, id: str, outputs: RegistryOutputs, old: RegistryInputs, new: RegistryInputs
    ) -> Created[RegistryOutputs]:
        return Created(id, outputs)

    def delete(self, context: Context, id: str, outputs: RegistryOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""
        ensure_gone(
            context,
            id,
            destroy=lambda id: cloud.delete(f"{_REGISTRIES}/{id}"),
            exists=lambda id: cloud.get(f"{_REGISTRIES}/{id}", answers.Named) is not None,
        )


def _volume(found: answers.NetworkVolume) -> VolumeOutputs:
    return VolumeOutputs(label=found.label, size_gb=found.size, data_center=found.data_center, storage=found.type)
