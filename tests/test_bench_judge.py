"""What follows from figures: objectives, intervals, result files, prompts, charts."""

from __future__ import annotations

import io
import itertools
import json
import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ops.bench_charts import spread_chart, sweep_charts
from ops.bench_progress import live, progress
from serving.bench.compare import compare, slower
from serving.bench.intervals import difference, sampled_percentile, sampled_rate
from serving.bench.load import Closed, Open, Until
from serving.bench.metrics import figures
from serving.bench.prompts import (
    Calibration,
    PromptError,
    calibrated,
    everyday,
    recorded,
    synthetic,
)
from serving.bench.record import Record
from serving.bench.result import About, Result, ResultError, read_result, result
from serving.bench.slo import Known, Row, SloError, decision, parse_slo, uptime, verdicts
from serving.bench.sweep import Step

DAY = datetime(2026, 11, 21, 8, tzinfo=UTC)


def records(count: int = 200, scale: float = 1.0, seed: int = 1) -> list[Record]:
    """Answers of ten pieces whose first token takes 0.2 s on average, times `scale`."""
    draw = Random(seed)
    made: list[Record] = []
    for index in range(count):
        sent = index * 0.1
        first = sent + scale * draw.uniform(0.1, 0.3)
        pieces = tuple(first + 0.02 * scale * piece for piece in range(10))
        made.append(Record(sent, sent, pieces, pieces[-1], 50, 10))
    return made


def saved(count: int = 200, scale: float = 1.0, seed: int = 1) -> Result:
    these = records(count, scale, seed)
    about = About("stub", Closed(10), DAY, f"x{scale:g}")
    return read_result(json.dumps(result(about, figures(these), these, goodput=False)), "a.json")


VLLM_FIELDS = """
date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness max_concurrency duration
completed failed total_input_tokens total_output_tokens request_throughput request_goodput output_throughput
total_token_throughput input_lens output_lens ttfts itls latencies start_times errors
mean_ttft_ms median_ttft_ms std_ttft_ms p99_ttft_ms mean_tpot_ms median_tpot_ms std_tpot_ms p99_tpot_ms
mean_itl_ms median_itl_ms std_itl_ms p99_itl_ms mean_e2el_ms median_e2el_ms std_e2el_ms p99_e2el_ms
"""
"""What a load test knows of what `vllm bench serve --save-result --save-detailed` of vLLM 0.32 writes."""

SEEDS_CRITERIA = {
    "e2e_ms": {"p95": 500},
    "error_rate": 0.01,
    "uptime": 0.99,
    "saved_monthly_usd": 100,
    "quality": {"at_least": 0.7},
}


def by_name(rows: tuple[Row, ...]) -> dict[str, str]:
    return {row.criterion: row.verdict for row in rows}


def test_what_a_load_test_cannot_know_leaves_the_decision_open() -> None:
    run = figures(records())
    rows = verdicts(parse_slo(SEEDS_CRITERIA), run, Known())
    assert by_name(rows) == {
        "end to end p95": "pass",
        "errors": "pass",
        "uptime": "unknown",
        "saved a month": "unknown",
        "answer quality": "unknown",
    }
    assert decision(rows) == "open"
    assert all(row.note for row in rows if row.verdict == "unknown")


def test_it_is_go_when_everything_is_known_and_met() -> None:
    slo = parse_slo(SEEDS_CRITERIA | {"quality": {"at_least": 0.7, "judged": 0.75}})
    rows = verdicts(slo, figures(records()), Known(uptime=(0.995, 1000), saved=Decimal("100.01")))
    assert decision(rows) == "go"


def test_one_failing_criterion_is_no_go_whatever_is_unknown() -> None:
    rows = verdicts(parse_slo(SEEDS_CRITERIA), figures(records(scale=2.0)), Known())
    assert by_name(rows)["end to end p95"] == "fail"
    assert decision(rows) == "no-go"


