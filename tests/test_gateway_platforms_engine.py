"""A gateway before three platforms, driven by the real Pulumi CLI.

RunPod and Vast.ai are emulated, `local` is real, and what answers on each of them is a real llama.cpp server.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from emulators.runpod import RunPodEmulator
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import Project
from gateway_stage import Load, asked, gateways

from providers.gateway.client import missing

pytestmark = [
    pytest.mark.engine,
    pytest.mark.xdist_group("gateway"),
    pytest.mark.skipif(bool(missing()), reason="LiteLLM is not installed"),
]


@pytest.fixture
def market(project: Project, tmp_path: Path) -> Iterator[VastEmulator]:
    (tmp_path / "market").mkdir()
    rows = [offer_row(id, dph_base=0.3 + id / 100) for id in range(1, 4)]
    with ExitStack() as stack:
        runpod = stack.enter_context(RunPodEmulator())
        vastai = stack.enter_context(VastEmulator(rows, servers=Servers(tmp_path / "market")))
        project.env |= runpod.env() | {"VAST_API_KEY": vastai.key, "VLLM_ANYWHERE_VASTAI_URL": vastai.url}
        yield vastai


def deploy(project: Project, stack: str, provider: str) -> None:
    project.pulumi("stack", "init", stack, "--no-select")
    for key, value in {"provider": provider, "model.served_name": "qwen3-4b", "ready.timeout_s": "90"}.items():
        project.pulumi("config", "set", "-s", stack, "--path", f"vllm-anywhere:{key}", value)
    project.pulumi("up", "--yes", "--skip-preview", "-s", stack)


def test_no_request_fails_before_three_platforms_when_they_die_one_after_the_other_under_load(
    project: Project, market: VastEmulator
) -> None:
    for place, (stack, provider) in enumerate({"own": "local", "rented": "vastai", "pod": "runpod"}.items()):
        deploy(project, stack, provider)
        project.config(f"gateway.stacks[{place}]", stack)
    (server,) = project.servers()
    project.config("gateway.order", "listed")
    project.config("gateway.cooldown_s", "2")
    project.config("gateway.health_s", "3")
    project.up()
    out = project.outputs()
    assert asked(out, max_tokens=4)[1] == "own"
    with Load(out, clients=2, expect="") as load:
        load.reaches("own")
        os.kill(server, signal.SIGKILL)
        # Its TLS is by a CA of that stack alone.
        load.reaches("rented")
        (id,) = market.instances
        market.servers.stop(id)
        load.reaches("pod")
        project.pulumi("up", "--yes", "--skip-preview", "--refresh", "-s", "own")
        load.reaches("own")
    assert load.failed == []
    project.destroy()
    assert gateways(project) == []
    for stack in ("own", "rented", "pod"):
        assert "endpoint" in project.pulumi("stack", "output", "-s", stack, "--json")
