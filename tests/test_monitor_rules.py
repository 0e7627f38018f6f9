"""The alert rules: they parse, they load, they fire on a server that does badly and stay silent on one that does well.

The last three are asked of Prometheus' own promtool.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from serving.alerts import SIGNALS, Alert, Query, alert_rules

pytestmark = pytest.mark.heavy

PROMTOOL = shutil.which("promtool")
promtool_only = pytest.mark.skipif(
    PROMTOOL is None, reason="there is no promtool; Debian's and Ubuntu's package `prometheus` has it"
)

ALERTS = {signal.alert.name: signal.alert for signal in SIGNALS if signal.alert}
QUERIES = [*(query for signal in SIGNALS for query in signal.queries)]
QUERIES += [query for alert in ALERTS.values() for query in alert.queries]

METRICS = {
    "vllm": {
        "http_requests_total",
        "vllm:generation_tokens_total",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:kv_cache_usage_perc",
        "vllm:num_preemptions_total",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:prefix_cache_hits_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prompt_tokens_total",
        "vllm:request_success_total",
        "vllm:time_to_first_token_seconds_bucket",
    },
    "llama.cpp": {
        "llamacpp:prompt_tokens_cached_total",
        "llamacpp:prompt_tokens_total",
        "llamacpp:requests_deferred",
        "llamacpp:requests_processing",
        "llamacpp:tokens_predicted_seconds_total",
        "llamacpp:tokens_predicted_total",
    },
    "endpoint": {"up", "scrape_duration_seconds"},
    "gpu": {"DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_GPU_UTIL"},
    "exporter": {
        "up",
        "vllm_anywhere_budget_pace_ratio",
        "vllm_anywhere_billed_usd_per_hour",
        "vllm_anywhere_budget_usd",
        "vllm_anywhere_month_to_date_usd",
        "vllm_anywhere_price_usd_per_hour",
        "vllm_anywhere_stack_readable",
    },
}
"""What each source has. vLLM's by its source, llama.cpp's and the exporter's by tests that ask them."""

TARGET = 'job="vllm-anywhere",stack="prod",instance="h:1"'
EXPORTER = 'job="vllm-anywhere-exporter",instance="e:1"'
GPU = 'job="vllm-anywhere-gpu",stack="prod",instance="g:1",gpu="0"'
TTFT = "vllm:time_to_first_token_seconds"
ITL = "vllm:inter_token_latency_seconds"
STEPS = 80
"""Scrapes of a scenario, 15 s apart: 20 minutes."""

Series = dict[str, str]


def constant(value: float) -> str:
    return f"{value}x{STEPS}"


def rising(each: float, start: float = 0) -> str:
    return f"{start}+{each}x{STEPS}"


def histogram(name: str, **by_bound: float) -> Series:
    """A histogram whose buckets grow so much a scrape; bounds as `le_0_5`."""
    bounds = {bound.removeprefix("le_").replace("_", ".").replace("inf", "+Inf"): n for bound, n in by_bound.items()}
    return {f'{name}_bucket{{{TARGET},engine="0",le="{le}"}}': rising(n) for le, n in bounds.items()}


def gauge(name: str, value: str) -> Series:
    return {f"{name}{{{TARGET}}}": value}


def counter(name: str, each: float, matchers: str = "") -> Series:
    return {f"{name}{{{TARGET}{matchers}}}": rising(each)}


UP: Series = {
    f"up{{{TARGET}}}": constant(1),
    f"scrape_duration_seconds{{{TARGET}}}": constant(0.02),
    f"up{{{EXPORTER}}}": constant(1),
}
PAID: Series = {
    f'vllm_anywhere_stack_readable{{{EXPORTER},stack="prod"}}': constant(1),
    f'vllm_anywhere_month_to_date_usd{{{EXPORTER},stack="prod"}}': constant(120),
    f'vllm_anywhere_budget_usd{{{EXPORTER},stack="prod"}}': constant(300),
    f'vllm_anywhere_budget_pace_ratio{{{EXPORTER},stack="prod"}}': constant(0.97),
}
SHELF: Series = {
    f"DCGM_FI_DEV_FB_USED{{{GPU}}}": constant(85),
    f"DCGM_FI_DEV_FB_FREE{{{GPU}}}": constant(15),
    f"DCGM_FI_DEV_GPU_UTIL{{{GPU}}}": constant(99),
}

