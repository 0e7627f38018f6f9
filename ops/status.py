"""`vllm-anywhere status`: what a stack serves and whether it answers now; of several, or all, what they cost too."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, TextIO

from rich import box
from rich.table import Table
from rich.text import Text

from ops.backend import read_state, stack_names
from ops.client import ChatClient, Health
from ops.parallel import ask_all
from ops.servers import health_of, of_each
from ops.stack import OpsError, Run, Stack, add_stacks, pulumi_command, read_stack
from ops.text import show, show_json
from ops.url import add_url_options, stack_of_url
from ops.watch_look import DEPLOYMENT, may_sleep, read_config
from providers.base import PlatformError
from serving.money import Money
from serving.spec import DeploymentSpec
from serving.watching import ends_at

_AT_A_TIME = 4
_TIMEOUT_S = 20.0
_CENTS = Decimal("0.0001")

Check = Callable[[Stack], Health]


@dataclass(frozen=True)
class Life:
    """When a deployment was first made, and when its time (`budget.ttl_hours`) is over; None where that isn't known."""

    began: datetime | None = None
    ends: datetime | None = None


@dataclass(frozen=True)
class Birth:
    """Of a stack in whose state there is a deployment of ours; `spec` is None when its config can't be read."""

    spec: DeploymentSpec | None
    life: Life


@dataclass(frozen=True)
class Entry:
    """One stack of the backend. `stack` is None, and `problem` says why, when its outputs can't be read."""

    name: str
    stack: Stack | None = None
    spec: DeploymentSpec | None = None
    life: Life = Life()
    problem: str = ""

    @property
    def hourly(self) -> Decimal | None:
        return Money.of(self.stack.cost).hourly if self.stack else None

    @property
    def open_use(self) -> bool:
        """Whether what its workers cost depends on a use that isn't declared."""
        return self.stack is not None and Money.of(self.stack.cost).open_use

    @property
    def sleeps(self) -> bool:
        return self.stack is not None and may_sleep(self.stack, self.spec)


def add_status(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("status", help=__doc__)
    add_stacks(parser, "all of the backend")
    add_url_options(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    names = list(dict.fromkeys(args.stack))
    if args.url:
        if names:
            raise OpsError("--url belongs to no stack: leave out -s")
        return status(stack_of_url(args), as_json=args.json)
    if len(names) != 1:
        return status_of_all(names, as_json=args.json)
    (name,) = names
    stack = read_stack(name)
    born = read_birth(name, pulumi_command)
    return status(stack, as_json=args.json, life=born.life if born else Life())


def status(
    stack: Stack,
    *,
    as_json: bool,
    now: datetime | None = None,
    out: TextIO | None = None,
    client: ChatClient | None = None,
    life: Life = Life(),
) -> int:
    """Show the stack and one live check of it. Returns the exit status: 0 when it answers, 1 when not."""
    healths = of_each(stack, lambda one: (client or ChatClient.of(one)).health())
    health = health_of(healths)
    facts = {**status_facts(stack, health, now or datetime.now(UTC), life), **_server_facts(stack, healths)}
    if as_json:
        print(json.dumps(facts), file=out)
    else:
        _show(facts, out or sys.stdout)
    return 0 if health.ok else 1


def status_of_all(
    names: Sequence[str] = (),
    *,
    as_json: bool,
    run: Run = pulumi_command,
    check: Check | None = None,
    now: datetime | None = None,
    out: TextIO | None = None,
) -> int:
    """Show the named stacks, or all that are deployed, and what they cost. Returns 0 when each answers or may sleep.

    Workers that may sleep aren't asked: that would wake them, and be billed.

    Raises:
        OpsError: the stacks can't be listed.
    """
    asked_for = names or stack_names(run)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        found = pool.map(partial(read_entry, run=run), asked_for)
        entries = [
            entry or Entry(name, problem="nothing is deployed in it")
            for name, entry in zip(asked_for, found, strict=True)
            if entry or names
        ]
    asked = {entry.name: entry.stack for entry in entries if entry.stack and not entry.sleeps}
    answers = ask_all({name: partial(check or _check, stack) for name, stack in asked.items()}, _TIMEOUT_S)
    healths = {
        name: Health(False, (), 0.0, str(said)) if isinstance(said, PlatformError) else said
        for name, said in answers.items()
    }
    at = now or datetime.now(UTC)
    if as_json:
        hourly, complete = _total(entries)
        stacks = [_entry_facts(entry, healths.get(entry.name), at) for entry in entries]
        show_json({"stacks": stacks, "hourly_usd": str(hourly), "prices_complete": complete}, out)
    elif entries:
        show([_table(entries, healths, at)], out)
    else:
        show(["Nothing is deployed in this backend; `pulumi up -s local` is the first step."], out)
    return 0 if all(entry.stack and (entry.sleeps or healths[entry.name].ok) for entry in entries) else 1


def read_entry(name: str, run: Run) -> Entry | None:
    """What is known of a stack by its state, config and outputs; None when no deployment of ours is in it."""
    try:
        born = read_birth(name, run)
    except OpsError as error:
        return Entry(name, problem=str(error))
    if born is None:
        return None
    try:
        return Entry(name, read_stack(name, run), born.spec, born.life)
    except OpsError:
        problem = f"its last `up` did not finish; `pulumi up -s {name}` goes on with it"
        return Entry(name, None, born.spec, born.life, problem)


def read_birth(name: str, run: Run) -> Birth | None:
    """When a stack was first made and for how long; None when no deployment of ours is in it.

    Raises:
        OpsError: its state can't be read.
    """
    began = [one.created for one in read_state(name, run).deployment.resources if one.type == DEPLOYMENT]
    if not began:
        return None
    try:
        spec = read_config(name, run)
    except OpsError:
        # A config that can't be read hides no more than when the time is over.
        spec = None
    return Birth(spec, Life(began[0], ends_at(began[0], spec.budget.ttl_hours if spec else None)))


def status_facts(stack: Stack, health: Health, now: datetime, life: Life = Life()) -> dict[str, Any]:
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
        "depends_on_usage": Money.of(stack.cost).open_use,
        **_life_facts(life, now),
    }


def _server_facts(stack: Stack, healths: Mapping[str, Health]) -> dict[str, Any]:
    """Each of several servers; nothing where there is one."""
    servers = [
        {
            "server": name,
            "endpoint": one.endpoint,
            "healthy": healths[name].ok,
            "problem": healths[name].problem,
            "latency_ms": round(healths[name].latency_ms, 1),
        }
        for name, one in stack.servers().items()
    ]
    return {"servers": servers} if len(servers) > 1 else {}


def _life_facts(life: Life, now: datetime) -> dict[str, Any]:
    return {
        "created_at": life.began.isoformat(timespec="seconds") if life.began else None,
        "ends_at": life.ends.isoformat(timespec="seconds") if life.ends else None,
        "past_its_time": life.ends is not None and now >= life.ends,
    }


def _entry_facts(entry: Entry, health: Health | None, now: datetime) -> dict[str, Any]:
    stack = entry.stack
    if stack and health:
        return status_facts(stack, health, now, entry.life)
    return {
        "stack": entry.name,
        "endpoint": stack.endpoint if stack else None,
        "healthy": None if stack else False,
        "problem": entry.problem,
        "model": stack.model if stack else None,
        "provider": stack.provider if stack else None,
        "hardware": stack.hardware if stack else None,
        "hourly_usd": stack.cost.get("hourly_usd") if stack else None,
        "monthly_usd": stack.cost.get("monthly_usd") if stack else None,
        "depends_on_usage": entry.open_use,
        **_life_facts(entry.life, now),
    }


def _total(entries: Sequence[Entry]) -> tuple[Decimal, bool]:
    """US dollars an hour of all whose price is known, and whether that is all that they cost."""
    known = [entry.hourly for entry in entries if entry.hourly is not None]
    return sum(known, Decimal(0)), len(known) == len(entries) and not any(entry.open_use for entry in entries)


def _check(stack: Stack) -> Health:
    return health_of(of_each(stack, lambda one: ChatClient.of(one).health()))


def _table(entries: Sequence[Entry], healths: dict[str, Health], now: datetime) -> Table:
    hourly, complete = _total(entries)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_footer=True)
    table.add_column("stack", overflow="fold", footer="total")
    table.add_column("health", overflow="fold")
    table.add_column("platform", overflow="fold")
    table.add_column("up", no_wrap=True)
    table.add_column(
        "$/hour", justify="right", no_wrap=True, footer=f"{hourly.quantize(_CENTS)}{'' if complete else '+'}"
    )
    for entry in entries:
        stack = entry.stack
        platform = f"{stack.provider}, {stack.hardware}" if stack else ""
        up = _span(now - entry.life.began) if entry.life.began else ""
        use = " + use" if entry.open_use else ""
        cost = "unknown" if entry.hourly is None else f"{entry.hourly.quantize(_CENTS)}{use}"
        table.add_row(entry.name, _health(entry, healths.get(entry.name), now), platform, up, cost)
    return table


