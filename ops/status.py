"""`vllm-anywhere status`: what a stack serves, and whether it answers now."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from ops.client import ChatClient, Health
from ops.stack import Stack, read_stack, stack_options


def add_status(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("status", parents=[stack_options()], help=__doc__)
    parser.set_defaults(run=lambda args: status(read_stack(args.stack), as_json=args.json))  # pyright: ignore


def status(
    stack: Stack,
    *,
    as_json: bool,
    now: datetime | None = None,
    out: TextIO = sys.stdout,
    client: ChatClient | None = None,
) -> int:
    """Show the stack and one live check of it. Returns the exit status: 0 when it answers, 1 when not."""
    client = client or ChatClient(stack.endpoint, stack.api_key.get_secret_value(), stack.ca_pem)
    health = client.health()
    facts = status_facts(stack, health, now or datetime.now(UTC))
    if as_json:
        print(json.dumps(facts), file=out)
    else:
        _show(facts, out)
    return 0 if health.ok else 1


def status_facts(stack: Stack, health: Health, now: datetime) -> dict[str, Any]:
    """What is known of a stack, as plain data without the key."""
    answered = stack.ready.answered_at
    return {
        "stack": stack.name,
        "endpoint": stack.endpoint,
        "healthy": health.ok,
        "problem": health.problem,
        "latency_ms": round(health.latency_ms, 1),
        "model": stack.model,
        "models": list(health.models),
        "provider": stack.provider,
        "hardware": stack.hardware,
        "ready_since": answered.isoformat() if answered else None,
        "uptime_s": int((now - answered).total_seconds()) if answered and health.ok else None,
        "hourly_usd": stack.cost.get("hourly_usd"),
        "monthly_usd": stack.cost.get("monthly_usd"),
    }


def _show(facts: dict[str, Any], out: TextIO) -> None:
    console = Console(file=out, highlight=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    if facts["healthy"]:
        health = f"[green]answers[/green] ({facts['latency_ms']} ms)"
    else:
        health = f"[red]does not answer[/red]: {facts['problem']}"
    table.add_row("stack", facts["stack"])
    table.add_row("endpoint", facts["endpoint"])
    table.add_row("health", health)
    table.add_row("model", facts["model"])
    table.add_row("platform", f"{facts['provider']}, {facts['hardware']}")
    if facts["uptime_s"] is not None:
        table.add_row("up", f"{timedelta(seconds=facts['uptime_s'])} (first answer {facts['ready_since']})")
    table.add_row("cost", f"${facts['hourly_usd']} an hour, ${facts['monthly_usd']} a month of 730 hours")
    with console.capture() as captured:
        console.print(table)
    # Tables are padded to their width, which is of no use in a pipe.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), file=out)
    if not facts["healthy"]:
        print(f"`pulumi refresh -s {facts['stack']}` sees what is left, `pulumi up` repairs it.", file=out)
