"""RunPod as an adapter: what the spec becomes, and why it can't."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from providers.base import KEY, PREVIOUS_KEY, Ask, Declaration, Declared, Reason, Ref
from providers.market import Market, dated
from providers.runpod.adapter import ADAPTER
from providers.runpod.choices import RunPodOptions
from providers.runpod.endpoint_terms import EndpointInputs
from providers.runpod.pod_terms import PodInputs
from providers.runpod.pricing import volume_hourly_usd
from providers.runpod.volumes import VolumeInputs
from providers.runpod.weights import WeightsInputs
from serving.config import parse_part, parse_spec
from serving.cost import estimate
from serving.offers import Offer, Rate
from serving.spec import DeploymentSpec

GPUS = ["RTX 4000 Ada", "RTX A4000", "L4"]


def ask(options: dict[str, Any] | None = None, market: Market | None = None, **sections: Any) -> Ask:
    spec = DeploymentSpec.model_validate({"provider": "runpod", **sections})
    return Ask(spec, RunPodOptions.model_validate(options or {}), market or Market(dated("runpod")))


def declared(question: Ask) -> Declared:
    assert ADAPTER.unsupported(question) == []
    return ADAPTER.resources(question, ADAPTER.offers(question)[0])


def server(question: Ask) -> Declaration:
    return next(resource for resource in declared(question).resources if resource.name == "server")


def keys(question: Ask) -> list[str]:
    return [reason.key for reason in ADAPTER.unsupported(question)]


def priced(gpu: str, price: str, tier: Any = "secure", **changes: Any) -> Offer:
    rate = Rate("GPU", "Hours", Decimal(price), "live", "", date(2026, 11, 21))
    fields: dict[str, Any] = {"sku": gpu, "gpu": gpu, "gpu_count": 1, "region": "", "country": "", "spot": False}
    return Offer(**{"platform": "runpod", "kind": "pod", "tier": tier, "rates": (rate,), **fields, **changes})


def test_the_default_spec_is_one_pod_in_the_eu_on_the_cheapest_gpu_that_fits() -> None:
    plan = declared(ask())
    *stored, pod = plan.resources
    assert [(one.type, one.inputs) for one in stored] == [
        ("vllm-anywhere:runpod:Secret", {"value": key}) for key in (KEY, PREVIOUS_KEY)
    ]
    assert pod.type == "vllm-anywhere:runpod:Pod"
    inputs = pod.inputs
    assert (inputs["prefer"], inputs["clouds"], inputs["gpuCount"]) == ("cheapest", ["SECURE"], 1)
    assert inputs["image"] == "vllm/vllm-openai:v0.27.1"
    assert inputs["minCuda"] == "13.0"
    assert inputs["apiKey"] == KEY
    assert "EU-RO-1" in inputs["dataCenters"][0]
    assert not [place for group in inputs["dataCenters"] for place in group if place.startswith("US")]
    assert plan.endpoint == Ref("server", "endpoint")
    assert plan.model == "qwen3-4b-instruct-2507"
    assert any("100 s" in note for note in plan.notes)


def test_what_is_declared_is_what_the_resource_takes() -> None:
    inputs = server(ask({"max_hourly_usd": 0.5}, hardware={"gpus": GPUS})).inputs
    filled = {"apiKey": "sk-1", "keyReference": "{{ RUNPOD_SECRET_x }}", "previousReference": "sk-0"}
    parsed = PodInputs.model_validate({**inputs, **filled})
    assert parsed.gpus == ["NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX A4000", "NVIDIA L4"]
    assert (parsed.prefer, parsed.max_hourly_usd) == ("listed", "0.5000")
    assert "exec vllm serve Qwen/Qwen3-4B-Instruct-2507" in parsed.script
    assert "--max-model-len 8192" in parsed.script


def test_the_key_is_a_reference_and_nowhere_in_the_script() -> None:
    inputs = server(ask()).inputs
    assert [name for name, value in inputs.items() if value == KEY] == ["apiKey"]


def test_offers_come_in_the_users_order_of_gpus() -> None:
    assert [offer.gpu for offer in ADAPTER.offers(ask(hardware={"gpus": GPUS}))] == GPUS


def test_without_a_wish_offers_come_cheapest_first_by_the_month() -> None:
    question = ask()
    estimates = [estimate(question.spec, offer) for offer in ADAPTER.offers(question)]
    costs = [found.monthly for found in estimates if not found.incomplete]
    assert costs == sorted(costs)
    assert [found.incomplete for found in estimates] == sorted(found.incomplete for found in estimates)


def test_what_is_sold_out_comes_last_but_is_still_there() -> None:
    market = Market((priced("RTX A4000", "0.2", availability="none"), priced("L4", "0.4", availability="low")))
    question = ask(market=market)
    assert [(o.gpu, o.availability) for o in ADAPTER.offers(question)] == [("L4", "low"), ("RTX A4000", "none")]
    assert any("little stock of L4" in note for note in declared(question).notes)


def test_nothing_that_is_declared_depends_on_prices_or_stock() -> None:
    cheap = Market((priced("RTX A4000", "0.2"), priced("L4", "0.4")))
    dear = Market((priced("RTX A4000", "0.9", availability="none"), priced("L4", "0.1")))
    assert declared(ask(market=cheap)).resources == declared(ask(market=dear)).resources


@pytest.mark.parametrize(
    ("tier", "clouds"),
    [("secure", ["SECURE"]), ("community", ["COMMUNITY"]), ("any", ["COMMUNITY", "SECURE"])],
)
def test_the_tier_decides_about_the_clouds(tier: str, clouds: list[str]) -> None:
    market = Market((priced("L4", "0.4"), priced("L4", "0.3", tier="community")))
    question = ask(market=market, placement={"tier": tier})
    assert server(question).inputs["clouds"] == clouds
    assert {offer.tier.upper() for offer in ADAPTER.offers(question)} == set(clouds)


def test_a_community_host_is_said_to_be_somebodys_machine() -> None:
    market = Market((priced("L4", "0.3", tier="community"),))
    assert any(
        "somebody's own machine" in note for note in declared(ask(market=market, placement={"tier": "any"})).notes
    )


def test_gdpr_keeps_to_secure_hosts_in_the_eea() -> None:
    inputs = server(ask(placement={"gdpr": True, "tier": "any"})).inputs
    assert inputs["clouds"] == ["SECURE"]
    assert all(place.startswith("EU-") for group in inputs["dataCenters"] for place in group)


@pytest.mark.parametrize(
    ("options", "regions", "key"),
    [
        ({}, ["eu", "us"], "placement.regions"),
        ({}, [], "placement.regions"),
        ({"data_centers": ["EU-RO-1", "US-TX-3"]}, ["eu"], "runpod.data_centers"),
    ],
)
def test_gdpr_refuses_places_outside_the_eea(options: dict[str, Any], regions: list[str], key: str) -> None:
    (reason,) = ADAPTER.unsupported(ask(options, placement={"gdpr": True, "regions": regions}))
    assert reason.key == key
    assert "[eea]" in reason.text


def test_regions_become_groups_in_their_order() -> None:
    groups = server(ask(placement={"regions": ["EU-SE-1", "eu"]})).inputs["dataCenters"]
    assert groups[0] == ["EU-SE-1"]
    assert "EU-SE-1" not in groups[1]
    assert server(ask({"data_centers": ["US-TX-3"]})).inputs["dataCenters"] == [["US-TX-3"]]
    assert server(ask(placement={"regions": []})).inputs["dataCenters"] == []


@pytest.mark.parametrize(
    ("options", "budget", "cap"),
    [
        ({}, {}, ""),
        ({"max_hourly_usd": "0.6"}, {}, "0.6000"),
        ({"max_hourly_usd": "0.6"}, {"hourly_usd": "0.5"}, "0.5000"),
        ({}, {"monthly_usd": "219"}, "0.3000"),
    ],
)
def test_the_lowest_limit_caps_the_pod(options: dict[str, Any], budget: dict[str, Any], cap: str) -> None:
    assert server(ask(options, budget=budget)).inputs["maxHourlyUsd"] == cap


def test_an_image_of_ones_own_decides_about_cuda() -> None:
    inputs = server(ask(engine={"image": "vllm/vllm-openai:v0.27.1-cu129"})).inputs
    assert (inputs["image"], inputs["minCuda"]) == ("vllm/vllm-openai:v0.27.1-cu129", "12.9")


def test_several_pods_share_all_but_themselves_and_the_budget_is_for_all_of_them() -> None:
    question = ask(scaling={"min": 4}, budget={"hourly_usd": "2"})
    assert declared(question).each == ("server",)
    assert server(question).inputs["maxHourlyUsd"] == "0.5000"
    assert declared(ask({"mode": "serverless"}, scaling={"min": 4})).each == ()


@pytest.mark.parametrize(
    ("options", "sections", "key", "words"),
    [
        ({}, {"hardware": {"spot": True}}, "hardware.spot", "interruptible"),
        ({}, {"hardware": {"gpus": ["T4"]}}, "hardware.gpus", "rents no T4"),
        ({}, {"hardware": {"gpus": ["Voodoo2"]}}, "hardware.gpus", "Voodoo2"),
        ({}, {"hardware": {"gpus": ["RTX 3070"]}}, "hardware.gpus", ""),
        ({}, {"scaling": {"min": 0}}, "scaling.min", "runpod.mode: serverless"),
        ({}, {"scaling": {"min": 1, "max": 3}}, "scaling.max", "runpod.mode: serverless"),
        ({}, {"hardware": {"disk_gb": 20}}, "hardware.disk_gb", "At least"),
        ({}, {"placement": {"regions": ["za"]}}, "placement.regions", "no data centre"),
        ({}, {"engine": {"extra_args": ["--port=1"]}}, "engine.extra_args", "leave it out"),
        ({"weights": "image"}, {}, "runpod.image", "the image that holds them"),
        ({"weights": "volume"}, {}, "runpod.data_centers", "name that one"),
        ({"mode": "serverless"}, {"engine": {"version": "0.26.0"}}, "engine.version", "0.27.1"),
        ({"mode": "serverless"}, {"engine": {"image": "a/b:c"}}, "engine.image", "load-balancing"),
        ({"mode": "serverless"}, {"placement": {"tier": "community"}}, "placement.tier", "secure"),
        ({"mode": "load-balancing", "scaler": "queue-delay"}, {}, "runpod.scaler", "request-count"),
    ],
)
def test_what_can_not_be_is_refused_at_its_key_with_what_works(
    options: dict[str, Any], sections: dict[str, Any], key: str, words: str
) -> None:
    found = [reason for reason in ADAPTER.unsupported(ask(options, **sections)) if reason.key == key]
    assert found
    assert words in found[0].text


def test_reasons_are_reported_together() -> None:
    question = ask(hardware={"gpus": ["T4"], "spot": True}, scaling={"min": 0, "max": 4})
    assert {"hardware.spot", "hardware.gpus", "scaling.min", "scaling.max"} <= set(keys(question))


def test_a_gpu_that_fits_but_is_not_priced_in_the_wanted_cloud_is_said() -> None:
    (reason,) = ADAPTER.unsupported(ask(market=Market(()), hardware={"gpus": ["L4"]}))
    assert isinstance(reason, Reason)
    assert reason.key == "hardware.gpus"
    assert "secure cloud" in reason.text


def test_what_the_market_says_of_its_prices_is_among_the_notes() -> None:
    market = Market(dated("runpod"), ("Live prices of runpod: no answer.",))
    assert "Live prices of runpod: no answer." in declared(ask(market=market)).notes


@given(
    gpus=st.lists(st.sampled_from(["L4", "RTX A4000", "RTX 4090", "A40", "H100 SXM"]), unique=True, max_size=4),
    regions=st.lists(st.sampled_from(["eu", "us", "EU-RO-1", "se"]), unique=True, max_size=3),
    tier=st.sampled_from(["secure", "community", "any"]),
    count=st.sampled_from([1, 2]),
)
def test_the_same_ask_always_gives_the_same_resources_and_they_hold_no_secret(
    gpus: list[str], regions: list[str], tier: str, count: int
) -> None:
    question = ask(hardware={"gpus": gpus, "gpu_count": count}, placement={"regions": regions, "tier": tier})
    if ADAPTER.unsupported(question):
        return
    offers = ADAPTER.offers(question)
    first = ADAPTER.resources(question, offers[0])
    again = ADAPTER.resources(question, replace(offers[-1]))
    assert first.resources == again.resources
    assert all(offer.gpu in gpus for offer in offers) or not gpus
    assert json.dumps(first.resources[-1].inputs["gpus"])


def test_a_queue_endpoint_runs_runpods_worker_with_the_same_flags_by_its_variables() -> None:
    question = ask({"mode": "serverless"}, scaling={"min": 0, "max": 3}, usage={"requests_per_day": 1000})
    inputs = EndpointInputs.model_validate({**server(question).inputs, "callerKey": "rpa_x"})
    assert (inputs.kind, inputs.image, inputs.args) == ("QUEUE", "runpod/worker-v1-vllm:v2.25.2", "")
    assert inputs.env["OPENAI_SERVED_MODEL_NAME_OVERRIDE"] == "qwen3-4b-instruct-2507"
    assert (inputs.env["MAX_MODEL_LEN"], inputs.env["GPU_MEMORY_UTILIZATION"]) == ("8192", "0.85")
    assert (inputs.min_workers, inputs.max_workers, inputs.scaler, inputs.scaler_value) == (0, 3, "QUEUE_DELAY", 4)
    assert (inputs.min_cuda, inputs.flashboot, inputs.execution_timeout_s) == ("13.0", True, 600)
    notes = " ".join(declared(question).notes)
    for words in ("own_api_key", "workers.max", "524"):
        assert words in notes
    with_key = declared(replace(question, secrets=frozenset({"own_api_key"})))
    assert "own_api_key" not in " ".join(with_key.notes)


def test_a_load_balancer_runs_the_plain_image_and_asks_for_no_key_of_its_own() -> None:
    inputs = EndpointInputs.model_validate({**server(ask({"mode": "load-balancing"})).inputs, "callerKey": "rpa_x"})
    assert (inputs.kind, inputs.image) == ("LOAD_BALANCER", "vllm/vllm-openai:v0.27.1")
    assert inputs.args.startswith("Qwen/Qwen3-4B-Instruct-2507 --served-model-name qwen3-4b-instruct-2507")
    assert inputs.args.endswith("--host 0.0.0.0 --port 8000")
    assert inputs.env == {"PORT": "8000", "PORT_HEALTH": "8000", "HEALTH_CHECK_PATH": "/health"}
    assert (inputs.scaler, inputs.scaler_value) == ("REQUEST_COUNT", 30)


def test_workers_cost_by_the_second_and_sleep_for_nothing() -> None:
    scaling = {"min": 0, "max": 2}
    used = ADAPTER.offers(ask({"mode": "serverless"}, scaling=scaling, usage={"requests_per_day": 1000}))[0]
    assert (used.kind, used.sku) == ("serverless", "AMPERE_16")
    idle = ask({"mode": "serverless"}, scaling=scaling, usage={"requests_per_day": 0})
    assert {estimate(idle.spec, offer).monthly for offer in ADAPTER.offers(idle)} == {0}


def test_several_pools_are_a_range_of_prices() -> None:
    question = ask({"mode": "serverless"}, hardware={"gpus": ["RTX A4000", "RTX 4090"]})
    rate = ADAPTER.offers(question)[0].rates[0]
    assert (rate.unit_price, rate.lowest, rate.highest) == tuple(map(Decimal, ("0.00016", "0.00016", "0.00031")))


def test_weights_on_a_volume_are_there_before_the_workers_and_have_a_line_of_their_own() -> None:
    options = {"mode": "load-balancing", "weights": "volume", "data_centers": ["EU-RO-1"]}
    question = ask(options)
    volume, weights, endpoint = declared(question).resources
    assert volume.inputs == {"sizeGb": 20, "dataCenter": "EU-RO-1"}
    assert weights.inputs["volumeId"] == Ref("volume", "id")
    assert endpoint.inputs["volumeIds"] == [Ref("weights", "volumeId")]
    assert endpoint.inputs["env"]["HF_HOME"] == "/runpod-volume/huggingface"
    assert endpoint.inputs["env"]["HF_HUB_OFFLINE"] == "1"
    (line,) = [rate for rate in ADAPTER.offers(question)[0].rates if rate.meter == "network volume"]
    assert (line.quantity, line.bills) == (Decimal(20), "kept")
    WeightsInputs.model_validate({**weights.inputs, "volumeId": "v1"})
    VolumeInputs.model_validate(volume.inputs)


def test_a_volume_costs_less_above_a_terabyte() -> None:
    question = ask({"weights": "volume", "data_centers": ["EU-RO-1"], "volume_gb": 1500})
    lines = estimate(question.spec, ADAPTER.offers(question)[0]).lines
    assert [(line.rate.meter, line.monthly) for line in lines[-2:]] == [
        ("network volume", Decimal(70)),
        ("network volume above 1 TB", Decimal(25)),
    ]
    assert volume_hourly_usd(1500) == Decimal(95) / 730


def test_weights_on_a_volume_serve_a_pod_too() -> None:
    pod = server(ask({"weights": "volume", "data_centers": ["EU-RO-1"], "volume_gb": 50}))
    assert (pod.inputs["volumeId"], pod.inputs["volumePath"]) == (Ref("weights", "volumeId"), "/runpod-volume")


def test_an_image_with_the_weights_in_it_may_come_from_a_private_registry() -> None:
    options = {"mode": "serverless", "weights": "image", "image": "ghcr.io/me/qwen:1", "registry_username": "me"}
    registry, endpoint = declared(ask(options)).resources
    assert (registry.type, registry.inputs) == ("vllm-anywhere:runpod:RegistryAuth", {"username": "me"})
    assert (endpoint.inputs["image"], endpoint.inputs["registry"]) == ("ghcr.io/me/qwen:1", Ref("registry", "id"))


@pytest.mark.parametrize("name", ["runpod", "runpod-serverless", "runpod-load-balancing"])
def test_the_stack_files_that_ship_can_be_deployed(name: str) -> None:
    config = yaml.safe_load((Path(__file__).parents[1] / "stacks" / f"Pulumi.{name}.yaml").read_text())["config"]
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()}
    spec, section = parse_spec(texts, ["runpod"])
    question = Ask(spec, parse_part(RunPodOptions, section, "runpod"), Market(dated("runpod")))
    assert server(question).type.startswith("vllm-anywhere:runpod:")
