"""`vllm-anywhere:runpod:Pod`: one rented GPU machine that runs the plain vLLM image.

REST v2 takes one GPU type in one cloud at a time, so the list of acceptable ones is worked through here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_UP, Decimal
from typing import Any, ClassVar, Literal

from pydantic import Field, SecretStr

from providers.base import AuthError, NoCapacity, PlatformError
from providers.lifecycle import ensure_gone, ensure_one
from providers.native import Context, Created, Failure, Found, Labelled, NativeResource, Properties
from providers.runpod import answers
from providers.runpod.answers import GpuType, exec_form, script_of
from providers.runpod.client import Forbidden, RunPod, connect
from serving.spec import HOURS_PER_MONTH
from serving.start import API_KEY, HF_TOKEN, start_env

PORT = 8000

MOST_TRIED = 6
"""GPU types that are tried, cheapest first, when none is named."""

TOLERANCE = Decimal("1.05")
"""How far the billed rate may be above the listed one before it counts as another price."""

_SETTLING_PAUSES_S = (0.0, 1.0, 2.0, 4.0, 8.0)
_ENDED = ("EXITED", "ERROR")
_CENT = Decimal("0.0001")

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
    disk_gb: int = Field(default=60, ge=1, description="Container disk in GB, lost when the pod restarts.")
    volume_id: str = Field(default="", description="A network volume to mount.")
    volume_path: str = Field(default="/workspace", description="Where it is mounted.")
    registry: str = Field(default="", description="Id of the registry credential for a private image.")
    status: str = Field(default="running", description="Leave it: refresh says `exited` here, and `up` starts it.")


class PodOutputs(Properties):
    """What was rented."""

    label: str = Field(description="project/stack/resource/generation, which is the pod's name.")
    gpu: str = Field(description="RunPod GPU type id that it got.")
    cloud: str = Field(description="SECURE or COMMUNITY.")
    data_center: str = Field(description="Where it is, empty while RunPod does not say.")
    cuda: str = Field(description="CUDA release of the host's driver, empty while unknown.")
    status: str = Field(description="RunPod's status of the pod.")
    hourly_usd: str = Field(description="What RunPod bills, in US dollars an hour.")
    endpoint: str = Field(description="OpenAI base URL, through RunPod's proxy: 100 seconds to the first byte.")
    run: str = Field(description="Changes whenever the container is started anew.")


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


class PodResource(NativeResource[PodInputs, PodOutputs]):
    """Lifecycle of a pod."""

    token: ClassVar[str] = "vllm-anywhere:runpod:Pod"
    doc: ClassVar[str] = "A RunPod pod that serves one model with vLLM."
    inputs = PodInputs
    outputs = PodOutputs
    replace_on: ClassVar[frozenset[str]] = frozenset(
        {"gpus", "gpu_count", "clouds", "data_centers", "min_cuda", "volume_id"}
    )

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        cap = inputs.get("max_hourly_usd")
        if isinstance(cap, str) and cap and (_decimal(cap) is None):
            return [Failure("max_hourly_usd", "an amount of US dollars, such as `0.50`")]
        return []

    def create(self, context: Context, inputs: PodInputs) -> Created[PodOutputs]:
        return self.create_in(connect(context.wait), context, inputs)

    def create_in(self, cloud: RunPod, context: Context, inputs: PodInputs) -> Created[PodOutputs]:
        """`create`, in a given account."""
        listed = _listed(cloud, context, inputs)
        options = candidates(inputs, listed)
        if not options:
            raise NoCapacity(_none_listed(inputs))
        made = ensure_one(
            context,
            inputs.label,
            create=lambda: _first_free(cloud, context, inputs, options),
            labelled=lambda label: [pod for pod in _labelled(cloud, label) if pod.status != "TERMINATED"],
            destroy=lambda id: cloud.delete(_path(id)),
            same=lambda pod: is_same(pod, inputs),
        )
        try:
            made = _settled(cloud, context, made)
            problem = objection(made, inputs, _listed_for(made, options))
            if problem:
                self.delete_in(cloud, context, made.id)
        except PlatformError as error:
            # It exists: whatever goes wrong from here on, its id has to reach the state.
            problem = f"{made.id} was created and is kept: {error}{_bills(made)}. `pulumi destroy` gives it back"
            return Created(made.id, _outputs(cloud, made, made.created_at), problem)
        if problem:
            raise PlatformError(f"{problem}. The pod {made.id} was deleted again and bills nothing more")
        outputs = _outputs(cloud, made, made.created_at)
        if made.status == "ERROR":
            why = f"{made.id} can't start its container{_bills(made)}; `vllm-anywhere logs` shows what it said"
            return Created(made.id, outputs, why)
        context.progress(f"{made.id} is {made.status.lower()} on {outputs.gpu}, ${outputs.hourly_usd} an hour")
        return Created(made.id, outputs)

    def read(
        self, context: Context, id: str, inputs: PodInputs | None, outputs: PodOutputs | None
    ) -> Found[PodInputs, PodOutputs] | None:
        return self.read_in(connect(context.wait), id, inputs, outputs)

    def read_in(
        self, cloud: RunPod, id: str, inputs: PodInputs | None, outputs: PodOutputs | None
    ) -> Found[PodInputs, PodOutputs] | None:
        """`read`, in a given account."""
        pod = _get(cloud, id)
        if pod is None:
            return None
        run = outputs.run if outputs else pod.started_at or pod.created_at
        return Found(inputs_of(pod, inputs), _outputs(cloud, pod, run))

    def update(
        self, context: Context, id: str, outputs: PodOutputs, old: PodInputs, new: PodInputs
    ) -> Created[PodOutputs]:
        return self.update_in(connect(context.wait), context, id, outputs, old, new)

    def update_in(
        self, cloud: RunPod, context: Context, id: str, outputs: PodOutputs, old: PodInputs, new: PodInputs
    ) -> Created[PodOutputs]:
        """`update`, in a given account."""
        pod = _get(cloud, id)
        if pod is None:
            raise PlatformError(
                f"the pod {id} is gone, and nothing is billed for it; `pulumi refresh`, then `pulumi up` rents another"
            )
        if problem := objection(pod, new, None):
            raise PlatformError(f"{problem}. The pod {id} goes on as before{_bills(pod)}")
        body = update_body(pod, new)
        if body:
            context.progress(f"changing {', '.join(sorted(body))}; the container restarts")
            pod = cloud.patch(_path(id), body, answers.Pod)
        started = pod.status in _ENDED
        if started:
            context.progress("starting the stopped pod")
            cloud.act(_path(id), "start")
            pod = _get(cloud, id) or pod
        run = context.now().isoformat(timespec="seconds") if body or started else outputs.run
        return Created(id, _outputs(cloud, pod, run))

    def delete(self, context: Context, id: str, outputs: PodOutputs) -> None:
        self.delete_in(connect(context.wait), context, id)

    def delete_in(self, cloud: RunPod, context: Context, id: str) -> None:
        """`delete`, in a given account."""

        def destroy(id: str) -> None:
            context.progress(f"deleting {id}")
            cloud.delete(_path(id))

        def exists(id: str) -> bool:
            pod = _get(cloud, id)
            if pod is not None:
                context.progress(f"{id} is still {pod.status.lower()}{_bills(pod)}")
            return pod is not None

        ensure_gone(context, id, destroy=destroy, exists=exists)


def candidates(inputs: PodInputs, listed: Listed | None) -> list[Candidate]:
    """Every way to rent it, best first. What `listed` lacks is not on offer; None means that prices aren't known."""
    pairs: list[tuple[str, Cloud]] = [(gpu, cloud) for gpu in inputs.gpus for cloud in inputs.clouds]
    prices = listed or {}
    if listed is not None:
        cap = _decimal(inputs.max_hourly_usd)
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
    token = inputs.hf_token.get_secret_value() if inputs.hf_token else None
    own = start_env(api_key=inputs.api_key.get_secret_value(), hf_token=token)
    stored = {API_KEY: inputs.key_reference.get_secret_value()} if inputs.key_reference else {}
    return {**inputs.env, **own, **stored}


