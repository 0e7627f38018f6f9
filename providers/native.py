"""Native resources: plain classes with typed inputs and outputs, which the plugin puts on Pulumi's wire.

A resource decides in pure methods (`check`, `changes`, `preview`) and acts in `create`, `read`, `update`, `delete`.
Properties are snake_case here and camelCase in Pulumi. A `SecretStr` field is secret in state.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from providers.base import Interrupted


class Unknown:
    """A value that only the real run will know; there is one, `UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


class Properties(BaseModel):
    """Base of a resource's inputs and outputs."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, protected_namespaces=()
    )


I = TypeVar("I", bound=Properties)  # noqa: E741 - inputs
O = TypeVar("O", bound=Properties)  # noqa: E741 - outputs


@dataclass(frozen=True)
class Failure:
    """One input that can't work: the property's name, and what would."""

    property: str
    reason: str


@dataclass(frozen=True)
class Created(Generic[O]):
    """What now exists. `problem` says why it does not work yet; its id is kept in state all the same."""

    id: str
    outputs: O
    problem: str = ""


@dataclass(frozen=True)
class Found(Generic[I, O]):
    """What `read` saw on the platform. Drift is told by inputs that say what is there, not what was asked for."""

    inputs: I
    outputs: O


@dataclass(frozen=True)
class Context:
    """What a resource may use of the outside while it acts.

    `progress(text)` shows a passing line beside the resource. `pause(seconds)` waits, and returns True once the
    user has cancelled. `clock()` is monotonic, in seconds; `now()` is the time of day, in UTC.
    `timeout_s` is the user's custom time-out, 0 for none.
    """

    urn: str
    progress: Callable[[str], None]
    pause: Callable[[float], bool]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    timeout_s: float = 0.0

    def wait(self, seconds: float) -> None:
        """Wait.

        Raises:
            Interrupted: when the user has cancelled.
        """
        if self.pause(seconds):
            raise Interrupted("cancelled")


class Labelled(Properties):
    """Inputs of a thing that is paid for, or that outlives the run: the plugin fills in its label at check."""

    label: str = Field(default="", description="Set by the provider: project/stack/resource/generation-owner.")
    generation: int = Field(default=1, description="Set by the provider: counts the replacements of this resource.")


class NativeResource(ABC, Generic[I, O]):
    """One resource type."""

    token: ClassVar[str]
    """The type token, `vllm-anywhere:<platform>:<Name>`."""
    doc: ClassVar[str]
    """One sentence for the package schema."""
    inputs: type[I]
    outputs: type[O]
    replace_on: ClassVar[frozenset[str]] = frozenset()
    """Inputs (snake_case) whose change needs a new resource."""

    def check(self, inputs: Mapping[str, Any]) -> list[Failure]:
        """What pydantic can't see. `inputs` are the valid, known ones by their snake_case names."""
        return []

    def satisfied(self, changed: frozenset[str], new: Mapping[str, Any], outputs: Mapping[str, Any]) -> frozenset[str]:
        """Those of the changed `replace_on` inputs that what exists already satisfies; they are updated in place.

        Where an input is a wish (a list of GPUs) and the output what came of it, another wish need not cost a new
        machine. `new` are the new inputs and `outputs` what state holds, by their snake_case names; values may be
        unknown.
        """
        return frozenset()

    def settled(self, changed: frozenset[str]) -> frozenset[str]:
        """Outputs (snake_case) that a change of those inputs in place leaves as they are: preview shows them."""
        return frozenset()

    def delete_before_replace(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether the old one has to go first, by the inputs of both under their snake_case names.

        False keeps it serving until the new one is ready.
        """
        return False

    def preview(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Outputs that are known before anything is created; what is left out is unknown."""
        return {}

    @abstractmethod
    def create(self, context: Context, inputs: I) -> Created[O]:
        """Make it, or adopt what an interrupted create left under the same label."""

    @abstractmethod
    def read(self, context: Context, id: str, inputs: I | None, outputs: O | None) -> Found[I, O] | None:
        """What is there now; None when it is gone. What state knows is None on import."""

    @abstractmethod
    def update(self, context: Context, id: str, outputs: O, old: I, new: I) -> Created[O]:
        """Change it in place."""

    @abstractmethod
    def delete(self, context: Context, id: str, outputs: O) -> None:
        """Remove it, and return once it is gone. What is gone already is success."""


def label_of(urn: str, generation: int, owner: str = "") -> str:
    """`project/stack/resource/generation-owner` of a URN such as `urn:pulumi:dev::shop::a:b:C$a:b:D::server`.

    `owner` is random and as old as the stack's state, so a label is no other stack's, whatever that one is called:
    stacks of two backends may have the same names, and what carries one's label is taken over or destroyed.
    """
    stack, project, _, name = urn.removeprefix("urn:pulumi:").split("::", 3)
    return f"{project}/{stack}/{name}/{generation}{f'-{owner}' if owner else ''}"


OWNER = "[0-9a-f]{8}"
"""The form of an owner, as a regular expression."""
_LAST = re.compile(rf"(?P<generation>\d+)(?:-(?P<owner>{OWNER}))?")


def generation_in(label: str) -> int:
    """The generation that a label ends in; 1 where a name is no label, as that of an import may be none."""
    last = _LAST.fullmatch(label.rpartition("/")[2])
    return int(last["generation"]) if last else 1


def owner_in(label: str) -> str:
    """The owner that a label ends in; "" where a name is no label, or one of a state without an owner."""
    last = _LAST.fullmatch(label.rpartition("/")[2])
    return last["owner"] or "" if last else ""


@dataclass
class Generations:
    """Counts the replacements of each URN within one run of the engine.

    The engine checks a replacement without the old inputs; the generation of the old ones, seen just before in the
    same process, tells which comes next. It restarts from what state holds, hence is the same after a crash.
    """

    seen: dict[str, int] = field(default_factory=dict[str, int])

    def carry(self, urn: str, old: int | None) -> int:
        """The generation for a check whose old inputs had generation `old`, None if there were none."""
        if old is None:
            return self.seen.get(urn, 0) + 1
        self.seen[urn] = old
        return old
