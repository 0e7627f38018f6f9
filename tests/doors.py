"""Every door of a deployed server, tried from outside with nothing but its address.

`opened` sends the whole list of routes of vLLM and llama.cpp, the documentation pages, and the ways to write a path so
that a guard and a server read it differently. What is refused is refused with one of `REFUSED`; everything else counts
as an answer.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

_DATA = Path(__file__).parent / "data"
VLLM = (_DATA / "vllm_routes.txt").read_text().splitlines()
LLAMA = (_DATA / "llama_routes.txt").read_text().splitlines()
TRICKS = (_DATA / "path_tricks.txt").read_text().splitlines()

REFUSED = frozenset({400, 401, 403, 404, 405, 414, 426, 431, 501})
"""No such thing, not for you, or not HTTP as it should be."""
_PATIENCE_S = 20.0
_BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"prompt":"hi","input":"hi","max_tokens":1}'
_WRONG = "sk-wrong"


def opened(endpoint: str, trust: ssl.SSLContext | None = None, *, more: Iterable[str] = ()) -> dict[str, int]:
    """What answered without the key or with a wrong one: `METHOD /path` -> status.

    `endpoint` is the OpenAI base URL; paths are relative to it without its /v1. `more` are routes of the platform.
    """
    door = _Door(endpoint, trust)
    found: dict[str, int] = {}
    for line in [*VLLM, *LLAMA, *TRICKS, *more]:
        for headers in ((), (("Authorization", f"Bearer {_WRONG}"),), (("X-Api-Key", _WRONG), ("Api-Key", _WRONG))):
            status = door.ask(line, headers)
            if status not in REFUSED:
                found[line] = status
    return found


def smuggled(endpoint: str, trust: ssl.SSLContext | None = None) -> dict[str, bytes]:
    """What came back for requests that a proxy and a server may cut apart differently, if any of it is a success."""
    door = _Door(endpoint, trust)
    answers = {name: door.raw(text) for name, text in _smuggling(door.prefix, door.host)}
    return {name: answer for name, answer in answers.items() if b" 200 " in answer or b" 101 " in answer}


def answers_plainly(endpoint: str) -> bytes:
    """What a port that serves TLS says to somebody who asks without it."""
    door = _Door(endpoint, None)
    return door.raw(f"GET /health HTTP/1.1\r\nHost: {door.host}\r\n\r\n".encode())


class _Door:
    def __init__(self, endpoint: str, trust: ssl.SSLContext | None) -> None:
        url = urlsplit(endpoint)
        assert url.hostname and url.path.endswith("/v1")
        self.host, self.port = url.hostname, url.port or (443 if url.scheme == "https" else 80)
        self.prefix = url.path.removesuffix("/v1")
        self._trust = trust if url.scheme == "https" else None
        self._open: http.client.HTTPConnection | None = None

    def ask(self, line: str, headers: Sequence[tuple[str, str]]) -> int:
        """The status of one request, over a connection that is kept; 0 when the server hangs up, which refuses too."""
        method, target = line.split(" ", 1)
        target = target if "://" in target else f"{self.prefix}{target}"
        for fresh in (False, True):
            connection = self._connection(fresh)
            try:
                connection.putrequest(method, target, skip_accept_encoding=True)
                for name, value in headers:
                    connection.putheader(name, value)
                connection.putheader("Content-Type", "application/json")
                connection.putheader("Content-Length", str(len(_BODY)))
                connection.endheaders(_BODY)
                answer = connection.getresponse()
                answer.read()
            except (http.client.HTTPException, OSError):
                self._open = None
                continue
            if answer.will_close:
                self._open = None
            return answer.status
        return 400

    def raw(self, request: bytes) -> bytes:
        """All that a server says to these bytes until it hangs up or has said nothing for a while."""
        with socket.create_connection((self.host, self.port), _PATIENCE_S) as plain:
            line = self._trust.wrap_socket(plain, server_hostname=self.host) if self._trust else plain
            line.settimeout(0.5)
            said = b""
            try:
                line.sendall(request)
                while chunk := line.recv(65536):
                    said += chunk
            except OSError:
                pass
            return said

    def _connection(self, fresh: bool) -> http.client.HTTPConnection:
        if self._open is None or fresh:
            if self._trust:
                self._open = http.client.HTTPSConnection(self.host, self.port, timeout=_PATIENCE_S, context=self._trust)
            else:
                self._open = http.client.HTTPConnection(self.host, self.port, timeout=_PATIENCE_S)
        return self._open


def _smuggling(prefix: str, host: str) -> Iterator[tuple[str, bytes]]:
    where = f"Host: {host}\r\n"
    models = f"GET {prefix}/v1/models HTTP/1.1\r\n"
    asked = f"POST {prefix}/v1/completions HTTP/1.1\r\n{where}"
    inner = f"{models}{where}\r\n"
    chunked = f"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
    socketed = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    upgraded = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
    texts = {
        "a length and chunks": f"{asked}Content-Length: {len(inner) + 5}\r\n{chunked}",
        "two lengths": f"{asked}Content-Length: 0\r\nContent-Length: {len(inner)}\r\n\r\n{inner}",
        "a garbled encoding": f"{asked}Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n{inner}",
        "two hosts": f"{models}{where}Host: localhost\r\n\r\n",
        "another host": f"{models}Host: localhost\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
        "a folded header": f"{models}{where}Authorization:\r\n Bearer x\r\n\r\n",
        "an old protocol": f"GET {prefix}/v1/models HTTP/1.0\r\n\r\n",
        "no protocol": f"GET {prefix}/v1/models\r\n\r\n",
        "a websocket": f"GET {prefix}/v1/realtime HTTP/1.1\r\n{where}{socketed}Sec-WebSocket-Version: 13\r\n\r\n",
        "another protocol": f"{models}{where}{upgraded}",
        "a header that never ends": f"{models}{where}X-Pad: {'x' * 300_000}\r\n\r\n",
    }
    for name, text in texts.items():
        yield name, text.encode()
