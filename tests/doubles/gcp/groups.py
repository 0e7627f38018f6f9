"""Managed instance groups: machines made from a template, and made again when they are lost."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from typing import Any

from tests.doubles.gcp import answers, machines, plain
from tests.doubles.gcp.capacity import ZONES, Shortage, shortage
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import KINDS, short

NOT_CREATED = "timeout while waiting for state to become 'created' (last state: 'creating', timeout: 15m0s)"
"""All that the provider says of a group whose machines cannot be made: the reason stays in the group."""
GROUPS = frozenset({"InstanceGroupManager", "RegionInstanceGroupManager"})


def judge(cloud: Cloud, inputs: Mapping[str, Any]) -> None:
    """Raise what Google answers to a group that refers to something that is not there."""
    for id in references(inputs):
        if cloud.get(id) is None:
            raise answers.Refused(f"Error creating InstanceGroupManager: {answers.missing(id)}")


def references(inputs: Mapping[str, Any]) -> list[str]:
    """The ids of a group's templates and health check."""
    healing = inputs.get("autoHealingPolicies")
    checks = [healing["healthCheck"]] if healing else []
    return [_path(each) for each in [*(version["instanceTemplate"] for version in inputs["versions"]), *checks]]


def fill(cloud: Cloud, group: Record) -> bool:
    """Bring the group to its size and its template, one machine at a time. The group knows why it could not."""
    wanted = size(group)
    version = references(group.inputs)[0]
    template = cloud.get(version)
    said: Shortage | None = None
    for each in members(cloud, group):
        stale = each.hidden["template"] != version and _proactive(group)
        if stale or each.outputs["currentStatus"] != "RUNNING" or len(members(cloud, group)) > wanted:
            machines.delete(cloud, each)
    while template is not None and len(members(cloud, group)) < wanted and not said:
        said = _add(cloud, group, template, version)
    stable = len(members(cloud, group)) == wanted
    group.outputs["statuses"] = [
        {"isStable": stable, "allInstancesConfigs": [], "statefuls": [], "versionTargets": [{"isReached": stable}]}
    ]
    if said:
        group.hidden["errors"] = [{"code": said.code, "message": said.said}]
    cloud.put(group)
    return said is None


def size(group: Record) -> int:
    """How many machines the group is to have."""
    return int(group.inputs.get("targetSize", 0))


def is_full(cloud: Cloud, group: Record) -> bool:
    """Whether all of its machines run."""
    running = [each for each in members(cloud, group) if each.outputs["currentStatus"] == "RUNNING"]
    return len(running) == size(group)


def members(cloud: Cloud, group: Record) -> list[Record]:
    return [each for each in cloud.all("Instance") if each.hidden.get("group") == group.id]


def outputs(kind: str, id: str) -> dict[str, Any]:
    """What a group has beyond its inputs."""
    word = "instanceGroupManagers"
    return {
        "instanceGroup": f"{plain.API}{id.replace(word, 'instanceGroups')}",
        "fingerprint": plain.fingerprint(id),
        "instanceGroupManagerId": int(plain.number()[:15]),
        **({"operation": ""} if kind == "InstanceGroupManager" else {}),
    }


def delete(cloud: Cloud, group: Record) -> None:
    for each in members(cloud, group):
        machines.delete(cloud, each)
    cloud.drop(group)


def _add(cloud: Cloud, group: Record, template: Record, version: str) -> Shortage | None:
    """Make one machine in the first zone that takes it."""
    stem = group.inputs["baseInstanceName"]
    name = f"{stem}-{''.join(random.choices(string.ascii_lowercase + string.digits, k=4))}"
    inputs = {**_machine(template.inputs), "name": name}
    lack: Shortage | None = None
    for zone in _zones(group):
        where = {"project": group.outputs["project"], "zone": zone}
        if lack := shortage(cloud, inputs, where):
            continue
        try:
            machines.judge(cloud, inputs, where)
        except answers.Refused as error:
            lack = Shortage("INVALID", str(error))
            continue
        id = machines.KIND.id.format(name=name, **where)
        made = machines.create(cloud, id, inputs, where, [])
        made.hidden |= {"group": group.id, "template": version}
        cloud.put(made)
        return None
    return lack


def _machine(template: Mapping[str, Any]) -> dict[str, Any]:
    """An instance's inputs out of a template's."""
    known = KINDS[machines.TOKEN].shape.inputs
    disk = next(each for each in template["disks"] if each.get("boot", True))
    disk_type, size = disk.get("diskType", "pd-standard"), disk.get("diskSizeGb", 10)
    initial = {"image": disk["sourceImage"], "type": disk_type, "size": size}
    kept = {key: value for key, value in template.items() if key in known and key != "name"}
    return {**kept, "bootDisk": {"initializeParams": initial}}


def _zones(group: Record) -> list[str]:
    if group.kind == "InstanceGroupManager":
        return [group.outputs["zone"]]
    every = sorted(set().union(*ZONES.values()))
    given = group.inputs.get("distributionPolicyZones")
    return [short(each) for each in given or every if short(each).startswith(group.outputs["region"])]


def _proactive(group: Record) -> bool:
    return (group.inputs.get("updatePolicy") or {}).get("type") == "PROACTIVE"


def _path(reference: str) -> str:
    return reference.split("?")[0].removeprefix(plain.API)
