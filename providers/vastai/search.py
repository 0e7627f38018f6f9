"""What may be rented, as a search query and as a check of every answer, and which of the answers comes first.

The server's filters are not relied on: a host may list odd values, defaults apply silently, and one known quirk hides
GPUs (https://github.com/dstackai/gpuhunt/issues/142). So every filter is checked again here, on the offer itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_DOWN, Decimal
from typing import Any, Literal

from providers.vastai.offers import MIB_PER_GIB, STORAGE_MONTH_HOURS, Traffic, VastOffer, as_offer, month
from serving.gpus import gpu

SEARCH_LIMIT = 200
"""Offers asked for at once; the server's own default is not documented."""

OVERBID = Decimal("1.25")
"""A bid that the user leaves open is this many times the lowest one that wins."""
MOST_BID, LEAST_BID = Decimal(128), Decimal("0.001")

RAM_SLACK = 0.93
"""Hosts of one GPU report up to 7 % less memory than others; the catalogue's name decides afterwards."""


@dataclass(frozen=True)
class Wanted:
    """The user's constraints.

    Attributes:
        gpus: catalogue names that will do.
        min_memory_gib: of one GPU; a bound for the search only, the names decide.
        min_capability: lowest compute capability, and `cuda` the release inside the image. Both go together: a
            search with `cuda_max_good` alone hides GPUs.
        countries: ISO 3166 alpha-2; empty for anywhere.
        min_reliability: share of time that the host was up, 0 to 1.
        min_download_mbps: the image and the weights come through this.
        min_duration_h: hours until the host's own end date, when a rental stops.
        max_hourly_usd: for GPU and disk together; None for no ceiling.
        excluded: machines that have failed already.
    """

    gpus: tuple[str, ...]
    gpu_count: int = 1
    min_memory_gib: float = 0
    min_capability: tuple[int, int] = (7, 5)
    cuda: tuple[int, int] = (12, 4)
    countries: tuple[str, ...] = ()
    tier: Literal["any", "secure", "community"] = "secure"
    verified: bool = True
    static_ip: bool = False
    min_reliability: Decimal = Decimal("0.95")
    min_download_mbps: int = 300
    min_duration_h: int = 24
    disk_gb: int = 60
    interruptible: bool = False
    max_hourly_usd: Decimal | None = None
    excluded: frozenset[int] = frozenset()


def query(wanted: Wanted) -> dict[str, Any]:
    """The body of the search. Numbers are in the API's units; names are the platform's own."""
    bounds: dict[str, dict[str, Any]] = {
        "rentable": {"eq": True},
        "rented": {"eq": False},
        "external": {"eq": False},
        "cpu_arch": {"eq": "amd64"},
        "num_gpus": {"eq": wanted.gpu_count},
        "gpu_name": {"in": platform_names(wanted.gpus)},
        "gpu_ram": {"gte": int(wanted.min_memory_gib * MIB_PER_GIB * RAM_SLACK)},
        "compute_cap": {"gte": wanted.min_capability[0] * 100 + wanted.min_capability[1] * 10},
        "cuda_max_good": {"gte": float(f"{wanted.cuda[0]}.{wanted.cuda[1]}")},
        "disk_space": {"gte": wanted.disk_gb},
        "inet_down": {"gte": wanted.min_download_mbps},
        "reliability": {"gte": float(wanted.min_reliability)},
        "direct_port_count": {"gte": 1},
        "duration": {"gte": wanted.min_duration_h * 3600},
    }
    if wanted.countries:
        bounds["geolocation"] = {"in": list(wanted.countries)}
    if wanted.verified:
        bounds["verified"] = {"eq": True}
    if wanted.static_ip:
        bounds["static_ip"] = {"eq": True}
    if wanted.tier == "secure":
        bounds["datacenter"] = {"eq": True}
    if wanted.max_hourly_usd is not None and not wanted.interruptible:
        bounds["dph_total"] = {"lte": float(wanted.max_hourly_usd)}
    if wanted.excluded:
        bounds["machine_id"] = {"notin": sorted(wanted.excluded)}
    return {
        **bounds,
        # The documents' schema says `ondemand`, their example and the vendor's own client `on-demand`.
        "type": "bid" if wanted.interruptible else "on-demand",
        "order": [["dph_total", "asc"], ["reliability", "desc"]],
        "limit": SEARCH_LIMIT,
        # `dph_total` holds this much storage.
        "allocated_storage": wanted.disk_gb,
    }


def search_text(wanted: Wanted) -> str:
    """The constraints in the query language of the vendor's client, for workers that Vast.ai rents by itself.

    `_` stands for a blank inside a name.
    """
    names = ",".join(name.replace(" ", "_") for name in platform_names(wanted.gpus))
    terms = [
        f"num_gpus={wanted.gpu_count}",
        f"gpu_name in [{names}]",
        f"compute_cap>={wanted.min_capability[0] * 100 + wanted.min_capability[1] * 10}",
        f"cuda_max_good>={wanted.cuda[0]}.{wanted.cuda[1]}",
        f"disk_space>={wanted.disk_gb}",
        f"inet_down>={wanted.min_download_mbps}",
        f"reliability>={wanted.min_reliability}",
        *([f"geolocation in [{','.join(wanted.countries)}]"] if wanted.countries else []),
        *(["verified=True"] if wanted.verified else []),
        *(["datacenter=true"] if wanted.tier == "secure" else []),
        *([f"dph_total<={wanted.max_hourly_usd}"] if wanted.max_hourly_usd is not None else []),
    ]
    return " ".join(terms)


