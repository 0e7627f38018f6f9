"""What a platform's package weighs is paid by the stacks of that platform alone, and never by the plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from engine import ROOT

from providers.base import PLATFORMS

pytestmark = pytest.mark.heavy

PACKAGES = {"pulumi_gcp": "gcp", "runpod": "runpod", "vastai": "vastai", "modal": "modal"}
"""Package -> the platform that it belongs to."""

_COUNT = """
import json, sys
tops = [name.partition(".")[0] for name in sys.modules]
print(json.dumps({name: tops.count(name) for name in sorted(set(tops))}))
"""
_PROGRAM = """
import sys
import pulumi
from pulumi.runtime.mocks import MockCallArgs, MockResourceArgs, Mocks

class Engine(Mocks):
    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict]:
        return f"{args.name}-id", dict(args.inputs)

    def call(self, args: MockCallArgs) -> dict:
        return {"outputs": {}}

pulumi.runtime.set_mocks(Engine(), project="vllm-anywhere", stack="test")
pulumi.runtime.set_all_config(CONFIG)

@pulumi.runtime.test
def program():
    from infra.program import run
    run()

program()
"""
_PLUGIN = """
from providers.base import all_resources, load_resource
import providers.plugin.__main__, providers.plugin.service
for resource in all_resources():
    load_resource(resource.token)
"""


def stacks() -> dict[str, dict[str, str]]:
    """The stacks of this repository by name, each with its config as the engine hands it over."""
    found: dict[str, dict[str, str]] = {}
    for file in sorted((ROOT / "stacks").glob("Pulumi.*.yaml")):
        config = yaml.safe_load(file.read_text())["config"]
        if config.get("vllm-anywhere:provider") in PLATFORMS:
            name = file.name.split(".")[1]
            found[name] = {key: one if isinstance(one, str) else json.dumps(one) for key, one in config.items()}
    return found


# A developer's own file of the local stack may say anything.
STACKS = {**stacks(), "local": {"vllm-anywhere:provider": "local"}}


def modules(program: str, home: Path) -> dict[str, int]:
    """How many modules of each package a program has loaded by its end."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}{_COUNT}"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(home), "VLLM_ANYWHERE_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stack", sorted(STACKS))
def test_a_stack_loads_no_other_platforms_package(stack: str, tmp_path: Path) -> None:
    loaded = modules(f"CONFIG = {STACKS[stack]!r}\n{_PROGRAM}", tmp_path)
    platform = STACKS[stack]["vllm-anywhere:provider"]
    foreign = {package: loaded[package] for package, of in PACKAGES.items() if package in loaded and of != platform}
    assert foreign == {}
    assert loaded["pulumi"] > 10


def test_the_gcp_program_loads_pulumi_gcp_so_that_the_others_are_known_to_be_measured(tmp_path: Path) -> None:
    if find_spec("pulumi_gcp") is None:
        pytest.skip("the gcp extra is not installed")
    (stack,) = [config for name, config in STACKS.items() if name == "gcp-t4"]
    assert modules(f"CONFIG = {stack!r}\n{_PROGRAM}", tmp_path)["pulumi_gcp"] > 100


def test_the_plugin_loads_no_platforms_package_though_it_knows_all_resources(tmp_path: Path) -> None:
    loaded = modules(_PLUGIN, tmp_path)
    assert {package: loaded[package] for package in PACKAGES if package in loaded} == {}
    assert loaded["providers"] > 10
