"""A small VM on Google Cloud for a gateway: what can be said of it, and what it costs."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from serving.offers import Offer, Rate
from serving.prices import Price
from serving.snapshot import rate_of
from serving.spec import Part

DISK_GB = 10
"""The system takes some 3 GB of it (an estimate), LiteLLM 0.6."""
_METERS = ("machine", "boot disk", "external IPv4", "reserved IPv4", "egress")


def _cidr(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value))
    except ValueError:
        raise ValueError("a range of addresses in CIDR notation, such as `203.0.113.7/32`") from None


Cidr = Annotated[str, AfterValidator(_cidr)]
"""A range of addresses."""


class GatewayVm(Part):
    """The VM of a gateway with `on: gcp`."""

    project: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9:.-]{4,61}[a-z0-9]$",
        description="Project id; the provider's own (`gcp:project` or GOOGLE_PROJECT) if absent.",
    )
    zone: str = Field(default="europe-west4-a", pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$", description="Zone of the VM.")
    # LiteLLM's proxy takes 0.3 GB, and a change runs two of them for a while.
    machine_type: Literal["e2-small", "e2-medium"] = Field(
        default="e2-small", description="`e2-small` has 2 GB, of which two proxies take 0.6; `e2-medium` has 4."
    )
    network: str = Field(default="default", pattern=r"^[\w./-]+$", description="VPC network, by name or self link.")
    allow: tuple[Cidr, ...] = Field(
        default=("0.0.0.0/0",), min_length=1, description="Addresses that may reach the gateway, as CIDR ranges."
    )
    ssh: bool = Field(default=False, description="Allow SSH through Identity-Aware Proxy.")
    enable_apis: bool = Field(
        default=False, description="Switch on the APIs that are needed; `destroy` leaves them on."
    )

    @property
    def region(self) -> str:
        """`europe-west4` of `europe-west4-a`."""
        return self.zone.rpartition("-")[0]


def vm_offer(vm: GatewayVm, prices: Iterable[Price]) -> Offer:
    """The VM with its disk, its address and its traffic; a meter that no price is known of has none, never zero."""
    known = [one for one in prices if (one.platform, one.kind, one.gpu, one.spot) == ("gcp", "vm", "", False)]
    return Offer(
        platform="gcp",
        kind="vm",
        sku=vm.machine_type,
        gpu="",
        gpu_count=0,
        region=vm.region,
        country="",
        tier="secure",
        spot=False,
        rates=tuple(_rate(vm, meter, known) for meter in _METERS),
    )


def _rate(vm: GatewayVm, meter: str, known: Iterable[Price]) -> Rate:
    skus = (vm.machine_type,) if meter == "machine" else ("", vm.machine_type)
    fitting = [one for one in known if one.meter == meter and one.sku in skus and one.region in ("", vm.region)]
    if not fitting:
        return Rate(meter, "Hours", None, "snapshot", "", None, "no published price was found")
    best = max(fitting, key=lambda one: (one.source == "user", bool(one.sku), bool(one.region)))
    return rate_of(best, Decimal(DISK_GB) if meter == "boot disk" else None)
