"""Each rule of the preflight: what it refuses, against which key, and what it says would work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from serving.advisories import Advisory, Product, advisories, known, parse_release
from serving.gpus import gpu
from serving.models import Model, model, parse_config
from serving.preflight import Finding, Host, Preflight, engine_of, preflight
from serving.spec import DEFAULT_VLLM_VERSION, DeploymentSpec

MODERN = Host(platform="", driver=580)


def check(gpu_name: str, host: Host = MODERN, served: Model | None = None, **sections: Any) -> Preflight:
    spec = DeploymentSpec.model_validate(sections)
    return preflight(spec, served or model(spec.model.name), gpu(gpu_name), host)


def only(found: Preflight) -> Finding:
    assert len(found.refusals) == 1, [str(f) for f in found.refusals]
    return found.refusals[0]


@pytest.mark.parametrize("name", ["T4", "L4", "RTX A4000", "RTX 4000 Ada", "RTX 4090", "A100 80GB SXM", "H100 SXM"])
def test_the_default_spec_passes_on_common_cards(name: str) -> None:
    found = check(name)
    assert found.ok, [str(f) for f in found.refusals]
    assert found.fit.longest >= 8192


def test_a_4090_is_refused_at_vllms_default_utilisation_and_accepted_at_ours() -> None:
    refused = only(check("RTX 4090", engine={"gpu_memory_utilization": 0.92}))
    assert refused.key == "engine.gpu_memory_utilization"
    assert "engine.gpu_memory_utilization: 0.9 " in refused.works
    assert check("RTX 4090", engine={"gpu_memory_utilization": 0.85}).ok


def test_a_context_that_is_too_long_is_answered_with_the_longest() -> None:
    refused = only(check("T4", model={"max_len": 32768}))
    assert refused.key == "model.max_len"
    assert "27,328 tokens" in refused.wrong
    assert "model.max_len: 27136" in refused.works


def test_a_model_that_is_too_large_is_answered_with_its_small_copy_and_a_larger_card() -> None:
    refused = only(check("RTX 4090", model={"name": "Qwen/Qwen3-14B"}, hardware={"disk_gb": 80}))
    assert refused.key == "hardware.gpus"
    assert "Qwen/Qwen3-14B-AWQ" in refused.works
    assert "hardware.gpus: [" in refused.works
    assert "hardware.gpu_count: 2" in refused.works


def test_a_larger_card_is_one_that_the_platform_rents() -> None:
    host = Host(platform="modal", driver=580)
    refused = only(check("A10", host, model={"name": "Qwen/Qwen3-14B"}, hardware={"disk_gb": 80}))
    assert "hardware.gpus: [A100 40GB SXM]" in refused.works


def test_bfloat16_is_refused_below_capability_8() -> None:
    refused = only(check("T4", model={"dtype": "bfloat16"}))
    assert (refused.key, refused.value) == ("model.dtype", "bfloat16")
    assert "7.5" in refused.wrong
    assert "`half`" in refused.works


def test_a_model_that_overflows_in_half_precision_is_refused_on_a_t4() -> None:
    assert "overflows" in only(check("T4", model={"name": "google/gemma-3-1b-it"})).wrong
    assert check("T4", model={"name": "google/gemma-3-1b-it", "dtype": "float32"}).refusals == ()


@pytest.mark.parametrize(("name", "fine"), [("T4", False), ("A100 80GB SXM", False), ("L4", True), ("H100 SXM", True)])
def test_an_fp8_kv_cache_needs_capability_8_9(name: str, fine: bool) -> None:
    keys = [f.key for f in check(name, model={"kv_cache_dtype": "fp8"}).refusals]
    assert keys == ([] if fine else ["model.kv_cache_dtype"])


def test_gptq_on_gguf_weights_is_refused_and_says_why() -> None:
    refused = only(check("L4", model={"name": "Qwen/Qwen3-4B-GGUF", "quantization": "gptq"}))
    assert refused.key == "model.quantization"
    assert "quantised with gguf, not with gptq" in refused.wrong


def test_what_is_advised_for_weights_that_vllm_no_longer_loads_passes() -> None:
    refused = only(check("T4", model={"name": "Qwen/Qwen3-4B-GGUF", "quantization": "gptq"}))
    assert refused.works == (
        "Leave it out, and serve Qwen/Qwen3-4B-AWQ, or set `engine.version: 0.23.0`, the last that loads them"
    )
    assert check("T4", model={"name": "Qwen/Qwen3-4B-AWQ"}).ok
    assert check("T4", model={"name": "Qwen/Qwen3-4B-GGUF"}, engine={"version": "0.23.0"}).ok
    gone = only(check("T4", model={"name": "Qwen/Qwen3-4B-GGUF"}))
    assert gone.works == "Serve Qwen/Qwen3-4B-AWQ, or set `engine.version: 0.23.0`, the last that loads them"


def test_a_copy_with_the_quantisation_that_was_named_is_advised_first() -> None:
    asked = {"name": "Qwen/Qwen3-4B-GGUF", "quantization": "awq"}
    assert only(check("T4", model=asked)).works == "Serve Qwen/Qwen3-4B-AWQ"
    assert check("T4", model={**asked, "name": "Qwen/Qwen3-4B-AWQ"}).ok


def test_weights_that_load_may_name_their_own_quantisation() -> None:
    asked = {"name": "Qwen/Qwen3-4B-GGUF", "quantization": "gptq"}
    refused = only(check("L4", model=asked, engine={"version": "0.23.0"}))
    assert refused.works.startswith("`gguf`, or leave it out")
    assert check("L4", model={**asked, "quantization": "gguf"}, engine={"version": "0.23.0"}).ok


def test_a_quantisation_named_for_plain_weights_is_answered_with_the_quantised_copy() -> None:
    refused = only(check("L4", model={"name": "Qwen/Qwen3-4B", "quantization": "awq"}))
    assert "are not quantised" in refused.wrong
    assert "Qwen/Qwen3-4B-AWQ" in refused.works


@pytest.mark.parametrize("named", ["awq", "awq_marlin", "auto_awq", None])
def test_every_spelling_of_the_weights_own_quantisation_is_fine(named: str | None) -> None:
    assert check("L4", model={"name": "Qwen/Qwen3-4B-AWQ", "quantization": named}).ok


def test_plain_weights_may_be_quantised_to_fp8_while_they_load() -> None:
    assert check("L4", model={"name": "Qwen/Qwen3-4B", "quantization": "fp8"}).ok


@pytest.mark.parametrize(
    ("name", "version", "gone"),
    [
        ("Qwen/Qwen3-4B-GGUF", "0.23.0", False),
        ("Qwen/Qwen3-4B-GGUF", "0.24.0", True),
        ("unsloth/Qwen2.5-7B-Instruct-bnb-4bit", "0.27.1", False),
        ("unsloth/Qwen2.5-7B-Instruct-bnb-4bit", "0.28.0", True),
    ],
)
def test_quantisations_that_left_vllm_are_refused_from_that_release_on(name: str, version: str, gone: bool) -> None:
    keys = [f.key for f in check("L4", model={"name": name}, engine={"version": version}).refusals]
    assert keys == (["model.name"] if gone else [])


@pytest.mark.parametrize(
    ("name", "version", "kind"),
    [
        ("L4", "0.27.1", "native"),
        ("A10", "0.27.1", "weight-only"),
        ("T4", "0.27.1", "weight-only"),
        ("T4", "0.13.0", "refused"),
    ],
)
def test_fp8_weights_run_natively_weight_only_or_not_at_all(name: str, version: str, kind: str) -> None:
    found = check(name, model={"name": "Qwen/Qwen3-4B-FP8"}, engine={"version": version})
    refused = [f for f in found.refusals if f.key == "model.name"]
    noted = [f for f in found.notes if f.key == "model.name"]
    assert (bool(refused), bool(noted)) == (kind == "refused", kind == "weight-only")


@pytest.mark.parametrize(
    ("host", "refused", "offered"),
    [
        (Host(driver=580), False, ""),
        (Host(), False, ""),
        (Host(driver=575), True, "-cu129"),
        (Host(driver=535), True, "driver 580"),
    ],
)
def test_the_images_cuda_is_compared_with_the_hosts_driver(host: Host, refused: bool, offered: str) -> None:
    found = check("L4", host)
    assert [f.key for f in found.refusals] == (["engine.version"] if refused else [])
    assert all("CUDA 13.0" in f.wrong and offered in f.works for f in found.refusals)


def test_a_tag_may_choose_the_older_cuda() -> None:
    assert check("L4", Host(driver=575), engine={"image": "vllm/vllm-openai:v0.27.1-cu129"}).ok


def test_volta_is_refused_since_cuda_13_and_pascal_always() -> None:
    assert [f.key for f in check("V100 32GB").refusals] == ["hardware.gpus"]
    assert "hardware.gpus" not in [f.key for f in check("V100 32GB", engine={"version": "0.19.1"}).refusals]
    assert "hardware.gpus" in [f.key for f in check("P40").refusals]


def test_a_disk_that_is_too_small_is_answered_with_the_size_that_is_not() -> None:
    refused = only(check("L4", hardware={"disk_gb": 40}))
    assert (refused.key, refused.works) == ("hardware.disk_gb", "At least 50")
    assert check("L4", hardware={"disk_gb": 50}).ok


def test_runpod_rents_no_t4_and_names_what_it_rents_instead() -> None:
    refused = only(check("T4", Host(platform="runpod", driver=580)))
    assert refused.key == "hardware.gpus"
    assert "runpod rents no T4" in refused.wrong
    assert "RTX" in refused.works


def test_a_platform_that_rents_nothing_has_no_opinion_on_cards() -> None:
    assert check("RTX 4080", Host(platform="local")).ok


def test_releases_with_an_open_advisory_are_refused() -> None:
    found = check("L4", engine={"version": "0.21.0"})
    assert "CVE-2026-48746" in only(found).wrong
    assert only(found).works == "0.22.0 or later"
    assert check("L4", engine={"version": "0.22.0"}).ok


@pytest.mark.parametrize(("tag", "open_"), [("0.10.1", True), ("0.10.1.1", False), ("0.10.2-cu129", False)])
def test_a_release_in_four_parts_is_told_from_the_one_before_it(tag: str, open_: bool) -> None:
    found = check("L4", engine={"image": f"vllm/vllm-openai:v{tag}"})
    about = [f for f in found.findings if "CVE-2025-48956" in f.wrong]
    assert [f.works for f in about] == (["0.10.1.1 or later"] if open_ else [])
    assert not any("fixed in" in f.wrong for f in about)


def test_every_advisory_names_releases_in_order() -> None:
    every = [advisory for product in get_args(Product) for advisory in advisories(product)]
    assert len({advisory.id for advisory in every}) == len(every) > 20
    for advisory in every:
        assert parse_release(advisory.since) < parse_release(advisory.fixed)
        assert advisory.affects(advisory.since)
        assert not advisory.affects(advisory.fixed)
    with pytest.raises(ValueError, match="such as"):
        parse_release("nightly")


PUBLIC = [advisory for advisory in advisories() if advisory.bars]


@pytest.mark.parametrize("advisory", PUBLIC, ids=lambda advisory: advisory.id)
def test_no_release_with_a_grave_weakness_is_put_on_a_public_port(advisory: Advisory) -> None:
    extra = {"extra_args": [advisory.needs]} if advisory.needs else {}
    for engine in ({"version": advisory.since}, {"image": f"vllm/vllm-openai:v{advisory.since}-cu129"}):
        found = check("L4", engine={**engine, **extra})
        (refused,) = [finding for finding in found.refusals if advisory.id in finding.wrong]
        assert refused.key == f"engine.{next(iter(engine))}"
        assert refused.works == f"{advisory.fixed} or later"
    fixed = check("L4", engine={"version": advisory.fixed, **extra})
    assert not [finding for finding in fixed.findings if advisory.id in finding.wrong]


@pytest.mark.parametrize("advisory", [one for one in advisories() if not one.bars], ids=lambda advisory: advisory.id)
def test_what_only_callers_can_use_or_nobody_is_no_reason_to_refuse(advisory: Advisory) -> None:
    found = check("L4", engine={"version": advisory.since})
    assert not [finding for finding in found.refusals if advisory.id in finding.wrong]
    told = " ".join(finding.wrong for finding in found.notes)
    avoidable = advisory.reach == "caller" and not advisory.affects(DEFAULT_VLLM_VERSION)
    assert (advisory.id in told) is avoidable


def test_a_weakness_of_an_option_counts_with_the_option_only() -> None:
    engine = {"version": "0.30.0"}
    assert check("L4", engine=engine).ok
    for spelled in ("--trust-remote-code", "--trust_remote_code", "--trust-remote"):
        refused = only(check("L4", engine={**engine, "extra_args": [spelled]}))
        assert (refused.wrong.split(":")[0], refused.works) == ("CVE-2026-114053", "0.31.0 or later")


def test_nothing_that_is_pinned_here_has_a_grave_weakness() -> None:
    root = Path(__file__).parents[1]
    pins = dict(
        line.split("==")
        for name in ("constraints.txt", "constraints-gateway.txt")
        for line in (root / name).read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    releases: dict[Product, str] = {
        "vllm": DEFAULT_VLLM_VERSION,
        "litellm": pins["litellm"],
        # 2026.10.11549 of the package has llama.cpp's build 11549.
        "llama.cpp": pins["xllamacpp"].rpartition(".")[2],
    }
    grave = [(product, one.id) for product, release in releases.items() for one in known(product, release) if one.bars]
    # That one needs --trust-remote-code, with which preview refuses it.
    assert grave == [("vllm", "CVE-2026-114053")]


def test_the_release_in_an_images_tag_counts_rather_than_the_default() -> None:
    found = check("L4", engine={"image": "vllm/vllm-openai:v0.21.0@sha256:" + "0" * 64})
    assert [f.key for f in found.refusals] == ["engine.image"]


def test_a_context_beyond_what_the_weights_know_is_refused() -> None:
    refused = only(check("H100 SXM", model={"name": "Qwen/Qwen3-4B", "max_len": 65536}))
    assert (refused.key, refused.works) == ("model.max_len", "At most 40960")


def test_gpus_must_share_the_heads_evenly() -> None:
    refused = only(check("L4", model={"name": "Qwen/Qwen2.5-0.5B-Instruct"}, hardware={"gpu_count": 4}))
    assert refused.key == "hardware.gpu_count"
    assert "One of 1, 2, 7" in refused.works


def test_memory_that_the_estimate_leaves_out_is_noted() -> None:
    for arg in ("--enable-lora", "--enable_lora", "--cpu-offload_gb=4", "--speculative-config={}"):
        assert [f.key for f in check("L4", engine={"extra_args": [arg]}).notes] == ["engine.extra_args"]


def test_a_finding_names_the_stack_config_key_the_value_and_what_works() -> None:
    text = str(only(check("T4", model={"dtype": "bfloat16"})))
    assert text.startswith("vllm-anywhere:model.dtype = bfloat16: ")
    assert text.endswith("half there")


def test_an_unknown_model_is_judged_by_its_config_and_marked_extrapolated() -> None:
    served = parse_config(
        "acme/wide-moe",
        {
            "architectures": ["MixtralForCausalLM"],
            "num_hidden_layers": 32,
            "hidden_size": 4096,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "intermediate_size": 14336,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "vocab_size": 32000,
            "max_position_embeddings": 32768,
        },
    )
    found = check("H200", served=served, hardware={"disk_gb": 200})
    assert served.count_parameters() == pytest.approx(46_702_792_704, rel=1e-4)
    assert found.ok
    assert found.fit.extrapolated


def test_the_flags_of_the_spec_are_those_of_the_estimate() -> None:
    spec = DeploymentSpec.model_validate(
        {
            "model": {"max_len": 4096, "kv_cache_dtype": "fp8"},
            "engine": {"max_num_seqs": 32, "enforce_eager": True, "max_num_batched_tokens": 1024},
            "hardware": {"gpu_count": 2},
        }
    )
    engine = engine_of(spec)
    assert (engine.max_len, engine.kv_cache_dtype, engine.max_num_seqs) == (4096, "fp8", 32)
    assert (engine.eager, engine.max_num_batched_tokens, engine.tensor_parallel) == (True, 1024, 2)
    assert (engine.version, engine.utilization) == ("0.27.1", 0.85)
