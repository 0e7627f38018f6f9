"""One deployment as Pulumi resources: Deployment > ApiKey > the platform's resources > Ready."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Mapping, Sequence
from datetime import date
from typing import Any

import pulumi

from infra.common import answered, api_key, planned, ready
from infra.plan import Plan, make_plan
from infra.register import Turns, refs_in, register, resolve
from providers.base import KEY, Ref, load_rented
from providers.replicas import Replica, created, hardware, resources, turns
from serving import NAMESPACE, REPORT
from serving.cost import BASED_ON_USE
from serving.offers import Offer
from serving.quote import Running, Unread, running
from serving.rented import from_output
from serving.report import PlanView, cost_output, plan_facts, plan_report, rented_text
from serving.spec import DeploymentSpec

_READ_OUTPUTS = "pulumi:pulumi:readStackOutputs"
_READS, _READ_PAUSE_S = 20, 0.05


def run() -> None:
    """The program.

    Raises:
        pulumi.RunError: when the stack config can't be deployed; its text names every key that is wrong.
    """
    Deployment(planned(lambda config: make_plan(config, _rented), "the stack config can't be deployed"))


class Deployment(pulumi.ComponentResource):
    """vLLM servers and everything that belongs to them, on one platform."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(f"{NAMESPACE}:index:Deployment", "deployment")
        servers = plan.servers
        gates = [
            ready(plan.declared, one, plan.spec.ready, plan.spec.provider, may_sleep=_may_sleep(plan))
            for one in servers
        ]
        declarations = [api_key(plan.spec.api_key), *resources(plan.declared, servers), *gates]
        answers = [answered(one) for one in servers]
        rented = [Ref(one.name, plan.declared.rented) for one in servers if plan.declared.rented]
        endpoints = [one.endpoint for one in servers]
        wanted = [KEY, *refs_in(endpoints), *refs_in(plan.declared.ca), *refs_in(answers), *rented]
        now = asyncio.ensure_future(_running())
        in_turn = asyncio.ensure_future(_turns(plan, now)) if len(servers) > 1 else None
        registered = register(declarations, wanted, parent=self, platform=plan.spec.provider, turns=in_turn)
        # It is long work, which whatever is quoted in the end shares.
        ahead = pulumi.Output.from_input(asyncio.to_thread(cost_output, plan.quote))
        actual = ahead.apply(lambda _: plan)
        if rented:
            told = pulumi.Output.all(ahead, resolve(rented, registered))
            actual = told.apply(lambda known: plan.as_rented(known[1]), run_with_unknowns=True)
        cost = actual.apply(lambda known: cost_output(known.quote))
        self._tell(plan, actual, registered[KEY.resource].urn, ahead, pulumi.Output.from_input(now))
        outputs = {
            "endpoint": resolve(plan.declared.endpoint, registered),
            "api_key": pulumi.Output.secret(resolve(KEY, registered)),
            "model": plan.declared.model,
            "provider": plan.spec.provider,
            "hardware": actual.apply(lambda known: hardware(known.declared, servers)),
            "cost": cost,
            "ready": resolve(answers[0], registered),
            **({"endpoints": resolve(_endpoints(servers, answers), registered)} if len(servers) > 1 else {}),
            **({"ca_pem": resolve(plan.declared.ca, registered)} if plan.declared.ca else {}),
        }
        self.register_outputs(outputs)
        for name, value in outputs.items():
            pulumi.export(name, value)

    def _tell(
        self,
        plan: Plan,
        actual: pulumi.Output[Plan],
        child: pulumi.Output[str],
        ahead: pulumi.Output[Any],
        now: pulumi.Output[Running | Unread | None],
    ) -> None:
        """Shows the report: on what is rented where something runs, else on what is about to be."""

        def tell(known: list[Any]) -> None:
            running: Running | Unread | None = known[2]
            here = isinstance(running, Running) and running.platform == plan.spec.provider
            if here or pulumi.runtime.is_dry_run():
                actual.apply(lambda found: pulumi.info(_report(found, running), resource=self))
                return
            pulumi.info(_report(plan, running), resource=self)
            actual.apply(lambda found: _tell_rented(found, self))

        # Before its first child is known, the engine has no row for the component and shows the text elsewhere.
        pulumi.Output.all(child, ahead, now).apply(tell)


def _tell_rented(plan: Plan, deployment: pulumi.Resource) -> None:
    if plan.quote.planned:
        pulumi.info(rented_text(plan.quote), resource=deployment)


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
    for _ in range(_READS):
        try:
            answer = await pulumi.runtime.invoke_async(_READ_OUTPUTS, _this_stack())
            return running(answer["outputs"])
        except Exception:
            # The file backend writes the state in place, so a read during `up` may find half of it.
            await asyncio.sleep(_READ_PAUSE_S)
    return Unread()


def _rented(platform: str) -> Offer | None:
    """What this stack rents there: by its last outputs, or by its label where no `up` has come to its end."""
    try:
        # Nothing is registered, so nothing writes yet.
        now = running(pulumi.runtime.invoke(_READ_OUTPUTS, _this_stack()).value["outputs"])
    except Exception:
        now = None
    known = from_output(now.rented) if now and now.platform == platform else None
    return known or load_rented(platform)(f"{pulumi.get_project()}/{pulumi.get_stack()}/")


def _this_stack() -> dict[str, Any]:
    return {"name": f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"}


def _report(plan: Plan, now: Running | Unread | None) -> str:
    engine = plan.spec.engine
    view = PlanView(
        hardware=hardware(plan.declared, plan.servers),
        model=plan.declared.model,
        engine=f"vLLM {engine.version}" if plan.offer.gpu else plan.offer.sku,
        creates=created(plan.declared, plan.servers),
        notes=[*plan.declared.notes, *_gpu_notes(plan.spec), *_age_notes(plan)],
    )
    if os.environ.get(REPORT) == "json":
        return json.dumps(plan_facts(view, plan.quote, now))
    return plan_report(view, plan.quote, now)


def _gpu_notes(spec: DeploymentSpec) -> list[str]:
    if not spec.hardware.gpus:
        return []
    from providers.fitting import passed_over

    return passed_over(spec, spec.provider)


def _age_notes(plan: Plan) -> list[str]:
    from providers.market import age_notes, offline

    return [] if offline() else age_notes(plan.spec.provider, [plan.offer], date.today())


def _may_sleep(plan: Plan) -> bool:
    return plan.offer.kind in BASED_ON_USE and plan.spec.scaling.min == 0
