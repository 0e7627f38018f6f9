"""Workers that scale to zero, event by event: what `serving.scale_to_zero` is held against.

It shares no code with it. `python tests/simulate.py` writes the table of `docs/cost.md`.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Service = Literal["constant", "exponential", "lognormal"]
SERVICES: tuple[Service, ...] = ("constant", "exponential", "lognormal")

SIGMA = 0.5
"""Of the lognormal service time: a coefficient of variation of 0.53."""


@dataclass(frozen=True)
class Observed:
    """What a run saw, as means over its whole length.

    Attributes:
        workers: up, and so billed.
        answering, idle, booting: the same workers by what they do.
        starts: worker starts a second.
    """

    workers: float
    answering: float
    idle: float
    booting: float
    starts: float


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
    starts = 0
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
    return Observed(up / end, answering / end, idle / end, booting / end, starts / end)


def _service(kind: Service, mean: float, rng: random.Random) -> Callable[[], float]:
    match kind:
        case "constant":
            return lambda: mean
        case "exponential":
            return lambda: rng.expovariate(1 / mean)
        case "lognormal":
            return lambda: rng.lognormvariate(math.log(mean) - SIGMA**2 / 2, SIGMA)


@dataclass(frozen=True)
class Case:
    """A load to compare. Times in seconds."""

    requests_per_day: int
    service_s: float
    idle_s: int
    boot_s: int
    concurrency: int = 10_000
    max_workers: int = 1
    min_workers: int = 0
    arrivals: int = 60_000

    @property
    def rate(self) -> float:
        return self.requests_per_day / 86_400

    def seen(self, service: Service) -> Observed:
        return _seen(self, service)


@cache
def _seen(case: Case, service: Service) -> Observed:
    return simulate(
        case.rate,
        case.service_s,
        case.idle_s,
        case.boot_s,
        concurrency=case.concurrency,
        max_workers=case.max_workers,
        min_workers=case.min_workers,
        service=service,
        arrivals=case.arrivals,
    )


ONE_WORKER = (
    Case(1_000, 4, 5, 0),
    Case(1_000, 4, 5, 20),
    Case(1_000, 4, 60, 20),
    Case(10_000, 4, 5, 20),
    Case(200, 4, 5, 60),
    Case(8_640, 6.27, 5, 30, concurrency=1),
    Case(50_000, 4, 5, 20, concurrency=8),
    Case(1_000, 5.4, 60, 60, concurrency=30),
)
SEVERAL_WORKERS = (
    Case(1_000, 4, 5, 20, concurrency=16, max_workers=3),
    Case(17_280, 1, 1, 60, concurrency=4, max_workers=4),
    Case(20_000, 4, 5, 20, concurrency=2, max_workers=4),
    Case(50_000, 4, 5, 20, concurrency=8, max_workers=3, arrivals=100_000),
    Case(100_000, 4, 5, 20, concurrency=8, max_workers=3, arrivals=100_000),
    Case(100_000, 4, 60, 60, concurrency=8, max_workers=3, arrivals=100_000),
    Case(100_000, 4, 60, 60, concurrency=8, max_workers=3, min_workers=1, arrivals=100_000),
    Case(100_000, 4, 60, 60, concurrency=4, max_workers=8, arrivals=100_000),
    Case(1_000_000, 4, 60, 60, concurrency=30, max_workers=4, arrivals=120_000),
)
HARDEST = (
    Case(100_000, 4, 5, 20, concurrency=4, max_workers=8, arrivals=100_000),
    Case(400_000, 4, 60, 60, concurrency=30, max_workers=2, arrivals=200_000),
)
"""Where bursts while a worker starts, or rare overflows, decide: the spread of answers' lengths shows."""

_MARK = "<!-- From here on written by `python tests/simulate.py`. -->"


def table() -> str:
    """Mean workers up: what `serving.scale_to_zero` says beside what was simulated."""
    from serving.scale_to_zero import Load, awake

    seen_as = "constant | exponential | lognormal"
    lines = [
        f"| requests/day | S | W | B | together | workers | estimate | {seen_as} | starts/day |",
        "|---:" * 11 + "|",
    ]
    for case in (*ONE_WORKER, *SEVERAL_WORKERS, *HARDEST):
        many = "any" if case.concurrency == 10_000 else str(case.concurrency)
        limits = f"{case.min_workers} to {case.max_workers}"
        load = Load(
            case.rate,
            case.service_s,
            case.idle_s,
            case.boot_s,
            case.concurrency,
            case.max_workers,
            case.min_workers,
        )
        ours = awake(load)
        seen = [case.seen(service) for service in SERVICES]
        cells = [f"{one.workers:.4f} ({ours.workers / one.workers - 1:+.1%})" for one in seen]
        times = f"{case.service_s:g} | {case.idle_s} | {case.boot_s}"
        starts = f"{ours.starts * 86_400:,.0f} / {seen[2].starts * 86_400:,.0f}"
        row = (f"{case.requests_per_day:,}", times, many, limits, f"{ours.workers:.4f}", *cells, starts)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def written(document: str) -> str:
    """The document with the table of now."""
    return f"{document.partition(_MARK)[0]}{_MARK}\n\n{table()}\n"


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    sys.path.insert(0, str(root))
    page = root / "docs" / "cost.md"
    page.write_text(written(page.read_text(encoding="utf-8")), encoding="utf-8")
