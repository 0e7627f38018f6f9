"""Compute instances: what Google refuses, what it computes, and the VM that runs as long as the instance does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from providers.native import UNKNOWN
from tests.doubles.gcp import answers, plain, vm
from tests.doubles.gcp.capacity import ZONES, accelerators, is_spot, shortage
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import COMPUTE, KINDS, STOPS, short
from tests.doubles.gcp.plain import API

TOKEN = "gcp:compute/instance:Instance"
KIND = KINDS[TOKEN]

_MACHINES = re.compile(
    r"n1-(standard|highmem|highcpu)-(1|2|4|8|16|32|64|96)|g2-standard-(4|8|12|16|24|32|48|96)|e2-(micro|small|medium)"
    r"|(e2|n2)-(standard|highmem|highcpu)-(2|4|8|16|32)"
)
_IMAGES = {
    "ubuntu-os-accelerator-images": re.compile(
        r"ubuntu-accelerator-(2204|2404)-amd64-with-nvidia-(570|580|595)(-v\d{8})?"
    ),
    "deeplearning-platform-release": re.compile(r"common-cu129-ubuntu-2204-nvidia-580(-v\d{8})?"),
    "ubuntu-os-cloud": re.compile(r"ubuntu-(2204|2404)-lts(-amd64)?|ubuntu-(2204-jammy|2404-noble)-v\d{8}"),
}
_NEWEST = "v20260225"


def judge(cloud: Cloud, inputs: Mapping[str, Any], where: Mapping[str, str], *, self_id: str = "") -> None:
    """Raise what Google answers to a start with these inputs: at once, and then after a while for lack of GPUs."""
    for said in _objections(cloud, inputs, where, self_id):
        raise answers.creating(KIND, said)
    if lack := shortage(cloud, inputs, where, but=self_id):
        raise answers.waiting(lack.said)


def _objections(cloud: Cloud, inputs: Mapping[str, Any], where: Mapping[str, str], self_id: str) -> Iterable[str]:
    project, zone = where["project"], where["zone"]
    base = f"projects/{project}/zones/{zone}"
    machine = short(inputs["machineType"])
    if not any(zone in zones for zones in ZONES.values()):
        yield answers.missing(base)
    if not _MACHINES.fullmatch(machine):
        yield answers.missing(f"{base}/machineTypes/{machine}")
        return
    for gpu in accelerators(inputs):
        if zone not in ZONES.get(gpu, ()):
            of = f"machineTypes/{machine}" if machine.startswith("g2-") else f"acceleratorTypes/{gpu}"
            yield answers.missing(f"{base}/{of}")
        if gpu == "nvidia-tesla-t4" and not machine.startswith("n1-"):
            said = f"Invalid resource usage: '[{gpu}, {machine}] features are not compatible for creating instance.'."
            yield f"googleapi: Error 400: {said}, invalidResourceUsage"
    scheduling = inputs.get("scheduling") or {}
    spot = is_spot(inputs)
    if accelerators(inputs) and not spot and scheduling.get("onHostMaintenance") != "TERMINATE":
        yield answers.invalid("Instances with guest accelerators do not support live migration.")
    if scheduling.get("preemptible") and scheduling.get("automaticRestart", True):
        yield answers.invalid("Scheduling must have preemptible be false when AutomaticRestart is true.")
    if scheduling.get("preemptible") and scheduling.get("provisioningModel", "SPOT") != "SPOT":
        yield answers.invalid("For preemptible, only allowed provisioning_model value is SPOT.")
    if scheduling.get("provisioningModel") == "SPOT" and not scheduling.get("preemptible"):
        yield answers.invalid("Scheduling must have preemptible be true when provisioningModel is SPOT.")
    if scheduling.get("maxRunDuration") and not scheduling.get("instanceTerminationAction"):
        yield answers.invalid("You must specify an instance termination action when limiting the run time.")
    if not resolved(_image(inputs), project):
        yield f"googleapi: Error 404: The resource '{_image(inputs)}' was not found, notFound"
    account = inputs.get("serviceAccount") or {}
    if (email := account.get("email")) and not plain.account_exists(cloud, email):
        yield answers.invalid(
            f"Invalid value for field 'resource.serviceAccounts[0].email': '{email}'. The specified service account "
            "was not found"
        )
    region = zone.rpartition("-")[0]
    for given in static_addresses(inputs):
        owner = next((each for each in cloud.all("Address") if each.outputs["address"] == given), None)
        if owner is None or owner.outputs["region"] != region:
            yield answers.invalid(f"Invalid value for field 'resource.networkInterfaces[0].accessConfigs[0].natIP': "
                                  f"'{given}'. The specified external IP address '{given}' was not found in region "
                                  f"'{region}'.")  # fmt: skip
        elif any(each.id != self_id and vm.external_address(each) == given for each in cloud.all("Instance")):
            yield answers.invalid(f"External IP address: {given} is already in-use.")


def create(cloud: Cloud, id: str, inputs: dict[str, Any], where: dict[str, str], secret: list[str]) -> Record:
    """The instance, running or as `desiredStatus` says."""
    found = plain.outputs(cloud, KIND, id, inputs, where)
    number = plain.number()
    name, project, zone = inputs["name"], where["project"], where["zone"]
    disk: dict[str, Any] = {
        "deviceName": "persistent-disk-0",
        "mode": "READ_WRITE",
        "autoDelete": True,
        **inputs["bootDisk"],
    }
    disk |= {"source": f"{API}projects/{project}/zones/{zone}/disks/{name}"}
    initial = {"size": 10, "type": "pd-standard", **disk.get("initializeParams", {})}
    disk["initializeParams"] = {**initial, "image": f"{API}{resolved(_image(inputs), project)}"}
    scheduling = inputs.get("scheduling", {})
    found |= {
        "bootDisk": disk,
        "instanceId": number,
        "cpuPlatform": "Intel Skylake" if short(inputs["machineType"]).startswith("n1-") else "Intel Cascade Lake",
        "canIpForward": inputs.get("canIpForward", False),
        "deletionProtection": inputs.get("deletionProtection", False),
        "scheduling": {
            "automaticRestart": not scheduling.get("preemptible", False),
            "onHostMaintenance": "TERMINATE" if scheduling.get("preemptible") else "MIGRATE",
            "preemptible": False,
            "provisioningModel": "STANDARD",
            **scheduling,
        },
        "shieldedInstanceConfig": {
            "enableSecureBoot": False, "enableVtpm": True, "enableIntegrityMonitoring": True,
            **inputs.get("shieldedInstanceConfig", {}),
        },
        "guestAccelerators": [
            {"type": f"{API}projects/{project}/zones/{zone}/acceleratorTypes/{gpu}", "count": count}
            for gpu, count in accelerators(inputs).items()
        ],
    }  # fmt: skip
    record = Record(TOKEN, id, inputs, found, secret, {"boot": 0, "internal": f"10.164.0.{2 + int(number) % 250}"})
    refresh(record)
    if inputs.get("desiredStatus", "RUNNING") == "RUNNING":
        start(cloud, record)
    else:
        found["currentStatus"] = inputs["desiredStatus"]
        cloud.put(record)
    return record


def refresh(record: Record) -> None:
    """Bring what follows from the inputs that change in place up to date."""
    inputs, found = record.inputs, record.outputs
    for name in ("machineType", "metadata", "tags", "serviceAccount", "allowStoppingForUpdate", "desiredStatus"):
        if name in inputs:
            found[name] = inputs[name]
        else:
            found.pop(name, None)
    found |= plain.labels(KIND, inputs) | {"labels": inputs.get("labels", {})}
    found["metadataFingerprint"] = plain.fingerprint(found.get("metadata", {}))
    found["tagsFingerprint"] = plain.fingerprint(found.get("tags", []))
    for name in ("scheduling", "shieldedInstanceConfig"):
        found[name] = {**found[name], **inputs.get(name, {})}
    project, zone = found["project"], found["zone"]
    interfaces: list[dict[str, Any]] = []
    for index, given in enumerate(inputs["networkInterfaces"]):
        network = short(given.get("network", "default"))
        subnetwork = short(given.get("subnetwork", network))
        before = found.get("networkInterfaces", [])
        earlier = before[index] if index < len(before) and "networkIp" in before[index] else {}
        kept = [each.get("natIp", "") for each in earlier.get("accessConfigs", [])]
        interfaces.append(
            {
                "stackType": "IPV4_ONLY",
                **given,
                "name": f"nic{index}",
                "network": f"{API}projects/{project}/global/networks/{network}",
                "subnetwork": f"{API}projects/{project}/regions/{zone.rpartition('-')[0]}/subnetworks/{subnetwork}",
                "subnetworkProject": project,
                "networkIp": given.get("networkIp", record.hidden["internal"]),
                "accessConfigs": [
                    {"networkTier": "PREMIUM", "natIp": kept[at] if at < len(kept) else "", **access}
                    for at, access in enumerate(given.get("accessConfigs") or [])
                ],
            }
        )
    found["networkInterfaces"] = interfaces


def start(cloud: Cloud, record: Record) -> None:
    """Power on. An address that is nobody's is another one after each stop."""
    fixed = static_addresses(record.inputs)
    for interface in record.outputs["networkInterfaces"]:
        for access in interface["accessConfigs"]:
            access["natIp"] = access["natIp"] if access["natIp"] in fixed else cloud.address()
    record.outputs["currentStatus"] = "RUNNING"
    record.hidden["boot"] += 1
    record.hidden["started"] = datetime.now(UTC).isoformat(timespec="milliseconds")
    cloud.put(record)
    vm.power_on(cloud, record)


