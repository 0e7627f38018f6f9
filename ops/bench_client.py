"""A lean streaming client: one connection pool, one parser in C, and the time of arrival as the first thing it notes.

A general HTTP client spends more on a token than many servers do. This one speaks HTTP/1.1 with httptools straight on
an asyncio protocol, so that what is measured is the server. It does one thing: POST JSON, read server-sent events.
Proxies from the environment are not used: they would be measured too.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

from ops.stack import OpsError
from providers.shared.endpoint import trust
from serving.bench.prompts import Prompt
from serving.bench.record import Record

CONNECT_S = 30.0
_ERROR_BYTES = 64 * 1024
_KEPT_TEXT = 200


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where requests go. `target` is the path of the base URL, ending in /v1."""

    host: str
    port: int
    target: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """From an OpenAI base URL.

        Raises:
            OpsError: when it is no http(s) URL.
        """
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise OpsError(f"--url {url}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise OpsError(f"--url {url}: an OpenAI base URL, such as http://127.0.0.1:8000/v1")
        path = parts.path.rstrip("/")
        tls = parts.scheme == "https"
        return cls(parts.hostname, port or (443 if tls else 80), path or "/v1", tls)

    @property
    def authority(self) -> str:
        """Host and port as the Host header wants them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(slots=True)
class Traffic:
    """What happened below the requests, added up as it happens."""

    opened: int = 0
    connect_s: float = 0.0
    retried: int = 0
    pieces: int = 0


class BenchClient:
    """Asks one endpoint. `options` go into every request body; with a `ca_pem` no other authority is trusted."""

    def __init__(
        self,
        endpoint: Endpoint,
        key: str,
        model: str,
        options: Mapping[str, Any],
        timeout_s: float,
        ca_pem: str = "",
    ) -> None:
        self.traffic = Traffic()
        self._endpoint = endpoint
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._timeout_s = timeout_s
        own = trust(ca_pem)
        self._tls = (own if isinstance(own, ssl.SSLContext) else ssl.create_default_context()) if endpoint.tls else None
        self._key = key
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {endpoint.target}/chat/completions HTTP/1.1\r\nHost: {endpoint.authority}\r\n{authorization}"
            "Content-Type: application/json\r\nAccept: text/event-stream\r\nContent-Length: "
        ).encode("latin-1")
        self._body = {
            "model": model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0,
            **options,
        }

    def prepared(self, prompt: Prompt) -> bytes:
        """A request's bytes, so that sending it is one write."""
        body = json.dumps(
            {**self._body, "messages": [{"role": "user", "content": prompt.text}], "max_tokens": prompt.max_tokens}
        ).encode()
        return b"%b%d\r\n\r\n%b" % (self._head, len(body), body)

    async def ask(self, request: bytes, intended: float | None = None) -> Record:
        """Send one request and wait for the end of its answer. Without `intended`, it is meant to be sent now.

        Never raises for what a server or network does: that is a record with an `error`.
        """
        if intended is None:
            intended = time.perf_counter()
        retried = False
        while True:
            fresh = retried or not self._idle
            try:
                connection = await self._connect() if fresh else self._idle.pop()
            except (OSError, TimeoutError) as error:
                now = time.perf_counter()
                return Record(intended, now, (), now, error=f"can't connect: {_said(error)}", retried=retried)
            exchange = connection.send(request, self._timeout_s)
            await exchange.done
            if exchange.reusable:
                self._idle.append(connection)
            else:
                connection.close()
                self._all.discard(connection)
            if exchange.never_begun and not fresh and not retried:
                # The server closed an idle connection in the moment in which it was used: no answer was begun.
                retried = True
                self.traffic.retried += 1
                continue
            self.traffic.pieces += len(exchange.pieces)
            record = exchange.record(intended, retried)
            if self._key and self._key in record.error:
                return replace(record, error=record.error.replace(self._key, "<key>"))
            return record

    async def warm(self, connections: int) -> None:
        """Have that many connections open and idle.

        Raises:
            OSError: when the endpoint can't be reached.
        """
        missing = connections - len(self._idle)
        self._idle += await asyncio.gather(*(self._connect() for _ in range(missing)))

    def close(self) -> None:
        """Close every connection."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def dropped(self, connection: _Connection) -> None:
        """A connection is gone; it is not used again."""
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> _Connection:
        begun = time.perf_counter()
        loop = asyncio.get_running_loop()
        _, connection = await asyncio.wait_for(
            loop.create_connection(
                lambda: _Connection(self),
                self._endpoint.host,
                self._endpoint.port,
                ssl=self._tls,
                server_hostname=self._endpoint.host if self._tls else None,
            ),
            CONNECT_S,
        )
        self.traffic.opened += 1
        self.traffic.connect_s += time.perf_counter() - begun
        self._all.add(connection)
        return connection


class _Exchange:
    """One request and its answer, on one connection."""

    __slots__ = (
        "_buffer",
        "_event",
        "done",
        "ended",
        "error",
        "finished",
        "never_begun",
        "output_tokens",
        "pieces",
        "prompt_tokens",
        "reusable",
        "sent",
        "status",
    )

    def __init__(self, done: asyncio.Future[None]) -> None:
        self.done = done
        self.sent = self.ended = time.perf_counter()
        self.pieces: list[float] = []
        self.status = 0
        self.prompt_tokens: int | None = None
        self.output_tokens: int | None = None
        self.error = ""
        self.finished = False
        self.never_begun = False
        self.reusable = False
        self._buffer = b""
        self._event = b""

    def feed(self, data: bytes, now: float) -> None:
        """Body bytes of a good answer."""
        lines = (self._buffer + data if self._buffer else data).split(b"\n")
        self._buffer = lines.pop()
        for line in lines:
            if line[:5] == b"data:":
                self._take(line[5:].strip(), now)

    def keep(self, data: bytes) -> None:
        """Body bytes of an error, for its text."""
        if len(self._buffer) < _ERROR_BYTES:
            self._buffer += data

    def refused(self) -> str:
        """What an error answer says, in a line."""
        text = self._buffer.decode(errors="replace")
        try:
            answer = json.loads(text)
            said = answer.get("error", answer) if isinstance(answer, dict) else answer
            text = str(said.get("message", said) if isinstance(said, dict) else said)
        except ValueError:
            pass
        return f"HTTP {self.status} {' '.join(text.split())[:_KEPT_TEXT]}".strip()

    def record(self, intended: float, retried: bool) -> Record:
        """What is left of it."""
        error = self.error
        if not error and not self.pieces:
            error = "the answer held no token"
        elif not error and not self.finished:
            error = "the answer broke off"
        return Record(
            intended,
            self.sent,
            () if error else tuple(self.pieces),
            self.ended,
            self.prompt_tokens,
            self.output_tokens,
            error,
            retried,
        )

    def _take(self, data: bytes, now: float) -> None:
        if data == b"[DONE]":
            self.finished = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            self.error = "an event of the stream is no JSON"
            return
        if not isinstance(event, dict):
            return
        if error := event.get("error"):
            text = error.get("message", error) if isinstance(error, dict) else error
            self.error = f"error in the stream: {' '.join(str(text).split())[:_KEPT_TEXT]}"
            return
        for choice in event.get("choices") or ():
            if _has_tokens(choice):
                self.pieces.append(now)
        if usage := event.get("usage"):
            self.prompt_tokens = usage.get("prompt_tokens")
            self.output_tokens = usage.get("completion_tokens")


class _Connection(asyncio.Protocol):
    """One kept-alive connection. httptools calls the `on_` methods while it parses."""

    def __init__(self, client: BenchClient) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._exchange: _Exchange | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._now = 0.0
        self._complete = False
        self._kept = False

    def send(self, request: bytes, timeout_s: float) -> _Exchange:
        """Write a request; its `done` is set when the answer is over, whatever became of it."""
        loop = asyncio.get_running_loop()
        exchange = self._exchange = _Exchange(loop.create_future())
        self._complete = False
        if self._transport is None or self._transport.is_closing():
            exchange.never_begun = True
            self._end("the connection was closed")
            return exchange
        self._timer = loop.call_later(timeout_s, self._late, timeout_s)
        self._transport.write(request)
        return exchange

    def close(self) -> None:
        """Close it; an answer in flight ends with an error."""
        if self._transport:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._now = time.perf_counter()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
            return
        if self._complete:
            self._end("")

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._client.dropped(self)
        if self._exchange:
            self._exchange.never_begun = not self._exchange.status
            self._end("" if self._exchange.finished else f"the connection was closed{f': {_said(exc)}' if exc else ''}")

    def on_headers_complete(self) -> None:
        if self._exchange:
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if not (exchange := self._exchange):
            return
        if exchange.status == 200:
            exchange.feed(body, self._now)
        else:
            exchange.keep(body)

    def on_message_complete(self) -> None:
        self._complete = True
        # Once the parser has returned, it has forgotten.
        self._kept = self._parser.should_keep_alive()

    def _late(self, timeout_s: float) -> None:
        self._end(f"no complete answer in {timeout_s:g} s")

    def _end(self, error: str) -> None:
        if self._timer:
            self._timer.cancel()
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.ended = time.perf_counter()
        if self._complete and exchange.status != 200:
            error = exchange.refused()
        exchange.error = exchange.error or error
        exchange.reusable = self._complete and self._kept and self._transport is not None
        if exchange.reusable:
            self._parser = httptools.HttpResponseParser(self)
        exchange.done.set_result(None)


def _has_tokens(choice: Mapping[str, Any]) -> bool:
    """Whether a piece of a stream holds at least one token.

    A token can be without text (a special token); such a piece has an empty `content` and, unlike the opening one, no
    `role`.
    """
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return False
    if delta.get("content") or delta.get("reasoning") or delta.get("reasoning_content") or delta.get("tool_calls"):
        return True
    return delta.get("content") == "" and "role" not in delta and not choice.get("finish_reason")


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
