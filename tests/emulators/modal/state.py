"""What the emulated workspace holds: apps with their functions and containers, volumes, secrets, mounts. Plain data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from modal_proto import api_pb2

from ..runpod.state import Boot

GPUS = frozenset(
    {"T4", "L4", "A10", "A10G", "L40S", "A100", "A100-40GB", "A100-80GB", "H100", "H200", "B200", "RTX-PRO-6000"}
)
REGIONS = frozenset(
    {
        *("us", "eu", "ap", "uk", "ca", "me", "sa", "af", "mx", "jp", "au", "eu-west", "eu-north", "eu-south"),
        *("us-east", "us-central", "us-south", "us-west", "ap-northeast", "ap-southeast", "ap-south", "ap-melbourne"),
    }
)


class Refused(Exception):
    """What the control plane answers with an error status; `status` is a name of `grpclib.const.Status`."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Task:
    """One container. `run` names its process; `busy` counts the requests that are being answered."""

    run: str
    app_id: str
    version: int
    definition: api_pb2.Function
    created_at: float
    boot: Boot
    used_at: float = 0.0
    busy: int = 0


@dataclass
class Function:
    """A function of an app: `ranked` are its definitions, one a GPU of the fallback list."""

    id: str
    name: str
    ranked: list[api_pb2.Function]
    override: api_pb2.AutoscalerSettings | None = None

    @property
    def settings(self) -> api_pb2.AutoscalerSettings:
        settings = api_pb2.AutoscalerSettings()
        settings.CopyFrom(self.ranked[0].autoscaler_settings)
        if self.override is not None:
            settings.MergeFrom(self.override)
        return settings


@dataclass
class App:
    """One app. `drafted` are functions that were created and not published yet."""

    id: str
    name: str
    environment: str
    created_at: float
    tags: dict[str, str] = field(default_factory=dict[str, str])
    state: int = api_pb2.APP_STATE_INITIALIZING
    version: int = 0
    deployed_at: float = 0.0
    stopped_at: float = 0.0
    published: bytes = b""
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    drafted: dict[str, Function] = field(default_factory=dict[str, Function])
    tasks: list[Task] = field(default_factory=list[Task])

    @property
    def live(self) -> bool:
        return self.state == api_pb2.APP_STATE_DEPLOYED

    @property
    def lifecycle(self) -> api_pb2.AppLifecycle:
        return api_pb2.AppLifecycle(
            app_state=self.state,  # pyright: ignore[reportArgumentType]
            created_at=self.created_at,
            deployed_at=self.deployed_at,
            stopped_at=self.stopped_at,
            version=self.version,
        )

    @property
    def handle(self) -> api_pb2.AppHandleMetadata:
        return api_pb2.AppHandleMetadata(
            description=self.name,
            app_id=self.id,
            environment_name=self.environment,
            lifecycle=self.lifecycle,
            functions={name: one.id for name, one in self.functions.items()},
        )


@dataclass
class Workspace:
    """One account. `without` are GPUs of which there is none now; `boots` say how containers start, the last first."""

    token: tuple[str, str]
    environments: list[str] = field(default_factory=lambda: ["main"])
    apps: dict[str, App] = field(default_factory=dict[str, App])
    volumes: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    secrets: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    mounts: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    images: dict[str, api_pb2.Image] = field(default_factory=dict[str, api_pb2.Image])
    boots: list[Boot] = field(default_factory=list[Boot])
    without: set[str] = field(default_factory=set[str])
    image_error: str = ""
    ahead_s: float = 0.0
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    def new_id(self, prefix: str) -> str:
        """Ids look like Modal's: a prefix and 22 letters or digits."""
        return f"{prefix}-{next(self.numbers):022d}"

    def app_named(self, environment: str, name: str) -> App | None:
        """The deployed app of that name: one that was stopped has none any more."""
        found = (app for app in self.apps.values() if app.live and (app.environment, app.name) == (environment, name))
        return next(found, None)

    def app(self, id: str) -> App:
        """
        Raises:
            Refused: there is none.
        """
        if id not in self.apps:
            raise Refused("NOT_FOUND", f"App {id} not found")
        return self.apps[id]

    def function(self, id: str) -> tuple[App, Function]:
        """
        Raises:
            Refused: there is none.
        """
        for app in self.apps.values():
            for function in (*app.drafted.values(), *app.functions.values()):
                if function.id == id:
                    return app, function
        raise Refused("NOT_FOUND", f"Function {id} not found")

    def boot_for(self, name: str) -> Boot:
        """How the next container of an app starts."""
        return next((boot for boot in self.boots if boot.suits(name)), Boot())
