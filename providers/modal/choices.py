"""What a spec means on Modal, in Modal's own terms: GPUs, regions, limits. Pure."""

from __future__ import annotations

from functools import lru_cache

from pydantic import Field

from providers.base import Ask
from providers.market import Market
from providers.modal.definition import CACHE_PATH
from providers.model_shape import model_shape
from serving.capabilities import BF16_SINCE
from serving.gpus import Gpu, all_gpus
from serving.models import Model
from serving.places import regions_on
from serving.preflight import Host, Preflight, preflight
from serving.rank import wanted_gpus
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


def fitting_gpus(ask: Ask) -> tuple[Gpu, ...]:
    """The GPUs that Modal rents and the model fits on: in the user's order, else in the catalogue's.

    Raises:
        SpecError: nothing is known of the model.
        UnknownGpu: `hardware.gpus` has a name that no GPU has.
    """
    # A frozen model of tuples and texts can be hashed.
    return _fitting(ask.spec)  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=8)
def _fitting(spec: DeploymentSpec) -> tuple[Gpu, ...]:
    wanted = wanted_gpus(spec)
    cards = [card for card in rented_gpus() if not wanted or card.name in wanted]
    return tuple(sorted((c for c in cards if verdict(spec, c).ok), key=lambda card: wanted.get(card.name, 0)))


def rented_gpus() -> list[Gpu]:
    """Every GPU that Modal rents, in the catalogue's order."""
    return [card for card in all_gpus() if "modal" in card.platform_names]


def verdict(spec: DeploymentSpec, card: Gpu) -> Preflight:
    """What stands in the way of the spec on that GPU."""
    return preflight(spec, shape_of(spec), card, Host("modal"))


def shape_of(spec: DeploymentSpec) -> Model:
    """The model's shape.

    Raises:
        SpecError: nothing is known of it.
    """
    return model_shape(spec.model)


def is_half(cards: tuple[Gpu, ...]) -> bool:
    """Whether one of them has no bfloat16."""
    return any(card.compute_capability < BF16_SINCE for card in cards)


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
