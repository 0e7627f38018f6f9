"""Lambda Cloud on loopback: its API with scripted faults, and instances that do what cloud-init would have them do.

An instance has an address of its own in 127.0.0.0/8, on which the real door (`providers/lambda_cloud/data`) listens
and, once that was handed the secrets, llama.cpp behind the real start script. Lambda itself has seen none of it.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .containers import Containers
from .http import Command, Emulator, Request, Response, json_response

REGIONS = {
    "europe-central-1": "Germany",
    "us-east-1": "Virginia, USA",
    "us-south-1": "Texas, USA",
    "us-west-1": "California, USA",
}
TYPES: dict[str, tuple[int, tuple[str, ...]]] = {
    "gpu_1x_a6000": (109, ()),
    "gpu_1x_a10": (129, ("us-west-1", "europe-central-1")),
    "gpu_1x_h100_pcie": (329, ("europe-central-1",)),
    "gpu_1x_gh200": (229, ("us-east-1",)),
}
"""Instance type -> cents an hour, and the regions that have it."""
_TAG = re.compile(r"[a-z][a-z0-9-:]+")
_PORTS = (8000, 8001)


@dataclass
class Instance:
    """One rented instance. `seen` counts the answers about it since it was launched."""

    id: str
    body: dict[str, Any] = field(repr=False)
    ip: str
    status: str = "booting"
    seen: int = 0
    machine: Machine | None = None


class LambdaEmulator(Emulator):
    """The cloud. With a `folder`, instances boot; without, they are active and nothing answers at their address.

    `polls` is how often an instance is asked for before it is active, and before it is gone. Set `types` to change
    stock and prices.
    """

    def __init__(self, folder: Path | None = None, *, polls: int = 1) -> None:
        self.key, self.polls, self.folder = "lambda-key-for-tests", polls, folder
        self.containers = Containers(folder / "containers") if folder else None
        self.types = dict(TYPES)
        self.instances: dict[str, Instance] = {}
        self.rulesets: dict[str, dict[str, Any]] = {}
        self.ssh_keys: dict[str, str] = {"mine": "ssh-ed25519 AAAA"}
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        super().__init__()

    def env(self) -> dict[str, str]:
        """The environment that sends the provider here."""
        return {"LAMBDA_API_KEY": self.key, "VLLM_ANYWHERE_LAMBDA_URL": f"{self.url}/api/v1"}

    def close(self) -> None:
        super().close()
        for one in self.instances.values():
            self._halt(one)
        if self.containers is not None:
            self.containers.close()

    def answer(self, request: Request) -> Response:
        with self._lock:
            if request.bearer != self.key:
                return _error(401, "global/invalid-api-key", "API key was invalid, expired, or deleted.")
            body = request.json()
            match request.method, request.path.removeprefix("/api/v1/").split("/"):
                case "GET", ["instance-types"]:
                    return _data({name: self._type_shown(name) for name in self.types})
                case "POST", ["instance-operations", "launch"]:
                    return self._launch(body)
                case "POST", ["instance-operations", "terminate"]:
                    return self._terminate(body["instance_ids"])
                case "GET", ["instances"]:
                    return _data([self._shown(one) for one in list(self.instances.values())])
                case "GET", ["instances", id]:
                    return self._get(id)
                case "GET", ["ssh-keys"]:
                    return _data([{"id": name, "name": name, "public_key": key} for name, key in self.ssh_keys.items()])
                case "POST", ["ssh-keys"]:
                    return self._add_key(body)
                case method, ["firewall-rulesets", *rest]:
                    return self._ruleset(method, rest, body)
                case _:
                    return _error(404, "", "no such path")

    def _launch(self, body: dict[str, Any]) -> Response:
        region, name = body["region_name"], body["instance_type_name"]
        if name not in self.types or any(key not in self.ssh_keys for key in body["ssh_key_names"]):
            return _error(404, "global/object-does-not-exist", "Specified object does not exist.")
        wrong = [tag for tag in body.get("tags", []) if not _TAG.fullmatch(tag["key"]) or len(tag["value"]) > 128]
        if wrong or len(body["ssh_key_names"]) != 1 or len(body.get("name", "")) > 64:
            return _error(400, "global/invalid-parameters", "Invalid request data.")
        if region not in self.types[name][1]:
            code = "instance-operations/launch/insufficient-capacity"
            return _error(400, code, "Not enough capacity to fulfill launch request.")
        for rules in body.get("firewall_rulesets", []):
            if self.rulesets[rules["id"]]["region"]["name"] != region:
                return _error(400, "global/invalid-parameters", "The ruleset is in another region.")
        made = Instance(f"{next(self._numbers):032x}", body, _free_address())
        self.instances[made.id] = made
        return _data({"instance_ids": [made.id]})

    def _get(self, id: str) -> Response:
        one = self.instances.get(id)
        if one is None:
            return _error(404, "global/object-does-not-exist", "Specified instance does not exist.")
        one.seen += 1
        if one.seen >= self.polls and one.status == "booting":
            one.status = "active"
            if self.folder is not None and self.containers is not None:
                one.machine = Machine(self.folder / one.id, one.body["user_data"], one.ip, self.containers, one.id)
        if one.seen > self.polls and one.status == "terminating":
            del self.instances[id]
            return _error(404, "global/object-does-not-exist", "Specified instance does not exist.")
        return _data(self._shown(one))

    def _terminate(self, ids: list[str]) -> Response:
        found = [one for id in ids if (one := self.instances.get(id)) is not None]
        if not found:
            return _error(404, "global/object-does-not-exist", "Specified instance does not exist.")
        for one in found:
            self._halt(one)
            one.status, one.seen = "terminating", 0
        return _data({"terminated_instances": [self._shown(one) for one in found]})

    def _ruleset(self, method: str, rest: list[str], body: Any) -> Response:
        found = self.rulesets.get(rest[0]) if rest else None
        match method, rest:
            case "GET", []:
                return _data(list(self.rulesets.values()))
            case "POST", []:
                if any(one["name"] == body["name"] for one in self.rulesets.values()):
                    return _error(409, "global/duplicate", "A ruleset of that name exists.")
                id = f"fw-{next(self._numbers)}"
                region = {"name": body["region"], "description": REGIONS[body["region"]]}
                told = {"created": "2026-11-21T12:00:00Z", "instance_ids": []}
                self.rulesets[id] = {"id": id, "name": body["name"], "region": region, "rules": body["rules"], **told}
                return _data(self.rulesets[id])
            case _ if found is None:
                return _error(404, "global/object-does-not-exist", "Specified firewall ruleset does not exist.")
            case "GET", _:
                return _data(found)
            case "DELETE", [id]:
                used = [{"id": id} in one.body.get("firewall_rulesets", []) for one in self.instances.values()]
                if any(used):
                    return _error(409, "firewall-rulesets/firewall-ruleset-in-use", "The ruleset is in use.")
                del self.rulesets[id]
                return _data({})
            case _:
                return _error(405, "", "not allowed")

    def _add_key(self, body: dict[str, Any]) -> Response:
        if body["name"] in self.ssh_keys:
            return _error(400, "global/duplicate", "An SSH key of that name exists.")
        self.ssh_keys[body["name"]] = body["public_key"]
        return _data({"id": body["name"], **body})

    def _type_shown(self, name: str) -> dict[str, Any]:
        cents, regions = self.types[name]
        shown = {"name": name, "description": name, "gpu_description": name, "price_cents_per_hour": cents}
        specs = {"vcpus": 30, "memory_gib": 200, "storage_gib": 1400, "gpus": 1}
        places = [{"name": region, "description": REGIONS[region]} for region in regions]
        return {"instance_type": {**shown, "specs": specs}, "regions_with_capacity_available": places}

    def _shown(self, one: Instance) -> dict[str, Any]:
        region = one.body["region_name"]
        can = {"available": True}
        return {
            "id": one.id,
            "name": one.body.get("name"),
            "status": one.status,
            **({"ip": one.ip} if one.status == "active" else {}),
            "ssh_key_names": one.body["ssh_key_names"],
            "file_system_names": [],
            "region": {"name": region, "description": REGIONS[region]},
            "instance_type": self._type_shown(one.body["instance_type_name"])["instance_type"],
            "actions": dict.fromkeys(("migrate", "rebuild", "restart", "cold_reboot", "terminate"), can),
            "jupyter_token": "never-log-this",
            "tags": one.body.get("tags", []),
            "firewall_rulesets": one.body.get("firewall_rulesets", []),
        }

    @staticmethod
    def _halt(one: Instance) -> None:
        if one.machine is not None:
            one.machine.halt()
            one.machine = None

    def state(self) -> dict[str, Any]:
        with self._lock:
            return {
                "instances": [self._shown(one) for one in self.instances.values()],
                "rulesets": list(self.rulesets.values()),
                "ssh_keys": sorted(self.ssh_keys),
            }

    def commands(self) -> Mapping[str, Command]:
        return {"become": self.become}

    def become(self, id: str, status: str) -> None:
        """The instance shows another status, such as `unhealthy`, or is `gone`."""
        with self._lock:
            one = self.instances[id]
            self._halt(one)
            one.status = status
            if status == "gone":
                del self.instances[id]


class Machine:
    """What cloud-init makes of an instance: files in a folder of its own, the door, and then the container.

    `serve.sh` is not run: where it waits for the secrets and starts Docker, this does, with a container of ours.
    """

    def __init__(self, folder: Path, user_data: str, ip: str, containers: Containers, name: str) -> None:
        head, _, text = user_data.partition("\n")
        if head != "#cloud-config":
            raise ValueError("the user data is no cloud-config")
        config = json.loads(text)
        for one in config["write_files"]:
            file = folder / one["path"].lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(one["content"])
            file.chmod(int(one["permissions"], 8))
        self._folder, self._ip, self._containers, self._name = folder, ip, containers, name
        self._ended = threading.Event()
        journal = folder / "bin" / "journalctl"
        journal.parent.mkdir()
        journal.write_text(f"#!/bin/sh\necho 'vllm-anywhere: starting the server'\ncat {folder}/log 2>/dev/null\n")
        journal.chmod(0o755)
        env = {"PATH": f"{journal.parent}:{os.environ['PATH']}", "VLLM_ANYWHERE_ROOT": str(folder)}
        program = folder / "etc/vllm-anywhere/door.py"
        self._door = subprocess.Popen([sys.executable, program], env={**env, "VLLM_ANYWHERE_DOOR_HOST": ip})
        threading.Thread(target=self._serve, daemon=True).start()

    def halt(self) -> None:
        self._ended.set()
        self._door.kill()
        self._door.wait()
        self._containers.stop(self._name)

    def _serve(self) -> None:
        var = self._folder / "var/lib/vllm-anywhere"
        while not ((var / "env").exists() and (var / "keys/keys").exists()):
            if self._ended.wait(0.05):
                return
        lines = (line.partition("=") for line in (var / "env").read_text().splitlines())
        env = {name: value for name, _, value in lines} | {"ANYWHERE_KEYS": str(var / "keys/keys")}
        script = (self._folder / "etc/vllm-anywhere/start.sh").read_text()
        self._containers.start(self._name, script, env, self._ip, 8000)


def _free_address() -> str:
    """An address of this machine on which nobody serves: other tests' instances have theirs."""
    for _ in range(20):
        ip = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        try:
            for port in _PORTS:
                socket.create_server((ip, port)).close()
        except OSError:
            continue
        return ip
    raise RuntimeError(f"no address of this machine has the ports {_PORTS} free: something serves them on all")


def _data(value: Any) -> Response:
    return json_response(200, {"data": value})


def _error(status: int, code: str, message: str) -> Response:
    return json_response(status, {"error": {"code": code, "message": message} if code else {"message": message}})
