"""Several servers out of the declaration of one, and whose turn it is when they change."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.bench_target import target
from ops.client import ChatClient, Health
from ops.logs import logs
from ops.monitor import of_stack
from ops.monitor_files import monitor_files
from ops.servers import health_of, of_each, probe_of
from ops.stack import OpsError, Stack
from ops.status import status
from ops.watch_look import Shown, drifts
from providers.base import Declaration, Declared, Ref, Text
from providers.replicas import created, hardware, replicas, resources, turns
from serving.watching import Probe

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


# What commands make of several servers.


def served(server: str, port: int) -> dict[str, Any]:
    ready = {"time_to_ready_s": 1.0, "first_token_s": 0.1, "answered_at": "2026-11-21T10:00:00+00:00"}
    return {"server": server, "endpoint": f"http://127.0.0.1:{port}/v1", "ready": ready}


STACK = Stack.model_validate(
    {
        "name": "dev",
        "api_key": "sk-1",
        "model": "m",
        "provider": "fake",
        "hardware": "3 servers, each: 1x L4",
        "cost": {"hourly_usd": "1.5000"},
        "endpoint": "http://127.0.0.1:1/v1",
        "ready": served("server", 1)["ready"],
        "endpoints": [served("server", 1), served("server-2", 2), served("server-3", 3)],
    }
)


def test_each_server_of_a_stack_is_one_that_can_be_asked_like_a_stack() -> None:
    assert {name: one.endpoint[-4] for name, one in STACK.servers().items()} == {
        "server": "1",
        "server-2": "2",
        "server-3": "3",
    }
    alone = STACK.model_copy(update={"endpoints": ()})
    assert alone.servers() == {"server": alone}


def test_a_stack_is_well_if_each_of_its_servers_is() -> None:
    well, slow = Health(True, ("m",), 5.0), Health(True, ("m",), 9.0)
    ill = Health(False, (), 0.0, "HTTP 502")
    assert health_of({"server": well}) is well
    assert health_of({"server": well, "server-2": slow}) == Health(True, ("m",), 9.0)
    found = health_of({"server": well, "server-2": ill, "server-3": ill})
    assert (found.ok, found.problem) == (False, "2 of 3 servers (server-2: HTTP 502; server-3: HTTP 502)")
    down = probe_of({"server": Probe(True, 7.0), "server-2": Probe(False, 0.0, "HTTP 502")})
    assert down == Probe(False, 7.0, "1 of 2 servers (server-2: HTTP 502)")


def test_all_servers_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3)

    def ask(stack: Stack) -> str:
        together.wait(10)
        return stack.endpoint

    assert list(of_each(STACK, ask)) == ["server", "server-2", "server-3"]


def test_the_status_names_the_server_that_does_not_answer() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if "sk-1" in request.headers["authorization"] else 401, json={"data": [{"id": "m"}]})

    out = io.StringIO()
    client = ChatClient("http://127.0.0.1:1/v1", "sk-1", transport=httpx.MockTransport(answer))
    assert status(STACK, as_json=True, client=client, out=out) == 0
    servers = json.loads(out.getvalue())["servers"]
    assert [(one["server"], one["healthy"]) for one in servers] == [
        ("server", True),
        ("server-2", True),
        ("server-3", True),
    ]


def test_a_watch_misses_the_server_that_a_refresh_has_taken_out_of_state() -> None:
    urn = "urn:pulumi:dev::shop::vllm-anywhere:index:Deployment"
    steps = [
        Shown(op="refresh", urn=f"{urn}::deployment"),
        *(Shown(op="refresh", urn=f"{urn}$vllm-anywhere:fake:Instance::{name}") for name in ("server", "server-3")),
    ]
    assert [(one.resource, one.gone) for one in drifts(steps, STACK.servers())] == [("server-2", True)]
    assert list(drifts(steps)) == []
    assert [one.resource for one in drifts(steps[:1])] == ["server"]


def test_prometheus_scrapes_every_server_under_its_name() -> None:
    groups = json.loads(monitor_files([of_stack(STACK)])["targets/dev.json"].text)
    assert [(one["targets"], one["labels"]["server"]) for one in groups] == [
        (["127.0.0.1:1"], "server"),
        (["127.0.0.1:2"], "server-2"),
        (["127.0.0.1:3"], "server-3"),
    ]


def test_a_load_test_of_one_server_counts_the_price_of_one() -> None:
    aimed = target("dev", "", "", "", None, read=lambda name: STACK)
    assert aimed.hourly == Decimal("0.5")
    odd = STACK.model_copy(update={"cost": {**STACK.cost, "hourly_usd": "1.0000"}})
    assert str(target("dev", "", "", "", None, read=lambda name: odd).hourly) == "0.3333"
    assert "one of 3 servers" in aimed.price_note


def test_logs_are_of_all_servers_in_their_order_or_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["server-10", "server-2", "server"]
    urns = [f"urn:pulumi:dev::shop::a:b:C$vllm-anywhere:fake:Instance::{name}" for name in names]
    found = [{"urn": urn, "type": "vllm-anywhere:fake:Instance", "id": urn.rpartition(":")[2]} for urn in urns]
    exported = json.dumps({"deployment": {"resources": found}})

    def run(args: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(args, 0, exported, "")

    def shown(**changes: Any) -> list[str]:
        asked = argparse.Namespace(stack="dev", lines=5, why=False, json=True, **{"server": 0, **changes})
        logs(asked, run=run)
        return [one["server"] for one in json.loads(capsys.readouterr().out)["servers"]]

    assert shown() == ["server", "server-2", "server-10"]
    assert shown(server=1) == ["server"]
    assert shown(server=10) == ["server-10"]
    with pytest.raises(OpsError, match="--server 3: stack dev has server, server-2, server-10"):
        shown(server=3)
