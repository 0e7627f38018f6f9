"""From records to the figures of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from serving.bench.record import Goodput, Record

PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Summary:
    """A distribution, in milliseconds. `count` 0 leaves all else at 0."""

    count: int = 0
    mean: float = 0.0
    std: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    most: float = 0.0

    def at(self, name: str) -> float:
        """The value called `mean`, `p50`, ... Raises AttributeError for another name."""
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run showed. Rates are per second of `duration_s`, from the first intended send to the last answer.

    Attributes:
        good: requests that kept the bounds of goodput; None when none were set.
        input_tokens, output_tokens: of complete answers, as the server counted them.
        uncounted: complete answers for which the server did not count tokens.
        pieces: parts that the answers came in.
        lag: how late the client itself sent requests.
    """

    requests: int
    completed: int
    duration_s: float
    good: int | None
    input_tokens: int
    output_tokens: int
    uncounted: int
    pieces: int
    ttft: Summary
    itl: Summary
    tpot: Summary
    e2e: Summary
    lag: Summary
    errors: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def failed(self) -> int:
        """Requests without a complete answer."""
        return self.requests - self.completed

    @property
    def error_rate(self) -> float:
        """Share of requests that failed; 0 of none."""
        return self.failed / self.requests if self.requests else 0.0

    @property
    def requests_per_s(self) -> float:
        """Complete answers a second."""
        return self._rate(self.completed)

    @property
    def goodput(self) -> float | None:
        """Good requests a second."""
        return None if self.good is None else self._rate(self.good)

    @property
    def output_tokens_per_s(self) -> float:
        """Answer tokens a second, all streams together."""
        return self._rate(self.output_tokens)

    @property
    def tokens_per_s(self) -> float:
        """Prompt and answer tokens a second."""
        return self._rate(self.input_tokens + self.output_tokens)

    @property
    def mean_input(self) -> float:
        """Prompt tokens of a counted answer, on average."""
        return self._mean(self.input_tokens)

    @property
    def mean_output(self) -> float:
        """Answer tokens of a counted answer, on average."""
        return self._mean(self.output_tokens)

    def _rate(self, amount: float) -> float:
        return amount / self.duration_s if self.duration_s > 0 else 0.0

    def _mean(self, amount: int) -> float:
        counted = self.completed - self.uncounted
        return amount / counted if counted else 0.0


def percentile(ordered: Sequence[float], percent: float) -> float:
    """A percentile of values in rising order, linear between neighbours (numpy's default).

    Raises:
        ValueError: when there are no values.
    """
    if not ordered:
        raise ValueError("no values")
    place = (len(ordered) - 1) * percent / 100
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def summary(seconds: Iterable[float]) -> Summary:
    """The distribution of values given in seconds."""
    ordered = sorted(value * 1000 for value in seconds)
    if not ordered:
        return Summary()
    mean = math.fsum(ordered) / len(ordered)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in ordered) / len(ordered))
    p50, p90, p95, p99 = (percentile(ordered, percent) for percent in PERCENTILES)
    return Summary(len(ordered), mean, spread, p50, p90, p95, p99, ordered[-1])


def duration(records: Sequence[Record]) -> float:
    """Seconds from the first intended send to the end of the last answer."""
    if not records:
        return 0.0
    return max(record.ended for record in records) - min(record.intended for record in records)


def figures(records: Sequence[Record], goodput: Goodput | None = None) -> Figures:
    """Everything that is reported of a run."""
    done = [record for record in records if record.ok]
    counted = [record for record in done if record.output_tokens is not None]
    errors: dict[str, int] = {}
    for record in records:
        if not record.ok:
            errors[record.error] = errors.get(record.error, 0) + 1
    bounds = goodput if goodput and goodput.asks() else None
    return Figures(
        requests=len(records),
        completed=len(done),
        duration_s=duration(records),
        good=sum(map(bounds.kept, done)) if bounds else None,
        input_tokens=sum(record.prompt_tokens or 0 for record in counted),
        output_tokens=sum(record.output_tokens or 0 for record in counted),
        uncounted=len(done) - len(counted),
        pieces=sum(len(record.pieces) for record in counted),
        ttft=summary(record.ttft for record in done),
        itl=summary(gap for record in done for gap in record.gaps),
        tpot=summary(tpot for record in done if (tpot := record.tpot) is not None),
        e2e=summary(record.e2e for record in done),
        lag=summary(record.lag for record in records),
        errors=dict(sorted(errors.items(), key=lambda entry: -entry[1])),
    )
