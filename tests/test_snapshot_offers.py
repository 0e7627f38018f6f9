"""The offers that the price snapshot makes up, against figures worked out by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from decimal import Decimal

import pytest

from serving.cost import estimate, stopped_cost
from serving.gpus import PLATFORMS, all_gpus
from serving.lines import cents
from serving.offers import Offer, Rate
from serving.prices import parse_prices, snapshot, with_user_prices
from serving.snapshot import machines, rate_of, snapshot_offers
from serving.spec import DeploymentSpec, HardwareSpec, ScalingSpec
from tests.test_prices import sheet

OFFERS = snapshot_offers(snapshot())

NO_PRICE_FOUND = {
    # GPU: the platforms that rent it at a price that no dated source was found for.
    "A2": {"vastai"},
    "A30": {"runpod", "vastai"},
    "A100X": {"vastai"},
    "GH200": {"vastai"},
    "V100 32GB": {"runpod"},
    "P100 16GB": {"gcp"},
    "P4": {"vastai"},
    "RTX A4500": {"vastai"},
    "RTX A5500": {"vastai"},
    "RTX 2000 Ada": {"vastai"},
    "RTX 2060 12GB": {"vastai"},
    "RTX 2080": {"vastai"},
    "RTX 2080 SUPER": {"vastai"},
    "RTX 3050": {"vastai"},
    "RTX 3080 12GB": {"vastai"},
    "RTX 4090D": {"vastai"},
}


def offers(platform: str, sku: str, **wanted: object) -> list[Offer]:
    found = [o for o in OFFERS if (o.platform, o.sku) == (platform, sku)]
    return [o for o in found if all(getattr(o, name) == value for name, value in wanted.items())]


def only(platform: str, sku: str, **wanted: object) -> Offer:
    (found,) = offers(platform, sku, **{"spot": False, **wanted})
    return found


def with_meters(offer: Offer, *meters: str, extra: tuple[Rate, ...] = ()) -> Offer:
    return replace(offer, rates=(*(r for r in offer.rates if r.meter in meters), *extra))


def always_on(disk_gb: int = 60) -> DeploymentSpec:
    return DeploymentSpec(provider="x", scaling=ScalingSpec(min=1, max=1), hardware=HardwareSpec(disk_gb=disk_gb))


def priced(offer: Offer) -> bool:
    return all(rate.unit_price is not None for rate in offer.rates)


def test_every_gpu_of_every_platform_has_an_offer_and_the_unpriced_ones_are_known() -> None:
    unpriced: dict[str, set[str]] = {}
    for gpu in all_gpus():
        for platform in gpu.platform_names:
            sold = [o for count in (1, 8) for o in snapshot_offers(snapshot(), platform, count) if o.gpu == gpu.name]
            assert sold, (gpu.name, platform)
            if not any(priced(o) for o in sold):
                assert all(o.rates for o in sold)
                unpriced.setdefault(gpu.name, set()).add(platform)
    assert unpriced == NO_PRICE_FOUND


def test_an_unknown_price_is_none_and_says_so_in_the_estimate() -> None:
    offer = only("runpod", "NVIDIA A30")
    assert offer.rates[0].unit_price is None
    made = estimate(always_on(), offer)
    assert made.incomplete
    assert made.lines[0].description == "GPU: price not found"


def test_no_two_offers_are_the_same() -> None:
    names = [(o.platform, o.kind, o.sku, o.gpu, o.gpu_count, o.region, o.tier, o.spot) for o in OFFERS]
    assert len(names) == len(set(names))


def test_no_float_is_in_a_rate_and_no_price_is_zero() -> None:
    for rate in {rate for offer in OFFERS for rate in offer.rates}:
        assert not any(isinstance(getattr(rate, f.name), float) for f in fields(rate))
        assert rate.unit_price is None or rate.unit_price > 0


def test_gcp_t4_with_n1_lists_and_nets_what_google_bills() -> None:
    ssd = next(p for p in snapshot() if p.meter == "pd-ssd disk" and p.region == "us-central1")
    offer = only("gcp", "n1-standard-4", gpu="T4", region="us-central1")
    made = estimate(always_on(100), with_meters(offer, "GPU", "vCPU", "memory", extra=(rate_of(ssd),)))
    assert cents(made.listed) == Decimal("411.20")
    assert cents(made.monthly) == Decimal("292.94")


def test_gcp_spot_has_no_sustained_use_discount_and_costs_less() -> None:
    for offer in (o for o in OFFERS if o.platform == "gcp" and o.spot and priced(o)):
        assert not any(rate.sustained_use for rate in offer.rates)
        twin = [o for o in OFFERS if (o.sku, o.gpu, o.region, o.spot) == (offer.sku, offer.gpu, offer.region, False)]
        for same in twin:
            assert estimate(always_on(), offer).monthly < estimate(always_on(), same).monthly


def test_gcp_a2_is_priced_all_in() -> None:
    offer = only("gcp", "a2-highgpu-1g", region="us-central1")
    made = estimate(always_on(), with_meters(offer, "machine"))
    assert (cents(made.listed), cents(made.monthly)) == (Decimal("2681.57"), Decimal("2681.57"))
    assert "GPU" not in {rate.meter for rate in offer.rates}


def test_gcp_g2_does_not_bill_its_l4_twice() -> None:
    """Infracost's golden file lists 515.99 for the machine, which holds the L4, and 286.18 for the L4 again."""
    for offer in offers("gcp", "g2-standard-4"):
        assert {rate.meter for rate in offer.rates}.isdisjoint({"GPU", "vCPU", "memory"})
    made = estimate(always_on(), only("gcp", "g2-standard-4", region="us-central1"))
    assert [cents(line.monthly or Decimal(0)) for line in made.lines if line.rate.meter == "machine"] == [
        Decimal("515.99")
    ]
    assert Decimal("286.18") not in {cents(line.monthly or Decimal(0)) for line in made.lines}
    assert made.monthly < Decimal(540)


