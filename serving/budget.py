"""Whether a plan keeps within its budget, and if not, what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from serving.lines import CostLine, Estimate, cents
from serving.offers import Offer
from serving.rank import Candidate
from serving.spec import NAMESPACE, DeploymentSpec, HardwareSpec, PlacementSpec, Problem, ScalingSpec

Ranking = Callable[[DeploymentSpec], Sequence[Candidate]]
"""Every offer against a spec, cheapest first (`serving.rank.rank` with the offers filled in)."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit and what is left of it, US dollars a month. `left` is negative when the plan is over it."""

    limit: Decimal
    expected: Decimal
    high: Decimal

    @property
    def left(self) -> Decimal:
        return self.limit - self.expected

    @property
    def risky(self) -> bool:
        """Within the limit as declared, but not at high use or a high price."""
        return self.expected <= self.limit < self.high

    def as_output(self) -> dict[str, str]:
        return {"limit_usd": str(cents(self.limit)), "left_usd": str(cents(self.left))}


def budget_of(spec: DeploymentSpec, estimate: Estimate) -> Budget | None:
    """The monthly limit against the estimate; None when no limit is set."""
    limit = spec.budget.monthly_usd
    return None if limit is None else Budget(limit, estimate.monthly, estimate.span.high)


def over_budget(spec: DeploymentSpec, offer: Offer, estimate: Estimate, ranking: Ranking) -> list[Problem]:
    """Every limit that the plan breaks, with the line that costs most and the cheapest change that would do.

    A total with an unknown price can't be kept within any limit, so it breaks them all. `ranking` is called only
    when a limit is broken.
    """
    problems: list[Problem] = []
    for key, limit, cost, of in _limits(spec, estimate):
        if estimate.incomplete:
            missing = " and ".join(line.rate.meter for line in estimate.lines if line.rate.unit_price is None)
            fix = (
                f"it can't be kept: no price was found for {missing}; `vllm-anywhere prices --help` says how to set one"
            )
            problems.append(Problem(key, f"{limit:f}", fix))
        elif cost > limit:
            over = f"the plan costs ${cents(cost)} {of}, ${cents(cost - limit)} too much"
            most = _dearest(estimate)
            change = _change(spec, offer, limit, ranking) if of == "a month" else "A cheaper GPU, or fewer workers"
            fix = f"{over}; {most}. {change}, or a budget of {cents(cost)}"
            problems.append(Problem(key, f"{limit:f}", fix))
    return problems


def _limits(spec: DeploymentSpec, estimate: Estimate) -> Iterator[tuple[str, Decimal, Decimal, str]]:
    budget = spec.budget
    if budget.monthly_usd is not None:
        yield f"{NAMESPACE}:budget.monthly_usd", budget.monthly_usd, estimate.monthly, "a month"
    if budget.hourly_usd is not None:
        yield f"{NAMESPACE}:budget.hourly_usd", budget.hourly_usd, estimate.peak_hourly, "an hour with every worker up"


def _dearest(estimate: Estimate) -> str:
    def cost(line: CostLine) -> Decimal:
        return line.monthly or Decimal(0)

    line = max(estimate.lines, key=cost)
    return f"most of it is {line.rate.meter} of {line.offer.sku}, ${cents(cost(line))} a month"


def _change(spec: DeploymentSpec, offer: Offer, limit: Decimal, ranking: Ranking) -> str:
    """The least intrusive change that keeps within the limit, at its cheapest."""
    cheapest: Candidate | None = None
    for names, changed, elsewhere in _variants(spec):
        found = [c for c in ranking(changed) if c.ok and c.priced and (elsewhere or c.offer.platform == offer.platform)]
        best = next(iter(found), None)
        if best is None:
            continue
        if best.cost <= limit:
            to = [] if best.offer.platform == offer.platform else [f"`provider: {best.offer.platform}`"]
            settings = " and ".join((*to, *names, f"`hardware.gpus: [{best.offer.gpu}]`"))
            return f"Within it: {settings} for ${cents(best.cost)}"
        if cheapest is None or best.cost < cheapest.cost:
            cheapest = best
    if cheapest is None:
        return "Nothing cheaper fits"
    found = f"{cheapest.offer.gpu} on {cheapest.offer.platform} for ${cents(cheapest.cost)}"
    return f"Nothing that fits costs so little, the cheapest being {found}"


def _variants(spec: DeploymentSpec) -> Iterator[tuple[tuple[str, ...], DeploymentSpec, bool]]:
    """Changes of the spec, from the least intrusive on: what to set, the spec with it, and whether it may move."""

    def change(
        names: tuple[str, ...], elsewhere: bool, **sections: object
    ) -> tuple[tuple[str, ...], DeploymentSpec, bool]:
        return names, any_gpu.model_copy(update=sections), elsewhere

    def hardware(**fields: object) -> HardwareSpec:
        return spec.hardware.model_copy(update={"gpus": (), **fields})

    any_gpu = spec.model_copy(update={"hardware": hardware()})
    yield (), any_gpu, False
    if spec.scaling.min > 1:
        yield change(("`scaling.min: 1`",), False, scaling=ScalingSpec(min=1, max=spec.scaling.max))
    if not spec.hardware.spot:
        yield change(("`hardware.spot: true`",), False, hardware=hardware(spot=True))
    if spec.placement.tier == "secure" and not spec.placement.gdpr:
        anyone = PlacementSpec(regions=spec.placement.regions, tier="any")
        yield change(("`placement.tier: any`",), False, placement=anyone)
    yield (), any_gpu, True
    if not spec.hardware.spot:
        yield change(("`hardware.spot: true`",), True, hardware=hardware(spot=True))
