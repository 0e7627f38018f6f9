"""Removes what setting up has made in this checkout, unless a stack of its file backend still owns something.

Standard library only: the virtual environment it removes may be broken.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
            owned = owned_by(json.loads(path.read_text())["checkpoint"]["latest"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            owned = 1
        if owned:
            found[path.stem] = owned
    return found


def live_local(root: Path) -> int:
    """How many resources `local` owns in whichever backend is in use; 0 where it can't be asked any more."""
    asked = subprocess.run(
        ["sh", "-c", ". tools/env.sh && pulumi stack export -s local --non-interactive"],
        cwd=root,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return owned_by(json.loads(asked.stdout)["deployment"]) if asked.returncode == 0 else 0


def owned_by(deployment: dict[str, Any] | None) -> int:
    """How many resources a deployment's state lists, the stack itself and its providers left out."""
    resources = (deployment or {}).get("resources") or []
    return sum(not resource["type"].startswith(BOOKKEEPING) for resource in resources)


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
    if "local" not in live and (count := live_local(ROOT)):
        live["local"] = count
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
