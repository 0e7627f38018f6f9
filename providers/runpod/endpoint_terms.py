"""What an endpoint is asked for and judged by: its inputs, the pools that suit them, the bodies of the calls. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from pydantic import Field, SecretStr

from providers.base import NoCapacity
from providers.native import Labelled, generation_in
from providers.runpod import answers
from providers.runpod.answers import GpuType

MOST_POOLS = 3
"""GPU categories that an endpoint takes: https://docs.runpod.io/serverless/endpoints/endpoint-configurations."""

_PLATFORM_VARIABLES = ("RUNPOD_", "PORT", "PORT_HEALTH")
"""Variables that RunPod puts into a worker's environment; PORT and PORT_HEALTH only where it balances the load."""


class EndpointInputs(Labelled):
    """Which workers, how many, and what they run."""

    kind: Literal["QUEUE", "LOAD_BALANCER"] = Field(description="How requests reach the workers.")
    gpus: list[str] = Field(min_length=1, description="RunPod GPU type ids that will do.")
    prefer: Literal["listed", "cheapest"] = Field(
        default="listed", description="Up to three pools in the listed order, or the cheapest pool alone."
    )
    gpu_count: int = Field(default=1, ge=1, description="GPUs of a worker.")
    min_cuda: str = Field(default="", description="Lowest CUDA release of the host's driver, `major.minor`.")
    image: str = Field(description="Container image, pinned.")
    args: str = Field(default="", description="Arguments for the image's own entry point.")
    env: dict[str, str] = Field(default={}, description="Environment variables that are not secret.")
    hf_token: SecretStr | None = Field(default=None, description="Hugging Face token for gated models.")
    disk_gb: int = Field(default=60, ge=1, description="Container disk of a worker in GB.")
    data_centers: list[str] = Field(default=[], description="Acceptable data centres; empty for anywhere.")
    volume_ids: list[str] = Field(default=[], description="Network volumes to mount at /runpod-volume.")
    registry: str = Field(default="", description="Id of the registry credential for a private image.")
    min_workers: int = Field(default=0, ge=0, description="Workers that always run, and are always billed.")
    max_workers: int = Field(default=1, ge=0, description="Most workers at once.")
    idle_timeout_s: int = Field(default=60, ge=1, le=3600, description="Seconds without work until a worker stops.")
    scaler: Literal["QUEUE_DELAY", "REQUEST_COUNT"] = Field(description="What adds workers.")
    scaler_value: int = Field(ge=1, description="Seconds in the queue, or requests a worker.")
    execution_timeout_s: int = Field(default=600, ge=1, description="Longest that one request may take.")
    flashboot: bool = Field(default=True, description="Keep a stopped worker's state, for a faster next start.")
    caller_key: SecretStr = Field(description="The RunPod key that callers send.")


@dataclass(frozen=True)
class Pools:
    """Which pools hold the acceptable GPUs, and what in them is not acceptable.

    `hourly` is the list price of one worker in the dearest of them, US dollars an hour.
    """

    names: tuple[str, ...]
    excluded: tuple[str, ...]
    hourly: Decimal | None


def pools_for(rows: Sequence[GpuType], inputs: EndpointInputs) -> Pools:
    """The pools that hold the acceptable GPUs, by the live catalogue.

    Raises:
        NoCapacity: none of them is in a pool.
    """
    by_id = {row.id: row for row in rows}
    wanted = [by_id[id] for id in inputs.gpus if id in by_id and by_id[id].pool]
    prices = {row.pool: row.price.serverless for row in wanted if row.pool and row.price.serverless is not None}
    names = list(dict.fromkeys(row.pool for row in wanted if row.pool))
    if inputs.prefer == "cheapest":
        names = sorted(names, key=lambda name: prices.get(name, Decimal("Infinity")))[:1]
    names = names[:MOST_POOLS]
    if not names:
        raise NoCapacity(
            f"RunPod has none of {', '.join(inputs.gpus)} in a serverless pool. Nothing was created or changed, and "
            "nothing more is billed. Name others in `vllm-anywhere:hardware.gpus`"
        )
    excluded = sorted(row.id for row in rows if row.pool in names and row.id not in inputs.gpus)
    dearest = [prices[name] for name in names if name in prices]
    hourly = max(dearest) * inputs.gpu_count if dearest else None
    return Pools(tuple(names), tuple(excluded), hourly)


