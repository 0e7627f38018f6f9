"""The exporter's figures: hours from a stack's history, its price, its budget, and no secret."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import threading
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ops.exporter import Book
from ops.monitor import add_monitor, monitor
from ops.monitor_spend import Outputs, Spend, Update, deployed_hours, platform_bills, read_spend, spend
from ops.stack import OpsError
from providers.account import Holding
from providers.base import AuthError

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
NOW = BEGIN + timedelta(hours=100)


COST = {"hourly_usd": "0.4000", "monthly_usd": "292.00", "budget": {"limit_usd": "300.00"}, "incomplete": False}


def update(kind: str, start_h: float, result: str = "succeeded", took_h: float = 0, **changes: int) -> Update:
    start = BEGIN + timedelta(hours=start_h)
    return Update.model_validate(
        {
            "kind": kind,
            "result": result,
            "startTime": start.isoformat(),
            "endTime": (start + timedelta(hours=took_h)).isoformat(),
            "resourceChanges": changes or {"create": 5},
        }
    )


def outputs(**cost: Any) -> Outputs:
    full = {
        "hourly_usd": "0.4000",
        "monthly_usd": "292.00",
        "budget": {"limit_usd": "300.00", "left_usd": "8.00"},
        **cost,
    }
    return Outputs.model_validate({"provider": "runpod", "hardware": "1x L4", "cost": full})


@pytest.mark.parametrize(
    ("history", "hours"),
    [
        ([], 0),
        ([update("update", 10)], 90),
        ([update("update", -500)], 100),
        ([update("update", 10), update("update", 40), update("destroy", 60, took_h=1)], 51),
        ([update("update", -9), update("destroy", -5), update("update", 90)], 10),
        ([update("update", -9), update("destroy", 5), update("update", 90)], 15),
        ([update("update", 10), update("destroy", 60, "failed")], 90),
        ([update("update", 10, "failed", create=1)], 90),
        ([update("update", 10, "failed", same=2)], 0),
        ([update("refresh", 10), update("preview", 11)], 0),
        ([update("update", 10), update("refresh", 20)], 90),
        ([update("destroy", 5), update("update", 10)], 90),
    ],
)
def test_hours_are_those_between_the_first_up_and_the_destroy(history: list[Update], hours: int) -> None:
    assert deployed_hours(history, BEGIN, NOW) == hours
    assert deployed_hours(reversed(history), BEGIN, NOW) == hours


@given(st.lists(st.tuples(st.sampled_from(["update", "destroy", "refresh"]), st.integers(-900, 100)), max_size=12))
def test_hours_are_never_more_than_the_month_has_had(events: list[tuple[str, int]]) -> None:
    history = [update(kind, at) for kind, at in events]
    hours = deployed_hours(history, BEGIN, NOW)
    assert 0 <= hours <= 100
    kinds = [kind for kind, _ in sorted(events, key=lambda event: event[1])]
    if "update" not in kinds:
        assert hours == 0


def test_spend_is_hours_by_price_and_pace_is_a_months_cost_over_the_budget() -> None:
    found = spend("prod", outputs(), [update("update", 50)], NOW)
    assert found.month_to_date == Decimal("20.0000")
    assert found.budget == Decimal("300.00")
    assert found.pace == Decimal(292) / 300
    assert found.complete


def test_what_the_platform_bills_now_sets_the_pace_and_not_the_price() -> None:
    found = spend("prod", outputs(), [update("update", 50)], NOW, billed=Decimal("1.2"))
    assert (found.hourly, found.month_to_date) == (Decimal("0.4000"), Decimal("20.0000"))
    assert found.pace == Decimal("1.2") * 730 / 300
    assert spend("prod", outputs(), [], NOW, billed=Decimal(0)).pace == 0


def test_a_plan_at_its_limit_is_not_over_it_by_rounding() -> None:
    limit = outputs(hourly_usd="0.4110", monthly_usd="300.00")
    assert spend("prod", limit, [update("update", -5)], NOW).pace == 1


def test_a_month_begins_in_utc() -> None:
    tokyo = (BEGIN + timedelta(hours=2)).astimezone(timezone(timedelta(hours=9)))
    assert spend("prod", outputs(), [update("update", -50)], tokyo).month_to_date == Decimal("0.8000")


def test_an_incomplete_price_is_no_price() -> None:
    found = spend("prod", outputs(incomplete=True), [update("update", 0)], NOW)
    assert (found.hourly, found.month_to_date, found.pace, found.complete) == (None, None, None, False)
    assert found.budget == 300


def test_use_that_is_not_declared_leaves_the_price_incomplete() -> None:
    found = spend("prod", outputs(depends_on_usage=True), [update("update", 0)], NOW)
    assert found.month_to_date == 40
    assert not found.complete


def test_a_free_stack_costs_nothing_and_needs_no_budget() -> None:
    found = spend("local", outputs(hourly_usd="0.0000", monthly_usd="0.00", budget=None), [update("update", 0)], NOW)
    assert (found.hourly, found.month_to_date, found.budget, found.pace) == (0, 0, None, None)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cli:
    """A Pulumi that answers with what one stack has, and refuses to show secrets."""

    def __init__(self, told: Any, history: Any = ()) -> None:
        self.told, self.history = told, history

    def __call__(self, args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        assert "--show-secrets" not in args
        assert "--json" in args
        if self.told is None:
            return subprocess.CompletedProcess(args, 255, "", "error: no stack named 'prod' found\n")
        return subprocess.CompletedProcess(args, 0, json.dumps(self.told if args[1] == "output" else self.history), "")


TOLD = {
    "api_key": "[secret]",
    "endpoint": "https://h/v1",
    "provider": "runpod",
    "hardware": "1x L4",
    "cost": {
        "hourly_usd": "0.4000",
        "monthly_usd": "292.00",
        "budget": {"limit_usd": "300.00"},
        "lines": [],
        "incomplete": False,
    },
}
HISTORY = [
    {
        "version": 3,
        "kind": "update",
        "startTime": "2026-11-01T00:00:00.000Z",
        "endTime": "2026-11-01T00:04:00.000Z",
        "result": "succeeded",
        "resourceChanges": {"create": 5},
        "environment": {},
        "config": {},
    }
]


def test_a_stack_is_read_without_its_secrets() -> None:
    found = read_spend("prod", NOW, Cli(TOLD, HISTORY))
    assert (found.hourly, found.month_to_date) == (Decimal("0.4000"), Decimal("40.0000"))


def test_a_stack_that_is_destroyed_has_no_price() -> None:
    assert read_spend("prod", NOW, Cli({}, HISTORY)) == Spend("prod")


def test_a_stack_that_cannot_be_read_says_why() -> None:
    assert read_spend("prod", NOW, Cli(None)).problem == "no stack named 'prod' found"


@pytest.mark.parametrize("told", [{"provider": "sk-secret"}, ["x"], {**TOLD, "cost": {"hourly_usd": "sk-secret"}}])
def test_outputs_of_an_unknown_form_are_a_problem_that_repeats_no_value(told: Any) -> None:
    problem = read_spend("prod", NOW, Cli(told, HISTORY)).problem
    assert "form" in problem
    assert "sk-secret" not in problem


class Account:
    """A platform that bills for three things of this stack and one of another."""

    def __init__(self, timeout_s: float) -> None:
        pass

    def holdings(self, stacks: Collection[str]) -> list[Holding]:
        assert "vllm-anywhere/prod" in stacks
        return [
            Holding("pod", "a", "vllm-anywhere/prod/server/1", "running", Decimal("0.40")),
            Holding("pod", "b", "vllm-anywhere/prod/server/2", "running", Decimal("0.40")),
            Holding("secret", "c", "vllm-anywhere/prod/key/1", "", None),
            Holding("pod", "d", "vllm-anywhere/production/server/1", "running", Decimal("9.00")),
        ]


def refused(timeout_s: float) -> Any:
    raise AuthError("RUNPOD_API_KEY is not set")


def test_everything_with_the_stacks_label_is_billed_to_it() -> None:
    told: list[str] = []
    assert platform_bills("prod", "runpod", told.append, lambda name: cast("Any", Account)) == Decimal("0.80")
    assert not told


def test_a_platform_that_refuses_to_say_is_told_and_the_planned_price_counts() -> None:
    told: list[str] = []
    billed = partial(platform_bills, tell=told.append, load=lambda name: refused)
    found = read_spend("prod", NOW, Cli(TOLD, HISTORY), billed)
    assert (found.billed, found.pace) == (None, Decimal(292) / 300)
    assert told == [
        "runpod does not say what prod costs now, so the price in its outputs counts: RUNPOD_API_KEY is not set"
    ]


def test_the_outputs_of_a_gateway_count_since_it_has_no_account() -> None:
    told: list[str] = []
    found = read_spend(
        "prod", NOW, Cli({**TOLD, "provider": "gateway"}, HISTORY), partial(platform_bills, tell=told.append)
    )
    assert (found.problem, found.billed) == ("", None)
    assert "can't look into an account on gateway" in told[0]


def test_a_platform_is_only_asked_for_what_is_deployed() -> None:
    def never(stack: str, platform: str) -> Decimal:
        raise AssertionError

    assert read_spend("prod", NOW, Cli({}, HISTORY), never) == Spend("prod")
    assert read_spend("prod", NOW, Cli(TOLD, HISTORY), lambda stack, platform: Decimal(2)).billed == 2


def samples(book: Book) -> dict[tuple[str, str], float]:
    registry = CollectorRegistry()
    registry.register(book)
    text = generate_latest(registry).decode()
    return {
        (sample.name, sample.labels["stack"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_not_known_has_no_sample() -> None:
    spends = {
        "prod": spend("prod", outputs(), [update("update", 50)], NOW),
        "gone": Spend("gone"),
        "broken": Spend("broken", problem="no such stack"),
    }
    book = Book(list(spends), spends.__getitem__, lambda text: None)
    book.refresh()
    found = samples(book)
    assert found == {
        ("vllm_anywhere_stack_info", "prod"): 1,
        ("vllm_anywhere_stack_readable", "prod"): 1,
        ("vllm_anywhere_stack_readable", "gone"): 1,
        ("vllm_anywhere_stack_readable", "broken"): 0,
        ("vllm_anywhere_price_complete", "prod"): 1,
        ("vllm_anywhere_price_usd_per_hour", "prod"): 0.4,
        ("vllm_anywhere_month_to_date_usd", "prod"): 20,
        ("vllm_anywhere_budget_usd", "prod"): 300,
        ("vllm_anywhere_budget_pace_ratio", "prod"): pytest.approx(292 / 300),
    }


def test_a_stack_that_cannot_be_read_is_told_once() -> None:
    answers = iter([Spend("prod", problem="a"), Spend("prod", problem="a"), Spend("prod"), Spend("prod", problem="a")])
    told: list[str] = []
    book = Book(["prod"], lambda name: next(answers), told.append)
    for _ in range(4):
        book.refresh()
    assert told == ["stack prod can't be read: a"] * 2


def test_a_stack_is_told_of_though_another_fails_in_the_same_words() -> None:
    broken = {"prod": "no such file"}
    told: list[str] = []
    book = Book(["prod", "dev"], lambda name: Spend(name, problem=broken.get(name, "")), told.append)
    book.refresh()
    broken["dev"] = "no such file"
    book.refresh()
    assert told == [f"stack {name} can't be read: no such file" for name in ("prod", "dev")]


def exporting(port: int, stop: threading.Event) -> int:
    parser = argparse.ArgumentParser()
    add_monitor(parser.add_subparsers())
    args = parser.parse_args(["monitor", "--exporter", "-s", "prod", "prod", "--port", str(port), "--json"])
    return monitor(args, stop=stop)


def test_the_exporter_serves_until_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ops.monitor_spend.pulumi_command", Cli(TOLD, HISTORY))
    stop = threading.Event()
    thread = threading.Thread(target=exporting, args=(free_port, stop))
    thread.start()
    try:
        http = httpx.Client(transport=httpx.HTTPTransport(retries=8), trust_env=False)
        text = http.get(f"http://127.0.0.1:{free_port}/metrics").text
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert 'vllm_anywhere_price_usd_per_hour{stack="prod"} 0.4\n' in text
    assert text.count("vllm_anywhere_price_usd_per_hour{") == 1
    assert "h/v1" not in text
    assert capsys.readouterr().out == f"http://127.0.0.1:{free_port}/metrics has price and spend of prod\n"


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch, taken_port: int) -> None:
    monkeypatch.setattr("ops.monitor_spend.pulumi_command", Cli(TOLD, HISTORY))
    with pytest.raises(OpsError, match=rf"127\.0\.0\.1:{taken_port} can't be listened on.*--port"):
        exporting(taken_port, threading.Event())
