"""The result file: one JSON object with the field names of `vllm bench serve --save-detailed`, which usual tools read.

What that tool has no name for is under `vllm_anywhere`. Keys and prompts are in neither. A sweep is one object a line,
as that tool appends results.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from serving.bench.load import Closed, Load
from serving.bench.metrics import Figures, Summary
from serving.bench.record import Record

BACKEND = "openai-chat"
FORM = 1
"""Version of what is under `vllm_anywhere`."""


@dataclass(frozen=True, slots=True)
class About:
    """What a result is of. `begun` needs a time zone; `extra` goes under `vllm_anywhere` as it is."""

    model: str
    load: Load
    begun: datetime
    label: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Answer:
    """One complete answer read back: seconds and tokens. `gap` is the mean of its inter-token latencies."""

    start: float
    ttft: float
    e2e: float
    tpot: float | None
    gap: float | None
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Result:
    """A result file read back, of whichever tool."""

    label: str
    duration_s: float
    requests: int
    answers: tuple[Answer, ...]


class ResultError(ValueError):
    """Not a result that can be compared. The text says what is missing and how to have it written."""


def result(about: About, run: Figures, records: Sequence[Record], goodput: bool) -> dict[str, Any]:
    """The file's content. Times are milliseconds where a name ends in `_ms`, else seconds."""
    start = min((record.intended for record in records), default=0.0)
    load = about.load
    facts: dict[str, Any] = {
        "date": about.begun.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": BACKEND,
        "backend": BACKEND,
        "label": about.label or None,
        "model_id": about.model,
        "tokenizer_id": None,
        "num_prompts": run.requests,
        "request_rate": "inf" if isinstance(load, Closed) else load.rate,
        "burstiness": None if isinstance(load, Closed) or load.arrivals == "constant" else 1.0,
        "max_concurrency": load.concurrency if isinstance(load, Closed) else None,
        "duration": _micro(run.duration_s),
        "completed": run.completed,
        "failed": run.failed,
        "total_input_tokens": run.input_tokens,
        "total_output_tokens": run.output_tokens,
        "request_throughput": _micro(run.requests_per_s),
        "request_goodput": _micro(run.goodput) if goodput and run.goodput is not None else None,
        "output_throughput": _micro(run.output_tokens_per_s),
        "total_token_throughput": _micro(run.tokens_per_s),
    }
    for name, found in (("ttft", run.ttft), ("tpot", run.tpot), ("itl", run.itl), ("e2el", run.e2e)):
        facts |= _spread(name, found)
    facts |= {
        "input_lens": [record.prompt_tokens or 0 for record in records],
        "output_lens": [record.output_tokens or 0 if record.ok else 0 for record in records],
        "ttfts": [_micro(record.ttft) if record.ok else 0.0 for record in records],
        "itls": [[_micro(gap) for gap in record.gaps] for record in records],
        "latencies": [_micro(record.e2e) if record.ok else 0.0 for record in records],
        "start_times": [_micro(record.intended - start) for record in records],
        "errors": [record.error for record in records],
    }
    lag = run.lag
    facts["vllm_anywhere"] = {
        "form": FORM,
        "load": str(load),
        "begun": about.begun.isoformat(),
        "latencies_count_from": "the intended send time",
        "tokens_counted_by": "the server's usage",
        "answers_without_usage": run.uncounted,
        "tokens_a_piece": round(run.output_tokens / run.pieces, 3) if run.pieces else None,
        "send_lag_ms": {"p50": _micro(lag.p50), "p99": _micro(lag.p99), "max": _micro(lag.most)},
        **about.extra,
    }
    return facts


def summaries(run: Figures) -> dict[str, Any]:
    """The latencies alone, under the names of the result file."""
    pairs = (("ttft", run.ttft), ("tpot", run.tpot), ("itl", run.itl), ("e2el", run.e2e))
    return {key: value for name, found in pairs for key, value in _spread(name, found).items()}


def read_result(text: str, name: str) -> Result:
    """A file of this tool or of `vllm bench serve --save-detailed`.

    Raises:
        ResultError: when it is neither, or was saved without its requests.
    """
    try:
        content = json.loads(text)
    except ValueError:
        lines = [line for line in text.splitlines() if line.strip()]
        more = f"{len(lines)} lines: a sweep? Compare single runs" if len(lines) > 1 else "not JSON"
        raise ResultError(f"{name}: {more}") from None
    try:
        saved = _Saved.model_validate(content)
    except ValidationError as error:
        keys = ", ".join(sorted({str(problem["loc"][0]) if problem["loc"] else "object" for problem in error.errors()}))
        raise ResultError(
            f"{name}: not a result with its requests ({keys}); `vllm-anywhere bench --save FILE` writes one, and so "
            "does `vllm bench serve --save-result --save-detailed`"
        ) from None
    answers = tuple(saved.answers())
    if not answers:
        raise ResultError(f"{name}: no request of it was answered")
    return Result(saved.label or name, saved.duration, len(saved.ttfts), answers)


class _Saved(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    duration: float = Field(gt=0)
    ttfts: list[float]
    itls: list[list[float]]
    output_lens: list[int]
    start_times: list[float]
    latencies: list[float] = []
    errors: list[str | None] = []
    label: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Saved:
        if len({len(column) for column in (self.start_times, self.ttfts, self.itls, self.output_lens)}) > 1:
            raise ValueError("columns of different lengths")
        return self

    def answers(self) -> list[Answer]:
        first = min(self.start_times, default=0.0)
        found: list[Answer] = []
        columns = zip(self.start_times, self.ttfts, self.itls, self.output_lens, strict=True)
        for index, (start, ttft, gaps, tokens) in enumerate(columns):
            failed = bool(self.errors[index]) if index < len(self.errors) else False
            if failed or ttft <= 0:
                continue
            e2e = self.latencies[index] if index < len(self.latencies) else ttft + math.fsum(gaps)
            tpot = (e2e - ttft) / (tokens - 1) if tokens > 1 else None
            gap = math.fsum(gaps) / len(gaps) if gaps else None
            found.append(Answer(start - first, ttft, e2e, tpot, gap, tokens))
        return found


def _spread(name: str, found: Summary) -> dict[str, float]:
    facts = {f"mean_{name}_ms": found.mean, f"median_{name}_ms": found.p50, f"std_{name}_ms": found.std}
    facts |= {f"p50_{name}_ms": found.p50, f"p90_{name}_ms": found.p90}
    facts |= {f"p95_{name}_ms": found.p95, f"p99_{name}_ms": found.p99}
    return {key: _micro(value) for key, value in facts.items()}


def _micro(value: float) -> float:
    return round(value, 6)
