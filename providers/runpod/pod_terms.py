"""What a pod is asked for and judged by: its inputs, the ways to rent it, the bodies of the calls. Pure.

REST v2 takes one GPU type in one cloud at a time, so the list of acceptable ones is worked through by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any, Literal

from pydantic import Field, SecretStr

from providers.native import Labelled, generation_in
from providers.runpod import answers
from providers.runpod.answers import exec_form, script_of
from serving.guard import API_KEY, PREVIOUS_KEY

PORT = 8000

MOST_TRIED = 6
"""GPU types that are tried, cheapest first, when none is named."""

TOLERANCE = Decimal("1.05")
"""How far the billed rate may be above the listed one before it counts as another price."""

KEY_INPUTS = frozenset({"api_key", "key_reference", "previous_reference"})
"""A pod takes new keys by a restart only, so another one is rented that takes both, and this one serves until then."""

ENDED = ("EXITED", "ERROR")
"""Statuses of a pod that does not run and won't by itself."""
PRECISION = Decimal("0.0001")
"""What rates are rounded to, and the slack of a comparison."""

Cloud = Literal["SECURE", "COMMUNITY"]
Listed = Mapping[tuple[str, str], Decimal]
"""List price of a whole pod, disk included, in US dollars an hour, by GPU type id and cloud."""


class PodInputs(Labelled):
    """What to rent, and what to run on it."""

    gpus: list[str] = Field(min_length=1, description="RunPod GPU type ids that will do.")
    prefer: Literal["listed", "cheapest"] = Field(
        default="listed", description="Which of them is tried first: the first listed, or the cheapest at that moment."
    )
    gpu_count: int = Field(default=1, ge=1, description="GPUs in the pod.")
    clouds: list[Cloud] = Field(default=["SECURE"], min_length=1, description="Acceptable clouds, best first.")
    data_centers: list[list[str]] = Field(
        default=[], description="Acceptable data centres, in groups, best group first; empty for anywhere."
    )
    min_cuda: str = Field(default="", description="Lowest CUDA release of the host's driver, `major.minor`.")
    max_hourly_usd: str = Field(default="", description="Most US dollars an hour; above it the pod is given back.")
    image: str = Field(description="Container image, pinned.")
    script: str = Field(description="The sh script that the container runs.")
    env: dict[str, str] = Field(default={}, description="Environment variables that are not secret.")
    api_key: SecretStr = Field(description="The key that requests must carry.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")
    key_reference: SecretStr | None = Field(
        default=None, description="`{{ RUNPOD_SECRET_name }}` for the container's environment, instead of the key."
    )
    previous_reference: SecretStr | None = Field(
        default=None, description="The same of a key that counts too, or that key itself."
    )
    disk_gb: int = Field(default=60, ge=1, description="Container disk in GB, lost when the pod restarts.")
    volume_id: str = Field(default="", description="A network volume to mount.")
    volume_path: str = Field(default="/workspace", description="Where it is mounted.")
    registry: str = Field(default="", description="Id of the registry credential for a private image.")
    status: str = Field(default="running", description="Leave it: refresh says `exited` here, and `up` starts it.")


@dataclass(frozen=True)
class Candidate:
    """One way to rent it. `listed` is the list price of the whole pod in US dollars an hour, None when unknown."""

    gpu: str
    cloud: Cloud
    data_centers: tuple[str, ...]
    listed: Decimal | None

    def __str__(self) -> str:
        where = f" in {', '.join(self.data_centers)}" if self.data_centers else ""
        return f"{self.gpu} ({self.cloud.lower()}{where})"


def met_by(outputs: Mapping[str, Any], new: Mapping[str, Any]) -> frozenset[str]:
    """The wishes among new inputs that a pod with these outputs meets as it is; what isn't known is not met."""
    gpus, clouds, groups, cuda = (new.get(name) for name in ("gpus", "clouds", "data_centers", "min_cuda"))
    keys = keys_text(new.get("key_reference") or new.get("api_key"), new.get("previous_reference"))
    place, has = outputs.get("data_center"), outputs.get("cuda")
    met = {
        "gpus": isinstance(gpus, list) and outputs.get("gpu") in gpus,
        "clouds": isinstance(clouds, list) and outputs.get("cloud") in clouds,
        "data_centers": isinstance(groups, list) and (not groups or any(place in group for group in groups)),
        "min_cuda": cuda == "" or (isinstance(cuda, str) and bool(has) and _release(str(has)) >= _release(cuda)),
    }
    met |= dict.fromkeys(KEY_INPUTS, outputs.get("keys") == keys)
    return frozenset(name for name, yes in met.items() if yes)


