"""Writes the versions installed in this environment to constraints.txt; names no package host."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADER = "# Versions known to work together. Written by `make pin`.\n"
# What the environment itself brings, and the project.
UNPINNED = {"pip", "setuptools", "wheel", "vllm-anywhere"}


def constraints(installed: dict[str, str]) -> str:
    """The text of constraints.txt for these names and versions."""
    lines = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in installed.items()}
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(lines.items()) if name not in UNPINNED)


def main() -> None:
    installed = {d.name: d.version for d in importlib.metadata.distributions()}
    (ROOT / "constraints.txt").write_text(constraints(installed))


if __name__ == "__main__":
    main()
