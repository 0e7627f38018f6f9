"""One look at a stack: its outputs and config, one request, the providers' read of every resource, and the market."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ops.client import ChatClient, Usage
from ops.comment import Message
from ops.compare import market_offers
from ops.servers import of_each, probe_of
from ops.stack import OpsError, Run, Stack, read_stack
from ops.url import served_model
from providers.base import PlatformError, load_resource, platform_names
from providers.model_shape import model_shape
from serving import NAMESPACE
from serving.config import parse_spec
from serving.cost import BASED_ON_USE
from serving.money import Money
from serving.offers import Offer
from serving.rank import shortlist
from serving.report import offer_name
from serving.spec import DeploymentSpec, SpecError
from serving.tls import expiry
from serving.watching import TELLING, Cheapest, Drift, Probe, Seen, serves

DEPLOYMENT = f"{NAMESPACE}:index:Deployment"
_CERTIFICATE = f"{NAMESPACE}:index:Certificate"
_GOOGLES_STATUS, _RUNNING = "currentStatus", "RUNNING"
"""Where Google's package says whether an instance runs: among its outputs."""

Ask = Callable[[Stack], Probe]
Market = Callable[[DeploymentSpec], Sequence[Offer]]
Model = Callable[[str, str, str], str]


class State(BaseModel):
    """A resource in a step of the engine. Secrets are masked by the engine itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    inputs: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    created: datetime | None = None


class Shown(BaseModel):
    """One step of `pulumi refresh --preview-only --json` or `pulumi preview --json`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    op: str
    urn: str
    old: State | None = Field(default=None, alias="oldState")
    new: State | None = Field(default=None, alias="newState")
    diff: dict[str, dict[str, Any]] | None = Field(default=None, alias="detailedDiff")

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def type(self) -> str:
        return self.urn.split("::")[2].rpartition("$")[2]


class Told(BaseModel):
    """What the engine says of a plan."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    steps: tuple[Shown, ...] = ()
    diagnostics: tuple[Message, ...] = ()

    @property
    def errors(self) -> str:
        return "; ".join(" ".join(one.message.split()) for one in self.diagnostics if one.severity == "error")


@dataclass(frozen=True)
class Known:
    """What holds between two looks. `stack` is None when an `up` that didn't finish left no outputs."""

    stack: Stack | None
    spec: DeploymentSpec | None
    seen: Seen


def told(run: Run, args: Sequence[str]) -> Told:
    """What the engine answers in JSON.

    Raises:
        OpsError: it failed; with what it said.
    """
    done = run([*args, "--json"])
    try:
        answer = Told.model_validate_json(done.stdout)
    except ValidationError:
        answer = None
    if done.returncode or answer is None or answer.errors:
        said = " ".join(done.stderr.split()).removeprefix("error: ")
        raise OpsError(f"`pulumi {' '.join(args)}` failed: {(answer and answer.errors) or said or 'it said nothing'}")
    return answer


def request(stack: Stack, client: ChatClient | None = None, clock: Callable[[], float] = time.perf_counter) -> Probe:
    """One answer of one token of each server, which is what one that lists its models and hangs doesn't give."""
    return probe_of(of_each(stack, lambda one: _answer(one, client or ChatClient.of(one), clock)))


def _answer(stack: Stack, client: ChatClient, clock: Callable[[], float]) -> Probe:
    begun = clock()
    try:
        answer = client.stream(stack.model, [{"role": "user", "content": "ping"}], Usage(), max_tokens=1)
        next(answer, None)
        first = clock()
        for _ in answer:
            pass
    except OpsError as error:
        said = str(error).removeprefix(f"{stack.endpoint} ")
        return Probe(False, 0.0, said.removeprefix("does not answer: ").partition(";")[0][:200])
    return Probe(True, (first - begun) * 1000)


def may_sleep(stack: Stack, spec: DeploymentSpec | None) -> bool:
    """Whether a request could wake workers, and be paid for."""
    return stack.cost.get("kind") in BASED_ON_USE and (spec is None or spec.scaling.min == 0)


