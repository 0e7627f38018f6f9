"""A cloud that lives in memory: instances with a label, and faults on command.

It has the failure modes of the real ones: answers lost before or after the deed, garbage, lists that lag. Between
runs of the engine its memory is a file, `$VLLM_ANYWHERE_STATE/fake.json`; its model answers only while the process
that asked for it lives.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

from providers.base import CreateUncertain, PlatformError
from serving.spec import DEFAULT_VLLM_VERSION

ROOT = Path(__file__).resolve().parents[2]

Fault = Literal["timeout", "lost", "dropped", "garbage", "kill"]
"""How one call fails: `timeout` and `dropped` before the deed, `lost` and `garbage` after it (the answer is a 5xx
or unreadable), `kill` ends the process right after it."""


@dataclass(frozen=True)
class Instance:
    """One rented server: its id, the label it was created with, its state, GPU and served model."""

    id: str
    label: str
    gpu: str
    model: str
    status: str = "running"


class FakeCloud:
    """The control plane. `faults` maps a call (`create`, `list`, `get`, `destroy`) to how its next use fails."""

    def __init__(self, memory: Path | None = None, faults: Mapping[str, Fault] | None = None) -> None:
        self._memory = memory
        self._faults: dict[str, Fault] = dict(faults or {})
        self._lock = threading.Lock()
        self._instances: dict[str, Instance] = {}
        self._count = 0

    def create(self, label: str, gpu: str, model: str) -> Instance:
        """Rent one.

        Raises:
            CreateUncertain: when the answer is lost; it may exist.
        """
        fault = self._fault("create")
        if fault in ("timeout", "dropped"):
            raise CreateUncertain(f"the create call for {label} ended without an answer ({fault})", label)
        with self._lock:
            self._load()
            self._count += 1
            made = Instance(f"fake-{self._count}", label, gpu, model)
            self._instances[made.id] = made
            self._save()
        if fault == "kill":
            os._exit(9)
        if fault is not None:
            raise CreateUncertain(f"the answer to the create call for {label} was lost ({fault})", label)
        return made

    def labelled(self, label: str) -> list[Instance]:
        """Every instance with that label, complete."""
        self._answer("list")
        with self._lock:
            self._load()
            return [one for one in self._instances.values() if one.label == label]

    def get(self, id: str) -> Instance | None:
        """One instance; None when it is gone."""
        self._answer("get")
        with self._lock:
            self._load()
            return self._instances.get(id)

    def destroy(self, id: str) -> None:
        """Give one back. One that is gone already is no error."""
        fault = self._fault("destroy")
        if fault in ("timeout", "dropped"):
            raise PlatformError(f"the destroy call for {id} ended without an answer ({fault})")
        with self._lock:
            self._load()
            self._instances.pop(id, None)
            self._save()
        if fault == "kill":
            os._exit(9)
        if fault is not None:
            raise PlatformError(f"the answer to the destroy call for {id} was lost ({fault})")

    def fail(self, faults: Mapping[str, Fault]) -> None:
        """Script the next failures."""
        self._faults.update(faults)

    def interrupt(self, id: str) -> None:
        """What a spot market does: the instance stops."""
        with self._lock:
            self._load()
            self._instances[id] = replace(self._instances[id], status="stopped")
            self._save()

    def all(self) -> list[Instance]:
        """Everything that exists, for tests."""
        with self._lock:
            self._load()
            return list(self._instances.values())

    def _answer(self, call: str) -> None:
        fault = self._fault(call)
        if fault == "kill":
            os._exit(9)
        if fault is not None:
            raise PlatformError(f"the {call} call failed ({fault})")

    def _fault(self, call: str) -> Fault | None:
        return self._faults.pop(call, None)

    def _load(self) -> None:
        if self._memory is not None and self._memory.exists():
            kept = json.loads(self._memory.read_text())
            self._count = kept["count"]
            self._instances = {one["id"]: Instance(**one) for one in kept["instances"]}

    def _save(self) -> None:
        if self._memory is not None:
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            kept = {"count": self._count, "instances": [asdict(one) for one in self._instances.values()]}
            temporary = self._memory.with_suffix(".tmp")
            temporary.write_text(json.dumps(kept))
            temporary.replace(self._memory)


@lru_cache(maxsize=1)
def cloud() -> FakeCloud:
    """The cloud of this process. `$VLLM_ANYWHERE_FAKE_FAULTS` (JSON: call to fault) scripts its failures."""
    folder = Path(os.environ.get("VLLM_ANYWHERE_STATE") or ROOT / ".state")
    return FakeCloud(folder / "fake.json", json.loads(os.environ.get("VLLM_ANYWHERE_FAKE_FAULTS", "{}")))


def log_tail(server_id: str, lines: int) -> list[str]:
    """What a fake instance's server said."""
    return [f"fake vLLM {DEFAULT_VLLM_VERSION} on {server_id}"][:lines]


def serve(model: str, keys: Collection[str]) -> int:
    """Answer for `model` from this process to whoever has one of the keys, and return the port on 127.0.0.1."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(model, keys))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def _handler(model: str, keys: Collection[str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send("application/json", json.dumps({"data": [{"id": model}]}))

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            chunk = {"choices": [{"delta": {"content": "hello"}}]}
            self._send("text/event-stream", f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n")

        def _send(self, kind: str, text: str) -> None:
            allowed = (self.headers.get("Authorization") or "").removeprefix("Bearer ") in keys
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(text.encode() if allowed else b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            return None

    return Handler
