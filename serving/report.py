"""What people see in preview, as plain text: the plan, its fit, its cost, and what that changes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

from serving.cost import BASED_ON_USE
from serving.lines import CostLine, Estimate, Span, cents, usd
from serving.offers import Offer, Rate
from serving.quote import Quote, Running, Unread
from serving.spec import HOURS_PER_MONTH

if TYPE_CHECKING:
    # Rich loads where it draws: by then Pulumi's engine is at work, and a preview doesn't wait for it.
    from rich.console import RenderableType
    from rich.table import Table

    from serving.rank import Candidate

WIDTH = 76
"""Columns of the report by default: Pulumi shows it four columns in, and a terminal has 80."""


@dataclass(frozen=True)
class PlanView:
    """What the report shows besides the quote. `creates` are pairs of resource name and type."""

    hardware: str
    model: str
    engine: str
    creates: Sequence[tuple[str, str]]
    notes: Sequence[str]


def plan_report(plan: PlanView, quote: Quote, now: Running | Unread | None, width: int = WIDTH) -> str:
    """The plan, its fit and its cost, at most `width` columns wide, without colours. `now` is what runs already."""
    parts = [_facts(_plan_rows(plan, quote)), _cost_table(quote.estimate), _facts(_money_rows(quote, now))]
    return render(parts, width)


def plan_facts(plan: PlanView, quote: Quote, now: Running | Unread | None) -> dict[str, Any]:
    """The report as data: money as text, everything that the tables show."""
    cost = quote.estimate
    before = now.monthly if isinstance(now, Running) else Decimal(0) if now is None else None
    change = None if cost.incomplete or cost.open_hours or before is None else cost.monthly - before
    return {
        "provider": quote.offer.platform,
        "offer": offer_name(quote.offer),
        "place": {"where": quote.place.where, "evidence": quote.place.evidence} if quote.place else None,
        "hardware": plan.hardware,
        "model": plan.model,
        "engine": plan.engine,
        "fit": quote.preflight.fit.summary() if quote.preflight else None,
        "creates": [{"name": name, "type": kind} for name, kind in plan.creates],
        "notes": list(plan.notes),
        "cost": quote.as_output(),
        "running": {"provider": now.platform, "monthly_usd": usd(now.monthly)} if isinstance(now, Running) else None,
        "change": {"monthly_usd": usd(change), "text": change_text(cost, now)},
    }


def cost_output(quote: Quote) -> dict[str, Any]:
    """The stack output `cost`: `Quote.as_output` with one text for each line and each alternative.

    Pulumi prints outputs whole, and asks whether to go on below them: rows of two dozen columns would push the
    report off the screen.
    """
    return {**quote.as_output(), "lines": line_texts(quote.estimate), "alternatives": _elsewhere(quote)}


def _elsewhere(quote: Quote) -> list[str]:
    estimate = quote.estimate
    than = None if estimate.incomplete or estimate.open_hours else estimate.monthly
    return [alternative_text(candidate, than) for candidate in quote.elsewhere]


def line_texts(estimate: Estimate) -> list[str]:
    """A bill, one text a line: `disk: 60 GB-mo x $0.10/GB-mo = $6.00 a month (snapshot 2026-07-20)`."""
    told: set[str] = set()
    return [_line_text(line, _source(line, told)) for line in estimate.lines]


def _line_text(line: CostLine, source: str) -> str:
    price = " x ".join(text for text in (_quantity(line), _unit_price(line.rate)) if text)
    monthly = "" if line.monthly is None else f" = {dollars(line.monthly)} a month"
    return f"{line.rate.meter}: {price}{monthly}{f' ({source})' if source else ''}"


def _facts(rows: Iterator[tuple[str, str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    last = ""
    for name, text in rows:
        table.add_row("" if name == last else name, text)
        last = name
    return table


def _plan_rows(plan: PlanView, quote: Quote) -> Iterator[tuple[str, str]]:
    offer = quote.offer
    yield "platform", offer.platform
    yield "offer", offer_name(offer)
    if quote.planned and (better := _better(quote, quote.planned)):
        yield "", better
    if quote.place:
        yield "place", f"{quote.place.where}; {quote.place.evidence or 'nobody vouches for it'}"
    yield "hardware", plan.hardware
    yield "model", plan.model
    yield "engine", plan.engine
    if quote.preflight:
        yield "fit", quote.preflight.fit.summary()
        for finding in quote.preflight.notes:
            yield "fit", str(finding)
    if plan.creates:
        yield "made of", ", ".join(f"{name} ({kind})" for name, kind in plan.creates)
    for note in plan.notes:
        yield "note", note


def rented_text(quote: Quote) -> str:
    """What has been rented, and what it costs."""
    cost = quote.estimate
    return f"rented: {quote.offer.gpu}, {offer_name(quote.offer)}: {_hourly(cost)} an hour, {_total(cost)} a month"


def _better(quote: Quote, planned: Quote) -> str:
    """What the same would cost if it was rented now, where that is less: nothing moves there by itself."""
    kept, now = quote.estimate, planned.estimate
    if kept.incomplete or now.incomplete or cents(now.monthly) >= cents(kept.monthly):
        return ""
    return (
        f"it is rented already and stays; now {planned.offer.gpu}, {offer_terms(planned.offer)} would cost "
        f"{dollars(now.monthly)} a month ({signed(now.monthly - kept.monthly)})"
    )


def offer_name(offer: Offer) -> str:
    """An offer in a few words: what it is called there, how it is rented, and where."""
    sku = f"{offer.gpu_count} x {offer.sku}" if offer.gpu_count > 1 else offer.sku
    return ", ".join((sku, *_terms(offer)))


def offer_terms(offer: Offer) -> str:
    """An offer in a few words beside its GPU: the SKU only where it is more than another name of the GPU."""
    sku = [offer.sku] if offer.kind in ("vm", "serverless") else []
    return ", ".join((*sku, *_terms(offer)))


def _terms(offer: Offer) -> Iterator[str]:
    if offer.kind != "process":
        yield offer.kind
    if offer.spot:
        yield "interruptible"
    if offer.tier == "community":
        yield offer.tier
    if offer.region:
        yield offer.region


def _cost_table(estimate: Estimate) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_footer=True)
    table.add_column("cost", footer="total", no_wrap=True)
    table.add_column("quantity", justify="right")
    table.add_column("unit price", justify="right", footer=f"{_hourly(estimate)}/h", no_wrap=True)
    table.add_column("a month", justify="right", footer=_total(estimate), no_wrap=True)
    table.add_column("price of")
    told: set[str] = set()
    for line in estimate.lines:
        table.add_row(line.rate.meter, _quantity(line), _unit_price(line.rate), _monthly(line), _source(line, told))
    return table


def _hourly(estimate: Estimate) -> str:
    return dollars(estimate.hourly)


def _total(estimate: Estimate) -> str:
    return f"{dollars(estimate.monthly)}{'+' if estimate.incomplete or estimate.open_use else ''}"


UNITS = {"Hours": "h", "Seconds": "s", "GB-Months": "GB-mo", "GB": "GB"}


def _quantity(line: CostLine) -> str:
    if line.rate.unit_price == 0 and line.rate.meter == "this machine":
        return ""
    if line.quantity is None:
        return "depends on usage"
    return f"{shown_quantity(line.quantity.expected)} {UNITS[line.rate.unit]}"


def shown_quantity(amount: Decimal) -> str:
    """An amount of something, to two decimals where it needs them."""
    return f"{amount.quantize(Decimal('0.01'), ROUND_HALF_UP).normalize():,f}"


def _unit_price(rate: Rate) -> str:
    if rate.unit_price is None:
        return "not found"
    return "no charge" if rate.unit_price == 0 else f"{unit_dollars(rate.unit_price)}/{UNITS[rate.unit]}"


def _monthly(line: CostLine) -> str:
    if line.rate.unit_price is None:
        return "incomplete"
    return "depends" if line.monthly is None else dollars(line.monthly)


def _source(line: CostLine, told: set[str]) -> str:
    """Source, date and assumptions of a line; `told` are the assumptions that stand on lines before it."""
    rate = line.rate
    new = [text for text in rate.assumption.split("; ") if text and text not in told]
    told.update(new)
    dated = f"{rate.source} {rate.as_of}" if rate.as_of else ""
    kind = "sustained use" if rate.sustained_use and not rate.discount else "agreed"
    less = f"{(1 - line.net) * 100:.0f} % off ({kind})" if line.net != 1 else ""
    return ", ".join(text for text in (dated, less, "; ".join(new)) if text)


def _money_rows(quote: Quote, now: Running | Unread | None) -> Iterator[tuple[str, str]]:
    estimate = quote.estimate
    span = estimate.span
    yield "a month", f"{dollars(span.expected)} ({HOURS_PER_MONTH} hours){_missing(estimate)}"
    saved = estimate.listed - estimate.monthly
    if saved > 0:
        yield "", f"list price {dollars(estimate.listed)}, discounts {dollars(saved)}"
    if span.low != span.high:
        yield "range", f"{dollars(span.low)} to {dollars(span.high)} a month{_why_range(quote)}"
    yield "change", change_text(estimate, now)
    if quote.start and quote.offer.kind not in BASED_ON_USE:
        yield "start", f"{dollars(quote.start)} for each new server, until its first answer"
    if quote.stopped:
        yield "stopped", f"{dollars(quote.stopped)} a month is billed even while it is stopped"
    if quote.budget:
        left = f"{dollars(quote.budget.left)} of {dollars(quote.budget.limit)} a month is left"
        risk = f"; at high use or price {dollars(quote.budget.high)}, which is over it" if quote.budget.risky else ""
        yield "budget", f"{left}{risk}"
    for text in _elsewhere(quote):
        yield "elsewhere", text
    if not quote.elsewhere and quote.offer.tier != "own":
        yield "elsewhere", "nothing on another platform fits this spec"


def _missing(estimate: Estimate) -> str:
    if estimate.incomplete:
        return ", incomplete: a price was not found"
    return ", and what depends on usage" if estimate.open_use else ""


def _why_range(quote: Quote) -> str:
    if quote.estimate.open_use:
        return ", from no request to all that can be answered; declare usage.requests_per_day"
    dynamic = any(line.rate.lowest is not None or line.rate.highest is not None for line in quote.estimate.lines)
    reasons = ["as its price or GPU varies"] if dynamic else []
    if any(line.quantity and line.quantity.low != line.quantity.high for line in quote.estimate.lines):
        reasons.append("from half to twice the declared traffic")
    return f", {' and '.join(reasons)}" if reasons else ""


def change_text(cost: Estimate, now: Running | Unread | None) -> str:
    """The change of cost against what runs now: `+$41.20/month (+16 %)`."""
    if cost.incomplete or cost.open_hours:
        return f"not known: {'a price was not found' if cost.incomplete else 'it depends on usage'}"
    if isinstance(now, Unread):
        return "not known: the stack's last outputs can't be read"
    if now is None:
        return f"{signed(cost.monthly)}/month: nothing runs now"
    if now.monthly is None:
        return f"not known: what runs now has no known cost ({now.platform}, {now.hardware})"
    difference = cost.monthly - now.monthly
    share = f" ({difference / now.monthly * 100:+.0f} %)" if now.monthly else ""
    return f"{signed(difference)}/month{share} against {now.platform}, {now.hardware}, which runs now"


def alternative_text(candidate: Candidate, than: Decimal | None) -> str:
    """One offer elsewhere with its cost and what it saves or adds, if the cost to compare with is known."""
    cost: Span = candidate.monthly
    if candidate.sleeps:
        price = f"{dollars(cost.low)} to {dollars(cost.high)}/month by usage"
    else:
        difference = "" if than is None else f" ({signed(cents(cost.expected) - cents(than))})"
        price = f"{dollars(cost.expected)}/month{difference}"
    return f"{candidate.offer.platform}: {candidate.offer.gpu}, {offer_terms(candidate.offer)}: {price}"


def dollars(amount: Decimal | None) -> str:
    """US dollars to the cent, or to three significant digits below ten cents."""
    if amount is None:
        return "price not found"
    sign, size = ("-", -amount) if amount < 0 else ("", amount)
    if size == 0 or size >= Decimal("0.1"):
        return f"{sign}${size.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    return f"{sign}${size.normalize(Context(prec=3, rounding=ROUND_HALF_UP)):f}"


def unit_dollars(amount: Decimal) -> str:
    """A unit price as published: every digit, but at least cents."""
    plain = amount.normalize()
    return f"${amount.quantize(Decimal('0.01')):,}" if plain == plain.quantize(Decimal("0.01")) else f"${plain:f}"


def signed(amount: Decimal) -> str:
    """A difference in US dollars, to the cent."""
    rounded = amount.quantize(Decimal("0.01"), ROUND_HALF_UP)
    return f"{'-' if rounded < 0 else '+'}${abs(rounded):,}"


def render(parts: Sequence[RenderableType], width: int = WIDTH) -> str:
    """Renderables as plain text without trailing blanks."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(),
        width=width,
        markup=False,
        color_system=None,
        force_terminal=False,
        legacy_windows=False,
    )
    for part in parts:
        console.print(part)
    text = console.file.getvalue()  # pyright: ignore
    return "\n".join(line.rstrip() for line in text.splitlines()).rstrip()
