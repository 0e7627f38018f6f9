"""What `vllm-anywhere bench` shows: the protocol's own table first, then latencies, load, money and verdicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from ops.bench_run import ColdStart, Run
from serving.bench.load import Open
from serving.bench.metrics import Figures, Summary
from serving.bench.money import Money
from serving.bench.slo import Decision, Row
from serving.bench.sweep import Step, saturation
from serving.lines import cents
from serving.report import dollars

HONEST_SHARE = 0.02
HONEST_MS = 2.0
"""The client says that it was too slow itself when its lateness exceeds both: ms, and a share of the median TTFT."""

_APIS = 5
_ERRORS = 5
Part = Table | Text


@dataclass(frozen=True)
class Shown:
    """Everything there is to show of one run. What is None was not asked for or isn't known."""

    target: str
    run: Run
    figures: Figures
    cold: ColdStart | None = None
    money: Money | None = None
    money_note: str = ""
    prompt_tokens: int | None = None


def report(shown: Shown) -> list[Part]:
    """A run, from top to bottom."""
    parts: list[Part] = [Text(shown.target), _protocol(shown), _latencies(shown.figures)]
    parts.append(Text("\n".join(_sentences(shown))))
    if shown.money:
        parts += [Text(""), _money(shown.money), Text("\n".join(_money_notes(shown.money)))]
    if shown.money_note:
        parts.append(Text(shown.money_note))
    return parts


def verdict_table(rows: Sequence[Row], decided: Decision) -> list[Part]:
    """Go or no-go, criterion by criterion."""
    table = _table("criterion", "asked", "found", "", numbers=())
    for row in rows:
        table.add_row(row.criterion, row.asked, row.found, Text(row.verdict, style=_STYLES[row.verdict]))
    lines = [f"{row.criterion}: {row.note}." for row in rows if row.note]
    return [table, Text("\n".join([*lines, f"Decision: {decided}."]), style="bold" if not lines else "")]


def sweep_table(kind: str, steps: Sequence[Step]) -> list[Part]:
    """All loads that were tried, and where the server is saturated."""
    unit = "at a time" if kind == "concurrency" else "asked/s"
    table = _table(unit, "req/s", "tok/s", "TTFT p50", "p95 ms", "TPOT p50 ms", "errors", "", numbers=range(7))
    best = saturation(steps)
    for step in sorted(steps, key=lambda one: one.load):
        run = step.figures
        note = "too much" if step.failing else "most" if step is best else ""
        table.add_row(
            f"{step.load:g}",
            f"{run.requests_per_s:.2f}",
            f"{run.output_tokens_per_s:,.1f}",
            f"{run.ttft.p50:,.1f}",
            f"{run.ttft.p95:,.1f}",
            f"{run.tpot.p50:,.2f}",
            f"{run.error_rate:.1%}",
            note,
        )
    if best is None:
        return [table, Text("No load was answered without errors.")]
    run = best.figures
    said = (
        f"Saturated: {run.requests_per_s:.2f} requests and {run.output_tokens_per_s:,.1f} answer tokens a second, "
        f"reached with {best.load:g} {unit}."
    )
    return [table, Text(said)]


def lag_note(run: Run, figures: Figures) -> str:
    """What the client's own lateness means for the figures; empty when it means nothing."""
    late = max(run.loop_lag.p99, figures.lag.p99 if isinstance(run.load, Open) else 0.0)
    if late <= max(HONEST_MS, HONEST_SHARE * figures.ttft.p50):
        return ""
    return (
        f"The client itself was up to {late:.1f} ms late (p99): latencies are too high by as much. Use a machine with "
        "a free core, or less load."
    )


def _protocol(shown: Shown) -> Table:
    run = shown.figures
    table = _table("metric", "measured", "", numbers=(1,))
    cold = shown.cold
    if cold is None:
        table.add_row("cold start", "not measured", "measured warm; --cold-start measures it")
    else:
        note = f"to the first token, {cold.attempts} attempt{'s' if cold.attempts > 1 else ''}"
        table.add_row("cold start", f"{cold.first_token_s:.1f} s", note)
    each = f", {run.mean_output:.0f} tokens an answer" if run.output_tokens else ""
    table.add_row("TPS", f"{run.output_tokens_per_s:,.1f} tok/s", f"{run.requests} requests, {shown.run.load}{each}")
    table.add_row("p50 latency", f"{run.e2e.p50:,.0f} ms", "end to end")
    table.add_row("p99 latency", f"{run.e2e.p99:,.0f} ms", _tail(run))
    table.add_row("success rate", f"{1 - run.error_rate:.1%}", f"{run.completed}/{run.requests} requests complete")
    if shown.money:
        table.add_row(
            "cost an hour", dollars(shown.money.hourly), f"{dollars(cents(shown.money.monthly))} a month of 730 hours"
        )
    return table


