"""A GCP deployment under the real Pulumi CLI and the real `pulumi_gcp`, on the double of its plugin. Emulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from engine import DEPLOYMENT, Project, answers

from providers.gcp.account import open_account
from providers.native import Context

pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")

from google_stage import google

from tests.doubles.gcp.cloud import Cloud, Faults
from tests.doubles.gcp.rest import Rest

pytestmark = [
    pytest.mark.engine,
    pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"]),
]

INSTANCE = "gcp:compute/instance:Instance"
GROUP = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
TOKEN = "hf_for-tests-only"
ZONES = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]


@pytest.fixture
def cloud(project: Project) -> Iterator[Cloud]:
    """A T4 stack in one region, on a cloud of its own."""
    with google(project) as cloud:
        project.config("provider", "gcp")
        project.config("hardware.gpus[0]", "T4")
        project.config("placement.regions[0]", "europe-west4")
        project.config("ready.timeout_s", "60")
        yield cloud


def vm(project: Project) -> dict[str, Any]:
    (found,) = project.resources(INSTANCE)
    return found["outputs"]


def all_resources(project: Project) -> list[dict[str, Any]]:
    return json.loads(project.exported())["deployment"]["resources"]


@pytest.mark.slow
def test_a_preview_without_credentials_or_project_shows_the_price_and_what_to_do(
    project: Project, cloud: Cloud
) -> None:
    cloud.fail(no_credentials=True)
    text = " ".join(project.preview(ok=False).split())
    assert "could not find default credentials" in text
    assert "`gcloud auth application-default login`" in text and "$0.3675/h" in text
    cloud.fail(no_credentials=False)
    del project.env["GOOGLE_PROJECT"]
    text = " ".join(project.preview(ok=False).split())
    assert "project: required field is not set" in text
    assert "No project is set: `export GOOGLE_PROJECT=<id>`" in text and "$0.3675/h" in text


def test_a_t4_vm_serves_over_tls_and_nothing_is_left_of_it(project: Project, cloud: Cloud) -> None:
    project.config("hf_token", TOKEN, "--secret")
    said = project.preview()
    for words in ("1x T4 in n1-standard-4", "--dtype half", "30 %", "sustained", "2027-08-01"):
        assert words in said
    assert cloud.all() == []
    project.up()
    outputs = project.outputs()
    assert answers(outputs)
    key = outputs["api_key"]
    shown = (project.exported(), json.dumps(vm(project)), (cloud.folder / "requests.jsonl").read_text())
    assert not [text for text in shown if key in text or TOKEN in text]
    (fetched,) = (cloud.folder / "vms").glob("*/**/run/vllm-anywhere/env")
    assert f"HF_TOKEN={TOKEN}\n" in fetched.read_text()
    assert "unchanged" in project.up() and "created" not in project.preview()
    project.destroy()
    assert cloud.all() == []


@pytest.mark.slow
def test_another_machine_type_is_a_change_in_place_and_another_gpu_a_new_vm(project: Project, cloud: Cloud) -> None:
    cloud.fail(quotas={"GPUS_ALL_REGIONS": 1, "NVIDIA_T4_GPUS/europe-west4": 1})
    with Rest(cloud) as rest:
        project.env |= rest.environ
        project.up()
        first, answered = vm(project)["instanceId"], project.outputs()["ready"]["answered_at"]
        project.config("gcp.machine_type", "n1-standard-8")
        project.up()
        assert (vm(project)["instanceId"], vm(project)["machineType"]) == (first, "n1-standard-8")
        assert project.outputs()["ready"]["answered_at"] > answered
        project.config("hardware.gpus[0]", "L4")
        project.config("gcp.machine_type", "g2-standard-4")
        project.up()
        assert vm(project)["instanceId"] != first
        assert answers(project.outputs())


@pytest.mark.slow
def test_a_spot_vm_that_was_taken_away_is_seen_by_refresh_and_has_to_answer_again(
    project: Project, cloud: Cloud
) -> None:
    project.config("hardware.spot", "true")
    with Rest(cloud) as rest:
        project.env |= rest.environ
        project.up()
        answered = project.outputs()["ready"]["answered_at"]
        cloud.preempt(vm(project)["name"])
        project.refresh()
        assert vm(project)["currentStatus"] == "TERMINATED"
        project.up()
        assert vm(project)["currentStatus"] == "RUNNING"
        assert project.outputs()["ready"]["answered_at"] > answered
        assert "18 unchanged" in project.refresh()


@pytest.mark.slow
def test_doctor_and_orphans_see_the_project_and_an_imported_vm_is_kept(
    project: Project, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rest(cloud) as rest:
        project.env |= rest.environ
        for name in (*rest.environ, "GOOGLE_PROJECT"):
            monkeypatch.setenv(name, project.env[name])
        project.up()
        first, id = vm(project)["instanceId"], project.resources(INSTANCE)[0]["id"]
        account = open_account(20)
        assert [check.text for check in account.checks() if check.verdict == "failed"] == []
        held = {one.id: one for one in account.holdings({"vllm-anywhere/test"})}
        assert set(held) <= {one.get("id") for one in all_resources(project)}
        assert held[id].label == "vllm-anywhere/test/server/1"
        assert sorted(one.kind for one in held.values()) == ["address", "instance", "secret", "secret"]
        urn = project.resources(INSTANCE)[0]["urn"]
        project.pulumi("state", "delete", urn, "--target-dependents", "--yes", "-s", "test")
        project.pulumi(
            *("import", INSTANCE, "server", id, "--parent", f"deployment={DEPLOYMENT}"),
            *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
        )
        project.up()
        assert vm(project)["instanceId"] == first
        assert answers(project.outputs())
        assert "unchanged" in project.preview("--expect-no-changes")
        context = Context("", print, lambda _: False, lambda: 0.0, lambda: datetime.now(UTC))
        for one in held.values():
            account.release(context, one)
        assert account.holdings({"vllm-anywhere/test"}) == []


REFUSALS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (
        {"disabled_apis": ["compute.googleapis.com"]},
        ("gcloud services enable compute.googleapis.com", "gcp.enable_apis"),
    ),
    ({"billing_disabled": True}, ("no active billing account", "billing/linkedaccount")),
    ({"denied": ["compute.instances.create"]}, ("the permission compute.instances.create", "roles/compute.admin")),
    ({"stockout": {ZONES[0]: (ZONES[1],)}}, (f"there is capacity in {ZONES[1]}", f"'[\"{ZONES[1]}\"]'")),
    ({"quotas": {"NVIDIA_T4_GPUS/europe-west4": 0}}, ("The quota NVIDIA_T4_GPUS in europe-west4", "placement.regions")),
]


@pytest.mark.slow
def test_every_refusal_says_what_it_costs_and_what_to_do(project: Project, cloud: Cloud) -> None:
    project.config("gcp.find_zone", "false")
    for fault, words in REFUSALS:
        cloud.write_faults(Faults(**fault))
        said = project.up(ok=False)
        for word in (*words, "This was not made, so it isn't billed", "`pulumi destroy` removes it"):
            assert word in said, (fault, word, said)
        assert cloud.all("Instance") == []


@pytest.mark.slow
def test_a_group_serves_too(project: Project, cloud: Cloud) -> None:
    project.config("gcp.ha", "mig")
    cloud.fail(stockout=dict.fromkeys(ZONES[:2], ()))
    project.up()
    assert answers(project.outputs())
    assert len(project.resources(GROUP)) == 1
    (made,) = cloud.all("Instance")
    assert made.outputs["zone"].endswith(ZONES[2])
    project.destroy()
    assert cloud.all() == []


def test_two_sold_out_zones_are_passed_within_one_up(project: Project, cloud: Cloud) -> None:
    cloud.fail(stockout=dict.fromkeys(ZONES[:2], ()))
    with Rest(cloud) as rest:
        project.env |= rest.environ
        project.up()
        assert vm(project)["zone"] == ZONES[2]
        assert answers(project.outputs())
        asked = cloud.requests("rest POST")
        assert [one["type"].split("/")[-2] for one in asked] == ZONES
        assert cloud.all("Reservation") == []
        project.up()
        assert cloud.requests("rest POST") == asked


@pytest.mark.slow
def test_a_sold_out_zone_leaves_no_vm_and_what_exists_is_kept(project: Project, cloud: Cloud) -> None:
    cloud.fail(stockout={ZONES[0]: (ZONES[1],)})
    said = project.up(ok=False)
    assert "does not have enough resources available" in said
    assert cloud.all("Instance") == []
    address = cloud.all("Address")
    project.config("gcp.zones[0]", ZONES[1])
    project.up()
    assert vm(project)["zone"] == ZONES[1]
    assert [one.id for one in cloud.all("Address")] == [one.id for one in address]
