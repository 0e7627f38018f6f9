"""A VM that serves, as a Pulumi program of the double's own tests; `given.json` beside it overrides arguments.

It is copied into a project's folder, so it knows nothing of this package.
"""

import json
from pathlib import Path
from typing import Any

import pulumi
from pulumi_gcp import compute, projects, secretmanager, serviceaccount

GIVEN = json.loads(Path(__file__).with_name("given.json").read_text())
ZONE = GIVEN.get("zone", "europe-west4-a")


def given(resource: str, /, **args: object) -> dict[str, Any]:
    """The arguments of one resource, with those of `given.json` over them; null takes one away."""
    merged = {**args, **GIVEN.get(resource, {})}
    return {key: value for key, value in merged.items() if value is not None}


api = projects.Service("compute", **given("compute", service="compute.googleapis.com", disable_on_destroy=False))
after_api = pulumi.ResourceOptions(depends_on=[api])
account = serviceaccount.Account("account", **given("account", account_id="vm-account"))
secret = secretmanager.Secret("secret", **given("secret", secret_id="api-key", replication={"auto": {}}))
version = secretmanager.SecretVersion(
    "version", **given("version", secret=secret.id, secret_data=pulumi.Output.secret(GIVEN["key"]))
)
member = secretmanager.SecretIamMember(
    "member",
    **given("member", secret_id=secret.secret_id, role="roles/secretmanager.secretAccessor", member=account.member),
)
address = compute.Address("ip", **given("ip", name="ip", region=ZONE.rpartition("-")[0]), opts=after_api)
rule = compute.Firewall(
    "door",
    **given(
        "door",
        network="default",
        allows=[{"protocol": "tcp", "ports": ["8000"]}],
        source_ranges=["203.0.113.0/24"],
        target_tags=["vm"],
    ),
    opts=after_api,
)

machine = {
    "machine_type": "n1-standard-4",
    "guest_accelerators": [{"type": "nvidia-tesla-t4", "count": 1}],
    "network_interfaces": [{"network": "default", "access_configs": [{"nat_ip": address.address}]}],
    "scheduling": {"on_host_maintenance": "TERMINATE", "automatic_restart": True, "provisioning_model": "STANDARD"},
    "service_account": {"email": account.email, "scopes": ["cloud-platform"]},
    "metadata": {"startup-script": version.name.apply(lambda name: GIVEN["script"].replace("VERSION", name))},
    "tags": ["vm"],
    "labels": {"stack": "test"},
}
IMAGE = "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580"

if GIVEN.get("group"):
    check = compute.HealthCheck("health", http_health_check={"port": 8000, "request_path": "/health"}, opts=after_api)
    disk = {"source_image": IMAGE, "disk_size_gb": 100, "disk_type": "pd-balanced", "boot": True}
    template = compute.InstanceTemplate("template", **given("template", **machine, disks=[disk]))
    group = compute.RegionInstanceGroupManager(
        "group",
        **given(
            "group",
            base_instance_name="vm",
            region=ZONE.rpartition("-")[0],
            target_size=1,
            versions=[{"instance_template": template.self_link_unique}],
            auto_healing_policies={"health_check": check.self_link, "initial_delay_sec": 1800},
            update_policy={
                "type": "PROACTIVE",
                "minimal_action": "REPLACE",
                "max_surge_fixed": 0,
                "max_unavailable_fixed": 3,
            },
            wait_for_instances=True,
        ),
        opts=pulumi.ResourceOptions(depends_on=[member]),
    )
else:
    vm = compute.Instance(
        "vm",
        **given(
            "vm",
            name="vm",
            zone=ZONE,
            **machine,
            boot_disk={"initialize_params": {"image": IMAGE, "size": 100, "type": "pd-balanced"}},
            allow_stopping_for_update=True,
            desired_status="RUNNING",
        ),
        opts=pulumi.ResourceOptions(depends_on=[member], delete_before_replace=True),
    )
    pulumi.export("vm_id", vm.id)
    pulumi.export("status", vm.current_status)
pulumi.export("ip", address.address)
