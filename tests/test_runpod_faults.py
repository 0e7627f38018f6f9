"""Every call of a RunPod deployment fails once, in every way, and the next command puts it right. Emulated.

A clean run says which calls there are. Each of them is then spoiled in turn, so a call that is new is covered at once.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, context

from providers.base import PlatformError
from providers.native import Labelled, NativeResource
from providers.runpod import endpoints, pods, vault, volumes, weights
from providers.runpod.client import RunPod, urls_from
from providers.runpod.endpoints import EndpointResource
from providers.runpod.pods import PodResource
from providers.runpod.vault import SecretResource
from providers.runpod.volumes import RegistryResource, VolumeInputs, VolumeResource
from providers.runpod.weights import WeightsResource

pytestmark = pytest.mark.heavy

PLACE = "EU-RO-1"
SHELVES = ("pods", "endpoints", "volumes", "registries", "secrets")
_FORK = multiprocessing.get_context("forkserver")
_FORK.set_forkserver_preload([__name__])


@dataclass(frozen=True)
class Life:
    """One resource: what it begins as, and what an `up` with a changed config makes of it in place."""

    resource: NativeResource[Any, Any]
    first: Labelled
    changed: Labelled
    shelf: str
    """Where the emulator keeps it; "" for one that leaves nothing of its own behind."""

    def __repr__(self) -> str:
        return self.resource.token.rpartition(":")[2]


def life(resource: NativeResource[Any, Any], shelf: str, change: dict[str, Any], **inputs: Any) -> Life:
    first = resource.inputs(label=LABEL, **inputs)
    return Life(resource, first, first.model_copy(update=change), shelf)


POD = life(
    PodResource(),
    "pods",
    {"disk_gb": 80},
    gpus=["NVIDIA RTX A4000", "NVIDIA L4"],
    min_cuda="13.0",
    image="vllm/vllm-openai:v0.27.1",
    script="exec vllm serve m",
    api_key=SecretStr("sk-do-not-tell"),
    data_centers=[[PLACE]],
)
QUEUE = life(
    EndpointResource(),
    "endpoints",
    {"max_workers": 3, "image": "runpod/worker-v1-vllm:v2.26.0"},
    kind="QUEUE",
    gpus=["NVIDIA L4"],
    image="runpod/worker-v1-vllm:v2.25.2",
    env={"MODEL_NAME": "m"},
    scaler="QUEUE_DELAY",
    scaler_value=4,
    caller_key=SecretStr("rpa_caller"),
)
BALANCED = life(
    EndpointResource(),
    "endpoints",
    {"idle_timeout_s": 90},
    kind="LOAD_BALANCER",
    gpus=["NVIDIA L4"],
    image="vllm/vllm-openai:v0.27.1",
    args="m --host 0.0.0.0 --port 8000",
    env={"PORT": "8000", "PORT_HEALTH": "8000", "HEALTH_CHECK_PATH": "/health"},
    scaler="REQUEST_COUNT",
    scaler_value=30,
    caller_key=SecretStr("rpa_caller"),
)
VOLUME = life(VolumeResource(), "volumes", {"size_gb": 30}, size_gb=20, data_center=PLACE)
REGISTRY = life(RegistryResource(), "registries", {}, username="me", password=SecretStr("not-to-be-told"))
SECRET = life(SecretResource(), "secrets", {}, value=SecretStr("sk-do-not-tell"))
WEIGHTS = life(
    WeightsResource(), "", {"revision": "v2"}, volume_id="filled in", data_center=PLACE, model="Qwen/Qwen3-4B"
)
LIVES = [POD, QUEUE, BALANCED, VOLUME, REGISTRY, SECRET, WEIGHTS]

IN_PROCESS = [
    *((kind, None) for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE)),
    *((Kind.REFUSED, status) for status in (401, 402, 403, 409, 413, 422)),
]
KILLS = [(Kind.KILL, None), (Kind.KILL_BEFORE, None)]


@dataclass
class Stack:
    """What the engine does with one resource: it keeps id and outputs, and takes the next step of `up` or `destroy`."""

    resource: NativeResource[Any, Any]
    env: dict[str, str]
    id: str = ""
    outputs: Any = None
    inputs: Any = None
    broken: bool = False
    apart: bool = False
    """Whether the provider is a process of its own, which may be killed."""

    def up(self, inputs: Labelled) -> None:
        """Raises `PlatformError` as the CLI would end with an error, and `ChildProcessError` for a killed provider."""
        if not self.id:
            made = self._do("create", inputs)
        elif self.broken or inputs != self.inputs:
            made = self._do("update", self.id, self.outputs, self.inputs, inputs)
        else:
            return
        self.id, self.outputs, self.inputs, self.broken = made.id, made.outputs, inputs, bool(made.problem)
        if made.problem:
            raise PlatformError(made.problem)

    def destroy(self) -> None:
        if self.id:
            self._do("delete", self.id, self.outputs)
        self.id = ""

    def _do(self, verb: str, *arguments: Any) -> Any:
        if not self.apart:
            return getattr(self.resource, verb)(context(), *arguments)
        ours, theirs = _FORK.Pipe(duplex=False)
        child = _FORK.Process(target=_act, args=(theirs, self.env, self.resource.token, verb, arguments))
        child.start()
        theirs.close()
        child.join()
        if child.exitcode != 0:
            raise ChildProcessError(f"the provider ended with {child.exitcode}")
        done = ours.recv()
        if isinstance(done, PlatformError):
            raise done
        return done


def _act(pipe: Any, env: dict[str, str], token: str, verb: str, arguments: tuple[Any, ...]) -> None:
    """One call of the provider, in a process that a fault may kill."""
    os.environ.update(env)
    (resource,) = {life.resource.token: life.resource for life in LIVES if life.resource.token == token}.values()
    try:
        done = getattr(resource, verb)(context(), *arguments)
    except PlatformError as error:
        done = error
    pipe.send(done)


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodEmulator]:
    # The process that the others are forked from has to find this module.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    with RunPodEmulator() as emulator:
        # A client is made once: it reads every CA there is.
        impatient = RunPod(emulator.key, urls_from(emulator.env()), pause=lambda seconds: None, timeout_s=0.3)
        for module in (pods, endpoints, vault, volumes, weights):
            monkeypatch.setattr(module, "connect", lambda pause: impatient)
        emulator.options(has_secrets_api=True)
        # Nobody asks these containers anything. A log that is as long as was asked for is read without a wait for more.
        emulator.boot(broken=True, log=["weights: 1 of 8061 MB"] * 19 + ["weights: complete"])
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        yield emulator
        impatient.close()
        assert emulator.violations == []


def left(runpod: RunPodEmulator) -> dict[str, list[str]]:
    """The ids of everything that exists, by kind."""
    state = runpod.state()
    return {shelf: [row["id"] for row in state[shelf]] for shelf in SHELVES}


def staged(runpod: RunPodEmulator, life: Life) -> tuple[Labelled, Labelled]:
    """The inputs, on a volume that exists."""
    if life is not WEIGHTS:
        return life.first, life.changed
    volume = VolumeResource().create(context(), VolumeInputs(label="shop/dev/volume/1", size_gb=20, data_center=PLACE))
    place = {"volume_id": volume.id}
    return life.first.model_copy(update=place), life.changed.model_copy(update=place)


def spoiled(runpod: RunPodEmulator, life: Life, kind: Kind, status: int | None, step: str) -> None:
    """Spoil each call of one step in turn; after each, one more command has to make everything right."""
    first, changed = staged(runpod, life)
    before = left(runpod)

    def act(stack: Stack) -> None:
        match step:
            case "create":
                stack.up(first)
            case "update":
                stack.up(changed)
            case _:
                stack.destroy()

    def begun() -> Stack:
        one = Stack(life.resource, runpod.env())
        if step != "create":
            one.up(first)
        return one

    clean = begun()
    calls_before = len(runpod.calls)
    act(clean)
    calls = [f"{call.method} {call.path}" for call in runpod.calls[calls_before:]]
    clean.destroy()
    assert calls or step == "update"
    for number, call in enumerate(calls, 1):
        where = f"{step}, call {number} of {len(calls)}: {call}"
        one = begun()
        one.apart = kind in (Kind.KILL, Kind.KILL_BEFORE)
        runpod.faults.add(Fault(nth=number, kind=kind, status=status))
        try:
            act(one)
        except (PlatformError, ChildProcessError) as error:
            assert "do-not-tell" not in str(error), where
        assert runpod.faults.struck == 1, where
        runpod.faults.clear()
        one.apart = False
        act(one)
        # An account without access to the secret store gets the value in clear: then there is nothing to keep.
        owns = life.shelf and step != "delete" and one.id != "in-clear"
        assert left(runpod) == ({**before, life.shelf: [one.id]} if owns else before), where
        if step != "delete":
            one.up(changed if step == "update" else first)
            one.destroy()
        assert left(runpod) == before, where
        assert runpod.state()["hourly_usd"].keys() <= set(before["volumes"]), where


STEPS = ["create", "update", "delete"]


@pytest.mark.parametrize("life", LIVES, ids=repr)
@pytest.mark.parametrize(("kind", "status"), IN_PROCESS, ids=lambda one: str(one or "usual"))
@pytest.mark.parametrize("step", STEPS)
def test_one_more_command_puts_right_whatever_call_failed(
    runpod: RunPodEmulator, life: Life, kind: Kind, status: int | None, step: str
) -> None:
    spoiled(runpod, life, kind, status, step)


@pytest.mark.parametrize("life", LIVES, ids=repr)
@pytest.mark.parametrize("kind", [Kind.KILL, Kind.KILL_BEFORE])
@pytest.mark.parametrize("step", STEPS)
def test_one_more_command_puts_right_what_a_killed_provider_left(
    runpod: RunPodEmulator, life: Life, kind: Kind, step: str
) -> None:
    spoiled(runpod, life, kind, None, step)


@pytest.mark.parametrize("life", [one for one in LIVES if one.shelf], ids=repr)
@pytest.mark.parametrize("kind", [Kind.MALFORMED_LIST, Kind.GARBAGE, Kind.REFUSED, Kind.RATE_LIMITED])
def test_a_list_that_cannot_be_read_is_never_taken_for_empty(runpod: RunPodEmulator, life: Life, kind: Kind) -> None:
    first = Stack(life.resource, runpod.env())
    first.up(life.first)
    before = left(runpod)
    (path,) = {call.path for call in runpod.calls if call.method == "POST"}
    runpod.faults.add(Fault(method="GET", path=f"{path}$", kind=kind, times=0))
    lost = Stack(life.resource, runpod.env())
    with pytest.raises(PlatformError):
        lost.up(life.first)
    assert left(runpod) == before
