"""What becomes of the spec on Modal: declarations, reasons, offers. No network, no package of Modal's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from infra.plan import make_plan
from infra.program import _report as report  # pyright: ignore[reportPrivateUsage]
from providers import market
from providers.base import Ask, Declared, Ref
from providers.modal import pricing
from providers.modal.adapter import ADAPTER
from providers.modal.apps import App, AppInputs
from providers.modal.choices import ModalOptions
from providers.model_shape import model_shape
from serving.cost import assumptions_for, estimate
from serving.places import all_places
from serving.spec import DeploymentSpec


def asked(secrets: frozenset[str] = frozenset(), modal: dict[str, Any] | None = None, **sections: Any) -> Ask:
    spec = DeploymentSpec.model_validate({"provider": "modal", **sections})
    return Ask(spec, ModalOptions.model_validate(modal or {}), pricing.query(spec), secrets)


def declared(ask: Ask) -> Declared:
    assert ADAPTER.unsupported(ask) == []
    return ADAPTER.resources(ask, ADAPTER.offers(ask)[0])


def server(ask: Ask) -> dict[str, Any]:
    return dict(declared(ask).resources[-1].inputs)


def monthly(ask: Ask) -> Decimal:
    offer = ADAPTER.offers(ask)[0]
    total = estimate(ask.spec, offer, assumptions_for(model_shape(ask.spec.model))).monthly
    assert total is not None
    return total.quantize(Decimal("0.01"))


def test_a_stack_that_only_switches_provider_is_valid() -> None:
    inputs = server(asked())
    assert inputs["gpus"] == ["T4"]
    assert inputs["regions"] == ["eu"]
    assert inputs["routingRegion"] == "eu-west"
    assert inputs["image"] == "vllm/vllm-openai:v0.27.1"
    assert (inputs["minContainers"], inputs["maxContainers"], inputs["scaledownWindowS"]) == (1, 1, 60)
    assert "--dtype half" in inputs["script"]
    assert "--middleware vllm_anywhere_guard.Guard" in inputs["script"]
    assert inputs["volume"] == Ref("cache", "name")
    assert inputs["env"] == {"HF_HOME": "/cache/huggingface", "VLLM_CACHE_ROOT": "/cache/vllm"}


def test_what_is_declared_is_what_the_resource_takes() -> None:
    inputs = server(asked(frozenset({"hf_token"}), hardware={"gpus": ["H100"]}, scaling={"min": 0, "max": 3}))
    filled = {
        **inputs,
        "volume": "v",
        "apiKey": "k",
        "previousKey": "k",
        "hfToken": "t",
        "label": "a/b/c/1",
    }
    App().check(AppInputs.model_validate(filled).model_dump())
    assert AppInputs.model_validate(filled).max_containers == 3


def test_without_a_volume_nothing_is_left_after_the_app() -> None:
    found = declared(asked(modal={"volume": False}))
    assert [one.name for one in found.resources] == ["server"]
    assert found.resources[0].inputs["env"] == {}
    assert "volume" not in found.resources[0].inputs


def test_listed_gpus_stay_in_their_order_and_the_dearest_is_estimated() -> None:
    ask = asked(hardware={"gpus": ["L4", "A10"]})
    assert server(ask)["gpus"] == ["L4", "A10"]
    first = ADAPTER.offers(ask)[0]
    assert first.gpu == "A10"
    assert (first.rates[0].lowest, first.rates[0].highest) == (Decimal("0.000333"), Decimal("0.000459"))
    assert monthly(ask) == monthly(asked(hardware={"gpus": ["A10"]}))


@pytest.mark.parametrize(
    ("gpu", "usd"),
    [
        ("T4", "662.05"),
        ("L4", "814.47"),
        ("A10", "1035.22"),
        ("A100-40GB", "1763.18"),
        ("A100-80GB", "2054.89"),
        ("H100", "3113.97"),
    ],
)
def test_an_hour_of_a_container_is_gpu_four_cores_and_sixteen_gib(gpu: str, usd: str) -> None:
    each = pricing.hourly_usd([(gpu, 1)], 4.0, 16384, [])
    assert each is not None
    assert (each * 730).quantize(Decimal("0.01")) == Decimal(usd)


@pytest.mark.parametrize(("region", "factor"), [("eu", "1.5"), ("eu-west", "1.75"), ("uk", "1.5"), ("us-east", "1.75")])
def test_a_pinned_region_multiplies_everything(region: str, factor: str) -> None:
    anywhere = monthly(asked(placement={"regions": []}, hardware={"gpus": ["A10"]}))
    there = monthly(asked(placement={"regions": [region]}, hardware={"gpus": ["A10"]}))
    assert there == (anywhere * Decimal(factor)).quantize(Decimal("0.01"))


def test_of_several_regions_the_dearest_is_estimated() -> None:
    assert pricing.factor_of(["eu", "us-east"]) == Decimal("1.75")
    both = asked(placement={"regions": ["uk", "us-east"]}, hardware={"gpus": ["A10"]})
    assert server(both)["regions"] == ["uk", "us-east"]
    assert monthly(both) == monthly(asked(placement={"regions": ["us-east"]}, hardware={"gpus": ["A10"]}))


@given(st.sets(st.sampled_from([place.region for place in all_places("modal")])))
def test_more_regions_never_cost_less(regions: set[str]) -> None:
    assert all(pricing.factor_of(regions) >= pricing.factor_of([region]) for region in regions)
    assert pricing.factor_of(regions) in (Decimal(1), pricing.BROAD, pricing.NARROW)


def test_more_cores_and_memory_cost_more() -> None:
    small, large = asked(), asked(modal={"cpu": 8, "memory_gib": 64})
    assert (server(large)["cpu"], server(large)["memoryGib"]) == (8, 64)
    assert monthly(large) > monthly(small)


def test_requests_enter_in_europe_only_when_all_containers_are_there() -> None:
    assert server(asked(placement={"regions": ["us"]}))["routingRegion"] == ""
    assert server(asked(placement={"regions": ["eu", "us"]}))["routingRegion"] == ""
    assert server(asked(placement={"regions": ["eu-north", "eu-west"]}))["routingRegion"] == "eu-west"
    assert server(asked(modal={"routing_region": "us-west"}))["routingRegion"] == "us-west"


@pytest.mark.parametrize(
    ("sections", "key", "says"),
    [
        ({"hardware": {"spot": True}}, "hardware.spot", "one price for a GPU"),
        ({"hardware": {"gpus": ["RTX 4090"]}}, "hardware.gpus", "modal rents no RTX 4090"),
        ({"hardware": {"gpus": ["A10"], "gpu_count": 8}}, "hardware.gpu_count", "at most 4 of A10"),
        ({"hardware": {"disk_gb": 600}}, "hardware.disk_gb", "549 GB"),
        ({"placement": {"tier": "community"}}, "placement.tier", "data centres"),
        ({"placement": {"regions": ["de"]}}, "placement.regions", "no region in de"),
        ({"placement": {"gdpr": True}}, "placement.gdpr", "through the USA"),
        ({"placement": {"gdpr": True, "regions": ["us"]}}, "placement.gdpr", "not in the EU or EEA"),
        ({"scaling": {"idle_timeout_s": 1}}, "scaling.idle_timeout_s", "2 to 3600"),
        ({"engine": {"extra_args": ["--port", "9"]}}, "engine.extra_args", "leave it out"),
        ({"model": {"name": "Qwen/Qwen3-32B"}, "hardware": {"gpus": ["T4"]}}, "hardware.gpus", "weights"),
    ],
)
def test_what_modal_can_not_do_names_its_key(sections: dict[str, Any], key: str, says: str) -> None:
    reasons = ADAPTER.unsupported(asked(**sections))
    assert any(reason.key == key and says in reason.text for reason in reasons), [str(r) for r in reasons]


def test_every_reason_is_told_at_once() -> None:
    reasons = ADAPTER.unsupported(asked(hardware={"spot": True}, scaling={"idle_timeout_s": 1}))
    assert {reason.key for reason in reasons} == {"hardware.spot", "scaling.idle_timeout_s"}


def test_the_same_ask_gives_the_same_answer() -> None:
    assert declared(asked()) == declared(asked())


def test_old_prices_are_called_old_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(market.OFFLINE, raising=False)
    monkeypatch.setattr("serving.prices.STALE_DAYS", -1)
    shown = " ".join(report(make_plan({"vllm-anywhere:provider": "modal"}), None).split())
    assert shown.count("Prices of modal are up to") == 1


def test_a_gpu_without_a_price_makes_no_sum() -> None:
    assert pricing.hourly_usd([("A10", 1), ("NOTAGPU", 1)], 4.0, 16384, []) is None


def test_planning_imports_nothing_of_modal() -> None:
    program = (
        "import sys; from providers.base import load_adapter, load_market; import providers.modal.adapter, "
        "providers.modal.pricing, providers.modal.resources; sys.exit('modal' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], env=os.environ, timeout=60).returncode == 0


def test_the_stack_in_this_repository_can_be_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")
    file = Path(__file__).resolve().parents[1] / "stacks" / "Pulumi.modal.yaml"
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
    plan = make_plan({key: value if isinstance(value, str) else json.dumps(value) for key, value in raw.items()})
    assert [one.name for one in plan.declared.resources] == ["cache", "server"]
    assert plan.offer.gpu == "A10"
