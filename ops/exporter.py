"""Price, spend and budget pace of stacks, for Prometheus to scrape."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ops.monitor_spend import Spend, platform_bills, read_spend
from ops.stack import OpsError

REFRESH_S = 300.0
"""How old figures may get. A read starts the Pulumi CLI twice for each stack."""
_AT_A_TIME = 4


class Book(Collector):
    """The last figures of each stack, as Prometheus collects them.

    `read` asks for those of one stack; `tell` gets a sentence when one can't be read any more.
    """

    def __init__(self, stacks: Sequence[str], read: Callable[[str], Spend], tell: Callable[[str], None]) -> None:
        self._stacks = stacks
        self._read = read
        self._tell = tell
        self._spends: tuple[Spend, ...] = ()

    def refresh(self) -> None:
        """Read every stack anew, and tell what can't be read."""
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            spends = tuple(pool.map(self._read, self._stacks))
        known = {(one.stack, one.problem) for one in self._spends}
        for one in spends:
            if one.problem and (one.stack, one.problem) not in known:
                self._tell(f"stack {one.stack} can't be read: {one.problem}")
        self._spends = spends

    def collect(self) -> Iterator[Metric]:
        """The figures; what isn't known has no sample."""
        deployed = GaugeMetricFamily("vllm_anywhere_stack_info", "A deployed stack.", labels=_INFO)
        for one in self._spends:
            if one.provider:
                deployed.add_metric([one.stack, one.provider, one.hardware], 1)
        yield deployed
        for name, text, of in _GAUGES:
            gauge = GaugeMetricFamily(name, text, labels=["stack"])
            for one in self._spends:
                if (value := of(one)) is not None:
                    # Prometheus has nothing but doubles.
                    gauge.add_metric([one.stack], float(value))
            yield gauge


_INFO = ["stack", "provider", "hardware"]
_GAUGES: tuple[tuple[str, str, Callable[[Spend], Decimal | bool | None]], ...] = (
    ("vllm_anywhere_stack_readable", "1 when the stack's outputs could be read.", lambda one: not one.problem),
    (
        "vllm_anywhere_price_complete",
        "0 when a price is missing or depends on a use that isn't declared.",
        lambda one: one.complete if one.provider else None,
    ),
    ("vllm_anywhere_price_usd_per_hour", "Estimated price of what is deployed, USD an hour.", lambda one: one.hourly),
    ("vllm_anywhere_billed_usd_per_hour", "What the platform bills now, USD an hour.", lambda one: one.billed),
    (
        "vllm_anywhere_month_to_date_usd",
        "Hours deployed this calendar month (UTC) at the present price, USD; an estimate, not the bill.",
        lambda one: one.month_to_date,
    ),
    ("vllm_anywhere_budget_usd", "budget.monthly_usd, for a month of 730 hours.", lambda one: one.budget),
    (
        "vllm_anywhere_budget_pace_ratio",
        "What a month of 730 hours at the present cost comes to, over the budget; 1 is exactly on it.",
        lambda one: one.pace,
    ),
)


def export(
    stacks: Sequence[str],
    address: str,
    port: int,
    *,
    ask_platforms: bool,
    stop: threading.Event,
    started: Callable[[str], None],
) -> None:
    """Serve the figures until `stop`; what can't be read is told on stderr. `started` gets a sentence once it serves.

    `ask_platforms` asks each platform what it bills; their keys are read where its commands read them.

    Raises:
        OpsError: the port is taken.
    """
    tell = partial(print, file=sys.stderr)
    billed = partial(platform_bills, tell=tell) if ask_platforms else None
    book = Book(stacks, lambda stack: read_spend(stack, datetime.now(UTC), billed=billed), tell)
    book.refresh()
    registry = CollectorRegistry()
    registry.register(book)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise OpsError(f"{address}:{port} can't be listened on: {error}; --port takes another") from None
    try:
        started(f"http://{address}:{server.server_port}/metrics has price and spend of {', '.join(stacks)}")
        while not stop.wait(REFRESH_S):
            book.refresh()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
