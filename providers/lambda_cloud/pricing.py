"""What Lambda rents now, or by the dated prices when it does not answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime

from providers import market
from providers.base import PlatformError
from providers.lambda_cloud.client import PLATFORM, LambdaInstance, Offered, connect
from providers.market import Market
from serving.offers import Offer, Rate
from serving.places import place
from serving.snapshot import machines
from serving.spec import DeploymentSpec

WITHOUT_FIREWALL = frozenset({"us-south-1"})
"""Regions where firewall rules have no effect, so that no port can be opened by us
(https://docs.lambda.ai/public-cloud/firewalls/, of 2025)."""
PRICES = "https://docs-api.lambda.ai/api/cloud"


def query(spec: DeploymentSpec, budget_s: float = market.LIVE_BUDGET_S) -> Market:
    """Lambda's offers: live within `budget_s` seconds, else dated, with a note that says so."""
    return market.ask({PLATFORM: live}, spec, budget_s=budget_s)[PLATFORM]


def live(spec: DeploymentSpec, timeout_s: float) -> Iterable[Offer]:
    """Lambda's offers now.

    Raises:
        PlatformError: no key is set, or Lambda does not answer as its contract says.
    """
    types = connect(timeout_s, hurry).types().values()
    return tuple(offers_of(types, spec.hardware.gpu_count, datetime.now(UTC).date()))


def offers_of(types: Iterable[Offered], gpu_count: int, today: date) -> Iterator[Offer]:
    """One offer for each region that has the type, and one that is sold out where none has it.

    A type that our own table of machines doesn't know is left out: nothing is known of what fits on it.
    """
    known = {offer.sku: offer for offer in market.dated(PLATFORM, gpu_count)}
    for one in types:
        kind = one.instance_type
        if kind.name not in known:
            continue
        rate = Rate("machine", "Hours", kind.hourly_usd, "live", PRICES, today)
        offer = replace(known[kind.name], rates=(rate,), availability="none")
        regions = sorted(set(one.regions) - WITHOUT_FIREWALL)
        for region in regions:
            where = place(PLATFORM, region)
            country = where.country if where else ""
            yield replace(offer, region=region, country=country, availability="high")
        if not regions:
            yield offer


def rented(one: LambdaInstance, day: date) -> Offer | None:
    """What an instance is and bills, in the terms of offers; None of a type that our table of machines doesn't know."""
    found = next((row for row in machines() if (row.platform, row.sku) == (PLATFORM, one.instance_type.name)), None)
    if found is None:
        return None
    where = place(PLATFORM, one.region.name)
    return Offer(
        platform=PLATFORM,
        kind="instance",
        sku=found.sku,
        gpu=found.gpu,
        gpu_count=found.gpu_count,
        region=one.region.name,
        country=where.country if where else "",
        tier="secure",
        spot=False,
        rates=(Rate("machine", "Hours", one.instance_type.hourly_usd, "live", PRICES, day, "as billed"),),
    )


def rented_under(label: str) -> Offer | None:
    """What is rented under labels that begin so; None where nothing is, or Lambda can't be asked."""
    try:
        everything = connect(market.LIVE_BUDGET_S, hurry).instances()
    except PlatformError:
        return None
    today = datetime.now(UTC).date()
    ours = (rented(one, today) for one in everything if one.label.startswith(label))
    return next((offer for offer in ours if offer), None)


def hurry(seconds: float) -> None:
    """Instead of waiting for a rate limit: a price that comes later than its budget is of no use.

    Raises:
        PlatformError: always.
    """
    raise PlatformError(f"Lambda asks to wait {seconds:.0f} s (rate limit)")
