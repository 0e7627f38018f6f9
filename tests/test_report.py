"""The report of every platform's preview, from the dated prices, as people see it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from serving.lines import CostLine, Estimate, exactly
from serving.models import model
from serving.prices import snapshot
from serving.quote import Quote, Running, quote, running
from serving.rank import chosen_order, rank
from serving.report import PlanView, change_text, cost_output, dollars, plan_facts, plan_report, signed, unit_dollars
from serving.snapshot import snapshot_offers
from serving.spec import DeploymentSpec
from tests import golden
from tests.offers import hourly, offer, spec

QWEN = model("Qwen/Qwen3-4B-Instruct-2507")
RUNS = Running("local", "this machine", Decimal("182.50"))
USE = {"usage": {"requests_per_day": 1000}, "budget": {"monthly_usd": "2000"}}

STACKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "runpod": ("runpod", "pod", {}),
    "runpod-serverless": ("runpod", "serverless", {"scaling": {"min": 0, "max": 3}}),
    "vastai": ("vastai", "instance", {"placement": {"regions": ["eu"], "tier": "any"}}),
    "vastai-spot": (
        "vastai",
        "instance",
        # There are no dated prices of bids: the total is incomplete, and no budget could be kept.
        {"placement": {"regions": [], "tier": "any"}, "hardware": {"spot": True}, "budget": {}},
    ),
    "gcp-t4": ("gcp", "vm", {"hardware": {"gpus": ["T4"]}}),
    "gcp-t4-spot": ("gcp", "vm", {"hardware": {"gpus": ["T4"], "spot": True}}),
    "gcp-l4": ("gcp", "vm", {"hardware": {"gpus": ["L4"]}}),
    "modal": ("modal", "app", {"scaling": {"min": 0, "max": 1}, "hardware": {"gpus": ["A10"]}}),
}


def quote_on(platform: str, kind: str, sections: dict[str, Any]) -> Quote:
    """The quote of the offer that a deployment would try first, from the dated prices."""
    asked = DeploymentSpec.model_validate({"provider": "local", **USE, **sections})
    offers = snapshot_offers(snapshot())
    here = [o for o in offers if o.platform == platform and o.kind == kind and o.spot == asked.hardware.spot]
    return quote(asked, QWEN, chosen_order(asked, rank(asked, QWEN, here))[0].offer, lambda: offers)


def view(of: Quote) -> PlanView:
    return PlanView(
        hardware=f"{of.offer.gpu_count} x {of.offer.gpu}",
        model=of.spec.model.served_name,
        engine=f"vLLM {of.spec.engine.version}",
        creates=[("server", f"vllm-anywhere:{of.offer.platform}:Server")],
        notes=["A note about this platform."],
    )


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("stack", STACKS)
def test_the_preview_of_every_platform_shows_the_whole_report(stack: str, width: int) -> None:
    found = quote_on(*STACKS[stack])
    text = plan_report(view(found), found, RUNS, width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    golden.check(f"report/{stack}-{width}.txt", text)


def test_the_report_as_pulumi_indents_it_is_no_wider_than_a_terminal() -> None:
    found = quote_on(*STACKS["runpod"])
    text = plan_report(view(found), found, RUNS)
    assert max(len(f"    {line}") for line in text.splitlines()) <= 80


def test_brackets_in_a_note_are_no_tags() -> None:
    found = quote_on(*STACKS["runpod"])
    note = "Wider: `placement.regions: [eu]`."
    assert note in plan_report(replace(view(found), notes=[note]), found, RUNS)


def test_the_same_data_is_there_for_programs() -> None:
    found = quote_on(*STACKS["runpod"])
    facts = plan_facts(view(found), found, RUNS)
    cost = facts["cost"]
    assert cost["monthly_usd"] == f"{sum(Decimal(line['ContractedCost']) for line in cost['lines']):.2f}"
    assert Decimal(facts["change"]["monthly_usd"]) == Decimal(cost["monthly_usd"]) - RUNS.monthly
    assert Decimal(cost["budget"]["left_usd"]) == 2000 - Decimal(cost["monthly_usd"])
    assert len(cost["alternatives"]) == 3
    assert "runpod" not in {other["provider"] for other in cost["alternatives"]}


def test_the_stack_output_has_the_bill_and_the_alternatives_in_one_line_each() -> None:
    found = quote_on(*STACKS["runpod"])
    facts, output = found.as_output(), cost_output(found)
    assert {key: output[key] for key in output if key not in ("lines", "alternatives")} == {
        key: facts[key] for key in facts if key not in ("lines", "alternatives")
    }
    assert output["kind"] == "pod"
    assert len(output["lines"]) == len(facts["lines"])
    for text, line in zip(output["lines"], facts["lines"], strict=True):
        assert text.startswith(f"{line['SkuMeter']}: ")
        assert f" = {dollars(Decimal(line['ContractedCost']))} a month" in text
        assert line["x_PriceAsOf"] in text
    for text, other in zip(output["alternatives"], facts["alternatives"], strict=True):
        assert text.startswith(f"{other['provider']}: {other['gpu']}, ")


def test_a_missing_price_makes_the_total_incomplete_and_is_never_zero() -> None:
    chosen = offer(rates=(hourly("0.50"), hourly(None, meter="disk")))
    found = quote(spec(), QWEN, chosen, lambda: [chosen])
    text = plan_report(view(found), found, None)
    assert "not found" in text
    assert "$365.00+" in text
    assert "incomplete: a price was not found" in text
    assert found.as_output()["incomplete"] is True


def test_an_undeclared_use_says_what_a_unit_costs_and_what_to_declare() -> None:
    chosen = offer(kind="serverless", rates=(hourly("0.0002", unit="Seconds", bills="awake"),))
    found = quote(spec(scaling={"min": 0, "max": 1}), QWEN, chosen, lambda: [chosen])
    text = plan_report(view(found), found, None, 120)
    assert "depends on usage" in text
    assert "$0.0002/s" in text
    assert "declare usage.requests_per_day" in text
    assert "change     not known: it depends on usage" in text


@pytest.mark.parametrize(
    ("monthly", "now", "text"),
    [
        ("298.70", "257.50", "+$41.20/month (+16 %) against local, this machine, which runs now"),
        ("100", "200", "-$100.00/month (-50 %) against local, this machine, which runs now"),
        ("100", "0", "+$100.00/month against local, this machine, which runs now"),
        ("100", None, "+$100.00/month: nothing runs now"),
    ],
)
def test_the_change_is_shown_against_what_runs_now(monthly: str, now: str | None, text: str) -> None:
    before = None if now is None else Running("local", "this machine", Decimal(now))
    once = CostLine(offer(), hourly(monthly), exactly(Decimal(1)), Decimal(1), "baseline")
    assert change_text(Estimate((once,)), before) == text


@pytest.mark.parametrize(
    "cost",
    [
        {"monthly_usd": "6.00", "incomplete": True},
        {"monthly_usd": "0.10", "depends_on_usage": True, "kind": "serverless"},
        # Pulumi drops what is null.
        {"incomplete": True},
    ],
)
def test_no_change_is_told_against_a_cost_that_is_not_known(cost: dict[str, Any]) -> None:
    now = running({"cost": cost, "provider": "runpod", "hardware": "2 pods", "endpoints": [{}, {}]})
    assert now == Running("runpod", "2 pods", None, servers=2)
    found = quote_on(*STACKS["runpod"])
    assert plan_facts(view(found), found, now)["change"] == {
        "monthly_usd": None,
        "text": "not known: what runs now has no known cost (runpod, 2 pods)",
    }
    assert "not known: what runs now has no known cost" in plan_report(view(found), found, now)


def test_traffic_that_depends_on_usage_is_left_out_of_the_change() -> None:
    cost = {"monthly_usd": "182.50", "depends_on_usage": True, "kind": "vm"}
    assert running({"cost": cost, "provider": "local", "hardware": "this machine"}) == RUNS


@pytest.mark.parametrize("outputs", [{}, {"provider": "p", "hardware": ""}, {"cost": None, "provider": "p"}])
def test_a_stack_without_a_cost_runs_nothing(outputs: dict[str, Any]) -> None:
    assert running(outputs) is None


def test_what_runs_is_read_from_the_outputs_of_the_last_up() -> None:
    outputs = {"cost": {"monthly_usd": "182.50"}, "provider": "local", "hardware": "this machine"}
    assert running(outputs) == RUNS


def test_amounts_are_shown_with_the_digits_that_matter() -> None:
    assert dollars(Decimal("1234.565")) == "$1,234.57"
    assert dollars(Decimal("0.00031")) == "$0.00031"
    assert dollars(Decimal("-12.5")) == "-$12.50"
    assert unit_dollars(Decimal("0.00000222")) == "$0.00000222"
    assert unit_dollars(Decimal("3")) == "$3.00"
    assert signed(Decimal("0")) == "+$0.00"