def test_gcp_h100_on_demand_comes_by_the_eight_only() -> None:
    single = offers("gcp", "a3-highgpu-1g")
    assert single
    assert all(offer.spot for offer in single)
    assert any(o.sku == "a3-highgpu-8g" and not o.spot for o in snapshot_offers(snapshot(), "gcp", gpu_count=8))


def test_gcp_regions_carry_their_country_and_evidence() -> None:
    offer = only("gcp", "g2-standard-4", region="europe-west4")
    assert (offer.country, offer.tier) == ("NL", "secure")
    assert offer.evidence == "GCP region europe-west4, Netherlands"
    assert all(o.country for o in OFFERS if o.platform == "gcp" and o.region)


@pytest.mark.parametrize(("region", "factor"), [("", "1"), ("eu", "1.5"), ("us", "1.5")])
def test_modal_a10_with_cores_and_memory(region: str, factor: str) -> None:
    offer = only("modal", "A10", region=region)
    assert [(r.meter, r.quantity) for r in offer.rates] == [("GPU", 1), ("CPU core", 4), ("memory", 16)]
    made = estimate(always_on(), offer)
    assert cents(made.monthly) == cents(Decimal(factor) * Decimal("1035.21708"))
    assert all(("1.5 x" in r.assumption) == bool(region) for r in offer.rates)


def test_modal_a10_costs_what_was_worked_out() -> None:
    assert cents(estimate(always_on(), only("modal", "A10", region="")).monthly) == Decimal("1035.22")


def test_runpod_sixteen_gb_flex_worker_always_on() -> None:
    offer = only("runpod", "AMPERE_16", gpu="RTX A4000")
    assert offer.rates[0].bills == "awake"
    assert cents(estimate(always_on(), with_meters(offer, "GPU")).monthly) == Decimal("420.48")


def test_a_stopped_runpod_pod_costs_nothing_for_its_disk_is_erased() -> None:
    offer = only("runpod", "NVIDIA L4", tier="secure")
    made = estimate(always_on(60), offer)
    assert cents(made.monthly) == Decimal("0.49") * 730 + Decimal("6.00")
    assert stopped_cost(always_on(60), offer) == 0


def test_runpod_tiers_differ_in_price_and_evidence() -> None:
    both = {o.tier: o for o in offers("runpod", "NVIDIA GeForce RTX 4090", kind="pod")}
    assert both["secure"].evidence == "RunPod Secure Cloud"
    assert both["community"].evidence == "RunPod Community Cloud"
    assert (both["community"].rates[0].unit_price or 0) < (both["secure"].rates[0].unit_price or 0)


def test_vastai_disk_is_billed_by_a_720_hour_month() -> None:
    offer = only("vastai", "RTX 3090", kind="instance", tier="community")
    disk = next(line for line in estimate(always_on(72), offer).lines if line.rate.meter == "disk")
    assert disk.rate.month_hours == 720
    assert disk.quantity is not None
    assert disk.quantity.expected == 73
    assert disk.monthly == Decimal("0.15") * 73


def test_vastai_prices_are_ranges_and_bandwidth_bills_both_ways() -> None:
    offer = only("vastai", "RTX 4090", kind="instance", tier="community")
    gpu = offer.rates[0]
    assert gpu.lowest is not None
    assert gpu.highest is not None
    assert gpu.unit_price is not None
    assert gpu.lowest <= gpu.unit_price <= gpu.highest
    assert {rate.bills for rate in offer.rates} == {"running", "kept", "download", "upload"}