def keys_text(key: object, previous: object) -> str:
    """The keys as a pod's environment has them, in one text for comparing."""
    return f"{key or ''} {previous or ''}"


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def candidates(inputs: PodInputs, listed: Listed | None) -> list[Candidate]:
    """Every way to rent it, best first. What `listed` lacks is not on offer; None means that prices aren't known."""
    pairs: list[tuple[str, Cloud]] = [(gpu, cloud) for gpu in inputs.gpus for cloud in inputs.clouds]
    prices = listed or {}
    if listed is not None:
        cap = amount(inputs.max_hourly_usd)
        pairs = [pair for pair in pairs if pair in prices and (cap is None or prices[pair] <= cap)]
        if inputs.prefer == "cheapest":
            pairs = sorted(pairs, key=prices.__getitem__)[:MOST_TRIED]
    groups = inputs.data_centers or [[]]
    return [Candidate(gpu, cloud, tuple(group), prices.get((gpu, cloud))) for gpu, cloud in pairs for group in groups]


def create_body(inputs: PodInputs, chosen: Candidate) -> dict[str, Any]:
    """The body of `POST /v2/pods`. What RunPod would fill in surprisingly is always sent."""
    gpu: dict[str, Any] = {"id": chosen.gpu, "count": inputs.gpu_count}
    if inputs.min_cuda:
        gpu["minCudaVersion"] = inputs.min_cuda
    body: dict[str, Any] = {
        "name": inputs.label,
        "image": inputs.image,
        "args": exec_form(inputs.script),
        "env": environment(inputs),
        "ports": [f"{PORT}/http"],
        "disk": inputs.disk_gb,
        "gpu": gpu,
        "cloud": chosen.cloud,
        "startSsh": False,
        "startJupyter": False,
    }
    if chosen.data_centers:
        body["dataCenterIds"] = list(chosen.data_centers)
    if inputs.volume_id:
        body["mounts"] = {"network": [{"volumeId": inputs.volume_id, "path": inputs.volume_path}]}
    if inputs.registry:
        body["registry"] = inputs.registry
    return body


def update_body(pod: answers.Pod, inputs: PodInputs) -> dict[str, Any]:
    """What `PATCH /v2/pods/{id}` has to change. `env` is replaced whole, so variables that RunPod put in are kept."""
    wanted = environment(inputs)
    body: dict[str, Any] = {}
    if pod.image != inputs.image:
        body["image"] = inputs.image
    if script_of(pod.args) != inputs.script:
        body["args"] = exec_form(inputs.script)
    if any(pod.env.get(name) != value for name, value in wanted.items()) or _dropped(pod, inputs):
        body["env"] = {**{n: v for n, v in pod.env.items() if n.startswith(_PLATFORM_VARIABLES)}, **wanted}
    if pod.disk != inputs.disk_gb:
        body["disk"] = inputs.disk_gb
    if (pod.registry or "") != inputs.registry:
        body["registry"] = inputs.registry or None
    if pod.name != inputs.label:
        body["name"] = inputs.label
    return body


def environment(inputs: PodInputs) -> dict[str, str]:
    """The container's environment: a reference to a RunPod secret where there is one, else the value in clear."""
    from serving.start import start_env

    token = inputs.hf_token.get_secret_value() if inputs.hf_token else None
    previous = inputs.previous_reference.get_secret_value() if inputs.previous_reference else None
    own = start_env(api_key=inputs.api_key.get_secret_value(), previous_key=previous, hf_token=token)
    stored = {API_KEY: inputs.key_reference.get_secret_value()} if inputs.key_reference else {}
    return {**inputs.env, **own, **stored}


def is_same(pod: answers.Pod, inputs: PodInputs) -> bool:
    """Whether a pod that an interrupted create left is what the inputs ask for, and runs."""
    return (
        pod.status not in ENDED
        and pod.gpu is not None
        and pod.gpu.id in inputs.gpus
        and pod.gpu.count == inputs.gpu_count
        and pod.cloud in inputs.clouds
        and _volume(pod) == inputs.volume_id
        and not update_body(pod, inputs)
    )


