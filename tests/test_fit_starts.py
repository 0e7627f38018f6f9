"""The estimator against starts that were observed."""

from __future__ import annotations

import statistics

import pytest
from starts import ACCURACY, MARK, OBSERVED, Start, accuracy_tables, errors, observed_csv, starts


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


def test_the_accuracy_page_says_what_the_code_computes() -> None:
    assert ACCURACY.read_text(encoding="utf-8").partition(MARK)[2].strip() == accuracy_tables().strip()


def test_the_packaged_starts_are_those_of_the_table() -> None:
    assert OBSERVED.read_text(encoding="utf-8") == observed_csv()


def test_every_start_of_a_release_we_model_is_near_itself() -> None:
    modelled = [s for s in starts() if s.counts and not s.fit.model.caveats]
    assert modelled
    assert not [s.id for s in modelled if s.fit.extrapolated]
