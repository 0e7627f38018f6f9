"""Modal with the real engine: the life of a deployment on the emulated control plane.

Containers are real llama.cpp servers behind the guard that was deployed. Nothing here has seen Modal itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.modal import ModalEmulator
from emulators.modal.emulator import RPC, TOKEN
from engine import DEPLOYMENT, Follower, Project, answers

from providers.base import PLATFORMS

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("modal" not in PLATFORMS, reason="the platform is not registered"),
]
APP = "vllm-anywhere:modal:App"
NAME = "vllm-anywhere-test-server"
SERVER = f"urn:pulumi:test::vllm-anywhere::vllm-anywhere:index:Deployment${APP}::server"


@pytest.fixture
def modal(project: Project) -> Iterator[ModalEmulator]:
    with ModalEmulator() as emulator:
        project.env |= emulator.env()
        project.config("provider", "modal")
        project.config("model.served_name", "qwen3-4b")
        project.config("hardware.gpus[0]", "L4")
        project.config("hardware.gpus[1]", "A10")
        project.config("scaling.min", "0")
        yield emulator
        assert emulator.violations == []


def app_ids(modal: ModalEmulator) -> list[str]:
    return [app.id for app in modal.deployed]


def names(modal: ModalEmulator) -> list[str]:
    """The names of the deployed apps, without what tells them from another stack's."""
    return [app.name.rpartition("-")[0] for app in modal.deployed]


def version(modal: ModalEmulator) -> int:
    (app,) = modal.deployed
    return app.version


def nothing_is_left(modal: ModalEmulator) -> bool:
    return modal.state() == {"apps": [], "volumes": []}


@pytest.mark.slow
def test_preview_shows_cost_place_and_what_will_be_made_and_asks_modal_nothing(
    project: Project, modal: ModalEmulator
) -> None:
    text = " ".join(project.preview().split())
    for words in ("A10", "European Economic Area (eu)", "CPU core", "memory", "1.5 x", "modal:App", "modal:Volume"):
        assert words in text
    assert modal.rpcs == []


def test_it_goes_up_answers_scales_in_place_and_leaves_nothing(project: Project, modal: ModalEmulator) -> None:
    project.up()
    out = project.outputs()
    assert answers(out)
    assert out["hardware"] == "Modal app, 0 to 1 containers in eu: 1x L4 (or A10)"
    (first,) = app_ids(modal)
    assert f"/{NAME}-1-" in out["endpoint"]
    project.preview("--expect-no-changes")
    assert "6 unchanged" in project.preview("--refresh")

    project.config("scaling.max", "3")
    project.config("scaling.idle_timeout_s", "300")
    project.up()
    assert version(modal) == 1
    settings = modal.deployed[0].functions["serve"].settings
    assert (settings.max_containers, settings.scaledown_window) == (3, 300)

    project.config("modal.concurrency", "8")
    project.up()
    assert (app_ids(modal), version(modal)) == ([first], 2)
    assert project.outputs()["endpoint"] == out["endpoint"]
    assert answers(project.outputs())
    project.destroy()
    assert nothing_is_left(modal)


def test_another_model_is_another_app_and_the_old_one_serves_until_it_answers(
    project: Project, modal: ModalEmulator
) -> None:
    project.up()
    with Follower(project, project.outputs()) as client:
        project.config("model.max_len", "4096")
        project.up()
    assert client.failed == []
    assert names(modal) == [f"{NAME}-2"]
    assert answers(project.outputs())
    assert len(modal.workspace.volumes) == 1


@pytest.mark.slow
def test_a_new_one_that_never_answers_leaves_the_old_one_serving(project: Project, modal: ModalEmulator) -> None:
    project.up()
    before = project.outputs()
    modal.boot(matches="server-2", broken=True, log=["torch.OutOfMemoryError: CUDA out of memory."])
    project.config("model.max_len", "4096")
    project.config("ready.timeout_s", "5")
    text = project.up(ok=False)
    assert "has not answered" in text
    assert "out of memory" in text
    assert answers(before)
    project.destroy()
    assert nothing_is_left(modal)


def test_a_stop_behind_its_back_is_seen_and_repaired(project: Project, modal: ModalEmulator) -> None:
    project.up()
    (first,) = app_ids(modal)
    modal.stop(modal.deployed[0].name)
    project.refresh()
    assert "modal:App server create" in " ".join(project.preview().split())
    project.up()
    assert app_ids(modal) not in ([], [first])
    assert answers(project.outputs())


