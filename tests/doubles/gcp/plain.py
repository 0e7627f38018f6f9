"""What Google adds to everything but machines: ids, times, fingerprints, addresses, names."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.doubles.gcp import answers
from tests.doubles.gcp.cloud import Cloud, Record
from tests.doubles.gcp.kinds import KINDS, Kind, short

API = "https://www.googleapis.com/compute/v1/"


def place(kind: Kind, inputs: Mapping[str, Any], settings: Mapping[str, str]) -> dict[str, str]:
    """Project, region and zone of a new resource: its own, or the provider's."""
    found = {}
    for name in ("project", "region", "zone"):
        if f"{{{name}}}" in kind.id or (name in kind.shape.inputs and name == "project"):
            value = short(inputs.get(name) or settings.get(name, ""))
            if not value:
                raise answers.Refused(f"{name}: required field is not set")
            found[name] = value
    return found


def identity(cloud: Cloud, kind: Kind, inputs: Mapping[str, Any], where: Mapping[str, str]) -> str:
    """The id that a new resource gets."""
    values = {**inputs, **where}
    if kind.name == "SecretIamMember":
        values["secret"] = secret_id(str(inputs["secretId"]), where["project"])
    if kind.name == "SecretVersion":
        number = cloud.number(str(inputs["secret"]).split("/")[1])
        values["secret"] = f"projects/{number}/secrets/{short(inputs['secret'])}"
        others = [each for each in cloud.all("SecretVersion") if each.inputs["secret"] == inputs["secret"]]
        # Numbers go on upwards: one that was destroyed is not given again.
        values["version"] = 1 + max((int(each.outputs["version"]) for each in others), default=0)
    return kind.id.format(**values)


def secret_id(given: str, project: str) -> str:
    """A secret's id, whether it was given as one or as its last word."""
    return given if given.startswith("projects/") else f"projects/{project}/secrets/{given}"


def outputs(cloud: Cloud, kind: Kind, id: str, inputs: Mapping[str, Any], where: Mapping[str, str]) -> dict[str, Any]:
    """All that can be read of a new resource: the inputs, defaults, and what Google computes."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    found: dict[str, Any] = {**inputs, **where}
    known = kind.shape.outputs
    if "creationTimestamp" in known:
        found["creationTimestamp"] = now
    if "createTime" in known:
        found["createTime"] = now
    if "selfLink" in known:
        found["selfLink"] = f"{API}{id}"
    if "etag" in known:
        found["etag"] = fingerprint([id, now])
    return {**found, **labels(kind, inputs), **_special(cloud, kind, id, found)}


def labels(kind: Kind, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The labels as Pulumi and Google see them; the provider adds one of its own."""
    if "effectiveLabels" not in kind.shape.outputs:
        return {}
    effective = {**inputs.get("labels", {}), "goog-pulumi-provisioned": "true"}
    found: dict[str, Any] = {"effectiveLabels": effective, "pulumiLabels": effective}
    if "labelFingerprint" in kind.shape.outputs:
        found["labelFingerprint"] = fingerprint(effective)
    return found


def fingerprint(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def number() -> str:
    """An id as Google's are: nineteen digits, written as text."""
    return str(random.randrange(10**18, 9 * 10**18))


def _special(cloud: Cloud, kind: Kind, id: str, found: Mapping[str, Any]) -> dict[str, Any]:
    match kind.name:
        case "Address":
            return {
                "address": found.get("address") or cloud.address(),
                "addressType": found.get("addressType", "EXTERNAL"),
                "networkTier": found.get("networkTier", "PREMIUM"),
                "addressId": int(number()[:15]),
                "users": [],
            }
        case "Firewall":
            return {"direction": found.get("direction", "INGRESS"), "priority": found.get("priority", 1000)}
        case "HealthCheck":
            word = next(name for name in found if name.endswith("HealthCheck"))
            periods = {"checkIntervalSec": 5, "timeoutSec": 5, "healthyThreshold": 2, "unhealthyThreshold": 2}
            kept = {key: found.get(key, value) for key, value in periods.items()}
            return {"type": word.removesuffix("HealthCheck").upper(), **kept}
        case "Secret":
            return {"name": f"projects/{cloud.number(found['project'])}/secrets/{found['secretId']}"}
        case "SecretVersion":
            if cloud.get(str(found["secret"]), "Secret") is None:
                raise answers.creating(kind, f"googleapi: Error 404: Secret [{found['secret']}] not found., notFound")
            return {"name": id, "version": short(id), "enabled": found.get("enabled", True)}
        case "SecretIamMember":
            secret = secret_id(str(found["secretId"]), str(found["project"]))
            if cloud.get(secret, "Secret") is None:
                raise answers.Refused(f"Error retrieving IAM policy for {secret}: {answers.missing(secret)}")
            _member(cloud, f"secretmanager secret {secret!r}", str(found["member"]))
            return {"secretId": secret}
        case "IAMMember":
            _member(cloud, f"project {found['project']!r}", str(found["member"]))
            return {}
        case "Account":
            email = short(id)
            return {
                "email": email,
                "member": f"serviceAccount:{email}",
                "name": id,
                "uniqueId": number() + "77",
                "disabled": found.get("disabled", False),
            }
        case "InstanceTemplate" | "RegionInstanceTemplate":
            unique = {"selfLinkUnique": f"{API}{id}?uniqueId={number()}"} if kind.name == "InstanceTemplate" else {}
            return {
                **unique,
                "numericId": number(),
                "metadataFingerprint": fingerprint(found.get("metadata", {})),
                "tagsFingerprint": fingerprint(found.get("tags", [])),
            }
        case _:
            return {}


def _member(cloud: Cloud, where: str, member: str) -> None:
    email = member.removeprefix("serviceAccount:")
    if member.startswith("serviceAccount:") and not account_exists(cloud, email):
        said = f"googleapi: Error 400: Service account {email} does not exist., badRequest"
        raise answers.Refused(f"Error applying IAM policy for {where}: Error setting IAM policy for {where}: {said}")


def account_exists(cloud: Cloud, email: str) -> bool:
    """Whether an account exists."""
    if email.endswith("-compute@developer.gserviceaccount.com"):
        return True
    return any(each.outputs["email"] == email for each in cloud.all("Account"))


def read(record: Record) -> dict[str, Any]:
    """The outputs that the SDK knows."""
    kind = KINDS[record.token]
    return {key: value for key, value in record.outputs.items() if key in kind.shape.outputs}
