"""`vllm-anywhere fit`: does a model start on a GPU, what context and concurrency that leaves, and what would help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError
from ops.text import show, show_json
from providers.model_shape import model_shape
from serving.fit import Fit, changes_on
from serving.gpus import PLATFORMS, Gpu, UnknownGpu, all_gpus, find_gpus
from serving.memory import SLACK_GIB, context_gib
from serving.models import all_models
from serving.preflight import Host, Preflight, preflight
from serving.rank import wanted_gpus
from serving.spec import DeploymentSpec, SpecError

FEW = 4
"""Up to so many GPUs are shown with all their numbers; more become a table."""


def add_fit(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("fit", help="does the model fit a GPU, with which context, and what would help")
    parser.add_argument(
        "gpus", nargs="*", metavar="GPU", help="GPUs, such as L4 'RTX 4090' (default: the spec's, or all)"
    )
    parser.add_argument("--model", default="", help="a Hugging Face repository instead of the spec's")
    parser.add_argument("--config", default="", help="that model's config.json, if the catalogue lacks it")
    parser.add_argument("--list", action="store_true", help="the models of the catalogue")
    add_spec_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=fit)


def fit(args: argparse.Namespace) -> int:
    """Print the verdicts. Returns 0 when the model fits at least one of the GPUs, 1 when none."""
    if args.list:
        return _list_models(as_json=args.json)
    args.settings = [
        *args.settings,
        *([f"model.name={args.model}"] if args.model else []),
        *([f"model.config={args.config}"] if args.config else []),
    ]
    spec = asked_spec(args)
    try:
        shape = model_shape(spec.model)
        cards = asked_cards(args.gpus, spec)
    except (SpecError, UnknownGpu) as error:
        raise OpsError(str(error)) from None
    platform = spec.provider if spec.provider in PLATFORMS else ""
    verdicts = [preflight(spec, shape, card, Host(platform)) for card in cards]
    if args.json:
        gpus = [fit_facts(found, platform) for found in verdicts]
        show_json({"model": shape.name, "max_len": spec.model.max_len, "gpus": gpus})
    elif len(verdicts) <= FEW:
        show([part for found in verdicts for part in _in_full(found)])
    else:
        show([*_tables(verdicts, platform), _legend(spec)])
    return 0 if any(found.ok for found in verdicts) else 1


def asked_cards(names: Sequence[str], spec: DeploymentSpec) -> list[Gpu]:
    if names:
        return list(dict.fromkeys(card for name in names for card in find_gpus(name)))
    if wanted := wanted_gpus(spec):
        rented = [card for card in all_gpus() if card.name in wanted]
    elif spec.provider in PLATFORMS:
        rented = [card for card in all_gpus() if spec.provider in card.platform_names]
    else:
        rented = [card for card in all_gpus() if card.platform_names]
    return sorted(rented, key=lambda card: (card.memory_gib, card.name))


def _list_models(*, as_json: bool) -> int:
    models = [
        {"name": m.name, "parameters": m.parameters, "quantization": m.quantization or None} for m in all_models()
    ]
    if as_json:
        show_json(models)
        return 0
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("model", no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("weights")
    for m in all_models():
        size = m.parameters or m.count_parameters()
        table.add_row(m.name, f"{size / 1e9:.1f} B", m.quantization or m.dtype)
    show([table, "Any other decoder: `vllm-anywhere fit --model ORG/NAME --config path/to/config.json`."])
    return 0


def _in_full(found: Preflight) -> Iterable[RenderableType]:
    fit_ = found.fit
    count = fit_.engine.tensor_parallel
    verdict = ("fits", "green") if found.ok else ("fits, but is refused" if fit_.ok else "does not start", "red")
    name, gpu = (fit_.model.name, "bold"), (f"{count} x {fit_.gpu.name}" if count > 1 else fit_.gpu.name, "bold")
    yield Text.assemble(name, " on ", gpu, ": ", verdict, _mark(found))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column()
    for label, gib, note in _shares(fit_):
        table.add_row(label, f"{gib:.2f} GiB", note)
    yield table
    m = fit_.memory
    if m.kv_tokens > 0:
        yield _indented(
            f"longest request {fit_.longest:,} tokens; "
            f"{fit_.concurrency:.1f} requests of {fit_.engine.max_len:,} tokens at once"
        )
    for finding in found.findings:
        yield _indented(str(finding), "red" if finding.fatal else "yellow")
    yield ""


def _shares(fit_: Fit) -> Iterator[tuple[str, float, str]]:
    """(what, GiB, note) of one card's memory: the budget and what is in it, what lies beside it, and the rest."""
    m, engine = fit_.memory, fit_.engine
    context, beside = context_gib(fit_.gpu, engine.tensor_parallel), m.graphs - m.reserved_graphs
    nccl = ", NCCL buffers" if engine.tensor_parallel > 1 else ""
    yield "memory", m.total, f"{'of each, ' if engine.tensor_parallel > 1 else ''}as the driver reports it"
    yield "budget", m.budget, f"gpu_memory_utilization {engine.utilization:g}"
    yield "  weights", m.weights, ""
    yield "  activations", m.activation, ""
    if m.reserved_graphs:
        yield "  CUDA graphs", m.reserved_graphs, ""
    yield "  kernels", m.non_torch, f"loaded kernels, cuBLAS handles{nccl}: what PyTorch doesn't count"
    yield "  KV cache", max(0.0, m.kv), f"{m.kv_tokens:,} tokens"
    yield "beside the budget", m.outside, ""
    yield "  CUDA context", context, ""
    if engine.foreign_gib:
        yield "  other processes", engine.foreign_gib, "what they may hold on a rented card"
    if beside:
        yield "  CUDA graphs", beside, f"vLLM {engine.version} sets none of its budget aside for them"
    if (sampling := m.outside - context - engine.foreign_gib - beside - SLACK_GIB) > 0.005:
        yield "  sampling", sampling, "with top-k and top-p, which the start-up profile leaves out"
    yield "  margin", SLACK_GIB, "for the allocator's rounding"
    if m.card_free < 0:
        yield "missing", -m.card_free, ""
    else:
        yield "left free", m.card_free, ""


