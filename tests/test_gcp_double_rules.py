"""The double of the gcp plugin by itself: what it refuses, what replaces, and the VM that boots. No engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from providers.gcp.auth import Identity
from providers.gcp.client import Google, tail_of
from providers.gcp.client import Refused as HttpRefused
from serving.tls import context, issue, new_authority

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from tests.doubles.gcp import Cloud, Record, actions, check, diff, kinds, machines
from tests.doubles.gcp.answers import Refused
from tests.doubles.gcp.rest import Rest
from tests.doubles.gcp.stack import KEY, SCRIPT, eventually, serves, silent

pytestmark = [pytest.mark.heavy, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

VM = "projects/shop-1/zones/europe-west4-a/instances/vm"
IMAGES = "projects/ubuntu-os-accelerator-images/global/images"
FAMILY = "ubuntu-accelerator-2404-amd64-with-nvidia-580"


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    cloud = Cloud(tmp_path / "cloud", owned=True)
    yield cloud
    cloud.close()


def machine(**changed: Any) -> dict[str, Any]:
    """The inputs of a VM as they come over the wire; None takes one away."""
    inputs = {
        "name": "vm",
        "zone": "europe-west4-a",
        "machineType": "n1-standard-4",
        "guestAccelerators": [{"type": "nvidia-tesla-t4", "count": 1}],
        "bootDisk": {"initializeParams": {"image": f"{IMAGES}/family/{FAMILY}"}},
        "networkInterfaces": [{"network": "default", "accessConfigs": [{}]}],
        "scheduling": {"onHostMaintenance": "TERMINATE", "automaticRestart": True},
        "metadata": {},
        **changed,
    }
    return {name: value for name, value in inputs.items() if value is not None}


def make(cloud: Cloud, kind: str, inputs: dict[str, Any]) -> Record:
    """Create one thing, as the engine would have it created."""
    found = next(each for each in kinds.KINDS.values() if each.name == kind)
    assert check.failures(found, inputs) == []
    with cloud.lock():
        return actions.create(cloud, found, inputs, [], {"project": "shop-1"})


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ({"stockout": {"europe-west4-a": []}}, "does not have enough resources available to fulfill the request.  Try"),
        (
            {"stockout": {"europe-west4-a": ["europe-west4-b"]}},
            "A n1-standard-4 VM instance with 1 nvidia-tesla-t4 accelerator(s) is currently unavailable in the ",
        ),
        ({"quotas": {"GPUS_ALL_REGIONS": 0}}, "Quota 'GPUS_ALL_REGIONS' exceeded.  Limit: 0.0 globally."),
        (
            {"quotas": {"NVIDIA_T4_GPUS/europe-west4": 0}},
            "Limit: 0.0 in region europe-west4.\n\tmetric",
        ),
        (
            {"disabled_apis": ["compute.googleapis.com"]},
            "Compute Engine API has not been used in project shop-1",
        ),
        ({"denied": ["compute.instances.create"]}, f"Required 'compute.instances.create' permission for '{VM}'"),
        ({"billing_disabled": True}, "Error 403: This API method requires billing to be enabled"),
        ({"timed_out": ["vm"]}, "Error waiting for instance to create: timeout while waiting for state"),
    ],
)
def test_each_fault_has_the_provider_s_words(cloud: Cloud, faults: dict[str, Any], says: str) -> None:
    cloud.fail(**faults)
    with pytest.raises(Refused) as refused:
        make(cloud, "Instance", machine())
    assert says in str(refused.value)
    assert bool(cloud.named("vm")) is ("timed_out" in faults)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"zone": "europe-west4-z"}, "zones/europe-west4-z' was not found"),
        ({"zone": "europe-west3-a"}, "zones/europe-west3-a/acceleratorTypes/nvidia-tesla-t4' was not found"),
        ({"machineType": "n1-standard-5"}, "machineTypes/n1-standard-5' was not found"),
        ({"machineType": "e2-standard-4"}, "[nvidia-tesla-t4, e2-standard-4] features are not compatible"),
        ({"scheduling": {}}, "guest accelerators do not support live migration"),
        ({"scheduling": {"preemptible": True}}, "preemptible be false when AutomaticRestart is true"),
        (
            {"bootDisk": {"initializeParams": {"image": f"{IMAGES}/x"}}},
            "images/x",
        ),
        ({"serviceAccount": {"email": "a@shop-1.iam.gserviceaccount.com", "scopes": []}}, "a@shop-1"),
        ({"networkInterfaces": [{"network": "default", "accessConfigs": [{"natIp": "127.9.9.9"}]}]}, "127.9.9.9"),
    ],
)
def test_what_google_refuses_is_refused(cloud: Cloud, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as refused:
        make(cloud, "Instance", machine(**changed))
    assert says in str(refused.value)
    assert cloud.all() == []


@pytest.mark.parametrize(
    ("kind", "inputs", "path"),
    [
        ("Instance", machine(machineTyp="n1-standard-4"), "machineTyp"),
        ("Instance", machine(machineType=None), "machineType"),
        ("Instance", machine(machineType=4), "machineType"),
        ("Instance", machine(guestAccelerators=[{"type": "nvidia-tesla-t4"}]), "guestAccelerators[0].count"),
        ("Instance", machine(scheduling={"provisioningModel": "spot"}), "scheduling.provisioningModel"),
        ("Instance", machine(bootDisk={"source": "a", "initializeParams": {}}), "bootDisk.source"),
        ("Instance", machine(networkInterfaces=[{}]), "networkInterfaces[0]"),
        ("Instance", machine(name="Not_A_Name"), "name"),
        ("Instance", machine(labels={"Team": "shop"}), 'labels["Team"]'),
        (
            "Instance",
            machine(metadata={"startup-script": "a"}, metadataStartupScript="b"),
            "metadataStartupScript",
        ),
        ("Firewall", {"network": "default", "allows": [{"protocol": "tcp"}]}, "sourceRanges"),
        ("Firewall", {"network": "default", "sourceRanges": ["0.0.0.0/0"]}, "allows"),
        (
            "Firewall",
            {"network": "n", "allows": [], "sourceRanges": [], "targetTags": [], "targetServiceAccounts": []},
            "targetTags",
        ),
        ("SecretVersion", {"secret": "s"}, "secretData"),
        ("SecretVersion", {"secret": "s", "secretDataWo": "x"}, "secretDataWo"),
        ("Secret", {"secretId": "s", "replication": {}}, "replication"),
        ("Account", {"accountId": "short"}, "accountId"),
        ("Service", {"service": "compute"}, "service"),
    ],
)
def test_inputs_that_the_sdk_s_classes_or_the_plugin_refuse_fail_at_their_path(
    kind: str, inputs: dict[str, Any], path: str
) -> None:
    found = next(each for each in kinds.KINDS.values() if each.name == kind)
    assert [each.path for each in check.failures(found, inputs)] == [path]


@pytest.mark.parametrize(
    ("changed", "replaces"),
    [
        ({"name": "other"}, True),
        ({"zone": "europe-west4-b"}, True),
        ({"guestAccelerators": [{"type": "nvidia-tesla-t4", "count": 2}]}, True),
        ({"scheduling": {"onHostMaintenance": "TERMINATE", "automaticRestart": True, "preemptible": True}}, True),
        ({"bootDisk": {"initializeParams": {"image": "projects/p/global/images/other"}}}, True),
        ({"metadataStartupScript": "x"}, True),
        ({"machineType": "n1-standard-8"}, False),
        ({"labels": {"a": "b"}}, False),
        ({"metadata": {"startup-script": "x"}}, False),
        ({"tags": ["x"]}, False),
    ],
)
def test_what_replaces_a_vm_and_what_does_not(changed: dict[str, Any], replaces: bool) -> None:
    found = diff.changes(machine(), machine(**changed))
    assert found
    assert bool(diff.replacing(kinds.KINDS[machines.TOKEN], found)) is replaces


def test_a_family_is_its_newest_image_and_a_url_is_the_name_at_its_end() -> None:
    resolved = machines.resolved(f"{IMAGES}/family/{FAMILY}", "shop-1")
    assert resolved.endswith(f"/{FAMILY}-v20260225")
    live = machine(zone="https://www.googleapis.com/compute/v1/projects/shop-1/zones/europe-west4-a")
    live["bootDisk"] = {"initializeParams": {"image": resolved}}
    assert diff.changes(live, machine()) == {}


def test_every_value_that_is_allowed_is_named_in_the_sdk() -> None:
    package = importlib.util.find_spec("pulumi_gcp")
    assert package and package.origin
    files = [
        *Path(package.origin).parent.glob("compute/_inputs.py"),
        *Path(package.origin).parent.glob("compute/*instance*.py"),
        *Path(package.origin).parent.glob("compute/address.py"),
    ]
    text = "".join(file.read_text() for file in files)
    assert {value for values in kinds.VALUES.values() for value in values if value not in text} == set()


def test_a_vm_waits_for_its_secret_and_serves_tls_where_a_firewall_rule_lets_in(cloud: Cloud, tmp_path: Path) -> None:
    authority = new_authority("shop.example", now=datetime.now(UTC))
    server = issue(authority, "shop.example", [], now=datetime.now(UTC))
    (tmp_path / "tls.pem").write_text(server.cert_pem)
    (tmp_path / "tls.key").write_text(server.key_pem)
    flags = f"--ssl-certfile {tmp_path / 'tls.pem'} --ssl-keyfile {tmp_path / 'tls.key'}"
    account = make(cloud, "Account", {"accountId": "vm-account"}).outputs
    secret = make(cloud, "Secret", {"secretId": "api-key", "replication": {"auto": {}}})
    version = make(cloud, "SecretVersion", {"secret": secret.id, "secretData": KEY})
    vm = machine(
        serviceAccount={"email": account["email"], "scopes": ["cloud-platform"]},
        metadata={"startup-script": SCRIPT.replace("FLAGS", flags).replace("VERSION", version.outputs["name"])},
    )
    ip = make(cloud, "Instance", vm).outputs["networkInterfaces"][0]["accessConfigs"][0]["natIp"]
    eventually(lambda: cloud.serial("vm").count("refused with 403") > 2)
    role = {"secretId": "api-key", "role": "roles/secretmanager.secretAccessor", "member": account["member"]}
    make(cloud, "SecretIamMember", role)
    eventually(lambda: "listening" in cloud.serial("vm"))
    assert silent(ip)
    allows = [{"protocol": "tcp", "ports": ["7000-8000"]}]
    make(cloud, "Firewall", {"name": "a", "network": "default", "allows": allows, "sourceRanges": ["0.0.0.0/0"]})
    verify = context(authority.cert_pem, any_address=True)
    assert serves(ip, verify=verify, scheme="https")["data"]
    cloud.stop("vm")
    assert silent(ip)


def test_a_reservation_is_made_where_there_is_capacity_and_refused_with_google_s_code(cloud: Cloud) -> None:
    cloud.fail(stockout={"europe-west4-a": ["europe-west4-b"]})
    properties = {
        "machineType": "n1-standard-4",
        "guestAccelerators": [{"acceleratorType": "nvidia-tesla-t4", "acceleratorCount": 1}],
    }
    body = {"name": "vm", "specificReservation": {"count": "1", "instanceProperties": properties}}
    with Rest(cloud) as rest:
        google = Google(Identity("a-token-for-tests", "shop-1"), environ=rest.environ)
        sold_out = google.call("POST", "compute", "projects/shop-1/zones/europe-west4-a/reservations", body)
        (error,) = sold_out["error"]["errors"]
        assert error["code"] == "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS"
        made = google.call("POST", "compute", "projects/shop-1/zones/europe-west4-b/reservations", body)
        assert made["status"] == "DONE" and "error" not in made
        assert google.get("compute", "projects/shop-1/zones/europe-west4-b/reservations/vm")["name"] == "vm"
        with pytest.raises(HttpRefused, match="already exists"):
            google.call("POST", "compute", "projects/shop-1/zones/europe-west4-b/reservations", body)
        assert [each.kind for each in cloud.all()] == ["Reservation"]
        google.call("DELETE", "compute", "projects/shop-1/zones/europe-west4-b/reservations/vm")
        assert cloud.all() == []


def test_quotas_status_and_the_serial_port_are_read_over_http(cloud: Cloud) -> None:
    cloud.fail(quotas={"GPUS_ALL_REGIONS": 1})
    make(cloud, "Instance", machine(metadata={"startup-script": "echo the first line"}))
    eventually(lambda: "the first line" in cloud.serial("vm"))
    with Rest(cloud) as rest:
        google = Google(Identity("a-token-for-tests", "shop-1"), environ=rest.environ)
        quotas = google.quotas()
        assert (quotas.project["GPUS_ALL_REGIONS"].limit, quotas.project["GPUS_ALL_REGIONS"].usage) == (1, 1)
        assert quotas.regions["europe-west4"]["NVIDIA_T4_GPUS"].usage == 1
        assert google.get("compute", VM)["status"] == "RUNNING"
        assert tail_of(google, VM, 5) == ["startup-script: the first line"]
        cloud.preempt("vm")
        assert google.get("compute", VM)["status"] == "TERMINATED"
        with pytest.raises(HttpRefused, match="was not found"):
            google.get("compute", f"{VM}-2")


def test_what_checks_and_lists_ask_is_answered_from_the_same_cloud(cloud: Cloud) -> None:
    cloud.fail(disabled_apis=["secretmanager.googleapis.com"])
    make(cloud, "Instance", machine(labels={"managed-by": "vllm-anywhere"}))
    make(cloud, "Instance", machine(name="other"))
    with Rest(cloud) as rest:
        google = Google(Identity("a-token-for-tests", "shop-1"), environ=rest.environ)
        only = {"filter": "labels.managed-by=vllm-anywhere"}
        found = dict(google.pages("projects/shop-1/aggregated/instances", **only))
        assert [each["name"] for each in found["zones/europe-west4-a"]["instances"]] == ["vm"]
        gpus = dict(google.pages("projects/shop-1/aggregated/acceleratorTypes", filter="name=nvidia-l4"))
        assert "zones/europe-west6-b" in gpus and "zones/europe-central2-b" not in gpus
        assert google.get("compute", f"{IMAGES}/family/{FAMILY}")["name"] == f"{FAMILY}-v20260225"
        assert google.get("billing", "projects/shop-1/billingInfo")["billingEnabled"] is True
        state = google.get("serviceusage", "projects/shop-1/services/secretmanager.googleapis.com")["state"]
        assert state == "DISABLED"


def test_a_group_makes_its_machine_once_the_address_is_free(cloud: Cloud) -> None:
    address = make(cloud, "Address", {"name": "ip", "region": "europe-west4"}).outputs["address"]
    interfaces = [{"network": "default", "accessConfigs": [{"natIp": address}]}]
    vm = make(cloud, "Instance", machine(networkInterfaces=interfaces))
    parts = {name: vm.inputs[name] for name in ("machineType", "guestAccelerators", "scheduling", "networkInterfaces")}
    disks = [{"sourceImage": f"{IMAGES}/family/{FAMILY}", "boot": True}]
    template = make(cloud, "InstanceTemplate", {"name": "template", "disks": disks, **parts})
    versions = [{"instanceTemplate": template.outputs["selfLinkUnique"]}]
    group = {"name": "group", "region": "europe-west4", "baseInstanceName": "vm", "targetSize": 1, "versions": versions}
    made = make(cloud, "RegionInstanceGroupManager", group)
    assert "already in-use" in made.hidden["errors"][0]["message"]
    cloud.delete("vm")
    with cloud.lock():
        actions.settle(cloud)
    (healed,) = cloud.all("Instance")
    assert healed.hidden["group"] == made.id
