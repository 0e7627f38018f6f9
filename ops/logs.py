"""`vllm-anywhere logs`: what a stack's server says, and with `--why` what of it explains a failure."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ops.backend import Resource, read_state, servers
from ops.client import ChatClient
from ops.stack import OpsError, Run, Stack, read_stack
from ops.text import show, show_json
from providers.base import PACKAGES, PlatformError, load_logs
from serving.failures import Diagnosis, diagnose

LINES = 50
_LINES_FOR_WHY = 500

_KEYS = re.compile(r"\b(?:hf_\w{16,}|rpa_\w{16,}|sk-[\w-]{20,})")
_SECRET_VARIABLE = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE)$")
"""Names of variables that hold a secret, whichever platform's."""
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class Log:
    """What one server said, without keys, and the known failure in it; or why it can't be read."""

    platform: str
    server: str
    id: str
    lines: tuple[str, ...] = ()
    why: Diagnosis | None = None
    problem: str = ""


def add_logs(commands: Any) -> None:
    """The command's options."""
    parser = commands.add_parser("logs", help="what a stack's server says, and why it doesn't start")
    parser.add_argument("-s", "--stack", default="local", help="the Pulumi stack (default: local)")
    parser.add_argument("-n", "--lines", type=int, default=LINES, metavar="N", help=f"the last N (default: {LINES})")
    parser.add_argument("--server", type=int, default=0, metavar="N", help="the N-th of several servers (default: all)")
    parser.add_argument("--why", action="store_true", help="the known failure in it: its cause, its line, its cure")
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    parser.set_defaults(run=logs)


def logs(args: argparse.Namespace, *, run: Run | None = None, answers: Callable[[Stack], bool] | None = None) -> int:
    """Print the log of each server. With `--why`, returns 1 when no known failure is in any of them, else 0.

    Raises:
        OpsError: there is no such stack, no server in it, or a platform doesn't hand out a log; the others are shown.
    """
    if args.lines < 1:
        raise OpsError(f"--lines {args.lines}: 1 or more")
    asked = max(args.lines, _LINES_FOR_WHY) if args.why else args.lines
    found = [read_log(server, asked) for server in _servers(args.stack, args.server, run)]
    if args.why:
        found = [_explained_by(log, args.stack, run, answers or _answers) for log in found]
    unread = [log.problem for log in found if log.problem]
    if args.json and len(unread) < len(found):
        show_json({"stack": args.stack, "servers": [_facts(log, args.stack, args.lines) for log in found]})
    elif not args.json:
        for log in found:
            _show(log, args, several=len(found) > 1)
    if unread:
        raise OpsError("\n".join(unread))
    return 1 if args.why and not any(log.why for log in found) else 0


def read_log(server: Resource, lines: int) -> Log:
    """The last lines of a server, or why its platform doesn't hand them out."""
    of = partial(Log, server.platform, server.name, server.id)
    if server.platform not in PACKAGES:
        return of(problem=f"{server.type} is of no platform whose logs can be read from here")
    try:
        said = load_logs(server.platform)(server.id, lines)
    except PlatformError as error:
        return of(problem=f"the log of {server.name} ({server.id}) can't be read: {error}")
    shown = tuple(map(masked, said[-lines:]))
    return of(shown, diagnose(shown))


def _explained_by(log: Log, stack: str, run: Run | None, answers: Callable[[Stack], bool]) -> Log:
    """With the failure that a server has which says that it is up, and isn't reached."""
    unreached = None if log.why or log.problem else diagnose(log.lines, unreachable=True)
    if unreached is None:
        return log
    try:
        deployed = read_stack(stack, run)
        # One that the last `up` did not come to tell of has no endpoint yet.
        server = deployed.servers().get(log.server)
        return log if server and answers(server) else replace(log, why=unreached)
    except OpsError:
        # An `up` that failed has left no endpoint to ask: nothing has reached it.
        return replace(log, why=unreached)


def _answers(stack: Stack) -> bool:
    return ChatClient.of(stack).health().ok


def masked(line: str) -> str:
    """A line without anything that looks like a key, or is one of this environment's."""
    named = (value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))
    # The longest first: one may begin with another.
    for value in sorted(named, key=len, reverse=True):
        if len(value) >= _SHORTEST_SECRET:
            line = line.replace(value, "[secret]")
    return _KEYS.sub("[secret]", line)


def cure(fix: str, stack: str) -> str:
    """A rule's fix with its commands for that stack."""
    return fix.replace("pulumi config set", f"pulumi config set -s {stack}")


def _servers(stack: str, number: int, run: Run | None) -> list[Resource]:
    """What serves in a stack, or the server of that number: of a replacement that isn't finished, the new one alone."""
    found = [one for one in servers(read_state(stack, run).deployment.resources) if one.id]
    fresh = [one for one in found if not one.delete] or found
    if not fresh:
        raise OpsError(f"stack {stack} has no server whose log could be read; `pulumi up -s {stack}` deploys one")
    fresh.sort(key=lambda one: (len(one.name), one.name))
    if not number:
        return fresh
    name = "server" if number == 1 else f"server-{number}"
    if found := [one for one in fresh if one.name == name]:
        return found
    raise OpsError(f"--server {number}: stack {stack} has {', '.join(dict.fromkeys(one.name for one in fresh))}")


def _show(log: Log, args: argparse.Namespace, *, several: bool) -> None:
    if log.problem:
        return
    if several:
        show([f"{log.server} on {log.platform} ({log.id})"])
    if args.why:
        show([_explained(log, args.stack)])
    for line in log.lines[-args.lines :]:
        print(line)
    if not log.lines:
        which = f"`pulumi refresh -s {args.stack} --preview-only` says which"
        show([f"{log.id} on {log.platform} has written nothing yet, or is gone; {which}."])


def _explained(log: Log, stack: str) -> str:
    why = log.why
    if why is None:
        return f"No known failure is in the last {len(log.lines)} lines of {log.id} on {log.platform}.\n"
    return f"{why.cause}\n  seen: {why.quoted}\n  fix:  {cure(why.fix, stack)}\n  then: pulumi up -s {stack}\n"


def _facts(log: Log, stack: str, lines: int) -> dict[str, Any]:
    why = log.why
    return {
        "platform": log.platform,
        "server": log.server,
        "server_id": log.id,
        "lines": list(log.lines[-lines:]),
        "why": why and {"name": why.name, "cause": why.cause, "line": why.line, "fix": cure(why.fix, stack)},
        "problem": log.problem,
    }
