"""What stands in the way of a spec on one GPU, before anything is rented: the rules, each with what would work."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from serving import NAMESPACE
from serving.advisories import fixed_in, known
from serving.capabilities import (
    BF16_SINCE,
    FP8_KV_SINCE,
    GONE_SINCE,
    SAME_METHOD,
    VOLTA_UNTIL,
    driver_for,
    image_cuda,
    quantization_support,
)
from serving.engine_rules import Version, parse_version
from serving.fit import Fit, changes_on, fits
from serving.gpus import Gpu, all_gpus
from serving.memory import Engine
from serving.models import Model, all_models, quantized_copies
from serving.spec import DEFAULT_VLLM_VERSION, DeploymentSpec
from serving.vllm import sets

IMAGE_DISK_GB = 29
"""The official image unpacked: 28.6 GB in December 2025 (vllm-project/vllm#22377), 25 in April (#17163)."""

WORK_DISK_GB = 5
"""For the compile cache, logs and a download's temporary file."""

ONLINE_QUANTIZATION = frozenset({"fp8", "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "torchao"})
"""Methods that quantise 16-bit weights while they load."""

UNSTABLE_IN_FP16 = ("Gemma2", "Gemma3", "Glm4")
"""Architectures that vLLM refuses in float16 (config/model.py, _FLOAT16_NOT_SUPPORTED_MODELS)."""

UNCOUNTED_ARGS = ("--enable-lora", "--speculative-config", "--cpu-offload-gb")


@dataclass(frozen=True)
class Host:
    """What is known of where it would run. None and "" mean that it isn't known, and no rule is applied to it.

    Attributes:
        driver: NVIDIA driver branch, such as 580.
    """

    platform: str = ""
    driver: int | None = None

    def takes(self, cuda: tuple[int, int]) -> bool:
        """Whether a container with that CUDA release can run, as far as is known."""
        return self.driver is None or self.driver >= driver_for(cuda)


@dataclass(frozen=True)
class Finding:
    """One thing about the spec: `key` is the stack-config key without its namespace, `value` what is set there,
    `wrong` what is the matter and `works` what to set instead. `fatal` ones keep it from starting or being safe."""

    key: str
    value: str
    wrong: str
    works: str
    fatal: bool = True

    def __str__(self) -> str:
        shown = f" = {self.value}" if self.value else ""
        return f"{NAMESPACE}:{self.key}{shown}: {self.wrong}. {self.works}".rstrip()


@dataclass(frozen=True)
class Preflight:
    """The verdict on a spec, a model, a GPU and a host."""

    fit: Fit
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not self.refusals

    @property
    def refusals(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.fatal)

    @property
    def notes(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if not f.fatal)


def preflight(spec: DeploymentSpec, model: Model, gpu: Gpu, host: Host) -> Preflight:
    """Every rule that `spec` breaks on `gpu`, and how it fits."""
    version = image_version(spec)
    fit = fits(model, gpu, engine_of(spec))
    findings = (
        *_image(spec, version, gpu, host),
        *_advisories(spec),
        *_precision(spec, model, gpu),
        *_quantization(spec, model, version, gpu, fit.engine),
        *_platform(gpu, host),
        *_shape(spec, model),
        *_disk(spec, model),
        *_memory(spec, fit, host),
    )
    return Preflight(fit, findings)


def engine_of(spec: DeploymentSpec) -> Engine:
    """The flags of the spec that decide about memory."""
    return Engine(
        version=".".join(str(part) for part in image_version(spec)),
        max_len=spec.model.max_len,
        utilization=spec.engine.gpu_memory_utilization,
        max_num_seqs=spec.engine.max_num_seqs,
        max_num_batched_tokens=spec.engine.max_num_batched_tokens,
        eager=spec.engine.enforce_eager,
        kv_cache_dtype=spec.model.kv_cache_dtype,
        dtype=spec.model.dtype,
        tensor_parallel=spec.hardware.gpu_count,
    )


def image_version(spec: DeploymentSpec) -> Version:
    """The vLLM release that runs, its first three numbers."""
    return parse_version(_release(spec))


def _release(spec: DeploymentSpec) -> str:
    """The release in the image's tag where there is one, else `engine.version`."""
    tag = (spec.engine.image or "").partition("@")[0].rpartition(":")[2]
    return tag if re.match(r"v?\d+\.\d+\.\d+", tag) else spec.engine.version


def _image(spec: DeploymentSpec, version: Version, gpu: Gpu, host: Host) -> Iterator[Finding]:
    tag = spec.engine.image or f"v{spec.engine.version}"
    key, value = ("engine.image", tag) if spec.engine.image else ("engine.version", spec.engine.version)
    needs, older = image_cuda(version, tag), image_cuda(version, "-cu129")
    if not host.takes(needs):
        works = f"A host with driver {driver_for(needs)} or later"
        if needs > older and host.takes(older):
            works += f", or `engine.image: vllm/vllm-openai:v{'.'.join(map(str, version))}-cu129`"
        wrong = f"the image holds CUDA {needs[0]}.{needs[1]}, and the host has driver {host.driver}"
        yield Finding(key, value, wrong, works)
    if gpu.compute_capability < (7, 0):
        yield Finding(
            "hardware.gpus",
            gpu.name,
            f"vLLM has no kernels for compute capability {gpu.capability}",
            "A GPU of 7.5 or above, such as a T4",
        )
    elif gpu.compute_capability < (7, 5) and version >= VOLTA_UNTIL:
        yield Finding(
            "hardware.gpus",
            gpu.name,
            f"images since 0.20 are built with CUDA 13, which has no kernels for compute capability {gpu.capability}",
            "A GPU of 7.5 or above, such as a T4",
        )


def _advisories(spec: DeploymentSpec) -> Iterator[Finding]:
    release = _release(spec)
    key, value = ("engine.image", spec.engine.image) if spec.engine.image else ("engine.version", spec.engine.version)
    args = spec.engine.extra_args
    there = [one for one in known("vllm", release) if not one.needs or any(sets(arg, [one.needs]) for arg in args)]
    for advisory in there:
        if advisory.bars:
            yield Finding(key, value, f"{advisory.id}: {advisory.what}", f"{advisory.fixed} or later")
    # Those that the default version has too are no choice of the user's: docs/security.md lists them.
    avoidable = (one for one in there if one.reach == "caller" and not one.affects(DEFAULT_VLLM_VERSION))
    if minor := tuple(one for one in avoidable if not one.bars):
        names = ", ".join(one.id for one in minor)
        wrong = f"whoever has the key can stop the server or slow it down ({names})"
        yield Finding(key, value, wrong, f"{fixed_in(minor)} or later has none of them", fatal=False)


def _precision(spec: DeploymentSpec, model: Model, gpu: Gpu) -> Iterator[Finding]:
    dtype = spec.model.dtype
    if gpu.compute_capability < BF16_SINCE:
        if dtype == "bfloat16":
            yield Finding(
                "model.dtype",
                dtype,
                f"bfloat16 needs compute capability 8.0, and the {gpu.name} has {gpu.capability}",
                "`half`, or `auto`, which is half there",
            )
        elif model.architecture.startswith(UNSTABLE_IN_FP16) and dtype != "float32":
            yield Finding(
                "hardware.gpus",
                gpu.name,
                f"{model.name} overflows in half precision, and the {gpu.name} has no bfloat16",
                "A GPU of compute capability 8.0 or above, such as an L4",
            )
    if spec.model.kv_cache_dtype == "fp8" and gpu.compute_capability < FP8_KV_SINCE:
        yield Finding(
            "model.kv_cache_dtype",
            "fp8",
            f"an fp8 KV cache needs compute capability 8.9, and the {gpu.name} has {gpu.capability}",
            "`auto`",
        )


def _quantization(spec: DeploymentSpec, model: Model, version: Version, gpu: Gpu, engine: Engine) -> Iterator[Finding]:
    named = spec.model.quantization
    method = SAME_METHOD.get(named or "", named or "")
    actual = SAME_METHOD.get(model.quantization, model.quantization)
    support = quantization_support(model, version, gpu.compute_capability)
    if named and method != actual and not (not actual and method in ONLINE_QUANTIZATION):
        has = f"are quantised with {actual}" if actual else "are not quantised"
        same = next((copy.name for copy in _servable(model, version, gpu, engine) if copy.quantization == method), "")
        if not actual:
            works = "Leave it out"
        elif support.kind != "none":
            works = f"`{actual}`, or leave it out: it is read from the model"
        else:
            works = "" if same else f"Leave it out, and {_instead(spec, model, version, gpu, engine)}"
        works += f"{', or serve' if works else 'Serve'} {same}" if same else ""
        yield Finding("model.quantization", named, f"the weights of {model.name} {has}, not with {method}", works)
        return
    gone = GONE_SINCE.get(actual)
    if support.kind == "none" and gone is not None and version >= gone:
        yield Finding(
            "model.name",
            model.name,
            f"its weights are {actual}, which vLLM has not loaded since {'.'.join(map(str, gone))}",
            _instead(spec, model, version, gpu, engine).replace("serve", "Serve", 1),
        )
    elif support.kind == "none":
        needs = ".".join(map(str, support.needs))
        yield Finding(
            "model.name",
            model.name,
            f"{actual} needs compute capability {needs} in this release, and the {gpu.name} has {gpu.capability}",
            f"A GPU of {needs} or above, or {_instead(spec, model, version, gpu, engine)}",
        )
    elif support.kind == "weight-only" and actual in ("fp8", "modelopt", "compressed-tensors", "mxfp4"):
        yield Finding(
            "model.name",
            model.name,
            f"the {gpu.name} (compute capability {gpu.capability}) has no arithmetic of this kind: weights are stored "
            "small and computed in 16 bits",
            "Memory is saved, prompts are not faster",
            fatal=False,
        )


def _servable(model: Model, version: Version, gpu: Gpu, engine: Engine) -> list[Model]:
    """The other copies of these weights that this release loads on this GPU, smallest first, and that fit there."""
    plain = [found for found in all_models() if found.name == model.of]
    return [
        copy
        for copy in (*quantized_copies(model), *plain)
        if quantization_support(copy, version, gpu.compute_capability).kind != "none"
        and not fits(copy, gpu, engine).shortfalls
    ]


def _instead(spec: DeploymentSpec, model: Model, version: Version, gpu: Gpu, engine: Engine) -> str:
    """What to serve in place of weights that this release does not load on this GPU."""
    copies = _servable(model, version, gpu, engine)
    ways = [f"serve {copies[0].name if copies else model.of or 'the weights without quantisation'}"]
    gone = GONE_SINCE.get(SAME_METHOD.get(model.quantization, model.quantization))
    if gone is not None and version >= gone:
        last = (gone[0], gone[1] - 1, 0)
        if quantization_support(model, last, gpu.compute_capability).kind != "none":
            release = ".".join(map(str, last))
            way = f"take an image of {release}" if spec.engine.image else f"set `engine.version: {release}`"
            ways.append(f"{way}, the last that loads them")
    return ", or ".join(ways)


def _platform(gpu: Gpu, host: Host) -> Iterator[Finding]:
    if host.platform in _renting_platforms() and host.platform not in gpu.platform_names:
        rented = [g for g in all_gpus() if host.platform in g.platform_names]
        near = sorted(rented, key=lambda g: abs(g.memory_gib - gpu.memory_gib))[:3]
        yield Finding(
            "hardware.gpus",
            gpu.name,
            f"{host.platform} rents no {gpu.name}",
            f"Nearest in memory there: {', '.join(f'{g.name} ({g.memory_gib:.0f} GiB)' for g in near)}",
        )


def _shape(spec: DeploymentSpec, model: Model) -> Iterator[Finding]:
    if spec.model.max_len > model.max_positions:
        yield Finding(
            "model.max_len",
            str(spec.model.max_len),
            f"{model.name} was made for {model.max_positions:,} tokens, and vLLM refuses more",
            f"At most {model.max_positions}",
        )
    count = spec.hardware.gpu_count
    if model.heads % count:
        fitting = [n for n in range(1, 9) if model.heads % n == 0]
        yield Finding(
            "hardware.gpu_count",
            str(count),
            f"{count} GPUs can't share {model.heads} attention heads evenly",
            f"One of {', '.join(map(str, fitting))}",
        )
    for arg in spec.engine.extra_args:
        if sets(arg, UNCOUNTED_ARGS):
            yield Finding(
                "engine.extra_args", arg, "its memory is not in the estimate", "Leave room for it", fatal=False
            )


def _disk(spec: DeploymentSpec, model: Model) -> Iterator[Finding]:
    weights_gb = sum(count * size for count, size in model.tensors()) / 1e9
    needs = IMAGE_DISK_GB + weights_gb + WORK_DISK_GB
    if spec.hardware.disk_gb < needs:
        yield Finding(
            "hardware.disk_gb",
            str(spec.hardware.disk_gb),
            f"the image takes {IMAGE_DISK_GB} GB, the weights {weights_gb:.0f} and work {WORK_DISK_GB}",
            f"At least {-(-needs // 10) * 10:.0f}",
        )


def _memory(spec: DeploymentSpec, fit: Fit, host: Host) -> Iterator[Finding]:
    if fit.ok:
        return
    changes = changes_on(fit, host.platform if host.platform in _renting_platforms() else "")
    first = changes[0] if changes else None
    runs_out = fit.memory.card_free < 0 and fit.memory.kv_tokens >= fit.engine.max_len
    key = "engine.gpu_memory_utilization" if runs_out else "model.max_len"
    value = f"{fit.engine.utilization:g}" if runs_out else str(spec.model.max_len)
    if first is not None and first.key in ("model.name", "hardware.gpus", "hardware.gpu_count"):
        key, value = "hardware.gpus", fit.gpu.name
    works = "One of: " + "; ".join(map(str, changes)) if changes else "No GPU of the catalogue is large enough"
    yield Finding(key, value, "; ".join(fit.shortfalls), works)


@cache
def _renting_platforms() -> frozenset[str]:
    return frozenset(p for g in all_gpus() for p in g.platform_names)
