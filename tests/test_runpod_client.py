"""RunPod's REST v2 as a client meets it: what each answer means, and what no message may show."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import AuthError, CreateUncertain, NoCapacity, PlatformError
from providers.runpod import answers
from providers.runpod.answers import exec_form, script_of
from providers.runpod.client import Forbidden, Refused, RunPod, Urls, key_from, redacted, tail_of, trust, urls_from

KEY = "rpa_0123456789abcdef"
BODY = {"name": "shop/dev/server/1", "env": {"VLLM_API_KEY": "sk-do-not-tell"}}

Handler = Callable[[httpx.Request], httpx.Response]


def client(handler: Handler, waited: list[float] | None = None) -> RunPod:
    pauses = waited if waited is not None else []
    return RunPod(KEY, transport=httpx.MockTransport(handler), pause=pauses.append)


def problem(status: int, detail: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"title": "Problem", "status": status, "detail": detail, **more}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **(headers or {})})


def create(handler: Handler) -> answers.Named:
    return client(handler).create("/v2/registries", BODY, answers.Named, "shop/dev/server/1")


def test_every_request_carries_the_key_and_a_user_agent_of_its_own() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(201, json={"id": "r1", "name": "x"})

    assert create(answer).id == "r1"
    assert seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert seen[0].headers["user-agent"].startswith("vllm-anywhere/")
    assert str(seen[0].url) == "https://api.runpod.io/v2/registries"


def test_no_capacity_is_told_from_a_broken_rule_by_its_prose() -> None:
    prose = "There are no longer any instances available with the requested specifications. Please refresh."
    with pytest.raises(NoCapacity):
        create(lambda request: problem(400, prose))
    with pytest.raises(Refused, match="gpu and cpu"):
        create(lambda request: problem(400, "gpu and cpu are mutually exclusive"))


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (401, AuthError, "RUNPOD_API_KEY"),
        (402, Refused, "Add credit"),
        (403, Forbidden, "read and write access"),
        (404, Refused, "HTTP 404"),
        (409, Refused, "HTTP 409"),
        (413, Refused, "extra_args"),
        (422, Refused, "minCuda"),
    ],
)
def test_a_refused_create_says_why_that_nothing_is_billed_and_what_to_do(
    status: int, error: type[PlatformError], words: str
) -> None:
    with pytest.raises(error) as caught:
        create(lambda request: problem(status, "no", errors=["unknown field minCuda"]))
    assert words in str(caught.value)
    assert "Nothing was created, nothing is billed" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda request: problem(500, "oops"),
        lambda request: httpx.Response(502, text="<html>bad gateway</html>"),
        lambda request: httpx.Response(201, text="<html>"),
        lambda request: httpx.Response(201, json={"name": "no id"}),
    ],
)
def test_a_create_without_a_readable_answer_is_uncertain(answer: Handler) -> None:
    with pytest.raises(CreateUncertain) as caught:
        create(answer)
    assert caught.value.label == "shop/dev/server/1"


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_change_that_runpod_failed_at_is_tried_again_since_repeating_it_does_no_harm(failures: int) -> None:
    waited: list[float] = []
    left = [*[problem(502, "oops")] * failures, httpx.Response(200, json={"id": "r1", "name": "x"})]
    cloud = client(lambda request: left.pop(0), waited)
    if failures < 3:
        assert cloud.patch("/v2/pods/r1", {"name": "x"}, answers.Named).id == "r1"
    else:
        with pytest.raises(PlatformError, match="HTTP 502 oops"):
            cloud.patch("/v2/pods/r1", {"name": "x"}, answers.Named)
    assert waited == [1.0, 3.0][:failures]


def test_a_change_that_runpod_refuses_is_not_tried_again() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return problem(422, "no")

    with pytest.raises(Refused):
        client(answer).patch("/v2/pods/r1", {}, answers.Named)
    assert len(asked) == 1


def test_the_public_cas_are_read_once_however_many_clients_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[ssl.SSLContext] = []
    real = httpx.create_ssl_context

    def counted() -> ssl.SSLContext:
        read.append(real())
        return read[-1]

    monkeypatch.setattr(httpx, "create_ssl_context", counted)
    trust.cache_clear()
    for _ in range(2):
        RunPod(KEY).close()
    assert len(read) == 1


@pytest.mark.parametrize("error", [httpx.ReadTimeout, httpx.RemoteProtocolError, httpx.ReadError])
def test_a_create_whose_connection_breaks_is_uncertain(error: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error("gone", request=request)

    with pytest.raises(CreateUncertain):
        create(answer)


def test_a_create_that_could_not_connect_created_nothing() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(PlatformError, match="nothing was created"):
        create(answer)


def test_a_rate_limit_is_waited_for_as_long_as_runpod_says() -> None:
    left = [problem(429, "slow", {"Retry-After": "7"}), problem(429, "slow", {"Retry-After": "2"})]
    waited: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        return left.pop(0) if left else httpx.Response(200, json={"id": "r1", "name": "x"})

    found = client(answer, waited).get("/v2/registries/r1", answers.Named)
    assert found is not None
    assert waited == [7.0, 2.0]


def test_a_rate_limit_that_stays_is_an_error_and_of_a_create_never_an_uncertain_one() -> None:
    with pytest.raises(PlatformError, match="rate limit") as caught:
        create(lambda request: problem(429, "slow", {"Retry-After": "30"}))
    assert not isinstance(caught.value, CreateUncertain)
    assert "Wait 30 s" in str(caught.value)


@given(st.text(max_size=20))
def test_any_retry_after_leads_to_a_bounded_wait(text: str) -> None:
    waited: list[float] = []
    cloud = client(lambda request: problem(429, "slow", {"Retry-After": text.encode("utf-8").hex() or "-3"}), waited)
    with pytest.raises(PlatformError):
        cloud.get("/v2/pods/p", answers.Named)
    assert all(0 <= seconds <= 120 for seconds in waited)


def test_a_list_is_read_over_all_its_pages_and_a_row_that_comes_twice_counts_once() -> None:
    pages = {
        None: {"registries": [{"id": "a", "name": "x"}], "pagination": {"nextCursor": "2", "hasNextPage": True}},
        "2": {
            "registries": [{"id": "a", "name": "x"}, {"id": "b", "name": "y"}],
            "pagination": {"nextCursor": None, "hasNextPage": False},
        },
    }
    cloud = client(lambda request: httpx.Response(200, json=pages[request.url.params.get("cursor")]))
    assert [one.id for one in cloud.all("/v2/registries", "registries", answers.Named)] == ["a", "b"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"registries": None},
        {"registries": [{"name": "no id"}]},
        {"registries": {"a": 1}},
        [],
        "text",
    ],
)
def test_a_malformed_list_is_an_error_and_never_empty(answer: Any) -> None:
    with pytest.raises(PlatformError):
        client(lambda request: httpx.Response(200, json=answer)).all("/v2/registries", "registries", answers.Named)


def test_a_list_that_never_ends_is_an_error() -> None:
    page = {"registries": [], "pagination": {"nextCursor": "same", "hasNextPage": True}}
    with pytest.raises(PlatformError, match="does not end"):
        client(lambda request: httpx.Response(200, json=page)).all("/v2/registries", "registries", answers.Named)


def test_a_thing_that_is_not_found_is_none_and_deleting_it_is_success() -> None:
    cloud = client(lambda request: problem(404, "not found"))
    assert cloud.get("/v2/pods/gone", answers.Pod) is None
    cloud.delete("/v2/pods/gone")


def test_prices_keep_every_digit() -> None:
    row = '{"gpus": [{"id": "L4", "price": {"secure": 0.39, "community": 0.1, "serverless": 0.684}}]}'
    (found,) = client(lambda request: httpx.Response(200, text=row)).gpu_types("POD", minCudaVersion="13.0")
    assert (found.price.secure, found.price.serverless) == (Decimal("0.39"), Decimal("0.684"))


def test_stock_is_asked_for_with_its_product() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"gpus": []})

    client(answer).gpu_types("SERVERLESS", count="2")
    assert dict(seen[0].url.params) == {"include": "AVAILABILITY", "product": "SERVERLESS", "count": "2"}


@pytest.mark.parametrize(
    "send", [create, lambda answer: client(answer).patch("/v2/pods/p1", BODY, answers.Named)], ids=["create", "patch"]
)
def test_no_error_repeats_a_secret_that_runpod_sends_back(send: Callable[[Handler], answers.Named]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return problem(422, f"env.VLLM_API_KEY: sk-do-not-tell is odd; key {KEY}", errors=["sk-do-not-tell"])

    with pytest.raises(Refused) as caught:
        send(answer)
    assert "sk-do-not-tell" not in str(caught.value)
    assert KEY not in str(caught.value)
    assert "[secret]" in str(caught.value)


@given(st.lists(st.text(min_size=4, max_size=12), max_size=4), st.text(max_size=40))
def test_what_is_redacted_holds_none_of_the_secrets(secrets: list[str], text: str) -> None:
    secrets = [secret for secret in secrets if secret not in "[secret]"]
    shown = redacted(text + "".join(secrets), secrets)
    assert all(secret not in shown.replace("[secret]", "\0") for secret in secrets)


def test_without_a_key_it_says_where_to_get_one() -> None:
    with pytest.raises(AuthError, match="RUNPOD_API_KEY is not set"):
        key_from({"RUNPOD_API_KEY": "  "})


def test_every_address_can_be_redirected() -> None:
    assert urls_from({}) == Urls()
    given_urls = {
        f"VLLM_ANYWHERE_RUNPOD_{name}_URL": f"http://127.0.0.1:1/{name.lower()}/"
        for name in ("API", "JOBS", "PROXY", "BALANCER")
    }
    assert urls_from(given_urls) == Urls(
        *(f"http://127.0.0.1:1/{name}" for name in ("api", "jobs", "proxy", "balancer"))
    )


def test_the_log_of_a_pod_is_its_last_lines() -> None:
    pod = {"id": "p1", "name": "n", "status": "RUNNING"}
    events = "".join(
        f"id: {i}\ndata: {json.dumps({'source': 'container', 'line': f'line {i}', 'ts': ''})}\n\n" for i in range(3)
    )

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/logs"):
            assert request.url.params["tail"] == "3"
            return httpx.Response(200, text=events, headers={"Content-Type": "text/event-stream"})
        return httpx.Response(200, json=pod)

    assert tail_of(client(answer), "p1", 3) == ["line 0", "line 1", "line 2"]


def test_the_log_of_an_endpoint_is_that_of_each_of_its_workers() -> None:
    endpoint = {
        "id": "e1",
        "name": "n",
        "workers": {"min": 0, "max": 1},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v2/pods/e1":
            return problem(404, "no such pod")
        if path == "/v2/serverless/e1":
            return httpx.Response(200, json=endpoint)
        if path.endswith("/workers"):
            return httpx.Response(200, json={"workers": [{"id": "w1", "status": "UNHEALTHY"}], "summary": {}})
        return httpx.Response(200, text='data: {"line": "CUDA out of memory"}\n\n')

    assert tail_of(client(answer), "e1", 10) == ["worker w1 (unhealthy):", "CUDA out of memory"]


@given(st.text(max_size=200))
def test_a_script_survives_the_form_in_which_it_is_sent(script: str) -> None:
    assert script_of(exec_form(script)) == script


@pytest.mark.parametrize(
    "args", ["", "--model x", '{"cmd": ["a", "b"]}', '{"entrypoint": ["bash"], "cmd": ["x"]}', "[1]"]
)
def test_arguments_that_are_not_ours_come_back_as_they_are(args: str) -> None:
    assert script_of(args) == args
