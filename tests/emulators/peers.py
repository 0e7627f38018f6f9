"""The process at the other end of a connection, to be killed in the middle of its call."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path


def kill_process(pid: int) -> None:
    """SIGKILL, but never to the process that runs the emulator: a caller in the same one is the test itself."""
    if pid == os.getpid():
        raise RuntimeError("a `kill` fault needs a caller in a process of its own")
    os.kill(pid, signal.SIGKILL)


def process_behind(peer: socket.socket) -> int:
    """The process at the other end of a loopback connection, from Linux's table of sockets."""
    port = peer.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1].endswith(f":{port:04X}") and columns[2].endswith(f":{peer.getsockname()[1]:04X}"):
            return _owner(f"socket:[{columns[9]}]")
    raise LookupError(f"no socket has port {port}")


def _owner(link: str) -> int:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(handle.readlink()) == link for handle in (process / "fd").iterdir()):
                return int(process.name)
        except OSError:
            continue
    raise LookupError(f"no process of ours has {link} open")
