"""Where the memory of a GPU goes when vLLM starts: one formula, from shapes and constants.

    budget  = total x gpu_memory_utilization
    KV      = budget - weights - non-torch - peak activation - CUDA graphs (where the release reserves them)
    the card must also hold: the CUDA context, what others hold, and graphs that were not reserved

Shapes and vLLM's source give nearly all of it. The few constants are readings of what logs print for that very part
(free memory at start-up, non-torch memory, memory of graph capture); none was fitted to the size of a KV cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from serving.engine_rules import (
    batch_defaults,
    benchmarks_kernels,
    graph_sizes,
    parse_version,
    reserves_graphs,
    runner,
    sampler_bytes,
)
from serving.gpus import Gpu
from serving.models import DTYPE_BYTES, Model

GIB = 1 << 30
MIB = 1 << 20

BLOCK_TOKENS = 16
"""Tokens in one block of the KV cache (vLLM's default block size on CUDA)."""

NON_TORCH_GIB = 0.06
NON_TORCH_SINCE_0_17_GIB = 0.27
"""What a process takes outside PyTorch between its first and last measurement: loaded kernels, cuBLAS handles.
0.02 to 0.09 GiB in debug logs of 0.10 and 0.11, 0.25 to 0.30 in logs of 0.19 to 0.27 (PyTorch 2.10 and later)."""

NCCL_GIB = 0.2
"""Communication buffers of one GPU with tensor parallelism (NCCL channels and vLLM's all-reduce buffers)."""

GRAPH_MIB_PER_LAYER = 0.2
"""Driver memory of one layer in one captured CUDA graph. 0.17 to 0.25 MiB in logs of 0.10 to 0.27 on current
drivers; older drivers took up to 0.95."""

SLACK_GIB = 0.2
"""Kept free on the card for the allocator's rounding and fragmentation."""

RENTED_FOREIGN_GIB = 0.5
"""What other processes may hold on a rented card: 0.49 GiB in every log of one serverless worker on RunPod's RTX 4090s,
where the worker's own program, in the same container, had a CUDA context before vLLM was started."""

SEGMENT = 2 * MIB
"""PyTorch's caching allocator takes blocks of 10 MiB and more in whole multiples of this, and gives the rest to
nobody when it is 1 MiB or less (c10/cuda/CUDACachingAllocator: kRoundLarge, kSmallSize)."""


@dataclass(frozen=True)
class Engine:
    """The server's flags that decide about memory.

    Attributes:
        utilization: `--gpu-memory-utilization`.
        max_num_batched_tokens: None for vLLM's own choice, which depends on the GPU.
        kv_cache_dtype: `auto` or `fp8`.
        dtype: of the activations: `auto`, `half`, `float16`, `bfloat16` or `float32`.
        tensor_parallel: GPUs that share the weights.
        foreign_gib: memory that others hold on the card.
        lora_gib: memory of the LoRA slots, 0 without LoRA; with it every CUDA graph is captured twice.
        compiled: the compile cache is warm, as after a restart on the same disk.
        flashinfer: the image has FlashInfer, as the vendor's has.
    """

    version: str
    max_len: int
    utilization: float
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None
    eager: bool = False
    kv_cache_dtype: str = "auto"
    dtype: str = "auto"
    tensor_parallel: int = 1
    foreign_gib: float = RENTED_FOREIGN_GIB
    lora_gib: float = 0
    compiled: bool = False
    flashinfer: bool = True


@dataclass(frozen=True)
class Memory:
    """One GPU's memory after start-up, in GiB.

    `activation` is the peak that is set aside for running and sampling; `graphs` is what CUDA graphs take, and
    `reserved_graphs` the part of it inside the budget. `outside` is what the card holds beside the budget.
    """

    total: float
    budget: float
    weights: float
    activation: float
    non_torch: float
    graphs: float
    reserved_graphs: float
    kv: float
    outside: float
    kv_bytes_per_token: int

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds, in whole blocks; 0 when there is no room at all."""
        blocks = math.floor(self.kv * GIB / (BLOCK_TOKENS * self.kv_bytes_per_token))
        return max(0, blocks) * BLOCK_TOKENS

    @property
    def card_free(self) -> float:
        """What is left of the card beside the budget and everything outside it; below 0 the start runs out."""
        return self.total - self.budget - self.outside


def memory_of(model: Model, gpu: Gpu, engine: Engine) -> Memory:
    """The memory of each GPU that serves `model` under `engine`'s flags."""
    version, tp = parse_version(engine.version), engine.tensor_parallel
    if engine.dtype == "float32":
        model = replace(model, dtype="float32")
    element = DTYPE_BYTES[model.dtype]
    kind = runner(version, model)
    default_tokens, _ = batch_defaults(version, gpu.name, gpu.memory_gib)
    tokens = engine.max_num_batched_tokens or default_tokens
    if kind == "v0":
        # Without chunked prefill the profile ran one whole prompt; it was on by itself above 32,768.
        tokens = max(2048, engine.max_len) if engine.max_len <= 32768 else tokens
    sequences = min(engine.max_num_seqs, tokens)

    weights = _allocated(model, tp) / GIB + engine.lora_gib
    forward = _forward_bytes(model, tokens, tp, element)
    kept = 2 * tokens * model.hidden * element
    entries = sequences * model.padded_vocab()
    sampling = sampler_bytes(version, gpu.compute_capability, engine.flashinfer) * entries + kept
    profiled_sampling = element * entries + kept if kind == "v2" else sampling
    running = max(forward, profiled_sampling)
    compiling = 0
    if benchmarks_kernels(version) and not engine.eager:
        # Inductor times its kernels on random copies of their arguments, of which the embedding is the largest.
        compiling = model.padded_vocab() // tp * model.hidden * element + kept
    activation = (running if engine.compiled else max(running, compiling)) / GIB

    graphs = 0.0
    if not engine.eager:
        captured = graph_sizes(version, engine.max_num_seqs, tokens) * (2 if engine.lora_gib else 1)
        graphs = captured * model.layers * GRAPH_MIB_PER_LAYER * MIB / GIB
    reserved = graphs if reserves_graphs(version, kind) else 0.0

    non_torch = NON_TORCH_SINCE_0_17_GIB if version >= (0, 17, 0) else NON_TORCH_GIB
    non_torch += NCCL_GIB if tp > 1 else 0
    budget = gpu.memory_gib * engine.utilization
    # What the V2 runner's profile did not see of sampling with top-k and top-p. A restart finds the compile cache warm
    # and gives the KV cache what compiling had kept, so that can't be counted on.
    late_sampling = (sampling - profiled_sampling) / GIB
    return Memory(
        total=gpu.memory_gib,
        budget=budget,
        weights=weights,
        activation=activation,
        non_torch=non_torch,
        graphs=graphs,
        reserved_graphs=reserved,
        kv=budget - weights - activation - non_torch - reserved,
        outside=context_gib(gpu, tp) + engine.foreign_gib + graphs - reserved + late_sampling + SLACK_GIB,
        kv_bytes_per_token=model.kv_bytes_per_token(1 if engine.kv_cache_dtype == "fp8" else element, tp),
    )


def context_gib(gpu: Gpu, tensor_parallel: int = 1) -> float:
    """The CUDA context, which vLLM finds already taken when it first looks at the card.

    Total less free at start-up, where nothing else ran: 0.39 on an RTX 4090, 0.49 on an L40S and an A100, 0.41 to 0.53
    on an H100, 0.50 on an RTX 5090, 0.56 on an RTX PRO 6000, 0.61 on a B300. About 3.5 MiB a multiprocessor, so a third
    of that on Turing cards, which have 30 to 72. Workers of tensor parallelism on Blackwell cards have loaded NCCL by
    then: 0.96 on an RTX PRO 6000.
    """
    if gpu.compute_capability >= (10, 0):
        return 0.95 if tensor_parallel > 1 else 0.55
    return 0.45 if gpu.compute_capability >= (8, 0) else 0.15


def _allocated(model: Model, tensor_parallel: int) -> int:
    """Bytes that PyTorch's allocator counts for the weights."""
    return sum(count * (size + _unsplit_rest(size)) for count, size in model.tensors(tensor_parallel))


def _unsplit_rest(size: int) -> int:
    rest = -size % SEGMENT
    return rest if size >= 10 * MIB and rest <= MIB else 0


def _forward_bytes(model: Model, tokens: int, tensor_parallel: int, element: int) -> int:
    """Peak of one forward pass: the MLP's gate, up and product beside the residual stream."""
    widest = 3 * model.ffn
    if model.is_moe:
        # fused_moe keeps each token's experts apart: max(2N, K) and N wide, then the sum of their outputs.
        routed = model.experts_per_token * (max(2 * model.expert_ffn, model.hidden) + model.expert_ffn)
        widest = max(routed, 3 * model.shared_ffn, widest if model.dense_layers else 0)
    return tokens * (widest // tensor_parallel + 2 * model.hidden) * element
