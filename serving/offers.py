"""What a platform offers to rent, and at which rates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

Unit = Literal["Hours", "GB-Months", "GB", "Seconds"]
Source = Literal["live", "snapshot", "user"]
Kind = Literal["process", "pod", "serverless", "instance", "vm", "app"]


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one unit of one meter in US dollars; `unit_price` is None when it isn't known."""

    meter: str
    unit: Unit
    unit_price: Decimal | None
    source: Source
    url: str
    as_of: date | None
    assumption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that could be rented.

    `sku` and `region` are the platform's own names, `gpu` is the catalogue's ("" for CPU), `country` is an ISO
    code ("" when unknown).
    """

    platform: str
    kind: Kind
    sku: str
    gpu: str
    gpu_count: int
    region: str
    country: str
    tier: Literal["own", "secure", "community"]
    spot: bool
    rates: tuple[Rate, ...]


def no_charge(why: str) -> Rate:
    """The rate of what nobody bills, with the reason."""
    return Rate("this machine", "Hours", Decimal(0), "snapshot", "", None, why)
