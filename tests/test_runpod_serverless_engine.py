"""The life of queue and load-balancing endpoints on the emulated RunPod, driven by the real Pulumi CLI."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulators.faults import Fault, Kind
from engine import Project
from runpod_stage import Client, Stage, staged

pytestmark = pytest.mark.engine
MODES = ["serverless", pytest.param("load-balancing", marks=pytest.mark.slow)]


@pytest.fixture(params=MODES)
def stage(project: Project, request: pytest.FixtureRequest) -> Iterator[Stage]:
    with staged(project, request.param) as stage:
        yield stage


@pytest.fixture
def queue(project: Project) -> Iterator[Stage]:
    with staged(project, "serverless") as stage:
        yield stage


def test_preview_up_changes_in_place_import_and_destroy(stage: Stage) -> None:
    key = stage.runpod.key
    shown = stage.project.preview()
    for words in (f"RunPod {stage.mode}, 0 to 2 workers", "vllm-anywhere:runpod:Endpoint", "lowers workers.max"):
        assert words in shown
    assert stage.existing() == set()

    stage.up()
    first = stage.server()["id"]
    assert stage.answers(key)

    # Another GPU, and another length, while somebody asks: it rolls over, and no request fails.
    stage.set(hardware__gpus=["L4"], model__max_len=4096)
    with Client(stage, key) as client:
        stage.up()
    assert client.failed == []
    assert client.served == [stage.outputs()["endpoint"]]
    assert stage.server()["id"] == first
    (endpoint,) = stage.runpod.account.endpoints.values()
    assert endpoint.gpu and endpoint.gpu.types() == ["NVIDIA L4"]
    assert stage.answers(key)

    stage.imported()
    stage.up()
    assert stage.existing() == stage.owned() == {first}
    stage.up("--expect-no-changes")

    stage.project.destroy()
    assert stage.existing() == set()


def test_refresh_sees_a_deletion_and_the_idle_scale_down_and_up_repairs_both(stage: Stage) -> None:
    stage.set(scaling={"min": 0, "max": 3})
    stage.up()
    first = stage.server()["id"]
    stage.runpod.idle(days=8)
    stage.project.refresh()
    assert stage.server()["inputs"]["maxWorkers"] == 0
    stage.up()
    assert stage.runpod.account.endpoints[first].max == 3
    assert stage.answers(stage.runpod.key)
    stage.runpod.delete(first)
    stage.project.refresh()
    stage.up()
    assert stage.existing() == stage.owned() != {first}
    assert stage.answers(stage.runpod.key)


@pytest.mark.slow
def test_from_local_to_an_endpoint_and_back_leaves_no_gap(queue: Stage) -> None:
    queue.set(provider="local", hardware=None)
    queue.up()
    with Client(queue, queue.runpod.key) as client:
        queue.set(provider="runpod")
        queue.up()
        client.moved()
        assert queue.project.servers() == []
        queue.set(provider="local")
        queue.up()
        client.moved()
    assert client.failed == []
    assert len(client.served) == 3
    assert queue.existing() == set()


@pytest.mark.slow
def test_weights_are_put_on_a_volume_before_the_endpoint_first_uses_it(queue: Stage) -> None:
    queue.runpod.boot(matches="python", log=["weights: 1 of 8061 MB"] * 19 + ["weights: complete"])
    queue.set(runpod={"mode": "serverless", "weights": "volume", "data_centers": ["EU-RO-1"]})
    queue.up()
    assert queue.answers(queue.runpod.key)
    (endpoint,) = queue.runpod.account.endpoints.values()
    assert endpoint.volumes == list(queue.runpod.account.volumes)
    posts = [call.path for call in queue.runpod.calls if call.method == "POST" and call.path.startswith("/v2/")]
    assert posts == ["/v2/network-volumes", "/v2/pods", "/v2/serverless"]
    assert queue.existing() == queue.owned() == {endpoint.id, *endpoint.volumes}
    queue.project.destroy()
    assert queue.existing() == set()


FAULTS = [
    Fault(method="POST", path="/v2/serverless$", kind=Kind.KILL),
    Fault(method="POST", path="/v2/serverless$", kind=Kind.LOST),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.method} {fault.path} {fault.kind}")
def test_an_up_that_is_cut_off_is_finished_by_the_next(queue: Stage, fault: Fault) -> None:
    queue.runpod.faults.add(fault)
    queue.up(ok=fault.kind is Kind.LOST)
    assert queue.runpod.faults.struck == 1
    queue.up()
    assert len(queue.existing()) == 1
    assert queue.existing() == queue.owned()
    queue.set(scaling={"min": 0, "max": 1})
    queue.runpod.faults.add(Fault(method="PATCH", path="/v2/serverless/", kind=fault.kind))
    queue.up(ok=fault.kind is Kind.LOST)
    queue.up()
    assert [one.max for one in queue.runpod.account.endpoints.values()] == [1]
    queue.project.destroy()
    assert queue.existing() == set()


def test_a_server_that_may_sleep_is_left_asleep_and_can_be_destroyed(queue: Stage) -> None:
    queue.set(ready={"wake": False})
    queue.up()
    assert queue.runpod.state()["hourly_usd"] == {}
    assert queue.runpod.called("POST", "/jobs/.*") == []
    assert queue.outputs()["ready"]["answered_at"] is None
    queue.project.destroy()
    assert queue.existing() == set()
