"""`vllm-anywhere:runpod:Weights`: a model's weights on a network volume, put there once by a pod that then goes.

The pod has no GPU. What it does is told by its log, which holds one line a second: `weights: 1024 of 8061 MB`, and at
the end `weights: complete`. A download that was cut short goes on where it stopped, since what came is on the volume.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, ClassVar

from pydantic import Field, SecretStr

from providers.base import Interrupted, NotReady, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Found, Labelled, NativeResource, Properties
from providers.runpod import answers, pods
from providers.runpod.answers import exec_form
from providers.runpod.client import RunPod, connect

IMAGE = "python:3.12.12-slim"
HUB = "huggingface_hub==1.1.5"
CPU = "cpu3c"
VCPUS = 4
MOUNT = "/volume"

TIMEOUT_S = 3600.0
_PAUSE_S = 5.0
_LINES = 20
_PROGRESS = re.compile(r"weights: (\d+) of (\d+) MB")
_COMPLETE = "weights: complete"


class WeightsInputs(Labelled):
    """Which weights, on which volume."""

    volume_id: str = Field(description="The network volume.")
    data_center: str = Field(description="Where it is; the pod has to run there too.")
    model: str = Field(description="Hugging Face repository.")
    revision: str = Field(default="main", description="Git revision of the weights.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")


class WeightsOutputs(Properties):
    """What the volume holds."""

    label: str = Field(description="project/stack/resource/generation-owner.")
    volume_id: str = Field(description="The volume, with the weights on it.")
    model: str = Field(description="Hugging Face repository.")
    revision: str = Field(description="Git revision of the weights.")


class WeightsResource(NativeResource[WeightsInputs, WeightsOutputs]):
    """Fills a volume. Its id is the volume's; deleting it leaves the volume as it is."""

    token: ClassVar[str] = "vllm-anywhere:runpod:Weights"
    doc: ClassVar[str] = "A model's weights on a RunPod network volume."
    inputs = WeightsInputs
    outputs = WeightsOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset({"volume_id"})

    def create(self, context: Context, inputs: WeightsInputs) -> Created[WeightsOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: WeightsInputs) -> Created[WeightsOutputs]:
        """`create`, in a given account. The pod is gone when this returns, however it ends.

        Raises:
            NotReady: the download failed, or took longer than the time-out; the volume keeps what came.
        """
        pod = ensure_one(
            context,
            inputs.label,
            create=lambda: cloud.create("/v2/pods", create_body(inputs), answers.Pod, inputs.label),
            labelled=lambda label: pods.labelled(cloud, label),
            destroy=lambda id: cloud.delete(f"/v2/pods/{id}"),
            same=lambda pod: pod.status not in ("EXITED", "ERROR") and pod.args == exec_form(script(inputs)),
        )
        try:
            _wait(cloud, context, pod, inputs)
        finally:
            self._give_back(cloud, context, pod.id)
        return Created(inputs.volume_id, _outputs(inputs))

    def read(
        self, context: Context, id: str, inputs: WeightsInputs | None, outputs: WeightsOutputs | None
    ) -> Found[WeightsInputs, WeightsOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs, outputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: WeightsInputs | None, outputs: WeightsOutputs | None
    ) -> Found[WeightsInputs, WeightsOutputs] | None:
        """`read`, in a given account: what is on a volume can't be asked, only whether there is one."""
        if inputs is None or outputs is None:
            raise PlatformError("what is on a volume can't be read, so weights can't be imported; `pulumi up` fills it")
        found = cloud.get(f"/v2/network-volumes/{id}", answers.NetworkVolume)
        return Found(inputs, outputs) if found is not None else None

    def update(
        self, context: Context, id: str, outputs: WeightsOutputs, old: WeightsInputs, new: WeightsInputs
    ) -> Created[WeightsOutputs]:
        if (old.model, old.revision) == (new.model, new.revision):
            return Created(id, outputs)
        return self.create(context, new)

    def delete(self, context: Context, id: str, outputs: WeightsOutputs) -> None:
        self.delete_in(connect(context.wait), context, outputs)

    def delete_in(self, cloud: RunPod, context: Context, outputs: WeightsOutputs) -> None:
        """`delete`, in a given account: only a pod that an interrupted run may have left goes."""
        for pod in pods.labelled(cloud, outputs.label):
            self._give_back(cloud, context, pod.id)

    def _give_back(self, cloud: RunPod, context: Context, id: str) -> None:
        # A cancelled wait must not leave the pod: what it takes to delete it is not waited for then.
        try:
            ensure_gone(
                context,
                id,
                destroy=lambda id: cloud.delete(f"/v2/pods/{id}"),
                exists=lambda id: pods.get(cloud, id) is not None,
            )
        except Interrupted:
            cloud.delete(f"/v2/pods/{id}")
            raise


