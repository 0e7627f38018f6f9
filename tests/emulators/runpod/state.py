"""What the emulated account holds: pods, endpoints with their workers, volumes; each with its state and its cost.

Plain data with the rules that need nothing else. `now` is the emulator's clock, in seconds since the epoch; it moves
with the machine's and can be put forward, so delays here take no time in a test.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from .catalog import (
    CPUS,
    DISK_GB_MONTH,
    GPUS,
    HOURS_PER_MONTH,
    NETWORK_VOLUME_GB_MONTH,
    STOPPED_VOLUME_GB_MONTH,
    VOLUME_GB_MONTH,
    Stock,
)

Status = Literal["PROVISIONING", "STARTING", "RUNNING", "EXITED", "ERROR", "TERMINATED"]
ACTIONS: dict[str, list[str]] = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
    "TERMINATED": [],
}


class Container(BaseModel):
    """What runs, for pods and endpoints alike."""

    image: str = ""
    args: str = ""
    disk: int = 20
    env: dict[str, str] = {}
    ports: list[str] = []
    registry: str | None = None

    def http_ports(self) -> set[int]:
        """The ports that the proxy leads to."""
        return {int(port.partition("/")[0]) for port in self.ports if port.endswith("/http")}


class Boot(BaseModel):
    """How the next container of a matching image or name starts: its delays, and what goes wrong.

    `log` is what it prints first, a line every `line_s` seconds. A container that is `broken` never listens; one that
    `exits` has ended, and its pod with it, as soon as it started.
    """

    model_config = ConfigDict(extra="forbid")

    matches: str = ""
    provision_s: float = 0
    start_s: float = 0
    log: list[str] = []
    line_s: float = 0
    broken: bool = False
    exits: bool = False

    def suits(self, *texts: str) -> bool:
        return any(re.search(self.matches, text) for text in texts)

    @property
    def delay_s(self) -> float:
        return self.provision_s + self.start_s


class Shown(BaseModel):
    """What has an id and a name, and comes into lists late and goes late."""

    id: str
    name: str
    created_at: float
    hidden_lists: int = 0
    """Lists from which it is still missing."""
    lingers: int | None = None
    """Once deleted: reads that still find it. None while it exists."""


class Gpu(BaseModel):
    """A pod's GPUs."""

    id: str
    count: int = 1


class Cpu(BaseModel):
    """A pod's or a worker's processors."""

    id: str
    vcpuCount: int  # noqa: N815


class Pod(Shown):
    """A pod, placed on a host."""

    container: Container
    gpu: Gpu | None = None
    cpu: Cpu | None = None
    cloud: Literal["SECURE", "COMMUNITY"] = "SECURE"
    data_center: str
    cuda: str | None = None
    mounts: dict[str, Any] = {}
    locked: bool = False
    global_networking: bool = False
    boot: Boot = Boot()
    boots: int = 1
    booted_at: float
    stopped: bool = False
    surcharge: Decimal = Decimal(1)

    def status(self, now: float) -> Status:
        if self.lingers is not None:
            return "TERMINATED"
        if self.stopped:
            return "EXITED"
        if now < self.booted_at + self.boot.provision_s:
            return "PROVISIONING"
        if now < self.booted_at + self.boot.delay_s:
            return "STARTING"
        return "EXITED" if self.boot.exits else "RUNNING"

    def start(self, now: float, boot: Boot) -> None:
        """A new container, on the same host: the way of `start`, `restart` and of every change of the container."""
        self.stopped, self.booted_at, self.boot, self.boots = False, now, boot, self.boots + 1

    @property
    def run(self) -> str:
        """Name of the container that runs now."""
        return f"{self.id}-{self.boots}"

    def cost(self, now: float) -> Decimal:
        """USD an hour as the API answers it: nothing once stopped, though the disk goes on billing."""
        return self.hourly(now) if self.status(now) not in {"EXITED", "TERMINATED"} else Decimal(0)

    def hourly(self, now: float) -> Decimal:
        """USD an hour as it is billed."""
        volume = Decimal(self.mounts.get("persistent", {}).get("size", 0))
        if self.status(now) == "TERMINATED":
            return Decimal(0)
        if self.status(now) == "EXITED":
            return volume * STOPPED_VOLUME_GB_MONTH / HOURS_PER_MONTH
        disks = (self.container.disk * DISK_GB_MONTH + volume * VOLUME_GB_MONTH) / HOURS_PER_MONTH
        if self.cpu:
            return CPUS[self.cpu.id].secure * self.cpu.vcpuCount + disks
        assert self.gpu
        rates = GPUS[self.gpu.id]
        rate = rates.secure if self.cloud == "SECURE" else rates.community
        return rate * self.gpu.count * self.surcharge + disks


class EndpointGpu(BaseModel):
    """Where an endpoint's workers may run."""

    pools: list[str] = []
    excludedTypes: list[str] = []  # noqa: N815
    count: int = 1
    allowedCudaVersions: list[str] = []  # noqa: N815
    minCudaVersion: str | None = None  # noqa: N815

    def types(self) -> list[str]:
        """GPU types in the order of the pools."""
        return [
            gpu.id
            for pool in self.pools
            for gpu in GPUS.values()
            if gpu.pool == pool and gpu.id not in self.excludedTypes
        ]


