"""The `vllm-anywhere` command, without a stack and without a network."""

from __future__ import annotations

import io
import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ops import cli
from ops.chat import chat
from ops.client import ChatClient, Usage
from ops.hello import hello
from ops.stack import OpsError, Stack, read_stack
from ops.status import status

OUTPUTS: dict[str, Any] = {
    "endpoint": "http://127.0.0.1:9/v1",
    "api_key": "sk-secret",
    "model": "qwen3-4b",
    "provider": "local",
    "hardware": "this machine",
    "cost": {"hourly_usd": "0.0000", "monthly_usd": "0.00"},
    "ready": {"time_to_ready_s": 1.5, "first_token_s": 0.1, "answered_at": "2026-11-21T06:00:00+00:00"},
}
STACK = Stack(name="local", **OUTPUTS)
NOW = datetime(2026, 11, 21, 6, 0, tzinfo=UTC) + timedelta(hours=3)


def test_without_a_command_all_of_them_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main([])
    assert exited.value.code == 2
    said = capsys.readouterr().err
    assert not [name for name in cli.COMMANDS if f"    {name}" not in said]


def sse(*chunks: dict[str, Any], done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def piece(text: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


def client(answer: httpx.Response) -> ChatClient:
    return ChatClient(STACK.endpoint, "sk-secret", transport=httpx.MockTransport(lambda _: answer))


def ran(stdout: str = "", stderr: str = "", returncode: int = 0) -> Any:
    return lambda args: subprocess.CompletedProcess(args, returncode, stdout, stderr)


def test_a_stack_is_read_from_its_outputs() -> None:
    stack = read_stack("local", ran(json.dumps(OUTPUTS)))
    assert stack.endpoint == OUTPUTS["endpoint"]
    assert stack.api_key.get_secret_value() == "sk-secret"
    assert "sk-secret" not in repr(stack)


def test_an_output_called_name_is_not_the_stacks() -> None:
    assert read_stack("local", ran(json.dumps({**OUTPUTS, "name": "bucket"}))).name == "local"


def test_a_missing_stack_says_what_pulumi_said_and_what_to_do() -> None:
    with pytest.raises(OpsError, match=r"no stack named 'x' found.*\n`pulumi stack ls`"):
        read_stack("x", ran(stderr="error: no stack named 'x' found", returncode=255))


def test_an_empty_stack_says_which_command_deploys_it() -> None:
    with pytest.raises(OpsError, match="pulumi up -s local"):
        read_stack("local", ran("{}"))


def test_broken_outputs_are_named_without_their_values() -> None:
    with pytest.raises(OpsError) as caught:
        read_stack("local", ran(json.dumps({**OUTPUTS, "ready": "sk-secret"})))
    assert "ready" in str(caught.value)
    assert "sk-secret" not in str(caught.value)


def test_chat_streams_the_answer_as_plain_text() -> None:
    out = io.StringIO()
    answer = httpx.Response(200, content=sse(piece(None), piece("Pa"), piece("ris"), {"choices": [], "usage": {}}))
    _chat(out, answer, as_json=False)
    assert out.getvalue() == "Paris\n"


def test_chat_as_json_has_the_answer_its_times_and_its_tokens() -> None:
    out = io.StringIO()
    usage = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}
    _chat(out, httpx.Response(200, content=sse(piece("Pa"), piece("ris"), usage)), as_json=True)
    record = json.loads(out.getvalue())
    assert record["answer"] == "Paris"
    assert (record["prompt_tokens"], record["completion_tokens"]) == (7, 2)
    assert record["first_token_s"] <= record["total_s"]


def test_a_conversation_remembers_what_was_said() -> None:
    asked: list[Any] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content)["messages"])
        return httpx.Response(200, content=sse(piece(f"answer {len(asked)}")))

    lines = iter(["first", "", "second"])

    def ask(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    out = io.StringIO()
    talker = ChatClient(STACK.endpoint, "k", transport=httpx.MockTransport(serve))
    options: dict[str, Any] = {"system": "Be brief.", "max_tokens": None, "temperature": None, "as_json": False}
    chat(STACK, "", **options, out=out, ask=ask, client=talker)
    assert [message["content"] for message in asked[1]] == ["Be brief.", "first", "answer 1", "second"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (httpx.Response(401, text='{"error": "no"}'), "HTTP 401"),
        (httpx.Response(200, content=sse(piece("Pa"), done=False)), "broke the answer off"),
        (httpx.Response(200, content=b"data: what?\n\n"), "does not answer"),
    ],
)
def test_an_answer_that_fails_is_an_error(answer: httpx.Response, says: str) -> None:
    with pytest.raises(OpsError, match=says):
        list(client(answer).stream("m", [], Usage()))


def test_status_shows_a_healthy_stack_and_exits_0() -> None:
    out = io.StringIO()
    healthy = client(httpx.Response(200, json={"data": [{"id": "qwen3-4b"}]}))
    assert status(STACK, as_json=False, now=NOW, out=out, client=healthy) == 0
    for text in ("answers", "qwen3-4b", STACK.endpoint, "3:00:00", "$0.00"):
        assert text in out.getvalue()
    assert "\x1b" not in out.getvalue()
    assert "sk-secret" not in out.getvalue()


def test_status_of_a_dead_stack_exits_1_and_says_what_to_do() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    out = io.StringIO()
    dead = ChatClient(STACK.endpoint, "k", transport=httpx.MockTransport(refuse))
    assert status(STACK, as_json=False, now=NOW, out=out, client=dead) == 1
    assert "connection refused" in out.getvalue()
    assert "pulumi refresh -s local" in out.getvalue()


def test_status_as_json_has_no_key() -> None:
    out = io.StringIO()
    status(STACK, as_json=True, now=NOW, out=out, client=client(httpx.Response(503)))
    facts = json.loads(out.getvalue())
    assert facts["healthy"] is False
    assert facts["uptime_s"] is None
    assert "sk-secret" not in out.getvalue()


def test_hello_shows_how_to_get_the_key_and_not_the_key() -> None:
    out = io.StringIO()
    hello(STACK, out)
    assert "pulumi stack output api_key --show-secrets -s local" in out.getvalue()
    assert "sk-secret" not in out.getvalue()
    assert all(not line.startswith(" ") for line in _heredoc(out.getvalue())[:1])


def test_the_python_example_compiles_as_it_is_pasted() -> None:
    out = io.StringIO()
    hello(STACK, out)
    compile("\n".join(_heredoc(out.getvalue())), "example", "exec")


def test_an_error_goes_to_stderr_and_exits_1(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr("ops.stack.shutil.which", lambda _: None)
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["status"])
    assert exit_status.value.code == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "source tools/env.sh" in said.err


def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_status:
        cli.main(["sing"])
    assert exit_status.value.code == 2


def _chat(out: io.StringIO, answer: httpx.Response, *, as_json: bool) -> None:
    options: dict[str, Any] = {"system": "", "max_tokens": None, "temperature": None}
    chat(STACK, "What?", **options, as_json=as_json, out=out, client=client(answer))


def _heredoc(text: str) -> list[str]:
    lines = text.splitlines()
    return lines[lines.index("python - <<'PY'") + 1 : lines.index("PY")]
