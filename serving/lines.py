"""A cost line and an estimate: a list price times a quantity, with the names and meanings of FOCUS.

FOCUS is the FinOps Foundation's billing format (`CostLine.focus` writes one row of it). BilledCost and EffectiveCost
are left out on purpose: they are an invoice's, and this is an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from functools import cached_property
from typing import Any, Literal

from serving.offers import Offer, Rate
from serving.spec import HOURS_PER_MONTH

Basis = Literal["baseline", "usage"]
"""`baseline` is billed whatever the traffic, `usage` follows it."""

ZERO = Decimal(0)
_CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Span:
    """A quantity or an amount at low, declared and high use."""

    low: Decimal
    expected: Decimal
    high: Decimal

    @staticmethod
    def sum(spans: Iterable[Span]) -> Span:
        low = expected = high = ZERO
        for span in spans:
            low, expected, high = low + span.low, expected + span.expected, high + span.high
        return Span(low, expected, high)

    def times(self, other: Span) -> Span:
        return Span(self.low * other.low, self.expected * other.expected, self.high * other.high)

    def over(self, divisor: Decimal) -> Span:
        return Span(self.low / divisor, self.expected / divisor, self.high / divisor)

    def minus(self, other: Span) -> Span:
        return Span(self.low - other.low, self.expected - other.expected, self.high - other.high)


def exactly(value: Decimal) -> Span:
    """A span of one value."""
    return Span(value, value, value)


@dataclass(frozen=True, slots=True)
class CostLine:
    """One thing that is billed: an offer's rate, and how much of it in a month.

    Attributes:
        rate: as the offer has it; its `meter` names the phase, too.
        quantity: in `rate.unit`; None when it depends on a use that isn't declared.
        most: the quantity with every worker always up and full, which bounds a use that isn't declared.
        basis: whether the traffic moves it.
        net: share of the list price that is left after the platform's automatic and agreed discounts.
        phase: which part of the rate's quantity this is (`idle`, `always on`), "" for all of it.
    """

    offer: Offer
    rate: Rate
    quantity: Span | None
    most: Decimal
    basis: Basis
    net: Decimal = Decimal(1)
    phase: str = ""

    @property
    def list_cost(self) -> Decimal | None:
        """FOCUS ListCost: list unit price x quantity at the declared use; None when one of them isn't known."""
        if self.rate.unit_price is None or self.quantity is None:
            return None
        return self.rate.unit_price * self.quantity.expected

    @property
    def monthly(self) -> Decimal | None:
        """FOCUS ContractedCost: US dollars a month after discounts; None like `list_cost`."""
        if self.rate.unit_price is None or self.quantity is None:
            return None
        return self.rate.unit_price * self.net * self.quantity.expected

    @property
    def span(self) -> Span | None:
        """US dollars a month at low, declared and high use and price; None when the price isn't known.

        Where the use isn't declared it reaches from no request at all to every worker always up and full.
        """
        rate = self.rate
        if rate.unit_price is None:
            return None
        quantity = self.quantity or Span(ZERO, ZERO, self.most)
        return price_span(rate).times(exactly(self.net)).times(quantity)

    @property
    def description(self) -> str:
        """FOCUS ChargeDescription, in words for people."""
        if self.rate.unit_price is None:
            return f"{self.rate.meter}: price not found"
        if self.quantity is None:
            return f"{self.rate.meter}: depends on usage: ${_text(self.rate.unit_price)} per {_ONE[self.rate.unit]}"
        return f"{self.rate.meter}, {self.offer.sku}"

    def focus(self) -> dict[str, str | None]:
        """The line as one row with columns of FOCUS 1.2, numbers as text to ten places, null where nothing is known.

        A row without `PricingQuantity` or `ListUnitPrice` is what an estimate can't say; it is no charge record.
        ChargeFrequency is how often something is charged, and everything here is metered; whether traffic moves it
        is in `x_Basis`. FOCUS leaves the effect of a commitment to EffectiveCost; here ContractedCost has it.
        """
        offer, rate = self.offer, self.rate
        meter = rate.meter.removesuffix(f", {self.phase}")
        price_id = (
            offer.platform,
            offer.kind,
            offer.sku,
            offer.region,
            offer.tier,
            "spot" if offer.spot else "",
            meter,
        )
        dynamic = offer.spot or rate.lowest is not None or rate.highest is not None
        contracted = None if rate.unit_price is None else rate.unit_price * self.net
        return {
            "Provider": offer.platform,
            "ServiceName": offer.kind,
            "ResourceId": None,
            "ResourceType": None,
            "RegionId": offer.region or None,
            "SkuId": offer.sku,
            "SkuMeter": meter,
            "SkuPriceId": "/".join(part for part in price_id if part),
            "ChargeCategory": "Usage",
            "ChargeFrequency": "Usage-Based",
            "PricingCategory": "Dynamic" if dynamic else "Committed" if rate.discount else "Standard",
            "PricingQuantity": _text(self.quantity.expected if self.quantity else None),
            "PricingUnit": rate.unit,
            "ListUnitPrice": _text(rate.unit_price),
            "ListCost": _text(self.list_cost),
            "ContractedUnitPrice": _text(contracted),
            "ContractedCost": _text(self.monthly),
            "BillingCurrency": "USD",
            "ChargeDescription": self.description,
            "x_PriceSource": rate.source,
            "x_PriceUrl": rate.url or None,
            "x_PriceAsOf": rate.as_of.isoformat() if rate.as_of else None,
            "x_Basis": self.basis,
            "x_Assumption": rate.assumption or None,
        }


