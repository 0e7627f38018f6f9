"""`vllm-anywhere compare`: every offer on every platform for a spec, ranked by what a month costs."""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

from ops.arguments import count
from ops.compare_view import legend, tables
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
from serving.spec import DeploymentSpec, SpecError

ORDERS: Mapping[str, Callable[[Candidate], Any]] = {
    "cost": lambda c: 0,
    "gpu": lambda c: c.offer.gpu.lower(),
    "memory": lambda c: -(c.fit.gpu.memory_gib if c.fit else 0),
    "context": lambda c: -(c.fit.longest if c.fit else 0),
    "platform": lambda c: c.offer.platform,
    "region": lambda c: (c.offer.region or c.offer.country or "~").lower(),
}
"""What offers may be sorted by; equal ones stay in the order of their cost."""


SHOWN = 20
"""Offers that a table has, unless more or fewer are asked for: the cheapest stay on the screen."""


def add_compare(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("compare", help="every offer on every platform for a spec, cheapest first")
    add_spec_options(parser)
    parser.add_argument("--sort", choices=sorted(ORDERS), default="cost", help="order of the rows (default: cost)")
    parser.add_argument("--region", metavar="PLACE", help="only offers there: eu, us, a country, or a platform's name")
    parser.add_argument("--platform", help="only offers of this platform")
    parser.add_argument("--fits", action="store_true", help="leave out what can't be taken, and why")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--top", type=count, metavar="N", help="at most N offers")
    length.add_argument("--all", action="store_true", help="a row for every offer, as --json and --csv have it")
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
        show([*tables(spec, chosen, whole=args.all, most=args.top or SHOWN), "\n".join([legend(spec), *notes])])
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
