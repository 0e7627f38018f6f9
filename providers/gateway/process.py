"""The gateway's process on this machine: holds the port, and has LiteLLM's proxy answer what comes in there.

The port outlives every proxy. A change starts a second one on the same socket; the first ends, after the requests that
are under way, when the second answers. So nothing that a client sends meets a closed port. `providers.local.server`
is the process around it: lock, leash and end are the same as of a model server.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from providers.gateway.client import CHANGED, LITELLM, STATE, UPSTREAM_KEYS, litellm_python
from serving.gateway import SOURCES, as_json, source

_READY_S = 120.0
"""Seconds until a proxy has to answer; LiteLLM takes some seconds to be imported."""
_PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Waits before a proxy that has ended by itself is started again, and again."""


class Proxy:
    """One process of LiteLLM's proxy, and the pipes that say when it answers and when it may go."""

    def __init__(self, folder: Path, serial: int, listening: socket.socket, lock: int) -> None:
        self.serial = serial
        self.folder = folder / f"proxy-{serial}"
        told, ready = os.pipe()
        held, leash = os.pipe()
        want = json.loads((folder / "want.json").read_text())
        _write_program(self.folder, want)
        self._ready, self._leash = told, leash
        self._process = subprocess.Popen(
            [litellm_python(), "gateway_serve.py", str(self.folder), str(listening.fileno()), str(ready)],
            cwd=self.folder,
            env=_environment(folder, self.folder, want),
            stdin=held,
            pass_fds=[listening.fileno(), ready, lock],
        )
        os.close(held)
        os.close(ready)

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself."""
        return self._process.poll() is not None

    def answers(self) -> bool:
        """Whether it has said that it answers; asked until it is true."""
        readable, _, _ = select.select([self._ready], [], [], 0)
        return bool(readable) and os.read(self._ready, 1) == b"+"

    def release(self) -> None:
        """Have it end when the requests that are under way are done."""
        os.close(self._leash)
        os.close(self._ready)

    def gone(self) -> bool:
        """Whether a released one has ended; what it was started from goes with it."""
        if not self.ended:
            return False
        shutil.rmtree(self.folder, ignore_errors=True)
        return True

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gateway:
    """What `alive` of a server process is for the gateway: asked some times a second, it does what there is to do."""

    def __init__(self, folder: Path, listening: socket.socket, lock: int, clock: Callable[[], float]) -> None:
        self._folder, self._listening, self._lock, self._clock = folder, listening, lock, clock
        self._serial = 0
        self._current: Proxy | None = None
        self._next: Proxy | None = None
        self._leaving: list[Proxy] = []
        self._begun = self._again_at = clock()
        self._ends = 0
        self._changed = True

    def change(self) -> None:
        """There is something new in the folder."""
        self._changed = True

    def alive(self) -> bool:
        """Whether the gateway goes on; False when its first proxy does not start."""
        self._leaving = [one for one in self._leaving if not one.gone()]
        if self._current and self._current.ended:
            self._current.release()
            self._current, self._ends = None, self._ends + 1
            self._again_at = self._clock() + _PAUSES_S[min(self._ends, len(_PAUSES_S) - 1)]
            self._changed = True
        if self._next:
            return self._await_next(self._next)
        if self._changed and self._clock() >= self._again_at:
            self._changed, self._begun = False, self._clock()
            self._serial += 1
            self._next = Proxy(self._folder, self._serial, self._listening, self._lock)
        return True

    def _await_next(self, new: Proxy) -> bool:
        if new.ended or self._clock() - self._begun > _READY_S:
            why = "LiteLLM's proxy stopped while it started" if new.ended else f"no answer within {_READY_S:.0f} s"
            new.kill()
            self._next = None
            _tell(self._folder, self._serial, why)
            return self._serial > 1
        if new.answers():
            if self._current:
                self._current.release()
                self._leaving.append(self._current)
            self._current, self._next = new, None
            _tell(self._folder, self._serial, "")
        return True


def serve(folder: Path, port: int, lock: int) -> Callable[[], bool]:
    """Start; what is returned is to be asked some times a second, and false once the gateway can't go on."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(1024)
    gateway = Gateway(folder, listening, lock, time.monotonic)
    signal.signal(CHANGED, lambda _signal, _frame: gateway.change())
    return gateway.alive


def _write_program(folder: Path, want: Mapping[str, Any]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    for name in SOURCES:
        (folder / name).write_text(source(name))
    (folder / "config.yaml").write_text(as_json(want["config"]))
    (folder / "rule.json").write_text(as_json(want["rule"]))


def _environment(folder: Path, program: Path, want: Mapping[str, Any]) -> dict[str, str]:
    """LiteLLM's environment: the keys that its config names, and nothing that it would act on by itself."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    keys = json.loads((folder / UPSTREAM_KEYS).read_text())
    trusted = {}
    if want["ca_pem"]:
        # LiteLLM takes one bundle for all of its connections.
        bundle = program / "ca.pem"
        bundle.write_text(f"{_public_cas()}\n{want['ca_pem']}")
        trusted = {"SSL_CERT_FILE": str(bundle)}
    return {**kept, **LITELLM, **keys, **trusted, "ANYWHERE_KEYS": str(folder / "keys")}


def _public_cas() -> str:
    import certifi

    return Path(certifi.where()).read_text()


def _tell(folder: Path, serial: int, problem: str) -> None:
    temporary = folder / "gateway.tmp"
    temporary.write_text(json.dumps({"serial": serial, "problem": problem}))
    temporary.replace(folder / STATE)
