"""The life of a deployment on the emulated marketplace, driven by the real Pulumi CLI.

What runs there is a real llama.cpp server on a port of its own, behind TLS. Nothing here has seen Vast.ai itself.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from background import Background
from emulators.faults import Fault, Kind
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import Project

pytestmark = pytest.mark.engine
INSTANCE = "vllm-anywhere:vastai:Instance"
LABEL = "vllm-anywhere/test/server/"


@dataclass
class Stage:
    """A stack on a marketplace."""

    project: Project
    market: VastEmulator

    @property
    def ids(self) -> list[str]:
        return [str(id) for id in self.market.instances]

    @property
    def owned(self) -> list[str]:
        return [resource["id"] for resource in self.project.resources(INSTANCE) if not resource.get("delete")]


@pytest.fixture
def stage(project: Project, tmp_path: Path) -> Iterator[Stage]:
    rows = [offer_row(id, dph_base=round(0.3 + id / 100, 2)) for id in range(1, 9)]
    (tmp_path / "market").mkdir()
    with VastEmulator(rows, servers=Servers(tmp_path / "market")) as market:
        project.env |= {"VAST_API_KEY": market.key, "VLLM_ANYWHERE_VASTAI_URL": market.url}
        project.config("provider", "vastai")
        yield Stage(project, market)
        assert market.violations == []


def question(out: dict[str, Any]) -> str:
    """One completion over TLS, with nothing but the stack's outputs."""
    trusted = ssl.create_default_context(cadata=out["ca_pem"])
    client = openai.OpenAI(
        base_url=out["endpoint"], api_key=out["api_key"], http_client=httpx.Client(verify=trusted, trust_env=False)
    )
    answer = client.chat.completions.create(
        model=out["model"], messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    return answer.choices[0].message.content or ""


def test_preview_searches_and_rents_nothing(stage: Stage) -> None:
    text = " ".join(stage.project.preview().split())
    for words in ("Best of 8 machines", "median $0.35", "at most $1.00 an hour", "GPU", "disk"):
        assert words in text
    assert {call.method + call.path for call in stage.market.calls} == {"POST/api/v0/bundles/"}


def test_up_answers_over_tls_refresh_is_quiet_and_destroy_leaves_nothing(stage: Stage) -> None:
    stage.project.up()
    out = stage.project.outputs()
    assert out["endpoint"].startswith("https://127.0.0.1:")
    assert question(out)
    assert stage.owned == stage.ids
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{out['endpoint']}/models", trust_env=False)
    assert out["api_key"] not in stage.project.exported()
    assert "6 unchanged" in stage.project.preview("--refresh")
    stage.project.destroy()
    assert stage.ids == []


@pytest.mark.slow
def test_a_new_bid_changes_in_place_and_another_disk_replaces(stage: Stage) -> None:
    pytest.importorskip("vastai")
    stage.project.config("hardware.spot", "true")
    stage.project.config("vastai.bid_usd", "0.2")
    stage.project.up()
    first = stage.ids
    stage.project.config("vastai.bid_usd", "0.25")
    stage.project.up()
    assert stage.ids == first
    assert stage.market.instances[int(first[0])].bid == 0.25
    stage.project.config("hardware.disk_gb", "80")
    stage.project.up()
    assert len(stage.ids) == 1 and stage.ids != first
    assert question(stage.project.outputs())


@pytest.mark.slow
@pytest.mark.parametrize("event", ["outbid", "exited", "gone", "expired"])
def test_refresh_sees_what_happened_and_up_repairs_it(stage: Stage, event: str) -> None:
    pytest.importorskip("vastai")
    if event == "outbid":
        stage.project.config("hardware.spot", "true")
    stage.project.up()
    id = int(stage.ids[0])
    match event:
        case "outbid":
            stage.market.outbid(id, min_bid=0.3)
        case "expired":
            stage.market.expire(id)
        case state:
            stage.market.become(id, state)
    stage.project.refresh()
    stage.project.up()
    assert len(stage.ids) == 1
    assert (stage.ids == [str(id)]) is (event == "outbid")
    assert question(stage.project.outputs())


@pytest.mark.slow
def test_five_offers_that_vanish_do_not_keep_it_from_being_up(stage: Stage) -> None:
    stage.market.vanish(5)
    stage.project.up()
    assert stage.ids == stage.owned
    assert question(stage.project.outputs())


KILLED = [
    # The first search is the program's own.
    Fault(method="POST", path="/bundles", kind=Kind.KILL, nth=2),
    Fault(method="PUT", path="/asks/", kind=Kind.KILL),
    Fault(method="PUT", path="/asks/", kind=Kind.KILL_BEFORE),
    Fault(method="GET", path="/api/v1/instances", kind=Kind.KILL),
    Fault(method="GET", path=r"/api/v0/instances/\d+", kind=Kind.KILL),
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", KILLED, ids=lambda fault: f"{fault.path} {fault.kind}")
def test_a_provider_killed_in_any_call_leaves_what_the_next_up_adopts(stage: Stage, fault: Fault) -> None:
    stage.market.faults.add(fault)
    told = stage.project.up(ok=False)
    assert stage.market.faults.struck == 1, told
    stage.project.up()
    assert len(stage.ids) == 1
    assert stage.owned == stage.ids
    assert question(stage.project.outputs())
    stage.project.destroy()
    assert stage.ids == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.KILL, Kind.KILL_BEFORE])
