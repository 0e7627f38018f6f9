"""Known weaknesses of vLLM releases, so that none with an open one is put on a public port."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from serving.engine_rules import Version, parse_version


@dataclass(frozen=True)
class Advisory:
    """A published weakness of the releases from `since` up to, not including, `fixed`."""

    id: str
    since: Version
    fixed: Version
    public_only: bool
    what: str

    def affects(self, version: Version) -> bool:
        return self.since <= version < self.fixed


@cache
def advisories() -> tuple[Advisory, ...]:
    """Known weaknesses of vLLM releases, from `data/advisories.json`."""
    raw: dict[str, Any] = json.loads((files("serving") / "data" / "advisories.json").read_text(encoding="utf-8"))
    return tuple(
        Advisory(a["id"], parse_version(a["from"]), parse_version(a["fixed"]), a["public_only"], a["what"])
        for a in raw["advisories"]
    )
