"""The shared spec: one deployment of one model, in terms that hold on every platform.

A stack file's keys are this model's fields: `vllm-anywhere:model` is `DeploymentSpec.model`. `serving/config.py` is the
way from there to here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from serving.vllm import sets

HOURS_PER_MONTH = 730
"""Hours in the month that every monthly figure uses (365 x 24 / 12)."""

DEFAULT_VLLM_VERSION = "0.27.1"
"""The vLLM release that is deployed: the newest whose image another vendor ships too
(runpod-workers/worker-vllm v2.25.2), past the API-key bypass fixed in 0.22.0 (GHSA-94f4-hr76-p5j6)."""


def _no_float(value: object) -> object:
    """Money enters as text or integer; a YAML float is read by its shortest decimal form."""
    return str(value) if isinstance(value, float) else value


Usd = Annotated[Decimal, BeforeValidator(_no_float), Field(ge=0, max_digits=12, decimal_places=6)]

_GPU_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,39}")
_SERVED_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,95}")


def _gpu_name(value: str) -> str:
    if not _GPU_NAME.fullmatch(value):
        raise ValueError("a GPU's name, such as `L4` or `RTX 4000 Ada`")
    return value


class SecretRefusedError(ValueError):
    """A secret where none belongs; the value is not to be shown again."""


class Part(BaseModel):
    """Base of every section: unknown keys are errors, values never change after parsing."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, str_strip_whitespace=True, coerce_numbers_to_str=True, protected_namespaces=()
    )


class ModelSpec(Part):
    """Which model is served, and how much of it."""

    name: str = Field(
        default="Qwen/Qwen3-4B-Instruct-2507",
        pattern=r"^[\w.-]+(/[\w.-]+)?$",
        description="Hugging Face repository, `organisation/name`.",
        examples=["Qwen/Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-AWQ"],
    )
    revision: str | None = Field(
        default=None,
        pattern=r"^[\w./-]+$",
        description="Git revision of the weights; the repository's main branch if absent.",
    )
    served_name: str = Field(
        default="", description="The name clients ask for. Default: the repository's last part, in lower case."
    )
    config: str | None = Field(
        default=None,
        description="Path of the model's Hugging Face `config.json`, from the project's folder, for a model that the "
        "catalogue lacks: its fit is computed from that.",
    )
    max_len: int = Field(
        default=8192, ge=128, le=10_485_760, description="Longest request in tokens, prompt and answer together."
    )
    dtype: Literal["auto", "half", "float16", "bfloat16", "float32"] = Field(
        default="auto",
        description="Precision of the activations; `auto` is half on GPUs below compute capability 8.0.",
    )
    quantization: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]+$",
        description="Quantisation of the weights (`awq`, `gptq`, `fp8`, ...). It must be what the weights have; "
        "absent, it is read from the model's own config.",
    )
    kv_cache_dtype: Literal["auto", "fp8"] = Field(
        default="auto",
        description="Precision of the KV cache; `fp8` halves its bytes and needs compute capability 8.9.",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_served_name(cls, data: object) -> object:
        if isinstance(data, Mapping) and not data.get("served_name"):
            name = str(data.get("name") or cls.model_fields["name"].default)
            return {**data, "served_name": name.rsplit("/", 1)[-1].lower()}
        return data

    @field_validator("served_name")
    @classmethod
    def _check_served_name(cls, value: str) -> str:
        if not _SERVED_NAME.fullmatch(value):
            raise ValueError("1 to 96 letters, digits, `.`, `_`, `:`, `/` or `-`, such as `qwen3-4b`")
        return value


class EngineSpec(Part):
    """The vLLM server that is started, the same on every platform."""

    version: str = Field(
        default=DEFAULT_VLLM_VERSION,
        pattern=r"^\d+\.\d+\.\d+(\.\d+)?(\.post\d+)?$",
        description="vLLM release; the image is `vllm/vllm-openai:v<version>`. "
        "Releases before 0.22.0 have a known API-key bypass and are refused on a public port.",
    )
    image: str | None = Field(
        default=None,
        pattern=r"^[\w./-]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$",
        description="Another image with the same entry point, pinned by tag or digest (`latest` is refused).",
    )
    gpu_memory_utilization: float = Field(
        default=0.85,
        gt=0.1,
        le=0.98,
        description="Share of the GPU's memory that vLLM may take. vLLM's own 0.92 fails on a 24 GB RTX 4090.",
    )
    max_num_seqs: int = Field(default=256, ge=1, le=4096, description="Most requests decoded together.")
    max_num_batched_tokens: int | None = Field(
        default=None, ge=128, le=1_048_576, description="Tokens in one engine step; vLLM's own choice if absent."
    )
    enforce_eager: bool = Field(
        default=False, description="Skip compilation and CUDA graphs: less memory, faster start, slower answers."
    )
    extra_args: tuple[str, ...] = Field(
        default=(), description="More `vllm serve` arguments, one list item each. Secrets are refused here."
    )

    @field_validator("image")
    @classmethod
    def _pinned(cls, value: str | None) -> str | None:
        if value is not None and (value.endswith(":latest") or not re.search(r"[:@]", value.rsplit("/", 1)[-1])):
            raise ValueError(f"a pinned tag or digest, such as `vllm/vllm-openai:v{DEFAULT_VLLM_VERSION}`")
        return value

    @field_validator("extra_args")
    @classmethod
    def _no_secrets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for arg in value:
            if sets(arg, ("--api-key", "--hf-token")):
                raise SecretRefusedError(
                    "no secrets: process arguments can be read by others; the key is set by the project"
                )
        return value


class HardwareSpec(Part):
    """What the server runs on."""

    gpus: tuple[Annotated[str, AfterValidator(_gpu_name)], ...] = Field(
        default=(),
        description="Acceptable GPUs, first choice first. Empty: the cheapest on the platform that fits the model.",
        examples=[["RTX 4000 Ada", "L4"]],
    )
    gpu_count: int = Field(
        default=1, ge=1, le=8, description="GPUs in one machine; more than one is tensor parallelism."
    )
    disk_gb: int = Field(default=60, ge=8, le=4096, description="Disk for image and weights, in GB (10^9 bytes).")
    spot: bool = Field(default=False, description="Rent interruptible capacity: cheaper, and it can be taken away.")


class PlacementSpec(Part):
    """Where it may run."""

    regions: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9*._-]{1,40}$")], ...] = Field(
        default=("eu",),
        description="Regions in order of preference: `eu`, `us`, a country code (`de`), or a platform's own name. "
        "Empty: anywhere.",
    )
    tier: Literal["any", "secure", "community"] = Field(
        default="secure",
        description="`secure`: data-centre hosts only. `community`: people's own machines, cheaper. `any`: both.",
    )
    gdpr: bool = Field(
        default=False, description="Keep only offers in the EU/EEA on data-centre hosts, with the evidence shown."
    )


