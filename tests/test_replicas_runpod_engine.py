"""Several pods on the emulated RunPod, driven by the real Pulumi CLI: made together, changed one at a time."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.http import Request, Response
from emulators.runpod import RunPodEmulator
from engine import Project
from runpod_stage import Stage

pytestmark = pytest.mark.engine

TOGETHER = 4
_PATIENCE_S = 60.0
_CHAT = r"/proxy/(\w+)/8000/v1/chat/completions"
_POD = r"/v2/pods/(\w+)"


class Patient(RunPodEmulator):
    """RunPod that answers no create before `together` of them have come in."""

    def __init__(self) -> None:
        super().__init__()
        self.together = threading.Barrier(1)

    def answer(self, request: Request) -> Response:
        if (request.method, request.path) == ("POST", "/v2/pods"):
            # One that waits in vain raises, which is a violation and fails the test.
            self.together.wait(_PATIENCE_S)
        return super().answer(request)


@pytest.fixture
def stage(project: Project) -> Iterator[Stage]:
    with Patient() as runpod:
        project.env |= runpod.env()
        stage = Stage(project, runpod, "pod")
        stage.set(
            provider="runpod",
            model={"name": "Qwen/Qwen3-4B-Instruct-2507", "served_name": "qwen3-4b"},
            hardware={"gpus": ["RTX 4000 Ada"]},
            runpod={"mode": "pod"},
        )
        yield stage
        assert runpod.violations == []


def pods(stage: Stage) -> dict[str, str]:
    """Ids of the pods in state, by the resource's name."""
    found = [(one["urn"].rpartition("::")[2], one["id"]) for one in stage.resources() if one["type"] == stage.token]
    return dict(sorted(found))


def running(stage: Stage) -> set[str]:
    return {pod["id"] for pod in stage.runpod.state()["pods"]}


@dataclass
class Clients:
    """One client for each endpoint; all ask at the same time, again and again. `down` counts who got no answer."""

    endpoints: list[str]
    key: str
    down: list[int] = field(default_factory=list[int])

    @contextmanager
    def asking(self) -> Iterator[None]:
        done = threading.Event()

        def ask(endpoint: str) -> bool:
            headers = {"Authorization": f"Bearer {self.key}"}
            try:
                return httpx.get(f"{endpoint}/models", headers=headers, timeout=10, trust_env=False).is_success
            except httpx.HTTPError:
                return False

        def run() -> None:
            with ThreadPoolExecutor(len(self.endpoints)) as pool:
                while not done.wait(0.1):
                    self.down.append(sum(not answered for answered in pool.map(ask, self.endpoints)))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def order(stage: Stage, since: int) -> list[tuple[str, str]]:
    """What was done to which pod since a call: changed, or answered its gate. In the order in which it came about."""
    found: list[tuple[str, str]] = []
    for call in stage.runpod.calls[since:]:
        if call.method == "PATCH" and (one := re.fullmatch(_POD, call.path)):
            found.append(("changed", one[1]))
        elif call.method == "POST" and call.status == 200 and (one := re.fullmatch(_CHAT, call.path)):
            found.append(("answered", one[1]))
    return found


def test_all_are_made_together_and_changed_one_after_the_other_while_the_others_serve(stage: Stage) -> None:
    stage.runpod.together = threading.Barrier(TOGETHER)
    stage.set(scaling={"min": TOGETHER})
    stage.up()
    made = pods(stage)
    assert list(made) == ["server", "server-2", "server-3", "server-4"]
    assert running(stage) == set(made.values())
    out = stage.outputs()
    assert out["hardware"].startswith(f"{TOGETHER} servers, each: RunPod pod")
    assert out["cost"]["hourly_usd"] == "1.0729"

    stage.runpod.boot(start_s=1)
    stage.set(scaling={"min": 3}, model__max_len=4096)
    three = {name: id for name, id in made.items() if name != "server-4"}
    clients = Clients([one["endpoint"] for one in stage.outputs()["endpoints"][:3]], stage.key())
    since = len(stage.runpod.calls)
    with clients.asking():
        stage.up()
    assert pods(stage) == three and running(stage) == set(three.values())
    assert max(clients.down) == 1
    assert order(stage, since) == [(what, id) for id in three.values() for what in ("changed", "answered")]

    stage.project.destroy()
    assert stage.existing() == set()


def test_killed_while_three_are_made_up_comes_to_exactly_three_and_one_that_is_gone_is_made_anew_alone(
    stage: Stage,
) -> None:
    stage.set(scaling={"min": 3})
    stage.runpod.faults.add(Fault(method="POST", path="/v2/pods$", nth=2, kind=Kind.KILL))
    stage.up(ok=False)
    assert stage.runpod.faults.struck == 1
    assert running(stage)
    stage.up()
    before = pods(stage)
    assert running(stage) == set(before.values()) and len(before) == 3

    stage.runpod.delete(before["server-2"])
    stage.up("--refresh")
    after = pods(stage)
    assert {name for name in before if before[name] != after[name]} == {"server-2"}
    assert running(stage) == set(after.values())
    stage.project.destroy()
    assert stage.existing() == set()


@pytest.mark.slow
def test_a_change_that_the_first_does_not_survive_leaves_the_others_alone(stage: Stage) -> None:
    stage.set(scaling={"min": 3})
    stage.up()
    before, key = stage.outputs(), stage.key()
    stage.runpod.boot(broken=True, log=["torch.OutOfMemoryError: CUDA out of memory"])
    stage.set(model__max_len=4096, ready={"timeout_s": 5})
    since = len(stage.runpod.calls)
    told = stage.up(ok=False)
    assert "CUDA out of memory" in told and "Traceback" not in told
    assert order(stage, since) == [("changed", pods(stage)["server"])]
    clients = Clients([one["endpoint"] for one in before["endpoints"][1:]], key)
    with clients.asking():
        while not clients.down:
            threading.Event().wait(0.05)
    assert set(clients.down) == {0}


@pytest.mark.slow
def test_other_hardware_replaces_all_and_none_of_the_old_goes_before_each_of_the_new_has_answered(stage: Stage) -> None:
    stage.set(scaling={"min": 2})
    stage.up()
    old = pods(stage)
    since = len(stage.runpod.calls)
    stage.set(hardware__gpus=["L4"])
    stage.up()
    new = pods(stage)
    assert not set(old.values()) & set(new.values())
    calls = stage.runpod.calls[since:]
    first_delete = next(call.number for call in calls if call.method == "DELETE" and re.fullmatch(_POD, call.path))
    answered = {one[1]: call.number for call in calls if (one := re.fullmatch(_CHAT, call.path)) and call.status == 200}
    assert all(answered[id] < first_delete for id in new.values())
