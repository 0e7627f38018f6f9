"""Several servers on the emulated marketplace: each on a machine of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from emulators.vastai import Servers, VastEmulator, offer_row
from engine import Project
from test_vastai_engine import INSTANCE, question
from test_vastai_rent import ORDER, World, open_world

from providers.base import NoCapacity
from providers.vastai.rent import Renter
from providers.vastai.siblings import Claims, are_siblings

FIRST, SECOND = "shop/dev/server/1", "shop/dev/server-2/1"


@pytest.fixture
def world() -> Iterator[World]:
    with ExitStack() as stack:
        found = open_world(stack)
        # One machine with two free slots, which are the cheapest, and another machine.
        found.market.offers[:] = [
            offer_row(1, dph_base=0.30, machine_id=7),
            offer_row(2, dph_base=0.31, machine_id=7),
            offer_row(3, dph_base=0.50, machine_id=8),
        ]
        yield found
        assert found.market.violations == []


def renter(world: World, label: str, claims: Claims) -> Renter:
    order = replace(ORDER, label=label)
    return Renter(world.vast, order, world.clock.context, lambda address: True, lambda id, n: [], claims)


@pytest.mark.parametrize(
    ("other", "siblings"),
    [
        (SECOND, True),
        ("shop/dev/server/2", False),
        ("shop/prod/server-2/1", False),
        ("bakery/dev/server-2/1", False),
        ("", False),
        ("somebody's own", False),
    ],
)
def test_siblings_are_other_servers_of_the_same_stack(other: str, siblings: bool) -> None:
    assert are_siblings(FIRST, other) is are_siblings(other, FIRST) is siblings


def test_a_server_avoids_the_machine_that_another_one_of_its_stack_is_on(world: World) -> None:
    renter(world, FIRST, Claims()).rent()
    # Of another run, so it knows of the first by the account's list alone.
    renter(world, SECOND, Claims()).rent()
    assert [one.offer["machine_id"] for one in world.market.instances.values()] == [7, 8]


def test_two_that_search_at_the_same_moment_do_not_take_the_same_machine(world: World) -> None:
    claims = Claims()
    assert claims.take(7, FIRST)
    renter(world, SECOND, claims).rent()
    assert [one.offer["machine_id"] for one in world.market.instances.values()] == [8]
    with pytest.raises(NoCapacity):
        renter(world, "shop/dev/server-3/1", claims).rent()


def test_a_machine_that_somebody_else_took_is_nobodys_claim() -> None:
    claims = Claims()
    assert claims.take(7, FIRST) and not claims.take(7, SECOND)
    claims.give_up(7, SECOND)
    assert not claims.take(7, SECOND)
    claims.give_up(7, FIRST)
    assert claims.take(7, SECOND)


def test_of_many_that_claim_one_machine_one_gets_it() -> None:
    claims, together, got = Claims(), threading.Barrier(16), []

    def claim(number: int) -> None:
        together.wait(10)
        if claims.take(7, f"shop/dev/server-{number}/1"):
            got.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1


@pytest.mark.engine
@pytest.mark.slow
def test_three_are_up_on_three_machines_and_what_is_lost_is_rented_anew_alone(project: Project, tmp_path: Path) -> None:
    rows = [offer_row(id, dph_base=round(0.3 + id / 100, 2)) for id in range(1, 5)]
    (tmp_path / "market").mkdir()
    with VastEmulator(rows, servers=Servers(tmp_path / "market")) as market:
        project.env |= {"VAST_API_KEY": market.key, "VLLM_ANYWHERE_VASTAI_URL": market.url}
        project.config("provider", "vastai")
        project.config("scaling.min", "3")
        project.up()
        out = project.outputs()
        before = {one["urn"].rpartition("::")[2]: one["id"] for one in project.resources(INSTANCE)}
        assert len({one.offer["machine_id"] for one in market.instances.values()}) == len(before) == 3
        assert all(question({**out, "endpoint": one["endpoint"]}) for one in out["endpoints"])

        market.become(int(before["server-2"]), "gone")
        project.pulumi("up", "--refresh", "--yes", "--skip-preview", "-s", "test")
        after = {one["urn"].rpartition("::")[2]: one["id"] for one in project.resources(INSTANCE)}
        assert {name for name in before if before[name] != after[name]} == {"server-2"}
        assert sorted(after.values()) == sorted(str(id) for id in market.instances)
        project.destroy()
        assert not market.instances
        assert market.violations == []
