"""LiteLLM's proxy behind the guard, on a socket that somebody else holds.

`python gateway_serve.py <folder> <socket> <ready>` runs in LiteLLM's environment. `<socket>` is the descriptor of a
listening socket, which outlives this process: the next one answers what is queued there. A byte goes to `<ready>`
once requests are answered. The end of stdin ends it, after the requests that are under way.
"""

import asyncio
import json
import os
import secrets
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import guard  # pyright: ignore[reportMissingImports]

GUARDED = {
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/responses"),
}
KEPT = (b"x-litellm-model-id", b"x-litellm-response-cost", b"x-litellm-attempted-retries", b"x-litellm-version")
"""What answers say of the gateway; the rest of LiteLLM's headers has addresses and error texts of the servers."""
LAST_S = 2
"""Seconds between the last connection that is taken and the end of those on which nothing is under way."""
DRAIN_S = 120
"""Seconds that requests under way may take once this process has to end."""


class Front:
    """What is before LiteLLM and its guard: `/health` without its other checks, the deadline, and fewer headers."""

    def __init__(self, app: Any, deadline_s: float) -> None:
        self.app = app
        self.deadline_s = deadline_s

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if (scope["method"], scope["path"]) == ("GET", "/health"):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            return await send({"type": "http.response.body", "body": b""})
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                clock.reschedule(None)
                message = {**message, "headers": [one for one in message["headers"] if shown(one[0].lower())]}
            await send(message)

        try:
            async with asyncio.timeout(self.deadline_s) as clock:
                await self.app(scope, receive, sending)
        except TimeoutError:
            if begun:
                raise
            await guard.refuse(send, 504, f"no server has answered within {self.deadline_s} s")
        return None


def shown(header: bytes) -> bool:
    return header in KEPT or not header.startswith((b"x-litellm-", b"llm_provider-"))


def main() -> None:
    folder, listening, ready = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    answering: list[Any] = []

    def follow() -> None:
        while os.read(0, 1):
            pass
        if not answering:
            # Whoever started this has gone before it answered.
            os._exit(1)
        # uvicorn closes connections whose request it has not read yet; those that it took last get a moment for that.
        for one in answering[0].servers:
            one.get_loop().call_soon_threadsafe(one.close)
        threading.Event().wait(LAST_S)
        answering[0].should_exit = True

    # LiteLLM takes seconds to be imported, and nobody may be left by then.
    threading.Thread(target=follow, daemon=True).start()
    rule = json.loads((folder / "rule.json").read_text())
    # LiteLLM's own key is never told to anybody: the guard puts it into what it lets through.
    os.environ["VLLM_API_KEY"] = f"sk-{secrets.token_urlsafe(32)}"
    os.environ["CONFIG_FILE_PATH"] = str(folder / "config.yaml")
    import uvicorn  # pyright: ignore[reportMissingImports]
    from litellm.proxy.proxy_server import app  # pyright: ignore[reportMissingImports]

    guard.OPEN, guard.GUARDED = set(), GUARDED
    config = uvicorn.Config(
        Front(guard.Guard(app), rule["deadline_s"]),
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        # On a VM, where others reach it; on one's own machine only that machine does.
        ssl_certfile=os.environ.get("ANYWHERE_TLS_CERT"),
        ssl_keyfile=os.environ.get("ANYWHERE_TLS_KEY"),
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = uvicorn.Server(config)

    def announce() -> None:
        while not server.started:
            threading.Event().wait(0.05)
        answering.append(server)
        os.write(ready, b"+")
        os.close(ready)

    threading.Thread(target=announce, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=listening)])


if __name__ == "__main__":
    main()
