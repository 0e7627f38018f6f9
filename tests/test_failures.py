"""Known start-up failures, each by a line that a server really printed."""

from __future__ import annotations

import pytest

from serving.failures import RULES, diagnose, explain

SEEN = {
    "kv-cache-too-small": "ValueError: To serve at least one request with the model's max seq len (65536), (4.76 GiB "
    "KV cache is needed, which is larger than the available KV cache memory (1.56 GiB). Based on the available memory, "
    "the estimated maximum model length is 15984. Try increasing `gpu_memory_utilization`",
    "no-kv-cache": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine",
    "bfloat16-unsupported": "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0. "
    "Your Tesla T4 GPU has compute capability 7.5.",
    "memory-taken": "ValueError: Free memory on device cuda:0 (22.64/23.52 GiB) on startup is less than desired GPU "
    "memory utilization (0.98, 23.05 GiB).",
    "out-of-memory": "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests",
    "driver-too-old": "nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.4",
    "gated-model": "huggingface_hub.errors.GatedRepoError: 401 Client Error. (Request ID: x) Cannot access gated repo "
    "for url https://huggingface.co/meta-llama/Llama-3.1-8B/resolve/main/config.json",
    "no-such-model": "OSError: Qwen/Qwen3-4BB is not a local folder and is not a valid model identifier listed on "
    "'https://huggingface.co/models'",
    "no-space": "OSError: [Errno 28] No space left on device",
    "port-in-use": "OSError: [Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): "
    "address already in use",
    "bad-gguf": "llama_model_load: error loading model: llama_model_loader: failed to load model from broken.gguf",
}


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_each_rule_recognises_its_line_among_others(rule: str) -> None:
    found = diagnose(["INFO starting", SEEN[rule], "Traceback (most recent call last):"])
    assert found is not None
    assert found.name == rule
    assert found.line == SEEN[rule]


def test_the_fix_has_the_number_from_the_line() -> None:
    found = diagnose([SEEN["kv-cache-too-small"]])
    assert found is not None
    assert found.fix == "pulumi config set --path vllm-anywhere:model.max_len 15984"
    found = diagnose([SEEN["driver-too-old"]])
    assert found is not None and "CUDA 12.4" in found.fix


def test_an_unknown_failure_still_shows_the_last_lines() -> None:
    text = explain("it stopped", [f"line {number}" for number in range(30)], lines=2)
    assert text == "it stopped\nThe server's last lines:\n  | line 28\n  | line 29"
    assert "(the server wrote nothing)" in explain("it stopped", [])
