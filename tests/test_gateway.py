"""What a gateway is in front of, in which order it asks, and what goes to the API: the pure part."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.gateway.client import litellm_python, missing
from serving.gateway import (
    GatewaySpec,
    Upstream,
    api_price,
    in_order,
    parse_gateway,
    served_name,
    upstream,
)
from serving.gateway_proxy import key_name, proxy_config, rule
from serving.gateway_report import api_text, gateway_cost, gateway_report
from serving.money import Money
from serving.spec import Problem, SpecError

HOOKS = Path(__file__).resolve().parents[1] / "serving/data/gateway_hooks.py"


def spec(**fields: Any) -> GatewaySpec:
    return GatewaySpec.model_validate({"stacks": ["a", "b", "c"], **fields})


def stack(name: str, hourly: str | None, *, by_use: bool = False, monthly: str | None = "10") -> Upstream:
    return Upstream(
        name,
        "runpod",
        "qwen3-4b",
        (f"http://{name}/v1",),
        by_use,
        Money(*(None if usd is None else Decimal(usd) for usd in (hourly, monthly))),
    )


def problems(config: Mapping[str, str]) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_gateway(config)
    return [str(problem) for problem in caught.value.problems]


def section(**fields: Any) -> dict[str, str]:
    return {"vllm-anywhere:gateway": json.dumps({"stacks": ["a"], **fields})}


def test_a_stack_list_is_all_that_a_gateway_needs() -> None:
    plan = parse_gateway(section())
    assert plan.gateway.stacks == ("a",)
    assert plan.gateway.api is None
    assert plan.api_key.rotation == "1"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (section(stacks=[]), "vllm-anywhere:gateway.stacks"),
        (section(stacks=["a", "a"]), "each stack once"),
        (section(stacks=["../a"]), "vllm-anywhere:gateway.stacks.0"),
        (section(stakcs=["a"]), "Did you mean `stacks`?"),
        (section(api="anthropic"), "vllm-anywhere:gateway_api_key: `pulumi config set --secret gateway_api_key`"),
        (section(api="openai"), "`api: openai` needs `api_model`"),
        (section(api_model="claude-haiku-5-5"), "`api_model` needs `api`"),
        (section(api="openai", api_model="gpt-x", api_budget_usd=5), "`api_budget_usd` needs a price"),
        (section(attempt_s=90, deadline_s=60), "`attempt_s` (90) is more than `deadline_s` (60)"),
        ({**section(), "vllm-anywhere:provider": "runpod"}, "a gateway has no model of its own"),
        ({**section(), "vllm-anywhere:model": '{"max_len": 4096}'}, "vllm-anywhere:model: a gateway has no model"),
    ],
)
def test_bad_config_names_its_key_and_what_works(config: Mapping[str, str], says: str) -> None:
    assert any(says in problem for problem in problems(config)), problems(config)


def test_a_stack_that_is_not_up_says_which_command_deploys_it() -> None:
    missing, empty = upstream("a", None), upstream("b", {})
    assert isinstance(missing, Problem) and "`pulumi stack init a`, then `pulumi up -s a`" in str(missing)
    assert isinstance(empty, Problem) and "`pulumi up -s b` deploys it" in str(empty)
    itself = upstream("g", {"endpoint": "http://x/v1", "model": "m", "provider": "gateway"})
    assert isinstance(itself, Problem) and "a gateway itself" in str(itself)


def test_each_server_of_a_stack_is_asked() -> None:
    outputs = {
        "endpoint": "http://1/v1",
        "endpoints": [{"server": "server", "endpoint": "http://1/v1"}, {"server": "b", "endpoint": "http://2/v1"}],
        "model": "qwen3-4b",
        "provider": "vastai",
        "cost": {"hourly_usd": "0.4000", "monthly_usd": "292.00", "kind": "pod"},
    }
    found = upstream("a", outputs)
    assert isinstance(found, Upstream)
    rows = proxy_config(spec(stacks=["a"]), "qwen3-4b", [found])["model_list"]
    assert [row["litellm_params"]["api_base"] for row in rows] == ["http://1/v1", "http://2/v1"]
    assert {row["litellm_params"]["order"] for row in rows} == {1}
    assert len({row["model_info"]["id"] for row in rows}) == 2


def test_what_is_paid_for_anyway_comes_before_what_bills_by_use_and_the_unknown_last() -> None:
    stacks = [
        stack("unknown", None),
        stack("by-use", "0.01", by_use=True, monthly="7"),
        stack("dear", "0.79"),
        stack("by-use-cheap", "0.01", by_use=True, monthly="3"),
        stack("own", "0"),
        stack("cheap", "0.20"),
    ]
    ordered = [one.stack for one in in_order(spec(), stacks)]
    assert ordered == ["own", "cheap", "dear", "by-use-cheap", "by-use", "unknown"]
    assert in_order(spec(order="listed"), stacks) == stacks


def test_a_cost_without_a_price_or_a_use_is_not_taken_for_a_low_one() -> None:
    def of(name: str, **cost: object) -> Upstream:
        told = {"hourly_usd": "0.0001", "monthly_usd": "0.10", "high": "438.00", **cost}
        found = upstream(name, {"endpoint": "http://x/v1", "model": "m", "provider": "runpod", "cost": told})
        assert isinstance(found, Upstream)
        return found

    stacks = [
        of("unpriced", kind="pod", incomplete=True),
        of("undeclared", kind="serverless", depends_on_usage=True),
        of("declared", kind="serverless", hourly_usd="0.0100", monthly_usd="7.00"),
    ]
    assert [(one.stack, one.price) for one in in_order(spec(), stacks)] == [
        ("declared", "by use, $7.00 a month expected"),
        ("undeclared", "by use, $438.00 a month at most"),
        ("unpriced", "price not found"),
    ]


@given(st.lists(st.tuples(st.booleans(), st.none() | st.decimals(0, 9, places=2)), min_size=1, max_size=8))
def test_the_order_keeps_every_stack_and_does_not_depend_on_the_list(rows: list[tuple[bool, Decimal | None]]) -> None:
    stacks = [
        Upstream(f"s{n}", "p", "m", ("http://x/v1",), by_use, Money(price, price))
        for n, (by_use, price) in enumerate(rows)
    ]
    ordered = in_order(spec(), stacks)
    assert sorted(one.stack for one in ordered) == sorted(one.stack for one in stacks)

    def rank(one: Upstream) -> tuple[bool, bool, Decimal]:
        return one.cost.hourly is None, one.by_use, one.cost.hourly or Decimal(0)

    assert [rank(one) for one in in_order(spec(), stacks[::-1])] == [rank(one) for one in ordered]


def test_the_name_of_a_stand_in_is_cut_off_at_its_blank() -> None:
    one = stack("a", "0")
    assert served_name(spec(), [one]) == "qwen3-4b"
    alias = Upstream(**{**vars_of(one), "model": "qwen3-4b (stand-in: SmolLM2-135M-Instruct)"})
    assert served_name(spec(), [alias]) == "qwen3-4b"
    assert served_name(spec(served_name="chat"), [one]) == "chat"
    assert served_name(spec(served_name="api"), [one]) == "api"
    with pytest.raises(SpecError, match="clients ask for anthropic by that name"):
        served_name(spec(served_name="api", api="anthropic"), [one])


def vars_of(one: Upstream) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def test_the_proxys_config_names_keys_and_holds_none() -> None:
    config = proxy_config(spec(api="anthropic", api_budget_usd="5"), "qwen3-4b", [stack("b", "0"), stack("a", "1")])
    keys = [row["litellm_params"]["api_key"] for row in config["model_list"]]
    assert keys == [f"os.environ/{key_name(1)}", f"os.environ/{key_name(0)}", "os.environ/ANYWHERE_API_KEY"]
    assert config["general_settings"]["master_key"] == "os.environ/VLLM_API_KEY"


def test_cooldown_is_on_wherever_there_is_another_to_ask() -> None:
    def router(asked: GatewaySpec, *stacks: Upstream) -> dict[str, Any]:
        return proxy_config(asked, "qwen3-4b", list(stacks))["router_settings"]

    with_api = router(spec(stacks=["a"], api="anthropic"), stack("a", "0"))
    assert with_api["allowed_fails"] is not None and with_api["cooldown_time"] > 0
    assert not with_api["disable_cooldowns"]
    assert not router(spec(stacks=["a", "b"]), stack("a", "0"), stack("b", "1"))["disable_cooldowns"]
    alone = router(spec(stacks=["a"]), stack("a", "0"))
    assert alone["disable_cooldowns"] and alone["num_retries"] == 2
    assert router(spec(stacks=["a"], api="anthropic", api_fallback=False), stack("a", "0"))["disable_cooldowns"]


def test_what_bills_by_use_is_never_woken_to_see_whether_it_lives() -> None:
    config = proxy_config(spec(), "m", [stack("a", "1"), stack("b", "0.1", by_use=True)])
    skipped = {
        row["model_info"]["id"]: row["model_info"]["disable_background_health_check"] for row in config["model_list"]
    }
    assert skipped == {"a": False, "b": True}
    assert config["general_settings"]["enable_health_check_routing"]
    only = proxy_config(spec(stacks=["b"]), "m", [stack("b", "0.1", by_use=True)])
    assert "background_health_checks" not in only["general_settings"]
    assert "background_health_checks" not in proxy_config(spec(health_s=0), "m", [stack("a", "1")])["general_settings"]


def test_a_budget_counts_at_the_dearest_row_of_the_table() -> None:
    price = api_price(spec(api="anthropic"))
    assert price and (price.input_per_m, price.output_per_m) == (Decimal("0.50"), Decimal("2.50"))
    own = api_price(spec(api="openai", api_model="x", api_input_per_m="1", api_output_per_m="2"))
    assert own and own.source == "stack config"
    config = proxy_config(spec(api="anthropic", api_budget_usd="5", api_budget_days=7), "m", [stack("a", "0")])
    (api,) = [row["litellm_params"] for row in config["model_list"] if row["model_name"] == "api"]
    assert (api["max_budget"], api["budget_duration"]) == (5.0, "7d")
    assert api["output_cost_per_token"] == pytest.approx(2.5e-6)


def test_without_fallback_the_api_gets_what_the_rule_says_alone() -> None:
    alone = proxy_config(spec(api="anthropic", api_fallback=False), "m", [stack("a", "0")])["router_settings"]
    assert alone["fallbacks"] == [{"api": ["m"]}]
    both = proxy_config(spec(api="anthropic"), "m", [stack("a", "0")])["router_settings"]
    assert {"m": ["api"]} in both["fallbacks"]
    assert proxy_config(spec(), "m", [stack("a", "0")])["router_settings"]["fallbacks"] == []


def test_the_report_says_what_is_in_front_of_what_at_which_price() -> None:
    asked = spec(api="anthropic", api_budget_usd="5")
    text = gateway_report(
        asked, "qwen3-4b", [stack("own", "0"), stack("pod", "0.79"), stack("x", None)], gateway_cost(asked, ()), 100
    )
    for words in ("own", "no charge", "$0.79 an hour, paid anyway", "price not found", "4000 tokens and more", "$5"):
        assert words in text
    assert "2026-10-24" in " ".join(api_text(asked).split())
    assert "at most $0 in 30 days" in api_text(spec(api="anthropic", api_budget_usd="0"))


@pytest.fixture(scope="module")
def hooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The hooks' module as LiteLLM loads it, without LiteLLM."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "gateway_hooks.py").write_text(HOOKS.read_text())
    (folder / "rule.json").write_text(json.dumps(rule(spec(api="anthropic"), "qwen3-4b")))
    logger = ModuleType("litellm.integrations.custom_logger")
    logger.CustomLogger = object  # type: ignore[attr-defined]
    names = ("litellm", "litellm.integrations", "litellm.integrations.custom_logger")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setitem(sys.modules, name, logger)
        found = importlib.util.spec_from_file_location("gateway_hooks", folder / "gateway_hooks.py")
        assert found and found.loader
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        yield module


def chat(text: Any = "Hello.", **more: Any) -> dict[str, Any]:
    return {"model": "qwen3-4b", "messages": [{"role": "user", "content": text}], **more}


def responses(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "qwen3-4b", "input": [{"role": "user", "content": content}], **more}


@pytest.mark.parametrize(
    ("body", "headers", "goes"),
    [
        (chat(), {}, "self"),
        (chat("x" * 15_999), {}, "self"),
        (chat("x" * 16_000), {}, "api"),
        (chat(max_tokens=4000), {}, "api"),
        (chat(max_completion_tokens=100), {}, "self"),
        (chat(tools=[{"type": "function"}]), {}, "api"),
        (chat(tools=[]), {}, "self"),
        (chat([{"type": "text", "text": "x"}]), {}, "self"),
        (chat([{"type": "image_url", "image_url": {"url": "data:"}}]), {}, "api"),
        (chat(), {"X-Route": "api"}, "api"),
        (chat(tools=[{"type": "function"}]), {"x-route": "self"}, "self"),
        (chat(), {"x-route": "nonsense"}, "self"),
        ({"model": "qwen3-4b", "prompt": "x" * 20_000}, {}, "api"),
        ({"model": "qwen3-4b", "input": "short"}, {}, "self"),
        ({"model": "qwen3-4b", "prompt": [1, 2, 3]}, {}, "self"),
        (responses([{"type": "input_text", "text": "short"}]), {}, "self"),
        (responses([{"type": "output_text", "text": "short"}]), {}, "self"),
        (responses([{"type": "input_text", "text": "x" * 16_000}]), {}, "api"),
        (responses([{"type": "input_image", "image_url": "data:"}]), {}, "api"),
        (responses("short", instructions="x" * 16_000), {}, "api"),
    ],
)
def test_long_tool_using_and_marked_requests_go_to_the_api(
    hooks: ModuleType, body: dict[str, Any], headers: dict[str, str], goes: str
) -> None:
    assert hooks.route(body, headers, hooks.hooks.rule) == goes


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "text", "content", "role"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_no_request_of_any_form_breaks_the_rule(hooks: ModuleType, value: Any) -> None:
    for body in ({"messages": value}, {"messages": [{"content": value}]}, {"prompt": value}, {"input": value}):
        assert hooks.route(body, {}, hooks.hooks.rule) in ("api", "self")


def test_a_broken_answer_is_taken_up_where_it_was_and_only_where_that_can_be_done(hooks: ModuleType) -> None:
    def again(body: dict[str, Any], said: str = "one two ") -> dict[str, Any] | None:
        return hooks.continuation({"proxy_server_request": {"body": body}}, said, 2)

    # What LiteLLM 1.106 adds to a request's body.
    notes = {"metadata": {}, "litellm_call_id": "x", "_litellm_strip_stream_usage": True}
    found = again(chat(max_tokens=10, temperature=0, stream=True, **notes))
    assert found and found["messages"][-1] == {"role": "assistant", "content": "one two "}
    assert (found["max_tokens"], found["temperature"]) == (8, 0)
    assert found["extra_body"] == {"continue_final_message": True, "add_generation_prompt": False}
    for refused in (chat(tools=[{}]), chat(n=2), chat(logprobs=True), chat(response_format={"type": "json_object"})):
        assert again(refused) is None
    assert again({"model": "m", "prompt": "x"}) is None
    assert again(chat(), said="") is None


@pytest.fixture(scope="module")
def front() -> Iterator[ModuleType]:
    """What stands before LiteLLM, without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HOOKS.parent))
        patch.delitem(sys.modules, "gateway_serve", raising=False)
        yield importlib.import_module("gateway_serve")


