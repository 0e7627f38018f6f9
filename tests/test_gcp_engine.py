"""A GCP deployment under the real Pulumi CLI and the real `pulumi_gcp`, on the double of its plugin. Emulated."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from engine import ROOT, Project

from providers.base import PLATFORMS
from serving.tls import context

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from tests.doubles.gcp.cloud import VARIABLE, Cloud

pytestmark = [
    pytest.mark.engine,
    pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"]),
    pytest.mark.skipif("gcp" not in PLATFORMS, reason="the platform is not registered"),
]

INSTANCE = "gcp:compute/instance:Instance"
GROUP = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
ZONES = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]


@pytest.fixture
def cloud(project: Project) -> Iterator[Cloud]:
    """A T4 stack in one region, on a cloud of its own."""
    cloud = Cloud(project.folder / "cloud", owned=True)
    project.env["PATH"] = f"{ROOT / 'tests/doubles/gcp/bin'}:{project.env['PATH']}"
    project.env |= {VARIABLE: str(cloud.folder), "GOOGLE_PROJECT": "shop-1", "VLLM_ANYWHERE_OFFLINE": "1"}
    project.env["CLOUDSDK_CONFIG"] = str(project.folder / "gcloud")
    for name in ("GOOGLE_OAUTH_ACCESS_TOKEN", "GOOGLE_CREDENTIALS", "GOOGLE_APPLICATION_CREDENTIALS"):
        project.env.pop(name, None)
    project.config("provider", "gcp")
    project.config("hardware.gpus[0]", "T4")
    project.config("placement.regions[0]", "europe-west4")
    project.config("ready.timeout_s", "60")
    yield cloud
    cloud.close()


def vm(project: Project) -> dict[str, Any]:
    (found,) = project.resources(INSTANCE)
    return found["outputs"]


def completes(outputs: dict[str, Any]) -> bool:
    verify: ssl.SSLContext | bool = context(outputs["ca_pem"]) if "ca_pem" in outputs else True
    answer = httpx.post(
        f"{outputs['endpoint']}/chat/completions",
        headers={"Authorization": f"Bearer {outputs['api_key']}"},
        json={"model": outputs["model"], "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]},
        verify=verify,
        timeout=30,
        trust_env=False,
    )
    return answer.is_success and bool(answer.json()["choices"][0]["message"]["content"])


def test_a_t4_vm_serves_over_tls_and_nothing_is_left_of_it(project: Project, cloud: Cloud) -> None:
    said = project.preview()
    for words in ("1x T4 in n1-standard-4", "--dtype half", "30 %", "sustained"):
        assert words in said
    assert cloud.all() == []
    project.up()
    outputs = project.outputs()
    assert completes(outputs)
    key = outputs["api_key"]
    assert key not in project.exported()
    assert key not in json.dumps(vm(project))
    assert "unchanged" in project.up() and "created" not in project.preview()
    project.destroy()
    assert cloud.all() == []


def test_another_machine_type_is_a_change_in_place_and_another_gpu_a_new_vm(project: Project, cloud: Cloud) -> None:
    project.up()
    first = vm(project)["instanceId"]
    project.config("gcp.machine_type", "n1-standard-8")
    project.up()
    assert (vm(project)["instanceId"], vm(project)["machineType"]) == (first, "n1-standard-8")
    project.config("hardware.gpus[0]", "L4")
    project.config("gcp.machine_type", "g2-standard-4")
    project.up()
    assert vm(project)["instanceId"] != first
    assert completes(project.outputs())


def test_a_spot_vm_that_was_taken_away_is_seen_by_refresh_and_started_by_up(project: Project, cloud: Cloud) -> None:
    project.config("hardware.spot", "true")
    project.up()
    cloud.fail(preempted=[vm(project)["name"]])
    project.refresh()
    assert vm(project)["currentStatus"] == "TERMINATED"
    project.up()
    assert vm(project)["currentStatus"] == "RUNNING"


def test_a_new_key_makes_the_vm_anew_and_the_old_key_is_refused(project: Project, cloud: Cloud) -> None:
    project.up()
    old = project.outputs()["api_key"]
    project.config("api_key.rotation", "2")
    project.up()
    outputs = project.outputs()
    assert outputs["api_key"] != old
    assert completes(outputs)
    answer = httpx.get(
        f"{outputs['endpoint']}/models",
        headers={"Authorization": f"Bearer {old}"},
        verify=context(outputs["ca_pem"]),
        trust_env=False,
    )
    assert answer.status_code == 401


def test_a_group_serves_too(project: Project, cloud: Cloud) -> None:
    project.config("gcp.ha", "mig")
    cloud.fail(stockout=dict.fromkeys(ZONES[:2], ()))
    project.up()
    assert completes(project.outputs())
    assert len(project.resources(GROUP)) == 1
    (made,) = cloud.all("Instance")
    assert made.outputs["zone"].endswith(ZONES[2])
    project.destroy()
    assert cloud.all() == []


@pytest.fixture
def reservations(project: Project, cloud: Cloud) -> Iterator[list[str]]:
    """Compute Engine's reservations: the zones that were asked, of which only the last has capacity."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path.split("/")[4])
            self._answer(200, {"name": "op", "status": "RUNNING"})

        def do_GET(self) -> None:
            if "/operations/" not in self.path:
                return self._answer(404, {"error": {"message": "not found"}})
            sold_out = self.path.split("/")[4] != ZONES[2]
            errors = [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "not enough"}] if sold_out else []
            return self._answer(
                200, {"name": "op", "status": "DONE", **({"error": {"errors": errors}} if errors else {})}
            )

        def do_DELETE(self) -> None:
            self._answer(200, {"name": "op", "status": "DONE"})

        def _answer(self, status: int, body: object) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    project.env["GOOGLE_COMPUTE_CUSTOM_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}/"
    project.env["GOOGLE_OAUTH_ACCESS_TOKEN"] = "token"
    yield asked
    server.shutdown()
    server.server_close()


def test_two_sold_out_zones_are_passed_within_one_up(project: Project, cloud: Cloud, reservations: list[str]) -> None:
    project.env["GOOGLE_OAUTH_ACCESS_TOKEN"] = "token"
    cloud.fail(stockout=dict.fromkeys(ZONES[:2], ()))
    project.up()
    assert reservations == ZONES
    assert vm(project)["zone"] == ZONES[2]
    assert completes(project.outputs())
    project.up()
    assert reservations == ZONES


def test_a_sold_out_zone_leaves_no_vm_and_what_exists_is_kept(project: Project, cloud: Cloud) -> None:
    cloud.fail(stockout={ZONES[0]: (ZONES[1],)})
    said = project.up(ok=False)
    assert "does not have enough resources available" in said
    assert cloud.all("Instance") == []
    address = cloud.all("Address")
    project.config("gcp.zones[0]", ZONES[1])
    project.up()
    assert vm(project)["zone"] == ZONES[1]
    assert [one.id for one in cloud.all("Address")] == [one.id for one in address]
