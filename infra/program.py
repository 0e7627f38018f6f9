"""One deployment as Pulumi resources: Deployment > ApiKey > the platform's resources > Ready."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from datetime import date

import pulumi
from pulumi.runtime import config as stack_config

from infra.plan import Plan, make_plan
from infra.register import refs_in, register, resolve
from providers.base import KEY, Declaration, PlatformError, Ref, Text
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
    """A vLLM server and everything that belongs to it, on one platform."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(f"{NAMESPACE}:index:Deployment", "deployment")
        declarations = [_api_key(plan), *plan.declared.resources, _ready(plan)]
        results = {
            name: Ref("ready", output)
            for name, output in {
                "time_to_ready_s": "timeToReadyS",
                "first_token_s": "firstTokenS",
                "answered_at": "answeredAt",
            }.items()
        }
        endpoint = plan.declared.endpoint
        wanted = [KEY, *refs_in(endpoint), *refs_in(plan.declared.ca), *results.values()]
        resources = register(declarations, wanted, parent=self, platform=plan.spec.provider)
        # Before its first child is known, the engine has no row for the component and shows the text elsewhere.
        cost = pulumi.Output.from_input(asyncio.to_thread(plan.quote.as_output))
        told = pulumi.Output.all(resources[KEY.resource].urn, cost, pulumi.Output.from_input(_running()))
        told.apply(lambda known: pulumi.info(_report(plan, known[2]), resource=self))
        outputs = {
            "endpoint": resolve(endpoint, resources),
            "api_key": pulumi.Output.secret(resolve(KEY, resources)),
            "model": plan.declared.model,
            "provider": plan.spec.provider,
            "hardware": plan.declared.hardware,
            "cost": cost,
            "ready": resolve(results, resources),
            **({"ca_pem": resolve(plan.declared.ca, resources)} if plan.declared.ca else {}),
        }
        self.register_outputs(outputs)
        for name, value in outputs.items():
            pulumi.export(name, value)


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
        hardware=plan.declared.hardware,
        model=plan.declared.model,
        engine=f"vLLM {engine.version}" if plan.offer.gpu else plan.offer.sku,
        creates=[(d.name, d.type) for d in plan.declared.resources],
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


def _ready(plan: Plan) -> Declaration:
    return Declaration(
        "ready",
        f"{NAMESPACE}:index:Ready",
        {
            "endpoint": plan.declared.endpoint,
            "apiKey": KEY,
            "model": plan.declared.model,
            "platform": plan.spec.provider,
            "serverId": Ref(plan.declared.server, "id"),
            "run": plan.declared.run if isinstance(plan.declared.run, Text) else Text("{}", (plan.declared.run,)),
            "timeoutS": plan.spec.ready.timeout_s,
            **({"caPem": plan.declared.ca} if plan.declared.ca else {}),
            **({} if plan.spec.ready.wake or not _may_sleep(plan) else {"wake": False}),
        },
    )