def stop(cloud: Cloud, record: Record, status: str = "TERMINATED") -> None:
    """Power off, and return when the VM has ended."""
    fixed = static_addresses(record.inputs)
    for interface in record.outputs["networkInterfaces"]:
        for access in interface["accessConfigs"]:
            access["natIp"] = access["natIp"] if access["natIp"] in fixed else ""
    record.outputs["currentStatus"] = status
    cloud.put(record)
    vm.wait_until_off(cloud, record)


def update(cloud: Cloud, record: Record, inputs: dict[str, Any], changed: Iterable[str]) -> None:
    """Apply a change in place, over a stop where that takes one."""
    running = record.outputs["currentStatus"] == "RUNNING"
    plain_paths = {re.sub(r"\[\d+\]", "", path) for path in changed}
    over_stop = any(path == each or path.startswith(f"{each}.") for path in plain_paths for each in STOPS)
    if (
        running
        and over_stop
        and not inputs.get("allowStoppingForUpdate")
        and inputs.get("desiredStatus") != "TERMINATED"
    ):
        raise answers.Refused(answers.STOP_NEEDED)
    wanted = inputs.get("desiredStatus") or record.outputs["currentStatus"]
    if running and (over_stop or wanted != "RUNNING"):
        stop(cloud, record)
    record.inputs = inputs
    refresh(record)
    cloud.put(record)
    if wanted == "RUNNING" and record.outputs["currentStatus"] != "RUNNING":
        judge(cloud, inputs, record.outputs, self_id=record.id)
        start(cloud, record)


