"""Price, spend and budget pace of stacks for Prometheus, from what Pulumi knows. No secret is read.

What is spent is an estimate: the hours of this month for which the stack was deployed (its history), at the price in
its outputs. The budget is for a month of 730 hours, as everywhere; its pace is what it allows for the hours gone by.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from ops.stack import OpsError, Run, pulumi_command
from serving.spec import HOURS_PER_MONTH

REFRESH_S = 300.0
"""How old figures may get. A read starts the Pulumi CLI twice for each stack."""
_HISTORY = 1000
"""Updates that are looked back on."""
_HOUR_S = 3600
_AT_A_TIME = 4
_BEGIN = ("update", "import", "resource-import")
"""Kinds of change after which there may be something that bills."""


class BudgetOutput(BaseModel):
    """The part of `cost.budget` that is read here, US dollars."""

    limit_usd: Decimal


class CostOutput(BaseModel):
    """The part of the output `cost` that is read here, US dollars; None where a price isn't known."""

    hourly_usd: Decimal | None = None
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
        pace: spend over what the budget allows by now; 1 is exactly on it.
    """

    stack: str
    problem: str = ""
    provider: str = ""
    hardware: str = ""
    complete: bool = False
    hourly: Decimal | None = None
    month_to_date: Decimal | None = None
    budget: Decimal | None = None
    pace: Decimal | None = None


def spend(stack: str, outputs: Outputs | None, history: Iterable[Update], now: datetime) -> Spend:
    """The figures of one stack; `outputs` is None when nothing is deployed. Months are calendar months, UTC."""
    if outputs is None:
        return Spend(stack)
    cost = outputs.cost
    hourly = None if cost.incomplete else cost.hourly_usd
    budget = cost.budget.limit_usd if cost.budget else None
    begin = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    spent = None if hourly is None else hourly * deployed_hours(history, begin, now)
    due = None if budget is None else budget * _hours(now - begin) / HOURS_PER_MONTH
    return Spend(
        stack,
        provider=outputs.provider,
        hardware=outputs.hardware,
        complete=hourly is not None and not cost.depends_on_usage,
        hourly=hourly,
        month_to_date=spent,
        budget=budget,
        pace=spent / due if spent is not None and due else None,
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


def read_spend(stack: str, now: datetime, run: Run | None = None) -> Spend:
    """Ask Pulumi for a stack's outputs and history, without its secrets."""
    try:
        outputs = _told(run, ["stack", "output", "--json", "--stack", stack])
        history = _told(
            run, ["stack", "history", "--json", "--stack", stack, "--page-size", str(_HISTORY), "--page", "1"]
        )
        parsed = Outputs.model_validate(outputs) if outputs else None
        return spend(stack, parsed, [Update.model_validate(row) for row in history], now)
    except OpsError as error:
        return Spend(stack, problem=str(error))
    except (ValueError, TypeError):
        # Values of outputs may be secret and are not repeated.
        return Spend(stack, problem="its outputs or its history have a form that isn't known")


def _told(run: Run | None, args: Sequence[str]) -> Any:
    found = (run or pulumi_command)(args)
    if found.returncode:
        raise OpsError(found.stderr.strip().removeprefix("error: "))
    return json.loads(found.stdout)


class Book(Collector):
    """The last figures of each stack, as Prometheus collects them.

    `read` asks for those of one stack; `tell` gets a sentence when one can't be read any more.
    """

    def __init__(self, stacks: Sequence[str], read: Callable[[str], Spend], tell: Callable[[str], None]) -> None:
        self._stacks = stacks
        self._read = read
        self._tell = tell
        self._spends: tuple[Spend, ...] = ()

    def refresh(self) -> None:
        """Read every stack anew, and tell what can't be read."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            spends = tuple(pool.map(self._read, self._stacks))
        known = {one.problem for one in self._spends}
        for one in spends:
            if one.problem and one.problem not in known:
                self._tell(f"stack {one.stack} can't be read: {one.problem}")
        self._spends = spends

    def collect(self) -> Iterator[Metric]:
        """The figures; what isn't known has no sample."""
        deployed = GaugeMetricFamily("vllm_anywhere_stack_info", "A deployed stack.", labels=_INFO)
        for one in self._spends:
            if one.provider:
                deployed.add_metric([one.stack, one.provider, one.hardware], 1)
        yield deployed
        for name, text, of in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["stack"])
            for one in self._spends:
                if (value := of(one)) is not None:
                    # Prometheus has nothing but doubles.
                    gauge.add_metric([one.stack], float(value))
            yield gauge


_INFO = ["stack", "provider", "hardware"]
_GAUGES: tuple[tuple[str, str, Callable[[Spend], Decimal | bool | None]], ...] = (
    ("vllm_anywhere_stack_readable", "1 when the stack's outputs could be read.", lambda one: not one.problem),
    (
        "vllm_anywhere_price_complete",
        "0 when a price is missing or depends on a use that isn't declared.",
        lambda one: one.complete if one.provider else None,
    ),
    ("vllm_anywhere_price_usd_per_hour", "Estimated price of what is deployed, USD an hour.", lambda one: one.hourly),
    (
        "vllm_anywhere_month_to_date_usd",
        "Hours deployed this calendar month (UTC) at the present price, USD; an estimate, not the bill.",
        lambda one: one.month_to_date,
    ),
    ("vllm_anywhere_budget_usd", "budget.monthly_usd, for a month of 730 hours.", lambda one: one.budget),
    (
        "vllm_anywhere_budget_pace_ratio",
        "Month to date over what the budget allows for the hours of the month gone by.",
        lambda one: one.pace,
    ),
)


def export(
    stacks: Sequence[str], address: str, port: int, stop: threading.Event, started: Callable[[str], None]
) -> None:
    """Serve the figures until `stop`; what can't be read is told on stderr. `started` gets a sentence once it serves.

    Raises:
        OpsError: the port is taken.
    """
    book = Book(stacks, lambda stack: read_spend(stack, datetime.now(UTC)), partial(print, file=sys.stderr))
    book.refresh()
    registry = CollectorRegistry()
    registry.register(book)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise OpsError(f"{address}:{port} can't be listened on: {error}; --port takes another") from None
    try:
        started(f"http://{address}:{server.server_port}/metrics has price and spend of {', '.join(stacks)}")
        while not stop.wait(REFRESH_S):
            book.refresh()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