def test_a_run_without_answers_meets_no_objective() -> None:
    nothing = figures([Record(0, 0, (), 1, error="HTTP 500")])
    rows = verdicts(parse_slo({"ttft_ms": {"p99": 1e6}, "error_rate": 0.5, "requests_per_s": 0.001}), nothing, Known())
    assert set(by_name(rows).values()) == {"fail"}
    assert verdicts(parse_slo({"error_rate": 1.0}), figures([]), Known())[0].verdict == "fail"


def test_every_latency_throughput_and_money_can_be_asked_for() -> None:
    slo = parse_slo(
        {
            "ttft_ms": {"mean": 250, "p50": 250},
            "itl_ms": {"p99": 19},
            "tpot_ms": {"p90": 21},
            "requests_per_s": 5,
            "output_tokens_per_s": 1000,
            "goodput": {"ttft_ms": 200, "share": 0.3, "requests_per_s": 100},
            "usd_per_million_tokens": "0.50",
        }
    )
    run = figures(records(), slo.good())
    assert by_name(verdicts(slo, run, Known(usd_per_million_tokens=Decimal("0.49")))) == {
        "TTFT mean": "pass",
        "TTFT p50": "pass",
        "ITL p99": "fail",
        "TPOT p90": "pass",
        "requests a second": "pass",
        "answer tokens a second": "fail",
        "good requests": "pass",
        "good requests a second": "fail",
        "$ per 1M answer tokens": "pass",
    }


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"ttft_ms": {"p97": 5}}, "ttft_ms.p97"),
        ({"ttft_ms": {"p95": -1}}, "ttft_ms.p95"),
        ({"error_rate": 5}, "error_rate"),
        ({"latency": 5}, "latency"),
        (["x"], "the file"),
    ],
)
def test_a_wrong_objective_is_named_with_its_value_and_what_there_is(content: object, key: str) -> None:
    with pytest.raises(SloError) as caught:
        parse_slo(content)
    assert key in str(caught.value)
    assert "criteria are: ttft_ms" in str(caught.value)


def test_uptime_is_the_share_of_checks_that_were_answered() -> None:
    assert uptime([minute != 3 for minute in range(10)]) == (0.9, 10)
    assert uptime([]) is None


def test_a_look_that_asked_nothing_says_nothing_of_uptime() -> None:
    assert uptime([True, None, None, False]) == (0.5, 2)
    assert uptime([None]) is None


def test_the_result_file_has_the_field_names_of_vllm_bench_serve() -> None:
    these = [*records(3), Record(1.0, 1.0, (), 1.1, error="HTTP 500")]
    content = result(About("stub", Open(2.0), DAY, "run"), figures(these), these, goodput=False)
    assert set(VLLM_FIELDS.split()) <= set(content)
    assert (content["completed"], content["failed"], content["num_prompts"]) == (3, 1, 4)
    assert (content["request_rate"], content["burstiness"], content["date"]) == (2.0, 1.0, "20261121-080000")
    assert len(content["ttfts"]) == len(content["itls"]) == len(content["errors"]) == 4
    assert content["ttfts"][3] == 0.0 and content["itls"][3] == []


def test_a_result_reads_back_without_its_failures() -> None:
    these = [*records(3), Record(1.0, 1.0, (), 1.1, error="HTTP 500")]
    text = json.dumps(result(About("stub", Closed(1), DAY), figures(these), these, goodput=False))
    found = read_result(text, "a.json")
    assert (found.label, found.requests, len(found.answers)) == ("a.json", 4, 3)
    assert found.answers[1].ttft == pytest.approx(these[1].ttft, abs=1e-6)
    assert found.answers[1].e2e == pytest.approx(these[1].e2e, abs=1e-6)
    assert found.answers[1].tpot == pytest.approx(0.02, abs=1e-6)


