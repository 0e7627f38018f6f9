"""The guard before vLLM, under a real ASGI server, with every route that vLLM has."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Iterator, MutableMapping
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

KEY, PREVIOUS = "sk-new", "sk-old"

OPEN = ["GET /health"]
GUARDED = [
    "GET /metrics",
    "GET /v1/models",
    "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/responses",
    "GET /v1/responses/resp_1",
    "POST /v1/responses/resp_1/cancel",
]
# What vLLM 0.32.0 declares in its source, development mode and documentation pages included; ids are filled in.
ALL = (Path(__file__).parent / "data/vllm_routes.txt").read_text().splitlines()
CLOSED = [line for line in ALL if line not in {*OPEN, *GUARDED}]
TRICKS = [
    "GET //v1/models",
    "GET /v1//models",
    "GET /v1/models/",
    "GET /v1/models/.",
    "GET /v1/../v1/models",
    "GET /v1/./models",
    "GET /V1/models",
    "GET /v1/models%20",
    "GET /%76%31/models",
    "GET /v1%2fmodels",
    "GET /v1/models%00",
    "GET /v1/models;x=1",
    "POST http://127.0.0.1/invocations",
    "GET /metrics/",
    "GET /metricsx",
    "GET /health/",
    "GET /healthz",
    "GET /health/../v1/models",
    "GET /health%2f..%2finvocations",
    "GET /v1/responses/",
    "GET /v1/responses/a/b",
    "GET /v1/responses/..",
    "GET /v1/responses/%2e%2e",
    "POST /v1/../invocations",
    "POST /v1/%2e%2e/invocations",
    "POST /v1/responses/../../invocations",
    "POST /v1/responses/resp_1/cancel/",
    "POST /health",
    "HEAD /health",
    "OPTIONS /health",
    "HEAD /v1/models",
    "OPTIONS /v1/chat/completions",
    "PUT /v1/models",
    "DELETE /v1/responses/resp_1",
    "GET /v1/chat/completions",
    "PROPFIND /v1/models",
]


class Inner:
    """vLLM's place: answers every request, and keeps what reached it."""

    def __init__(self) -> None:
        self.scopes: list[MutableMapping[str, Any]] = []

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


def guard_module() -> ModuleType:
    module = ModuleType("vllm_anywhere_guard")
    exec(files("serving").joinpath("data/guard.py").read_text(encoding="utf-8"), module.__dict__)
    return module


@pytest.fixture(scope="module", params=["h11", "httptools"])
def served(request: pytest.FixtureRequest) -> Iterator[tuple[Inner, int]]:
    inner = Inner()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)
        patch.setenv("ANYWHERE_PREVIOUS_KEY", PREVIOUS)
        guarded = guard_module().Guard(inner)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(guarded, lifespan="off", log_level="critical", http=request.param)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield inner, listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    listening.close()


def ask(
    served: tuple[Inner, int], request: str, *headers: tuple[str, str], body: bytes = b""
) -> tuple[int, bytes, int]:
    """Status, body, and how many requests went through to vLLM. http.client sends the target as it is."""
    inner, port = served
    before = len(inner.scopes)
    method, target = request.split(" ", 1)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content, len(inner.scopes) - before


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


@pytest.mark.parametrize("request_line", OPEN)
def test_health_needs_no_key(served: tuple[Inner, int], request_line: str) -> None:
    assert ask(served, request_line) == (200, b"", 1)
    assert ask(served, f"{request_line}?probe=1")[0] == 200


@pytest.mark.parametrize("request_line", GUARDED)
def test_the_api_wants_the_key(served: tuple[Inner, int], request_line: str) -> None:
    assert ask(served, request_line)[::2] == (401, 0)
    assert ask(served, request_line, bearer("sk-wrong"))[::2] == (401, 0)
    assert ask(served, request_line, bearer(KEY))[::2] == (200, 1)


@pytest.mark.parametrize("request_line", [*CLOSED, *TRICKS])
def test_everything_else_is_not_there_with_the_key_or_without(served: tuple[Inner, int], request_line: str) -> None:
    assert ask(served, request_line)[::2] == (404, 0)
    assert ask(served, request_line, bearer(KEY))[::2] == (404, 0)


def test_both_keys_count_while_clients_change_over_and_vllm_sees_its_own(served: tuple[Inner, int]) -> None:
    for key in (KEY, PREVIOUS):
        assert ask(served, "GET /v1/models", bearer(key))[0] == 200
        sent = [value for name, value in served[0].scopes[-1]["headers"] if name == b"authorization"]
        assert sent == [f"Bearer {KEY}".encode()]


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", KEY)],
        [("Authorization", f"Basic {KEY}")],
        [("Authorization", "Bearer ")],
        [("Authorization", "Bearer")],
        [("Authorization", "")],
        [("Authorization", f"Bearer {KEY},{PREVIOUS}")],
        [("Authorization", f"Bearer  {KEY}")],
        [("X-Api-Key", KEY)],
        [bearer(KEY), bearer("sk-wrong")],
        [bearer("sk-wrong"), bearer(KEY)],
    ],
)
def test_what_only_looks_like_the_key_is_refused(served: tuple[Inner, int], headers: list[tuple[str, str]]) -> None:
    assert ask(served, "GET /v1/models", *headers)[::2] == (401, 0)


def test_the_key_is_not_taken_from_the_query(served: tuple[Inner, int]) -> None:
    assert ask(served, f"GET /v1/models?api_key={KEY}")[0] == 401


