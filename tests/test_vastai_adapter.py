"""The spec on Vast.ai, as data. Prices and offers are made up; no host was asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from emulators.vastai import VastEmulator, offer_row

from providers.base import Ask, Ref
from providers.vastai.adapter import ADAPTER
from providers.vastai.offers import VastOffer, as_offer
from providers.vastai.options import VastaiOptions, ceiling, traffic_for
from providers.vastai.pricing import VastMarket, query
from serving.cost import estimate
from serving.models import model
from serving.spec import DeploymentSpec

AT = datetime(2026, 11, 21, 14, 5, tzinfo=UTC)
SHAPE = model("Qwen/Qwen3-4B-Instruct-2507")
SIX = [offer_row(id, dph_base=round(0.3 + id / 100, 2)) for id in range(1, 7)]


def market(rows: list[dict[str, Any]] | None = None, **changes: Any) -> VastMarket:
    asks = tuple(VastOffer.model_validate(row) for row in (SIX if rows is None else rows))
    offers = tuple(as_offer(one, interruptible=False, source="live", as_of=AT.date()) for one in asks)
    return replace(VastMarket(offers, (), asks, AT, SHAPE), **changes)


def ask(found: VastMarket | None = None, options: dict[str, Any] | None = None, **spec: Any) -> Ask:
    given = DeploymentSpec.model_validate({"provider": "vastai", **spec})
    return Ask(given, VastaiOptions.model_validate(options or {}), found or market())


def server(asked: Ask) -> dict[str, Any]:
    declared = ADAPTER.resources(asked, ADAPTER.offers(asked)[0])
    return dict(next(d for d in declared.resources if d.name == "server").inputs)


def test_a_default_spec_is_served_with_tls_by_a_certificate_of_its_own() -> None:
    asked = ask()
    assert ADAPTER.unsupported(asked) == []
    declared = ADAPTER.resources(asked, ADAPTER.offers(asked)[0])
    assert [d.type for d in declared.resources] == [
        "vllm-anywhere:index:Certificate",
        "vllm-anywhere:vastai:Instance",
    ]
    assert declared.endpoint == Ref("server", "endpoint")
    assert declared.ca == server(asked)["caPem"] == Ref("tls", "caPem")
    assert "RTX 4090" in server(asked)["gpus"]
    assert "T4" not in server(asked)["gpus"]


def test_the_best_offer_carries_the_range_of_the_five_best() -> None:
    best = ADAPTER.offers(ask())[0]
    assert (best.sku, best.rates[0].unit_price) == ("1", Decimal("0.31"))
    assert (best.rates[0].lowest, best.rates[0].highest) == (Decimal("0.31"), Decimal("0.35"))


def test_the_notes_say_when_how_much_and_what_the_ceiling_is() -> None:
    asked = ask()
    notes = " ".join(ADAPTER.resources(asked, ADAPTER.offers(asked)[0]).notes)
    for words in ("Best of 6 machines at 14:05 UTC", "median $0.35", "at most $1.00 an hour"):
        assert words in notes


def test_an_interruptible_machine_is_shown_at_what_is_bid_for_it() -> None:
    open_bid = ADAPTER.offers(ask(hardware={"spot": True}))[0].rates[0]
    assert (open_bid.unit_price, open_bid.lowest) == (Decimal("0.15"), Decimal("0.15"))
    fixed = ADAPTER.offers(ask(options={"bid_usd": "0.2"}, hardware={"spot": True}))[0].rates[0]
    assert fixed.unit_price == Decimal("0.2")


def test_a_bid_that_wins_nothing_is_told_with_the_one_that_would() -> None:
    [reason] = ADAPTER.unsupported(ask(options={"bid_usd": "0.05"}, hardware={"spot": True}))
    assert reason.key == "vastai.bid_usd"
    assert "0.05 wins none of the 6 offers that fit: the lowest bid that wins now is $0.12 an hour" in reason.text


def test_a_market_that_has_none_says_which_constraints_it_was_asked_with() -> None:
    asked = ask(market([]), placement={"regions": ["us"]}, hardware={"gpus": ["H200"]})
    [reason] = ADAPTER.unsupported(asked)
    assert reason.key == "hardware.gpus"
    assert "nobody offers 1x H200 with 60 GB of disk in US now (only verified and data centre's machines" in reason.text
    assert ADAPTER.offers(asked) == []


def test_falling_back_to_on_demand_shows_what_it_costs_more() -> None:
    def told(bid: dict[str, str]) -> str:
        asked = ask(options={"fallback": True, **bid}, hardware={"spot": True})
        assert ADAPTER.unsupported(asked) == []
        return " ".join(ADAPTER.resources(asked, ADAPTER.offers(asked)[0]).notes)

    assert "on demand the best costs $0.33 an hour with disk, $0.16 more" in told({})
    assert "the bid does not win now; on demand the best costs $0.33 an hour with disk, $0.19 more" in told(
        {"bid_usd": "0.05"}
    )


def test_inputs_do_not_depend_on_which_offer_is_best_now() -> None:
    other = market([offer_row(77, dph_base=0.2, gpu_name="L4", gpu_ram=23034)])
    assert server(ask()) == server(ask(other))


def test_plain_http_has_to_be_asked_for_and_is_named_a_risk() -> None:
    asked = ask(options={"plain_http": True})
    declared = ADAPTER.resources(asked, ADAPTER.offers(asked)[0])
    assert [d.name for d in declared.resources] == ["server"]
    assert declared.ca is None
    assert any("can be read and changed by everybody" in note for note in declared.notes)
    assert "caPem" not in server(asked)


def test_no_secret_is_among_the_inputs_in_clear() -> None:
    inputs = server(ask())
    assert inputs["apiKey"] == Ref("api-key", "value")
    assert "api-key" not in inputs["script"]


def test_the_lowest_cap_is_the_ceiling() -> None:
    def of(budget: dict[str, str]) -> Decimal:
        return ceiling(DeploymentSpec.model_validate({"budget": budget}), VastaiOptions())

    assert of({}) == Decimal(1)
    assert of({"hourly_usd": "0.5"}) == Decimal("0.5")
    assert of({"monthly_usd": "365"}) == Decimal("0.5")


def test_several_servers_are_each_on_a_machine_of_its_own_and_cost_what_those_cost_together() -> None:
    asked = ask(scaling={"min": 3}, budget={"hourly_usd": "1.5"}, usage={"requests_per_day": 3000})
    assert ADAPTER.unsupported(asked) == []
    three = ADAPTER.offers(asked)[0]
    gpus = estimate(asked.spec, three).lines[0]
    assert gpus.monthly == 730 * (Decimal("0.31") + Decimal("0.32") + Decimal("0.33"))
    assert "mean of 3 servers, 0.31 to 0.33" in gpus.rate.assumption
    inputs = server(asked)
    assert inputs["maxHourlyUsd"] == "0.5000"
    assert inputs["downloadGb"] == server(ask(usage={"requests_per_day": 1000}))["downloadGb"]
    assert ADAPTER.resources(asked, three).each == ("server",)


@pytest.mark.parametrize(
    ("spec", "options", "key"),
    [
        ({"scaling": {"min": 0, "max": 1}}, {}, "scaling.min"),
        ({"scaling": {"min": 7, "max": 7}}, {}, "scaling.min"),
        ({}, {"bid_usd": "0.2"}, "vastai.bid_usd"),
        ({"placement": {"regions": ["europe-west4"]}}, {}, "placement.regions"),
        ({"hardware": {"gpus": ["GTX 1080 Ti"]}}, {}, "hardware.gpus"),
        ({"hardware": {"disk_gb": 20}}, {}, "hardware.disk_gb"),
        ({}, {"max_hourly_usd": "0.2"}, "vastai.max_hourly_usd"),
        ({"placement": {"regions": ["de"]}}, {}, "hardware.gpus"),
    ],
)
def test_what_cannot_work_names_its_key(spec: dict[str, Any], options: dict[str, Any], key: str) -> None:
    assert key in [reason.key for reason in ADAPTER.unsupported(ask(options=options, **spec))]


def test_a_price_that_is_in_the_way_is_told_with_the_price_that_would_do() -> None:
    [reason] = ADAPTER.unsupported(ask(options={"max_hourly_usd": "0.2"}))
    assert "the cheapest of 6 offers that fit costs $0.33 an hour" in reason.text


def test_gdpr_keeps_to_data_centres_in_the_eea() -> None:
    inputs = server(ask(placement={"gdpr": True, "tier": "any", "regions": ["europe"]}))
    assert inputs["tier"] == "secure"
    assert "BG" in inputs["countries"]
    assert not {"GB", "CH", "US"} & set(inputs["countries"])


def test_a_t4_is_taken_when_named_and_then_served_in_half_precision() -> None:
    rows = [offer_row(1, gpu_name="Tesla T4", gpu_ram=15360, compute_cap=750, dph_base=0.1)]
    asked = ask(market(rows), hardware={"gpus": ["T4"]}, model={"max_len": 2048})
    assert ADAPTER.unsupported(asked) == []
    inputs = server(asked)
    assert (inputs["minCapability"], inputs["gpus"]) == ("7.5", ["T4"])
    declared = ADAPTER.resources(asked, ADAPTER.offers(asked)[0])
    assert any("half precision" in note for note in declared.notes)


def test_traffic_is_image_weights_and_what_the_declared_use_moves() -> None:
    quiet = traffic_for(DeploymentSpec(), SHAPE)
    assert (quiet.download_gb, quiet.upload_gb) == (Decimal(19), Decimal(0))
    busy = DeploymentSpec.model_validate({"usage": {"requests_per_day": 100_000}})
    assert traffic_for(busy, SHAPE).upload_gb == Decimal(183)


def test_dated_prices_are_used_and_said_to_be_when_the_market_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")
    spec = DeploymentSpec.model_validate({"provider": "vastai", "hardware": {"gpus": ["RTX 4090"]}})
    found = query(spec)
    assert found.asks == ()
    offers = ADAPTER.offers(Ask(spec, VastaiOptions(), found))
    assert offers and {offer.rates[0].source for offer in offers} == {"snapshot"}
    assert ADAPTER.unsupported(Ask(spec, VastaiOptions(), found)) == []


def test_a_live_market_is_searched_without_a_key_and_nothing_is_rented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAST_API_KEY", raising=False)
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    monkeypatch.setattr("providers.vastai.client._SLOTS", {})
    with VastEmulator([dict(row) for row in SIX]) as emulator:
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", emulator.url)
        spec = DeploymentSpec.model_validate({"provider": "vastai"})
        found = query(spec)
        assert len(found.asks) == 6
        assert ADAPTER.offers(Ask(spec, VastaiOptions(), found))[0].rates[0].source == "live"
        assert {call.path for call in emulator.calls} == {"/api/v0/bundles/"}
        assert emulator.violations == []


def test_a_market_without_offers_is_not_taken_for_one_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    monkeypatch.setattr("providers.vastai.client._SLOTS", {})
    with VastEmulator([]) as emulator:
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", emulator.url)
        found = query(DeploymentSpec.model_validate({"provider": "vastai"}))
    assert (found.asks, found.offers) == ((), ())
    assert found.at is not None


def test_a_market_that_answers_with_an_error_falls_back_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    monkeypatch.setattr("providers.vastai.client._SLOTS", {})
    monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", "http://127.0.0.1:9")
    found = query(DeploymentSpec.model_validate({"provider": "vastai"}))
    assert found.asks == ()
    assert any("Live prices of vastai" in note for note in found.notes)


SERVERLESS = {"mode": "serverless", "template_hash": "4e17788f74f075dd9aab7d0d4427968f"}


def test_serverless_needs_a_template_and_may_sleep() -> None:
    asleep = {"scaling": {"min": 0, "max": 2}}
    assert [reason.key for reason in ADAPTER.unsupported(ask(options={"mode": "serverless"}, **asleep))] == [
        "vastai.template_hash"
    ]
    asked = ask(options=SERVERLESS, **asleep)
    assert ADAPTER.unsupported(asked) == []
    offer = ADAPTER.offers(asked)[0]
    declared = ADAPTER.resources(asked, offer)
    assert [d.type.rsplit(":")[-1] for d in declared.resources] == ["Endpoint", "Workergroup"]
    assert (offer.kind, offer.rates[0].bills) == ("serverless", "awake")
    (disks,) = [line.quantity for line in estimate(asked.spec, offer).lines if line.rate.meter == "disk"]
    assert disks and disks.expected == Decimal(2 * asked.spec.hardware.disk_gb * 730) / 720, "asleep they bill, too"
    assert "gpu_name in [" in declared.resources[1].inputs["search"]
    assert "verified=True" in declared.resources[1].inputs["search"]
    anybody = ask(options={**SERVERLESS, "verified": False}, **asleep)
    assert "verified" not in ADAPTER.resources(anybody, offer).resources[1].inputs["search"]
    assert any("own_api_key" in note for note in declared.notes)
