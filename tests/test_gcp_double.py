"""The double of the gcp plugin under the real Pulumi CLI, with the real `pulumi_gcp`.

Emulated: Google saw none of it.
"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from engine import Project

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from tests.doubles.gcp import kinds
from tests.doubles.gcp.stack import KEY, Stack, serves, silent

pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

VM = "projects/shop-1/zones/europe-west4-a/instances/vm"
SPOT = {
    "on_host_maintenance": "TERMINATE",
    "automatic_restart": False,
    "provisioning_model": "SPOT",
    "preemptible": True,
    "instance_termination_action": "STOP",
}


@pytest.fixture
def stack(project: Project) -> Iterator[Stack]:
    stack = Stack(project)
    yield stack
    stack.close()


@pytest.mark.slow
def test_a_vm_is_made_and_serves_with_the_key_out_of_secret_manager_and_ends_with_destroy(stack: Stack) -> None:
    stack.cloud.fail(disabled_apis=["compute.googleapis.com"])
    assert "+ 9 to create" in stack.project.preview()
    assert stack.cloud.all() == []
    stack.up()
    outputs = stack.project.outputs()
    assert outputs["vm_id"] == VM
    assert outputs["status"] == "RUNNING"
    assert serves(outputs["ip"])["data"][0]["id"] == "qwen3-4b"
    wrong = httpx.get(f"http://{outputs['ip']}:8000/v1/models", headers={"Authorization": "Bearer no"}, trust_env=False)
    assert wrong.status_code == 401
    assert KEY not in stack.project.exported()
    assert KEY not in (stack.cloud.folder / "requests.jsonl").read_text()
    for record in stack.cloud.all():
        assert set(record.outputs) <= kinds.KINDS[record.token].shape.outputs, record.token
    vm = stack.state()["outputs"]
    (access,) = vm["networkInterfaces"][0]["accessConfigs"]
    assert access == {"natIp": outputs["ip"], "networkTier": "PREMIUM"}
    assert vm["selfLink"].endswith(f"/{VM}")
    assert vm["bootDisk"]["initializeParams"]["image"].endswith("-580-v20260225")
    assert vm["guestAccelerators"][0]["type"].endswith("/acceleratorTypes/nvidia-tesla-t4")
    version = stack.state("secretmanager/secretVersion:SecretVersion")["outputs"]
    assert version["name"] == f"projects/{stack.cloud.number('shop-1')}/secrets/api-key/versions/1"
    assert "ciphertext" in version["secretData"]
    stack.project.destroy()
    assert stack.cloud.all() == []
    assert silent(outputs["ip"])


@pytest.mark.slow
def test_machine_type_and_labels_change_in_place_and_an_accelerator_by_replacement(stack: Stack) -> None:
    stack.cloud.fail(quotas={"GPUS_ALL_REGIONS": 2})
    stack.up()
    before = stack.state()["outputs"]["instanceId"]
    stack.give(vm={"machine_type": "n1-standard-8", "allow_stopping_for_update": False})
    said = stack.up(ok=False)
    assert "requires stopping it" in said and "allow_stopping_for_update = true" in said
    stack.give(vm={"allow_stopping_for_update": True, "labels": {"team": "shop"}})
    assert "~ 1 updated" in stack.up()
    vm = stack.state()["outputs"]
    assert (vm["instanceId"], vm["machineType"]) == (before, "n1-standard-8")
    record = stack.cloud.named("vm")
    assert record and record.hidden["boot"] == 2
    serves(stack.project.outputs()["ip"])
    stack.give(vm={"guest_accelerators": [{"type": "nvidia-tesla-t4", "count": 2}]})
    assert "guestAccelerators" in stack.project.preview("--diff")
    assert "+-1 replaced" in stack.up()
    assert stack.state()["outputs"]["instanceId"] != before
    calls = [each["call"] for each in stack.cloud.requests(kind="Instance")]
    assert calls == ["create", "update", "update", "delete", "create"]


@pytest.mark.slow
def test_preemption_and_deletion_are_seen_by_refresh_and_repaired_by_up(stack: Stack) -> None:
    stack.give(vm={"scheduling": SPOT})
    stack.up()
    ip = stack.project.outputs()["ip"]
    serves(ip)
    stack.cloud.fail(preempted=["vm"])
    stack.project.refresh()
    assert stack.state()["outputs"]["currentStatus"] == "TERMINATED"
    assert silent(ip)
    assert "~ 1 updated" in stack.up()
    assert stack.state()["outputs"]["currentStatus"] == "RUNNING"
    serves(ip)
    stack.cloud.fail(deleted=[VM])
    assert "- 1 deleted" in stack.project.refresh()
    assert "+ 1 created" in stack.up()


@pytest.mark.slow
def test_a_vm_is_imported_and_the_program_that_made_it_changes_nothing(stack: Stack) -> None:
    stack.up()
    stack.project.pulumi("state", "delete", "-s", "test", "--yes", stack.state()["urn"])
    flags = ("-s", "test", "--yes", "--skip-preview", "--generate-code=false", "--protect=false")
    stack.project.pulumi("import", *flags, "gcp:compute/instance:Instance", "vm", VM)
    assert stack.state()["outputs"]["currentStatus"] == "RUNNING"
    assert "9 unchanged" in stack.up()


@pytest.mark.slow
def test_a_stockout_and_a_time_out_reach_the_user_in_the_provider_s_words(stack: Stack) -> None:
    stack.cloud.fail(stockout={"europe-west4-a": ["europe-west4-b", "europe-west4-c"]})
    said = stack.up(ok=False)
    assert "in the europe-west4-b, europe-west4-c zone(s), which currently has capacity" in said
    assert stack.project.resources("gcp:compute/instance:Instance") == []
    stack.give(zone="europe-west4-b")
    stack.cloud.fail(timed_out=["vm"])
    assert "timeout while waiting for state to become 'DONE'" in stack.up(ok=False)
    # The VM is there, and Pulumi doesn't know: that is what the real provider leaves too.
    assert stack.cloud.named("vm") and stack.project.resources("gcp:compute/instance:Instance") == []
    assert "already exists, alreadyExists" in stack.up(ok=False)
    stack.cloud.delete("vm")
    assert "+ 1 created" in stack.up()


@pytest.mark.slow
def test_a_group_makes_its_machine_again_where_there_is_capacity(stack: Stack) -> None:
    stack.cloud.fail(quotas={"GPUS_ALL_REGIONS": 0})
    stack.give(group={"wait_for_instances": True}, template={"scheduling": SPOT})
    assert "last state: 'creating'" in stack.up(ok=False)
    assert stack.state("compute/regionInstanceGroupManager:RegionInstanceGroupManager")["initErrors"]
    stack.cloud.fail(quotas={})
    stack.up()
    (before,) = stack.cloud.all("Instance")
    ip = stack.project.outputs()["ip"]
    serves(ip)
    stack.cloud.fail(stockout={str(before.outputs["zone"]): []}, preempted=[before.name])
    stack.project.refresh()
    (after,) = stack.cloud.all("Instance")
    assert after.outputs["zone"] != before.outputs["zone"]
    serves(ip)
    stack.project.destroy()
    assert stack.cloud.all() == []


def test_what_the_sdk_lets_through_is_refused_at_its_path(stack: Stack) -> None:
    stack.give(vm={"boot_disk": {"initialize_params": {"imag": "x"}}, "scheduling": {**SPOT, "preemptible": "yes"}})
    said = stack.project.preview(ok=False)
    assert "bootDisk.initializeParams.imag" in said
    assert "scheduling.preemptible" in said and "expected bool, got str" in said
    assert stack.cloud.all() == []
