"""What is billed, part by part, and how an estimate leaves the program."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from serving.cost import Assumptions, Estimator, boot_cost, estimate, stopped_cost, sustained_hours
from serving.lines import CostLine, Estimate, cents
from serving.offers import Offer, Rate, no_charge
from serving.scale_to_zero import Awake
from serving.spec import HOURS_PER_MONTH, DeploymentSpec
from tests.offers import hourly, offer, spec

DOCUMENT = Path(__file__).parent.parent / "docs" / "cost.md"


def rate(meter: str, unit: str, price: str | None, **changes: Any) -> Rate:
    return hourly(price, meter=meter, unit=unit, **changes)


def bill(wanted: DeploymentSpec, *rates: Rate, assumed: Assumptions | None = None, **changes: Any) -> Estimate:
    return estimate(wanted, offer(rates=rates, **changes), assumed)


def usd(amount: Decimal | None) -> str:
    assert amount is not None
    return str(cents(amount))


def monthly(found: Estimate) -> dict[str, str]:
    """Each line's net cost a month, by what the line is."""
    return {line.rate.meter: usd(line.monthly) for line in found.lines}


# --- every part that bills


def test_a_gpu_is_billed_for_all_hours_of_the_month_and_for_each_server() -> None:
    assert usd(bill(spec(), hourly("0.34")).monthly) == "248.20"
    assert usd(bill(spec(scaling={"min": 2}), hourly("0.34")).monthly) == "496.40"


def test_two_gpus_of_one_server_cost_twice_as_much() -> None:
    assert usd(bill(spec(), hourly("0.34", quantity=Decimal(2))).monthly) == "496.40"


N1_STANDARD_4_WITH_T4 = (
    rate("GPU", "Hours", "0.35", quantity=Decimal(1), sustained_use=True),
    rate("vCPU", "Hours", "0.031611", quantity=Decimal(4), sustained_use=True),
    rate("memory", "Hours", "0.004237", quantity=Decimal(15), sustained_use=True),
    rate("boot disk", "GB-Months", "0.17", quantity=Decimal(100), bills="kept"),
)


def test_cores_and_memory_of_a_vm_are_lines_of_their_own() -> None:
    found = bill(spec(), *N1_STANDARD_4_WITH_T4[1:3], kind="vm")
    assert {line.rate.meter: usd(line.list_cost) for line in found.lines} == {"vCPU": "92.30", "memory": "46.40"}


def test_googles_discount_for_a_whole_month_is_shown_beside_the_list_price() -> None:
    found = bill(spec(), *N1_STANDARD_4_WITH_T4, kind="vm")
    assert (usd(found.listed), usd(found.monthly)) == ("411.20", "292.94")
    assert found.lines[0].net == Decimal("0.7")
    assert found.lines[3].net == 1
    output = found.as_output()
    assert (output["list_usd"], output["monthly_usd"]) == ("411.20", "292.94")
    assert (output["lines"][0]["ListCost"], output["lines"][0]["ContractedCost"]) == ("255.5", "178.85")


@pytest.mark.parametrize(
    ("hours", "billed"), [("730", "511"), ("547.5", "438"), ("365", "328.5"), ("182.5", "182.5"), ("0", "0")]
)
def test_sustained_use_bills_each_quarter_of_the_month_less(hours: str, billed: str) -> None:
    assert sustained_hours(Decimal(hours)) == Decimal(billed)


def test_half_a_month_of_sustained_use_gets_the_discount_of_half_a_month() -> None:
    found = bill(spec(), hourly("0.35", sustained_use=True), assumed=Assumptions(hours=Decimal(365)))
    assert found.monthly == Decimal("0.35") * Decimal("328.5")


def test_spot_capacity_and_commitments_get_no_sustained_use_discount() -> None:
    assert bill(spec(), hourly("0.175", sustained_use=True), spot=True).lines[0].net == 1
    committed = bill(spec(), hourly("0.35", sustained_use=True, discount=Decimal("0.55")))
    assert usd(committed.monthly) == "114.98"
    assert usd(committed.listed) == "255.50"


