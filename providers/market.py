"""What can be rented and at which price: live where a platform answers in time, else the dated snapshot.

Every platform's `pricing.query` shares one budget of seconds. A platform that doesn't answer within it, or at all,
keeps the snapshot's prices with the date they had.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from pathlib import Path

from providers.base import PlatformError
from serving import USER_PRICES
from serving.offers import Offer
from serving.prices import Price, PriceError, parse_prices, snapshot, stale, with_user_prices
from serving.snapshot import snapshot_offers
from serving.spec import DeploymentSpec

LIVE_BUDGET_S = 4.0
"""Seconds that all live price queries of one command take together."""

OFFLINE = "VLLM_ANYWHERE_OFFLINE"
"""Set to anything, no price is asked for: the same input gives the same output, byte for byte."""


@dataclass(frozen=True)
class Market:
    """What one platform offers now. `notes` say what a reader must know of the prices."""

    offers: tuple[Offer, ...]
    notes: tuple[str, ...] = ()


Live = Callable[[DeploymentSpec, float], Iterable[Offer]]
"""A platform's live query: the spec, and seconds until it must be done.

Raises:
    PlatformError: when the platform does not answer, or not with what its contract says.
"""


def offline() -> bool:
    """Whether prices may only come from files."""
    return bool(os.environ.get(OFFLINE))


def prices() -> tuple[Price, ...]:
    """The snapshot's prices with the user's own over them.

    Raises:
        PlatformError: when the user's price file can't be read.
    """
    return _prices(os.environ.get(USER_PRICES, ""))


@cache
def _prices(path: str) -> tuple[Price, ...]:
    if not path:
        return snapshot()
    try:
        return with_user_prices(snapshot(), parse_prices(Path(path).read_text(encoding="utf-8"), "user", path))
    except (OSError, UnicodeError, PriceError) as error:
        raise PlatformError(f"the price file of {USER_PRICES} can't be used: {error}") from None


def dated(platform: str = "", gpu_count: int = 1) -> tuple[Offer, ...]:
    """The offers that the dated prices make up, of one platform or of all."""
    return _dated(os.environ.get(USER_PRICES, ""), platform, gpu_count)


@cache
def _dated(path: str, platform: str, gpu_count: int) -> tuple[Offer, ...]:
    return snapshot_offers(_prices(path), platform, gpu_count)


def ask(
    live: Mapping[str, Live],
    spec: DeploymentSpec,
    *,
    budget_s: float = LIVE_BUDGET_S,
) -> dict[str, Market]:
    """Each platform's market: live where its query is done within the shared budget, else from the dated prices."""
    answers: dict[str, tuple[Offer, ...] | PlatformError] = {}

    def query(platform: str, ask_it: Live) -> None:
        try:
            answers[platform] = tuple(ask_it(spec, budget_s))
        except PlatformError as error:
            answers[platform] = error

    # Daemons, because a query that hangs must not keep the command from ending.
    threads = [threading.Thread(target=query, args=asked, daemon=True) for asked in live.items() if not offline()]
    deadline = time.monotonic() + budget_s
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return {platform: _settle(platform, answers.get(platform), spec.hardware.gpu_count) for platform in live}


def _settle(platform: str, answer: tuple[Offer, ...] | PlatformError | None, gpu_count: int) -> Market:
    if isinstance(answer, tuple):
        return Market(tuple(map(_with_user_rates(platform, gpu_count), answer)))
    notes = () if offline() else (_why(platform, answer),)
    return Market(dated(platform, gpu_count), notes)


def _why(platform: str, answer: PlatformError | None) -> str:
    reason = f"no answer in {LIVE_BUDGET_S:g} s" if answer is None else str(answer)
    return f"Live prices of {platform}: {reason}. The dated ones are shown."


def age_notes(platform: str, offers: Iterable[Offer], today: date) -> list[str]:
    """A warning when the oldest price of these offers is stale."""
    days = [rate.as_of for offer in offers for rate in offer.rates if rate.as_of and rate.source != "live"]
    if not days or not stale(min(days), today):
        return []
    return [
        f"Prices of {platform} are up to {(today - min(days)).days} days old (from {min(days)}); "
        "what is billed may differ."
    ]


def _with_user_rates(platform: str, gpu_count: int) -> Callable[[Offer], Offer]:
    """A live offer with the rates that the user's own price file sets for it."""
    own = {
        (offer.kind, offer.gpu, offer.gpu_count, offer.tier, offer.spot, rate.meter): rate
        for offer in dated(platform, gpu_count)
        for rate in offer.rates
        if rate.source == "user"
    }

    def change(offer: Offer) -> Offer:
        about = (offer.kind, offer.gpu, offer.gpu_count, offer.tier, offer.spot)
        rates = tuple(own.get((*about, rate.meter), rate) for rate in offer.rates)
        return replace(offer, rates=rates) if own else offer

    return change
