"""The tables that people see in preview, as plain text."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from serving.cost import Estimate

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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), title_justify="left")
    table.add_column("cost")
    for column in ("unit price", "a month"):
        table.add_column(column, justify="right")
    table.add_column("source")
    for line in estimate.lines:
        table.add_row(line.rate.meter, str(line.rate.unit_price), str(line.monthly), line.rate.assumption)
    return table


def render(parts: Sequence[RenderableType], width: int = WIDTH) -> str:
    """Renderables as plain text without trailing blanks."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # pyright: ignore
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip()
