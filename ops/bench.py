"""`vllm-anywhere bench`: load an endpoint, report what it did and what that costs, and say go or no-go."""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

from rich.text import Text

from ops.arguments import amount, count, positive
from ops.bench_charts import BenchChart, spread_chart, sweep_charts
from ops.bench_client import BenchClient, Endpoint
from ops.bench_cold import Replaced, replace_server
from ops.bench_compare import add_compare_results
from ops.bench_facts import Judged, judged, run_facts, sweep_facts
from ops.bench_progress import progress
from ops.bench_run import ColdStart, Run, calibrate, cold_start, drive, precise_loop
from ops.bench_target import Target, target
from ops.bench_view import Part, Shown, lag_note, report, sweep_table, verdict_table
from ops.stack import OpsError
from ops.text import show, show_json
from ops.url import add_url_options, url_base, url_ca, url_key
from serving.bench.load import Closed, Load, Open, Until
from serving.bench.metrics import figures
from serving.bench.presets import DEFAULT, PRESETS
from serving.bench.prompts import Prompt, PromptError, everyday, recorded, synthetic
from serving.bench.sweep import Kind, Step, kept_up, next_load

SWEEP_SECONDS = 20.0
SWEEP_MOST = 1024.0
OPEN_FILES = 10240
"""`OPEN_MAX` of macOS, whose hard limit names no number."""


def add_bench(commands: Any) -> None:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "bench",
        help="load an endpoint: latencies, throughput, cost, go or no-go",
        description="Loads an OpenAI-compatible endpoint with streamed chat requests. Exits 1 when too many requests "
        "fail or an objective of --slo isn't met.",
    )
    where = parser.add_argument_group("what is loaded")
    where.add_argument("-s", "--stack", default="local", help="the Pulumi stack (default: local)")
    add_url_options(where)
    where.add_argument("--model", default="", help="the model to ask for (default: what the endpoint serves)")
    where.add_argument(
        "--hourly", type=amount, metavar="USD", help="what it costs an hour (default: the stack's price)"
    )
    load = parser.add_argument_group("load")
    presets = "; ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items())
    load.add_argument("--preset", choices=PRESETS, default=DEFAULT, help=f"a protocol; options change it ({presets})")
    load.add_argument("--requests", type=count, metavar="N", help="how many requests")
    load.add_argument("--duration", type=positive, metavar="S", help="stop sending after S seconds")
    load.add_argument("--concurrency", type=count, metavar="N", help="closed loop: so many at a time")
    load.add_argument("--rate", type=positive, metavar="R", help="open loop: R requests a second, answered or not")
    load.add_argument("--arrivals", choices=("poisson", "constant"), default="poisson", help="of an open loop")
    load.add_argument("--sweep", nargs="?", const="concurrency", choices=("concurrency", "rate"), help="to saturation")
    load.add_argument("--max-load", type=positive, default=SWEEP_MOST, metavar="N", help="a sweep's highest load")
    load.add_argument("--warmup", type=int, metavar="N", help="requests before that don't count (default: one each)")
    load.add_argument("--timeout", type=positive, default=600.0, metavar="S", help="for one answer (default: 600)")
    ask = parser.add_argument_group("requests")
    ask.add_argument("--input-tokens", type=count, metavar="N", help="synthetic prompts of exactly N tokens")
    ask.add_argument("--dataset", type=Path, metavar="FILE", help="prompts from a ShareGPT file")
    ask.add_argument("--output-tokens", type=count, metavar="N", help="longest answer")
    ask.add_argument(
        "--ignore-eos",
        action=argparse.BooleanOptionalAction,
        help="have every answer as long as it may be (default: with --input-tokens)",
    )
    ask.add_argument("--seed", type=int, default=0, help="of prompts and arrivals (default: 0)")
    cold = parser.add_argument_group("cold start")
    cold.add_argument(
        "--cold-start",
        nargs="?",
        const="asleep",
        choices=("asleep", "replace"),
        help="time the first answer from scale-to-zero, or of a fresh server that `pulumi up` makes",
    )
    cold.add_argument("--idle", type=positive, default=0.0, metavar="S", help="wait first, so that it falls asleep")
    cold.add_argument("--cold-timeout", type=positive, default=1800.0, metavar="S", help="give up after (1800)")
    cold.add_argument("--yes", action="store_true", help="do replace the server")
    judge = parser.add_argument_group("verdict and money")
    judge.add_argument("--slo", type=Path, metavar="FILE", help="objectives; the report ends in go or no-go")
    judge.add_argument("--history", type=Path, metavar="FILE", help="`watch`'s history, for uptime")
    judge.add_argument(
        "--max-error-rate", type=_share, default=0.01, metavar="X", help="exit 1 above it (default 0.01)"
    )
    judge.add_argument("--api", default="", metavar="NAME", help="compare with APIs with NAME in their name")
    judge.add_argument("--apis", type=Path, metavar="FILE", help="CSV of more API prices; its rows win")
    judge.add_argument("--monthly-requests", type=count, metavar="N", help="the real load, for what is saved a month")
    judge.add_argument("--peak", type=amount, default=Decimal(4), metavar="N", help="busiest over mean traffic (4)")
    out = parser.add_argument_group("output")
    out.add_argument("--save", type=Path, metavar="FILE", help="the result, with `vllm bench serve`'s field names")
    out.add_argument("--label", default="", help="a name for the run, kept in the result")
    out.add_argument("--charts", action="store_true", help="charts in the terminal")
    out.add_argument("--svg", type=Path, metavar="FILE", help="the chart; a sweep's second one gets -latency")
    out.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=run_bench)
    add_compare_results(parser.add_subparsers(metavar="compare"))


