"""What a load test is aimed at: a stack, by its outputs, or any OpenAI base URL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from pydantic import SecretStr

from ops.stack import Stack, read_stack
from ops.url import Ask, ask_health, served_model
from serving.money import Money


@dataclass(frozen=True)
class Target:
    """One endpoint.

    Attributes:
        hourly: US dollars an hour; None when it isn't known.
        price_note: why it isn't known, or what it leaves out.
        ca_pem: the endpoint's own certificate authority, where it has one.
    """

    url: str
    key: SecretStr
    model: str
    name: str
    hourly: Decimal | None
    price_note: str = ""
    stack: str = ""
    hardware: str = ""
    ca_pem: str = ""


def target(
    stack: str,
    url: str,
    key: str,
    model: str,
    hourly: Decimal | None,
    read: Callable[[str], Stack] = read_stack,
    ask: Ask = ask_health,
    ca_pem: str = "",
) -> Target:
    """From the command line. Without `url` it is a stack.

    Raises:
        OpsError: no such stack, or the endpoint doesn't tell its model and none was given.
    """
    if not url:
        return _of_stack(read(stack), model, hourly)
    model = model or served_model(url, key, ca_pem, ask)
    note = "" if hourly is not None else "No price is known for a URL: --hourly USD gives one."
    return Target(url, SecretStr(key), model, f"{url}, {model}", hourly, note, ca_pem=ca_pem)


def _of_stack(found: Stack, model: str, hourly: Decimal | None) -> Target:
    note = ""
    if hourly is None:
        hourly, note = stack_price(found)
        if hourly is not None and found.endpoints:
            # They cost the same on average, and one of them is driven.
            hourly = (hourly / len(found.endpoints)).quantize(Decimal("0.0001"))
            note = f"{note} The price is that of one of {len(found.endpoints)} servers.".lstrip()
    served = model or found.model
    name = f"{found.name}: {served} on {found.provider}, {found.hardware}, at {found.endpoint}"
    return Target(
        found.endpoint.rstrip("/"), found.api_key, served, name, hourly, note, found.name, found.hardware, found.ca_pem
    )


def stack_price(stack: Stack) -> tuple[Decimal | None, str]:
    """US dollars an hour by the stack's outputs, and what to know about them."""
    hourly = Money.of(stack.cost).hourly
    if hourly is None:
        return None, "The stack's price isn't fully known, so nothing is said about money: --hourly USD gives one."
    if not hourly:
        return None, "The stack costs nothing an hour, so nothing is said about money: --hourly USD gives a price."
    if stack.cost.get("depends_on_usage"):
        return hourly, "Part of the stack's price depends on use that isn't declared; it isn't in the hourly figure."
    return hourly, ""
