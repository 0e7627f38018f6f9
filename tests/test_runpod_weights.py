"""Weights on a RunPod volume: the pod that loads them, what it says, and that it never stays."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, context

import providers.runpod
from providers.base import Interrupted, NotReady, PlatformError
from providers.runpod.client import RunPod, urls_from
from providers.runpod.volumes import VolumeInputs, VolumeResource
from providers.runpod.weights import WeightsInputs, WeightsResource, script, told


@pytest.fixture
def runpod() -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        yield emulator
        assert emulator.violations == []


def client(emulator: RunPodEmulator) -> RunPod:
    return RunPod(emulator.key, urls_from(emulator.env()), pause=lambda seconds: None)


def inputs_on(emulator: RunPodEmulator, **changes: Any) -> WeightsInputs:
    volume = VolumeInputs(label="shop/dev/volume/1", size_gb=20, data_center="EU-RO-1")
    made = VolumeResource().create_in(client(emulator), context(), volume)
    fields: dict[str, Any] = {"label": LABEL, "volume_id": made.id, "data_center": "EU-RO-1", "model": "Qwen/Qwen3-4B"}
    return WeightsInputs(**{**fields, **changes})


def saying(cloud: RunPod, *rounds: list[str]) -> RunPod:
    left = list(rounds)
    cloud.log_lines = lambda path, tail: left.pop(0) if len(left) > 1 else left[0]  # pyright: ignore
    return cloud


def pods(emulator: RunPodEmulator) -> list[Any]:
    return emulator.state()["pods"]


def test_the_volume_is_filled_by_a_pod_that_shows_its_progress_and_then_goes(runpod: RunPodEmulator) -> None:
    said: list[str] = []
    inputs = inputs_on(runpod)
    cloud = saying(client(runpod), [], ["weights: 512 of 8061 MB"], ["weights: 8061 of 8061 MB", "weights: complete"])
    made = WeightsResource().create_in(cloud, replace(context(), progress=said.append), inputs)
    assert (made.id, made.outputs.model) == (inputs.volume_id, "Qwen/Qwen3-4B")
    assert any("512 of 8061 MB" in text for text in said)
    assert pods(runpod) == []
    (body,) = [call.body for call in runpod.calls if call.method == "POST" and call.path == "/v2/pods"]
    assert "gpu" not in body
    assert body["mounts"] == {"network": [{"volumeId": inputs.volume_id, "path": "/volume"}]}
    assert body["dataCenterIds"] == ["EU-RO-1"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["weights: GatedRepoError 403", "weights: failed"], "GatedRepoError 403"),
        (["weights: 1 of 8061 MB"], "took longer than"),
    ],
)
def test_when_it_fails_the_pod_goes_the_volume_stays_and_the_error_says_what_it_costs(
    runpod: RunPodEmulator, lines: list[str], words: str
) -> None:
    inputs = inputs_on(runpod)
    with pytest.raises(NotReady) as caught:
        WeightsResource().create_in(saying(client(runpod), lines), replace(context(), timeout_s=9), inputs)
    assert words in str(caught.value)
    assert "the volume keeps what came, and is billed" in str(caught.value)
    assert pods(runpod) == []
    assert len(runpod.state()["volumes"]) == 1


def test_a_pod_that_was_deleted_and_is_still_listed_is_not_waited_for(runpod: RunPodEmulator) -> None:
    inputs = inputs_on(runpod)
    runpod.options(delete_lag=20)
    with pytest.raises(PlatformError):
        WeightsResource().create_in(saying(client(runpod), ["weights: failed"]), context(), inputs)
    WeightsResource().create_in(saying(client(runpod), ["weights: complete"]), context(), inputs)
    assert [call.status for call in runpod.calls if call.method == "POST" and call.path == "/v2/pods"] == [201, 201]


def test_a_cancel_gives_the_pod_back(runpod: RunPodEmulator) -> None:
    inputs = inputs_on(runpod)
    with pytest.raises(Interrupted):
        WeightsResource().create_in(
            saying(client(runpod), ["weights: 1 of 2 MB"]), context(pause=lambda seconds: True), inputs
        )
    assert pods(runpod) == []


@pytest.mark.parametrize("kind", [Kind.LOST, Kind.DROPPED, Kind.REFUSED, Kind.GARBAGE])
@pytest.mark.parametrize("method", ["POST", "DELETE", "GET"])
def test_after_any_failure_no_pod_is_left(runpod: RunPodEmulator, kind: Kind, method: str) -> None:
    inputs = inputs_on(runpod)
    cloud = saying(client(runpod), ["weights: complete"])
    runpod.faults.add(Fault(method=method, path="/v2/pods", kind=kind))
    try:
        WeightsResource().create_in(cloud, context(), inputs)
    except PlatformError:
        WeightsResource().create_in(cloud, context(), inputs)
    assert runpod.faults.struck == 1
    assert pods(runpod) == []


def test_other_weights_on_the_same_volume_are_loaded_by_an_update_and_the_same_ones_are_not(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = inputs_on(runpod)
    resource = WeightsResource()
    made = resource.create_in(saying(client(runpod), ["weights: complete"]), context(), inputs)
    asked: list[str] = []
    monkeypatch.setattr(resource, "create", lambda context, new: asked.append(new.model))
    resource.update(context(), made.id, made.outputs, inputs, inputs.model_copy(update={"hf_token": SecretStr("hf")}))
    resource.update(context(), made.id, made.outputs, inputs, inputs.model_copy(update={"model": "Qwen/Qwen3-8B"}))
    assert asked == ["Qwen/Qwen3-8B"]


def test_with_the_volume_gone_the_weights_are_read_as_gone(runpod: RunPodEmulator) -> None:
    inputs = inputs_on(runpod)
    made = WeightsResource().create_in(saying(client(runpod), ["weights: complete"]), context(), inputs)
    assert WeightsResource().read_in(client(runpod), made.id, inputs, made.outputs) is not None
    runpod.delete(inputs.volume_id)
    assert WeightsResource().read_in(client(runpod), made.id, inputs, made.outputs) is None


def test_the_token_is_in_the_environment_and_not_in_the_script() -> None:
    inputs = WeightsInputs(label=LABEL, volume_id="v", data_center="d", model="m", hf_token=SecretStr("hf_do_not_tell"))
    assert "hf_do_not_tell" not in script(inputs)


HUB = """
import os, pathlib

