"""What a measured load costs: for a million tokens, for a month, and against closed APIs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from serving.apis import ApiModel
from serving.bench.metrics import Figures
from serving.breakeven import MONTH_S, Breakeven, Terms, breakeven, per_million_tokens
from serving.spec import HOURS_PER_MONTH, DeploymentSpec, UsageSpec

_HUNDREDTH = Decimal("0.01")


@dataclass(frozen=True)
class Money:
    """What a run says about money. All amounts are US dollars.

    Attributes:
        hourly: what the stack costs an hour.
        per_million_output, per_million_total: for a million answer tokens, or tokens of both kinds, while as busy as in
            the run.
        requests_a_month: the run's answers a second, kept up for 730 hours.
        against: the break-even with each API for requests such as those measured, on servers as fast as measured.
    """

    hourly: Decimal
    per_million_output: Decimal
    per_million_total: Decimal
    requests_a_month: int
    against: Breakeven

    @property
    def monthly(self) -> Decimal:
        """The stack for a month of 730 hours."""
        return self.hourly * HOURS_PER_MONTH


def money(run: Figures, hourly: Decimal, apis: Sequence[ApiModel], peak: Decimal) -> Money | None:
    """None when nothing was answered, or the server did not count its tokens. `peak` is busiest over mean traffic."""
    speed, both = _decimal(run.output_tokens_per_s), _decimal(run.tokens_per_s)
    if not speed or not both:
        return None
    usage = UsageSpec(input_tokens=max(1, round(run.mean_input)), output_tokens=max(1, round(run.mean_output)))
    compared = breakeven(
        DeploymentSpec(usage=usage), (), apis, Terms(tokens_per_s=speed, peak=peak), own=hourly * HOURS_PER_MONTH
    )
    return Money(
        hourly,
        per_million_tokens(hourly, speed),
        per_million_tokens(hourly, both),
        int(_decimal(run.requests_per_s) * MONTH_S),
        compared,
    )


def saved(found: Money, api: ApiModel, requests: int) -> Decimal:
    """US dollars a month that the API costs more than one server, for that many requests a month."""
    return found.against.api_monthly(api, requests) - found.monthly


def _decimal(measured: float) -> Decimal:
    return Decimal(str(measured)).quantize(_HUNDREDTH, ROUND_HALF_UP)
