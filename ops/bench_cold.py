"""A cold start by replacement: a fresh server through `pulumi up`, timed until it answered."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ops.stack import OpsError, Run, Stack, pulumi_command, read_stack

READY = "vllm-anywhere:index:Ready"


@dataclass(frozen=True, slots=True)
class Replaced:
    """How long a fresh server took, in seconds: the whole `up`, and in it from created to its first answer.

    The old server went on answering meanwhile, and was deleted after.
    """

    up_s: float
    time_to_ready_s: float | None
    first_token_s: float | None
    urn: str


def replace_server(
    stack: str, run: Run = pulumi_command, clock: Callable[[], float] = time.monotonic
) -> tuple[Replaced, Stack]:
    """Replace the stack's server and wait until the new one answers; how long it took, and the stack as it is now.

    Raises:
        OpsError: when the stack has no server that answered, or `up` fails.
    """
    urn = server_urn(_state(stack, run), stack)
    begun = clock()
    done = run(["up", "--yes", "--skip-preview", "--stack", stack, "--replace", urn])
    took = clock() - begun
    if done.returncode:
        raise OpsError(
            f"the server of stack {stack} can't be replaced: {done.stderr.strip() or done.stdout.strip()}\n"
            f"`vllm-anywhere status -s {stack}` says whether the old one still answers"
        )
    now = read_stack(stack, run)
    return Replaced(took, now.ready.time_to_ready_s, now.ready.first_token_s, urn), now


def server_urn(state: dict[str, Any], stack: str) -> str:
    """The URN of the resource that `Ready` waits for.

    Raises:
        OpsError: when there is none.
    """
    resources: list[dict[str, Any]] = (state.get("deployment") or {}).get("resources") or []
    served = next((one["inputs"].get("serverId") for one in resources if one.get("type") == READY), None)
    for one in resources:
        if served and one.get("id") == served and one.get("type") != READY:
            return one["urn"]
    raise OpsError(f"stack {stack} has no server that has answered; `pulumi up -s {stack}` deploys one")


def _state(stack: str, run: Run) -> dict[str, Any]:
    found = run(["stack", "export", "--stack", stack])
    if found.returncode:
        raise OpsError(f"stack {stack} can't be read: {found.stderr.strip()}")
    return json.loads(found.stdout)
