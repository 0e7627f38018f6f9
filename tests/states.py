"""A scripted Pulumi CLI: stacks with what they own, for commands that read states."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any


def resource(token: str, id: str, name: str = "server", stack: str = "dev", **more: Any) -> dict[str, Any]:
    """One resource as `pulumi stack export` shows it."""
    urn = f"urn:pulumi:{stack}::shop::vllm-anywhere:index:Deployment${token}::{name}"
    return {"urn": urn, "type": token, "id": id, "custom": True, "inputs": {}, **more}


def pending(token: str, label: str, kind: str = "creating") -> dict[str, Any]:
    """One operation that is not recorded as finished."""
    unfinished = resource(token, "")
    return {"resource": {**unfinished, "inputs": {"label": label}}, "type": kind}


class Cli:
    """Answers `whoami`, `stack ls` and `stack export`. What is in `broken` fails, with a reason."""

    def __init__(self, **stacks: list[dict[str, Any]]) -> None:
        self.stacks = {f"organization/shop/{name}": resources for name, resources in stacks.items()}
        self.pending: dict[str, list[dict[str, Any]]] = {}
        self.broken: dict[str, str] = {}

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        match args:
            case ["whoami", *_]:
                return self._told({"user": "me", "url": "file:///backend"})
            case ["version"]:
                return subprocess.CompletedProcess(args, 0, "v3.259.0\n", "")
            case ["stack", "ls", "--all", "--json"]:
                return self._told([{"name": name, "current": False} for name in self.stacks])
            case ["stack", "export", "--stack", name]:
                full = name if "/" in name else f"organization/shop/{name}"
                if full in self.broken or full not in self.stacks:
                    reason = self.broken.get(full, f"no stack named '{name}' found")
                    return subprocess.CompletedProcess(args, 255, "", f"error: {reason}")
                unfinished = self.pending.get(full)
                deployment = {"resources": self.stacks[full] or None, "pending_operations": unfinished}
                return self._told({"version": 3, "deployment": deployment})
            case _:
                raise AssertionError(f"nobody expected pulumi {args}")

    def _told(self, value: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess([], 0, json.dumps(value), "")
