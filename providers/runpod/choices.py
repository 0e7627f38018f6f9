"""What a spec means on RunPod, in RunPod's own terms: GPUs, clouds, data centres, image, limits. Pure.

Nothing here depends on a price or on stock of the moment: what becomes a resource's input stays what it is.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, Decimal
from typing import Literal

from pydantic import Field

from providers.base import Ask
from providers.fitting import fitting_gpus
from providers.market import Market
from providers.model_shape import model_shape
from serving import budget
from serving.capabilities import image_cuda
from serving.places import in_eea, place, regions_on
from serving.preflight import image_version
from serving.spec import DeploymentSpec, Part, Usd

PORT = 8000

WORKER_VERSION = "2.25.2"
WORKER_VLLM = "0.27.1"
"""The vLLM inside `runpod/worker-v1-vllm:v2.25.2` (runpod-workers/worker-vllm at 7a92503)."""

VOLUME_PATH = "/runpod-volume"
"""Where RunPod mounts a network volume in serverless workers."""


class RunPodOptions(Part):
    """What only RunPod has."""

    mode: Literal["pod", "serverless", "load-balancing"] = Field(
        default="pod",
        description="`pod`: one machine that always runs. `serverless`: RunPod's vLLM worker behind its queue. "
        "`load-balancing`: the plain vLLM image, scaled by RunPod.",
    )
    data_centers: tuple[str, ...] = Field(
        default=(), description="Data centres by RunPod's names, instead of placement.regions.", examples=[["EU-RO-1"]]
    )
    max_hourly_usd: Usd | None = Field(
        default=None, description="Most US dollars an hour for a pod; one that is billed above it is given back."
    )
    weights: Literal["hub", "volume", "image"] = Field(
        default="hub",
        description="Where workers get the weights: Hugging Face at each start, a network volume that is filled once, "
        "or an image that holds them.",
    )
    volume_gb: int | None = Field(
        default=None,
        ge=10,
        le=4096,
        description="Size of the network volume in GB; it can only grow. Absent: twice the weights, and 10 at least.",
    )
    image: str | None = Field(
        default=None, pattern=r"^[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})$", description="Image with the weights in it."
    )
    registry_username: str = Field(
        default="", description="User of a private registry; its password is read from RUNPOD_REGISTRY_PASSWORD."
    )
    flashboot: bool = Field(default=True, description="Keep a stopped worker's state, for a faster next start.")
    execution_timeout_s: int = Field(default=600, ge=5, le=604_800, description="Longest that one request may take.")
    scaler: Literal["queue-delay", "request-count"] | None = Field(
        default=None, description="What adds workers; load balancing has request-count alone."
    )
    scaler_value: int | None = Field(
        default=None, ge=1, description="Seconds in the queue (default 4), or requests a worker (default 30)."
    )


def type_ids(ask: Ask) -> list[str]:
    """RunPod's ids of the acceptable GPU types."""
    return [id for card in fitting_gpus(ask.spec, "runpod") for id in card.platform_names["runpod"]]


def tiers_of(spec: DeploymentSpec) -> tuple[str, ...]:
    """Acceptable clouds, the cheaper first."""
    if spec.placement.gdpr or spec.placement.tier == "secure":
        return ("secure",)
    return ("community",) if spec.placement.tier == "community" else ("community", "secure")


def data_centers_of(ask: Ask) -> list[list[str]]:
    """Data centres in groups, one a wanted region; [] for anywhere."""
    spec, options = ask.spec, options_of(ask)
    if options.data_centers:
        groups = [list(options.data_centers)]
    else:
        groups = [list(regions_on("runpod", (word,))) for word in spec.placement.regions]
    seen: set[str] = set()
    kept: list[list[str]] = []
    for group in groups:
        fresh = [name for name in group if name not in seen]
        seen.update(fresh)
        if fresh:
            kept.append(fresh)
    return kept


def outside_eea(ask: Ask) -> list[str]:
    """The wanted data centres that are not known to be in the EU or EEA."""
    names = [name for group in data_centers_of(ask) for name in group]
    found = [(name, place("runpod", name)) for name in names]
    return [name for name, there in found if there is None or not in_eea(there.country)]


def pinned(ask: Ask) -> DeploymentSpec:
    """The spec with its regions in RunPod's own names: what an offer, which has no place of its own, is pinned to."""
    names = tuple(name for group in data_centers_of(ask) for name in group)
    placement = ask.spec.placement.model_copy(update={"regions": names})
    return ask.spec.model_copy(update={"placement": placement})


def image_of(ask: Ask) -> str:
    """The container image."""
    spec, options = ask.spec, options_of(ask)
    if options.image:
        return options.image
    if options.mode == "serverless":
        return f"runpod/worker-v1-vllm:v{WORKER_VERSION}"
    return spec.engine.image or f"vllm/vllm-openai:v{spec.engine.version}"


def min_cuda(ask: Ask) -> str:
    """What the host's driver has to take: an image on an older one ends with `unsatisfied condition: cuda`."""
    return "{}.{}".format(*image_cuda(image_version(ask.spec), image_of(ask)))


def hourly_cap(ask: Ask) -> str:
    """The lowest limit of one pod that is set, in US dollars an hour; "" when none is."""
    caps = (options_of(ask).max_hourly_usd, budget.hourly_cap(ask.spec, max(1, ask.spec.scaling.min)))
    limits = [cap for cap in caps if cap is not None]
    return f"{min(limits).quantize(Decimal('0.0001'), ROUND_DOWN):f}" if limits else ""


def volume_gb(ask: Ask) -> int:
    """Size of the volume for the weights in GB, 0 for none: twice the weights, at least RunPod's 10 GB."""
    options = options_of(ask)
    if options.weights != "volume":
        return 0
    weights = sum(count * size for count, size in model_shape(ask.spec.model).tensors()) / 1e9
    return options.volume_gb or max(10, -(-int(weights * 2) // 10) * 10)


def cache_env(ask: Ask) -> dict[str, str]:
    """With the weights on a volume, Hugging Face's cache is there, and nothing is asked of the hub."""
    if not volume_gb(ask):
        return {}
    return {"HF_HOME": f"{VOLUME_PATH}/huggingface", "HF_HUB_OFFLINE": "1"}


def kind_of(ask: Ask) -> Literal["pod", "serverless"]:
    """The kind of offers that the mode rents."""
    return "pod" if options_of(ask).mode == "pod" else "serverless"


def options_of(ask: Ask) -> RunPodOptions:
    """The platform's own section."""
    return ask.options


def market_of(ask: Ask) -> Market:
    """What RunPod offers."""
    return ask.market
