"""From stack config to everything that will be registered, before anything is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from providers import base
from providers.model_shape import model_shape
from providers.replicas import Replica, replicas
from serving import NAMESPACE
from serving.models import Model
from serving.offers import Offer
from serving.quote import Quote, quote
from serving.spec import SECRET_KEYS, DeploymentSpec, PlacementSpec, Problem, SpecError, parse_part, parse_spec


@dataclass(frozen=True)
class Plan:
    """What will be created, on which offer, at what cost. `declared` is one server of `servers`."""

    spec: DeploymentSpec
    offer: Offer
    declared: base.Declared
    servers: tuple[Replica, ...]
    quote: Quote


def make_plan(config: Mapping[str, str]) -> Plan:
    """The plan for a stack's config. Asks the chosen platform for its offers; creates nothing.

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
    if os.environ.get("VLLM_ANYWHERE_PRICES"):
        from providers.market import prices

        # A price file that can't be read must not come up when resources are registered already.
        prices()
    adapter = base.load_adapter(spec.provider)
    options = parse_part(adapter.options, section, spec.provider)
    secrets = frozenset(key for key in SECRET_KEYS if f"{NAMESPACE}:{key}" in config)
    ask = base.Ask(spec, options, base.load_market(spec.provider)(spec), secrets)
    if reasons := adapter.unsupported(ask):
        raise SpecError([Problem(f"{NAMESPACE}:{reason.key}", "", reason.text) for reason in reasons])
    offers = adapter.offers(ask)
    if not offers:
        raise SpecError([Problem(f"{NAMESPACE}:provider", spec.provider, "nothing on offer there fits this spec")])
    offer = offers[0]

    def market() -> list[Offer]:
        from providers.market import dated

        # The chosen platform's own offers are what it said just now; the others' are dated.
        others = dated(gpu_count=spec.hardware.gpu_count)
        return [*offers, *(other for other in others if other.platform != spec.provider)]

    declared = adapter.resources(ask, offer)
    _require_packages(spec.provider, declared)
    servers = replicas(declared, spec.scaling.min)
    return Plan(spec, offer, declared, servers, quote(spec, _shape(spec, offer), offer, market))


def _require_packages(platform: str, declared: base.Declared) -> None:
    """Refuse a platform whose Pulumi package isn't installed; they are large, so each is an extra."""
    packages = {declaration.python.partition(".")[0] for declaration in declared.resources if declaration.python}
    missing = sorted(name for name in packages if find_spec(name) is None)
    if missing:
        raise base.PlatformError(
            f"{platform} needs the Python package {', '.join(missing)}: "
            f"`.venv/bin/pip install -c constraints.txt -e '.[{platform}]'`"
        )


def _shape(spec: DeploymentSpec, offer: Offer) -> Model | None:
    """The model's shape. Only what serves a stand-in may do without one."""
    try:
        return model_shape(spec.model)
    except SpecError:
        if offer.gpu:
            raise
        return None
