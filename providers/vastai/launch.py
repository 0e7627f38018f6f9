"""What is sent to rent an offer: pure.

`runtype: args` keeps a container without SSH; `onstart` is then its entry point, which the image's own (`vllm serve`)
gives way to, and `args` are its arguments. The server's secrets go by environment and never by argument, which the API
shows as `image_args`. The host can read both, as it can read its guests' memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from providers.base import PlatformError
from providers.vastai.instances import VastInstance
from providers.vastai.offers import Traffic, VastOffer
from providers.vastai.search import Wanted, bid_on
from serving.start import TLS_CERT, TLS_KEY, one_line
from serving.tls import Certified, issue

ENTRY = "/bin/sh"
COMMAND_LIMIT = 4096
"""Characters that entry point and arguments may have together."""
VALUE_LIMIT = 256
"""Characters that one variable of the environment may have."""


@dataclass(frozen=True)
class Tls:
    """The deployment's authority, which signs a certificate for each offer's own address, and the server's name."""

    authority: Certified
    name: str


@dataclass(frozen=True)
class Order:
    """Everything that a rental needs.

    Attributes:
        env: the container's environment; secret.
        script: what `sh -c` runs.
        bid_usd: US dollars an hour for the whole machine slice; None bids `OVERBID` times the lowest that wins.
        fallback: rent on demand when no bid wins.
        attempts: machines that are tried before it gives up.
        waste_usd: US dollars that machines which fail may have cost before it gives up.
        serve_s: seconds that a machine has to pull the image, load the model and answer.
    """

    label: str
    wanted: Wanted
    traffic: Traffic
    image: str
    script: str
    port: int
    env: Mapping[str, str] = field(repr=False)
    tls: Tls | None = None
    bid_usd: Decimal | None = None
    fallback: bool = False
    attempts: int = 5
    waste_usd: Decimal = Decimal(2)
    serve_s: float = 1800.0

    @property
    def args(self) -> list[str]:
        """The arguments of `sh`. The last is `$0`: it tells what was left by an interrupted create from another."""
        known = {**self.env, "ca": self.tls.authority.cert_pem if self.tls else ""}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]
        return ["-c", self.script, f"vllm-anywhere-{digest}"]

    def made(self, one: VastInstance) -> bool:
        """Whether an instance is what this order would rent, and not on its way out."""
        given = one.image_args or []
        return (
            one.image_uuid == self.image
            and len(given) == len(self.args)
            and given[1].endswith(self.script)
            and given[-1] == self.args[-1]
            and one.num_gpus == self.wanted.gpu_count
            and not one.stopped
            and one.actual_status not in ("exited", "offline", "frozen", "stopped")
        )


def body(order: Order, offer: VastOffer, now: datetime, *, interruptible: bool) -> dict[str, Any]:
    """The rent call's body.

    Raises:
        PlatformError: the start command is too long for the platform.
    """
    secrets = dict(order.env)
    if order.tls is not None:
        address = (offer.public_ipaddr or "").strip()
        server = issue(order.tls.authority, order.tls.name, [address] if address else [], now=now)
        secrets |= {TLS_KEY: one_line(server.key_pem), TLS_CERT: one_line(server.cert_pem)}
    env, joining = in_pieces(secrets)
    args = [order.args[0], joining + order.args[1], *order.args[2:]]
    if (size := len(ENTRY) + sum(len(arg) + 1 for arg in args)) > COMMAND_LIMIT:
        raise PlatformError(
            f"the start command has {size} characters and Vast.ai takes {COMMAND_LIMIT}: "
            "shorten vllm-anywhere:engine.extra_args. Nothing is rented"
        )
    # JSON has one kind of number; a bid of at most six decimals survives the float unchanged.
    bid = {"price": float(bid_for(order, offer))} if interruptible else {}
    return {
        "image": order.image,
        "label": order.label,
        "disk": order.wanted.disk_gb,
        "runtype": "args",
        "onstart": ENTRY,
        "args": args,
        "env": {**env, f"-p {order.port}:{order.port}": "1"},
        "cancel_unavail": True,
        "target_state": "running",
        **bid,
    }


def bid_for(order: Order, priced: VastOffer | VastInstance) -> Decimal:
    """US dollars an hour to bid for an offer, or for an instance that was outbid; with disk never above the ceiling."""
    return bid_on(order.wanted, order.bid_usd, priced.min_bid, priced.storage_cost)


def in_pieces(env: Mapping[str, str], limit: int = VALUE_LIMIT) -> tuple[dict[str, str], str]:
    """Variables of at most `limit` characters, and the shell line that puts the longer ones together again.

    A certificate is longer than the platform's limit for one variable.
    """
    short: dict[str, str] = {}
    lines: list[str] = []
    for name, value in env.items():
        if len(value) <= limit:
            short[name] = value
            continue
        pieces = {f"{name}_{n}": value[at : at + limit] for n, at in enumerate(range(0, len(value), limit))}
        short |= pieces
        whole = "".join(f"${{{piece}}}" for piece in pieces)
        lines.append(f'export {name}="{whole}";unset {" ".join(pieces)}\n')
    return short, "".join(lines)
