"""The gateway's process on this machine.

`providers.local.server` is the process around it: lock, leash and end are the same as of a model server.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

from providers.gateway.client import CHANGED, STATE, UPSTREAM_KEYS, litellm_python
from providers.gateway.holder import Holder, Program, Proxy, write_program
from serving.gateway_proxy import SOURCES
from serving.tables import data_text


def serve(folder: Path, port: int, lock: int) -> Callable[[], bool]:
    """Start; what is returned is to be asked some times a second, and false once the gateway can't go on."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(1024)
    holder = Holder(
        lambda serial: Proxy(_program(folder, serial), listening, [lock]),
        lambda serial, problem: _tell(folder, serial, problem),
        time.monotonic,
    )
    signal.signal(CHANGED, lambda _signal, _frame: holder.change())
    return holder.alive


def _program(folder: Path, serial: int) -> Program:
    own = folder / f"proxy-{serial}"
    want = json.loads((folder / "want.json").read_text())
    keys = json.loads((folder / UPSTREAM_KEYS).read_text())
    env = write_program(own, {name: data_text(name) for name in SOURCES}, want, keys, _public_cas())
    return Program(own, litellm_python(), {**env, "ANYWHERE_KEYS": str(folder / "keys")})


def _public_cas() -> str:
    import certifi

    return Path(certifi.where()).read_text()


def _tell(folder: Path, serial: int, problem: str) -> None:
    temporary = folder / "gateway.tmp"
    temporary.write_text(json.dumps({"serial": serial, "problem": problem}))
    temporary.replace(folder / STATE)
