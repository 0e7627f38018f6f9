"""The emulated RunPod: volumes, credentials, secrets, and the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from runpod_wire import (
    POD,
    client_of,
    created,
    emulated,
    needs_the_contract,
    until,
)

from tests.emulators.runpod import RunPodEmulator

pytestmark = pytest.mark.heavy


@pytest.fixture
def emulator() -> Iterator[RunPodEmulator]:
    with emulated() as emulator:
        yield emulator


@pytest.fixture
def api(emulator: RunPodEmulator) -> Iterator[httpx.Client]:
    with client_of(emulator) as client:
        yield client


def test_a_volume_grows_only_ties_pods_to_its_place_and_stays_while_it_is_used(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(broken=True)
    volume = created(api, "/v2/network-volumes", {"name": "weights", "size": 20, "dataCenter": "EU-SE-1"})
    path = f"/v2/network-volumes/{volume['id']}"
    assert api.patch(path, json={"size": 10}).status_code == 400
    assert api.patch(path, json={"size": 100}).json()["size"] == 100
    mounts = {"network": [{"volumeId": volume["id"], "path": "/models"}]}
    assert api.post("/v2/pods", json={**POD, "mounts": mounts}).status_code == 400
    pod = created(api, "/v2/pods", {**POD, "mounts": mounts, "dataCenterIds": []})
    assert pod["dataCenterId"] == "EU-SE-1"
    assert api.delete(path).status_code == 400
    api.delete(f"/v2/pods/{pod['id']}")
    assert api.delete(path).status_code == 204


def test_a_registry_credential_never_comes_back_and_stays_while_it_is_used(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(broken=True)
    made = created(api, "/v2/registries", {"name": "hub", "username": "me", "password": "hunter2"})
    assert made.keys() == {"id", "name"}
    pod = created(api, "/v2/pods", {**POD, "registry": made["id"]})
    assert api.delete(f"/v2/registries/{made['id']}").status_code == 400
    api.delete(f"/v2/pods/{pod['id']}")
    assert api.delete(f"/v2/registries/{made['id']}").status_code == 204
    assert "hunter2" not in json.dumps(emulator.state()) + str(emulator.calls)


def test_a_reference_to_a_secret_is_its_value_inside_the_container_only(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.secret("vllm", "sk-secret")
    pod = created(api, "/v2/pods", {**POD, "env": {"VLLM_API_KEY": "{{ RUNPOD_SECRET_vllm }}"}})
    assert pod["env"]["VLLM_API_KEY"] == "{{ RUNPOD_SECRET_vllm }}"
    url = emulator.proxy_url(pod["id"], 8000)
    until(lambda: api.get(f"{url}/health").is_success)
    assert api.get(f"{url}/v1/models", headers={"Authorization": "Bearer sk-secret"}).status_code == 200
    assert emulator.called("POST", "/v2/pods")[0].body["env"] == {"VLLM_API_KEY": "{{ RUNPOD_SECRET_vllm }}"}


def test_secrets_have_an_api_only_where_the_account_has_it(emulator: RunPodEmulator, api: httpx.Client) -> None:
    needs_the_contract(emulator)
    secret = {"name": "vllm", "value": "sk-secret"}
    assert api.post("/v2/account/secrets", json=secret).status_code == 404
    emulator.options(has_secrets_api=True)
    made = created(api, "/v2/account/secrets", secret)
    assert made == {"id": made["id"], "name": "vllm"}
    assert api.post("/v2/account/secrets", json=secret).status_code == 400
    assert api.delete(f"/v2/account/secrets/{made['id']}").status_code == 204
    assert "sk-secret" not in str(emulator.calls)


def test_the_catalogue_has_prices_always_and_stock_when_asked(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.stock("NVIDIA L4", "NONE", "EU-RO-1")
    emulator.stock("NVIDIA RTX A4000", "NONE")
    assert "availability" not in api.get("/v2/catalog/gpus").json()["gpus"][0]
    assert api.get("/v2/catalog/gpus", params={"include": "AVAILABILITY"}).status_code == 400
    query = {"include": "AVAILABILITY", "product": "POD"}
    rows = {row["id"]: row for row in api.get("/v2/catalog/gpus", params=query).json()["gpus"]}
    assert rows["NVIDIA RTX A4000"]["availability"] == "NONE"
    assert "dataCenters" not in rows["NVIDIA RTX A4000"]
    assert "EU-RO-1" not in [place["id"] for place in rows["NVIDIA L4"]["dataCenters"]]
    assert rows["NVIDIA L4"]["price"]["serverless"] == pytest.approx(0.684)
    romania = api.get("/v2/catalog/gpus", params={**query, "countryCodes": "RO"}).json()["gpus"]
    assert "NVIDIA L4" not in [row["id"] for row in romania]
    assert api.get("/v2/catalog/gpus/NVIDIA L4").json()["pool"] == "AMPERE_24"
    europe = api.get("/v2/catalog/datacenters", params={"regions": "EUROPE", "include": "GPU_AVAILABILITY"}).json()
    assert {place["region"] for place in europe["dataCenters"]} == {"EUROPE"}
    assert len(api.get("/v2/catalog/cpus").json()["cpus"]) == 2
