"""The loop of `vllm-anywhere watch`, with a CLI and an endpoint that answer by script."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from ops.bench_facts import judged
from ops.client import ChatClient
from ops.stack import OpsError, Stack
from ops.watch import add_watch, watch
from ops.watch_look import Told, billed, drifts, request
from ops.watch_memory import Folder
from serving.watching import Probe

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
ROOT_URN = "urn:pulumi:dev::vllm-anywhere::"
POD = f"{ROOT_URN}vllm-anywhere:index:Deployment$vllm-anywhere:runpod:Pod::server"
DEPLOYMENT = f"{ROOT_URN}vllm-anywhere:index:Deployment::deployment"
COST = {"hourly_usd": "0.2500", "monthly_usd": "182.50", "high": "182.50", "incomplete": False}
URL = "file:///backend"


def step(urn: str, op: str = "refresh", was: Any = None, now: Any = None, **more: Any) -> dict[str, Any]:
    old, new = {"inputs": was or {}}, {"inputs": now or was or {}}
    return {"op": op, "urn": urn, "oldState": {**old, "created": "2026-11-21T09:00:00Z"}, "newState": new, **more}


GONE = {**step(POD, "delete"), "newState": None}
STOPPED = step(
    POD,
    "update",
    {"status": "running"},
    {"status": "exited"},
    detailedDiff={"status": {"kind": "update", "inputDiff": True}},
)


@dataclass
class Cli:
    """Pulumi by script: one stack `dev`, what refresh finds, what `up` would do and cost, and how that ends."""

    found: list[dict[str, Any]] = field(default_factory=list)
    plan: list[dict[str, Any]] = field(default_factory=lambda: [step(POD, "create")])
    quoted: dict[str, Any] = field(default_factory=lambda: dict(COST))
    cost: dict[str, Any] = field(default_factory=lambda: dict(COST))
    config: dict[str, Any] = field(default_factory=dict)
    up: Callable[[Cli], int] = lambda cli: 0
    asked: list[str] = field(default_factory=list)
    deployed: bool = True
    error: str = "error: no capacity"

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.asked.append(args[0])
        code, answer = 0, ""
        match args[0]:
            case "whoami":
                answer = json.dumps({"url": URL})
            case "refresh":
                answer = json.dumps(
                    {"steps": [step(DEPLOYMENT), *(self.found or [step(POD)])] if self.deployed else []}
                )
            case "preview":
                report = {"urn": DEPLOYMENT, "message": json.dumps({"cost": self.quoted}), "severity": "info"}
                answer = json.dumps({"steps": self.plan, "diagnostics": [report]})
            case "config":
                answer = json.dumps(
                    {key: {"value": json.dumps(value), "secret": False} for key, value in self.config.items()}
                )
            case "up":
                code = self.up(self)
            case "destroy":
                self.deployed = False
            case _:
                answer = json.dumps([{"name": "dev"}] if args[1] == "ls" else self.outputs())
        return subprocess.CompletedProcess(args, code, answer, self.error if code else "")

    def outputs(self) -> dict[str, Any]:
        ready = {"time_to_ready_s": 1.5, "first_token_s": 0.1, "answered_at": "2026-11-21T09:01:00+00:00"}
        about = {"endpoint": "https://pod/v1", "api_key": "sk-secret", "model": "m", "provider": "runpod"}
        return {**about, "hardware": "L4", "cost": self.cost, "ready": ready}

    @property
    def changes(self) -> int:
        return sum(command in ("up", "destroy") for command in self.asked)


@dataclass
class Clock:
    """Time that passes only while a watch waits; after `rounds` it is told to end."""

    rounds: int = 1
    at: datetime = NOW

    def now(self) -> datetime:
        return self.at

    def wait(self, seconds: float) -> bool:
        self.at += timedelta(seconds=seconds)
        self.rounds -= 1
        return self.rounds <= 0


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path))


def answer(stack: Stack) -> Probe:
    return Probe(True, 50.0)


def refuse(stack: Stack) -> Probe:
    return Probe(False, 0.0, "HTTP 502")


def watched(
    cli: Cli, *options: str, ask: Callable[[Stack], Probe] = answer, clock: Clock | None = None
) -> tuple[int, list[dict[str, Any]]]:
    code, text = told(cli, "--json", *options, ask=ask, clock=clock)
    return code, [json.loads(line) for line in text.splitlines()]


def told(
    cli: Cli, *options: str, ask: Callable[[Stack], Probe] = answer, clock: Clock | None = None
) -> tuple[int, str]:
    clock = clock or Clock()
    parser = argparse.ArgumentParser()
    add_watch(parser.add_subparsers())
    out = io.StringIO()
    args = parser.parse_args(["watch", *options])
    return watch(args, run=cli, ask=ask, market=lambda _: [], now=clock.now, wait=clock.wait, out=out), out.getvalue()


def repaired(cli: Cli) -> int:
    cli.found = []
    return 0


def test_a_stack_that_is_well_exits_0_and_is_left_alone() -> None:
    cli = Cli()
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["well"], cli.changes) == (0, True, 0)


@pytest.mark.parametrize("found", [GONE, STOPPED])
def test_nothing_is_changed_without_heal(found: dict[str, Any]) -> None:
    cli = Cli([found], config={"vllm-anywhere:budget": {"ttl_hours": 1}})
    clock = Clock(rounds=200)
    assert watched(cli, ask=refuse, clock=clock)[0] == 0
    assert cli.changes == 0


def test_heal_plans_weighs_repairs_and_looks_again() -> None:
    cli = Cli([GONE], up=repaired)
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["deed"]["result"], row["findings"]) == (0, "repaired", [])
    assert cli.asked.index("preview") < cli.asked.index("up") < len(cli.asked) - 1 - cli.asked[::-1].index("refresh")


def test_a_repair_that_would_cost_too_much_is_refused() -> None:
    cli = Cli([GONE], quoted={**COST, "monthly_usd": "400.00", "high": "400.00"})
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["deed"]["result"], cli.changes) == (1, "refused", 0)
    assert "$400.00 a month" in row["deed"]["text"]


def test_repairs_that_each_cost_a_little_more_do_not_add_up() -> None:
    def dearer(cli: Cli) -> int:
        cli.cost = dict(cli.quoted)
        return repaired(cli)

    cli = Cli([GONE], quoted={**COST, "monthly_usd": "195.00", "high": "195.00"}, up=dearer)
    assert watched(cli, "--once", "--heal")[1][0]["deed"]["result"] == "repaired"
    cli.found, cli.quoted = [GONE], {**COST, "monthly_usd": "210.00", "high": "210.00"}
    assert watched(cli, "--once", "--heal")[1][0]["deed"]["result"] == "refused"


def test_what_a_person_deployed_since_is_the_new_measure() -> None:
    cli = Cli(up=repaired)
    watched(cli, "--once", "--heal")
    cli.cost = cli.quoted = {**COST, "monthly_usd": "400.00", "high": "400.00"}
    cli.found = [GONE]
    assert watched(cli, "--once", "--heal")[1][0]["deed"]["result"] == "repaired"


def test_a_plan_that_touches_what_is_well_is_refused() -> None:
    volume = step(POD.replace("server", "volume"), "replace")
    cli = Cli([GONE], plan=[step(POD, "create"), volume])
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["deed"]["result"], cli.changes) == (1, "refused", 0)


def test_failures_wait_longer_each_time_and_a_day_has_a_most() -> None:
    cli = Cli([GONE], up=lambda _: 1)
    clock = Clock(rounds=24 * 60)
    _, rows = watched(cli, "--heal", "--look-every", "60", ask=refuse, clock=clock)
    tried = [datetime.fromisoformat(row["at"]) for row in rows if (row["deed"] or {}).get("result") == "failed"]
    gaps = [int((later - earlier).total_seconds() // 60) for earlier, later in pairwise(tried)]
    assert gaps == [5, 10, 20, 40, 80]
    assert cli.changes == 6
    assert "no capacity" in rows[0]["deed"]["text"]


def test_a_stack_that_somebody_else_is_changing_is_left_to_them_and_no_attempt_is_counted() -> None:
    cli = Cli([GONE], up=lambda _: 1, error="error: the stack is currently locked by 1 lock(s).")
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["deed"]) == (1, {"result": "waiting", "text": "another `pulumi` is changing the stack"})
    assert Folder(URL).memory("dev").attempts == ()


def test_a_repair_that_did_not_go_through_is_gone_on_with_though_state_shows_no_drift() -> None:
    def half(cli: Cli) -> int:
        cli.found, cli.up = [], repaired
        return 1

    cli = Cli([GONE], up=half)
    clock = Clock(rounds=10)
    _, rows = watched(cli, "--heal", "--look-every", "60", ask=refuse, clock=clock)
    assert [(row["deed"] or {}).get("result") for row in rows][:6] == ["failed", *["waiting"] * 4, "repaired"]
    assert rows[6]["findings"][0]["kind"] == "down"


def test_a_repair_is_done_with_once_the_stack_is_well_by_itself() -> None:
    cli = Cli([GONE], up=lambda _: 1)
    watched(cli, "--once", "--heal", ask=refuse)
    cli.found = []
    assert watched(cli, "--once", "--heal")[1][0]["findings"] == []
    assert Folder(URL).memory("dev").unfinished == ()


def test_time_to_live_is_announced_and_then_kept_and_only_with_heal() -> None:
    cli = Cli(config={"vllm-anywhere:budget": {"ttl_hours": 4}})
    clock = Clock(rounds=150)
    _, rows = watched(cli, "--heal", "--grace", "30", clock=clock)
    by_minute = {(datetime.fromisoformat(row["at"]) - NOW).total_seconds() / 60: row for row in rows}
    assert by_minute[59]["findings"] == []
    assert by_minute[60]["findings"][0]["severity"] == "warning"
    assert by_minute[89]["deed"] is None
    assert by_minute[90]["deed"]["result"] == "destroyed"
    assert (cli.asked.count("destroy"), max(by_minute)) == (1, 90)


def test_what_is_refused_is_said_each_round_and_weighed_again_only_at_the_next_whole_look() -> None:
    cli = Cli([GONE], quoted={**COST, "monthly_usd": "400.00", "high": "400.00"})
    _, rows = watched(cli, "--heal", clock=Clock(rounds=10))
    assert {row["deed"]["result"] for row in rows} == {"refused"}
    assert cli.asked.count("preview") == 1


def test_between_whole_looks_there_is_one_request_and_no_pulumi() -> None:
    cli = Cli()
    watched(cli, "-s", "dev", clock=Clock(rounds=10))
    assert cli.asked.count("refresh") == 1
    assert len(cli.asked) == 4


def test_a_failed_request_brings_a_whole_look_at_once() -> None:
    cli, answers = Cli(), iter([answer, answer, refuse, refuse, answer])
    watched(cli, ask=lambda stack: next(answers)(stack), clock=Clock(rounds=4))
    assert cli.asked.count("refresh") == 2


def test_workers_that_may_sleep_are_asked_only_with_wake() -> None:
    cost = {**COST, "kind": "serverless"}
    cli = Cli(cost=cost, config={"vllm-anywhere:scaling": {"min": 0}})
    assert watched(cli, "--once", ask=refuse) == (0, [row := watched(cli, "--once", ask=refuse)[1][0]])
    assert row["healthy"] is None
    assert not Folder(URL).history("dev").exists()
    assert watched(cli, "--once", "--wake", ask=refuse)[0] == 1


def test_a_second_watch_follows_the_one_that_leads() -> None:
    cli = Cli([GONE], up=repaired)
    with Folder(URL).leading("dev") as first:
        assert first
        code, (row,) = watched(cli, "--once", "--heal")
    assert (code, row["deed"]["result"], cli.changes) == (1, "following", 0)
    assert watched(cli, "--once", "--heal")[1][0]["deed"]["result"] == "repaired"


LEADER = f"""
import time
from datetime import datetime
from ops.watch_memory import Folder
folder = Folder({URL!r})
with folder.leading("dev") as leads:
    folder.remember("dev", folder.memory("dev").begun(datetime.fromisoformat({NOW.isoformat()!r}), ("server",)))
    print(leads, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_leader_had_begun_is_taken_up_by_the_next_after_the_wait_of_a_failure() -> None:
    cli = Cli([GONE], up=repaired)
    with subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, text=True) as leader:
        try:
            assert leader.stdout and leader.stdout.readline() == "True\n"
            assert watched(cli, "--once", "--heal")[1][0]["deed"]["result"] == "following"
        finally:
            leader.kill()
    soon = Clock(at=NOW + timedelta(minutes=1))
    assert watched(cli, "--once", "--heal", clock=soon)[1][0]["deed"]["result"] == "waiting"
    assert cli.changes == 0
    later = Clock(at=NOW + timedelta(minutes=6))
    assert watched(cli, "--once", "--heal", clock=later)[1][0]["deed"]["result"] == "repaired"
    assert [one.ok for one in Folder(URL).memory("dev").attempts] == [False, True]