def _tail(run: Figures) -> str:
    return "end to end; of fewer than 100 requests, so it is the slowest ones" if run.completed < 100 else "end to end"


def _latencies(run: Figures) -> Table:
    table = _table("ms", "mean", "p50", "p90", "p95", "p99", numbers=range(1, 6))
    rows: tuple[tuple[str, Summary], ...] = (
        ("TTFT, time to first token", run.ttft),
        ("ITL, between pieces", run.itl),
        ("TPOT, a token after the first", run.tpot),
        ("E2E, end to end", run.e2e),
    )
    for name, found in rows:
        values = (found.mean, found.p50, found.p90, found.p95, found.p99)
        table.add_row(name, *(f"{value:,.2f}" if found.count else "-" for value in values))
    return table


def _sentences(shown: Shown) -> Iterator[str]:
    run, load = shown.figures, shown.run
    yield (
        f"{run.requests_per_s:.2f} requests a second, {run.output_tokens_per_s:,.1f} answer tokens a second, "
        f"{run.tokens_per_s:,.1f} with prompts, over {run.duration_s:.1f} s."
    )
    if run.goodput is not None:
        yield f"Goodput: {run.goodput:.2f} requests a second kept the bounds ({run.good} of {run.requests})."
    if run.pieces and run.output_tokens > run.pieces * 1.05:
        yield f"A piece of the stream held {run.output_tokens / run.pieces:.2f} tokens, so ITL is not a token's time."
    if run.uncounted:
        yield f"{run.uncounted} answers came without `usage`: their tokens are not in any figure."
    if shown.prompt_tokens is not None and run.completed > run.uncounted:
        yield f"Prompts: {shown.prompt_tokens} tokens asked for, {run.mean_input:.1f} counted by the server on average."
    yield (
        f"Client: sent {run.lag.p99:.2f} ms late (p99), event loop {load.loop_lag.p99:.2f} ms late (p99), "
        f"{load.opened} connections opened in the run, {load.connect_ms:.1f} ms each to open."
    )
    if load.retried:
        yield f"{load.retried} requests were sent again: the server had just closed an idle connection."
    if note := lag_note(load, run):
        yield note
    if shown.cold and not shown.cold.was_cold:
        yield (
            f"The cold start took {shown.cold.first_token_s:.2f} s, a warm first token {shown.cold.warm_ttft_s:.2f} s: "
            "it was not asleep. --idle SECONDS waits for it to fall asleep."
        )
    for error, count in list(run.errors.items())[:_ERRORS]:
        yield f"Failed {count} times: {error}"


def _money(money: Money) -> Table:
    table = _table("API", "$ a request", "this load a month", "one server is cheaper above", numbers=(1, 2, 3))
    busiest = money.requests_a_month
    for one in money.against.against[:_APIS]:
        crossing = one.crossings[0]
        if crossing is None:
            above = "never"
        else:
            servers = f" with {crossing.servers} servers" if crossing.servers > 1 else ""
            above = f"{crossing.requests:,} a month{servers}"
        monthly = money.against.api_monthly(one.api, busiest)
        table.add_row(one.api.name, f"{one.per_request:.6f}", dollars(monthly), above)
    return table


def _money_notes(money: Money) -> Iterator[str]:
    left_out = len(money.against.against) - _APIS
    yield (
        f"At {dollars(money.hourly)} an hour: ${money.per_million_output:.4f} for a million answer tokens, "
        f"${money.per_million_total:.4f} with prompts, as long as it is as busy as in this run."
    )
    yield (
        f"This load, kept up for a month of 730 hours: {money.requests_a_month:,} requests for "
        f"{dollars(cents(money.monthly))}."
    )
    peak = money.against.terms.peak
    yield f"Break-even: servers of the measured speed, peaks {peak} times the mean; `vllm-anywhere breakeven` has more."
    if left_out > 0:
        yield f"{left_out} more APIs are in --json and `--api NAME`."


def _table(*heads: str, numbers: Sequence[int]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index in numbers else "left")
    return table


_STYLES = {"pass": "green", "fail": "red", "unknown": "yellow"}
