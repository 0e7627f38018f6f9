"""What each call does to the cloud, one resource at a time. Everything here runs under the cloud's lock."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.doubles.gcp import answers, groups, machines, plain
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.diff import same
from tests.doubles.gcp.kinds import KINDS, Kind

_GIVEN_TWICE = frozenset({"Service", "IAMMember", "SecretIamMember"})
"""What may be created though it is there."""


class Unfinished(answers.Refused):
    """It was made and does not work: the engine keeps the record."""

    def __init__(self, record: Record, said: str) -> None:
        super().__init__(said)
        self.record = record


def create(cloud: Cloud, kind: Kind, inputs: dict[str, Any], secret: list[str], settings: Mapping[str, str]) -> Record:
    """Make it, or raise what the provider prints."""
    where = plain.place(kind, inputs, settings)
    id = plain.identity(cloud, kind, inputs, where)
    _admit(cloud, kind, "create", id, where)
    found = cloud.get(id, kind.name)
    if found is not None and not (kind.name in _GIVEN_TWICE or inputs.get("createIgnoreAlreadyExists")):
        raise answers.creating(kind, answers.exists(id))
    if kind.name == "Instance":
        machines.judge(cloud, inputs, where)
        record = machines.create(cloud, id, inputs, where, secret)
        faults = cloud.faults()
        if record.name in faults.timed_out:
            left = tuple(name for name in faults.timed_out if name != record.name)
            cloud.write_faults(faults.model_copy(update={"timed_out": left}))
            raise answers.waiting(answers.timed_out())
        return record
    if kind.name in groups.GROUPS:
        groups.judge(cloud, inputs)
    record = Record(kind.token, id, inputs, plain.outputs(cloud, kind, id, inputs, where), secret)
    if "secretDataWo" in inputs:
        record.hidden["data"] = record.outputs.pop("secretDataWo")
    cloud.put(record)
    if kind.name == "Service":
        _enable(cloud, inputs["service"], on=True)
    if kind.name in groups.GROUPS:
        record.outputs |= groups.outputs(kind.name, id)
        if not groups.fill(cloud, record) and inputs.get("waitForInstances"):
            raise Unfinished(record, groups.NOT_CREATED)
    return record


def update(cloud: Cloud, record: Record, inputs: dict[str, Any], secret: list[str], changed: Iterable[str]) -> Record:
    """Change it in place."""
    kind = KINDS[record.token]
    _admit(cloud, kind, "update", record.id, record.outputs)
    if kind.name == "Instance":
        machines.update(cloud, record, inputs, changed)
        return record
    if kind.name in groups.GROUPS:
        groups.judge(cloud, inputs)
    kept = {key: value for key, value in record.outputs.items() if key not in record.inputs}
    record.outputs = {**kept, **inputs, **plain.labels(kind, inputs)}
    record.inputs, record.secret = inputs, secret
    cloud.put(record)
    if kind.name in groups.GROUPS and not groups.fill(cloud, record) and inputs.get("waitForInstances"):
        raise Unfinished(record, groups.NOT_CREATED)
    return record


def read(cloud: Cloud, kind: Kind, id: str) -> Record | None:
    """What is there now, after what has happened meanwhile; None when it is gone."""
    _incidents(cloud)
    record = cloud.get(id, kind.name) or _by_short_id(cloud, kind, id)
    if record is None:
        return None
    _admit(cloud, kind, "get", record.id, record.outputs)
    if kind.name in groups.GROUPS:
        groups.fill(cloud, record)
    if kind.name == "Address":
        address = record.outputs["address"]
        users = [each for each in cloud.all("Instance") if address in machines.static_addresses(each.inputs)]
        record.outputs["users"] = [each.outputs["selfLink"] for each in users]
        cloud.put(record)
    return record


def delete(cloud: Cloud, kind: Kind, id: str, inputs: Mapping[str, Any]) -> None:
    """Remove it; what is not there is removed already."""
    policy = inputs.get("deletionPolicy")
    record = cloud.get(id, kind.name)
    if record is None or policy == "ABANDON":
        return
    _admit(cloud, kind, "delete", id, record.outputs)
    if policy == "PREVENT":
        raise answers.Refused(f"cannot destroy {kind.what} without setting deletion_policy to DELETE or ABANDON")
    if user := _user(cloud, record):
        said = f"The {kind.what.lower()} resource '{id}' is already being used by '{user}'"
        raise answers.Refused(
            f"Error deleting {kind.what}: googleapi: Error 400: {said}, resourceInUseByAnotherResource"
        )
    if kind.name == "Instance":
        machines.delete(cloud, record)
    elif kind.name in groups.GROUPS:
        groups.delete(cloud, record)
    else:
        cloud.drop(record)
    if kind.name == "Secret":
        for each in [*cloud.all("SecretVersion"), *cloud.all("SecretIamMember")]:
            if id in (each.outputs.get("secret"), each.outputs.get("secretId")):
                cloud.drop(each)
    if kind.name == "Service" and record.inputs.get("disableOnDestroy"):
        _enable(cloud, record.inputs["service"], on=False)


def settle(cloud: Cloud) -> None:
    """What Google does on its own: groups that are not full make their machines, as soon as they can."""
    for group in (each for kind in groups.GROUPS for each in cloud.all(kind)):
        if not groups.is_full(cloud, group):
            groups.fill(cloud, group)


def inputs_now(record: Record, given: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the cloud has them: as they were given, but for what was changed since; all of them on import."""
    live = dict(record.inputs)
    if not given:
        return live
    if record.kind == "Instance" and "desiredStatus" in given:
        live["desiredStatus"] = record.outputs["currentStatus"]
    marks = {key: value for key, value in given.items() if key.startswith("__")}
    return marks | {key: given[key] if same(key, value, given.get(key)) else value for key, value in live.items()}


