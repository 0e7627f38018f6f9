"""`vllm-anywhere compare`: every offer on every platform for a spec, ranked by what a month costs."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
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
    parser.add_argument("--top", type=_count, metavar="N", help="at most N offers")
    parser.add_argument("--offline", action="store_true", help="dated prices only: the same answer every time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document, for programs")
    form.add_argument("--csv", action="store_true", help="comma-separated, for spreadsheets")
    parser.set_defaults(run=compare)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of rows")
    return int(text)


def compare(args: argparse.Namespace) -> int:
    """Print the ranking. Returns 0 when at least one offer can be taken, 1 when none can."""
    spec = asked_spec(args)
    if args.region and not known(args.region):
        near = suggestions(args.region)
        raise OpsError(f"no place is known as {args.region}" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    without_asking = args.offline or offline()
    try:
        model = model_shape(spec.model)
        offers, notes = market_offers(spec, without_asking=without_asking)
    except (SpecError, PlatformError) as error:
        raise OpsError(str(error)) from None
    platforms = sorted({offer.platform for offer in offers})
    if args.platform and args.platform not in platforms:
        raise OpsError(f"nothing is known of a platform {args.platform}; there are {', '.join(platforms)}")
    chosen = _chosen(rank(spec, model, offers), args)
    if not without_asking:
        notes += age_of_prices(chosen, date.today())
    if args.json:
        show_json({"spec": _about(spec), "notes": notes, "offers": [offer_facts(spec, c) for c in chosen]})
    elif args.csv:
        _write_csv([offer_facts(spec, c) for c in chosen])
    else:
        show([*_tables(spec, chosen), "\n".join([_legend(spec), *notes])])
    return 0 if any(c.ok for c in chosen) else 1


def market_offers(spec: DeploymentSpec, *, without_asking: bool) -> tuple[list[Offer], list[str]]:
    """What every platform offers: live where it answers in time, else by the dated prices."""
    markets: dict[str, Market] = {} if without_asking else ask(live_prices(), spec)
    offers = [offer for market in markets.values() for offer in market.offers]
    notes = [note for market in markets.values() for note in market.notes]
    rest = [offer for offer in dated(gpu_count=spec.hardware.gpu_count) if offer.platform not in markets]
    return [*offers, *rest], notes


def age_of_prices(chosen: Sequence[Candidate], today: date) -> list[str]:
    """What is old among the prices of what can be taken."""
    taken: dict[str, list[Offer]] = {}
    for candidate in chosen:
        if candidate.ok:
            taken.setdefault(candidate.offer.platform, []).append(candidate.offer)
    return [note for platform, offers in sorted(taken.items()) for note in age_notes(platform, offers, today)]


def _chosen(candidates: Sequence[Candidate], args: argparse.Namespace) -> list[Candidate]:
    def wanted(candidate: Candidate) -> bool:
        offer = candidate.offer
        there = not args.region or preference(offer.platform, offer.region, offer.country, (args.region,)) is not None
        return there and (not args.platform or offer.platform == args.platform) and (candidate.ok or not args.fits)

    order = ORDERS[args.sort]
    # Sorting is stable, so that the cost decides among equals.
    chosen = sorted(filter(wanted, candidates), key=lambda c: (not c.ok, order(c)))
    return chosen[: args.top]


def _tables(spec: DeploymentSpec, chosen: Sequence[Candidate]) -> list[Table]:
    """What can be taken, offer by offer; and what can't, those of one GPU and one reason together."""
    fitting = _table("platform", "GPU", "a month", "context", "offer")
    for candidate in chosen:
        if candidate.ok:
            fitting.add_row(*_figures(candidate), _about_offer(spec, candidate))
    others = _table("platform", "GPU", "why not")
    for alike in misfits(chosen).values():
        others.add_row(*_figures(alike[0])[:2], why_not(alike))
    return [table for table in (fitting, others) if table.row_count]


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in columns[:-1]:
        table.add_column(name, no_wrap=True, justify="right" if name in ("a month", "context") else "left")
    table.add_column(columns[-1])
    return table


