"""RunPod's offers: live where its catalogue answers in time, dated otherwise, and always said which."""

from __future__ import annotations

import threading
from datetime import date
from decimal import Decimal
from typing import Any

import httpx
import pytest

from providers.base import AuthError, PlatformError
from providers.market import dated
from providers.runpod import pricing
from providers.runpod.client import RunPod
from serving.offers import Offer
from serving.spec import DeploymentSpec

SPEC = DeploymentSpec.model_validate({"provider": "runpod", "placement": {"regions": ["eu"]}})
TODAY = date(2026, 11, 21)


def row(**changes: Any) -> dict[str, Any]:
    return {
        "id": "NVIDIA L4",
        "name": "L4",
        "pool": "AMPERE_24",
        "secure": True,
        "community": True,
        "price": {"secure": 0.39, "community": 0.32, "serverless": 0.684},
        "maxCount": {"secure": 8, "community": 4},
        "availability": "LOW",
        "dataCenters": [
            {"id": "EU-RO-1", "name": "", "availability": "MEDIUM"},
            {"id": "US-TX-3", "name": "", "availability": "HIGH"},
        ],
        **changes,
    }


def account(*rows: dict[str, Any]) -> RunPod:
    return RunPod("k", transport=httpx.MockTransport(lambda request: httpx.Response(200, json={"gpus": rows})))


def offers(spec: DeploymentSpec, *rows: dict[str, Any]) -> list[Offer]:
    return list(pricing.offers_of(*pricing.ask(account(*rows), spec), spec, TODAY))


def test_a_row_is_a_pod_in_each_cloud_and_a_worker_of_its_pool() -> None:
    secure, community, worker = offers(SPEC, row())
    assert [(o.kind, o.sku, o.gpu, o.tier) for o in (secure, community, worker)] == [
        ("pod", "NVIDIA L4", "L4", "secure"),
        ("pod", "NVIDIA L4", "L4", "community"),
        ("serverless", "AMPERE_24", "L4", "secure"),
    ]
    assert (secure.rates[0].unit_price, community.rates[0].unit_price) == (Decimal("0.39"), Decimal("0.32"))
    gpu = worker.rates[0]
    assert (gpu.unit_price, gpu.unit, gpu.bills) == (Decimal("0.00019"), "Seconds", "awake")
    assert {(rate.source, rate.as_of) for rate in (secure.rates[0], gpu)} == {("live", TODAY)}


def test_the_disk_has_its_own_dated_line() -> None:
    for offer in offers(SPEC, row()):
        disk = offer.rates[1]
        assert (disk.meter, disk.source, disk.unit_price) == ("disk", "snapshot", Decimal("0.1"))
        assert disk.as_of is not None


def test_stock_counts_only_where_it_may_run() -> None:
    assert {offer.availability for offer in offers(SPEC, row())} == {"medium"}
    anywhere = DeploymentSpec.model_validate({"placement": {"regions": []}})
    assert {offer.availability for offer in offers(anywhere, row())} == {"low"}
    nowhere = row(dataCenters=[{"id": "US-TX-3", "name": "", "availability": "HIGH"}])
    assert {offer.availability for offer in offers(SPEC, nowhere)} == {"none"}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"secure": False}, ["pod", "serverless"]),
        ({"pool": None}, ["pod", "pod"]),
        ({"price": {"secure": 0, "community": 0}}, []),
        ({"id": "NVIDIA Quantum 9000"}, []),
        ({"maxCount": {"secure": 0, "community": 4}}, ["pod", "serverless"]),
    ],
)
def test_what_is_not_on_offer_is_no_offer(changes: dict[str, Any], kinds: list[str]) -> None:
    assert [offer.kind for offer in offers(SPEC, row(**changes))] == kinds


def test_several_gpus_cost_several_times_as_much() -> None:
    two = DeploymentSpec.model_validate({"hardware": {"gpu_count": 2}})
    assert {(o.gpu_count, o.rates[0].quantity) for o in offers(two, row())} == {(2, Decimal(2))}


def test_without_a_key_the_dated_prices_are_shown_and_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    monkeypatch.setattr(httpx, "Client", None)
    found = pricing.query(SPEC)
    assert found.offers == dated("runpod")
    assert "RUNPOD_API_KEY is not set" in found.notes[0]
    with pytest.raises(AuthError):
        pricing.live(SPEC, 4.0)


def test_offline_the_dated_prices_are_shown_without_a_complaint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "k")
    monkeypatch.setenv("VLLM_ANYWHERE_OFFLINE", "1")
    monkeypatch.setattr(httpx, "Client", None)
    found = pricing.query(SPEC)
    assert found.offers == dated("runpod")
    assert not any("Live prices" in note for note in found.notes)


@pytest.mark.parametrize("status", [401, 429, 500])
def test_a_catalogue_that_does_not_answer_leaves_the_dated_prices_with_their_dates(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RunPod(
        "k", transport=httpx.MockTransport(lambda request: httpx.Response(status, json={})), pause=pricing.hurry
    )
    monkeypatch.setattr(pricing, "connect", lambda *args, **options: broken)
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    found = pricing.query(SPEC)
    assert found.offers == dated("runpod")
    assert "Live prices of runpod" in found.notes[0]


def test_a_catalogue_that_hangs_costs_no_more_than_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    def hang(*args: Any, **options: Any) -> RunPod:
        answer.wait()
        raise PlatformError("too late")

    monkeypatch.setattr(pricing, "connect", hang)
    monkeypatch.delenv("VLLM_ANYWHERE_OFFLINE", raising=False)
    found = pricing.query(SPEC, budget_s=0.05)
    answer.set()
    assert found.offers == dated("runpod")
    assert "no answer in" in found.notes[0]
