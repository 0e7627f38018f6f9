"""Budgets: what breaks one, the line that costs most, and the cheapest change that would do."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from serving.budget import budget_of, over_budget
from serving.cost import estimate
from serving.models import model
from serving.offers import Offer
from serving.rank import Candidate, rank
from serving.spec import DeploymentSpec
from tests.offers import hourly, offer, spec

QWEN = model("Qwen/Qwen3-4B-Instruct-2507")


def refusal(wanted: DeploymentSpec, chosen: Offer, *others: Offer) -> str:
    def ranking(changed: DeploymentSpec) -> Sequence[Candidate]:
        return rank(changed, QWEN, [chosen, *others])

    return "\n".join(map(str, over_budget(wanted, chosen, estimate(wanted, chosen), ranking)))


def limited(monthly: str, **sections: object) -> DeploymentSpec:
    return spec(budget={"monthly_usd": monthly}, **sections)


def test_a_plan_within_its_budget_is_fine_and_says_what_is_left() -> None:
    wanted = limited("400")
    assert refusal(wanted, offer(price="0.50")) == ""
    budget = budget_of(wanted, estimate(wanted, offer(price="0.50")))
    assert budget and budget.left == Decimal("35.00")
    assert not budget.risky


def test_without_a_limit_there_is_no_budget() -> None:
    assert budget_of(spec(), estimate(spec(), offer())) is None
    assert refusal(spec(), offer(price="99")) == ""


def test_a_plan_over_its_budget_names_the_key_the_excess_the_dearest_line_and_a_budget_that_would_do() -> None:
    chosen = offer(rates=(hourly("0.50"), hourly("0.10", meter="disk")))
    text = refusal(limited("400"), chosen)
    assert text.startswith("vllm-anywhere:budget.monthly_usd = 400:")
    assert "$438.00 a month, $38.00 too much" in text
    assert "GPU of L4, $365.00 a month" in text
    assert "or a budget of 438.00" in text


@given(st.decimals("0.0001", "20", places=4), st.integers(1, 8))
def test_the_budget_that_is_named_is_one_that_the_plan_keeps_within(price: Decimal, servers: int) -> None:
    chosen, scaling = offer(price=str(price)), {"min": servers, "max": servers}
    for key in ("monthly_usd", "hourly_usd"):
        text = refusal(spec(budget={key: "0.000001"}, scaling=scaling), chosen)
        named = text.rpartition("or a budget of ")[2]
        assert refusal(spec(budget={key: named}, scaling=scaling), chosen) == ""


def test_another_gpu_of_the_same_platform_is_the_first_change_offered() -> None:
    text = refusal(
        limited("300"), offer(price="0.5"), offer(gpu="RTX A4000", price="0.4"), offer("vastai", "A10", "0.1")
    )
    assert "Within it: `hardware.gpus: [RTX A4000]` for $292.00" in text


def test_interruptible_capacity_of_the_same_platform_comes_before_another_platform() -> None:
    text = refusal(limited("300"), offer(price="0.5"), offer(price="0.3", spot=True), offer("vastai", "A10", "0.1"))
    assert "Within it: `hardware.spot: true` and `hardware.gpus: [L4]` for $219.00" in text


def test_another_platform_is_offered_when_nothing_here_keeps_within_the_limit() -> None:
    text = refusal(limited("100"), offer(price="0.5"), offer("vastai", "A10", "0.1"))
    assert "Within it: `provider: vastai` and `hardware.gpus: [A10]` for $73.00" in text


def test_fewer_workers_are_offered_when_several_always_run() -> None:
    text = refusal(limited("400", scaling={"min": 3, "max": 3}), offer(price="0.5"))
    assert "`scaling.min: 1` and `hardware.gpus: [L4]` for $365.00" in text


def test_as_many_workers_stay_as_the_limit_bears() -> None:
    for servers in (3, 4, 17):
        text = refusal(limited("800", scaling={"min": servers, "max": servers}), offer(price="0.5"))
        assert "`scaling.min: 2` and `hardware.gpus: [L4]` for $730.00" in text
    text = refusal(
        spec(budget={"hourly_usd": "3.2"}, scaling={"min": 9, "max": 9}), offer(price="0.5"), offer("vastai", "A10")
    )
    assert "Within it: `scaling.min: 6` and `hardware.gpus: [L4]` for $3.00 an hour" in text
    both = refusal(limited("300", scaling={"min": 4, "max": 4}), offer(price="0.5"), offer(price="0.2", spot=True))
    assert "`scaling.min: 2` and `hardware.spot: true` and `hardware.gpus: [L4]` for $292.00" in both


def test_when_nothing_is_cheap_enough_the_cheapest_is_named() -> None:
    text = refusal(limited("10"), offer(price="0.5"), offer("vastai", "A10", "0.1"))
    assert "Nothing that fits costs so little, the cheapest being A10 on vastai for $73.00" in text


def test_an_unknown_price_breaks_every_limit() -> None:
    text = refusal(limited("1000"), offer(rates=(hourly("0.5"), hourly(None, meter="disk"))))
    assert "no price was found for disk" in text


def test_the_hourly_limit_counts_every_worker() -> None:
    wanted = spec(budget={"hourly_usd": "0.75"}, scaling={"min": 2, "max": 2})
    assert "budget.hourly_usd = 0.75: the plan costs $1.00 an hour" in refusal(wanted, offer(price="0.5"))


def test_a_plan_that_could_cost_more_than_its_budget_is_risky_but_allowed() -> None:
    moving = offer(rates=(hourly("0.50", lowest=Decimal("0.40"), highest=Decimal("0.90")),))
    wanted = limited("400")
    assert refusal(wanted, moving) == ""
    budget = budget_of(wanted, estimate(wanted, moving))
    assert budget and budget.risky


def test_settings_are_combined_when_one_alone_is_not_enough() -> None:
    text = refusal(limited("100"), offer(price="0.5"), offer("vastai", "A10", "0.1", tier="community"))
    assert "Within it: `provider: vastai` and `placement.tier: any` and `hardware.gpus: [A10]` for $73.00" in text


def test_letting_workers_sleep_is_offered_where_they_can() -> None:
    workers = offer(kind="serverless", rates=(hourly("0.60", bills="awake"),))
    wanted = limited("300", scaling={"min": 1, "max": 3}, usage={"requests_per_day": 1000})
    assert "Within it: `scaling.min: 0` and `hardware.gpus: [L4]` for" in refusal(wanted, workers)


def test_the_hourly_limit_names_a_change_too() -> None:
    text = refusal(spec(budget={"hourly_usd": "0.4"}), offer(price="0.5"), offer(gpu="RTX A4000", price="0.3"))
    assert "Within it: `hardware.gpus: [RTX A4000]` for $0.30 an hour" in text


def test_a_use_that_is_not_declared_breaks_a_limit_that_full_use_would() -> None:
    workers = offer(kind="serverless", rates=(hourly("0.60", bills="awake"),))
    text = refusal(limited("10", scaling={"min": 0, "max": 1}), workers)
    assert "depends on its use, up to $438.00 a month; declare `usage.requests_per_day`" in text
    assert refusal(limited("500", scaling={"min": 0, "max": 1}), workers) == ""
