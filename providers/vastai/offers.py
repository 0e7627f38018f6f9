"""One offer of the marketplace: what a host says of itself, and what it charges.

Prices: https://docs.vast.ai/documentation/instances/pricing (GPU by the second while running, storage from create to
destroy, traffic per byte both ways). Vast.ai's month of storage has 720 hours: its own example, 10 GB at 0.14933, is
0.002074 an hour.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Protocol

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from serving.cost import Assumptions, Estimator
from serving.gpus import UnknownGpu, gpu_on
from serving.offers import Offer, Rate, Source, Tier
from serving.spec import DeploymentSpec, HardwareSpec, UsageSpec

PRICES_URL = "https://docs.vast.ai/documentation/instances/pricing"
STORAGE_MONTH_HOURS = 720
MIB_PER_GIB = 1024
FIXED = "fixed until the host's end date"


def _decimal(value: object) -> object:
    """JSON floats by their shortest form; the client reads them as Decimal already."""
    return str(value) if isinstance(value, float) else value


Number = Annotated[Decimal, BeforeValidator(_decimal)]


class Priced(Protocol):
    """What an offer and an instance say alike of their prices."""

    @property
    def storage_cost(self) -> Decimal | None: ...
    @property
    def inet_down_cost(self) -> Decimal | None: ...
    @property
    def inet_up_cost(self) -> Decimal | None: ...


class VastOffer(BaseModel):
    """One offer ("ask") as the search answers it. Fields that hosts are known to leave out may be None.

    Units: `gpu_ram` MB of one GPU, `disk_space` GB, `inet_down` Mbit/s, `duration` seconds until the host's end date,
    `dph_base`, `min_bid` US dollars an hour, `storage_cost` US dollars per GB and month of 720 hours,
    `inet_*_cost` US dollars per GB, `compute_cap` 100 x capability.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: int
    machine_id: int
    gpu_name: str
    num_gpus: int
    gpu_ram: Number
    compute_cap: int | None = None
    cuda_max_good: Number | None = None
    cpu_arch: str | None = None
    disk_space: Number = Decimal(0)
    inet_down: Number | None = None
    dph_base: Number = Field(ge=0)
    storage_cost: Number = Field(ge=0)
    inet_down_cost: Number | None = None
    inet_up_cost: Number | None = None
    min_bid: Number | None = None
    reliability2: Number | None = Field(default=None, validation_alias=AliasChoices("reliability2", "reliability"))
    public_ipaddr: str | None = None
    verification: str | None = None
    hosting_type: int | None = None
    geolocation: str | None = None
    static_ip: bool | None = None
    direct_port_count: int | None = None
    duration: Number | None = None
    rentable: bool | None = None
    rented: bool | None = None
    external: bool | None = None

    @property
    def gpu(self) -> str:
        """The catalogue's name of the GPU, "" if the catalogue has none."""
        return gpu_called(self.gpu_name, self.gpu_ram)

    @property
    def country(self) -> str:
        """ISO 3166 alpha-2, "" when the host does not say."""
        return country_of(self.geolocation)

    @property
    def tier(self) -> Tier:
        return "secure" if self.hosting_type == 1 else "community"

    @property
    def capability(self) -> tuple[int, int] | None:
        """(8, 9) for 890."""
        return None if self.compute_cap is None else (self.compute_cap // 100, self.compute_cap % 100 // 10)


def gpu_called(name: str, ram_mb: Decimal | None) -> str:
    """The GPU catalogue's name of what Vast.ai calls a GPU, with that memory of one; "" if the catalogue has none."""
    try:
        return gpu_on("vastai", name, None if ram_mb is None else float(ram_mb) / MIB_PER_GIB).name
    except UnknownGpu:
        return ""


def country_of(geolocation: str | None) -> str:
    """ISO 3166 alpha-2, "" when there is none. The text ends in it: `Sofia, BG`, `, US`."""
    code = (geolocation or "").strip()[-2:]
    return code if code.isalpha() and code.isupper() else ""


def parse_offers(rows: Iterable[Any]) -> tuple[list[VastOffer], int]:
    """The offers that can be read, and how many could not."""
    offers: list[VastOffer] = []
    unreadable = 0
    for row in rows:
        try:
            offers.append(VastOffer.model_validate(row))
        except ValidationError:
            unreadable += 1
    return offers, unreadable


@dataclass(frozen=True)
class Traffic:
    """GB in a month: `download_gb` is image, weights and prompts, `upload_gb` is answers."""

    download_gb: Decimal
    upload_gb: Decimal


def as_offer(offer: VastOffer, *, interruptible: bool, source: Source, as_of: date, evidence: str = "") -> Offer:
    """The offer in the terms that every platform shares. An interruptible one costs its lowest winning bid."""
    gpu = offer.min_bid if interruptible else offer.dph_base
    note = "lowest bid that wins now; it may be outbid" if interruptible else FIXED
    return Offer(
        platform="vastai",
        kind="instance",
        sku=str(offer.id),
        gpu=offer.gpu,
        gpu_count=offer.num_gpus,
        region=(offer.geolocation or "").strip(", "),
        country=offer.country,
        tier=offer.tier,
        spot=interruptible,
        rates=rates_of(offer, gpu, note, source, as_of),
        availability="high",
        evidence=evidence,
    )


def rates_of(priced: Priced, gpu: Decimal | None, note: str, source: Source, as_of: date) -> tuple[Rate, ...]:
    """What an offer or an instance bills, with `gpu` US dollars an hour for its GPUs."""

    def rate(meter: str, unit: Any, price: Decimal | None, bills: Any, note: str, month_hours: int = 730) -> Rate:
        return Rate(meter, unit, price, source, PRICES_URL, as_of, note, bills=bills, month_hours=month_hours)

    return (
        rate("GPU", "Hours", gpu, "running", note),
        rate("disk", "GB-Months", priced.storage_cost, "kept", "stopped or running", STORAGE_MONTH_HOURS),
        rate("download", "GB", priced.inet_down_cost, "download", "image and weights at each create, prompts"),
        rate("upload", "GB", priced.inet_up_cost, "upload", "answers"),
    )


def month(offer: Offer, disk_gb: int, traffic: Traffic) -> tuple[bool, Decimal]:
    """Whether a price is missing, and US dollars for a month of 730 hours: GPU, disk and that traffic."""
    moved = {"download": traffic.download_gb, "upload": traffic.upload_gb}
    rates = tuple(replace(rate, quantity=moved[rate.bills]) if rate.bills in moved else rate for rate in offer.rates)
    spec = DeploymentSpec(hardware=HardwareSpec(disk_gb=disk_gb), usage=UsageSpec(requests_per_day=0))
    span, incomplete, _ = Estimator(spec, Assumptions()).totals(replace(offer, rates=rates))
    return incomplete, span.expected
