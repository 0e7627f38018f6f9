"""Service-level objectives from a YAML file, and the go / no-go table that they end in.

What a load test can't know (answer quality, uptime without a watch's history, a price) is `unknown`, and an unknown
criterion is no go: the decision stays open until it is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.bench.metrics import Figures, Summary
from serving.bench.record import Goodput

Milliseconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]

Verdict = Literal["pass", "fail", "unknown"]
Decision = Literal["go", "no-go", "open"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Part):
    """Most milliseconds at each percentile."""

    mean: Milliseconds | None = None
    p50: Milliseconds | None = None
    p90: Milliseconds | None = None
    p95: Milliseconds | None = None
    p99: Milliseconds | None = None

    def bounds(self) -> Iterator[tuple[str, float]]:
        """Names and bounds that are set."""
        for name in type(self).model_fields:
            if (bound := getattr(self, name)) is not None:
                yield name, bound


class GoodShare(_Part):
    """What a good request keeps, in milliseconds, and the least share of good ones."""

    ttft_ms: Milliseconds | None = None
    tpot_ms: Milliseconds | None = None
    e2e_ms: Milliseconds | None = None
    share: Share | None = None
    requests_per_s: Annotated[float, Field(gt=0)] | None = None


class Quality(_Part):
    """Share of use cases whose answers are good enough: judged by people, and written down here."""

    at_least: Share
    judged: Share | None = None


class Slo(_Part):
    """The file. Everything is optional; a criterion that is left out is not asked for."""

    ttft_ms: Latency = Latency()
    itl_ms: Latency = Latency()
    tpot_ms: Latency = Latency()
    e2e_ms: Latency = Latency()
    requests_per_s: Annotated[float, Field(gt=0)] | None = None
    output_tokens_per_s: Annotated[float, Field(gt=0)] | None = None
    error_rate: Share | None = None
    uptime: Share | None = None
    goodput: GoodShare = GoodShare()
    usd_per_million_tokens: Annotated[Decimal, Field(gt=0)] | None = None
    saved_monthly_usd: Decimal | None = None
    quality: Quality | None = None

    def good(self) -> Goodput:
        """When a request is good, in seconds."""

        def seconds(bound: float | None) -> float | None:
            return None if bound is None else bound / 1000

        return Goodput(seconds(self.goodput.ttft_ms), seconds(self.goodput.tpot_ms), seconds(self.goodput.e2e_ms))


class SloError(ValueError):
    """The file is not a set of objectives. The text names each wrong key, what it holds, and what works."""


@dataclass(frozen=True, slots=True)
class Known:
    """What a verdict needs besides the run's figures; None is not known.

    Attributes:
        uptime: share of checks that were answered, and how many there were.
        saved: US dollars a month that the API would cost more than hosting, at the declared or measured load.
    """

    uptime: tuple[float, int] | None = None
    usd_per_million_tokens: Decimal | None = None
    saved: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One criterion: what was asked, what was found, and whether it passes. `note` says how to find out what isn't."""

    criterion: str
    asked: str
    found: str
    verdict: Verdict
    note: str = ""


def parse_slo(content: Any) -> Slo:
    """The objectives from a parsed YAML file.

    Raises:
        SloError: listing every wrong key.
    """
    try:
        return Slo.model_validate(content or {})
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, problem['loc'])) or 'the file'} = {problem['input']!r}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        ]
        known = ", ".join(Slo.model_fields)
        raise SloError("\n".join([*lines, f"criteria are: {known}"])) from None


def uptime(checks: Iterable[bool | None]) -> tuple[float, int] | None:
    """Share of checks that found the endpoint healthy, and their number; None without any.

    A check of None is a look that asked nothing, so as not to wake a worker: it doesn't count.
    """
    seen = [healthy for healthy in checks if healthy is not None]
    return (sum(seen) / len(seen), len(seen)) if seen else None


def verdicts(slo: Slo, run: Figures, known: Known) -> tuple[Row, ...]:
    """The table, in the order of the file's fields."""
    return tuple(_rows(slo, run, known))


