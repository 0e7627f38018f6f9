"""Functions of the package: what programs in any Pulumi language can ask without creating anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from providers import base
from providers.native import Properties
from serving import NAMESPACE

if TYPE_CHECKING:
    from serving.offers import Offer


@dataclass(frozen=True)
class Function:
    """One function: its token, its arguments and answer as models, and what it does."""

    token: str
    doc: str
    inputs: type[Properties]
    outputs: type[Properties]
    call: Callable[[Any], Properties]


class OffersArgs(Properties):
    """A deployment, as a stack file describes it."""

    provider: str = Field(default="local", description="The platform to ask.")
    spec: dict[str, Any] = Field(
        default={}, description="Sections of the stack config: model, hardware, placement, ..."
    )


class OffersAnswer(Properties):
    """What could be rented, best first."""

    offers: list[dict[str, Any]] = Field(description="Each offer with its rates, their source and date.")
    unsupported: list[str] = Field(description="Why the platform can't serve this spec; empty if it can.")


class PricesAnswer(Properties):
    """What each offer costs, in the same order as the offers."""

    estimates: list[dict[str, Any]] = Field(description="Cost lines and totals, money as decimal text.")
    unsupported: list[str] = Field(description="Why the platform can't serve this spec; empty if it can.")


def _found(args: OffersArgs) -> tuple[base.Ask, list[Offer], list[str]]:
    """What was asked, what there is for it, and why the platform can't serve it."""
    # Building the spec's models takes a twentieth of a second, which no resource needs.
    from serving.config import parse_part, parse_spec
    from serving.spec import SpecError

    sections = {f"{NAMESPACE}:{key}": json.dumps(value) for key, value in args.spec.items()}
    try:
        spec, raw = parse_spec({**sections, f"{NAMESPACE}:provider": args.provider}, base.platform_names())
        adapter = base.load_adapter(spec.provider)
        options = parse_part(adapter.options, raw, spec.provider)
    except SpecError as error:
        raise base.PlatformError(str(error)) from None
    ask = base.Ask(spec, options, base.load_market(spec.provider)(spec))
    unsupported = [str(reason) for reason in adapter.unsupported(ask)]
    return ask, [] if unsupported else adapter.offers(ask), unsupported


def get_offers(args: OffersArgs) -> OffersAnswer:
    """Every offer of one platform for a spec."""
    _, offers, unsupported = _found(args)
    return OffersAnswer(
        offers=[json.loads(json.dumps(asdict(offer), default=str)) for offer in offers],
        unsupported=unsupported,
    )


def get_prices(args: OffersArgs) -> PricesAnswer:
    """What every offer of one platform costs at the spec's declared use."""
    ask, offers, unsupported = _found(args)
    from providers.model_shape import model_shape
    from serving.cost import assumptions_for, estimate
    from serving.spec import SpecError

    try:
        assumed = assumptions_for(model_shape(ask.spec.model))
    except SpecError:
        assumed = None
    estimates = [estimate(ask.spec, offer, assumed).as_output() for offer in offers]
    return PricesAnswer(estimates=estimates, unsupported=unsupported)


FUNCTIONS = (
    Function(
        f"{NAMESPACE}:index:getOffers",
        "What a platform offers for a spec.",
        OffersArgs,
        OffersAnswer,
        get_offers,
    ),
    Function(f"{NAMESPACE}:index:getPrices", "What those offers cost.", OffersArgs, PricesAnswer, get_prices),
)
