"""What people do after `up`, command by command, on a stack of each platform that the real Pulumi CLI has deployed.

The clouds are emulated; every server that answers is a real llama.cpp.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from emulators.lambda_cloud import LambdaEmulator
from emulators.modal import ModalEmulator
from emulators.runpod import RunPodEmulator
from emulators.runpod.emulator import KEY
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import Project

import ops.bench_run
from ops.cli import main

pytestmark = [pytest.mark.engine, pytest.mark.allow_hosts(["127.0.0.0/8", "::1", "localhost"])]

DATED = {"VLLM_ANYWHERE_OFFLINE": "1"}
"""Prices of the repository, so that no platform but the stack's own is asked."""


@dataclass
class Site:
    """A platform, and a stack on it.

    Attributes:
        take: takes the server away behind the stack's back.
        left: ids of what there is to be paid for.
        sleeps: whether it scales with its traffic, and is not asked by what asks again and again.
        own_ca: whether it has a certificate authority of its own.
        fall_asleep: lets so much time pass without a request that no worker is left.
    """

    platform: str
    config: dict[str, Any]
    take: Callable[[], None]
    left: Callable[[], list[str]]
    env: dict[str, str] = field(default_factory=dict)
    sleeps: bool = False
    own_ca: bool = False
    fall_asleep: Callable[[], None] = lambda: None


def local(project: Project, stack: ExitStack) -> Site:
    def take() -> None:
        (pid,) = project.servers()
        os.kill(pid, 9)

    return Site("local", {}, take, lambda: [str(pid) for pid in project.servers()], DATED)


def runpod(project: Project, stack: ExitStack, **config: Any) -> Site:
    cloud = stack.enter_context(RunPodEmulator())

    def left() -> list[str]:
        state = cloud.state()
        return [row["id"] for shelf in ("pods", "endpoints") for row in state[shelf]]

    settings = {"hardware": {"gpus": ["RTX 4000 Ada"]}, **config}
    site = Site(
        "runpod", settings, lambda: cloud.delete(left()[0]), left, DATED | cloud.env(), sleeps="scaling" in config
    )
    site.fall_asleep = lambda: cloud.advance(3600)
    return site


def serverless(project: Project, stack: ExitStack) -> Site:
    return runpod(project, stack, runpod={"mode": "serverless"}, scaling={"min": 0}, own_api_key=KEY)


def vastai(project: Project, stack: ExitStack) -> Site:
    folder = project.folder / "market"
    folder.mkdir()
    rows = [offer_row(id, dph_base=0.3 + id / 100) for id in range(1, 4)]
    cloud = stack.enter_context(VastEmulator(rows, servers=Servers(folder)))

    def take() -> None:
        (id,) = cloud.instances
        cloud.become(id, "gone")

    env = {"VAST_API_KEY": cloud.key, "VLLM_ANYWHERE_VASTAI_URL": cloud.url}
    return Site("vastai", {}, take, lambda: [str(id) for id in cloud.instances], env, own_ca=True)


def lambda_cloud(project: Project, stack: ExitStack) -> Site:
    cloud = stack.enter_context(LambdaEmulator(project.folder / "cloud"))

    def left() -> list[str]:
        return [id for id, one in cloud.instances.items() if one.status != "terminated"]

    return Site("lambda", {}, lambda: cloud.become(left()[0], "terminated"), left, DATED | cloud.env(), own_ca=True)


def gcp(project: Project, stack: ExitStack) -> Site:
    pytest.importorskip("pulumi_gcp", reason="the gcp extra is not installed")
    double, rest = (importlib.import_module(f"tests.doubles.gcp.{name}") for name in ("cloud", "rest"))
    cloud = double.Cloud(project.folder / "cloud", owned=True)
    stack.callback(cloud.close)

    def left() -> list[str]:
        return [one.name for one in cloud.all("Instance")]

    env = DATED | {double.VARIABLE: str(cloud.folder), "GOOGLE_PROJECT": "shop-1"}
    env |= {"PATH": f"{double.BIN}:{project.env['PATH']}"}
    env |= stack.enter_context(rest.Rest(cloud)).environ
    config = {"hardware": {"gpus": ["T4"]}, "placement": {"regions": ["europe-west4"]}}
    return Site("gcp", config, lambda: cloud.delete(left()[0]), left, env, own_ca=True)


def modal(project: Project, stack: ExitStack) -> Site:
    pytest.importorskip("modal", reason="the modal extra is not installed")
    cloud = stack.enter_context(ModalEmulator())

    def left() -> list[str]:
        return [app.id for app in cloud.deployed]

    config = {"hardware": {"gpus": ["L4"]}, "scaling": {"min": 0}}
    site = Site("modal", config, lambda: cloud.stop(cloud.deployed[0].name), left, DATED | cloud.env(), sleeps=True)
    site.fall_asleep = lambda: cloud.world.advance(3600)
    return site


PLATFORMS = [local, runpod, serverless, vastai, lambda_cloud, gcp, modal]


