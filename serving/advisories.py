"""Known weaknesses of vLLM releases, so that none with an open one is put on a public port."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Release = tuple[int, int, int, int]
"""A release with its patch of a patch: 0.10.1.1 is (0, 10, 1, 1)."""


@dataclass(frozen=True)
class Advisory:
    """A published weakness of the releases from `since` up to, not including, `fixed`."""

    id: str
    since: str
    fixed: str
    public_only: bool
    what: str

    def affects(self, release: str) -> bool:
        """Whether that release (`0.10.1.1`, or an image's tag, `v0.27.1-cu129`) has it."""
        return parse_release(self.since) <= parse_release(release) < parse_release(self.fixed)


@cache
def parse_release(text: str) -> Release:
    """`0.10.1.1`, `v0.27.1-cu129` or `0.8.5.post1` -> its first four numbers, 0 for each that is missing.

    Raises:
        ValueError: it doesn't begin with a version.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"`{text}` is not a vLLM version, such as `0.27.1`")
    major, minor, patch, more = (int(number or 0) for number in found.groups())
    return major, minor, patch, more


@cache
def advisories() -> tuple[Advisory, ...]:
    """Known weaknesses of vLLM releases, from `data/advisories.json`."""
    raw: dict[str, Any] = json.loads((files("serving") / "data" / "advisories.json").read_text(encoding="utf-8"))
    return tuple(Advisory(a["id"], a["from"], a["fixed"], a["public_only"], a["what"]) for a in raw["advisories"])