def platform_names(gpus: Iterable[str]) -> list[str]:
    """What Vast.ai calls those GPUs of the catalogue, in order, without doubles."""
    return list(dict.fromkeys(name for wanted in gpus for name in gpu(wanted).platform_names.get("vastai", ())))


def misfits(wanted: Wanted, offer: VastOffer) -> list[str]:
    """Every constraint that the offer breaks, in words; empty when it fits. What a host does not say does not fit."""
    hourly = hourly_usd(wanted, offer)
    checks: tuple[tuple[bool, str], ...] = (
        (offer.gpu in wanted.gpus, f"GPU is {offer.gpu_name} with {offer.gpu_ram} MB"),
        (offer.num_gpus == wanted.gpu_count, f"{offer.num_gpus} GPUs"),
        (_at_least(offer.capability, wanted.min_capability), f"compute capability {_said(offer.compute_cap)}"),
        (_takes(offer.cuda_max_good, wanted.cuda), f"driver takes CUDA {_said(offer.cuda_max_good)}"),
        (offer.cpu_arch in (None, "amd64"), f"CPU is {offer.cpu_arch}"),
        (not wanted.countries or offer.country in wanted.countries, f"place is {_said(offer.geolocation)}"),
        (wanted.tier in ("any", offer.tier), f"host is {offer.tier}"),
        (not wanted.verified or offer.verification == "verified", f"verification is {_said(offer.verification)}"),
        (not wanted.static_ip or bool(offer.static_ip), "address may change"),
        (_at_least(offer.reliability2, wanted.min_reliability), f"reliability {_said(offer.reliability2)}"),
        (_at_least(offer.inet_down, Decimal(wanted.min_download_mbps)), f"download {_said(offer.inet_down)} Mbit/s"),
        (_at_least(offer.duration, Decimal(wanted.min_duration_h * 3600)), f"ends in {_hours(offer.duration)}"),
        (offer.disk_space >= wanted.disk_gb, f"disk {offer.disk_space} GB"),
        (_at_least(offer.direct_port_count, 1), "no open ports"),
        (offer.rentable is not False and not offer.rented and not offer.external, "not rentable"),
        (not wanted.interruptible or offer.min_bid is not None, "takes no bids"),
        (
            wanted.max_hourly_usd is None or (hourly is not None and hourly <= wanted.max_hourly_usd),
            f"${hourly} an hour with disk",
        ),
        (offer.machine_id not in wanted.excluded, f"machine {offer.machine_id} is excluded"),
    )
    return [text for fits, text in checks if not fits]


def hourly_usd(wanted: Wanted, offer: VastOffer) -> Decimal | None:
    """US dollars an hour for GPU and disk; None when an interruptible offer names no bid."""
    gpu = offer.min_bid if wanted.interruptible else offer.dph_base
    return None if gpu is None else gpu + disk_usd(wanted, offer.storage_cost)


def disk_usd(wanted: Wanted, storage_cost: Decimal | None) -> Decimal:
    """US dollars an hour for the disk, running or stopped."""
    return wanted.disk_gb * (storage_cost or Decimal(0)) / STORAGE_MONTH_HOURS


def bid_on(wanted: Wanted, bid_usd: Decimal | None, min_bid: Decimal | None, storage_cost: Decimal | None) -> Decimal:
    """US dollars an hour to bid for a machine slice; with the disk never above the ceiling. None as `bid_usd` bids
    `OVERBID` times the lowest that wins."""
    bid = bid_usd if bid_usd is not None else (min_bid or LEAST_BID) * OVERBID
    if wanted.max_hourly_usd is not None:
        bid = min(bid, wanted.max_hourly_usd - disk_usd(wanted, storage_cost))
    return max(LEAST_BID, min(bid, MOST_BID)).quantize(Decimal("0.0001"), ROUND_DOWN)


def winning(wanted: Wanted, bid_usd: Decimal | None, offers: Iterable[VastOffer]) -> list[VastOffer]:
    """The offers that such a bid wins now."""
    return [o for o in offers if bid_on(wanted, bid_usd, o.min_bid, o.storage_cost) >= (o.min_bid or Decimal(0))]


def ranked(wanted: Wanted, offers: Sequence[VastOffer], traffic: Traffic) -> list[VastOffer]:
    """The offers that fit, cheapest month first (GPU, disk, traffic); the more reliable one of two equals."""

    def key(offer: VastOffer) -> tuple[bool, Decimal, Decimal, int]:
        priced = as_offer(offer, interruptible=wanted.interruptible, source="live", as_of=date.min)
        return (*month(priced, wanted.disk_gb, traffic), -(offer.reliability2 or Decimal(0)), offer.id)

    return sorted((offer for offer in offers if not misfits(wanted, offer)), key=key)


def best_per_machine(offers: Iterable[VastOffer]) -> list[VastOffer]:
    """The first offer of each machine: a machine that fails once is not tried again under another offer's id."""
    first: dict[int, VastOffer] = {}
    for offer in offers:
        first.setdefault(offer.machine_id, offer)
    return list(first.values())


def _at_least(value: Any, bound: Any) -> bool:
    return value is not None and value >= bound


def _takes(cuda_max: Decimal | None, cuda: tuple[int, int]) -> bool:
    if cuda_max is None:
        return False
    major, _, minor = str(cuda_max).partition(".")
    return (int(major), int(minor or 0)) >= cuda


def _said(value: object) -> str:
    return "unknown" if value is None else str(value)


def _hours(seconds: Decimal | None) -> str:
    return "an unknown time" if seconds is None else f"{seconds / 3600:.0f} h"
