"""Known weaknesses of the servers that are put on public ports, so that none with an open one is.

What counts is whether a weakness can be reached here: most of vLLM's advisories are about routes that the guard keeps
closed, or about callers, who have the key.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from serving.tables import data_text

Release = tuple[int, int, int, int]
"""A release with its patch of a patch: 0.10.1.1 is (0, 10, 1, 1)."""
Product = Literal["vllm", "litellm", "llama.cpp"]
Reach = Literal["anyone", "caller", "model", "closed"]
"""Who can use it: `anyone` without a key, a `caller` with one, who changes the `model`'s repository; or nobody, since
the route is `closed`."""

_GRAVE = ("high", "critical")


@dataclass(frozen=True)
class Advisory:
    """A published weakness of the releases from `since` up to, not including, `fixed`.

    `needs` is an argument of the server without which it isn't there, "" for none.
    """

    id: str
    since: str
    fixed: str
    severity: str
    reach: Reach
    what: str
    needs: str = ""

    def affects(self, release: str) -> bool:
        """Whether that release (`0.10.1.1`, or an image's tag, `v0.27.1-cu129`) has it."""
        return parse_release(self.since) <= parse_release(release) < parse_release(self.fixed)

    @property
    def bars(self) -> bool:
        """Whether a release that has it must not be put on a public port."""
        return self.reach == "anyone" or (self.reach != "closed" and self.severity in _GRAVE)


@cache
def parse_release(text: str) -> Release:
    """`0.10.1.1`, `v0.27.1-cu129`, `0.8.5.post1`, `b9060` -> its first four numbers, 0 for each that is missing.

    Raises:
        ValueError: it doesn't begin with a version.
    """
    found = re.match(r"[vb]?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"`{text}` is not a version, such as `0.27.1`")
    major, minor, patch, more = (int(number or 0) for number in found.groups())
    return major, minor, patch, more


@cache
def advisories(product: Product = "vllm") -> tuple[Advisory, ...]:
    """Known weaknesses of a product's releases, from `data/advisories.json`."""
    raw: dict[str, Any] = json.loads(data_text("advisories.json"))
    return tuple(
        Advisory(a["id"], a["from"], a["fixed"], a["severity"], a["reach"], a["what"], a.get("with", ""))
        for a in raw["advisories"]
        if a["product"] == product
    )


def known(product: Product, release: str) -> tuple[Advisory, ...]:
    """Those that a release has, the gravest first.

    Raises:
        ValueError: `release` doesn't begin with a version.
    """
    found = (advisory for advisory in advisories(product) if advisory.affects(release))
    return tuple(sorted(found, key=lambda advisory: not advisory.bars))


def fixed_in(found: tuple[Advisory, ...]) -> str:
    """The first release without any of these."""
    return max((advisory.fixed for advisory in found), key=parse_release)
