"""`vllm-anywhere breakeven`: from how many requests a month a server of one's own costs less than a closed API."""

from __future__ import annotations

import argparse
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from ops.arguments import amount, finite
from ops.breakeven_report import facts, report, svg
from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError
from ops.text import show, show_json
from serving.apis import ApiModel, ApiTableError, api_models
from serving.breakeven import OBSERVED_TOKENS_PER_S, Terms, breakeven
from serving.offers import Offer
from serving.spec import DeploymentSpec, SpecError


def add_breakeven(commands: Any) -> None:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "breakeven",
        help="requests a month from which self-hosting costs less than a closed API",
    )
    add_spec_options(parser)
    parser.add_argument("--input-tokens", type=_count, metavar="N", help="prompt tokens (default: usage.input_tokens)")
    parser.add_argument(
        "--output-tokens", type=_count, metavar="N", help="answer tokens (default: usage.output_tokens)"
    )
    parser.add_argument(
        "--cached-tokens", type=_count, default=0, metavar="N", help="of the prompt, the same in every request"
    )
    parser.add_argument("--monthly", type=_amount, metavar="USD", help="what a server of your own costs a month")
    parser.add_argument(
        "--maintenance", type=_amount, default=Decimal(0), metavar="USD", help="your own work a month, in money"
    )
    parser.add_argument(
        "--tokens-per-s",
        type=amount,
        metavar="N",
        help=f"answer tokens a second of one server, all its requests together (default: {OBSERVED_TOKENS_PER_S})",
    )
    parser.add_argument(
        "--peak", type=_peak, default=Terms().peak, metavar="N", help="peak traffic over the mean (default: 4)"
    )
    parser.add_argument("--api", action="append", default=[], metavar="NAME", help="only APIs with NAME in their name")
    parser.add_argument("--apis", type=Path, metavar="FILE", help="CSV of more API prices; its rows win")
    parser.add_argument("--platform", default="", metavar="NAME", help="rent on this platform only")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the chart there too")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=run_breakeven)


def run_breakeven(args: argparse.Namespace) -> int:
    """Print the comparison. Returns 0.

    Raises:
        OpsError: a wrong spec or table of prices, no such API, or nothing to rent that fits.
    """
    spec = _with_tokens(asked_spec(args), args)
    terms = Terms(
        tokens_per_s=args.tokens_per_s or OBSERVED_TOKENS_PER_S,
        maintenance=args.maintenance,
        peak=args.peak,
        cached_tokens=args.cached_tokens,
    )
    apis = _apis(args, spec.usage.input_tokens)
    offers = () if args.monthly is not None else fitting_offers(spec, args.platform)
    found = breakeven(spec, offers, apis, terms, args.monthly)
    if not found.hosts:
        raise OpsError(
            "nothing on offer fits this spec: `vllm-anywhere compare` says why, and "
            "`vllm-anywhere breakeven --monthly USD` takes a cost of your own"
        )
    if args.svg:
        _write(args.svg, svg(found))
    if args.json:
        show_json(facts(found))
    else:
        show(report(found))
    return 0


def fitting_offers(spec: DeploymentSpec, platform: str = "") -> tuple[Offer, ...]:
    """What the dated prices offer that the model fits and the spec allows, on one platform or on all.

    Raises:
        OpsError: the model isn't known, or prices can't be read.
    """
    # The catalogue of offers takes a moment, and a cost of one's own needs none of it.
    from providers.base import PlatformError
    from providers.market import dated
    from providers.model_shape import model_shape
    from serving.rank import rank

    try:
        candidates = rank(spec, model_shape(spec.model), dated(platform, gpu_count=spec.hardware.gpu_count))
    except (SpecError, PlatformError) as error:
        raise OpsError(str(error)) from None
    return tuple(candidate.offer for candidate in candidates if candidate.ok and candidate.priced)


def read_apis(path: Path | None) -> tuple[ApiModel, ...]:
    """The APIs whose prices are known, with those of a user's table.

    Raises:
        OpsError: the table can't be read, or is wrong.
    """
    try:
        return api_models(path.read_text(encoding="utf-8") if path else None)
    except (OSError, UnicodeError, ApiTableError) as error:
        raise OpsError(f"the table of API prices {path} can't be used: {error}") from None


def _with_tokens(spec: DeploymentSpec, args: argparse.Namespace) -> DeploymentSpec:
    asked = {"input_tokens": args.input_tokens, "output_tokens": args.output_tokens}
    changed = {name: tokens for name, tokens in asked.items() if tokens is not None}
    return spec.model_copy(update={"usage": spec.usage.model_copy(update=changed)})


def _apis(args: argparse.Namespace, input_tokens: int) -> list[ApiModel]:
    priced = [api for api in read_apis(args.apis) if api.takes(input_tokens)]
    wanted = [name.lower() for name in args.api]
    chosen = [api for api in priced if not wanted or any(name in api.name.lower() for name in wanted)]
    if not chosen:
        names = ", ".join(dict.fromkeys(api.name for api in priced))
        raise OpsError(f"no API is known as {' or '.join(args.api)}; there are: {names}")
    return chosen


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OpsError(f"the chart can't be written to {path}: {error.strerror}") from None
    print(f"the chart is in {path}", file=sys.stderr)


def _amount(text: str) -> Decimal:
    value = finite(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: US dollars, such as 248 or 19.90")
    return value


def _peak(text: str) -> Decimal:
    value = finite(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: 1 for even traffic, or more")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10**7:
        raise argparse.ArgumentTypeError(f"{text}: a whole number of tokens, 1 to 10,000,000")
    return int(text)