class ScalingSpec(Part):
    """How many servers, and when they sleep."""

    min: int = Field(
        default=1, ge=0, le=100, description="Servers that always run; 0 scales to zero where the platform can."
    )
    max: int = Field(
        default=1, ge=1, le=100, description="Most servers at once. Absent: as many as `min`, and 1 at least."
    )
    idle_timeout_s: int = Field(
        default=60, ge=1, le=3600, description="Seconds without requests before a server sleeps."
    )

    @model_validator(mode="before")
    @classmethod
    def _max_follows_min(cls, data: object) -> object:
        if isinstance(data, Mapping) and "max" not in data and isinstance(data.get("min"), int):
            return {**data, "max": max(1, data["min"])}
        return data

    @model_validator(mode="after")
    def _ordered(self) -> ScalingSpec:
        if self.min > self.max:
            raise ValueError(f"`min` ({self.min}) is more than `max` ({self.max}); raise `max` or lower `min`")
        return self


class UsageSpec(Part):
    """The load that the cost estimate assumes."""

    requests_per_day: int | None = Field(
        default=None,
        ge=0,
        le=10**9,
        description="Requests a day; absent means unknown, and usage is priced per unit.",
    )
    input_tokens: int = Field(default=500, ge=1, le=10_000_000, description="Mean prompt tokens of a request.")
    output_tokens: int = Field(default=200, ge=1, le=10_000_000, description="Mean answer tokens of a request.")


class BudgetSpec(Part):
    """What it may cost; over it, preview and up fail before anything is rented."""

    monthly_usd: Usd | None = Field(default=None, description="Most US dollars in a month of 730 hours.")
    hourly_usd: Usd | None = Field(default=None, description="Most US dollars in an hour.")
    ttl_hours: float | None = Field(
        default=None,
        gt=0,
        le=24 * 366,
        description="Hours after which the deployment should be gone: `watch` says so, `watch --heal` destroys it, and "
        "Google ends its VM by itself.",
    )


class ApiKeySpec(Part):
    """The key that clients send."""

    rotation: str = Field(
        default="1", max_length=64, description="Any text. Change it, and the next `up` makes a new key."
    )
    keep_previous: bool = Field(
        default=True,
        description="The key before the last rotation is taken too, so that clients can change over; `false` ends it.",
    )


class ReadySpec(Part):
    """When `pulumi up` may say that the model answers."""

    timeout_s: int = Field(
        default=900,
        ge=5,
        le=7200,
        description="Seconds until the first completed answer; past it, `up` fails and says why.",
    )
    wake: bool = Field(
        default=True,
        description="Wake a sleeping server to prove that it answers; false accepts configured-but-asleep.",
    )


class DeploymentSpec(Part):
    """One deployment, as a stack file describes it."""

    provider: str = Field(
        default="local", pattern=r"^[a-z][a-z0-9-]*$", description="The platform; the one key that switches."
    )
    model: ModelSpec = Field(default_factory=ModelSpec, description="Which model is served.")
    engine: EngineSpec = Field(default_factory=EngineSpec, description="The vLLM server and its flags.")
    hardware: HardwareSpec = Field(default_factory=HardwareSpec, description="What it runs on.")
    placement: PlacementSpec = Field(default_factory=PlacementSpec, description="Where it may run.")
    scaling: ScalingSpec = Field(default_factory=ScalingSpec, description="How many servers.")
    usage: UsageSpec = Field(default_factory=UsageSpec, description="The load that the estimate assumes.")
    budget: BudgetSpec = Field(default_factory=BudgetSpec, description="What it may cost.")
    api_key: ApiKeySpec = Field(default_factory=ApiKeySpec, description="The key that clients send.")
    ready: ReadySpec = Field(default_factory=ReadySpec, description="When it counts as up.")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with the stack config.

    `key` is the full stack-config path (`vllm-anywhere:model.max_len`), `value` what was found there as text
    (empty if nothing), `fix` a sentence that says what would work.
    """

    key: str
    value: str
    fix: str

    def __str__(self) -> str:
        found = f" = {self.value}" if self.value else ""
        return f"{self.key}{found}: {self.fix}"


class SpecError(ValueError):
    """The stack config is not a valid spec. `problems` holds every one that was found, never only the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))
