"""What the marketplace offers now. A search needs no key and rents nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime

import httpx

from providers.base import PlatformError
from providers.market import LIVE_BUDGET_S, Market, ask, offline
from providers.model_shape import model_shape
from providers.vastai.offers import VastOffer, as_offer, parse_offers
from providers.vastai.options import PLATFORM, VastaiOptions, countries, usable_gpus, wanted_for
from providers.vastai.search import query as search_query
from serving.models import Model
from serving.offers import Offer
from serving.spec import DeploymentSpec, SpecError


@dataclass(frozen=True)
class VastMarket(Market):
    """The market of one search.

    Attributes:
        asks: the offers as they were answered.
        at: when they were answered, none found included; None when the prices are dated.
        model: the shape of the spec's model; None when nothing describes it.
    """

    asks: tuple[VastOffer, ...] = ()
    at: datetime | None = None
    model: Model | None = None


def query(spec: DeploymentSpec, budget_s: float = LIVE_BUDGET_S) -> VastMarket:
    """The market for a spec: live within `budget_s` seconds, else the dated prices with a note."""
    model = _model(spec)
    asks: tuple[VastOffer, ...] = ()
    at = datetime.now(UTC)

    def remember(spec: DeploymentSpec, seconds: float) -> Iterable[Offer]:
        nonlocal asks
        asks = _asks(spec, model, seconds)
        return _offers(spec, asks, at.date())

    market = ask({PLATFORM: remember}, spec, budget_s=budget_s)[PLATFORM]
    # The thread may answer after all, when the dated prices have been chosen already; a note says so then.
    answered = not market.notes and not offline()
    return VastMarket(market.offers, market.notes, asks if answered else (), at if answered else None, model)


def live(spec: DeploymentSpec, seconds: float) -> Iterable[Offer]:
    """What is offered for a spec now, within that time.

    Raises:
        PlatformError: when Vast.ai does not answer, or not with offers.
    """
    return _offers(spec, _asks(spec, _model(spec), seconds), datetime.now(UTC).date())


def rented_under(label: str) -> Offer | None:
    """What is rented under labels that begin so; None where nothing is, or Vast.ai can't be asked."""
    from providers.vastai.client import connect

    try:
        everything = connect(timeout=httpx.Timeout(LIVE_BUDGET_S)).instances()
    except PlatformError:
        return None
    ours = (one for one in everything if one.label.startswith(label))
    # An instance does not say its tier: it was chosen by the stack's own.
    return next((one.offer("secure", datetime.now(UTC).date()) for one in ours), None)


def _asks(spec: DeploymentSpec, model: Model | None, seconds: float) -> tuple[VastOffer, ...]:
    from providers.vastai.client import connect

    gpus = usable_gpus(spec) if model else []
    if not gpus:
        return ()
    # Wider than what may be rented, so that preview can say what stands in the way.
    body = search_query(wanted_for(spec, VastaiOptions(), gpus))
    for bound in ("dph_total", "inet_down", "reliability", "duration"):
        body.pop(bound, None)
    found, _ = parse_offers(connect(keyless=True, timeout=httpx.Timeout(seconds)).search(body))
    return tuple(found)


def _offers(spec: DeploymentSpec, asks: Iterable[VastOffer], day: date) -> list[Offer]:
    allowed = countries(spec)
    bids = spec.hardware.spot
    return [
        as_offer(offer, interruptible=bids, source="live", as_of=day, evidence=evidence(offer))
        for offer in asks
        if offer.gpu and (offer.min_bid is not None or not bids) and (not allowed or offer.country in allowed)
    ]


def evidence(offer: VastOffer) -> str:
    """Why place and tier may be believed."""
    if offer.tier != "secure" or not offer.country:
        return ""
    return f"Vast.ai lists machine {offer.machine_id} as a data centre's, in {offer.geolocation}"


def _model(spec: DeploymentSpec) -> Model | None:
    try:
        return model_shape(spec.model)
    except SpecError:
        return None
