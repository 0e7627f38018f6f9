"""Every offer against one spec: does the model fit, may it run there, what does a month cost. Cheapest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Literal

from serving.cost import BASED_ON_USE, Assumptions, Estimator, assumptions_for
from serving.fit import Fit
from serving.gpus import UnknownGpu, find_gpus
from serving.gpus import gpu as catalogue_gpu
from serving.lines import Span
from serving.models import Model
from serving.offers import Offer
from serving.places import preference, residence
from serving.preflight import Host, Preflight, preflight
from serving.spec import DeploymentSpec

Order = Literal["cost", "gpu", "platform", "region"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One offer, judged.

    Attributes:
        monthly: US dollars a month at low, declared and high use.
        incomplete: a price isn't known, so `monthly` is less than what would be billed.
        open_use: a part depends on a use that isn't declared; `sleeps`: the workers' hours are that part.
        preflight: the verdict on the model on this GPU; None where no GPU is rented.
        reasons: why it can't be taken; empty when it can.
    """

    offer: Offer
    monthly: Span
    incomplete: bool
    open_use: bool
    sleeps: bool
    preflight: Preflight | None
    reasons: tuple[str, ...]

    @property
    def fit(self) -> Fit | None:
        return self.preflight.fit if self.preflight else None

    @property
    def ok(self) -> bool:
        return not self.reasons

    @property
    def cost(self) -> Decimal:
        """US dollars a month to compare by: at the declared use, or the most that workers of unknown use bill."""
        return self.monthly.high if self.sleeps else self.monthly.expected

    @property
    def priced(self) -> bool:
        """Whether its cost can be compared: every price is known."""
        return not self.incomplete


def rank(
    spec: DeploymentSpec, model: Model, offers: Iterable[Offer], assumptions: Assumptions | None = None
) -> list[Candidate]:
    """Every offer as a candidate: those that can be taken first, then by cost at the declared use.

    Offers of equal cost come in the order of their platform, SKU and region, whatever order they were given in.
    """
    judge = Judge(spec, model, assumptions)
    return sorted(map(judge, offers), key=_by_cost)


class Judge:
    """Judges offers for one spec; what many offers share (a GPU, a place) is worked out once."""

    def __init__(self, spec: DeploymentSpec, model: Model, assumptions: Assumptions | None = None) -> None:
        self._spec = spec
        self._model = model
        self._estimator = Estimator(spec, assumptions or assumptions_for(model))
        self._on_gpu: Callable[[str, str], tuple[Preflight | None, tuple[str, ...]]] = cache(self._judge_gpu)
        self._in_place = cache(self._judge_place)
        self._wanted = wanted_gpus(spec)
        self._may_sleep = spec.scaling.min < spec.scaling.max

    def __call__(self, offer: Offer) -> Candidate:
        found, reasons = self._on_gpu(offer.platform, offer.gpu)
        monthly, incomplete, open_use = self._estimator.totals(offer)
        reasons = (*reasons, *self._terms(offer))
        if offer.tier != "own":
            reasons += self._in_place(offer.platform, offer.region, offer.country)
            if self._spec.placement.gdpr:
                where = residence(offer, self._spec.placement.regions)
                reasons += () if where.allowed else (where.why_not,)
        sleeps = open_use and self._may_sleep and offer.kind in BASED_ON_USE
        return Candidate(offer, monthly, incomplete, open_use, sleeps, found, reasons)

    def _judge_gpu(self, platform: str, name: str) -> tuple[Preflight | None, tuple[str, ...]]:
        if not name:
            return None, ("no GPU is rented there",)
        try:
            card = catalogue_gpu(name)
        except UnknownGpu as error:
            return None, (str(error),)
        found = preflight(self._spec, self._model, card, Host(platform))
        reasons = tuple(f"{finding.wrong}. {finding.works}".strip() for finding in found.refusals)
        if self._wanted and card.name not in self._wanted:
            reasons = ("not among hardware.gpus", *reasons)
        return found, reasons

    def _judge_place(self, platform: str, region: str, country: str) -> tuple[str, ...]:
        wanted = self._spec.placement.regions
        if preference(platform, region, country, wanted) is None:
            return (f"{region or country or platform} is not in {', '.join(wanted)}",)
        return ()

    def _terms(self, offer: Offer) -> tuple[str, ...]:
        hardware, tier = self._spec.hardware, self._spec.placement.tier
        reasons: list[str] = []
        if offer.gpu_count != hardware.gpu_count:
            reasons.append(f"{offer.gpu_count} GPUs, not {hardware.gpu_count}")
        if offer.spot and not hardware.spot:
            reasons.append("interruptible; hardware.spot: true takes it")
        if offer.tier == "community" and tier == "secure":
            reasons.append("a community host; placement.tier: any takes it")
        if offer.availability == "none":
            reasons.append("sold out")
        return tuple(reasons)


@cache
def _named_gpus(names: tuple[str, ...]) -> dict[str, int]:
    order: dict[str, int] = {}
    for index, name in enumerate(names):
        for found in find_gpus(name):
            order.setdefault(found.name, index)
    return order


def wanted_gpus(spec: DeploymentSpec) -> dict[str, int]:
    """Canonical names of `hardware.gpus` with their place in that list; empty when any will do.

    Raises:
        UnknownGpu: a name that no GPU of the catalogue has.
    """
    return _named_gpus(spec.hardware.gpus)


def chosen_order(spec: DeploymentSpec, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that can be taken, in the order in which a deployment tries them.

    The user's order of GPUs comes first, then the order of regions, then cost; without a list of GPUs only the
    cost counts within a region.
    """
    gpus, regions = wanted_gpus(spec), spec.placement.regions

    def key(candidate: Candidate) -> tuple[object, ...]:
        offer = candidate.offer
        place = preference(offer.platform, offer.region, offer.country, regions)
        return (gpus.get(offer.gpu, 0), place or 0, *_by_cost(candidate))

    return sorted((c for c in candidates if c.ok), key=key)


def alternatives(candidates: Iterable[Candidate], platform: str, most: int = 3) -> tuple[Candidate, ...]:
    """The cheapest offers that fit on platforms other than `platform`: one a platform and GPU."""
    seen: set[tuple[str, str]] = set()
    found: list[Candidate] = []
    for candidate in candidates:
        key = (candidate.offer.platform, candidate.offer.gpu)
        if candidate.ok and candidate.priced and candidate.offer.platform != platform and key not in seen:
            seen.add(key)
            found.append(candidate)
    return tuple(found[:most])


def _by_cost(candidate: Candidate) -> tuple[object, ...]:
    offer = candidate.offer
    return (
        bool(candidate.reasons),
        candidate.incomplete,
        candidate.cost,
        offer.platform,
        offer.kind,
        offer.sku,
        offer.region,
        offer.tier,
        offer.spot,
    )
