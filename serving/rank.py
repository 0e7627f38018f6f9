"""Every offer against one spec: does the model fit, may it run there, what does a month cost. Cheapest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

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
from serving.tariff import Tariff


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is true of every offer of one kind with one GPU.

    Attributes:
        preflight: the verdict on the model on this GPU; None where no GPU is rented.
        reasons: why such an offer can't be taken, whatever its terms and its place.
        may_sleep: its workers sleep between requests.
        tariff: what prices it.
    """

    preflight: Preflight | None
    reasons: tuple[str, ...]
    may_sleep: bool
    tariff: Tariff = field(compare=False, repr=False)


class Candidate(NamedTuple):
    """One offer, judged. There are tens of thousands, and a tuple is made in half the time of a dataclass.

    Attributes:
        cost: US dollars a month to compare by: at the declared use, or the most that workers of unknown use bill.
        incomplete: a price isn't known, so that costs are less than what would be billed.
        reasons: why it can't be taken; empty when it can.
    """

    offer: Offer
    verdict: Verdict
    reasons: tuple[str, ...]
    cost: Decimal
    incomplete: bool

    @property
    def monthly(self) -> Span:
        """US dollars a month at low, declared and high use."""
        return self.verdict.tariff.totals(self.offer.rates)[0]

    @property
    def open_use(self) -> bool:
        """Whether a part of the cost depends on a use that isn't declared."""
        return self.verdict.tariff.totals(self.offer.rates)[2]

    @property
    def sleeps(self) -> bool:
        """Whether that part is the workers' hours."""
        return self.verdict.may_sleep and self.open_use

    @property
    def preflight(self) -> Preflight | None:
        """The verdict on the model on this GPU; None where no GPU is rented."""
        return self.verdict.preflight

    @property
    def fit(self) -> Fit | None:
        return self.preflight.fit if self.preflight else None

    @property
    def ok(self) -> bool:
        return not self.reasons

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
    judged = list(map(Judge(spec, model, assumptions), offers))
    return [*_cheapest_first(c for c in judged if c.ok), *_cheapest_first(c for c in judged if not c.ok)]


def shortlist(spec: DeploymentSpec, model: Model, offers: Iterable[Offer]) -> list[Candidate]:
    """The offers that can be taken, in the order of `rank`; what the others cost isn't worked out."""
    return _cheapest_first(Judge(spec, model).taken(offers))


class Judge:
    """Judges offers for one spec; what many offers share (a GPU, a place) is worked out once."""

    def __init__(self, spec: DeploymentSpec, model: Model, assumptions: Assumptions | None = None) -> None:
        self._spec = spec
        self._model = model
        self._estimator = Estimator(spec, assumptions or assumptions_for(model))
        self._on_gpu: Callable[[str, str], tuple[Preflight | None, tuple[str, ...]]] = cache(self._judge_gpu)
        self._verdicts: dict[object, Verdict] = {}
        self._wanted = wanted_gpus(spec)
        self._anywhere = not spec.placement.regions and not spec.placement.gdpr

    def __call__(self, offer: Offer) -> Candidate:
        verdict = self._verdicts.get(_kind_of(offer)) or self._judge(offer)
        misplaced = () if self._anywhere else self._misplaced(offer)
        return _priced(offer, verdict, (*verdict.reasons, *self._refused(offer), *misplaced))

    def taken(self, offers: Iterable[Offer]) -> list[Candidate]:
        """The offers that can be taken, in the order given."""
        hardware, secure = self._spec.hardware, self._spec.placement.tier == "secure"
        count, no_spot = hardware.gpu_count, not hardware.spot
        found: list[Candidate] = []
        for offer in offers:
            # The conditions of `_refused`, without its words: most of a market ends here.
            if (
                offer.gpu_count != count
                or (no_spot and offer.spot)
                or (secure and offer.tier == "community")
                or offer.availability == "none"
            ):
                continue
            verdict = self._verdicts.get(_kind_of(offer)) or self._judge(offer)
            if not verdict.reasons and (self._anywhere or next(self._misplaced(offer), None) is None):
                found.append(_priced(offer, verdict))
        return found

    def _judge(self, offer: Offer) -> Verdict:
        found, reasons = self._on_gpu(offer.platform, offer.gpu)
        scaling = self._spec.scaling
        may_sleep = scaling.min < scaling.max and offer.kind in BASED_ON_USE
        verdict = Verdict(found, reasons, may_sleep, self._estimator.tariff(offer.kind, offer.spot))
        self._verdicts[_kind_of(offer)] = verdict
        return verdict

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

    def _refused(self, offer: Offer) -> Iterator[str]:
        hardware, tier = self._spec.hardware, self._spec.placement.tier
        if offer.gpu_count != hardware.gpu_count:
            yield f"{offer.gpu_count} GPUs, not {hardware.gpu_count}"
        if offer.spot and not hardware.spot:
            yield "interruptible; hardware.spot: true takes it"
        if offer.tier == "community" and tier == "secure":
            yield "a community host; placement.tier: any takes it"
        if offer.availability == "none":
            yield "sold out"

    def _misplaced(self, offer: Offer) -> Iterator[str]:
        placement = self._spec.placement
        if offer.tier == "own":
            return
        if preference(offer.platform, offer.region, offer.country, placement.regions) is None:
            yield f"{offer.region or offer.country or offer.platform} is not in {', '.join(placement.regions)}"
        if placement.gdpr:
            where = residence(offer, placement.regions)
            if not where.allowed:
                yield where.why_not


def _kind_of(offer: Offer) -> tuple[object, ...]:
    """What the offers of one verdict have in common."""
    return offer.platform, offer.kind, offer.gpu, offer.spot


def _priced(offer: Offer, verdict: Verdict, reasons: tuple[str, ...] = ()) -> Candidate:
    if verdict.may_sleep:
        span, incomplete, open_use = verdict.tariff.totals(offer.rates)
        cost = span.high if open_use else span.expected
    else:
        cost, incomplete = verdict.tariff.expected(offer.rates)
    return Candidate(offer, verdict, reasons, cost, incomplete)


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


def _cheapest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sorted by cost, those without a price last, and equals by name: few are equal, so few names are compared."""
    ranked = sorted(candidates, key=attrgetter("cost"))
    costs = [candidate.cost for candidate in ranked]
    end = 0
    for first, (one, other) in enumerate(pairwise(costs)):
        if one == other and first >= end:
            end = bisect_right(costs, one, first)
            ranked[first:end] = sorted(ranked[first:end], key=_name)
    return sorted(ranked, key=attrgetter("incomplete"))


def _name(candidate: Candidate) -> tuple[object, ...]:
    offer = candidate.offer
    return offer.platform, offer.kind, offer.sku, offer.region, offer.tier, offer.spot


def _by_cost(candidate: Candidate) -> tuple[object, ...]:
    return (candidate.incomplete, candidate.cost, *_name(candidate))
