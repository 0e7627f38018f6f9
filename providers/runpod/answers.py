"""What RunPod's REST v2 answers, as far as this project reads it. Unknown fields are left alone: the API grows.

Money is `Decimal`: the client reads JSON numbers without a detour through binary floats.
Source: `https://api.runpod.io/v2/openapi.json`, version 2.0.0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

Availability = Literal["NONE", "LOW", "MEDIUM", "HIGH"]


class Answer(BaseModel):
    """Base of every answer."""

    # Built at first use: a preview parses none of these, and every command pays for what is imported.
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, defer_build=True
    )


class Container(Answer):
    """What pods and endpoints have in common: the container they run."""

    image: str = ""
    args: str | None = ""
    disk: int | None = None
    env: Mapping[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] = ()
    registry: str | None = None

    @field_validator("env", "ports", mode="before")
    @classmethod
    def _null_is_empty(cls, value: Any, info: Any) -> Any:
        return ({} if info.field_name == "env" else ()) if value is None else value


class PodGpu(Answer):
    """The GPU that a pod has."""

    id: str
    count: int = 1


class NetworkMount(Answer):
    """A network volume in a pod."""

    volume_id: str
    path: str


class Mounts(Answer):
    """What is mounted in a pod."""

    network: tuple[NetworkMount, ...] = ()

    @field_validator("network", mode="before")
    @classmethod
    def _null_is_empty(cls, value: Any) -> Any:
        return () if value is None else value


class Pod(Container):
    """`GET /v2/pods/{id}`. `cost` is US dollars an hour now, 0 while it is stopped."""

    id: str
    name: str
    status: str
    cost: Decimal = Decimal(0)
    gpu: PodGpu | None = None
    cloud: str = "SECURE"
    data_center_id: str | None = None
    cuda_version: str | None = None
    mounts: Mounts | None = None
    created_at: str = ""
    started_at: str | None = None

    @property
    def label(self) -> str:
        """The name that the create call gave it, which is our label."""
        return self.name


class EndpointGpu(Answer):
    """Which GPUs an endpoint's workers may run on."""

    pools: tuple[str, ...] = ()
    excluded_types: tuple[str, ...] = ()
    count: int = 1
    min_cuda_version: str | None = None

    @field_validator("pools", "excluded_types", mode="before")
    @classmethod
    def _null_is_empty(cls, value: Any) -> Any:
        return () if value is None else value


class Workers(Answer):
    """How many workers. `idle_timeout` is absent where the scaler has none."""

    min: int = 0
    max: int = 0
    idle_timeout: int | None = None


class Scaling(Answer):
    """When workers are added."""

    type: Literal["QUEUE_DELAY", "REQUEST_COUNT"]
    queue_delay: Decimal | None = None
    request_count: int | None = None


class RequestUrls(Answer):
    """Where requests go: `run` of a queue, `base` of a load balancer."""

    run: str = ""
    base: str = ""


class Endpoint(Container):
    """`GET /v2/serverless/{id}`."""

    id: str
    name: str
    type: str = "QUEUE"
    workers: Workers
    scaling: Scaling
    gpu: EndpointGpu | None = None
    data_center_ids: tuple[str, ...] = ()
    network_volumes: tuple[str, ...] = ()
    timeout: int = 0
    flashboot: str = "OFF"
    request_urls: RequestUrls = RequestUrls()
    created_at: str = ""

    @field_validator("data_center_ids", "network_volumes", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return () if value is None else value

    @property
    def label(self) -> str:
        """The label that the create call gave it: RunPod has appended `-fb` to names of FlashBoot endpoints."""
        return self.name.removesuffix("-fb")


class Worker(Answer):
    """One worker of an endpoint."""

    id: str
    status: str
    is_stale: bool = False
    gpu_type_id: str | None = None


class NetworkVolume(Answer):
    """`GET /v2/network-volumes/{id}`. `size` in GB."""

    id: str
    name: str
    size: int
    data_center: str
    type: str = "STANDARD"

    @property
    def label(self) -> str:
        """The name that the create call gave it, which is our label."""
        return self.name


class Named(Answer):
    """A registry credential or a secret: what it holds is never answered."""

    id: str
    name: str

    @property
    def label(self) -> str:
        """The name that the create call gave it, which is our label."""
        return self.name


class GpuPrice(Answer):
    """List prices of one GPU in US dollars an hour; a cloud without it answers 0."""

    secure: Decimal | None = None
    community: Decimal | None = None
    serverless: Decimal | None = None


class DataCenterStock(Answer):
    """How many of a GPU a data centre has."""

    id: str
    availability: Availability = "NONE"


class MaxCount(Answer):
    """GPUs in the largest machine of a type, in each cloud; None where RunPod does not say."""

    secure: int | None = None
    community: int | None = None


class GpuType(Answer):
    """One row of `GET /v2/catalog/gpus`. Stock is only there when it was asked for."""

    id: str
    pool: str | None = None
    secure: bool = False
    community: bool = False
    price: GpuPrice = GpuPrice()
    max_count: MaxCount = MaxCount()
    availability: Availability | None = None
    data_centers: tuple[DataCenterStock, ...] = ()


def exec_form(script: str) -> str:
    """The container's arguments that run `script` under `sh`, instead of the image's own entry point.

    REST v2 has one `args` text; as a JSON object it replaces entry point and command.
    """
    return json.dumps({"entrypoint": ["/bin/sh", "-c"], "cmd": [script]})


def script_of(args: str | None) -> str:
    """The script that `exec_form` put into `args`; any other arguments come back as they are."""
    text = args or ""
    try:
        parsed = json.loads(text)
        command = parsed["cmd"]
    except (ValueError, KeyError, TypeError):
        return text
    return command[0] if parsed.get("entrypoint") == ["/bin/sh", "-c"] and len(command) == 1 else text