def create_body(inputs: EndpointInputs, pools: Pools) -> dict[str, Any]:
    """The body of `POST /v2/serverless`: every field whose default on the server surprises is sent."""
    body: dict[str, Any] = {
        "name": inputs.label,
        "type": inputs.kind,
        "image": inputs.image,
        "args": inputs.args,
        "env": environment(inputs),
        "disk": inputs.disk_gb,
        "gpu": _gpu(inputs, pools),
        "workers": _workers(inputs),
        "scaling": _scaling(inputs),
        "timeout": inputs.execution_timeout_s * 1000,
        "flashboot": _flashboot(inputs),
        "networkVolumes": inputs.volume_ids,
    }
    if ports := _ports(inputs):
        body["ports"] = ports
    if inputs.data_centers:
        body["dataCenterIds"] = inputs.data_centers
    if inputs.registry:
        body["registry"] = inputs.registry
    return body


def update_body(found: answers.Endpoint, inputs: EndpointInputs, pools: Pools) -> dict[str, Any]:
    """What `PATCH /v2/serverless/{id}` has to change; {} when nothing. Pools never go without their exclusions, which
    RunPod would clear."""
    body: dict[str, Any] = {}
    gpu = found.gpu or answers.EndpointGpu()
    there = (set(gpu.pools), set(gpu.excluded_types), gpu.count, gpu.min_cuda_version or "")
    if there != (set(pools.names), set(pools.excluded), inputs.gpu_count, inputs.min_cuda):
        body["gpu"] = {**_gpu(inputs, pools), "minCudaVersion": inputs.min_cuda}
    wanted = environment(inputs)
    kept = {n: v for n, v in found.env.items() if n not in wanted and n.startswith(_PLATFORM_VARIABLES)}
    if dict(found.env) != {**kept, **wanted}:
        body["env"] = {**kept, **wanted}
    workers = _workers(inputs)
    if any(workers[name] != there for name, there in _workers_there(found).items() if name in workers):
        body["workers"] = workers
    if not _scales_alike(found.scaling, inputs):
        body["scaling"] = _scaling(inputs)
    plain: Mapping[str, tuple[Any, Any]] = {
        "name": (found.label, inputs.label),
        "image": (found.image, inputs.image),
        "args": (found.args or "", inputs.args),
        "disk": (found.disk, inputs.disk_gb),
        "ports": (list(found.ports), _ports(inputs)),
        "timeout": (found.timeout, inputs.execution_timeout_s * 1000),
        "flashboot": (found.flashboot, _flashboot(inputs)),
        "dataCenterIds": (sorted(found.data_center_ids), sorted(inputs.data_centers)),
        "networkVolumes": (list(found.network_volumes), inputs.volume_ids),
        "registry": (found.registry or None, inputs.registry or None),
    }
    return {**body, **{name: new for name, (old, new) in plain.items() if old != new}}


def environment(inputs: EndpointInputs) -> dict[str, str]:
    """The workers' environment."""
    from serving.start import HF_TOKEN

    return {**inputs.env, **({HF_TOKEN: inputs.hf_token.get_secret_value()} if inputs.hf_token else {})}