def test_the_scheme_is_a_word_in_any_case_as_http_has_it(served: tuple[Inner, int]) -> None:
    assert ask(served, "GET /v1/models", ("authorization", f"bearer {KEY}"))[0] == 200


def test_a_refusal_reads_like_the_api_and_says_nothing_of_the_key(served: tuple[Inner, int]) -> None:
    _, content, _ = ask(served, "GET /v1/models", bearer("sk-wrong"))
    assert json.loads(content)["error"]["message"] == "the API key is missing or wrong"
    assert b"sk-" not in content


def test_a_body_goes_through_as_it_came(served: tuple[Inner, int]) -> None:
    body = b"x" * 300_000
    assert ask(served, "POST /v1/completions", bearer(KEY), body=body)[1] == body


def test_the_list_of_routes_has_all_that_the_guard_lets_through() -> None:
    assert set(ALL) >= {*OPEN, *GUARDED}


# What no HTTP client can send, straight to the guard.


def call(monkeypatch: pytest.MonkeyPatch, scope: dict[str, Any]) -> tuple[Inner, list[dict[str, Any]]]:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.delenv("ANYWHERE_PREVIOUS_KEY", raising=False)
    inner, sent = Inner(), list[dict[str, Any]]()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asyncio.run(guard_module().Guard(inner)(scope, receive, send))
    return inner, sent


HTTP = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"authorization", b"Bearer sk-new")]}


def test_a_websocket_is_closed_unopened(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, sent = call(monkeypatch, {**HTTP, "type": "websocket", "path": "/v1/realtime"})
    assert (inner.scopes, sent) == ([], [{"type": "websocket.close", "code": 1008}])


def test_a_protocol_of_tomorrow_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, sent = call(monkeypatch, {**HTTP, "type": "webtransport"})
    assert (inner.scopes, sent) == ([], [])


def test_start_and_stop_of_the_server_go_through(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, _ = call(monkeypatch, {"type": "lifespan"})
    assert len(inner.scopes) == 1


def test_a_root_path_can_not_make_one_path_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    inner, _ = call(monkeypatch, {**HTTP, "root_path": "/v1"})
    assert [scope["root_path"] for scope in inner.scopes] == [""]


@pytest.mark.parametrize("raw", [{}, {"raw_path": None}])
def test_servers_that_keep_no_raw_path_are_served(monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any]) -> None:
    inner, _ = call(monkeypatch, {**HTTP, **raw})
    assert len(inner.scopes) == 1


def test_a_server_without_a_key_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "")
    with pytest.raises(RuntimeError, match="VLLM_API_KEY"):
        guard_module().Guard(Inner())


def test_an_empty_previous_key_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv("ANYWHERE_PREVIOUS_KEY", "")
    assert not guard_module().Guard(Inner()).knows([(b"authorization", b"Bearer ")])


def test_keys_change_while_the_server_serves(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    monkeypatch.setenv("VLLM_API_KEY", "sk-1")
    monkeypatch.setenv("ANYWHERE_KEYS", str(file))
    guard = guard_module().Guard(Inner())

    def known() -> set[str]:
        return {key for key in ("sk-1", "sk-2", "sk-3") if guard.knows([(b"authorization", f"Bearer {key}".encode())])}

    def written(text: str | bytes) -> set[str]:
        new = file.with_suffix(".new")
        new.write_bytes(text if isinstance(text, bytes) else text.encode())
        new.replace(file)
        return known()

    assert known() == {"sk-1"}
    assert written("HF_TOKEN=hf=1\nVLLM_API_KEY=sk-2\nANYWHERE_PREVIOUS_KEY=sk-1\n") == {"sk-1", "sk-2"}
    assert written("VLLM_API_KEY=sk-3\nANYWHERE_PREVIOUS_KEY=sk-2\n") == {"sk-2", "sk-3"}
    assert written("VLLM_API_KEY=sk-3\nANYWHERE_PREVIOUS_KEY=sk-3\n") == {"sk-3"}
    for broken in ("", "VLLM_API_KEY=\n", "nothing", b"\xff\xfe"):
        assert written(broken) == {"sk-3"}
    file.unlink()
    assert known() == {"sk-3"}


def test_what_was_rotated_while_the_model_loaded_counts_from_the_first_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("VLLM_API_KEY=sk-2\n")
    monkeypatch.setenv("VLLM_API_KEY", "sk-1")
    monkeypatch.setenv("ANYWHERE_KEYS", str(tmp_path / "keys"))
    guard = guard_module().Guard(Inner())
    assert guard.knows([(b"authorization", b"Bearer sk-2")])
    assert not guard.knows([(b"authorization", b"Bearer sk-1")])


def test_vllm_sees_the_key_that_it_was_started_with_whatever_counts_now(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"VLLM_API_KEY=sk-2\nANYWHERE_PREVIOUS_KEY={KEY}\n")
    monkeypatch.setenv("ANYWHERE_KEYS", str(tmp_path / "keys"))
    inner, _ = call(monkeypatch, {**HTTP, "headers": [(b"authorization", b"Bearer sk-2")]})
    assert inner.scopes[0]["headers"] == [(b"authorization", f"Bearer {KEY}".encode())]


@given(st.binary(max_size=40))
def test_no_other_token_is_the_key(token: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)
        guard = guard_module().Guard(Inner())
    assert guard.knows([(b"authorization", b"Bearer " + token)]) == (token == KEY.encode())
