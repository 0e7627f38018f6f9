"""What has to be so before `up` can work, asked of Google one by one, for T4 and L4 and every region together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from providers.account import Check
from providers.base import PlatformError
from providers.gcp.client import Google
from providers.gcp.errors import ROLES
from providers.gcp.machines import quota_metrics, region_of, zones_with
from providers.gcp.options import IMAGE
from providers.gcp.quotas import REQUEST, Quota, Quotas
from serving.gpus import gpu

APIS = (
    "compute.googleapis.com",
    "secretmanager.googleapis.com",
    "iam.googleapis.com",
    "cloudresourcemanager.googleapis.com",
    "logging.googleapis.com",
)
CARDS = ("T4", "L4")
PERMISSIONS = (
    "compute.addresses.create",
    "compute.addresses.delete",
    "compute.addresses.use",
    "compute.disks.create",
    "compute.firewalls.create",
    "compute.firewalls.delete",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.setServiceAccount",
    "compute.instances.setTags",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.networks.updatePolicy",
    "compute.reservations.create",
    "compute.reservations.delete",
    "compute.subnetworks.use",
    "compute.subnetworks.useExternalIp",
    "iam.serviceAccounts.actAs",
    "iam.serviceAccounts.create",
    "iam.serviceAccounts.delete",
    "resourcemanager.projects.setIamPolicy",
    "secretmanager.secrets.create",
    "secretmanager.secrets.delete",
    "secretmanager.secrets.setIamPolicy",
    "secretmanager.versions.add",
)
"""What `up` and `destroy` do to a VM with its network, identity and secrets (https://cloud.google.com/iam/docs/permissions-reference)."""
_BILLING = "https://console.cloud.google.com/billing/linkedaccount"
_MOST_SHOWN = 6
_ACT_AS = "roles/iam.serviceAccountUser"


def checks(google: Google, image: str = IMAGE) -> Iterator[Check]:
    """Billing, APIs, permissions, zones, quotas, image. Each is asked, whatever the others said."""
    yield from _asked("billing", lambda: _billing(google))
    yield from _asked("APIs", lambda: _apis(google))
    yield from _asked("permissions", lambda: _permissions(google))
    for card in CARDS:
        yield from _asked("zones", lambda card=card: [_zones(google, card)])
    yield from _asked("quotas", lambda: quota_checks(google.quotas()))
    yield from _asked("image", lambda: _image(google, image))


def _asked(name: str, look: Callable[[], list[Check]]) -> list[Check]:
    try:
        return look()
    except PlatformError as error:
        return [Check(name, "failed", str(error))]


def _billing(google: Google) -> list[Check]:
    if google.get("billing", f"projects/{google.project}/billingInfo").get("billingEnabled"):
        return [Check("billing", "ok", "the project has an active billing account")]
    return [Check("billing", "failed", "no active billing account", f"link one: {_BILLING}")]


def _apis(google: Google) -> list[Check]:
    """One check for all that are on, and one for those that are off."""
    project = google.project
    off = [
        api
        for api in APIS
        if google.get("serviceusage", f"projects/{project}/services/{api}").get("state") != "ENABLED"
    ]
    if not off:
        return [Check("APIs", "ok", f"all {len(APIS)} are switched on")]
    command = f"gcloud services enable {' '.join(off)} --project={project}"
    return [Check("APIs", "failed", f"switched off: {', '.join(off)}", command)]


def _permissions(google: Google) -> list[Check]:
    path = f"projects/{google.project}:testIamPermissions"
    answer = google.call("POST", "resourcemanager", path, {"permissions": list(PERMISSIONS)})
    lacking = [one for one in PERMISSIONS if one not in (answer.get("permissions") or [])]
    if not lacking:
        return [Check("permissions", "ok", f"all {len(PERMISSIONS)} that `up` and `destroy` take")]
    roles = sorted({_ACT_AS if one.endswith(".actAs") else ROLES[one.partition(".")[0]] for one in lacking})
    command = "\n".join(
        f"gcloud projects add-iam-policy-binding {google.project} --member=<user:you@example.org> --role={role}"
        for role in roles
    )
    return [Check("permissions", "failed", f"lacking: {', '.join(lacking)}", command)]


def _zones(google: Google, card: str) -> Check:
    """Whether Google's zones are those of our table."""
    name = gpu(card).platform_names["gcp"][0]
    scopes = google.pages(f"projects/{google.project}/aggregated/acceleratorTypes", filter=f"name={name}")
    have = {scope.rpartition("/")[2] for scope, found in scopes if found.get("acceleratorTypes")}
    known = set(zones_with(card))
    regions = len({region_of(zone) for zone in have})
    told = f"{card} in {len(have)} zones of {regions} regions"
    if gone := sorted(known - have):
        return Check("zones", "warning", f"{told}; no longer in {', '.join(gone)}, which are still tried")
    if new := sorted(have - known):
        return Check("zones", "ok", f"{told}; to use {', '.join(new)}, name them in vllm-anywhere:gcp.zones")
    return Check("zones", "ok", told)


def quota_checks(quotas: Quotas) -> list[Check]:
    """The quota of all GPUs together, and where there is one of each kind, on demand and spot."""
    total = quotas.project.get("GPUS_ALL_REGIONS")
    found = [_total(total)]
    for card in CARDS:
        for spot in (False, True):
            _, metric = quota_metrics(gpu(card), spot)
            found.append(
                _regional(metric, {name: one[metric] for name, one in quotas.regions.items() if metric in one})
            )
    return found


def _total(quota: Quota | None) -> Check:
    name = "GPUS_ALL_REGIONS"
    if quota is None:
        return Check("quotas", "warning", f"Google does not say {name}", REQUEST)
    told = f"{name}: {quota.usage:g} of {quota.limit:g} in use"
    if quota.limit < 1:
        return Check("quotas", "failed", f"{told}: no GPU may be used anywhere", f"ask for 1 at {REQUEST}")
    return Check("quotas", "ok" if quota.usage < quota.limit else "warning", told)


def _regional(metric: str, regions: Mapping[str, Quota]) -> Check:
    free = sorted(name for name, one in regions.items() if one.limit - one.usage >= 1)
    full = sorted(name for name, one in regions.items() if one.limit >= 1 and name not in free)
    taken = f"; all in use in {_some(full)}" if full else ""
    if free:
        return Check("quotas", "ok", f"{metric}: free in {_some(free)}{taken}")
    if full:
        return Check("quotas", "warning", f"{metric}: none free{taken}", f"ask for more at {REQUEST}")
    return Check("quotas", "warning", f"{metric}: 0 in every region", f"to use it, ask for 1 at {REQUEST}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more regions" if len(names) > _MOST_SHOWN else ""
    return f"{', '.join(names[:_MOST_SHOWN])}{more}"


def _image(google: Google, image: str) -> list[Check]:
    return [Check("image", "ok", f"the boot image is {google.get('compute', image).get('name', image)}")]
