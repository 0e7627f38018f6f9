"""What is watched of a running endpoint: signals as data, each with its queries, its bound and its alert.

One table makes both the alert rules and the dashboard, so that a panel shows the very figure that an alert judges.
Names of metrics are those of vLLM 0.22 and later (vllm/v1/metrics/loggers.py, and the HTTP counters of its
prometheus-fastapi-instrumentator), of llama.cpp's server, of NVIDIA's dcgm-exporter and of `vllm-anywhere monitor
--exporter`. A signal without a query for an engine is one that the engine doesn't measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from string import Template
from typing import Any, Literal

Source = Literal["vllm", "llama.cpp", "endpoint", "gpu", "exporter"]
Unit = Literal["percentunit", "s", "short", "bool_yes_no", "currencyUSD"]
"""As Grafana names them; `percentunit` is a share of 1."""
Severity = Literal["critical", "warning"]

ENDPOINT_JOB = "vllm-anywhere"
JOBS: dict[Source, str] = {
    "vllm": ENDPOINT_JOB,
    "llama.cpp": ENDPOINT_JOB,
    "endpoint": ENDPOINT_JOB,
    "gpu": f"{ENDPOINT_JOB}-gpu",
    "exporter": f"{ENDPOINT_JOB}-exporter",
}
"""The `job` label under which each source is scraped."""
WINDOW = "5m"
"""Over which rates are taken in alerts; 20 scrapes at the usual 15 s."""


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL for one figure of each stack, or scraped process.

    In `promql`, `$scope` stands for label matchers and `$window` for a range.
    """

    source: Source
    promql: str
    legend: str = ""
    per: Literal["stack", "instance"] = "stack"

    def on(self, window: str = WINDOW, stacks: str = "") -> str:
        """The query over `window`; `stacks` is a regular expression, "" for every stack."""
        chosen = f',stack=~"{stacks}"' if stacks and self.per == "stack" else ""
        return Template(self.promql).substitute(scope=f'job="{JOBS[self.source]}"{chosen}', window=window)


@dataclass(frozen=True, slots=True)
class Alert:
    """When a signal is bad.

    Attributes:
        bound: the first value that is still good, in the signal's unit; text, since it only ever goes into files.
        below: whether smaller is worse.
        lasts: how long it has to be bad, a Prometheus duration.
        summary, action: Prometheus templates; the action is what to do next.
        queries: what is judged, where that is not what the signal's chart shows.
    """

    name: str
    bound: str
    lasts: str
    severity: Severity
    summary: str
    action: str
    below: bool = False
    queries: tuple[Query, ...] = ()


@dataclass(frozen=True, slots=True)
class Signal:
    """One chart, and the alert on it if there is one."""

    title: str
    unit: Unit
    queries: tuple[Query, ...]
    alert: Alert | None = None


_STACK = "{{ $labels.stack }}"
_SHARE = "{{ $value | humanizePercentage }}"
_TIME = "{{ $value | humanizeDuration }}"


def _quantile(share: str, histogram: str) -> str:
    return f"histogram_quantile({share}, sum by (stack, le) (rate({histogram}_bucket{{$scope}}[$window])))"


def _rate(counter: str) -> str:
    return f"sum by (stack) (rate({counter}{{$scope}}[$window]))"


def _share(counter: str, matcher: str) -> str:
    """Of all that a counter counts, what the matcher picks."""
    return f"sum by (stack) (rate({counter}{{$scope,{matcher}}}[$window])) / {_rate(counter)}"


def _growth(gauge: str) -> str:
    """By how many it has grown from one window to the next, while it was never empty."""
    mean = f"avg_over_time({gauge}{{$scope}}[$window]"
    return (
        f"sum by (stack) ({mean})) - sum by (stack) ({mean} offset $window))"
        f" and sum by (stack) (min_over_time({gauge}{{$scope}}[$window])) > 0"
    )