def decision(rows: Sequence[Row]) -> Decision:
    """No-go when anything fails, open when something isn't known, else go."""
    found = {row.verdict for row in rows}
    return "no-go" if "fail" in found else "open" if "unknown" in found else "go"


def _rows(slo: Slo, run: Figures, known: Known) -> Iterator[Row]:
    for name, bounds, summary in (
        ("TTFT", slo.ttft_ms, run.ttft),
        ("ITL", slo.itl_ms, run.itl),
        ("TPOT", slo.tpot_ms, run.tpot),
        ("end to end", slo.e2e_ms, run.e2e),
    ):
        yield from _latency(name, bounds, summary)
    if slo.requests_per_s is not None:
        yield _least("requests a second", slo.requests_per_s, run.requests_per_s, "{:.2f}")
    if slo.output_tokens_per_s is not None:
        yield _least("answer tokens a second", slo.output_tokens_per_s, run.output_tokens_per_s, "{:,.1f}")
    if slo.error_rate is not None:
        passes = bool(run.requests) and run.error_rate <= slo.error_rate
        asked, found = f"at most {slo.error_rate:.2%}", f"{run.error_rate:.2%}"
        yield Row("errors", asked, found, "pass" if passes else "fail")
    if slo.goodput.share is not None:
        share = (run.good or 0) / run.requests if run.requests else 0.0
        yield _least("good requests", slo.goodput.share, share, "{:.1%}")
    if slo.goodput.requests_per_s is not None:
        yield _least("good requests a second", slo.goodput.requests_per_s, run.goodput or 0.0, "{:.2f}")
    yield from _beyond_the_run(slo, known)


def _beyond_the_run(slo: Slo, known: Known) -> Iterator[Row]:
    if slo.uptime is not None:
        asked = f"at least {slo.uptime:.2%}"
        if known.uptime:
            share, checks = known.uptime
            row = _least("uptime", slo.uptime, share, "{:.2%}")
            yield Row(row.criterion, asked, f"{row.found} of {checks:,} checks", row.verdict)
        else:
            yield Row(
                "uptime",
                asked,
                "not known",
                "unknown",
                "`vllm-anywhere watch` keeps a history, and --history FILE reads it",
            )
    if slo.usd_per_million_tokens is not None:
        asked = f"at most ${slo.usd_per_million_tokens}"
        price = known.usd_per_million_tokens
        if price is None:
            yield Row("$ per 1M answer tokens", asked, "not known", "unknown", "needs a stack, or --hourly USD")
        else:
            passes = price <= slo.usd_per_million_tokens
            yield Row("$ per 1M answer tokens", asked, f"${price:.4f}", "pass" if passes else "fail")
    if slo.saved_monthly_usd is not None:
        asked = f"at least ${slo.saved_monthly_usd}"
        if known.saved is None:
            note = "needs a price, --api NAME to compare with, and --monthly-requests N"
            yield Row("saved a month", asked, "not known", "unknown", note)
        else:
            passes = known.saved >= slo.saved_monthly_usd
            yield Row("saved a month", asked, f"${known.saved:,.2f}", "pass" if passes else "fail")
    if slo.quality is not None:
        asked = f"good in at least {slo.quality.at_least:.0%} of use cases"
        if slo.quality.judged is None:
            note = "no load test can know it: judge answers, then set quality.judged"
            yield Row("answer quality", asked, "not judged", "unknown", note)
        else:
            row = _least("answer quality", slo.quality.at_least, slo.quality.judged, "{:.0%}")
            yield Row(row.criterion, asked, f"{row.found}, as judged", row.verdict)


def _latency(name: str, bounds: Latency, found: Summary) -> Iterator[Row]:
    for which, bound in bounds.bounds():
        if not found.count:
            yield Row(f"{name} {which}", f"at most {bound:g} ms", "no answers", "fail")
            continue
        value = found.at(which)
        yield Row(f"{name} {which}", f"at most {bound:g} ms", f"{value:,.1f} ms", "pass" if value <= bound else "fail")


def _least(criterion: str, asked: float, found: float, form: str) -> Row:
    return Row(criterion, f"at least {form.format(asked)}", form.format(found), "pass" if found >= asked else "fail")
