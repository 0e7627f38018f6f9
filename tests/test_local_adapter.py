"""`local` as an adapter: what the spec becomes on a given machine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from providers.base import KEY, Ask, Declaration, Declared
from providers.local.adapter import ADAPTER, LocalOptions
from providers.local.pricing import Machine, parse_nvidia_smi
from serving.cost import estimate
from serving.spec import DeploymentSpec

PLAIN = Machine(cores=2, memory_gib=24, gpu=None, capability=0.0, vllm=False, stand_in="/models/SmolLM2.gguf")
GPU = replace(PLAIN, gpu="Tesla T4", capability=7.5, vllm=True)


def ask(machine: Machine = PLAIN, options: dict[str, Any] | None = None, **sections: Any) -> Ask:
    return Ask(DeploymentSpec.model_validate(sections), LocalOptions.model_validate(options or {}), machine)


def declared(question: Ask) -> Declared:
    assert ADAPTER.unsupported(question) == []
    (offer,) = ADAPTER.offers(question)
    return ADAPTER.resources(question, offer)


def server(question: Ask) -> Declaration:
    (only,) = declared(question).resources
    return only


def test_without_a_gpu_a_stand_in_answers_and_everything_says_so() -> None:
    plan = declared(ask())
    inputs = plan.resources[0].inputs
    assert inputs["engine"] == "llama"
    assert inputs["model"] == PLAIN.stand_in
    assert inputs["servedName"] == "qwen3-4b-instruct-2507"
    assert inputs["aliases"] == [plan.model]
    assert plan.model == "qwen3-4b-instruct-2507 (stand-in: SmolLM2-135M-Instruct)"
    assert "stands in for Qwen/Qwen3-4B-Instruct-2507" in plan.notes[0]
    assert "no GPU used" in plan.hardware
    assert inputs["apiKey"] == KEY


def test_with_a_gpu_and_vllm_the_real_model_is_served_with_the_flags_of_the_clouds() -> None:
    plan = declared(ask(GPU))
    inputs = plan.resources[0].inputs
    assert inputs["engine"] == "vllm"
    assert plan.model == "qwen3-4b-instruct-2507"
    assert plan.notes == ()
    args = " ".join(inputs["args"])
    assert args.startswith("Qwen/Qwen3-4B-Instruct-2507 --served-model-name qwen3-4b-instruct-2507")
    for flag in ("--max-model-len 8192", "--gpu-memory-utilization 0.85", "--dtype half"):
        assert flag in args


def test_a_newer_gpu_keeps_the_models_own_precision() -> None:
    assert "--dtype auto" in " ".join(server(ask(replace(GPU, capability=8.9))).inputs["args"])


def test_a_gpu_without_vllm_uses_the_stand_in() -> None:
    assert server(ask(replace(GPU, vllm=False))).inputs["engine"] == "llama"


@pytest.mark.parametrize(
    ("machine", "missing"), [(PLAIN, "an NVIDIA GPU"), (replace(GPU, vllm=False), "`vllm` on PATH")]
)
def test_asking_for_vllm_where_it_cant_run_is_refused_with_what_is_missing(machine: Machine, missing: str) -> None:
    (reason,) = ADAPTER.unsupported(ask(machine, {"engine": "vllm"}))
    assert reason.key == "local.engine"
    assert missing in reason.text


def test_without_the_stand_in_package_it_says_how_to_get_one() -> None:
    (reason,) = ADAPTER.unsupported(ask(replace(PLAIN, stand_in="")))
    assert reason.key == "local.gguf"
    assert "make up" in reason.text


def test_the_stand_ins_own_context_is_the_limit_and_is_told() -> None:
    plan = declared(ask(model={"max_len": 32768}))
    assert plan.resources[0].inputs["contextTokens"] == 8192
    assert "Its longest request is 8192 tokens, not 32768." in plan.notes


def test_a_gguf_of_your_own_keeps_its_template_and_its_context() -> None:
    plan = declared(ask(options={"gguf": "/models/mine.gguf"}, model={"max_len": 32768}))
    inputs = plan.resources[0].inputs
    assert (inputs["model"], inputs["contextTokens"], inputs["chatTemplate"]) == ("/models/mine.gguf", 32768, "")
    assert "stand-in: mine" in plan.model


def test_settings_of_other_platforms_stay_valid_and_are_named() -> None:
    question = ask(scaling={"min": 0, "max": 3}, hardware={"spot": True, "gpus": ["L4"]})
    assert declared(question).notes[-1] == (
        "Not used by local: scaling.min (nothing sleeps here), scaling.max (nothing is added under load), "
        "hardware.spot, hardware.gpus."
    )


def test_several_servers_get_a_free_port_each() -> None:
    (reason,) = ADAPTER.unsupported(ask(options={"port": 8000}, scaling={"min": 2}))
    assert (reason.key, "0 gives each" in reason.text) == ("local.port", True)
    assert ADAPTER.unsupported(ask(scaling={"min": 2})) == []
    assert not any("scaling" in note for note in declared(ask(scaling={"min": 2})).notes)


def test_it_costs_nothing_and_says_why() -> None:
    question = ask()
    cost = estimate(question.spec, ADAPTER.offers(question)[0])
    assert cost.as_output()["monthly_usd"] == "0.00"
    assert "electricity" in cost.lines[0].rate.assumption


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Tesla T4, 7.5\n", ("Tesla T4", 7.5)),
        ("NVIDIA L4, 8.9\nNVIDIA L4, 8.9\n", ("NVIDIA L4", 8.9)),
        ("No devices were found\n", (None, 0.0)),
        ("", (None, 0.0)),
    ],
)
def test_nvidia_smi_is_read(text: str, found: tuple[str | None, float]) -> None:
    assert parse_nvidia_smi(text) == found
