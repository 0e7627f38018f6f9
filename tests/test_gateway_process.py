"""A gateway's process on this machine, with a stand-in for LiteLLM's."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from providers.base import PlatformError
from providers.gateway.client import GatewayMachine
from providers.gateway.holder import Holder
from providers.gateway.resources import Proxy, ProxyInputs
from providers.native import Context

LABEL = "shop/gate/server/1"
PROXY = """#!{python}
import json, os, pathlib, sys
folder, listening, ready = sys.argv[2:]
if json.loads(pathlib.Path(folder, "config.yaml").read_text()).get("broken"):
    sys.exit("a model_list entry has no model")
os.write(int(ready), b"+")
os.read(0, 1)
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GatewayMachine]:
    proxy = tmp_path / "python"
    proxy.write_text(PROXY.format(python=sys.executable))
    proxy.chmod(0o755)
    monkeypatch.setenv("VLLM_ANYWHERE_LITELLM", str(proxy))
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path / "state"))
    machine = GatewayMachine()
    yield machine
    for label in machine.labels():
        if machine.is_running(label):
            machine.stop(label, time.sleep)


def context() -> Context:
    return Context("urn", lambda text: None, threading.Event().wait, time.monotonic, lambda: datetime.now(UTC))


def inputs(config: str = "{}", key: str = "sk-1") -> ProxyInputs:
    return ProxyInputs(
        model="m",
        behind=[],
        config=config,
        rule="{}",
        upstream_keys=SecretStr("{}"),
        api_key=SecretStr(key),
        label=LABEL,
        timeout_s=60,
    )


BROKEN = inputs('{"broken": true}')


def test_a_gateway_that_does_not_start_says_why_and_leaves_nothing(machine: GatewayMachine) -> None:
    with pytest.raises(PlatformError) as caught:
        Proxy().create(context(), BROKEN)
    assert "nothing is running now" in str(caught.value)
    assert "a model_list entry has no model" in str(caught.value)
    assert machine.labels() == []


def test_a_change_that_failed_is_tried_again_by_the_next_up(machine: GatewayMachine) -> None:
    """State holds the new inputs by then, and the engine updates once more what failed."""
    first = Proxy().create(context(), inputs()).outputs
    failed = Proxy().update(context(), LABEL, first, inputs(), BROKEN)
    for _ in range(2):
        assert "the one before still answers" in failed.problem
        failed = Proxy().update(context(), LABEL, failed.outputs, BROKEN, BROKEN)
    mended = Proxy().update(context(), LABEL, failed.outputs, BROKEN, inputs())
    assert mended.problem == "" and mended.outputs.run != first.run


def test_new_keys_alone_start_no_proxy(machine: GatewayMachine) -> None:
    first = Proxy().create(context(), inputs()).outputs
    rotated = Proxy().update(context(), LABEL, first, inputs(), inputs(key="sk-2"))
    assert rotated.problem == "" and rotated.outputs.run == first.run
    failed = Proxy().update(context(), LABEL, first, inputs(key="sk-2"), BROKEN)
    other_key = BROKEN.model_copy(update={"api_key": SecretStr("sk-3")})
    assert Proxy().update(context(), LABEL, failed.outputs, BROKEN, other_key).problem


class FakeProxy:
    """A proxy that does what a test says."""

    def __init__(self) -> None:
        self.ended = self.released = self.killed = self.ready = self.cleared = False

    def answers(self) -> bool:
        return self.ready

    def release(self) -> None:
        self.released = True

    def gone(self) -> bool:
        self.cleared = self.ended
        return self.ended

    def kill(self) -> None:
        self.killed = True


def test_the_proxy_before_answers_until_the_next_one_does() -> None:
    started: list[FakeProxy] = []
    told: list[tuple[int, str]] = []

    def start(serial: int) -> Any:
        assert serial == len(started) + 1
        started.append(FakeProxy())
        return started[-1]

    holder = Holder(start, lambda serial, problem: told.append((serial, problem)), lambda: 0.0)
    assert holder.alive() and holder.alive() and not told
    started[0].ready = True
    assert holder.alive()
    holder.change()
    assert holder.alive() and not started[0].released
    started[1].ended = True
    assert holder.alive() and started[1].killed and not started[0].released
    holder.change()
    assert holder.alive()
    started[2].ready = True
    assert holder.alive() and started[0].released
    assert told == [(1, ""), (2, "LiteLLM's proxy stopped while it started"), (3, "")]


def test_a_gateway_whose_first_proxy_does_not_start_ends() -> None:
    proxy = FakeProxy()
    proxy.ended = True
    holder = Holder(lambda _: proxy, lambda *_: None, lambda: 0.0)  # type: ignore[arg-type, return-value]
    assert holder.alive()
    assert not holder.alive()


def test_a_proxy_that_ended_by_itself_is_started_again_until_one_answers() -> None:
    started: list[FakeProxy] = []
    now = [0.0]

    def start(_: int) -> Any:
        started.append(FakeProxy())
        return started[-1]

    def goes_on(seconds: float) -> int:
        """How many proxies were started by then."""
        now[0] += seconds
        for _ in range(3):
            assert holder.alive()
        return len(started)

    holder = Holder(start, lambda *_: None, lambda: now[0])
    assert goes_on(0) == 1
    started[0].ready = True
    goes_on(0)
    started[0].ended = True
    assert goes_on(0) == 2, "the first time at once"
    assert started[0].cleared, "what it was started from has keys in it"
    for count, pause in enumerate((1.0, 2.0, 5.0, 10.0, 10.0), 2):
        started[-1].ended = True
        assert goes_on(0) == goes_on(pause / 2) == count
        assert goes_on(pause / 2) == count + 1
    started[-1].ready = True
    goes_on(0)
    goes_on(1000)
    started[-1].ended = True
    assert goes_on(0) == 8, "one that lived for long is no failing start"


def test_a_program_that_can_not_be_run_leaves_the_proxy_before_answering() -> None:
    started: list[FakeProxy] = []
    told: list[str] = []

    def start(serial: int) -> Any:
        if serial == 2:
            raise FileNotFoundError(2, "No such file or directory", "/gone/python")
        started.append(FakeProxy())
        started[-1].ready = True
        return started[-1]

    holder = Holder(start, lambda _, problem: told.append(problem), lambda: 0.0)
    assert holder.alive() and holder.alive()
    holder.change()
    assert holder.alive() and not started[0].released
    assert told == ["", "LiteLLM's proxy can't be started: [Errno 2] No such file or directory: '/gone/python'"]
