"""What a watch does to a stack: plan a repair, weigh it, run it; or destroy what has outlived its time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from subprocess import CompletedProcess
from typing import Literal

from ops.comment import REPORT, report_in
from ops.stack import OpsError, Run, pulumi_command, read_stack
from ops.watch_look import Told, told
from ops.watch_memory import Folder
from serving.money import Money
from serving.watching import Bounds, Finding, Repairing, Step, objections, repair_of, too_soon

Result = Literal["", "repaired", "destroyed", "failed", "refused", "waiting", "following"]


_LOCKED = ("the stack is currently locked", "Another update is currently in progress")
"""What Pulumi says when somebody else is at work: with a backend in files or a bucket, and Pulumi Cloud."""


@dataclass(frozen=True)
class Deed:
    """What came of a look at the findings: nothing to do (""), what was done, or why it wasn't."""

    result: Result = ""
    text: str = ""


def reporting_pulumi(args: Sequence[str]) -> CompletedProcess[str]:
    """Pulumi with the report as data: a plan's cost is read from it."""
    return pulumi_command(args, {**os.environ, REPORT: "json"})


def plan(stack: str, run: Run) -> Repairing:
    """What `up` would do to what is there now, and what that would cost.

    Raises:
        OpsError: there is no plan.
    """
    found: Told = told(run, ["preview", "--refresh", "--stack", stack])
    report = report_in(found.diagnostics)
    steps = tuple(Step(step.op, step.name) for step in found.steps)
    return Repairing(steps, Money.of(report["cost"]) if report else None)


def heal(
    stack: str,
    found: Sequence[Finding],
    bounds: Bounds,
    folder: Folder,
    run: Run,
    now: Callable[[], datetime],
) -> Deed:
    """Do what the findings ask for, if it may be done. Only the leader of the stack may call this.

    Raises:
        OpsError: what was tried before, or what came of it, can't be read.
    """
    repair, broken = repair_of(found)
    if not repair:
        return Deed()
    memory = folder.memory(stack)
    if why := too_soon(memory.tried, bounds, now()):
        return Deed("waiting", why)
    if repair == "up":
        try:
            planned = plan(stack, run)
        except OpsError as error:
            # A plan that fails costs nothing, but is made again after a wait all the same.
            folder.remember(stack, memory.begun(now(), memory.unfinished))
            return Deed("failed", str(error))
        if reasons := objections(planned, broken, Money.of(memory.approved), bounds):
            return Deed("refused", "; ".join(reasons))
    before, memory = memory, memory.begun(now(), broken)
    folder.remember(stack, memory)
    args = ["up", "--refresh"] if repair == "up" else ["destroy"]
    done = run([*args, "--yes", "--skip-preview", "--stack", stack])
    if done.returncode and any(words in done.stderr + done.stdout for words in _LOCKED):
        folder.remember(stack, before)
        return Deed("waiting", "another `pulumi` is changing the stack")
    if done.returncode:
        return Deed("failed", f"`pulumi {' '.join(args)} -s {stack}` failed: {_why(done.stderr, done.stdout)}")
    if repair == "destroy":
        folder.remember(stack, memory.ended({}))
        return Deed("destroyed", "its time was over; nothing of it is left to be billed")
    folder.remember(stack, memory.ended(read_stack(stack, run).cost))
    return Deed("repaired", f"{', '.join(broken)}: `pulumi up --refresh` went through")


def _why(*streams: str) -> str:
    """The line that says most: the first that is an error."""
    lines = [line.strip() for text in streams for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[0].removeprefix("error: ")[:300]
