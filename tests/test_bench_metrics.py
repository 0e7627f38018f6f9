"""The definitions of a load test's figures, held against hand-made requests."""

from __future__ import annotations

import statistics
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.apis import api_models
from serving.bench.load import Closed, Open, Until, schedule
from serving.bench.metrics import Figures, figures, percentile, summary
from serving.bench.money import money, saved
from serving.bench.record import Goodput, Record
from serving.bench.sweep import HALVINGS, Step, kept_up, next_load, saturation
from serving.breakeven import per_million_tokens

ANSWER = Record(10.0, 10.5, (11.0, 11.1, 11.4), 11.5, prompt_tokens=20, output_tokens=5)
REFUSED = Record(10.0, 10.0, (), 10.1, error="HTTP 429 slow down")


def figured(requests: int = 100, failed: int = 0, per_s: float = 10.0, tokens: int = 32, prompt: int = 100) -> Figures:
    """A run with that many requests, `per_s` of them a second."""
    done = requests - failed
    records = [
        Record(i / per_s, i / per_s, (i / per_s + 0.1, i / per_s + 0.5), i / per_s + 0.5, prompt, tokens)
        for i in range(done)
    ] + [Record(0.0, 0.0, (), 0.1, error="HTTP 500") for _ in range(failed)]
    return figures(records)


def test_latencies_count_from_the_intended_send_time_not_from_the_real_one() -> None:
    assert ANSWER.ttft == pytest.approx(1.0)
    assert ANSWER.e2e == pytest.approx(1.4)
    assert ANSWER.lag == pytest.approx(0.5)


def test_time_per_output_token_divides_by_the_servers_count_of_tokens_not_by_pieces() -> None:
    assert ANSWER.tpot == pytest.approx(0.4 / 4)
    assert ANSWER.gaps == pytest.approx((0.1, 0.3))


def test_an_answer_of_one_token_or_of_unknown_length_has_no_time_per_output_token() -> None:
    assert Record(0, 0, (1.0,), 1.0, 5, 1).tpot is None
    assert Record(0, 0, (1.0, 2.0), 2.0).tpot is None


def test_failed_requests_count_as_errors_and_in_the_duration_but_have_no_latencies() -> None:
    found = figures([ANSWER, REFUSED])
    assert (found.requests, found.completed, found.failed, found.error_rate) == (2, 1, 1, 0.5)
    assert found.errors == {"HTTP 429 slow down": 1}
    assert found.ttft.count == found.e2e.count == 1
    assert found.duration_s == pytest.approx(1.5)
    assert found.output_tokens_per_s == pytest.approx(5 / 1.5)
    assert found.tokens_per_s == pytest.approx(25 / 1.5)


def test_an_answer_without_usage_counts_as_complete_but_adds_no_tokens() -> None:
    found = figures([ANSWER, Record(10.0, 10.0, (11.0, 12.0), 12.0)])
    assert (found.completed, found.uncounted, found.output_tokens, found.pieces) == (2, 1, 5, 3)
    assert found.mean_output == 5


def test_goodput_needs_every_bound_and_never_counts_a_failed_request() -> None:
    assert figures([ANSWER]).goodput is None
    assert figures([ANSWER, REFUSED], Goodput(ttft=1.0001)).good == 1
    assert figures([ANSWER], Goodput(ttft=1.0001, tpot=0.05)).good == 0
    assert figures([ANSWER], Goodput(ttft=1.0001, tpot=0.11, e2e=1.3)).good == 0
    assert figures([Record(0, 0, (0.1,), 0.1, 5, 1)], Goodput(tpot=0.001)).good == 1


def test_figures_of_nothing_are_zero() -> None:
    found = figures([])
    assert (found.requests_per_s, found.error_rate, found.ttft.p99, found.mean_output) == (0, 0, 0, 0)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=200), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(values: list[float], percent: int) -> None:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    assert percentile(sorted(values), percent) == pytest.approx(cuts[percent - 1])


def test_a_summary_is_in_milliseconds() -> None:
    found = summary([0.001, 0.003])
    assert (found.mean, found.p50, found.std, found.most) == pytest.approx((2.0, 2.0, 1.0, 3.0))


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_constant_arrivals_do_not_drift() -> None:
    times = list(schedule(Open(3.0, "constant"), Until(requests=30_001), Random(1)))
    assert times[0] == 0.0
    assert times[-1] == pytest.approx(10_000.0, abs=1e-9)


@given(st.floats(0.5, 500), st.integers(0, 2**32))
def test_poisson_arrivals_rise_keep_their_rate_and_repeat_with_their_seed(rate: float, seed: int) -> None:
    times = list(schedule(Open(rate), Until(requests=2000), Random(seed)))
    assert times == sorted(times)
    assert times == list(schedule(Open(rate), Until(requests=2000), Random(seed)))
    # The sum of 1999 exponential gaps has a standard deviation of 2.2 per cent.
    assert 1999 / times[-1] == pytest.approx(rate, rel=0.15)