def test_spot_is_a_range_around_its_price_now() -> None:
    found = bill(
        spec(), hourly("0.175", lowest=Decimal("0.10"), highest=Decimal("0.35")), spot=True, platform="gcp", kind="vm"
    )
    assert [usd(x) for x in (found.span.low, found.span.expected, found.span.high)] == ["73.00", "127.75", "255.50"]
    assert found.lines[0].focus()["PricingCategory"] == "Dynamic"


def test_a_range_that_leaves_out_the_price_itself_is_widened_to_it() -> None:
    found = bill(spec(), hourly("0.5", lowest=Decimal("0.6"), highest=Decimal("0.4")))
    assert (found.span.low, found.span.high) == (365, 365)


def test_a_volume_is_billed_from_create_to_destroy_and_a_stopped_server_pays_what_the_platform_asks_then() -> None:
    """RunPod: a pod's volume costs twice as much while the pod is stopped, its container disk nothing."""
    pod = offer(
        rates=(
            hourly("0.26"),
            rate("container disk", "GB-Months", "0.10", quantity=Decimal(20)),
            rate("volume", "GB-Months", "0.10"),
            rate("volume", "GB-Months", "0.20", bills="stopped"),
            rate("network volume", "GB-Months", "0.07", quantity=Decimal(10), bills="kept"),
        )
    )
    wanted = spec(hardware={"disk_gb": 60})
    assert monthly(estimate(wanted, pod)) == {
        "GPU": "189.80",
        "container disk": "2.00",
        "volume": "6.00",
        "network volume": "0.70",
    }
    assert stopped_cost(wanted, pod) == Decimal("12.70")


def test_what_is_kept_costs_the_same_while_stopped_unless_the_platform_has_another_price_for_that() -> None:
    kept = rate("disk", "GB-Months", "0.15", bills="kept", month_hours=720)
    assert stopped_cost(spec(), offer(rates=(hourly("0.11"), kept))) == estimate(spec(), offer(rates=(kept,))).monthly
    assert stopped_cost(spec(), offer(rates=(replace(kept, unit_price=None),))) is None


def test_a_price_for_being_stopped_takes_the_place_of_the_same_meters_usual_one() -> None:
    rates = (
        rate("disk", "GB-Months", "0.10", bills="kept", quantity=Decimal(50)),
        rate("disk", "GB-Months", "0.20", bills="stopped", quantity=Decimal(50)),
    )
    assert stopped_cost(spec(), offer(rates=rates)) == 10


def test_a_public_address_is_billed_by_the_hour() -> None:
    assert monthly(bill(spec(), rate("public IP", "Hours", "0.005", bills="kept"))) == {"public IP": "3.65"}


VAST = (
    hourly("0.11"),
    rate("disk", "GB-Months", "0.15", bills="kept", month_hours=720),
    rate("download", "GB", "0.01", bills="download"),
    rate("upload", "GB", "0.02", bills="upload"),
)


def test_vast_bills_disk_by_a_month_of_720_hours_and_traffic_both_ways() -> None:
    wanted = spec(usage={"requests_per_day": 100_000, "input_tokens": 500, "output_tokens": 200})
    found = bill(wanted, *VAST, platform="vastai")
    lines = {line.rate.meter: line for line in found.lines}
    # 60 GB x 730 / 720; 10 GB of image and 8.1 GB of weights; 3,041,667 requests of 2.5 kB in and 60 kB out.
    quantities = {meter: f"{line.quantity.expected:.2f}" for meter, line in lines.items() if line.quantity}
    assert quantities == {
        "GPU": "730.00",
        "disk": "60.83",
        "download, at create": "18.10",
        "download, prompts": "7.60",
        "upload": "182.50",
    }
    assert {meter: usd(line.monthly) for meter, line in lines.items()} == {
        "GPU": "80.30",
        "disk": "9.13",
        "download, at create": "0.18",
        "download, prompts": "0.08",
        "upload": "3.65",
    }
    assert [line.basis for line in found.lines] == ["baseline", "baseline", "baseline", "usage", "usage"]
    # The GPU's 0.11 an hour and the disk's 9.00 in 720 hours.
    assert found.peak_hourly == Decimal("0.1225")


