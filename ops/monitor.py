"""`vllm-anywhere monitor`: files with which Prometheus and Grafana watch stacks, and an exporter of what they cost."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from ops.monitor_files import Endpoint, File, is_address, monitor_files
from ops.monitor_folder import write
from ops.stack import OpsError, Stack, add_stacks, read_stack
from ops.text import show, show_json
from ops.url import KEY_VARIABLES, add_url_options, url_base, url_ca, url_key
from serving.cost import BASED_ON_USE

PORT = 9790
"""Of the exporter."""


def add_monitor(commands: Any) -> None:
    """The command's options."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "monitor",
        help="files for Prometheus and Grafana, and an exporter of what stacks cost",
        description="Writes a Prometheus config with alerts and a Grafana dashboard for stacks. With --exporter, "
        "serves their price, spend and budget pace instead.",
    )
    what = parser.add_argument_group("what is watched")
    add_stacks(what, "local")
    add_url_options(what)
    what.add_argument("--name", default="", help="its name in charts (default: its host)")
    files = parser.add_argument_group("files")
    files.add_argument("--out", type=Path, metavar="DIR", help="where they go; the key in it is yours alone to read")
    files.add_argument(
        "--exporter-at",
        default=f"127.0.0.1:{PORT}",
        metavar="HOST:PORT",
        help=f'the exporter as Prometheus reaches it; "" without one (default: 127.0.0.1:{PORT})',
    )
    files.add_argument(
        "--gpu",
        action="append",
        default=[],
        metavar="STACK=HOST:PORT",
        help="an NVIDIA dcgm-exporter beside that stack's server, for its GPU memory",
    )
    files.add_argument("--alertmanager", default="", metavar="HOST:PORT", help="what tells people of alerts")
    files.add_argument("--json", action="store_true", help="one JSON document, for programs")
    serve = parser.add_argument_group("exporter")
    serve.add_argument("--exporter", action="store_true", help="serve price and spend for Prometheus until stopped")
    serve.add_argument(
        "--ask-platforms", action="store_true", help="ask each platform what it bills now, too; needs its key"
    )
    serve.add_argument("--port", type=int, default=PORT, help=f"of the exporter (default: {PORT})")
    serve.add_argument("--address", default="127.0.0.1", help="it listens on (default: 127.0.0.1)")
    parser.set_defaults(run=monitor)


def monitor(
    args: argparse.Namespace,
    *,
    read: Callable[[str], Stack] = read_stack,
    environ: Mapping[str, str] = os.environ,
    stop: threading.Event | None = None,
) -> int:
    """Write the files, or serve the exporter until `stop`. Returns 0.

    Raises:
        OpsError: options that don't go together, a stack that can't be read, a folder that can't be written.
    """
    _check(args)
    stacks = list(dict.fromkeys(args.stack or ["local"]))
    if args.exporter:
        # The library is for this alone.
        from ops.exporter import export

        export(
            stacks,
            args.address,
            args.port,
            ask_platforms=args.ask_platforms,
            stop=stop or threading.Event(),
            started=lambda text: show([text]),
        )
        return 0
    endpoints = [_of_url(args, environ)] if args.url else [of_stack(read(name)) for name in stacks]
    gpus = _gpus(args.gpu, [one.name for one in endpoints])
    exporter = "" if args.url else args.exporter_at
    files = monitor_files(endpoints, exporter, gpus, args.alertmanager)
    changed = write(args.out, files)
    if args.json:
        show_json(_facts(args.out, endpoints, files, changed))
    else:
        show(_lines(args.out, endpoints, changed, exporter))
    return 0


def of_stack(stack: Stack) -> Endpoint:
    """A stack's endpoint, and those of all its servers where there are several."""
    sleeps = stack.cost.get("kind") in BASED_ON_USE
    servers = {one.server: one.endpoint for one in stack.endpoints}
    return Endpoint(stack.name, stack.endpoint, stack.api_key, stack.provider, stack.ca_pem, sleeps, servers)


def _of_url(args: argparse.Namespace, environ: Mapping[str, str]) -> Endpoint:
    key = url_key(args, environ)
    if not key:
        raise OpsError(f"--url needs a key: put it into {' or '.join(KEY_VARIABLES)}")
    url = url_base(args)
    return Endpoint(args.name or str(urlsplit(url).hostname), url, SecretStr(key), ca_pem=url_ca(args))


def _gpus(given: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, _, address = text.partition("=")
        if name not in names or not is_address(address):
            raise OpsError(f"--gpu {text}: one of {', '.join(names)}, `=`, and host:port of its dcgm-exporter")
        found[name] = address
    return found


def _check(args: argparse.Namespace) -> None:
    if args.url and (args.stack or args.exporter):
        raise OpsError("--url has no price and belongs to no stack: leave out -s and --exporter")
    if (args.out is None) != bool(args.exporter):
        raise OpsError("either --out DIR, which writes the files, or --exporter, which serves price and spend")
    for option, address in (("--exporter-at", args.exporter_at), ("--alertmanager", args.alertmanager)):
        if address and not is_address(address):
            raise OpsError(f"{option} {address}: host:port, such as 127.0.0.1:{PORT}")
    if not 0 <= args.port < 1 << 16:
        raise OpsError(f"--port {args.port}: 0 to 65535")


_ASLEEP = (
    "is not scraped: it scales with its traffic, and a scrape every 15 s would keep a worker awake and billed. "
    "Its cost is watched; whether it answers, `vllm-anywhere status` says."
)


def _facts(folder: Path, endpoints: Sequence[Endpoint], files: Mapping[str, File], changed: list[str]) -> Any:
    return {
        "folder": str(folder),
        "files": sorted(files),
        "changed": sorted(changed),
        "reload": "prometheus.yml" in changed or "alerts.yml" in changed,
        "stacks": [
            {
                "name": one.name,
                "endpoint": one.url,
                "scraped": not one.sleeps,
                **({"note": _ASLEEP} if one.sleeps else {}),
            }
            for one in endpoints
        ],
    }


def _lines(folder: Path, endpoints: Sequence[Endpoint], changed: list[str], exporter: str) -> list[str]:
    scraped = [one.name for one in endpoints if not one.sleeps]
    lines = [f"{folder}: {', '.join(sorted(changed)) or 'nothing'} written"]
    lines += [f"{one.name} {_ASLEEP}" for one in endpoints if one.sleeps]
    if scraped:
        lines.append("The keys are readable by you alone: run Prometheus under the same user.")
    if "prometheus.yml" in changed or "alerts.yml" in changed:
        lines.append(f"Start:  prometheus --config.file={folder}/prometheus.yml    (one that runs: kill -HUP)")
    if exporter:
        names = " ".join(one.name for one in endpoints)
        lines.append(f"Costs:  vllm-anywhere monitor --exporter -s {names} --port {exporter.rpartition(':')[2]}")
    lines.append(f"Charts: in Grafana, Dashboards > New > Import, {folder}/dashboard.json")
    return lines