def run_bench(args: argparse.Namespace) -> int:
    """Load the endpoint and print the report. Returns 0, or 1 when too much failed or an objective isn't met.

    Raises:
        OpsError: options that don't go together, or an endpoint that doesn't answer at all.
    """
    _check(args)
    verdict = judged(args)
    replaced: Replaced | None = None
    if args.cold_start == "replace":
        replaced = replace_server(args.stack)
    url = url_base(args) if args.url else ""
    aim = target(args.stack, url, url_key(args), args.model, args.hourly, ca_pem=url_ca(args))
    # Before anything is measured: a file that can't be written later would cost the run.
    for path in (args.save, args.svg):
        if path and not path.parent.is_dir():
            raise OpsError(f"{path}: there is no folder {path.parent}")
    raise_open_files()
    bench = _Bench(args, aim, verdict)
    try:
        with asyncio.Runner(loop_factory=precise_loop) as runner:
            return runner.run(bench.sweep(args.sweep) if args.sweep else bench.once(replaced))
    except PromptError as error:
        raise OpsError(str(error)) from None
    except (OSError, TimeoutError) as error:
        raise OpsError(f"{aim.url} can't be reached: {error or type(error).__name__}") from None


class _Bench:
    """One call of the command: the same target and requests for each run."""

    def __init__(self, args: argparse.Namespace, aim: Target, verdict: Judged) -> None:
        self._args = args
        self._target = aim
        self._judged = verdict
        self._random = Random(args.seed)
        self._preset = PRESETS[args.preset]
        exact = args.input_tokens is not None
        ignore = exact if args.ignore_eos is None else args.ignore_eos
        self._client = BenchClient(
            Endpoint.parse(aim.url),
            aim.key.get_secret_value(),
            aim.model,
            {"ignore_eos": True} if ignore else {},
            args.timeout,
            aim.ca_pem,
        )

    async def once(self, replaced: Replaced | None) -> int:
        """One run."""
        args = self._args
        cold = await self._cold() if args.cold_start == "asleep" else None
        prompts = await self._prompts()
        load: Load
        if args.rate is not None:
            load = Open(args.rate, args.arrivals)
        else:
            load = Closed(args.concurrency or self._preset.concurrency)
        until = Until(args.requests or (None if args.duration else self._preset.requests), args.duration)
        run = await self._run(load, until, prompts)
        self._client.close()
        found = figures(run.records, self._judged.good)
        money, note = self._judged.money(found, self._target)
        shown = Shown(self._target.name, run, found, cold, money, note, args.input_tokens)
        rows = self._judged.rows(found, money)
        facts, saved = run_facts(shown, self._target, args, self._judged, rows, replaced)
        chart = spread_chart(run.records)
        self._write(json.dumps(saved), (chart,) if chart else ())
        if args.json:
            show_json(facts)
        else:
            parts: list[Any] = [*_replacement(replaced), *report(shown)]
            if args.charts and chart:
                parts += [Text(""), chart]
            show([*parts, *self._verdict_parts(rows)])
        failed = found.error_rate > args.max_error_rate or not found.completed
        return 1 if failed or self._judged.not_met(rows) else 0

    async def sweep(self, kind: Kind) -> int:
        """Runs of rising load."""
        args = self._args
        prompts = await self._prompts()
        load = float(args.concurrency or 1) if kind == "concurrency" else args.rate or 1.0
        until = Until(args.requests, args.duration or (None if args.requests else SWEEP_SECONDS))
        steps: list[Step] = []
        runs: list[Run] = []
        following: float | None = load
        while following is not None:
            of: Load = Closed(round(following)) if kind == "concurrency" else Open(following, args.arrivals)
            run = await self._run(of, until, prompts)
            found = figures(run.records, self._judged.good)
            steps.append(Step(following, found, None if kind == "concurrency" else kept_up(run.records)))
            runs.append(run)
            following = next_load(steps, kind, args.max_load)
        self._client.close()
        charts = sweep_charts(steps, kind)
        facts, lines = sweep_facts(kind, steps, runs, self._target, args)
        self._write("\n".join(map(json.dumps, lines)), charts)
        if args.json:
            show_json(facts)
        else:
            parts: list[Any] = [Text(self._target.name), *sweep_table(kind, steps)]
            late = {note: None for run, step in zip(runs, steps, strict=True) if (note := lag_note(run, step.figures))}
            parts += [Text(note) for note in list(late)[-1:]]
            for chart in charts if args.charts else ():
                parts += [Text(""), Text(chart.title), chart]
            show(parts)
        return 0 if any(not step.failing for step in steps) else 1

    async def _run(self, load: Load, until: Until, prompts: Iterator[Prompt]) -> Run:
        together = load.concurrency if isinstance(load, Closed) else self._preset.concurrency
        warmup = together if self._args.warmup is None else self._args.warmup
        if warmup > 0:
            with progress("warm-up", Until(warmup)) as watch:
                warm = Closed(min(together, warmup))
                ran = await drive(self._client, warm, Until(warmup), prompts, self._random, watch)
            if not any(record.ok for record in ran.records):
                raise OpsError(_nothing_answered(ran.records[0].error, self._target))
        with progress(str(load), until) as watch:
            return await drive(self._client, load, until, prompts, self._random, watch)

    async def _cold(self) -> ColdStart:
        args = self._args
        if args.idle:
            print(f"waiting {args.idle:g} s without a request, so that it falls asleep", file=sys.stderr)
            await asyncio.sleep(args.idle)
        prompt = next(everyday(args.output_tokens or self._preset.output_tokens))
        found = await cold_start(self._client, prompt, args.cold_timeout, time.perf_counter, asyncio.sleep)
        if isinstance(found, str):
            raise OpsError(f"no answer in {args.cold_timeout:g} s; the last: {found}")
        return found

    async def _prompts(self) -> Iterator[Prompt]:
        args = self._args
        most = args.output_tokens or self._preset.output_tokens
        if args.input_tokens is not None:
            calibration = await calibrate(self._client, self._random)
            calibration.words(args.input_tokens)
            return synthetic(args.input_tokens, most, calibration, self._random)
        if args.dataset:
            try:
                text = args.dataset.read_text(encoding="utf-8")
                return recorded(text, args.output_tokens, self._random)
            except (OSError, UnicodeError, PromptError) as error:
                raise OpsError(f"--dataset {args.dataset}: {error}") from None
        return everyday(most)

    def _verdict_parts(self, rows: Sequence[Any]) -> list[Part]:
        return verdict_table(rows, self._judged.decision(rows)) if rows else []

    def _write(self, saved: str, charts: Sequence[BenchChart]) -> None:
        args = self._args
        files = {args.save: saved + "\n"} if args.save else {}
        if args.svg:
            names = [args.svg, args.svg.with_stem(f"{args.svg.stem}-latency")]
            files |= {name: chart.svg() for name, chart in zip(names, charts, strict=False)}
        for path, text in files.items():
            try:
                path.write_text(text, encoding="utf-8")
            except OSError as error:
                raise OpsError(f"{path} can't be written: {error.strerror}") from None
            print(f"written: {path}", file=sys.stderr)