def is_same(pod: answers.Pod, inputs: PodInputs) -> bool:
    """Whether a pod that an interrupted create left is what the inputs ask for, and runs."""
    return (
        pod.status not in _ENDED
        and pod.gpu is not None
        and pod.gpu.id in inputs.gpus
        and pod.gpu.count == inputs.gpu_count
        and pod.cloud in inputs.clouds
        and _volume(pod) == inputs.volume_id
        and not update_body(pod, inputs)
    )


def objection(pod: answers.Pod, inputs: PodInputs, listed: Decimal | None) -> str:
    """Why a pod can't be kept: it costs more than allowed or listed, or is elsewhere; "" if it can."""
    cap = _decimal(inputs.max_hourly_usd)
    if cap is not None and pod.cost > cap:
        return f"RunPod bills ${pod.cost} an hour, and the most allowed is ${cap}"
    if cap is None and listed is not None and pod.cost > listed * TOLERANCE + _CENT:
        return (
            f"RunPod bills ${pod.cost} an hour for what it lists at ${listed.quantize(_CENT, ROUND_UP)}. "
            "To accept it set `vllm-anywhere:runpod.max_hourly_usd`"
        )
    allowed = {place for group in inputs.data_centers for place in group}
    if allowed and pod.data_center_id and pod.data_center_id not in allowed:
        return f"RunPod placed it in {pod.data_center_id}, and only {', '.join(sorted(allowed))} will do"
    return ""


