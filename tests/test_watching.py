"""What a watch decides, from what it saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.money import Money
from serving.watching import (
    Attempt,
    Bounds,
    Cheapest,
    Drift,
    Finding,
    Limits,
    Probe,
    Repairing,
    Seen,
    Step,
    findings,
    objections,
    repair_of,
    too_soon,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
COST = Money(Decimal("0.2500"), Decimal("182.50"), Decimal("182.50"))
WELL = Seen(stack="dev", at=NOW, probe=Probe(True, 80.0), shown=COST, created_at=NOW - timedelta(hours=3))
POD, ENDPOINT = "vllm-anywhere:runpod:Pod", "vllm-anywhere:runpod:Endpoint"


def kinds(seen: Seen, limits: Limits | None = None) -> list[tuple[str, str, str]]:
    return [(one.kind, one.severity, one.repair) for one in findings(seen, limits or Limits())]


def drifted(*drift: Drift, **changes: Any) -> Seen:
    return replace(WELL, drift=drift, **changes)


def test_a_stack_that_answers_as_deployed_has_no_findings() -> None:
    assert findings(WELL, Limits()) == ()


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        pytest.param(replace(WELL, probe=Probe(False, 0, "HTTP 502")), ("down", "critical", ""), id="down"),
        pytest.param(drifted(Drift("server", POD, gone=True)), ("gone", "critical", "up"), id="gone"),
        pytest.param(
            drifted(Drift("server", POD, gone=True), spot=True), ("interrupted", "critical", "up"), id="spot gone"
        ),
        pytest.param(
            drifted(Drift("server", POD, changes={"status": ("running", "EXITED")})),
            ("stopped", "critical", "up"),
            id="stopped",
        ),
        pytest.param(
            drifted(
                Drift("server-2", "gcp:compute/instance:Instance", changes={"currentStatus": ("RUNNING", "STOPPED")}),
                spot=True,
            ),
            ("interrupted", "critical", "up"),
            id="spot stopped",
        ),
        pytest.param(
            drifted(Drift("server", ENDPOINT, changes={"maxWorkers": (3, 1)})), ("workers", "warning", "up"), id="cut"
        ),
        pytest.param(
            drifted(Drift("server", ENDPOINT, changes={"maxWorkers": (1, 3)})), ("drift", "warning", ""), id="raised"
        ),
        pytest.param(
            drifted(Drift("server", POD, changes={"image": ("a", "b")})), ("drift", "warning", ""), id="by hand"
        ),
        pytest.param(drifted(Drift("volume", POD, gone=True)), ("gone", "warning", "up"), id="volume gone"),
        pytest.param(
            drifted(Drift("tls", "vllm-anywhere:index:Certificate", changes={"status": ("valid", "expiring")})),
            ("certificate", "warning", "up"),
            id="certificate",
        ),
        pytest.param(
            replace(WELL, certificates={"tls": NOW + timedelta(days=20)}), ("certificate", "warning", ""), id="age"
        ),
        pytest.param(replace(WELL, billed=Decimal("0.30")), ("price", "warning", ""), id="billed more"),
        pytest.param(
            replace(WELL, cheapest=Cheapest("L4", Decimal("140"))), ("cheaper", "info", ""), id="cheaper elsewhere"
        ),
        pytest.param(replace(WELL, unfinished=("server",)), ("unfinished", "critical", "up"), id="unfinished"),
        pytest.param(replace(WELL, unknown=("no key",)), ("unknown", "warning", ""), id="unknown"),
        pytest.param(replace(WELL, ttl_hours=2.5), ("ttl", "warning", ""), id="past its time"),
        pytest.param(replace(WELL, ttl_hours=2), ("ttl", "critical", "destroy"), id="past its grace"),
    ],
)
def test_what_is_wrong_is_named_with_what_may_be_done(seen: Seen, found: tuple[str, str, str]) -> None:
    assert kinds(seen) == [found]


def test_a_slow_first_token_counts_only_against_a_limit() -> None:
    assert kinds(WELL, Limits(slow_ms=80)) == []
    assert kinds(WELL, Limits(slow_ms=79)) == [("slow", "warning", "")]


def test_a_little_cheaper_or_a_little_dearer_is_no_news() -> None:
    assert kinds(replace(WELL, billed=Decimal("0.26"), cheapest=Cheapest("L4", Decimal("150")))) == []


def test_where_use_is_open_costs_are_compared_at_their_most() -> None:
    shown = Money(Decimal(0), Decimal("1.00"), Decimal("400.00"), open_use=True)
    (one,) = findings(replace(WELL, shown=shown, cheapest=Cheapest("L4 on gcp", Decimal("300"))), Limits())
    assert one.text == "L4 on gcp costs $300.00 a month, $100.00 (25%) less"


def test_traffic_of_unknown_volume_makes_no_machine_dearer_than_another_and_workers_of_unknown_hours_do() -> None:
    cost: dict[str, Any] = {"hourly_usd": "0.4", "monthly_usd": "300.00", "high": "400.00", "depends_on_usage": True}
    assert Money.of({**cost, "kind": "vm"}).compared == Decimal("300.00")
    assert Money.of({**cost, "kind": "serverless"}).compared == Decimal(400)


def test_a_price_that_is_not_known_is_compared_with_nothing() -> None:
    seen = replace(WELL, shown=Money(), billed=Decimal(9), cheapest=Cheapest("L4", Decimal(1)))
    assert findings(seen, Limits()) == ()
    assert Money.of({"monthly_usd": "5.00", "high": "5.00", "hourly_usd": "0.1", "incomplete": True}) == Money()


def test_what_is_past_its_time_is_not_rented_anew_though_it_is_gone() -> None:
    found = findings(drifted(Drift("server", POD, gone=True), ttl_hours=2.5), Limits())
    assert {one.kind for one in found} == {"ttl", "gone"}
    assert repair_of(found) == ("", ())


def test_the_worst_comes_first_and_destroy_comes_before_repair() -> None:
    seen = drifted(Drift("server", POD, gone=True), ttl_hours=1, cheapest=Cheapest("L4", Decimal(1)))
    found = findings(seen, Limits())
    assert [one.severity for one in found] == ["critical", "critical", "info"]
    assert repair_of(found) == ("destroy", ())


def test_what_is_down_but_not_otherwise_than_deployed_is_not_repaired() -> None:
    assert repair_of(findings(replace(WELL, probe=Probe(False, 0, "HTTP 500")), Limits())) == ("", ())


def test_a_repair_names_each_resource_once() -> None:
    found = [Finding("gone", "critical", "", repair="up", resources=("server",))] * 2
    assert repair_of(found) == ("up", ("server",))


def tries(*ago_and_ok: tuple[float, bool]) -> list[Attempt]:
    return [Attempt(NOW - timedelta(minutes=minutes), ok) for minutes, ok in ago_and_ok]


@pytest.mark.parametrize(
    ("attempts", "allowed"),
    [
        ((), True),
        (((4, False),), False),
        (((6, False),), True),
        (((30, False), (9, False)), False),
        (((30, False), (11, False)), True),
        (((1, True),), True),
        (((9, False), (1, True)), True),
        (tuple((60 + n, True) for n in range(6)), False),
        (tuple((24 * 60 + n, True) for n in range(6)), True),
    ],
)
def test_failures_in_a_row_double_the_wait_and_a_day_has_a_most(
    attempts: Sequence[tuple[float, bool]], allowed: bool
) -> None:
    assert (too_soon(tries(*attempts), Bounds(), NOW) == "") is allowed


@given(st.integers(1, 8), st.lists(st.booleans(), min_size=1, max_size=400))
def test_never_more_than_the_most_in_any_24_hours(most: int, outcomes: list[bool]) -> None:
    """A watch that tries as often as it may, every 5 minutes."""
    done: list[Attempt] = []
    bounds = Bounds(attempts_a_day=most)
    for number, ok in enumerate(outcomes):
        now = NOW + timedelta(minutes=5 * number)
        if not too_soon(done, bounds, now):
            done.append(Attempt(now, ok))
    assert done
    for one in done:
        assert sum(one.at <= other.at < one.at + timedelta(days=1) for other in done) <= most


def plan(*steps: tuple[str, str], monthly: str = "182.50", hourly: str = "0.25") -> Repairing:
    quoted = Money(Decimal(hourly), Decimal(monthly), Decimal(monthly))
    return Repairing(tuple(Step(*step) for step in steps), quoted)


@pytest.mark.parametrize(
    "steps",
    [
        [("update", "server"), ("same", "api-key"), ("update", "ready")],
        [("create", "server"), ("read", "x"), ("refresh", "y")],
        [("create-replacement", "server"), ("replace", "server"), ("delete-replaced", "server")],
    ],
)
def test_what_is_broken_may_be_made_again(steps: list[tuple[str, str]]) -> None:
    assert objections(plan(*steps), ("server",), COST, Bounds()) == ()


@pytest.mark.parametrize("step", [("replace", "volume"), ("delete", "volume"), ("create", "volume")])
def test_what_is_well_is_never_replaced_made_or_deleted(step: tuple[str, str]) -> None:
    (why,) = objections(plan(("create", "server"), step), ("server",), COST, Bounds())
    assert why.startswith(f"it would {step[0]} volume, which isn't broken")


def test_one_of_several_servers_may_not_be_replaced_for_another() -> None:
    assert objections(plan(("replace", "server-1")), ("server-2",), COST, Bounds())
    for step in (("delete", "server-2"), ("replace", "server-2"), ("create", "server-3")):
        assert objections(plan(("create", "server"), step), ("server",), COST, Bounds())


def test_a_new_certificate_may_replace_every_server_that_has_it() -> None:
    found = findings(
        drifted(Drift("tls", "vllm-anywhere:index:Certificate", changes={"expired": (False, True)})), Limits()
    )
    repair, broken = repair_of(found)
    assert repair == "up"
    steps = plan(("update", "tls"), ("replace", "server"), ("replace", "server-2"))
    assert objections(steps, broken, COST, Bounds()) == ()


@pytest.mark.parametrize(
    ("planned", "why"),
    [
        (plan(monthly="200.00"), ()),
        (plan(monthly="201.00"), ("it would cost $201.00 a month, more than 10% above the $182.50 of before",)),
        (plan(hourly="0.30"), ("it would cost $0.30 an hour, more than 10% above the $0.2500 of before",)),
        (Repairing((), None), ("what it would cost isn't known",)),
        (Repairing((), Money()), ("what it would cost isn't known",)),
    ],
)
def test_a_repair_may_cost_no_more_than_a_little_more(planned: Repairing, why: tuple[str, ...]) -> None:
    assert objections(planned, ("server",), COST, Bounds()) == why


def test_without_a_cost_to_compare_with_nothing_is_rented() -> None:
    assert objections(plan(), ("server",), Money(), Bounds()) == ("what the stack cost before isn't known",)


@given(st.decimals(0, 10_000, places=2), st.decimals(0, 10_000, places=2), st.integers(0, 100))
def test_what_is_accepted_is_within_the_share(was: Decimal, now: Decimal, percent: int) -> None:
    share = Decimal(percent) / 100
    before, after = Money(None, was, was), Repairing((), Money(None, now, now))
    accepted = objections(after, (), before, Bounds(dearer=share)) == ()
    assert accepted is (now <= was * (1 + share))