@dataclass(frozen=True)
class Estimate:
    """What an offer costs, line by line. Amounts are US dollars in a month.

    `hours` is the month's length, `peak_hourly` the cost of an hour in which every worker is up, without its traffic.
    """

    lines: tuple[CostLine, ...]
    hours: Decimal = field(default=Decimal(HOURS_PER_MONTH))
    peak_hourly: Decimal = ZERO

    @cached_property
    def span(self) -> Span:
        """Low, expected and high, without the lines whose price isn't known."""
        return Span.sum(span for line in self.lines if (span := line.span) is not None)

    @property
    def monthly(self) -> Decimal:
        """At the declared use, without the lines whose price or use isn't known."""
        return self.span.expected

    @property
    def hourly(self) -> Decimal:
        """`monthly`, spread over the month."""
        return self.monthly / self.hours

    @property
    def listed(self) -> Decimal:
        """`monthly` before discounts."""
        return total(line.list_cost for line in self.lines if line.list_cost is not None)

    @property
    def baseline(self) -> Decimal:
        """The part of `monthly` that is billed whatever the traffic."""
        return total(line.monthly for line in self.lines if line.basis == "baseline" and line.monthly is not None)

    @property
    def usage(self) -> Decimal:
        """The part of `monthly` that follows the traffic."""
        return self.monthly - self.baseline

    @property
    def incomplete(self) -> bool:
        """Whether a price is missing, so that every total is less than what will be billed."""
        return any(line.rate.unit_price is None for line in self.lines)

    @property
    def open_use(self) -> bool:
        """Whether a line depends on a use that isn't declared."""
        return any(line.quantity is None for line in self.lines)

    @property
    def open_hours(self) -> bool:
        """Whether the workers' own hours do, so that `monthly` says next to nothing of what will be billed."""
        return any(line.quantity is None and line.rate.bills == "awake" for line in self.lines)

    def as_output(self) -> dict[str, Any]:
        """For programs: money as text, net unless it says list; null when no price at all is known.

        `kind` is what is rented, `lines` are rows of `CostLine.focus`.
        """
        known = any(line.rate.unit_price is not None for line in self.lines) or not self.lines

        def told(amount: Decimal) -> str | None:
            return usd(amount) if known else None

        return {
            "hourly_usd": str(self.hourly.quantize(Decimal("0.0001"), ROUND_HALF_UP)) if known else None,
            "monthly_usd": told(self.monthly),
            "list_usd": told(self.listed),
            "baseline_usd": told(self.baseline),
            "usage_usd": told(self.usage),
            "low": told(self.span.low),
            "expected": told(self.span.expected),
            "high": told(self.span.high),
            "hours": _text(self.hours),
            "incomplete": self.incomplete,
            "depends_on_usage": self.open_use,
            "kind": self.lines[0].offer.kind if self.lines else "",
            "lines": [line.focus() for line in self.lines],
        }


def cents(amount: Decimal) -> Decimal:
    """US dollars rounded half up to the cent."""
    return amount.quantize(_CENT, ROUND_HALF_UP)


def cents_up(amount: Decimal) -> Decimal:
    """US dollars rounded up to the cent: a limit that the amount keeps within."""
    return amount.quantize(_CENT, ROUND_CEILING)


def price_span(rate: Rate) -> Span:
    """The lowest, expected and highest price of a unit; the rate must have one."""
    assert rate.unit_price is not None
    low = rate.unit_price if rate.lowest is None else min(rate.lowest, rate.unit_price)
    high = rate.unit_price if rate.highest is None else max(rate.highest, rate.unit_price)
    return Span(low, rate.unit_price, high)


_ONE = {"Hours": "hour", "Seconds": "second", "GB-Months": "GB-month", "GB": "GB"}


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, as a Decimal even of nothing."""
    return sum(amounts, ZERO)


def _text(number: Decimal | None) -> str | None:
    """Plain digits to ten places, as many as a price has, without trailing zeros."""
    return None if number is None else f"{round(number, 10).normalize():f}"


def usd(amount: Decimal | None) -> str | None:
    """US dollars as outputs and JSON have them: text, to the cent."""
    return None if amount is None else str(cents(amount))
