"""What the stacks of the current Pulumi backend own, read from their states. Secrets stay encrypted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ops.stack import OpsError, Run, pulumi_command
from providers.native import label_of
from serving import NAMESPACE

_AT_A_TIME = 4


class Resource(BaseModel):
    """One resource of a state. `delete` marks the old one of a replacement that isn't finished."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    urn: str
    type: str
    id: str = ""
    created: datetime | None = None
    delete: bool = False
    inputs: dict[str, Any] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]

    @property
    def platform(self) -> str:
        """`runpod` of `vllm-anywhere:runpod:Pod`, `gcp` of `gcp:compute/instance:Instance`."""
        package, _, rest = self.type.partition(":")
        return rest.partition(":")[0] if package == "vllm-anywhere" else package


class Operation(BaseModel):
    """One change that was begun and not recorded as finished: it goes on now, or was cut short."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    resource: Resource
    type: str


class Deployment(BaseModel):
    """The part of an exported state that is read here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    resources: tuple[Resource, ...] = ()
    pending_operations: tuple[Operation, ...] = ()


@dataclass(frozen=True)
class StackState:
    """One stack by the name that `-s` takes."""

    name: str
    deployment: Deployment


@dataclass(frozen=True)
class Backend:
    """Where the current backend is, and all its stacks."""

    url: str
    stacks: tuple[StackState, ...]

    def owner(self, platform: str, id: str) -> str:
        """The stack whose state has a resource with that id on that platform; "" when none has."""
        for stack in self.stacks:
            if any((one.platform, one.id) == (platform, id) for one in stack.deployment.resources):
                return stack.name
        return ""

    def claimant(self, label: str) -> str:
        """The stack that is about to make, or change, the resource with that label; "" when none is."""
        for stack in self.stacks:
            if any(_is_about(operation.resource, label) for operation in stack.deployment.pending_operations):
                return stack.name
        return ""


def _is_about(resource: Resource, label: str) -> bool:
    """By its label; what another package provides (a VM of Google's) has none, and goes by project, stack and name."""
    own = resource.inputs.get("label")
    return label == own if own else label_of(resource.urn, 0).rpartition("/")[0] == label.rpartition("/")[0]


def backend_url(run: Run | None = None) -> str:
    """Where the states of the current backend are.

    Raises:
        OpsError: it isn't known.
    """
    return str(_told(run or pulumi_command, ["whoami", "--verbose", "--json"]).get("url", ""))


def stack_names(run: Run | None = None) -> list[str]:
    """Every stack of every project of the current backend, as `-s` takes it.

    Raises:
        OpsError: when they can't be listed.
    """
    listed = _told(run or pulumi_command, ["stack", "ls", "--all", "--json"])
    try:
        return [str(row["name"]) for row in listed]
    except (TypeError, KeyError):
        raise OpsError("`pulumi stack ls --all --json` did not answer with a list of stacks") from None


def projects(names: Iterable[str]) -> frozenset[str]:
    """The stacks as `project/stack`, the beginning of their labels, deployed or not."""
    return frozenset(project for name in names for project in _projects(name))


def read_backend(run: Run | None = None) -> Backend:
    """Every stack of every project of the current backend.

    Raises:
        OpsError: when one of them can't be read: what it owns would look like nobody's.
    """
    url = backend_url(run)
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        return Backend(url, tuple(pool.map(partial(read_state, run=run), stack_names(run))))


def read_state(stack: str, run: Run | None = None) -> StackState:
    """The state of one stack.

    Raises:
        OpsError: when it can't be read.
    """
    exported = _told(run or pulumi_command, ["stack", "export", "--stack", stack])
    try:
        content = exported["deployment"] or {}
        # A stack that was never deployed has null for its lists.
        present = {name: value for name, value in content.items() if value is not None}
        return StackState(stack, Deployment.model_validate(present))
    except (TypeError, KeyError, AttributeError, ValidationError):
        # Its values may be secret and are not repeated.
        raise OpsError(
            f"the state of stack {stack} has a form that isn't known; is `pulumi` newer than this?"
        ) from None


def _told(run: Run, args: Sequence[str]) -> Any:
    found = run(args)
    command = f"pulumi {' '.join(args)}"
    if found.returncode:
        reason = found.stderr.strip().removeprefix("error: ")
        raise OpsError(f"`{command}` failed, so it isn't known what the stacks own: {reason}")
    try:
        return json.loads(found.stdout)
    except ValueError:
        raise OpsError(f"`{command}` did not answer with JSON, so it isn't known what the stacks own") from None


def _projects(name: str) -> Iterator[str]:
    """`project/stack` for the name of a stack. The CLI leaves out what is the default, organization or project."""
    *before, stack = name.split("/")
    if len(before) < 2:
        yield f"{NAMESPACE}/{stack}"
    if before:
        yield f"{before[-1]}/{stack}"


def servers(resources: Iterable[Resource]) -> list[Resource]:
    """The resources that serve: those that adapters declare as `server`, in the order of state."""
    return [one for one in resources if one.name == "server" or one.name.startswith("server-")]
