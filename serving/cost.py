"""What an offer costs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from serving.offers import Offer, Rate
from serving.spec import HOURS_PER_MONTH, DeploymentSpec


@dataclass(frozen=True, slots=True)
class CostLine:
    """One thing that is billed: the rate, and how much of it in a month."""

    rate: Rate
    quantity: Decimal

    @property
    def monthly(self) -> Decimal | None:
        """US dollars a month; None when the price isn't known."""
        return None if self.rate.unit_price is None else self.rate.unit_price * self.quantity


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an offer costs, line by line."""

    lines: tuple[CostLine, ...]

    @property
    def monthly(self) -> Decimal:
        """US dollars in a month of 730 hours, without the lines whose price isn't known."""
        return sum((line.monthly for line in self.lines if line.monthly is not None), Decimal(0))

    def as_output(self) -> dict[str, Any]:
        """The stack output `cost`."""
        monthly = str(self.monthly.quantize(Decimal("0.01")))
        hourly = str((self.monthly / HOURS_PER_MONTH).quantize(Decimal("0.0001")))
        return {
            "hourly_usd": hourly,
            "monthly_usd": monthly,
            "low": monthly,
            "expected": monthly,
            "high": monthly,
        }


def estimate(spec: DeploymentSpec, offer: Offer) -> Estimate:
    """The cost of an offer at the spec's declared use."""
    return Estimate(tuple(CostLine(rate, Decimal(HOURS_PER_MONTH)) for rate in offer.rates))
