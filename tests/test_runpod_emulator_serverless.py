"""The emulated RunPod: queue and load-balancing endpoints, their workers and their jobs."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from runpod_wire import (
    ARGS,
    BALANCED,
    POD,
    QUESTION,
    QUEUE,
    client_of,
    created,
    emulated,
    log,
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


def test_a_queue_endpoint_gets_the_defaults_that_surprise(emulator: RunPodEmulator, api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", QUEUE)
    assert endpoint["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert (endpoint["timeout"], endpoint["flashboot"]) == (0, "OFF")
    assert endpoint["requestUrls"]["run"] == f"{emulator.job_url}/{endpoint['id']}/run"
    flash = created(api, "/v2/serverless", {**QUEUE, "flashboot": "FLASHBOOT"})
    assert flash["name"] == "shop/dev/endpoint/1-fb"


@pytest.mark.parametrize(
    ("base", "change", "status"),
    [
        (QUEUE, {"gpu": None}, 422),
        (QUEUE, {"gpu": {"pools": ["NVIDIA L4"]}}, 400),
        (QUEUE, {"gpu": {"pools": ["AMPERE_16", "AMPERE_24", "ADA_24", "AMPERE_48"]}}, 400),
        (QUEUE, {"gpu": {"pools": ["AMPERE_16"], "excludedTypes": ["NVIDIA L4"]}}, 400),
        (QUEUE, {"scaling": {"type": "REQUEST_COUNT", "requestCount": 1}, "workers": {"idleTimeout": 5}}, 422),
        (QUEUE, {"workers": {"min": 2, "max": 1}}, 400),
        (QUEUE, {"flashboot": True}, 422),
        (QUEUE, {"networkVolumes": ["none"]}, 404),
        (BALANCED, {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}, 422),
    ],
)
def test_an_endpoint_is_refused_as_runpod_refuses_it(
    emulator: RunPodEmulator, api: httpx.Client, base: dict[str, Any], change: dict[str, Any], status: int
) -> None:
    if status == 422:
        needs_the_contract(emulator)
    assert api.post("/v2/serverless", json={**base, **change}).status_code == status
    assert emulator.account.endpoints == {}


def test_a_queue_endpoint_wakes_for_an_openai_request_and_sleeps_again(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    endpoint = created(api, "/v2/serverless", QUEUE)
    path, url = f"/v2/serverless/{endpoint['id']}", f"{emulator.job_url}/{endpoint['id']}"
    assert api.get(f"{path}/workers").json()["summary"]["total"] == 0
    assert emulator.state()["hourly_usd"] == {}
    answer = api.post(f"{url}/openai/v1/chat/completions", json=QUESTION)
    assert answer.json()["usage"]["completion_tokens"] == 4
    with api.stream("POST", f"{url}/openai/v1/chat/completions", json={**QUESTION, "stream": True}) as stream:
        assert api.get(f"{url}/health").json()["workers"]["running"] == 1
        assert list(filter(None, stream.iter_lines()))[-1] == "data: [DONE]"
    assert until(lambda: api.get(f"{url}/health").json()["workers"]["idle"]) == 1
    assert Decimal(emulator.state()["hourly_usd"][endpoint["id"]]) == Decimal("0.576")
    emulator.advance(11)
    assert api.get(f"{path}/workers").json()["summary"]["total"] == 0


def test_a_job_runs_once_a_worker_serves(emulator: RunPodEmulator, api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", QUEUE)
    url = f"{emulator.job_url}/{endpoint['id']}"
    job = api.post(f"{url}/run", json={"input": {"openai_route": "/v1/chat/completions", "openai_input": QUESTION}})
    assert job.json()["status"] == "IN_QUEUE"
    path = f"{url}/status/{job.json()['id']}"
    done = until(lambda: (row := api.get(path).json())["status"] == "COMPLETED" and row)
    assert done["output"][0]["usage"]["completion_tokens"] == 4
    assert api.get(f"{url}/stream/{job.json()['id']}").json()["stream"][0]["output"] == done["output"][0]
    assert api.get(f"{url}/health").json()["jobs"]["completed"] == 1
    assert api.post(f"{url}/runsync", json={"input": {"prompt": "Hi"}}).json()["status"] == "COMPLETED"


def test_a_job_without_workers_waits_until_it_is_cancelled(emulator: RunPodEmulator, api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", {**QUEUE, "workers": {"min": 0, "max": 0}})
    url = f"{emulator.job_url}/{endpoint['id']}"
    jobs = [api.post(f"{url}/run", json={"input": {"prompt": "Hi"}}).json()["id"] for _ in range(2)]
    assert api.get(f"{url}/health").json()["jobs"]["inQueue"] == 2
    assert api.post(f"{url}/cancel/{jobs[0]}").json()["status"] == "CANCELLED"
    assert api.post(f"{url}/purge-queue").json()["removed"] == 1


def test_a_cold_start_beyond_100_seconds_is_a_524_and_the_next_request_is_served(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(start_s=150)
    endpoint = created(api, "/v2/serverless", QUEUE)
    url = f"{emulator.job_url}/{endpoint['id']}/openai/v1/models"
    assert api.get(url).status_code == 524
    assert api.get(url).status_code == 200


def test_a_plain_image_behind_a_queue_never_takes_work(emulator: RunPodEmulator, api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", {**QUEUE, "image": POD["image"], "args": ARGS})
    assert api.get(f"{emulator.job_url}/{endpoint['id']}/openai/v1/models").status_code == 524


def test_a_load_balanced_endpoint_serves_the_plain_image(emulator: RunPodEmulator, api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", BALANCED)
    url = endpoint["requestUrls"]["base"]
    assert url == emulator.balancer_url(endpoint["id"])
    answer = api.post(f"{url}/v1/chat/completions", json=QUESTION)
    assert answer.json()["usage"]["completion_tokens"] == 4
    assert answer.headers["x-runpod-worker-id"] == emulator.account.endpoints[endpoint["id"]].workers[0].id
    assert api.get(f"{url}/ping").status_code == 200


@pytest.mark.parametrize(
    ("env", "status"),
    [({"PORT": "9000"}, 502), ({"HEALTH_CHECK_PATH": "/healthz"}, 400), ({"VLLM_API_KEY": "sk"}, 401)],
)
def test_a_load_balanced_endpoint_set_up_wrongly_serves_nobody(
    emulator: RunPodEmulator, api: httpx.Client, env: dict[str, str], status: int
) -> None:
    endpoint = created(api, "/v2/serverless", {**BALANCED, "env": {**BALANCED["env"], **env}})
    assert api.get(f"{emulator.balancer_url(endpoint['id'])}/v1/models").status_code == status


def test_the_platform_adds_its_ports_to_a_load_balanced_endpoint(api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", {**BALANCED, "env": {}})
    assert endpoint["env"] == {"PORT": "8000", "PORT_HEALTH": "8000"}


def test_a_changed_container_rolls_over_the_workers_and_the_old_one_serves_until_then(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    endpoint = created(api, "/v2/serverless", {**QUEUE, "workers": {"min": 1, "max": 2}})
    path, url = f"/v2/serverless/{endpoint['id']}", f"{emulator.job_url}/{endpoint['id']}"
    until(lambda: api.get(f"{path}/workers").json()["summary"]["idle"])
    api.patch(path, json={"env": {**QUEUE["env"], "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "new"}}).raise_for_status()
    workers = api.get(f"{path}/workers").json()
    assert [(worker["status"], worker["isStale"]) for worker in workers["workers"]] == [
        ("IDLE", True),
        ("INITIALIZING", False),
    ]
    assert api.get(f"{path}/releases").json()["rollout"]["inProgress"] is True
    until(lambda: not api.get(f"{path}/releases").json()["rollout"]["inProgress"])
    assert [row["id"] for row in api.get(f"{url}/openai/v1/models").json()["data"]] == ["new"]


def test_scaling_acts_at_once_and_makes_no_release(api: httpx.Client) -> None:
    endpoint = created(api, "/v2/serverless", QUEUE)
    path = f"/v2/serverless/{endpoint['id']}"
    row = api.patch(path, json={"workers": {"max": 1}, "timeout": 60000}).json()
    assert (row["workers"]["max"], row["workers"]["min"], row["timeout"]) == (1, 0, 60000)
    assert api.get(f"{path}/releases").json()["releases"] == []


def test_new_pools_without_exclusions_clear_them(api: httpx.Client) -> None:
    gpu = {"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L4"]}
    path = f"/v2/serverless/{created(api, '/v2/serverless', {**QUEUE, 'gpu': gpu})['id']}"
    assert api.patch(path, json={"gpu": {"count": 2}}).json()["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    assert api.patch(path, json={"gpu": {"pools": ["AMPERE_24"]}}).json()["gpu"]["excludedTypes"] == []


def test_workers_without_a_gpu_are_throttled_and_broken_ones_unhealthy(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(broken=True, log=["torch.OutOfMemoryError: CUDA out of memory"])
    endpoint = created(api, "/v2/serverless", {**QUEUE, "gpu": {"pools": ["ADA_24"]}, "workers": {"min": 1, "max": 1}})
    path = f"/v2/serverless/{endpoint['id']}"
    emulator.stock("NVIDIA GeForce RTX 4090", "NONE")
    second = created(api, "/v2/serverless", {**QUEUE, "gpu": {"pools": ["ADA_24"]}, "workers": {"min": 1, "max": 1}})
    (unhealthy,) = api.get(f"{path}/workers").json()["workers"]
    assert unhealthy["status"] == "UNHEALTHY"
    assert log(api, f"{path}/workers/{unhealthy['id']}/logs", 1) == ["torch.OutOfMemoryError: CUDA out of memory"]
    assert api.get(f"/v2/serverless/{second['id']}/workers").json()["summary"]["throttled"] == 1


def test_idle_endpoints_lose_their_workers_and_keep_that(emulator: RunPodEmulator, api: httpx.Client) -> None:
    path = f"/v2/serverless/{created(api, '/v2/serverless', QUEUE)['id']}"
    emulator.idle(4)
    assert api.get(path).json()["workers"]["max"] == 2
    emulator.idle(8)
    assert api.get(path).json()["workers"]["max"] == 0
