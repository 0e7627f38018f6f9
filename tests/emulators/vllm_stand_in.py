"""`vllm serve` as containers of emulated clouds have it: the guard that the start script wrote, then llama.cpp.

It ends when its standard input does, so it outlives neither the emulator nor the tests.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import uvicorn

UPSTREAM = "EMULATED_UPSTREAM"
UPSTREAM_KEY = "EMULATED_UPSTREAM_KEY"
HOST = "EMULATED_HOST"
PORT = "EMULATED_PORT"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

GUARDED = re.compile(r"/(v1|v2|inference|cohere)(/|$)")
"""What vLLM's own key protects."""
LLAMA = {"/health", "/metrics", "/v1/models", "/v1/completions", "/v1/chat/completions", "/v1/embeddings"}
"""What is answered by a model; of the rest it matters only whether it was reached."""
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date", b"server"}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--host", "--middleware", "--ssl-keyfile", "--ssl-certfile"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    guarded = serve
    if given.middleware:
        module, _, name = given.middleware.rpartition(".")
        guarded = getattr(importlib.import_module(module), name)(serve)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    print(f"INFO serving behind {given.middleware}", flush=True)
    uvicorn.run(
        guarded,
        host=os.environ.get(HOST) or given.host,
        port=int(os.environ.get(PORT) or given.port),
        ssl_keyfile=given.ssl_keyfile,
        ssl_certfile=given.ssl_certfile,
        lifespan="off",
        log_level="error",
    )


async def serve(scope: Message, receive: Receive, send: Send) -> None:
    """As vLLM: the key for some prefixes only, and every route answers; those that llama.cpp lacks say `reached`."""
    wanted = f"Bearer {os.environ['VLLM_API_KEY']}".encode()
    if GUARDED.match(scope["path"]) and dict(scope["headers"]).get(b"authorization") != wanted:
        await answer(send, 401, b'{"error":"Unauthorized"}')
    elif scope["path"] in LLAMA:
        await forward(scope, receive, send)
    else:
        await answer(send, 200, b"reached")


async def answer(send: Send, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def forward(scope: Message, receive: Receive, send: Send) -> None:
    """The request as it is, with llama.cpp's own key; the answer as it comes."""
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    headers = {"Authorization": f"Bearer {os.environ[UPSTREAM_KEY]}", "Content-Type": "application/json"}
    async with (
        httpx.AsyncClient(base_url=os.environ[UPSTREAM], timeout=60, trust_env=False) as http,
        http.stream(scope["method"], scope["path"], content=body, headers=headers) as answer,
    ):
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": kept})
        async for chunk in answer.aiter_raw():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