@pytest.fixture
def site(request: pytest.FixtureRequest, project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A deployed stack `test`, and commands that find it as they do in a checkout."""
    with ExitStack() as stack:
        site: Site = request.param(project, stack)
        config = {"provider": site.platform, "model": {"served_name": "qwen3-4b"}, "ready": {"timeout_s": 90}}
        file = project.folder / "stacks/Pulumi.test.yaml"
        told = yaml.safe_load(file.read_text()) if file.exists() else {}
        told["config"] = {f"vllm-anywhere:{key}": value for key, value in (config | site.config).items()}
        file.write_text(yaml.safe_dump(told))
        project.env |= site.env
        for name, value in project.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("ops.stack.ROOT", project.folder)
        project.up()
        yield site


@dataclass
class Shell:
    """Runs commands as they are typed, in this process."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: str, code: int = 0) -> Any:
        """What a command prints as JSON, once it has exited with that code."""
        with pytest.raises(SystemExit) as ended:
            main([*words, "--json"])
        said = self.capsys.readouterr()
        assert ended.value.code == code, f"{words} -> {ended.value.code}\n{said.out}\n{said.err}"
        return json.loads(said.out)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(capsys)


@pytest.mark.parametrize("site", PLATFORMS, indirect=True, ids=lambda stage: stage.__name__)
def test_every_command_works_on_what_is_up_and_finds_what_is_left(
    site: Site, shell: Shell, project: Project, tmp_path: Path
) -> None:
    status = shell("status", "-s", "test")
    assert (status["healthy"], status["provider"]) == (True, site.platform)
    table = shell("status")
    assert [(row["stack"], row["healthy"]) for row in table["stacks"]] == [("test", None if site.sleeps else True)]
    # What sleeps is billed by use, and the spec declares none.
    assert table["prices_complete"] is not site.sleeps

    assert shell("chat", "-s", "test", "Say hello.", "--max-tokens", "4")["answer"]

    (log,) = shell("logs", "--why", "-s", "test", code=1)["servers"]
    assert (log["platform"], bool(log["lines"]), log["why"]) == (site.platform, True, None)

    load = ("--requests", "4", "--concurrency", "2", "--output-tokens", "4")
    measured = shell("bench", "-s", "test", *load, *(["--hourly", "0.5"] if site.sleeps else []))
    assert (measured["completed"], measured["failed"], measured["total_output_tokens"]) == (4, 0, 16)

    looked = shell("watch", "--once", "-s", "test")
    assert (looked["well"], looked["healthy"]) == (True, None if site.sleeps else True)
    assert not [one for one in looked["findings"] if one["severity"] != "info"]

    written = shell("monitor", "-s", "test", "--out", str(tmp_path / "monitor"))
    assert written["stacks"][0]["scraped"] is not site.sleeps
    assert ("ca/test.pem" in written["files"]) is site.own_ca

    checked = shell("doctor", site.platform)
    assert checked["ok"] and {one["platform"] for one in checked["checks"]} == {site.platform}

    assert shell("orphans", site.platform)["orphans"] == []
    (server,) = [one for one in resources(project) if one["urn"].endswith("::server")]
    project.pulumi("state", "delete", server["urn"], "--target-dependents", "--yes", "-s", "test")
    lost = shell("orphans", site.platform, "--destroy", "--yes")["orphans"]
    assert server["id"] in {one["id"] for one in lost}
    assert all(one["destroyed"] for one in lost)
    assert site.left() == []


@pytest.mark.parametrize(
    "site",
    [runpod, *(pytest.param(one, marks=pytest.mark.slow) for one in (serverless, vastai, lambda_cloud, gcp, modal))],
    indirect=True,
    ids=lambda stage: stage.__name__,
)
def test_a_server_that_the_platform_took_is_seen_and_healed(site: Site, shell: Shell) -> None:
    site.take()
    looked = shell("watch", "--once", "-s", "test", code=1)
    assert "gone" in [one["kind"] for one in looked["findings"]]
    assert site.left() == []
    healed = shell("watch", "--once", "--heal", "-s", "test")
    assert (healed["well"], healed["deed"]["result"]) == (True, "repaired")
    assert len(site.left()) == 1
    assert shell("status", "-s", "test")["healthy"] is True


SHORT = ("--requests", "2", "--concurrency", "1", "--output-tokens", "4")


@pytest.mark.slow
@pytest.mark.parametrize("site", [serverless, modal], indirect=True, ids=lambda stage: stage.__name__)
def test_a_cold_start_from_zero_is_measured_and_one_that_was_none_is_told(
    site: Site, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The small model that stands in starts in less than a second.
    monkeypatch.setattr(ops.bench_run, "COLD_S", 0.1)
    site.fall_asleep()
    cold = shell("bench", "-s", "test", "--cold-start", *SHORT)["vllm_anywhere"]["cold_start"]
    assert cold["was_cold"] is True and cold["first_token_s"] > cold["warm_ttft_s"]
    if site.platform == "modal":
        warm = shell("bench", "-s", "test", "--cold-start", *SHORT)["vllm_anywhere"]["cold_start"]
        assert warm["was_cold"] is False


@pytest.mark.slow
@pytest.mark.parametrize("site", [local, runpod], indirect=True, ids=lambda stage: stage.__name__)
def test_a_fresh_replacement_is_timed_and_the_old_server_goes(site: Site, shell: Shell) -> None:
    before = site.left()
    found = shell("bench", "-s", "test", "--cold-start", "replace", "--yes", *SHORT)
    fresh = found["vllm_anywhere"]["replaced"]
    assert 0 < fresh["time_to_ready_s"] < fresh["up_s"]
    assert found["completed"] == 2
    assert len(site.left()) == 1 and site.left() != before


def resources(project: Project) -> list[dict[str, Any]]:
    return json.loads(project.exported())["deployment"]["resources"]
