"""What there is to rent, made up of dated prices.

`data/machines.csv` says what a platform sells and which meters bill it; prices say what a meter costs. A row without a
`sku` is one machine a GPU, for every GPU that the platform rents, under the platform's own name. A meter in `parts`
without a price makes an offer with an unknown price, never a free one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import cast

from serving.cost import BASED_ON_USE
from serving.gpus import all_gpus
from serving.offers import Bills, Kind, Offer, Rate, Tier
from serving.places import place
from serving.prices import Price
from serving.spec import HOURS_PER_MONTH
from serving.tables import rows

_EVIDENCE = {
    ("runpod", "secure"): "RunPod Secure Cloud",
    ("runpod", "community"): "RunPod Community Cloud",
    ("vastai", "secure"): "Vast.ai verified datacenter",
    ("modal", "secure"): "Modal",
}
_MONTH_HOURS = {"vastai": 720}  # docs.vast.ai/documentation/instances/pricing
_COMPUTE = frozenset({"GPU", "machine", "vCPU", "CPU core", "memory"})
"""Meters that spot makes cheaper; disks, addresses and traffic cost the same."""


@dataclass(frozen=True, slots=True)
class Machine:
    """One row of `data/machines.csv`.

    Attributes:
        sku: the platform's name; "" for the name it gives the GPU.
        gpu: the GPU catalogue's name; "" for every GPU the platform rents.
        gpu_count: GPUs in it; 0 for as many as are asked for.
        vcpu: what the meters `vCPU` and `CPU core` count.
        ram_gib: what the meter `memory` counts.
        tier, spot, region: what all its offers are; "" and None leave it to the prices.
        factor: what every price is multiplied with, because of `region`.
        sustained_use: Google's discount for the whole month applies to GPU, cores and memory.
        priced_as: the kind whose prices hold for it.
        parts: the meters that bill it. The prices of the first one say in which regions, tiers and so on it is sold.
        note: what a reader of the cost lines must know.
    """

    platform: str
    kind: Kind
    sku: str
    gpu: str
    gpu_count: int
    vcpu: Decimal
    ram_gib: Decimal
    tier: Tier | None
    spot: bool | None
    region: str
    factor: Decimal
    sustained_use: bool
    priced_as: Kind
    parts: tuple[str, ...]
    note: str


@cache
def machines() -> tuple[Machine, ...]:
    """What the platforms sell, in the file's order; a row that means every GPU is one machine a name."""
    return tuple(one for row in rows("machines.csv") for one in _machines(row))


def snapshot_offers(prices: Iterable[Price], platform: str = "", gpu_count: int = 1) -> tuple[Offer, ...]:
    """Every offer that the prices make up, of all platforms or of one, with `gpu_count` GPUs."""
    shelf = _Shelf(price for price in prices if platform in ("", price.platform))
    return tuple(
        offer
        for machine in machines()
        if machine.gpu_count in (0, gpu_count) and platform in ("", machine.platform)
        for offer in _offers(machine, gpu_count, shelf)
    )


class _Shelf:
    """Prices by what a machine asks for, and the rates that were made of them."""

    def __init__(self, prices: Iterable[Price]) -> None:
        self._all: dict[tuple[str, ...], list[Price]] = {}
        self._here: dict[tuple[str, ...], list[Price]] = {}
        self._rates: dict[object, Rate] = {}
        for price in prices:
            meter = (price.platform, price.kind, price.meter, price.gpu)
            self._all.setdefault(meter, []).append(price)
            self._here.setdefault((*meter, price.region), []).append(price)

    def places(self, machine: Machine) -> Iterator[tuple[str, Tier, bool]]:
        """Region, tier and spot in which a machine is sold; one place where no price says."""
        found: dict[tuple[str, Tier, bool], None] = {}
        for gpu in (machine.gpu, ""):
            for price in self._all.get((machine.platform, machine.priced_as, machine.parts[0], gpu), ()):
                tier = price.tier or machine.tier or "secure"
                if (
                    price.sku in ("", machine.sku)
                    and tier == (machine.tier or tier)
                    and machine.spot in (None, price.spot)
                    and machine.region in ("", price.region or machine.region)
                ):
                    found[machine.region or price.region, tier, price.spot] = None
        yield from found or {(machine.region, machine.tier or "secure", machine.spot or False): None}

    def rate(self, machine: Machine, part: str, there: tuple[str, Tier, bool], gpu_count: int) -> Rate:
        """The rate of one of a machine's meters: a user's price wins, then the one that names most of the machine."""
        region, tier, spot = there
        best: Price | None = None
        rank: tuple[bool, int] = (False, -1)
        for gpu in (machine.gpu, ""):
            for where in (region, "") if region else ("",):
                for price in self._here.get((machine.platform, machine.priced_as, part, gpu, where), ()):
                    same = price.spot == spot
                    named = bool(price.sku) + bool(gpu) + bool(where) + bool(price.tier) + same
                    told = (price.source == "user", named)
                    fits = same or part not in _COMPUTE
                    if fits and price.sku in ("", machine.sku) and price.tier in ("", tier) and told > rank:
                        best, rank = price, told
        if best is None:
            return _unknown(machine, part)
        quantity = _quantity(machine, part, gpu_count)
        sustained = machine.sustained_use and not spot and part in _COMPUTE
        key = (id(best), quantity, sustained, machine.kind, machine.factor, machine.note)
        made = self._rates.get(key)
        if made is None:
            sleeps = machine.kind in BASED_ON_USE
            made = self._rates[key] = rate_of(best, quantity, machine.factor, machine.note, sleeps, sustained)
        return made


