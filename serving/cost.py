"""What an offer costs at a spec's declared use.

One pure function, on Decimal throughout. A price that isn't known makes the total incomplete and is never zero; a use
that isn't known leaves the quantity open ("depends on usage: $X per unit").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property

from serving.lines import ZERO, CostLine, Estimate, Span, exactly, price_span, total
from serving.offers import Kind, Offer, Rate
from serving.scale_to_zero import Awake, Load, awake, cold_share, load_of, worker_seconds
from serving.spec import HOURS_PER_MONTH, DeploymentSpec

__all__ = ["Assumptions", "CostLine", "Estimate", "Estimator", "boot_cost", "estimate", "stopped_cost"]

BASED_ON_USE: frozenset[Kind] = frozenset({"serverless", "app"})
"""Kinds whose workers sleep; every other kind runs until it is destroyed."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What an estimate takes for granted besides the spec. Every field may be replaced by a measurement.

    Attributes:
        tokens_per_s: of one stream while others decode too. 37 is 232 tokens in 6.27 s at 10 streams (Qwen3-4B on
            Modal's A10, 2026-01-16).
        boot_s: billed seconds from a worker's start to its first answer: 8 s of download, 10 s of load and 40 s of
            engine start, as start-up logs of Qwen3-4B and 8B show; the pull of the image is not among them.
        concurrency: requests a worker answers together.
        image_gb, weights_gb: what comes in at each create; the vLLM image is about 10 GB compressed.
        creates: times a server is made in a month.
        bytes_per_input_token, bytes_per_output_token: on the wire; a streamed token is a JSON event of its own.
        hours: hours in the month that a server is kept.
        traffic: low and high traffic, as shares of what is declared.
    """

    tokens_per_s: Decimal = Decimal(37)
    boot_s: Decimal = Decimal(60)
    concurrency: int = 30
    image_gb: Decimal = Decimal(10)
    weights_gb: Decimal = Decimal("8.1")
    creates: Decimal = Decimal(1)
    bytes_per_input_token: Decimal = Decimal(5)
    bytes_per_output_token: Decimal = Decimal(300)
    hours: Decimal = Decimal(HOURS_PER_MONTH)
    traffic: tuple[Decimal, Decimal] = (Decimal("0.5"), Decimal(2))


def estimate(spec: DeploymentSpec, offer: Offer, assumptions: Assumptions | None = None) -> Estimate:
    """The cost of an offer at the spec's declared use."""
    return Estimator(spec, assumptions or Assumptions()).estimate(offer)


class Estimator:
    """Estimates of many offers for one spec: what depends on the spec alone is worked out once."""

    def __init__(self, spec: DeploymentSpec, assumptions: Assumptions) -> None:
        self.spec = spec
        self.assumptions = assumptions
        self._quantities: dict[object, tuple[Span | None, Decimal, Decimal]] = {}

    def estimate(self, offer: Offer) -> Estimate:
        """Every line of one offer. Rates that only count while a server is stopped are left out."""
        lines: list[CostLine] = []
        split = offer.kind in BASED_ON_USE and self._awake is not None and self.spec.scaling.min < self.spec.scaling.max
        for rate in offer.rates:
            if rate.bills == "stopped":
                continue
            if split and rate.bills == "awake" and not any(line.rate.bills == "awake" for line in lines):
                lines.extend(self._phases(offer, rate))
            else:
                lines.append(self._line(offer, rate))
        hours = self.assumptions.hours
        return Estimate(tuple(lines), hours, total(_peak(line) for line in lines) / hours)

    def totals(self, offer: Offer) -> tuple[Span, bool, bool]:
        """`Estimate.span`, `incomplete` and `open_use` of an offer, without making its lines."""
        low = expected = high = ZERO
        incomplete = open_use = False
        for rate in offer.rates:
            if rate.bills == "stopped":
                continue
            price = rate.unit_price
            if price is None:
                incomplete = True
                continue
            quantity, least, most = self._quantity(offer.kind, rate)
            net = self._net(rate)
            if rate.lowest is None and rate.highest is None:
                cheap = dear = price
            else:
                span = price_span(rate)
                cheap, dear = span.low, span.high
            if quantity is None:
                open_use = True
                low += cheap * least * net
                expected += price * least * net
                high += dear * most * net
            else:
                low += cheap * quantity.low * net
                expected += price * quantity.expected * net
                high += dear * quantity.high * net
        return Span(low, expected, high), incomplete, open_use

    @cached_property
    def load(self) -> Load | None:
        """The declared load as workers see it; None when no use is declared."""
        usage, scaling, assumed = self.spec.usage, self.spec.scaling, self.assumptions
        if usage.requests_per_day is None:
            return None
        seconds = usage.output_tokens / assumed.tokens_per_s
        one = load_of(usage.requests_per_day, seconds, scaling.idle_timeout_s, assumed.boot_s, assumed.concurrency)
        return replace(one, max_workers=scaling.max, min_workers=scaling.min)

    @cached_property
    def _awake(self) -> tuple[Awake, Awake, Awake] | None:
        """The workers up at low, declared and high traffic."""
        load = self.load
        if load is None:
            return None
        less, more = self.assumptions.traffic
        return awake(load.scaled(less)), awake(load), awake(load.scaled(more))

    def _line(self, offer: Offer, rate: Rate) -> CostLine:
        quantity, least, most = self._quantity(offer.kind, rate)
        fixed = rate.bills in ("running", "kept") or (quantity is not None and quantity.low == quantity.high)
        return CostLine(offer, rate, quantity, least, most, "baseline" if fixed else "usage", self._net(rate))

    def _phases(self, offer: Offer, rate: Rate) -> Iterator[CostLine]:
        """Answering, idling and starting as lines of their own; they add up to the rate's whole quantity."""
        whole = self._line(offer, rate)
        load = self.load
        assert self._awake and load and whole.quantity
        expected = self._awake[1]
        starts = round(expected.starts * 86_400)
        cold = f"{starts} starts a day, {cold_share(load, expected):.0%} of requests start a worker"
        notes = {
            "answering": "more arrives than the workers can answer" if expected.saturated else "Poisson arrivals",
            "idle": f"idle timeout {self.spec.scaling.idle_timeout_s} s",
            "starting": f"{cold}, {self.assumptions.boot_s} s each",
        }
        unit_hours, up = _per_hour(rate), whole.quantity
        idle = self._worker_hours(expected.idle) * unit_hours
        starting = self._worker_hours(expected.booting) * unit_hours
        quantities = {"answering": up.expected - idle - starting, "idle": idle, "starting": starting}
        for phase, quantity in quantities.items():
            # Starts fall as traffic grows, so low and high are the whole's, split like the declared use.
            share = quantity / up.expected if up.expected else ZERO
            note = "; ".join(text for text in (notes[phase], rate.assumption) if text)
            named = replace(rate, meter=f"{rate.meter}, {phase}", assumption=note)
            span = Span(up.low * share, quantity, up.high * share)
            first = phase == "answering"
            yield replace(whole, rate=named, quantity=span, least=ZERO, most=whole.most if first else ZERO)

    def _quantity(self, kind: Kind, rate: Rate) -> tuple[Span | None, Decimal, Decimal]:
        """How much of a rate a month takes, and the least and the most it could."""
        key = (kind in BASED_ON_USE, rate.bills, rate.unit, rate.quantity, rate.month_hours)
        found = self._quantities.get(key)
        if found is None:
            found = self._quantities[key] = self._work_out(kind in BASED_ON_USE, rate)
        return found

    def _work_out(self, scales: bool, rate: Rate) -> tuple[Span | None, Decimal, Decimal]:
        if rate.bills in ("download", "upload"):
            traffic = self._traffic(rate)
            return traffic, ZERO, traffic.high if traffic else ZERO
        scaling, hours = self.spec.scaling, self.assumptions.hours
        per_hour = _per_hour(rate, self.spec.hardware.disk_gb)
        if not scales or rate.bills != "awake":
            servers = 1 if rate.bills == "kept" and scales else max(1, scaling.min)
            whole = hours * servers * per_hour
            return exactly(whole), whole, whole
        least, most = hours * scaling.min * per_hour, hours * scaling.max * per_hour
        if scaling.min == scaling.max:
            return exactly(most), least, most
        if self._awake is None:
            return None, least, most
        return Span(*(self._worker_hours(up.workers) * per_hour for up in self._awake)), least, most

    def _worker_hours(self, workers: float) -> Decimal:
        """Mean workers up -> worker-hours in the month, to the second."""
        return worker_seconds(workers, self.assumptions.hours) / 3600

    def _traffic(self, rate: Rate) -> Span | None:
        usage, assumed = self.spec.usage, self.assumptions
        coming = rate.bills == "download"
        fixed = assumed.creates * (assumed.image_gb + assumed.weights_gb) if coming else ZERO
        if rate.quantity is not None:
            fixed = rate.quantity
        if usage.requests_per_day is None:
            return exactly(fixed) if coming else None
        tokens, size = (
            (usage.input_tokens, assumed.bytes_per_input_token)
            if coming
            else (usage.output_tokens, assumed.bytes_per_output_token)
        )
        requests = usage.requests_per_day * assumed.hours / 24
        moved = requests * tokens * size / 10**9
        less, more = assumed.traffic
        return Span(fixed + moved * less, fixed + moved, fixed + moved * more)

    def _net(self, rate: Rate) -> Decimal:
        net = 1 - rate.discount
        if rate.sustained_use and not rate.discount:
            hours = min(self.assumptions.hours, Decimal(HOURS_PER_MONTH))
            net = sustained_hours(hours) / hours if hours else Decimal(1)
        return net


def sustained_hours(hours: Decimal) -> Decimal:
    """Hours that Google bills for `hours` of a 730-hour month: each quarter at 100, 80, 60 and 40 %.

    Source: cloud.google.com/compute/docs/sustained-use-discounts (the 30 % class: N1 and the GPUs attached to it).
    """
    quarter, billed = Decimal(HOURS_PER_MONTH) / 4, ZERO
    for index, share in enumerate(("1", "0.8", "0.6", "0.4")):
        billed += Decimal(share) * max(ZERO, min(quarter, hours - quarter * index))
    return billed


def stopped_cost(spec: DeploymentSpec, offer: Offer) -> Decimal | None:
    """US dollars a month for keeping a stopped server; None when a price isn't known."""
    estimator = Estimator(spec, Assumptions())
    stopped = [replace(rate, bills="kept") for rate in offer.rates if rate.bills == "stopped"]
    replaced = {rate.meter for rate in stopped}
    kept = [rate for rate in offer.rates if rate.bills == "kept" and rate.meter not in replaced]
    span, incomplete, _ = estimator.totals(replace(offer, rates=(*kept, *stopped)))
    return None if incomplete else span.expected


def boot_cost(offer: Offer, assumptions: Assumptions | None = None) -> Decimal | None:
    """US dollars billed from a server's start to its first answer, once; None when a price isn't known."""
    seconds = (assumptions or Assumptions()).boot_s
    prices = [(rate.unit_price, rate) for rate in offer.rates if rate.bills in ("running", "awake")]
    if any(price is None for price, _ in prices):
        return None
    return total(price * _per_hour(rate) * seconds / 3600 for price, rate in prices if price is not None)


def _per_hour(rate: Rate, disk_gb: int = 0) -> Decimal:
    """Units of a rate that one server takes in an hour."""
    match rate.unit:
        case "Seconds":
            return 3600 * (Decimal(1) if rate.quantity is None else rate.quantity)
        case "GB-Months":
            return (Decimal(disk_gb) if rate.quantity is None else rate.quantity) / rate.month_hours
        case _:
            return Decimal(1) if rate.quantity is None else rate.quantity


def _peak(line: CostLine) -> Decimal:
    if line.rate.unit_price is None or line.rate.bills in ("download", "upload"):
        return ZERO
    return price_span(line.rate).high * line.most * line.net