def sent_by(front: ModuleType, app: Any, deadline_s: float, path: str = "/v1/models") -> list[dict[str, Any]]:
    """What a client is sent by an app behind the front."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    asyncio.run(front.Front(app, deadline_s)({"type": "http", "method": "GET", "path": path}, receive, send))
    return sent


def test_a_request_that_nobody_answers_by_the_deadline_is_a_504(front: ModuleType) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    start, body = sent_by(front, silent, 0.01)
    assert start["status"] == 504
    assert "no server has answered within 0.01 s" in json.loads(body["body"])["error"]["message"]


def test_an_answer_that_has_begun_has_no_deadline_and_tells_no_address(front: ModuleType) -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"x-litellm-model-api-base", b"http://10.0.0.1"), (b"x-litellm-model-id", b"a"), (b"date", b"now")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b"late"})

    start, body = sent_by(front, slow, 0.01)
    assert start["headers"] == [(b"x-litellm-model-id", b"a"), (b"date", b"now")]
    assert body["body"] == b"late"


def test_health_says_nothing_but_that_it_lives(front: ModuleType) -> None:
    async def never(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("LiteLLM's own health check asks every server")

    start, body = sent_by(front, never, 1, "/health")
    assert (start["status"], body["body"]) == (200, b""), "as vLLM says it"


ROUTES = Path(__file__).with_name("data") / "litellm_routes.txt"
HOW = ".venv/gateway/bin/python tests/litellm_routes.py > tests/data/litellm_routes.txt"


def test_the_routes_that_a_test_walks_are_those_of_the_litellm_that_is_pinned(front: ModuleType) -> None:
    release, *routes = ROUTES.read_text().splitlines()
    pinned = (Path(__file__).parents[1] / "constraints-gateway.txt").read_text().splitlines()
    assert release.replace("# LiteLLM ", "litellm==") in pinned, HOW
    assert {f"{method} {path}" for method, path in front.GUARDED} <= set(routes)


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason="LiteLLM is not installed")
def test_the_list_of_litellms_routes_is_whole() -> None:
    script = Path(__file__).with_name("litellm_routes.py")
    done = subprocess.run([litellm_python(), script], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == ROUTES.read_text(), HOW