def test_image_and_weights_are_pulled_by_each_server_each_time_it_is_made() -> None:
    found = bill(spec(scaling={"min": 2}), VAST[2], assumed=Assumptions(creates=Decimal(3)))
    assert found.lines[0].quantity
    assert found.lines[0].quantity.expected == Decimal("108.6")
    assert "10 GB of image and 8.1 GB of weights" in found.lines[0].rate.assumption


def test_traffic_that_depends_on_an_undeclared_use_is_bounded_by_what_the_worker_can_answer() -> None:
    """30 streams of 37 tokens a second and 300 bytes a token, for 730 hours: 875.124 GB."""
    found = bill(spec(), VAST[3])
    assert found.lines[0].description == "upload: depends on usage: $0.02 per GB"
    assert found.span.high == Decimal("0.02") * Decimal("875.124")
    assert found.span.low == found.span.expected == 0


def test_a_quantity_of_traffic_that_is_given_is_not_worked_out() -> None:
    found = bill(
        spec(usage={"requests_per_day": 10}), rate("egress", "GB", "0.12", bills="upload", quantity=Decimal(5))
    )
    assert monthly(found) == {"egress": "0.60"}


# --- workers that sleep

FLEX = rate("worker", "Seconds", "0.00016", bills="awake")
AS_IN_THE_TABLE = Assumptions(tokens_per_s=Decimal(50), boot_s=Decimal(20))


def sleepy(**changes: Any) -> DeploymentSpec:
    sections: dict[str, Any] = {
        "scaling": {"min": 0, "max": 1, "idle_timeout_s": 5},
        "usage": {"requests_per_day": 1000, "output_tokens": 200},
    }
    return spec(**sections | changes)


def serverless(wanted: DeploymentSpec, *rates: Rate, assumed: Assumptions = AS_IN_THE_TABLE) -> Estimate:
    return bill(wanted, *rates, assumed=assumed, kind="serverless")


def test_worker_seconds_are_answering_idling_and_starting_and_add_up() -> None:
    found = serverless(sleepy(), FLEX)
    assert usd(found.monthly) == "106.99"
    assert [line.phase for line in found.lines] == ["answering", "idle", "starting"]
    seconds = [line.quantity.expected for line in found.lines if line.quantity]
    assert sum(seconds) == 668_658
    # 745.5 starts a day of 20 s, for 30.4 days.
    assert usd(found.lines[2].monthly) == "72.57"
    assert found.lines[2].rate.assumption == "746 starts a day, 75% of requests start a worker, 20 s each"
    assert {line.basis for line in found.lines} == {"usage"}
    assert found.baseline == 0


def test_a_longer_idle_timeout_and_a_longer_start_are_billed() -> None:
    base = serverless(sleepy(), FLEX).monthly
    patient = sleepy(scaling={"min": 0, "max": 1, "idle_timeout_s": 60})
    assert serverless(patient, FLEX).monthly > base
    assert serverless(sleepy(), FLEX, assumed=replace(AS_IN_THE_TABLE, boot_s=Decimal(60))).monthly > base


def test_low_and_high_are_half_and_twice_the_declared_traffic() -> None:
    found = serverless(sleepy(), FLEX)
    half = sleepy(usage={"requests_per_day": 500, "output_tokens": 200})
    twice = sleepy(usage={"requests_per_day": 2000, "output_tokens": 200})
    assert found.span.low == serverless(half, FLEX).monthly
    assert found.span.high == serverless(twice, FLEX).monthly


def test_a_replay_that_wobbles_leaves_low_expected_and_high_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    ups = iter([Awake(0.5), Awake(0.4), Awake(0.3)])
    monkeypatch.setattr("serving.cost.awake", lambda load: next(ups))
    span = serverless(sleepy(), FLEX).span
    assert span.low == span.expected == span.high > 0


def test_workers_that_are_always_up_are_baseline_and_further_ones_usage() -> None:
    wanted = sleepy(
        scaling={"min": 1, "max": 3, "idle_timeout_s": 5}, usage={"requests_per_day": 200_000, "output_tokens": 200}
    )
    found = serverless(wanted, FLEX, assumed=replace(AS_IN_THE_TABLE, concurrency=8))
    assert usd(found.baseline) == "420.48"
    assert found.lines[0].phase == "always on"
    assert found.usage > 0
    assert found.peak_hourly == 3 * Decimal("0.576")