class File:
    def __init__(self, rfilename, size): self.rfilename, self.size = rfilename, size

class Info:
    siblings = [File("model.safetensors", 5_000_000), File("model.bin", 9_000_000)]

class HfApi:
    def model_info(self, model, revision, files_metadata):
        # A file that is listed, and gone when it is looked at: a part that has just got its name.
        blobs = pathlib.Path(os.environ["HF_HOME"], "hub", "models--" + model.replace("/", "--"), "blobs")
        blobs.mkdir(parents=True)
        (blobs / "0a1b.incomplete").symlink_to("gone")
        return Info()

class Refused(Exception):
    class response: status_code = 403

def snapshot_download(model, revision, ignore_patterns):
    import time; time.sleep(0.1)
    if model == "gated/model": raise Refused()
    assert "*.bin" in ignore_patterns
"""


@pytest.mark.parametrize(
    ("model", "state", "said"),
    [("Qwen/Qwen3-4B", "complete", "the weights are on the volume"), ("gated/model", "failed", "Refused 403")],
)
def test_the_program_in_the_pod_says_what_is_understood_here(model: str, state: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "huggingface_hub.py").write_text(HUB)
    program = Path(providers.runpod.__file__).parent / "fill_volume.py"
    done = subprocess.run(
        [sys.executable, program, model, "main"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert "weights: 0 of 5 MB" in lines
    assert told(lines) == (state, said)
