"""What a GPU can run under a vLLM release: precisions, quantisations, and the driver that the image's CUDA needs.

From `get_min_capability` of each quantisation in the sources of 0.8.5 to 0.32.0, and NVIDIA's table of CUDA releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from serving.engine_rules import Version
from serving.models import Model

Capability = tuple[int, int]

BF16_SINCE: Capability = (8, 0)
FP8_KV_SINCE: Capability = (8, 9)
FP8_SINCE: Capability = (8, 9)
FP4_SINCE: Capability = (10, 0)

TURING_WEIGHT_ONLY_SINCE: Version = (0, 14, 0)
"""Marlin's weight-only kernels took compute capability 8.0 before, 7.5 since."""

VOLTA_UNTIL: Version = (0, 20, 0)
"""CUDA 13 builds have no kernels below compute capability 7.5."""

GONE_SINCE: Mapping[str, Version] = {"gguf": (0, 24, 0), "bitsandbytes": (0, 28, 0)}
"""Quantisations that vLLM itself no longer loads."""

SAME_METHOD: Mapping[str, str] = {
    "awq_marlin": "awq",
    "auto_awq": "awq",
    "gptq_marlin": "gptq",
    "auto_gptq": "gptq",
    "modelopt_fp4": "modelopt",
    "compressed_tensors": "compressed-tensors",
}
"""Other spellings of `--quantization`, and the method that the weights then have to have."""

MIN_CAPABILITY: Mapping[str, Capability] = {
    "awq": (7, 5),
    "gptq": (6, 0),
    "fp8": (7, 5),
    "modelopt": (7, 5),
    "bitsandbytes": (7, 0),
    "gguf": (6, 0),
    "compressed-tensors": (7, 0),
    "mxfp4": (8, 0),
    "torchao": (7, 5),
    "experts_int8": (8, 0),
    "fbgemm_fp8": (8, 0),
    "fp_quant": (10, 0),
}

_MARLIN = ("fp8", "modelopt")


@dataclass(frozen=True)
class Support:
    """How a quantisation runs: `native` with its own arithmetic, `weight-only` (stored small, computed in 16 bits,
    so memory is saved but prompts are not faster), or `none`, with the lowest capability that would do."""

    kind: Literal["native", "weight-only", "none"]
    needs: Capability = (0, 0)


def quantization_support(model: Model, version: Version, capability: Capability) -> Support:
    """How `model`'s weights run on a GPU of that compute capability under that release."""
    method = SAME_METHOD.get(model.quantization, model.quantization)
    if not method:
        return Support("native")
    needs = MIN_CAPABILITY.get(method, (7, 5))
    if method in _MARLIN and version < TURING_WEIGHT_ONLY_SINCE:
        needs = (8, 0)
    gone = GONE_SINCE.get(method)
    if capability < needs or (gone is not None and version >= gone):
        return Support("none", needs)
    native = FP4_SINCE if model.bits == 4 and method in ("modelopt", "mxfp4", "nvfp4") else FP8_SINCE
    if method in ("awq", "gptq", "bitsandbytes", "gguf"):
        return Support("weight-only")
    return Support("native" if capability >= native else "weight-only")


def image_cuda(version: Version, tag: str = "") -> tuple[int, int]:
    """CUDA release inside `vllm/vllm-openai` of that version; `tag` may end in `-cu129` or the like."""
    suffix = tag.rpartition("-cu")[2]
    if "-cu" in tag and suffix.isdigit():
        return int(suffix[:-1]), int(suffix[-1])
    if version >= (0, 20, 0):
        return 13, 0
    return (12, 9) if version >= (0, 11, 0) else (12, 8) if version >= (0, 9, 0) else (12, 4)


DRIVER_FOR_CUDA: Mapping[tuple[int, int], int] = {
    (12, 4): 550,
    (12, 6): 560,
    (12, 8): 570,
    (12, 9): 575,
    (13, 0): 580,
    (13, 1): 590,
    (13, 2): 595,
}
"""First NVIDIA driver branch that each CUDA release came with."""


def driver_for(cuda: tuple[int, int]) -> int:
    """The driver branch that a CUDA release needs without compatibility packages."""
    known = max((c for c in DRIVER_FOR_CUDA if c <= cuda), default=(12, 4))
    return DRIVER_FOR_CUDA[known]