@pytest.mark.slow
def test_limits_that_somebody_changed_are_drift_that_up_repairs(project: Project, modal: ModalEmulator) -> None:
    project.up()
    (app,) = modal.deployed
    app.functions["serve"].ranked[0].autoscaler_settings.max_containers = 9
    project.refresh()
    assert "maxContainers" in project.preview("--diff")
    project.up()
    assert app.functions["serve"].settings.max_containers == 1
    app.version += 1
    project.refresh()
    assert "redeployed" in project.preview("--diff")
    project.up()
    project.preview("--expect-no-changes", "--refresh")


@pytest.mark.slow
def test_a_running_app_can_be_imported(project: Project, modal: ModalEmulator) -> None:
    project.up()
    (first,), (app,) = app_ids(modal), modal.deployed
    project.pulumi("state", "delete", SERVER, "--target-dependents", "--yes", "-s", "test")
    project.pulumi(
        *("import", APP, "server", f"main/{app.name}", "--parent", f"deployment={DEPLOYMENT}"),
        *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
    )
    project.up()
    assert app_ids(modal) == [first]
    assert answers(project.outputs())


@pytest.mark.slow
def test_an_app_of_somebody_else_under_that_name_is_left_alone(project: Project, modal: ModalEmulator) -> None:
    project.up()
    (app,) = modal.deployed
    app.tags = {"team": "search"}
    project.refresh()
    text = " ".join(project.up(ok=False).split())
    assert "was deployed by something else; nothing was changed" in text
    assert (app.live, app.version) == (True, 1)
    project.destroy()
    assert app.live


@pytest.mark.slow
def test_it_switches_from_local_and_back(project: Project, modal: ModalEmulator) -> None:
    project.config("provider", "local")
    project.up()
    local = project.outputs()
    project.config("provider", "modal")
    project.up()
    assert answers(project.outputs())
    assert project.servers() == []
    project.config("provider", "local")
    project.up()
    assert answers(project.outputs())
    assert project.outputs()["api_key"] == local["api_key"]
    assert nothing_is_left(modal)


FAULTS = [
    Fault(method=RPC, path="AppPublish", kind=Kind.LOST),
    Fault(method=RPC, path="AppPublish", kind=Kind.LOST, times=20),
    Fault(method=RPC, path="AppPublish", kind=Kind.DROPPED),
    Fault(method=RPC, path="AppPublish", kind=Kind.REFUSED),
    Fault(method=RPC, path="AppCreate", kind=Kind.DROPPED),
    Fault(method=RPC, path="VolumeGetOrCreate", kind=Kind.LOST),
    Fault(method=RPC, path="FunctionCreate", kind=Kind.RATE_LIMITED),
    Fault(method=RPC, path="AppPublish", kind=Kind.KILL),
    Fault(method=RPC, path="AppPublish", kind=Kind.KILL_BEFORE),
    Fault(method=RPC, path="FunctionGetSchedulingParams", kind=Kind.KILL),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.kind}-{fault.path}-{fault.times}")
def test_whatever_happens_to_a_call_there_is_one_app_and_then_none(
    project: Project, modal: ModalEmulator, fault: Fault
) -> None:
    modal.faults.add(fault)
    client = project.start("up", "--yes", "--skip-preview", "-s", "test")
    client.communicate(timeout=120)
    assert modal.faults.struck
    modal.faults.clear()
    if client.returncode:
        project.up()
    assert names(modal) == [f"{NAME}-1"]
    assert answers(project.outputs())
    modal.faults.add(Fault(method=RPC, path="AppStop", kind=Kind.DROPPED))
    project.destroy()
    assert nothing_is_left(modal)


@pytest.mark.slow
def test_no_key_is_in_state_in_clear(project: Project, modal: ModalEmulator) -> None:
    printed = project.up()
    key = project.outputs()["api_key"]
    state: dict[str, Any] = json.loads(project.exported())["deployment"]
    assert state["resources"]
    for text in (printed, json.dumps(state), project.preview("--diff"), json.dumps([c.request for c in modal.rpcs])):
        assert key not in text
        assert TOKEN[1] not in text
