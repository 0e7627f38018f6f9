"""`vllm-anywhere:gcp:Run`: one run of the VM, from a start to the next stop.

No output of the package's Instance changes when a VM stops and starts, so nothing would tell that the model has to
answer anew after a change of machine type, or after Google took a spot VM and `up` started it again. Google's
`lastStartTimestamp` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from providers.base import PlatformError
from providers.native import Context, Created, Found, NativeResource, Properties


class RunInputs(Properties):
    """What runs. Another value means that the VM was started anew."""

    instance: str = Field(description="The VM, as projects/P/zones/Z/instances/N.")
    instance_id: str = Field(description="The number that Google gives each VM anew.")
    machine_type: str = Field(description="Machine type, whose change takes a stop.")
    secure_boot: bool = Field(description="Secure Boot, whose change takes a stop.")
    status: str = Field(default="", description="Leave it: refresh says what it sees where this run is over.")


class RunOutputs(Properties):
    """When it began."""

    instance: str = Field(description="The VM.")
    instance_id: str = Field(description="Its number.")
    started_at: str = Field(description='When Google last started it (RFC 3339); "" where Google could not be asked.')


class Run(NativeResource[RunInputs, RunOutputs]):
    """The VM's present run. It is nothing on Google's side, and costs nothing."""

    token: ClassVar[str] = "vllm-anywhere:gcp:Run"
    doc: ClassVar[str] = "One run of a VM, from its start to its stop."
    inputs = RunInputs
    outputs = RunOutputs

    def create(self, context: Context, inputs: RunInputs) -> Created[RunOutputs]:
        _, started = _seen(context, inputs.instance)
        outputs = RunOutputs(instance=inputs.instance, instance_id=inputs.instance_id, started_at=started)
        return Created("run", outputs)

    def read(
        self, context: Context, id: str, inputs: RunInputs | None, outputs: RunOutputs | None
    ) -> Found[RunInputs, RunOutputs] | None:
        if inputs is None or outputs is None:
            raise PlatformError("a run can't be imported; import the VM, its run comes by itself")
        status, started = _seen(context, inputs.instance)
        over = ""
        if status and status != "RUNNING":
            over = status
        elif started != outputs.started_at and started:
            over = f"started anew at {started}"
        return Found(inputs.model_copy(update={"status": over}), outputs)

    def update(
        self, context: Context, id: str, outputs: RunOutputs, old: RunInputs, new: RunInputs
    ) -> Created[RunOutputs]:
        return self.create(context, new)

    def delete(self, context: Context, id: str, outputs: RunOutputs) -> None:
        return None


def _seen(context: Context, instance: str) -> tuple[str, str]:
    """Status and last start of a VM; "" for what can't be told."""
    from providers.gcp.client import Refused, connect

    try:
        found: Mapping[str, Any] = connect().get("compute", instance)
    except Refused as error:
        return ("GONE" if error.status == 404 else ""), ""
    except PlatformError as error:
        context.progress(f"when the VM started isn't known: {error}")
        return "", ""
    return str(found.get("status") or ""), str(found.get("lastStartTimestamp") or "")
