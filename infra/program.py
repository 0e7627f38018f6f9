"""One deployment as Pulumi resources: Deployment > ApiKey > the platform's resources > Ready."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pulumi
from pulumi.runtime import config as stack_config

from infra.plan import Plan, make_plan
from infra.register import Turns, refs_in, register, resolve
from providers.base import KEY, Declaration, PlatformError, Ref, Text
from providers.replicas import Replica, created, hardware, resources, turns
from serving import NAMESPACE
from serving.cost import BASED_ON_USE
from serving.quote import Running, Unread, running
from serving.report import PlanView, plan_facts, plan_report
from serving.spec import Problem, SpecError

REPORT = "VLLM_ANYWHERE_REPORT"
"""Set to `json`, the report under the Deployment is one JSON object, for programs that read `preview --json`."""


_READS, _READ_PAUSE_S = 20, 0.05


def run() -> None:
    """The program.

    Raises:
        pulumi.RunError: when the stack config can't be deployed; its text names every key that is wrong.
    """
    config = {**stack_config.get_config_env(), **stack_config.CONFIG.get()}
    try:
        plan = make_plan(config)
    except SpecError as error:
        listed = "\n".join(f"  {_masked(problem)}" for problem in error.problems)
        raise pulumi.RunError(f"nothing was created: the stack config can't be deployed\n{listed}") from None
    except PlatformError as error:
        raise pulumi.RunError(f"nothing was created: {error}") from None
    Deployment(plan)


def _masked(problem: Problem) -> Problem:
    """The problem without its value, if the stack config holds that as a secret."""
    section = problem.key.split(".", 1)[0]
    return replace(problem, value="[secret]") if stack_config.is_config_secret(section) else problem


class Deployment(pulumi.ComponentResource):
    """vLLM servers and everything that belongs to them, on one platform."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(f"{NAMESPACE}:index:Deployment", "deployment")
        servers = plan.servers
        declarations = [_api_key(plan), *resources(plan.declared, servers), *(_ready(plan, one) for one in servers)]
        answers = [_answered(one) for one in servers]
        wanted = [KEY, *refs_in([one.endpoint for one in servers]), *refs_in(plan.declared.ca), *refs_in(answers)]
        now = asyncio.ensure_future(_running())
        in_turn = asyncio.ensure_future(_turns(plan, now)) if len(servers) > 1 else None
        registered = register(declarations, wanted, parent=self, platform=plan.spec.provider, turns=in_turn)
        # Before its first child is known, the engine has no row for the component and shows the text elsewhere.
        cost = pulumi.Output.from_input(asyncio.to_thread(plan.quote.as_output))
        told = pulumi.Output.all(registered[KEY.resource].urn, cost, pulumi.Output.from_input(now))
        told.apply(lambda known: pulumi.info(_report(plan, known[2]), resource=self))
        outputs = {
            "endpoint": resolve(plan.declared.endpoint, registered),
            "api_key": pulumi.Output.secret(resolve(KEY, registered)),
            "model": plan.declared.model,
            "provider": plan.spec.provider,
            "hardware": hardware(plan.declared, servers),
            "cost": cost,
            "ready": resolve(answers[0], registered),
            **({"endpoints": resolve(_endpoints(servers, answers), registered)} if len(servers) > 1 else {}),
            **({"ca_pem": resolve(plan.declared.ca, registered)} if plan.declared.ca else {}),
        }
        self.register_outputs(outputs)
        for name, value in outputs.items():
            pulumi.export(name, value)


def _answered(server: Replica) -> dict[str, Ref]:
    """How the first answer of a server came."""
    names = {"time_to_ready_s": "timeToReadyS", "first_token_s": "firstTokenS", "answered_at": "answeredAt"}
    return {name: Ref(server.ready, output) for name, output in names.items()}


def _endpoints(servers: Sequence[Replica], answers: Sequence[Mapping[str, Ref]]) -> list[dict[str, Any]]:
    return [
        {"server": server.name, "endpoint": server.endpoint, "ready": answered}
        for server, answered in zip(servers, answers, strict=True)
    ]


async def _turns(plan: Plan, running: Awaitable[Running | Unread | None]) -> Turns:
    """Who waits for whom: what the last `up` has told of is in use."""
    match await running:
        case Unread():
            serving = len(plan.servers)
        case Running(platform=plan.spec.provider, servers=count):
            serving = count
        case _:
            serving = 0
    return turns(plan.servers, serving)


async def _running() -> Running | Unread | None:
    """What runs now, by the outputs that the last `up` of this very stack left."""
    name = f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"
    for _ in range(_READS):
        try:
            answer = await pulumi.runtime.invoke_async("pulumi:pulumi:readStackOutputs", {"name": name})
            return running(answer["outputs"])
        except Exception:
            # The file backend writes the state in place, so a read during `up` may find half of it.
            await asyncio.sleep(_READ_PAUSE_S)
    return Unread()


def _report(plan: Plan, now: Running | Unread | None) -> str:
    engine = plan.spec.engine
    view = PlanView(
        hardware=hardware(plan.declared, plan.servers),
        model=plan.declared.model,
        engine=f"vLLM {engine.version}" if plan.offer.gpu else plan.offer.sku,
        creates=created(plan.declared, plan.servers),
        notes=[*plan.declared.notes, *_age_notes(plan)],
    )
    if os.environ.get(REPORT) == "json":
        return json.dumps(plan_facts(view, plan.quote, now))
    return plan_report(view, plan.quote, now)


def _age_notes(plan: Plan) -> list[str]:
    from providers.market import age_notes, offline

    return [] if offline() else age_notes(plan.spec.provider, [plan.offer], date.today())


def _may_sleep(plan: Plan) -> bool:
    return plan.offer.kind in BASED_ON_USE and plan.spec.scaling.min == 0


def _api_key(plan: Plan) -> Declaration:
    own = pulumi.Config(NAMESPACE).get_secret("own_api_key")
    asked = plan.spec.api_key
    inputs = {"rotation": asked.rotation, "keepPrevious": asked.keep_previous, **({"own": own} if own else {})}
    return Declaration(KEY.resource, f"{NAMESPACE}:index:ApiKey", inputs)


def _ready(plan: Plan, server: Replica) -> Declaration:
    return Declaration(
        server.ready,
        f"{NAMESPACE}:index:Ready",
        {
            "endpoint": server.endpoint,
            "apiKey": KEY,
            "model": plan.declared.model,
            "platform": plan.spec.provider,
            "serverId": Ref(server.name, "id"),
            "run": server.run if isinstance(server.run, Text) else Text("{}", (server.run,)),
            "timeoutS": plan.spec.ready.timeout_s,
            **({"caPem": server.ca} if server.ca else {}),
            **({} if plan.spec.ready.wake or not _may_sleep(plan) else {"wake": False}),
        },
    )