def _health(entry: Entry, health: Health | None, now: datetime) -> Text:
    if entry.stack is None:
        text = Text(entry.problem, style="red")
    elif health is None:
        text = Text("may sleep, not asked", style="dim")
    elif health.ok:
        text = Text(f"answers ({health.latency_ms:.0f} ms)", style="green")
    else:
        text = Text(f"does not answer: {health.problem}", style="red")
    if entry.life.ends and now >= entry.life.ends:
        over = f"\nits time was over {_span(now - entry.life.ends)} ago; `pulumi destroy -s {entry.name}`"
        text.append(over, style="yellow")
    return text


def _span(span: timedelta) -> str:
    """`3d 4h`, `4h 05m`, `5m`."""
    minutes = int(span.total_seconds()) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes % 60:02}m" if hours else f"{minutes}m"


def _show(facts: dict[str, Any], out: TextIO) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("stack", facts["stack"])
    for server in facts.get("servers", [facts]):
        if server["healthy"]:
            health = Text.assemble(("answers", "green"), f" ({server['latency_ms']} ms)")
        else:
            health = Text.assemble(("does not answer", "red"), f": {server['problem']}")
        table.add_row(server.get("server", "endpoint"), server["endpoint"])
        table.add_row("health" if server is facts else "", health)
    table.add_row("model", facts["model"] or ", ".join(facts["models"]))
    if facts["provider"]:
        table.add_row("platform", f"{facts['provider']}, {facts['hardware']}")
    if facts["uptime_s"] is not None:
        table.add_row("up", f"{timedelta(seconds=facts['uptime_s'])} (first answer {facts['ready_since']})")
    if facts["ends_at"]:
        over = ("is over", "yellow") if facts["past_its_time"] else "is over"
        when = f" {'since' if facts['past_its_time'] else 'at'} {facts['ends_at']} (`budget.ttl_hours`)"
        table.add_row("time", Text.assemble(over, when))
    if facts["hourly_usd"] is not None:
        use = ", and every hour that a worker is awake: it depends on use" if facts["depends_on_usage"] else ""
        table.add_row("cost", f"${facts['hourly_usd']} an hour, ${facts['monthly_usd']} a month of 730 hours{use}")
    show([table], out)
    if not facts["healthy"] and facts["provider"]:
        print(f"`pulumi refresh -s {facts['stack']}` sees what is left, `pulumi up` repairs it.", file=out)
