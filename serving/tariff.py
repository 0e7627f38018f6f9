"""What a month costs for each dollar of a rate's price, so that the offers of a whole market are priced in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal

from serving.lines import ZERO, Span, price_span
from serving.offers import Rate


@dataclass(frozen=True, slots=True)
class Weight:
    """Units of a rate that a month takes, after discounts: times the unit price, they are US dollars.

    `open_use` says that they depend on a use that isn't declared, `counts` that a month takes any at all.
    """

    units: Span
    open_use: bool
    counts: bool


class Tariff:
    """The weights of one kind of offer, spot or not. Each is worked out once: what differs in a market is the price.

    Args:
        weigh: the weight of a rate, whatever its price.
    """

    def __init__(self, weigh: Callable[[Rate], Weight]) -> None:
        self._weigh = weigh
        self._weights: dict[object, Weight] = {}

    def totals(self, rates: Iterable[Rate]) -> tuple[Span, bool, bool]:
        """US dollars a month, whether a price is missing, and whether a use is."""
        low = expected = high = ZERO
        incomplete = open_use = False
        for rate in rates:
            weight = self._weights.get(_terms(rate)) or self._remember(rate)
            open_use |= weight.open_use
            price = rate.unit_price
            if price is None:
                incomplete |= weight.counts
                continue
            cheap = dear = price
            if rate.lowest is not None or rate.highest is not None:
                span = price_span(rate)
                cheap, dear = span.low, span.high
            low += cheap * weight.units.low
            expected += price * weight.units.expected
            high += dear * weight.units.high
        return Span(low, expected, high), incomplete, open_use

    def expected(self, rates: Iterable[Rate]) -> tuple[Decimal, bool]:
        """US dollars a month at the declared use, and whether a price is missing: all that sorting takes."""
        cost, incomplete, weights = ZERO, False, self._weights
        for rate in rates:
            weight = weights.get(_terms(rate)) or self._remember(rate)
            price = rate.unit_price
            if price is None:
                incomplete |= weight.counts
            else:
                cost += price * weight.units.expected
        return cost, incomplete

    def _remember(self, rate: Rate) -> Weight:
        return self._weights.setdefault(_terms(rate), self._weigh(rate))


def _terms(rate: Rate) -> tuple[object, ...]:
    """All of a rate that its weight may depend on."""
    return rate.bills, rate.unit, rate.quantity, rate.month_hours, rate.discount, rate.sustained_use