GOOD: dict[str, Series] = {
    "a busy vLLM": {
        **UP,
        **PAID,
        **SHELF,
        # One in 25 is slow, one request in 200 fails, the queue comes and goes, the cache is well used.
        **histogram(TTFT, le_0_25=90, le_0_5=96, le_1_0=100, le_inf=100),
        **histogram(ITL, le_0_05=4000, le_0_1=4900, le_0_15=5000, le_inf=5000),
        **counter("http_requests_total", 199, ',status="2xx",handler="/v1/chat/completions"'),
        **counter("http_requests_total", 1, ',status="5xx",handler="/v1/chat/completions"'),
        **counter("vllm:request_success_total", 199, ',finished_reason="stop"'),
        **counter("vllm:request_success_total", 1, ',finished_reason="error"'),
        **gauge("vllm:num_requests_waiting", " ".join(["0 3 8 4 0 1 6 9 2 0"] * 8)),
        **gauge("vllm:kv_cache_usage_perc", constant(0.88)),
    },
    "an idle vLLM": {
        **UP,
        **PAID,
        **histogram(TTFT, le_0_25=0, le_0_5=0, le_inf=0),
        **histogram(ITL, le_0_05=0, le_0_1=0, le_inf=0),
        **counter("http_requests_total", 0, ',status="2xx",handler="/v1/chat/completions"'),
        **counter("vllm:request_success_total", 0, ',finished_reason="stop"'),
        **counter("vllm:request_success_total", 0, ',finished_reason="error"'),
        **gauge("vllm:num_requests_waiting", constant(0)),
        **gauge("vllm:kv_cache_usage_perc", constant(0)),
    },
    "a long queue that doesn't grow": {**UP, **gauge("vllm:num_requests_waiting", constant(40))},
    "a queue that grows, and is worked off again and again": {
        **UP,
        **gauge("vllm:num_requests_waiting", " ".join([*["0 1"] * 20, *["0 9"] * 20])),
    },
    "a peak shorter than the alert's patience": {
        **UP,
        **gauge("vllm:kv_cache_usage_perc", f"0.5x40 0.97x12 0.5x{STEPS - 54}"),
    },
    "a scrape that fails now and then": {f"up{{{TARGET}}}": " ".join(["1 1 1 0"] * 20)},
    "clients that send nonsense": {
        **UP,
        **counter("http_requests_total", 50, ',status="2xx",handler="/v1/chat/completions"'),
        **counter("http_requests_total", 50, ',status="4xx",handler="/v1/chat/completions"'),
    },
    "a busy llama.cpp": {
        **UP,
        **PAID,
        **counter("llamacpp:tokens_predicted_total", 1000),
        **counter("llamacpp:tokens_predicted_seconds_total", 60),
        **gauge("llamacpp:requests_deferred", " ".join(["0 2 5 1 0"] * 16)),
    },
    "an idle llama.cpp": {
        **UP,
        **counter("llamacpp:tokens_predicted_total", 0),
        **counter("llamacpp:tokens_predicted_seconds_total", 0),
        **gauge("llamacpp:requests_deferred", constant(0)),
    },
    "workers that come for an hour and a half": {
        **UP,
        # A fifth of the budget for 400 minutes, then four times of it for 90.
        f'vllm_anywhere_budget_pace_ratio{{{EXPORTER},stack="prod"}}': "0.2x1600 4x360 0.2x80",
    },
    "a stack without a budget": {
        **UP,
        f'vllm_anywhere_stack_readable{{{EXPORTER},stack="prod"}}': constant(1),
        f'vllm_anywhere_month_to_date_usd{{{EXPORTER},stack="prod"}}': constant(900),
    },
}


@dataclass(frozen=True)
class Bad:
    """Series on which one alert, and no other, has to fire at the end."""

    alert: str
    series: Series
    summary: str
    source: str = "vllm"
    of: str = ""
    labels: dict[str, str] = field(default_factory=lambda: {"stack": "prod"})


