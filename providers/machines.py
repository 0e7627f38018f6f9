"""Which types of machine will do for a spec, on platforms that rent from a list of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from providers import market
from providers.base import Ask, Reason
from providers.fitting import fitting_gpus
from providers.model_shape import model_shape
from serving.offers import Offer
from serving.rank import rank
from serving.spec import DeploymentSpec


def types_for(spec: DeploymentSpec, platform: str) -> list[str]:
    """The machine types that will do: in the user's order of GPUs, else cheapest first by the dated prices.

    Raises:
        SpecError: nothing is known of the model.
        UnknownGpu: `hardware.gpus` has a name that no GPU has.
    """
    wanted = {card.name: place for place, card in enumerate(fitting_gpus(spec, platform))}
    fitting = [offer for offer in market.dated(platform, spec.hardware.gpu_count) if offer.gpu in wanted]

    def order(offer: Offer) -> tuple[int, Decimal, str]:
        usd = offer.rates[0].unit_price
        place = wanted[offer.gpu] if spec.hardware.gpus else 0
        return place, Decimal("Infinity") if usd is None else usd, offer.sku

    return list(dict.fromkeys(offer.sku for offer in sorted(fitting, key=order)))


def can_be_rented(ask: Ask, types: Sequence[str], regions: Sequence[str]) -> list[Offer]:
    """The market's offers of those types that can be taken now, in the order of types and then of regions."""
    order = {name: place for place, name in enumerate(types)}
    there = {name: place for place, name in enumerate(regions)}
    taken = [one.offer for one in rank(ask.spec, model_shape(ask.spec.model), ask.market.offers) if one.ok]
    fitting = [offer for offer in taken if offer.sku in order]
    return sorted(fitting, key=lambda offer: (order[offer.sku], there.get(offer.region, len(there))))


def none_left(ask: Ask, types: Sequence[str]) -> Reason:
    """Why none of those types can be had, in the words of the nearest ones."""
    found = rank(ask.spec, model_shape(ask.spec.model), [one for one in ask.market.offers if one.sku in types])
    why = "; ".join(dict.fromkeys(f"{one.offer.sku}: {', '.join(one.reasons)}" for one in found[:3]))
    return Reason("placement.regions", f"{why or 'nothing is offered'}. Other GPUs or regions may do")