def test_stacks_without_a_deployment_are_left_out_unless_they_are_named() -> None:
    cli = Cli(deployed=False)
    assert watched(cli, "--once") == (0, [])
    code, (row,) = watched(cli, "--once", "-s", "dev")
    assert (code, row["problem"]) == (1, "nothing is deployed in it")


def test_the_history_is_what_bench_reads_for_uptime(tmp_path: Path) -> None:
    answers = iter([answer, answer, refuse, refuse, answer])
    file = tmp_path / "checks.jsonl"
    watched(Cli(), "--history", str(file), ask=lambda stack: next(answers)(stack), clock=Clock(rounds=4))
    args = argparse.Namespace(slo=None, history=file, apis=None, api="", peak=None, monthly_requests=None)
    assert judged(args).uptime == (0.75, 4)
    assert "sk-secret" not in file.read_text()


def test_a_history_that_cannot_be_written_is_a_problem_of_the_row_and_ends_no_watch(tmp_path: Path) -> None:
    file = tmp_path / "a file" / "checks.jsonl"
    file.parent.touch()
    code, (row,) = watched(Cli(), "--once", "--history", str(file))
    assert code == 1
    assert row["problem"] == f"{file} can't be written: File exists"


def test_stacks_of_like_names_have_nothing_in_common() -> None:
    assert Folder(URL).history("org/shop/dev") != Folder(URL).history("org_shop_dev")


