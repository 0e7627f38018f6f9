"""What users get wrong on RunPod, and what RunPod refuses, through the real Pulumi CLI against the emulator.

Each message says what happened, what it costs right now and what to do next. None of it creates anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod.catalog import GPUS
from engine import Project
from runpod_stage import Stage, staged

pytestmark = pytest.mark.engine
NOTHING = "nothing is billed"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory, pulumi_cli: str) -> Iterator[Stage]:
    project = Project.create(tmp_path_factory.mktemp("refusals"), pulumi_cli)
    with staged(project, "pod") as stage:
        yield stage
    project.close()


@pytest.fixture
def stage(account: Stage) -> Iterator[Stage]:
    """A stack that nothing came of; what a test has set is taken back."""
    file = account.project.folder / "stacks/Pulumi.test.yaml"
    settings = file.read_text()
    yield account
    assert account.existing() == set()
    file.write_text(settings)
    account.runpod.faults.clear()
    account.runpod.options(balance=100, forbidden_pools=[])
    account.runpod.account.stock.levels.clear()


def says(told: str, *words: str) -> None:
    plain = " ".join(told.split())
    assert [word for word in words if word not in plain] == [], told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hardware__gpus": ["RTX 4000 Adda"]}, ("vllm-anywhere:hardware.gpus", "RTX 4000 Ada")),
        ({"hardware__gpus": ["T4"]}, ("vllm-anywhere:hardware.gpus", "rents no T4. Nearest in memory there")),
        ({"hardware__spot": True}, ("vllm-anywhere:hardware.spot", "`false` works")),
        ({"runpod__mode": "pods"}, ("vllm-anywhere:runpod.mode = pods", "serverless")),
        ({"scaling": {"min": 0}}, ("vllm-anywhere:scaling.min", "`runpod.mode: serverless`")),
        ({"runpod__weights": "volume"}, ("vllm-anywhere:runpod.data_centers", "[EU-RO-1]")),
        ({"placement": {"regions": ["eu-west-1"]}}, ("vllm-anywhere:placement.regions",)),
    ],
    ids=lambda one: "-".join(one) if isinstance(one, dict) else None,
)
def test_config_that_cannot_work_fails_in_preview_against_its_key(
    stage: Stage, settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    stage.set(**settings)
    says(stage.project.preview(ok=False), "nothing was created", *words)
    assert stage.runpod.called("POST", ".*") == []


def test_preview_needs_no_key_and_up_says_which_one_is_missing(stage: Stage) -> None:
    assert "vllm-anywhere:runpod:Pod" in stage.project.preview(RUNPOD_API_KEY="")
    says(stage.up(ok=False, RUNPOD_API_KEY=""), "RUNPOD_API_KEY is not set", "export RUNPOD_API_KEY=")


@pytest.mark.slow
def test_a_key_that_runpod_does_not_know_is_named_and_never_shown(stage: Stage) -> None:
    told = stage.up(ok=False, RUNPOD_API_KEY="rpa_this_is_no_key")
    says(told, "refused the key in RUNPOD_API_KEY (HTTP 401", "export RUNPOD_API_KEY=")
    assert "rpa_this_is_no_key" not in told


@pytest.mark.slow
def test_an_empty_account_is_told_where_to_add_credit(stage: Stage) -> None:
    stage.runpod.options(balance=0)
    says(stage.up(ok=False), "balance is too low (HTTP 402", NOTHING, "Add credit at", "`pulumi up`")


@pytest.mark.slow
def test_a_quota_is_told_with_what_may_be_changed(stage: Stage) -> None:
    stage.runpod.faults.add(Fault(method="POST", path="/v2/pods$", kind=Kind.REFUSED, status=403))
    says(stage.up(ok=False), "may not do that (HTTP 403", NOTHING, "choose a GPU that the account may use")


@pytest.mark.slow
def test_a_pool_that_the_account_may_not_use_is_told_too(stage: Stage) -> None:
    stage.runpod.options(forbidden_pools=["AMPERE_16"])
    stage.set(runpod__mode="serverless", own_api_key=stage.runpod.key)
    says(stage.up(ok=False), "may not do that (HTTP 403", "AMPERE_16", NOTHING)


def test_callers_of_serverless_need_a_key_of_runpods(stage: Stage) -> None:
    stage.set(runpod__mode="serverless")
    told = stage.up(ok=False)
    says(told, "RunPod keys alone", "pulumi config set --secret vllm-anywhere:own_api_key")
    assert "sk-" not in told


@pytest.mark.slow
def test_when_nothing_is_free_anywhere_every_try_is_told(stage: Stage) -> None:
    for gpu in GPUS:
        stage.runpod.stock(gpu, "NONE")
    stage.set(hardware__gpus=["RTX 4000 Ada", "L4"])
    told = stage.up(ok=False)
    says(told, "NVIDIA RTX 4000 Ada Generation (secure", "NVIDIA L4 (secure", NOTHING, "`pulumi up` asks again")
    says(told, "vllm-anywhere:hardware.gpus", "vllm-anywhere:placement.regions")


@pytest.mark.slow
def test_a_pod_that_is_billed_above_the_cap_is_given_back(stage: Stage) -> None:
    stage.runpod.options(surcharge=5)
    stage.set(runpod__max_hourly_usd="0.50")
    says(stage.up(ok=False), "the most allowed is $0.50", "was deleted again and bills nothing more")
    stage.runpod.options(surcharge=1)
