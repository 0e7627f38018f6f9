"""What runs in an emulated instance: a llama.cpp server for real, with TLS before it where a certificate was sent."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path

from providers.local.client import LocalMachine
from providers.local.pricing import query
from serving.spec import DeploymentSpec

_CHUNK = 1 << 16


class Servers:
    """The servers of one emulator, on ports of their own on 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._machine = LocalMachine(folder / "servers")
        self._doors: dict[int, Door] = {}
        self._labels: dict[int, str] = {}

    def start(self, id: int, script: str, env: Mapping[str, str]) -> int:
        """Serve under the name that the start script gives; the port from outside."""
        model = re.search(r"--served-model-name (\S+)", script)
        label = f"emulated/vastai/server/{id}"
        want = {
            "engine": "llama",
            "model": query(DeploymentSpec()).stand_in,
            "served_name": model[1] if model else "model",
            "aliases": [],
            "context_tokens": 2048,
            "parallel": 1,
            "chat_template": "",
            "args": [],
            "port": 0,
            "timeout_s": 60,
        }
        started = self._machine.start(label, want, env["VLLM_API_KEY"])
        while (running := self._machine.running(label)) is None:
            if started.exited:
                raise RuntimeError("\n".join(self._machine.log_tail(label, 20)))
            threading.Event().wait(0.02)
        started.commit()
        self._labels[id] = label
        pem = env.get("VLLM_ANYWHERE_TLS_CERT", "")
        if not pem:
            return running.port
        (self._folder / f"{id}.pem").write_text(f"{pem}\n{env['VLLM_ANYWHERE_TLS_KEY']}\n".replace("\\n", "\n"))
        self._doors[id] = Door(running.port, self._folder / f"{id}.pem")
        return self._doors[id].port

    def stop(self, id: int) -> None:
        if door := self._doors.pop(id, None):
            door.close()
        if label := self._labels.pop(id, None):
            self._machine.stop(label, threading.Event().wait)

    def close(self) -> None:
        for id in list(self._labels):
            self.stop(id)


class Door:
    """TLS before a port of this machine."""

    def __init__(self, behind: int, pem: Path) -> None:
        self._behind = behind
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        try:
            outside = self._context.wrap_socket(peer, server_side=True)
            inside = socket.create_connection(("127.0.0.1", self._behind))
        except OSError:
            peer.close()
            return
        back = threading.Thread(target=_pump, args=(inside, outside), daemon=True)
        back.start()
        _pump(outside, inside)
        back.join()
        outside.close()
        inside.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