def test_a_look_at_sleeping_workers_is_no_downtime(tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text('{"healthy": true}\n{"healthy": null}\n{"healthy": null}\n')
    args = argparse.Namespace(slo=None, history=file, apis=None, api="", peak=None, monthly_requests=None)
    assert judged(args).uptime == (1.0, 1)


def test_in_a_pipe_only_what_is_new_is_said() -> None:
    answers = iter([answer, answer, refuse, refuse, answer, answer])
    _, text = told(Cli(), ask=lambda stack: next(answers)(stack), clock=Clock(rounds=5))
    assert text.splitlines() == [
        "2026-11-21T12:00:00+00:00 dev: well",
        "2026-11-21T12:02:00+00:00 dev: critical: does not answer: HTTP 502 (vllm-anywhere logs --why -s dev)",
        "2026-11-21T12:03:00+00:00 dev: well",
    ]


def test_a_memory_that_cannot_be_read_is_never_taken_for_an_empty_one() -> None:
    cli = Cli([GONE])
    folder = Folder(URL)
    folder.remember("dev", folder.memory("dev"))
    (folder.path / "dev.json").write_text("{")
    code, (row,) = watched(cli, "--once", "--heal")
    assert (code, cli.changes) == (1, 0)
    assert "remove it to begin anew" in row["problem"]


def test_a_stack_whose_config_is_wrong_is_still_looked_at() -> None:
    cli = Cli([GONE], config={"vllm-anywhere:hardwear": {}})
    _, (row,) = watched(cli, "--once")
    assert {one["kind"] for one in row["findings"]} == {"gone", "unknown"}


def test_a_platform_that_cannot_be_asked_is_no_clean_bill() -> None:
    class Away(Cli):
        def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
            if args[0] == "refresh":
                return subprocess.CompletedProcess(args, 255, "", "error: RUNPOD_API_KEY is not set")
            return super().__call__(args)

    code, (row,) = watched(Away(), "--once", "--heal")
    assert code == 1
    assert "RUNPOD_API_KEY" in row["findings"][0]["text"]


def test_without_a_backend_it_says_so() -> None:
    def run(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 1, "", "error: not logged in")

    with pytest.raises(OpsError, match="not logged in"):
        watch(argparse.Namespace(once=True, url=""), run=run)


def test_what_a_resource_puts_out_is_no_drift_unless_it_says_that_an_instance_of_google_does_not_run() -> None:
    vm = "urn:pulumi:dev::x::vllm-anywhere:index:Deployment$gcp:compute/instance:Instance::server"
    moved, began, stopped = step(POD), step(vm), step(vm)
    for one, was, now in (
        (
            moved,
            {"endpoint": "a", "status": "STARTING", "hourlyUsd": "0.25"},
            {"status": "RUNNING", "hourlyUsd": "0.31"},
        ),
        (began, {"currentStatus": "STAGING"}, {"currentStatus": "RUNNING"}),
        (stopped, {"currentStatus": "RUNNING"}, {"currentStatus": "TERMINATED"}),
    ):
        one["oldState"]["outputs"], one["newState"]["outputs"] = was, now
    steps = Told.model_validate({"steps": [moved, began, stopped]}).steps
    assert [dict(one.changes) for one in drifts(steps)] == [{"currentStatus": ("RUNNING", "TERMINATED")}]
    assert str(billed(steps)) == "0.31"


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([step(POD, was={"status": "exited"})], {"status": ("running", "exited")}),
        ([step(POD, was={"status": "running"})], None),
        ([], {}),
    ],
)
def test_what_a_refresh_has_put_into_state_is_still_told(steps: list[Any], found: dict[str, Any] | None) -> None:
    told = Told.model_validate({"steps": [step(DEPLOYMENT), *steps]}).steps
    assert [dict(one.changes) for one in drifts(told)] == ([] if found is None else [found])


def test_the_request_is_for_one_token_and_is_timed_to_the_first() -> None:
    seen: list[dict[str, Any]] = []

    def serve(asked: httpx.Request) -> httpx.Response:
        seen.append(json.loads(asked.content))
        return httpx.Response(200, text='data: {"choices": [{"delta": {"content": "a"}}]}\n\ndata: [DONE]\n\n')

    stack = Stack(name="dev", **Cli().outputs())
    ticks = iter([1.0, 1.25])
    client = ChatClient(stack.endpoint, "k", transport=httpx.MockTransport(serve))
    assert request(stack, client, lambda: next(ticks)) == Probe(True, 250.0)
    assert seen[0]["max_tokens"] == 1
    broken = ChatClient(stack.endpoint, "k", transport=httpx.MockTransport(lambda _: httpx.Response(500, text="boom")))
    assert request(stack, broken) == Probe(False, 0.0, "refused: HTTP 500 boom")
