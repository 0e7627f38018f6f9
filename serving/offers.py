"""What a platform offers to rent, and at which rates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal

Unit = Literal["Hours", "GB-Months", "GB", "Seconds"]
Source = Literal["live", "snapshot", "user"]
Kind = Literal["process", "pod", "serverless", "instance", "vm", "app"]
Tier = Literal["own", "secure", "community"]

Bills = Literal["running", "awake", "kept", "stopped", "download", "upload"]
"""When a rate counts.

    running    as long as a server runs
    awake      while a worker that scales to zero is up: starting, answering or idling
    kept       from create to destroy, running or stopped
    stopped    only while a server is stopped; never part of a month's total
    download   per GB that comes in: the image and the weights of every server that is made, and prompts
    upload     per GB that goes out: answers
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """The price of one unit of one meter in US dollars.

    Attributes:
        meter: what is billed, in a word or two, as the tables show it: `GPU`, `vCPU`, `disk`.
        unit: what `unit_price` is for one of. A GB is 10^9 bytes here, as platforms sell it.
        unit_price: list price of one unit; None when it isn't known, which is never zero.
        source: asked just now, read from the snapshot of this repository, or set by the user.
        url: where the price was published.
        as_of: the day it was true, kept when a later query fails.
        assumption: what a reader must know to agree with the line.
        bills: when it counts.
        quantity: units that one server takes (4 of `vCPU`); None means what the spec says (`hardware.disk_gb`), or
            one. Of `download` and `upload`: GB in the month, whatever the spec says; None means the traffic of `usage`.
        lowest, highest: the range of a price that is not fixed (a marketplace, spot); None where it is fixed.
        discount: share off the list price that was agreed with the platform, 0 to 1; only a user can know it.
        sustained_use: Google's automatic discount for running the whole month applies. It never does to spot
            capacity, nor beside a `discount`.
        month_hours: hours in the platform's own GB-month; Vast.ai's has 720.
    """

    meter: str
    unit: Unit
    unit_price: Decimal | None
    source: Source
    url: str
    as_of: date | None
    assumption: str = ""
    bills: Bills = "running"
    quantity: Decimal | None = None
    lowest: Decimal | None = None
    highest: Decimal | None = None
    discount: Decimal = Decimal(0)
    sustained_use: bool = False
    month_hours: int = 730


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing that could be rented.

    Attributes:
        sku: the platform's own name of what is rented: a GPU type id, a pool, a machine type, an offer's id.
        gpu: the GPU catalogue's name, "" for CPU.
        region: the platform's own name, "" for anywhere.
        country: ISO 3166 alpha-2, "" when unknown.
        tier: `secure` is a data centre's host, `community` is somebody's machine, `own` is yours.
        availability: `high`, `medium`, `low` or `none` as the platform last said; "" when it was not asked.
        evidence: why `region`, `country` and `tier` may be believed; "" when nobody vouches for them.
    """

    platform: str
    kind: Kind
    sku: str
    gpu: str
    gpu_count: int
    region: str
    country: str
    tier: Tier
    spot: bool
    rates: tuple[Rate, ...]
    availability: Literal["high", "medium", "low", "none", ""] = ""
    evidence: str = ""


def no_charge(why: str) -> Rate:
    """The rate of what nobody bills, with the reason."""
    return Rate("this machine", "Hours", Decimal(0), "snapshot", "", None, why)
