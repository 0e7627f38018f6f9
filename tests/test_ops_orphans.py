"""`vllm-anywhere orphans` against the emulated RunPod and Vast.ai, the cloud in memory and this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from emulators.faults import Fault, Kind
from emulators.runpod import RunPodEmulator
from emulators.vastai import VastEmulator, offer_row
from engine import Project
from runpod_wire import POD, QUEUE, client_of, created
from states import Cli, pending, resource

from ops.backend import read_backend
from ops.orphans import add_orphans, find, orphans
from ops.stack import OpsError, pulumi_command
from providers.account import is_label, label_from
from providers.fake.client import FakeCloud
from providers.fake.client import cloud as fake_cloud

POD_TOKEN = "vllm-anywhere:runpod:Pod"
RENT: dict[str, Any] = {"image": "vllm/vllm-openai:v0.22.1", "disk": 36, "env": {"-p 8000:8000": "1"}}


@pytest.fixture
def runpod(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunPodEmulator]:
    monkeypatch.setattr("providers.runpod.account.LAG_S", 0.0)
    with RunPodEmulator() as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        # Nothing here asks a model anything, so that no server has to start.
        emulator.boot(start_s=3600)
        yield emulator


@pytest.fixture
def vastai(monkeypatch: pytest.MonkeyPatch) -> Iterator[VastEmulator]:
    monkeypatch.setattr("providers.vastai.client.SPACING_S", dict.fromkeys(_spaced(), 0.0))
    with VastEmulator([offer_row(id) for id in (1, 2, 3)]) as market:
        monkeypatch.setenv("VAST_API_KEY", market.key)
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", market.url)
        yield market


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of its own, so that no test can find a server that somebody uses."""
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", str(tmp_path))
    fake_cloud.cache_clear()
    yield tmp_path
    fake_cloud.cache_clear()


def _spaced() -> list[str]:
    from providers.vastai.client import SPACING_S

    return list(SPACING_S)


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_orphans(parser.add_subparsers())
    return parser.parse_args(["orphans", *words])


