"""`vllm-anywhere compare`: every offer on every platform for a spec, ranked by what a month costs."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from rich import box
from rich.table import Table

from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError
from ops.text import show, show_json
from providers.base import PlatformError, live_prices
from providers.market import Market, age_notes, ask, dated, offline
from providers.model_shape import model_shape
from serving.offers import Offer
from serving.places import known, preference, residence, suggestions
from serving.quote import alternative_output
from serving.rank import Candidate, rank
from serving.report import dollars, offer_terms
from serving.spec import HOURS_PER_MONTH, DeploymentSpec, SpecError

ORDERS: Mapping[str, Callable[[Candidate], Any]] = {
    "cost": lambda c: 0,
    "gpu": lambda c: c.offer.gpu.lower(),
    "memory": lambda c: -(c.fit.gpu.memory_gib if c.fit else 0),
    "context": lambda c: -(c.fit.longest if c.fit else 0),
    "platform": lambda c: c.offer.platform,
    "region": lambda c: (c.offer.region or c.offer.country or "~").lower(),
}
"""What offers may be sorted by; equal ones stay in the order of their cost."""


def add_compare(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("compare", help="every offer on every platform for a spec, cheapest first")
    add_spec_options(parser)
    parser.add_argument("--sort", choices=sorted(ORDERS), default="cost", help="order of the rows (default: cost)")
    parser.add_argument("--region", metavar="PLACE", help="only offers there: eu, us, a country, or a platform's name")
    parser.add_argument("--platform", help="only offers of this platform")
    parser.add_argument("--fits", action="store_true", help="leave out what can't be taken, and why")
    parser.add_argument("--top", type=int, metavar="N", help="at most N rows")
    parser.add_argument("--offline", action="store_true", help="dated prices only: the same answer every time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document, for programs")
    form.add_argument("--csv", action="store_true", help="comma-separated, for spreadsheets")
    parser.set_defaults(run=compare)


def compare(args: argparse.Namespace) -> int:
    """Print the ranking. Returns 0 when at least one offer can be taken, 1 when none can."""
    spec = asked_spec(args)
    if args.region and not known(args.region):
        near = suggestions(args.region)
        raise OpsError(f"no place is known as {args.region}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    try:
        model = model_shape(spec.model)
        offers, notes = _offers(spec, without_asking=args.offline or offline())
        candidates = rank(spec, model, offers)
    except (SpecError, PlatformError) as error:
        raise OpsError(str(error)) from None
    chosen = _chosen(candidates, args)
    if args.json:
        show_json({"spec": _about(spec), "notes": notes, "offers": [_facts(spec, c) for c in chosen]})
    elif args.csv:
        _write_csv([_facts(spec, c) for c in chosen])
    else:
        show([_table(chosen), "\n".join([_legend(spec), *notes])])
    return 0 if any(c.ok for c in chosen) else 1


def _offers(spec: DeploymentSpec, *, without_asking: bool) -> tuple[list[Offer], list[str]]:
    """What every platform offers: live where it answers in time, else by the dated prices."""
    live = {} if without_asking else live_prices()
    today = None if without_asking else date.today()
    markets: dict[str, Market] = ask(live, spec, today=today)
    offers = [offer for market in markets.values() for offer in market.offers]
    notes = [note for market in markets.values() for note in market.notes]
    dated_offers = dated(gpu_count=spec.hardware.gpu_count)
    rest = [offer for offer in dated_offers if offer.platform not in markets]
    for platform in sorted({offer.platform for offer in rest}):
        notes += age_notes(platform, [offer for offer in rest if offer.platform == platform], today)
    return [*offers, *rest], notes


def _chosen(candidates: Sequence[Candidate], args: argparse.Namespace) -> list[Candidate]:
    def wanted(candidate: Candidate) -> bool:
        offer = candidate.offer
        there = not args.region or preference(offer.platform, offer.region, offer.country, (args.region,)) is not None
        return there and (not args.platform or offer.platform == args.platform) and (candidate.ok or not args.fits)

    order = ORDERS[args.sort]
    # Sorting is stable, so that the cost decides among equals.
    chosen = sorted(filter(wanted, candidates), key=lambda c: (not c.ok, order(c)))
    return chosen[: args.top]


def _table(candidates: Iterable[Candidate]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), expand=False)
    table.add_column("platform", no_wrap=True)
    table.add_column("GPU", overflow="fold", min_width=8)
    table.add_column("offer", overflow="fold", min_width=10)
    table.add_column("a month", justify="right", no_wrap=True)
    table.add_column("range", justify="right", overflow="fold")
    table.add_column("context", justify="right", no_wrap=True)
    table.add_column("price of", overflow="fold", min_width=10)
    divided = False
    for candidate in candidates:
        if not candidate.ok and not divided:
            table.add_section()
            divided = True
        table.add_row(*_row(candidate), style=None if candidate.ok else "dim")
    return table


def _row(candidate: Candidate) -> tuple[str, ...]:
    offer, cost = candidate.offer, candidate.monthly
    count = f"{offer.gpu_count} x " if offer.gpu_count > 1 else ""
    if candidate.incomplete:
        price = "not found"
    else:
        price = dollars(candidate.cost)
        price = f"up to {price}" if candidate.sleeps else f"{price}{'+' if candidate.open_use else ''}"
    spread = "" if cost.low == cost.high or candidate.incomplete else f"{cost.low:,.0f}-{cost.high:,.0f}"
    context = f"{candidate.fit.longest:,}" if candidate.fit and candidate.fit.ok else "-"
    last = _price_date(offer) if candidate.ok else "; ".join(candidate.reasons)
    return offer.platform, f"{count}{offer.gpu}", offer_terms(offer), price, spread, context, last


def _price_date(offer: Offer) -> str:
    dates = [rate.as_of for rate in offer.rates if rate.as_of]
    sources = sorted({rate.source for rate in offer.rates})
    return f"{'+'.join(sources)} {min(dates)}" if dates else "+".join(sources)


def _legend(spec: DeploymentSpec) -> str:
    usage = spec.usage
    use = f"{usage.requests_per_day:,} requests a day" if usage.requests_per_day is not None else "no use declared"
    where = ", ".join(spec.placement.regions) or "anywhere"
    return (
        f"{spec.model.name}, context {spec.model.max_len:,}; US dollars in a month of {HOURS_PER_MONTH} hours, {use}; "
        f"{where}. `context` is the longest request that fits, `+` what depends on a use that isn't declared. "
        "`--set KEY=VALUE` asks what if."
    )


def _about(spec: DeploymentSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", include={"model", "engine", "hardware", "placement", "scaling", "usage"})


def _facts(spec: DeploymentSpec, candidate: Candidate) -> dict[str, Any]:
    offer, fit = candidate.offer, candidate.fit
    place = residence(offer, spec.placement.regions)
    return {
        **alternative_output(candidate),
        "fits": candidate.ok,
        "reasons": list(candidate.reasons),
        "kv_tokens": fit.memory.kv_tokens if fit else None,
        "longest_request_tokens": fit.longest if fit else None,
        "concurrent_requests": fit.concurrent if fit else None,
        "extrapolated": fit.extrapolated if fit else None,
        "where": place.where,
        "evidence": place.evidence,
        "availability": offer.availability,
        "price_source": "+".join(sorted({rate.source for rate in offer.rates})),
        "price_as_of": min((rate.as_of.isoformat() for rate in offer.rates if rate.as_of), default=None),
    }


def _write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "reasons": "; ".join(row["reasons"])})
