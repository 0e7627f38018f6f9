"""One URL in front of several stacks: which server is asked first, and which request goes to the closed API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from serving import NAMESPACE
from serving.apis import api_models
from serving.config import SECRET_KEYS, parse_part
from serving.cost import BASED_ON_USE
from serving.gateway_vm import GatewayVm
from serving.money import Money
from serving.spec import (
    ApiKeySpec,
    DeploymentSpec,
    Part,
    Problem,
    ReadySpec,
    SpecError,
    Usd,
)

SECTION = "gateway"
API_GROUP = "api"
"""LiteLLM's model group for the closed API, which clients may ask for too."""
API_KEY = "gateway_api_key"
"""The stack-config secret that holds the closed API's key."""
API_MODELS: Mapping[str, str] = {"anthropic": "claude-haiku-5-5"}
"""The model that is asked where the stack names none."""

_STACK = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9._-]{1,100}){0,2}$"


class RouteSpec(Part):
    """Which requests go to the closed API."""

    long_tokens: int = Field(
        default=4000,
        ge=1,
        le=10_000_000,
        description="Prompt and answer together, in tokens (four characters count as one), from which a request is "
        "long and goes to the API.",
    )
    tools: bool = Field(default=True, description="Requests with tools or functions go to the API.")
    images: bool = Field(default=True, description="Requests with anything but text in them go to the API.")


class GatewaySpec(Part):
    """One OpenAI URL with one key in front of several stacks and, if wanted, a closed API."""

    stacks: tuple[Annotated[str, Field(pattern=_STACK)], ...] = Field(
        min_length=1,
        max_length=32,
        description="The stacks behind it: names, or `organisation/project/stack` for another project's.",
        examples=[["runpod-serverless", "vastai", "local"]],
    )
    served_name: str = Field(
        default="", description="The model name that clients ask for. Default: the first stack's, up to a blank."
    )
    order: Literal["price", "listed"] = Field(
        default="price",
        description="`price`: servers that are paid for anyway, cheapest hour first, then those that bill by use; "
        "`listed`: as `stacks` has them.",
    )
    api: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_]{1,30}$",
        description=f"A closed API as LiteLLM calls its vendor, such as `anthropic` or `openai`; its key is the secret "
        f"`{API_KEY}`.",
    )
    api_model: str = Field(default="", description="The API's model, such as `claude-haiku-5-5`.")
    api_url: str | None = Field(default=None, pattern=r"^https?://", description="Another base URL of the API.")
    api_input_per_m: Usd | None = Field(
        default=None, description="US dollars for a million prompt tokens, where the table of APIs has no row."
    )
    api_output_per_m: Usd | None = Field(default=None, description="US dollars for a million answer tokens.")
    api_budget_usd: Usd | None = Field(
        default=None, description="Most US dollars that the key may spend at the API; past it, servers answer alone."
    )
    api_budget_days: int = Field(default=30, ge=1, le=366, description="Days after which the budget begins anew.")
    api_fallback: bool = Field(
        default=True, description="The API also answers when no server does. `false`: it gets what the rule says alone."
    )
    route: RouteSpec = Field(default_factory=RouteSpec, description="Which requests go to the API.")
    deadline_s: int = Field(
        default=120, ge=1, le=3600, description="Seconds from a request to its answer's first byte, all tries together."
    )
    attempt_s: int = Field(
        default=60, ge=1, le=3600, description="Seconds that one server may take to begin its answer."
    )
    cooldown_s: int = Field(
        default=15, ge=1, le=3600, description="Seconds for which a server that failed is not asked."
    )
    allowed_fails: int = Field(
        default=1,
        ge=0,
        le=100,
        description="Failures within `cooldown_s` that are let pass before a server cools down.",
    )
    health_s: int = Field(
        default=30,
        ge=0,
        le=3600,
        description="Seconds between two looks at each server that is paid for anyway; 0 for none. One that doesn't "
        "answer is not asked until it does. What bills by use is never woken for this.",
    )
    on: Literal["local", "gcp"] = Field(
        default="local", description="Where it runs: on this machine for this machine, or on a small VM for others."
    )
    gcp: GatewayVm = Field(default_factory=GatewayVm, description="The VM of `on: gcp`.")
    port: int = Field(default=0, ge=0, le=65535, description="Port on 127.0.0.1 of `on: local`; 0 takes any free one.")

    @model_validator(mode="after")
    def _whole(self) -> GatewaySpec:
        if len(set(self.stacks)) < len(self.stacks):
            raise ValueError("each stack once")
        if self.on == "gcp" and self.port:
            raise ValueError("`port` is for `on: local`; the VM of `on: gcp` takes 8000")
        if self.on == "local" and "gcp" in self.model_fields_set:
            raise ValueError("`gcp` needs `on: gcp`")
        if self.attempt_s > self.deadline_s:
            raise ValueError(f"`attempt_s` ({self.attempt_s}) is more than `deadline_s` ({self.deadline_s})")
        if self.api is None:
            given = sorted(name for name in self.model_fields_set if name.startswith("api_"))
            if given:
                raise ValueError(f"`{given[0]}` needs `api`, such as `api: anthropic`")
        elif not self.model_of_api:
            raise ValueError(f"`api: {self.api}` needs `api_model`, the vendor's name of the model to ask")
        elif self.api_budget_usd is not None and api_price(self) is None:
            raise ValueError(
                f"`api_budget_usd` needs a price, and the table has none of {self.model_of_api}; "
                "say `api_input_per_m` and `api_output_per_m`"
            )
        return self

    @property
    def model_of_api(self) -> str:
        """The API's model; "" when none is known."""
        return self.api_model or API_MODELS.get(self.api or "", "")


