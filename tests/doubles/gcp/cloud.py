"""The double's cloud: a folder with what exists, what was asked for, and the faults to come."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

VARIABLE = "PULUMI_GCP_DOUBLE"
"""Environment variable: the folder of the cloud that a plugin works on."""
BIN = Path(__file__).parent / "bin"
"""For PATH: the Google Cloud plugin that Pulumi is to find."""


class Faults(BaseModel):
    """What goes wrong, and where. All of it lasts until it is written anew, but for what says once."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stockout: dict[str, tuple[str, ...]] = {}
    """Zones without capacity for any machine, each with the zones that the answer then recommends."""
    quotas: dict[str, int] = {}
    """GPU limits: `GPUS_ALL_REGIONS`, or metric and region as in `NVIDIA_T4_GPUS/europe-west4`. None: no limit."""
    disabled_apis: tuple[str, ...] = ()
    """Services that are off until a `gcp.projects.Service` turns them on: `compute.googleapis.com`."""
    denied: tuple[str, ...] = ()
    """Permissions that the caller lacks: `compute.instances.create`."""
    billing_disabled: bool = False
    no_credentials: bool = False
    preempted: tuple[str, ...] = ()
    """Spot VMs by name that Google takes away before the next read. Once."""
    deleted: tuple[str, ...] = ()
    """Ids of what somebody deletes before the next read. Once."""
    timed_out: tuple[str, ...] = ()
    """VMs by name whose creation is not seen to end, though it does. Once."""


@dataclass
class Record:
    """One thing that exists. `inputs` are wire names as last applied; `outputs` hold everything that can be read."""

    token: str
    id: str
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    secret: list[str] = field(default_factory=list)
    """Top-level inputs that came as secrets."""
    hidden: dict[str, Any] = field(default_factory=dict)
    """What Google knows and no output shows."""

    @property
    def kind(self) -> str:
        return self.token.rsplit(":", 1)[-1]

    @property
    def name(self) -> str:
        return str(self.outputs.get("name", ""))


class Cloud:
    """The folder. `owned` by a test: everything in it that runs ends with the process that said so."""

    def __init__(self, folder: Path, *, owned: bool = False) -> None:
        self.folder = folder
        self._records = folder / "resources"
        self._records.mkdir(parents=True, exist_ok=True)
        if owned:
            (folder / "owner").write_text(str(os.getpid()))

    @contextmanager
    def lock(self) -> Generator[None]:
        """Changes are made under this lock, reads need none."""
        with (self.folder / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @property
    def owner_lives(self) -> bool:
        """Whether the process that owns the cloud, if one does, still runs."""
        try:
            return Path("/proc", (self.folder / "owner").read_text()).exists()
        except FileNotFoundError:
            return self.folder.exists()

    # What exists.

    def get(self, id: str, kind: str = "") -> Record | None:
        return next((each for each in self.all(kind) if each.id == id), None)

    def all(self, kind: str = "") -> list[Record]:
        """Everything of a kind, by the last word of its type; `""` for all kinds."""
        found: list[Record] = []
        for path in sorted(self._records.glob(f"{kind or '*'}-*.json")):
            try:
                found.append(Record(**json.loads(path.read_text())))
            except FileNotFoundError:
                continue
        return found

    def named(self, name: str, kind: str = "Instance") -> Record | None:
        return next((each for each in self.all(kind) if each.name == name), None)

    def put(self, record: Record) -> None:
        _write(self._path(record), json.dumps(asdict(record), indent=1))

    def drop(self, record: Record) -> None:
        self._path(record).unlink(missing_ok=True)

    def _path(self, record: Record) -> Path:
        return self._records / f"{record.kind}-{hashlib.sha256(record.id.encode()).hexdigest()[:16]}.json"

    # What was asked for.

    def log(self, call: str, token: str, **details: Any) -> None:
        line = json.dumps({"call": call, "type": token, **details})
        with (self.folder / "requests.jsonl").open("a") as file:
            file.write(f"{line}\n")

    def requests(self, call: str = "", kind: str = "") -> list[dict[str, Any]]:
        """The calls so far in their order: `call`, `type`, `urn`, and `inputs` with secrets as `[secret]`."""
        try:
            lines = (self.folder / "requests.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        asked = [json.loads(line) for line in lines]
        kinds = f":{kind}" if kind else ""
        return [each for each in asked if each["call"].startswith(call) and each["type"].endswith(kinds)]

    # What goes wrong.

    def faults(self) -> Faults:
        try:
            return Faults.model_validate_json((self.folder / "faults.json").read_text())
        except FileNotFoundError:
            return Faults()

    def fail(self, **faults: Any) -> None:
        """Set the faults named, and leave the others as they are."""
        with self.lock():
            self.write_faults(Faults(**{**self.faults().model_dump(), **faults}))

    def write_faults(self, faults: Faults) -> None:
        _write(self.folder / "faults.json", faults.model_dump_json(indent=1))

    # The project.

    def number(self, project: str) -> str:
        """The project's number, as Secret Manager has it in names."""
        return str(10**11 + int(hashlib.sha256(project.encode()).hexdigest()[:9], 16))

    def address(self) -> str:
        """A free address of its own: of this machine, and of no other cloud but by a chance of one in millions."""
        taken = {text for each in self.all() for text in _addresses(each.outputs)}
        while True:
            found = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(2, 254)}"
            if found not in taken:
                return found

    # For tests: what happens outside of Pulumi.

    def preempt(self, name: str) -> None:
        """Google takes a Spot VM away now."""
        self._with(name, "preempt")

    def stop(self, name: str) -> None:
        """Somebody stops a VM in the console."""
        self._with(name, "stop")

    def delete(self, name: str) -> None:
        """Somebody deletes a VM in the console."""
        self._with(name, "delete")

    def outlive(self, name: str) -> None:
        """The time that a VM may run is over."""
        record = self.named(name)
        assert record and record.inputs["scheduling"]["maxRunDuration"], f"{name} may run for ever"
        self._with(name, record.inputs["scheduling"]["instanceTerminationAction"].lower())

    def expire(self) -> None:
        """A quarter of an hour passes: what was reserved is free again."""
        with self.lock():
            for each in self.all("Reservation"):
                self.drop(each)

    def serial(self, name: str) -> str:
        """What a VM has written to its serial port."""
        return (self.folder / "vms" / name / "serial.log").read_text(errors="replace")

    def close(self, patience_s: float = 20.0) -> None:
        """End everything that runs, and return when it has."""
        with self.lock():
            for each in self.all():
                self.drop(each)
        deadline = time.monotonic() + patience_s
        while any(_held(lock) for lock in self.folder.glob("vms/*/lock")):
            assert time.monotonic() < deadline, f"a VM of {self.folder} does not end"
            time.sleep(0.05)

    def _with(self, name: str, action: str) -> None:
        from tests.doubles.gcp import machines

        with self.lock():
            record = self.named(name)
            assert record, f"there is no VM {name}"
            getattr(machines, action)(self, record)


def _held(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _addresses(value: Any) -> Generator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _addresses(each)
    elif isinstance(value, list):
        for each in value:
            yield from _addresses(each)
    elif isinstance(value, str) and value.startswith("127."):
        yield value


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
