"""Known start-up failures, each by a log that a server really wrote (`tests/data/failures`, with its source)."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.failures import RULES, diagnose, explain

LOGS = {path.stem: path.read_text().splitlines() for path in Path(__file__).parent.glob("data/failures/*.txt")}
FIXES = {
    "kv-cache-too-small": "pulumi config set --path vllm-anywhere:model.max_len 34736",
    "longer-than-the-model": "pulumi config set --path vllm-anywhere:model.max_len 2048",
    "quantization-mismatch": "pulumi config set --path vllm-anywhere:model.quantization gptq",
    "quantization-unsupported": "choose a GPU of compute capability 7.5 or above",
    "memory-taken": "pulumi config set --path vllm-anywhere:engine.gpu_memory_utilization 0.79,",
    "no-memory-to-warm-up": "pulumi config set --path vllm-anywhere:engine.max_num_seqs 128",
    "weights-too-large": "choose a GPU with more than 139.72 GiB",
    "driver-too-old": "choose a host with CUDA 12.9 or later",
    "driver-too-old.torch": "choose a host with CUDA later than 12.8",
    "port-not-listening": "it listens on http://0.0.0.0:8000",
}
"""Where a figure of the log is in what is to be changed."""


@pytest.mark.parametrize("log", sorted(LOGS))
def test_each_failure_is_recognised_in_a_real_log_among_other_lines(log: str) -> None:
    source, *said = LOGS[log]
    found = diagnose(["INFO starting", *said, "INFO: something else"], unreachable=True)
    assert source.startswith("# ")
    assert found is not None
    assert (found.name, found.line in said) == (log.partition(".")[0], True)
    assert FIXES.get(log, "") in found.fix and "{" not in found.fix


def test_every_rule_has_a_real_log() -> None:
    assert {rule.name for rule in RULES} == {log.partition(".")[0] for log in LOGS}


def test_memory_that_runs_out_after_the_weights_were_loaded_is_another_failure() -> None:
    loaded = "INFO [gpu_model_runner.py:2392] Model loading took 2.4390 GiB and 41.719909 seconds"
    found = diagnose([*LOGS["weights-too-large"], loaded])
    assert found is not None and found.name == "out-of-memory"


def test_a_server_that_is_up_is_a_failure_only_where_it_does_not_answer() -> None:
    said = LOGS["port-not-listening"]
    assert diagnose(said) is None
    assert diagnose([*said, "INFO:     Shutting down"], unreachable=True) is None


def test_a_share_of_memory_is_never_below_what_the_spec_takes() -> None:
    line = "Free memory on device cuda:0 (0.5/24.0 GiB) on startup is less than desired GPU memory utilization (0.85)"
    found = diagnose([line])
    assert found is not None and "gpu_memory_utilization 0.11," in found.fix


def test_a_name_without_a_model_is_not_taken_for_a_gated_one() -> None:
    """Hugging Face answers 401 to who asks for either without a token."""
    refused = "requests.exceptions.HTTPError: 401 Client Error: Unauthorized for url: https://huggingface.co/Qwen/Qwen4"
    found = diagnose([refused, *LOGS["no-such-model"]])
    assert found is not None and found.name == "no-such-model"


def test_a_long_line_is_quoted_from_its_beginning() -> None:
    found = diagnose([f"CUDA out of memory {'x' * 500}"])
    assert found is not None and len(found.quoted) == 300
    assert found.quoted in str(found) and found.quoted.endswith("x...")


def test_an_unknown_failure_still_shows_the_last_lines() -> None:
    text = explain("it stopped", [f"line {number}" for number in range(30)], lines=2)
    assert text == "it stopped\nThe server's last lines:\n  | line 28\n  | line 29"
    assert "(the server wrote nothing)" in explain("it stopped", [])
