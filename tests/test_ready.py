"""`Ready` and the question that it asks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from providers.base import Interrupted, NotReady
from providers.native import Context
from providers.shared import endpoint as endpoint_module
from providers.shared.endpoint import Answer, Endpoint, NotYet
from providers.shared.resources import ApiKey, ApiKeyInputs, ApiKeyOutputs, Ready, ReadyInputs

MODELS = {"data": [{"id": "qwen3-4b", "aliases": ["other"]}]}


def chunk(**delta: Any) -> str:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n"


def ask(completion: httpx.Response, models: httpx.Response | None = None, model: str = "qwen3-4b") -> Answer | NotYet:
    def serve(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == "Bearer k"
        return (models or httpx.Response(200, json=MODELS)) if request.method == "GET" else completion

    ticks = itertools.count()
    return Endpoint("https://x/v1", "k", transport=httpx.MockTransport(serve)).ask(model, lambda: float(next(ticks)))


def streamed(*parts: str) -> httpx.Response:
    return httpx.Response(200, text="".join(parts))


def test_a_complete_streamed_answer_counts() -> None:
    assert isinstance(ask(streamed(chunk(role="assistant"), chunk(content="hi"), "data: [DONE]\n\n")), Answer)


def test_an_alias_is_a_name_too() -> None:
    assert isinstance(ask(streamed(chunk(content="hi"), "data: [DONE]\n\n"), model="other"), Answer)


def test_reasoning_is_a_token() -> None:
    assert isinstance(ask(streamed(chunk(reasoning="hm"), "data: [DONE]\n\n")), Answer)


@pytest.mark.parametrize(
    ("completion", "models", "reason"),
    [
        (streamed(chunk(role="assistant", content=None), "data: [DONE]\n\n"), None, "the answer was empty"),
        (streamed(chunk(content="hi")), None, "the answer broke off"),
        (httpx.Response(503, text="loading"), None, "HTTP 503 loading"),
        (streamed(), httpx.Response(200, json={"data": [{"id": "llama"}]}), "it serves llama, not qwen3-4b"),
        (streamed(), httpx.Response(200, text="<html>"), "JSONDecodeError"),
        (streamed(), httpx.Response(200, json={"data": [1]}), "TypeError"),
    ],
)
def test_what_is_no_answer_says_why(completion: httpx.Response, models: httpx.Response | None, reason: str) -> None:
    answer = ask(completion, models)
    assert isinstance(answer, NotYet)
    assert reason in answer.reason
    assert not answer.final


def test_a_refused_key_is_final() -> None:
    answer = ask(streamed(), httpx.Response(401, text="no"))
    assert answer == NotYet("HTTP 401 no", final=True)


class Clock:
    """Time that only passes in waits."""

    def __init__(self, cancelled_at: float = 1e9) -> None:
        self.now = 0.0
        self.cancelled_at = cancelled_at

    def pause(self, seconds: float) -> bool:
        self.now += seconds
        return self.now >= self.cancelled_at


def ready(
    monkeypatch: pytest.MonkeyPatch, answers: Callable[[], Any], clock: Clock, shown: list[str], **changes: Any
) -> Any:
    class Stub:
        def __init__(self, url: str, key: str, ca_pem: str) -> None:
            assert (url, key) == ("https://x/v1", "k")

        def ask(self, model: str, now: Callable[[], float]) -> Any:
            return answers()

    monkeypatch.setattr(endpoint_module, "Endpoint", Stub)
    context = Context(
        "urn", shown.append, clock.pause, lambda: clock.now, lambda: datetime(2026, 11, 21, 6, tzinfo=UTC)
    )
    inputs = ReadyInputs(
        endpoint="https://x/v1",
        api_key=SecretStr("k"),
        model="m",
        platform="fake",
        server_id="fake-1",
        timeout_s=60,
        **changes,
    )
    return Ready().create(context, inputs)


def test_ready_waits_until_the_model_answers_and_records_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, shown = Clock(), []
    answers = iter([NotYet("HTTP 503")] * 12 + [Answer(0.25)])
    outputs = ready(monkeypatch, lambda: next(answers), clock, shown).outputs
    assert outputs.first_token_s == 0.25
    assert outputs.time_to_ready_s == round(clock.now, 3)
    assert outputs.answered_at == "2026-11-21T06:00:00+00:00"
    assert any("HTTP 503" in text for text in shown)


def test_ready_fails_with_the_reason_the_log_and_the_next_command(monkeypatch: pytest.MonkeyPatch) -> None:
    log = ["INFO starting", "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."]
    monkeypatch.setattr("providers.fake.client.log_tail", lambda server_id, lines: log)
    with pytest.raises(NotReady) as caught:
        ready(monkeypatch, lambda: NotYet("HTTP 502"), Clock(), [])
    for words in (
        "https://x/v1 after 60 s: HTTP 502",
        "may be billed",
        "The GPU is too old for bfloat16.",
        "pulumi config set --path vllm-anywhere:model.dtype half",
        log[1],
        "`pulumi destroy`",
    ):
        assert words in str(caught.value)


def test_ready_gives_up_at_once_on_a_refused_key(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    with pytest.raises(NotReady, match="HTTP 401"):
        ready(monkeypatch, lambda: NotYet("HTTP 401", final=True), clock, [])
    assert clock.now == 0


def test_ready_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted):
        ready(monkeypatch, lambda: NotYet("HTTP 503"), Clock(cancelled_at=1), [])


def test_every_key_is_new_unless_you_bring_your_own() -> None:
    keys = {ApiKey().create(None, ApiKeyInputs()).outputs.value.get_secret_value() for _ in range(3)}  # pyright: ignore
    assert len(keys) == 3
    assert all(len(key) > 40 for key in keys)
    own = ApiKey().create(None, ApiKeyInputs(own=SecretStr("mine"))).outputs  # pyright: ignore
    assert own.value.get_secret_value() == "mine"
    assert "mine" not in repr(own)


def rotated(*changes: dict[str, Any]) -> list[tuple[str, str]]:
    """The key and the one before it after each change of the key's inputs."""
    inputs, key = ApiKeyInputs(), ApiKey()
    made = key.create(None, inputs)  # pyright: ignore
    told = [made.outputs]
    for change in changes:
        new = inputs.model_copy(update=change)
        told.append(key.update(None, "api-key", told[-1], inputs, new).outputs)  # pyright: ignore
        inputs = new
    return [(one.value.get_secret_value(), one.previous.get_secret_value()) for one in told]


