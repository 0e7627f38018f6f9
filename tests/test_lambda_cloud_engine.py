"""The life of a deployment on the emulated Lambda Cloud, with the real Pulumi CLI; nothing was tried on Lambda.

What runs there is llama.cpp behind the real start script, with TLS, at an address of its own on loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from emulators.faults import Fault, Kind
from emulators.lambda_cloud import LambdaEmulator
from engine import Project, answers

pytestmark = pytest.mark.engine
INSTANCE = "vllm-anywhere:lambda:Instance"


@pytest.fixture
def cloud(project: Project, tmp_path: Path) -> Iterator[LambdaEmulator]:
    with LambdaEmulator(tmp_path / "cloud") as emulator:
        project.env |= emulator.env()
        project.config("provider", "lambda")
        yield emulator
        assert emulator.violations == []


def test_a_deployment_is_previewed_made_rekeyed_repaired_imported_and_destroyed(
    project: Project, cloud: LambdaEmulator
) -> None:
    preview = project.preview()
    assert "gpu_1x_a10" in preview and "1.29" in preview
    assert {call.method for call in cloud.calls} == {"GET"}

    project.up()
    outputs = project.outputs()
    [first] = cloud.instances
    assert outputs["endpoint"].startswith("https://127.") and answers(outputs)
    exported = project.exported()
    assert outputs["api_key"] not in exported and cloud.key not in exported
    assert "unchanged" in project.preview("--refresh", "--expect-no-changes")

    project.config("api_key.rotation", "2")
    project.up()
    rekeyed = project.outputs()
    assert list(cloud.instances) == [first] and rekeyed["api_key"] != outputs["api_key"]
    assert answers(rekeyed) and answers(rekeyed, outputs["api_key"])

    cloud.become(first, "unhealthy")
    project.refresh()
    project.up()
    [second] = cloud.instances
    assert second != first and answers(project.outputs())

    flags = ("--yes", "-s", "test", "--generate-code=false", "--protect=false")
    project.pulumi("import", INSTANCE, "found", second, *flags)
    imported = next(one for one in project.resources(INSTANCE) if one["urn"].endswith("::found"))
    assert imported["inputs"]["types"] == ["gpu_1x_a10"]

    project.destroy()
    assert (cloud.instances, cloud.rulesets) == ({}, {})


@pytest.mark.slow
def test_a_switch_to_this_machine_and_back_leaves_nothing(project: Project, cloud: LambdaEmulator) -> None:
    project.config("provider", "local")
    project.up()
    project.config("provider", "lambda")
    project.up()
    assert answers(project.outputs()) and project.servers() == []
    project.config("provider", "local")
    project.up()
    assert (cloud.instances, cloud.rulesets) == ({}, {}) and len(project.servers()) == 1
    project.destroy()


KILLED = [
    Fault(method="GET", path="/instances$", kind=Kind.KILL),
    Fault(method="POST", path="/firewall-rulesets", kind=Kind.KILL),
    Fault(method="POST", path="/launch", kind=Kind.KILL_BEFORE),
    Fault(method="POST", path="/launch", kind=Kind.KILL),
    Fault(method="GET", path="/instances/", kind=Kind.KILL),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", KILLED, ids=lambda fault: f"{fault.path} {fault.kind}")
def test_a_provider_killed_in_any_call_leaves_what_the_next_up_adopts(
    project: Project, cloud: LambdaEmulator, fault: Fault
) -> None:
    cloud.faults.add(fault)
    told = project.up(ok=False)
    assert cloud.faults.struck == 1, told
    project.up()
    assert len(cloud.instances) == len(cloud.rulesets) == 1
    assert answers(project.outputs())
    project.destroy()
    assert (cloud.instances, cloud.rulesets) == ({}, {})


@pytest.mark.slow
def test_two_servers_answer_by_one_authority_one_that_is_lost_is_made_anew_alone_and_the_first_stays(
    project: Project, cloud: LambdaEmulator
) -> None:
    project.config("scaling.min", "2")
    report = project.preview()
    assert "2 servers, each: 1x A10" in report
    project.up()
    both, out = instances(project), project.outputs()
    assert sorted(both) == ["server", "server-2"] and set(both.values()) == set(cloud.instances)
    assert out["cost"]["hourly_usd"] == "2.5800"
    assert [answers({**out, "endpoint": one["endpoint"]}) for one in out["endpoints"]] == [True, True]

    cloud.become(both["server-2"], "gone")
    project.refresh()
    project.up()
    after = instances(project)
    assert after["server"] == both["server"] and after["server-2"] != both["server-2"]

    project.config("scaling.min", "1")
    project.up()
    assert instances(project) == {"server": both["server"]}
    project.destroy()
    assert (cloud.instances, cloud.rulesets) == ({}, {})


def instances(project: Project) -> dict[str, str]:
    """Ids of the instances in state, by the resource's name."""
    return {one["urn"].rpartition("::")[2]: one["id"] for one in project.resources(INSTANCE)}
