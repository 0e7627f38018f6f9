"""`vllm-anywhere report`: one HTML file for who decides: what to rent, what it costs, and from when on it pays."""

from __future__ import annotations

import argparse
import sys
from datetime import date
from pathlib import Path
from typing import Any

from ops.compare import age_of_prices, market_offers
from ops.fit import asked_cards
from ops.report_bench import read_bench
from ops.report_facts import Report, json_facts, page_facts
from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError
from ops.text import show_json
from providers.base import PlatformError
from providers.market import offline
from providers.model_shape import model_shape
from serving.apis import api_models
from serving.cost import assumptions_for
from serving.gpus import UnknownGpu
from serving.preflight import Host, preflight
from serving.rank import rank
from serving.spec import DeploymentSpec, SpecError

EXAMPLE_REQUESTS = 1000
"""Requests a day of a spec that declares none: a report has to start somewhere, and says so."""


def add_report(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("report", help="one HTML file for who decides: offers, costs, break-even, fit, prices")
    add_spec_options(parser)
    parser.add_argument(
        "--bench", type=Path, action="append", default=[], metavar="FILE", help="a result of `bench` (may be repeated)"
    )
    parser.add_argument(
        "--api", default="", metavar="NAME", help="the API to compare with first (default: the cheapest)"
    )
    parser.add_argument(
        "--growth", type=_percent, default=0, metavar="PERCENT", help="more requests each month (default: 0)"
    )
    parser.add_argument("--offline", action="store_true", help="dated prices only: the same answer every time")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: report.html")
    form.add_argument("--json", action="store_true", help="the report's data as one JSON document, for programs")
    parser.set_defaults(run=write_report)


def write_report(args: argparse.Namespace) -> int:
    """Write the page, or print its data. Returns 0 when at least one offer can be taken, 1 when none can.

    Raises:
        OpsError: a wrong spec or file, no such API, prices that can't be read, or no plotting library.
    """
    report = gathered(args)
    if args.json:
        show_json(json_facts(report))
    else:
        from ops.report_page import page

        text = page(page_facts(report), f"{report.spec.model.name.rpartition('/')[2]}: what to rent")
        try:
            args.out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OpsError(f"the report can't be written to {args.out}: {error.strerror}") from None
        size = len(text.encode()) / 10**6
        print(f"the report is in {args.out} ({size:.1f} MB); it needs no network to be read", file=sys.stderr)
    return 0 if report.taken else 1


def gathered(args: argparse.Namespace) -> Report:
    """Everything that the report says, as asked for on the command line.

    Raises:
        OpsError: a wrong spec or file, no such API, or prices that can't be read.
    """
    asked = asked_spec(args)
    bench = tuple(run for path in args.bench for run in read_bench(path))
    spec = _with_use(asked)
    without_asking = args.offline or offline()
    try:
        model = model_shape(spec.model)
        cards = asked_cards((), spec.model_copy(update={"provider": ""}))
        offers, notes = market_offers(_with_spot(spec), without_asking=without_asking)
    except (SpecError, PlatformError, UnknownGpu) as error:
        raise OpsError(str(error)) from None
    today = date.today()
    assumed = assumptions_for(model)
    candidates = rank(_with_spot(spec), model, offers, assumed)
    if not without_asking:
        notes += age_of_prices(candidates, today)
    report = Report(
        stack=args.stack,
        spec=spec,
        example=asked.usage.requests_per_day is None,
        model=model,
        assumed=assumed,
        taken=[candidate for candidate in candidates if candidate.ok],
        refused=[candidate for candidate in candidates if not candidate.ok],
        gpus=[preflight(spec, model, card, Host("")) for card in cards],
        apis=api_models(),
        api=args.api,
        growth=args.growth,
        bench=bench,
        notes=notes,
        today=today,
    )
    if args.api and report.chosen_api is None:
        names = ", ".join(dict.fromkeys(api.name for api in report.apis if api.takes(spec.usage.input_tokens)))
        raise OpsError(f"no API is known as {args.api}; there are: {names}")
    return report


def _with_use(spec: DeploymentSpec) -> DeploymentSpec:
    if spec.usage.requests_per_day is not None:
        return spec
    usage = spec.usage.model_copy(update={"requests_per_day": EXAMPLE_REQUESTS})
    return spec.model_copy(update={"usage": usage})


def _with_spot(spec: DeploymentSpec) -> DeploymentSpec:
    """The spec with interruptible offers allowed: the page has a control for them."""
    return spec.model_copy(update={"hardware": spec.hardware.model_copy(update={"spot": True})})


def _percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text}: per cent a month, 0 to 100")
    return int(text)
