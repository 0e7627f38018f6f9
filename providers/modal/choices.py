"""What a spec means on Modal, in Modal's own terms: GPUs, regions, limits. Pure."""

from __future__ import annotations

from pydantic import Field

from providers.base import Ask
from providers.market import Market
from providers.modal.definition import CACHE_PATH
from serving.places import regions_on
from serving.spec import DeploymentSpec, Part

EU_ROUTING = "eu-west"
"""Where requests enter Modal in Europe; its default is `us-east`, in Virginia."""

DISK_GB = 549
"""What every container has without a request: 512 GiB (https://modal.com/docs/guide/resources)."""


class ModalOptions(Part):
    """What only Modal has."""

    environment: str = Field(
        default="main", pattern=r"^[A-Za-z0-9][\w.-]{0,63}$", description="Modal environment to deploy to."
    )
    cpu: int = Field(default=4, ge=1, le=64, description="Physical CPU cores of a container.")
    memory_gib: int = Field(default=16, ge=1, le=336, description="Memory of a container, GiB.")
    concurrency: int = Field(default=32, ge=1, le=1000, description="Requests that a container answers together.")
    request_timeout_s: int = Field(default=600, ge=1, le=86400, description="Longest that one request may take.")
    startup_timeout_s: int = Field(
        default=900, ge=60, le=86400, description="Longest that a container's start may take, weights included."
    )
    routing_region: str | None = Field(
        default=None,
        pattern=r"^[a-z]+(-[a-z]+)*$",
        description="Where requests enter Modal. Absent: `eu-west` if all regions are in the EEA, else Modal's choice.",
    )
    volume: bool = Field(
        default=True, description="Keep weights and compiled kernels on a volume, so that the next start is faster."
    )


def regions_of(spec: DeploymentSpec) -> tuple[str, ...]:
    """Modal's names for the wanted places; () for anywhere."""
    return regions_on("modal", spec.placement.regions)


def routing_of(ask: Ask) -> str:
    """Where requests enter Modal; "" leaves it to Modal."""
    regions = regions_of(ask.spec)
    # What lies within a region that is listed already is left out of the list.
    in_eea = bool(regions) and regions_on("modal", ("eea", *regions)) == regions_on("modal", ("eea",))
    return options_of(ask).routing_region or (EU_ROUTING if in_eea else "")


def cache_env(ask: Ask) -> dict[str, str]:
    """Where Hugging Face and vLLM keep what the next start can use again."""
    if not options_of(ask).volume:
        return {}
    return {"HF_HOME": f"{CACHE_PATH}/huggingface", "VLLM_CACHE_ROOT": f"{CACHE_PATH}/vllm"}


def image_of(spec: DeploymentSpec) -> str:
    """The container image."""
    return spec.engine.image or f"vllm/vllm-openai:v{spec.engine.version}"


def options_of(ask: Ask) -> ModalOptions:
    """The platform's own section."""
    return ask.options


def market_of(ask: Ask) -> Market:
    """What Modal offers."""
    return ask.market
