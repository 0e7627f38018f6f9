"""Whether a plan keeps within its budget, and if not, what would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from itertools import combinations

from serving import NAMESPACE
from serving.cost import estimate
from serving.lines import CostLine, Estimate, cents, cents_up
from serving.offers import Offer
from serving.rank import Candidate
from serving.spec import HOURS_PER_MONTH, DeploymentSpec, Part, Problem

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


def budget_of(spec: DeploymentSpec, found: Estimate) -> Budget | None:
    """The monthly limit against the estimate; None when no limit is set."""
    limit = spec.budget.monthly_usd
    return None if limit is None else Budget(limit, found.monthly, found.span.high)


def hourly_cap(spec: DeploymentSpec, servers: int) -> Decimal | None:
    """US dollars an hour that each of so many servers may cost at most, None for no limit: a budget is for them all."""
    monthly, hourly = spec.budget.monthly_usd, spec.budget.hourly_usd
    limits = [limit for limit in (hourly, None if monthly is None else monthly / HOURS_PER_MONTH) if limit is not None]
    return (min(limits) / servers).quantize(Decimal("0.0001"), ROUND_DOWN) if limits else None


def over_budget(spec: DeploymentSpec, offer: Offer, found: Estimate, ranking: Ranking) -> list[Problem]:
    """Every limit that the plan breaks, with the line that costs most and the cheapest change that would do.

    A total with an unknown price can't be kept within any limit, so it breaks them all; one that depends on a use which
    isn't declared breaks a monthly limit that full use would. `ranking` is called only when a limit is broken.
    """
    problems: list[Problem] = []
    for limit in _limits(spec, found):
        if found.incomplete:
            missing = " and ".join(line.rate.meter for line in found.lines if line.rate.unit_price is None)
            fix = (
                f"it can't be kept: no price was found for {missing}; `vllm-anywhere prices --help` says how to set one"
            )
        elif not limit.hourly and found.open_hours and found.span.high > limit.amount:
            fix = (
                f"the plan's cost depends on its use, up to ${cents(found.span.high)} a month; declare "
                f"`usage.requests_per_day`, or raise it to {cents_up(found.span.high)}"
            )
        elif limit.cost > limit.amount:
            per = "an hour with every worker up" if limit.hourly else "a month"
            over = f"the plan costs ${cents(limit.cost)} {per}, ${cents(limit.cost - limit.amount)} too much"
            change = _change(spec, offer, limit, ranking)
            fix = f"{over}; {_dearest(found)}. {change}, or a budget of {cents_up(limit.cost)}"
        else:
            continue
        problems.append(Problem(limit.key, f"{limit.amount:f}", fix))
    return problems


@dataclass(frozen=True, slots=True)
class _Limit:
    """One limit and what the plan costs in its terms, US dollars."""

    key: str
    amount: Decimal
    cost: Decimal
    hourly: bool

    def of(self, spec: DeploymentSpec, candidate: Candidate) -> Decimal:
        """What a candidate costs in the limit's terms."""
        return estimate(spec, candidate.offer).peak_hourly if self.hourly else candidate.cost


def _limits(spec: DeploymentSpec, found: Estimate) -> Iterator[_Limit]:
    budget = spec.budget
    if budget.monthly_usd is not None:
        yield _Limit(f"{NAMESPACE}:budget.monthly_usd", budget.monthly_usd, found.monthly, hourly=False)
    if budget.hourly_usd is not None:
        yield _Limit(f"{NAMESPACE}:budget.hourly_usd", budget.hourly_usd, found.peak_hourly, hourly=True)


def _dearest(found: Estimate) -> str:
    def cost(line: CostLine) -> Decimal:
        return line.monthly or Decimal(0)

    line = max(found.lines, key=cost)
    return f"most of it is {line.rate.meter} of {line.offer.sku}, ${cents(cost(line))} a month"


