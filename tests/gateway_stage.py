"""What a gateway's tests put behind it: stacks by their outputs alone, and servers that speak either API."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from engine import Project

WORDS = ("one ", "two ", "three ", "four ", "five ", "six ", "seven ", "eight ")
SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}


@dataclass
class Stub:
    """A server that counts to eight. It can be killed with connections open, and comes back on its port.

    `asked` has each request as (path, body). `pause_s` is the time between two words.
    """

    name: str
    key: str = "stub-key"
    pause_s: float = 0.002
    port: int = 0
    status: int = 200
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])

    def __enter__(self) -> Stub:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> None:
        stub = self

        class Handler(_Handler):
            server_stub = stub

        self._sockets: set[Any] = set()
        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._alive = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """End it as SIGKILL would: the port is closed, and so is each connection in the middle of what it says."""
        if not self._alive:
            return
        self._alive = False
        self._server.shutdown()
        self._server.server_close()
        for one in list(self._sockets):
            _reset(one)


def _reset(connection: Any) -> None:
    import socket
    import struct

    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()
    except OSError:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    server_stub: Stub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.server_stub._sockets.add(self.connection)

    def finish(self) -> None:
        self.server_stub._sockets.discard(self.connection)
        with suppress(OSError, ValueError):
            super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": self.server_stub.name, "object": "model"}]})

    def do_POST(self) -> None:
        stub = self.server_stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.asked.append((self.path, body))
        sent = self.headers.get("x-api-key") or self.headers.get("Authorization", "").removeprefix("Bearer ")
        if sent != stub.key:
            self._json(401, {"error": {"message": "the stub's key is another", "type": "authentication_error"}})
        elif stub.status != 200:
            self._json(stub.status, {"error": {"message": "scripted", "type": "server_error"}})
        elif self.path.endswith("/messages"):
            self._anthropic(body)
        else:
            self._openai(body)

    def _openai(self, body: Mapping[str, Any]) -> None:
        said = str(body["messages"][-1]["content"]) if body["messages"][-1]["role"] == "assistant" else ""
        words = [word for word in WORDS if word not in said]
        usage = {"prompt_tokens": 10, "completion_tokens": len(words), "total_tokens": 10 + len(words)}
        head = {"id": "stub", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            time.sleep(self.server_stub.pause_s * len(words))
            message = {"role": "assistant", "content": "".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._json(200, {**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        self._begin()
        for word in words:
            choice = {"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}
            self._event({**head, "object": "chat.completion.chunk", "choices": [choice]})
            time.sleep(self.server_stub.pause_s)
        choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
        self._event({**head, "object": "chat.completion.chunk", "choices": [choice], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _anthropic(self, body: Mapping[str, Any]) -> None:
        usage = {"input_tokens": 1000, "output_tokens": 100}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"]}
        if not body.get("stream"):
            content = [{"type": "text", "text": "from the API"}]
            self._json(200, {**message, "content": content, "stop_reason": "end_turn", "usage": usage})
            return
        self._begin()
        for event in (
            {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "from the API"}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 100}},
            {"type": "message_stop"},
        ):
            self._event(event, str(event["type"]))
        self._chunk(b"")

    def _json(self, status: int, value: Mapping[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _event(self, value: Mapping[str, Any], name: str = "") -> None:
        self._chunk((f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))


def described(stub: Stub, hourly: str = "0", by_use: bool = False, **more: Any) -> dict[str, Any]:
    """The outputs of a stack whose server is a stub."""
    service = "serverless" if by_use else "pod"
    return {
        "endpoint": stub.url,
        "api_key": {**SECRET, "plaintext": json.dumps(stub.key)},
        "model": stub.name,
        "provider": "runpod",
        "hardware": "a stub",
        "cost": {"hourly_usd": hourly, "monthly_usd": "9.00", "kind": service},
        **more,
    }


def stub_stack(project: Project, name: str, outputs: Mapping[str, Any]) -> None:
    """A stack that has these outputs and nothing else, as if it were up."""
    if name not in {one["name"] for one in json.loads(project.pulumi("stack", "ls", "--json"))}:
        project.pulumi("stack", "init", name, "--no-select")
    urn = f"urn:pulumi:{name}::vllm-anywhere::pulumi:pulumi:Stack::vllm-anywhere-{name}"
    stack = {"urn": urn, "custom": False, "type": "pulumi:pulumi:Stack", "outputs": dict(outputs)}
    manifest = {"time": "2026-01-01T00:00:00Z", "magic": "", "version": ""}
    (salt,) = re.findall(r"encryptionsalt: (\S+)", (project.folder / "stacks" / f"Pulumi.{name}.yaml").read_text())
    secrets = {"type": "passphrase", "state": {"salt": salt}}
    deployment = {"manifest": manifest, "secrets_providers": secrets, "resources": [stack]}
    state = {"version": 3, "deployment": deployment}
    file = project.folder / f"{name}.json"
    file.write_text(json.dumps(state))
    project.pulumi("stack", "import", "--stack", name, "--file", str(file))
    file.unlink()


def command(project: Project, *args: str) -> str:
    """What `vllm-anywhere` prints, in the project's folder, not in the checkout that its packages are linked from."""
    program = (
        "import pathlib, ops.cli, ops.stack; ops.stack.ROOT = pathlib.Path.cwd(); raise SystemExit(ops.cli.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *args],
        cwd=project.folder,
        env=project.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def asked(outputs: Mapping[str, Any], stream: bool = False, **more: Any) -> tuple[str, str]:
    """One question: what was answered, and by which server ("" if the gateway doesn't say)."""
    body = {"model": outputs["model"], "messages": [{"role": "user", "content": "Count."}], "stream": stream}
    headers = {"Authorization": f"Bearer {outputs['api_key']}", **more.pop("headers", {})}
    with httpx.stream(
        "POST", f"{outputs['endpoint']}/chat/completions", json={**body, **more}, headers=headers, timeout=120
    ) as answer:
        text = answer.read().decode()
        assert answer.status_code == 200, f"HTTP {answer.status_code}: {text[:500]}"
        server = answer.headers.get("x-litellm-model-id", "")
    if not stream:
        return json.loads(text)["choices"][0]["message"]["content"], server
    assert "data: [DONE]" in text, text[-500:]
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    assert not [chunk for chunk in chunks if "error" in chunk], text[-500:]
    said = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    return said, server


@dataclass
class Load:
    """Clients that ask again and again, half of them streaming. `failed` has every request that wasn't answered.

    Without `pause_s` they would keep a core from the very change that they are to notice.
    """

    outputs: Mapping[str, Any]
    clients: int = 4
    expect: str = "".join(WORDS)
    pause_s: float = 0.05
    failed: list[str] = field(default_factory=list[str])
    served: list[str] = field(default_factory=list[str])

    def __enter__(self) -> Load:
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n % 2 == 0,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, stream: bool) -> None:
        while not self._done.wait(self.pause_s):
            try:
                said, server = asked(self.outputs, stream, max_tokens=4)
            except (AssertionError, httpx.HTTPError) as error:
                self.failed.append(repr(error))
            else:
                if self.expect and said != self.expect:
                    self.failed.append(f"{server} said {said!r}, streaming: {stream}")
                self.served.append(server)

    def reaches(self, server: str, within_s: float = 120.0) -> None:
        """Wait until a request that was begun after this was served by that server."""
        seen = len(self.served)
        begun = time.monotonic()
        while server not in self.served[seen + self.clients :]:
            assert time.monotonic() - begun < within_s, (server, self.served[seen:], self.failed)
            time.sleep(0.02)


@contextmanager
def stubs(*names: str) -> Iterator[list[Stub]]:
    """Stubs by name, all of which are ended afterwards."""
    started = [Stub(name) for name in names]
    try:
        for stub in started:
            stub.start()
        yield started
    finally:
        for stub in started:
            stub.kill()


def gateways(project: Project) -> list[int]:
    """Process ids of everything that a gateway of this project runs: the holder of its port, and LiteLLM."""
    found = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=1) for line in found.splitlines()]
    marker = str(project.folder / "state")
    return [int(pid) for pid, args in rows if marker in args and ("gateway_serve" in args or "local.server" in args)]
