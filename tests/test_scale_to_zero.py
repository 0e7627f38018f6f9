"""The time that workers are up, against a simulation that knows none of the formulas."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulate import HARDEST, ONE_WORKER, SERVICES, SEVERAL_WORKERS, Case, Service, simulate, written

from serving.scale_to_zero import (
    Load,
    always_on_rate,
    awake,
    cold_share,
    load_of,
    worker_seconds,
)

DOCUMENT = Path(__file__).parent.parent / "docs" / "cost.md"


def load_in(case: Case) -> Load:
    return Load(
        case.rate,
        case.service_s,
        case.idle_s,
        case.boot_s,
        case.concurrency,
        case.max_workers,
        case.min_workers,
    )


# The rows of a table in the project's notes, found there with 600,000 arrivals each.
KNOWN = [
    (ONE_WORKER[0], 0.0989, 901),
    (ONE_WORKER[1], 0.2544, 746),
    (ONE_WORKER[2], 0.5706, 429),
    (ONE_WORKER[3], 0.8058, 1942),
    (ONE_WORKER[4], 0.1379, 172),
    (ONE_WORKER[5], 0.9198, None),
]


@pytest.mark.parametrize(("case", "up", "starts"), KNOWN, ids=str)
def test_the_formulas_give_what_was_worked_out_by_hand(case: Case, up: float, starts: int | None) -> None:
    result = awake(load_in(case))
    assert round(result.workers, 4) == up
    assert starts is None or round(result.starts * 86_400) == starts


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("case", [*ONE_WORKER, *SEVERAL_WORKERS], ids=str)
def test_the_estimate_agrees_with_a_simulation_within_two_percent(case: Case, service: Service) -> None:
    assert awake(load_in(case)).workers == pytest.approx(case.seen(service).workers, rel=0.02)


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("case", HARDEST, ids=str)
def test_where_the_spread_of_answers_matters_it_agrees_within_five_percent(case: Case, service: Service) -> None:
    assert awake(load_in(case)).workers == pytest.approx(case.seen(service).workers, rel=0.05)


@pytest.mark.parametrize("case", [*ONE_WORKER, SEVERAL_WORKERS[2], *SEVERAL_WORKERS[4:6]], ids=str)
def test_phases_and_starts_agree_with_a_simulation_of_the_same_answers(case: Case) -> None:
    """A formula is exact for a constant service time; a replay has a lognormal one."""
    one = case.max_workers == 1
    ours, seen = awake(load_in(case)), case.seen("constant" if one else "lognormal")
    assert ours.answering == pytest.approx(seen.answering, rel=0.03)
    assert ours.idle == pytest.approx(seen.idle, rel=0.03)
    assert ours.booting == pytest.approx(seen.booting, rel=0.06)
    assert ours.starts == pytest.approx(seen.starts, rel=0.06)


def test_the_table_in_the_documentation_is_what_comes_out_now() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert written(text) == text


def test_the_simulation_bills_a_worker_that_nothing_interrupts_for_start_answer_and_idling() -> None:
    """Requests so rare that each has a start, an answer and an idle window of its own: 20 + 4 + 5 s."""
    seen = simulate(1e-7, 4, 5, 20, arrivals=2_000)
    assert seen.workers / seen.starts == pytest.approx(29, rel=1e-3)


def loads() -> st.SearchStrategy[Load]:
    return st.builds(
        Load,
        rate=st.just(0.0) | st.floats(1e-6, 20),
        service_s=st.floats(0.01, 600),
        idle_s=st.floats(1, 3600),
        boot_s=st.floats(0, 600),
        concurrency=st.integers(1, 256),
    )


def limited(load: Load, least: int, more: int) -> Load:
    return replace(load, min_workers=least, max_workers=max(1, least + more))


@given(loads(), st.integers(0, 3), st.integers(0, 1))
def test_workers_stay_within_their_limits_and_no_phase_is_negative(load: Load, least: int, more: int) -> None:
    load = limited(load, least, more if not least else 0)
    result = awake(load)
    assert least <= result.workers <= load.max_workers * (1 + 1e-9)
    assert min(result.answering, result.idle, result.booting, result.starts) >= 0
    assert 0 <= cold_share(load, result) <= 1


@settings(max_examples=10)
@given(loads(), st.integers(0, 2), st.integers(1, 3))
def test_several_workers_stay_within_their_limits(load: Load, least: int, more: int) -> None:
    load = limited(load, least, more)
    result = awake(load)
    assert least <= result.workers <= load.max_workers * (1 + 1e-9)
    assert min(result.answering, result.idle, result.booting, result.starts) >= 0


@given(loads(), st.floats(1, 10))
def test_more_traffic_never_makes_one_worker_sleep_longer(load: Load, factor: float) -> None:
    busier = replace(load, rate=load.rate * factor)
    assert awake(busier).workers >= awake(load).workers * (1 - 1e-9)


@given(loads(), st.floats(1, 600))
def test_a_longer_idle_window_or_start_never_bills_less(load: Load, more: float) -> None:
    up = awake(load).workers * (1 - 1e-9)
    assert awake(replace(load, idle_s=load.idle_s + more)).workers >= up
    assert awake(replace(load, boot_s=load.boot_s + more)).workers >= up


def test_without_requests_only_the_workers_that_are_always_up_bill() -> None:
    assert awake(Load(0, 4, 60, 60, max_workers=3)).workers == 0
    assert awake(Load(0, 4, 60, 60, max_workers=3, min_workers=2)).workers == 2


def test_more_than_all_workers_can_answer_keeps_them_up_and_says_so() -> None:
    result = awake(Load(2, 4, 60, 60, concurrency=2, max_workers=3, min_workers=1))
    assert result.saturated
    assert (result.workers, result.always, result.starts) == (3, 1, 0)


def test_a_replay_gives_the_same_each_time_it_is_asked() -> None:
    from serving import scale_to_zero

    load = load_in(SEVERAL_WORKERS[4])
    first = awake(load)
    scale_to_zero._replayed.cache_clear()
    scale_to_zero._arrivals.cache_clear()
    assert awake(load) == first


def test_a_rush_when_all_is_off_does_not_count_where_traffic_never_stops() -> None:
    """500 requests a second of 4 s need 67 workers of 30 together; a cold start would begin with all of 100."""
    assert 67 <= awake(Load(500, 4, 60, 60, concurrency=30, max_workers=100)).workers < 75


def test_two_workers_that_suffice_up_to_a_load_meet_the_formula_of_one() -> None:
    """Just before and after a second worker counts, formula and replay say nearly the same."""
    rates = [index / 1000 for index in range(50, 400, 25)]
    for rate in rates:
        one = awake(Load(rate, 4, 30, 20, concurrency=16)).workers
        two = awake(Load(rate, 4, 30, 20, concurrency=16, max_workers=2)).workers
        assert two == pytest.approx(one, rel=0.02)


def test_the_worked_example_of_a_thousand_requests_a_day_on_a_16_gb_class() -> None:
    load = load_of(1000, Decimal(4), 5, Decimal(20), 30)
    result = awake(load)
    seconds = worker_seconds(result.workers, Decimal(730))
    assert seconds == 668_658
    assert round(seconds * Decimal("0.00016"), 2) == Decimal("106.99")
    assert round(cold_share(load, result), 2) == 0.75
    busy_only = worker_seconds(load.rate * load.service_s, Decimal(730))
    assert round(busy_only * Decimal("0.00016"), 2) == Decimal("19.47")


# Requests a day from which an active worker was cheaper, at RunPod's prices of 2025-08-25, without and with a start.
BREAK_EVEN = [
    ("0.00011", "0.00016", 11_166, 5_865),
    ("0.00013", "0.00019", 11_066, 5_787),
    ("0.00021", "0.00031", 10_861, 5_628),
    ("0.00060", "0.00076", 14_958, 9_226),
    ("0.00093", "0.00116", 15_534, 9_799),
]


@pytest.mark.parametrize(("active", "flex", "cold_free", "cold"), BREAK_EVEN)
def test_always_on_pays_from_a_number_of_requests_a_day(active: str, flex: str, cold_free: int, cold: int) -> None:
    share = float(Decimal(active) / Decimal(flex))
    assert round(always_on_rate(4, 5, 0, share) * 86_400) == cold_free
    assert round(always_on_rate(4, 5, 20, share) * 86_400) == cold


def test_at_equal_prices_always_on_never_pays() -> None:
    assert always_on_rate(4, 5, 20, 1.0) == math.inf