BAD = [
    Bad(
        "EndpointDown",
        # A scrape that runs into its time limit.
        {f"up{{{TARGET}}}": constant(0), f"scrape_duration_seconds{{{TARGET}}}": constant(10)},
        "prod does not answer, or refuses the key",
        "endpoint",
    ),
    Bad(
        "EndpointSlow",
        {f"up{{{TARGET}}}": constant(1), f"scrape_duration_seconds{{{TARGET}}}": constant(2.5)},
        "prod takes 2.5s for its metrics, which need no GPU",
        "endpoint",
    ),
    Bad(
        "SlowFirstToken",
        histogram(TTFT, le_0_25=40, le_0_5=90, le_1_0=100, le_inf=100),
        "One request in 20 to prod waits more than 750ms for its first token",
    ),
    Bad(
        "SlowTokens",
        histogram(ITL, le_0_05=100, le_0_1=900, le_0_2=1000, le_inf=1000),
        "Tokens of prod are 150ms apart",
        of="p95",
    ),
    Bad(
        "SlowTokens",
        {**counter("llamacpp:tokens_predicted_total", 100), **counter("llamacpp:tokens_predicted_seconds_total", 12)},
        "Tokens of prod are 120ms apart",
        "llama.cpp",
        of="mean",
    ),
    Bad(
        "Errors",
        {
            **counter("http_requests_total", 98, ',status="2xx",handler="/v1/chat/completions"'),
            **counter("http_requests_total", 2, ',status="5xx",handler="/v1/chat/completions"'),
        },
        "2% of the requests to prod fail",
        of="HTTP 5xx",
    ),
    Bad(
        "Errors",
        {
            **counter("vllm:request_success_total", 97, ',finished_reason="stop"'),
            **counter("vllm:request_success_total", 3, ',finished_reason="error"'),
        },
        "3% of the requests to prod fail",
        of="broken off by the engine",
    ),
    Bad(
        "QueueGrowing",
        gauge("vllm:num_requests_waiting", rising(1, start=1)),
        "More requests come to prod than it answers: 20 more wait than 5m ago",
    ),
    Bad(
        "QueueGrowing",
        gauge("llamacpp:requests_deferred", rising(0.5, start=1)),
        "More requests come to prod than it answers: 10 more wait than 5m ago",
        "llama.cpp",
    ),
    Bad(
        "KvCacheNearlyFull",
        gauge("vllm:kv_cache_usage_perc", constant(0.95)),
        "The KV cache of prod is 95% full; past that, requests wait or are computed twice",
    ),
    Bad(
        "GpuMemoryNearlyFull",
        {f"DCGM_FI_DEV_FB_USED{{{GPU}}}": constant(95), f"DCGM_FI_DEV_FB_FREE{{{GPU}}}": constant(5)},
        "GPU 0 of prod has 95% of its memory in use",
        "gpu",
        labels={"stack": "prod", "gpu": "0"},
    ),
    Bad(
        "BudgetSpent",
        {
            f'vllm_anywhere_month_to_date_usd{{{EXPORTER},stack="prod"}}': constant(315),
            f'vllm_anywhere_budget_usd{{{EXPORTER},stack="prod"}}': constant(300),
        },
        "prod has spent 105% of its budget for this month, by its price and hours",
        "exporter",
    ),
    Bad(
        "SpendOverBudgetPace",
        {f'vllm_anywhere_budget_pace_ratio{{{EXPORTER},stack="prod"}}': f"1.2x{5 * STEPS}"},
        "Over the last day prod has cost 120% of what its budget allows",
        "exporter",
    ),
    Bad(
        "SpendUnknown",
        {f'vllm_anywhere_stack_readable{{{EXPORTER},stack="prod"}}': constant(0)},
        "The exporter can't read stack prod, so nobody watches what it spends",
        "exporter",
    ),
    Bad(
        "ExporterDown",
        {f"up{{{EXPORTER}}}": constant(0)},
        "The exporter at e:1 does not answer, so nobody watches what the stacks spend",
        "exporter",
        labels={"instance": "e:1"},
    ),
]


def rules() -> list[dict[str, Any]]:
    return alert_rules()["groups"][0]["rules"]


def names_in(expression: promql_parser.Expr) -> set[str]:
    """Every metric that is asked for."""
    return set(re.findall(r"[A-Za-z_:][\w:]*(?=\{)", str(expression.prettify())))


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.promql[:60])
def test_a_query_parses_and_asks_only_for_what_its_source_has(query: Query) -> None:
    asked = names_in(promql_parser.parse(query.on()))
    assert asked
    assert asked <= METRICS[query.source]
    promql_parser.parse(query.on("4m", "prod|dev"))


