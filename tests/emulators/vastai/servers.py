"""What runs in an emulated instance: the start script for real, with what it was sent by environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..containers import Containers


class Servers:
    """The servers of one emulator, on ports of their own on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._containers = Containers(folder / "servers")

    def start(self, id: int, script: str, env: Mapping[str, str]) -> int:
        """Run it; the port from outside, which listens a moment later."""
        return self._containers.start(str(id), script, env)

    def stop(self, id: int) -> None:
        self._containers.stop(str(id))

    def log(self, id: int) -> list[str]:
        """What it has written so far."""
        return self._containers.log(str(id))

    def close(self) -> None:
        self._containers.close()
