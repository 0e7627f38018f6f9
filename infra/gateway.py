"""A gateway as Pulumi resources: Deployment > ApiKey > Proxy or VM > Ready, wired to the stacks behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi

from infra.common import answered, api_key, planned, ready
from infra.register import refs_in, register, resolve
from providers.base import KEY, PREVIOUS_KEY, Declaration, Declared, PlatformError, Ref
from providers.market import prices
from providers.replicas import replicas, resources
from serving import NAMESPACE
from serving.gateway import (
    API_KEY,
    SECTION,
    GatewayPlan,
    GatewaySpec,
    Upstream,
    in_order,
    parse_gateway,
    served_name,
    unreachable,
    upstream,
)
from serving.gateway_proxy import API_KEY_NAME, as_json, key_name, proxy_config, rule
from serving.gateway_report import api_text, gateway_cost, gateway_report
from serving.spec import Problem, SpecError

SERVER = "server"
"""What a deployment is served by has this name, for the commands that look for it."""


def run() -> None:
    """The program of a gateway's stack.

    Raises:
        pulumi.RunError: when it can't be made; its text names every key that is wrong, and every stack that isn't up.
    """
    Gateway(planned(make_gateway, "the gateway can't be made"))


@dataclass(frozen=True)
class Wired:
    """A gateway's plan with the stacks behind it, in the order in which they are asked."""

    plan: GatewayPlan
    upstreams: tuple[Upstream, ...]
    model: str


def make_gateway(config: Mapping[str, str]) -> Wired:
    """The gateway of a stack's config, with what is behind it.

    Raises:
        SpecError: the config is wrong, or a stack behind it isn't up.
        PlatformError: there is no LiteLLM on this machine, where it shall run.
    """
    from providers.gateway.client import missing

    plan = parse_gateway(config)
    found = [upstream(name, _outputs(name)) for name in plan.gateway.stacks]
    stacks = [one for one in found if isinstance(one, Upstream)]
    problems = [one for one in found if isinstance(one, Problem)]
    problems += [problem for one in stacks if (problem := unreachable(plan.gateway, one))]
    if problems:
        raise SpecError(problems)
    if plan.gateway.on == "local" and (why := missing()):
        raise PlatformError(why)
    return Wired(plan, tuple(in_order(plan.gateway, stacks)), served_name(plan.gateway, stacks))


def full_name(stack: str) -> str:
    """`organisation/project/stack` of a stack that may be named shorter."""
    here = [pulumi.get_organization(), pulumi.get_project(), ""]
    parts = stack.split("/")
    return "/".join([*here[: 3 - len(parts)], *parts])


def _outputs(stack: str) -> Mapping[str, Any] | None:
    """A stack's outputs; None when there is no such stack."""
    try:
        answer = pulumi.runtime.invoke("pulumi:pulumi:readStackOutputs", {"name": full_name(stack)}).value
    except Exception as error:
        if "unknown stack" in str(error) or "no stack named" in str(error):
            return None
        raise
    return answer["outputs"] if answer else {}


class Gateway(pulumi.ComponentResource):
    """One OpenAI URL with one key in front of several stacks."""

    def __init__(self, wired: Wired) -> None:
        # The same type as any deployment's: commands find it by that.
        super().__init__(f"{NAMESPACE}:index:Deployment", "deployment")
        spec, plan = wired.plan.gateway, wired.plan
        cost = gateway_cost(spec, prices())
        declared = _on_gcp(wired) if spec.on == "gcp" else _here(wired)
        servers = replicas(declared, 1)
        answers = answered(servers[0])
        # Whose client has the log of what doesn't answer.
        platform = SECTION if spec.on == "local" else spec.on
        gate = ready(declared, servers[0], plan.ready, platform, may_sleep=True)
        declarations = [api_key(plan.api_key), *resources(declared, servers), gate]
        wanted = [KEY, *refs_in([declared.endpoint, declared.ca]), *answers.values()]
        registered = register(declarations, wanted, parent=self, platform=spec.on)
        report = gateway_report(spec, wired.model, wired.upstreams, cost)
        shown = registered[KEY.resource].urn.apply(lambda _: pulumi.info(report, resource=self))
        outputs: dict[str, Any] = {
            "endpoint": resolve(declared.endpoint, registered),
            "api_key": pulumi.Output.secret(resolve(KEY, registered)),
            "model": wired.model,
            "provider": SECTION,
            "hardware": f"LiteLLM's proxy on {declared.hardware}, in front of {', '.join(spec.stacks)}",
            "cost": cost,
            "ready": resolve(answers, registered),
            "behind": [{"stack": one.stack, "price": one.price} for one in wired.upstreams],
            **({"ca_pem": resolve(declared.ca, registered)} if declared.ca else {}),
        }
        self.register_outputs({**outputs, "shown": shown.apply(lambda _: True)})
        for name, value in outputs.items():
            pulumi.export(name, value)


def _here(wired: Wired) -> Declared:
    """The gateway as a process of this machine."""
    spec = wired.plan.gateway
    proxy = Declaration(
        SERVER,
        f"{NAMESPACE}:gateway:Proxy",
        {
            "model": wired.model,
            "behind": [_behind(one) for one in wired.upstreams],
            "api": api_text(spec),
            "config": as_json(proxy_config(spec, wired.model, wired.upstreams)),
            "rule": as_json(rule(spec, wired.model)),
            "caPem": _cas(wired),
            "upstreamKeys": _keys(spec),
            "apiKey": KEY,
            "previousKey": PREVIOUS_KEY,
            "port": spec.port,
            "timeoutS": wired.plan.ready.timeout_s,
        },
    )
    endpoint, run = Ref(SERVER, "endpoint"), Ref(SERVER, "run")
    return Declared((proxy,), SERVER, endpoint, run, wired.model, "this machine")


def _on_gcp(wired: Wired) -> Declared:
    """The gateway on a VM, which gets what it is in front of, and the keys for that, as one secret."""
    from providers.gcp.gateway import gateway_declared

    spec = wired.plan.gateway
    known = {
        "config": proxy_config(spec, wired.model, wired.upstreams),
        "rule": rule(spec, wired.model),
        "ca_pem": _cas(wired),
    }
    wanted = _keys(spec).apply(lambda keys: json.dumps({**known, "keys": json.loads(keys)}, sort_keys=True))
    return gateway_declared(spec.gcp, wired.model, wanted)


def _cas(wired: Wired) -> str:
    return "\n".join(one.ca_pem.strip() for one in wired.upstreams if one.ca_pem)


def _behind(one: Upstream) -> dict[str, Any]:
    return {
        "stack": one.stack,
        "provider": one.provider,
        "model": one.model,
        "endpoints": list(one.endpoints),
        "price": one.price,
    }


def _keys(spec: GatewaySpec) -> pulumi.Output[str]:
    """The keys of everything behind the gateway, by the names that LiteLLM's config has for them."""
    api_key = pulumi.Config(NAMESPACE).get_secret(API_KEY) if spec.api else None
    named: dict[str, pulumi.Input[str]] = {
        key_name(position): pulumi.StackReference(full_name(stack)).require_output("api_key")
        for position, stack in enumerate(spec.stacks)
    }
    if api_key is not None:
        named[API_KEY_NAME] = api_key
    return pulumi.Output.secret(pulumi.Output.all(**named).apply(json.dumps))