def _figures(candidate: Candidate) -> tuple[str, ...]:
    offer = candidate.offer
    count = f"{offer.gpu_count} x " if offer.gpu_count > 1 else ""
    if candidate.incomplete:
        price = "not found"
    else:
        price = dollars(candidate.cost)
        price = f"up to {price}" if candidate.sleeps else f"{price}{'+' if candidate.open_use else ''}"
    context = f"{candidate.fit.longest:,}" if candidate.fit and candidate.fit.ok else "-"
    return offer.platform, f"{count}{offer.gpu}", price, context


def _about_offer(spec: DeploymentSpec, candidate: Candidate) -> str:
    offer, cost = candidate.offer, candidate.monthly
    texts = [offer_terms(offer)]
    known = not (candidate.sleeps or candidate.open_use or candidate.incomplete)
    if known and cost.high > cost.low * Decimal("1.02"):
        texts.append(f"${cost.low:,.0f} to ${cost.high:,.0f}")
    if spec.placement.gdpr:
        place = residence(offer, spec.placement.regions)
        texts.append(f"in {place.where} ({place.evidence})")
    if offer.availability:
        texts.append(f"stock {offer.availability}")
    return "; ".join((*texts, _price_date(offer)))


def misfits(chosen: Iterable[Candidate]) -> dict[tuple[object, ...], list[Candidate]]:
    """What can't be taken, by what it has in common: platform, GPU and reasons."""
    alike: dict[tuple[object, ...], list[Candidate]] = {}
    for candidate in chosen:
        if not candidate.ok:
            offer = candidate.offer
            key = (offer.platform, offer.gpu, offer.gpu_count, offer.tier, offer.spot, _short_reasons(candidate))
            alike.setdefault(key, []).append(candidate)
    return alike


def _short_reasons(candidate: Candidate) -> str:
    """The reasons without what would work instead; a place that is wrong is the same reason wherever it is."""
    fit = candidate.fit
    reasons = [reason.split(". ", 1)[0] for reason in candidate.reasons]
    if fit and not fit.ok:
        missing = "; ".join(fit.shortfalls)
        reasons = [f"too small ({fit.gpu.memory_gib:.0f} GiB)" if missing in reason else reason for reason in reasons]
    place = f"{candidate.offer.region or candidate.offer.country} is not in "
    return "; ".join(
        f"not in {reason.removeprefix(place)}" if reason.startswith(place) else reason for reason in reasons
    )


def why_not(alike: Sequence[Candidate]) -> str:
    first = alike[0]
    if len(alike) == 1:
        return f"{offer_terms(first.offer)}: {_short_reasons(first)}"
    places = len({candidate.offer.region for candidate in alike})
    each = f"{len(alike)} offers" + (f" in {places} regions" if places > 1 else "")
    return f"{each}: {_short_reasons(first)}"


def _price_date(offer: Offer) -> str:
    dates = [rate.as_of for rate in offer.rates if rate.as_of]
    sources = "+".join(sorted({rate.source for rate in offer.rates}))
    return f"{sources} {min(dates)}" if dates else sources


def _legend(spec: DeploymentSpec) -> str:
    usage = spec.usage
    use = f"{usage.requests_per_day:,} requests a day" if usage.requests_per_day is not None else "no use declared"
    where = ", ".join(spec.placement.regions) or "anywhere"
    return (
        f"{spec.model.name}, context {spec.model.max_len:,}; US dollars in a month of {HOURS_PER_MONTH} hours, {use}; "
        f"{where}. `context` is the longest request that fits, `+` what depends on a use that isn't declared. "
        "`--set KEY=VALUE` asks what if, `--fits` leaves out what can't be taken, `--json` has every number."
    )


def _about(spec: DeploymentSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", include={"model", "engine", "hardware", "placement", "scaling", "usage"})


def offer_facts(spec: DeploymentSpec, candidate: Candidate) -> dict[str, Any]:
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


_COLUMNS = (
    "provider",
    "kind",
    "sku",
    "gpu",
    "gpu_count",
    "region",
    "country",
    "tier",
    "spot",
    "monthly_usd",
    "low",
    "high",
    "incomplete",
    "depends_on_usage",
    "fits",
    "reasons",
    "kv_tokens",
    "longest_request_tokens",
    "concurrent_requests",
    "extrapolated",
    "where",
    "evidence",
    "availability",
    "price_source",
    "price_as_of",
)


def _write_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    writer: csv.DictWriter[str] = csv.DictWriter(sys.stdout, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "reasons": "; ".join(row["reasons"])})
