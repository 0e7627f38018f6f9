"""Which load comes next until a server is saturated. The load doubles; past the end, the gap is halved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.bench.metrics import Figures
from serving.bench.record import Record

Kind = Literal["concurrency", "rate"]

GAIN = 1.05
"""Throughput must grow by this factor when concurrency doubles, or the server is saturated."""

KEPT_UP = 0.9
"""Answers over arrivals, in the second half of a run at a fixed rate; below it, the queue only grows."""

ERRORS = 0.01
"""More failed requests than this share, and the load is too much."""

HALVINGS = 3
"""How often the gap between the last rate that was kept and the first that was not is halved."""


@dataclass(frozen=True, slots=True)
class Step:
    """One load of a sweep: so many at a time, or requests a second. `kept_up` is None for a closed loop."""

    load: float
    figures: Figures
    kept_up: float | None = None

    @property
    def failing(self) -> bool:
        """Whether the load is too much whatever came before: errors, or a queue that only grows."""
        return self.figures.error_rate > ERRORS or (self.kept_up is not None and self.kept_up < KEPT_UP)


def kept_up(records: Sequence[Record]) -> float:
    """Answers over arrivals in the second half of the time in which requests were sent.

    In the steady state both are equal; a run must last some times as long as an answer to get there. 1 for fewer than
    two requests.
    """
    begun = min((record.intended for record in records), default=0.0)
    last = max((record.intended for record in records), default=0.0)
    middle = (begun + last) / 2
    arrived = sum(middle < record.intended <= last for record in records)
    answered = sum(record.ok and middle < record.ended <= last for record in records)
    return answered / arrived if arrived else 1.0


def next_load(steps: Sequence[Step], kind: Kind, most: float) -> float | None:
    """The load to try after `steps`, in the order they were run; None when the sweep is over.

    A closed loop ends when doubling no longer gains throughput. A rate is then halved towards the highest that the
    server keeps up with. No load is over `most`. `steps` must not be empty.
    """
    failing = [step.load for step in steps if step.failing]
    good = [step.load for step in steps if not step.failing]
    last = steps[-1]
    if kind == "concurrency":
        before = max((step.figures.requests_per_s for step in steps[:-1]), default=0.0)
        if last.failing or last.figures.requests_per_s < before * GAIN or last.load >= most:
            return None
        return min(last.load * 2, most)
    if not failing:
        return None if last.load >= most else min(last.load * 2, most)
    if len(steps) - _doublings(steps) >= HALVINGS:
        return None
    low = max((load for load in good if load < min(failing)), default=0.0)
    return (low + min(failing)) / 2


def saturation(steps: Sequence[Step]) -> Step | None:
    """The step with the most answers a second among those that did not fail; None when all did."""
    good = [step for step in steps if not step.failing]
    return max(good, key=lambda step: step.figures.requests_per_s, default=None)


def _doublings(steps: Sequence[Step]) -> int:
    """How many steps were run up to the first that failed, that one included."""
    return next((index for index, step in enumerate(steps, start=1) if step.failing), len(steps))
