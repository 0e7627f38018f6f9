"""Charts of a load test: the spread of latencies of a run, or throughput and latency over the loads of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ops.charts import Axes, Points, Series, line_chart, line_chart_svg
from serving.bench.metrics import percentile
from serving.bench.record import Record
from serving.bench.sweep import Step, saturation

_WIDTH = 100
_HEIGHT = 18
_SHARES = tuple(range(101))


@dataclass(frozen=True)
class BenchChart:
    """One chart, drawn as wide as the console that it is printed on, or as SVG."""

    series: Sequence[Series]
    axes: Axes
    title: str
    description: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(line_chart(self.series, self.axes, min(options.max_width, _WIDTH), _HEIGHT))

    def svg(self) -> str:
        """A page of its own."""
        return line_chart_svg(self.series, self.axes, self.title, self.description)


def spread_chart(records: Sequence[Record]) -> BenchChart | None:
    """TTFT and end-to-end latency by the share of requests that were as fast; None when nothing was answered."""
    done = [record for record in records if record.ok]
    if not done:
        return None
    lines = [
        Series(name, _by_share(values))
        for name, values in (
            ("time to first token", [record.ttft for record in done]),
            ("end to end", [record.e2e for record in done]),
        )
    ]
    most = max(y for line in lines for _, y in line.points)
    middle = {line.name: line.points[50][1] for line in lines}
    said = "; ".join(f"{name}: median {value:,.0f} ms" for name, value in middle.items())
    axes = Axes((0, 100), (0, most * 1.05 or 1), "per cent of requests that were as fast", "ms")
    return BenchChart(lines, axes, "Latency", f"{said}.")


def sweep_charts(steps: Sequence[Step], kind: str) -> tuple[BenchChart, ...]:
    """Throughput, then latency, over the loads; () for fewer than two loads."""
    if len(steps) < 2:
        return ()
    ordered = sorted(steps, key=lambda step: step.load)
    title = "requests at a time" if kind == "concurrency" else "requests asked for a second"
    loads = (ordered[0].load, ordered[-1].load)
    best = saturation(steps)

    def chart(named: Sequence[tuple[str, Points]], y_title: str, mark: float | None, heading: str) -> BenchChart:
        lines = [Series(name, points) for name, points in named]
        most = max((y for line in lines for _, y in line.points), default=0.0)
        marks = ((best.load, mark),) if best and mark is not None else ()
        axes = Axes(loads, (0, most * 1.1 or 1), title, y_title, marks=marks, mark_name="most without failing")
        said = "; ".join(f"{line.name}: {line.points[-1][1]:,.1f} at {loads[1]:g}" for line in lines)
        return BenchChart(lines, axes, heading, f"{said}.")

    tokens = tuple((step.load, step.figures.output_tokens_per_s) for step in ordered)
    first = tuple((step.load, step.figures.ttft.p95) for step in ordered)
    whole = tuple((step.load, step.figures.e2e.p95) for step in ordered)
    reached = best.figures.output_tokens_per_s if best else None
    return (
        chart([("answer tokens a second", tokens)], "tok/s", reached, "Throughput"),
        chart([("time to first token, p95", first), ("end to end, p95", whole)], "ms", None, "Latency"),
    )


def _by_share(values: Sequence[float]) -> Points:
    ordered = sorted(value * 1000 for value in values)
    return tuple((float(share), percentile(ordered, share)) for share in _SHARES)
