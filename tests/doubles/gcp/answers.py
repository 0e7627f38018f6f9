"""Google's refusals, as the provider prints them.

The frame is terraform-provider-google's: `compute_operation.go` prints an operation's message, the figures of a quota,
the message for people and the link, and leaves the error's code out.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.doubles.gcp.kinds import COMPUTE, Kind

_TITLES = {
    COMPUTE: "Compute Engine API",
    "secretmanager.googleapis.com": "Secret Manager API",
    "iam.googleapis.com": "Identity and Access Management (IAM) API",
    "cloudresourcemanager.googleapis.com": "Cloud Resource Manager API",
}
_TROUBLE = "Troubleshooting documentation\nhttps://cloud.google.com/compute/docs/resource-error\n"


class Refused(Exception):
    """Google says no. The text is the provider's."""


def creating(kind: Kind, said: str) -> Refused:
    """A call that was refused at once. Secret Manager and others name themselves, compute's VMs in lower case."""
    return Refused(f"Error creating {kind.what}: {said}")


def waiting(said: str) -> Refused:
    """An operation that was accepted and then failed."""
    return Refused(f"Error waiting for instance to create: {said}")


def api_disabled(api: str, project: str, number: str) -> str:
    link = f"https://console.developers.google.com/apis/api/{api}/overview?project={number}"
    return (
        f"googleapi: Error 403: {_TITLES.get(api, api)} has not been used in project {project} before or it is "
        f"disabled. Enable it by visiting {link} then retry. If you enabled this API recently, wait a few minutes for "
        "the action to propagate to our systems and retry.\nDetails:\n[\n  {\n"
        '    "@type": "type.googleapis.com/google.rpc.ErrorInfo",\n'
        '    "domain": "googleapis.com",\n    "metadata": {\n'
        f'      "consumer": "projects/{number}",\n      "service": "{api}"\n'
        '    },\n    "reason": "SERVICE_DISABLED"\n  }\n]\n, accessNotConfigured'
    )


def billing_disabled(number: str) -> str:
    link = f"https://console.developers.google.com/billing/enable?project={number}"
    return (
        "googleapi: Error 403: This API method requires billing to be enabled. Please enable billing on project "
        f"#{number} by visiting {link} then retry. If you enabled billing for this project recently, wait a few "
        "minutes for the action to propagate to our systems and retry.\nDetails:\n[\n  {\n"
        '    "reason": "BILLING_DISABLED"\n  }\n]\n, accessNotConfigured'
    )


def denied(permission: str, id: str) -> str:
    return f"googleapi: Error 403: Required '{permission}' permission for '{id}', forbidden"


def exists(id: str) -> str:
    return f"googleapi: Error 409: The resource '{id}' already exists, alreadyExists"


def missing(id: str) -> str:
    return f"googleapi: Error 404: The resource '{id}' was not found, notFound"


def invalid(said: str) -> str:
    return f"googleapi: Error 400: {said}, invalid"


def stockout(project: str, zone: str, machine: str, accelerator: str, elsewhere: Sequence[str]) -> str:
    """Both forms: without zones that have capacity as for `ZONE_RESOURCE_POOL_EXHAUSTED`, else `..._WITH_DETAILS`."""
    text = (
        f"The zone 'projects/{project}/zones/{zone}' does not have enough resources available to fulfill the request.  "
    )
    if not elsewhere:
        return f"{text}Try a different zone, or try again later.\n"
    gpu = f" with {accelerator} accelerator(s)" if accelerator else ""
    return (
        f"{text}'(resource type:compute)'.\n\n\n"
        f"A {machine} VM instance{gpu} is currently unavailable in the {zone} zone. Consider trying your request in "
        f"the {', '.join(elsewhere)} zone(s), which currently has capacity to accommodate your request. "
        "Alternatively, you can try your request again with a different VM hardware configuration or at a later time. "
        f"For more information, see the troubleshooting documentation.\n\n\n{_TROUBLE}"
    )


def quota(metric: str, region: str, limit: int) -> str:
    """The region is empty for the quota over all regions."""
    where = f"in region {region}" if region else "globally"
    scope = f"{metric.replace('_', '-')}-per-project{'-region' if region else ''}"
    figures = f"\tlimit = {limit}\n" if limit else ""
    dimensions = f"map[region:{region}]" if region else "map[global:global]"
    return (
        f"Quota '{metric}' exceeded.  Limit: {limit}.0 {where}.\n"
        f"\tmetric name = compute.googleapis.com/{metric.lower()}\n"
        f"\tlimit name = {scope}\n{figures}\tdimensions = {dimensions}\n\n\n"
        "The requested amount of instances has exceeded GCE's default quota. See the documentation for details.\n"
    )


def timed_out(minutes: int = 20) -> str:
    return f"timeout while waiting for state to become 'DONE' (last state: 'RUNNING', timeout: {minutes}m0s)"


STOP_NEEDED = (
    "Changing the machine_type, min_cpu_platform, service_account, enable_display, shielded_instance_config, "
    "scheduling.node_affinities, network_interface.[#d].(network/subnetwork/subnetwork_project) or "
    "advanced_machine_features on a started instance requires stopping it. To acknowledge this, please set "
    'allow_stopping_for_update = true in your config. You can also stop it by setting desired_status = "TERMINATED", '
    "but the instance will not be restarted after the update."
)
