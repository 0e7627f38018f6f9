"""How long workers that scale to zero are up, and so bill, for a given load.

Requests arrive as a Poisson process; a worker answers up to `concurrency` of them together (continuous batching),
stays up for an idle window after its last answer, and bills while it starts. Requests fill one worker before the
next is started, which is how a scaler keeps the bill down; a balancer that spreads them bills more.

One worker that never queues is an M/G/infinity queue with service S + W, so it is up unless nothing arrived in the
last S + W seconds; with a start of B seconds

    E = exp(L (S + W))      share of time up = (L B + E - 1) / (L B + E)      starts a second = L / (L B + E)

exact for a constant S, within 2 % for exponential and lognormal ones. A worker that queues has 1 / P(idle) of its
M/M/c queue for exp(L S), and longer starts, because what waited must be worked off; for c = 1 that is the M/G/1 queue
with an idle window. Worker k of several is up unless no request found the slots below it full in the last S + W
seconds. Those slots are an Erlang loss system, and the time until it next overflows is a first passage, which is found
by inverting its Laplace transform. Compared with a simulation that shares none of this, see `docs/cost.md`.

Times are floats: they are estimates, not money. What leaves for a price is a Decimal (`billed_seconds`).
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Load:
    """What arrives, and how the workers behave. Times in seconds.

    Attributes:
        rate: requests a second, mean.
        service_s: seconds from a worker taking a request to its last token.
        idle_s: seconds a worker stays up after its last answer.
        boot_s: billed seconds from a worker's start until it can answer.
        concurrency: requests one worker answers together.
        max_workers: most workers at once.
        min_workers: workers that are always up.
    """

    rate: float
    service_s: float
    idle_s: float
    boot_s: float
    concurrency: int = 1
    max_workers: int = 1
    min_workers: int = 0

    def scaled(self, share: Decimal) -> Load:
        """The same workers under another share of the traffic."""
        return replace(self, rate=self.rate * float(share))


@dataclass(frozen=True, slots=True)
class Awake:
    """Mean workers up (what bills), and what they do meanwhile: `answering + idle + booting == workers`.

    `starts` is worker starts a second. `saturated` says that more arrives than all workers can answer.
    """

    answering: float
    idle: float
    booting: float
    starts: float
    saturated: bool = False

    @property
    def workers(self) -> float:
        return self.answering + self.idle + self.booting

    def billed_seconds(self) -> Decimal:
        """Worker-seconds in a month of 730 hours, to the second."""
        return worker_seconds(self.workers, Decimal(730))


def worker_seconds(workers: float, hours: Decimal) -> Decimal:
    """Mean workers over some hours -> worker-seconds, to the second: where an estimate of time becomes a quantity."""
    return Decimal(round(workers * float(hours) * 3600))


def load_of(
    requests_per_day: int, seconds_per_request: Decimal, idle_s: int, boot_s: Decimal, concurrency: int
) -> Load:
    """One worker's load from declared use."""
    return Load(requests_per_day / 86_400, float(seconds_per_request), idle_s, float(boot_s), concurrency)


def awake(load: Load) -> Awake:
    """The workers that are up on average."""
    offered, most = load.rate * load.service_s, load.max_workers
    always = float(load.min_workers)
    if load.rate <= 0:
        return Awake(0.0, always, 0.0, 0.0)
    if offered >= most * load.concurrency:
        return Awake(float(most), 0.0, 0.0, 0.0, saturated=True)
    parts = [_only_worker(load)] if most == 1 else _several_workers(load)
    answering, idle, booting, starts = (math.fsum(column) for column in zip(*parts, strict=True))
    return Awake(answering, idle, booting, starts)


def awake_by_hour(load: Load, weights: Sequence[float]) -> Awake:
    """The mean over hours whose traffic differs: `weights` are each hour's share of the mean rate, in any unit."""
    mean = math.fsum(weights) / len(weights)
    hours = [awake(replace(load, rate=load.rate * weight / mean)) for weight in weights]
    parts = [(hour.answering, hour.idle, hour.booting, hour.starts) for hour in hours]
    answering, idle, booting, starts = (math.fsum(column) / len(hours) for column in zip(*parts, strict=True))
    return Awake(answering, idle, booting, starts, saturated=any(hour.saturated for hour in hours))


def cold_share(load: Load, result: Awake) -> float:
    """Share of requests that start a worker."""
    return min(1.0, result.starts / load.rate) if load.rate else 0.0


def waiting_share(load: Load, result: Awake) -> float:
    """Share of requests that wait for a start, those that arrive during one included."""
    return min(1.0, result.starts * (1 + load.rate * load.boot_s) / load.rate) if load.rate else 0.0


def always_on_rate(service_s: float, idle_s: float, boot_s: float, share: float) -> float:
    """Requests a second above which one worker is up for more than `share` of the time; infinity if never.

    `share` is the price of an always-on second over that of a scale-to-zero second.
    """
    if share >= 1:
        return math.inf
    low, high = 0.0, 1.0
    while _share_up(high, service_s, idle_s, boot_s) < share:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if _share_up(middle, service_s, idle_s, boot_s) < share else (low, middle)
    return high