class GatewayPlan(Part):
    """A gateway's stack config."""

    gateway: GatewaySpec = Field(description="What the gateway is in front of.")
    api_key: ApiKeySpec = Field(default_factory=ApiKeySpec, description="The key that clients send.")
    ready: ReadySpec = Field(default_factory=ReadySpec, description="When it counts as up.")


_NOT_HERE = frozenset(DeploymentSpec.model_fields) - frozenset(GatewayPlan.model_fields)


@dataclass(frozen=True)
class TokenPrice:
    """US dollars for a million tokens of prompt and of answer, and where that is from."""

    input_per_m: Decimal
    output_per_m: Decimal
    source: str


@dataclass(frozen=True)
class Upstream:
    """One stack behind the gateway, as its outputs describe it.

    `by_use`: another request costs more, since it is billed while it works.
    """

    stack: str
    provider: str
    model: str
    endpoints: tuple[str, ...]
    by_use: bool
    cost: Money
    ca_pem: str = ""

    @property
    def price(self) -> str:
        """The price as people read it."""
        hourly, monthly = self.cost.hourly, self.cost.compared
        if hourly is None or monthly is None:
            return "price not found"
        if self.by_use:
            return f"by use, ${monthly:,.2f} a month {'at most' if self.cost.open_use else 'expected'}"
        return f"${hourly.normalize():f} an hour, paid anyway" if hourly else "no charge"


def parse_gateway(config: Mapping[str, str]) -> GatewayPlan:
    """Stack config -> the gateway's plan.

    Raises:
        SpecError: with every problem found.
    """
    fields: dict[str, Any] = {}
    problems: list[Problem] = []
    for full_key, text in config.items():
        namespace, _, key = full_key.partition(":")
        if namespace != NAMESPACE or key in SECRET_KEYS:
            continue
        if key in _NOT_HERE:
            problems.append(
                Problem(full_key, "", "a gateway has no model of its own; set this in the stacks behind it")
            )
            continue
        try:
            fields[key] = json.loads(text)
        except ValueError:
            fields[key] = text
    try:
        plan = parse_part(GatewayPlan, fields, "")
    except SpecError as error:
        raise SpecError([*problems, *error.problems]) from None
    if plan.gateway.api and f"{NAMESPACE}:{API_KEY}" not in config:
        how = f"`pulumi config set --secret {API_KEY}` with the key of {plan.gateway.api}, or remove `gateway.api`"
        problems.append(Problem(f"{NAMESPACE}:{API_KEY}", "", how))
    if problems:
        raise SpecError(problems)
    return plan


