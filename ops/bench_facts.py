"""What `bench` judges a run by, and its result as plain data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from ops.bench_cold import Replaced
from ops.bench_run import Run
from ops.bench_target import Target
from ops.bench_view import Shown, lag_note
from ops.breakeven import read_apis
from ops.stack import OpsError
from serving.apis import ApiModel
from serving.bench.metrics import Figures
from serving.bench.money import Money, money, saved
from serving.bench.record import Goodput
from serving.bench.result import About, result, summaries
from serving.bench.slo import Decision, Known, Row, Slo, SloError, decision, parse_slo, uptime, verdicts
from serving.bench.sweep import Step, saturation
from serving.lines import cents


@dataclass(frozen=True)
class Judged:
    """What a run is held against. `named` says that the user chose the APIs, cheapest first in `apis` either way."""

    slo: Slo | None
    apis: tuple[ApiModel, ...]
    named: bool
    peak: Decimal
    monthly_requests: int | None
    uptime: tuple[float, int] | None

    @property
    def good(self) -> Goodput:
        """When a request is good."""
        return self.slo.good() if self.slo else Goodput()

    def money(self, run: Figures, aim: Target) -> tuple[Money | None, str]:
        """What the run says about money, or why it says nothing."""
        if aim.hourly is None:
            return None, aim.price_note
        found = money(run, aim.hourly, self.apis, self.peak)
        return found, aim.price_note if found else "The server counts no tokens, so nothing is said about money."

    def rows(self, run: Figures, found: Money | None) -> tuple[Row, ...]:
        """The verdicts; () without objectives."""
        if self.slo is None:
            return ()
        spared = None
        if found and self.named and self.monthly_requests and found.against.against:
            api = min(found.against.against, key=lambda one: one.per_request).api
            spared = saved(found, api, self.monthly_requests)
        return verdicts(self.slo, run, Known(self.uptime, found.per_million_output if found else None, spared))

    @staticmethod
    def decision(rows: Sequence[Row]) -> Decision:
        """Go, no-go, or open."""
        return decision(rows)

    def not_met(self, rows: Sequence[Row]) -> bool:
        """Whether there are objectives and the decision isn't go."""
        return self.slo is not None and decision(rows) != "go"


def judged(args: argparse.Namespace) -> Judged:
    """From the command line, before anything is measured.

    Raises:
        OpsError: a file that can't be read, is wrong, or an API that isn't known.
    """
    slo = None
    if args.slo:
        try:
            slo = parse_slo(yaml.safe_load(args.slo.read_text(encoding="utf-8")))
        except (OSError, UnicodeError, yaml.YAMLError, SloError) as error:
            raise OpsError(f"--slo {args.slo}: {error}") from None
    seen = uptime(_history(args.history)) if args.history else None
    return Judged(slo, _apis(args.apis, args.api), bool(args.api), args.peak, args.monthly_requests, seen)


def run_facts(
    shown: Shown,
    aim: Target,
    args: argparse.Namespace,
    verdict: Judged,
    rows: Sequence[Row],
    replaced: Replaced | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run for `--json`, and as the result file: the same, the file with every request."""
    cold = shown.cold
    extra: dict[str, Any] = {
        "target": {"url": aim.url, "stack": aim.stack or None, "hardware": aim.hardware or None},
        "requests": {"seed": args.seed, "input_tokens": args.input_tokens, "dataset": _name(args.dataset)},
        "client": _client(shown.run, shown.figures),
        "cold_start": asdict(cold) | {"was_cold": cold.was_cold} if cold else None,
        "replaced": asdict(replaced) if replaced else None,
        "cost": _cost(shown.money) if shown.money else None,
        "slo": {"decision": verdict.decision(rows), "criteria": [asdict(row) for row in rows]} if rows else None,
    }
    about = About(aim.model, shown.run.load, shown.run.begun, args.label, extra)
    whole = result(about, shown.figures, shown.run.records, goodput=verdict.good.asks())
    return _without_requests(whole) | {"failures": shown.figures.errors}, whole


def sweep_facts(
    kind: str, steps: Sequence[Step], runs: Sequence[Run], aim: Target, args: argparse.Namespace
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A sweep for `--json`, and as the objects of its result file, one a load."""
    best = saturation(steps)
    lines = [
        result(
            About(aim.model, run.load, run.begun, args.label, {"client": _client(run, step.figures)}),
            step.figures,
            run.records,
            goodput=False,
        )
        for run, step in zip(runs, steps, strict=True)
    ]
    facts = {
        "sweep": kind,
        "model_id": aim.model,
        "saturation": {"load": best.load, **_rates(best.figures)} if best else None,
        "steps": [
            {"load": step.load, "failing": step.failing, "kept_up": step.kept_up, **_rates(step.figures)}
            for step in steps
        ],
    }
    return facts, lines


def _rates(run: Figures) -> dict[str, Any]:
    return {
        "request_throughput": run.requests_per_s,
        "output_throughput": run.output_tokens_per_s,
        "error_rate": run.error_rate,
        **summaries(run),
    }


def _client(run: Run, found: Figures) -> dict[str, Any]:
    return {
        "loop_lag_ms": {"p50": run.loop_lag.p50, "p99": run.loop_lag.p99, "max": run.loop_lag.most},
        "too_slow": bool(lag_note(run, found)),
        "connections_opened": run.opened,
        "connect_ms": run.connect_ms,
        "retried": run.retried,
    }


def _cost(found: Money) -> dict[str, Any]:
    return {
        "hourly_usd": str(found.hourly),
        "usd_per_million_output_tokens": str(found.per_million_output.quantize(Decimal("0.0001"))),
        "usd_per_million_tokens": str(found.per_million_total.quantize(Decimal("0.0001"))),
        "requests_a_month": found.requests_a_month,
        "monthly_usd": str(cents(found.monthly)),
        "peak": str(found.against.terms.peak),
        "apis": [
            {
                "name": one.api.name,
                "usd_per_request": f"{one.per_request:f}",
                "monthly_usd": str(cents(found.against.api_monthly(one.api, found.requests_a_month))),
                "break_even_requests": one.crossings[0].requests if one.crossings[0] else None,
                "servers": one.crossings[0].servers if one.crossings[0] else None,
            }
            for one in found.against.against
        ],
    }


def _without_requests(whole: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in whole.items() if not isinstance(value, list)}


def _apis(path: Path | None, name: str) -> tuple[ApiModel, ...]:
    known = read_apis(path)
    found = [api for api in known if name.lower() in api.name.lower()]
    if not found:
        raise OpsError(f"--api {name}: there are {', '.join(dict.fromkeys(api.name for api in known))}")
    return tuple(sorted(found, key=lambda api: api.output_per_m))


def _history(path: Path) -> Iterator[bool | None]:
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                healthy = json.loads(line)["healthy"]
                yield None if healthy is None else bool(healthy)
    except (OSError, UnicodeError, ValueError, KeyError, TypeError) as error:
        raise OpsError(f"--history {path}: {error!r}; each line is an object with `healthy`") from None


def _name(path: Path | None) -> str | None:
    return path.name if path else None
