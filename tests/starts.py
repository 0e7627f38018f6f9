"""The observed starts of `data/starts.csv`, and the two files that are made from them.

`python tests/starts.py` writes `docs/accuracy.md`'s tables and `serving/data/observed.csv` again.
"""

from __future__ import annotations

import csv
import statistics
import textwrap
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from serving.engine_rules import batch_defaults, parse_version
from serving.fit import Fit, accounting, fits, highest_utilization
from serving.gpus import gpu
from serving.memory import RENTED_FOREIGN_GIB, SLACK_GIB, Engine
from serving.models import model

ROOT = Path(__file__).parent.parent
ACCURACY = ROOT / "docs" / "accuracy.md"
OBSERVED = ROOT / "serving" / "data" / "observed.csv"


@dataclass(frozen=True)
class Start:
    """One start that somebody's log shows. `found` is `after` when it was found after the formula stood."""

    id: str
    found: str
    fit: Fit
    outcome: str
    kv_tokens: int | None
    weights_gib: float | None
    source: str
    note: str

    @property
    def error(self) -> float | None:
        """Predicted against observed KV tokens, as a fraction; None where the log shows none."""
        return None if self.kv_tokens is None else self.fit.memory.kv_tokens / self.kv_tokens - 1

    @property
    def counts(self) -> bool:
        """Whether the tolerance on KV tokens applies: vLLM 0.8 and later."""
        return self.error is not None and parse_version(self.fit.engine.version) >= (0, 8, 0)

    @property
    def verdict(self) -> str:
        return "ok" if self.fit.ok else "fail"


@cache
def starts() -> tuple[Start, ...]:
    with (ROOT / "tests" / "data" / "starts.csv").open(encoding="utf-8", newline="") as file:
        return tuple(_start(row) for row in csv.DictReader(file))


def _start(row: dict[str, str]) -> Start:
    card = replace(gpu(row["gpu"]), memory_gib=float(row["total_gib"]))
    tokens, sequences = batch_defaults(parse_version(row["version"]), card.name, gpu(row["gpu"]).memory_gib)
    engine = Engine(
        version=row["version"],
        max_len=int(row["max_len"]),
        utilization=float(row["utilization"]),
        max_num_seqs=int(row["max_num_seqs"] or sequences),
        max_num_batched_tokens=int(row["max_num_batched_tokens"] or tokens),
        eager=row["eager"] == "yes",
        tensor_parallel=int(row["tensor_parallel"] or 1),
        lora_gib=float(row["lora_gib"] or 0),
        foreign_gib=float(row["foreign_gib"] or 0),
        compiled=row["compiled"] == "yes",
        flashinfer=row["flashinfer"] != "no",
    )
    return Start(
        id=row["id"],
        found=row["found"],
        fit=fits(model(row["model"]), card, engine),
        outcome=row["outcome"],
        kv_tokens=int(row["kv_tokens"]) if row["kv_tokens"] else None,
        weights_gib=float(row["weights_gib"]) if row["weights_gib"] else None,
        source=row["source"],
        note=row["note"],
    )


def errors(found: str) -> list[float]:
    return [abs(s.error) for s in starts() if s.counts and s.error is not None and s.found == found]


def observed_csv() -> str:
    """What `serving.fit.near` compares with: the starts of vLLM 0.8 and later, without what identifies them."""
    rows = set()
    for start in starts():
        fit = start.fit
        if parse_version(fit.engine.version) < (0, 8, 0):
            continue
        runner, reserved, sampling = accounting(fit.model, fit.gpu, fit.engine)
        weights = f"{fit.memory.weights:.2f}"
        tensor_parallel = "yes" if fit.engine.tensor_parallel > 1 else "no"
        major = fit.gpu.compute_capability[0]
        era = f"{runner},{'yes' if reserved else 'no'},{sampling}"
        rows.add(f"{era},{major},{fit.gpu.memory_gib:g},{weights},{tensor_parallel}")
    header = "runner,reserves_graphs,sampler_bytes,capability_major,memory_gib,weights_gib,tensor_parallel"
    return "\n".join([header, *sorted(rows)]) + "\n"


def as_rented(start: Start, foreign_gib: float = RENTED_FOREIGN_GIB) -> Fit:
    """What the preview says of that start: it can't know that nobody else holds memory of a card yet to be rented."""
    engine = start.fit.engine
    foreign = max(foreign_gib, engine.foreign_gib)
    return fits(start.fit.model, start.fit.gpu, replace(engine, foreign_gib=foreign))


def refused_as_rented() -> list[tuple[Start, Fit]]:
    """Starts that came up and that the preview would have refused."""
    judged = [(start, as_rented(start)) for start in starts() if start.outcome == "ok"]
    return [(start, fit) for start, fit in judged if not fit.ok]


