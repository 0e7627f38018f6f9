"""How long workers that scale to zero are up, and so bill, for a given load.

Requests arrive as a Poisson process; a worker answers up to `concurrency` of them together (continuous batching),
stays up for an idle window after its last answer, and bills while it starts. Requests fill one worker, up or still
starting, before the next is started, which is how a scaler keeps the bill down; a balancer that spreads them bills
more.

One worker that never queues is an M/G/infinity queue with service S + W, so it is up unless nothing arrived in the
last S + W seconds; with a start of B seconds

    E = exp(L (S + W))      share of time up = (L B + E - 1) / (L B + E)      starts a second = L / (L B + E)

exact for a constant S, within 2 % for exponential and lognormal ones. A worker that queues has 1 / P(idle) of its
M/M/c queue for exp(L S), and longer starts, because what waited must be worked off; for c = 1 that is the M/G/1 queue
with an idle window.

Several workers have no such formula: what waits for one start causes the next. So where a second worker would be up
for more than a thousandth of the time, a fixed sequence of arrivals is replayed, the same one for every load. Both
are compared with a simulation that shares none of this in `docs/cost.md`.

Times are floats: they are estimates, not money. What leaves for a price is whole seconds, as a Decimal.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, lru_cache
from itertools import accumulate
from statistics import NormalDist


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
    """Mean workers up, which is what bills: `workers == always + answering + idle + booting`.

    Attributes:
        answering, idle, booting: workers beyond those that are always up, by what they do.
        starts: worker starts a second.
        always: workers that are always up, whatever they do.
        saturated: more arrives than all workers can answer.
    """

    answering: float = 0.0
    idle: float = 0.0
    booting: float = 0.0
    starts: float = 0.0
    always: float = 0.0
    saturated: bool = False

    @property
    def workers(self) -> float:
        return self.always + self.answering + self.idle + self.booting


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
    always, most = float(load.min_workers), load.max_workers
    if load.rate <= 0:
        return Awake(always=always)
    if load.rate * load.service_s >= most * load.concurrency:
        return Awake(most - always, always=always, saturated=True)
    if most > max(1, load.min_workers) and _needs_another(load):
        return _replayed(load)
    return Awake(always=always) if always else _only_worker(load)


def cold_share(load: Load, result: Awake) -> float:
    """Share of requests that start a worker."""
    return min(1.0, result.starts / load.rate) if load.rate else 0.0


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


def _only_worker(load: Load) -> Awake:
    rate, slots = load.rate, load.concurrency
    empty = _empty_share(rate * load.service_s, slots)
    if rate * (load.service_s + load.idle_s) > 600:  # beyond what a float's exponent holds, it is never off
        return Awake(1 - empty, empty)
    window = math.exp(rate * load.idle_s)
    load_per_slot = rate * load.service_s / slots
    waiting = max(0.0, rate * load.boot_s + 1 - slots)
    work_off = waiting * load.service_s / slots / (1 - load_per_slot)
    # Seconds from one start to the next; off is the 1 / rate at its end.
    cycle = load.boot_s + work_off + window / empty / rate
    idle = (window - 1) / rate
    answering = cycle - idle - load.boot_s - 1 / rate
    return Awake(answering / cycle, idle / cycle, load.boot_s / cycle, 1 / cycle)


def _empty_share(offered: float, slots: int) -> float:
    """P(nothing is being answered) of an M/M/c queue; exp(-offered) when c is beyond reach."""
    if slots > offered + 40 * math.sqrt(offered) + 40:
        return math.exp(-offered)
    logs = [i * math.log(offered) - math.lgamma(i + 1) for i in range(slots)]
    logs.append(slots * math.log(offered) - math.lgamma(slots + 1) - math.log(1 - offered / slots))
    top = max(logs)
    return math.exp(-top) / math.fsum(math.exp(one - top) for one in logs)


_NEGLIGIBLE = 1e-3
"""Share of the time for which a further worker may be up without being counted."""


def _needs_another(load: Load) -> bool:
    """Whether a request may find no slot on the workers that are always up, or else on the first.

    A request that waits for the first worker's start holds its slot all the while.
    """
    held = load.service_s if load.min_workers else load.service_s + load.boot_s
    slots = max(1, load.min_workers) * load.concurrency
    overflows = load.rate * _blocked(load.rate * held, slots)
    return overflows * (load.service_s + load.idle_s + load.boot_s) > _NEGLIGIBLE


def _blocked(offered: float, slots: int) -> float:
    """Erlang's loss formula: P(all slots are taken)."""
    blocked = 1.0
    for taken in range(1, slots + 1):
        blocked = offered * blocked / (taken + offered * blocked)
        if blocked < 1e-12:
            break
    return blocked


