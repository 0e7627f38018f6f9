"""Why a server did not start: known failures, recognised in its own log lines.

Each rule has the words that vLLM (or llama.cpp) prints, the cause in a sentence, and the change that cures it.
Texts: vLLM 0.32.0 source, `vllm/v1/core/kv_cache_utils.py`, `vllm/v1/worker/`, `vllm/config/model.py`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """`pattern` finds the failure in one line; its groups fill `{0}`, `{1}` of `fix`."""

    name: str
    pattern: str
    cause: str
    fix: str


@dataclass(frozen=True)
class Diagnosis:
    """A recognised failure: the cause, the line that shows it, and what to change."""

    name: str
    cause: str
    line: str
    fix: str

    def __str__(self) -> str:
        return f"{self.cause}\n  seen: {self.line.strip()}\n  fix:  {self.fix}"


RULES = (
    Rule(
        "kv-cache-too-small",
        r"estimated maximum model length is (\d+)",
        "The GPU has no room for one request of that length.",
        "pulumi config set --path vllm-anywhere:model.max_len {0}",
    ),
    Rule(
        "no-kv-cache",
        r"No available memory for the cache blocks",
        "The weights leave no room for the KV cache.",
        "choose a larger GPU (vllm-anywhere:hardware.gpus) or a quantised model (vllm-anywhere:model.name)",
    ),
    Rule(
        "bfloat16-unsupported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least",
        "The GPU is too old for bfloat16.",
        "pulumi config set --path vllm-anywhere:model.dtype half",
    ),
    Rule(
        "memory-taken",
        r"Free memory on device .* is less than desired GPU memory utilization",
        "Something else holds memory on the GPU.",
        "lower vllm-anywhere:engine.gpu_memory_utilization, or stop what else runs there",
    ),
    Rule(
        "out-of-memory",
        r"CUDA out of memory|CUDA error: out of memory",
        "The GPU ran out of memory while the engine warmed up.",
        "lower vllm-anywhere:engine.gpu_memory_utilization or vllm-anywhere:engine.max_num_seqs",
    ),
    Rule(
        "driver-too-old",
        r"unsatisfied condition: cuda>=([\d.]+)",
        "The host's driver is older than the image's CUDA.",
        "choose a host with CUDA {0}, or a -cu129 image (vllm-anywhere:engine.image)",
    ),
    Rule(
        "gated-model",
        r"gated repo|401 Client Error.*huggingface|Access to model .* is restricted",
        "The model is gated, and the token is missing or has no access.",
        "pulumi config set --secret vllm-anywhere:hf_token, after accepting the model's licence",
    ),
    Rule(
        "no-such-model",
        r"Repository Not Found|is not a valid model identifier|is not a local folder",
        "There is no model of that name.",
        "correct vllm-anywhere:model.name",
    ),
    Rule(
        "no-space",
        r"No space left on device",
        "The disk is full.",
        "raise vllm-anywhere:hardware.disk_gb",
    ),
    Rule(
        "port-in-use",
        r"address already in use|couldn't bind (?:HTTP server )?socket|failed to bind",
        "Another program listens on that port.",
        "pulumi config set --path vllm-anywhere:local.port 0 (any free port)",
    ),
    Rule(
        "bad-gguf",
        r"failed to load model|invalid magic characters|error loading model",
        "The model file can't be read.",
        "correct vllm-anywhere:local.gguf",
    ),
)


def diagnose(log: Sequence[str]) -> Diagnosis | None:
    """The first rule that matches, on its last matching line; None when nothing known is in the log."""
    for rule in RULES:
        for line in reversed(log):
            if found := re.search(rule.pattern, line, re.IGNORECASE):
                return Diagnosis(rule.name, rule.cause, line, rule.fix.format(*found.groups()))
    return None


def explain(what: str, log: Sequence[str], lines: int = 12) -> str:
    """`what` happened, the known cause if there is one, and the server's last lines."""
    known = diagnose(log)
    tail = [f"  | {line}" for line in log[-lines:]] or ["  | (the server wrote nothing)"]
    return "\n".join([what, *([str(known)] if known else []), "The server's last lines:", *tail])
