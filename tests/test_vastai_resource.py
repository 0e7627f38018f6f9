"""The life of an instance on the emulated marketplace: read, repair in place or replace, change, import, destroy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.vastai import VastEmulator, offer_row
from pydantic import SecretStr

from providers.base import PlatformError
from providers.native import Context, Created, Found
from providers.vastai import client
from providers.vastai.client import log_tail
from providers.vastai.pricing import rented_under
from providers.vastai.resources import Instance, InstanceInputs, InstanceOutputs
from serving.offers import Offer
from serving.rented import from_output

LABEL = "shop/dev/server/1"
KEY = "sk-secret-of-the-server"
SERVER = Instance()
INPUTS = InstanceInputs(
    label=LABEL,
    gpus=["RTX 4090"],
    cuda="12.9",
    max_hourly_usd=Decimal(1),
    image="vllm/vllm-openai:v0.27.1",
    script="exec vllm serve --served-model-name m",
    api_key=SecretStr(KEY),
    timeout_s=600,
)


@dataclass
class Story:
    """A marketplace and a clock of its own."""

    market: VastEmulator
    now_s: float = 1_795_262_400.0
    alive: bool = True
    said: list[str] = field(default_factory=list[str])

    def pause(self, seconds: float) -> bool:
        self.now_s += seconds
        return False

    @property
    def context(self) -> Context:
        return Context("urn", self.said.append, self.pause, lambda: self.now_s, self.now)

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.now_s, UTC)

    def create(self, **changes: Any) -> Created[InstanceOutputs]:
        return SERVER.create(self.context, INPUTS.model_copy(update=changes))

    def read(self, made: Created[InstanceOutputs], **changes: Any) -> Found[InstanceInputs, InstanceOutputs] | None:
        return SERVER.read(self.context, made.id, INPUTS.model_copy(update=changes), made.outputs)

    def update(self, made: Created[InstanceOutputs], old: Any = None, **changes: Any) -> Created[InstanceOutputs]:
        before = INPUTS.model_copy(update=old or {})
        return SERVER.update(self.context, made.id, made.outputs, before, INPUTS.model_copy(update=changes))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    rows = [offer_row(id, dph_base=round(0.3 + id / 100, 2)) for id in range(1, 6)]
    with VastEmulator(rows) as market:
        found = Story(market)
        market.now = lambda: found.now_s
        monkeypatch.setenv("VAST_API_KEY", market.key)
        monkeypatch.setenv("VLLM_ANYWHERE_VASTAI_URL", market.url)
        monkeypatch.setattr("providers.vastai.client._SLOTS", {})
        monkeypatch.setattr("providers.vastai.health.answers", lambda ca: lambda address: found.alive)
        yield found
        assert market.violations == []


def test_what_was_rented_is_told_without_secrets(story: Story) -> None:
    made = story.create()
    assert made.problem == ""
    assert made.outputs.machine_id == 50001
    assert made.outputs.hourly_usd == "0.326667"
    assert made.outputs.endpoint == f"http://{made.outputs.address}/v1"
    assert KEY not in made.outputs.model_dump_json()


def test_a_running_instance_shows_no_drift(story: Story) -> None:
    made = story.create()
    found = story.read(made)
    assert found is not None
    assert found.inputs == INPUTS


def test_an_instance_that_is_gone_is_forgotten(story: Story) -> None:
    made = story.create()
    story.market.become(int(made.id), "gone")
    assert story.read(made) is None


@pytest.mark.parametrize("state", ["exited", "frozen"])
def test_what_will_not_come_back_is_replaced(story: Story, state: str) -> None:
    made = story.create()
    story.market.become(int(made.id), state)
    found = story.read(made)
    assert found is not None
    assert found.inputs.lost != ""


@pytest.mark.parametrize("state", ["offline", "unknown"])
def test_a_silent_host_has_a_few_minutes_before_it_is_replaced(story: Story, state: str) -> None:
    made = story.create()
    story.market.become(int(made.id), state)
    first = story.read(made)
    assert first is not None
    assert (first.inputs.status, first.inputs.lost) == (state, "")
    story.pause(400)
    later = SERVER.read(story.context, made.id, first.inputs, first.outputs)
    assert later is not None
    assert later.inputs.lost != ""


def test_an_expired_rental_is_replaced(story: Story) -> None:
    made = story.create()
    story.market.expire(int(made.id))
    found = story.read(made)
    assert found is not None
    assert found.inputs.lost == "its rental has ended"


def test_a_rental_that_ends_within_a_day_is_replaced_while_it_serves(story: Story) -> None:
    made = story.create()
    story.market.instances[int(made.id)].end_date = story.now_s + 3600
    found = story.read(made)
    assert found is not None
    assert "ends in 1 h" in found.inputs.lost


def test_without_credit_the_user_is_told_instead_of_renting_anew(story: Story) -> None:
    made = story.create()
    story.market.become(int(made.id), "stopped")
    story.market.credit = 0.0
    found = story.read(made)
    assert found is not None
    assert "no credit" in found.inputs.status
    assert found.inputs.lost == ""


def test_stopped_by_hand_with_credit_it_is_replaced(story: Story) -> None:
    made = story.create()
    story.market.become(int(made.id), "stopped")
    found = story.read(made)
    assert found is not None
    assert "given its GPUs up" in found.inputs.lost


def test_outbid_it_bids_again_in_place(story: Story) -> None:
    pytest.importorskip("vastai")
    made = story.create(interruptible=True)
    story.market.outbid(int(made.id), min_bid=0.3)
    found = story.read(made, interruptible=True)
    assert found is not None
    assert (found.inputs.status, found.inputs.lost) == ("outbid", "")
    done = story.update(made, {"interruptible": True}, interruptible=True)
    assert done.problem == ""
    assert story.market.instances[int(made.id)].bid == 0.375
    assert [str(id) for id in story.market.instances] == [made.id]


def test_outbid_beyond_what_is_allowed_it_is_replaced(story: Story) -> None:
    made = story.create(interruptible=True, bid_usd=Decimal("0.2"))
    story.market.outbid(int(made.id), min_bid=0.3)
    found = story.read(made, interruptible=True, bid_usd=Decimal("0.2"))
    assert found is not None
    assert "$0.3 an hour would win it back" in found.inputs.lost


def test_outbid_beyond_what_the_ceiling_leaves_beside_the_disk_it_is_replaced(story: Story) -> None:
    made = story.create(interruptible=True)
    story.market.outbid(int(made.id), min_bid=0.99)
    found = story.read(made, interruptible=True)
    assert found is not None
    assert "$0.99 an hour would win it back" in found.inputs.lost


def test_a_lower_ceiling_touches_nothing_that_runs(story: Story) -> None:
    made = story.create()
    assert story.update(made, max_hourly_usd=Decimal("0.1")).problem == ""
    assert [str(id) for id in story.market.instances] == [made.id]


CHANGES = {
    "get": Fault(method="GET", path=r"/api/v0/instances/\d+", kind=Kind.LOST),
    "label": Fault(method="PUT", path=r"/api/v0/instances/\d+", kind=Kind.LOST),
    "bid": Fault(method="PUT", path="/bid_price/", kind=Kind.LOST),
    "start": Fault(method="PUT", path=r"/api/v0/instances/\d+", nth=2, kind=Kind.LOST),
}


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE)])
@pytest.mark.parametrize("call", CHANGES)
def test_a_change_cut_off_in_any_call_is_made_by_one_update_or_two(
    story: Story, monkeypatch: pytest.MonkeyPatch, call: str, kind: Kind
) -> None:
    pytest.importorskip("vastai")
    made = story.create(interruptible=True, label="by hand")
    story.market.outbid(int(made.id), min_bid=0.3)
    if kind in (Kind.TIMEOUT, Kind.STALLED):
        monkeypatch.setattr(client, "connect", _hasty(client.connect))
    story.market.faults.add(CHANGES[call].model_copy(update={"kind": kind}))
    try:
        done = story.update(made, {"interruptible": True}, interruptible=True)
    except PlatformError:
        done = story.update(made, {"interruptible": True}, interruptible=True)
    assert done.problem == ""
    assert story.market.faults.struck == 1
    [(id, one)] = story.market.instances.items()
    assert (str(id), one.label, one.bid, one.state) == (made.id, LABEL, 0.375, "running")


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE)])
@pytest.mark.parametrize("path", [r"/api/v0/instances/\d+", "/users/current"])
def test_a_refresh_cut_off_in_any_call_forgets_nothing(
    story: Story, monkeypatch: pytest.MonkeyPatch, path: str, kind: Kind
) -> None:
    made = story.create()
    story.market.become(int(made.id), "stopped")
    if kind in (Kind.TIMEOUT, Kind.STALLED):
        monkeypatch.setattr(client, "connect", _hasty(client.connect))
    story.market.faults.add(Fault(method="GET", path=path, kind=kind))
    try:
        found = story.read(made)
    except PlatformError:
        found = story.read(made)
    assert found is not None
    assert "given its GPUs up" in found.inputs.lost
    assert story.market.faults.struck == 1


def _hasty(connect: Any) -> Any:
    return lambda clock, wait: connect(clock, wait, timeout=httpx.Timeout(0.2))


def test_a_new_bid_goes_to_the_same_instance(story: Story) -> None:
    pytest.importorskip("vastai")
    made = story.create(interruptible=True, bid_usd=Decimal("0.2"))
    bids = {"interruptible": True, "bid_usd": Decimal("0.2")}
    done = story.update(made, bids, interruptible=True, bid_usd=Decimal("0.25"))
    assert done.id == made.id
    assert story.market.instances[int(made.id)].bid == 0.25


def test_an_imported_instance_is_given_the_label_of_the_stack(story: Story) -> None:
    pytest.importorskip("vastai")
    made = story.create(label="by hand")
    found = SERVER.read(story.context, made.id, None, None)
    assert found is not None
    assert (found.inputs.status, found.inputs.gpus, found.inputs.image) == ("imported", ["RTX 4090"], INPUTS.image)
    assert KEY not in found.inputs.model_dump_json()
    story.update(made)
    assert story.market.instances[int(made.id)].label == LABEL


def test_an_update_of_a_lost_instance_says_what_to_do(story: Story) -> None:
    made = story.create()
    story.market.become(int(made.id), "exited")
    done = story.update(made)
    assert "`pulumi refresh`, then `pulumi up` replaces it" in done.problem
    story.market.become(int(made.id), "gone")
    with pytest.raises(PlatformError, match="is gone"):
        story.update(made)


def test_a_destroyed_instance_is_gone_and_may_be_destroyed_again(story: Story) -> None:
    made = story.create()
    SERVER.delete(story.context, made.id, made.outputs)
    SERVER.delete(story.context, made.id, made.outputs)
    assert story.market.instances == {}


def test_logs_are_read_without_sending_the_key_to_where_they_lie(story: Story) -> None:
    pytest.importorskip("vastai")
    made = story.create()
    assert log_tail(made.id, 5) == ["INFO starting vLLM"]


def test_only_guards_bids_and_labels_change_in_place() -> None:
    kept = set(InstanceInputs.model_fields) - SERVER.replace_on
    assert {"bid_usd", "label", "status"} <= kept
    assert {"gpus", "image", "disk_gb", "env", "script", "interruptible", "lost"} <= SERVER.replace_on


@pytest.mark.parametrize(
    ("inputs", "property"),
    [
        ({"gpus": []}, "gpus"),
        ({"cuda": "newest"}, "cuda"),
        ({"bid_usd": Decimal("0.1"), "interruptible": False}, "bid_usd"),
    ],
)
def test_wrong_inputs_are_told_by_property(inputs: dict[str, Any], property: str) -> None:
    assert [failure.property for failure in SERVER.check(inputs)] == [property]


def test_it_tells_what_it_rents_at_the_prices_that_are_billed(story: Story) -> None:
    created = story.create()
    offer = from_output(created.outputs.offer)
    assert offer is not None
    assert (offer.platform, offer.gpu, offer.gpu_count, offer.tier, offer.spot) == (
        "vastai",
        "RTX 4090",
        1,
        "secure",
        False,
    )
    prices = {rate.meter: str(rate.unit_price) for rate in offer.rates}
    assert prices == {"GPU": "0.31", "disk": "0.2", "download": "0.005", "upload": "0.01"}
    story.now_s += 3 * 86_400
    found = SERVER.read(story.context, created.id, INPUTS, created.outputs)
    assert found is not None and found.outputs.offer == created.outputs.offer


def test_what_a_stack_rents_is_found_by_its_label_alone(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    def rented(label: str) -> Offer | None:
        # It asks by the real clock, and the story's slots are by its own.
        monkeypatch.setattr("providers.vastai.client._SLOTS", {})
        return rented_under(label)

    assert rented("shop/dev/") is None
    story.create()
    found = rented("shop/dev/")
    assert found is not None and (found.gpu, str(found.rates[0].unit_price)) == ("RTX 4090", "0.31")
    assert rented("shop/de/") is None
    monkeypatch.delenv("VAST_API_KEY")
    assert rented("shop/dev/") is None
