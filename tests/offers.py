"""Hand-made offers for tests."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

from serving.offers import Offer, Rate
from serving.spec import DeploymentSpec

DAY = date(2026, 11, 1)


def spec(**sections: Any) -> DeploymentSpec:
    """A spec from its sections, placed anywhere unless it says otherwise."""
    return DeploymentSpec.model_validate({"placement": {"regions": []}, **sections})


def hourly(price: str | None, **changes: Any) -> Rate:
    """A price of a GPU hour."""
    value = None if price is None else Decimal(price)
    return Rate(
        **{"meter": "GPU", "unit": "Hours", "unit_price": value, "source": "snapshot", "url": "", "as_of": DAY}
        | changes
    )


def offer(platform: str = "runpod", gpu: str = "L4", price: str | None = "0.50", **changes: Any) -> Offer:
    """An offer that costs `price` an hour, and nothing else."""
    fields: dict[str, Any] = {
        "platform": platform,
        "kind": "pod",
        "sku": gpu,
        "gpu": gpu,
        "gpu_count": 1,
        "region": "",
        "country": "",
        "tier": "secure",
        "spot": False,
        "rates": (hourly(price),),
    }
    return Offer(**fields | changes)
