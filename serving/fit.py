"""Whether a model fits a GPU, what context and concurrency that leaves, and what to change if it doesn't."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache

from serving.capabilities import BF16_SINCE, FP8_KV_SINCE, quantization_support
from serving.engine_rules import parse_version, reserves_graphs, runner, sampler_bytes
from serving.gpus import Gpu, all_gpus
from serving.memory import BLOCK_TOKENS, GIB, Engine, Memory, memory_of
from serving.models import Model, quantized_copies
from serving.tables import data_text

LEAST_USEFUL_CONTEXT = 1024
"""A shorter context is not offered as a way to make a model fit."""


@dataclass(frozen=True)
class Change:
    """One change of the stack config that makes it fit. `effect` says what it gives or takes."""

    key: str
    value: str
    effect: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value} ({self.effect})"


@dataclass(frozen=True)
class Fit:
    """The verdict on one model, GPU and set of flags.

    `memory` holds the numbers of one GPU. `ok` needs both: the KV cache holds one request of `engine.max_len`
    tokens, and the card holds the budget and all that lies outside it. `extrapolated` says that no observed start
    was near enough to compare with (`near` gives the rule).
    """

    model: Model
    gpu: Gpu
    engine: Engine
    memory: Memory

    @property
    def ok(self) -> bool:
        return not self.shortfalls

    @property
    def longest(self) -> int:
        """Tokens of the longest request that the KV cache and the weights allow."""
        return min(self.memory.kv_tokens, self.model.max_positions)

    @property
    def concurrency(self) -> float:
        """How many requests of `max_len` tokens the KV cache holds at once, as vLLM logs it."""
        return self.memory.kv_tokens / self.engine.max_len

    @property
    def concurrent(self) -> int:
        """Whole requests of `max_len` tokens that run at once."""
        return min(self.engine.max_num_seqs, int(self.concurrency))

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """What is missing, with the numbers; empty when it fits."""
        return tuple(_shortfalls(self.model, self.gpu, self.engine, self.memory))

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """Changes that make it fit, each enough by itself, smallest first; empty when it fits already."""
        return () if self.ok else tuple(_changes(self.model, self.gpu, self.engine, self.memory))

    @property
    def extrapolated(self) -> bool:
        return bool(self.model.caveats) or not near(self.model, self.gpu, self.engine, self.memory)

    def summary(self) -> str:
        """One line with the numbers."""
        m = self.memory
        room = f"{m.kv_tokens:,} tokens, {self.concurrency:.1f} requests of {self.engine.max_len:,}"
        graphs = f" + graphs {m.reserved_graphs:.1f}" if m.reserved_graphs else ""
        parts = f"weights {m.weights:.1f} + activations {m.activation:.1f} + other {m.non_torch:.1f}{graphs}"
        verdict = f"KV cache {max(0.0, m.kv):.1f} ({room})" if m.kv > 0 else "nothing left for the KV cache"
        budget = f"{m.budget:.1f} GiB ({self.engine.utilization:g} of {m.total:.1f})"
        mark = ", extrapolated" if self.extrapolated else ""
        return f"{self.gpu.name}: {parts} of {budget}: {verdict}{mark}"


@lru_cache(maxsize=8192)
def fits(model: Model, gpu: Gpu, engine: Engine) -> Fit:
    """Whether one `gpu` (or each of `engine.tensor_parallel` of them) starts `model` under `engine`'s flags."""
    return Fit(model, gpu, engine, memory_of(model, gpu, engine))


def highest_utilization(memory: Memory) -> float:
    """The largest `gpu_memory_utilization`, in hundredths, that the card still holds; it may be 0."""
    return max(0.0, math.floor((1 - memory.outside / memory.total) * 100) / 100)


def lowest_utilization(memory: Memory, max_len: int) -> float:
    """The smallest `gpu_memory_utilization`, in hundredths, whose KV cache holds `max_len` tokens."""
    need = _one_request_gib(memory, max_len) + memory.budget - memory.kv
    return math.ceil(need / memory.total * 100) / 100


