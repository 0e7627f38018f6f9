"""The resource types of the double: ids, what replaces them, and the values and pairs that are refused.

The replace lists follow `ForceNew` in terraform-provider-google 7.45, whose next major version is in
pulumi-gcp 10.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.doubles.gcp.sdk import Shape, shape

COMPUTE = "compute.googleapis.com"
SECRETS = "secretmanager.googleapis.com"
ALL = frozenset({"*"})


@dataclass(frozen=True)
class Kind:
    """One resource type. `id` is a template over inputs; `replace_on` are paths without indices, `ALL` for any."""

    token: str
    module: str
    name: str
    id: str
    api: str
    permission: str
    what: str
    """The word for it in errors of the provider."""
    replace_on: frozenset[str]
    keeps: frozenset[str] = frozenset({"deletionPolicy"})
    """With `ALL`: the inputs that change in place nevertheless."""
    named: str = ""
    """The property that gets a name of Pulumi's making when the program gives none."""

    @property
    def shape(self) -> Shape:
        return shape(self.module, self.name)

    def replaces(self, path: str) -> bool:
        """Whether a change at a property path means another resource."""
        plain = re.sub(r"\[\d+\]", "", path)
        if self.replace_on == ALL:
            return plain.split(".")[0].split("[")[0] not in self.keeps
        return any(plain == each or plain.startswith((f"{each}.", f"{each}[")) for each in self.replace_on)


