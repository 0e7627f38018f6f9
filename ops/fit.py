"""`vllm-anywhere fit`: does a model start on a GPU, what context and concurrency that leaves, and what would help."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from ops.spec import add_spec_options, asked_spec
from ops.stack import OpsError
from ops.text import show, show_json
from providers.model_shape import model_shape
from serving.gpus import Gpu, UnknownGpu, all_gpus, find_gpus
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
        cards = _cards(args.gpus, spec)
    except (SpecError, UnknownGpu) as error:
        raise OpsError(str(error)) from None
    verdicts = [preflight(spec, shape, card, Host()) for card in cards]
    if args.json:
        show_json({"model": shape.name, "max_len": spec.model.max_len, "gpus": [_facts(found) for found in verdicts]})
    elif len(verdicts) <= FEW:
        show([part for found in verdicts for part in _in_full(found)])
    else:
        show([_table(verdicts), _legend(spec)])
    return 0 if any(found.ok for found in verdicts) else 1


def _cards(names: Sequence[str], spec: DeploymentSpec) -> list[Gpu]:
    if names:
        return list(dict.fromkeys(card for name in names for card in find_gpus(name)))
    wanted = wanted_gpus(spec)
    rented = [card for card in all_gpus() if card.platform_names and (not wanted or card.name in wanted)]
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


def _in_full(found: Preflight) -> Iterable[Any]:
    fit_, m = found.fit, found.fit.memory
    verdict = "[green]fits[/green]" if found.ok else "[red]does not start[/red]"
    yield f"[bold]{fit_.model.name}[/bold] on [bold]{fit_.gpu.name}[/bold]: {verdict}" + _mark(found)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    rows = [
        ("memory", m.total, "as the driver reports it"),
        ("budget", m.budget, f"gpu_memory_utilization {fit_.engine.utilization:g}"),
        ("weights", m.weights, ""),
        ("activations", m.activation, ""),
        ("CUDA graphs", m.reserved_graphs, ""),
        ("other", m.non_torch, "CUDA context, NCCL, what PyTorch doesn't count"),
        ("KV cache", max(0.0, m.kv), f"{m.kv_tokens:,} tokens"),
        ("outside the budget", m.outside, f"{m.card_free:.2f} GiB of the card stay free"),
    ]
    for name, gib, note in rows:
        table.add_row(name, f"{gib:.2f} GiB", note)
    yield table
    if m.kv_tokens > 0:
        yield (
            f"  longest request {fit_.longest:,} tokens; "
            f"{fit_.concurrency:.1f} requests of {fit_.engine.max_len:,} tokens at once"
        )
    for finding in found.findings:
        yield f"  {'[red]' if finding.fatal else '[yellow]'}{finding}[/]"
    yield ""


def _mark(found: Preflight) -> str:
    return " (extrapolated: no start near this one was observed)" if found.fit.extrapolated else ""


def _table(verdicts: Iterable[Preflight]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("GPU", no_wrap=True)
    table.add_column("GiB", justify="right")
    table.add_column("fits")
    table.add_column("longest", justify="right")
    table.add_column("at once", justify="right")
    table.add_column("what would help", overflow="fold")
    for found in verdicts:
        fit_ = found.fit
        first = found.refusals[0] if found.refusals else None
        table.add_row(
            fit_.gpu.name,
            f"{fit_.gpu.memory_gib:.0f}",
            ("yes" if found.ok else "no") + ("*" if fit_.extrapolated else ""),
            f"{fit_.longest:,}" if found.ok else "-",
            str(fit_.concurrent) if found.ok else "-",
            _short(found) if first else "",
            style=None if found.ok else "dim",
        )
    return table


def _short(found: Preflight) -> str:
    first = found.refusals[0]
    if found.fit.changes and first.wrong == "; ".join(found.fit.shortfalls):
        return str(found.fit.changes[0])
    return first.wrong


def _legend(spec: DeploymentSpec) -> str:
    return (
        f"{spec.model.name} with vLLM {spec.engine.version} and a context of {spec.model.max_len:,}. `longest` is the "
        "longest request that fits, `at once` how many of the full context. * extrapolated: no start near it was "
        "observed (docs/accuracy.md)."
    )


def _facts(found: Preflight) -> dict[str, Any]:
    fit_, m = found.fit, found.fit.memory
    return {
        "gpu": fit_.gpu.name,
        "fits": found.ok,
        "extrapolated": fit_.extrapolated,
        "memory_gib": round(m.total, 3),
        "budget_gib": round(m.budget, 3),
        "weights_gib": round(m.weights, 3),
        "activation_gib": round(m.activation, 3),
        "graphs_gib": round(m.reserved_graphs, 3),
        "other_gib": round(m.non_torch, 3),
        "kv_gib": round(m.kv, 3),
        "kv_tokens": m.kv_tokens,
        "longest_request_tokens": fit_.longest,
        "concurrent_requests": fit_.concurrent,
        "findings": [
            {"key": f.key, "value": f.value, "wrong": f.wrong, "works": f.works, "fatal": f.fatal}
            for f in found.findings
        ],
        "changes": [{"key": c.key, "value": c.value, "effect": c.effect} for c in fit_.changes],
    }