def create_body(inputs: WeightsInputs) -> dict[str, Any]:
    """A pod without a GPU, in the volume's data centre."""
    from serving.start import HF_TOKEN

    token = {HF_TOKEN: inputs.hf_token.get_secret_value()} if inputs.hf_token else {}
    return {
        "name": inputs.label,
        "image": IMAGE,
        "args": exec_form(script(inputs)),
        "env": {"HF_HOME": f"{MOUNT}/huggingface", **token},
        "ports": [],
        "disk": 10,
        "cpu": {"id": CPU, "vcpuCount": VCPUS},
        "cloud": "SECURE",
        "dataCenterIds": [inputs.data_center],
        "mounts": {"network": [{"volumeId": inputs.volume_id, "path": MOUNT}]},
        "startSsh": False,
        "startJupyter": False,
    }


def script(inputs: WeightsInputs) -> str:
    """Downloads, says how far it is, and then waits to be deleted: a container that ends would be started again."""
    program = files("providers.runpod").joinpath("fill_volume.py").read_text(encoding="utf-8")
    return (
        f"pip install --quiet --root-user-action ignore {HUB} || echo 'weights: failed'\n"
        f"python - {shlex.quote(inputs.model)} {shlex.quote(inputs.revision)} <<'END_OF_PROGRAM'\n"
        f"{program}END_OF_PROGRAM\n"
        "sleep infinity\n"
    )


def told(lines: Sequence[str]) -> tuple[str, str]:
    """What the log says: `complete`, `failed`, `loading` or "", and a sentence for people."""
    found: tuple[str, str] = ("", "")
    for line in lines:
        if _COMPLETE in line:
            return "complete", "the weights are on the volume"
        if "weights: failed" in line:
            return "failed", found[1]
        if measured := _PROGRESS.search(line):
            found = "loading", f"{measured[1]} of {measured[2]} MB"
        elif "weights: " in line:
            found = "loading", line.partition("weights: ")[2].strip()
    return found


def _wait(cloud: RunPod, context: Context, pod: answers.Pod, inputs: WeightsInputs) -> None:
    limit = context.timeout_s or TIMEOUT_S
    begun = context.clock()
    said = ""
    while True:
        state, said_now = _ask(cloud, context, pod.id)
        said = said_now or said
        if state == "complete":
            context.progress(f"{inputs.model} is on the volume")
            return
        waited = context.clock() - begun
        if state == "failed" or waited > limit:
            why = (
                f"Hugging Face refused: {said}" if state == "failed" else f"it took longer than {limit:.0f} s ({said})"
            )
            raise NotReady(
                f"{inputs.model} could not be put on the volume {inputs.volume_id}: {why}. The pod that loads it is "
                "deleted; the volume keeps what came, and is billed. `pulumi up` goes on from there"
            )
        context.progress(f"loading {inputs.model} onto the volume, {waited:.0f} s: {said or 'the pod is starting'}")
        context.wait(_PAUSE_S)


def _ask(cloud: RunPod, context: Context, id: str) -> tuple[str, str]:
    """What the pod says; a log that can't be read right now says nothing."""
    try:
        return told(cloud.log_lines(f"/v2/pods/{id}/logs", _LINES))
    except Interrupted:
        raise
    except PlatformError as error:
        context.progress(f"the pod's log can't be read: {error}")
        return "", ""


def _outputs(inputs: WeightsInputs) -> WeightsOutputs:
    return WeightsOutputs(label=inputs.label, volume_id=inputs.volume_id, model=inputs.model, revision=inputs.revision)
