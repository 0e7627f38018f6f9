"""From stack config to everything that will be registered, before anything is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from providers import base
from serving import NAMESPACE
from serving.cost import Estimate
from serving.offers import Offer
from serving.spec import DeploymentSpec, Problem, SpecError, parse_part, parse_spec


@dataclass(frozen=True)
class Plan:
    """What will be created, on which offer, at what cost."""

    spec: DeploymentSpec
    offer: Offer
    declared: base.Declared
    estimate: Estimate


def make_plan(config: Mapping[str, str]) -> Plan:
    """The plan for a stack's config. Asks the chosen platform for its offers; creates nothing.

    Raises:
        SpecError: when the config is wrong, or the platform can't serve it; every problem names its key.
    """
    spec, section = parse_spec(config, base.platform_names())
    adapter = base.load_adapter(spec.provider)
    options = parse_part(adapter.options, section, spec.provider)
    ask = base.Ask(spec, options, base.load_market(spec.provider)(spec))
    if reasons := adapter.unsupported(ask):
        raise SpecError([Problem(f"{NAMESPACE}:{reason.key}", "", reason.text) for reason in reasons])
    offers = adapter.offers(ask)
    if not offers:
        raise SpecError([Problem(f"{NAMESPACE}:provider", spec.provider, "nothing on offer there fits this spec")])
    offer = offers[0]
    return Plan(spec, offer, adapter.resources(ask, offer), adapter.cost(ask, offer))