def test_as_many_workers_least_as_most_are_baseline_whatever_the_traffic() -> None:
    found = serverless(sleepy(scaling={"min": 2, "max": 2}), FLEX)
    assert [(line.rate.meter, line.basis) for line in found.lines] == [("worker", "baseline")]
    assert usd(found.monthly) == "840.96"


def test_undeclared_use_of_workers_that_sleep_says_what_a_unit_costs() -> None:
    found = serverless(sleepy(usage={}, scaling={"min": 0, "max": 3}), FLEX)
    assert found.open_use
    assert found.lines[0].description == "worker: depends on usage: $0.00016 per second"
    assert found.lines[0].monthly is None
    assert (found.span.low, found.monthly, usd(found.span.high)) == (0, 0, "1261.44")


def test_undeclared_use_leaves_the_cost_of_what_is_always_up_known() -> None:
    found = serverless(sleepy(usage={}, scaling={"min": 1, "max": 3}), FLEX)
    assert (usd(found.baseline), usd(found.monthly), usd(found.span.high)) == ("420.48", "420.48", "1261.44")
    assert [line.rate.meter for line in found.lines] == ["worker, always on", "worker, on demand"]


def test_no_request_at_all_costs_what_is_kept() -> None:
    volume = rate("volume", "GB-Months", "0.07", quantity=Decimal(20), bills="kept")
    found = serverless(sleepy(usage={"requests_per_day": 0}), FLEX, volume)
    assert usd(found.monthly) == usd(found.span.high) == "1.40"


def test_a_volume_of_workers_that_sleep_is_shared_by_all() -> None:
    volume = rate("volume", "GB-Months", "0.07", quantity=Decimal(20), bills="kept")
    assert usd(serverless(sleepy(scaling={"min": 2, "max": 5}), volume).monthly) == "1.40"


def test_more_than_the_workers_can_answer_is_said() -> None:
    found = serverless(sleepy(usage={"requests_per_day": 10_000_000}), FLEX)
    assert "more arrives than the workers can answer" in found.lines[0].rate.assumption
    assert usd(found.monthly) == "420.48"


def test_a_pod_does_not_ask_how_long_workers_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(load: object) -> None:
        raise AssertionError(load)

    monkeypatch.setattr("serving.cost.awake", never)
    busy = sleepy(scaling={"min": 0, "max": 5}, usage={"requests_per_day": 10**6})
    assert usd(bill(busy, hourly("0.34")).monthly) == "248.20"


def test_a_worker_answers_no_more_together_than_its_engine_does() -> None:
    one_by_one = sleepy(engine={"max_num_seqs": 1})
    assert Estimator(one_by_one, AS_IN_THE_TABLE).load == replace(
        Estimator(sleepy(), AS_IN_THE_TABLE).load, concurrency=1
    )


def test_only_the_dearest_meter_of_a_worker_is_split_into_phases_wherever_it_stands() -> None:
    memory = rate("memory", "Seconds", "0.00000222", quantity=Decimal(16), bills="awake")
    for rates in ((FLEX, memory), (memory, FLEX)):
        found = serverless(sleepy(), *rates)
        assert {line.rate.meter for line in found.lines} == {
            "worker, answering",
            "worker, idle",
            "worker, starting",
            "memory",
        }


# Modal's page of 2026-07-01, with four cores and 16 GiB: a month of one container that never sleeps.
MODAL = [
    ("T4", "0.000164", "662.05"),
    ("L4", "0.000222", "814.47"),
    ("A10", "0.000306", "1035.22"),
    ("A100 40GB", "0.000583", "1763.18"),
    ("A100 80GB", "0.000694", "2054.89"),
    ("H100", "0.001097", "3113.97"),
]


def modal(gpu: str, factor: str = "1") -> Offer:
    times = Decimal(factor)
    meters = (("GPU", gpu, 1), ("CPU core", "0.0000131", 4), ("memory", "0.00000222", 16))
    rates = tuple(
        rate(meter, "Seconds", str(Decimal(price) * times), quantity=Decimal(count), bills="awake")
        for meter, price, count in meters
    )
    return offer("modal", rates=rates, kind="app")


