"""How a watch shows what it sees: a table that stays in place, lines for a log, JSON lines for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ops.watch_heal import Deed
from serving.watching import Finding, Seen

_STYLES = {"critical": "red", "warning": "yellow", "info": "cyan"}


@dataclass(frozen=True)
class Row:
    """One stack as it was last seen. `problem` says why it couldn't be looked at; `busy`, that it is seen to now."""

    stack: str
    at: datetime
    seen: Seen | None = None
    findings: tuple[Finding, ...] = ()
    deed: Deed = field(default_factory=Deed)
    problem: str = ""
    busy: bool = False

    @property
    def well(self) -> bool:
        """Whether nobody has to do anything."""
        wrong = self.problem or any(one.severity != "info" for one in self.findings)
        return self.deed.result == "destroyed" or not wrong


def table(rows: Sequence[Row], about: str = "") -> Table:
    """All stacks, each with what isn't as it should be and what comes next."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=True, caption=about or None, caption_justify="left")
    made.add_column("stack", overflow="fold")
    made.add_column("health", no_wrap=True)
    made.add_column("$/hour", justify="right", no_wrap=True)
    made.add_column("what", overflow="fold", ratio=1)
    for row in rows:
        made.add_row(row.stack, _health(row), _hourly(row), _what(row))
    return made


def lines(row: Row) -> list[str]:
    """A row for a log, without the time: one line a finding, or one that says that all is well."""
    what = [f"{row.stack}: {one.severity}: {one.text}" + (f" ({one.next})" if one.next else "") for one in row.findings]
    if row.problem:
        what.append(f"{row.stack}: critical: {row.problem}")
    if row.deed.result:
        what.append(f"{row.stack}: {row.deed.result}: {row.deed.text}")
    return what or [f"{row.stack}: well"]


def facts(row: Row) -> dict[str, Any]:
    """A row for programs; also what the history keeps, of which `bench --history` reads `healthy`."""
    seen = row.seen
    probe = seen.probe if seen else None
    end = seen.ends_at if seen else None
    return {
        "at": row.at.isoformat(timespec="seconds"),
        "stack": row.stack,
        "healthy": probe.ok if probe else None,
        "latency_ms": round(probe.latency_ms, 1) if probe and probe.ok else None,
        "problem": row.problem or (probe.problem if probe else ""),
        "hourly_usd": _text(seen.shown.hourly) if seen else None,
        "billed_hourly_usd": _text(seen.billed) if seen else None,
        "ends_at": end.isoformat(timespec="seconds") if end else None,
        "well": row.well,
        "findings": [_finding(one) for one in row.findings],
        "deed": {"result": row.deed.result, "text": row.deed.text} if row.deed.result else None,
    }


def _finding(one: Finding) -> Mapping[str, str]:
    return {"kind": one.kind, "severity": one.severity, "text": one.text, "next": one.next, "repair": one.repair}


def _health(row: Row) -> Text:
    probe = row.seen.probe if row.seen else None
    if row.deed.result == "destroyed":
        return Text("destroyed", style="dim")
    if row.problem:
        return Text("unknown", style="red")
    if row.seen is None:
        return Text()
    if probe is None:
        return Text("not asked", style="dim")
    return Text(f"{probe.latency_ms:.0f} ms", style="green") if probe.ok else Text("down", style="red")


def _hourly(row: Row) -> str:
    if row.seen is None:
        return ""
    hourly = row.seen.billed if row.seen.billed is not None else row.seen.shown.hourly
    return "unknown" if hourly is None else f"{hourly:.4f}"


def _what(row: Row) -> Text:
    text = Text()
    parts = [(one.text, _STYLES[one.severity], one.next) for one in row.findings]
    if row.problem:
        parts.append((row.problem, "red", ""))
    if row.deed.result:
        parts.append((f"{row.deed.result}: {row.deed.text}", "bold", ""))
    for number, (said, style, command) in enumerate(parts):
        text.append("\n" if number else "")
        text.append(said, style=style)
        if command:
            text.append(f"\n{command}", style="bold")
    if not text and row.seen:
        text.append("well", style="green")
    if row.busy:
        text.append("\n" if text else "")
        text.append("being seen to" if row.seen else "being looked at", style="dim")
    return text


def _text(amount: object) -> str | None:
    return None if amount is None else str(amount)
