"""The cloud in memory under the real engine: what every cloud's lifecycle comes to."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from engine import Project, answers

from providers.fake.client import FakeCloud

pytestmark = pytest.mark.engine
INSTANCE = "vllm-anywhere:fake:Instance"


def cloud(project: Project) -> FakeCloud:
    return FakeCloud(project.folder / "state/fake.json")


@pytest.mark.slow
def test_one_key_switches_the_platform_and_back(project: Project) -> None:
    project.up()
    local = project.outputs()
    project.config("provider", "fake")
    text = project.preview()
    assert re.search(r"fake:Instance +server +create", text), text
    served: list[bool] = []
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set() and cloud(project).all() == []:
            served.append(answers(local))

    client = threading.Thread(target=hammer)
    client.start()
    project.up()
    done.set()
    client.join()
    assert served and all(served)
    assert project.outputs()["provider"] == "fake"
    assert project.servers() == []
    project.config("provider", "local")
    project.up()
    assert cloud(project).all() == []
    assert answers(project.outputs())


def test_an_instance_that_was_taken_away_is_seen_and_replaced(project: Project) -> None:
    project.config("provider", "fake")
    project.up()
    (first,) = cloud(project).all()
    cloud(project).interrupt(first.id)
    assert "status" in project.refresh()
    project.up()
    (second,) = cloud(project).all()
    assert second.id != first.id
    assert second.label.startswith("vllm-anywhere/test/server/2-")
    project.destroy()
    assert cloud(project).all() == []


def test_stacks_of_one_name_in_two_backends_leave_each_others_servers_alone(
    project: Project, tmp_path_factory: pytest.TempPathFactory, pulumi_cli: str
) -> None:
    other = Project.create(tmp_path_factory.mktemp("colleague"), pulumi_cli)
    other.env["VLLM_ANYWHERE_STATE"] = project.env["VLLM_ANYWHERE_STATE"]
    for one in (project, other):
        one.config("provider", "fake")
    project.up()
    (first,) = cloud(project).all()
    other.config("model.max_len", "4096")
    other.up()
    assert len(cloud(project).all()) == 2
    other.destroy()
    assert cloud(project).all() == [first]
    other.close()


@pytest.mark.parametrize("fault", ["kill", "lost", pytest.param("timeout", marks=pytest.mark.slow)])
def test_a_create_that_fails_leaves_exactly_one_after_the_next_up(project: Project, fault: str) -> None:
    project.config("provider", "fake")
    faults = json.dumps({"create": fault})
    # A lost answer is looked up within the same `up`; the others fail it.
    project.up(ok=fault == "lost", VLLM_ANYWHERE_FAKE_FAULTS=faults)
    project.up()
    (only,) = cloud(project).all()
    (kept,) = project.resources(INSTANCE)
    assert kept["id"] == only.id
    assert kept["outputs"]["label"] == only.label


def test_an_unsupported_gpu_fails_preview_with_what_there_is(project: Project) -> None:
    project.config("provider", "fake")
    project.config("hardware.gpus[0]", "H100")
    text = project.preview(ok=False)
    assert "vllm-anywhere:hardware.gpus: fake has L4 and T4" in text
    assert not Path(project.folder / "state/fake.json").exists()
