"""What people see of a gateway before it is made: what is asked first, at which price, and what goes to the API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from serving.cost import estimate
from serving.gateway import GatewaySpec, Upstream, api_price
from serving.gateway_vm import DISK_GB, vm_offer
from serving.money import Money
from serving.offers import Offer, no_charge
from serving.prices import Price
from serving.report import WIDTH, line_texts, render
from serving.spec import DeploymentSpec


def api_text(spec: GatewaySpec) -> str:
    """The closed API, its model, its price and its budget; "" without one."""
    if not spec.api:
        return ""
    price = api_price(spec)
    tariff = (
        f"${price.input_per_m.normalize():f} and ${price.output_per_m.normalize():f} for a million tokens in and out "
        f"({price.source})"
        if price
        else "price not found"
    )
    limit = (
        f", at most ${spec.api_budget_usd:f} in {spec.api_budget_days} days" if spec.api_budget_usd is not None else ""
    )
    return f"{spec.api} {spec.model_of_api}, {tariff}{limit}"


def gateway_report(
    spec: GatewaySpec, model: str, upstreams: Sequence[Upstream], cost: Mapping[str, Any], width: int = WIDTH
) -> str:
    """The plan of a gateway, at most `width` columns wide, without colours. `cost` is its output of that name."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("asked", "stack", "platform", "serves", "price"):
        table.add_column(heading, overflow="fold")
    for place, one in enumerate(upstreams, 1):
        servers = f"{len(one.endpoints)} servers of " if len(one.endpoints) > 1 else ""
        table.add_row(str(place), one.stack, one.provider, f"{servers}{one.model}", one.price)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, text in _facts(spec, model, _where(spec, cost)):
        facts.add_row(name, text)
    return render([table, facts], width)


def _facts(spec: GatewaySpec, model: str, where: str) -> Iterator[tuple[str, str]]:
    yield "model", model
    yield (
        "order",
        "as listed in gateway.stacks"
        if spec.order == "listed"
        else "what is paid for anyway by its hour, then what bills by use by its month",
    )
    yield (
        "failures",
        f"a server that failed more than {spec.allowed_fails} times within {spec.cooldown_s} s is left out as long; "
        f"{spec.attempt_s} s a try, {spec.deadline_s} s in all",
    )
    if spec.api:
        yield "API", api_text(spec)
        yield "goes there", "; ".join(_rule(spec))
    yield "gateway", f"{where}; the stacks bill as they say themselves"


def _rule(spec: GatewaySpec) -> Iterator[str]:
    yield f"{spec.route.long_tokens} tokens and more"
    if spec.route.tools:
        yield "tools"
    if spec.route.images:
        yield "images and other than text"
    yield "whatever has the header `x-route: api` (`self` keeps it here)"
    if spec.api_fallback:
        yield "everything while no server answers"


def _where(spec: GatewaySpec, cost: Mapping[str, Any]) -> str:
    if spec.on == "local":
        return "this machine, no charge"
    monthly = Money.of(cost).monthly
    price = "price not found" if monthly is None else f"${monthly} a month"
    return f"{spec.gcp.machine_type} in {spec.gcp.zone} with {DISK_GB} GB of disk and a static address, {price}"


def gateway_cost(spec: GatewaySpec, prices: Iterable[Price]) -> dict[str, Any]:
    """The stack output `cost` of a gateway."""
    offer = vm_offer(spec.gcp, prices) if spec.on == "gcp" else _OWN
    bill = estimate(DeploymentSpec(), offer, None)
    return {**bill.as_output(), "lines": line_texts(bill), "budget": None, "alternatives": []}


_OWN = Offer(
    platform="local",
    kind="process",
    sku="LiteLLM",
    gpu="",
    gpu_count=0,
    region="this machine",
    country="",
    tier="own",
    spot=False,
    rates=(no_charge("your own machine; its electricity is not counted"),),
)