def test_a_result_of_vllm_without_latencies_gets_them_from_its_gaps() -> None:
    content = {"duration": 1, "ttfts": [0.5], "itls": [[0.1, 0.2]], "output_lens": [3], "start_times": [9.0]}
    found = read_result(json.dumps(content), "v.json")
    assert found.answers[0].e2e == pytest.approx(0.8)
    assert found.answers[0].tpot == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ('{"duration": 1}', "--save-detailed"),
        ("{}\n{}", "a sweep"),
        ('{"duration": 1, "ttfts": [0.0], "itls": [[]], "output_lens": [0], "start_times": [0]}', "no request"),
        ('{"duration": 1, "ttfts": [1, 2], "itls": [[1]], "output_lens": [1], "start_times": [0]}', "not a result"),
        ('{"duration": 0, "ttfts": [1], "itls": [[1]], "output_lens": [1], "start_times": [0]}', "duration"),
        ('{"duration": 1, "ttfts": [NaN], "itls": [[1]], "output_lens": [1], "start_times": [0]}', "ttfts"),
    ],
)
def test_what_cannot_be_compared_says_why(text: str, said: str) -> None:
    with pytest.raises(ResultError, match=said):
        read_result(text, "a.json")


def test_a_slower_server_is_told_from_an_equal_one() -> None:
    verdict = {one.name: one.verdict for one in compare(saved(), saved(scale=1.5, seed=2))}
    assert verdict["TTFT p50"] == verdict["end to end p95"] == verdict["TPOT p50"] == "worse"
    verdict = {one.name: one.verdict for one in compare(saved(scale=1.5, seed=2), saved())}
    assert verdict["TTFT p50"] == "better"
    verdict = {one.name: one.verdict for one in compare(saved(), saved(seed=2))}
    assert verdict["TTFT p50"] == verdict["requests"] == "no difference shown"


def test_only_what_is_surely_slower_by_more_than_allowed_fails_a_comparison() -> None:
    found = compare(saved(), saved(scale=1.5, seed=2))
    assert {one.name for one in slower(found, 10)} >= {"TTFT p50", "TPOT p50"}
    assert slower(found, 60) == ()


def test_the_same_seed_gives_the_same_intervals() -> None:
    assert compare(saved(), saved(seed=2), 7) == compare(saved(), saved(seed=2), 7)


def test_a_tail_of_too_few_requests_has_no_interval() -> None:
    by_name = {one.name: one for one in compare(saved(50), saved(50, seed=2))}
    assert by_name["TTFT p99"].verdict == "too few requests"
    assert by_name["TTFT p99"].low is None
    assert by_name["TTFT p50"].low is not None


def test_the_drawn_percentile_has_the_distribution_of_a_resampled_one() -> None:
    values = [Random(3).expovariate(1.0) for _ in range(60)]
    draw = Random(4)
    sampled = sampled_percentile(values, 80, Random(5))
    assert sampled.draw is not None
    fast = sorted(sampled.draw() for _ in range(4000))
    slow = sorted(sorted(draw.choices(values, k=60))[47] for _ in range(4000))
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        place = int(share * 4000)
        # Between the values a twentieth of the distribution to either side.
        assert slow[place - 200] <= fast[place] <= slow[place + 200]


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_an_interval_holds_the_change_that_was_seen(seed: int) -> None:
    draw = Random(seed)
    a, b = ([draw.gauss(100, 15) for _ in range(150)] for _ in range(2))
    found = difference(
        "x", "ms", "lower", sampled_percentile(a, 50, Random(seed)), sampled_percentile(b, 50, Random(seed + 1))
    )
    assert found.low is not None and found.high is not None
    assert found.low <= found.b - found.a <= found.high


def test_a_rate_is_what_came_over_the_time_it_took() -> None:
    events = [(second * 0.5, 2.0) for second in range(40)]
    sampled = sampled_rate(events, 20.0, Random(1))
    assert sampled.value == 4.0
    assert sampled.draw is not None and sampled.draw() == pytest.approx(4.0)
    assert sampled_rate(events[:5], 20.0, Random(1)).draw is None
    with pytest.raises(ValueError, match="duration"):
        sampled_rate(events, 0.0, Random(1))


