"""An OpenAI-compatible streaming server whose latencies are scripted, and which keeps its own record of them.

Every answer follows a `Script`: what passes before the first piece, what lies between pieces, how many tokens each
holds. Pieces are written at set times, not after set pauses, so lateness does not add up; what was really written when
is in `Stub.served`, on the same monotonic clock that a client on this machine reads. So a test compares two records of
the same events instead of nominal values with a machine's mood.

`python tests/stub_openai.py --port 0` prints the port and serves until its stdin is closed; then it prints what it
served as JSON, one line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import httptools

TEMPLATE_TOKENS = 7
"""What the stub's chat template adds to the words of a prompt; each word is one token."""


@dataclass(frozen=True)
class Script:
    """How one request is answered.

    `gaps_s` are the pauses before the second, third, ... piece. `status` other than 200 refuses; `cut_after` closes the
    connection after so many pieces; `close` after the answer, `says` is a refusal's text.
    """

    first_s: float = 0.0
    gaps_s: tuple[float, ...] = ()
    tokens_each: int = 1
    status: int = 200
    cut_after: int | None = None
    usage: bool = True
    close: bool = False
    says: str = "scripted refusal"


@dataclass
class Served:
    """What happened to one request, on the monotonic clock: arrival, then each piece as it was written."""

    arrived: float
    written: list[float] = field(default_factory=list[float])
    late: float = 0.0
    body: dict[str, Any] = field(default_factory=dict[str, Any])
    authorization: str = ""


Choose = Callable[[int, dict[str, Any]], Script]


class Stub:
    """The server. `choose` gives the script of the n-th request, from 0. `keep_bodies` costs time and memory."""

    def __init__(self, choose: Choose, keep_bodies: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.choose = choose
        self.keep_bodies = keep_bodies
        self.served: list[Served] = []
        self.connections = 0
        self.port = 0
        self.drop_next = False
        """Set, the next request meets a connection that is closed without a word."""

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}/v1"

    async def start(self, port: int = 0) -> asyncio.Server:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(self), "127.0.0.1", port, backlog=4096, ssl=self.tls
        )
        self.port = server.sockets[0].getsockname()[1]
        return server


@contextmanager
def serving(choose: Choose, tls: ssl.SSLContext | None = None) -> Generator[Stub]:
    """A stub in a thread of its own, on a free port."""
    stub = Stub(choose, tls=tls)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(stub.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:

        async def stop() -> None:
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class _Connection(asyncio.Protocol):
    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._path = b""
        self._authorization = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._stub.connections += 1

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._path = url
        self._body = b""
        self._authorization = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._authorization = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if not self._path.endswith(b"/chat/completions"):
            answer = b'{"object":"list","data":[{"id":"stub","object":"model","created":0,"owned_by":"stub"}]}'
            self._write(_plain(200, answer))
            return
        if self._stub.drop_next:
            self._stub.drop_next = False
            self.close()
            return
        body = json.loads(self._body)
        served = Served(self._now, authorization=self._authorization, body=body if self._stub.keep_bodies else {})
        self._stub.served.append(served)
        script = self._stub.choose(len(self._stub.served) - 1, body)
        if script.status != 200:
            error = {"error": {"message": script.says, "type": "stub"}}
            self._write(_plain(script.status, json.dumps(error).encode()))
            return
        _Answer(self, served, script, body).next()

    def _write(self, data: bytes) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        if self._transport:
            self._transport.close()

    write = _write


class _Answer:
    """One answer being written, each piece at its time."""

    def __init__(self, connection: _Connection, served: Served, script: Script, body: dict[str, Any]) -> None:
        self._connection = connection
        self._served = served
        self._script = script
        self._loop = asyncio.get_running_loop()
        self._times = iter(_times(served.arrived + script.first_s, script.gaps_s))
        self._due = 0.0
        self._count = 0
        words = sum(len(str(_text(message.get("content"))).split()) for message in body.get("messages", ()))
        self._prompt_tokens = words + TEMPLATE_TOKENS
        self._head = _HEAD + _chunk(
            b'data: {"id":"stub","object":"chat.completion.chunk","created":0,"model":"stub",'
            b'"choices":[{"index":0,"delta":{"role":"assistant","content":""},'
            b'"logprobs":null,"finish_reason":null}]}\n\n'
        )

    def next(self) -> None:
        due = next(self._times, None)
        if due is None:
            self._end()
            return
        self._due = due
        self._loop.call_at(due, self._piece)

    def _piece(self) -> None:
        data = self._head + _PIECES[self._script.tokens_each]
        self._head = b""
        self._served.written.append(time.perf_counter())
        self._connection.write(data)
        self._served.late = max(self._served.late, self._served.written[-1] - self._due)
        self._count += 1
        if self._count == self._script.cut_after:
            self._connection.close()
        else:
            self.next()

    def _end(self) -> None:
        tokens = self._count * self._script.tokens_each
        usage = b""
        if self._script.usage:
            usage = _chunk(
                b'data: {"id":"stub","object":"chat.completion.chunk","created":0,"model":"stub","choices":[],"usage":'
                b'{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}\n\n'
                % (self._prompt_tokens, self._prompt_tokens + tokens, tokens)
            )
        self._connection.write(_LAST + usage + _DONE)
        if self._script.close:
            self._connection.close()


def _times(first: float, gaps: tuple[float, ...]) -> Iterator[float]:
    yield first
    for gap in gaps:
        first += gap
        yield first


def _text(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part.get("text", "")) for part in content)
    return str(content)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _plain(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _event(delta: str, finish: str) -> bytes:
    return _chunk(
        b'data: {"id":"stub","object":"chat.completion.chunk","created":0,"model":"stub","choices":[{"index":0,"delta":'
        + delta.encode()
        + b',"logprobs":null,"finish_reason":'
        + finish.encode()
        + b"}]}\n\n"
    )


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
_PIECES = {count: _event('{"content":"' + "word " * count + '"}', "null") for count in range(1, 33)}
_LAST = _event("{}", '"length"')
_DONE = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _main(args: argparse.Namespace) -> None:
    script = Script(args.first_s, (args.gap_s,) * (args.pieces - 1), args.tokens_each)
    stub = Stub(lambda _, __: script, keep_bodies=False)
    server = await stub.start(args.port)
    print(stub.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()
    print(json.dumps([asdict(served) for served in stub.served]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--first-s", type=float, default=0.05)
    parser.add_argument("--gap-s", type=float, default=0.01)
    parser.add_argument("--pieces", type=int, default=8)
    parser.add_argument("--tokens-each", type=int, default=1)
    asyncio.run(_main(parser.parse_args()))
