"""Workers that scale to zero, request by request: what the closed forms of `serving.scale_to_zero` are held against.

It shares no code with them, and none of their mathematics: arrivals are drawn one at a time and workers keep a clock.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Service = Literal["constant", "exponential", "lognormal"]

SIGMA = 0.5
"""Of the lognormal service time: a coefficient of variation of 0.53."""


@dataclass(frozen=True)
class Observed:
    """What a run saw, as means over its whole length.

    Attributes:
        workers: up, and so billed.
        answering, idle, booting: the same workers by what they do.
        starts: worker starts a second.
        waited: share of requests that waited for a start.
    """

    workers: float
    answering: float
    idle: float
    booting: float
    starts: float
    waited: float


@dataclass(slots=True)
class _Worker:
    up: bool = False
    since: float = 0.0
    """When it was started."""
    ready: float = 0.0
    """When its start is over."""
    held: int = 0
    """Requests that it answers, or will when it is ready."""
    quiet: float = 0.0
    """When it had nothing to answer any more."""


def simulate(
    rate: float,
    service_s: float,
    idle_s: float,
    boot_s: float,
    *,
    concurrency: int = 1,
    max_workers: int = 1,
    min_workers: int = 0,
    service: Service = "constant",
    arrivals: int = 100_000,
    seed: int = 1,
) -> Observed:
    """Poisson arrivals at `rate` a second; all times in seconds.

    A request goes to the first worker, in order, that has a free slot, whether it is up or still starting; if every
    worker that is up is full, the next one is started; if there is none left, it queues. A worker ends `idle_s` after
    its last answer.
    """
    rng = random.Random(seed)
    draw = _service(service, service_s, rng)
    workers = [_Worker(up=index < min_workers) for index in range(max_workers)]
    leaving: list[tuple[float, int]] = []
    queue: deque[float] = deque()
    up = answering = booting = 0.0
    starts = waited = 0
    now = 0.0

    def leave(end: float, index: int) -> None:
        nonlocal answering
        worker = workers[index]
        if queue:
            queue.popleft()
            heapq.heappush(leaving, (end + draw(), index))
            return
        worker.held -= 1
        if not worker.held:
            worker.quiet = end
            answering += end - busy_since[index]

    busy_since = [0.0] * max_workers
    for _ in range(arrivals):
        now += rng.expovariate(rate)
        while leaving and leaving[0][0] <= now:
            leave(*heapq.heappop(leaving))
        for index, worker in enumerate(workers):
            if worker.up and not worker.held and index >= min_workers and now > worker.quiet + idle_s:
                worker.up = False
                up += worker.quiet + idle_s - worker.since
            if not worker.up:
                worker.up, worker.since, worker.ready = True, now, now + boot_s
                starts += 1
                booting += boot_s
            if worker.held < concurrency:
                begin = max(now, worker.ready)
                waited += begin > now
                if not worker.held:
                    busy_since[index] = begin
                worker.held += 1
                heapq.heappush(leaving, (begin + draw(), index))
                break
        else:
            queue.append(now)
    end = now
    while leaving:
        end, index = heapq.heappop(leaving)
        leave(end, index)
    for index, worker in enumerate(workers):
        if worker.up:
            up += (end if index < min_workers else min(end, worker.quiet + idle_s)) - worker.since
    idle = up - answering - booting
    return Observed(up / end, answering / end, idle / end, booting / end, starts / end, waited / arrivals)


def _service(kind: Service, mean: float, rng: random.Random) -> Callable[[], float]:
    match kind:
        case "constant":
            return lambda: mean
        case "exponential":
            return lambda: rng.expovariate(1 / mean)
        case "lognormal":
            return lambda: rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)
