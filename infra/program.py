"""One deployment as Pulumi resources: Deployment > ApiKey > the platform's resources > Ready."""

from __future__ import annotations

from dataclasses import replace

import pulumi
from pulumi.runtime import config as stack_config

from infra.plan import Plan, make_plan
from infra.register import refs_in, register, resolve
from providers.base import KEY, Declaration, PlatformError, Ref, Text
from serving import NAMESPACE
from serving.report import PlanView, plan_report
from serving.spec import Problem, SpecError


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
        resources = register(declarations, [KEY, *refs_in(endpoint), *results.values()], parent=self)
        report = _report(plan)
        # Before its first child is known, the engine has no row for the component and shows the text elsewhere.
        resources[KEY.resource].urn.apply(lambda _: pulumi.info(report, resource=self))
        outputs = {
            "endpoint": resolve(endpoint, resources),
            "api_key": pulumi.Output.secret(resolve(KEY, resources)),
            "model": plan.declared.model,
            "provider": plan.spec.provider,
            "hardware": plan.declared.hardware,
            "cost": plan.estimate.as_output(),
            "ready": resolve(results, resources),
        }
        self.register_outputs(outputs)
        for name, value in outputs.items():
            pulumi.export(name, value)


def _report(plan: Plan) -> str:
    engine = plan.spec.engine
    view = PlanView(
        platform=plan.spec.provider,
        offer=f"{plan.offer.sku}, {plan.offer.region}",
        hardware=plan.declared.hardware,
        model=plan.declared.model,
        engine=f"vLLM {engine.version}" if plan.offer.gpu else plan.offer.sku,
        creates=[(d.name, d.type) for d in plan.declared.resources],
        notes=plan.declared.notes,
    )
    return plan_report(view, plan.estimate)


def _api_key(plan: Plan) -> Declaration:
    own = pulumi.Config(NAMESPACE).get_secret("own_api_key")
    inputs = {"rotation": plan.spec.api_key.rotation, **({"own": own} if own else {})}
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
            "run": Text("{}", (plan.declared.run,)),
            "timeoutS": plan.spec.ready.timeout_s,
        },
    )
