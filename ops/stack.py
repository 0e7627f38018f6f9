"""A stack as its outputs describe it: the only thing that commands need to know of a deployment."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


class OpsError(Exception):
    """A command can't go on. The text says what is wrong and which command helps."""


class ReadyOutput(BaseModel):
    """How the first answer came: seconds, and when; None when `ready.wake: false` let it sleep."""

    time_to_ready_s: float | None
    first_token_s: float | None
    answered_at: datetime | None


class Served(BaseModel):
    """One of several servers: its resource's name, where it answers, and how its first answer came."""

    server: str
    endpoint: str
    ready: ReadyOutput


class Stack(BaseModel):
    """The outputs that every deployment has, whatever its platform."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    endpoint: str
    api_key: SecretStr
    model: str
    provider: str
    hardware: str
    cost: dict[str, Any]
    ready: ReadyOutput
    ca_pem: str = ""
    endpoints: tuple[Served, ...] = ()

    def servers(self) -> dict[str, Stack]:
        """Each server as a stack of its own, by the resource's name."""
        if not self.endpoints:
            return {"server": self}
        alone = {"endpoints": ()}
        return {
            one.server: self.model_copy(update={"endpoint": one.endpoint, "ready": one.ready, **alone})
            for one in self.endpoints
        }


def read_stack(name: str, run: Run | None = None) -> Stack:
    """The outputs of a stack. `run` starts a command; it is the seam for tests.

    Raises:
        OpsError: when there is no Pulumi, no such stack, or nothing deployed in it.
    """
    found = (run or pulumi_command)(["stack", "output", "--json", "--show-secrets", "--stack", name])
    if found.returncode:
        reason = found.stderr.strip().removeprefix("error: ")
        raise OpsError(f"stack {name} can't be read: {reason}\n`pulumi stack ls` lists the stacks there are")
    try:
        return Stack.model_validate({**json.loads(found.stdout), "name": name})
    except ValidationError as error:
        # Only the names: the values may be secret.
        missing = ", ".join(sorted({str(problem["loc"][0]) for problem in error.errors(include_input=False)}))
        raise OpsError(
            f"nothing answers in stack {name} yet (no output {missing}); `pulumi up -s {name}` deploys it"
        ) from None


def file_name(stack: str) -> str:
    """A stack's name (`org/project/stack`) as one file name; no stack has an `@` in its own."""
    return stack.replace("/", "@")


def stack_options() -> argparse.ArgumentParser:
    """`-s` and `--json`, for commands about one deployed stack."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("-s", "--stack", default="local", help="the Pulumi stack (default: local)")
    options.add_argument("--json", action="store_true", help="one JSON object per answer, for programs")
    return options


def add_stacks(options: Any, without: str) -> None:
    """`-s` for commands about several stacks: `-s A B`, `-s A -s B`. `without` says which are meant without it."""
    options.add_argument(
        *("-s", "--stack"), nargs="+", action="extend", default=[], metavar="STACK", help=f"stacks (default: {without})"
    )


def pulumi_command(args: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the Pulumi CLI in the project. `env` replaces this process's environment.

    Raises:
        OpsError: when there is none on PATH.
    """
    if shutil.which("pulumi") is None:
        raise OpsError("there is no `pulumi` on PATH; `source tools/env.sh` in the checkout puts it there")
    # What is to be done without a question says `--yes` itself; by the variable, the CLI takes every command to say it,
    # and refuses `refresh --preview-only`.
    kept = {name: value for name, value in (env or os.environ).items() if name != "PULUMI_SKIP_CONFIRMATIONS"}
    return subprocess.run(
        ["pulumi", *args, "--non-interactive"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=kept,
        check=False,
    )
