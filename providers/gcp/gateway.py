"""A gateway on a small VM of its own: the same network, address, certificate, secrets and identity as a server's.

What it is in front of, with the keys, is one secret, so that a change of it is a new version of that secret and no new
VM: the VM looks for one every half a minute, as it does for rotated keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from providers.base import KEY, PREVIOUS_KEY, ConfigSecret, Declared, Ref, Text
from providers.gcp.boot import Slots, data
from providers.gcp.options import GcpOptions
from providers.gcp.stack import KEY_DELAY_S, PORT, Maker, Place, endpoint, run
from serving.gateway_proxy import SOURCES
from serving.gateway_vm import DISK_GB, GatewayVm
from serving.guard import API_KEY
from serving.guard import PREVIOUS_KEY as PREVIOUS_VARIABLE
from serving.spec import DeploymentSpec, HardwareSpec, ModelSpec
from serving.start import TLS_CERT, TLS_KEY
from serving.tables import data_text

IMAGE = "projects/ubuntu-os-cloud/global/images/family/ubuntu-2404-lts-amd64"
WANTED = "ANYWHERE_GATEWAY"
"""The line of the VM's secrets that says what the gateway is in front of."""

_KEYS, _TLS, _WANTED = "api-key-secret", "tls-key-secret", "gateway-secret"


def gateway_spec(model: str) -> DeploymentSpec:
    """What a gateway's VM is, in the terms of a deployment."""
    return DeploymentSpec(model=ModelSpec(served_name=model), hardware=HardwareSpec(disk_gb=DISK_GB))


def gateway_declared(asked: GatewayVm, model: str, wanted: Any) -> Declared:
    """What a gateway on a VM consists of.

    `wanted` is the JSON object with `config`, `rule`, `ca_pem` and `keys`, as a secret output of the program's.
    """
    options = GcpOptions(
        project=asked.project,
        zones=(asked.zone,),
        image=IMAGE,
        network=asked.network,
        allow=asked.allow,
        ssh=asked.ssh,
        enable_apis=asked.enable_apis,
        cloud_logging=False,
    )
    place = Place(asked.machine_type, asked.region, options.zones)
    made = _Gateway(gateway_spec(model), options, place, wanted=wanted)
    return Declared(
        resources=(
            made.name(),
            *made.apis(),
            *made.network(),
            *made.identity(),
            *made.secrets(),
            *made.instance(),
        ),
        server="server",
        endpoint=endpoint(options),
        run=run(options),
        model=model,
        hardware=f"{asked.machine_type}, {asked.zone}",
        ca=Ref("tls", "caPem"),
        key_delay_s=KEY_DELAY_S,
    )


@dataclass(frozen=True)
class _Gateway(Maker):
    wanted: Any = None

    def _stored(self) -> dict[str, tuple[str, Ref | Text | ConfigSecret]]:
        return {
            _KEYS: ("", Text(f"{API_KEY}={{}}\n{PREVIOUS_VARIABLE}={{}}", (KEY, PREVIOUS_KEY))),
            _TLS: (TLS_KEY, Ref("tls", "keyPem")),
            _WANTED: (WANTED, self.wanted),
        }

    def _before_server(self) -> tuple[str, ...]:
        return (*super()._before_server(), f"{_WANTED}-version")

    def _scheduling(self) -> Mapping[str, Any]:
        return {
            "on_host_maintenance": "MIGRATE",
            "automatic_restart": True,
            "provisioning_model": "STANDARD",
            "preemptible": False,
        }

    def _startup(self) -> Text:
        slot = Slots()
        sources = (
            f"={slot(Ref(_KEYS, 'id'))}/versions/latest",
            f"{WANTED}={slot(Ref(_WANTED, 'id'))}/versions/latest",
            f"{TLS_KEY}={slot(Ref(f'{_TLS}-version', 'name'))}",
            f"{TLS_CERT}=@tls.pem",
        )
        parts = {
            "settings": f"SECRETS=({' '.join(sources)})\nPORT={PORT}",
            "constraints": (Path(__file__).resolve().parents[2] / "constraints-gateway.txt").read_text(
                encoding="utf-8"
            ),
            "certificate": slot(Ref("tls", "certPem")),
            "fetch_py": data("fetch.py"),
            "gateway_sh": data("gateway.sh"),
            "keys_sh": data("keys.sh"),
            "gateway_vm_py": data("gateway_vm.py"),
            "holder_py": files("providers.gateway").joinpath("holder.py").read_text(encoding="utf-8"),
            **{name.replace(".", "_"): data_text(name) for name in SOURCES},
            "gateway_unit": data("vllm-anywhere-gateway.service"),
            "keys_unit": data("vllm-anywhere-keys.service").replace("vLLM's guard", "the guard"),
        }
        return slot.script(parts, "gateway-startup.sh")