def inputs_of(found: answers.Endpoint, known: EndpointInputs | None, before: Pools | None) -> EndpointInputs:
    """Inputs that say what is there, in the words of what state knows where that still holds; `before` are the pools
    that it was set up with."""
    from serving.start import HF_TOKEN

    gpu = found.gpu or answers.EndpointGpu()
    scaling = found.scaling
    value = int(scaling.queue_delay or 1) if scaling.type == "QUEUE_DELAY" else scaling.request_count or 1
    changed: dict[str, Any] = {
        "image": found.image,
        "args": found.args or "",
        "disk_gb": found.disk or 1,
        "registry": found.registry or "",
        "gpu_count": gpu.count,
        "min_cuda": gpu.min_cuda_version or "",
        "min_workers": found.workers.min,
        "max_workers": found.workers.max,
        "scaler": scaling.type,
        "scaler_value": max(1, value),
        "execution_timeout_s": max(1, found.timeout // 1000),
        "flashboot": found.flashboot != "OFF",
        "volume_ids": list(found.network_volumes),
    }
    if found.workers.idle_timeout is not None:
        changed["idle_timeout_s"] = found.workers.idle_timeout
    placed = [*gpu.pools, *(f"not {id}" for id in gpu.excluded_types)]
    if known is None or before is None:
        env = {n: v for n, v in found.env.items() if n != HF_TOKEN and not n.startswith("RUNPOD_")}
        return EndpointInputs(
            label=found.label,
            generation=generation_in(found.label),
            kind="LOAD_BALANCER" if found.type == "LOAD_BALANCER" else "QUEUE",
            gpus=placed,
            env=env,
            hf_token=SecretStr(found.env[HF_TOKEN]) if HF_TOKEN in found.env else None,
            data_centers=list(found.data_center_ids),
            caller_key=SecretStr(""),
            **changed,
        )
    if (set(gpu.pools), set(gpu.excluded_types)) != (set(before.names), set(before.excluded)):
        changed["gpus"] = placed
    if sorted(found.data_center_ids) != sorted(known.data_centers):
        changed["data_centers"] = list(found.data_center_ids)
    changed["env"] = {n: found.env[n] for n in known.env if n in found.env}
    wanted = environment(known)
    if HF_TOKEN in wanted and found.env.get(HF_TOKEN) != wanted[HF_TOKEN]:
        changed["hf_token"] = SecretStr(found.env.get(HF_TOKEN, ""))
    return known.model_copy(update=changed)


def _gpu(inputs: EndpointInputs, pools: Pools) -> dict[str, Any]:
    cuda = {"minCudaVersion": inputs.min_cuda} if inputs.min_cuda else {}
    return {"pools": list(pools.names), "excludedTypes": list(pools.excluded), "count": inputs.gpu_count, **cuda}


def _workers(inputs: EndpointInputs) -> dict[str, int]:
    """RunPod refuses an idle time-out where a queue scales by requests."""
    workers = {"min": inputs.min_workers, "max": inputs.max_workers}
    if inputs.kind == "QUEUE" and inputs.scaler == "REQUEST_COUNT":
        return workers
    return {**workers, "idleTimeout": inputs.idle_timeout_s}


def _workers_there(found: answers.Endpoint) -> dict[str, int | None]:
    workers = found.workers
    return {"min": workers.min, "max": workers.max, "idleTimeout": workers.idle_timeout}


def _scaling(inputs: EndpointInputs) -> dict[str, Any]:
    field = "queueDelay" if inputs.scaler == "QUEUE_DELAY" else "requestCount"
    return {"type": inputs.scaler, field: inputs.scaler_value}


def _scales_alike(there: answers.Scaling, inputs: EndpointInputs) -> bool:
    value = there.queue_delay if there.type == "QUEUE_DELAY" else there.request_count
    return there.type == inputs.scaler and value == inputs.scaler_value


def _flashboot(inputs: EndpointInputs) -> str:
    return "FLASHBOOT" if inputs.flashboot else "OFF"


def _ports(inputs: EndpointInputs) -> list[str]:
    port = inputs.env.get("PORT", "")
    return [f"{port}/http"] if inputs.kind == "LOAD_BALANCER" and port else []