def _admit(cloud: Cloud, kind: Kind, verb: str, id: str, where: Mapping[str, Any]) -> None:
    """Raise what keeps the caller from any call to this API."""
    faults = cloud.faults()
    project = str(where["project"])
    number = cloud.number(project)
    said = ""
    if kind.api in faults.disabled_apis:
        said = answers.api_disabled(kind.api, project, number)
    elif faults.billing_disabled and kind.api == answers.COMPUTE:
        said = answers.billing_disabled(number)
    elif f"{kind.permission}.{verb}" in faults.denied:
        said = answers.denied(f"{kind.permission}.{verb}", id)
    if said:
        words = {"create": "creating", "update": "updating", "get": "reading", "delete": "deleting"}
        raise answers.Refused(f"Error {words[verb]} {kind.what}: {said}")


def _incidents(cloud: Cloud) -> None:
    """What the faults say happens once before the next read."""
    faults = cloud.faults()
    for name in faults.preempted:
        if record := cloud.named(name):
            machines.preempt(cloud, record)
    for id in faults.deleted:
        if record := cloud.get(id):
            machines.delete(cloud, record) if record.kind == "Instance" else cloud.drop(record)
    if faults.preempted or faults.deleted:
        cloud.write_faults(faults.model_copy(update={"preempted": (), "deleted": ()}))


def _by_short_id(cloud: Cloud, kind: Kind, id: str) -> Record | None:
    """By the forms that import takes too: `P/Z/N`, `Z/N` and the name alone."""
    fields = re.findall(r"\{(\w+)\}", kind.id)
    for record in cloud.all(kind.name):
        values = [str(record.outputs.get(field, "")) for field in fields]
        if id in ["/".join(values[start:]) for start in range(len(values))]:
            return record
    return None


def _user(cloud: Cloud, record: Record) -> str:
    """The id of what still needs it."""
    if record.kind == "Address":
        for each in cloud.all("Instance"):
            if record.outputs["address"] in machines.static_addresses(each.inputs):
                return each.id
    if record.kind in ("InstanceTemplate", "RegionInstanceTemplate", "HealthCheck"):
        for each in (group for kind in groups.GROUPS for group in cloud.all(kind)):
            if record.id in groups.references(each.inputs):
                return each.id
    return ""


def _enable(cloud: Cloud, service: str, *, on: bool) -> None:
    faults = cloud.faults()
    left = tuple(each for each in faults.disabled_apis if each != service)
    cloud.write_faults(faults.model_copy(update={"disabled_apis": left if on else (*left, service)}))
