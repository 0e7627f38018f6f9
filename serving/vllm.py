"""`vllm serve` flags from the spec: the same on every platform."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.spec import DeploymentSpec


def sets(arg: str, flags: Iterable[str]) -> bool:
    """Whether an argument is one of these flags, as vLLM reads it: it may be abbreviated and have underscores.

    Its value may follow it behind `=`, or behind a blank, which vLLM wouldn't take.
    """
    name = re.split(r"[=\s]", arg, maxsplit=1)[0].replace("_", "-")
    return any(flag == name or (len(name) > 2 and flag.startswith(name)) for flag in flags)


def serve_args(spec: DeploymentSpec, *, half: bool) -> tuple[str, ...]:
    """Arguments of `vllm serve` but for address and port, and without the key, which goes by `VLLM_API_KEY`.

    `half` says that the GPU has no bfloat16 (compute capability below 8.0), so `auto` has to mean float16.
    """
    model, engine = spec.model, spec.engine
    dtype = "half" if model.dtype == "auto" and half else model.dtype
    optional = {
        "--revision": model.revision,
        "--quantization": model.quantization,
        "--max-num-batched-tokens": engine.max_num_batched_tokens,
        "--kv-cache-dtype": model.kv_cache_dtype if model.kv_cache_dtype != "auto" else None,
        "--tensor-parallel-size": spec.hardware.gpu_count if spec.hardware.gpu_count > 1 else None,
    }
    return (
        model.name,
        "--served-model-name",
        model.served_name,
        "--max-model-len",
        str(model.max_len),
        "--gpu-memory-utilization",
        f"{engine.gpu_memory_utilization:g}",
        "--max-num-seqs",
        str(engine.max_num_seqs),
        "--dtype",
        dtype,
        *(text for flag, value in optional.items() if value is not None for text in (flag, str(value))),
        *(("--enforce-eager",) if engine.enforce_eager else ()),
        *engine.extra_args,
    )