def missed_as_rented() -> list[Start]:
    """Starts that failed and that the preview would have let pass."""
    return [start for start in starts() if start.outcome == "fail" and as_rented(start).ok]


HELD_BY_WORKER_GIB = {"4090-8b-092-cold": 0.49, "4090-8b-092-warm": 0.49}
"""Starts whose log shows 22.64 of 23.52 GiB free, as those of the same worker do whose other process is named."""


def _preview_lines() -> list[str]:
    refused, missed = refused_as_rented(), missed_as_rented()
    came_up = sum(s.outcome == "ok" for s in starts())
    right = len(starts()) - len(refused) - len(missed)
    free = {name: as_rented(_by_id(name), held).memory.card_free for name, held in HELD_BY_WORKER_GIB.items()}
    return [
        "## What the preview makes of them",
        "",
        _filled(
            f"The preview sets {RENTED_FOREIGN_GIB:g} GiB aside for other processes on every card. Judged so, {right} "
            f"of {len(starts())} are right: {len(missed)} of the {len(starts()) - came_up} failures are let pass, and "
            f"{len(refused)} of the {came_up} starts that came up are refused. A lower `gpu_memory_utilization` would "
            "be accepted:"
        ),
        "",
        "| refused, though it came up | util. | GiB missing | accepted up to |",
        "|---|---|---|---|",
        *(
            f"| {start.id} | {fit.engine.utilization:g} | {-fit.memory.card_free:.2f} | "
            f"{highest_utilization(fit.memory):g} |"
            for start, fit in refused
        ),
        "",
        _filled(
            f"{len(free)} starts are right at the top only because nothing is counted for other processes: "
            f"{' and '.join(free)} ran on the serverless worker named above, and their log has 22.64 of 23.52 GiB "
            "free, 0.49 less than a context alone leaves. With that, "
            f"{' and '.join(f'{-gib:.2f}' for gib in free.values())} GiB are missing, and both came up all the same. "
            f"The margin of {SLACK_GIB:g} GiB and constants that are rounded up are what refuses them."
        ),
        "",
    ]


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _by_id(name: str) -> Start:
    return next(start for start in starts() if start.id == name)


def accuracy_tables() -> str:
    """The generated part of `docs/accuracy.md`."""
    right = sum(s.verdict == s.outcome for s in starts())
    failures = sum(s.outcome == "fail" for s in starts())
    held = sum(s.fit.engine.foreign_gib > 0 for s in starts())
    lines = [
        _filled(
            f"Start or fail: {right} of {len(starts())} right ({failures} of them failed), {held} of them with the "
            "0.49 GiB that the log says another process held, the others with nothing held."
        ),
        "",
        "| KV tokens, vLLM 0.8 and later | starts | median error | worst |",
        "|---|---|---|---|",
    ]
    for found, title in (("before", "known while the formula was written"), ("after", "found afterwards")):
        seen = errors(found)
        lines.append(f"| {title} | {len(seen)} | {statistics.median(seen):.1%} | {max(seen):.1%} |")
    lines += [
        "",
        *_preview_lines(),
        "## Every start",
        "",
        "| start | model | GPU, GiB | vLLM | util. | max_len | weights, GiB | KV tokens predicted / seen | error |"
        " start | source |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for s in starts():
        fit, seen = s.fit, f"{s.kv_tokens:,}" if s.kv_tokens is not None else "not shown"
        weights = f"{fit.memory.weights:.2f}" + (f" / {s.weights_gib:g}" if s.weights_gib else "")
        error = "" if s.error is None else f"{s.error:+.1%}"
        name = fit.model.name.rsplit("/", 1)[-1]
        count = f"{fit.engine.tensor_parallel} x " if fit.engine.tensor_parallel > 1 else ""
        lines.append(
            f"| {s.id} | {name} | {count}{fit.gpu.name}, {fit.memory.total:g} | {fit.engine.version} | "
            f"{fit.engine.utilization:g} | {fit.engine.max_len:,} | {weights} | {fit.memory.kv_tokens:,} / {seen} | "
            f"{error} | {s.verdict} / {s.outcome} | {s.source}{'; ' + s.note if s.note else ''} |"
        )
    return "\n".join(lines) + "\n"


MARK = "<!-- From here on written by `python tests/starts.py`. -->\n"


def write() -> None:
    OBSERVED.write_text(observed_csv(), encoding="utf-8")
    prose = ACCURACY.read_text(encoding="utf-8").partition(MARK)[0]
    ACCURACY.write_text(prose + MARK + "\n" + accuracy_tables(), encoding="utf-8")


if __name__ == "__main__":
    write()
