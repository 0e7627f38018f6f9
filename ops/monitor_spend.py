"""What a stack costs, has cost this month, and may cost: its outputs, its history and its platform, without secrets.

Pace is what a month at the present cost comes to, over the budget; months have 730 hours, as everywhere. The present
cost is the price in the outputs, or, where the platform may be asked, what it bills now: more workers or servers than
planned, or another price. What is spent is an estimate: the hours of this month for which the stack was deployed (its
history), at the price in its outputs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ops.backend import projects
from ops.stack import OpsError, Run, pulumi_command
from providers.account import Opener, load_account
from providers.base import PlatformError
from serving.spec import HOURS_PER_MONTH

LoadAccount = Callable[[str], Opener]

_HISTORY = 1000
"""Updates that are looked back on."""
_HOUR_S = 3600
_PLATFORM_S = 30.0
"""For a platform's list."""
_BEGIN = ("update", "import", "resource-import")
"""Kinds of change after which there may be something that bills."""


class BudgetOutput(BaseModel):
    """The part of `cost.budget` that is read here, US dollars."""

    limit_usd: Decimal


class CostOutput(BaseModel):
    """The part of the output `cost` that is read here, US dollars; None where a price isn't known."""

    hourly_usd: Decimal | None = None
    monthly_usd: Decimal | None = None
    incomplete: bool = False
    depends_on_usage: bool = False
    budget: BudgetOutput | None = None


class Outputs(BaseModel):
    """The outputs of a deployed stack that are read here."""

    provider: str
    hardware: str
    cost: CostOutput


class Update(BaseModel):
    """One change of a stack, by its history."""

    model_config = ConfigDict(alias_generator=to_camel)

    kind: str
    result: str
    start_time: AwareDatetime
    end_time: AwareDatetime | None = None
    resource_changes: dict[str, int] = Field(default_factory=dict)

    @property
    def begins(self) -> bool:
        """Whether something may bill from here on: one that failed may have created a part."""
        changed = any(count for kind, count in self.resource_changes.items() if kind != "same")
        return self.kind in _BEGIN and (self.result == "succeeded" or changed)

    @property
    def ends(self) -> bool:
        """Whether nothing is left."""
        return self.kind == "destroy" and self.result == "succeeded"


@dataclass(frozen=True)
class Spend:
    """One stack's figures, US dollars; None where it isn't deployed or a price isn't known.

    Attributes:
        problem: why its outputs can't be read, "" when they can.
        complete: whether the price leaves nothing out: no missing price, no use that isn't declared.
        billed: what the platform bills an hour now, None when it wasn't asked or didn't say.
    """

    stack: str
    problem: str = ""
    provider: str = ""
    hardware: str = ""
    complete: bool = False
    hourly: Decimal | None = None
    monthly: Decimal | None = None
    month_to_date: Decimal | None = None
    budget: Decimal | None = None
    billed: Decimal | None = None

    @property
    def pace(self) -> Decimal | None:
        """What a month at the present cost comes to, over the budget; 1 is exactly on it."""
        monthly = self.monthly if self.billed is None else self.billed * HOURS_PER_MONTH
        return monthly / self.budget if monthly is not None and self.budget else None


def spend(
    stack: str, outputs: Outputs | None, history: Iterable[Update], now: datetime, billed: Decimal | None = None
) -> Spend:
    """The figures of one stack; `outputs` is None when nothing is deployed. Months are calendar months, UTC."""
    if outputs is None:
        return Spend(stack)
    cost = outputs.cost
    hourly = None if cost.incomplete else cost.hourly_usd
    begin = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return Spend(
        stack,
        provider=outputs.provider,
        hardware=outputs.hardware,
        complete=hourly is not None and not cost.depends_on_usage,
        hourly=hourly,
        monthly=None if hourly is None else cost.monthly_usd,
        month_to_date=None if hourly is None else hourly * deployed_hours(history, begin, now),
        budget=cost.budget.limit_usd if cost.budget else None,
        billed=billed,
    )


def deployed_hours(history: Iterable[Update], begin: datetime, now: datetime) -> Decimal:
    """Hours between `begin` and `now` for which something was deployed; a create and a destroy count in full."""
    total = Decimal(0)
    since: datetime | None = None
    for update in sorted(history, key=lambda one: one.start_time):
        if update.begins and since is None:
            since = update.start_time
        elif update.ends and since is not None:
            total += _hours((update.end_time or update.start_time) - max(since, begin))
            since = None
    return total + (_hours(now - max(since, begin)) if since is not None else 0)


def _hours(span: timedelta) -> Decimal:
    return Decimal(max(0, span // timedelta(seconds=1))) / _HOUR_S


Billed = Callable[[str, str], Decimal | None]
"""What a platform bills an hour for a stack now: of the stack's name and the platform's."""


def read_spend(stack: str, now: datetime, run: Run | None = None, billed: Billed | None = None) -> Spend:
    """Ask Pulumi for a stack's outputs and history, without its secrets, and with `billed` its platform."""
    try:
        outputs = _told(run, ["stack", "output", "--json", "--stack", stack])
        history = _told(
            run, ["stack", "history", "--json", "--stack", stack, "--page-size", str(_HISTORY), "--page", "1"]
        )
        parsed = Outputs.model_validate(outputs) if outputs else None
        updates = [Update.model_validate(row) for row in history]
        return spend(stack, parsed, updates, now, billed(stack, parsed.provider) if billed and parsed else None)
    except OpsError as error:
        return Spend(stack, problem=str(error))
    except (ValueError, TypeError):
        # Values of outputs may be secret and are not repeated.
        return Spend(stack, problem="its outputs or its history have a form that isn't known")


def platform_bills(
    stack: str, platform: str, tell: Callable[[str], None], load: LoadAccount = load_account
) -> Decimal | None:
    """What everything with the stack's label costs an hour now, US dollars; None when the platform doesn't answer.

    What has no known price is left out: those are things like secrets.
    """
    names = projects([stack])
    try:
        holdings = load(platform)(_PLATFORM_S).holdings(names)
    except PlatformError as error:
        tell(f"{platform} does not say what {stack} costs now, so the price in its outputs counts: {error}")
        return None
    ours = [one for one in holdings if one.label.startswith(tuple(f"{name}/" for name in names))]
    return sum((one.hourly_usd for one in ours if one.hourly_usd is not None), Decimal(0))


def _told(run: Run | None, args: Sequence[str]) -> Any:
    found = (run or pulumi_command)(args)
    if found.returncode:
        raise OpsError(found.stderr.strip().removeprefix("error: "))
    return json.loads(found.stdout)