@pytest.mark.parametrize(("gpu", "price", "total"), MODAL)
def test_a_modal_container_costs_its_gpu_its_cores_and_its_memory(gpu: str, price: str, total: str) -> None:
    assert usd(estimate(spec(scaling={"min": 1, "max": 1}), modal(price)).monthly) == total


@pytest.mark.parametrize("factor", ["1.5", "1.75"])
def test_a_pinned_region_of_modal_multiplies_everything(factor: str) -> None:
    wanted = sleepy()
    anywhere, pinned = estimate(wanted, modal("0.000306")), estimate(wanted, modal("0.000306", factor))
    assert pinned.monthly == anywhere.monthly * Decimal(factor)
    assert pinned.span.high == anywhere.span.high * Decimal(factor)


def test_a_start_costs_its_seconds_and_where_traffic_is_billed_the_pull() -> None:
    assumed = Assumptions(boot_s=Decimal(60))
    assert boot_cost(spec(), offer(price="0.6"), assumed) == Decimal("0.01")
    machine = offer(rates=(hourly("0.6"), VAST[2], rate("disk", "GB-Months", "0.15", bills="kept")))
    assert boot_cost(spec(), machine, assumed) == Decimal("0.191")
    agreed = offer(rates=(hourly("0.6", discount=Decimal("0.5")),))
    assert boot_cost(spec(), agreed, assumed) == Decimal("0.005")
    assert boot_cost(spec(), offer(price=None)) is None


# --- what isn't known


def test_an_unknown_price_is_no_zero_and_marks_the_total() -> None:
    found = bill(spec(), hourly(None), rate("disk", "GB-Months", "0.10"))
    assert found.incomplete
    assert found.lines[0].description == "GPU: price not found"
    assert found.lines[0].monthly is None
    assert found.lines[0].span is None
    output = found.as_output()
    assert output["incomplete"] is True
    assert output["monthly_usd"] == "6.00"
    assert output["lines"][0]["ListCost"] is None
    assert output["lines"][0]["ListUnitPrice"] is None


def test_a_total_without_a_single_known_price_is_null_and_not_zero() -> None:
    output = bill(spec(), hourly(None)).as_output()
    amounts = ("hourly_usd", "monthly_usd", "list_usd", "baseline_usd", "usage_usd", "low", "expected", "high")
    assert [output[key] for key in amounts] == [None] * len(amounts)


def test_what_nobody_bills_is_zero_and_complete() -> None:
    found = estimate(spec(), offer("local", rates=(no_charge("your own machine"),), kind="process"))
    assert not found.incomplete
    assert found.as_output()["monthly_usd"] == "0.00"


# --- the month


def test_the_month_has_730_hours_and_can_have_those_of_a_calendar() -> None:
    assert HOURS_PER_MONTH == 730
    assert Assumptions().hours == 730
    assert [usd(bill(spec(), hourly("0.35"), assumed=Assumptions(hours=Decimal(h))).monthly) for h in (672, 744)] == [
        "235.20",
        "260.40",
    ]


def test_the_hourly_cost_is_the_months_and_the_peak_is_with_every_worker_up() -> None:
    found = serverless(sleepy(scaling={"min": 0, "max": 3, "idle_timeout_s": 5}), FLEX)
    assert found.hourly == found.monthly / 730
    assert found.peak_hourly == 3 * Decimal("0.576")


# --- how it leaves the program


def example() -> Estimate:
    """The worked example of `docs/cost.md`."""
    wanted = spec(
        hardware={"disk_gb": 20},
        scaling={"min": 0, "max": 3, "idle_timeout_s": 60},
        usage={"requests_per_day": 1000, "input_tokens": 500, "output_tokens": 200},
    )
    rates = (
        replace(FLEX, url="https://docs.runpod.io/serverless/pricing"),
        rate("network volume", "GB-Months", "0.07", bills="kept"),
    )
    return bill(wanted, *rates, kind="serverless", sku="AMPERE_16")


def test_the_stack_output_survives_json_and_is_the_same_each_time() -> None:
    first, again = (json.dumps(example().as_output()) for _ in range(2))
    assert first == again
    assert json.loads(first) == example().as_output()


