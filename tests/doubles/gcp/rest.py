"""Google's HTTP APIs on the same cloud, as far as the project asks them itself: capacity, quotas, logs, checks.

`with Rest(cloud) as rest:` serves on loopback; `rest.environ` sends a program there, with credentials that pass.
"""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.doubles.gcp import actions, answers, capacity, groups, machines, vm
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import KINDS, short
from tests.doubles.gcp.plain import API

RESERVATION = "rest:compute/reservation:Reservation"
_TOKEN = "a-token-for-tests"
_ZONE = r"projects/(?P<project>[^/]+)/zones/(?P<zone>[^/]+)"
_LISTED = {
    "instances": ("Instance",),
    "addresses": ("Address",),
    "reservations": ("Reservation",),
    "instanceGroupManagers": ("InstanceGroupManager", "RegionInstanceGroupManager"),
}
_PLENTY = 100
"""The limit of a quota of which the faults say nothing."""


class Refusal(Exception):
    """An HTTP status and Google's message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Rest:
    """The server, for as long as the block lasts."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(cloud))

    def __enter__(self) -> Rest:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        """What sends a client of Google's here."""
        base = f"http://127.0.0.1:{self._server.server_port}"
        return {
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{base}/compute/v1/",
            "GOOGLE_SERVICE_USAGE_CUSTOM_ENDPOINT": f"{base}/serviceusage/v1/",
            "GOOGLE_CLOUD_BILLING_CUSTOM_ENDPOINT": f"{base}/billing/v1/",
            "GOOGLE_RESOURCE_MANAGER_CUSTOM_ENDPOINT": f"{base}/resourcemanager/v1/",
            "GOOGLE_SECRET_MANAGER_CUSTOM_ENDPOINT": f"{base}/secretmanager/v1/",
            "GOOGLE_OAUTH_ACCESS_TOKEN": _TOKEN,
        }


