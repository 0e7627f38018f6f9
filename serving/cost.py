"""What an offer costs at a spec's declared use.

One pure function, on Decimal throughout. A price that isn't known makes the total incomplete and is never zero; a use
that isn't known leaves the quantity open ("depends on usage: $X per unit").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from functools import cached_property
from typing import TYPE_CHECKING

from serving.lines import ZERO, Basis, CostLine, Estimate, Span, exactly, price_span, total
from serving.offers import Kind, Offer, Rate
from serving.scale_to_zero import Awake, Load, awake, cold_share, load_of, worker_seconds
from serving.spec import HOURS_PER_MONTH, DeploymentSpec
from serving.tariff import Tariff, Weight

if TYPE_CHECKING:
    from serving.models import Model

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
        concurrency: requests a worker answers together, if the engine's `max_num_seqs` lets it; 30 is the default of
            RunPod's vLLM worker.
        image_gb, weights_gb: what comes in at each create; the vLLM image is about 10 GB compressed.
        creates: times each server is made in a month.
        bytes_per_input_token, bytes_per_output_token: on the wire; a streamed token is a JSON event of its own.
        hours: hours in the month that a server is kept, more than none.
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
        self._tariffs: dict[tuple[bool, bool], Tariff] = {}

    def estimate(self, offer: Offer) -> Estimate:
        """Every line of one offer. Rates that only count while a server is stopped are left out."""
        lines: list[CostLine] = []
        main = _main_rate(offer) if self.load and offer.kind in BASED_ON_USE else None
        for rate in offer.rates:
            for part in self._parts(offer.kind, rate):
                detailed = self._phases(part, rate) if rate is main and part.scales else (part,)
                lines.extend(_line(offer, rate, one, self._net(offer.spot, rate)) for one in detailed)
        hours = self.assumptions.hours
        return Estimate(tuple(lines), hours, total(_peak(line) for line in lines) / hours)

    def totals(self, offer: Offer) -> tuple[Span, bool, bool]:
        """`Estimate.span`, `incomplete` and `open_use` of an offer, without making its lines."""
        return self.tariff(offer.kind, offer.spot).totals(offer.rates)

    def tariff(self, kind: Kind, spot: bool) -> Tariff:
        """What prices offers of one kind in bulk."""
        key = (kind in BASED_ON_USE, spot)
        if key not in self._tariffs:
            self._tariffs[key] = Tariff(lambda rate: self._weigh(kind, spot, rate))
        return self._tariffs[key]

    def _weigh(self, kind: Kind, spot: bool, rate: Rate) -> Weight:
        parts = self._parts(kind, rate)
        units = Span.sum(part.quantity or Span(ZERO, ZERO, part.most) for part in parts)
        open_use = any(part.quantity is None for part in parts)
        return Weight(units.times(exactly(self._net(spot, rate))), open_use, bool(parts))

    @cached_property
    def load(self) -> Load | None:
        """The declared load as workers see it; None when no use is declared."""
        usage, scaling, assumed = self.spec.usage, self.spec.scaling, self.assumptions
        if usage.requests_per_day is None:
            return None
        seconds = usage.output_tokens / assumed.tokens_per_s
        one = load_of(usage.requests_per_day, seconds, scaling.idle_timeout_s, assumed.boot_s, self._concurrency)
        return replace(one, max_workers=scaling.max, min_workers=scaling.min)

    @cached_property
    def _awake(self) -> tuple[Awake, Awake, Awake] | None:
        """The workers up at low, declared and high traffic."""
        load = self.load
        if load is None:
            return None
        less, more = self.assumptions.traffic
        return awake(load.scaled(less)), awake(load), awake(load.scaled(more))

    @cached_property
    def _scaled_seconds(self) -> Span | None:
        """Worker-seconds in the month, beyond the workers that are always up."""
        if self._awake is None:
            return None
        low, expected, high = (self._seconds(up.workers - up.always) for up in self._awake)
        return Span(min(low, expected), expected, max(expected, high))

    @property
    def _concurrency(self) -> int:
        return min(self.assumptions.concurrency, self.spec.engine.max_num_seqs)

    def _seconds(self, workers: float) -> Decimal:
        return worker_seconds(workers, self.assumptions.hours)

    def _parts(self, kind: Kind, rate: Rate) -> tuple[_Part, ...]:
        """What a month takes of a rate: what is billed whatever the traffic, then what follows it."""
        return tuple(self._work_out(kind in BASED_ON_USE, rate))

    def _work_out(self, scales: bool, rate: Rate) -> Iterator[_Part]:
        scaling, usage, assumed = self.spec.scaling, self.spec.usage, self.assumptions
        hours, per_hour = assumed.hours, _per_hour(rate, self.spec.hardware.disk_gb)
        # A worker that sleeps was made once, too.
        servers = scaling.max if scales else max(1, scaling.min)
        match rate.bills:
            case "stopped":
                return
            case "download" | "upload" if rate.quantity is not None:
                yield _fixed(rate.quantity)
            case "download":
                yield self._pulled(servers)
                yield self._traffic("prompts", servers, usage.input_tokens, assumed.bytes_per_input_token)
            case "upload":
                yield self._traffic("", servers, usage.output_tokens, assumed.bytes_per_output_token)
            case "awake" if scales:
                always, most = hours * scaling.min * per_hour, hours * scaling.max * per_hour
                some, more = scaling.min > 0, scaling.max > scaling.min
                if some:
                    yield _fixed(always, "always on" if more else "")
                if more:
                    up = self._scaled_seconds
                    quantity = None if up is None else up.times(exactly(per_hour)).over(Decimal(3600))
                    yield _Part("on demand" if some else "", quantity, most - always, "usage", scales=True)
            case _:
                # A volume is one for all workers; what runs beside workers that sleep is one at least.
                shared = scales and rate.bills == "kept"
                yield _fixed(hours * (1 if shared else max(1, scaling.min)) * per_hour)

    def _phases(self, part: _Part, rate: Rate) -> Iterator[_Part]:
        """Answering, idling and starting as parts of their own; they add up to `part`."""
        load, whole = self.load, self._scaled_seconds
        assert self._awake and load and whole
        expected = self._awake[1]
        starts = round(expected.starts * 86_400)
        cold = f"{starts} starts a day, {cold_share(load, expected):.0%} of requests start a worker"
        answering, idling, booting = _split(whole, self._seconds(expected.idle), self._seconds(expected.booting))
        saturated = "more arrives than the workers can answer"
        phases = (
            ("answering", answering, saturated if expected.saturated else "Poisson arrivals"),
            ("idle", idling, f"idle timeout {self.spec.scaling.idle_timeout_s} s"),
            ("starting", booting, f"{cold}, {self.assumptions.boot_s} s each"),
        )
        per_hour = exactly(_per_hour(rate, self.spec.hardware.disk_gb))
        for index, (phase, seconds, note) in enumerate(phases):
            quantity = seconds.times(per_hour).over(Decimal(3600))
            yield _Part(phase, quantity, ZERO if index else part.most, "usage", note)

    def _pulled(self, servers: int) -> _Part:
        assumed = self.assumptions
        size = f"{assumed.image_gb} GB of image and {assumed.weights_gb} GB of weights for each server that is made"
        return _fixed(assumed.creates * servers * (assumed.image_gb + assumed.weights_gb), "at create", size)

    def _traffic(self, phase: str, servers: int, tokens: int, size: Decimal) -> _Part:
        """GB a month of requests with so many tokens of so many bytes, one way."""
        usage, assumed = self.spec.usage, self.assumptions
        gb = tokens * size / 10**9
        a_second = servers * self._concurrency * assumed.tokens_per_s / usage.output_tokens
        most = a_second * 3600 * assumed.hours * gb
        if usage.requests_per_day is None:
            return _Part(phase, None, most, "usage")
        moved = usage.requests_per_day * assumed.hours / 24 * gb
        less, more = assumed.traffic
        return _Part(phase, Span(moved * less, moved, moved * more), most, "usage")

    def _net(self, spot: bool, rate: Rate) -> Decimal:
        """Share of the list price that is paid. Google's discount is for what has no other one."""
        if rate.sustained_use and not rate.discount and not spot:
            hours = min(self.assumptions.hours, Decimal(HOURS_PER_MONTH))
            return sustained_hours(hours) / hours
        return 1 - rate.discount


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of a rate's quantity, in the rate's unit. `most` is with every worker always up.

    `scales` marks the workers beyond those that are always up.
    """

    phase: str
    quantity: Span | None
    most: Decimal
    basis: Basis
    note: str = ""
    scales: bool = False


def _fixed(quantity: Decimal, phase: str = "", note: str = "") -> _Part:
    return _Part(phase, exactly(quantity), quantity, "baseline", note)


def _split(whole: Span, idle: Decimal, starting: Decimal) -> tuple[Span, Span, Span]:
    """Seconds of answering, idling and starting that add up to the whole, at low and high traffic, too.

    There the phases have the proportions of the declared traffic: starts fall as traffic grows, so those of low traffic
    could cost more than those of high. All are whole seconds, and low <= expected <= high holds for each.
    """
    idle = min(idle, whole.expected)
    starting = min(starting, whole.expected - idle)

    def part(seconds: Decimal) -> Span:
        low, high = (seconds * end / (whole.expected or 1) for end in (whole.low, whole.high))
        return Span(low.to_integral_value(ROUND_CEILING), seconds, high.to_integral_value(ROUND_FLOOR))

    idling, booting = part(idle), part(starting)
    booting = replace(booting, low=min(booting.low, whole.low - idling.low))
    return whole.minus(idling).minus(booting), idling, booting


def _line(offer: Offer, rate: Rate, part: _Part, net: Decimal) -> CostLine:
    if part.phase or part.note:
        note = "; ".join(text for text in (part.note, rate.assumption) if text)
        rate = replace(rate, meter=f"{rate.meter}, {part.phase}" if part.phase else rate.meter, assumption=note)
    return CostLine(offer, rate, part.quantity, part.most, part.basis, net, part.phase)


def _main_rate(offer: Offer) -> Rate | None:
    """The rate that costs most while a worker is up, whatever the order of the rates; its phases are shown."""
    priced = [rate for rate in offer.rates if rate.bills == "awake" and rate.unit_price is not None]
    return max(priced, key=lambda rate: ((rate.unit_price or ZERO) * _per_hour(rate), rate.meter), default=None)


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


def boot_cost(spec: DeploymentSpec, offer: Offer, assumptions: Assumptions | None = None) -> Decimal | None:
    """US dollars billed once from a server's create to its first answer; None when a price isn't known.

    The time of the start, and the traffic of the image and the weights where that is billed.
    """
    assumed = assumptions or Assumptions()
    cost = ZERO
    for rate in offer.rates:
        if rate.bills not in ("running", "awake", "download"):
            continue
        if rate.unit_price is None:
            return None
        price = rate.unit_price * (1 - rate.discount)
        if rate.bills == "download":
            cost += price * (assumed.image_gb + assumed.weights_gb)
        else:
            cost += price * _per_hour(rate, spec.hardware.disk_gb) * assumed.boot_s / 3600
    return cost


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
    return price_span(line.rate).high * line.net * line.most


def assumptions_for(model: Model) -> Assumptions:
    """The estimate's assumptions with the size of this model's weights."""
    size = sum(count * width for count, width in model.tensors())
    return replace(Assumptions(), weights_gb=(Decimal(size) / 10**9).quantize(Decimal("0.1")))
