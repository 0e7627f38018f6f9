"""The fake cloud's prices: made up, and said to be."""

from __future__ import annotations

from serving.spec import DeploymentSpec

GPUS = ("L4", "T4")


def query(spec: DeploymentSpec) -> tuple[str, ...]:
    """The GPUs on offer."""
    return GPUS
