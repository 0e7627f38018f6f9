"""The emulated RunPod keeps to the vendor's contract, and to what is known of its behaviour beyond that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.spec import DeploymentSpec
from serving.start import start_script
from tests.emulators.faults import Fault, Kind
from tests.emulators.runpod import RunPodEmulator

ROOT = Path(__file__).resolve().parents[1]
ARGS = "--model Qwen/Qwen3-4B --served-model-name qwen3-4b --host 0.0.0.0 --port 8000 --max-model-len 2048"
POD: dict[str, Any] = {
    "name": "shop/dev/server/1",
    "image": "vllm/vllm-openai:v0.22.1",
    "args": ARGS,
    "disk": 50,
    "env": {"VLLM_API_KEY": "sk-pod"},
    "ports": ["8000/http"],
    "gpu": {"id": "NVIDIA RTX A4000", "count": 1, "minCudaVersion": "13.0"},
    "dataCenterIds": ["EU-RO-1"],
}
QUEUE: dict[str, Any] = {
    "name": "shop/dev/endpoint/1",
    "type": "QUEUE",
    "image": "runpod/worker-v1-vllm:v2.25.2",
    "disk": 50,
    "env": {
        "MODEL_NAME": "Qwen/Qwen3-4B",
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "qwen3-4b",
        "HF_TOKEN": "{{ RUNPOD_SECRET_hf }}",
    },
    "gpu": {"pools": ["AMPERE_16", "AMPERE_24"], "minCudaVersion": "13.0"},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
}
BALANCED: dict[str, Any] = {
    "name": "shop/dev/balanced/1",
    "type": "LOAD_BALANCER",
    "image": "vllm/vllm-openai:v0.22.1",
    "args": ARGS,
    "disk": 50,
    "env": {"PORT": "8000", "PORT_HEALTH": "8000", "HEALTH_CHECK_PATH": "/health"},
    "ports": ["8000/http"],
    "gpu": {"pools": ["AMPERE_16"]},
    "scaling": {"type": "REQUEST_COUNT", "requestCount": 2},
    "workers": {"min": 0, "max": 1, "idleTimeout": 30},
}
QUESTION = {"model": "qwen3-4b", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


@pytest.fixture
def emulator() -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        yield emulator
        broken = [text for text in emulator.violations if not text.startswith("request ")]
    assert broken == []


@pytest.fixture
def api(emulator: RunPodEmulator) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {emulator.key}"}
    with httpx.Client(base_url=emulator.url, headers=headers, timeout=60, trust_env=False) as client:
        yield client


def needs_the_contract(emulator: RunPodEmulator) -> None:
    if not emulator.judged:
        pytest.skip("the vendor's contract is not beside this checkout")


def created(api: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def until(found: Callable[[], Any], limit_s: float = 60) -> Any:
    """Waits for a real server, so in real time."""
    begun = time.monotonic()
    while not (value := found()):
        assert time.monotonic() - begun < limit_s
        time.sleep(0.02)
    return value


def listed(api: httpx.Client, path: str, name: str) -> list[str]:
    """The ids of a list, over all its pages."""
    ids: list[str] = []
    cursor: str | None = None
    while True:
        page = api.get(path, params={"cursor": cursor} if cursor else {}).json()
        ids += [row["id"] for row in page[name]]
        cursor = page["pagination"]["nextCursor"]
        assert (cursor is not None) is page["pagination"]["hasNextPage"]
        if cursor is None:
            return ids


# Pods


def test_a_running_pod_answers_a_question_through_its_proxy_with_its_own_key(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    pod = created(api, "/v2/pods", POD)
    assert pod["status"] == "PROVISIONING"
    assert pod["runtime"] is None
    url = emulator.proxy_url(pod["id"], 8000)
    assert api.get(f"{url}/health").status_code == 502, "it is still loading"
    until(lambda: api.get(f"{url}/health").is_success)
    assert api.get(f"/v2/pods/{pod['id']}").json()["status"] == "RUNNING"
    key = {"Authorization": "Bearer sk-pod"}
    assert [model["id"] for model in api.get(f"{url}/v1/models", headers=key).json()["data"]] == ["qwen3-4b"]
    answer = api.post(f"{url}/v1/chat/completions", json=QUESTION, headers=key)
    assert answer.json()["usage"]["completion_tokens"] == 4
    with api.stream("POST", f"{url}/v1/chat/completions", json={**QUESTION, "stream": True}, headers=key) as stream:
        assert list(filter(None, stream.iter_lines()))[-1] == "data: [DONE]"
    assert api.get(f"{url}/v1/models").status_code == 401, "RunPod's key is not the server's"
    by_name = {"Host": f"{pod['id']}-8000.proxy.runpod.net", **key}
    assert api.get(f"{emulator.url}/v1/models", headers=by_name).status_code == 200


def test_a_pod_goes_through_its_states_and_costs_what_they_cost(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(matches="vllm", provision_s=60, start_s=120, broken=True)
    pod = created(api, "/v2/pods", {**POD, "mounts": {"persistent": {"size": 73, "path": "/workspace"}}})
    path = f"/v2/pods/{pod['id']}"

    def now() -> tuple[str, list[str]]:
        row = api.get(path).json()
        return row["status"], row["actions"]

    assert now() == ("PROVISIONING", ["stop", "terminate"])
    emulator.advance(70)
    assert now() == ("STARTING", ["stop", "terminate"])
    assert api.post(f"{path}/action", json={"action": "restart"}).status_code == 409
    emulator.advance(120)
    assert now() == ("RUNNING", ["stop", "restart", "terminate"])
    disk = (50 * Decimal("0.10") + 73 * Decimal("0.10")) / 730
    assert api.get(path).json()["cost"] == pytest.approx(float(Decimal("0.25") + disk))
    assert api.post(f"{path}/action", json={"action": "stop"}).json()["status"] == "EXITED"
    assert api.get(path).json()["cost"] == 0
    assert Decimal(emulator.state()["total_hourly_usd"]) == Decimal("0.02"), "a stopped pod's volume still bills"


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"gpu": None}, 422, "gpu"),
        ({"gpuTypeIds": ["NVIDIA L4"]}, 422, "gpuTypeIds"),
        ({"disk": "50"}, 422, "$.disk"),
        ({"cpu": {"id": "cpu3c", "vcpuCount": 2}}, 400, "exactly one"),
        ({"gpu": {"id": "NVIDIA L4", "minCudaVersion": "13.0", "allowedCudaVersions": ["13.0"]}}, 400, "exclusive"),
        ({"gpu": {"id": "NVIDIA L4", "minCudaVersion": "13.1"}}, 400, "no longer any instances"),
        ({"gpu": {"id": "NVIDIA RTX A5000"}}, 400, "no longer any instances"),
        ({"gpu": {"id": "NVIDIA GeForce RTX 4090"}}, 403, "ADA_24"),
        ({"templateId": "none"}, 404, "template"),
        ({"mounts": {"network": [{"volumeId": "none", "path": "/m"}]}}, 404, "volume"),
        ({"env": {"A": "x" * 103_000}}, 413, "larger"),
    ],
)
def test_a_pod_is_refused_as_runpod_refuses_it(
    emulator: RunPodEmulator, api: httpx.Client, change: dict[str, Any], status: int, words: str
) -> None:
    needs_the_contract(emulator)
    emulator.stock("NVIDIA RTX A5000", "NONE")
    emulator.options(forbidden_pools=["ADA_24"])
    answer = api.post("/v2/pods", json={**POD, **change})
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert words in answer.text
    assert emulator.account.pods == {}


def test_without_money_nothing_is_created(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.options(balance=0)
    assert api.post("/v2/pods", json=POD).status_code == 402
    assert api.post("/v2/serverless", json=QUEUE).status_code == 402
    assert list(emulator.account.everything()) == []


def test_no_key_and_a_wrong_key_are_refused(emulator: RunPodEmulator, api: httpx.Client) -> None:
    assert api.get("/v2/pods", headers={"Authorization": ""}).json()["detail"] == "missing bearer token"
    for url in ("/v2/pods", f"{emulator.job_url}/x/health", f"{emulator.balancer_url('x')}/ping"):
        assert api.get(url, headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_key_for_callers_reaches_endpoints_and_nothing_else(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.options(caller_keys=["rpa_caller"])
    endpoint = created(api, "/v2/serverless", QUEUE)
    caller = {"Authorization": "Bearer rpa_caller"}
    assert api.get(f"{emulator.job_url}/{endpoint['id']}/health", headers=caller).status_code == 200
    assert api.get("/v2/pods", headers=caller).status_code == 403


def test_a_changed_container_restarts_in_place_and_a_locked_pod_does_not(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(broken=True)
    pod = created(api, "/v2/pods", {**POD, "ports": ["8000/http", "22/tcp"]})
    path = f"/v2/pods/{pod['id']}"
    before = api.get(path).json()["runtime"]["ports"][1]["public"]
    after = api.patch(path, json={"env": {"A": "b"}}).json()
    assert after["env"] == {"A": "b"}, "the whole environment is replaced"
    assert after["runtime"]["ports"][1]["public"] != before
    assert api.patch(path, json={"locked": True}).status_code == 200
    assert api.patch(path, json={"env": {}}).status_code == 409
    assert api.post(f"{path}/action", json={"action": "stop"}).status_code == 409
    assert api.patch(path, json={"locked": False}).status_code == 200


def test_what_cannot_change_in_place_is_no_field_of_the_change(emulator: RunPodEmulator, api: httpx.Client) -> None:
    needs_the_contract(emulator)
    emulator.boot(broken=True)
    pod = created(api, "/v2/pods", POD)
    for change in ({"gpu": {"id": "NVIDIA L4"}}, {"cloud": "COMMUNITY"}, {"dataCenterIds": []}):
        assert api.patch(f"/v2/pods/{pod['id']}", json=change).status_code == 422
    assert (
        api.patch(f"/v2/pods/{pod['id']}", json={"mounts": {"persistent": {"size": 20, "path": "/w"}}}).status_code
        == 400
    )


def test_what_is_new_comes_late_into_the_list_and_what_is_deleted_goes_late(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    emulator.boot(broken=True)
    ids = [created(api, "/v2/pods", POD)["id"] for _ in range(5)]
    assert listed(api, "/v2/pods", "pods") == []
    assert listed(api, "/v2/pods", "pods") == ids, "five pods are three pages"
    assert api.delete(f"/v2/pods/{ids[0]}").status_code == 204
    assert api.get(f"/v2/pods/{ids[0]}").json()["status"] == "TERMINATED"
    assert api.get(f"/v2/pods/{ids[0]}").status_code == 404
    assert api.delete(f"/v2/pods/{ids[0]}").status_code == 404


def test_a_delete_can_be_answered_and_not_carried_out(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(broken=True)
    emulator.options(ignored_deletes=1)
    path = f"/v2/pods/{created(api, '/v2/pods', POD)['id']}"
    assert api.delete(path).status_code == 204
    assert api.get(path).json()["status"] == "RUNNING"
    assert api.delete(path).status_code == 204
    api.get(path)
    assert api.get(path).status_code == 404


def test_a_pod_may_cost_more_than_its_list_price(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.options(surcharge="2")
    assert created(api, "/v2/pods", POD)["cost"] == pytest.approx(0.50 + 5 / 730)


@pytest.mark.parametrize(
    ("args", "env", "says"),
    [
        ("vllm serve Qwen/Qwen3-4B --port 8000", {}, "unrecognized arguments: serve Qwen/Qwen3-4B"),
        (ARGS.replace("0.0.0.0", "127.0.0.1"), {}, ""),
        (ARGS.replace("8000", "9000"), {}, ""),
    ],
)
def test_a_container_that_does_not_listen_where_it_should_stays_a_502(
    emulator: RunPodEmulator, api: httpx.Client, args: str, env: dict[str, str], says: str
) -> None:
    pod = created(api, "/v2/pods", {**POD, "args": args, "env": env})
    run = f"{pod['id']}-1"
    if says:
        assert says in "\n".join(log(api, f"/v2/pods/{pod['id']}/logs", 1))
    else:
        until(lambda: emulator.world.ready(run))
    assert api.get(f"{emulator.proxy_url(pod['id'], 8000)}/health").status_code == 502


def test_a_script_as_entry_point_serves_what_its_last_line_starts(emulator: RunPodEmulator, api: httpx.Client) -> None:
    flags = ARGS.replace("qwen3-4b", "$NAME")
    script = f"set -eu\ncat > guard.py <<'EOF'\nit's a guard\nEOF\nexec vllm serve \\\n {flags}\n"
    args = json.dumps({"entrypoint": ["/bin/sh", "-c"], "cmd": [script]})
    pod = created(api, "/v2/pods", {**POD, "args": args, "env": {"NAME": "from-env"}})
    url = emulator.proxy_url(pod["id"], 8000)
    until(lambda: api.get(f"{url}/health").is_success)
    assert [model["id"] for model in api.get(f"{url}/v1/models").json()["data"]] == ["from-env"]


def test_the_real_start_script_is_guarded_by_the_door_that_it_writes(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    script = start_script(DeploymentSpec(), half=False, port=8000, tls=False)
    args = json.dumps({"entrypoint": ["/bin/sh", "-c"], "cmd": [script]})
    pod = created(
        api, "/v2/pods", {**POD, "args": args, "env": {"VLLM_API_KEY": "new", "ANYWHERE_PREVIOUS_KEY": "old"}}
    )
    url = emulator.proxy_url(pod["id"], 8000)
    until(lambda: api.get(f"{url}/health").is_success)

    def status(path: str, key: str) -> int:
        return api.get(f"{url}{path}", headers={"Authorization": f"Bearer {key}"}).status_code

    assert [status("/v1/models", key) for key in ("new", "old", "wrong")] == [200, 200, 401]
    assert status("/props", "new") == 404, "llama.cpp has it, the door does not let it through"
    named = api.get(f"{url}/v1/models", headers={"Authorization": "Bearer new"}).json()["data"][0]["id"]
    assert named == DeploymentSpec().model.served_name


def test_a_start_script_without_its_key_does_not_start(emulator: RunPodEmulator, api: httpx.Client) -> None:
    script = start_script(DeploymentSpec(), half=False, port=8000, tls=False)
    args = json.dumps({"entrypoint": ["/bin/sh", "-c"], "cmd": [script]})
    pod = created(api, "/v2/pods", {**POD, "args": args, "env": {}})
    assert log(api, f"/v2/pods/{pod['id']}/logs", 1) == ["sh: VLLM_API_KEY: is not set"]


def log(api: httpx.Client, path: str, lines: int) -> list[str]:
    """The first lines of a log stream, which has no end."""
    found: list[str] = []
    with api.stream("GET", path, params={"tail": lines}) as stream:
        assert stream.headers["content-type"] == "text/event-stream"
        for line in stream.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: "))["line"])
            if len(found) == lines:
                return found
    return found


def test_a_one_off_pod_prints_what_it_was_scripted_to_and_ends(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(matches="fill", log=["0 %", "50 %", "100 %"], exits=True)
    fill = {
        "name": "fill",
        "image": "python:3.12-slim",
        "cpu": {"id": "cpu3c", "vcpuCount": 2},
        "args": "python fill.py",
    }
    pod = created(api, "/v2/pods", fill)
    assert pod["cpu"]["memory"] == 4
    assert api.get(f"/v2/pods/{pod['id']}").json()["status"] == "EXITED"


def test_a_log_is_followed_until_the_caller_hangs_up(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(log=["one", "two", "three"], broken=True)
    pod = created(api, "/v2/pods", POD)
    assert log(api, f"/v2/pods/{pod['id']}/logs", 2) == ["two", "three"]


# Serverless


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


# Volumes, credentials, secrets, catalogue


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
    assert api.post("/v2/secrets", json=secret).status_code == 404
    emulator.options(has_secrets_api=True)
    made = created(api, "/v2/secrets", secret)
    assert made == {"id": made["id"], "name": "vllm"}
    assert api.post("/v2/secrets", json=secret).status_code == 400
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


# Faults and another process


def test_a_lost_answer_leaves_a_pod_that_bills(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(broken=True)
    emulator.faults.add(Fault(method="POST", path="^/v2/pods$", kind=Kind.LOST))
    assert api.post("/v2/pods", json=POD).status_code == 500
    (pod,) = emulator.account.pods.values()
    assert emulator.state()["hourly_usd"].keys() == {pod.id}
    emulator.delete(pod.id)
    assert emulator.state()["hourly_usd"] == {}
    assert api.get(f"/v2/pods/{pod.id}").status_code == 404


def test_time_costs_money(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(broken=True)
    created(api, "/v2/pods", POD)
    emulator.advance(3600)
    assert float(emulator.state()["spent_usd"]) == pytest.approx(0.25 + 5 / 730, rel=0.01)


def test_a_request_against_the_contract_is_recorded_without_its_values(
    emulator: RunPodEmulator, api: httpx.Client
) -> None:
    needs_the_contract(emulator)
    answer = api.post("/v2/pods", json={**POD, "env": {"HF_TOKEN": ["hf-secret"]}})
    assert answer.json()["errors"] == ['$.env.HF_TOKEN: does not satisfy type "string"']
    assert emulator.violations == ['request POST /v2/pods: $.env.HF_TOKEN: does not satisfy type "string"']


def test_as_a_process_of_its_own_it_keeps_the_account_and_ends_what_it_ran(tmp_path: Path) -> None:
    state = tmp_path / "runpod.json"
    process, told = started(state)
    with httpx.Client(base_url=told["url"], trust_env=False, timeout=30) as client:
        client.headers["Authorization"] = f"Bearer {told['env']['RUNPOD_API_KEY']}"
        pod = created(client, "/v2/pods", POD)
        until(lambda: client.get(f"/proxy/{pod['id']}/8000/health").is_success)
        assert client.post("/__emulator/options", json={"list_lag": 0}).status_code == 200
    servers = children(process.pid)
    assert len(servers) == 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in servers))
    process, told = started(state)
    with httpx.Client(base_url=told["url"], trust_env=False, timeout=30) as client:
        assert [row["id"] for row in client.get("/__emulator/state").json()["pods"]] == [pod["id"]]
    process.terminate()
    assert process.wait(30) == 0
    assert state.stat().st_mode & 0o077 == 0


def started(state: Path) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.emulators.runpod", "--port", "0", "--state", str(state)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    return process, json.loads(process.stdout.readline())


def children(parent: int) -> list[int]:
    """Its child processes, from the process table."""
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if (entry / "stat").exists() and int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == parent
    ]