def _change(spec: DeploymentSpec, offer: Offer, limit: _Limit, ranking: Ranking) -> str:
    """The fewest settings that keep within the limit, at their cheapest; else the cheapest there is."""

    def way(changed: DeploymentSpec) -> _Way | None:
        return _cheapest(spec, changed, offer, limit, ranking(changed))

    found = [one for changed in _variants(spec) if (one := way(changed))]
    if not found:
        return "Nothing cheaper fits"
    best = min(found, key=lambda one: one.rank(limit))
    per = " an hour" if limit.hourly else ""
    if best.cost <= limit.amount:
        best = _most_servers(best, spec.scaling.min, limit, way)
        return f"Within it: {' and '.join(best.settings)} for ${cents(best.cost)}{per}"
    return (
        "Nothing that fits costs so little, the cheapest being "
        f"{best.gpu} on {best.platform} for ${cents(best.cost)}{per} ({' and '.join(best.settings)})"
    )


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to pay less: what to set, and what it comes to."""

    changed: DeploymentSpec
    settings: tuple[str, ...]
    gpu: str
    platform: str
    moves: bool
    cost: Decimal

    def rank(self, limit: _Limit) -> tuple[bool, int, bool, Decimal]:
        """Within the limit the fewest settings are best, of the same platform first; above it the lowest cost."""
        if self.cost > limit.amount:
            return True, 0, False, self.cost
        return False, len(self.settings), self.moves, self.cost


def _cheapest(
    spec: DeploymentSpec, changed: DeploymentSpec, offer: Offer, limit: _Limit, found: Sequence[Candidate]
) -> _Way | None:
    """The best candidate under one changed spec: on the same platform if one there keeps within the limit."""
    ways: list[_Way] = []
    # They come cheapest first, so the first of a platform is its best by the month.
    for platform in dict.fromkeys(c.offer.platform for c in found if c.ok and c.priced):
        of_it = [c for c in found if c.ok and c.priced and c.offer.platform == platform]
        cost, pick = min(((limit.of(changed, c), c) for c in of_it[:_LOOKED_AT]), key=lambda pair: pair[0])
        moves = platform != offer.platform
        move = (f"`provider: {platform}`",) if moves else ()
        settings = (*move, *_settings(spec, changed), f"`hardware.gpus: [{pick.offer.gpu}]`")
        ways.append(_Way(changed, settings, pick.offer.gpu, platform, moves, cost))
    return min(ways, key=lambda way: way.rank(limit), default=None)


_LOOKED_AT = 50
"""Candidates of a platform whose hourly cost is worked out; they come by the month, which is nearly the same order."""


def _most_servers(best: _Way, too_many: int, limit: _Limit, way: Callable[[DeploymentSpec], _Way | None]) -> _Way:
    """The same way with as many servers as the limit bears, which are fewer than `too_many`."""
    while too_many - (least := best.changed.scaling).min > 1:
        count = (least.min + too_many) // 2
        more = way(best.changed.model_copy(update={"scaling": least.model_copy(update={"min": count})}))
        if more and more.rank(limit)[:3] == best.rank(limit)[:3]:
            best = more
        else:
            too_many = count
    return best


def _variants(spec: DeploymentSpec) -> Iterator[DeploymentSpec]:
    """The spec with any GPU, and with every set of changes that can lower its cost."""
    hardware, scaling, placement = spec.hardware, spec.scaling, spec.placement
    any_gpu = hardware.model_copy(update={"gpus": ()})
    changes: list[tuple[str, Part]] = [
        ("scaling", scaling.model_copy(update={"min": least})) for least in reversed(range(min(scaling.min, 2)))
    ]
    if not hardware.spot:
        changes.append(("hardware", any_gpu.model_copy(update={"spot": True})))
    if placement.tier == "secure" and not placement.gdpr:
        changes.append(("placement", placement.model_copy(update={"tier": "any"})))
    for size in range(len(changes) + 1):
        for chosen in combinations(changes, size):
            if len(dict(chosen)) == size:
                yield spec.model_copy(update={"hardware": any_gpu, **dict(chosen)})


def _settings(spec: DeploymentSpec, changed: DeploymentSpec) -> Iterator[str]:
    """What makes one spec the other, but for the GPU."""
    if changed.scaling.min != spec.scaling.min:
        yield f"`scaling.min: {changed.scaling.min}`"
    if changed.hardware.spot != spec.hardware.spot:
        yield "`hardware.spot: true`"
    if changed.placement.tier != spec.placement.tier:
        yield f"`placement.tier: {changed.placement.tier}`"