def read_config(stack: str, run: Run) -> DeploymentSpec | None:
    """The spec of a stack by its config, wherever its file is; None of a gateway, which has no model of its own.

    Raises:
        OpsError: it can't be read, or is wrong.
    """
    done = run(["config", "--json", "--stack", stack])
    if done.returncode:
        raise OpsError(f"the config can't be read: {done.stderr.strip().removeprefix('error: ')}")
    try:
        config = {key: one["value"] for key, one in json.loads(done.stdout).items() if not one.get("secret")}
        return None if f"{NAMESPACE}:gateway" in config else parse_spec(config, platform_names())[0]
    except SpecError as error:
        raise OpsError(f"the config is wrong: {'; '.join(map(str, error.problems))}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OpsError("the config has a form that isn't known; is `pulumi` newer than this?") from None


def look(name: str, run: Run, probe: Ask, market: Market, now: Callable[[], datetime], *, wake: bool) -> Known | None:
    """Everything about one stack; None when it isn't one of ours, or nothing is deployed in it."""
    refresh = ["refresh", "--preview-only", "--stack", name]
    unknown: list[str] = []
    steps: tuple[Shown, ...] | None = None
    try:
        # The engine takes no lock for this, so nobody's `up` is kept from running.
        steps = told(run, refresh).steps
    except OpsError as error:
        unknown.append(f"what is there isn't known: {error}")
    if steps is not None and all(step.type != DEPLOYMENT for step in steps):
        return None
    stack = _outputs(name, run)
    spec: DeploymentSpec | None = None
    try:
        spec = read_config(name, run)
    except OpsError as error:
        unknown.append(str(error))
    seen = Seen(
        stack=name,
        at=now(),
        probe=_probe(stack, spec, probe, wake=wake),
        drift=None if steps is None else tuple(drifts(steps, stack.servers() if stack else ("server",))),
        spot=bool(spec and spec.hardware.spot),
        created_at=began(steps or ()),
        ttl_hours=spec.budget.ttl_hours if spec else None,
        shown=Money.of(stack.cost) if stack else Money(),
        billed=billed(steps or ()),
        certificates=dict(certificates(steps or ())),
    )
    if spec is not None:
        try:
            seen = replace(seen, cheapest=cheapest(spec, market(spec)))
        except (SpecError, PlatformError) as error:
            unknown.append(f"other offers aren't known: {error}")
    return Known(stack, spec, replace(seen, unknown=tuple(unknown)))


def look_at(endpoint: Stack, probe: Ask, now: Callable[[], datetime], model: Model = served_model) -> Known:
    """What can be known of an endpoint that is no stack's: whether it answers, and how soon."""
    try:
        found = endpoint.model or model(endpoint.endpoint, endpoint.api_key.get_secret_value(), endpoint.ca_pem)
        asked = endpoint.model_copy(update={"model": found})
        said = probe(asked)
    except OpsError as error:
        asked, said = None, Probe(False, 0.0, str(error))
    return Known(asked, None, Seen(endpoint.name, now(), said))


def _outputs(name: str, run: Run) -> Stack | None:
    try:
        return read_stack(name, run)
    except OpsError:
        return None


def _probe(stack: Stack | None, spec: DeploymentSpec | None, probe: Ask, *, wake: bool) -> Probe | None:
    if stack is None:
        return Probe(False, 0.0, "there is no endpoint among its outputs: the last `up` did not finish")
    return None if may_sleep(stack, spec) and not wake else probe(stack)


def drifts(steps: Sequence[Shown], told: Iterable[str] = ("server",)) -> Iterator[Drift]:
    """What the providers' read found to be otherwise than state has it, or than it is meant to be.

    What a resource puts out follows from what it is; of that, only whether it runs counts. A refresh that somebody ran
    before has put what it found into state: a status that isn't the one that `up` makes, or no such server at all.
    `told` are the servers that the stack's outputs tell of.
    """
    for step in steps:
        if step.op == "delete":
            yield Drift(step.name, step.type, gone=True)
        elif changed := _changed(step):
            yield Drift(step.name, step.type, changes=changed)
    if any(step.type == DEPLOYMENT for step in steps):
        there = {step.name for step in steps if serves(step.name)}
        yield from (Drift(name, "", gone=True) for name in told if name not in there)


def _changed(step: Shown) -> dict[str, tuple[Any, Any]]:
    if step.old is None or step.new is None:
        return {}
    inputs = {key.split(".")[0].split("[")[0] for key, one in (step.diff or {}).items() if one.get("inputDiff")}
    pairs = {key: (step.old.inputs.get(key), step.new.inputs.get(key)) for key in sorted(inputs)}
    if step.new.outputs.get(_GOOGLES_STATUS, _RUNNING) != _RUNNING:
        pairs[_GOOGLES_STATUS] = (_RUNNING, step.new.outputs[_GOOGLES_STATUS])
    for key, meant in _meant(step.type).items():
        if step.new.inputs.get(key, meant) != meant:
            pairs[key] = (meant, step.new.inputs[key])
    return {key: (was, now) for key, (was, now) in pairs.items() if was != now}


def _meant(token: str) -> dict[str, Any]:
    """The inputs by which a resource of ours tells drift, as they are when nothing is wrong."""
    try:
        fields = load_resource(token).inputs.model_fields
    except (KeyError, ValueError):
        return {}
    return {name: fields[name].default for name in TELLING & set(fields)}


def began(steps: Iterable[Shown]) -> datetime | None:
    """When the deployment was first made, however often it was changed since."""
    return next((step.old.created for step in steps if step.type == DEPLOYMENT and step.old), None)


def billed(steps: Iterable[Shown]) -> Decimal | None:
    """US dollars an hour that the platform bills for what serves, by its own word; None where it doesn't say."""
    amounts = [_usd(step.new.outputs["hourlyUsd"]) for step in steps if step.new and step.new.outputs.get("hourlyUsd")]
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def certificates(steps: Iterable[Shown]) -> Iterator[tuple[str, datetime]]:
    """When each certificate, and the authority that clients were given, ends."""
    for step in steps:
        outputs = step.new.outputs if step.new and step.type == _CERTIFICATE else {}
        if outputs.get("expiresAt"):
            yield step.name, datetime.fromisoformat(outputs["expiresAt"])
        if outputs.get("caPem"):
            yield f"the authority of {step.name}", expiry(outputs["caPem"])


def cheapest(spec: DeploymentSpec, offers: Sequence[Offer]) -> Cheapest | None:
    """The cheapest offer that fits, of those whose price is known."""
    for candidate in shortlist(spec, model_shape(spec.model), offers):
        if candidate.priced:
            offer = candidate.offer
            return Cheapest(f"{offer_name(offer)} on {offer.platform}", candidate.cost)
    return None


def market_of(spec: DeploymentSpec) -> list[Offer]:
    """What every platform offers: live where it answers in time, else by the dated prices."""
    return market_offers(spec, without_asking=False)[0]


def _usd(text: Any) -> Decimal | None:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return None
