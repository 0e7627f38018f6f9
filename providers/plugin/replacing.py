"""Forced replacements (`pulumi up --replace`, `pulumi state taint`), of which the engine tells a provider too little.

It checks them without the old inputs, as if there were nothing yet. So they come to the label of what is there, take
that over as they would after a crash, and would delete it at the end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

GENERATIONS = "VLLM_ANYWHERE_GENERATIONS"
"""Who forces a replacement says here which generation it replaces: a JSON object, URN -> generation."""


def stated(environ: Mapping[str, str]) -> dict[str, int]:
    """The generations that are to be replaced; none when nobody says so."""
    told: dict[str, int] = json.loads(environ.get(GENERATIONS) or "{}")
    return {urn: int(generation) for urn, generation in told.items()}


class Made:
    """What this run has created or taken over, which it must not delete as the old one of a replacement."""

    def __init__(self) -> None:
        self._ids: set[tuple[str, str]] = set()

    def add(self, urn: str, id: str) -> None:
        self._ids.add((urn, id))

    def __contains__(self, made: tuple[str, str]) -> bool:
        return made in self._ids
