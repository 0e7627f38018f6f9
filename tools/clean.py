"""Removes what setting up has made in this checkout, unless a stack of its file backend still owns something.

Standard library only: the virtual environment it removes may be broken.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REMOVED = (
    ".venv",
    ".state",
    "build",
    "dist",
    "vllm_anywhere.egg-info",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".import_linter_cache",
)
# Not followed into these when looking for byte code.
NOT_OURS = {".git", ".venv"}
# What is left of a stack once everything it deployed is gone.
BOOKKEEPING = ("pulumi:pulumi:Stack", "pulumi:providers:")


def live_stacks(backend: Path) -> dict[str, int]:
    """How many resources each stack of a file backend owns, leaving out those that own none.

    One whose state can't be read counts as owning something.
    """
    found: dict[str, int] = {}
    for path in sorted(backend.glob(".pulumi/stacks/**/*.json")):
        try:
            state = json.loads(path.read_text())
            resources = (state["checkpoint"]["latest"] or {}).get("resources") or []
            owned = sum(not resource["type"].startswith(BOOKKEEPING) for resource in resources)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            owned = 1
        if owned:
            found[path.stem] = owned
    return found


def clean(root: Path) -> list[str]:
    """Remove what can be made again; what was removed, relative to `root`."""
    removed: list[str] = []
    mine, example = root / "stacks/Pulumi.local.yaml", root / "stacks/Pulumi.local.example.yaml"
    if mine.is_file() and example.is_file() and _settings(mine) == _settings(example):
        mine.unlink()
        removed.append(str(mine.relative_to(root)))
    for name in REMOVED:
        if (root / name).exists():
            shutil.rmtree(root / name)
            removed.append(name)
    for folder in root.iterdir():
        if folder.is_dir() and folder.name not in NOT_OURS:
            for cache in folder.rglob("__pycache__"):
                shutil.rmtree(cache)
    return removed


def _settings(stack_file: Path) -> list[str]:
    lines = (line.strip() for line in stack_file.read_text().splitlines())
    return [line for line in lines if line and not line.startswith(("#", "encryptionsalt:"))]


def main() -> int:
    live = live_stacks(ROOT / ".state" / "backend")
    if live:
        for name, count in live.items():
            command = "make down" if name == "local" else f"pulumi destroy -s {name}"
            print(f"Stack {name} still owns {count} resources: run `{command}` first.", file=sys.stderr)
        print("Nothing was removed.", file=sys.stderr)
        return 1
    removed = clean(ROOT)
    print(f"Removed {', '.join(removed)}." if removed else "Nothing to remove.")
    if (ROOT / "stacks/Pulumi.local.yaml").is_file():
        print("Kept stacks/Pulumi.local.yaml: it has settings of yours.")
    print("Kept, shared by all your checkouts: the Pulumi CLI in ~/.cache/vllm-anywhere, and the passphrase.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