def test_the_stack_output_is_text_to_the_cent_with_list_and_net() -> None:
    output = example().as_output()
    money = re.compile(r"-?\d+\.\d{2}")
    for key in ("monthly_usd", "list_usd", "baseline_usd", "usage_usd", "low", "expected", "high"):
        assert money.fullmatch(output[key]), key
    assert re.fullmatch(r"\d+\.\d{4}", output["hourly_usd"])
    assert output["hours"] == "730"
    assert output["expected"] == output["monthly_usd"]
    assert output["lines"] == [line.focus() for line in example().lines]
    assert output["lines"][0]["x_PriceAsOf"] == "2026-11-01"


FOCUS_COLUMNS = {
    "Provider",
    "ServiceName",
    "ResourceId",
    "ResourceType",
    "RegionId",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "ChargeCategory",
    "ChargeFrequency",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ListUnitPrice",
    "ListCost",
    "ContractedUnitPrice",
    "ContractedCost",
    "BillingCurrency",
    "ChargeDescription",
}
NULLABLE = {"ResourceId", "ResourceType", "RegionId"}


def focus_rows(found: Estimate) -> list[dict[str, str | None]]:
    return [line.focus() for line in found.lines]


@pytest.mark.parametrize("found", [example(), bill(spec(), *N1_STANDARD_4_WITH_T4), bill(sleepy(), *VAST)], ids=str)
def test_a_line_is_a_row_of_focus(found: Estimate) -> None:
    for row in focus_rows(found):
        own = {name for name in row if name.startswith("x_")}
        assert set(row) - own == FOCUS_COLUMNS
        assert own == {"x_PriceSource", "x_PriceUrl", "x_PriceAsOf", "x_Basis", "x_Assumption"}
        assert all(value is None or (isinstance(value, str) and value) for value in row.values())
        assert not {name for name in FOCUS_COLUMNS - NULLABLE if row[name] is None}
        assert row["ChargeCategory"] == "Usage"
        assert row["ChargeFrequency"] == "Usage-Based"
        assert row["PricingCategory"] in {"Standard", "Dynamic", "Committed", "Other"}
        assert row["PricingUnit"] in {"Hours", "Seconds", "GB-Months", "GB"}
        assert row["BillingCurrency"] == "USD"


def test_the_phases_of_a_worker_are_one_meter_and_one_price() -> None:
    rows = focus_rows(example())
    assert [row["SkuMeter"] for row in rows] == ["worker"] * 3 + ["network volume"]
    assert len({row["SkuPriceId"] for row in rows[:3]}) == 1


def test_spot_and_on_demand_are_two_prices() -> None:
    ids = {estimate(spec(), offer(spot=spot)).lines[0].focus()["SkuPriceId"] for spot in (True, False)}
    assert len(ids) == 2


def test_an_agreed_discount_is_in_the_contracted_cost_and_not_in_the_list_cost() -> None:
    row = bill(spec(), hourly("0.35", discount=Decimal("0.4"))).lines[0].focus()
    assert (row["ListCost"], row["ContractedUnitPrice"], row["ContractedCost"]) == ("255.5", "0.21", "153.3")
    assert row["PricingCategory"] == "Committed"


def test_a_quantity_that_never_ends_is_written_to_ten_places() -> None:
    disk = rate("disk", "GB-Months", "0.2", bills="kept", quantity=Decimal(50), month_hours=720)
    row = bill(spec(), disk).lines[0].focus()
    assert (row["PricingQuantity"], row["ListCost"]) == ("50.6944444444", "10.1388888889")


def test_small_prices_are_written_in_plain_digits() -> None:
    line: CostLine = bill(sleepy(usage={}), rate("memory", "Seconds", "0.0000001", bills="awake"), kind="app").lines[0]
    assert line.description == "memory: depends on usage: $0.0000001 per second"
    assert line.focus()["ListUnitPrice"] == "0.0000001"


# --- the documentation


def test_the_documentation_names_every_key_of_the_stack_output() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    output = example().as_output()
    assert not [key for key in (*output, *output["lines"][0]) if f"`{key}`" not in text]
