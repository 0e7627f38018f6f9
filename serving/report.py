"""The tables that people see in preview, as plain text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from serving.cost import Estimate
from serving.spec import HOURS_PER_MONTH

WIDTH = 80


@dataclass(frozen=True)
class PlanView:
    """What the plan table shows. `creates` are pairs of resource name and type."""

    platform: str
    offer: str
    hardware: str
    model: str
    engine: str
    creates: Sequence[tuple[str, str]]
    notes: Sequence[str]


def plan_report(plan: PlanView, estimate: Estimate, width: int = WIDTH) -> str:
    """The plan and its cost, at most `width` columns wide, without colours."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "platform": plan.platform,
        "offer": plan.offer,
        "hardware": plan.hardware,
        "model": plan.model,
        "engine": plan.engine,
        "creates": ", ".join(f"{name} ({kind})" for name, kind in plan.creates),
        **{("note" if not index else ""): note for index, note in enumerate(plan.notes)},
    }
    for name, text in rows.items():
        table.add_row(name, text)
    return render([table, _cost_table(estimate)], width)


def _cost_table(estimate: Estimate) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_footer=True)
    monthly = estimate.monthly
    table.add_column("cost", footer="total")
    table.add_column("unit price", justify="right", footer=f"{dollars(monthly / HOURS_PER_MONTH)} an hour")
    table.add_column("a month", justify="right", footer=dollars(monthly))
    table.add_column("source", overflow="fold")
    for line in estimate.lines:
        rate = line.rate
        if rate.unit_price is None:
            table.add_row(rate.meter, "price not found", "incomplete", rate.assumption)
        elif rate.unit_price == 0:
            table.add_row(rate.meter, "no charge", dollars(Decimal(0)), rate.assumption)
        else:
            dated = f"{rate.source} {rate.as_of}" if rate.as_of else rate.source
            source = f"{dated}, {rate.assumption}" if rate.assumption else dated
            table.add_row(rate.meter, f"{dollars(rate.unit_price)} per {rate.unit}", dollars(line.monthly), source)
    return table


def dollars(amount: Decimal | None) -> str:
    """US dollars to the cent, or to three significant digits below ten cents."""
    if amount is None:
        return "price not found"
    if amount == 0 or amount >= Decimal("0.1"):
        return f"${amount.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    return f"${amount.normalize(Context(prec=3, rounding=ROUND_HALF_UP)):f}"


def render(parts: Sequence[RenderableType], width: int = WIDTH) -> str:
    """Renderables as plain text without trailing blanks."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # pyright: ignore
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip()
