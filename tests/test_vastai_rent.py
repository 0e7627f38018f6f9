"""Renting on the emulated marketplace: nothing paid for is lost, doubled or forgotten.

The emulator is real HTTP on loopback; its clock and the code's are one, so no wait takes time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.vastai import VastEmulator, offer_row
from test_lifecycle_invariants import LABEL, Invariants

from providers.base import AuthError, CreateUncertain, Interrupted, NoCapacity, PlatformError
from providers.lifecycle import ensure_gone
from providers.native import Context
from providers.vastai.client import SPACING_S, Vast, rented
from providers.vastai.instances import VastInstance
from providers.vastai.launch import Order, bid_for, body, in_pieces
from providers.vastai.offers import Traffic, VastOffer
from providers.vastai.rent import Renter
from providers.vastai.search import Wanted

START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WANTED = Wanted(gpus=("RTX 4090",), cuda=(12, 9), disk_gb=60, max_hourly_usd=Decimal(1))
ORDER = Order(
    label=LABEL,
    wanted=WANTED,
    traffic=Traffic(Decimal(18), Decimal(0)),
    image="vllm/vllm-openai:v0.27.1",
    script="exec vllm serve --served-model-name m",
    port=8000,
    env={"VLLM_API_KEY": "sk-secret-of-the-server"},
    serve_s=600.0,
)
HASTY, PATIENT = httpx.Timeout(0.2), httpx.Timeout(30.0)


@dataclass
class Clock:
    """One clock for the code and the emulator; waiting moves it."""

    seconds: float = 0.0
    said: list[str] = field(default_factory=list[str])
    cancel_after: float = float("inf")

    def pause(self, seconds: float) -> bool:
        self.seconds += seconds
        return self.seconds >= self.cancel_after

    @property
    def context(self) -> Context:
        return Context("urn", self.said.append, self.pause, lambda: self.seconds, lambda: self.now)

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(START.timestamp() + self.seconds, UTC)


@dataclass
class World:
    """A marketplace, its clock, and what asks it."""

    market: VastEmulator
    clock: Clock
    order: Order = ORDER
    logs: list[str] = field(default_factory=list[str])
    healthy: bool = True
    slots: dict[Any, float] = field(default_factory=dict[Any, float])
    timeout: httpx.Timeout = field(default_factory=lambda: PATIENT)

    @property
    def vast(self) -> Vast:
        context = self.clock.context
        return Vast(
            self.market.key,
            self.market.url,
            clock=context.clock,
            wait=context.wait,
            slots=self.slots,
            timeout=self.timeout,
        )

    @property
    def renter(self) -> Renter:
        return Renter(self.vast, self.order, self.clock.context, lambda address: self.healthy, lambda id, n: self.logs)

    @property
    def ids(self) -> list[str]:
        return [str(id) for id in self.market.instances]

    def fail(self, faults: dict[str, Any]) -> None:
        if {Kind.TIMEOUT, Kind.STALLED} & set(faults.values()):
            self.timeout = HASTY
        self.market.faults.add(*(CALLS[call].model_copy(update={"kind": kind}) for call, kind in faults.items()))


CALLS = {
    "search": Fault(method="POST", path="/bundles", kind=Kind.LOST),
    "rent": Fault(method="PUT", path="/asks/", kind=Kind.LOST),
    "list": Fault(method="GET", path="/api/v1/instances", kind=Kind.LOST),
    "get": Fault(method="GET", path=r"/api/v0/instances/\d+", kind=Kind.LOST),
    "destroy": Fault(method="DELETE", path="/instances/", kind=Kind.LOST),
}
KINDS = tuple(kind for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE))


def open_world(stack: ExitStack, **options: Any) -> World:
    clock = Clock()
    rows = [offer_row(id, dph_base=round(0.3 + id / 1000, 4)) for id in range(1, 13)]
    market = VastEmulator(rows, now=lambda: clock.now.timestamp(), limits=True, **{"load_s": 30.0, **options})
    return World(stack.enter_context(market), clock)


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        found = open_world(stack)
        yield found
        assert found.market.violations == []


class TestVastai(Invariants):
    creating = ("search", "rent", "list", "get")
    deleting = ("destroy", "get")

    @pytest.fixture(autouse=True)
    def _close(self) -> Iterator[None]:
        with ExitStack() as self.stack:
            yield

    def faults(self, calls: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{call: kind} for call in calls for kind in KINDS]

    def cloud(self, faults: dict[str, Any]) -> World:
        world = open_world(self.stack)
        world.fail(faults)
        return world

    def create(self, cloud: World, where: Context) -> str:
        rental = cloud.renter.rent()
        assert not rental.problem
        return rental.instance.id

    def delete(self, cloud: World, where: Context, id: str) -> None:
        vast = cloud.vast
        ensure_gone(cloud.clock.context, id, destroy=vast.destroy, exists=lambda wanted: vast.get(wanted) is not None)

    def existing(self, cloud: World) -> list[str]:
        assert cloud.market.violations == []
        return cloud.ids

    def leave(self, cloud: World) -> str:
        offers = [row for row in cloud.market.offers if not row["rented"]]
        offer = VastOffer.model_validate(offers[0])
        return cloud.vast.rent(offer.id, body(cloud.order, offer, START, interruptible=False))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("call", ["search", "rent", "list", "get"])
def test_after_one_failed_call_one_up_or_two_leave_exactly_one(world: World, call: str, kind: Kind) -> None:
    world.fail({call: kind})
    try:
        first = world.renter.rent().instance.id
    except PlatformError:
        first = world.renter.rent().instance.id
    assert world.ids == [first]
    assert world.market.faults.struck == 1


def test_the_cheapest_month_is_rented_with_its_label_in_the_very_call(world: World) -> None:
    rental = world.renter.rent()
    [call] = world.market.called("PUT", r"/api/v0/asks/\d+/")
    assert call.path == "/api/v0/asks/1/"
    assert call.body["label"] == LABEL
    assert call.body["cancel_unavail"] is True
    assert rental.instance.machine_id == 50001
    assert rental.instance.address(8000).startswith("127.0.0.1:")


def test_five_offers_that_vanish_between_search_and_rent_are_passed_over(world: World) -> None:
    world.market.vanish(5)
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert len([line for line in rental.tried if "taken by somebody else" in line]) == 5
    assert len(world.market.called("POST", "/api/v0/bundles/")) == 2


def test_when_every_offer_vanishes_the_error_lists_what_was_tried(world: World) -> None:
    world.market.vanish(99)
    with pytest.raises(NoCapacity, match="offer 1 ") as caught:
        world.renter.rent()
    assert str(caught.value).count("taken by somebody else") == 12
    assert world.ids == []


def test_a_rent_answered_by_504_after_renting_is_adopted(world: World) -> None:
    world.market.faults.add(Fault(method="PUT", path="/asks/", kind=Kind.LOST, status=504))
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert len(world.market.called("PUT", r"/api/v0/asks/\d+/")) == 1


def test_two_under_one_label_become_one(world: World) -> None:
    world.market.twice = 1
    world.market.faults.add(Fault(method="PUT", path="/asks/", kind=Kind.LOST, status=504))
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert len(world.market.destroyed) == 1


@pytest.mark.parametrize(
    "listing",
    [
        '""',
        '{"success": false, "error": "deprecated_endpoint"}',
        '{"success": true, "instances": null}',
        '{"success": true, "instances": [], "total_instances": 3}',
        '{"success": true, "instances": [{"label": "x"}]}',
        "[]",
        "",
    ],
)
def test_a_list_that_is_not_one_is_never_taken_for_none(world: World, listing: str) -> None:
    world.market.listing = listing
    with pytest.raises(PlatformError):
        world.renter.rent()
    assert world.market.called("PUT", r"/api/v0/asks/\d+/") == []


def test_an_instance_that_shows_up_late_is_waited_for(world: World) -> None:
    world.market.lag_s = 12
    world.market.faults.add(Fault(method="PUT", path="/asks/", kind=Kind.LOST, status=504))
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]


def test_every_page_of_a_long_list_is_read(world: World) -> None:
    offer = VastOffer.model_validate(offer_row(1))
    for _ in range(60):
        world.market.offers[0]["rented"] = False
        world.vast.rent(1, {**body(ORDER, offer, START, interruptible=False), "label": "another"})
        world.clock.pause(5)
    world.market.offers[0]["rented"] = False
    world.vast.rent(1, body(ORDER, offer, START, interruptible=False))
    assert len(world.vast.instances()) == 61
    assert len(world.vast.labelled(LABEL)) == 1


@pytest.mark.parametrize("call", ["search", "rent", "list", "get", "destroy"])
def test_a_storm_of_429_delays_and_doubles_nothing(world: World, call: str) -> None:
    world.market.faults.add(CALLS[call].model_copy(update={"kind": Kind.RATE_LIMITED, "times": 3}))
    # A host that fails has its instance destroyed on the way.
    world.market.fates = {50001: "broken"}
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert world.market.faults.struck == 3


def test_a_storm_without_end_rents_nothing(world: World) -> None:
    world.market.faults.add(CALLS["rent"].model_copy(update={"kind": Kind.RATE_LIMITED, "times": 0}))
    with pytest.raises(PlatformError, match="Nothing is rented"):
        world.renter.rent()
    assert world.ids == []


def test_the_documented_limits_are_kept(world: World) -> None:
    # The emulator counts each call that comes too soon as a violation; the fixture looks at them.
    world.market.vanish(7)
    world.renter.rent()
    assert world.clock.seconds >= 7 * SPACING_S["rent"]


@pytest.mark.parametrize(
    ("fate", "why"),
    [
        ("stuck", "loading after"),
        ("broken", "OCI runtime create failed"),
        ("portless", "without a public address"),
        ("frozen", "frozen"),
        ("offline", "offline after"),
    ],
)
def test_a_host_that_fails_is_destroyed_excluded_and_followed_by_the_next(world: World, fate: Any, why: str) -> None:
    world.market.fates = {50001: fate}
    rental = world.renter.rent()
    assert rental.instance.machine_id == 50002
    assert world.ids == [rental.instance.id]
    assert [line for line in rental.tried if why in line and "machine 50001" in line]
    again = world.market.called("POST", "/api/v0/bundles/")[-1].body
    assert again["machine_id"] == {"notin": [50001]}


def test_a_server_that_never_answers_is_moved_to_another_host_within_the_caps(world: World) -> None:
    world.healthy = False
    world.order = replace(ORDER, attempts=2)
    with pytest.raises(PlatformError, match="none of 2 machines came to serve") as caught:
        world.renter.rent()
    assert str(caught.value).count("does not answer after") == 2
    assert world.ids == []


def test_failing_hosts_may_only_cost_so_much(world: World) -> None:
    world.healthy = False
    world.order = replace(ORDER, waste_usd=Decimal("0.01"))
    with pytest.raises(PlatformError, match="more than the cap"):
        world.renter.rent()
    assert len(world.market.destroyed) == 1
    assert world.ids == []


def test_a_config_error_is_told_in_the_servers_own_words_and_not_tried_elsewhere(world: World) -> None:
    world.market.fates = {50001: "exits"}
    world.logs = ["ValueError: ... the estimated maximum model length is 4096."]
    with pytest.raises(PlatformError, match=r"model\.max_len 4096"):
        world.renter.rent()
    assert world.ids == []
    assert len(world.market.called("PUT", r"/api/v0/asks/\d+/")) == 1


def test_an_unknown_crash_is_tried_on_one_other_machine(world: World) -> None:
    world.market.fates = dict.fromkeys(range(50001, 50013), "exits")
    with pytest.raises(PlatformError, match="ends by itself, on any machine"):
        world.renter.rent()
    assert len(world.market.called("PUT", r"/api/v0/asks/\d+/")) == 2
    assert world.ids == []


@pytest.mark.parametrize(("fate", "words"), [("dear", "was shown"), ("wrong kind", "billed as interruptible")])
def test_what_is_billed_otherwise_than_shown_is_destroyed(world: World, fate: Any, words: str) -> None:
    world.market.fates = {50001: fate}
    with pytest.raises(PlatformError, match=words):
        world.renter.rent()
    assert world.ids == []


def test_nothing_above_the_ceiling_is_rented(world: World) -> None:
    world.order = replace(ORDER, wanted=replace(WANTED, max_hourly_usd=Decimal("0.2")))
    with pytest.raises(NoCapacity, match="no offers"):
        world.renter.rent()
    assert world.ids == []


def test_cancelled_while_it_starts_it_keeps_its_id_and_says_what_it_costs(world: World) -> None:
    world.market.load_s = 300
    world.clock.cancel_after = 60
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert "cancelled" in rental.problem and "an hour" in rental.problem


def test_cancelled_before_anything_is_rented_nothing_is(world: World) -> None:
    world.clock.cancel_after = 0
    world.market.faults.add(CALLS["search"].model_copy(update={"kind": Kind.RATE_LIMITED}))
    with pytest.raises(Interrupted):
        world.renter.rent()
    assert world.ids == []


def test_a_failed_host_that_cannot_be_destroyed_keeps_its_id(world: World) -> None:
    world.market.fates = {50001: "broken"}
    world.market.faults.add(CALLS["destroy"].model_copy(update={"kind": Kind.REFUSED, "times": 0}))
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert "could not be destroyed and may be billed" in rental.problem


def bids(**changes: Any) -> Order:
    return replace(ORDER, wanted=replace(WANTED, interruptible=True), **changes)


def test_a_bid_left_open_is_a_quarter_over_the_lowest_that_wins(world: World) -> None:
    world.order = bids()
    rental = world.renter.rent()
    assert rental.instance.is_bid
    assert world.market.instances[int(rental.instance.id)].bid == 0.15


def test_a_bid_that_does_not_win_leaves_no_stopped_instance_behind(world: World) -> None:
    world.order = bids(bid_usd=Decimal("0.2"))
    asked = world.market.offers[0]
    world.market.raised = {asked["id"]: 0.5}
    rental = world.renter.rent()
    assert rental.instance.machine_id != asked["machine_id"]
    assert world.ids == [rental.instance.id]
    assert len(world.market.destroyed) == 1


def test_when_no_bid_wins_on_demand_is_rented_only_if_asked_for(world: World) -> None:
    for row in world.market.offers:
        row["min_bid"] = 0.25
    world.order = bids(bid_usd=Decimal("0.1"))
    with pytest.raises(NoCapacity, match=r"wins none of 12 machines, the lowest that does costs \$0\.2667 with disk"):
        world.renter.rent()
    world.order = bids(bid_usd=Decimal("0.1"), fallback=True)
    rental = world.renter.rent()
    assert rental.instance.is_bid is False
    assert "on demand costs $0.3177 an hour with disk, $0.0510 more than the lowest bid" in " ".join(rental.tried)


def low_bid(world: World) -> None:
    """The bid wins when it is searched for, and no longer when it is made."""
    world.order = bids(bid_usd=Decimal("0.2"))
    world.market.raised = {row["id"]: 0.5 for row in world.market.offers}


def test_a_bid_that_does_not_win_is_destroyed_even_if_it_shows_up_late(world: World) -> None:
    low_bid(world)
    world.market.lag_s = 12
    with pytest.raises(NoCapacity, match="does not win"):
        world.renter.rent()
    assert world.ids == []
    assert len(world.market.destroyed) == len(world.market.called("PUT", r"/api/v0/asks/\d+/")) > 5


@pytest.mark.parametrize("call", ["get", "destroy"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bid_that_does_not_win_is_destroyed_through_any_fault(world: World, call: str, kind: Kind) -> None:
    low_bid(world)
    world.fail({call: kind})
    with pytest.raises(NoCapacity, match="does not win"):
        world.renter.rent()
    assert world.ids == []


def test_a_bid_that_does_not_win_and_cannot_be_destroyed_keeps_its_id(world: World) -> None:
    low_bid(world)
    world.market.faults.add(CALLS["destroy"].model_copy(update={"kind": Kind.REFUSED, "times": 0}))
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert "does not win, and its disk bills" in rental.problem


def test_cancelled_while_a_bid_that_does_not_win_goes_it_keeps_its_id(world: World) -> None:
    low_bid(world)
    world.market.lag_s = 12
    world.clock.cancel_after = 2
    rental = world.renter.rent()
    assert world.ids == [rental.instance.id]
    assert "does not win, and its disk bills" in rental.problem


def test_a_404_that_is_not_the_apis_own_does_not_mean_gone(world: World) -> None:
    rental = world.renter.rent()
    world.market.faults.add(CALLS["get"].model_copy(update={"kind": Kind.LOST, "status": 404, "times": 0}))
    assert world.vast.get(rental.instance.id) is None
    page = httpx.MockTransport(lambda request: httpx.Response(404, text="<html>no route</html>"))
    vast = Vast(world.market.key, world.market.url, wait=lambda seconds: None, transport=page)
    with pytest.raises(PlatformError, match="HTTP 404"):
        vast.get(rental.instance.id)


def test_a_machine_whose_state_never_settles_is_given_up_and_its_cost_is_known(world: World) -> None:
    renter, states = world.renter, itertools.cycle(("loading", "offline"))
    see = renter.vast.get

    def unsettled(id: str) -> VastInstance | None:
        assert world.clock.seconds < 24 * 3600
        found = see(id)
        return None if found is None else found.model_copy(update={"actual_status": next(states)})

    renter.vast.get = unsettled  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(PlatformError, match=r"none of \d machines came to serve[\s\S]*has not settled after \d+ s"):
        renter.rent()
    assert world.ids == []
    assert renter.wasted > 0


def test_a_list_that_goes_in_circles_ends() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after_token", ""))
        assert len(asked) < 10
        following = "b" if asked[-1] == "a" else "a"
        return httpx.Response(200, json={"instances": [{"id": len(asked)}], "next_token": following})

    vast = Vast("a key", "https://vast.example", wait=lambda seconds: None, transport=httpx.MockTransport(answer))
    with pytest.raises(PlatformError, match="does not go on where it ended"):
        vast.instances()


def test_a_bid_with_its_disk_stays_below_the_ceiling() -> None:
    order = replace(
        ORDER, wanted=replace(WANTED, interruptible=True, max_hourly_usd=Decimal("0.2")), bid_usd=Decimal(5)
    )
    offer = VastOffer.model_validate(offer_row(1))
    assert bid_for(order, offer) + 60 * Decimal("0.2") / 720 <= Decimal("0.2")


def test_no_secret_is_an_argument_or_in_a_repr() -> None:
    offer = VastOffer.model_validate(offer_row(1))
    sent = body(ORDER, offer, START, interruptible=False)
    assert "sk-secret" not in str(sent["args"])
    assert "sk-secret" not in repr(ORDER)


def test_long_variables_go_in_pieces_and_are_joined_by_the_shell() -> None:
    import subprocess

    env, line = in_pieces({"A": "short", "B": "x'\"$1 y" * 90})
    assert all(len(value) <= 256 for value in env.values())
    script = f'{line}printf %s "$B"'
    told = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=True)
    assert told.stdout == "x'\"$1 y" * 90


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (404, '{"error": "invalid_args", "msg": "error 404/3603: no_such_ask gone"}', NoCapacity),
        (410, '{"success": false, "error": "no_such_ask", "msg": "gone"}', NoCapacity),
        (404, '{"success": false, "error": "not_found"}', PlatformError),
        (408, "", CreateUncertain),
        (401, '{"success": false, "msg": "Invalid user key"}', AuthError),
        (402, '{"success": false, "error": "insufficient_credit"}', PlatformError),
    ],
)
def test_answers_to_the_rent_call_by_their_words(status: int, text: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        rented(1, LABEL, status, text)
    assert type(caught.value) is error


def test_a_wrong_key_is_said_to_be_and_never_shown(world: World) -> None:
    vast = Vast("wrong-key-1234", world.market.url, wait=lambda seconds: None)
    with pytest.raises(AuthError, match="VAST_API_KEY") as caught:
        vast.labelled(LABEL)
    assert "wrong-key" not in str(caught.value)


def test_a_used_up_search_quota_is_said_at_once_and_rents_nothing(world: World) -> None:
    world.market.searches_left = 0
    with pytest.raises(PlatformError, match="renewed at midnight UTC"):
        world.renter.rent()
    assert len(world.market.called("POST", "/api/v0/bundles/")) == 1
    assert world.ids == []


def test_stopped_only_the_disk_goes_on_billing(world: World) -> None:
    id = int(world.renter.rent().instance.id)
    world.clock.pause(3600)
    world.market.state()
    world.market.become(id, "stopped")
    [before] = world.market.state()["instances"]
    world.clock.pause(7200)
    [after] = world.market.state()["instances"]
    assert after["usd"] - before["usd"] == pytest.approx(2 * 60 * 0.2 / 720, abs=1e-5)
    assert before["usd"] > 0.3 + 18 * 0.005


def test_a_search_needs_no_key(world: World) -> None:
    assert Vast("", world.market.url).search({"limit": 1})
