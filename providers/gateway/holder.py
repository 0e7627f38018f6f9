"""Holds a gateway's port, and has LiteLLM's proxy answer what comes in there.

The port outlives every proxy. A change starts a second one on the same socket; the first ends, after the requests that
are under way, when the second answers. So nothing that a client sends meets a closed port. A VM gets this file as it
is, so it needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LITELLM: Mapping[str, str] = {
    # Else it fetches its own price list at each start.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_MODE": "PRODUCTION",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    "NO_REDOC": "True",
    "NO_OPENAPI": "True",
    "LITELLM_LOG": "ERROR",
    "PYTHONUNBUFFERED": "1",
}
"""How LiteLLM is told to do what the gateway needs and nothing else."""

_READY_S = 120.0
"""Seconds until a proxy has to answer; LiteLLM takes some seconds to be imported."""
_PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0)
"""Waits before a proxy that has ended by itself is started again, and again."""
_LIVED_S = 300.0
"""A proxy that ends after that many seconds did not fail to start."""


@dataclass(frozen=True)
class Program:
    """What one proxy is started from: a folder of its own, which goes with it, an interpreter and an environment."""

    folder: Path
    python: str
    env: Mapping[str, str]


def write_program(
    folder: Path, sources: Mapping[str, str], want: Mapping[str, Any], keys: Mapping[str, str], public_cas: str
) -> dict[str, str]:
    """Put a proxy's files into its folder; its environment, without what only one way of running it needs.

    Args:
        sources: file name -> text of what runs in LiteLLM's environment.
        want: `config` and `rule`, which become files, and `ca_pem`, the CAs of the servers behind it.
        keys: environment variable -> key, as the config names them.
        public_cas: the CAs that everybody trusts, PEM.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, text in sources.items():
        (folder / name).write_text(text)
    for name, value in (("config.yaml", want["config"]), ("rule.json", want["rule"])):
        # JSON is YAML too.
        (folder / name).write_text(json.dumps(value, indent=1, sort_keys=True))
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TZ", "TMPDIR") if name in os.environ}
    trusted: dict[str, str] = {}
    if want["ca_pem"]:
        # LiteLLM takes one bundle for all of its connections.
        bundle = folder / "ca.pem"
        bundle.write_text(f"{public_cas}\n{want['ca_pem']}")
        trusted = {"SSL_CERT_FILE": str(bundle)}
    return {**kept, **LITELLM, **keys, **trusted}


class Proxy:
    """One process of LiteLLM's proxy, and the pipes that say when it answers and when it may go."""

    def __init__(self, program: Program, listening: socket.socket, inherited: Sequence[int] = ()) -> None:
        self.folder = program.folder
        told, ready = os.pipe()
        held, leash = os.pipe()
        self._ready, self._leash = told, leash
        try:
            self._process = subprocess.Popen(
                [program.python, "gateway_serve.py", str(self.folder), str(listening.fileno()), str(ready)],
                cwd=self.folder,
                env=program.env,
                stdin=held,
                pass_fds=[listening.fileno(), ready, *inherited],
            )
        except OSError:
            self.release()
            raise
        finally:
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


class Holder:
    """The port and its proxies. `alive` is asked some times a second, and does what there is to do.

    Args:
        start: makes and starts the proxy of that serial number, from what is wanted now.
        tell: takes the serial number of the change that it has got to, and the problem with it, "" for none.
    """

    def __init__(
        self, start: Callable[[int], Proxy], tell: Callable[[int, str], None], clock: Callable[[], float]
    ) -> None:
        self._start, self._tell, self._clock = start, tell, clock
        self._serial = 0
        self._current: Proxy | None = None
        self._next: Proxy | None = None
        self._leaving: list[Proxy] = []
        self._begun = self._again_at = clock()
        self._restarts = 0
        self._changed = True

    def change(self) -> None:
        """There is something new to start from."""
        self._changed = True

    def alive(self) -> bool:
        """Whether the gateway goes on; False when its first proxy does not start."""
        self._leaving = [one for one in self._leaving if not one.gone()]
        if self._current and self._current.ended:
            self._current.release()
            self._leaving.append(self._current)
            self._current = None
            if self._clock() - self._begun > _LIVED_S:
                self._restarts = 0
            self._start_again()
        if self._next:
            return self._await_next(self._next)
        if self._changed and self._clock() >= self._again_at:
            self._changed, self._begun = False, self._clock()
            self._serial += 1
            try:
                self._next = self._start(self._serial)
            except OSError as error:
                return self._failed(f"LiteLLM's proxy can't be started: {error}")
        return True

    def _start_again(self) -> None:
        self._again_at = self._clock() + _PAUSES_S[min(self._restarts, len(_PAUSES_S) - 1)]
        self._restarts += 1
        self._changed = True

    def _failed(self, why: str) -> bool:
        """Whether the gateway goes on after a proxy that did not start."""
        self._tell(self._serial, why)
        if self._serial > 1 and self._current is None:
            self._start_again()
        return self._serial > 1

    def _await_next(self, new: Proxy) -> bool:
        if new.ended or self._clock() - self._begun > _READY_S:
            why = "LiteLLM's proxy stopped while it started" if new.ended else f"no answer within {_READY_S:.0f} s"
            new.kill()
            self._next = None
            return self._failed(why)
        if new.answers():
            if self._current:
                self._current.release()
                self._leaving.append(self._current)
            self._current, self._next = new, None
            self._tell(self._serial, "")
        return True
