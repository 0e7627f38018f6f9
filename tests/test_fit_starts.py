"""The estimator against starts that were observed."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest
from starts import (
    ACCURACY,
    HELD_BY_WORKER_GIB,
    MARK,
    OBSERVED,
    Start,
    accuracy_tables,
    as_rented,
    errors,
    missed_as_rented,
    observed_csv,
    refused_as_rented,
    starts,
)

from serving.fit import fits, highest_utilization
from serving.gpus import gpu
from serving.memory import context_gib


def test_there_are_enough_observed_starts_and_failures_among_them() -> None:
    assert len(starts()) >= 25
    assert sum(s.outcome == "fail" for s in starts()) >= 10
    assert len({s.id for s in starts()}) == len(starts())


@pytest.mark.parametrize("start", starts(), ids=lambda s: s.id)
def test_it_is_foretold_whether_the_server_starts(start: Start) -> None:
    assert start.verdict == start.outcome, start.fit.shortfalls or start.fit.summary()


@pytest.mark.parametrize("start", [s for s in starts() if s.counts], ids=lambda s: s.id)
def test_kv_tokens_are_within_a_fifth(start: Start) -> None:
    assert start.error is not None
    assert abs(start.error) <= 0.20, start.fit.summary()


@pytest.mark.parametrize("found", ["before", "after"])
def test_kv_tokens_are_within_a_tenth_at_the_median(found: str) -> None:
    seen = errors(found)
    assert len(seen) >= 8
    assert statistics.median(seen) <= 0.10


@pytest.mark.parametrize("start", [s for s in starts() if s.weights_gib], ids=lambda s: s.id)
def test_weights_are_within_what_releases_differ_by(start: Start) -> None:
    assert start.fit.memory.weights == pytest.approx(start.weights_gib, abs=0.15)


def test_the_preview_lets_no_failure_pass_and_refuses_few_that_came_up() -> None:
    assert missed_as_rented() == []
    assert len(refused_as_rented()) <= 5


def test_what_the_preview_refuses_although_it_came_up_needs_little_less_of_the_card() -> None:
    for start, fit in refused_as_rented():
        most = highest_utilization(fit.memory)
        assert start.fit.engine.utilization - most <= 0.05
        assert fits(fit.model, fit.gpu, replace(fit.engine, utilization=most)).memory.card_free >= 0


def test_the_page_owns_up_to_starts_that_are_right_only_without_what_others_held() -> None:
    for name, held in HELD_BY_WORKER_GIB.items():
        (start,) = [start for start in starts() if start.id == name]
        assert (start.outcome, as_rented(start, held).ok) == ("ok", False)
        assert name in accuracy_tables().partition("## Every start")[0]


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("RTX 4090", 0.39),
        ("L40S", 0.49),
        ("A100 80GB SXM", 0.49),
        ("H100 SXM", 0.47),
        ("RTX 5090", 0.50),
        ("RTX PRO 6000", 0.56),
        ("B300", 0.61),
    ],
)
def test_a_context_is_as_large_as_logs_of_idle_cards_show(name: str, seen: float) -> None:
    assert context_gib(gpu(name)) == pytest.approx(seen, abs=0.07)


def test_the_accuracy_page_says_what_the_code_computes() -> None:
    assert ACCURACY.read_text(encoding="utf-8").partition(MARK)[2].strip() == accuracy_tables().strip()


def test_the_packaged_starts_are_those_of_the_table() -> None:
    assert OBSERVED.read_text(encoding="utf-8") == observed_csv()


def test_every_start_of_a_release_we_model_is_near_itself() -> None:
    modelled = [s for s in starts() if s.counts and not s.fit.model.caveats]
    assert modelled
    assert not [s.id for s in modelled if s.fit.extrapolated]
