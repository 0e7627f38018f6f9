"""RunPod with the real engine against the emulator: the life of a deployment in each of the three modes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from emulators.runpod import RunPodEmulator
from engine import Project, answers

from providers.base import PLATFORMS

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("runpod" not in PLATFORMS, reason="the platform is not registered"),
]
TOKENS = {"pod": "vllm-anywhere:runpod:Pod", "serverless": "vllm-anywhere:runpod:Endpoint"}
MODES = ["pod", "serverless", "load-balancing"]


@pytest.fixture
def runpod() -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        yield emulator
        assert emulator.violations == []


def configured(project: Project, runpod: RunPodEmulator, mode: str) -> Project:
    project.env |= runpod.env()
    project.config("provider", "runpod")
    project.config("model.served_name", "qwen3-4b")
    project.config("hardware.gpus[0]", "RTX 4000 Ada")
    project.config("runpod.mode", mode)
    if mode != "pod":
        project.config("own_api_key", runpod.key, "--secret")
        project.config("scaling.min", "0")
        project.config("scaling.max", "2")
    return project


def server(project: Project, mode: str) -> dict[str, Any]:
    (found,) = project.resources(TOKENS["pod" if mode == "pod" else "serverless"])
    return found


def existing(runpod: RunPodEmulator) -> list[str]:
    state = runpod.state()
    return [row["id"] for row in (*state["pods"], *state["endpoints"])]


@pytest.mark.parametrize("mode", MODES)
def test_it_goes_up_answers_changes_in_place_survives_a_deletion_and_leaves_nothing(
    project: Project, runpod: RunPodEmulator, mode: str
) -> None:
    configured(project, runpod, mode)
    assert "qwen3-4b" in project.preview()
    assert existing(runpod) == []
    project.up()
    first = server(project, mode)["id"]
    assert answers(project.outputs())
    project.preview("--expect-no-changes")

    project.config("model.max_len", "4096")
    project.up()
    assert server(project, mode)["id"] == first
    assert answers(project.outputs())

    runpod.delete(first)
    project.refresh()
    project.up()
    assert server(project, mode)["id"] != first
    assert answers(project.outputs())
    project.destroy()
    assert existing(runpod) == []


def test_another_gpu_is_another_pod_and_the_old_one_serves_until_it_answers(
    project: Project, runpod: RunPodEmulator
) -> None:
    configured(project, runpod, "pod").up()
    first = server(project, "pod")["id"]
    project.config("hardware.gpus[0]", "L4")
    runpod.boot(broken=True)
    project.config("ready.timeout_s", "5")
    assert "has not answered" in project.up(ok=False)
    assert first in existing(runpod)
    project.destroy()
    assert existing(runpod) == []


def test_the_idle_scale_down_is_drift_that_up_repairs(project: Project, runpod: RunPodEmulator) -> None:
    configured(project, runpod, "serverless").up()
    runpod.idle(days=8)
    project.refresh()
    assert "maxWorkers" in project.preview("--diff")
    project.up()
    assert runpod.state()["endpoints"][0]["max"] == 2
    project.destroy()


@pytest.mark.parametrize("mode", MODES)
def test_no_key_is_in_state_in_clear(project: Project, runpod: RunPodEmulator, mode: str) -> None:
    printed = configured(project, runpod, mode).up()
    key = project.outputs()["api_key"]
    for text in (printed, project.exported(), project.preview("--diff")):
        assert key not in text
        assert runpod.key not in text
    assert json.loads(project.exported())["deployment"]["resources"]
    project.destroy()