def test_vastai_serverless_costs_what_an_instance_costs_while_awake() -> None:
    instance = only("vastai", "RTX 4090", kind="instance", tier="community").rates[0]
    assert only("vastai", "RTX 4090", kind="serverless").rates[0] == replace(instance, bills="awake")


def test_vastai_bids_and_verified_datacenters_are_offered_without_a_price() -> None:
    (bid,) = offers("vastai", "RTX 4090", kind="instance", spot=True)
    (secure,) = offers("vastai", "RTX 4090", kind="instance", tier="secure")
    assert bid.rates[0].unit_price is None
    assert secure.rates[0].unit_price is None
    assert secure.evidence == "Vast.ai verified datacenter"


def test_a_users_price_reaches_the_offer_with_its_label() -> None:
    mine = parse_prices(sheet({"value": "0.3", "url": "contract of 2026-11"}), "user", "mine.csv")
    made = snapshot_offers(with_user_prices(snapshot(), mine), "runpod")
    (offer,) = (o for o in made if o.sku == "NVIDIA L4" and o.kind == "pod")
    assert (offer.rates[0].unit_price, offer.rates[0].source) == (Decimal("0.3"), "user")
    assert {rate.source for rate in offer.rates[1:]} == {"snapshot"}
    assert estimate(always_on(), offer).lines[0].focus()["x_PriceSource"] == "user"


def test_a_users_price_makes_an_unpriced_gpu_known() -> None:
    mine = parse_prices(sheet({"gpu": "A30", "value": "0.2"}), "user", "mine.csv")
    made = snapshot_offers(with_user_prices(snapshot(), mine), "runpod")
    assert [priced(o) for o in made if o.sku == "NVIDIA A30"] == [True]


def test_a_users_price_for_every_tier_and_place_wins_over_narrower_snapshot_prices() -> None:
    gcp = {"platform": "gcp", "kind": "vm", "tier": "", "value": "0.125"}
    mine = parse_prices(
        sheet({"gpu": "RTX 4090", "tier": "", "value": "0.125"}, {**gcp, "gpu": "T4"}), "user", "mine.csv"
    )
    made = snapshot_offers(with_user_prices(snapshot(), mine))
    pods = [o for o in made if o.platform == "runpod" and o.kind == "pod" and o.gpu == "RTX 4090"]
    vms = [o for o in made if o.platform == "gcp" and o.gpu == "T4" and not o.spot and o.region]
    assert {o.tier for o in pods} == {"secure", "community"}
    assert {o.rates[0].unit_price for o in (*pods, *vms)} == {Decimal("0.125")}


def test_the_offers_come_in_the_same_order_in_every_process() -> None:
    show = "from serving.prices import snapshot\nfrom serving.snapshot import snapshot_offers\n"
    show += "print([(o.sku, o.region, o.tier, o.spot, o.rates) for o in snapshot_offers(snapshot())])"
    runs = {
        subprocess.run(
            [sys.executable, "-c", show],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_a_users_price_for_one_region_wins_over_the_one_for_everywhere() -> None:
    row = {
        "platform": "gcp", "kind": "vm", "meter": "machine", "sku": "g2-standard-4", "region": "europe-west4",
        "value": "0.5",
    }  # fmt: skip
    mine = parse_prices(sheet(row), "user", "mine.csv")
    made = snapshot_offers(with_user_prices(snapshot(), mine), "gcp")
    found = {o.region: o.rates[0].source for o in made if o.sku == "g2-standard-4" and not o.spot}
    assert {region for region, source in found.items() if source == "user"} == {"europe-west4"}


def test_without_prices_everything_is_still_offered_at_an_unknown_price() -> None:
    made = snapshot_offers(())
    assert {o.platform for o in made} == set(PLATFORMS)
    assert all(rate.unit_price is None for o in made for rate in o.rates)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_one_platforms_offers_are_those_among_all(platform: str) -> None:
    assert snapshot_offers(snapshot(), platform) == tuple(o for o in OFFERS if o.platform == platform)


def test_two_gpus_cost_twice_one_and_google_sells_the_machine_that_holds_them() -> None:
    two = snapshot_offers(snapshot(), gpu_count=2)
    assert {o.gpu_count for o in two} == {2}
    pod = next(o for o in two if o.sku == "NVIDIA L4" and o.kind == "pod")
    assert pod.rates[0] == replace(only("runpod", "NVIDIA L4", kind="pod").rates[0], quantity=Decimal(2))
    assert {"g2-standard-24", "n1-standard-8"} <= {o.sku for o in two if o.platform == "gcp"}


def test_every_machine_is_billed_by_a_meter_once() -> None:
    assert all(len(set(machine.parts)) == len(machine.parts) for machine in machines())