def answer(cloud: Cloud, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call's answer. `path` begins with the service; `body` is the query of a GET.

    Raises:
        Refusal: Google refuses.
    """
    for pattern, wanted, handle in _ROUTES:
        service, _, below = path.partition("/v1/")
        if method == wanted and (found := re.fullmatch(pattern, below)):
            _admit(cloud, service, below)
            return handle(cloud, found, body)
    raise Refusal(404, f"the double knows no {method} {path}")


def _admit(cloud: Cloud, service: str, path: str) -> None:
    project = path.split("/")[1]
    faults = cloud.faults()
    if service == "compute" and answers.COMPUTE in faults.disabled_apis:
        said = answers.api_disabled(answers.COMPUTE, project, cloud.number(project))
        raise Refusal(403, said.removeprefix("googleapi: Error 403: ").split("\nDetails")[0])


def _reserve(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    id = f"{at['path']}/{body['name']}"
    if cloud.get(id, "Reservation"):
        raise Refusal(409, f"The resource '{id}' already exists")
    if "compute.reservations.create" in cloud.faults().denied:
        raise Refusal(403, f"Required 'compute.reservations.create' permission for '{id}'")
    wanted = body["specificReservation"]["instanceProperties"]
    attached = wanted.get("guestAccelerators", [])
    machine = {
        "machineType": wanted["machineType"],
        "guestAccelerators": [
            {"type": each["acceleratorType"], "count": each["acceleratorCount"]} for each in attached
        ],
    }
    lack = capacity.shortage(cloud, machine, {"project": at["project"], "zone": at["zone"]})
    operation: dict[str, Any] = {"name": f"operation-{body['name']}", "status": "DONE", "kind": "compute#operation"}
    if lack:
        message = lack.said.split("\n")[0]
        return {**operation, "error": {"errors": [{"code": lack.code, "message": message}]}}
    cloud.put(Record(RESERVATION, id, body, {"name": body["name"], "project": at["project"], "zone": at["zone"]}))
    return operation


def _reservation(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    return _there(cloud, at[0], "Reservation").outputs


def _free(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    cloud.drop(_there(cloud, at[0], "Reservation"))
    return {"name": "operation-free", "status": "DONE", "kind": "compute#operation"}


def _instance(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    record = _there(cloud, at[0], "Instance")
    found = record.outputs
    shown = ("name", "labels", "selfLink", "creationTimestamp", "machineType", "tags", "scheduling")
    return {
        **{name: found[name] for name in shown if name in found},
        "id": found["instanceId"],
        **({"lastStartTimestamp": record.hidden["started"]} if "started" in record.hidden else {}),
        "status": found["currentStatus"],
        "zone": f"{API}projects/{found['project']}/zones/{found['zone']}",
    }


def _serial(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    return {"contents": cloud.serial(_there(cloud, at["path"], "Instance").name), "start": "0"}


def _managed(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    group = _there(cloud, at["path"])
    return {"managedInstances": [{"instance": each.outputs["selfLink"]} for each in groups.members(cloud, group)]}


def _errors(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    return {"items": [{"error": each} for each in _there(cloud, at["path"]).hidden.get("errors", [])]}


def _regions(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    names = {zone.rpartition("-")[0] for zones in capacity.ZONES.values() for zone in zones}
    limits = cloud.faults().quotas
    items = [
        {
            "name": region,
            "quotas": [
                _quota(metric, limits.get(f"{metric}/{region}"), capacity.used(cloud, "", gpu, region, spot))
                for gpu in capacity.ZONES
                for spot in (False, True)
                for metric in [capacity.metric_of(gpu, spot)]
            ],
        }
        for region in sorted(names)
    ]
    return {"items": items}


def _project(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    limit = cloud.faults().quotas.get("GPUS_ALL_REGIONS")
    return {"name": short(at[0]), "quotas": [_quota("GPUS_ALL_REGIONS", limit, capacity.used(cloud, ""))]}


def _listed(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    """Everything of a kind. Boot disks go with their VMs here, so there never is another one."""
    key, _, value = str(query.get("filter", "")).removeprefix("labels.").partition("=")
    scopes: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for record in (each for kind in _LISTED.get(at["kind"], ()) for each in cloud.all(kind)):
        if key and record.outputs.get("effectiveLabels", {}).get(key) != value:
            continue
        project, scope, place = record.id.split("/")[1:4]
        found = record.outputs
        one: dict[str, Any] = {
            "name": record.name,
            "selfLink": f"{API}{record.id}",
            "labels": found.get("effectiveLabels", {}),
            "status": found.get("currentStatus", ""),
            scope.removesuffix("s"): f"{API}projects/{project}/{scope}/{place}",
        }
        if record.kind == "Address":
            users = [each for each in cloud.all("Instance") if vm.external_address(each) == found["address"]]
            one["status"] = "IN_USE" if users else "RESERVED"
        if record.kind == "Instance":
            items = [{"key": "created-by", "value": record.hidden["group"]}] if "group" in record.hidden else []
            gpus = capacity.accelerators(record.inputs).items()
            one |= {
                "machineType": f"{API}projects/{project}/{scope}/{place}/machineTypes/{short(found['machineType'])}",
                "scheduling": found["scheduling"],
                "guestAccelerators": [{"acceleratorType": f"{API}{gpu}", "acceleratorCount": n} for gpu, n in gpus],
                "disks": [{"diskSizeGb": str(found["bootDisk"]["initializeParams"]["size"])}],
                "metadata": {"items": items},
            }
        scopes.setdefault(f"{scope}/{place}", {}).setdefault(at["kind"], []).append(one)
    return {"items": scopes}


def _secrets(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    key, _, value = str(query.get("filter", "")).removeprefix("labels.").partition("=")
    found = [each for each in cloud.all("Secret") if each.outputs["effectiveLabels"].get(key) == value]
    number = cloud.number(at[0].split("/")[1])
    return {
        "secrets": [
            {"name": f"projects/{number}/secrets/{short(each.id)}", "labels": each.outputs["effectiveLabels"]}
            for each in found
        ]
    }


def _delete(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    record = _there(cloud, at[0])
    try:
        actions.delete(cloud, KINDS[record.token], record.id, {})
    except answers.Refused as error:
        raise Refusal(400, str(error)) from None
    return {"name": "operation-delete", "status": "DONE"} if record.kind != "Secret" else {}


def _permitted(cloud: Cloud, at: re.Match[str], body: dict[str, Any]) -> dict[str, Any]:
    return {"permissions": [each for each in body["permissions"] if each not in cloud.faults().denied]}


def _accelerators(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    wanted = str(query.get("filter", "")).removeprefix("name=")
    found = {gpu: zones for gpu, zones in capacity.ZONES.items() if wanted in ("", gpu)}
    zones = sorted({zone for each in found.values() for zone in each})
    return {
        "items": {
            f"zones/{zone}": {"acceleratorTypes": [{"name": gpu} for gpu, each in found.items() if zone in each]}
            for zone in zones
        }
    }


def _image(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    image = machines.resolved(at[0], "")
    if not image:
        raise Refusal(404, f"The resource '{at[0]}' was not found")
    return {"name": short(image), "status": "READY", "selfLink": f"{API}{image}"}


def _service(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    off = at["service"] in cloud.faults().disabled_apis
    return {"name": at[0], "state": "DISABLED" if off else "ENABLED"}


def _billing(cloud: Cloud, at: re.Match[str], query: dict[str, Any]) -> dict[str, Any]:
    return {"name": at[0], "billingEnabled": not cloud.faults().billing_disabled}


_ROUTES = (
    (rf"projects/[^/]+/aggregated/(?P<kind>{'|'.join(_LISTED)}|disks)", "GET", _listed),
    (r"projects/[^/]+/aggregated/acceleratorTypes", "GET", _accelerators),
    (r"projects/[^/]+/global/images/.+", "GET", _image),
    (r"projects/[^/]+/services/(?P<service>[^/]+)", "GET", _service),
    (r"projects/[^/]+/billingInfo", "GET", _billing),
    (rf"(?P<path>{_ZONE}/reservations)", "POST", _reserve),
    (rf"{_ZONE}/reservations/[^/]+", "GET", _reservation),
    (rf"{_ZONE}/reservations/[^/]+", "DELETE", _free),
    (r"projects/[^/]+/(zones|regions)/[^/]+/(instances|addresses|instanceGroupManagers)/[^/]+", "DELETE", _delete),
    (r"projects/[^/]+/secrets", "GET", _secrets),
    (r"projects/[^/]+/secrets/[^/]+", "DELETE", _delete),
    (r"projects/[^/]+:testIamPermissions", "POST", _permitted),
    (rf"{_ZONE}/instances/[^/]+", "GET", _instance),
    (rf"(?P<path>{_ZONE}/instances/[^/]+)/serialPort", "GET", _serial),
    (r"(?P<path>projects/.+/instanceGroupManagers/[^/]+)/listManagedInstances", "POST", _managed),
    (r"(?P<path>projects/.+/instanceGroupManagers/[^/]+)/listErrors", "GET", _errors),
    (r"projects/[^/]+/regions", "GET", _regions),
    (r"projects/[^/]+", "GET", _project),
)


def _quota(metric: str, limit: int | None, usage: int) -> dict[str, Any]:
    return {"metric": metric, "limit": float(_PLENTY if limit is None else limit), "usage": float(usage)}


def _there(cloud: Cloud, id: str, kind: str = "") -> Record:
    found = cloud.get(id, kind)
    if found is None:
        raise Refusal(404, f"The resource '{id}' was not found")
    return found


def _handler(cloud: Cloud) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._handle(dict(parse_qsl(urlsplit(self.path).query)))

        def do_DELETE(self) -> None:
            self._handle({})

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self._handle(json.loads(data) if data not in (b"", b"null") else {})

        def _handle(self, body: dict[str, Any]) -> None:
            path = urlsplit(self.path).path.lstrip("/")
            status, said = 200, {}
            if self.headers.get("Authorization") != f"Bearer {_TOKEN}":
                status, said = 401, _error(401, "Invalid Credentials")
            else:
                cloud.log(f"rest {self.command}", path, inputs=body)
                try:
                    with cloud.lock():
                        said = answer(cloud, self.command, path, body)
                except Refusal as refusal:
                    status, said = refusal.status, _error(refusal.status, str(refusal))
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on stderr: `requests.jsonl` has it."""

    return Handler


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"code": status, "message": message}}
