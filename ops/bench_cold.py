"""A cold start by replacement: a fresh server through `pulumi up`, timed until it answered."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from ops.backend import Resource, read_state
from ops.stack import OpsError, Run, pulumi_command, read_stack
from providers.plugin.replacing import GENERATIONS

READY = "vllm-anywhere:index:Ready"


@dataclass(frozen=True, slots=True)
class Replaced:
    """How long a fresh server took, in seconds: the whole `up`, and in it from created to its first answer.

    The old server went on answering meanwhile, and was deleted after; on Google Cloud it was deleted before.
    """

    up_s: float
    time_to_ready_s: float | None
    first_token_s: float | None
    urn: str


def replace_server(stack: str, run: Run | None = None, clock: Callable[[], float] = time.monotonic) -> Replaced:
    """Replace the stack's server and wait until the new one answers; how long it took.

    Raises:
        OpsError: when the stack has no server that answered, or `up` fails.
    """
    ask = run or pulumi_command
    server = replaceable(read_state(stack, ask).deployment.resources, stack)
    urn = server.urn
    told = json.dumps({urn: server.inputs.get("generation", 1)})
    up = run or partial(pulumi_command, env={**os.environ, GENERATIONS: told})
    begun = clock()
    done = up(["up", "--yes", "--skip-preview", "--stack", stack, "--replace", urn])
    took = clock() - begun
    if done.returncode:
        raise OpsError(
            f"the server of stack {stack} can't be replaced: {done.stderr.strip() or done.stdout.strip()}\n"
            f"`vllm-anywhere status -s {stack}` says whether the old one still answers"
        )
    now = read_stack(stack, ask).ready
    return Replaced(took, now.time_to_ready_s, now.first_token_s, urn)


def replaceable(resources: Sequence[Resource], stack: str) -> Resource:
    """The server that is timed, as state has it: of several the first, which is the one that the outputs tell of.

    Raises:
        OpsError: when there is none.
    """
    # Resources are in the order in which they came to be, which is any order among several servers.
    gates = {one.urn: one.inputs.get("serverId") for one in resources if one.type == READY}
    served = gates[min(gates, key=len)] if gates else None
    for one in resources:
        if served and one.id == served and one.type != READY:
            return one
    raise OpsError(f"stack {stack} has no server that has answered; `pulumi up -s {stack}` deploys one")
