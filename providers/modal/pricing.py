"""What Modal rents and at which price: from the dated prices, as Modal publishes them on a page for people alone.

A container is billed for its GPU, its CPU cores and its memory as long as it is up. A pinned region multiplies all
three: https://modal.com/docs/guide/region-selection#pricing (1.5 for a broad one, 1.75 for a narrower one, 2026-08).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal

from providers import market
from providers.market import Market
from serving.offers import Offer, Rate
from serving.places import all_places, regions_on
from serving.spec import DeploymentSpec

BROAD = Decimal("1.5")
NARROW = Decimal("1.75")


def query(spec: DeploymentSpec) -> Market:
    """Modal's dated offers that are pinned nowhere; `placed` pins one to regions."""
    return Market(tuple(offer for offer in market.dated("modal", spec.hardware.gpu_count) if not offer.region))


def factor_of(regions: Iterable[str]) -> Decimal:
    """What all prices are multiplied with when containers may be in any of these regions: that of the dearest."""
    return max((NARROW if _is_narrow(region) else BROAD for region in regions), default=Decimal(1))


def placed(offer: Offer, regions: tuple[str, ...]) -> list[Offer]:
    """The offer in each of the regions. A container may land in any of them, so each has the dearest one's prices."""
    if not regions:
        return [offer]
    factor = factor_of(regions)
    kind = "narrower " if factor == NARROW else ""
    rates = tuple(_multiplied(rate, factor, f"{factor} x for a {kind}region") for rate in offer.rates)
    return [replace(offer, region=region, rates=rates, evidence=f"Modal region {region}") for region in regions]


def resized(offer: Offer, cpu: int, memory_gib: int) -> Offer:
    """The offer with that many CPU cores and that much memory to a container."""
    units = {"CPU core": Decimal(cpu), "memory": Decimal(memory_gib)}
    rates = (replace(r, quantity=units[r.meter]) if r.meter in units else r for r in offer.rates)
    return replace(offer, rates=tuple(rates))


def hourly_usd(gpus: Sequence[tuple[str, int]], cpu: float, memory_mib: int, regions: Sequence[str]) -> Decimal | None:
    """US dollars an hour of one container by the dated prices, on the dearest of its GPUs (type and count); None when
    one of them has no price."""
    by_name = {offer.sku: offer for offer in market.dated("modal") if not offer.region}
    dearest = Decimal(0)
    for name, count in gpus:
        offer = by_name.get(name.removesuffix("!"))
        if offer is None:
            return None
        units = {"GPU": Decimal(count), "CPU core": Decimal(str(cpu)), "memory": Decimal(memory_mib) / 1024}
        each = [(rate.unit_price, units.get(rate.meter, Decimal(0))) for rate in offer.rates]
        dearest = max(dearest, sum((price * size for price, size in each if price is not None), Decimal(0)))
    return dearest * 3600 * factor_of(regions)


def _multiplied(rate: Rate, factor: Decimal, why: str) -> Rate:
    if rate.unit_price is None:
        return rate
    assumption = f"{rate.assumption}; {why}" if rate.assumption else why
    return replace(rate, unit_price=rate.unit_price * factor, assumption=assumption)


def _is_narrow(region: str) -> bool:
    """Whether another region holds it: together with that one it isn't listed."""
    if not regions_on("modal", (region,)):
        return False  # `sa`, `me` and `af` mean countries there, and no other region holds them
    broader = (place.region for place in all_places("modal") if place.region != region)
    return any(regions_on("modal", (other, region)) == (other,) for other in broader)