_FEWEST, _MOST, _LONG_S = 60_000, 240_000, 40_000.0
"""Requests in a replay: enough for 11 hours, within bounds that keep it under 0.3 s."""


@cache
def service_times() -> tuple[float, ...]:
    """A thousand service times in units of their mean: lognormal, with a coefficient of variation of 0.53."""
    quantiles = [math.exp(NormalDist(sigma=0.5).inv_cdf((i + 0.5) / 1000)) for i in range(1000)]
    mean = math.fsum(quantiles) / 1000
    return tuple(quantile / mean for quantile in quantiles)


@lru_cache(maxsize=3)
def _arrivals(count: int) -> tuple[tuple[float, float], ...]:
    """Requests at one a second: when each comes, and its service time in units of the mean.

    Gaps are exponential. Of 40 seeds this one gives what comes nearest to the mean of all: within 0.6 % on eight loads
    of two to eight workers.
    """
    draw = random.Random(14).random
    services = service_times()
    times = accumulate(-math.log(1 - draw()) for _ in range(count))
    return tuple((time, services[int(draw() * 1000)]) for time in times)


@lru_cache(maxsize=256)
def _replayed(load: Load) -> Awake:
    """The workers up over the fixed arrivals at this load, without the first tenth of them."""
    rate, always, idle_s, boot_s = load.rate, load.min_workers, load.idle_s, load.boot_s
    count = _FEWEST
    while count < min(_MOST, rate * _LONG_S):
        count *= 2
    requests = _arrivals(count)
    began, end = requests[count // 10][0] / rate, requests[-1][0] / rate
    # As many workers as the mean load fills are up already, so that no rush of starts comes first.
    warm = math.ceil(rate * load.service_s / load.concurrency)
    held: list[list[float]] = [[] for _ in range(load.max_workers)]  # heaps of when what a worker holds is answered
    quiet = [0.0 if index < warm else -math.inf for index in range(load.max_workers)]  # when its last answer ends
    since = [0.0 if index < warm else math.inf for index in range(load.max_workers)]  # when it was started
    ready = [0.0] * load.max_workers
    up = answering = booting = 0.0
    starts = 0

    def counted(start: float, stop: float) -> float:
        return max(0.0, min(stop, end) - max(start, began))

    # A quarter of a million turns, and a break-even needs dozens of replays: nothing is called here that need not be.
    pop, push, slots, service_s = heapq.heappop, heapq.heappush, load.concurrency, load.service_s
    for arrival, work in requests:
        now = arrival / rate
        for index, ends in enumerate(held):
            while ends and ends[0] <= now:
                pop(ends)
            if index >= always and now > quiet[index] + idle_s:
                up += counted(since[index], quiet[index] + idle_s)
                since[index], ready[index] = now, now + boot_s
                booting += counted(now, ready[index])
                starts += now >= began
            if len(ends) < slots:
                begin = ready[index]
                if begin < now:
                    begin = now
                break
        else:
            index = min(range(load.max_workers), key=lambda one: held[one][0])
            begin = pop(held[index])
        stop = begin + work * service_s
        push(held[index], stop)
        last = quiet[index]
        if stop > last:
            quiet[index] = stop
            if index >= always:
                start = begin if begin > last else last
                answering += stop - start if began <= start and stop <= end else counted(start, stop)
    up += math.fsum(counted(since[i], quiet[i] + idle_s) for i in range(always, load.max_workers))
    seconds = end - began
    idle = max(0.0, up - answering - booting)
    return Awake(answering / seconds, idle / seconds, booting / seconds, starts / seconds, float(always))