def _share_up(rate: float, service_s: float, idle_s: float, boot_s: float) -> float:
    return awake(Load(rate, service_s, idle_s, boot_s, concurrency=10**9)).workers


Part = tuple[float, float, float, float]
"""Of one worker: share of time answering, idle and starting, and starts a second."""


def _only_worker(load: Load) -> Part:
    rate, slots = load.rate, load.concurrency
    empty = _empty_share(rate * load.service_s, slots)
    if load.min_workers:
        return (1 - empty, empty, 0.0, 0.0)
    window = math.exp(min(rate * load.idle_s, 700.0))
    load_per_slot = rate * load.service_s / slots
    waiting = max(0.0, rate * load.boot_s + 1 - slots)
    work_off = waiting * load.service_s / slots / (1 - load_per_slot)
    # Seconds from one start to the next; off is the 1 / rate at its end.
    cycle = load.boot_s + work_off + window / empty / rate
    idle = (window - 1) / rate
    answering = cycle - idle - load.boot_s - 1 / rate
    return (answering / cycle, idle / cycle, load.boot_s / cycle, 1 / cycle)


def _empty_share(offered: float, slots: int) -> float:
    """P(nothing is being answered) of an M/M/c queue; exp(-offered) when c is beyond reach."""
    if slots > offered + 40 * math.sqrt(offered) + 40:
        return math.exp(-offered)
    logs = [i * math.log(offered) - math.lgamma(i + 1) for i in range(slots)]
    logs.append(slots * math.log(offered) - math.lgamma(slots + 1) - math.log(1 - offered / slots))
    top = max(logs)
    return math.exp(-top) / math.fsum(math.exp(one - top) for one in logs)


def _several_workers(load: Load) -> list[Part]:
    parts: list[Part] = []
    for index in range(load.max_workers):
        below = index * load.concurrency
        full = _erlang(load.rate * load.service_s, below)
        if index < load.min_workers:
            busy = 1 - _quiet(load, full, load.service_s)[0]
            parts.append((busy, 1 - busy, 0.0, 0.0))
            continue
        if load.rate * full[-1] * (load.service_s + load.idle_s + load.boot_s) < 1e-9:
            break
        not_answering, _ = _quiet(load, full, load.service_s)
        off, starts = _quiet(load, full, load.service_s + load.idle_s)
        # A start adds its seconds to every cycle of on and off.
        longer = 1 + starts * load.boot_s
        parts.append(
            (
                (1 - not_answering) / longer,
                max(0.0, not_answering - off) / longer,
                starts * load.boot_s / longer,
                starts / longer,
            )
        )
    return parts


@lru_cache(maxsize=512)
def _erlang(offered: float, slots: int) -> tuple[float, ...]:
    """Erlang's loss distribution: P(i of `slots` are taken), i from 0."""
    logs = [i * math.log(offered) - math.lgamma(i + 1) for i in range(slots + 1)]
    top = max(logs)
    weights = [math.exp(one - top) for one in logs]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def _quiet(load: Load, full: tuple[float, ...], window_s: float) -> tuple[float, float]:
    """P(no request overflowed in the last `window_s`), and the rate of first overflows after such a pause."""
    stay = _no_overflow(load.rate, load.service_s, len(full) - 1, window_s)
    quiet = math.fsum(p * s for p, s in zip(full, stay, strict=True))
    return quiet, load.rate * full[-1] * stay[-1]


_NODES = 16


@lru_cache(maxsize=512)
def _no_overflow(rate: float, service_s: float, slots: int, window_s: float) -> tuple[float, ...]:
    """P(an Erlang loss system does not overflow for `window_s`) from each number of taken slots.

    The transform is a tridiagonal solve; it is inverted on Talbot's contour as modified by Dingfelder and Weideman.
    """
    total = [0.0] * (slots + 1)
    for k in range(_NODES // 2, _NODES):
        angle = -math.pi + (k + 0.5) * 2 * math.pi / _NODES
        cot = 1 / math.tan(0.6407 * angle)
        z = _NODES * complex(-0.4814 + 0.6122 * angle * cot, 0.2645 * angle)
        slope = _NODES * complex(0.6122 * cot - 0.6122 * 0.6407 * angle / math.sin(0.6407 * angle) ** 2, 0.2645)
        weight = cmath.exp(z) * slope / window_s / (1j * _NODES)
        for i, value in enumerate(_transform(z / window_s, rate, service_s, slots)):
            total[i] += 2 * (weight * value).real
    return tuple(min(1.0, max(0.0, value)) for value in total)


def _transform(s: complex, rate: float, service_s: float, slots: int) -> list[complex]:
    upper: list[complex] = []
    right: list[complex] = []
    for i in range(slots + 1):
        leave = i / service_s
        pivot = s + rate + leave * (1 + upper[-1]) if i else s + rate
        upper.append(-rate / pivot)
        right.append((1 + leave * right[-1]) / pivot if i else 1 / pivot)
    solved = [right[-1]]
    for i in range(slots - 1, -1, -1):
        solved.append(right[i] - upper[i] * solved[-1])
    solved.reverse()
    return solved
