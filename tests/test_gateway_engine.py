"""The life of a gateway, driven by the real Pulumi CLI: LiteLLM is real, and what is behind it are stubs.

The tests share one gateway and go on from where the one before left it, since LiteLLM takes seconds to start.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from engine import DEPLOYMENT, ROOT, Project
from gateway_stage import WORDS, Load, Stub, asked, command, described, gateways, stub_stack, stubs

from providers.gateway.client import missing

pytestmark = [
    pytest.mark.engine,
    pytest.mark.xdist_group("gateway"),
    pytest.mark.skipif(bool(missing()), reason="LiteLLM is not installed"),
]
PROXY = "vllm-anywhere:gateway:Proxy"
PROXY_URN = f"urn:pulumi:test::vllm-anywhere::vllm-anywhere:index:Deployment${PROXY}::server"
API_SECRET = "sk-ant-" + "x7Q9" * 6
ROUTES = [line.split(" ", 1) for line in (ROOT / "tests/data/litellm_routes.txt").read_text().splitlines()[1:]]
OPEN = {
    "GET /health",
    "GET /v1/models",
    "POST /v1/chat/completions",
    "POST /v1/completions",
    "POST /v1/embeddings",
    "POST /v1/responses",
}


@dataclass
class Stage:
    """A gateway before three stacks and an API: `cheap` runs anyway, so does `dear`, and `by_use` bills by use."""

    project: Project
    cheap: Stub
    dear: Stub
    by_use: Stub
    api: Stub

    @property
    def servers(self) -> list[Stub]:
        return [self.cheap, self.dear, self.by_use]

    def counts(self) -> dict[str, int]:
        names = ("cheap", "dear", "by_use", "api")
        return {
            # What asks for one token is the gateway's own look at whether the server lives.
            name: sum(body.get("max_tokens") != 1 for _, body in getattr(self, name).asked)
            for name in names
        }


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, pulumi_cli: str) -> Iterator[Stage]:
    project = Project.create(tmp_path_factory.mktemp("gateway"), pulumi_cli)
    with ExitStack() as stack:
        stack.callback(project.close)
        cheap, dear, by_use = stack.enter_context(stubs("qwen3-4b", "qwen3-4b", "qwen3-4b"))
        (api,) = stack.enter_context(stubs("claude"))
        api.key = API_SECRET
        stub_stack(project, "cheap", described(cheap, "0.2000"))
        stub_stack(project, "dear", described(dear, "0.7900"))
        stub_stack(project, "by-use", described(by_use, "0.0100", by_use=True))
        for place, name in enumerate(("by-use", "dear", "cheap")):
            project.config(f"gateway.stacks[{place}]", name)
        project.config("gateway.api", "anthropic")
        project.config("gateway.api_url", f"http://127.0.0.1:{api.port}")
        project.config("gateway.api_budget_usd", "0.06")
        project.config("gateway.cooldown_s", "5")
        project.config("gateway.health_s", "2")
        project.config("gateway_api_key", API_SECRET, "--secret")
        project.up()
        stage = Stage(project, cheap, dear, by_use, api)
        yield stage
        stage.cheap.kill()


def test_up_returns_when_the_cheapest_server_has_answered_and_preview_says_the_order(stage: Stage) -> None:
    out = stage.project.outputs()
    assert asked(out) == ("".join(WORDS), "cheap")
    assert asked(out, stream=True) == ("".join(WORDS), "cheap")
    assert stage.counts()["dear"] == stage.counts()["by_use"] == stage.counts()["api"] == 0
    assert (out["provider"], out["model"], out["cost"]["monthly_usd"]) == ("gateway", "qwen3-4b", "0.00")
    assert out["ready"]["first_token_s"] > 0
    shown = " ".join(stage.project.preview().split())
    for words in ("1 cheap", "2 dear", "3 by-use", "$0.79 an hour, paid anyway", "anthropic claude-haiku-5-5"):
        assert words in shown
    assert "5 unchanged" in stage.project.up()


def test_the_api_gets_exactly_what_the_rule_says(stage: Stage) -> None:
    out = stage.project.outputs()
    before = stage.counts()
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    for more in (
        {"tools": [tool]},
        {"max_tokens": 4000},
        {"headers": {"x-route": "api"}},
        {"messages": [{"role": "user", "content": "long " * 4000}]},
    ):
        for stream in (False, True):
            assert asked(out, stream, **more) == ("from the API", "api"), more
    for more in ({}, {"max_tokens": 100}, {"tools": [tool], "headers": {"x-route": "self"}}):
        assert asked(out, **more)[1] == "cheap"
    gained = {name: count - before[name] for name, count in stage.counts().items()}
    assert gained == {"api": 8, "cheap": 3, "dear": 0, "by_use": 0}


def test_no_request_fails_when_a_server_dies_under_load_and_it_is_used_again_when_it_is_back(stage: Stage) -> None:
    out = stage.project.outputs()
    for server in stage.servers:
        # So that there is always a stream under way.
        server.pause_s = 0.03
    with Load(out, pause_s=0) as load:
        load.reaches("cheap")
        stage.cheap.kill()
        load.reaches("dear")
        stage.dear.kill()
        load.reaches("by-use")
        stage.cheap.start()
        load.reaches("cheap")
        stage.dear.start()
    for server in stage.servers:
        server.pause_s = 0.002
    assert load.failed == []
    asked_last = [body["messages"][-1]["role"] for _, body in (*stage.dear.asked, *stage.by_use.asked)]
    assert "assistant" in asked_last, "no stream was taken up"


def test_a_dead_server_is_left_alone_while_it_cools_down(stage: Stage) -> None:
    """With one server left of a group LiteLLM would go on asking it, unless it is told otherwise."""
    out = stage.project.outputs()
    for server in stage.servers:
        server.status = 500
    before = stage.counts()
    try:
        with Load(out, clients=6, expect="from the API") as load:
            while len(load.served) < 30:
                time.sleep(0.02)
    finally:
        for server in stage.servers:
            server.status = 200
    assert load.failed == []
    gained = {name: count - before[name] for name, count in stage.counts().items()}
    assert gained["api"] == len(load.served)
    assert all(gained[name] < gained["api"] / 2 for name in ("cheap", "dear", "by_use")), gained
    begun = time.monotonic()
    while asked(out)[1] != "cheap":
        assert time.monotonic() - begun < 30
        time.sleep(0.1)


def test_nothing_but_the_openai_routes_answers_and_those_want_the_key(stage: Stage) -> None:
    out = stage.project.outputs()
    base = out["endpoint"].removesuffix("/v1")
    assert len(ROUTES) > 1000
    keys = {
        "none": {},
        "wrong": {"Authorization": "Bearer wrong"},
        "ours": {"Authorization": f"Bearer {out['api_key']}"},
    }
    wrong: list[str] = []
    with httpx.Client(base_url=base, timeout=30, trust_env=False) as client:
        for method, path in [*ROUTES, ("POST", "/invocations"), ("POST", "/tokenize")]:
            for name, headers in keys.items():
                status = client.request(method, path, headers=headers).status_code
                listed = f"{method} {path}" in OPEN
                allowed = {200} if path == "/health" else {404} if not listed else {401} if name != "ours" else set()
                if f"{method} {path}" == "GET /v1/responses/x" or f"{method} {path}" == "POST /v1/responses/x/cancel":
                    allowed = {401} if name != "ours" else {status}
                if allowed and status not in allowed:
                    wrong.append(f"{method} {path} with key {name}: {status}")
        for path in ("/v1/models/", "//v1/models", "/v1/%6dodels", "/V1/models", "/v1/../key/list"):
            status = client.get(path).status_code
            if status not in (401, 404):
                wrong.append(f"{path}: {status}")
        with pytest.raises(httpx.HTTPError):
            client.get(base.replace("127.0.0.1", _other_address()))
    assert wrong == []


def _other_address() -> str:
    """An address of this machine that is not the loopback one that the gateway listens on."""
    return "127.0.0.2"


def test_answers_tell_no_address_and_no_key_of_what_is_behind(stage: Stage) -> None:
    out = stage.project.outputs()
    body = {"model": out["model"], "messages": [{"role": "user", "content": "Count."}]}
    headers = {"Authorization": f"Bearer {out['api_key']}"}
    answer = httpx.post(f"{out['endpoint']}/chat/completions", json=body, headers=headers, timeout=30)
    assert not [name for name in answer.headers if name.startswith("llm_provider-")]
    told = json.dumps(dict(answer.headers)) + answer.text
    assert str(stage.cheap.port) not in told
    models = httpx.get(f"{out['endpoint']}/models", headers=headers, timeout=30).json()
    assert {model["id"] for model in models["data"]} == {"qwen3-4b", "api"}


def test_no_key_is_in_clear_in_state_argv_logs_or_a_file_that_others_read(stage: Stage) -> None:
    project = stage.project
    out = project.outputs()
    secrets = (out["api_key"], "stub-key", API_SECRET)
    printed = [project.preview(), project.preview("--diff"), project.exported()]
    printed += [file.read_text(errors="replace") for file in (project.folder / "backend").rglob("test.json*")]
    for pid in gateways(project):
        printed.append(Path(f"/proc/{pid}/cmdline").read_text())
    files = [file for file in (project.folder / "state").rglob("*") if file.is_file()]
    assert files
    for file in files:
        if file.name.endswith((".log", ".yaml", ".py")) or file.stat().st_mode & 0o077:
            printed.append(file.read_text(errors="replace"))
    assert not [text for text in printed if any(secret in text for secret in secrets)]


def test_past_the_budget_servers_answer_alone(stage: Stage) -> None:
    out = stage.project.outputs()
    while asked(out, headers={"x-route": "api"})[1] == "api":
        assert stage.counts()["api"] < 100
    # An answer of the stub is 1000 tokens in and 100 out: $0.00075 at the dearest row of the table. An answer's cost
    # is counted after it was given.
    assert 80 <= stage.counts()["api"] <= 88
    assert [asked(out, headers={"x-route": "api"})[1] for _ in range(3)] == ["cheap"] * 3


def test_a_moved_stack_changes_the_gateway_in_place_without_a_failed_request(stage: Stage) -> None:
    project = stage.project
    before = project.outputs()
    moved = Stub("qwen3-4b")
    moved.start()
    left, stage.cheap = stage.cheap, moved
    with Load(before) as load:
        load.reaches("cheap")
        stub_stack(project, "cheap", described(moved, "0.2500"))
        text = project.up()
        while not moved.asked:
            time.sleep(0.02)
    assert load.failed == []
    assert "Proxy server updated" in text
    after = project.outputs()
    assert (after["endpoint"], after["api_key"]) == (before["endpoint"], before["api_key"])
    left.kill()
    assert asked(after)[1] == "cheap"


def test_a_rotated_key_and_the_one_before_count_without_a_new_proxy(stage: Stage) -> None:
    project = stage.project
    before = project.outputs()
    (run,) = [one["outputs"]["run"] for one in project.resources(PROXY)]
    project.config("api_key.rotation", "2")
    project.up()
    after = project.outputs()
    assert after["api_key"] != before["api_key"]
    assert asked(after)[1] == asked({**after, "api_key": before["api_key"]})[1] == "cheap"
    assert [one["outputs"]["run"] for one in project.resources(PROXY)] == [run]
    project.config("api_key.keep_previous", "false")
    project.up()
    with pytest.raises(AssertionError, match="HTTP 401"):
        asked({**after, "api_key": before["api_key"]})


def test_refresh_sees_a_killed_gateway_and_up_starts_it_again_at_its_address(stage: Stage) -> None:
    project = stage.project
    before = project.outputs()
    (holder,) = project.servers()
    os.killpg(holder, signal.SIGKILL)
    while gateways(project):
        time.sleep(0.02)
    text = project.refresh()
    assert re.search(r"gateway:Proxy server .*status", text), text
    project.up()
    after = project.outputs()
    assert after["endpoint"] == before["endpoint"]
    assert asked(after)[1] == "cheap"


def test_import_adopts_a_running_gateway(stage: Stage) -> None:
    project = stage.project
    pids = sorted(gateways(project))
    (proxy,) = project.resources(PROXY)
    project.pulumi("state", "delete", PROXY_URN, "--target-dependents", "--yes", "-s", "test")
    project.pulumi(
        *("import", PROXY, "server", proxy["id"], "--parent", f"deployment={DEPLOYMENT}"),
        *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
    )
    project.up()
    assert sorted(gateways(project)) == pids
    assert asked(project.outputs())[1] == "cheap"


def test_the_projects_own_commands_work_on_a_gateway(stage: Stage) -> None:
    project = stage.project
    assert "one two three" in command(project, "chat", "-s", "test", "Count.")
    assert '"gateway"' in command(project, "status", "-s", "test", "--json")
    (seen,) = command(project, "watch", "-s", "test", "--once", "--json").splitlines()
    assert "isn't known" not in seen and "config is wrong" not in seen


def test_destroy_leaves_nothing_of_the_gateway_and_the_stacks_alone(stage: Stage) -> None:
    project = stage.project
    project.destroy()
    assert gateways(project) == []
    assert not list((project.folder / "state/local").rglob("*.*"))
    for server in stage.servers:
        assert httpx.get(f"{server.url}/models", timeout=5).is_success


def test_a_stack_that_is_not_up_fails_preview_with_the_command_that_helps(stage: Stage) -> None:
    project = stage.project
    project.config("gateway.stacks[3]", "nowhere")
    project.pulumi("stack", "init", "empty", "--no-select")
    project.config("gateway.stacks[4]", "empty")
    text = project.preview(ok=False)
    assert "vllm-anywhere:gateway.stacks = nowhere: no such stack; `pulumi stack init nowhere`" in text
    assert "vllm-anywhere:gateway.stacks = empty: nothing answers in it yet, or no more; `pulumi up -s empty`" in text
    assert "Traceback" not in text
