"""The model catalogue and the reader of config.json."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.models import (
    Model,
    UnknownModel,
    UnsupportedModel,
    all_models,
    model,
    parse_config,
    quantized_copies,
)

QWEN3_4B: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "hidden_size": 2560,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 9728,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40960,
    "torch_dtype": "bfloat16",
    "sliding_window": None,
    "use_sliding_window": False,
}

DEEPSEEK_V2_LITE: dict[str, Any] = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "num_hidden_layers": 27,
    "hidden_size": 2048,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 512,
    "q_lora_rank": None,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 102400,
    "tie_word_embeddings": False,
    "max_position_embeddings": 163840,
    "torch_dtype": "bfloat16",
}


@pytest.mark.parametrize("known", [m for m in all_models() if not m.quantization], ids=lambda m: m.name)
def test_the_formula_counts_the_published_parameters(known: Model) -> None:
    assert known.parameters is not None
    assert known.count_parameters() == known.parameters


def test_a_config_gives_the_catalogues_shape() -> None:
    parsed = parse_config("Qwen/Qwen3-4B", QWEN3_4B)
    assert parsed == model("Qwen/Qwen3-4B")
    assert parsed.count_parameters() == 4_022_468_096


def test_one_token_of_qwen3_4b_takes_144_kib_of_cache() -> None:
    assert model("Qwen/Qwen3-4B").kv_bytes_per_token(2) == 147_456
    assert model("Qwen/Qwen3-4B").kv_bytes_per_token(1) == 73_728
    assert model("Qwen/Qwen3-32B").kv_bytes_per_token(2, tensor_parallel=2) == 131_072
    assert model("meta-llama/Llama-3.1-8B-Instruct").kv_bytes_per_token(2) == 131_072


def test_more_gpus_than_kv_heads_repeat_the_heads() -> None:
    assert model("Qwen/Qwen2.5-3B-Instruct").kv_bytes_per_token(2, tensor_parallel=4) == 36 * 2 * 128 * 2


def test_latent_attention_is_read_and_marked_as_a_rougher_estimate() -> None:
    lite = parse_config("deepseek-ai/DeepSeek-V2-Lite", DEEPSEEK_V2_LITE)
    assert lite.kv_bytes_per_token(2) == 27 * (512 + 64) * 2
    assert lite.count_parameters() == pytest.approx(15_706_484_224, rel=1e-3)
    assert lite.caveats


@pytest.mark.parametrize(
    ("settings", "method", "bits", "group"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq", 4, 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "gptq", 8, 0),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", 8, 0),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes", 4, 0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "modelopt", 4, 16),
        ({"quant_method": "mxfp4"}, "mxfp4", 4, 32),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"num_bits": 8}}}},
            "compressed-tensors",
            8,
            0,
        ),
    ],
)
def test_the_quantisation_of_the_weights_is_read(settings: dict[str, Any], method: str, bits: int, group: int) -> None:
    parsed = parse_config("x/y", {**QWEN3_4B, "quantization_config": settings})
    assert (parsed.quantization, parsed.bits, parsed.group) == (method, bits, group)
    assert parsed.linear_bits() < 16


def test_a_vision_models_text_part_is_read_and_the_rest_is_owned_up_to() -> None:
    parsed = parse_config("x/vl", {"architectures": ["QwenVL"], "text_config": QWEN3_4B})
    assert parsed.layers == 36
    assert "not counted" in parsed.caveats[0]


def test_yarn_stretches_the_context() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    assert parse_config("x/y", {**QWEN3_4B, "rope_scaling": scaling}).max_positions == 131_072


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_encoder_decoder": True}, "encoder-decoder"),
        ({"layer_types": ["linear_attention", "full_attention"]}, "linear-attention"),
        ({"mamba_d_state": 128}, "state-space"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_told_is_refused_with_the_reason(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        parse_config("x/y", {**QWEN3_4B, **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_attention_heads": 0}, "`num_attention_heads`: 0, where a whole number above 0"),
        ({"vocab_size": -5}, "`vocab_size`: -5"),
        ({"num_hidden_layers": True}, "`num_hidden_layers`: True"),
        ({"hidden_size": 2560.0}, r"`hidden_size`: 2560\.0"),
        ({"max_position_embeddings": "40960"}, "`max_position_embeddings`: '40960'"),
        ({"num_key_value_heads": 0}, "`num_key_value_heads`: 0"),
        ({"head_dim": -128}, "`head_dim`: -128"),
        ({"intermediate_size": 0}, "`intermediate_size`: 0"),
        ({"num_experts": -8}, "`num_experts`: -8, where a whole number that is not negative"),
        ({"num_key_value_heads": 64}, "32 attention heads for 64 key-value heads"),
        ({"hidden_size": 16, "head_dim": None}, "a hidden size of 16"),
        ({"first_k_dense_replace": 99}, "99 dense of 36 layers"),
        ({"kv_lora_rank": 512}, "0 wide heads"),
        ({"quantization_config": {"quant_method": "awq", "bits": -4}}, "-4 bits"),
        ({"quantization_config": {"quant_method": "awq", "bits": "4"}}, "`bits`: '4', where a number works"),
        ({"layer_types": 3}, "`layer_types`: 3, where a list works"),
    ],
    ids=str,
)
def test_a_shape_that_no_decoder_has_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        parse_config("x/y", {**QWEN3_4B, **change})


ODD = st.one_of(st.integers(-3, 3), st.floats(), st.text(max_size=3), st.none(), st.lists(st.integers(), max_size=2))
QUANTIZED = st.fixed_dictionaries(
    {"quant_method": st.sampled_from(["awq", "gptq", "fp8", "compressed-tensors"])},
    optional={
        "bits": ODD,
        "group_size": ODD,
        "config_groups": ODD | st.fixed_dictionaries({"a": ODD | st.fixed_dictionaries({"weights": ODD})}),
    },
)
SCALED = st.fixed_dictionaries({"type": st.just("yarn"), "factor": ODD, "original_max_position_embeddings": ODD})


@given(
    st.sampled_from([*QWEN3_4B, "layer_types", "mlp_only_layers", "rope_scaling", "quantization_config"]),
    ODD | QUANTIZED | SCALED,
)
def test_a_config_is_read_or_refused_and_never_fails_otherwise(key: str, value: object) -> None:
    try:
        parsed = parse_config("x/y", {**QWEN3_4B, key: value})
    except UnsupportedModel as error:
        assert "x/y" in str(error)
    else:
        assert parsed.kv_bytes_per_token(2) > 0
        assert parsed.count_parameters() > 0


def test_names_are_found_in_any_case_and_misses_are_answered_with_near_names() -> None:
    assert model("qwen/qwen3-4b").name == "Qwen/Qwen3-4B"
    with pytest.raises(UnknownModel, match="Qwen/Qwen3-4B-Instruct-2507") as caught:
        model("Qwen/Qwen3-4B-Instruct-2508")
    assert caught.value.suggestions


def test_quantised_copies_come_smallest_first() -> None:
    names = [m.name for m in quantized_copies(model("Qwen/Qwen3-8B"))]
    assert names == ["Qwen/Qwen3-8B-AWQ", "nvidia/Qwen3-8B-NVFP4", "Qwen/Qwen3-8B-FP8"]
