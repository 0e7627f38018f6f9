"""`vllm serve` as containers of emulated clouds have it: the guard that the start script wrote, then llama.cpp.

It ends when its standard input does, so it outlives neither the emulator nor the tests.
"""

from __future__ import annotations

import argparse
import importlib
import os
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
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"date", b"server"}


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--host", "--middleware", "--ssl-keyfile", "--ssl-certfile"):
        parser.add_argument(name)
    parser.add_argument("--port", type=int)
    given, _ = parser.parse_known_args()
    module, _, name = given.middleware.rpartition(".")
    guarded = getattr(importlib.import_module(module), name)(forward)
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


async def forward(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
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
