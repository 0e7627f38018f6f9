"""Google's APIs over HTTPS, emulated: logs, quotas, credentials, and the search for a zone with capacity."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from providers.base import AuthError, Interrupted, NoCapacity, PlatformError
from providers.gcp.auth import Identity, identity
from providers.gcp.client import Google, Refused, server_lines, tail_of
from providers.gcp.quotas import Quota
from providers.gcp.run import Run, RunInputs
from providers.gcp.zone import Zone, ZoneInputs, ZoneOutputs
from providers.native import Context

TOKEN = "ya29.never-in-a-log"
VM = "projects/shop/zones/europe-west4-a/instances/va-t4-123456"
GROUP = "projects/shop/regions/europe-west4/instanceGroupManagers/va-t4-123456"
Answer = tuple[int, Any]


def google(answer: Callable[[httpx.Request], Answer | httpx.Response]) -> Google:
    def respond(request: httpx.Request) -> httpx.Response:
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        found = answer(request)
        return found if isinstance(found, httpx.Response) else httpx.Response(found[0], json=found[1])

    return Google(Identity(TOKEN, "shop"), transport=httpx.MockTransport(respond), environ={})


def error(status: int, message: str) -> Answer:
    return status, {"error": {"code": status, "message": message}}


CONSOLE = """\
[    0.000000] Linux version 6.8.0-gcp
Nov 21 08:00:01 va-t4-123456 google_metadata_script_runner[900]: startup-script: vllm-anywhere: waiting for the GPU
[  101.234567] serve.sh[1234]: vllm-anywhere: pulling vllm/vllm-openai:v0.27.1
[  150.000000] docker0: port 1(veth) entered blocking state
[  301.234567] serve.sh[1234]: torch.OutOfMemoryError: CUDA out of memory.
"""


def test_a_vms_log_is_what_the_server_and_its_start_wrote() -> None:
    client = google(lambda request: (200, {"contents": CONSOLE}))
    assert tail_of(client, VM, 2) == [
        "vllm-anywhere: pulling vllm/vllm-openai:v0.27.1",
        "torch.OutOfMemoryError: CUDA out of memory.",
    ]


def test_a_console_without_the_servers_lines_is_shown_as_it_is() -> None:
    assert server_lines(["kernel panic", ""], 5) == ["kernel panic"]


def test_a_groups_log_says_what_kept_it_from_making_a_vm() -> None:
    def answer(request: httpx.Request) -> Answer:
        match request.url.path.rsplit("/", 1)[1]:
            case "listErrors":
                return 200, {"items": [{"error": {"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": "no T4 left"}}]}
            case "listManagedInstances":
                return 200, {"managedInstances": [{"instance": f"https://compute.googleapis.com/compute/v1/{VM}"}]}
            case _:
                return 200, {"contents": CONSOLE}

    said = tail_of(google(answer), GROUP, 10)
    assert said[0] == "group: ZONE_RESOURCE_POOL_EXHAUSTED: no T4 left"
    assert said[1] == "va-t4-123456:"
    assert said[-1] == "torch.OutOfMemoryError: CUDA out of memory."


def test_an_id_that_is_no_vm_is_never_put_into_an_address() -> None:
    with pytest.raises(PlatformError, match="is no VM"):
        tail_of(google(lambda request: (200, {})), "projects/../secrets", 5)


def test_quotas_are_the_projects_and_those_of_every_page_of_regions() -> None:
    def answer(request: httpx.Request) -> Answer:
        if request.url.path.endswith("/regions"):
            page = request.url.params.get("pageToken")
            name = "europe-west4" if page else "europe-west1"
            quota = [{"metric": "NVIDIA_T4_GPUS", "limit": 1.0, "usage": 0.0}]
            return 200, {"items": [{"name": name, "quotas": quota}], **({} if page else {"nextPageToken": "2"})}
        return 200, {"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 0.0, "usage": 0.0}]}

    found = google(answer).quotas()
    assert found.project == {"GPUS_ALL_REGIONS": Quota(0, 0)}
    assert set(found.regions) == {"europe-west1", "europe-west4"}


def test_a_refusal_says_what_it_means_and_never_the_token() -> None:
    disabled = "Compute Engine API has not been used in project 1 before or it is disabled. compute.googleapis.com"
    client = google(lambda request: error(403, disabled))
    with pytest.raises(Refused, match="gcloud services enable") as found:
        client.get("compute", "projects/shop")
    assert TOKEN not in repr(found.value) + str(found.value)
    with pytest.raises(AuthError, match="application-default login"):
        google(lambda request: error(401, "Invalid Credentials")).get("compute", "projects/shop")


@pytest.mark.parametrize("status", [200, 502])
@pytest.mark.parametrize("body", ["<html>", "[]", '"text"'])
def test_an_answer_that_is_no_object_is_no_answer(body: str, status: int) -> None:
    client = google(lambda request: httpx.Response(status, text=body))
    with pytest.raises(PlatformError, match="did not answer"):
        client.get("compute", "projects/shop")


def test_the_token_of_the_environment_comes_first_and_is_not_shown() -> None:
    found = identity({"GOOGLE_OAUTH_ACCESS_TOKEN": TOKEN, "GOOGLE_PROJECT": "shop", "GOOGLE_CREDENTIALS": "{}"})
    assert (found.token, found.project) == (TOKEN, "shop")
    assert TOKEN not in repr(found)


def test_without_any_credentials_nobody_is_asked_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("providers.gcp.auth._PRODUCT", tmp_path / "no-such-file")
    with pytest.raises(AuthError, match="application-default login"):
        identity({"CLOUDSDK_CONFIG": str(tmp_path)})


@pytest.fixture
def token_url() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/token"
    server.shutdown()
    server.server_close()


def test_a_service_accounts_key_is_traded_for_a_token(token_url: str, tmp_path: Path) -> None:
    pytest.importorskip("google.auth")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "shop",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "deployer@shop.iam.gserviceaccount.com",
        "token_uri": token_url,
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(account))
    for given in (json.dumps(account), str(file)):
        assert identity({"GOOGLE_CREDENTIALS": given}) == Identity(TOKEN, "shop")


@pytest.mark.parametrize("given", ["{}", '{"type": "service_account", "private_key": "secret-text"}', "/no/such/file"])
def test_credentials_that_can_not_be_used_say_how_to_get_others_and_repeat_nothing(given: str) -> None:
    pytest.importorskip("google.auth")
    with pytest.raises(AuthError, match="application-default login") as found:
        identity({"GOOGLE_CREDENTIALS": given})
    assert "secret-text" not in str(found.value)


STOCKOUT = "The zone 'z' does not have enough resources available to fulfill the request."


@dataclass
class Zones:
    """Reservations as Compute Engine makes them. `says` maps a zone to what an order there meets."""

    says: dict[str, str] = field(default_factory=dict)
    reserved: dict[str, dict[str, Any]] = field(default_factory=dict)
    orders: list[str] = field(default_factory=list)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, request: httpx.Request) -> Answer | httpx.Response:
        parts = request.url.path.split("/")
        zone, kind = parts[6], parts[7]
        if kind == "operations":
            errors = [{"code": "ZONE_RESOURCE_POOL_EXHAUSTED", "message": STOCKOUT}]
            failed = {"error": {"errors": errors}} if self.says.get(zone) == "sold out" else {}
            return 200, {"name": "op", "status": "DONE", **failed}
        if request.method == "GET":
            found = zone in self.reserved if kind == "reservations" else False
            return (200, {"name": parts[8]}) if found else error(404, "The resource was not found")
        if request.method == "DELETE":
            if self.says.get(zone) == "kept":
                return error(503, "try later")
            return (200, {"name": "op", "status": "DONE"}) if self.reserved.pop(zone, None) else error(404, "not found")
        self.orders.append(zone)
        self.bodies[zone] = json.loads(request.content)
        if zone in self.reserved:
            return error(409, "The resource already exists")
        match self.says.get(zone):
            case "quota":
                return error(403, "Quota 'NVIDIA_T4_GPUS' exceeded.  Limit: 0.0 in region europe-west4.")
            case "forbidden":
                return error(403, "Required 'compute.reservations.create' permission for 'projects/shop'")
            case "lost":
                self.reserved[zone] = self.bodies[zone]
                raise httpx.ReadTimeout("")
            case "dead":
                raise httpx.ConnectError("")
            case "sold out":
                return 200, {"name": "op", "status": "RUNNING"}
            case _:
                self.reserved[zone] = self.bodies[zone]
                return 200, {"name": "op", "status": "RUNNING"}


WANTED = ZoneInputs(
    label="vllm-anywhere/gcp-t4/zone/1",
    zones=["europe-west4-a", "europe-west4-b", "europe-west4-c"],
    machine_type="n1-standard-4",
    accelerator="nvidia-tesla-t4",
    slug="va-t4-123456",
    project="shop",
)


@dataclass
class Shown:
    lines: list[str] = field(default_factory=list)
    waited: float = 0.0

    def context(self) -> Context:
        def pause(seconds: float) -> bool:
            self.waited += seconds
            return False

        at = datetime(2026, 11, 21, tzinfo=UTC)
        return Context("urn:x", self.lines.append, pause, lambda: self.waited, lambda: at)


def search(zones: Zones, wanted: ZoneInputs = WANTED) -> ZoneOutputs:
    return Zone().search(Shown().context(), wanted, google(zones))


def found(zone: str, asked: bool = True) -> ZoneOutputs:
    return ZoneOutputs(zone=zone, project="shop", asked=asked)


def test_the_first_zone_with_capacity_is_taken_and_no_other_is_asked() -> None:
    zones = Zones()
    assert search(zones) == found("europe-west4-a")
    assert zones.orders == ["europe-west4-a"]


def test_two_sold_out_zones_and_then_one_that_is_not() -> None:
    zones = Zones({"europe-west4-a": "sold out", "europe-west4-b": "sold out"})
    assert search(zones) == found("europe-west4-c")
    assert zones.orders == WANTED.zones


def test_what_is_reserved_is_given_back_at_once() -> None:
    for says in ({}, {"europe-west4-a": "sold out"}, {"europe-west4-a": "lost"}):
        zones = Zones(says)
        search(zones)
        assert zones.reserved == {}


@pytest.mark.parametrize("says", ["", "sold out"])
def test_a_cancelled_search_ends_and_gives_back_what_it_has_ordered(says: str) -> None:
    zones = Zones({"europe-west4-a": says})
    cancelled = replace(Shown().context(), pause=lambda _: True)
    with pytest.raises(Interrupted):
        Zone().search(cancelled, WANTED, google(zones))
    assert (zones.reserved, zones.orders) == ({}, ["europe-west4-a"])


def test_what_can_not_be_given_back_is_told_and_ends_by_itself() -> None:
    zones, shown = Zones({"europe-west4-a": "kept"}), Shown()
    assert Zone().search(shown.context(), WANTED, google(zones)) == found("europe-west4-a")
    assert "stays for two hours at most" in shown.lines[-1]
    assert zones.bodies["europe-west4-a"]["deleteAfterDuration"] == {"seconds": "900"}


def test_destroy_gives_back_what_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    zones = Zones({}, {"europe-west4-a": {}})
    monkeypatch.setattr("providers.gcp.client.connect", lambda: google(zones))
    Zone().delete(Shown().context(), WANTED.slug, found("europe-west4-a"))
    assert zones.reserved == {}


def test_what_is_reserved_is_one_such_machine_that_any_vm_may_take() -> None:
    zones = Zones()
    search(zones)
    order = zones.bodies["europe-west4-a"]
    assert order["name"] == WANTED.slug
    # A VM takes what it did not name only from a reservation that is open to all.
    assert order["specificReservationRequired"] is False
    assert order["specificReservation"] == {
        "count": "1",
        "instanceProperties": {
            "machineType": "n1-standard-4",
            "guestAccelerators": [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}],
        },
    }


def test_when_all_are_sold_out_the_error_says_what_is_billed_and_what_to_do() -> None:
    zones = Zones(dict.fromkeys(WANTED.zones, "sold out"))
    with pytest.raises(NoCapacity, match="no VM was made, so neither is billed") as found:
        search(zones)
    assert "pulumi config set" in str(found.value)
    assert zones.reserved == {}


def test_a_quota_ends_the_search_because_no_zone_of_the_region_has_another() -> None:
    zones = Zones({"europe-west4-a": "quota"})
    with pytest.raises(PlatformError, match="NVIDIA_T4_GPUS in europe-west4"):
        search(zones)
    assert zones.orders == ["europe-west4-a"]


@pytest.mark.parametrize("fault", ["forbidden", "dead"])
def test_who_may_not_reserve_still_gets_the_first_zone(fault: str) -> None:
    assert search(Zones({"europe-west4-a": fault})) == found("europe-west4-a", asked=False)


def test_a_lost_answer_is_looked_up_and_not_ordered_twice() -> None:
    zones = Zones({"europe-west4-a": "lost"})
    assert search(zones) == found("europe-west4-a")
    assert zones.orders == ["europe-west4-a"]


def test_what_an_interrupted_run_reserved_is_taken_over() -> None:
    zones = Zones({}, {"europe-west4-a": {}})
    assert search(zones) == found("europe-west4-a")
    assert zones.reserved == {}


def test_without_credentials_the_first_zone_is_taken() -> None:
    assert Zone().search(Shown().context(), WANTED, None) == found("europe-west4-a", asked=False)


def test_another_order_of_zones_moves_no_vm(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Zones()
    monkeypatch.setattr("providers.gcp.client.connect", lambda: google(asked))
    outputs = found("europe-west4-b")
    other = WANTED.model_copy(update={"zones": ["europe-west4-c", "europe-west4-b"]})
    assert Zone().update(Shown().context(), "id", outputs, WANTED, other).outputs == outputs
    assert asked.orders == []


def test_a_vm_that_only_changes_its_machine_type_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Zones()
    monkeypatch.setattr("providers.gcp.client.connect", lambda: google(asked))
    bigger = WANTED.model_copy(update={"machine_type": "n1-standard-8"})
    assert Zone().update(Shown().context(), "id", found("europe-west4-b"), WANTED, bigger).outputs.zone[-1] == "b"
    assert asked.orders == []


@pytest.mark.parametrize(("fault", "zone"), [("sold out", ""), ("quota", "europe-west4-a")])
def test_another_gpu_is_looked_for_while_the_old_vm_has_the_quota(
    monkeypatch: pytest.MonkeyPatch, fault: str, zone: str
) -> None:
    asked = Zones(dict.fromkeys(WANTED.zones, fault))
    monkeypatch.setattr("providers.gcp.client.connect", lambda: google(asked))
    other = WANTED.model_copy(update={"machine_type": "g2-standard-4", "accelerator": ""})

    def update() -> ZoneOutputs:
        return Zone().update(Shown().context(), "id", found("europe-west4-b"), WANTED, other).outputs

    if zone:
        assert update() == found(zone, asked=False)
    else:
        with pytest.raises(NoCapacity, match="the VM that runs is untouched"):
            update()


def running(monkeypatch: pytest.MonkeyPatch, status: str, started: str, code: int = 200) -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(code, json={"status": status, "lastStartTimestamp": started})

    who = Google(Identity("token", "shop"), transport=httpx.MockTransport(respond), environ={})
    monkeypatch.setattr("providers.gcp.client.connect", lambda: who)


RUN = RunInputs(instance="projects/p/zones/z/instances/n", instance_id="7", machine_type="n1", secure_boot=True)


@pytest.mark.parametrize(
    ("status", "started", "code", "seen"),
    [
        ("RUNNING", "2026-11-21T09:00:00Z", 200, ""),
        ("RUNNING", "2026-11-21T10:00:00Z", 200, "started anew at 2026-11-21T10:00:00Z"),
        ("TERMINATED", "2026-11-21T09:00:00Z", 200, "TERMINATED"),
        ("", "", 404, "GONE"),
        ("", "", 503, ""),
    ],
)
def test_refresh_sees_that_a_run_is_over(
    monkeypatch: pytest.MonkeyPatch, status: str, started: str, code: int, seen: str
) -> None:
    running(monkeypatch, "RUNNING", "2026-11-21T09:00:00Z")
    made = Run().create(Shown().context(), RUN)
    assert made.outputs.started_at == "2026-11-21T09:00:00Z"
    running(monkeypatch, status, started, code)
    read = Run().read(Shown().context(), made.id, RUN, made.outputs)
    assert read is not None
    assert read.inputs.status == seen


def test_refresh_tells_that_the_vm_is_gone_and_up_looks_for_a_zone_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Zones()
    monkeypatch.setattr("providers.gcp.client.connect", lambda: google(asked))
    outputs = found("europe-west4-b")
    seen = Zone().read(Shown().context(), "id", WANTED, outputs)
    assert seen is not None
    assert seen.inputs.status == "free"
    again = Zone().update(Shown().context(), "id", outputs, seen.inputs, WANTED)
    assert again.outputs.zone == "europe-west4-a"