def delete(cloud: Cloud, record: Record) -> None:
    if record.outputs["deletionProtection"]:
        raise answers.Refused(
            f"Cannot delete instance {record.name}: instance Deletion Protection is enabled. Set deletion_protection "
            'to false for this resource and run "terraform apply" before attempting to delete it.'
        )
    cloud.drop(record)
    vm.wait_until_off(cloud, record)


def preempt(cloud: Cloud, record: Record) -> None:
    """What Google does to a Spot VM: stops it, or deletes it when that was asked for."""
    if record.inputs.get("scheduling", {}).get("instanceTerminationAction") == "DELETE":
        delete(cloud, record)
    else:
        stop(cloud, record)


def previewed(interface: Any) -> Any:
    """A network interface whose addresses are not known yet."""
    if not isinstance(interface, dict):
        return UNKNOWN
    accesses = interface.get("accessConfigs") or []
    return {
        "name": UNKNOWN,
        "networkIp": UNKNOWN,
        **interface,
        "accessConfigs": [{"natIp": UNKNOWN, "networkTier": UNKNOWN, **each} for each in accesses],
    }


def resolved(image: str, project: str) -> str:
    """The newest image of a family, or the image itself, as a path; "" when there is none."""
    words = image.removeprefix(API).removeprefix(f"https://compute.googleapis.com/{COMPUTE}/").split("/")
    owner = words[1] if words[0] == "projects" else words[0] if len(words) == 2 and words[0] != "family" else project
    name = words[-1]
    found = _IMAGES.get(owner)
    if found is None or not found.fullmatch(name):
        return ""
    pinned = bool(re.search(r"-v\d{8}$", name))
    if ("family" in words) and pinned:
        return ""
    return f"projects/{owner}/global/images/{name if pinned else f'{name}-{_NEWEST}'}"


def _image(inputs: Mapping[str, Any]) -> str:
    return str(inputs["bootDisk"].get("initializeParams", {}).get("image", ""))


def static_addresses(inputs: Mapping[str, Any]) -> list[str]:
    accesses = [access for each in inputs["networkInterfaces"] for access in each.get("accessConfigs") or []]
    return [access["natIp"] for access in accesses if access.get("natIp")]
