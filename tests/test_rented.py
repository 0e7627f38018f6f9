"""What was rented, told by a resource, and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from infra.plan import make_plan
from providers.vastai.pricing import VastMarket
from serving.lines import cents
from serving.models import model
from serving.offers import Offer, Rate
from serving.rented import as_output, completed, dated_as, from_output, together
from serving.spec import HOURS_PER_MONTH, SpecError

DAY = date(2026, 11, 1)


def rate(meter: str, price: str | None, day: date | None = DAY) -> Rate:
    return Rate(meter, "Hours", None if price is None else Decimal(price), "live", "https://example.org", day)


def offer(*rates: Rate) -> Offer:
    return Offer(
        platform="vastai",
        kind="instance",
        sku="7",
        gpu="RTX 4090",
        gpu_count=1,
        region="Sofia, BG",
        country="BG",
        tier="secure",
        spot=False,
        rates=rates,
    )


def test_an_offer_survives_being_an_output() -> None:
    given = offer(rate("GPU", "0.30000001"), replace(rate("disk", "0.2"), bills="kept", month_hours=720))
    assert from_output(json.loads(json.dumps(as_output(given)))) == given


def test_an_unknown_price_and_date_survive_although_pulumi_drops_nulls() -> None:
    given = offer(rate("GPU", None, None))
    assert "unit_price" not in as_output(given)["rates"][0]
    assert from_output(as_output(given)) == given


def test_what_is_no_offer_of_this_version_is_none() -> None:
    for value in (None, "", {}, {"rates": "none"}, {"rates": [1]}, {**as_output(offer()), "tier": "third"}):
        assert from_output(value) is None


def test_a_price_keeps_the_day_it_was_first_told_until_it_changes() -> None:
    first, later = offer(rate("GPU", "0.3")), offer(rate("GPU", "0.3", date(2026, 12, 1)))
    assert dated_as(as_output(first), later) == first
    dearer = offer(rate("GPU", "0.4", date(2026, 12, 1)))
    assert dated_as(as_output(first), dearer) == dearer
    assert dated_as({}, later) == later


def test_what_a_machine_does_not_tell_is_as_planned() -> None:
    planned = offer(rate("GPU", "0.2"), rate("disk", "0.1"))
    assert [r.unit_price for r in completed(offer(rate("GPU", "0.5")), planned).rates] == [
        Decimal("0.5"),
        Decimal("0.1"),
    ]


def test_several_servers_cost_their_mean_each() -> None:
    one, other = offer(rate("GPU", "0.2"), rate("disk", "0.1")), offer(rate("GPU", "0.4"), rate("disk", "0.1"))
    found = together([one, other])
    assert [r.unit_price for r in found.rates] == [Decimal("0.3"), Decimal("0.1")]
    assert "0.2 to 0.4" in found.rates[0].assumption
    assert together([one]) == one


def test_a_mean_that_never_ends_is_told_to_nine_digits_and_comes_to_the_same_cent() -> None:
    three = [offer(rate("GPU", price)) for price in ("0.31", "0.32", "0.38")]
    mean = together(three).rates[0].unit_price
    assert mean is not None and str(mean) == "0.336666667"
    assert cents(3 * HOURS_PER_MONTH * mean) == cents(HOURS_PER_MONTH * Decimal("1.01"))


def test_a_price_that_one_server_lacks_is_unknown_for_all() -> None:
    assert together([offer(rate("GPU", "0.2")), offer(rate("GPU", None))]).rates[0].unit_price is None


def test_where_nothing_is_offered_a_plan_is_made_on_what_is_rented_if_that_would_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = VastMarket((), at=datetime(2026, 11, 21, tzinfo=UTC), model=model("Qwen/Qwen3-4B-Instruct-2507"))
    monkeypatch.setattr("providers.vastai.pricing.query", lambda spec: bare)
    spot = {"vllm-anywhere:provider": "vastai", "vllm-anywhere:hardware": '{"spot": true}'}
    with pytest.raises(SpecError):
        make_plan(spot)
    rented = replace(offer(rate("GPU", "0.3")), spot=True)
    plan = make_plan(spot, lambda platform: rented)
    assert plan.offer == rented
    assert any("What is rented stays" in note for note in plan.declared.notes)
    with pytest.raises(SpecError):
        make_plan(spot, lambda platform: replace(rented, gpu_count=2))
