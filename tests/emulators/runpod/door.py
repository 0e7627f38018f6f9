"""The middleware that a start script writes beside vLLM, run as it is on every request that reaches the container."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, MutableMapping
from types import SimpleNamespace
from typing import Any

from ..http import Request, Response

_WRITTEN = re.compile(r"^cat\s+>\s*\S*?(\w+)\.py\S*\s+<<-?\s*'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)


def middleware_in(script: str, name: str) -> str | None:
    """Source of the module of `--middleware module.Class`, from the script's here-documents."""
    module = name.rpartition(".")[0]
    return next((found[3] for found in _WRITTEN.finditer(script) if found[1] == module), None)


class Door:
    """One ASGI middleware. It sees the container's environment, and no more of the request than a server tells it."""

    def __init__(self, source: str, name: str, env: Mapping[str, str]) -> None:
        names: dict[str, Any] = {"__name__": name.rpartition(".")[0]}
        exec(compile(source, f"{names['__name__']}.py", "exec"), names)
        names["os"] = SimpleNamespace(environ=dict(env))
        self._middleware = names[name.rpartition(".")[2]](self._app)

    def judge(self, request: Request, path: str) -> tuple[Response | None, str]:
        """The middleware's own answer, or None and the bearer token that the request goes on with."""
        scope = {
            "type": "http",
            "method": request.method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": request.target.partition("?")[2].encode(),
            "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
            "root_path": "",
        }
        sent: list[MutableMapping[str, Any]] = []

        async def receive() -> MutableMapping[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(message)

        asyncio.run(self._middleware(scope, receive, send))
        start = sent[0]
        if start["type"] == "passed":
            return None, start["bearer"]
        body = b"".join(message.get("body", b"") for message in sent[1:])
        headers = {name.decode(): value.decode() for name, value in start["headers"] if name != b"content-length"}
        return Response(start["status"], body, headers), ""

    @staticmethod
    async def _app(scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """In vLLM's place: takes down with which key it was reached."""
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode()
        await send({"type": "passed", "bearer": authorization.removeprefix("Bearer ")})
