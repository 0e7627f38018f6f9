"""Two result files against one another: which figures differ, and how surely."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

from serving.bench.intervals import Difference, Sampled, difference, sampled_percentile, sampled_rate
from serving.bench.result import Answer, Result


def compare(a: Result, b: Result, seed: int = 0) -> tuple[Difference, ...]:
    """Every figure that both runs have. The same seed gives the same intervals."""
    return tuple(_differences(a, b, Random(seed)))


_Get = Callable[[Answer], float | None]

_LATENCIES: tuple[tuple[str, tuple[int, ...], _Get], ...] = (
    ("TTFT", (50, 95, 99), lambda answer: answer.ttft),
    ("TPOT", (50, 95), lambda answer: answer.tpot),
    ("ITL, mean of a request", (50, 95), lambda answer: answer.gap),
    ("end to end", (50, 95, 99), lambda answer: answer.e2e),
)


def _differences(a: Result, b: Result, random: Random) -> Iterator[Difference]:
    for name, percents, get in _LATENCIES:
        of_a = [value * 1000 for answer in a.answers if (value := get(answer)) is not None]
        of_b = [value * 1000 for answer in b.answers if (value := get(answer)) is not None]
        if not of_a or not of_b:
            continue
        for percent in percents:
            yield difference(
                f"{name} p{percent}",
                "ms",
                "lower",
                sampled_percentile(of_a, percent, random),
                sampled_percentile(of_b, percent, random),
            )
    answered = (_rate(run, lambda _: 1.0, random) for run in (a, b))
    yield difference("requests", "req/s", "higher", *answered)
    spoken = (_rate(run, lambda answer: float(answer.output_tokens), random) for run in (a, b))
    yield difference("answer tokens", "tok/s", "higher", *spoken)


def _rate(run: Result, amount: Callable[[Answer], float], random: Random) -> Sampled:
    events = [(answer.start + answer.e2e, amount(answer)) for answer in run.answers]
    return sampled_rate(events, run.duration_s, random)


def slower(differences: Sequence[Difference], percent: float) -> tuple[Difference, ...]:
    """Those that are surely worse by more than that many per cent."""
    return tuple(one for one in differences if one.worse_by(percent))
