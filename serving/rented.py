"""What was rented, as an offer: it may differ from the offer that a plan was made on. Pure.

A wish (acceptable GPUs, a ceiling) is answered by whatever is free when it is rented, at that machine's own price. The
server's resource tells it in its outputs, in the terms that offers have, so that costs are of what is paid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Context, Decimal
from functools import cache
from typing import TYPE_CHECKING, Any

from serving.lines import total
from serving.offers import Offer, Rate

if TYPE_CHECKING:
    from pydantic import TypeAdapter


_NINE_DIGITS = Context(prec=9)
"""Of a mean that never ends: enough for every cent of a month."""


def as_output(offer: Offer) -> dict[str, Any]:
    """An offer as a resource's or a stack's output: money as text. What is as by default is left out."""
    return _adapter().dump_python(offer, mode="json", exclude_defaults=True, exclude_none=True)


def from_output(value: Any) -> Offer | None:
    """The offer of an output; None where there is none, or one that this version can't read."""
    if not isinstance(value, Mapping) or not isinstance(rates := value.get("rates"), Sequence):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return None
    from pydantic import ValidationError

    # Pulumi drops what is null.
    nothing = {"unit_price": None, "as_of": None}
    try:
        return _adapter().validate_python({**value, "rates": [{**nothing, **rate} for rate in rates]})  # pyright: ignore[reportUnknownVariableType]
    except (ValidationError, TypeError):
        return None


def dated_as(before: Any, now: Offer) -> Offer:
    """The offer with the dates that it had in an output, if all else is as it was: a price is known since then."""
    known = from_output(before)
    if known is None or len(known.rates) != len(now.rates):
        return now
    rates = tuple(replace(rate, as_of=old.as_of) for rate, old in zip(now.rates, known.rates, strict=True))
    return known if replace(now, rates=rates) == known else now


def completed(rented: Offer, planned: Offer) -> Offer:
    """The rented offer, with the planned one's rate of each meter that the platform does not tell of a machine."""
    told = {rate.meter for rate in rented.rates}
    return replace(rented, rates=(*rented.rates, *(rate for rate in planned.rates if rate.meter not in told)))


def together(servers: Sequence[Offer]) -> Offer:
    """One offer that costs, taken as often as there are servers, what they cost together. All have the same meters."""
    first = servers[0]
    return replace(first, rates=tuple(_mean(rate, servers) for rate in first.rates))


def _mean(rate: Rate, servers: Sequence[Offer]) -> Rate:
    prices = [other.unit_price for one in servers for other in one.rates if other.meter == rate.meter]
    known = [price for price in prices if price is not None]
    if len(known) < len(prices):
        return replace(rate, unit_price=None)
    if len(set(known)) == 1:
        return rate
    mean = _NINE_DIGITS.divide(total(known), Decimal(len(known)))
    return replace(rate, unit_price=mean, assumption=f"mean of {len(servers)} servers, {min(known)} to {max(known)}")


@cache
def _adapter() -> TypeAdapter[Offer]:
    from pydantic import TypeAdapter

    return TypeAdapter(Offer)