def _one_request_gib(memory: Memory, max_len: int) -> float:
    return -(-max_len // BLOCK_TOKENS) * BLOCK_TOKENS * memory.kv_bytes_per_token / GIB


def _shortfalls(model: Model, gpu: Gpu, engine: Engine, m: Memory) -> Iterator[str]:
    if m.kv <= 0:
        yield (
            f"{model.name} needs {m.budget - m.kv:.1f} GiB before any KV cache (weights {m.weights:.1f}), and "
            f"{engine.utilization:g} of the {gpu.name}'s {m.total:.1f} GiB is {m.budget:.1f}"
        )
    elif m.kv_tokens < engine.max_len:
        yield (
            f"one request of {engine.max_len:,} tokens needs {_one_request_gib(m, engine.max_len):.2f} GiB of KV "
            f"cache, and {m.kv:.2f} GiB is left, {m.kv_tokens:,} tokens"
        )
    if m.card_free < 0:
        yield (
            f"{engine.utilization:g} of {m.total:.1f} GiB leaves {m.total - m.budget:.1f} GiB on the card, and "
            f"{m.outside:.1f} is needed there (CUDA context, other processes, graphs and sampling that vLLM "
            f"{engine.version} does not reserve)"
        )


def _changes(model: Model, gpu: Gpu, engine: Engine, m: Memory) -> Iterator[Change]:
    low, high = lowest_utilization(m, engine.max_len), highest_utilization(m)
    if m.card_free < 0 and high >= low:
        yield Change("engine.gpu_memory_utilization", f"{high:g}", "the most that the card holds")
    elif m.card_free >= 0 and low <= high:
        yield Change("engine.gpu_memory_utilization", f"{low:g}", f"at most {high:g} is safe on this card")
    if m.card_free >= 0 and m.kv_tokens >= LEAST_USEFUL_CONTEXT:
        longest = min(m.kv_tokens // 256 * 256, model.max_positions)
        yield Change("model.max_len", str(longest), f"{longest / engine.max_len:.0%} of the context asked for")
    for sequences in (64, 16, 4):
        fewer = replace(engine, max_num_seqs=sequences)
        if sequences < engine.max_num_seqs and not fits(model, gpu, fewer).shortfalls:
            yield Change("engine.max_num_seqs", str(sequences), "fewer requests decode together")
            break
    if not engine.eager and not fits(model, gpu, replace(engine, eager=True)).shortfalls:
        yield Change("engine.enforce_eager", "true", "no CUDA graphs: slower answers")
    small_kv = replace(engine, kv_cache_dtype="fp8")
    if engine.kv_cache_dtype == "auto" and gpu.compute_capability >= FP8_KV_SINCE:
        halved = fits(model, gpu, small_kv)
        if not halved.shortfalls:
            yield Change("model.kv_cache_dtype", "fp8", f"the KV cache holds {halved.memory.kv_tokens:,} tokens")
    for copy in quantized_copies(model):
        support = quantization_support(copy, parse_version(engine.version), gpu.compute_capability)
        if support.kind != "none" and not fits(copy, gpu, engine).shortfalls:
            yield Change("model.name", copy.name, f"{copy.linear_bits():.1f} bits a weight, {support.kind}")
            break
    other = larger_gpu(model, gpu, engine)
    if other is not None:
        yield _larger(other, gpu)
    for count in (2, 4, 8):
        shared = replace(engine, tensor_parallel=count)
        if count > engine.tensor_parallel and model.heads % count == 0 and not fits(model, gpu, shared).shortfalls:
            yield Change("hardware.gpu_count", str(count), "tensor parallelism in one machine")
            break


def larger_gpu(model: Model, gpu: Gpu, engine: Engine, platform: str = "") -> Gpu | None:
    """The smallest card above `gpu` that starts the model: one that `platform` rents, or else one easily rented."""
    rented = [g for g in all_gpus() if (platform in g.platform_names if platform else len(g.platform_names) > 1)]
    above = [g for g in rented if g.memory_gib > gpu.memory_gib and g.compute_capability >= BF16_SINCE]
    by_size = sorted(above, key=lambda g: g.memory_gib)
    return next((g for g in by_size if not fits(model, g, engine).shortfalls), None)


def changes_on(fit: Fit, platform: str) -> tuple[Change, ...]:
    """`fit.changes`, the larger card being one that `platform` rents ("" for any)."""
    if fit.ok or not platform:
        return fit.changes
    other = larger_gpu(fit.model, fit.gpu, fit.engine, platform)
    kept = [change for change in fit.changes if change.key != "hardware.gpus"]
    return (*kept, *([] if other is None else [_larger(other, fit.gpu)]))


def _larger(other: Gpu, gpu: Gpu) -> Change:
    return Change("hardware.gpus", f"[{other.name}]", f"{other.memory_gib:.0f} GiB instead of {gpu.memory_gib:.0f}")


@dataclass(frozen=True)
class ObservedStart:
    """What of an observed start decides whether another one is near it."""

    era: tuple[str, bool, int]
    capability_major: int
    memory_gib: float
    weights_gib: float
    tensor_parallel: bool


def near(model: Model, gpu: Gpu, engine: Engine, memory: Memory) -> bool:
    """Whether a start was observed that differs little from this one.

    Near is: the same memory accounting (model runner, graphs reserved or not, bytes of sampling), the same major
    compute capability, a card of 0.7 to 1.45 times the memory, weights of 0.5 to 2 times the size, and tensor
    parallelism in both or in neither.
    """
    era = accounting(model, gpu, engine)
    return any(
        seen.era == era
        and seen.capability_major == gpu.compute_capability[0]
        and seen.tensor_parallel == (engine.tensor_parallel > 1)
        and 0.7 <= gpu.memory_gib / seen.memory_gib <= 1.45
        and 0.5 <= memory.weights / seen.weights_gib <= 2
        for seen in _observed()
    )


def accounting(model: Model, gpu: Gpu, engine: Engine) -> tuple[str, bool, int]:
    """The rules of memory accounting that a start falls under: runner, graphs reserved, bytes of sampling."""
    version = parse_version(engine.version)
    kind = runner(version, model)
    sampling = sampler_bytes(version, gpu.compute_capability, engine.flashinfer)
    return kind, reserves_graphs(version, kind), sampling


@cache
def _observed() -> tuple[ObservedStart, ...]:
    return tuple(
        ObservedStart(
            era=(row["runner"], row["reserves_graphs"] == "yes", int(row["sampler_bytes"])),
            capability_major=int(row["capability_major"]),
            memory_gib=float(row["memory_gib"]),
            weights_gib=float(row["weights_gib"]),
            tensor_parallel=row["tensor_parallel"] == "yes",
        )
        for row in csv.DictReader(data_text("observed.csv").splitlines())
    )