def test_every_metric_that_is_listed_is_asked_for() -> None:
    for source, listed in METRICS.items():
        asked = {
            name for query in QUERIES if query.source == source for name in names_in(promql_parser.parse(query.on()))
        }
        assert asked == listed


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_compares_with_its_bound_and_says_what_to_do(rule: dict[str, Any]) -> None:
    compared = promql_parser.parse(rule["expr"])
    assert isinstance(compared, promql_parser.BinaryExpr)
    assert isinstance(compared.lhs, promql_parser.ParenExpr)
    assert isinstance(compared.rhs, promql_parser.NumberLiteral)
    assert promql_parser.parse_duration(rule["for"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert set(rule["annotations"]) == {"summary", "action"}
    assert "`" in rule["annotations"]["action"]


def test_no_two_rules_have_the_same_labels() -> None:
    seen = [(rule["alert"], *sorted(rule["labels"].items())) for rule in rules()]
    assert len(set(seen)) == len(seen)


def test_the_bounds_are_those_of_the_studies() -> None:
    bounds = {name: alert.bound for name, alert in ALERTS.items()}
    assert bounds["GpuMemoryNearlyFull"] == bounds["KvCacheNearlyFull"] == "0.9"
    assert bounds["SlowFirstToken"] == "0.5"
    assert bounds["SlowTokens"] == "0.1"
    assert bounds["Errors"] == "0.01"
    assert bounds["EndpointSlow"] == "2"


def test_every_rule_has_a_scenario_in_which_it_fires() -> None:
    assert {(bad.alert, bad.source, bad.of) for bad in BAD} == {
        (rule["alert"], rule["labels"]["source"], rule["labels"].get("of", "")) for rule in rules()
    }


def promtool(*args: str, cwd: Path) -> None:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *args], cwd=cwd, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def rule_tests(folder: Path, *tests: dict[str, Any]) -> None:
    """Have promtool run unit tests of the rules."""
    (folder / "alerts.yml").write_text(yaml.safe_dump(alert_rules()))
    (folder / "tests.yml").write_text(
        yaml.safe_dump({"rule_files": ["alerts.yml"], "evaluation_interval": "15s", "tests": list(tests)})
    )
    promtool("test", "rules", "tests.yml", cwd=folder)


def scenario(series: Series, at: Sequence[str], firing: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {"eval_time": time, "alertname": name, "exp_alerts": [firing[name]] if name in firing else []}
            for time in at
            for name in ALERTS
        ],
    }


def expected(bad: Bad) -> dict[str, Any]:
    alert: Alert = ALERTS[bad.alert]
    labels = {**bad.labels, "severity": alert.severity, "source": bad.source, **({"of": bad.of} if bad.of else {})}
    action = alert.action.replace("{{ $labels.stack }}", "prod")
    return {"exp_labels": labels, "exp_annotations": {"summary": bad.summary, "action": action}}


@promtool_only
def test_promtool_loads_the_rules(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(alert_rules()))
    promtool("check", "rules", "--lint=all", "--lint-fatal", "alerts.yml", cwd=tmp_path)


@promtool_only
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.alert}-{bad.source}{bad.of and '-'}{bad.of}")
def test_an_alert_fires_on_what_is_bad_and_no_other_does(bad: Bad, tmp_path: Path) -> None:
    long = bad.alert == "SpendOverBudgetPace"
    rule_tests(tmp_path, scenario(bad.series, ["70m" if long else "19m"], {bad.alert: expected(bad)}))


@promtool_only
@pytest.mark.parametrize("name", GOOD)
def test_every_alert_is_silent_on_what_is_good(name: str, tmp_path: Path) -> None:
    long = name.endswith("hour and a half")
    rule_tests(tmp_path, scenario(GOOD[name], ["8h9m"] if long else ["6m", "10m15s", "12m30s", "17m", "19m"], {}))


@promtool_only
@pytest.mark.parametrize("bad", BAD, ids=lambda bad: f"{bad.alert}-{bad.source}{bad.of and '-'}{bad.of}")
def test_an_alert_waits_before_it_fires(bad: Bad, tmp_path: Path) -> None:
    rule_tests(tmp_path, scenario(bad.series, ["1m30s"], {}))


def test_the_documented_alerts_are_the_alerts() -> None:
    page = (Path(__file__).parents[1] / "docs" / "monitor.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]
    told = {row[0]: (row[2], row[3]) for row in rows if row[0] in ALERTS}
    assert told == {name: (alert.lasts, alert.severity) for name, alert in ALERTS.items()}
