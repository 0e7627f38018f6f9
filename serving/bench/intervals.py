"""How far two runs differ, with bootstrap confidence intervals.

Percentiles: resampling n values with replacement and taking the k-th smallest gives the J-th smallest of the original,
where J = ceil(n U) and U ~ Beta(k, n - k + 1). So each resample is one draw instead of n, and the interval is the
bootstrap's own. Rates: a run is cut into slices of equal time, which are resampled (batch means): answers of one moment
are not independent of one another.

Latencies under load are correlated in time too, so intervals of percentiles are a little too narrow; two runs in
alternation say more than one long one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

LEVEL = 0.95
RESAMPLES = 2000
SLICES = 20

LEAST_BEYOND = 5
"""So many values must lie beyond a percentile in each run, or its interval says nothing."""

Better = Literal["lower", "higher"]
Draw = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One figure of one run: its value, and a draw of what it might have been. `draw` is None for too few values."""

    value: float
    draw: Draw | None


@dataclass(frozen=True, slots=True)
class Difference:
    """How a figure changed from run a to run b.

    `low` and `high` bound b - a with `LEVEL` confidence, in the figure's own unit; None when there were too few values.
    """

    name: str
    unit: str
    better: Better
    a: float
    b: float
    low: float | None
    high: float | None

    @property
    def percent(self) -> float | None:
        """Change in per cent of a; None when a is 0."""
        return (self.b - self.a) / self.a * 100 if self.a else None

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown", "too few requests"]:
        """What the interval allows to say."""
        if self.low is None or self.high is None:
            return "too few requests"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        return "better" if (self.high < 0) == (self.better == "lower") else "worse"

    def worse_by(self, percent: float) -> bool:
        """Whether the whole interval lies beyond that many per cent of a, on the bad side."""
        if self.low is None or self.high is None:
            return False
        least = self.low if self.better == "lower" else -self.high
        return least > self.a * percent / 100


def sampled_percentile(values: Sequence[float], percent: float, random: Random) -> Sampled:
    """A percentile (nearest rank) of values in any order. Raises ValueError when there are none."""
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("no values")
    rank = max(1, math.ceil(count * percent / 100))
    value = ordered[rank - 1]
    if min(rank, count - rank) < LEAST_BEYOND:
        return Sampled(value, None)

    def draw() -> float:
        return ordered[max(1, math.ceil(count * random.betavariate(rank, count - rank + 1))) - 1]

    return Sampled(value, draw)


def sampled_rate(events: Sequence[tuple[float, float]], seconds: float, random: Random) -> Sampled:
    """What comes in a second. `events` are (seconds after the start, amount), those beyond an end counted at that end.

    Raises:
        ValueError: when the run took no time.
    """
    if seconds <= 0:
        raise ValueError("a run without duration")
    amounts = [0.0] * SLICES
    for at, amount in events:
        amounts[max(0, min(SLICES - 1, int(at / seconds * SLICES)))] += amount
    value = math.fsum(amounts) / seconds
    if len(events) < SLICES:
        return Sampled(value, None)
    return Sampled(value, lambda: math.fsum(random.choices(amounts, k=SLICES)) / seconds)


def difference(name: str, unit: str, better: Better, a: Sampled, b: Sampled) -> Difference:
    """The change from a to b, with the percentile interval of `RESAMPLES` draws."""
    if a.draw is None or b.draw is None:
        return Difference(name, unit, better, a.value, b.value, None, None)
    drawn = sorted(b.draw() - a.draw() for _ in range(RESAMPLES))
    cut = int((1 - LEVEL) / 2 * RESAMPLES)
    return Difference(name, unit, better, a.value, b.value, drawn[cut], drawn[-cut - 1])