@pytest.mark.parametrize("path", ["/bid_price/", r"/api/v0/instances/\d+/"])
def test_a_provider_killed_while_it_bids_again_is_followed_by_one_that_does(
    stage: Stage, path: str, kind: Kind
) -> None:
    pytest.importorskip("vastai")
    stage.project.config("hardware.spot", "true")
    stage.project.up()
    [id] = stage.ids
    stage.market.outbid(int(id), min_bid=0.3)
    stage.project.refresh()
    stage.market.faults.add(Fault(method="PUT", path=path, kind=kind))
    stage.project.up(ok=False)
    assert stage.market.faults.struck == 1
    stage.project.up()
    assert stage.ids == stage.owned == [id]
    assert question(stage.project.outputs())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Kind.KILL, Kind.KILL_BEFORE, Kind.LOST])
def test_a_destroy_that_is_cut_off_is_finished_by_the_next(stage: Stage, kind: Kind) -> None:
    stage.project.up()
    stage.market.faults.add(Fault(method="DELETE", path="/instances/", kind=kind))
    stage.project.pulumi("destroy", "--yes", "--skip-preview", "-s", "test", ok=kind is Kind.LOST)
    assert stage.market.faults.struck == 1
    stage.project.destroy()
    assert stage.ids == []


@pytest.mark.slow
def test_switching_to_local_and_back_leaves_no_gap_in_service(stage: Stage) -> None:
    stage.project.up()
    before = stage.project.outputs()
    stage.project.config("provider", "local")
    with Watch(before) as watch:
        stage.project.up()
    after = stage.project.outputs()
    assert stage.ids == []
    assert after["provider"] == "local"
    assert watch.first_failure >= datetime.fromisoformat(after["ready"]["answered_at"])
    stage.project.config("provider", "vastai")
    stage.project.up()
    assert stage.project.servers() == []
    assert question(stage.project.outputs())


@dataclass
class Watch(Background):
    """Asks an endpoint over and over, and remembers when it first failed to answer."""

    out: dict[str, Any]
    first_failure: datetime = field(default_factory=lambda: datetime.max.replace(tzinfo=UTC))

    def _run(self) -> None:
        trusted = ssl.create_default_context(cadata=self.out["ca_pem"])
        key = {"Authorization": f"Bearer {self.out['api_key']}"}
        while not self._done.wait(0.2):
            at = datetime.now(UTC)
            try:
                with httpx.Client(verify=trusted, trust_env=False) as http:
                    http.get(f"{self.out['endpoint']}/models", headers=key).raise_for_status()
            except httpx.HTTPError:
                self.first_failure = min(self.first_failure, at)


@pytest.mark.slow
def test_an_instance_that_was_rented_elsewhere_can_be_imported(stage: Stage) -> None:
    stage.project.up()
    [id] = stage.ids
    flags = ("--yes", "-s", "test", "--generate-code=false", "--protect=false")
    stage.project.pulumi("import", INSTANCE, "found", id, *flags)
    imported = next(one for one in stage.project.resources(INSTANCE) if one["urn"].endswith("::found"))
    assert (imported["id"], imported["inputs"]["gpus"]) == (id, ["RTX 4090"])
    stage.project.destroy()
    assert stage.ids == []
