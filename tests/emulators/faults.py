"""Scripted faults: what goes wrong, at which call, and whether the platform has done the work by then."""

from __future__ import annotations

import json
import re
import threading
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Kind(StrEnum):
    """What becomes of the call. "Work" is what the platform was asked for: something is created, or deleted."""

    TIMEOUT = "timeout"
    """The work is done; no answer, for as long as the caller waits."""
    STALLED = "stalled"
    """No work; no answer, for as long as the caller waits."""
    LOST = "lost"
    """The work is done; the answer is `status`, 500 by default."""
    DROPPED = "dropped"
    """The work is done; the connection closes without an answer."""
    REFUSED = "refused_before"
    """No work; `status`, 503 by default."""
    GARBAGE = "garbage"
    """The work is done; the status is the real one, the JSON breaks off half-way."""
    MALFORMED_LIST = "malformed_list"
    """200, valid JSON, and null where the list should be: what must never be read as "none"."""
    RATE_LIMITED = "rate_limited"
    """No work; 429 with Retry-After."""
    KILL = "kill"
    """The work is done; the process that called gets SIGKILL before it reads an answer."""
    KILL_BEFORE = "kill_before"
    """No work; the process that called gets SIGKILL."""

    @property
    def works(self) -> bool:
        """Whether the platform does what it was asked for."""
        return self not in {Kind.STALLED, Kind.REFUSED, Kind.RATE_LIMITED, Kind.KILL_BEFORE}


class Fault(BaseModel):
    """One fault, for the `nth` call (from 1) whose method and path match, and the `times - 1` matching ones after it.

    `path` is searched for in the path without the query; `times` 0 means for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "*"
    path: str = ""
    nth: int = Field(default=1, ge=1)
    times: int = Field(default=1, ge=0)
    kind: Kind
    status: int | None = Field(default=None, ge=400, le=599)
    retry_after_s: int = Field(default=1, ge=0)

    @field_validator("path")
    @classmethod
    def _is_a_pattern(cls, path: str) -> str:
        try:
            re.compile(path)
        except re.error as error:
            raise ValueError(f"{path!r} is no regular expression: {error}") from error
        return path

    def matches(self, method: str, path: str) -> bool:
        return self.method in {"*", method} and re.search(self.path, path) is not None

    def due(self, seen: int) -> bool:
        """Whether the fault strikes at the `seen`-th matching call."""
        return seen >= self.nth and (self.times == 0 or seen < self.nth + self.times)


class Faults:
    """The faults of one emulator, and how often each was met. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._seen: list[int] = []
        self._struck: list[int] = []

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._faults += faults
            self._seen += [0] * len(faults)
            self._struck += [0] * len(faults)

    def clear(self) -> None:
        with self._lock:
            self._faults, self._seen, self._struck = [], [], []

    def take(self, method: str, path: str) -> Fault | None:
        """The fault of this call: every matching one counts it, the first that is due strikes."""
        with self._lock:
            struck: int | None = None
            for index, fault in enumerate(self._faults):
                if fault.matches(method, path):
                    self._seen[index] += 1
                    if struck is None and fault.due(self._seen[index]):
                        struck = index
            if struck is None:
                return None
            self._struck[struck] += 1
            return self._faults[struck]

    @property
    def struck(self) -> int:
        """How many calls met a fault: a test of a fault that never struck proves nothing."""
        with self._lock:
            return sum(self._struck)

    def listed(self) -> list[dict[str, Any]]:
        """Each fault with the calls that it matched (`seen`) and spoiled (`struck`)."""
        with self._lock:
            return [
                {**fault.model_dump(mode="json"), "seen": seen, "struck": struck}
                for fault, seen, struck in zip(self._faults, self._seen, self._struck, strict=True)
            ]


def without_lists(value: Any) -> Any:
    """The JSON value with every list at its top level replaced by null; a bare list becomes null itself."""
    if isinstance(value, list):
        return None
    if isinstance(value, dict):
        return {key: None if isinstance(item, list) else item for key, item in value.items()}
    return value


def broken(body: bytes) -> bytes:
    """A body that is no JSON: its first half, or an open brace where there was nothing."""
    half = body[: len(body) // 2] or b'{"'
    try:
        json.loads(half)
    except ValueError:
        return half
    return b'{"'
