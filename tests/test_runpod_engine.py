"""The life of a pod on the emulated RunPod, driven by the real Pulumi CLI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulators.faults import Fault, Kind
from engine import Project
from runpod_stage import Client, Stage, staged

pytestmark = pytest.mark.engine


@pytest.fixture
def stage(project: Project) -> Iterator[Stage]:
    with staged(project, "pod") as stage:
        yield stage


def test_preview_up_change_in_place_import_and_destroy(stage: Stage) -> None:
    shown = stage.project.preview()
    for words in ("RunPod pod, secure: 1x RTX 4000 Ada", "vllm-anywhere:runpod:Pod", "100 s until its first byte"):
        assert words in shown
    assert stage.existing() == set()

    stage.up()
    key, first = stage.key(), stage.server()
    assert stage.answers(key)
    assert not stage.answers("sk-wrong")
    assert first["outputs"]["hourlyUsd"] == "0.2682"

    stage.set(model__max_len=4096)
    stage.up()
    assert stage.server()["id"] == first["id"]
    assert stage.answers(key)

    stage.imported()
    stage.up()
    assert stage.server()["id"] == first["id"]
    assert stage.existing() == stage.owned() == {first["id"]}
    assert stage.answers(key)
    stage.up("--expect-no-changes")

    stage.project.destroy()
    assert stage.existing() == set()


def test_another_gpu_is_another_pod_and_no_request_fails_meanwhile(stage: Stage) -> None:
    stage.up()
    first = stage.server()["id"]
    stage.set(hardware__gpus=["L4"])
    with Client(stage, stage.key()) as client:
        stage.up()
        client.moved()
    assert client.failed == []
    assert len(client.served) == 2
    assert stage.existing() == stage.owned() != {first}


@pytest.mark.slow
def test_a_new_pod_that_never_answers_leaves_the_old_one_serving_and_what_to_do_is_said(stage: Stage) -> None:
    stage.up()
    key, old = stage.key(), stage.outputs()
    stage.runpod.boot(broken=True, log=["torch.OutOfMemoryError: CUDA out of memory"])
    stage.set(hardware__gpus=["L4"], ready={"timeout_s": 5})
    told = stage.up(ok=False)
    for words in ("has not answered", "what served before still serves", "CUDA out of memory", "`pulumi up`"):
        assert words in told
    assert "Traceback" not in told
    assert len(stage.existing()) == 2
    assert stage.outputs()["endpoint"] == old["endpoint"]
    assert stage.answers(key)
    stage.project.destroy()
    assert stage.existing() == set()


@pytest.mark.slow
def test_refresh_sees_a_pod_that_was_deleted_or_stopped_by_hand(stage: Stage) -> None:
    stage.up()
    first, key = stage.server()["id"], stage.key()
    with stage.runpod.world.settled() as account:
        account.pods[first].stopped = True
    assert "status" in stage.project.refresh()
    stage.up()
    assert stage.server()["id"] == first
    assert stage.answers(key)
    stage.runpod.delete(first)
    stage.project.refresh()
    stage.up()
    assert stage.existing() == stage.owned() != {first}
    assert stage.answers(key)


@pytest.mark.slow
def test_switching_from_local_to_runpod_and_back_leaves_no_gap(stage: Stage) -> None:
    stage.set(provider="local", hardware=None, runpod=None)
    stage.up()
    with Client(stage, stage.key()) as client:
        stage.set(provider="runpod")
        stage.up()
        client.moved()
        assert stage.outputs()["provider"] == "runpod"
        assert stage.project.servers() == []
        stage.set(provider="local")
        stage.up()
        client.moved()
    assert client.failed == []
    assert len(client.served) == 3
    assert stage.existing() == set()


@pytest.mark.slow
def test_the_key_is_in_runpods_secret_store_and_nowhere_in_clear(stage: Stage) -> None:
    stage.runpod.options(has_secrets_api=True)
    printed = [stage.project.preview("--diff"), stage.up()]
    key = stage.key()
    assert stage.answers(key)
    printed += [stage.project.exported(), stage.project.refresh(), str(stage.runpod.calls)]
    assert not [text for text in printed if key in text or stage.runpod.key in text]
    (pod,) = stage.runpod.account.pods.values()
    assert pod.container.env["VLLM_API_KEY"].startswith("{{ RUNPOD_SECRET_")
    assert pod.container.env["ANYWHERE_PREVIOUS_KEY"].startswith("{{ RUNPOD_SECRET_")
    assert len(stage.existing()) == 3
    assert stage.existing() == stage.owned()
    stage.project.destroy()
    assert stage.existing() == set()


@pytest.mark.slow
def test_weights_are_put_on_a_volume_once_and_the_pod_mounts_it(stage: Stage) -> None:
    stage.runpod.boot(matches="python", log=["weights: 1 of 8061 MB"] * 19 + ["weights: complete"])
    stage.set(runpod={"mode": "pod", "weights": "volume", "data_centers": ["EU-RO-1"]})
    stage.up()
    assert stage.answers(stage.key())
    (pod,) = [pod for pod in stage.runpod.account.pods.values() if pod.lingers is None]
    (volume,) = stage.runpod.account.volumes.values()
    assert [mount["volumeId"] for mount in pod.mounts["network"]] == [volume.id]
    assert pod.container.env["HF_HUB_OFFLINE"] == "1"
    assert stage.existing() == stage.owned() == {pod.id, volume.id}
    stage.up("--expect-no-changes")
    stage.project.destroy()
    assert stage.existing() == set()


FAULTS = [
    Fault(method="POST", path="/v2/pods$", kind=Kind.KILL),
    Fault(method="POST", path="/v2/pods$", kind=Kind.KILL_BEFORE),
    Fault(method="POST", path="/v2/pods$", kind=Kind.DROPPED),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.method} {fault.path} {fault.kind}")
def test_an_up_that_is_cut_off_is_finished_by_the_next(stage: Stage, fault: Fault) -> None:
    stage.runpod.faults.add(fault)
    stage.up(ok=fault.kind is Kind.DROPPED)
    assert stage.runpod.faults.struck == 1
    stage.up()
    assert len(stage.existing()) == 1
    assert stage.existing() == stage.owned()
    stage.runpod.faults.add(Fault(method="DELETE", path="/v2/pods/", kind=fault.kind))
    stage.project.pulumi("destroy", "--yes", "--skip-preview", "-s", "test", ok=fault.kind is Kind.DROPPED)
    stage.project.destroy()
    assert stage.existing() == set()
