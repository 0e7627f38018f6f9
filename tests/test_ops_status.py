"""`vllm-anywhere status` of all stacks: one table, and what all of them cost."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from test_ops_cli import OUTPUTS, STACK, client

from ops.client import Health
from ops.stack import OpsError, Stack
from ops.status import Life, status, status_of_all

NOW = datetime(2026, 11, 21, 12, 5, tzinfo=UTC)
BEGAN = "2026-11-21T06:00:00.123456789Z"
DEPLOYMENT = {"urn": "u", "type": "vllm-anywhere:index:Deployment", "created": BEGAN}
SERVERLESS = {"hourly_usd": "0.0000", "monthly_usd": "4.00", "kind": "serverless"}


class Backend:
    """Stacks as the CLI tells of them: outputs (None for no deployment, {} for an `up` cut short) and config."""

    def __init__(self, stacks: dict[str, dict[str, Any] | None], config: dict[str, Any] | None = None) -> None:
        self.stacks = stacks
        self.config = config or {}

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        stack = args[args.index("--stack") + 1] if "--stack" in args else ""
        match args[:2]:
            case ["stack", "ls"]:
                answer: Any = [{"name": name} for name in self.stacks]
            case ["stack", "export"]:
                if stack == "locked":
                    return subprocess.CompletedProcess(args, 1, "", "error: incorrect passphrase")
                resources = None if self.stacks[stack] is None else [DEPLOYMENT]
                answer = {"deployment": {"resources": resources}}
            case ["stack", "output"]:
                answer = self.stacks[stack]
            case _:
                answer = self.config.get(stack, {})
        return subprocess.CompletedProcess(args, 0, json.dumps(answer), "")


def outputs(hourly: str, **changes: Any) -> dict[str, Any]:
    return {**OUTPUTS, "cost": {"hourly_usd": hourly, "monthly_usd": "1.00"}, **changes}


def shown(backend: Backend, *names: str, as_json: bool = False) -> tuple[int, str]:
    def check(stack: Stack) -> Health:
        assert stack.name != "asleep"
        return Health(stack.name != "down", (stack.model,), 12.0, "" if stack.name != "down" else "HTTP 502")

    out = io.StringIO()
    code = status_of_all(names, as_json=as_json, run=backend, check=check, now=NOW, out=out)
    return code, out.getvalue()


def test_every_deployed_stack_is_in_one_table_with_the_sum_at_its_end() -> None:
    backend = Backend({"a": outputs("0.2500", provider="runpod"), "b": outputs("0.1100"), "empty": None})
    code, text = shown(backend)
    assert code == 0
    assert "empty" not in text
    assert [line.split()[-1] for line in text.splitlines() if line.strip() and "─" not in line] == [
        "$/hour",
        "0.2500",
        "0.1100",
        "0.3600",
    ]
    assert "6h 04m" in text


def test_what_does_not_answer_fails_the_command() -> None:
    code, text = shown(Backend({"a": outputs("0.25"), "down": outputs("0.50")}))
    assert code == 1
    assert "does not answer: HTTP 502" in text


def test_workers_that_may_sleep_are_not_woken() -> None:
    scale = {"vllm-anywhere:scaling": {"value": '{"min": 0}', "secret": False}}
    code, text = shown(Backend({"asleep": outputs("0", cost=SERVERLESS)}, {"asleep": scale}))
    assert code == 0
    assert "not asked" in text


def test_a_stack_without_outputs_or_without_a_state_that_can_be_read_makes_the_sum_a_lower_bound() -> None:
    code, text = shown(Backend({"a": outputs("0.2500"), "cut": {}, "locked": {}}))
    assert code == 1
    assert "0.2500+" in text
    assert "`pulumi up -s cut`" in " ".join(text.split())
    assert "incorrect passphrase" in " ".join(text.split())


def test_a_stack_past_its_time_says_so() -> None:
    config = {"a": {"vllm-anywhere:budget": {"value": '{"ttl_hours": 5}', "secret": False}}}
    _, text = shown(Backend({"a": outputs("0.25")}, config))
    assert "its time was over 1h 04m ago" in " ".join(text.split())


def test_as_json_money_is_text_and_keys_are_not_there() -> None:
    config = {"a": {"vllm-anywhere:budget": {"value": '{"ttl_hours": 5}', "secret": False}}}
    code, text = shown(Backend({"a": outputs("0.2500"), "cut": {}}, config), as_json=True)
    facts = json.loads(text)
    assert (code, facts["hourly_usd"], facts["prices_complete"]) == (1, "0.2500", False)
    assert facts["stacks"][0]["past_its_time"] is True
    assert facts["stacks"][0]["ends_at"] == "2026-11-21T11:00:00+00:00"
    assert facts["stacks"][1]["healthy"] is False
    assert "sk-secret" not in text


def test_without_a_deployment_it_says_how_to_begin() -> None:
    assert shown(Backend({"empty": None})) == (
        0,
        "Nothing is deployed in this backend; `pulumi up -s local` is the first step.\n",
    )


def test_stacks_that_cannot_be_listed_are_an_error() -> None:
    with pytest.raises(OpsError, match="not logged in"):
        status_of_all(as_json=False, run=lambda args: subprocess.CompletedProcess(args, 1, "", "error: not logged in"))


def test_one_stack_says_when_its_time_is_over() -> None:
    out = io.StringIO()
    life = Life(datetime(2026, 11, 21, 6, tzinfo=UTC), datetime(2026, 11, 21, 11, tzinfo=UTC))
    status(STACK, as_json=False, now=NOW, out=out, client=client(httpx.Response(503)), life=life)
    assert "is over since 2026-11-21T11:00:00+00:00 (`budget.ttl_hours`)" in out.getvalue()


def test_named_stacks_are_shown_alone_and_one_without_a_deployment_is_said() -> None:
    backend = Backend({"a": outputs("0.25"), "b": outputs("0.50"), "empty": None})
    code, text = shown(backend, "b", "empty", as_json=True)
    facts = json.loads(text)
    assert (code, [row["stack"] for row in facts["stacks"]], facts["hourly_usd"]) == (1, ["b", "empty"], "0.50")
    assert facts["stacks"][1]["problem"] == "nothing is deployed in it"


def test_what_workers_cost_by_use_is_said_beside_what_is_fixed() -> None:
    cost = {**SERVERLESS, "depends_on_usage": True}
    _, text = shown(Backend({"a": outputs("0.2500"), "b": outputs("0", cost=cost)}))
    assert "0.0000 + use" in text
    assert text.split()[-1] == "0.2500+"
    out = io.StringIO()
    status(STACK.model_copy(update={"cost": cost}), as_json=False, now=NOW, out=out, client=client(httpx.Response(503)))
    assert "it depends on use" in " ".join(out.getvalue().split())
