"""What only GCP has: `vllm-anywhere:gcp`."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from providers.gcp.machines import is_zone
from serving.gateway_vm import Cidr
from serving.spec import Part

IMAGE = "projects/ubuntu-os-accelerator-images/global/images/family/ubuntu-accelerator-2404-amd64-with-nvidia-580"
"""Canonical's image with NVIDIA's signed driver of the branch that CUDA 13 needs. A VM keeps the image that it was made
with: the provider compares a family with an image by name alone, and these images' names begin with the family's."""

DRIVER = 580


def _zone(value: str) -> str:
    if not is_zone(value):
        raise ValueError("a zone, such as `europe-west4-a`")
    return value


def _exact(value: object) -> object:
    return str(value) if isinstance(value, float) else value


class GcpOptions(Part):
    """The section of a stack file."""

    project: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9:.-]{4,61}[a-z0-9]$",
        description="Project id; the provider's own (`gcp:project` or GOOGLE_PROJECT) if absent.",
    )
    zones: tuple[Annotated[str, AfterValidator(_zone)], ...] = Field(
        default=(),
        description="Zones of one region, in the order in which they are tried. Empty: all that have the GPU.",
        examples=[["europe-west4-a", "europe-west4-b"]],
    )
    machine_type: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)+$",
        description="Machine type; the cheapest that takes the GPU if absent.",
        examples=["n1-standard-8"],
    )
    ha: Literal["none", "mig"] = Field(
        default="none",
        description="`mig`: a managed instance group of one VM, which makes it anew in any of the zones when it is "
        "unhealthy or taken away.",
    )
    find_zone: bool = Field(
        default=True,
        description="With several zones: before the VM is made, find the first with capacity by reserving one machine "
        "for some seconds. Needs credentials; spot capacity can't be reserved.",
    )
    image: str = Field(
        default=IMAGE,
        pattern=r"^[\w./-]+$",
        description="Boot image with an NVIDIA driver of branch 580 or later; an image's own name pins it.",
    )
    secure_boot: bool = Field(default=True, description="Boot only signed code; needs an image with a signed driver.")
    network: str = Field(default="default", pattern=r"^[\w./-]+$", description="VPC network, by name or self link.")
    allow: tuple[Cidr, ...] = Field(
        default=("0.0.0.0/0",), min_length=1, description="Addresses that may reach the endpoint, as CIDR ranges."
    )
    ssh: bool = Field(default=False, description="Allow SSH through Identity-Aware Proxy.")
    hostname: str | None = Field(
        default=None,
        pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])$",
        description="Your own DNS name, for which Caddy gets a public certificate on the VM.",
    )
    plain_http: bool = Field(
        default=False,
        description="Serve without TLS. The key, all prompts and all answers can then be read and changed by "
        "everybody on the way.",
    )
    enable_apis: bool = Field(
        default=False, description="Switch on the APIs that are needed; `destroy` leaves them on."
    )
    cloud_logging: bool = Field(default=True, description="Send the server's lines to Cloud Logging.")
    committed_use_discount: Annotated[Decimal, BeforeValidator(_exact), Field(ge=0, lt=1)] = Field(
        default=Decimal(0),
        description="The share off the price of cores, memory and GPU that your committed-use contract gives: 0.37.",
    )

    @model_validator(mode="after")
    def _one_way_of_tls(self) -> GcpOptions:
        if self.hostname and self.plain_http:
            raise ValueError("`hostname` is for TLS and `plain_http` is against it; leave one out")
        return self