def _paths(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INSTANCE = _paths(
    """name zone project hostname guestAccelerators scratchDisks reservationAffinity metadataStartupScript minCpu
    bootDisk.source bootDisk.deviceName bootDisk.initializeParams.image bootDisk.initializeParams.type
    bootDisk.initializeParams.snapshot scheduling.preemptible scheduling.provisioningModel scheduling.maxRunDuration
    scheduling.terminationTime networkInterfaces.nicType canIpForward description confidentialInstanceConfig"""
)
_GROUP = "name project description params distributionPolicyZones"
_TEMPLATE_KEEPS = _paths("deletionPolicy")
KINDS = {
    kind.token: kind
    for kind in (
        Kind(
            "gcp:projects/service:Service",
            "projects.service",
            "Service",
            "{project}/{service}",
            "serviceusage.googleapis.com",
            "serviceusage.services",
            "Project Service",
            _paths("service project"),
        ),
        Kind(
            "gcp:projects/iAMMember:IAMMember",
            "projects.iam_member",
            "IAMMember",
            "{project}/{role}/{member}",
            "cloudresourcemanager.googleapis.com",
            "resourcemanager.projects",
            "IAM policy",
            ALL,
            keeps=frozenset(),
        ),
        Kind(
            "gcp:serviceaccount/account:Account",
            "serviceaccount.account",
            "Account",
            "projects/{project}/serviceAccounts/{accountId}@{project}.iam.gserviceaccount.com",
            "iam.googleapis.com",
            "iam.serviceAccounts",
            "service account",
            _paths("accountId project"),
        ),
        Kind(
            "gcp:secretmanager/secret:Secret",
            "secretmanager.secret",
            "Secret",
            "projects/{project}/secrets/{secretId}",
            SECRETS,
            "secretmanager.secrets",
            "Secret",
            _paths("secretId replication tags project"),
        ),
        Kind(
            "gcp:secretmanager/secretVersion:SecretVersion",
            "secretmanager.secret_version",
            "SecretVersion",
            "{secret}/versions/{version}",
            SECRETS,
            "secretmanager.versions",
            "SecretVersion",
            _paths("secret secretData secretDataWoVersion isSecretDataBase64 project"),
        ),
        Kind(
            "gcp:secretmanager/secretIamMember:SecretIamMember",
            "secretmanager.secret_iam_member",
            "SecretIamMember",
            "{secret}/{role}/{member}",
            SECRETS,
            "secretmanager.secrets",
            "IAM policy",
            ALL,
            keeps=frozenset(),
        ),
        Kind(
            "gcp:compute/address:Address",
            "compute.address",
            "Address",
            "projects/{project}/regions/{region}/addresses/{name}",
            COMPUTE,
            "compute.addresses",
            "Address",
            ALL,
            keeps=_paths("labels deletionPolicy"),
            named="name",
        ),
        Kind(
            "gcp:compute/firewall:Firewall",
            "compute.firewall",
            "Firewall",
            "projects/{project}/global/firewalls/{name}",
            COMPUTE,
            "compute.firewalls",
            "Firewall",
            _paths("name direction project params"),
            named="name",
        ),
        Kind(
            "gcp:compute/healthCheck:HealthCheck",
            "compute.health_check",
            "HealthCheck",
            "projects/{project}/global/healthChecks/{name}",
            COMPUTE,
            "compute.healthChecks",
            "HealthCheck",
            _paths("name project"),
            named="name",
        ),
        Kind(
            "gcp:compute/instance:Instance",
            "compute.instance",
            "Instance",
            "projects/{project}/zones/{zone}/instances/{name}",
            COMPUTE,
            "compute.instances",
            "instance",
            _INSTANCE,
            named="name",
        ),
        Kind(
            "gcp:compute/instanceTemplate:InstanceTemplate",
            "compute.instance_template",
            "InstanceTemplate",
            "projects/{project}/global/instanceTemplates/{name}",
            COMPUTE,
            "compute.instanceTemplates",
            "instance template",
            ALL,
            keeps=_TEMPLATE_KEEPS,
            named="name",
        ),
        Kind(
            "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate",
            "compute.region_instance_template",
            "RegionInstanceTemplate",
            "projects/{project}/regions/{region}/instanceTemplates/{name}",
            COMPUTE,
            "compute.instanceTemplates",
            "instance template",
            ALL,
            keeps=_TEMPLATE_KEEPS,
            named="name",
        ),
        Kind(
            "gcp:compute/instanceGroupManager:InstanceGroupManager",
            "compute.instance_group_manager",
            "InstanceGroupManager",
            "projects/{project}/zones/{zone}/instanceGroupManagers/{name}",
            COMPUTE,
            "compute.instanceGroupManagers",
            "InstanceGroupManager",
            _paths(f"{_GROUP} zone"),
            named="name",
        ),
        Kind(
            "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager",
            "compute.region_instance_group_manager",
            "RegionInstanceGroupManager",
            "projects/{project}/regions/{region}/instanceGroupManagers/{name}",
            COMPUTE,
            "compute.instanceGroupManagers",
            "RegionInstanceGroupManager",
            _paths(f"{_GROUP} region"),
            named="name",
        ),
    )
}

STOPS = _paths(
    """machineType minCpuPlatform serviceAccount shieldedInstanceConfig enableDisplay scheduling.nodeAffinities
    networkInterfaces.network networkInterfaces.subnetwork advancedMachineFeatures"""
)
"""Inputs of an instance that only change while it is stopped."""

VALUES: Mapping[str, frozenset[str]] = {
    "deletionPolicy": _paths("DELETE PREVENT ABANDON"),
    "desiredStatus": _paths("RUNNING SUSPENDED TERMINATED"),
    "scheduling.provisioningModel": _paths("STANDARD SPOT FLEX_START RESERVATION_BOUND"),
    "scheduling.onHostMaintenance": _paths("MIGRATE TERMINATE"),
    "scheduling.instanceTerminationAction": _paths("STOP DELETE"),
    "bootDisk.mode": _paths("READ_WRITE READ_ONLY"),
    "bootDisk.initializeParams.type": _paths("pd-standard pd-balanced pd-ssd hyperdisk-balanced"),
    "disks.diskType": _paths("pd-standard pd-balanced pd-ssd hyperdisk-balanced"),
    "disks.type": _paths("SCRATCH PERSISTENT"),
    "networkInterfaces.nicType": _paths("GVNIC VIRTIO_NET IDPF MRDMA IRDMA"),
    "networkInterfaces.stackType": _paths("IPV4_ONLY IPV4_IPV6 IPV6_ONLY"),
    "networkInterfaces.accessConfigs.networkTier": _paths("PREMIUM STANDARD"),
    "addressType": _paths("INTERNAL EXTERNAL"),
    "networkTier": _paths("PREMIUM STANDARD"),
    "ipVersion": _paths("IPV4 IPV6"),
    "direction": _paths("INGRESS EGRESS"),
    "logConfig.metadata": _paths("EXCLUDE_ALL_METADATA INCLUDE_ALL_METADATA"),
    "httpHealthCheck.portSpecification": _paths("USE_FIXED_PORT USE_NAMED_PORT USE_SERVING_PORT"),
    "httpsHealthCheck.portSpecification": _paths("USE_FIXED_PORT USE_NAMED_PORT USE_SERVING_PORT"),
    "updatePolicy.type": _paths("PROACTIVE OPPORTUNISTIC"),
    "updatePolicy.minimalAction": _paths("NONE REFRESH RESTART REPLACE"),
    "updatePolicy.mostDisruptiveAllowedAction": _paths("NONE REFRESH RESTART REPLACE"),
    "updatePolicy.replacementMethod": _paths("RECREATE SUBSTITUTE"),
    "updatePolicy.instanceRedistributionType": _paths("PROACTIVE NONE"),
    "instanceLifecyclePolicy.defaultActionOnFailure": _paths("REPAIR DO_NOTHING"),
    "instanceLifecyclePolicy.forceUpdateOnRepair": _paths("YES NO"),
    "statefulExternalIps.deleteRule": _paths("NEVER ON_PERMANENT_INSTANCE_DELETION"),
    "waitForInstancesStatus": _paths("STABLE UPDATED"),
}
"""Values by path without indices, whichever type has it."""

_RFC1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
PATTERNS: Mapping[str, re.Pattern[str]] = {
    "name": _RFC1035,
    "baseInstanceName": re.compile(r"[a-z]([-a-z0-9]{0,56}[a-z0-9])?"),
    "accountId": re.compile(r"[a-z][-a-z0-9]{4,28}[a-z0-9]"),
    "secretId": re.compile(r"[A-Za-z0-9_-]{1,255}|projects/[^/]+/secrets/[A-Za-z0-9_-]{1,255}"),
    "tags": _RFC1035,
    "targetTags": _RFC1035,
    "sourceTags": _RFC1035,
    "allows.ports": re.compile(r"\d+(-\d+)?"),
    "service": re.compile(r"[a-z0-9-]+\.googleapis\.com"),
    "member": re.compile(r"(serviceAccount|user|group|domain):.+|allUsers|allAuthenticatedUsers"),
    "role": re.compile(r"(projects/[^/]+/|organizations/[^/]+/)?roles/[\w.]+"),
}
LABEL = re.compile(r"[a-z][a-z0-9_-]{0,62}"), re.compile(r"[a-z0-9_-]{0,63}")

EITHER: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Firewall": (
        ("targetTags", "targetServiceAccounts"),
        ("targetTags", "sourceServiceAccounts"),
        ("sourceTags", "targetServiceAccounts"),
        ("sourceTags", "sourceServiceAccounts"),
    ),
    "SecretVersion": (("secretData", "secretDataWo"),),
    "InstanceTemplate": (("name", "namePrefix"),),
    "RegionInstanceTemplate": (("name", "namePrefix"),),
    "Secret": (("ttl", "expireTime"),),
}
"""Inputs of which at most one is given."""

_PROBES = (
    *("httpHealthCheck", "httpsHealthCheck", "tcpHealthCheck", "sslHealthCheck", "http2HealthCheck"),
    *("grpcHealthCheck", "grpcTlsHealthCheck"),
)
ONE_OF: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "Firewall": (("allows", "denies"),),
    "SecretVersion": (("secretData", "secretDataWo"),),
    "HealthCheck": (_PROBES,),
    "Account": (("accountId",),),
    "Secret": (("secretId",),),
}
"""Inputs of which at least one is given, where the SDK takes all for optional."""


def short(value: Any) -> str:
    """The name at the end of a URL or path of Google's."""
    return str(value).rsplit("/", 1)[-1]
