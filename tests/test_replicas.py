"""Several servers out of the declaration of one, and whose turn it is when they change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.base import Declaration, Declared, Ref, Text
from providers.replicas import created, hardware, replicas, resources, turns

ONE = Declared(
    resources=(
        Declaration("key", "a:b:Secret", {"value": Ref("api-key", "value")}),
        Declaration("disk", "a:b:Disk", {"labels": {"key": Ref("key", "id")}}),
        Declaration(
            "server",
            "a:b:Server",
            {"disks": [Ref("disk", "id")], "key": Ref("key", "id"), "url": Text("x://{}", (Ref("disk", "id"),))},
            depends_on=("key", "disk"),
        ),
    ),
    server="server",
    endpoint=Text("https://{}/v1", (Ref("server", "address"),)),
    run=Ref("server", "run"),
    model="m",
    hardware="1x L4",
    each=("disk", "server"),
)


def test_the_first_server_is_as_it_was_declared_whatever_their_number() -> None:
    one, three = replicas(ONE, 1), replicas(ONE, 3)
    assert resources(ONE, one) == ONE.resources
    assert resources(ONE, three)[: len(ONE.resources)] == ONE.resources
    assert three[0] == one[0]
    assert (one[0].name, one[0].ready, one[0].endpoint) == ("server", "ready", ONE.endpoint)


def test_another_server_has_its_own_things_under_names_of_its_own_and_shares_the_rest() -> None:
    second = replicas(ONE, 3)[1]
    assert (second.name, second.ready, second.run) == ("server-2", "ready-2", Ref("server-2", "run"))
    assert second.endpoint == Text("https://{}/v1", (Ref("server-2", "address"),))
    disk, server = second.own
    assert disk == replace(ONE.resources[1], name="disk-2")
    assert server.inputs == {
        "disks": [Ref("disk-2", "id")],
        "key": Ref("key", "id"),
        "url": Text("x://{}", (Ref("disk-2", "id"),)),
    }
    assert server.depends_on == ("key", "disk-2")


def test_where_the_platform_multiplies_servers_one_is_declared() -> None:
    servers = replicas(replace(ONE, each=()), 5)
    assert len(servers) == 1
    assert resources(ONE, servers) == ONE.resources


@pytest.mark.parametrize("count", [0, 1])
def test_none_that_always_runs_is_one_that_is_declared(count: int) -> None:
    assert [server.name for server in replicas(ONE, count)] == ["server"]


def test_people_read_what_there_is_several_times_once() -> None:
    assert hardware(ONE, replicas(ONE, 1)) == "1x L4"
    assert hardware(ONE, replicas(ONE, 3)) == "3 servers, each: 1x L4"
    assert created(ONE, replicas(ONE, 1))[2] == ("server", "a:b:Server")
    assert created(ONE, replicas(ONE, 3)) == [
        ("key", "a:b:Secret"),
        ("3 x disk", "a:b:Disk"),
        ("3 x server", "a:b:Server"),
    ]


@given(count=st.integers(1, 12), serving=st.integers(0, 12))
def test_of_those_in_use_one_is_touched_after_the_one_before_has_answered_and_new_ones_wait_for_nobody(
    count: int, serving: int
) -> None:
    servers = replicas(ONE, count)
    order = turns(servers, serving)
    for place, server in enumerate(servers):
        before = (servers[place - 1].ready,) if 0 < place < serving else ()
        assert all(order.get(own.name, ()) == before for own in server.own)


@given(count=st.integers(1, 12), serving=st.integers(0, 12))
def test_no_two_wait_for_each_other(count: int, serving: int) -> None:
    servers = replicas(ONE, count)
    order = turns(servers, serving)
    # A gate refers to its server, so it comes after it as well.
    needs = {name: set(names) for name, names in order.items()}
    for server in servers:
        needs.setdefault(server.ready, set()).add(server.name)
    through: set[str] = set()
    names = {one for server in servers for one in (server.ready, *(own.name for own in server.own))}
    while ready := {name for name in names - through if needs.get(name, set()) <= through}:
        through |= ready
    assert through == names


def test_the_gates_of_new_servers_wait_until_all_of_those_are_made() -> None:
    order = turns(replicas(ONE, 5), 2)
    assert order["ready-3"] == order["ready-5"] == ("server-3", "server-4", "server-5")
    assert "ready" not in order and "ready-2" not in order
