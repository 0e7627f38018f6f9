"""A gateway as Pulumi resources: Deployment > ApiKey > Proxy > Ready, wired to the stacks behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime import config as stack_config

from infra.register import Native
from providers.base import PlatformError
from serving import NAMESPACE
from serving.gateway import (
    API_KEY,
    API_KEY_NAME,
    SECTION,
    GatewayPlan,
    Upstream,
    as_json,
    in_order,
    key_name,
    parse_gateway,
    proxy_config,
    rule,
    served_name,
    upstream,
)
from serving.gateway_report import api_text, gateway_cost, gateway_report
from serving.spec import Problem, SpecError


def run() -> None:
    """The program of a gateway's stack.

    Raises:
        pulumi.RunError: when it can't be made; its text names every key that is wrong, and every stack that isn't up.
    """
    try:
        wired = make_gateway({**stack_config.get_config_env(), **stack_config.CONFIG.get()})
    except SpecError as error:
        listed = "\n".join(f"  {problem}" for problem in error.problems)
        raise pulumi.RunError(f"nothing was created: the gateway can't be made\n{listed}") from None
    except PlatformError as error:
        raise pulumi.RunError(f"nothing was created: {error}") from None
    Gateway(wired)


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
        PlatformError: there is no LiteLLM.
    """
    from providers.gateway.client import missing

    plan = parse_gateway(config)
    found = [upstream(name, _outputs(name)) for name in plan.gateway.stacks]
    if problems := [one for one in found if isinstance(one, Problem)]:
        raise SpecError(problems)
    if why := missing():
        raise PlatformError(why)
    ordered = in_order(plan.gateway, [one for one in found if isinstance(one, Upstream)])
    return Wired(plan, tuple(ordered), served_name(plan.gateway, [one for one in found if isinstance(one, Upstream)]))


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
        config = pulumi.Config(NAMESPACE)
        own = config.get_secret("own_api_key")
        key = _native(
            "api-key",
            "index:ApiKey",
            {
                "rotation": plan.api_key.rotation,
                "keepPrevious": plan.api_key.keep_previous,
                **({"own": own} if own else {}),
            },
            ("value", "previous"),
            self,
        )
        shown = key.urn.apply(lambda _: pulumi.info(gateway_report(spec, wired.model, wired.upstreams), resource=self))
        proxy = _native(
            # What a deployment is served by has this name, for the commands that look for it.
            "server",
            "gateway:Proxy",
            {
                "model": wired.model,
                "behind": [_behind(one) for one in wired.upstreams],
                "api": api_text(spec),
                "config": as_json(proxy_config(spec, wired.model, wired.upstreams)),
                "rule": as_json(rule(spec, wired.model)),
                "caPem": "\n".join(one.ca_pem.strip() for one in wired.upstreams if one.ca_pem),
                "upstreamKeys": _keys(spec.stacks, config.get_secret(API_KEY) if spec.api else None),
                "apiKey": key.value,  # pyright: ignore[reportAttributeAccessIssue]
                "previousKey": key.previous,  # pyright: ignore[reportAttributeAccessIssue]
                "port": spec.port,
                "timeoutS": plan.ready.timeout_s,
            },
            ("endpoint", "run"),
            self,
        )
        ready = _native(
            "ready",
            "index:Ready",
            {
                "endpoint": proxy.endpoint,  # pyright: ignore[reportAttributeAccessIssue]
                "apiKey": key.value,  # pyright: ignore[reportAttributeAccessIssue]
                "model": wired.model,
                "platform": SECTION,
                "serverId": proxy.id,
                "run": proxy.run,  # pyright: ignore[reportAttributeAccessIssue]
                "timeoutS": plan.ready.timeout_s,
                **({} if plan.ready.wake else {"wake": False}),
            },
            ("timeToReadyS", "firstTokenS", "answeredAt"),
            self,
        )
        outputs: dict[str, Any] = {
            "endpoint": proxy.endpoint,  # pyright: ignore[reportAttributeAccessIssue]
            "api_key": pulumi.Output.secret(key.value),  # pyright: ignore[reportAttributeAccessIssue]
            "model": wired.model,
            "provider": SECTION,
            "hardware": f"LiteLLM's proxy on this machine, in front of {', '.join(spec.stacks)}",
            "cost": gateway_cost(),
            "ready": {
                "time_to_ready_s": ready.timeToReadyS,  # pyright: ignore[reportAttributeAccessIssue]
                "first_token_s": ready.firstTokenS,  # pyright: ignore[reportAttributeAccessIssue]
                "answered_at": ready.answeredAt,  # pyright: ignore[reportAttributeAccessIssue]
            },
            "behind": [{"stack": one.stack, "price": one.price} for one in wired.upstreams],
        }
        self.register_outputs({**outputs, "shown": shown.apply(lambda _: True)})
        for name, value in outputs.items():
            pulumi.export(name, value)


def _native(
    name: str, type: str, inputs: Mapping[str, Any], outputs: Sequence[str], parent: pulumi.Resource
) -> pulumi.CustomResource:
    from providers.base import Declaration

    opts = pulumi.ResourceOptions(parent=parent)
    return Native(Declaration(name, f"{NAMESPACE}:{type}", inputs), inputs, outputs, opts)


def _behind(one: Upstream) -> dict[str, Any]:
    return {
        "stack": one.stack,
        "provider": one.provider,
        "model": one.model,
        "endpoints": list(one.endpoints),
        "price": one.price,
    }


def _keys(stacks: Sequence[str], api_key: pulumi.Output[str] | None) -> pulumi.Output[str]:
    """The keys of everything behind the gateway, by the names that LiteLLM's config has for them."""
    named: dict[str, pulumi.Input[str]] = {
        key_name(position): pulumi.StackReference(full_name(stack)).require_output("api_key")
        for position, stack in enumerate(stacks)
    }
    if api_key is not None:
        named[API_KEY_NAME] = api_key
    return pulumi.Output.secret(pulumi.Output.all(**named).apply(json.dumps))
