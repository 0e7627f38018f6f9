"""What only Vast.ai has: the section `vllm-anywhere:vastai`, and how a spec becomes the constraints of a search."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Literal

from pydantic import Field

from providers.fitting import fitting_gpus
from providers.vastai.offers import Traffic
from providers.vastai.search import Wanted
from serving.budget import hourly_cap
from serving.capabilities import image_cuda
from serving.cost import Assumptions, Estimator, assumptions_for
from serving.gpus import Gpu
from serving.models import Model
from serving.offers import Offer, Rate
from serving.places import in_eea, regions_on
from serving.preflight import image_version
from serving.spec import DeploymentSpec, Part, ScalingSpec, Usd

PLATFORM = "vastai"
DEFAULT_CAPABILITY = (8, 0)
"""Unless a GPU is named, none without bfloat16 is taken."""


class VastaiOptions(Part):
    """Constraints and caps of the marketplace."""

    mode: Literal["instance", "serverless"] = Field(
        default="instance", description="`serverless` scales to zero behind Vast.ai's own proxy; experimental."
    )
    template_hash: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{8,64}$",
        description="With `mode: serverless`: a template of the account whose image registers at Vast.ai's router.",
    )
    max_hourly_usd: Usd = Field(
        default=Decimal("1.0"),
        description="Ceiling for GPU and disk together, in US dollars an hour. Nothing above it is ever rented.",
    )
    min_reliability: Usd = Field(
        default=Decimal("0.95"), le=Decimal(1), description="Share of time that the host was up, 0 to 1."
    )
    min_download_mbps: int = Field(
        default=300, ge=1, le=100_000, description="Mbit/s; the image (10 GB) and the weights come through it."
    )
    min_duration_h: int = Field(
        default=24 * 7, ge=1, le=24 * 366, description="Hours until the host's own end date, when the rental stops."
    )
    verified: bool = Field(default=True, description="Only hosts that Vast.ai has verified.")
    static_ip: bool = Field(default=False, description="Only hosts whose address does not change.")
    excluded_machines: tuple[int, ...] = Field(default=(), description="Machine ids that are never rented.")
    bid_usd: Usd | None = Field(
        default=None,
        description="With `hardware.spot`: the bid in US dollars an hour for the GPUs. Absent: 1.25 times the lowest "
        "that wins.",
    )
    fallback: bool = Field(default=False, description="With `hardware.spot`: rent on demand when no bid wins.")
    plain_http: bool = Field(
        default=False,
        description="Serve without TLS. The key, all prompts and all answers can then be read and changed by "
        "everybody on the way.",
    )
    attempts: int = Field(default=5, ge=1, le=20, description="Machines that are tried before `up` gives up.")
    waste_usd: Usd = Field(
        default=Decimal(2), description="US dollars that machines which fail may have cost before `up` gives up."
    )


def usable_gpus(spec: DeploymentSpec) -> list[Gpu]:
    """The GPUs that Vast.ai rents, the spec accepts and the model fits on."""
    return list(fitting_gpus(spec, PLATFORM, DEFAULT_CAPABILITY))


def countries(spec: DeploymentSpec) -> tuple[str, ...]:
    """ISO 3166 alpha-2 codes that `placement` allows; empty for anywhere, or when no country has those names."""
    wanted = spec.placement.regions or (("eea",) if spec.placement.gdpr else ())
    found = regions_on(PLATFORM, wanted)
    return tuple(code for code in found if in_eea(code)) if spec.placement.gdpr else found


def ceiling(spec: DeploymentSpec, options: VastaiOptions) -> Decimal:
    """The lower of the caps of one server, in US dollars an hour."""
    cap = hourly_cap(spec, instances(spec, options))
    return options.max_hourly_usd if cap is None else min(cap, options.max_hourly_usd)


def instances(spec: DeploymentSpec, options: VastaiOptions) -> int:
    """How many instances are rented; of serverless workers Vast.ai rents what it takes."""
    return max(1, spec.scaling.min) if options.mode == "instance" else 1


def wanted_for(spec: DeploymentSpec, options: VastaiOptions, gpus: Sequence[Gpu]) -> Wanted:
    """The search for a spec."""
    return Wanted(
        gpus=tuple(found.name for found in gpus),
        gpu_count=spec.hardware.gpu_count,
        min_memory_gib=min((found.memory_gib for found in gpus), default=0.0),
        min_capability=min((found.compute_capability for found in gpus), default=DEFAULT_CAPABILITY),
        cuda=cuda(spec),
        countries=countries(spec),
        tier="secure" if spec.placement.gdpr else spec.placement.tier,
        verified=options.verified,
        static_ip=options.static_ip,
        min_reliability=options.min_reliability,
        min_download_mbps=options.min_download_mbps,
        min_duration_h=options.min_duration_h,
        disk_gb=spec.hardware.disk_gb,
        interruptible=spec.hardware.spot,
        max_hourly_usd=ceiling(spec, options),
        excluded=frozenset(options.excluded_machines),
    )


def cuda(spec: DeploymentSpec) -> tuple[int, int]:
    """The CUDA release inside the image."""
    return image_cuda(image_version(spec), spec.engine.image or "")


def traffic_for(spec: DeploymentSpec, model: Model | None) -> Traffic:
    """GB in and out of one server in a month, each rounded up to a whole one."""
    servers, asked = max(1, spec.scaling.min), spec.usage.requests_per_day
    if servers > 1:
        each = {"requests_per_day": None if asked is None else -(-asked // servers)}
        alone = {"scaling": ScalingSpec(), "usage": spec.usage.model_copy(update=each)}
        spec = spec.model_copy(update=alone)
    assumed = assumptions_for(model) if model else Assumptions()
    moved = Offer(
        platform=PLATFORM,
        kind="instance",
        sku="",
        gpu="",
        gpu_count=1,
        region="",
        country="",
        tier="secure",
        spot=False,
        rates=(
            Rate("download", "GB", Decimal(0), "live", "", None, bills="download"),
            Rate("upload", "GB", Decimal(0), "live", "", None, bills="upload"),
        ),
    )
    lines = Estimator(spec, assumed).estimate(moved).lines

    def total(way: str) -> Decimal:
        found = [line.quantity.expected for line in lines if line.rate.bills == way and line.quantity is not None]
        return sum(found, Decimal(0)).to_integral_value(ROUND_CEILING)

    return Traffic(total("download"), total("upload"))
