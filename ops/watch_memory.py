"""What a watch keeps between rounds and runs: attempts, its history, and the lock that makes one of them the leader."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ops.stack import ROOT, OpsError, file_name
from serving.watching import Attempt

_KEPT = timedelta(days=7)


class Tried(BaseModel):
    """One attempt as it is kept."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    ok: bool


class Memory(BaseModel):
    """What must outlive a watch, of one stack.

    Attributes:
        attempts: those of the last days, oldest first.
        unfinished: resources of a repair that was begun and has not gone through.
        approved: the cost that somebody saw and deployed; no repair raises it.
        repaired: the cost that the watch's own last repair came to.
    """

    model_config = ConfigDict(frozen=True)

    attempts: tuple[Tried, ...] = ()
    unfinished: tuple[str, ...] = ()
    approved: dict[str, Any] = {}
    repaired: dict[str, Any] = {}

    @property
    def tried(self) -> list[Attempt]:
        return [Attempt(one.at, one.ok) for one in self.attempts]

    def begun(self, at: datetime, names: tuple[str, ...]) -> Memory:
        """With one more attempt, which counts as failed until it is `ended`: a watch that is killed has failed."""
        kept = tuple(one for one in self.attempts if one.at > at - _KEPT)
        return self.model_copy(update={"attempts": (*kept, Tried(at=at, ok=False)), "unfinished": names})

    def ended(self, cost: Mapping[str, Any]) -> Memory:
        """The last attempt went through, and the stack now costs that."""
        *before, last = self.attempts
        done = (*before, Tried(at=last.at, ok=True))
        return self.model_copy(update={"attempts": done, "unfinished": (), "repaired": _terms(cost)})

    def seeing(self, cost: Mapping[str, Any] | None, *, well: bool) -> Memory:
        """After a look at a stack with that `cost` output; None when an `up` that failed left none.

        Repairs may each cost a little more, but not one on top of the other: what they are measured by is what a
        person's `up` has shown.
        """
        update: dict[str, Any] = {"unfinished": ()} if well else {}
        if cost is not None and _terms(cost) != self.repaired:
            update |= {"approved": _terms(cost), "repaired": {}}
        return self.model_copy(update=update)


class Folder:
    """Where a watch keeps what it knows of the stacks of one backend; `url` tells backends apart."""

    def __init__(self, url: str, root: Path | None = None) -> None:
        state = root or Path(os.environ.get("VLLM_ANYWHERE_STATE") or ROOT / ".state")
        self.path = state / "watch" / hashlib.sha256(url.encode()).hexdigest()[:12]

    def history(self, stack: str) -> Path:
        """One JSON object a line for each check."""
        return self.path / f"{file_name(stack)}.jsonl"

    def memory(self, stack: str) -> Memory:
        """What is known of a stack.

        Raises:
            OpsError: the file can't be read: without it, attempts are not bounded.
        """
        path = self._memory(stack)
        try:
            return Memory.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Memory()
        except (OSError, ValidationError):
            raise OpsError(f"{path} can't be read, so it isn't known what was tried; remove it to begin anew") from None

    def remember(self, stack: str, memory: Memory) -> None:
        """Keep it, whole or not at all.

        Raises:
            OpsError: the file can't be written.
        """
        path = self._memory(stack)
        with _writing(path):
            whole = path.with_suffix(".new")
            whole.write_text(memory.model_dump_json(), encoding="utf-8")
            whole.replace(path)

    def note(self, stack: str, line: Mapping[str, Any], path: Path | None = None) -> None:
        """Add a line to the history.

        Raises:
            OpsError: the file can't be written.
        """
        path = path or self.history(stack)
        # One write to a file opened for appending: two watches never mix their lines.
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @contextmanager
    def leading(self, stack: str) -> Generator[bool]:
        """Whether this is the one watch that may act on a stack, on this machine, as long as it is held.

        The system lets go of the lock when its holder ends, however it ends.

        Raises:
            OpsError: the lock's file can't be written.
        """
        path = self.path / f"{file_name(stack)}.lock"
        with _writing(path):
            file = path.open("a")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def _memory(self, stack: str) -> Path:
        return self.path / f"{file_name(stack)}.json"


def _terms(cost: Mapping[str, Any]) -> dict[str, Any]:
    names = ("kind", "hourly_usd", "monthly_usd", "high", "incomplete", "depends_on_usage")
    return {name: cost[name] for name in names if name in cost}


@contextmanager
def _writing(path: Path) -> Generator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise OpsError(f"{path} can't be written: {error.strerror}") from None