class Worker(BaseModel):
    """One worker; without a place it is throttled. `container` is as of its `version` of the endpoint."""

    id: str
    version: int
    container: Container
    gpu: str | None = None
    data_center: str | None = None
    boot: Boot = Boot()
    started_at: float
    used_at: float
    busy: int = 0


class Release(BaseModel):
    """One version of an endpoint's container."""

    id: str
    version: int
    created_at: float
    diff: list[dict[str, Any]]


class Endpoint(Shown):
    """A serverless endpoint."""

    type: Literal["QUEUE", "LOAD_BALANCER"]
    container: Container
    gpu: EndpointGpu | None = None
    cpu: list[Cpu] = []
    min: int = 0
    max: int = 3
    idle_timeout: int = 10
    scaling: dict[str, Any]
    data_centers: list[str] = []
    volumes: list[str] = []
    timeout: int = 0
    flashboot: Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"] = "OFF"
    version: int = 1
    releases: list[Release] = []
    workers: list[Worker] = []
    completed: int = 0
    failed: int = 0

    @property
    def takes_idle_timeout(self) -> bool:
        return self.type == "LOAD_BALANCER" or self.scaling["type"] == "QUEUE_DELAY"

    def release(self, id: str, now: float, diff: list[dict[str, Any]]) -> None:
        """A new version of the container."""
        self.version += 1
        self.releases.append(Release(id=id, version=self.version, created_at=now, diff=diff))

    def hourly(self) -> Decimal:
        """USD an hour for the workers that are there now, idle ones too."""
        return sum((self._rate(worker) for worker in self.workers), Decimal(0))

    def _rate(self, worker: Worker) -> Decimal:
        if worker.gpu and self.gpu:
            return (GPUS[worker.gpu].serverless or Decimal(0)) * self.gpu.count
        if self.cpu and worker.data_center:
            return CPUS[self.cpu[0].id].serverless * self.cpu[0].vcpuCount
        return Decimal(0)


class Volume(Shown):
    """A network volume."""

    size: int
    data_center: str
    type: Literal["STANDARD", "HIGH_PERFORMANCE"] = "STANDARD"

    def hourly(self) -> Decimal:
        return self.size * NETWORK_VOLUME_GB_MONTH / HOURS_PER_MONTH


class Named(Shown):
    """A registry credential, or a secret of the account; `value` is what the API never answers."""

    value: str = ""


class Account(BaseModel):
    """One account. `spent` is USD since the start, accrued until `accrued_at`.

    `caller_keys` may send requests to endpoints and nothing else. The settings below `boots` say what RunPod does
    that its documents leave open, or that others have met: `list_lag` lists miss what is new, `delete_lag` reads find
    what is deleted, `ignored_deletes` are answered with 204 and not carried out, pods cost `surcharge` times their
    list price.
    """

    key: str
    caller_keys: list[str] = []
    balance: Decimal = Decimal(100)
    spent: Decimal = Decimal(0)
    accrued_at: float
    ahead_s: float = 0
    ids: int = 0
    pods: dict[str, Pod] = {}
    endpoints: dict[str, Endpoint] = {}
    volumes: dict[str, Volume] = {}
    registries: dict[str, Named] = {}
    secrets: dict[str, Named] = {}
    boots: list[Boot] = []
    stock: Stock = Stock()
    forbidden_pools: list[str] = []
    has_secrets_api: bool = False
    list_lag: int = 1
    delete_lag: int = 1
    ignored_deletes: int = 0
    page_size: int = 2
    fb_suffix: bool = True
    lb_forwards_bearer: bool = True
    surcharge: Decimal = Decimal(1)

    def new_id(self, length: int = 14) -> str:
        self.ids += 1
        return hashlib.blake2b(f"runpod/{self.ids}".encode()).hexdigest()[:length]

    def boot_for(self, *texts: str) -> Boot:
        """The last script that suits the image or the name; an immediate start where none does."""
        return next((boot for boot in reversed(self.boots) if boot.suits(*texts)), Boot())

    def everything(self) -> Iterator[Shown]:
        for shelf in (self.pods, self.endpoints, self.volumes, self.registries, self.secrets):
            yield from shelf.values()

    def hourly(self, now: float) -> dict[str, Decimal]:
        """USD an hour of each thing that bills."""
        rates = {pod.id: pod.hourly(now) for pod in self.pods.values()}
        rates |= {endpoint.id: endpoint.hourly() for endpoint in self.endpoints.values() if endpoint.lingers is None}
        rates |= {volume.id: volume.hourly() for volume in self.volumes.values() if volume.lingers is None}
        return {id: rate for id, rate in rates.items() if rate}

    def accrue(self, now: float) -> None:
        """Bill the time since the last call."""
        hours = Decimal(str(max(now - self.accrued_at, 0))) / 3600
        amount = sum(self.hourly(now).values(), Decimal(0)) * hours
        self.spent, self.balance, self.accrued_at = self.spent + amount, self.balance - amount, now

    def env_of(self, container: Container) -> dict[str, str]:
        """The environment inside the container: references to secrets become their values, unknown ones stay."""
        values = {secret.name: secret.value for secret in self.secrets.values() if secret.lingers is None}
        return {
            name: re.sub(r"\{\{\s*RUNPOD_SECRET_(\w+)\s*\}\}", lambda found: values.get(found[1], found[0]), text)
            for name, text in container.env.items()
        }
