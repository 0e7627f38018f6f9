"""The machinery that emulators share: faults at the wire, the log, the control paths."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.emulators.contract import Contract, contract
from tests.emulators.faults import Fault, Faults, Kind, broken
from tests.emulators.http import Command, Emulator, Request, Response, json_response, without_secrets


class Shop(Emulator):
    """A platform that sells one kind of thing."""

    def __init__(self) -> None:
        super().__init__()
        self.things: list[str] = []

    def answer(self, request: Request) -> Response:
        if request.path == "/broken":
            raise RuntimeError("as told")
        if request.path == "/stream":
            return Response(200, b"a", chunks=iter([b"b", b"c"]))
        if request.method == "POST":
            self.things.append(request.json()["name"])
            return json_response(201, {"name": self.things[-1]})
        return json_response(200, {"things": [{"name": thing} for thing in self.things], "total": len(self.things)})

    def state(self) -> dict[str, Any]:
        return {"things": self.things}

    def commands(self) -> Mapping[str, Command]:
        return {"rename": self.rename}

    def rename(self, old: str, new: str) -> str:
        self.things[self.things.index(old)] = new
        return new


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        yield shop


@pytest.fixture
def client(shop: Shop) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=shop.url, timeout=5, trust_env=False) as client:
        yield client


def buy(client: httpx.Client) -> httpx.Response:
    return client.post("/things", json={"name": "gpu"})


@pytest.mark.parametrize(
    ("kind", "status", "bought"),
    [
        (Kind.LOST, 500, 1),
        (Kind.REFUSED, 503, 0),
        (Kind.RATE_LIMITED, 429, 0),
        (Kind.GARBAGE, 201, 1),
        (Kind.DROPPED, None, 1),
        (Kind.TIMEOUT, None, 1),
        (Kind.STALLED, None, 0),
    ],
)
def test_a_fault_decides_what_is_answered_and_whether_the_work_is_done(
    shop: Shop, client: httpx.Client, kind: Kind, status: int | None, bought: int
) -> None:
    shop.faults.add(Fault(method="POST", path="^/things$", kind=kind))
    client.timeout = httpx.Timeout(5, read=0.3)
    if status is None:
        with pytest.raises(httpx.TransportError):
            buy(client)
    else:
        assert buy(client).status_code == status
    assert len(shop.things) == bought
    assert shop.calls[0].fault == kind.value
    assert buy(client).status_code == 201, "only the first call meets the fault"


def test_garbage_is_no_json_and_a_malformed_list_is_json_without_the_list(shop: Shop, client: httpx.Client) -> None:
    shop.faults.add(Fault(path="things", kind=Kind.GARBAGE), Fault(path="things", nth=2, kind=Kind.MALFORMED_LIST))
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        client.get("/things").json()
    assert client.get("/things").json() == {"things": None, "total": 0}


def test_too_many_requests_say_when_to_come_back(shop: Shop, client: httpx.Client) -> None:
    shop.faults.add(Fault(kind=Kind.RATE_LIMITED, retry_after_s=7))
    answer = client.get("/things")
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("kind", "bought"), [(Kind.KILL, 1), (Kind.KILL_BEFORE, 0)])
def test_a_caller_can_be_killed_in_the_middle_of_its_call(shop: Shop, kind: Kind, bought: int) -> None:
    shop.faults.add(Fault(method="POST", kind=kind))
    program = f"import httpx; httpx.post({shop.url + '/things'!r}, json={{'name': 'gpu'}}, trust_env=False)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert len(shop.things) == bought


def test_the_process_of_the_emulator_itself_is_never_killed(shop: Shop, client: httpx.Client) -> None:
    shop.faults.add(Fault(kind=Kind.KILL))
    with pytest.raises(httpx.TransportError):
        buy(client)
    assert "a process of its own" in shop.violations[0]
    assert buy(client).status_code == 201


def test_another_process_scripts_faults_and_commands_over_http(shop: Shop, client: httpx.Client) -> None:
    buy(client)
    assert client.post("/__emulator/rename", json={"old": "gpu", "new": "cpu"}).json() == "cpu"
    assert client.post("/__emulator/faults", json={"method": "GET", "kind": "lost", "status": 504}).status_code == 201
    assert client.get("/things").status_code == 504
    state = client.get("/__emulator/state").json()
    assert state["things"] == ["cpu"]
    assert [(call["method"], call["status"], call["fault"]) for call in state["calls"]] == [
        ("POST", 201, None),
        ("GET", 504, "lost"),
    ]
    assert state["faults"][0]["struck"] == 1
    client.delete("/__emulator/faults").raise_for_status()
    assert shop.faults.listed() == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("faults", {"kind": "no such kind"}, 400),
        ("faults", {"kind": "lost", "path": "("}, 400),
        ("rename", {"old": "gpu"}, 400),
        ("nothing", {}, 404),
    ],
)
def test_a_wrong_script_is_refused(client: httpx.Client, path: str, body: dict[str, str], status: int) -> None:
    assert client.post(f"/__emulator/{path}", json=body).status_code == status


def test_the_log_has_no_secrets(shop: Shop, client: httpx.Client) -> None:
    client.post("/things?api_key=q-secret", json={"name": "gpu", "env": {"HF_TOKEN": "b-secret", "PORT": "80"}})
    assert shop.calls[0].body == {"name": "gpu", "env": {"HF_TOKEN": "[secret]", "PORT": "80"}}
    assert "secret" not in str(shop.calls[0].query).replace("[secret]", "")


def test_an_emulator_that_fails_is_a_violation(shop: Shop, client: httpx.Client) -> None:
    assert client.get("/broken").status_code == 500
    assert "as told" in shop.violations[0]


def test_a_stream_arrives_in_its_order_and_the_connection_serves_on(client: httpx.Client) -> None:
    assert client.get("/stream").text == "abc"
    assert client.get("/things").status_code == 200


def test_a_closed_emulator_answers_nobody() -> None:
    with Shop() as shop, httpx.Client(base_url=shop.url, trust_env=False) as client:
        buy(client)
        shop.close()
        with pytest.raises(httpx.TransportError):
            buy(client)
        with pytest.raises(OSError), socket.create_connection(("127.0.0.1", shop.port), timeout=1):
            pass


@given(nth=st.integers(1, 5), times=st.integers(0, 3), calls=st.integers(0, 10))
def test_a_fault_strikes_from_its_nth_call_as_often_as_it_says(nth: int, times: int, calls: int) -> None:
    faults = Faults()
    faults.add(Fault(nth=nth, times=times, kind=Kind.LOST))
    struck = [index for index in range(1, calls + 1) if faults.take("GET", "/")]
    last = calls if times == 0 else min(calls, nth + times - 1)
    assert struck == list(range(nth, last + 1))
    assert faults.struck == len(struck)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_broken_body_is_never_json(value: Any) -> None:
    with pytest.raises(json.JSONDecodeError):
        json.loads(broken(json.dumps(value).encode()))


@given(st.dictionaries(st.sampled_from(["name", "env", "items"]), st.lists(st.text())))
def test_what_is_no_secret_stays_readable(value: dict[str, list[str]]) -> None:
    assert without_secrets(value) == value


# Contracts

DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {
        "/things/{id}": {
            "patch": {
                "parameters": [
                    {
                        "name": "fields",
                        "in": "query",
                        "explode": False,
                        "schema": {"$ref": "#/components/schemas/Fields"},
                    },
                    {"name": "depth", "in": "query", "required": True, "schema": {"type": "integer", "minimum": 1}},
                    {"name": "dry", "in": "query", "schema": {"type": "boolean"}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                },
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
                    "204": {},
                },
            }
        },
        "/things/all": {"get": {"responses": {"default": {"content": {"text/event-stream": {}}}}}},
    },
    "components": {
        "schemas": {
            "Fields": {"type": "array", "items": {"enum": ["name", "size"]}},
            "Thing": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string", "maxLength": 3}},
                "additionalProperties": False,
            },
        }
    },
}


@pytest.mark.parametrize(
    ("query", "body", "problems"),
    [
        ({"depth": ["1"], "fields": ["name,size"], "dry": ["true"], "other": ["x"]}, {"name": "gpu"}, []),
        ({"depth": ["0"]}, {"name": "gpu"}, ["query parameter depth: $: does not satisfy minimum 1"]),
        ({"depth": ["x"]}, {"name": "gpu"}, ['query parameter depth: $: does not satisfy type "integer"']),
        ({}, {"name": "gpu"}, ["query parameter depth is missing"]),
        (
            {"depth": ["1"], "dry": ["maybe"]},
            {"name": "gpu"},
            ['query parameter dry: $: does not satisfy type "boolean"'],
        ),
        (
            {"depth": ["1"], "fields": ["name,colour"]},
            {"name": "gpu"},
            ['query parameter fields: $[1]: does not satisfy enum ["name", "size"]'],
        ),
        ({"depth": ["1"]}, None, ["the body is missing"]),
        ({"depth": ["1"]}, {}, ["$: 'name' is a required property"]),
        ({"depth": ["1"]}, {"name": "secret"}, ["$.name: does not satisfy maxLength 3"]),
    ],
)
def test_a_request_is_judged_by_the_contract_and_its_values_are_not_repeated(
    query: dict[str, list[str]], body: Any, problems: list[str]
) -> None:
    assert Contract(DOCUMENT).request_problems("PATCH", "/things/7", query, body) == problems


@pytest.mark.parametrize(
    ("status", "kind", "body", "problem"),
    [
        (200, "application/json", b'{"name": "gpu"}', None),
        (200, "application/json; charset=utf-8", b'{"name": 1}', '$.name: does not satisfy type "string"'),
        (200, "text/html", b"", "content type 'text/html', not application/json"),
        (204, "", b"", None),
        (204, "", b"{}", "a body where the contract has none"),
        (404, "application/json", b"{}", "status 404 is not in the contract"),
    ],
)
def test_an_answer_is_judged_by_the_contract(status: int, kind: str, body: bytes, problem: str | None) -> None:
    found = Contract(DOCUMENT).response_problems("PATCH", "/things/7", status, kind, body)
    assert found == ([problem] if problem else [])


def test_a_path_without_parameters_wins() -> None:
    judge = Contract(DOCUMENT)
    assert judge.allowed("/things/all") == ["GET"]
    assert judge.allowed("/things/7/") == ["PATCH"]
    assert not judge.knows("GET", "/things/7")
    assert judge.response_problems("GET", "/things/all", 500, "text/event-stream", b"data: 1") == []


def test_a_missing_contract_is_an_error_in_ci_and_nothing_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert contract("no-such-vendor.json") is None
    monkeypatch.setenv("CI", "true")
    with pytest.raises(FileNotFoundError):
        contract("no-such-vendor.json")
