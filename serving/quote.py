"""Everything that is known of a plan before anything is rented: its cost, its fit, its place, its budget, and what
the same would cost elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any

from serving.cost import assumptions_for, boot_cost, estimate, stopped_cost
from serving.lines import Estimate, usd
from serving.money import Money
from serving.offers import Offer
from serving.rented import as_output
from serving.spec import DeploymentSpec, SpecError

# Ranking and its tables are loaded by what asks for them, so that a preview can register its resources meanwhile.
if TYPE_CHECKING:
    from serving.budget import Budget
    from serving.models import Model
    from serving.places import Residence
    from serving.preflight import Preflight
    from serving.rank import Candidate


@dataclass(frozen=True)
class Quote:
    """A plan's cost and fit. What only people read is worked out when it is first asked for.

    `market` makes up what else could be rented, on any platform; `model` is None when a stand-in is served. Where
    `offer` is what has been rented, `planned` is the quote of what would be now.
    """

    spec: DeploymentSpec
    model: Model | None
    offer: Offer
    estimate: Estimate
    market: Callable[[], Iterable[Offer]]
    planned: Quote | None = None

    @cached_property
    def preflight(self) -> Preflight | None:
        """How the model fits; None where no GPU is rented."""
        from serving.rank import Judge

        return Judge(self.spec, self.model)(self.offer).preflight if self.model and self.offer.gpu else None

    @cached_property
    def place(self) -> Residence | None:
        """Where the data will be, and who vouches for it; None on one's own machine."""
        from serving.places import residence

        return None if self.offer.tier == "own" else residence(self.offer, self.spec.placement.regions)

    @property
    def stopped(self) -> Decimal | None:
        """US dollars a month for keeping it stopped; None when that isn't known, 0 when nothing is kept."""
        return stopped_cost(self.spec, self.offer)

    @property
    def start(self) -> Decimal | None:
        """US dollars billed from a server's create to its first answer; None when a price isn't known."""
        return boot_cost(self.spec, self.offer, assumptions_for(self.model) if self.model else None)

    @cached_property
    def budget(self) -> Budget | None:
        """The monthly limit against the cost; None without a limit."""
        from serving.budget import budget_of

        return budget_of(self.spec, self.estimate)

    @cached_property
    def elsewhere(self) -> tuple[Candidate, ...]:
        """The cheapest offers on other platforms that fit the same spec."""
        from serving.rank import alternatives

        if self.planned is not None:
            return self.planned.elsewhere
        return alternatives(self.ranking(self.spec), self.offer.platform)

    def ranking(self, spec: DeploymentSpec) -> list[Candidate]:
        """What of the market a spec can take, cheapest first."""
        from serving.rank import shortlist

        return shortlist(spec, self.model, self.market()) if self.model else []

    def of_rented(self, offer: Offer) -> Quote:
        """The quote of what has been rented: at the prices that are billed, where the platform tells them."""
        assumed = assumptions_for(self.model) if self.model else None
        return replace(self, offer=offer, estimate=estimate(self.spec, offer, assumed), planned=self)

    def as_output(self) -> dict[str, Any]:
        """For programs: money as text. `rented` is what it is the cost of, once that exists."""
        return {
            **self.estimate.as_output(),
            "budget": self.budget.as_output() if self.budget else None,
            "alternatives": [alternative_output(candidate) for candidate in self.elsewhere],
            **({"rented": as_output(self.offer)} if self.planned else {}),
        }


def quote(spec: DeploymentSpec, model: Model | None, offer: Offer, market: Callable[[], Iterable[Offer]]) -> Quote:
    """The quote of one chosen offer.

    Raises:
        SpecError: when the plan breaks its budget.
    """
    assumed = assumptions_for(model) if model else None
    found = Quote(spec, model, offer, estimate(spec, offer, assumed), market)
    if spec.budget.monthly_usd is not None or spec.budget.hourly_usd is not None:
        from serving.budget import over_budget

        if problems := over_budget(spec, offer, found.estimate, found.ranking):
            raise SpecError(problems)
    return found


@dataclass(frozen=True, slots=True)
class Running:
    """What runs now, as the last `up` left it in the stack's outputs.

    `monthly` is US dollars, None where a price or the hours of its workers aren't known; `rented` is for
    `serving.rented.from_output`.
    """

    platform: str
    hardware: str
    monthly: Decimal | None
    servers: int = 1
    rented: Any = None


@dataclass(frozen=True, slots=True)
class Unread:
    """What runs now could not be read."""


def running(outputs: Mapping[str, Any]) -> Running | None:
    """What runs now, from a stack's outputs; None when nothing was deployed or the outputs are of an older form."""
    try:
        told = outputs["cost"]
        cost = Money.of(told)
        monthly = None if cost.open_use else cost.monthly
        servers = len(outputs.get("endpoints") or (1,))
        return Running(str(outputs["provider"]), str(outputs["hardware"]), monthly, servers, told.get("rented"))
    except (KeyError, TypeError, AttributeError):
        return None


def alternative_output(candidate: Candidate) -> dict[str, Any]:
    """A candidate in outputs and JSON: money as text, null where a price isn't known."""
    offer, cost = candidate.offer, candidate.monthly
    return {
        "provider": offer.platform,
        "kind": offer.kind,
        "sku": offer.sku,
        "gpu": offer.gpu,
        "gpu_count": offer.gpu_count,
        "region": offer.region,
        "country": offer.country,
        "tier": offer.tier,
        "spot": offer.spot,
        "monthly_usd": None if candidate.incomplete else usd(cost.expected),
        "low": None if candidate.incomplete else usd(cost.low),
        "high": None if candidate.incomplete else usd(cost.high),
        "incomplete": candidate.incomplete,
        "depends_on_usage": candidate.open_use,
    }
