"""A progress bar with live figures, on stderr and only where somebody looks at it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from ops.bench_run import Watch
from serving.bench.load import Until
from serving.bench.metrics import percentile
from serving.bench.record import Record

RECENT = 50
"""The live median of the first token is of so many latest answers."""


@contextmanager
def progress(
    title: str, until: Until, out: TextIO | None = None, clock: Callable[[], float] = time.perf_counter
) -> Generator[Watch]:
    """What to call with the records so far. It draws only when called, so that no thread disturbs the measurement."""
    target: TextIO = out or sys.stderr
    if not target.isatty():
        yield lambda _records, _in_flight: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[live]}"),
    )
    total = float(until.requests) if until.requests is not None else until.seconds
    begun = clock()
    with Progress(*columns, console=Console(file=target), auto_refresh=False, transient=True) as bar:
        task = bar.add_task(title, total=total, live="")

        def watch(records: Sequence[Record], in_flight: int) -> None:
            done = float(len(records)) if until.requests is not None else clock() - begun
            bar.update(task, completed=min(done, total or done), live=live(records, in_flight, clock() - begun))
            bar.refresh()

        yield watch


def live(records: Sequence[Record], in_flight: int, seconds: float) -> str:
    """The figures beside the bar, short enough for 80 columns."""
    failed = sum(not record.ok for record in records)
    recent = sorted(record.ttft * 1000 for record in records[-RECENT:] if record.ok)
    tokens = sum(record.output_tokens or 0 for record in records)
    parts = [f"{in_flight} open"]
    if seconds > 0:
        parts.append(f"{(len(records) - failed) / seconds:.1f} req/s {tokens / seconds:.0f} tok/s")
    if recent:
        parts.append(f"TTFT {percentile(recent, 50):.0f} ms")
    if failed:
        parts.append(f"{failed} failed")
    return " ".join(parts)
