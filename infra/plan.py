"""From stack config to everything that will be registered, before anything is."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from providers import base
from providers.extras import install
from providers.model_shape import model_shape
from providers.replicas import Replica, replicas
from serving import NAMESPACE, USER_PRICES
from serving.config import SECRET_KEYS, parse_part, parse_spec
from serving.models import Model
from serving.offers import Offer
from serving.quote import Quote, quote
from serving.rented import completed, from_output, together
from serving.spec import DeploymentSpec, PlacementSpec, Problem, SpecError


@dataclass(frozen=True)
class Plan:
    """What will be created, on which offer, at what cost. `declared` is one server of `servers`.

    `declare` declares the same on another offer.
    """

    spec: DeploymentSpec
    offer: Offer
    declared: base.Declared
    servers: tuple[Replica, ...]
    quote: Quote
    declare: Callable[[Offer], base.Declared]

    def as_rented(self, outputs: Any) -> Plan:
        """The plan on what has been rented, by `Declared.rented` of each server; itself while none of that is known."""
        rented = [from_output(value) for value in outputs] if isinstance(outputs, list) else []  # pyright: ignore[reportUnknownVariableType]
        if not any(rented):
            return self
        offer = together([completed(one, self.offer) if one else self.offer for one in rented])
        return replace(self, offer=offer, declared=self.declare(offer), quote=self.quote.of_rented(offer))


def make_plan(config: Mapping[str, str], rented: Callable[[str], Offer | None] = lambda _: None) -> Plan:
    """The plan for a stack's config. Asks the chosen platform for its offers; creates nothing.

    `rented` tells what the stack rents on a platform. It is asked when that has nothing to rent for the spec: what is
    rented already may go on, and be changed in place.

    Raises:
        SpecError: when the config is wrong, the platform can't serve it, or it breaks its budget; every problem
            names its key.
        PlatformError: when the platform can't be asked, or the user's price file is wrong.
    """
    spec, section = parse_spec(config, base.platform_names())
    if spec.placement.regions != PlacementSpec().regions or spec.hardware.gpus:
        # The default names nothing that would have to be looked up.
        from serving.names import check_names

        check_names(spec)
    if os.environ.get(USER_PRICES):
        from providers.market import prices

        # A price file that can't be read must not come up when resources are registered already.
        prices()
    adapter = base.load_adapter(spec.provider)
    options = parse_part(adapter.options, section, spec.provider)
    secrets = frozenset(key for key in SECRET_KEYS if f"{NAMESPACE}:{key}" in config)
    ask = base.Ask(spec, options, base.load_market(spec.provider)(spec), secrets)
    offers, problems = _offers(adapter, ask)
    if problems and (kept := _kept(spec, rented(spec.provider))):
        ask = replace(ask, running=kept)
        offers, problems = _offers(adapter, ask)
    if problems:
        raise SpecError(problems)
    offer = offers[0]

    def market() -> list[Offer]:
        from providers.market import dated

        # The chosen platform's own offers are what it said just now; the others' are dated.
        others = dated(gpu_count=spec.hardware.gpu_count)
        return [*offers, *(other for other in others if other.platform != spec.provider)]

    declared = adapter.resources(ask, offer)
    _require_packages(spec.provider, declared)
    servers = replicas(declared, spec.scaling.min)
    quoted = quote(spec, _shape(spec, offer), offer, market)
    return Plan(spec, offer, declared, servers, quoted, lambda other: adapter.resources(ask, other))


def _offers(adapter: base.Adapter, ask: base.Ask) -> tuple[list[Offer], list[Problem]]:
    """What can be rented, best first; else why nothing can."""
    if reasons := adapter.unsupported(ask):
        return [], [Problem(f"{NAMESPACE}:{reason.key}", "", reason.text) for reason in reasons]
    if offers := adapter.offers(ask):
        return offers, []
    return [], [Problem(f"{NAMESPACE}:provider", ask.spec.provider, "nothing on offer there fits this spec")]


def _kept(spec: DeploymentSpec, rented: Offer | None) -> Offer | None:
    """What the stack rents already, if it would do for the spec."""
    if rented is None:
        return None
    from serving.rank import Judge

    return rented if Judge(spec, model_shape(spec.model))(rented).ok else None


def _require_packages(platform: str, declared: base.Declared) -> None:
    """Refuse a platform whose Pulumi package isn't installed; they are large, so each is an extra."""
    packages = {declaration.python.partition(".")[0] for declaration in declared.resources if declaration.python}
    missing = sorted(name for name in packages if find_spec(name) is None)
    if missing:
        raise base.PlatformError(f"{platform} needs the Python package {', '.join(missing)}: {install(platform)}")


def _shape(spec: DeploymentSpec, offer: Offer) -> Model | None:
    """The model's shape. Only what serves a stand-in may do without one."""
    try:
        return model_shape(spec.model)
    except SpecError:
        if offer.gpu:
            raise
        return None
