"""What Google's refusals mean, told by the text that Pulumi shows: it has the message, not the error's code.

The provider prints the message, for quotas also the metric and the limit (hashicorp/terraform-provider-google,
compute_operation.go), so recognising goes by the words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "stockout",
    "quota_global",
    "quota_region",
    "no_such_gpu",
    "api_disabled",
    "billing_disabled",
    "permission",
    "exists",
    "live_migration",
    "stop_required",
    "image_missing",
    "in_use",
    "no_project",
    "timeout",
]


@dataclass(frozen=True)
class Refusal:
    """One refusal, understood; `advice` is what it means, and the next command."""

    kind: Kind
    advice: str

    @property
    def another_zone(self) -> bool:
        """Whether another zone of the same region may do."""
        return self.kind in ("stockout", "no_such_gpu")


_NOT_MADE = (
    "This was not made, so it isn't billed. What was made before it is kept for the next `up`; of that a static "
    "address is billed. `pulumi destroy` removes it."
)
_AS_BEFORE = (
    "Nothing new is billed. What was there is kept and billed as before: `pulumi refresh` shows it, `pulumi destroy` "
    "removes it."
)
_CREATING = re.compile(r"Error creating|instance to create:", re.I)
ROLES = {
    "compute": "roles/compute.admin",
    "iam": "roles/iam.serviceAccountAdmin",
    "secretmanager": "roles/secretmanager.admin",
    "resourcemanager": "roles/resourcemanager.projectIamAdmin",
    "serviceusage": "roles/serviceusage.serviceUsageAdmin",
}
"""The narrowest predefined role that has all permissions of a service that are needed here
(https://cloud.google.com/iam/docs/understanding-roles)."""
_QUOTAS = "https://console.cloud.google.com/iam-admin/quotas"
_STOCKOUT = re.compile(
    r"does not have enough resources available|is currently unavailable in the \S+ zone|ZONE_RESOURCE_POOL_EXHAUSTED"
    r"|resource pool exhausted|stockout",
    re.I,
)
_CAPACITY = re.compile(r"in the ([a-z0-9, -]+?) zone\(s\), which currently has capacity", re.I)
_ZONES_AVAILABLE = re.compile(r"zonesAvailable\W+([a-z0-9, -]+)")
_QUOTA = re.compile(
    r"Quota '([A-Z0-9_]+)' exceeded\.?(?:\s+Limit: [\d.]+)?(?: (globally)| in region ([a-z0-9-]+))?", re.I
)
_METRIC = re.compile(r"metric name\s*=\s*\S*?([a-z0-9_]+)\s", re.I)
_NO_GPU = re.compile(r"acceleratorTypes/([a-z0-9-]+)'? was not found", re.I)
_API = re.compile(r"([a-z]+\.googleapis\.com)")
_DISABLED = re.compile(r"has not been used in project \S+ before or it is disabled|SERVICE_DISABLED", re.I)
_BILLING = re.compile(
    r"billing (?:is not|must be|to be) enabled|billing account .* (?:is )?(?:disabled|not found|closed)"
    r"|BILLING_DISABLED|requires billing",
    re.I,
)
_DENIED = re.compile(r"googleapi: Error 403|PERMISSION_DENIED|does not have permission", re.I)
_PERMISSION = re.compile(r"'([a-z]+\.[a-zA-Z.]+)' permission|permission:? '?([a-z]+\.[a-zA-Z.]+)\b", re.I)
_PROJECT = re.compile(r"project: required field is not set|Failed to retrieve project", re.I)
_TIMEOUT = re.compile(r"timeout while waiting for state to become", re.I)
_THERE = re.compile(r"(projects/[\w.:-]+/zones/[\w-]+/instances/[\w-]+)")
_EXISTS = re.compile(r"already exists|alreadyExists|googleapi: Error 409", re.I)
_LIVE = re.compile(r"do not support live migration|onHostMaintenance be one of", re.I)
_STOP = re.compile(r"Changing the machine_type, .* requires stopping it|allow_stopping_for_update", re.I)
_IMAGE = re.compile(r"(images/[\w/.-]+)'? was not found|error retrieving image|could not find image", re.I)
_IN_USE = re.compile(r"resourceInUseByAnotherResource|is already being used by", re.I)


def advice(text: str) -> str:
    """What a provider's text means, what that costs now, and the next command; "" for none of the known refusals."""
    found = refusal(text)
    if found is None:
        return ""
    if found.kind == "timeout":
        return found.advice
    return f"{found.advice} {_NOT_MADE if _CREATING.search(text) else _AS_BEFORE}"


def refusal(text: str) -> Refusal | None:
    """What a provider's text says; None when it is none of the known refusals.

    Quota and API come before permission, and those before stockout's vaguer words: several share HTTP 403.
    """
    flat = " ".join(text.split())
    for look in (_quota, _api, _billing, _stockout, _gpu, _rest):
        if found := look(flat):
            return found
    return None


def _quota(text: str) -> Refusal | None:
    named = _QUOTA.search(text)
    if not named and "QUOTA_EXCEEDED" not in text and not _METRIC.search(text):
        return None
    metric_name = _METRIC.search(text)
    metric = (named[1] if named else metric_name[1] if metric_name else "a quota").upper()
    region = (named[3] or "") if named else ""
    if metric == "GPUS_ALL_REGIONS" or metric == "GPUS_ALL_REGIONS_PER_PROJECT" or (named and named[2]):
        return Refusal(
            "quota_global",
            f"The project may use no GPU anywhere: {metric} is used up or 0, which it is in every new project. Ask for "
            f"1 at {_QUOTAS} (a free trial can't); no other zone or region helps until then.",
        )
    where = f" in {region}" if region else ""
    return Refusal(
        "quota_region",
        f"The quota {metric}{where} is used up or 0. Ask for more at {_QUOTAS}, or change the region: "
        f"`pulumi config set --path 'vllm-anywhere:placement.regions[0]' <region>`.",
    )


def _api(text: str) -> Refusal | None:
    if not _DISABLED.search(text):
        return None
    named = _API.search(text)
    api = named[1] if named else "the API"
    return Refusal(
        "api_disabled",
        f"{api} is switched off in this project. `gcloud services enable {api}`, or let `up` do it: "
        "`pulumi config set --path vllm-anywhere:gcp.enable_apis true`. It takes some minutes to spread; then `pulumi "
        "up`.",
    )


def _billing(text: str) -> Refusal | None:
    if not _BILLING.search(text):
        return None
    return Refusal(
        "billing_disabled",
        "The project has no active billing account. Link one, then `pulumi up`: "
        "https://console.cloud.google.com/billing/linkedaccount",
    )


def _stockout(text: str) -> Refusal | None:
    if not _STOCKOUT.search(text):
        return None
    named = _CAPACITY.search(text) or _ZONES_AVAILABLE.search(text)
    zones = re.findall(r"[a-z]+-[a-z]+\d+-[a-z]", named[1]) if named else []
    hint = f"Google says there is capacity in {', '.join(zones)}: " if zones else "Another zone may have some: "
    listed = ", ".join(f'"{zone}"' for zone in zones) or '"<zone>"'
    return Refusal(
        "stockout",
        f"The zone is out of this GPU. {hint}`pulumi config set --path --json vllm-anywhere:gcp.zones '[{listed}]'`, "
        "then `pulumi up --refresh`, which looks for a zone again; a static address is of one region, so zones of the "
        "same region keep it. Or let Google choose, now and whenever the VM is lost: `pulumi config set --path "
        "vllm-anywhere:gcp.ha mig`.",
    )


def _gpu(text: str) -> Refusal | None:
    found = _NO_GPU.search(text)
    if not found:
        return None
    advice = f"That zone has no {found[1]}. Leave vllm-anywhere:gcp.zones empty for the zones that have it."
    return Refusal("no_such_gpu", advice)


def _rest(text: str) -> Refusal | None:
    if _LIVE.search(text):
        return Refusal(
            "live_migration", "A VM with a GPU can't migrate: scheduling.onHostMaintenance has to be TERMINATE."
        )
    if _STOP.search(text):
        return Refusal("stop_required", "This change needs the VM stopped: set allowStoppingForUpdate on it.")
    if _IMAGE.search(text):
        return Refusal(
            "image_missing",
            "The boot image is gone. `gcloud compute images list --project ubuntu-os-accelerator-images` lists what "
            "there is; set it as vllm-anywhere:gcp.image.",
        )
    if _IN_USE.search(text):
        return Refusal(
            "in_use", "Something else still uses it; `pulumi refresh` shows what is there, then `pulumi up`."
        )
    if _EXISTS.search(text):
        vm = _THERE.search(text)
        adopt = f"gcp:compute/instance:Instance server {vm[1]}" if vm else "<type> <name> <id>"
        return Refusal(
            "exists",
            "Something of that name exists that this stack does not own, and may be billed: `vllm-anywhere orphans "
            f"gcp` shows it; `pulumi import {adopt} --parent deployment=<URN>` adopts it, with the URN that "
            "`pulumi stack --show-urns` has.",
        )
    if _PROJECT.search(text):
        return Refusal("no_project", "No project is set: `export GOOGLE_PROJECT=<id>`, then the same again.")
    if _TIMEOUT.search(text):
        return Refusal(
            "timeout",
            "Google had not finished in time, and may yet: then it exists, is billed and is in no state. "
            "`vllm-anywhere orphans gcp` shows it, `pulumi up` tries again.",
        )
    return _denied(text)


def _denied(text: str) -> Refusal | None:
    found = _PERMISSION.search(text)
    if not found and not _DENIED.search(text):
        return None
    if not found:
        return Refusal(
            "permission",
            "These credentials may not do this. `vllm-anywhere doctor gcp` lists the permissions it takes.",
        )
    needed = found[1] or found[2]
    role = ROLES.get(needed.partition(".")[0], "<role>")
    return Refusal(
        "permission",
        f"These credentials lack the permission {needed}. Somebody who may: `gcloud projects add-iam-policy-binding "
        f"$GOOGLE_PROJECT --member=<user:you@example.org> --role={role}`. `vllm-anywhere doctor gcp` lists all that "
        "are needed.",
    )
