"""`vllm-anywhere`: what people run around a deployment."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Mapping, Sequence

from ops.stack import OpsError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "chat": ("ops.chat", "ask the stack's model something"),
    "status": ("ops.status", "what a stack serves, and whether it answers now"),
    "hello": ("ops.hello", "how to use a stack's endpoint, to copy and paste"),
    "compare": ("ops.compare", "every offer on every platform for a spec, cheapest first"),
    "fit": ("ops.fit", "does the model fit a GPU, with which context, and what would help"),
    "breakeven": ("ops.breakeven", "requests a month from which self-hosting costs less than a closed API"),
    "report": ("ops.report", "one HTML file for who decides: offers, costs, break-even, fit, prices"),
    "prices": ("ops.prices", "the prices that estimates use, with source and age"),
    "comment": ("ops.comment", "a preview as Markdown for a pull request"),
    "bench": ("ops.bench", "load an endpoint: latencies, throughput, cost, go or no-go"),
    "doctor": ("ops.doctor", "is everything there that `up` needs: keys, money, stock, this machine"),
    "watch": ("ops.watch", "look after stacks: health, drift, prices, time to live; `--heal` repairs"),
    "logs": ("ops.logs", "what a stack's server said, and why it failed"),
    "image": ("ops.image", "a Dockerfile and a build for weights inside the image (RunPod)"),
    "orphans": ("ops.orphans", "what carries our label and bills, but belongs to no stack"),
    "monitor": ("ops.monitor", "files for Prometheus and Grafana, and an exporter of what stacks cost"),
    "schema": ("ops.schema", "the JSON Schema of a stack file, for editors"),
}
"""Each command with the module whose `add_<command>` declares its options, and what it is for."""


def main(argv: Sequence[str] | None = None) -> None:
    """The command line. Exits 0 when done, 1 when the answer is no or an error, 2 on wrong usage."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(arguments[0] if arguments else "")
    if not arguments:
        parser.print_help(sys.stderr)
        sys.exit(2)
    args = parser.parse_args(arguments)
    try:
        sys.exit(args.run(args))
    except OpsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output has enough; there is nobody left to tell.
        sys.stderr.close()
        sys.exit(1)


def _parser(command: str) -> argparse.ArgumentParser:
    """The parser with the options of one command. The others' modules are not loaded: that takes a second."""
    parser = argparse.ArgumentParser(prog="vllm-anywhere", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, (module, purpose) in COMMANDS.items():
        if name == command:
            getattr(importlib.import_module(module), f"add_{name}")(commands)
        else:
            commands.add_parser(name, help=purpose)
    return parser
