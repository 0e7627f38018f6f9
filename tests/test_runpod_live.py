"""The life of a deployment on RunPod itself, for people with a key: `pytest -m live tests/test_runpod_live.py`.

Needs RUNPOD_API_KEY, whose account pays; for serverless, callers send that very key. The cap of a dollar is kept by
price and time, since REST v2 shows no balance: each of the three stories has 20 minutes, and 5 to clean up; at most
two pods run at once, or one worker. Nobody has run it yet.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest
from engine import DEPLOYMENT, Project, answers

from providers.runpod import answers as shapes
from providers.runpod.client import connect

pytestmark = [pytest.mark.engine, pytest.mark.live]

CAP_USD = Decimal(1)
POD_USD = Decimal("0.40")
WORKER_USD = Decimal("0.58")
"""RunPod's list price of 2026-06-08 for a worker of the pool AMPERE_16, an hour."""
STORY_S = 1200
DESTROY_S = 300
LABELS = "vllm-anywhere/test/"
Run = Callable[..., str]


def test_the_stories_cost_less_than_the_cap() -> None:
    hours = Decimal(STORY_S + DESTROY_S) / 3600
    assert (2 * POD_USD + 2 * WORKER_USD) * hours < CAP_USD


@pytest.fixture
def run(project: Project) -> Iterator[Run]:
    """Runs commands until the story's time is over. Whatever happened, nothing is left in the end."""
    project.env["RUNPOD_API_KEY"] = os.environ["RUNPOD_API_KEY"]
    for key, value in {
        "provider": "runpod",
        "model.served_name": "qwen3-4b",
        "ready.timeout_s": "1200",
        "placement.regions[0]": "eu",
    }.items():
        project.config(key, value)
    ends = time.monotonic() + STORY_S
    yield lambda *args: _until(project, ends, *args)
    _until(project, time.monotonic() + DESTROY_S, "destroy", "--yes", "--skip-preview", "-s", "test")
    assert _existing() == []


def test_a_pod_answers_changes_is_replaced_imported_and_gone(project: Project, run: Run) -> None:
    project.config("hardware.gpus[0]", "RTX A4500")
    project.config("runpod.max_hourly_usd", str(POD_USD))
    _up(run)
    first = project.outputs()
    assert answers(first)
    project.config("model.max_len", "4096")
    _up(run)
    assert project.outputs()["endpoint"] == first["endpoint"]
    _story_of(project, run, "Pod")
    project.config("hardware.gpus[0]", "RTX 4000 Ada")
    _up(run)
    assert project.outputs()["endpoint"] != first["endpoint"]
    assert answers(project.outputs())


@pytest.mark.parametrize("mode", ["serverless", "load-balancing"])
def test_an_endpoint_wakes_answers_changes_in_place_is_imported_and_gone(project: Project, run: Run, mode: str) -> None:
    for key, value in {
        "runpod.mode": mode,
        "scaling.min": "0",
        "scaling.max": "1",
        "scaling.idle_timeout_s": "30",
        "hardware.gpus[0]": "RTX 4000 Ada",
    }.items():
        project.config(key, value)
    project.config("own_api_key", os.environ["RUNPOD_API_KEY"], "--secret")
    _up(run)
    assert answers(project.outputs())
    project.config("scaling.idle_timeout_s", "20")
    _up(run)
    _story_of(project, run, "Endpoint")


def _story_of(project: Project, run: Run, name: str) -> None:
    """Nothing drifts, and the server can be taken back by its id."""
    (server,) = project.resources(f"vllm-anywhere:runpod:{name}")
    run("preview", "--refresh", "--expect-no-changes", "-s", "test")
    run("state", "delete", server["urn"], "--target-dependents", "--yes", "-s", "test")
    run(
        *("import", server["type"], "server", server["id"], "--parent", f"deployment={DEPLOYMENT}"),
        *("--protect=false", "--generate-code=false", "--yes", "-s", "test"),
    )
    _up(run)
    assert [one["id"] for one in project.resources(server["type"])] == [server["id"]]
    assert answers(project.outputs())


def _up(run: Run) -> None:
    run("up", "--yes", "--skip-preview", "-s", "test")


def _until(project: Project, ends: float, *args: str) -> str:
    """One command; what still runs at the end of the time is cancelled as a user would, and fails."""
    process = project.start(*args)
    try:
        told, _ = process.communicate(timeout=max(1.0, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    return told


def _existing() -> list[str]:
    """Names of everything on the account that a story made."""
    cloud = connect()
    found = [
        *cloud.all("/v2/pods", "pods", shapes.Pod),
        *cloud.all("/v2/serverless", "endpoints", shapes.Endpoint),
        *cloud.all("/v2/network-volumes", "networkVolumes", shapes.NetworkVolume),
    ]
    return [thing.label for thing in found if thing.label.startswith(LABELS)]
