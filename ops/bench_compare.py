"""`vllm-anywhere bench compare`: the difference between two results, with confidence intervals."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ops.stack import OpsError
from ops.text import show, show_json
from serving.bench.compare import compare, slower
from serving.bench.intervals import LEVEL, RESAMPLES, Difference
from serving.bench.result import Result, ResultError, read_result


def add_compare_results(commands: Any) -> None:
    """The subcommand's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "compare", help="the difference between two result files, with confidence intervals"
    )
    parser.add_argument(
        "a", type=Path, help="a result file: of `bench --save`, or of `vllm bench serve --save-detailed`"
    )
    parser.add_argument("b", type=Path, help="the one to hold against it")
    parser.add_argument(
        "--max-slower",
        type=float,
        metavar="PERCENT",
        help="exit 1 when a figure is surely worse by more than that",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the resampling (default: 0)")
    parser.add_argument(
        "--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document, for programs"
    )
    parser.set_defaults(run=run_compare)


def run_compare(args: argparse.Namespace) -> int:
    """Print the differences. Returns 1 when `--max-slower` is exceeded, else 0.

    Raises:
        OpsError: a file that can't be read or compared.
    """
    a, b = _read(args.a), _read(args.b)
    found = compare(a, b, args.seed)
    worse = slower(found, args.max_slower) if args.max_slower is not None else ()
    if args.json:
        show_json({"a": _facts(args.a, a), "b": _facts(args.b, b), "differences": [_row(one) for one in found]})
    else:
        show([_table(found), Text("\n".join(_notes(a, b, worse, args.max_slower)))])
    return 1 if worse else 0


def _read(path: Path) -> Result:
    try:
        return read_result(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeError, ResultError) as error:
        raise OpsError(f"{path} can't be compared: {error}") from None


def _table(found: Sequence[Difference]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, head in enumerate(("", "a", "b", "change", f"{LEVEL:.0%} interval of b - a", "verdict")):
        table.add_column(head, justify="right" if 0 < index < 5 else "left")
    for one in found:
        change = "-" if one.percent is None else f"{one.percent:+.1f} %"
        between = "-" if one.low is None or one.high is None else f"{one.low:+,.2f} to {one.high:+,.2f}"
        style = {"better": "green", "worse": "red"}.get(one.verdict, "")
        table.add_row(
            f"{one.name} ({one.unit})",
            f"{one.a:,.2f}",
            f"{one.b:,.2f}",
            change,
            between,
            Text(one.verdict, style=style),
        )
    return table


def _notes(a: Result, b: Result, worse: Sequence[Difference], allowed: float | None) -> list[str]:
    lines = [
        f"a: {a.label}, {len(a.answers)} of {a.requests} requests answered. "
        f"b: {b.label}, {len(b.answers)} of {b.requests}.",
        f"Bootstrap, {RESAMPLES} resamples. One figure in twenty differs by chance alone; runs in turns say more.",
    ]
    if worse:
        names = ", ".join(one.name for one in worse)
        lines.append(f"Surely worse by more than {allowed:g} %: {names}.")
    return lines


def _facts(path: Path, found: Result) -> dict[str, Any]:
    return {
        "file": str(path),
        "label": found.label,
        "requests": found.requests,
        "answered": len(found.answers),
        "duration_s": found.duration_s,
    }


def _row(one: Difference) -> dict[str, Any]:
    return {
        "figure": one.name,
        "unit": one.unit,
        "a": one.a,
        "b": one.b,
        "percent": one.percent,
        "low": one.low,
        "high": one.high,
        "verdict": one.verdict,
    }