def test_a_schedule_ends_with_its_time_or_its_number_whichever_comes_first() -> None:
    assert len(list(schedule(Open(10.0, "constant"), Until(seconds=1.0), Random(1)))) == 10
    assert len(list(schedule(Open(10.0, "constant"), Until(4, 1.0), Random(1)))) == 4
    with pytest.raises(ValueError, match="without an end"):
        Until()


def test_loads_say_what_they_are() -> None:
    assert (str(Closed(8)), str(Open(2.5))) == ("8 at a time", "2.5 a second, poisson")


def climbed(kind: str, capacity: float, most: float = 4096) -> list[Step]:
    """A whole sweep against a server that answers `capacity` requests a second, each in 100 ms when it is free."""
    steps: list[Step] = []
    load: float | None = 1.0
    while load is not None:
        if kind == "concurrency":
            steps.append(Step(load, figured(per_s=min(capacity, load * 10))))
        else:
            steps.append(Step(load, figured(per_s=min(capacity, load)), min(1.0, capacity / load)))
        load = next_load(steps, "concurrency" if kind == "concurrency" else "rate", most)
    return steps


@given(st.floats(3, 3000))
def test_a_sweep_of_concurrency_ends_one_doubling_after_throughput_stops_growing(capacity: float) -> None:
    steps = climbed("concurrency", capacity)
    best = saturation(steps)
    assert best is not None
    doubled = max(step.figures.requests_per_s for step in steps)
    assert best.figures.requests_per_s == doubled
    assert steps[-1].figures.requests_per_s < 1.05 * steps[-2].figures.requests_per_s
    assert len(steps) <= 12


@given(st.floats(3, 3000))
def test_a_sweep_of_rates_closes_in_on_what_the_server_keeps_up_with(capacity: float) -> None:
    steps = climbed("rate", capacity)
    good = [step.load for step in steps if not step.failing]
    bad = [step.load for step in steps if step.failing]
    assert max(good) <= capacity / 0.9 * 1.001
    assert min(bad) > capacity
    assert min(bad) - max(good) <= max(good) / 2 ** (HALVINGS - 1)


def test_a_sweep_stops_at_the_highest_load_that_is_allowed() -> None:
    assert [step.load for step in climbed("rate", 1000, most=6)] == [1, 2, 4, 6]


def test_a_sweep_that_fails_from_the_start_goes_down_and_finds_no_saturation() -> None:
    steps = [Step(8.0, figured(failed=50), 1.0)]
    while (load := next_load(steps, "rate", 100)) is not None:
        steps.append(Step(load, figured(failed=50), 1.0))
    assert [step.load for step in steps] == [8, 4, 2, 1]
    assert saturation(steps) is None


def test_errors_end_a_sweep_of_concurrency() -> None:
    assert next_load([Step(1.0, figured()), Step(2.0, figured(failed=2, per_s=20))], "concurrency", 100) is None


def test_a_queue_that_only_grows_is_seen_and_a_steady_one_is_not() -> None:
    steady = [Record(i * 0.1, i * 0.1, (i * 0.1 + 1.0,), i * 0.1 + 1.0) for i in range(200)]
    growing = [Record(i * 0.1, i * 0.1, (i * 0.2 + 1.0,), i * 0.2 + 1.0) for i in range(200)]
    assert kept_up(steady) == pytest.approx(1.0, abs=0.02)
    assert kept_up(growing) == pytest.approx(0.5, abs=0.05)
    assert kept_up([]) == 1.0


def test_a_million_tokens_cost_what_the_hour_costs_at_the_measured_speed() -> None:
    run = figured(per_s=10.0, tokens=32)
    found = money(run, Decimal("0.34"), api_models(), Decimal(4))
    assert found is not None
    speed = Decimal(str(round(run.output_tokens_per_s, 2)))
    assert found.per_million_output == per_million_tokens(Decimal("0.34"), speed)
    assert found.per_million_total < found.per_million_output
    assert found.requests_a_month == int(Decimal(str(round(run.requests_per_s, 2))) * 730 * 3600)
    assert found.monthly == Decimal("248.20")


def test_an_api_is_compared_at_the_tokens_that_were_measured() -> None:
    run = figured(tokens=200, prompt=500)
    api = next(api for api in api_models() if api.name == "Claude Haiku 4.5")
    found = money(run, Decimal("0.34"), [api], Decimal(1))
    assert found is not None
    each = (500 * api.input_per_m + 200 * api.output_per_m) / 10**6
    assert found.against.against[0].per_request == each
    crossing = found.against.against[0].crossings[0]
    assert crossing is not None and crossing.requests == int(Decimal("248.20") / each)
    assert saved(found, api, 500_000) == 500_000 * each - Decimal("248.20")


def test_nothing_is_said_about_money_when_no_token_was_counted() -> None:
    assert money(figures([REFUSED]), Decimal("0.34"), api_models(), Decimal(4)) is None
