"""The HTTP server under every emulator: it listens on 127.0.0.1, meets faults, and keeps a log without secrets.

A platform's emulator subclasses `Emulator` and writes `answer`, `state` and `commands`. Besides the platform's own
paths each serves, for tests that drive another process:

    GET    /__emulator/state     what the platform has, plus `calls`, `faults` and `violations`
    POST   /__emulator/faults    one `Fault` as JSON, or a list of them; DELETE forgets all
    POST   /__emulator/<name>    one of the emulator's `commands`, its arguments as a JSON object
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from .faults import Fault, Faults, Kind, broken, without_lists
from .peers import kill_process, process_behind

CONTROL = "/__emulator/"

Command = Callable[..., Any]


@dataclass(frozen=True)
class Request:
    """One request as it came in; header names in lower case, path percent-decoded."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    target: str
    """Path and query as they were sent, for a proxy."""
    hung_up: Callable[[], bool] = lambda: False
    """Whether the caller has gone: what an answer without an end has to ask."""

    def json(self) -> Any:
        """The body; None when there is none. Raises `ValueError` for what is no JSON."""
        return json.loads(self.body) if self.body else None

    def param(self, name: str) -> str | None:
        """The last value of a query parameter."""
        return self.query[name][-1] if name in self.query else None

    @property
    def bearer(self) -> str:
        """The bearer token, or an empty string."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True)
class Response:
    """An answer; `chunks`, where given, are sent after `body` as they come."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    chunks: Iterable[bytes] | None = None