def test_the_key_before_counts_until_the_next_rotation() -> None:
    (first, same), (second, before), (third, last) = rotated({"rotation": "2"}, {"rotation": "3"})
    assert same == first and before == first and last == second
    assert len({first, second, third}) == 3


def test_the_grace_ends_when_it_is_told_to_and_the_key_stays() -> None:
    _, (second, _), (kept, last), (again, none) = rotated(
        {"rotation": "2"}, {"keep_previous": False}, {"keep_previous": True}
    )
    assert kept == again == second == last == none


def test_a_rotation_without_grace_ends_the_old_key_at_once() -> None:
    (first, _), (second, previous) = rotated({"rotation": "2", "keep_previous": False})
    assert previous == second != first


def test_a_key_of_your_own_comes_and_goes_with_grace() -> None:
    (first, _), (own, before), (still, after), (random, last) = rotated(
        {"own": SecretStr("mine")}, {"rotation": "2"}, {"own": None}
    )
    assert (own, before) == (still, after) == ("mine", first)
    assert random != "mine" and last == "mine"


def test_a_refused_key_may_be_on_its_way_to_servers_that_serve_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    said = iter([NotYet("HTTP 401", final=True)] * 3 + [Answer(0.1)])
    assert ready(monkeypatch, lambda: next(said), clock, [], key_delay_s=30).outputs.answered_at
    late = Clock()
    with pytest.raises(NotReady, match="HTTP 401"):
        ready(monkeypatch, lambda: NotYet("HTTP 401", final=True), late, [], key_delay_s=30)
    assert 30 <= late.now < 60


def test_a_key_that_state_has_from_before_there_were_two_gets_its_grace() -> None:
    old = ApiKeyOutputs(rotation="1", value=SecretStr("sk-1"))
    update = ApiKey().update
    same = update(None, "api-key", old, ApiKeyInputs(), ApiKeyInputs()).outputs  # pyright: ignore
    new = update(None, "api-key", old, ApiKeyInputs(), ApiKeyInputs(rotation="2")).outputs  # pyright: ignore
    assert same.previous == same.value == new.previous == SecretStr("sk-1")


def test_keep_alives_and_event_names_are_no_data() -> None:
    lines = (": keep-alive\n\n", "event: message\n", "id: 1\n", chunk(content="hi"), "data: [DONE]\n\n")
    assert isinstance(ask(streamed(*lines)), Answer)


@pytest.mark.parametrize("data", ["[1]", '{"choices": [{"delta": null}]}'])
def test_a_chunk_of_another_shape_is_no_answer(data: str) -> None:
    assert isinstance(ask(streamed(f"data: {data}\n\n", "data: [DONE]\n\n")), NotYet)


def test_a_server_that_may_sleep_is_left_asleep_when_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> Answer:
        raise AssertionError("it was asked, which wakes a worker")

    shown: list[str] = []
    outputs = ready(monkeypatch, never, Clock(), shown, wake=False).outputs
    assert (outputs.answered_at, outputs.time_to_ready_s) == (None, None)
    assert "asleep" in shown[0]


def test_after_some_seconds_the_platform_is_asked_what_the_server_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.base.load_waiting", lambda platform: lambda id: f"{id} is in a queue")
    answers = iter([NotYet("HTTP 503")] * 20 + [Answer(0.25)])
    shown: list[str] = []
    ready(monkeypatch, lambda: next(answers), Clock(), shown)
    assert "queue" not in shown[0]
    assert "HTTP 503; fake-1 is in a queue" in shown[-1]
