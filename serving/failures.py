"""Why a server did not start: known failures, recognised in its own log lines.

Each rule has the words that vLLM, llama.cpp or what starts them prints, the cause in a sentence, and the change that
cures it. `tests/data/failures/` has a real log excerpt for each, with its source.
Texts: vLLM 0.32.0 source, `vllm/v1/core/kv_cache_utils.py`, `vllm/v1/worker/`, `vllm/config/model.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_LONGEST = 300
"""Characters of a quoted line: PyTorch's on memory has twice as many."""


def _as_found(*groups: str) -> tuple[str, ...]:
    return groups


def _half(count: str) -> tuple[str, ...]:
    return (str(max(1, int(count) // 2)),)


def _share_of(free: str, total: str) -> tuple[str, ...]:
    """What may be taken where so much is free, a hundredth less than that; the least that the spec allows is 0.11."""
    return (f"{max(0.11, int(100 * float(free) / float(total)) / 100 - 0.01):.2f}",)


def _capability(digits: str) -> tuple[str, ...]:
    """`75` -> 7.5."""
    return (f"{digits[:-1]}.{digits[-1]}",)


def _other_cuda(version: str) -> tuple[str, ...]:
    """The CUDA that a host must have: `12.9` is the image's own word, `12080` PyTorch's for what the driver takes."""
    # Late, since every provider process loads this module.
    from serving.spec import DEFAULT_VLLM_VERSION

    older = f"vllm/vllm-openai:v{DEFAULT_VLLM_VERSION}-cu129"
    if "." in version:
        return older, f"{version} or later"
    return older, f"later than {int(version) // 1000}.{int(version) % 1000 // 10}"


@dataclass(frozen=True)
class Rule:
    """One failure.

    Attributes:
        pattern: finds it in one line; `numbers` makes the `{0}`, `{1}` of `fix` from its groups.
        fix: commands of `pulumi config set`, else the keys to change.
        only_after: what must be in the log as well.
        unless: what must not be in the log.
        unreachable: whether this is a failure only if the server, as it goes on running, doesn't answer from outside.
    """

    name: str
    pattern: str
    cause: str
    fix: str
    numbers: Callable[..., tuple[str, ...]] = _as_found
    only_after: str = ""
    unless: str = ""
    unreachable: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """A recognised failure: the cause, the line that shows it, and what to change."""

    name: str
    cause: str
    line: str
    fix: str

    def __str__(self) -> str:
        return f"{self.cause}\n  seen: {self.quoted}\n  fix:  {self.fix}"

    @property
    def quoted(self) -> str:
        """The line without blanks around it, at most 300 characters."""
        line = self.line.strip()
        return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


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
        "longer-than-the-model",
        r"greater than the derived max_model_len \W\w+=(\d+)",
        "The model can't take a request of that length.",
        "pulumi config set --path vllm-anywhere:model.max_len {0}",
    ),
    Rule(
        "bfloat16-unsupported",
        r"Bfloat16 is only supported on GPUs with compute capability of at least",
        "The GPU is too old for bfloat16.",
        "pulumi config set --path vllm-anywhere:model.dtype half",
    ),
    Rule(
        "quantization-mismatch",
        r"Quantization method specified in the model config \(([\w-]+)",
        "The weights are quantised in another way than the config says.",
        "pulumi config set --path vllm-anywhere:model.quantization {0}",
    ),
    Rule(
        "quantization-unsupported",
        r"Quantization (?:method|scheme).*not supported for.*the current GPU.*Min(?:imum)? capability: (\d+)",
        "The GPU is too old for the way in which the weights are quantised.",
        "choose a GPU of compute capability {0} or above (vllm-anywhere:hardware.gpus) or other weights "
        "(vllm-anywhere:model.name)",
        _capability,
    ),
    Rule(
        "memory-taken",
        r"Free memory on device.*\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization",
        "Something else holds memory on the GPU.",
        "pulumi config set --path vllm-anywhere:engine.gpu_memory_utilization {0}, or stop what else runs there",
        _share_of,
    ),
    Rule(
        "no-memory-to-warm-up",
        r"CUDA out of memory occurred when warming up sampler with (\d+) dummy requests",
        "The GPU has no room for so many requests at a time.",
        "pulumi config set --path vllm-anywhere:engine.max_num_seqs {0}",
        _half,
    ),
    Rule(
        "weights-too-large",
        r"CUDA out of memory.*total capacity of ([\d.]+ \wiB)",
        "The GPU has no room for the weights.",
        "choose a GPU with more than {0} (vllm-anywhere:hardware.gpus) or a quantised model (vllm-anywhere:model.name)",
        only_after=r"Starting to load model|Loading safetensors|in load_model",
        unless=r"Model loading took",
    ),
    Rule(
        "out-of-memory",
        r"CUDA out of memory|CUDA error: out of memory",
        "The GPU ran out of memory while the engine warmed up.",
        "pulumi config set --path vllm-anywhere:engine.gpu_memory_utilization 0.80, or lower if it is that already",
    ),
    Rule(
        "driver-too-old",
        r"unsatisfied condition: cuda>=(\d+\.\d+)|NVIDIA driver on your system is too old \(found version (\d+)\)",
        "The host's driver is older than the image's CUDA.",
        "pulumi config set --path vllm-anywhere:engine.image {0}, or choose a host with CUDA {1}",
        _other_cuda,
    ),
    Rule(
        "bad-token",
        r"Invalid credentials in Authorization header|Invalid user token|User Access Token .*is expired",
        "Hugging Face doesn't take the token.",
        "pulumi config set --secret vllm-anywhere:hf_token, with one that is valid",
    ),
    Rule(
        "gated-model",
        r"gated repo|Access to model .* is restricted",
        "The model is gated, and the token is missing or has no access.",
        "pulumi config set --secret vllm-anywhere:hf_token, after accepting the model's licence",
    ),
    Rule(
        "no-such-model",
        r"Repository Not Found|is not a valid model identifier|Invalid repository ID or local directory",
        "There is no model of that name, or it is private and the token has no access.",
        "correct vllm-anywhere:model.name",
    ),
    Rule(
        "no-space",
        r"No space left on device",
        "The disk is full.",
        "pulumi config set --path vllm-anywhere:hardware.disk_gb 120, or more if it is that already",
    ),
    Rule(
        "no-image",
        r"manifest unknown|pull access denied for|error creating container: image pull|Error response.*/manifests/",
        "The image can't be pulled: there is none of that name and tag, or it is private.",
        "correct vllm-anywhere:engine.image, or remove it for the default of this release",
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
    Rule(
        "port-not-listening",
        r"Starting vLLM (?:API )?server.* on (http\S+)",
        "The server is up, and nothing reaches it from outside: it listens elsewhere, or the platform's port doesn't "
        "lead there.",
        "take what sets a host or a port out of vllm-anywhere:engine.extra_args, or correct vllm-anywhere:engine.image "
        "(it listens on {0})",
        unless=r"Traceback|Shutting down|Finished server process",
        unreachable=True,
    ),
)


def diagnose(log: Sequence[str], *, unreachable: bool = False) -> Diagnosis | None:
    """The first rule that matches, on its last matching line; None when nothing known is in the log.

    `unreachable` says that the server's endpoint doesn't answer.
    """
    whole = "\n".join(log)
    for rule in RULES:
        if rule.unreachable and not unreachable:
            continue
        if (rule.only_after and not re.search(rule.only_after, whole)) or (
            rule.unless and re.search(rule.unless, whole)
        ):
            continue
        for line in reversed(log):
            if found := re.search(rule.pattern, line, re.IGNORECASE):
                numbers = rule.numbers(*(group for group in found.groups() if group is not None))
                return Diagnosis(rule.name, rule.cause, line, rule.fix.format(*numbers))
    return None


def explain(what: str, log: Sequence[str], lines: int = 12) -> str:
    """`what` happened to a server that doesn't answer, the known cause if there is one, and its last lines."""
    known = diagnose(log, unreachable=True)
    tail = [f"  | {line}" for line in log[-lines:]] or ["  | (the server wrote nothing)"]
    return "\n".join([what, *([str(known)] if known else []), "The server's last lines:", *tail])
