"""The emulated RunPod: pods, what they cost, and the emulator as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from runpod_wire import (
    ARGS,
    POD,
    QUESTION,
    QUEUE,
    client_of,
    created,
    emulated,
    listed,
    log,
    needs_the_contract,
    until,
)

from serving.spec import DeploymentSpec
from serving.start import start_script
from tests.emulators.faults import Fault, Kind
from tests.emulators.runpod import RunPodEmulator

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def emulator() -> Iterator[RunPodEmulator]:
    with emulated() as emulator:
        yield emulator


@pytest.fixture
def api(emulator: RunPodEmulator) -> Iterator[httpx.Client]:
    with client_of(emulator) as client:
        yield client


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
    assert api.get(path).json()["cost"] == pytest.approx(float(Decimal("0.25") + disk), abs=1e-4)
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
    if status == 422:
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
    assert created(api, "/v2/pods", POD)["cost"] == pytest.approx(0.50 + 5 / 730, abs=1e-4)


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


def test_a_log_grows_with_time(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(log=["one", "two", "three"], line_s=60, broken=True)
    path = f"/v2/pods/{created(api, '/v2/pods', POD)['id']}"
    assert api.get(path).json()["status"] == "RUNNING"
    emulator.advance(61)
    with api.stream("GET", f"{path}/logs") as stream:
        lines = (line for line in stream.iter_lines() if line.startswith("data: "))
        assert '"line": "one"' in next(lines)
        emulator.advance(60)
        assert '"line": "two"' in next(lines)


def test_a_log_is_followed_until_the_caller_hangs_up(emulator: RunPodEmulator, api: httpx.Client) -> None:
    emulator.boot(log=["one", "two", "three"], broken=True)
    pod = created(api, "/v2/pods", POD)
    assert log(api, f"/v2/pods/{pod['id']}/logs", 2) == ["two", "three"]


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