def test_calibration_finds_the_template_and_the_price_of_a_word() -> None:
    assert calibrated([(16, 36), (112, 228)]) == Calibration(overhead=4, per_word=2)
    assert Calibration(4, 2).words(104) == 50


def test_a_prompt_shorter_than_the_template_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(PromptError, match="41 is the least"):
        next(synthetic(30, 8, Calibration(40, 1), Random(1)))


def test_a_server_that_counts_nonsense_is_not_calibrated() -> None:
    with pytest.raises(PromptError, match="can't be trusted"):
        calibrated([(16, 50), (112, 50)])


def test_a_sharegpt_file_gives_its_first_questions_and_the_length_of_their_answers() -> None:
    good = [
        {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": "a" * 40}]} for i in range(5)
    ]
    bad = [{"conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "y"}]}, {"id": 3}, 7]
    prompts = list(itertools.islice(recorded(json.dumps([*good, *bad]), None, Random(1)), 10))
    assert {prompt.text for prompt in prompts} == {f"q{i}" for i in range(5)}
    assert {prompt.max_tokens for prompt in prompts} == {10}
    assert next(recorded(json.dumps(good), 99, Random(1))).max_tokens == 99


@pytest.mark.parametrize("text", ["[]", "{}", "nonsense", '[{"conversations": []}]'])
def test_what_is_no_sharegpt_file_is_refused(text: str) -> None:
    with pytest.raises(PromptError):
        recorded(text, None, Random(1))


def test_everyday_questions_never_run_out() -> None:
    assert len(list(itertools.islice(everyday(8), 35))) == 35


def test_the_chart_of_a_run_shows_both_latencies() -> None:
    chart = spread_chart(records())
    assert chart is not None
    ET.fromstring(chart.svg())
    assert [line.name for line in chart.series] == ["time to first token", "end to end"]
    assert spread_chart([Record(0, 0, (), 1, error="HTTP 500")]) is None


def test_the_charts_of_a_sweep_mark_the_load_at_saturation() -> None:
    def step(load: float, per_s: float) -> Step:
        made = [Record(i / per_s, i / per_s, (i / per_s + 0.1,), i / per_s + 0.1, 5, 20) for i in range(100)]
        return Step(load, figures(made))

    throughput, latency = sweep_charts([step(1, 10), step(2, 20), step(4, 20.1)], "concurrency")
    assert throughput.axes.marks[0][0] == 4
    assert latency.axes.marks == ()
    for chart in (throughput, latency):
        ET.fromstring(chart.svg())
    assert sweep_charts([step(1, 10)], "concurrency") == ()


def test_live_figures_fit_beside_a_bar_in_80_columns() -> None:
    made: list[Record] = [*records(200), Record(0, 0, (), 1, error="HTTP 500")]
    text = live(made, 128, 20.0)
    assert text == "128 open 10.0 req/s 100 tok/s TTFT 202 ms 1 failed"
    assert live([], 3, 0.0) == "3 open"


class Terminal(io.StringIO):
    """A text stream that says that somebody looks at it."""

    def isatty(self) -> bool:
        return True


def test_the_progress_bar_is_one_whole_line_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, clock = Terminal(), iter([0.0, *[30.0] * 9])
    with progress("10 at a time", Until(requests=400), out, lambda: next(clock)) as watch:
        watch(records(200), 128)
    drawn = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in out.getvalue().split("\r")]
    shown = next(line for line in drawn if "TTFT" in line).rstrip()
    assert shown.startswith("10 at a time") and shown.endswith("TTFT 201 ms")
    assert " 50% 128 open 6.7 req/s 67 tok/s" in shown
    assert len(shown) <= 80


def test_nothing_is_drawn_where_nobody_looks() -> None:
    out = io.StringIO()
    with progress("10 at a time", Until(requests=4), out) as watch:
        watch(records(2), 1)
    assert out.getvalue() == ""