def objection(pod: answers.Pod, inputs: PodInputs, listed: Decimal | None) -> str:
    """Why a pod can't be kept: it costs more than allowed or listed, or is elsewhere; "" if it can."""
    cap = amount(inputs.max_hourly_usd)
    if cap is not None and pod.cost > cap:
        return f"RunPod bills ${pod.cost} an hour, and the most allowed is ${cap}"
    if cap is None and listed is not None and pod.cost > listed * TOLERANCE + PRECISION:
        return (
            f"RunPod bills ${pod.cost} an hour for what it lists at ${listed.quantize(PRECISION, ROUND_UP)}. "
            "To accept it set `vllm-anywhere:runpod.max_hourly_usd`"
        )
    allowed = {place for group in inputs.data_centers for place in group}
    if allowed and pod.data_center_id and pod.data_center_id not in allowed:
        return f"RunPod placed it in {pod.data_center_id}, and only {', '.join(sorted(allowed))} will do"
    return ""


def inputs_of(pod: answers.Pod, known: PodInputs | None) -> PodInputs:
    """Inputs that say what is there, in the words of what state knows where that still holds."""
    from serving.start import HF_TOKEN

    status = "exited" if pod.status in ENDED else "running"
    gpu = pod.gpu or answers.PodGpu(id="")
    if known is None:
        return PodInputs(
            label=pod.name,
            generation=generation_in(pod.name),
            gpus=[gpu.id],
            gpu_count=gpu.count,
            clouds=["COMMUNITY" if pod.cloud == "COMMUNITY" else "SECURE"],
            data_centers=[[pod.data_center_id]] if pod.data_center_id else [],
            image=pod.image,
            script=script_of(pod.args),
            env={
                n: v
                for n, v in pod.env.items()
                if n not in (API_KEY, PREVIOUS_KEY, HF_TOKEN) and not n.startswith(_PLATFORM_VARIABLES)
            },
            api_key=SecretStr(pod.env.get(API_KEY, "")),
            hf_token=SecretStr(pod.env[HF_TOKEN]) if HF_TOKEN in pod.env else None,
            previous_reference=SecretStr(pod.env[PREVIOUS_KEY]) if PREVIOUS_KEY in pod.env else None,
            disk_gb=pod.disk or 1,
            volume_id=_volume(pod),
            registry=pod.registry or "",
            status=status,
        )
    wanted = environment(known)
    found = {name: pod.env.get(name, "") for name in wanted}
    changed: dict[str, Any] = {
        "image": pod.image,
        "script": script_of(pod.args),
        "env": {n: pod.env[n] for n in known.env if n in pod.env},
        "disk_gb": pod.disk or known.disk_gb,
        "registry": pod.registry or "",
        "status": status,
        "gpus": known.gpus if gpu.id in known.gpus else [gpu.id],
        "gpu_count": gpu.count,
        "volume_id": _volume(pod),
    }
    if found.get(API_KEY) != wanted[API_KEY]:
        changed["api_key"] = SecretStr(found.get(API_KEY, ""))
    if PREVIOUS_KEY in wanted and found[PREVIOUS_KEY] != wanted[PREVIOUS_KEY]:
        changed["previous_reference"] = SecretStr(found[PREVIOUS_KEY])
    if HF_TOKEN in wanted and found[HF_TOKEN] != wanted[HF_TOKEN]:
        changed["hf_token"] = SecretStr(found[HF_TOKEN])
    return known.model_copy(update=changed)


_PLATFORM_VARIABLES = ("RUNPOD_", "PUBLIC_KEY", "JUPYTER_")
"""Variables that RunPod itself puts into a container's environment."""


def _dropped(pod: answers.Pod, inputs: PodInputs) -> bool:
    """Whether the pod has a variable that is wanted no longer."""
    wanted = environment(inputs)
    return any(name not in wanted and not name.startswith(_PLATFORM_VARIABLES) for name in pod.env)


def _volume(pod: answers.Pod) -> str:
    return pod.mounts.network[0].volume_id if pod.mounts and pod.mounts.network else ""


def amount(text: str) -> Decimal | None:
    """US dollars; None where nothing, or no amount, is said."""
    try:
        return Decimal(text) if text else None
    except ArithmeticError:
        return None