def _check(args: argparse.Namespace) -> None:
    if args.rate is not None and args.concurrency is not None and not args.sweep:
        raise OpsError("--rate is an open loop and --concurrency a closed one: give one of them")
    if args.input_tokens is not None and args.dataset:
        raise OpsError("--input-tokens makes prompts and --dataset reads them: give one of them")
    if args.sweep and (args.cold_start or args.slo):
        raise OpsError("--sweep looks for the limit; --cold-start and --slo are of a single run")
    if args.idle and args.cold_start != "asleep":
        raise OpsError("--idle waits for a server to fall asleep: it needs --cold-start")
    if args.cold_start == "asleep" and args.url and not args.model:
        raise OpsError("--cold-start of a URL needs --model NAME: asking the endpoint for its models would wake it")
    if args.cold_start == "replace":
        if args.url:
            raise OpsError("--cold-start replace replaces a stack's server: it needs -s, not --url")
        if not args.yes:
            raise OpsError(
                f"--cold-start replace runs `pulumi up --replace` on the server of stack {args.stack}, of several on "
                "the first: a second server is rented, and the old one deleted when that has answered. On Google Cloud "
                "the old one goes first, and does not serve until the new one answers. --yes does it"
            )


def _replacement(replaced: Replaced | None) -> list[Part]:
    if replaced is None:
        return []
    parts = [f"Fresh server: `pulumi up --replace` took {replaced.up_s:.1f} s"]
    if replaced.time_to_ready_s is not None:
        parts.append(f"its first answer came {replaced.time_to_ready_s:.1f} s after it was created")
    return [Text("; ".join(parts) + ".")]


def _nothing_answered(error: str, aim: Target) -> str:
    hint = "--no-ignore-eos leaves out a field that only some servers know" if "ignore_eos" in error else ""
    check = (
        f"`vllm-anywhere status -s {aim.stack}` says more" if aim.stack else "is the URL, the key and --model right?"
    )
    return f"no warm-up request was answered: {error}; {hint or check}"


def raise_open_files() -> None:
    """Every request in flight is a file; the usual soft limit is 1024, on macOS 256 below no hard limit at all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a share from 0 to 1")
    return value
