"""What is searched for on Vast.ai, what is taken, and in which order. All emulated: no answer here is a real host's."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.vastai.offers import Traffic, VastOffer, as_offer, month, parse_offers
from providers.vastai.search import Wanted, best_per_machine, hourly_usd, misfits, query, ranked

NO_TRAFFIC = Traffic(Decimal(0), Decimal(0))
WANTED = Wanted(
    gpus=("RTX 4090", "L4"), min_memory_gib=22, min_capability=(8, 0), cuda=(12, 9), countries=("DE", "BG"), disk_gb=60
)


def row(**changes: Any) -> dict[str, Any]:
    """One offer as the search answers it, which fits `WANTED`."""
    return {
        "id": 1001,
        "ask_contract_id": 1001,
        "machine_id": 51,
        "host_id": 7,
        "gpu_name": "RTX 4090",
        "num_gpus": 1,
        "gpu_ram": 24564,
        "compute_cap": 890,
        "cuda_max_good": 13.0,
        "cpu_arch": "amd64",
        "disk_space": 300.5,
        "inet_down": 800.0,
        "inet_up": 500.0,
        "dph_base": 0.3,
        "dph_total": 0.3167,
        "storage_cost": 0.2,
        "inet_down_cost": 0.005,
        "inet_up_cost": 0.01,
        "min_bid": 0.12,
        "reliability2": 0.99,
        "verification": "verified",
        "hosting_type": 1,
        "geolocation": "Sofia, BG",
        "static_ip": True,
        "direct_port_count": 20,
        "duration": 2592000.0,
        "end_date": 1798761600.0,
        "rentable": True,
        "rented": False,
        "external": False,
        "is_bid": False,
        **changes,
    }


def offer(**changes: Any) -> VastOffer:
    return VastOffer.model_validate(row(**changes))


def test_an_offer_that_meets_every_constraint_fits() -> None:
    assert misfits(WANTED, offer()) == []


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"gpu_name": "RTX 3090"}, "GPU is RTX 3090"),
        ({"num_gpus": 2}, "2 GPUs"),
        ({"compute_cap": 750}, "compute capability 750"),
        ({"compute_cap": None}, "compute capability unknown"),
        ({"cuda_max_good": 12.8}, "driver takes CUDA 12.8"),
        ({"cuda_max_good": None}, "driver takes CUDA unknown"),
        ({"cpu_arch": "arm64"}, "CPU is arm64"),
        ({"geolocation": "Texas, US"}, "place is Texas, US"),
        ({"geolocation": None}, "place is unknown"),
        ({"hosting_type": 0}, "host is community"),
        ({"hosting_type": None}, "host is community"),
        ({"verification": "unverified"}, "verification is unverified"),
        ({"reliability2": 0.9}, "reliability 0.9"),
        ({"reliability2": None}, "reliability unknown"),
        ({"inet_down": 299.9}, "download 299.9 Mbit/s"),
        ({"duration": 3600.0}, "ends in 1 h"),
        ({"disk_space": 59.9}, "disk 59.9 GB"),
        ({"direct_port_count": 0}, "no open ports"),
        ({"rentable": False}, "not rentable"),
        ({"rented": True}, "not rentable"),
        ({"external": True}, "not rentable"),
    ],
)
def test_each_constraint_is_checked_again_on_the_offer_itself(wrong: dict[str, Any], words: str) -> None:
    assert misfits(WANTED, offer(**wrong)) == [found for found in misfits(WANTED, offer(**wrong)) if words in found]
    assert len(misfits(WANTED, offer(**wrong))) == 1


def test_what_only_some_ask_for_is_checked_too() -> None:
    assert misfits(replace(WANTED, static_ip=True), offer(static_ip=False)) == ["address may change"]
    assert misfits(replace(WANTED, interruptible=True), offer(min_bid=None)) == ["takes no bids"]
    assert misfits(replace(WANTED, excluded=frozenset({51})), offer()) == ["machine 51 is excluded"]


def test_the_ceiling_counts_the_disk_as_well() -> None:
    assert hourly_usd(WANTED, offer()) == Decimal("0.3") + 60 * Decimal("0.2") / 720
    assert misfits(replace(WANTED, max_hourly_usd=Decimal("0.32")), offer()) == []
    assert misfits(replace(WANTED, max_hourly_usd=Decimal("0.31")), offer()) != []


def test_one_name_for_two_sizes_is_told_apart_by_memory() -> None:
    large = replace(WANTED, gpus=("A100 80GB SXM",))
    assert misfits(large, offer(gpu_name="A100 SXM4", gpu_ram=81920, compute_cap=800)) == []
    assert "GPU is A100 SXM4 with 40960 MB" in misfits(large, offer(gpu_name="A100 SXM4", gpu_ram=40960))


def test_a_16_gb_card_is_not_searched_away() -> None:
    # nvidia-smi shows 15360 MB on a T4; a bound of 16000 would hide every one.
    asked = query(replace(WANTED, gpus=("T4",), min_memory_gib=14.56, min_capability=(7, 5)))
    assert asked["gpu_ram"]["gte"] <= 15000
    assert asked["gpu_name"] == {"in": ["Tesla T4"]}
    assert asked["compute_cap"] == {"gte": 750}


def test_the_query_bounds_both_the_driver_and_the_card() -> None:
    # https://github.com/dstackai/gpuhunt/issues/142: one without the other hides GPUs.
    asked = query(WANTED)
    assert asked["cuda_max_good"] == {"gte": 12.9}
    assert asked["compute_cap"] == {"gte": 800}
    assert asked["allocated_storage"] == 60
    assert asked["type"] == "on-demand"
    assert query(replace(WANTED, interruptible=True))["type"] == "bid"
    json.dumps(asked)


def test_the_country_is_the_end_of_the_place() -> None:
    assert [offer(geolocation=text).country for text in ("Sofia, BG", ", US", "DE", None, "", "somewhere")] == [
        "BG",
        "US",
        "DE",
        "",
        "",
        "",
    ]


def test_a_row_that_cannot_be_read_is_counted_not_fatal() -> None:
    offers, unreadable = parse_offers([row(), {"id": 5}, "nonsense", row(dph_base=-1)])
    assert ([found.id for found in offers], unreadable) == ([1001], 3)


def test_money_is_read_to_the_digit() -> None:
    assert offer(dph_base=0.1333333).dph_base == Decimal("0.1333333")
    assert offer(dph_base="0.20").dph_base == Decimal("0.20")


def test_the_cheapest_month_wins_not_the_cheapest_hour() -> None:
    by_the_hour = offer(id=1, dph_base=0.25, inet_down_cost=0.05, inet_up_cost=0.05, storage_cost=0.5)
    by_the_month = offer(id=2, dph_base=0.27)
    busy = Traffic(Decimal(300), Decimal(300))
    assert [found.id for found in ranked(WANTED, [by_the_hour, by_the_month], busy)] == [2, 1]


def test_an_offer_that_hides_a_price_comes_last() -> None:
    hidden, open_ = offer(id=1, dph_base=0.01, inet_up_cost=None), offer(id=2)
    assert [found.id for found in ranked(WANTED, [hidden, open_], NO_TRAFFIC)] == [2, 1]


def test_of_two_equal_prices_the_more_reliable_host_comes_first() -> None:
    less, more = offer(id=1, reliability2=0.96), offer(id=2, reliability2=0.999)
    assert [found.id for found in ranked(WANTED, [less, more], NO_TRAFFIC)] == [2, 1]


def test_a_machine_is_tried_once_whatever_its_offers_are_called() -> None:
    offers = [offer(id=1, machine_id=5), offer(id=2, machine_id=5), offer(id=3, machine_id=6)]
    assert [found.id for found in best_per_machine(offers)] == [1, 3]


def test_a_month_is_gpu_at_730_hours_disk_at_720_and_traffic_both_ways() -> None:
    priced = as_offer(offer(), interruptible=False, source="live", as_of=date(2026, 11, 21))
    incomplete, usd = month(priced, 60, Traffic(Decimal(18), Decimal(2)))
    assert not incomplete
    assert usd == 730 * Decimal("0.3") + 60 * Decimal("0.2") * 730 / 720 + 18 * Decimal("0.005") + 2 * Decimal("0.01")


def test_the_documented_example_of_a_storage_hour() -> None:
    # docs.vast.ai: 10 GB at 0.14933 a month is 0.002074 an hour.
    gap = hourly_usd(replace(WANTED, disk_gb=10), offer(dph_base=0, storage_cost=0.14933))
    assert gap is not None
    assert gap.quantize(Decimal("0.000001")) == Decimal("0.002074")


def test_an_interruptible_offer_costs_its_bid() -> None:
    priced = as_offer(offer(), interruptible=True, source="live", as_of=date(2026, 11, 21))
    assert priced.spot
    assert priced.rates[0].unit_price == Decimal("0.12")


@given(
    rows=st.lists(
        st.builds(
            row,
            id=st.integers(1, 10**6),
            machine_id=st.integers(1, 9),
            dph_base=st.floats(0.01, 3, allow_nan=False).map(lambda price: round(price, 4)),
            reliability2=st.one_of(st.none(), st.floats(0, 1).map(lambda share: round(share, 3))),
            geolocation=st.sampled_from(["Sofia, BG", "Berlin, DE", "Texas, US", None]),
            compute_cap=st.sampled_from([750, 890, None]),
            inet_up_cost=st.sampled_from([None, 0.0, 0.02]),
        ),
        max_size=12,
    ),
    ceiling=st.one_of(st.none(), st.decimals("0.05", "2", places=2)),
)
def test_whatever_is_taken_fits_and_nothing_that_fits_is_lost(
    rows: list[dict[str, Any]], ceiling: Decimal | None
) -> None:
    wanted = replace(WANTED, max_hourly_usd=ceiling)
    offers, _ = parse_offers(rows)
    taken = ranked(wanted, offers, NO_TRAFFIC)
    assert all(not misfits(wanted, found) for found in taken)
    assert len(taken) == sum(not misfits(wanted, found) for found in offers)
    full = [found for found in taken if found.inet_up_cost is not None]
    costs = [found.dph_base * 730 + found.storage_cost * 60 * 730 / 720 for found in full]
    assert costs == sorted(costs)
