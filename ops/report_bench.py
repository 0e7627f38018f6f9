"""The files of `vllm-anywhere bench` as a report shows them: a line a run, or a line a load of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ops.stack import OpsError


@dataclass(frozen=True, slots=True)
class Bench:
    """One measured load. Latencies are milliseconds; what the file doesn't say is None or ""."""

    label: str
    model: str
    hardware: str
    load: str
    day: str
    requests: int
    failed: int
    requests_per_s: float
    tokens_per_s: float
    ttft_p50: float | None
    ttft_p95: float | None
    token_p50: float | None
    whole_p50: float | None
    whole_p99: float | None
    cold_start_s: float | None
    hourly_usd: str
    usd_per_million: str
    decision: str


def read_bench(path: Path) -> tuple[Bench, ...]:
    """What a file of `bench --save`, of `bench --json` or of `vllm bench serve --save-result` holds.

    Raises:
        OpsError: it can't be read, or is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
        runs = tuple(_run(_Saved.model_validate(content), path.stem) for content in _objects(text))
    except (OSError, UnicodeError) as error:
        raise OpsError(f"--bench {path}: it can't be read: {error}") from None
    except (ValueError, ValidationError) as error:
        problems = error.errors(include_input=False) if isinstance(error, ValidationError) else ()
        missing = ", ".join(sorted({str(one["loc"][0]) for one in problems if one["loc"]})) or "not JSON"
        raise OpsError(
            f"--bench {path}: no result of a benchmark ({missing}); `vllm-anywhere bench --save FILE` writes one"
        ) from None
    if not runs:
        raise OpsError(f"--bench {path}: the file is empty; `vllm-anywhere bench --save FILE` writes one")
    return runs


def _objects(text: str) -> Iterator[Any]:
    """One document, or one a line, as a sweep is saved."""
    try:
        yield json.loads(text)
    except ValueError:
        for line in text.splitlines():
            if line.strip():
                yield json.loads(line)


class _Target(BaseModel):
    hardware: str | None = None
    stack: str | None = None


class _Cost(BaseModel):
    hourly_usd: str = ""
    usd_per_million_output_tokens: str = ""


class _Cold(BaseModel):
    first_token_s: float
    was_cold: bool = False


class _Slo(BaseModel):
    decision: str = ""


class _Ours(BaseModel):
    load: str = ""
    begun: str = ""
    target: _Target = Field(default_factory=_Target)
    cost: _Cost | None = None
    cold_start: _Cold | None = None
    slo: _Slo | None = None


class _Saved(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    label: str | None = None
    model_id: str
    date: str = ""
    num_prompts: int
    completed: int
    max_concurrency: int | None = None
    request_rate: float | str | None = None
    request_throughput: float
    output_throughput: float
    median_ttft_ms: float | None = None
    p95_ttft_ms: float | None = None
    median_tpot_ms: float | None = None
    median_e2el_ms: float | None = None
    p99_e2el_ms: float | None = None
    vllm_anywhere: _Ours = Field(default_factory=_Ours)

    @property
    def load(self) -> str:
        if self.vllm_anywhere.load:
            return self.vllm_anywhere.load
        return f"{self.max_concurrency} at a time" if self.max_concurrency else f"{self.request_rate} requests/s"

    @property
    def day(self) -> str:
        if self.vllm_anywhere.begun:
            return self.vllm_anywhere.begun[:10]
        digits = self.date[:8]
        return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if digits.isdigit() and len(digits) == 8 else ""


def _run(saved: _Saved, name: str) -> Bench:
    ours = saved.vllm_anywhere
    cost, cold = ours.cost or _Cost(), ours.cold_start
    return Bench(
        label=saved.label or ours.target.stack or name,
        model=saved.model_id,
        hardware=ours.target.hardware or "",
        load=saved.load,
        day=saved.day,
        requests=saved.num_prompts,
        failed=saved.num_prompts - saved.completed,
        requests_per_s=saved.request_throughput,
        tokens_per_s=saved.output_throughput,
        ttft_p50=saved.median_ttft_ms,
        ttft_p95=saved.p95_ttft_ms,
        token_p50=saved.median_tpot_ms,
        whole_p50=saved.median_e2el_ms,
        whole_p99=saved.p99_e2el_ms,
        cold_start_s=cold.first_token_s if cold and cold.was_cold else None,
        hourly_usd=cost.hourly_usd,
        usd_per_million=cost.usd_per_million_output_tokens,
        decision=ours.slo.decision if ours.slo else "",
    )
