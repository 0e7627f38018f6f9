"""How vLLM's memory accounting differs from release to release, as its source says.

Read in the sources of 0.8.5, 0.9.2, 0.10.1, 0.11.0 and every minor release from 0.12.0 to 0.32.0, in the files named
beside each rule.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

from serving.models import Model

Runner = Literal["v0", "v1", "v2"]

Version = tuple[int, int, int]

DENSE_V2_SINCE_0_23 = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"})
MOE_V2_SINCE_0_24 = frozenset({"DeepseekV2ForCausalLM", "Qwen2MoeForCausalLM", "GraniteMoeForCausalLM"})


@cache
def parse_version(text: str) -> Version:
    """`0.27.1`, `v0.27.1`, `0.10.1.1` or `0.8.5.post1` -> its first three numbers.

    Raises:
        ValueError: no version in it.
    """
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"`{text}` is not a vLLM version, such as `0.27.1`")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def runner(version: Version, model: Model) -> Runner:
    """The model runner that is chosen by default (config/vllm.py, `_is_default_v2_model_runner_model`)."""
    if version < (0, 8, 0):
        return "v0"
    if version < (0, 22, 0):
        return "v1"
    if version < (0, 24, 0):
        known = DENSE_V2_SINCE_0_23 if version >= (0, 23, 0) else {"Qwen3ForCausalLM"}
        return "v2" if model.architecture in known and not model.quantization and not model.is_moe else "v1"
    if version < (0, 25, 0):
        return "v2" if model.architecture in DENSE_V2_SINCE_0_23 | MOE_V2_SINCE_0_24 else "v1"
    return "v2" if not model.is_moe or model.architecture in MOE_V2_SINCE_0_24 else "v1"


def reserves_graphs(version: Version, kind: Runner) -> bool:
    """Whether CUDA graphs are estimated and taken out of the budget before the KV cache is sized.

    envs.py: VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS is on by default since 0.20.0. The V2 runner's estimate was a
    stub that returned 0 up to 0.28.0 (v1/worker/gpu/model_runner.py).
    """
    return version >= ((0, 29, 0) if kind == "v2" else (0, 20, 0))


def batch_defaults(version: Version, gpu_name: str, memory_gib: float) -> tuple[int, int]:
    """(max_num_batched_tokens, max_num_seqs) of the API server when they aren't given (engine/arg_utils.py)."""
    if memory_gib >= 160 and version >= (0, 28, 0):
        return 16384, 1024
    if memory_gib >= 70 and ("a100" not in gpu_name.lower() or version < (0, 9, 0)):
        return 8192, 1024
    return 2048, 256


def graph_sizes(version: Version, max_num_seqs: int, batched_tokens: int) -> int:
    """How many CUDA graphs are captured for one model (`_set_cudagraph_sizes`).

    Piecewise graphs for 1, 2, 4 and multiples of 8 (of 16 above 256 since 0.12) up to twice the sequences and at most
    512; since 0.11 also full graphs for decoding, up to the sequences.
    """
    if version < (0, 10, 0):
        return _sizes(512 if version >= (0, 8, 0) else min(256, max_num_seqs), 512)
    stride_changes_at = 256 if version >= (0, 12, 0) else 512
    piecewise = _sizes(min(2 * max_num_seqs, 512, batched_tokens), stride_changes_at)
    full = _sizes(min(max_num_seqs, 512, batched_tokens), stride_changes_at) if version >= (0, 11, 0) else 0
    return piecewise + full


def _sizes(largest: int, stride_changes_at: int) -> int:
    below = [size for size in (1, 2, 4) if size <= largest]
    return len(below) + min(largest, stride_changes_at) // 8 + max(0, largest - stride_changes_at) // 16


def sampler_bytes(version: Version, capability: tuple[int, int], flashinfer: bool) -> int:
    """Bytes for each (sequence, vocabulary entry) at the peak of sampling with top-k and top-p.

    v1/sample/sampler.py holds the logits in bfloat16 (2) and float32 (4). FlashInfer's sampler and the Triton one
    then hold two more float32 copies: 14. The sort that PyTorch falls back to holds sorted values (4), their int64
    indices (8), an int64 range (8) and CUB's second buffer for keys and values (12): 38. FlashInfer was used when
    installed up to 0.11, had to be asked for from 0.12, is the default again since 0.21; Triton came with 0.17.
    """
    sorts = version < (0, 12, 0) and (not flashinfer or capability < (8, 0))
    return 38 if sorts or (0, 12, 0) <= version < (0, 17, 0) else 14


def benchmarks_kernels(version: Version) -> bool:
    """Whether a first compilation benchmarks fused kernels on copies of their arguments.

    config/vllm.py sets Inductor's `benchmark_combo_kernel` since 0.12.0.
    """
    return version >= (0, 12, 0)