def told(*words: str, cli: Cli, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Exit status and JSON of a command line."""
    status = orphans(asked(*words, "--json"), run=cli, pause=lambda seconds: None)
    return status, json.loads(capsys.readouterr().out)


def rent(market: VastEmulator, label: str) -> str:
    from providers.vastai.client import Vast

    offer = next(row["id"] for row in market.offers if not row["rented"])
    return Vast(market.key, market.url, wait=lambda seconds: None).rent(offer, {**RENT, "label": label})


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("shop/dev/server/1", True),
        ("vllm-anywhere/runpod-serverless/key-in-runpod/12", True),
        ("shop/dev/server/1-0a1b2c3d", True),
        ("shop/dev/server/1-colour", False),
        ("my training pod", False),
        ("shop/dev/server", False),
        ("shop/dev/server/one", False),
        ("a/shop/dev/server/1", False),
        ("", False),
    ],
)
def test_only_names_of_the_form_of_our_labels_are_ours(name: str, ours: bool) -> None:
    assert is_label(name) is ours


def test_a_label_without_slashes_is_known_by_the_stacks_alone() -> None:
    stacks = ["shop/dev", "shop/dev-eu"]
    assert label_from("shop-dev-endpoint-1", "-", stacks) == "shop/dev/endpoint/1"
    assert label_from("shop-dev-eu-endpoint-2", "-", stacks) == "shop/dev-eu/endpoint/2"
    assert label_from("someone-elses-endpoint-1", "-", stacks) == ""
    assert label_from("shop-dev-endpoint", "-", stacks) == ""
    assert label_from("shop-dev-server-2-1-0a1b2c3d", "-", stacks) == "shop/dev/server-2/1-0a1b2c3d"
    assert label_from("shop_dev_key_1_12345678", "_", stacks) == "shop/dev/key/1-12345678"


def test_what_a_state_owns_and_what_is_not_ours_is_no_orphan(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        owned = created(api, "/v2/pods", POD)
        created(api, "/v2/pods", {**POD, "name": "my training pod"})
        lost = created(api, "/v2/pods", POD)
    status, facts = told("runpod", cli=Cli(dev=[resource(POD_TOKEN, owned["id"])]), capsys=capsys)
    assert (status, facts["of_no_stack_here"]) == (1, [])
    (orphan,) = facts["orphans"]
    assert (orphan["id"], orphan["label"], orphan["kind"]) == (lost["id"], POD["name"], "pod")
    assert Decimal(facts["hourly_usd"]) == Decimal(orphan["hourly_usd"]) > 0
    assert runpod.called("DELETE", ".*") == []


def test_no_orphan_is_said_and_exits_0(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    assert orphans(asked("runpod"), run=Cli()) == 0
    assert capsys.readouterr().out == "No orphans on runpod.\n"


def test_a_volume_is_destroyed_after_the_pod_that_mounts_it_and_both_are_seen_to_be_gone(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        volume = created(
            api, "/v2/network-volumes", {"name": "shop/dev/volume/1", "size": 100, "dataCenter": "EU-RO-1"}
        )
        mounts = {"network": [{"volumeId": volume["id"], "path": "/runpod-volume"}]}
        created(api, "/v2/pods", {**POD, "mounts": mounts})
        created(api, "/v2/serverless", QUEUE)
    runpod.options(delete_lag=2)
    status, facts = told("runpod", "--destroy", "--yes", cli=Cli(dev=[]), capsys=capsys)
    assert status == 0
    assert [one["destroyed"] for one in facts["orphans"]] == [True, True, True]
    assert {one["kind"]: Decimal(one["hourly_usd"]) for one in facts["orphans"]}["volume"] == 7 / Decimal(730)
    assert Decimal(facts["saved_hourly_usd"]) == Decimal(facts["hourly_usd"])
    left = runpod.state()
    assert (left["pods"], left["endpoints"], left["volumes"]) == ([], [], [])
    again, facts = told("runpod", cli=Cli(), capsys=capsys)
    assert (again, facts["orphans"]) == (0, [])


def test_a_delete_that_is_reported_and_not_done_is_no_success(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        lost = created(api, "/v2/pods", POD)
    runpod.options(ignored_deletes=99)
    assert orphans(asked("runpod", "--destroy", "--yes"), run=Cli(dev=[]), pause=lambda seconds: None) == 1
    out = capsys.readouterr().out
    assert f"Not certain to be gone: runpod pod {lost['id']}" in out
    assert "Destroyed" not in out


def test_serverless_workers_count_at_their_list_price(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/serverless", {**QUEUE, "workers": {"min": 2, "max": 2, "idleTimeout": 5}})
    _, facts = told("runpod", cli=Cli(), capsys=capsys)
    (orphan,) = facts["orphans"]
    assert orphan["status"] == "2 workers"
    assert Decimal(orphan["hourly_usd"]) == 2 * Decimal("0.00016") * 3600


def test_secrets_are_found_and_their_values_never_asked_for(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    runpod.options(has_secrets_api=True)
    runpod.secret("va_shop_dev_key_1_0123abcd", "sk-secret")
    runpod.secret("hf", "hf_secret")
    status, facts = told("runpod", "--destroy", "--yes", cli=Cli(dev=[]), capsys=capsys)
    assert status == 0
    assert [(one["kind"], one["label"], one["destroyed"]) for one in facts["orphans"]] == [
        ("secret", "shop/dev/key/1", True)
    ]
    assert [row["name"] for row in runpod.state()["secrets"]] == ["hf"]


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(path="/v2/pods", kind=Kind.MALFORMED_LIST), "has no list `pods`"),
        (Fault(path="/v2/pods", kind=Kind.GARBAGE), "is no JSON"),
        (Fault(path="/v2/serverless", kind=Kind.REFUSED, status=503), "HTTP 503"),
        (Fault(path="/v2/network-volumes", kind=Kind.DROPPED), "no answer from RunPod"),
        (Fault(path="/v2/pods", kind=Kind.STALLED, times=0), "no answer"),
    ],
)
def test_a_list_that_lies_is_never_none(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str], fault: Fault, says: str
) -> None:
    runpod.faults.add(fault)
    status, facts = told("runpod", "--timeout", "1", "--destroy", "--yes", cli=Cli(), capsys=capsys)
    assert status == 1
    assert says in facts["unanswered"]["runpod"]
    assert facts["orphans"] == []
    assert runpod.faults.struck > 0


def test_orphans_on_the_second_page_are_found(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    runpod.options(page_size=2)
    with client_of(runpod) as api:
        ids = {created(api, "/v2/pods", POD)["id"] for _ in range(5)}
    _, facts = told("runpod", cli=Cli(), capsys=capsys)
    assert {one["id"] for one in facts["orphans"]} == ids


def test_a_platform_without_a_key_is_said_and_exits_1(
    runpod: RunPodEmulator, machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("VAST_API_KEY", raising=False)
    assert orphans(asked("runpod", "local", "vastai"), run=Cli()) == 1
    out = capsys.readouterr().out
    assert "No orphans on runpod, local." in out
    assert "Not known for vastai: no key for Vast.ai" in out
    assert "`vllm-anywhere orphans runpod local` leaves them out" in out


def test_a_refused_key_is_said_and_not_repeated(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "rpa_wrong_key")
    status, facts = told("runpod", cli=Cli(), capsys=capsys)
    assert status == 1
    assert "RunPod refused the key in RUNPOD_API_KEY" in facts["unanswered"]["runpod"]
    assert "rpa_wrong_key" not in json.dumps(facts)


def test_a_state_that_cannot_be_read_ends_it_before_anything_is_destroyed(runpod: RunPodEmulator) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
    cli = Cli(dev=[], prod=[])
    cli.broken["organization/shop/prod"] = "the state is locked by somebody"
    with pytest.raises(OpsError, match=r"isn't known what the stacks own: the state is locked"):
        orphans(asked("runpod", "--destroy", "--yes"), run=cli)
    assert runpod.called("DELETE", ".*") == []


def test_what_an_unfinished_up_is_making_is_shown_and_left_alone(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        lost = created(api, "/v2/pods", POD)
    cli = Cli(dev=[])
    cli.pending["organization/shop/dev"] = [pending(POD_TOKEN, POD["name"])]
    assert orphans(asked("runpod", "--destroy", "--yes"), run=cli, pause=lambda seconds: None) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert f"runpod pod {lost['id']}" in out
    assert "`pulumi up -s organization/shop/dev` adopts it" in out
    assert "No orphans" not in out
    assert runpod.called("DELETE", ".*") == []


def test_what_comes_to_be_owned_while_the_question_stands_is_kept(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        lost = created(api, "/v2/pods", POD)
    cli = Cli(dev=[])

    def agree(question: str) -> str:
        cli.stacks["organization/shop/dev"] = [resource(POD_TOKEN, lost["id"])]
        return "yes"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    assert orphans(asked("runpod", "--destroy"), run=cli, ask=agree) == 1
    assert "1 belong to a stack by now" in capsys.readouterr().err
    assert runpod.called("DELETE", ".*") == []


def test_in_a_pipe_nothing_is_destroyed_without_yes(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(OpsError, match="nobody is there to be asked, so nothing was destroyed"):
        orphans(asked("runpod", "--destroy"), run=Cli())
    assert runpod.called("DELETE", ".*") == []


def test_one_question_is_asked_after_the_warning_and_no_keeps_everything(
    runpod: RunPodEmulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
        created(api, "/v2/pods", POD)
    questions: list[str] = []
    shown: list[str] = []

    def refuse(question: str) -> str:
        questions.append(question)
        shown.append(" ".join(capsys.readouterr().out.split()))
        return "no"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with pytest.raises(OpsError, match=r"nothing was destroyed; they go on costing \$0\.\d+ an hour"):
        orphans(asked("runpod", "--destroy"), run=Cli(dev=[]), ask=refuse)
    assert questions == ["Destroy all 2, with what is on them? Type yes: "]
    assert "No state in file:///backend (stacks: 1) owns them. A stack in another backend" in shown[0]
    assert runpod.called("DELETE", ".*") == []


def test_in_a_wrong_backend_yes_destroys_nothing_that_no_label_names(
    runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
        known = created(api, "/v2/pods", {**POD, "name": "shop/prod/server/1"})
    status = orphans(asked("runpod", "--destroy", "--yes"), run=Cli(prod=[]), pause=lambda seconds: None)
    told = capsys.readouterr()
    assert status == 1
    assert "1 of them is of no stack in this backend, so --yes leaves them: shop/dev." in told.err
    assert "`vllm-anywhere orphans --label shop/dev/ --destroy`" in told.err
    assert "Destroyed 1" in told.out
    assert [row["name"] for row in runpod.state()["pods"]] == [POD["name"]]
    assert known["id"] not in {row["id"] for row in runpod.state()["pods"]}
    status = orphans(
        asked("--label", "shop/dev/", "runpod", "--destroy", "--yes"), run=Cli(prod=[]), pause=lambda s: None
    )
    assert status == 0
    assert runpod.state()["pods"] == []


def test_a_prefix_narrows_what_is_destroyed(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
        other = created(api, "/v2/pods", {**POD, "name": "shop/prod/server/1"})
    status, facts = told("runpod", "--label", "shop/dev/", "--destroy", "--yes", cli=Cli(), capsys=capsys)
    assert status == 0
    assert [one["label"] for one in facts["orphans"]] == ["shop/dev/server/1"]
    assert [row["id"] for row in runpod.state()["pods"]] == [other["id"]]


def test_the_table_ends_with_the_total(runpod: RunPodEmulator, capsys: pytest.CaptureFixture[str]) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
        created(api, "/v2/pods", POD)
    orphans(asked("runpod"), run=Cli())
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    costs = [Decimal(row[-1]) for row in rows if row[:2] == ["runpod", "pod"]]
    (footer,) = [row for row in rows if row[:1] == ["total"]]
    assert len(costs) == 2
    assert Decimal(footer[-1]) == sum(costs)


def test_an_instance_on_vastai_is_found_priced_with_its_disk_and_destroyed(
    vastai: VastEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    lost, owned = rent(vastai, "shop/dev/server/1"), rent(vastai, "shop/dev/server/2")
    other = rent(vastai, "somebody else's")
    cli = Cli(dev=[resource("vllm-anywhere:vastai:Instance", owned)])
    status, facts = told("vastai", "--destroy", "--yes", cli=cli, capsys=capsys)
    assert status == 0
    (orphan,) = facts["orphans"]
    assert orphan["id"] == lost
    assert Decimal(orphan["hourly_usd"]) == Decimal("0.3") + 36 * Decimal("0.2") / 720
    assert sorted(map(str, vastai.instances)) == sorted([owned, other])


def test_serverless_on_vastai_is_known_by_the_stack_in_its_name(
    vastai: VastEmulator, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = vastai.jobs.rows["endptjobs"]
    for id, name in ((101, "shop-dev-endpoint-1"), (102, "my-own-endpoint-1")):
        jobs[id] = {"id": id, "endpoint_name": name, "api_key": "never-show-this"}
    status, facts = told("vastai", "--destroy", "--yes", cli=Cli(dev=[]), capsys=capsys)
    assert status == 0
    assert [(one["kind"], one["label"]) for one in facts["orphans"]] == [("endpoint", "shop/dev/endpoint/1")]
    assert list(jobs) == [102]
    assert "never-show-this" not in json.dumps(facts)


@pytest.mark.parametrize(
    "listing",
    [
        '""',
        '{"success": false, "error": "deprecated_endpoint"}',
        '{"success": true, "instances": null}',
        '{"success": true, "instances": [], "total_instances": 3}',
    ],
)
def test_a_list_of_vastai_that_is_none_or_not_all_is_never_none(
    vastai: VastEmulator, capsys: pytest.CaptureFixture[str], listing: str
) -> None:
    vastai.listing = listing
    status, facts = told("vastai", cli=Cli(), capsys=capsys)
    assert status == 1
    assert "Vast.ai" in facts["unanswered"]["vastai"]


def test_platforms_are_asked_at_once_and_one_that_fails_hides_no_other(
    runpod: RunPodEmulator, vastai: VastEmulator, machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with client_of(runpod) as api:
        created(api, "/v2/pods", POD)
    FakeCloud(machine / "fake.json").create("shop/dev/server/1", "L4", "m")
    vastai.listing = '""'
    status, facts = told("runpod", "fake", "vastai", cli=Cli(), capsys=capsys)
    assert status == 1
    assert [one["platform"] for one in facts["orphans"]] == ["runpod", "fake"]
    assert list(facts["unanswered"]) == ["vastai"]


def test_an_instance_in_memory_is_destroyed_and_what_that_saves_is_said(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FakeCloud(machine / "fake.json").create("shop/dev/server/1", "L4", "m")
    assert orphans(asked("fake", "--destroy", "--yes"), run=Cli(dev=[]), pause=lambda seconds: None) == 0
    assert "Destroyed 1, each seen to be gone. That saves $0.5000 an hour, $365.00 in a month." in _flat(capsys)
    assert FakeCloud(machine / "fake.json").all() == []


def _flat(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_an_unknown_platform_is_refused_with_those_there_are() -> None:
    with pytest.raises(OpsError, match=r"runpot is no platform; there are .*runpod"):
        orphans(asked("runpot"), run=Cli())


@pytest.mark.engine
def test_a_local_server_whose_stack_was_forgotten_is_found_and_ended(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.up()
    monkeypatch.setenv("VLLM_ANYWHERE_STATE", project.env["VLLM_ANYWHERE_STATE"])
    run = lambda args: pulumi_command(args, project.env)  # noqa: E731
    assert find(["local"], "", 60, run).orphans == ()
    project.pulumi("stack", "rm", "--force", "--yes", "-s", "test")
    (orphan,) = find(["local"], "", 60, run).orphans
    assert orphan.holding.label.startswith("vllm-anywhere/test/server/1-") and orphan.holding.status == "running"
    assert orphans(asked("local", "--destroy", "--yes"), run=run) == 1
    assert len(project.servers()) == 1
    assert orphans(asked("local", "--label", "vllm-anywhere/test/", "--destroy", "--yes"), run=run) == 0
    assert project.servers() == []


@pytest.mark.engine
def test_what_a_killed_provider_left_is_an_orphan_until_the_next_up_adopts_it(project: Project, machine: Path) -> None:
    project.env["VLLM_ANYWHERE_STATE"] = str(machine)
    project.config("provider", "fake")
    run = lambda args: pulumi_command(args, project.env)  # noqa: E731
    project.up(ok=False, VLLM_ANYWHERE_FAKE_FAULTS=json.dumps({"create": "kill"}))
    (left,) = FakeCloud(machine / "fake.json").all()
    (orphan,) = find(["fake"], "", 60, run).orphans
    assert (orphan.holding.id, orphan.holding.label) == (left.id, left.label)
    assert left.label.startswith("vllm-anywhere/test/server/1-")
    project.up()
    found = find(["fake"], "", 60, run)
    assert (found.orphans, found.unfinished, found.unanswered) == ((), (), {})


@pytest.mark.engine
def test_what_a_killed_engine_was_making_is_claimed_by_its_stack(project: Project) -> None:
    run = lambda args: pulumi_command(args, project.env)  # noqa: E731
    up = project.start("up", "--yes", "--skip-preview", "-s", "test")
    while not project.servers():
        assert up.poll() is None
        time.sleep(0.01)
    os.killpg(up.pid, signal.SIGKILL)
    up.wait()
    backend = read_backend(run)
    (record,) = (project.folder / "state/local/vllm-anywhere/test/server").iterdir()
    assert backend.claimant(f"vllm-anywhere/test/server/{record.name}") == "test"
    assert backend.claimant("vllm-anywhere/test/server/1-0badcafe") == "", "another stack of that name"
