"""The verdict as people see it, and the rules of memory accounting by release."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serving.capabilities import driver_for, image_cuda
from serving.engine_rules import (
    batch_defaults,
    graph_sizes,
    parse_version,
    reserves_graphs,
    runner,
    sampler_bytes,
)
from serving.fit import fits
from serving.gpus import gpu
from serving.memory import GIB, Engine, memory_of
from serving.models import model

ENGINE = Engine(version="0.27.1", max_len=8192, utilization=0.85)


def test_the_summary_has_the_numbers_on_one_line() -> None:
    found = fits(model("Qwen/Qwen3-8B"), gpu("RTX 4090"), ENGINE)
    assert found.summary() == (
        "RTX 4090: weights 15.3 + activations 1.2 + other 0.3 of 20.0 GiB (0.85 of 23.5): "
        "KV cache 3.3 (23,760 tokens, 2.9 requests of 8,192)"
    )
    assert (found.ok, found.longest, found.concurrent) == (True, 23760, 2)


def test_a_start_like_none_that_was_observed_is_called_extrapolated() -> None:
    engine = replace(ENGINE, max_len=1024)
    assert not fits(model("Qwen/Qwen3-8B"), gpu("RTX 4090"), engine).extrapolated
    assert fits(model("meta-llama/Llama-3.3-70B-Instruct"), gpu("B200"), engine).extrapolated
    assert fits(model("Qwen/Qwen3-8B"), gpu("RTX 4090"), replace(engine, tensor_parallel=2)).extrapolated
    assert fits(model("google/gemma-2-9b-it"), gpu("L40S"), engine).extrapolated


def test_the_longest_context_never_exceeds_what_the_weights_know() -> None:
    assert fits(model("Qwen/Qwen3-4B"), gpu("H200"), ENGINE).longest == 40960


def test_a_refusal_always_says_what_would_fit() -> None:
    found = fits(model("Qwen/Qwen3-32B"), gpu("T4"), ENGINE)
    assert not found.ok
    assert "needs" in found.shortfalls[0]
    assert {change.key for change in found.changes} >= {"hardware.gpus"}


def test_an_fp8_cache_holds_twice_the_tokens() -> None:
    plain = memory_of(model("Qwen/Qwen3-4B"), gpu("L4"), ENGINE)
    small = memory_of(model("Qwen/Qwen3-4B"), gpu("L4"), replace(ENGINE, kv_cache_dtype="fp8"))
    assert small.kv_tokens == pytest.approx(2 * plain.kv_tokens, abs=32)


def test_float32_doubles_the_weights_and_the_cache() -> None:
    half = memory_of(model("Qwen/Qwen3-0.6B"), gpu("T4"), ENGINE)
    full = memory_of(model("Qwen/Qwen3-0.6B"), gpu("T4"), replace(ENGINE, dtype="float32"))
    assert full.weights == pytest.approx(2 * half.weights, rel=0.02)
    assert full.kv_bytes_per_token == 2 * half.kv_bytes_per_token


@pytest.mark.parametrize(
    ("name", "logged"),
    [
        ("Qwen/Qwen3-4B", 7.5552),
        ("Qwen/Qwen3-4B-Instruct-2507", 7.6065),
        ("Qwen/Qwen3-8B", 15.2683),
        ("Qwen/Qwen3-32B", 61.03),
        ("meta-llama/Llama-3.1-8B-Instruct", 14.9889),
        ("Qwen/Qwen2.5-7B-Instruct", 14.2488),
        ("Qwen/Qwen3-0.6B", 1.1201),
        ("Qwen/Qwen3-8B-AWQ", 5.7088),
    ],
)
def test_weights_are_what_vllm_logs_to_a_fiftieth_of_a_gib(name: str, logged: float) -> None:
    assert memory_of(model(name), gpu("H200"), ENGINE).weights == pytest.approx(logged, abs=0.02)


def test_a_cold_start_sets_the_embedding_aside_and_a_restart_does_not() -> None:
    served = model("Qwen/Qwen3-8B")
    cold = memory_of(served, gpu("RTX 4090"), ENGINE)
    warm = memory_of(served, gpu("RTX 4090"), replace(ENGINE, compiled=True))
    embedding = served.padded_vocab() * served.hidden * 2 / GIB
    assert cold.activation == pytest.approx(embedding, rel=0.05)
    assert warm.kv_tokens > cold.kv_tokens
    assert warm.outside == cold.outside


@pytest.mark.parametrize(
    ("name", "version", "expected"),
    [
        ("Qwen/Qwen3-4B", "0.7.3", "v0"),
        ("Qwen/Qwen3-4B", "0.21.0", "v1"),
        ("Qwen/Qwen3-4B", "0.22.1", "v2"),
        ("Qwen/Qwen3-4B-AWQ", "0.23.0", "v1"),
        ("Qwen/Qwen3-4B-AWQ", "0.24.0", "v2"),
        ("meta-llama/Llama-3.1-8B-Instruct", "0.22.1", "v1"),
        ("meta-llama/Llama-3.1-8B-Instruct", "0.23.0", "v2"),
        ("Qwen/Qwen2.5-7B-Instruct", "0.24.0", "v1"),
        ("Qwen/Qwen2.5-7B-Instruct", "0.25.1", "v2"),
        ("Qwen/Qwen3-30B-A3B", "0.32.0", "v1"),
    ],
)
def test_the_model_runner_depends_on_release_and_architecture(name: str, version: str, expected: str) -> None:
    assert runner(parse_version(version), model(name)) == expected


@pytest.mark.parametrize(
    ("name", "version", "reserved"),
    [
        ("Qwen/Qwen3-4B", "0.19.1", False),
        ("Qwen/Qwen3-4B", "0.21.0", True),
        ("Qwen/Qwen3-4B", "0.27.1", False),
        ("Qwen/Qwen3-4B", "0.28.0", False),
        ("Qwen/Qwen3-4B", "0.29.0", True),
        ("Qwen/Qwen3-30B-A3B", "0.27.1", True),
    ],
)
def test_graphs_come_out_of_the_budget_only_where_the_release_reserves_them(
    name: str, version: str, reserved: bool
) -> None:
    parsed = parse_version(version)
    assert reserves_graphs(parsed, runner(parsed, model(name))) is reserved
    memory = memory_of(model(name), gpu("H100 SXM"), replace(ENGINE, version=version))
    assert (memory.reserved_graphs > 0) is reserved
    assert memory.graphs > 0


def test_eager_mode_captures_no_graphs() -> None:
    assert memory_of(model("Qwen/Qwen3-4B"), gpu("L4"), replace(ENGINE, eager=True)).graphs == 0


@pytest.mark.parametrize(
    ("version", "sequences", "tokens", "graphs"),
    [("0.27.1", 256, 2048, 51 + 35), ("0.9.2", 256, 2048, 67), ("0.11.0", 256, 2048, 67 + 35), ("0.27.1", 8, 2048, 9)],
)
def test_as_many_graphs_are_captured_as_logs_show(version: str, sequences: int, tokens: int, graphs: int) -> None:
    assert graph_sizes(parse_version(version), sequences, tokens) == graphs


@pytest.mark.parametrize(
    ("version", "capability", "flashinfer", "expected"),
    [
        ("0.9.2", (8, 9), True, 14),
        ("0.9.2", (8, 9), False, 38),
        ("0.9.2", (7, 5), True, 38),
        ("0.15.1", (9, 0), True, 38),
        ("0.19.1", (7, 5), True, 14),
        ("0.27.1", (7, 5), True, 14),
    ],
)
def test_the_sampler_depends_on_release_card_and_image(
    version: str, capability: tuple[int, int], flashinfer: bool, expected: int
) -> None:
    assert sampler_bytes(parse_version(version), capability, flashinfer) == expected


def test_batch_defaults_grow_with_the_card_but_not_on_an_a100() -> None:
    assert batch_defaults((0, 27, 1), "L4", 22) == (2048, 256)
    assert batch_defaults((0, 27, 1), "A100 80GB SXM", 79) == (2048, 256)
    assert batch_defaults((0, 27, 1), "H100 SXM", 79) == (8192, 1024)
    assert batch_defaults((0, 32, 0), "B200", 178) == (16384, 1024)


@pytest.mark.parametrize(("text", "expected"), [("v0.27.1", (0, 27, 1)), ("0.10.1.1", (0, 10, 1)), ("0.9", (0, 9, 0))])
def test_versions_are_read_as_people_write_them(text: str, expected: tuple[int, int, int]) -> None:
    assert parse_version(text) == expected


def test_text_that_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="such as"):
        parse_version("latest")


@pytest.mark.parametrize(
    ("version", "tag", "cuda", "driver"),
    [
        ("0.27.1", "v0.27.1", (13, 0), 580),
        ("0.27.1", "v0.27.1-cu129", (12, 9), 575),
        ("0.11.0", "v0.11.0", (12, 9), 575),
    ],
)
def test_the_images_cuda_and_driver_follow_from_its_tag(
    version: str, tag: str, cuda: tuple[int, int], driver: int
) -> None:
    assert image_cuda(parse_version(version), tag) == cuda
    assert driver_for(cuda) == driver
