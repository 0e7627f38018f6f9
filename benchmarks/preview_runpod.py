"""`pulumi preview` of stack runpod without a key, hence by dated prices, against that of a three-line program."""

from __future__ import annotations

from preview import measure
from support import ROOT, arguments

GOAL = 1.60
STACK = "runpod"


def settings() -> str:
    """The tracked stack's, without the salt of whoever has deployed it from here."""
    lines = (ROOT / f"stacks/Pulumi.{STACK}.yaml").read_text().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("encryptionsalt:"))


if __name__ == "__main__":
    measure(STACK, GOAL, arguments(__doc__ or "", runs=7), settings(), without="RUNPOD_API_KEY")