def _indented(text: str, style: str = "") -> Padding:
    return Padding(Text(text, style), (0, 0, 0, 2))


def _mark(found: Preflight) -> str:
    return " (extrapolated: no start near this one was observed)" if found.fit.extrapolated else ""


def _tables(verdicts: Sequence[Preflight], platform: str) -> Iterator[RenderableType]:
    """Those that fit, with what they leave; then those that don't, with what would help."""
    fitting, others = [v for v in verdicts if v.ok], [v for v in verdicts if not v.ok]
    if fitting:
        table = _table("fits on", "longest", "at once")
        for found in fitting:
            fit_ = found.fit
            table.add_row(*_card(fit_), f"{fit_.longest:,}", str(fit_.concurrent))
        yield table
    if others:
        table = _table("not on")
        table.add_column("what would help", ratio=1)
        for found in others:
            table.add_row(*_card(found.fit), _short(found, platform))
        yield table


def _table(title: str, *numbers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column(title, no_wrap=True)
    for name in ("GiB", *numbers):
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _card(fit_: Fit) -> tuple[str, str]:
    return fit_.gpu.name + ("*" if fit_.extrapolated else ""), f"{fit_.gpu.memory_gib:.0f}"


def _short(found: Preflight, platform: str) -> Text:
    first = found.refusals[0]
    changes = changes_on(found.fit, platform)
    if changes and first.wrong == "; ".join(found.fit.shortfalls):
        return Text(str(changes[0]))
    return Text(first.wrong)


def _legend(spec: DeploymentSpec) -> str:
    return (
        f"{spec.model.name} with vLLM {spec.engine.version} and a context of {spec.model.max_len:,}. `longest` is the "
        "longest request that fits, `at once` how many of the full context. * extrapolated: no start near it was "
        "observed (docs/accuracy.md)."
    )


def fit_facts(found: Preflight, platform: str) -> dict[str, Any]:
    fit_, m = found.fit, found.fit.memory
    return {
        "gpu": fit_.gpu.name,
        "fits": found.ok,
        "extrapolated": fit_.extrapolated,
        "memory_gib": round(m.total, 3),
        "budget_gib": round(m.budget, 3),
        "weights_gib": round(m.weights, 3),
        "activation_gib": round(m.activation, 3),
        "graphs_gib": round(m.graphs, 3),
        "graphs_in_budget_gib": round(m.reserved_graphs, 3),
        "non_torch_gib": round(m.non_torch, 3),
        "kv_gib": round(m.kv, 3),
        "outside_gib": round(m.outside, 3),
        "card_free_gib": round(m.card_free, 3),
        "kv_tokens": m.kv_tokens,
        "longest_request_tokens": fit_.longest,
        "concurrent_requests": fit_.concurrent,
        "findings": [
            {"key": f.key, "value": f.value, "wrong": f.wrong, "works": f.works, "fatal": f.fatal}
            for f in found.findings
        ],
        "changes": [{"key": c.key, "value": c.value, "effect": c.effect} for c in changes_on(fit_, platform)],
    }
