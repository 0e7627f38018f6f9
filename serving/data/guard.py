"""vLLM's public door: an ASGI middleware that lets through what is listed here, with the key, and nothing else.

The server's start script writes this file beside vLLM, so it needs the standard library alone. vLLM's own key check
covers some path prefixes only: `/invocations` would run inference for anybody
(https://docs.vllm.ai/en/latest/usage/security.html).
"""

import hashlib
import hmac
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = {("GET", "/health")}
GUARDED = {
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("POST", "/v1/audio/transcriptions"),
    ("POST", "/v1/audio/translations"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
}
STORED = re.compile(r"(GET) /v1/responses/[A-Za-z0-9_-]+|(POST) /v1/responses/[A-Za-z0-9_-]+/cancel")


def digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()


def digests(told: Mapping[str, str]) -> list[bytes]:
    keys = [told.get(name, "") for name in ("VLLM_API_KEY", "ANYWHERE_PREVIOUS_KEY")]
    return [digest(key.encode()) for key in keys if key]


class Guard:
    """Every request is judged by method and undecoded path; what isn't listed is 404, the key or not.

    `VLLM_API_KEY` is the key, `ANYWHERE_PREVIOUS_KEY` one that counts too while clients change over. vLLM's own
    check knows one key only, so an accepted request goes on with that one. Where `ANYWHERE_KEYS` names a file with
    lines `NAME=value` of the two, it is read again whenever it changes: keys change while the server serves.
    """

    def __init__(self, app: App) -> None:
        self.app = app
        key = os.environ.get("VLLM_API_KEY", "").encode()
        if not key:
            raise RuntimeError("VLLM_API_KEY is empty: a server without a key is not started")
        self.header = (b"authorization", b"Bearer " + key)
        self.keys = digests(os.environ)
        file = os.environ.get("ANYWHERE_KEYS")
        self.file = Path(file) if file else None
        self.seen = (0, 0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return None
        method, path = scope["method"], scope["path"]
        # Servers decode %2e and %2f in `path`; a listed path has nothing to decode.
        if (scope.get("raw_path") or path.encode()) != path.encode():
            return await refuse(send, 404, "there is nothing here")
        # A root path would be cut off before routing, so that another path is served than was judged.
        scope = {**scope, "root_path": ""}
        if (method, path) in OPEN:
            return await self.app(scope, receive, send)
        if (method, path) not in GUARDED and not STORED.fullmatch(f"{method} {path}"):
            return await refuse(send, 404, "there is nothing here")
        if not self.knows(scope["headers"]):
            return await refuse(send, 401, "the API key is missing or wrong")
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"authorization"]
        return await self.app({**scope, "headers": [*headers, self.header]}, receive, send)

    def reread(self, file: Path) -> None:
        """Take the keys of a file that has changed. One that can't be read, or has no key, changes nothing."""
        try:
            found = file.stat()
            if (found.st_ino, found.st_mtime_ns) == self.seen:
                return
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            return
        told = {name: value for name, _, value in (line.partition("=") for line in lines)}
        if told.get("VLLM_API_KEY"):
            self.keys, self.seen = digests(told), (found.st_ino, found.st_mtime_ns)

    def knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        if self.file:
            self.reread(self.file)
        sent = [value for name, value in headers if name.lower() == b"authorization"]
        scheme, _, token = (sent[0] if len(sent) == 1 else b"").partition(b" ")
        offered = digest(token)
        # All are compared, so that time doesn't tell which one came close.
        matches = [hmac.compare_digest(offered, key) for key in self.keys]
        return scheme.lower() == b"bearer" and any(matches)


async def refuse(send: Send, status: int, message: str) -> None:
    """Answer as OpenAI's API words its errors, so that its clients show the message."""
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": status}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
