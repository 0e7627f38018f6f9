"""Containers of an emulated cloud: the real start script in a real shell, with a stand-in for vLLM before llama.cpp."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from providers.local.adapter import STAND_IN_TEMPLATE
from providers.local.client import LocalMachine, Starting
from providers.local.pricing import query
from serving.spec import DeploymentSpec

from .vllm_stand_in import HOST, PORT, UPSTREAM, UPSTREAM_KEY

_STAND_IN = Path(__file__).with_name("vllm_stand_in.py")


@dataclass
class Container:
    """One that was started. `ended` tells it not to start what is still to come."""

    name: str
    folder: Path
    engine: Starting | None = None
    shell: subprocess.Popen[bytes] | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class Containers:
    """The containers of one emulator. None of them outlives this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machine = LocalMachine(folder / "engines")
        self._running: dict[str, Container] = {}
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        vllm = self._bin / "vllm"
        vllm.write_text(f'#!/bin/sh\nexec {sys.executable} -P {_STAND_IN} "$@"\n')
        vllm.chmod(0o755)

    def start(self, name: str, script: str, env: Mapping[str, str], host: str = "127.0.0.1", port: int = 0) -> int:
        """Run `script` under `sh` with that environment and no other; the port on which it will listen."""
        folder = self._folder / name
        folder.mkdir(exist_ok=True)
        container = self._running[name] = Container(name, folder)
        port = port or _free_port(host)
        threading.Thread(target=self._run, args=(container, script, dict(env), host, port), daemon=True).start()
        return port

    def stop(self, name: str) -> None:
        """End it, as a cloud does when a machine is given back. One that is gone is no error."""
        container = self._running.pop(name, None)
        if container is None:
            return
        container.ended.set()
        if container.shell is not None:
            container.shell.kill()
            container.shell.wait()
        if container.engine is not None:
            container.engine.drop()

    def log(self, name: str) -> list[str]:
        """What it has written so far."""
        try:
            return (self._folder / name / "log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return []

    def close(self) -> None:
        for name in list(self._running):
            self.stop(name)

    def _run(self, container: Container, script: str, env: dict[str, str], host: str, port: int) -> None:
        key, label = secrets.token_hex(8), f"emulated/cloud/server/{container.name}"
        engine = container.engine = self._machine.start(label, _want(script), key)
        while (running := self._machine.running(label)) is None:
            if engine.exited or container.ended.wait(0.02):
                return
        path = f"{self._bin}{os.pathsep}{os.environ['PATH']}"
        inside = {"PATH": path, "PYTHONPATH": "", "TMPDIR": str(container.folder), HOST: host, PORT: str(port)}
        inside |= {UPSTREAM: f"http://127.0.0.1:{running.port}", UPSTREAM_KEY: key, **env}
        with (container.folder / "log").open("wb") as log:
            container.shell = subprocess.Popen(
                ["sh", "-c", script], env=inside, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        if container.ended.is_set():
            container.shell.kill()


def _want(script: str) -> dict[str, object]:
    served = re.search(r"--served-model-name (\S+)", script)
    return {
        "engine": "llama",
        "model": query(DeploymentSpec()).stand_in,
        "served_name": served[1] if served else "model",
        "aliases": [],
        "context_tokens": 2048,
        "parallel": 1,
        "chat_template": STAND_IN_TEMPLATE,
        "args": [],
        "port": 0,
        "timeout_s": 60,
    }


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as found:
        return found.getsockname()[1]