def _offers(machine: Machine, gpu_count: int, shelf: _Shelf) -> Iterator[Offer]:
    for there in shelf.places(machine):
        region, tier, spot = there
        country, evidence = _evidence(machine.platform, region, tier)
        yield Offer(
            platform=machine.platform,
            kind=machine.kind,
            sku=machine.sku,
            gpu=machine.gpu,
            gpu_count=gpu_count,
            region=region,
            country=country,
            tier=tier,
            spot=spot,
            rates=tuple(shelf.rate(machine, part, there, gpu_count) for part in machine.parts),
            evidence=evidence,
        )


def rate_of(
    price: Price,
    quantity: Decimal | None = None,
    factor: Decimal = Decimal(1),
    note: str = "",
    sleeps: bool = False,
    sustained_use: bool = False,
) -> Rate:
    """A price as an offer's rate: `quantity` units a server, None for what the spec says; `sleeps` with its worker."""
    return Rate(
        meter=price.meter,
        unit=price.unit,
        unit_price=price.value * factor,
        source=price.source,
        url=price.url,
        as_of=price.as_of,
        assumption=f"{price.note}; {note}" if price.note and note else price.note or note,
        bills="awake" if sleeps and price.bills == "running" else price.bills,
        quantity=quantity,
        lowest=None if price.low is None else price.low * factor,
        highest=None if price.high is None else price.high * factor,
        sustained_use=sustained_use,
        month_hours=_MONTH_HOURS.get(price.platform, HOURS_PER_MONTH),
    )


def _unknown(machine: Machine, part: str) -> Rate:
    """A meter that no price is known of."""
    bills: Bills = "awake" if machine.kind in BASED_ON_USE else "running"
    return Rate(part, "Hours", None, "snapshot", "", None, "no published price was found", bills)


def _quantity(machine: Machine, part: str, gpu_count: int) -> Decimal | None:
    match part:
        case "GPU":
            return Decimal(gpu_count)
        case "vCPU" | "CPU core":
            return machine.vcpu
        case "memory":
            return machine.ram_gib
        case _:
            return None


def _evidence(platform: str, region: str, tier: Tier) -> tuple[str, str]:
    """Country and evidence of an offer."""
    if platform == "gcp":
        where = place(platform, region)
        name = where.name.rpartition(", ")[2] if where else ""
        return where.country if where else "", f"GCP region {region}, {name}" if name else "GCP"
    evidence = _EVIDENCE.get((platform, tier), "")
    return "", f"{evidence} region {region}" if evidence and region else evidence


def _machines(row: dict[str, str]) -> Iterator[Machine]:
    """The machines of a row: the row's own, or one a name that the platform rents a GPU under."""
    named = [(row["sku"], row["gpu"])]
    if not row["sku"]:
        named = [(name, one.name) for one in all_gpus() for name in one.platform_names.get(row["platform"], ())]
    for sku, gpu in named:
        yield Machine(
            platform=row["platform"],
            kind=cast("Kind", row["kind"]),
            sku=sku,
            gpu=gpu,
            gpu_count=int(row["gpu_count"] or 0),
            vcpu=Decimal(row["vcpu"] or 0),
            ram_gib=Decimal(row["ram_gib"] or 0),
            tier=cast("Tier", row["tier"]) if row["tier"] else None,
            spot=row["spot"] == "true" if row["spot"] else None,
            region=row["region"],
            factor=Decimal(row["factor"] or 1),
            sustained_use=row["sustained_use"] == "true",
            priced_as=cast("Kind", row["priced_as"] or row["kind"]),
            parts=tuple(row["parts"].split("|")),
            note=row["note"],
        )