def inputs_of(pod: answers.Pod, known: PodInputs | None) -> PodInputs:
    """Inputs that say what is there, in the words of what state knows where that still holds."""
    status = "exited" if pod.status in _ENDED else "running"
    gpu = pod.gpu or answers.PodGpu(id="")
    if known is None:
        generation = pod.name.rpartition("/")[2]
        return PodInputs(
            label=pod.name,
            generation=int(generation) if generation.isdigit() else 1,
            gpus=[gpu.id],
            gpu_count=gpu.count,
            clouds=["COMMUNITY" if pod.cloud == "COMMUNITY" else "SECURE"],
            data_centers=[[pod.data_center_id]] if pod.data_center_id else [],
            image=pod.image,
            script=script_of(pod.args),
            env={n: v for n, v in pod.env.items() if n not in _OWN and not n.startswith(_PLATFORM_VARIABLES)},
            api_key=SecretStr(pod.env.get(API_KEY, "")),
            hf_token=SecretStr(pod.env[HF_TOKEN]) if HF_TOKEN in pod.env else None,
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
    if HF_TOKEN in wanted and found[HF_TOKEN] != wanted[HF_TOKEN]:
        changed["hf_token"] = SecretStr(found[HF_TOKEN])
    return known.model_copy(update=changed)


_OWN = (API_KEY, HF_TOKEN)
_PLATFORM_VARIABLES = ("RUNPOD_", "PUBLIC_KEY", "JUPYTER_")
"""Variables that RunPod itself puts into a container's environment."""


def _dropped(pod: answers.Pod, inputs: PodInputs) -> bool:
    """Whether the pod has a variable that is wanted no longer."""
    wanted = environment(inputs)
    return any(name not in wanted and not name.startswith(_PLATFORM_VARIABLES) for name in pod.env)


def _first_free(cloud: RunPod, context: Context, inputs: PodInputs, options: Sequence[Candidate]) -> answers.Pod:
    """Rent the first candidate that RunPod has.

    Raises:
        NoCapacity: when it has none of them; nothing was created.
    """
    refusals: list[str] = []
    forbidden: AuthError | None = None
    for chosen in options:
        price = f", listed at ${chosen.listed.quantize(_CENT, ROUND_UP)} an hour" if chosen.listed else ""
        context.progress(f"asking for {chosen}{price}")
        try:
            return cloud.create("/v2/pods", create_body(inputs, chosen), answers.Pod, inputs.label)
        except NoCapacity:
            refusals.append(f"{chosen}: none free")
        except Forbidden as error:
            forbidden = error
            refusals.append(f"{chosen}: not for this account")
    if forbidden is not None and all("not for" in refusal for refusal in refusals):
        raise forbidden
    raise NoCapacity(
        "RunPod has none of these free: " + "; ".join(refusals) + ". Nothing was created, nothing is billed. "
        "`pulumi up` asks again; more names in `vllm-anywhere:hardware.gpus`, more places in "
        "`vllm-anywhere:placement.regions`, or `vllm-anywhere:placement.tier: any` widen the choice"
    )


def _listed(cloud: RunPod, context: Context, inputs: PodInputs) -> Listed | None:
    """What RunPod lists now; None when it does not say and there is a cap to go by instead."""
    try:
        rows = cloud.gpu_types()
    except AuthError:
        raise
    except PlatformError as error:
        if not inputs.max_hourly_usd:
            raise PlatformError(
                f"the price can't be checked before renting: {error}. Nothing was created. `pulumi up` tries again; "
                "with a cap in `vllm-anywhere:runpod.max_hourly_usd` it would go on without the list"
            ) from error
        context.progress(f"going by the cap of ${inputs.max_hourly_usd} an hour alone: {error}")
        return None
    return dict(_prices(rows, inputs))


def _prices(rows: Sequence[GpuType], inputs: PodInputs) -> Iterator[tuple[tuple[str, str], Decimal]]:
    from providers.runpod.pricing import dated_rate

    # What isn't known can't be added; the tolerance then stands for it.
    disk = (dated_rate("pod", "disk").unit_price or Decimal(0)) * inputs.disk_gb / HOURS_PER_MONTH
    for row in rows:
        if row.id in inputs.gpus:
            for cloud, offered, each in (
                ("SECURE", row.secure, row.price.secure),
                ("COMMUNITY", row.community, row.price.community),
            ):
                if cloud in inputs.clouds and offered and each:
                    yield (row.id, cloud), each * inputs.gpu_count + disk


def _listed_for(pod: answers.Pod, options: Sequence[Candidate]) -> Decimal | None:
    got = (pod.gpu.id if pod.gpu else "", pod.cloud)
    return next((option.listed for option in options if (option.gpu, option.cloud) == got), None)


def _none_listed(inputs: PodInputs) -> str:
    clouds = " or ".join(cloud.lower() for cloud in inputs.clouds)
    cap = f" for at most ${inputs.max_hourly_usd} an hour" if inputs.max_hourly_usd else ""
    return (
        f"RunPod lists none of {', '.join(inputs.gpus)} in its {clouds} cloud{cap}. Nothing was created, nothing is "
        "billed. Name others in `vllm-anywhere:hardware.gpus`, or raise `vllm-anywhere:runpod.max_hourly_usd`"
    )


def _settled(cloud: RunPod, context: Context, pod: answers.Pod) -> answers.Pod:
    """The pod once RunPod says what it costs and where it is, or as it is after a while."""
    for pause in _SETTLING_PAUSES_S:
        if (pod.cost and pod.data_center_id) or pod.status in _ENDED:
            break
        context.wait(pause)
        try:
            found = _get(cloud, pod.id)
        except PlatformError as error:
            context.progress(f"{pod.id} was created; asking what it costs failed: {error}")
        else:
            # None: what was just created may not be found yet.
            pod = found or pod
    return pod


def _outputs(cloud: RunPod, pod: answers.Pod, run: str) -> PodOutputs:
    return PodOutputs(
        label=pod.label,
        gpu=pod.gpu.id if pod.gpu else "",
        cloud=pod.cloud,
        data_center=pod.data_center_id or "",
        cuda=pod.cuda_version or "",
        status=pod.status,
        hourly_usd=f"{pod.cost:f}",
        endpoint=cloud.urls.proxy.format(id=pod.id, port=PORT) + "/v1",
        run=run,
    )


def _get(cloud: RunPod, id: str) -> answers.Pod | None:
    pod = cloud.get(_path(id), answers.Pod)
    return None if pod is None or pod.status == "TERMINATED" else pod


def _labelled(cloud: RunPod, label: str) -> list[answers.Pod]:
    return cloud.labelled("/v2/pods", "pods", answers.Pod, label)


def _path(id: str) -> str:
    return f"/v2/pods/{id}"


def _volume(pod: answers.Pod) -> str:
    return pod.mounts.network[0].volume_id if pod.mounts and pod.mounts.network else ""


def _bills(pod: answers.Pod) -> str:
    return f"; it bills ${pod.cost:f} an hour" if pod.cost else ""


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text) if text else None
    except ArithmeticError:
        return None