def upstream(stack: str, outputs: Mapping[str, Any] | None) -> Upstream | Problem:
    """A stack by its outputs, without their secrets; None when there is no such stack."""
    key = f"{NAMESPACE}:{SECTION}.stacks"
    if outputs is None:
        return Problem(key, stack, f"no such stack; `pulumi stack init {stack}`, then `pulumi up -s {stack}`")
    if not outputs.get("endpoint") or not outputs.get("model"):
        return Problem(key, stack, f"nothing answers in it yet, or no more; `pulumi up -s {stack}` deploys it")
    if outputs.get("provider") == SECTION:
        return Problem(key, stack, "a gateway itself; name the stacks behind it")
    cost = outputs.get("cost") or {}
    several = [one["endpoint"] for one in outputs.get("endpoints") or () if one.get("endpoint")]
    return Upstream(
        stack=stack,
        provider=str(outputs.get("provider", "")),
        model=str(outputs["model"]),
        endpoints=tuple(several or [str(outputs["endpoint"])]),
        by_use=cost.get("kind") in BASED_ON_USE,
        cost=Money.of(cost),
        ca_pem=str(outputs.get("ca_pem") or ""),
    )


def unreachable(spec: GatewaySpec, one: Upstream) -> Problem | None:
    """What is wrong with a stack that answers where the gateway can't ask it; None when it can."""
    if spec.on == "local" or one.provider != "local":
        return None
    why = "answers on this machine alone, where a VM can't reach it; `gateway.on: local` can, or leave the stack out"
    return Problem(f"{NAMESPACE}:{SECTION}.stacks", one.stack, why)


def in_order(spec: GatewaySpec, upstreams: Iterable[Upstream]) -> list[Upstream]:
    """The stacks in the order in which they are asked.

    What is paid for anyway does another request for nothing, so it comes before what bills by use; among those, the
    cheapest hour; among these, the cheapest expected month. A price that isn't known comes last.
    """
    listed = list(upstreams)
    if spec.order == "listed":
        return listed

    def rank(one: Upstream) -> tuple[bool, bool, Decimal]:
        price = one.cost.compared if one.by_use else one.cost.hourly
        return price is None, one.by_use, price or Decimal(0)

    return sorted(listed, key=rank)


def served_name(spec: GatewaySpec, upstreams: Sequence[Upstream]) -> str:
    """The model name that clients ask for. A stand-in's name goes on behind a blank; the gateway's does not.

    Raises:
        SpecError: it is the one by which they ask for the closed API.
    """
    name = spec.served_name or upstreams[0].model.split(" ", 1)[0]
    if spec.api and name == API_GROUP:
        why = f"clients ask for {spec.api} by that name; any other works"
        raise SpecError([Problem(f"{NAMESPACE}:{SECTION}.served_name", name, why)])
    return name


def api_price(spec: GatewaySpec) -> TokenPrice | None:
    """What the API charges: the stack's own figures, else the dearest row of the table; None when there is none."""
    if spec.api_input_per_m is not None and spec.api_output_per_m is not None:
        return TokenPrice(spec.api_input_per_m, spec.api_output_per_m, "stack config")
    rows = [row for row in api_models() if _slug(row.name) == _slug(spec.model_of_api)]
    if not rows:
        return None
    row = max(rows, key=lambda one: (one.input_per_m, one.output_per_m))
    return TokenPrice(row.input_per_m, row.output_per_m, f"{row.url}, {row.as_of}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
