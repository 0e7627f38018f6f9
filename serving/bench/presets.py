"""Named protocols, so that runs of different people compare."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """A load and its requests. `about` is one line for `--help`."""

    about: str
    requests: int
    concurrency: int
    output_tokens: int


PRESETS = {
    "fifty": Preset("50 requests, 10 at a time, answers of up to 256 tokens", 50, 10, 256),
    "quick": Preset("10 requests, 2 at a time, answers of up to 32 tokens", 10, 2, 32),
}
"""`fifty` is the protocol of `serving.breakeven.OBSERVED_TOKENS_PER_S`: 337 tokens a second on an A10.

`quick` is for a first look, where a CPU answers.
"""

DEFAULT = "fifty"