SIGNALS: tuple[Signal, ...] = (
    Signal(
        "Endpoint answers",
        "bool_yes_no",
        (Query("endpoint", "min by (stack) (up{$scope})"),),
        Alert(
            "EndpointDown",
            "1",
            "2m",
            "critical",
            f"{_STACK} does not answer, or refuses the key",
            f"`vllm-anywhere status -s {_STACK}` says why; `pulumi refresh -s {_STACK}` sees what is left of it, "
            f"`pulumi up -s {_STACK}` repairs it. If its address has changed, `vllm-anywhere monitor` writes it anew",
            below=True,
        ),
    ),
    Signal(
        "Time to answer a scrape",
        "s",
        (Query("endpoint", "max by (stack) (scrape_duration_seconds{$scope} and up{$scope} == 1)"),),
        Alert(
            "EndpointSlow",
            "2",
            "5m",
            "warning",
            f"{_STACK} takes {_TIME} for its metrics, which need no GPU",
            "Its CPU is busy or the way to it is slow; `vllm-anywhere bench` from a place near it tells which",
        ),
    ),
    Signal(
        "Time to first token, p95",
        "s",
        (Query("vllm", _quantile("0.95", "vllm:time_to_first_token_seconds")),),
        Alert(
            "SlowFirstToken",
            "0.5",
            "5m",
            "warning",
            f"One request in 20 to {_STACK} waits more than {_TIME} for its first token",
            "If requests wait, it needs more servers or a faster GPU (`vllm-anywhere compare`); if none does, the "
            "prompts are too long for this GPU",
        ),
    ),
    Signal(
        "Time between tokens",
        "s",
        (
            Query("vllm", _quantile("0.95", "vllm:inter_token_latency_seconds"), "p95"),
            Query(
                "llama.cpp",
                f"{_rate('llamacpp:tokens_predicted_seconds_total')} / {_rate('llamacpp:tokens_predicted_total')}",
                "mean",
            ),
        ),
        Alert(
            "SlowTokens",
            "0.1",
            "5m",
            "warning",
            f"Tokens of {_STACK} are {_TIME} apart",
            f"Too many requests share the GPU; `vllm-anywhere bench -s {_STACK} --sweep` finds how many it bears",
        ),
    ),
    Signal(
        "Failed requests",
        "percentunit",
        (
            Query("vllm", _share("http_requests_total", 'status="5xx"'), "HTTP 5xx"),
            Query("vllm", _share("vllm:request_success_total", 'finished_reason="error"'), "broken off by the engine"),
        ),
        Alert(
            "Errors",
            "0.01",
            "5m",
            "critical",
            f"{_SHARE} of the requests to {_STACK} fail",
            f"`vllm-anywhere logs -s {_STACK} --why` finds the cause in its log",
        ),
    ),
    Signal(
        "Requests waiting",
        "short",
        (
            Query("vllm", "sum by (stack) (vllm:num_requests_waiting{$scope})"),
            Query("llama.cpp", "sum by (stack) (llamacpp:requests_deferred{$scope})"),
        ),
        Alert(
            "QueueGrowing",
            "1",
            "5m",
            "warning",
            f"More requests come to {_STACK} than it answers: {{{{ $value | humanize }}}} more wait than {WINDOW} ago",
            "Raise `scaling.max` where the platform scales, or rent a faster GPU: `vllm-anywhere compare`",
            queries=(
                Query("vllm", _growth("vllm:num_requests_waiting")),
                Query("llama.cpp", _growth("llamacpp:requests_deferred")),
            ),
        ),
    ),
    Signal(
        "KV cache in use",
        "percentunit",
        (Query("vllm", "max by (stack) (vllm:kv_cache_usage_perc{$scope})"),),
        Alert(
            "KvCacheNearlyFull",
            "0.9",
            "5m",
            "warning",
            f"The KV cache of {_STACK} is {_SHARE} full; past that, requests wait or are computed twice",
            "Lower `model.max_len` or the load, or take a GPU with more memory: `vllm-anywhere fit`",
        ),
    ),
    Signal(
        "GPU memory in use",
        "percentunit",
        (
            Query(
                "gpu",
                "max by (stack, gpu) (DCGM_FI_DEV_FB_USED{$scope}"
                " / (DCGM_FI_DEV_FB_USED{$scope} + DCGM_FI_DEV_FB_FREE{$scope}))",
                "GPU {{gpu}}",
            ),
        ),
        Alert(
            "GpuMemoryNearlyFull",
            "0.9",
            "5m",
            "warning",
            f"GPU {{{{ $labels.gpu }}}} of {_STACK} has {_SHARE} of its memory in use",
            "vLLM takes its share at the start and keeps it: more than `engine.gpu_memory_utilization` is somebody "
            "else's, or fragments; lower that share before it runs out",
        ),
    ),
    Signal(
        "GPU busy",
        "percentunit",
        (Query("gpu", "max by (stack, gpu) (DCGM_FI_DEV_GPU_UTIL{$scope}) / 100", "GPU {{gpu}}"),),
    ),
    Signal(
        "Requests in progress",
        "short",
        (
            Query("vllm", "sum by (stack) (vllm:num_requests_running{$scope})"),
            Query("llama.cpp", "sum by (stack) (llamacpp:requests_processing{$scope})"),
        ),
    ),
    Signal(
        "Tokens a second",
        "short",
        (
            Query("vllm", _rate("vllm:generation_tokens_total"), "written"),
            Query("vllm", _rate("vllm:prompt_tokens_total"), "read"),
            Query("llama.cpp", _rate("llamacpp:tokens_predicted_total"), "written"),
            Query("llama.cpp", _rate("llamacpp:prompt_tokens_total"), "read"),
        ),
    ),
    Signal(
        "Preemptions a second",
        "short",
        (Query("vllm", _rate("vllm:num_preemptions_total")),),
    ),
    Signal(
        "Prompt tokens found in the cache",
        "percentunit",
        (
            Query("vllm", f"{_rate('vllm:prefix_cache_hits_total')} / {_rate('vllm:prefix_cache_queries_total')}"),
            Query(
                "llama.cpp",
                f"{_rate('llamacpp:prompt_tokens_cached_total')} / "
                f"({_rate('llamacpp:prompt_tokens_cached_total')} + {_rate('llamacpp:prompt_tokens_total')})",
            ),
        ),
    ),
    Signal(
        "Price an hour",
        "currencyUSD",
        (
            Query("exporter", "max by (stack) (vllm_anywhere_price_usd_per_hour{$scope})", "as planned"),
            Query("exporter", "max by (stack) (vllm_anywhere_billed_usd_per_hour{$scope})", "billed now"),
        ),
    ),
    Signal(
        "Spend this month, estimated",
        "currencyUSD",
        (
            Query("exporter", "max by (stack) (vllm_anywhere_month_to_date_usd{$scope})", "spent"),
            Query("exporter", "max by (stack) (vllm_anywhere_budget_usd{$scope})", "budget"),
        ),
        Alert(
            "BudgetSpent",
            "1",
            "5m",
            "critical",
            f"{_STACK} has spent {_SHARE} of its budget for this month, by its price and hours",
            f"`pulumi destroy -s {_STACK}` stops it; `vllm-anywhere compare` finds what costs less",
            queries=(
                Query(
                    "exporter",
                    "max by (stack) (vllm_anywhere_month_to_date_usd{$scope} / vllm_anywhere_budget_usd{$scope})",
                ),
            ),
        ),
    ),
    Signal(
        "Cost of an hour over what the budget allows",
        "percentunit",
        (Query("exporter", "max by (stack) (vllm_anywhere_budget_pace_ratio{$scope})"),),
        Alert(
            "SpendOverBudgetPace",
            "1",
            "1h",
            "warning",
            f"Over the last day {_STACK} has cost {_SHARE} of what its budget allows",
            f"`vllm-anywhere status -s {_STACK}` shows what it has; a lower `scaling.max` bounds it, and "
            "`vllm-anywhere compare` finds what costs less",
            # Workers that come with the traffic cost more than the budget's hour at times, and may.
            queries=(Query("exporter", "max by (stack) (avg_over_time(vllm_anywhere_budget_pace_ratio{$scope}[1d]))"),),
        ),
    ),
    Signal(
        "Outputs can be read",
        "bool_yes_no",
        (Query("exporter", "min by (stack) (vllm_anywhere_stack_readable{$scope})"),),
        Alert(
            "SpendUnknown",
            "1",
            "15m",
            "warning",
            f"The exporter can't read stack {_STACK}, so nobody watches what it spends",
            f"`pulumi stack output -s {_STACK}` on the exporter's machine says why",
            below=True,
        ),
    ),
    Signal(
        "Exporter answers",
        "bool_yes_no",
        (Query("exporter", "min by (instance) (up{$scope})", per="instance"),),
        Alert(
            "ExporterDown",
            "1",
            "15m",
            "warning",
            "The exporter at {{ $labels.instance }} does not answer, so nobody watches what the stacks spend",
            "Start it: `vllm-anywhere monitor --exporter`",
            below=True,
        ),
    ),
)


def alert_rules() -> dict[str, Any]:
    """The alerts as Prometheus' rules file has them, one rule for each query.

    An alert name with several queries differs by the labels `source` and `of`, so that one can't hide the other.
    """
    return {"groups": [{"name": ENDPOINT_JOB, "rules": [rule for signal in SIGNALS for rule in _rules(signal)]}]}


def _rules(signal: Signal) -> Iterator[dict[str, Any]]:
    alert = signal.alert
    if alert is None:
        return
    for query in alert.queries or signal.queries:
        yield {
            "alert": alert.name,
            "expr": f"({query.on()}) {'<' if alert.below else '>'} {alert.bound}",
            "for": alert.lasts,
            "labels": {
                "severity": alert.severity,
                "source": query.source,
                **({"of": query.legend} if len(alert.queries or signal.queries) > 1 and query.legend else {}),
            },
            "annotations": {"summary": alert.summary, "action": alert.action},
        }
