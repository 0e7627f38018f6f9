"""RunPod's resources against its emulator, over HTTP: every fault in every call, and what stays in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, context

from providers.base import NoCapacity, PlatformError
from providers.native import Created
from providers.runpod import answers, endpoints
from providers.runpod.answers import GpuType
from providers.runpod.client import RunPod, urls_from
from providers.runpod.endpoint_terms import EndpointInputs
from providers.runpod.endpoints import EndpointOutputs, EndpointResource
from providers.runpod.pod_terms import PodInputs
from providers.runpod.pods import PodResource
from providers.runpod.volumes import RegistryInputs, RegistryResource, VolumeInputs, VolumeResource

RTX, A4500, L4 = "NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX A4500", "NVIDIA L4"
KINDS = [kind for kind in Kind if not kind.startswith("kill")]


@pytest.fixture
def runpod() -> Iterator[RunPodEmulator]:
    with RunPodEmulator() as emulator:
        yield emulator
        assert emulator.violations == []


def client(emulator: RunPodEmulator, timeout_s: float = 20) -> RunPod:
    return RunPod(emulator.key, urls_from(emulator.env()), pause=lambda seconds: None, timeout_s=timeout_s)


def endpoint_inputs(**changes: Any) -> EndpointInputs:
    fields: dict[str, Any] = {
        "label": LABEL,
        "kind": "QUEUE",
        "gpus": [RTX, L4],
        "min_cuda": "13.0",
        "image": "runpod/worker-v1-vllm:v2.25.2",
        "env": {"MODEL_NAME": "Qwen/Qwen3-4B", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "qwen3-4b"},
        "data_centers": ["EU-RO-1", "EU-SE-1"],
        "min_workers": 0,
        "max_workers": 3,
        "scaler": "QUEUE_DELAY",
        "scaler_value": 4,
        "caller_key": SecretStr("rpa_caller"),
    }
    return EndpointInputs(**{**fields, **changes})


def balanced(**changes: Any) -> EndpointInputs:
    env = {"PORT": "8000", "PORT_HEALTH": "8000", "HEALTH_CHECK_PATH": "/health"}
    args = "m --served-model-name m --host 0.0.0.0 --port 8000"
    kept: dict[str, Any] = {"image": "vllm/vllm-openai:v0.27.1", "args": args, "env": env}
    return endpoint_inputs(
        **{"kind": "LOAD_BALANCER", "scaler": "REQUEST_COUNT", "scaler_value": 30, **kept, **changes}
    )


def up(emulator: RunPodEmulator, inputs: EndpointInputs | None = None) -> Created[EndpointOutputs]:
    return EndpointResource().create_in(client(emulator), context(), inputs or endpoint_inputs())


def change(emulator: RunPodEmulator, made: Created[EndpointOutputs], new: EndpointInputs) -> Created[EndpointOutputs]:
    return EndpointResource().update_in(client(emulator), context(), made.id, made.outputs, new)


def seen(emulator: RunPodEmulator, made: Created[EndpointOutputs], known: EndpointInputs | None) -> EndpointInputs:
    found = EndpointResource().read_in(client(emulator), made.id, known, made.outputs if known else None)
    assert found is not None
    return found.inputs


# Any failure, in any call, of every resource.


class Story:
    """One resource: how it is created and deleted, and what of it exists."""

    def __init__(self, name: str, path: str, resource: Any, inputs: Any) -> None:
        self.name, self.path, self.resource, self.inputs = name, path, resource, inputs

    def __repr__(self) -> str:
        return self.name

    def create(self, cloud: RunPod) -> str:
        return self.resource.create_in(cloud, context(), self.inputs).id

    def delete(self, cloud: RunPod, id: str) -> None:
        self.resource.delete_in(cloud, context(), id)

    def existing(self, emulator: RunPodEmulator) -> list[str]:
        return [row["id"] for row in emulator.state()[self.name]]


STORIES = [
    Story(
        "pods",
        "/v2/pods",
        PodResource(),
        PodInputs(label=LABEL, gpus=[RTX, L4], image="i:1", script="x", api_key=SecretStr("k")),
    ),
    Story("endpoints", "/v2/serverless", EndpointResource(), endpoint_inputs()),
    Story(
        "volumes", "/v2/network-volumes", VolumeResource(), VolumeInputs(label=LABEL, size_gb=20, data_center="EU-RO-1")
    ),
    Story(
        "registries",
        "/v2/registries",
        RegistryResource(),
        RegistryInputs(label=LABEL, username="u", password=SecretStr("p")),
    ),
]


CATALOGUE_PATH = "/v2/catalog/gpus"
CREATING = [
    *((story, method, f"{story.path}$") for story in STORIES for method in ("POST", "GET")),
    *((story, "GET", CATALOGUE_PATH) for story in STORIES[:2]),
]
DELETING = [
    *((story, method, f"{story.path}/") for story in STORIES for method in ("DELETE", "GET")),
    (STORIES[1], "PATCH", "/v2/serverless/"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("story", "method", "path"), CREATING)
def test_after_any_failure_of_create_exactly_one_exists(
    runpod: RunPodEmulator, story: Story, method: str, path: str, kind: Kind
) -> None:
    runpod.faults.add(Fault(method=method, path=path, kind=kind))
    cloud = client(runpod, timeout_s=0.25)
    try:
        id = story.create(cloud)
    except PlatformError:
        id = story.create(cloud)
    assert runpod.faults.struck == 1
    assert story.existing(runpod) == [id]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("story", "method", "path"), DELETING)
def test_after_any_failure_of_delete_nothing_exists(
    runpod: RunPodEmulator, story: Story, method: str, path: str, kind: Kind
) -> None:
    id = story.create(client(runpod))
    runpod.faults.add(Fault(method=method, path=path, kind=kind))
    cloud = client(runpod, timeout_s=0.25)
    try:
        story.delete(cloud, id)
    except PlatformError:
        story.delete(cloud, id)
    assert runpod.faults.struck == 1
    assert story.existing(runpod) == []
    story.delete(cloud, id)


@pytest.mark.parametrize("story", STORIES, ids=repr)
def test_what_an_interrupted_create_left_becomes_one_and_lists_of_many_pages_are_read_whole(
    runpod: RunPodEmulator, story: Story
) -> None:
    runpod.options(page_size=1)
    first = story.create(client(runpod))
    again = story.create(client(runpod))
    assert story.existing(runpod) == [again]
    if story.name != "registries":
        assert again == first


@pytest.mark.parametrize("story", STORIES, ids=repr)
def test_lagging_lists_and_deletes_that_do_nothing_at_first_are_waited_for(
    runpod: RunPodEmulator, story: Story
) -> None:
    runpod.options(list_lag=3, delete_lag=2)
    runpod.faults.add(Fault(method="POST", path=story.path, kind=Kind.LOST))
    id = story.create(client(runpod))
    assert story.existing(runpod) == [id]
    story.delete(client(runpod), id)
    assert story.existing(runpod) == []


# Endpoints.


def test_an_endpoint_is_created_with_every_field_whose_default_surprises(runpod: RunPodEmulator) -> None:
    made = up(runpod)
    (body,) = [call.body for call in runpod.calls if call.method == "POST"]
    assert (body["timeout"], body["flashboot"], body["type"]) == (600_000, "FLASHBOOT", "QUEUE")
    assert body["workers"] == {"min": 0, "max": 3, "idleTimeout": 60}
    assert body["scaling"] == {"type": "QUEUE_DELAY", "queueDelay": 4}
    assert body["gpu"]["pools"] == ["AMPERE_16", "AMPERE_24"]
    assert set(body["gpu"]["excludedTypes"]) >= {A4500, "NVIDIA RTX A5000"}
    assert not {RTX, L4} & set(body["gpu"]["excludedTypes"])
    assert body["gpu"]["minCudaVersion"] == "13.0"
    assert made.outputs.endpoint == f"{runpod.job_url}/{made.id}/openai/v1"
    assert made.outputs.worker_hourly_usd == "0.684"


def test_a_queue_that_scales_by_requests_has_no_idle_timeout(runpod: RunPodEmulator) -> None:
    made = up(runpod, endpoint_inputs(scaler="REQUEST_COUNT", scaler_value=10))
    (body,) = [call.body for call in runpod.calls if call.method == "POST"]
    assert body["workers"] == {"min": 0, "max": 3}
    assert change(runpod, made, endpoint_inputs(scaler="REQUEST_COUNT", scaler_value=10)).outputs == made.outputs


def test_a_load_balancer_names_its_port_and_its_health_path(runpod: RunPodEmulator) -> None:
    made = up(runpod, balanced())
    (body,) = [call.body for call in runpod.calls if call.method == "POST"]
    assert body["ports"] == ["8000/http"]
    assert body["env"]["HEALTH_CHECK_PATH"] == "/health"
    assert made.outputs.endpoint == f"{runpod.balancer_url(made.id)}/v1"


@pytest.mark.parametrize("inputs", [endpoint_inputs(), balanced(), endpoint_inputs(flashboot=False)])
def test_what_was_just_created_has_no_drift_and_needs_no_change(runpod: RunPodEmulator, inputs: EndpointInputs) -> None:
    runpod.options(fb_suffix=True)
    made = up(runpod, inputs)
    assert seen(runpod, made, inputs) == inputs
    change(runpod, made, inputs)
    assert [call for call in runpod.calls if call.method == "PATCH"] == []


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"max_workers": 5, "idle_timeout_s": 120}, {"workers"}),
        ({"scaler_value": 8}, {"scaling"}),
        ({"execution_timeout_s": 900}, {"timeout"}),
        ({"flashboot": False}, {"flashboot"}),
        ({"gpus": [L4]}, {"gpu"}),
        ({"data_centers": ["EU-RO-1"]}, {"dataCenterIds"}),
        ({"image": "runpod/worker-v1-vllm:v2.26.0", "disk_gb": 80}, {"image", "disk"}),
        ({"env": {"MODEL_NAME": "Qwen/Qwen3-8B"}}, {"env"}),
    ],
)
def test_every_change_is_in_place_and_sends_only_itself(
    runpod: RunPodEmulator, changes: dict[str, Any], parts: set[str]
) -> None:
    made = up(runpod)
    new = endpoint_inputs(**changes)
    updated = change(runpod, made, new)
    (body,) = [call.body for call in runpod.calls if call.method == "PATCH"]
    assert set(body) == parts
    assert seen(runpod, updated, new) == new
    assert (updated.outputs.run != made.outputs.run) == bool(parts & {"image", "env"})
    if "gpu" in body:
        assert body["gpu"]["excludedTypes"]


def test_the_idle_scale_down_is_seen_as_drift_and_repaired(runpod: RunPodEmulator) -> None:
    made = up(runpod)
    runpod.idle(days=8)
    assert seen(runpod, made, endpoint_inputs()) == endpoint_inputs(max_workers=0)
    change(runpod, made, endpoint_inputs())
    assert seen(runpod, made, endpoint_inputs()) == endpoint_inputs()


def test_an_endpoint_deleted_by_hand_is_read_as_gone_and_updating_it_says_so(runpod: RunPodEmulator) -> None:
    made = up(runpod)
    runpod.delete(made.id)
    assert EndpointResource().read_in(client(runpod), made.id, endpoint_inputs(), made.outputs) is None
    with pytest.raises(PlatformError, match="is gone, and nothing is billed"):
        change(runpod, made, endpoint_inputs())


def test_an_import_says_what_is_there_and_where_workers_may_run(runpod: RunPodEmulator) -> None:
    made = up(runpod)
    found = seen(runpod, made, None)
    assert found.gpus[:2] == ["AMPERE_16", "AMPERE_24"]
    assert found.model_copy(update={"gpus": [RTX, L4], "caller_key": SecretStr("rpa_caller")}) == endpoint_inputs()


def test_a_pool_changed_by_hand_is_drift(runpod: RunPodEmulator) -> None:
    made = up(runpod)
    client(runpod).patch(f"/v2/serverless/{made.id}", {"gpu": {"pools": ["ADA_24"]}}, answers.Endpoint)
    assert seen(runpod, made, endpoint_inputs()).gpus == ["ADA_24"]


def test_workers_are_taken_down_before_the_endpoint_is_deleted(runpod: RunPodEmulator) -> None:
    made = up(runpod, endpoint_inputs(min_workers=1))
    EndpointResource().delete_in(client(runpod), context(), made.id)
    done = [(call.method, call.body) for call in runpod.calls if call.method in ("PATCH", "DELETE")]
    assert done == [("PATCH", {"workers": {"min": 0, "max": 0}}), ("DELETE", None)]
    assert runpod.state()["total_hourly_usd"].strip("0.") == ""


def test_active_workers_are_said_to_bill_at_once(runpod: RunPodEmulator) -> None:
    said: list[str] = []
    EndpointResource().create_in(
        client(runpod), replace(context(), progress=said.append), endpoint_inputs(min_workers=2)
    )
    assert "2 workers bill up to $1.368 an hour" in said[-1]


def test_a_release_is_waited_for_until_no_worker_runs_the_one_before() -> None:
    stale = [{"id": "w1", "status": "RUNNING", "gpuCount": 1, "isStale": True}]
    fresh = [{**stale[0], "isStale": False}]
    rounds = [stale, stale, fresh]
    said: list[str] = []
    problem = endpoints.rolled_out(_workers(rounds), replace(context(), progress=said.append), "e1")
    assert problem == ""
    assert said == ["1 of 1 workers still run the release before"] * 2


def test_a_release_that_never_ends_is_a_problem_that_keeps_the_endpoint() -> None:
    stale = [{"id": "w1", "status": "RUNNING", "gpuCount": 1, "isStale": True}]
    problem = endpoints.rolled_out(_workers([stale] * 3000), context(), "e1")
    assert "still run the release before" in problem
    assert "billed" in problem


def _workers(rounds: list[list[dict[str, Any]]]) -> Any:
    class Cloud:
        def all(self, path: str, name: str, kind: Any) -> list[answers.Worker]:
            return [answers.Worker.model_validate(row) for row in rounds.pop(0)]

    return Cloud()


def test_a_key_of_ours_is_refused_before_anything_is_created() -> None:
    (failure,) = EndpointResource().check({"caller_key": "sk-ours", "kind": "QUEUE", "scaler": "QUEUE_DELAY"})
    # Pulumi shows the value of a property that a failure names.
    assert failure.property == ""
    assert "own_api_key" in failure.reason
    assert EndpointResource().check({"caller_key": "rpa_x", "kind": "QUEUE", "scaler": "QUEUE_DELAY"}) == []


def row(id: str, pool: str | None, price: float) -> GpuType:
    return GpuType.model_validate({"id": id, "pool": pool, "price": {"serverless": str(price)}})


CATALOGUE = [
    row("a", "P1", 1),
    row("b", "P1", 1),
    row("c", "P2", 2),
    row("d", "P3", 3),
    row("e", "P4", 4),
    row("f", None, 0),
]


@given(
    gpus=st.lists(st.sampled_from("abcdefz"), min_size=1, unique=True), prefer=st.sampled_from(["listed", "cheapest"])
)
def test_workers_never_run_on_a_gpu_that_was_not_asked_for(gpus: list[str], prefer: Any) -> None:
    inputs = endpoint_inputs(gpus=gpus, prefer=prefer)
    try:
        pools = endpoints.pools_for(CATALOGUE, inputs)
    except NoCapacity:
        assert not set(gpus) & set("abcde")
        return
    eligible = {one.id for one in CATALOGUE if one.pool in pools.names and one.id not in pools.excluded}
    assert eligible
    assert eligible <= set(gpus)
    assert len(pools.names) <= (1 if prefer == "cheapest" else 3)
    assert pools.hourly == max(one.price.serverless or 0 for one in CATALOGUE if one.id in eligible)


# Volumes and credentials.


def test_a_volume_grows_in_place_and_never_shrinks(runpod: RunPodEmulator) -> None:
    cloud, volume = client(runpod), VolumeResource()
    inputs = VolumeInputs(label=LABEL, size_gb=20, data_center="EU-RO-1")
    made = volume.create_in(cloud, context(), inputs)
    grown = volume.update_in(cloud, made.id, made.outputs, inputs.model_copy(update={"size_gb": 40}))
    assert grown.outputs.size_gb == 40
    with pytest.raises(PlatformError, match="can't make it smaller"):
        volume.update_in(cloud, made.id, grown.outputs, inputs)
    found = volume.read_in(cloud, made.id, None)
    assert found is not None
    assert found.inputs == inputs.model_copy(update={"size_gb": 40})


def test_a_registry_credential_is_never_adopted_since_what_it_holds_can_not_be_read(runpod: RunPodEmulator) -> None:
    cloud, registry = client(runpod), RegistryResource()
    inputs = RegistryInputs(label=LABEL, username="u", password=SecretStr("hunter22"))
    first = registry.create_in(cloud, context(), inputs)
    second = registry.create_in(cloud, context(), inputs)
    assert first.id != second.id
    assert [one["id"] for one in runpod.state()["registries"]] == [second.id]
    assert "hunter22" not in repr([second, registry.read_in(cloud, second.id, inputs)])


def test_a_registry_password_comes_from_the_environment_or_is_asked_for(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNPOD_REGISTRY_PASSWORD", raising=False)
    (failure,) = RegistryResource().check({"username": "u"})
    assert "RUNPOD_REGISTRY_PASSWORD" in failure.reason
    monkeypatch.setenv("RUNPOD_REGISTRY_PASSWORD", "hunter22")
    assert RegistryResource().check({"username": "u"}) == []
    assert RegistryResource().create_in(client(runpod), context(), RegistryInputs(label=LABEL, username="u")).id
