"""`vllm-anywhere bench` as people run it, against the stub server; Pulumi is played by a function."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import ops.bench
from ops.backend import Resource
from ops.bench import add_bench
from ops.bench_cold import READY, replace_server, replaceable
from ops.bench_target import Target, stack_price, target
from ops.client import Health
from ops.stack import OpsError, Stack
from tests.stub_openai import Script, Stub, serving

KEY = "sk-never-to-be-seen"
QUICK = Script(first_s=0.002, gaps_s=(0.001,) * 7)


def run(*args: str) -> int:
    parser = argparse.ArgumentParser()
    add_bench(parser.add_subparsers())
    parsed = parser.parse_args(["bench", *args])
    return parsed.run(parsed)


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("VLLM_ANYWHERE_KEY", KEY)
    with serving(lambda *_: QUICK) as server:
        yield server


def answered(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def stack(**changes: Any) -> Stack:
    facts: dict[str, Any] = {
        "name": "prod",
        "endpoint": "https://pod.example/v1",
        "api_key": KEY,
        "model": "qwen3-4b",
        "provider": "runpod",
        "hardware": "1x RTX A4000",
        "cost": {"hourly_usd": "0.2600"},
        "ready": {"time_to_ready_s": 93.0, "first_token_s": 0.4, "answered_at": "2026-11-21T08:00:00Z"},
    }
    return Stack.model_validate(facts | changes)


def test_the_protocols_own_table_comes_first_then_latencies_and_money(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--url", stub.url, "--hourly", "0.34") == 0
    shown = capsys.readouterr().out
    order = ["cold start", "TPS", "p50 latency", "p99 latency", "success rate", "cost an hour", "TTFT", "At $0.34"]
    places = [shown.index(text) for text in order]
    assert places == sorted(places)
    assert "50 requests, 10 at a time, 8 tokens an answer" in shown
    assert "50/50 requests complete" in shown
    assert len(stub.served) == 10 + 50, "a warm-up of one request each, then the protocol's fifty"
    assert {served.body["max_tokens"] for served in stub.served} == {256}


def test_a_first_look_asks_little(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", stub.url, "--preset", "quick") == 0
    assert "10 requests, 2 at a time" in capsys.readouterr().out
    assert len(stub.served) == 2 + 10
    assert {served.body["max_tokens"] for served in stub.served} == {32}


def test_the_model_is_asked_of_the_endpoint_and_the_key_is_read_from_the_environment(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "a.json"
    assert run("--url", stub.url, "--requests", "4", "--json", "--save", str(saved), "--label", "mine") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["model_id"] == "stub"
    assert all(served.authorization == f"Bearer {KEY}" for served in stub.served)
    assert KEY not in out.out + out.err + saved.read_text()


def test_the_result_file_holds_every_request_and_json_holds_the_summary(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "a.json"
    assert run("--url", stub.url, "--requests", "20", "--hourly", "0.34", "--json", "--save", str(saved)) == 0
    facts, whole = answered(capsys), json.loads(saved.read_text())
    assert "ttfts" not in facts and len(whole["ttfts"]) == len(whole["itls"]) == 20
    assert facts["total_output_tokens"] == 160
    cost = facts["vllm_anywhere"]["cost"]
    per_million = Decimal("0.34") / 3600 / Decimal(str(round(facts["output_throughput"], 2))) * 10**6
    assert Decimal(cost["usd_per_million_output_tokens"]) == per_million.quantize(Decimal("0.0001"))
    assert cost["monthly_usd"] == "248.20"
    assert {api["name"] for api in cost["apis"]} >= {"Claude Haiku 4.5", "Claude Sonnet 4.5"}


def test_objectives_end_in_a_decision_and_the_exit_status_says_it(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slo, history = tmp_path / "slo.yaml", tmp_path / "history.jsonl"
    history.write_text('{"at": "2026-11-21T08:00:00+00:00", "healthy": true}\n')
    slo.write_text("error_rate: 0.01\nuptime: 0.99\nttft_ms: {p95: 60000}\n")
    base = ("--url", stub.url, "--requests", "5", "--slo", str(slo))
    assert run(*base, "--history", str(history)) == 0
    assert "Decision: go." in capsys.readouterr().out
    assert run(*base) == 1
    assert "Decision: open." in capsys.readouterr().out
    slo.write_text("ttft_ms: {p50: 0.001}\n")
    assert run(*base, "--json") == 1
    assert answered(capsys)["vllm_anywhere"]["slo"]["decision"] == "no-go"


def test_what_an_api_would_cost_more_is_judged_for_the_real_load(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    slo = tmp_path / "slo.yaml"
    slo.write_text("saved_monthly_usd: 100\n")
    base = ("--url", stub.url, "--requests", "5", "--hourly", "0.1", "--slo", str(slo))
    more = ("--api", "Haiku 4.5", "--monthly-requests", "10000000")
    assert run(*base, *more) == 0
    assert "Decision: go." in capsys.readouterr().out
    assert run(*base, "--api", "Haiku 4.5", "--monthly-requests", "10") == 1


def test_too_many_failures_exit_1_and_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda index, _: Script(status=500) if index % 4 == 3 else QUICK) as server:
        args = ("--url", server.url, "--key", KEY, "--requests", "40")
        assert run(*args) == 1
        assert "Failed 10 times: HTTP 500 scripted refusal" in capsys.readouterr().out
        assert run(*args, "--max-error-rate", "0.5") == 0


def test_nothing_is_measured_when_the_warm_up_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(lambda *_: Script(status=401)) as server:
        with pytest.raises(OpsError, match="HTTP 401 scripted refusal; is the URL, the key"):
            run("--url", server.url, "--key", KEY)
        assert len(server.served) == 10
    with serving(lambda *_: Script(status=400, says="unknown field ignore_eos")) as server:  # noqa: SIM117
        with pytest.raises(OpsError, match="--no-ignore-eos"):
            run("--url", server.url, "--key", KEY, "--ignore-eos")


def test_synthetic_prompts_keep_answers_going_and_say_what_the_server_counted(
    stub: Stub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--url", stub.url, "--requests", "6", "--input-tokens", "200", "--output-tokens", "8") == 0
    assert "Prompts: 200 tokens asked for, 200.0 counted by the server" in capsys.readouterr().out
    assert stub.served[-1].body["ignore_eos"] is True
    assert stub.served[-1].body["max_tokens"] == 8


def test_a_dataset_is_asked_and_its_answers_bound(stub: Stub, tmp_path: Path) -> None:
    dataset = tmp_path / "sharegpt.json"
    talk = [{"from": "human", "value": "what is up"}, {"from": "gpt", "value": "x" * 80}]
    dataset.write_text(json.dumps([{"conversations": talk}]))
    assert run("--url", stub.url, "--requests", "3", "--dataset", str(dataset)) == 0
    body = stub.served[-1].body
    assert (body["messages"][0]["content"], body["max_tokens"], "ignore_eos" in body) == ("what is up", 20, False)


def test_an_open_loop_keeps_its_rate(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", stub.url, "--rate", "200", "--arrivals", "constant", "--requests", "20", "--json") == 0
    facts = answered(capsys)
    assert (facts["request_rate"], facts["max_concurrency"], facts["burstiness"]) == (200.0, None, None)


def test_a_sweep_ends_in_its_saturation_with_charts_and_one_result_a_line(
    stub: Stub, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved, svg = tmp_path / "sweep.jsonl", tmp_path / "sweep.svg"
    args = ("--url", stub.url, "--sweep", "--requests", "12", "--max-load", "2", "--charts")
    assert run(*args, "--save", str(saved), "--svg", str(svg)) == 0
    assert "Saturated: " in capsys.readouterr().out
    lines = [json.loads(line) for line in saved.read_text().splitlines()]
    assert [line["max_concurrency"] for line in lines] == [1, 2]
    for path in (svg, tmp_path / "sweep-latency.svg"):
        ET.fromstring(path.read_text())


def test_the_report_fits_80_columns_and_is_plain_in_a_pipe(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("--url", stub.url, "--hourly", "0.34", "--charts", "--requests", "10") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_a_cold_start_is_timed_before_anything_else(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", stub.url, "--model", "stub", "--cold-start", "--requests", "3", "--json") == 0
    cold = answered(capsys)["vllm_anywhere"]["cold_start"]
    assert cold["attempts"] == 1 and cold["was_cold"] is False


def test_a_comparison_of_two_results_fails_on_request(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = {tmp_path / "fast.json": 0.02, tmp_path / "slow.json": 0.5}
    for path, first_s in files.items():
        script = Script(first_s=first_s, gaps_s=(0.02,) * 3)
        with serving(lambda *_, script=script: script) as server:
            assert run("--url", server.url, "--key", KEY, "--requests", "40", "--save", str(path)) == 0
    fast, slow = map(str, files)
    assert run("compare", fast, slow) == 0
    # The pauses between pieces are the same; a busy machine may stretch them in one of the runs, but not to twice.
    assert run("compare", slow, fast, "--max-slower", "100", "--json") == 0
    capsys.readouterr()
    assert run("compare", fast, slow, "--max-slower", "100") == 1
    assert "Surely worse by more than 100 %: TTFT p50" in capsys.readouterr().out
    with pytest.raises(OpsError, match=r"none\.json can't be compared"):
        run("compare", fast, str(tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--rate", "5", "--concurrency", "5"), "give one of them"),
        (("--input-tokens", "5", "--dataset", "x.json"), "give one of them"),
        (("--sweep", "--cold-start"), "single run"),
        (("--idle", "5"), "--cold-start"),
        (("--cold-start", "replace", "--url", "http://x/v1"), "-s, not --url"),
        (("--cold-start", "--url", "http://x/v1"), "would wake it"),
        (("--cold-start", "replace"), "a second server is rented"),
        (("--slo", "nowhere.yaml"), "nowhere.yaml"),
        (("--api", "no such"), "there are"),
        (("--url", "http://127.0.0.1:9/v1"), "--model NAME"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "x", "--save", "nowhere/a.json"), "no folder"),
        (("--url", "http://127.0.0.1:9/v1", "--model", "x"), "can't be reached"),
    ],
)
def test_what_does_not_go_together_is_said_before_anything_is_sent(args: Sequence[str], said: str) -> None:
    with pytest.raises(OpsError, match=said):
        run(*args)


@pytest.mark.parametrize(
    "wrong",
    [
        ("--requests", "0"),
        ("--requests", "\N{SUPERSCRIPT TWO}"),
        ("--rate", "-1"),
        ("--timeout", "nan"),
        ("--idle", "1e999"),
        ("--hourly", "x"),
        ("--max-error-rate", "2"),
    ],
)
def test_wrong_numbers_are_wrong_usage(wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*wrong)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [
        (1024, 4096, (4096, 4096)),
        (4096, 4096, None),
        (256, resource.RLIM_INFINITY, (ops.bench.OPEN_FILES, resource.RLIM_INFINITY)),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_as_many_files_may_be_open_as_the_system_allows(
    soft: int, hard: int, set_to: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: done.append(limits))
    ops.bench.raise_open_files()
    assert done == ([set_to] if set_to else [])


def test_a_stack_gives_endpoint_key_model_and_price() -> None:
    found = target("prod", "", "", "", None, lambda _: stack())
    assert (found.url, found.model, found.hourly, found.price_note) == (
        "https://pod.example/v1",
        "qwen3-4b",
        Decimal("0.2600"),
        "",
    )
    assert found.key == SecretStr(KEY) and KEY not in repr(found)


@pytest.mark.parametrize(
    ("cost", "hourly", "note"),
    [
        ({}, None, "isn't fully known"),
        ({"hourly_usd": None}, None, "isn't fully known"),
        ({"hourly_usd": "0.30", "incomplete": True}, None, "isn't fully known"),
        ({"hourly_usd": "0.0000"}, None, "costs nothing"),
        ({"hourly_usd": "0.30", "depends_on_usage": True}, Decimal("0.30"), "depends on use"),
    ],
)
def test_a_price_that_is_not_whole_is_not_used_in_silence(
    cost: dict[str, Any], hourly: Decimal | None, note: str
) -> None:
    found, said = stack_price(stack(cost=cost))
    assert found == hourly
    assert note in said


def test_a_url_without_a_key_or_a_model_list_is_helped() -> None:
    with pytest.raises(OpsError, match="VLLM_ANYWHERE_KEY or OPENAI_API_KEY"):
        target("", "http://x/v1", "", "", None, ask=lambda *_: Health(False, (), 0, "HTTP 401"))
    found = target("", "http://x/v1", KEY, "", None, ask=lambda *_: Health(True, ("m",), 1))
    assert (found.url, found.model, found.key.get_secret_value()) == ("http://x/v1", "m", KEY)


class Pulumi:
    """The CLI as `replace_server` uses it."""

    def __init__(self, fails: bool = False) -> None:
        self.calls: list[list[str]] = []
        self.fails = fails
        resources = [
            {"urn": "urn:server", "type": "vllm-anywhere:index:Pod", "id": "pod-1", "inputs": {}},
            {"urn": "urn:ready", "type": READY, "id": "r", "inputs": {"serverId": "pod-1"}},
        ]
        self.state = {"deployment": {"resources": resources}}

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(list(args))
        if args[0] == "up":
            return subprocess.CompletedProcess(args, int(self.fails), "", "no capacity" if self.fails else "")
        if args[1] == "export":
            return subprocess.CompletedProcess(args, 0, json.dumps(self.state), "")
        outputs = stack().model_dump(mode="json", exclude={"name"}) | {"api_key": KEY}
        return subprocess.CompletedProcess(args, 0, json.dumps(outputs), "")


def test_a_fresh_server_is_made_by_replacing_the_one_that_ready_waits_for() -> None:
    pulumi = Pulumi()
    ticks = iter((100.0, 220.0))
    found = replace_server("prod", pulumi, lambda: next(ticks))
    assert (found.up_s, found.time_to_ready_s, found.urn) == (120.0, 93.0, "urn:server")
    assert ["up", "--yes", "--skip-preview", "--stack", "prod", "--replace", "urn:server"] in pulumi.calls


def test_of_several_servers_the_first_is_replaced_though_another_came_to_answer_before_it() -> None:
    servers = [
        {"urn": f"urn:server{suffix}", "type": "vllm-anywhere:index:Pod", "id": f"pod{suffix}", "inputs": {}}
        for suffix in ("-10", "-2", "")
    ]
    gates = [
        {"urn": f"urn:ready{suffix}", "type": READY, "id": f"r{suffix}", "inputs": {"serverId": f"pod{suffix}"}}
        for suffix in ("-10", "-2", "")
    ]
    assert replaceable([Resource.model_validate(one) for one in (*servers, *gates)], "prod").urn == "urn:server"


def test_a_replacement_that_fails_says_so_and_what_to_look_at() -> None:
    with pytest.raises(OpsError, match="no capacity\n`vllm-anywhere status -s prod`"):
        replace_server("prod", Pulumi(fails=True), lambda: 0.0)
    with pytest.raises(OpsError, match="pulumi up -s prod"):
        replaceable([], "prod")


def test_the_report_says_how_long_a_fresh_server_took(
    stub: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter((0.0, 120.0))
    monkeypatch.setattr(ops.bench, "replace_server", lambda name: replace_server(name, Pulumi(), lambda: next(ticks)))
    aim = Target(stub.url, SecretStr(KEY), "stub", "prod", Decimal("0.26"), "Part of it depends on use.", "prod")
    monkeypatch.setattr(ops.bench, "target", lambda *_, **__: aim)
    assert run("-s", "prod", "--cold-start", "replace", "--yes", "--requests", "3") == 0
    shown = capsys.readouterr().out
    assert "took 120.0 s; its first answer came 93.0 s after it was created" in shown
    assert "At $0.26 an hour" in shown and "Part of it depends on use." in shown