def json_response(status: int, value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON; `headers` may set another content type."""
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


@dataclass
class Call:
    """One line of the log; `status` is None for as long as there is no answer, and 0 when there was none."""

    number: int
    method: str
    path: str
    query: Mapping[str, list[str]]
    body: Any = None
    fault: str | None = None
    status: int | None = None


class Emulator:
    """A platform on loopback, to be used with `with`. `port` 0 takes any free one.

    `answer` runs in one thread per connection and locks what it shares. `faults`, `calls` and `violations` may be read
    at any time.
    """

    def __init__(self, port: int = 0) -> None:
        self.faults = Faults()
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.kill: Callable[[int], None] = kill_process
        self._log_lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server(("127.0.0.1", port), self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, request: Request) -> Response:
        """What the platform does and says. Whatever it raises is a violation and becomes a 500."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What exists and what it costs, as JSON, without secrets."""
        raise NotImplementedError

    def commands(self) -> Mapping[str, Command]:
        """What `POST /__emulator/<name>` may do; arguments come as keywords."""
        return {}

    def redacted(self, body: Any) -> Any:
        """A body for the log."""
        return without_secrets(body)

    def start(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def close(self) -> None:
        """Stop listening and hang up on everybody."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._server.hang_up()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def called(self, method: str, path: str) -> list[Call]:
        """The calls of a method whose path matches the pattern from end to end."""
        return [call for call in self.calls if call.method == method and re.fullmatch(path, call.path)]

    def respond(self, request: Request, peer: socket.socket) -> Response | None:
        """The answer with its fault, or None for a connection that is to close without one."""
        if request.path.startswith(CONTROL):
            return self._control(request)
        call = self._logged(request)
        fault = self.faults.take(request.method, request.path)
        if fault is None:
            return self._done(call, self._answered(request))
        call.fault = fault.kind.value
        answer = self._answered(request) if fault.kind.works else Response(503)
        return self._done(call, self._spoiled(fault, answer, peer))

    def _spoiled(self, fault: Fault, answer: Response, peer: socket.socket) -> Response | None:
        match fault.kind:
            case Kind.TIMEOUT | Kind.STALLED:
                while not self.hung_up(peer):
                    continue
                return None
            case Kind.DROPPED:
                return None
            case Kind.KILL | Kind.KILL_BEFORE:
                try:
                    self.kill(process_behind(peer))
                except (LookupError, OSError, RuntimeError) as error:
                    self.violations.append(f"nobody was killed: {error}")
                return None
            case Kind.LOST:
                return problem(fault.status or 500, "something went wrong")
            case Kind.REFUSED:
                return problem(fault.status or 503, "service unavailable")
            case Kind.RATE_LIMITED:
                headers = {"Retry-After": str(fault.retry_after_s)}
                return problem(fault.status or 429, "rate limit exceeded for the minute window", headers)
            case Kind.GARBAGE:
                return Response(answer.status, broken(answer.body), answer.headers)
            case Kind.MALFORMED_LIST:
                value = without_lists(json.loads(answer.body)) if answer.body else None
                return Response(answer.status, json.dumps(value).encode(), answer.headers)

    def _answered(self, request: Request) -> Response:
        try:
            return self.answer(request)
        except Exception:
            self.violations.append(f"the emulator failed at {request.method} {request.path}\n{traceback.format_exc()}")
            return problem(500, "the emulator failed; its violations say why")

    def hung_up(self, peer: socket.socket, within_s: float = 0.05) -> bool:
        """Whether the peer hangs up within that time, or this emulator closes."""
        readable, _, _ = select.select([peer], [], [], within_s)
        return self._closing.is_set() or bool(readable and not peer.recv(1, socket.MSG_PEEK))

    def _logged(self, request: Request) -> Call:
        try:
            body = self.redacted(request.json())
        except ValueError:
            body = f"{len(request.body)} bytes that are no JSON"
        with self._log_lock:
            call = Call(len(self.calls) + 1, request.method, request.path, without_secrets(request.query), body)
            self.calls.append(call)
        return call

    @staticmethod
    def _done(call: Call, answer: Response | None) -> Response | None:
        call.status = answer.status if answer else 0
        return answer

    def _control(self, request: Request) -> Response:
        name = request.path.removeprefix(CONTROL)
        try:
            match request.method, name:
                case "GET", "state":
                    calls = [asdict(call) for call in list(self.calls)]
                    seen = {"calls": calls, "faults": self.faults.listed(), "violations": list(self.violations)}
                    return json_response(200, {**self.state(), **seen})
                case "POST", "faults":
                    self.faults.add(*_FAULTS.validate_python(_as_list(request.json())))
                    return json_response(201, self.faults.listed())
                case "DELETE", "faults":
                    self.faults.clear()
                    return Response(204)
                case "POST", _ if name in self.commands():
                    return json_response(200, self.commands()[name](**(request.json() or {})))
                case _:
                    known = ", ".join(["state", "faults", *self.commands()])
                    return problem(404, f"no {request.method} {name}; there are {known}")
        except (TypeError, ValueError, KeyError, ValidationError) as error:
            return problem(400, f"{name}: {error}")


_FAULTS = TypeAdapter(list[Fault])


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None, errors: Iterable[str] = ()) -> Response:
    """An error as RFC 9457 has it."""
    title = BaseHTTPRequestHandler.responses.get(status, ("Error",))[0]
    value: dict[str, Any] = {"title": title, "status": status, "detail": detail}
    if listed := list(errors):
        value["errors"] = listed
    return json_response(status, value, {"Content-Type": "application/problem+json", **(headers or {})})


_SECRET_NAME = re.compile(r"key|token|secret|password|passwd|authorization", re.IGNORECASE)


def without_secrets(value: Any) -> Any:
    """A JSON value for the log: texts under a name that sounds like a secret become `[secret]`."""
    if isinstance(value, Mapping):
        return {
            name: _masked(item) if _SECRET_NAME.search(str(name)) else without_secrets(item)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    return value


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return "[secret]" if value else value
    if isinstance(value, Mapping):
        return {name: _masked(item) for name, item in value.items()}
    return [_masked(item) for item in value] if isinstance(value, list) else value


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], emulator: Emulator) -> None:
        super().__init__(address, _Handler)
        self.emulator = emulator
        self.peers: set[socket.socket] = set()

    def hang_up(self) -> None:
        for peer in list(self.peers):
            try:
                peer.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that hangs up in the middle is what faults are for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        super().setup()
        self.server.peers.add(self.connection)

    def finish(self) -> None:
        self.server.peers.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: object) -> None:
        """The emulator's own log has it."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        request = Request(
            method=self.command,
            path=unquote(parts.path),
            query=parse_qs(parts.query, keep_blank_values=True),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length") or 0)),
            target=self.path,
            hung_up=partial(self.server.emulator.hung_up, self.connection),
        )
        answer = self.server.emulator.respond(request, self.connection)
        if answer is None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.chunks is not None:
            self._stream(answer)
            return
        if answer.status != 204:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(b"" if self.command == "HEAD" else answer.body)
        self.wfile.flush()

    def _stream(self, answer: Response) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chain([answer.body], answer.chunks or ()):
            if chunk:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815
