"""What a stack costs, read back from its own outputs or from a plan as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from serving.cost import BASED_ON_USE


@dataclass(frozen=True, slots=True)
class Money:
    """US dollars; None where a price isn't known."""

    hourly: Decimal | None = None
    monthly: Decimal | None = None
    high: Decimal | None = None
    open_use: bool = False
    """Whether the hours of workers are what isn't declared; traffic alone, which every machine has, is none of it."""

    @classmethod
    def of(cls, cost: Mapping[str, Any]) -> Money:
        """From the form of `Estimate.as_output`; a total that lacks a price counts as not known."""
        if cost.get("incomplete"):
            return cls()
        hourly, monthly, high = (_usd(cost.get(name)) for name in ("hourly_usd", "monthly_usd", "high"))
        workers = cost.get("kind") in BASED_ON_USE
        return cls(hourly, monthly, high, bool(cost.get("depends_on_usage")) and workers)

    @property
    def compared(self) -> Decimal | None:
        """A month's cost, to be compared with `Candidate.cost`: the most there can be where use isn't declared."""
        return self.high if self.open_use else self.monthly


def _usd(text: Any) -> Decimal | None:
    try:
        return Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        return None
