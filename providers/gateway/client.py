"""The gateway's "control plane" on this machine: a server process like those of `local`, with LiteLLM in it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from providers.base import PlatformError
from providers.local.client import ROOT, LocalMachine, write_private

UPSTREAM_KEYS = "upstream-keys"
"""File with the keys of what is behind the gateway, mode 0600: a JSON object, environment variable -> key."""
STATE = "gateway.json"
"""File in which the process says which change it has got to, and what went wrong with the last one."""
CHANGED = signal.SIGHUP
"""Says that the folder's files have changed."""


def litellm_python() -> str:
    """The interpreter of the environment that LiteLLM is installed in, whose packages don't go with the project's."""
    return os.environ.get("VLLM_ANYWHERE_LITELLM") or str(ROOT / ".venv" / "gateway" / "bin" / "python")


def missing() -> str:
    """What to do about a LiteLLM that isn't installed; "" when it is."""
    if Path(litellm_python()).exists():
        return ""
    return "the gateway runs LiteLLM's proxy, which isn't installed; `python tools/setup.py --gateway` installs it"


class GatewayMachine(LocalMachine):
    """Gateways on this machine."""

    def keep(self, label: str, want: Mapping[str, Any], upstream_keys: str) -> None:
        """Write what the gateway of that label starts a proxy from."""
        folder = self.folder(label)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(folder / UPSTREAM_KEYS, upstream_keys)
        if (folder / "want.json").exists():
            write_private(folder / "want.json", json.dumps({**want, "last_port": 0}))

    def upstream_keys(self, label: str) -> str:
        """The keys of what is behind it, as they were kept."""
        try:
            return (self.folder(label) / UPSTREAM_KEYS).read_text()
        except FileNotFoundError:
            return "{}"

    def state(self, label: str) -> tuple[int, str]:
        """The change that the gateway has got to, 0 before the first, and the problem with it."""
        try:
            state = json.loads((self.folder(label) / STATE).read_text())
        except FileNotFoundError:
            return 0, ""
        return state["serial"], state["problem"]

    def reset(self, label: str) -> None:
        """Forget the state of an earlier run."""
        (self.folder(label) / STATE).unlink(missing_ok=True)

    def change(self, label: str) -> None:
        """Have the gateway start a new proxy from what was kept.

        Raises:
            PlatformError: it does not run.
        """
        running = self.running(label)
        if running is None:
            raise PlatformError(f"the gateway {label} does not run")
        os.kill(running.pid, CHANGED)


def log_tail(server_id: str, lines: int) -> list[str]:
    """The last lines of a gateway's log, by its Pulumi id."""
    return GatewayMachine().log_tail(server_id, lines)
