"""Ranking: what fits comes first, cheapest first, and what doesn't says why."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models import model
from serving.offers import Offer
from serving.rank import alternatives, chosen_order, rank, shortlist
from tests.offers import hourly, offer, spec

QWEN = model("Qwen/Qwen3-4B-Instruct-2507")


def test_the_cheapest_offer_that_fits_comes_first_and_misfits_last() -> None:
    ranked = rank(spec(), QWEN, [offer(price="0.9"), offer(gpu="T4", platform="gcp", price="0.1"), offer(price="0.5")])
    assert [(c.ok, c.monthly.expected) for c in ranked] == [
        (True, Decimal("73.0")),
        (True, Decimal("365.0")),
        (True, Decimal("657.0")),
    ]
    too_small = rank(spec(model={"max_len": 200_000}), QWEN, [offer(), offer(gpu="H200", price="4")])
    assert [(c.offer.gpu, c.ok) for c in too_small] == [("H200", True), ("L4", False)]
    assert "model.max_len" in " ".join(too_small[1].reasons)


@pytest.mark.parametrize(
    ("sections", "changes", "why"),
    [
        ({"hardware": {"gpus": ["T4"]}}, {}, "not among hardware.gpus"),
        ({"hardware": {"gpu_count": 2}}, {}, "1 GPUs, not 2"),
        ({}, {"spot": True}, "hardware.spot"),
        ({}, {"tier": "community"}, "placement.tier"),
        ({}, {"availability": "none"}, "sold out"),
        (
            {"placement": {"regions": ["eu"]}},
            {"platform": "gcp", "region": "us-central1", "country": "US"},
            "not in eu",
        ),
        (
            {"placement": {"regions": [], "gdpr": True}},
            {"platform": "gcp", "region": "us-central1", "country": "US"},
            "",
        ),
        ({}, {"platform": "runpod", "gpu": "T4"}, "rents no T4"),
        ({}, {"gpu": "Voodoo 2"}, "no NVIDIA GPU"),
    ],
)
def test_an_offer_that_cannot_be_taken_says_why(sections: dict, changes: dict, why: str) -> None:
    (candidate,) = rank(spec(**sections), QWEN, [offer(**changes)])
    assert not candidate.ok
    assert why in "; ".join(candidate.reasons)


def test_spot_and_community_offers_are_taken_when_the_spec_allows_them() -> None:
    allowed = spec(hardware={"spot": True}, placement={"regions": [], "tier": "any"})
    assert all(c.ok for c in rank(allowed, QWEN, [offer(spot=True), offer(tier="community"), offer()]))


def test_an_offer_without_a_price_never_ranks_before_one_with_a_price() -> None:
    ranked = rank(spec(), QWEN, [offer(price=None), offer(price="9")])
    assert [c.priced for c in ranked] == [True, False]


@given(st.lists(st.sampled_from(["0.2", "0.4", "0.4", "0.8", None]), min_size=2, max_size=8), st.randoms())
def test_the_ranking_does_not_depend_on_the_order_of_the_offers(
    prices: list[str | None], chance: random.Random
) -> None:
    offers = [offer(price=price, sku=f"s{index}") for index, price in enumerate(prices)]
    shuffled = offers[:]
    chance.shuffle(shuffled)
    assert rank(spec(), QWEN, offers) == rank(spec(), QWEN, shuffled)


@given(
    st.lists(
        st.builds(
            offer,
            platform=st.sampled_from(["gcp", "modal", "runpod", "vastai"]),
            gpu=st.sampled_from(["L4", "T4", "RTX 3060", "Voodoo 2", ""]),
            price=st.sampled_from(["0.2", "0.4", None]),
            kind=st.sampled_from(["pod", "serverless"]),
            sku=st.sampled_from("abc"),
            gpu_count=st.integers(1, 2),
            country=st.sampled_from(["", "DE", "US"]),
            tier=st.sampled_from(["own", "secure", "community"]),
            spot=st.booleans(),
            availability=st.sampled_from(["", "high", "none"]),
        ),
        max_size=12,
    ),
    st.fixed_dictionaries(
        {
            "hardware": st.sampled_from([{}, {"spot": True}, {"gpu_count": 2}]),
            "placement": st.sampled_from(
                [
                    {"regions": []},
                    {"regions": ["eu"]},
                    {"regions": ["eu"], "gdpr": True},
                    {"regions": [], "tier": "any"},
                ]
            ),
            "scaling": st.sampled_from([{}, {"min": 0, "max": 2}]),
        }
    ),
)
def test_a_shortlist_is_what_can_be_taken_of_the_ranking(offers: list[Offer], sections: dict) -> None:
    wanted = spec(**sections)
    listed = shortlist(wanted, QWEN, offers)
    assert listed == [candidate for candidate in rank(wanted, QWEN, offers) if candidate.ok]
    key = [(c.incomplete, c.monthly.high if c.sleeps else c.monthly.expected) for c in listed]
    assert key == sorted(key)


def test_a_deployment_tries_the_users_gpus_in_order_then_regions_then_cost() -> None:
    wanted = spec(hardware={"gpus": ["L4", "A10"]}, placement={"regions": ["nl", "be"]})
    places = {"NL": "europe-west4", "BE": "europe-west1"}
    offers = [
        offer("gcp", gpu, price, region=places[country], country=country)
        for gpu, price, country in (("L4", "0.7", "BE"), ("L4", "0.9", "NL"), ("L4", "0.8", "NL"))
    ]
    order = chosen_order(wanted, rank(wanted, QWEN, offers))
    assert [(c.offer.country, c.offer.rates[0].unit_price) for c in order] == [
        ("NL", Decimal("0.8")),
        ("NL", Decimal("0.9")),
        ("BE", Decimal("0.7")),
    ]


def test_alternatives_are_the_three_cheapest_of_other_platforms_one_a_platform_and_gpu() -> None:
    offers = [
        offer("runpod", "L4", "0.1"),
        offer("vastai", "L4", "0.2"),
        offer("vastai", "L4", "0.3"),
        offer("gcp", "L4", "0.4"),
        offer("modal", "L4", "0.5"),
        offer("vastai", "A10", None),
        offer("modal", "A10", "0.45"),
    ]
    found = alternatives(rank(spec(), QWEN, offers), "runpod")
    assert [(c.offer.platform, c.offer.gpu, c.offer.rates[0].unit_price) for c in found] == [
        ("vastai", "L4", Decimal("0.2")),
        ("gcp", "L4", Decimal("0.4")),
        ("modal", "A10", Decimal("0.45")),
    ]


def test_an_open_use_is_ranked_by_what_it_could_cost() -> None:
    sleeping = offer("modal", price="0.3", kind="app", rates=(hourly("0.3", bills="awake"),))
    ranked = rank(spec(scaling={"min": 0, "max": 4}), QWEN, [sleeping, offer(price="0.5")])
    assert [c.offer.platform for c in ranked] == ["runpod", "modal"]
    assert ranked[1].open_use
