"""Prices out of Google's Billing Catalog, which has thirty thousand SKUs for Compute Engine and no machine types. Pure.

SKUs are told by their description, anchored at its start: `Regional Balanced PD Capacity` costs twice what
`Balanced PD Capacity` does. A G2 machine's price is put together from its cores, memory and L4 and is one meter, so
that its GPU is not counted again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from serving.offers import Bills, Offer, Tier, Unit
from serving.prices import Price
from serving.snapshot import machines

SERVICE = "6F81-5844-456A"
"""Compute Engine."""
SOURCE = f"https://cloudbilling.googleapis.com/v1/services/{SERVICE}/skus"

_SPOT_VM = "Spot Preemptible "
_SPOT_GPU = "attached to Spot Preemptible VMs "
_PATTERNS: Mapping[str, tuple[str, ...]] = {
    # What it is a price of -> descriptions on demand, then spot.
    "vCPU": ("N1 Predefined Instance Core running in ", f"{_SPOT_VM}N1 Predefined Instance Core running in "),
    "memory": ("N1 Predefined Instance Ram running in ", f"{_SPOT_VM}N1 Predefined Instance Ram running in "),
    "T4": ("Nvidia Tesla T4 GPU running in ", f"Nvidia Tesla T4 GPU {_SPOT_GPU}running in "),
    "G2 core": ("G2 Instance Core running in ", f"{_SPOT_VM}G2 Instance Core running in "),
    "G2 memory": ("G2 Instance Ram running in ", f"{_SPOT_VM}G2 Instance Ram running in "),
    "L4": ("Nvidia L4 GPU running in ", f"Nvidia L4 GPU {_SPOT_GPU}running in "),
    "boot disk": ("Balanced PD Capacity",),
}
_KNOWN = {text: (what, place == 1) for what, texts in _PATTERNS.items() for place, text in enumerate(texts)}
_START = re.compile("|".join(re.escape(text) for text in sorted(_KNOWN, key=len, reverse=True)))
_UNITS = {"h": "Hours", "GiBy.h": "Hours", "GiBy.mo": "GB-Months"}


class _Json(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Money(_Json):
    currency_code: str = "USD"
    units: int = 0
    nanos: int = 0

    @property
    def value(self) -> Decimal:
        return self.units + Decimal(self.nanos) / 10**9


class RateTier(_Json):
    unit_price: Money


class Expression(_Json):
    usage_unit: str = ""
    tiered_rates: tuple[RateTier, ...] = ()


class Pricing(_Json):
    pricing_expression: Expression


class Category(_Json):
    usage_type: str = ""


class Sku(_Json):
    """One SKU, as far as it matters here."""

    description: str
    category: Category = Field(default_factory=Category)
    service_regions: tuple[str, ...] = ()
    pricing_info: tuple[Pricing, ...] = ()


@dataclass(frozen=True)
class Found:
    """One price of the catalogue: of what, where, spot or not, in US dollars a unit."""

    what: str
    region: str
    spot: bool
    value: Decimal


def found_in(skus: Iterable[Sku]) -> Iterator[Found]:
    """The prices that matter here; the others are passed over."""
    for sku in skus:
        start = _START.match(sku.description)
        if not start or not sku.pricing_info:
            continue
        what, spot = _KNOWN[start[0]]
        usage: Literal["OnDemand", "Preemptible"] = "Preemptible" if spot else "OnDemand"
        expression = sku.pricing_info[-1].pricing_expression
        rates = [tier.unit_price for tier in expression.tiered_rates]
        if sku.category.usage_type != usage or expression.usage_unit not in _UNITS or not rates:
            continue
        if any(rate.currency_code != "USD" for rate in rates):
            continue
        # The first tier may be a free one.
        value = max(rate.value for rate in rates)
        yield from (Found(what, region, spot, value) for region in sku.service_regions)


def prices_of(found: Iterable[Found], day: date) -> tuple[Price, ...]:
    """Those prices under the meters of the dated snapshot."""
    table = {(one.what, one.region, one.spot): one.value for one in found}
    made = [
        _price(what, "T4" if what == "T4" else "", region, spot, value, day)
        for (what, region, spot), value in table.items()
        if what in ("vCPU", "memory", "T4", "boot disk")
    ]
    for machine in machines():
        if machine.platform != "gcp" or machine.gpu != "L4":
            continue
        for region, spot in {(region, spot) for what, region, spot in table if what == "L4"}:
            parts = {what: table.get((what, region, spot)) for what in ("G2 core", "G2 memory", "L4")}
            core, memory, card = parts.values()
            if core is None or memory is None or card is None:
                continue
            whole = core * machine.vcpu + memory * machine.ram_gib + card * machine.gpu_count
            made.append(_price("machine", "L4", region, spot, whole, day, machine.sku, "includes the GPU"))
    return tuple(made)


def as_live(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """The offers with what came from the catalogue marked as asked just now."""

    def marked(offer: Offer) -> Offer:
        rates = tuple(replace(rate, source="live") if rate.url == SOURCE else rate for rate in offer.rates)
        return replace(offer, rates=rates)

    return tuple(map(marked, offers))


def _price(
    what: str, gpu: str, region: str, spot: bool, value: Decimal, day: date, sku: str = "", note: str = ""
) -> Price:
    disk = what == "boot disk"
    tier: Tier | Literal[""] = "" if disk else "secure"
    bills: Bills = "kept" if disk else "running"
    unit: Unit = "GB-Months" if disk else "Hours"
    return Price(
        platform="gcp",
        kind="vm",
        meter="GPU" if what == "T4" else what,
        sku=sku,
        gpu=gpu,
        region=region,
        tier=tier,
        spot=spot,
        bills=bills,
        unit=unit,
        value=value,
        low=None,
        high=None,
        currency="USD",
        url=SOURCE,
        as_of=day,
        method="api",
        note="pd-balanced; sold by the GiB" if disk else note,
        source="snapshot",
    )
